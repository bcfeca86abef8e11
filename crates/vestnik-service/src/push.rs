//! Mobile push, the module's part (module.md §19): whom a notification reaches and how, what waits a while,
//! and the batches for the gateway that option `push_service_url` names.

mod asked;
mod batch;
mod device;
mod mode;
mod queue;
mod record;
mod wish;

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

pub use device::{APPLICATION, Device, DeviceError, Platform, Registration, unique_hash};
pub use mode::{Mode, Situation};
pub use queue::{DEFERRED_PER_RUN, PushBatch, Sent};
pub use record::Message;
pub(crate) use wish::{Wishes, kind_name, yes_or_no};

use crate::db::DatabaseError;
use crate::option::{Key, OptionError, Options};
use crate::php::{self, Escapes, Value};
use crate::tenant::{ServiceError, Tenant};
use batch::Making;

/// Users of one call.
pub const USERS_MAX: usize = 10_000;
/// Bytes of everything a notification brings; devices get 4096 of them.
const CONTENT_BYTES_MAX: usize = 64 * 1024;
/// The longest time a notification is worth sending, seconds: no service keeps one longer than four weeks.
const EXPIRY_MAX_S: i64 = 28 * 86_400;
/// A user who was active so lately is online, seconds.
const ONLINE_S: u64 = 300;
/// Seconds a notification is worth sending unless it says otherwise.
const EXPIRY_S: i64 = 43_200;
/// Bytes of a tag; a longer one is none.
const TAG_BYTES_MAX: usize = 255;
/// The sound of what comes in silence.
const SILENCE: &str = "silence.aif";
/// Options of a user.
const STATUS: &str = "push_status";
const SMART_FILTER: &str = "push_smartfilter_status";
/// The same where the smart filter is off unless the user says otherwise.
const SMART_FILTER_OFF: &str = "push_smartfilter_status_v2";
/// Which notifications a user wants.
pub(crate) const NOTIFICATIONS: &str = "mobilePushType";

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
fn from_base64(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).expect("base64")
}

/// Any number from 1 to 10,000: records carry one, and nothing depends on it.
fn any_number() -> u16 {
    let mut bytes = [0; 2];
    // Without random bytes every record has the same number.
    let _ = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes) % 10_000 + 1
}

/// A notification for users, as a back end asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Push {
    /// Who gets it: users above 0.
    pub users: Vec<i64>,
    /// The module it is of.
    pub module_id: String,
    /// Its kind, which a user may have switched off.
    pub kind: Option<String>,
    /// What it says.
    pub message: String,
    /// Its heading.
    pub title: String,
    /// What the application gets; the member `CATEGORY` says what can be done.
    pub params: Option<Value>,
    /// More for the application, by name.
    pub advanced: Vec<(String, Value)>,
    /// The number on the badge; absent: the user's counter.
    pub badge: Option<i64>,
    /// The file of a sound.
    pub sound: String,
    /// What waiting ones are removed by.
    pub tag: String,
    /// What waiting ones are removed by, and shown ones replaced.
    pub sub_tag: String,
    /// The application; empty: the usual one.
    pub application_id: String,
    /// Seconds it is worth sending; 0: now or never.
    pub expiry_s: Option<i64>,
    /// Whether it never waits.
    pub is_urgent: bool,
    /// Whether it is sent whatever the user is doing and wants.
    pub is_important: bool,
    /// Users who get the data and no text.
    pub skip_users: Vec<i64>,
    /// Notifications of one group in one call are one: the first.
    pub group: Option<String>,
}

/// Why nobody is notified. [`PushError::code`] is what the module calls it.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Option `push` is off.
    #[error("push notifications are off: option `push`")]
    Disabled,
    /// It is for nobody.
    #[error("a notification needs users above 0")]
    Recipient,
    /// It is for too many, or says too much.
    #[error("a notification is for at most {USERS_MAX} users and has at most 64 KiB")]
    TooMuch,
    /// It says and does nothing.
    #[error("a notification is an object with `message`, `params`, `advanced_params` or `badge`")]
    Parameters,
    /// Too much waits for the gateway.
    #[error("too many notifications wait for the gateway; try again later")]
    Overloaded,
    /// The options cannot be read.
    #[error("the options could not be read")]
    Options(#[from] OptionError),
    /// The tenant cannot be had.
    #[error("the tenant could not be read")]
    Tenant(#[from] ServiceError),
    /// The database failed.
    #[error("notifications could not be stored")]
    Database(#[from] DatabaseError),
}

impl PushError {
    /// The code of the PHP module (module.md §7.3).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Disabled => "PUSH_DISABLED",
            Self::Recipient => "RECIPIENT_FORMAT",
            Self::Parameters | Self::TooMuch => "EVENT_PUSH_PARAMETERS_FORMAT",
            Self::Overloaded => "PUSH_OVERLOADED",
            Self::Options(_) | Self::Tenant(_) | Self::Database(_) => "SERVER_ERROR",
        }
    }
}

/// What the back end knows of a user that nobody else does.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    is_mobile: bool,
    has_desktop: bool,
    is_idle: bool,
    badge: Option<i64>,
}

impl Tenant {
    /// Notifies users: decides for each how, keeps what is to wait, and hands the rest to whoever sends.
    /// Equal ones become one. With `Ok` everything that is to be sent is stored.
    ///
    /// # Errors
    /// When one of them is wrong, push is off, or nothing could be stored; then nobody is notified.
    pub async fn push(&self, notifications: Vec<Push>) -> Result<(), PushError> {
        let options = self.options("").await?;
        if !options.is_push_on() {
            return Err(PushError::Disabled);
        }
        let mut merged: Vec<Push> = Vec::new();
        for notification in notifications {
            notification.check()?;
            // What is for more users than one may be for stays several.
            let has_room = |it: &Push| it.users.len() + notification.users.len() <= USERS_MAX;
            let same = merged.iter_mut().find(|it| has_room(it) && is_same(it, &notification));
            match same {
                Some(known) => known.users.extend(notification.users),
                None => merged.push(notification),
            }
        }
        let mut outgoing = Outgoing::default();
        for notification in &mut merged {
            let mut known = HashSet::new();
            notification.users.retain(|user| known.insert(*user));
            self.sort_out(notification, &options, &mut outgoing).await?;
        }
        let batches = self.batches(&outgoing.sent, &options);
        self.keep_push(&outgoing.deferred, &batches).await?;
        if !batches.is_empty() {
            self.service().wake_pushing();
        }
        Ok(())
    }

    /// Removes notifications that wait, by what they are tagged with, and tells devices to remove those
    /// they show.
    ///
    /// # Errors
    /// As [`Tenant::push`]; while push is off nothing waits and nobody is told.
    pub async fn cancel_push(
        &self,
        user: i64,
        tag: &str,
        is_sub_tag: bool,
        application_id: &str,
    ) -> Result<(), PushError> {
        if user <= 0 {
            return Err(PushError::Recipient);
        }
        let stored = self::tag(tag);
        self.remove_deferred(user, stored, is_sub_tag).await?;
        let list = Value::Array(vec![(Value::Int(0), Value::text(stored))]);
        let notification = Push {
            users: vec![user],
            advanced: vec![("notificationsToCancel".to_owned(), list)],
            application_id: application_id.to_owned(),
            is_urgent: true,
            ..Push::default()
        };
        match self.push(vec![notification]).await {
            Err(PushError::Disabled) => Ok(()),
            other => other,
        }
    }

    /// Whether the user wants notifications at all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wants_push(&self, user: i64) -> Result<bool, DatabaseError> {
        Ok(self.user_option(user, STATUS).await?.is_none_or(|value| value == "Y"))
    }

    /// Says whether the user wants notifications.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_wants_push(&self, user: i64, is_wanted: bool) -> Result<(), DatabaseError> {
        self.set_user_option(user, STATUS, if is_wanted { "Y" } else { "N" }).await
    }

    /// Whether notifications wait while the user is online.
    ///
    /// # Errors
    /// When the options or the database fail.
    pub async fn has_smart_filter(&self, user: i64) -> Result<bool, PushError> {
        let (name, otherwise) = smart_filter(&*self.options("").await?);
        Ok(self.user_option(user, name).await?.map_or(otherwise, |value| value == "Y"))
    }

    /// Says whether notifications wait while the user is online.
    ///
    /// # Errors
    /// When the options or the database fail.
    pub async fn set_smart_filter(&self, user: i64, is_on: bool) -> Result<(), PushError> {
        let (name, _) = smart_filter(&*self.options("").await?);
        Ok(self.set_user_option(user, name, if is_on { "Y" } else { "N" }).await?)
    }

    /// Decides for each user of a notification what becomes of it.
    async fn sort_out(
        &self,
        notification: &Push,
        options: &Options,
        outgoing: &mut Outgoing,
    ) -> Result<(), PushError> {
        let mut devices: HashMap<i64, Vec<Device>> = HashMap::new();
        for device in self.devices(&notification.users, notification.application()).await? {
            devices.entry(device.user).or_default().push(device);
        }
        let reached: Vec<i64> =
            notification.users.iter().copied().filter(|it| devices.contains_key(it)).collect();
        let mut modes = self.modes(notification, &reached, options).await?;
        self.modes_by_hook(notification, &mut modes).await;
        modes.retain(|(_, mode, _)| *mode != Mode::NotFound);
        let own = notification.badge.filter(|badge| *badge >= 0);
        let badges = match own {
            Some(_) => HashMap::new(),
            None => self.badges(modes.iter().map(|(user, _, told)| (*user, told.badge))).await,
        };
        for (user, mode, _) in modes {
            let badge = own.or_else(|| badges.get(&user).copied());
            if mode == Mode::Deferred {
                outgoing.deferred.push(notification.deferred(user));
            }
            let target = target(user, self.host_id());
            let message = notification.message(mode, badge, target);
            outgoing.sent.push((message, devices.remove(&user).unwrap_or_default()));
        }
        Ok(())
    }

    /// The mode of each user who has a device, before the back end was asked.
    async fn modes(
        &self,
        notification: &Push,
        reached: &[i64],
        options: &Options,
    ) -> Result<Vec<(i64, Mode, Told)>, PushError> {
        let inactive: HashSet<i64> = self.inactive_users(reached).await?.into_iter().collect();
        let online: HashSet<i64> = self
            .seconds_since_activity(reached)
            .await?
            .into_iter()
            .filter(|(_, ago_s)| *ago_s < ONLINE_S)
            .map(|(user, _)| user)
            .collect();
        let (filter, otherwise) = smart_filter(options);
        let names = [STATUS, filter, NOTIFICATIONS];
        let mut wishes: HashMap<(i64, String), String> = HashMap::new();
        for (user, name, value) in self.user_options(reached, &names).await? {
            wishes.insert((user, name), value);
        }
        let wish = |user: i64, name: &str| wishes.get(&(user, name.to_owned()));
        let is_on = |user, name, otherwise| wish(user, name).map_or(otherwise, |it| it == "Y");
        let is_unwanted_kind = self.unwanted_kind(notification).await;
        let told = self.told_by_hook(reached).await;
        let skipped: HashSet<i64> = notification.skip_users.iter().copied().collect();
        let mode = |user: i64| {
            let told = told.get(&user).copied().unwrap_or_default();
            let situation = Situation {
                has_device: !inactive.contains(&user),
                wants_push: is_on(user, STATUS, true),
                is_mobile: told.is_mobile,
                is_online: online.contains(&user),
                has_smart_filter: is_on(user, filter, otherwise),
                has_desktop: told.has_desktop,
                is_idle: told.is_idle,
            };
            let is_unwanted = is_unwanted_kind(wish(user, NOTIFICATIONS).map(String::as_str));
            let is_left_out = is_unwanted || skipped.contains(&user);
            // Who has no device gets nothing, whatever is asked.
            let mode = match Mode::of(situation, notification.is_important) {
                Mode::NotFound if !situation.has_device => Mode::NotFound,
                other => other.asked(is_left_out, notification.is_urgent),
            };
            (user, mode, told)
        };
        Ok(reached.iter().map(|user| mode(*user)).collect())
    }

    /// Batches for messages with their devices: what is now or never apart from the rest. Each comes with how
    /// long it is worth sending.
    fn batches(&self, sent: &[(Message, Vec<Device>)], options: &Options) -> Vec<(String, u64)> {
        let host = options.text(Key::ServerName);
        let making = Making {
            devices_max: usize::try_from(options.number(Key::PushMessagePerHit)).unwrap_or(0),
            host: if host.contains([';', '\r', '\n']) { "" } else { host },
            now_s: self.now_s(),
        };
        // Messages that are worth sending for different times must not wait for each other's.
        let mut lives: Vec<i64> = sent.iter().map(|(message, _)| message.life_s()).collect();
        lives.sort_unstable();
        lives.dedup();
        let mut batches = Vec::new();
        for life_s in lives {
            let of_life = sent.iter().filter(|(message, _)| message.life_s() == life_s);
            let life_s = u64::try_from(life_s).unwrap_or(0);
            let made = making.batches(of_life, any_number);
            batches.extend(made.into_iter().map(|batch| (batch, life_s)));
        }
        batches
    }
}

/// What was decided: messages to send now, each with the devices it goes to, and rows to keep.
#[derive(Default)]
struct Outgoing {
    sent: Vec<(Message, Vec<Device>)>,
    deferred: Vec<queue::Deferred>,
}

/// Name and default of the option that says whether a user's notifications wait.
fn smart_filter(options: &Options) -> (&'static str, bool) {
    if options.is_on(Key::IsSmartfilterDisabledByDefault) {
        (SMART_FILTER_OFF, false)
    } else {
        (SMART_FILTER, true)
    }
}

/// Lets an application with several accounts find the right one, without saying who the user is.
fn target(user: i64, host_id: &str) -> String {
    php::md5_hex(&format!("{user}{host_id}"))
}

/// Whether two are one: in the same group, or the same but for users and times.
fn is_same(one: &Push, two: &Push) -> bool {
    if one.group.is_some() || two.group.is_some() {
        return one.group == two.group;
    }
    let plain = |it: &Push| {
        let advanced: Vec<(String, Value)> =
            it.advanced.iter().filter(|(name, _)| name != "extra").cloned().collect();
        let texts = [&it.module_id, &it.message, &it.title, &it.sound, &it.tag, &it.sub_tag];
        let texts = texts.map(String::clone);
        let rest = (it.kind.clone(), it.params.clone(), it.badge, it.application_id.clone());
        (texts, rest, advanced, it.expiry_s, it.is_urgent, it.is_important)
    };
    one.skip_users == two.skip_users && one.message == two.message && plain(one) == plain(two)
}

/// One decoding of the five entities, as pages of Bitrix store texts.
fn plain_text(text: &str) -> String {
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    entities.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Text in one line.
fn one_line(text: &str) -> String {
    // PostgreSQL stores no zero in a text, and nobody shows one.
    let text = text.replace('\0', "").replace("\r\n", " ").replace("\n\r", " ");
    let text = text.replace(['\n', '\r'], " ");
    text.trim().to_owned()
}

fn tag(text: &str) -> &str {
    let text = text.trim();
    if text.len() > TAG_BYTES_MAX { "" } else { text }
}

/// The parameters as applications get them, and the category that was among them.
fn params(value: &Value) -> (String, Option<String>) {
    let Value::Array(entries) = value else {
        return (value.to_text().unwrap_or_default(), None);
    };
    let category = value.get("CATEGORY").and_then(Value::to_text);
    let rest = entries.iter().filter(|(name, _)| *name != Value::text("CATEGORY")).cloned();
    (Value::Array(rest.collect()).to_php_json(Escapes::MARKUP), category)
}

impl Push {
    /// Whether it is for somebody and says something.
    pub(crate) fn check(&self) -> Result<(), PushError> {
        let users = &self.users;
        if users.is_empty() || users.iter().any(|user| *user <= 0) {
            return Err(PushError::Recipient);
        }
        if users.len() > USERS_MAX || self.content_bytes() > CONTENT_BYTES_MAX {
            return Err(PushError::TooMuch);
        }
        let says = !self.message.is_empty()
            || self.params.is_some()
            || !self.advanced.is_empty()
            || self.badge.is_some();
        if says { Ok(()) } else { Err(PushError::Parameters) }
    }

    /// Bytes of what it brings to each device, at least.
    fn content_bytes(&self) -> usize {
        let texts = [&self.message, &self.title, &self.sound].map(|text| text.len());
        let params = self.params.as_ref().map_or(0, |params| params.to_json().len());
        let advanced = self.advanced.iter().map(|(name, it)| name.len() + it.to_json().len());
        texts.iter().sum::<usize>() + params + advanced.sum::<usize>()
    }

    /// How long it is worth sending.
    fn life_s(&self) -> i64 {
        self.expiry_s.unwrap_or(EXPIRY_S).min(EXPIRY_MAX_S)
    }

    fn application(&self) -> &str {
        if self.application_id.is_empty() { APPLICATION } else { &self.application_id }
    }

    /// What is more for the application: with an id, by which what is shown is replaced.
    fn advanced(&self) -> Vec<(String, Value)> {
        let mut advanced = self.advanced.clone();
        let sub_tag = tag(&self.sub_tag);
        if !sub_tag.is_empty() && !advanced.iter().any(|(name, _)| name == "id") {
            advanced.push(("id".to_owned(), Value::text(sub_tag)));
        }
        advanced
    }

    /// What is sent now in a mode (mobile-push.md §7).
    fn message(&self, mode: Mode, badge: Option<i64>, target: String) -> Message {
        let expiry_s = Some(self.life_s());
        let quiet = Message { expiry_s, badge, target, ..Message::default() };
        if mode == Mode::Deferred {
            return quiet;
        }
        let (params, category) = match &self.params {
            Some(value) => {
                let (params, category) = params(value);
                (Some(params), category)
            }
            None => (None, None),
        };
        let advanced = self.advanced();
        if mode == Mode::Skip {
            let advanced = advanced.into_iter().filter(|(name, _)| name != "senderName").collect();
            return Message { params, category, advanced, ..quiet };
        }
        let sound = match mode {
            Mode::Silently if self.sound.is_empty() => SILENCE,
            _ => &self.sound,
        };
        Message {
            title: plain_text(&self.title),
            text: plain_text(&one_line(&self.message)),
            sound: sound.to_owned(),
            category,
            params,
            advanced,
            ..quiet
        }
    }

    /// What is kept of it for a user.
    fn deferred(&self, user: i64) -> queue::Deferred {
        queue::Deferred {
            user,
            tag: tag(&self.tag).to_owned(),
            sub_tag: tag(&self.sub_tag).to_owned(),
            message: one_line(&self.message),
            params: self.params.as_ref().map(|params| match params {
                Value::Array(_) => params.to_php_json(Escapes::MARKUP),
                other => other.to_text().unwrap_or_default(),
            }),
            advanced: Value::Array(
                self.advanced()
                    .into_iter()
                    .map(|(name, value)| (Value::Text(name), value))
                    .collect(),
            )
            .to_php_json(Escapes::MARKUP),
            application_id: self.application().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification() -> Push {
        Push {
            users: vec![7],
            module_id: "im".into(),
            message: " one\r\ntwo &lt;b&gt; &amp;lt; ".into(),
            params: Some(Value::map([
                ("TAG", Value::text("IM_CHAT_5")),
                ("CATEGORY", Value::text("ANSWER")),
            ])),
            advanced: vec![
                ("senderName".into(), Value::text("Ann")),
                ("group".into(), Value::text("im_message")),
            ],
            sub_tag: "IM_MESS".into(),
            ..Push::default()
        }
    }

    #[test]
    fn m_090_a_mode_decides_what_is_sent_now() {
        let of = |mode| notification().message(mode, Some(2), "t".into());
        let now = of(Mode::Immediately);
        assert_eq!(now.text, "one two <b> &lt;");
        assert_eq!(now.params.as_deref(), Some("{\"TAG\":\"IM_CHAT_5\"}"));
        assert_eq!(now.category.as_deref(), Some("ANSWER"));
        assert_eq!((now.expiry_s, now.badge, &*now.sound), (Some(43_200), Some(2), ""));
        assert_eq!(now.advanced.last(), Some(&("id".to_owned(), Value::text("IM_MESS"))));
        assert_eq!(of(Mode::Silently).sound, "silence.aif");
        let loud = Push { sound: "call.aif".into(), ..notification() };
        assert_eq!(loud.message(Mode::Silently, None, String::new()).sound, "call.aif");
        let deferred = of(Mode::Deferred);
        assert_eq!((deferred.text, deferred.params, deferred.advanced), Default::default());
        assert_eq!(deferred.badge, Some(2));
        let skipped = of(Mode::Skip);
        assert_eq!(skipped.text, "");
        assert!(skipped.params.is_some());
        assert!(skipped.advanced.iter().all(|(name, _)| name != "senderName"));
    }

    #[test]
    fn equal_notifications_are_one_and_groups_as_well() {
        let other = Push { users: vec![8], ..notification() };
        assert!(is_same(&notification(), &other));
        let mut later = other.clone();
        later.advanced.push(("extra".into(), Value::Int(1)));
        assert!(is_same(&notification(), &later), "times do not count");
        let text = Push { message: "else".into(), ..notification() };
        assert!(!is_same(&notification(), &text));
        let grouped = |it: Push| Push { group: Some("g".into()), ..it };
        assert!(is_same(&grouped(notification()), &grouped(text.clone())));
        assert!(!is_same(&grouped(notification()), &notification()));
    }

    #[test]
    fn what_is_for_nobody_or_says_nothing_is_refused() {
        let nobody = Push { users: vec![], ..notification() };
        assert!(matches!(nobody.check(), Err(PushError::Recipient)));
        let guest = Push { users: vec![-1], ..notification() };
        assert!(matches!(guest.check(), Err(PushError::Recipient)));
        let empty = Push { users: vec![7], ..Push::default() };
        assert!(matches!(empty.check(), Err(PushError::Parameters)));
    }
}
