//! What the back end is asked about users that are to be notified, and about what they want.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::{Mode, Push, Told, Wishes, kind_name, yes_or_no};
use crate::tenant::Tenant;

/// Users that one question is about: the answer has its limit, too.
const USERS_OF_A_QUESTION: usize = 512;
/// Users whose counters are asked for one by one, and how long that may take.
const COUNTERS_MAX: usize = 100;
const COUNTERS_WITHIN: Duration = Duration::from_secs(3);
/// Kinds of things a back end may list.
const ITEMS_MAX: usize = 1000;

impl Tenant {
    /// A list of objects that the back end gives for `hook`; nothing, if it says nothing of the kind.
    pub(crate) async fn listed_by_hook(&self, hook: &str) -> Vec<Map<String, Json>> {
        let answer = self.hooks().ask(self, hook, "{}".to_owned()).await;
        let items = answer.and_then(|answer| serde_json::from_str::<Vec<Json>>(&answer).ok());
        let items = items.unwrap_or_default().into_iter().take(ITEMS_MAX);
        items
            .filter_map(|item| if let Json::Object(item) = item { Some(item) } else { None })
            .collect()
    }

    /// The number on the badge of a user's mobile app, if the back end says one.
    pub(crate) async fn counter_by_hook(&self, user: i64) -> Option<i64> {
        let params = format!(r#"{{"USER_ID":{user}}}"#);
        let answer = self.hooks().ask(self, "mobile.counter", params).await?;
        answer.trim().parse().ok().filter(|counter| *counter >= 0)
    }

    /// What the back end knows of users: where they are, and their counters.
    pub(super) async fn told_by_hook(&self, users: &[i64]) -> HashMap<i64, Told> {
        let mut all = HashMap::new();
        for users in users.chunks(USERS_OF_A_QUESTION) {
            let params = json!({ "USERS": users }).to_string();
            let Some(answer) = self.hooks().ask(self, "push.users", params).await else { break };
            let answer = serde_json::from_str::<Map<String, Json>>(&answer);
            all.extend(Self::told(answer.unwrap_or_default()));
        }
        all
    }

    fn told(answer: Map<String, Json>) -> impl Iterator<Item = (i64, Told)> {
        answer.into_iter().filter_map(|(user, told)| {
            let is = |name: &str| told.get(name) == Some(&Json::Bool(true));
            let told = Told {
                is_mobile: is("mobile"),
                has_desktop: is("desktop"),
                is_idle: is("idle"),
                badge: told.get("badge").and_then(Json::as_i64).filter(|badge| *badge >= 0),
            };
            Some((user.parse().ok()?, told))
        })
    }

    /// The numbers on the badges of users: those that are known already, and those that the back end says
    /// within a short time. Whoever is left out keeps the number.
    pub(super) async fn badges(
        &self,
        users: impl Iterator<Item = (i64, Option<i64>)>,
    ) -> HashMap<i64, i64> {
        let mut badges = HashMap::new();
        let mut missing = Vec::new();
        for (user, badge) in users {
            match badge {
                Some(badge) => _ = badges.insert(user, badge),
                None => missing.push(user),
            }
        }
        if missing.len() > COUNTERS_MAX {
            return badges;
        }
        let asking = async {
            for user in missing {
                let Some(badge) = self.counter_by_hook(user).await else { break };
                badges.insert(user, badge);
            }
        };
        // What came until then is used.
        let _ = tokio::time::timeout(COUNTERS_WITHIN, asking).await;
        badges
    }

    /// Lets the back end change modes: of each user who is to get something.
    pub(super) async fn modes_by_hook(&self, notification: &Push, modes: &mut [(i64, Mode, Told)]) {
        let asked: Map<String, Json> = modes
            .iter()
            .filter(|(_, mode, _)| *mode != Mode::NotFound)
            .map(|(user, mode, _)| (user.to_string(), mode.name().into()))
            .collect();
        if asked.is_empty() {
            return;
        }
        let params = json!({
            "MODES": asked,
            "MODULE_ID": notification.module_id,
            "TYPE": notification.kind,
            "MESSAGE": notification.message,
            "TAG": notification.tag,
            "SUB_TAG": notification.sub_tag,
            "APP_ID": notification.application(),
        });
        let Some(answer) = self.hooks().ask(self, "push.mode", params.to_string()).await else {
            return;
        };
        let Ok(answers) = serde_json::from_str::<Map<String, Json>>(&answer) else { return };
        for (user, mode, _) in modes.iter_mut().filter(|(_, mode, _)| *mode != Mode::NotFound) {
            match answers.get(&user.to_string()) {
                // It is not to be sent at all.
                Some(Json::Bool(false)) => *mode = Mode::NotFound,
                Some(Json::String(name)) => *mode = Mode::named(name).unwrap_or(*mode),
                _ => {}
            }
        }
    }

    /// Tells of what a user wants whether a notification's kind is not among it: by the user's own word,
    /// or by the default that the back end gives.
    pub(super) async fn unwanted_kind(
        &self,
        notification: &Push,
    ) -> impl Fn(Option<&str>) -> bool + use<> {
        let kind = notification.kind.clone().filter(|kind| !kind.is_empty());
        let name = kind.map(|kind| kind_name(&notification.module_id, &kind));
        let default = match &name {
            Some(name) => self.default_of_kind(name).await,
            None => true,
        };
        move |wanted| {
            let Some(name) = &name else { return false };
            let own = wanted.and_then(|wanted| Wishes::read(wanted).get(name));
            !own.unwrap_or(default)
        }
    }

    async fn default_of_kind(&self, name: &str) -> bool {
        let modules = self.listed_by_hook("mobile.push.types").await;
        let of_module = |module: &Map<String, Json>| {
            let module_id = module.get("module_id")?.as_str()?;
            let kinds = module.get("types")?.as_array()?;
            kinds.iter().find_map(|kind| {
                let is_it = kind_name(module_id, kind.get("type")?.as_str()?) == name;
                let default = kind.get("default").and_then(|it| yes_or_no(&it.to_string()));
                is_it.then_some(default == Some(true))
            })
        };
        modules.iter().find_map(of_module).unwrap_or(true)
    }
}
