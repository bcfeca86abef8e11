//! What users want to hear of on their mobile devices, and the number on the badge (module.md §16, §19).

use serde_json::{Value as Json, json};

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::push::{NOTIFICATIONS, Wishes, kind_name, yes_or_no};

const USER: Field = Field::may("USER_ID", Kind::Number, "The user; a token's own unless given.");
const ACTIVE: Field = Field::needed("ACTIVE", Kind::Switch, "Whether.");
const USER_VALUES: Field =
    Field::may("USER_VALUES", Kind::Switch, "Say what the user wants of each, too.");
/// An option of a user: which counters are wanted.
const COUNTERS: &str = "mobileCounterType";
/// Items of a configuration, and bytes of their names.
const ITEMS_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 200;
const STATUS: &str = r#"{"type":["boolean","null"]}"#;

macro_rules! operation {
    ($name:literal, $about:literal, $fields:expr, $result:expr, $example:literal, $run:expr) => {
        Operation {
            name: $name,
            group: "Mobile",
            about: $about,
            right: Right::User,
            fields: $fields,
            result: $result,
            example: $example,
            run: $run,
        }
    };
}

pub(crate) const OPERATIONS: &[Operation] = &[
    operation!(
        "mobile.push.status.get",
        "Whether the user wants notifications; `null` while push is off.",
        &[USER],
        STATUS,
        r#"{"USER_ID":1}"#,
        |call| Box::pin(status(call))
    ),
    operation!(
        "mobile.push.status.set",
        "Says whether the user wants notifications; `null` while push is off.",
        &[USER, ACTIVE],
        STATUS,
        r#"{"USER_ID":1,"ACTIVE":"Y"}"#,
        |call| Box::pin(set_status(call))
    ),
    operation!(
        "mobile.push.smartfilter.status.get",
        "Whether notifications wait while the user is online; `null` while push is off.",
        &[USER],
        STATUS,
        r#"{"USER_ID":1}"#,
        |call| Box::pin(smart_filter(call))
    ),
    operation!(
        "mobile.push.smartfilter.status.set",
        "Says whether notifications wait while the user is online; `null` while push is off.",
        &[USER, ACTIVE],
        STATUS,
        r#"{"USER_ID":1,"ACTIVE":"N"}"#,
        |call| Box::pin(set_smart_filter(call))
    ),
    operation!(
        "mobile.counter.get",
        "The number on the badge, as the back end says (callback `mobile.counter`).",
        &[USER],
        r#"{"type":"integer"}"#,
        r#"{"USER_ID":1}"#,
        |call| Box::pin(counter(call))
    ),
    operation!(
        "mobile.counter.types.get",
        "The counters there are, as the back end says (callback `mobile.counter.types`).",
        &[USER, USER_VALUES],
        r#"{"type":"array","items":{"type":"object","required":["type","name","default"]}}"#,
        r#"{"USER_ID":1,"USER_VALUES":"Y"}"#,
        |call| Box::pin(counter_types(call))
    ),
    operation!(
        "mobile.push.types.get",
        "The notifications there are, by module, as the back end says (callback `mobile.push.types`).",
        &[USER, USER_VALUES],
        r#"{"type":"array","items":{"type":"object","required":["name","module_id","types"]}}"#,
        r#"{"USER_ID":1,"USER_VALUES":"Y"}"#,
        |call| Box::pin(push_types(call))
    ),
    operation!(
        "mobile.push.config.get",
        "Which notifications the user wants.",
        &[USER],
        r#"{"type":"array","items":{"type":"object","required":["module_id","type","active"]}}"#,
        r#"{"USER_ID":1}"#,
        |call| Box::pin(push_config(call))
    ),
    operation!(
        "mobile.push.config.set",
        "Says which notifications the user wants; items that lack something are skipped.",
        &[USER, Field::needed("CONFIG", Kind::List, "Items of `module_id`, `type`, `active`.")],
        r#"{"const":true}"#,
        r#"{"USER_ID":1,"CONFIG":[{"module_id":"im","type":"message","active":false}]}"#,
        |call| Box::pin(set_push_config(call))
    ),
    operation!(
        "mobile.counter.config.get",
        "Which counters the user wants on the badge.",
        &[USER],
        r#"{"type":"array","items":{"type":"object","required":["type","value"]}}"#,
        r#"{"USER_ID":1}"#,
        |call| Box::pin(counter_config(call))
    ),
    operation!(
        "mobile.counter.config.set",
        "Says which counters the user wants on the badge.",
        &[USER, Field::needed("CONFIG", Kind::Object, "Types with `true` or `false`.")],
        r#"{"const":true}"#,
        r#"{"USER_ID":1,"CONFIG":{"im_messages":true}}"#,
        |call| Box::pin(set_counter_config(call))
    ),
];

impl Call<'_> {
    /// The user of the call; users of devices are signed in.
    fn device_user(&self) -> Result<i64, RestError> {
        let user = self.needed_user("USER_ID")?;
        if user > 0 { Ok(user) } else { Err(RestError::argument("USER_ID", "a user above 0")) }
    }

    fn needed_switch(&self, name: &'static str) -> Result<bool, RestError> {
        self.input.switch(name)?.ok_or_else(|| RestError::missing(name))
    }

    async fn is_push_off(&self) -> Result<bool, RestError> {
        Ok(!self.tenant().options("").await?.is_push_on())
    }
}

async fn status(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    if call.is_push_off().await? {
        return Ok("null".to_owned());
    }
    Ok(call.tenant().wants_push(user).await?.to_string())
}

async fn smart_filter(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    if call.is_push_off().await? {
        return Ok("null".to_owned());
    }
    Ok(call.tenant().has_smart_filter(user).await?.to_string())
}

async fn set_status(call: Call<'_>) -> Outcome {
    let (user, is_on) = (call.device_user()?, call.needed_switch("ACTIVE")?);
    if call.is_push_off().await? {
        return Ok("null".to_owned());
    }
    call.tenant().set_wants_push(user, is_on).await?;
    Ok("true".to_owned())
}

async fn set_smart_filter(call: Call<'_>) -> Outcome {
    let (user, is_on) = (call.device_user()?, call.needed_switch("ACTIVE")?);
    if call.is_push_off().await? {
        return Ok("null".to_owned());
    }
    call.tenant().set_smart_filter(user, is_on).await?;
    Ok("true".to_owned())
}

async fn counter(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    Ok(call.tenant().counter_by_hook(user).await.unwrap_or(0).to_string())
}

impl Call<'_> {
    /// What the user wants.
    async fn wishes(&self, user: i64, option: &str) -> Result<Wishes, RestError> {
        let stored = self.tenant().user_option(user, option).await?;
        Ok(stored.map_or_else(Wishes::default, |text| Wishes::read(&text)))
    }

    /// Adds to what the user wants.
    async fn wish(
        &self,
        user: i64,
        option: &str,
        changes: &[(String, bool)],
    ) -> Result<(), RestError> {
        let mut wishes = self.wishes(user, option).await?;
        for (name, is_wanted) in changes {
            if name.len() > NAME_BYTES_MAX {
                return Err(wrong_config("a name is too long"));
            }
            wishes.set(name, *is_wanted);
        }
        if wishes.len() > ITEMS_MAX {
            return Err(wrong_config("too many items"));
        }
        Ok(self.tenant().set_user_option(user, option, &wishes.to_text()).await?)
    }
}

fn wrong_config(text: &str) -> RestError {
    RestError::new(400, "CONFIG_ERROR", format!("field `CONFIG`: {text}"))
}

fn text<'a>(item: &'a serde_json::Map<String, Json>, name: &str) -> &'a str {
    item.get(name).and_then(Json::as_str).unwrap_or_default()
}

fn is_on(item: &serde_json::Map<String, Json>, name: &str) -> bool {
    item.get(name).is_some_and(|value| yes_or_no(&value.to_string()) == Some(true))
}

async fn counter_types(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    let has_values = call.input.switch("USER_VALUES")? == Some(true);
    let wishes = call.wishes(user, COUNTERS).await?;
    let types =
        call.tenant().listed_by_hook("mobile.counter.types").await.into_iter().map(|item| {
            let (name, otherwise) = (text(&item, "type"), is_on(&item, "default"));
            let mut shown =
                json!({ "type": name, "name": text(&item, "name"), "default": otherwise });
            if has_values {
                shown["value"] = wishes.get(name).unwrap_or(otherwise).into();
            }
            shown
        });
    Ok(Json::from_iter(types).to_string())
}

async fn counter_config(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    let mut wishes = call.wishes(user, COUNTERS).await?;
    for item in call.tenant().listed_by_hook("mobile.counter.types").await {
        wishes.set_default(text(&item, "type"), is_on(&item, "default"));
    }
    let items = wishes.iter().map(|(name, is_on)| json!({ "type": name, "value": is_on }));
    Ok(Json::from_iter(items).to_string())
}

async fn set_counter_config(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    let wrong = || wrong_config("types with `true` or `false` are wanted");
    let config = call.input.object("CONFIG").map_err(|_| wrong())?.ok_or_else(wrong)?;
    let changes: Option<Vec<_>> = config
        .members()
        .map(|(name, raw)| Some((name.to_owned(), yes_or_no(raw.get())?)))
        .collect();
    let changes = changes.filter(|changes| !changes.is_empty()).ok_or_else(wrong)?;
    call.wish(user, COUNTERS, &changes).await?;
    Ok("true".to_owned())
}

async fn push_types(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    let has_values = call.input.switch("USER_VALUES")? == Some(true);
    let wishes = call.wishes(user, NOTIFICATIONS).await?;
    let mut modules = call.tenant().listed_by_hook("mobile.push.types").await;
    modules.sort_by(|one, two| text(one, "module_id").cmp(text(two, "module_id")));
    let shown = modules.iter().map(|module| {
        let module_id = text(module, "module_id");
        let types = module.get("types").and_then(Json::as_array).into_iter().flatten();
        let types = types.filter_map(Json::as_object).map(|item| {
            let (kind, otherwise) = (text(item, "type"), is_on(item, "default"));
            let mut shown = json!({
                "name": text(item, "name"),
                "type": kind,
                "disabled": is_on(item, "disabled"),
                "default": otherwise,
            });
            if has_values {
                let value = wishes.get(&kind_name(module_id, kind));
                shown["value"] = value.unwrap_or(otherwise).into();
            }
            shown
        });
        json!({ "name": text(module, "name"), "module_id": module_id, "types": Json::from_iter(types) })
    });
    Ok(Json::from_iter(shown).to_string())
}

async fn push_config(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    let mut wishes = call.wishes(user, NOTIFICATIONS).await?;
    for module in call.tenant().listed_by_hook("mobile.push.types").await {
        let types = module.get("types").and_then(Json::as_array).into_iter().flatten();
        for item in types.filter_map(Json::as_object) {
            let name = kind_name(text(&module, "module_id"), text(item, "type"));
            wishes.set_default(&name, is_on(item, "default"));
        }
    }
    let items = wishes.iter().filter_map(|(name, is_on)| {
        let (module_id, kind) = name.split_once('|')?;
        Some(json!({ "module_id": module_id, "type": kind, "active": is_on }))
    });
    Ok(Json::from_iter(items).to_string())
}

async fn set_push_config(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    let wrong = || wrong_config("a list of `module_id`, `type`, `active` is wanted");
    let items = call.input.list("CONFIG").map_err(|_| wrong())?.ok_or_else(wrong)?;
    let mut changes = Vec::new();
    for item in items.iter().filter(|item| item.get().starts_with('{')) {
        let item = super::Input::of_json(item.get().as_bytes())?;
        let (Some(module_id), Some(kind)) = (item.text("module_id")?, item.text("type")?) else {
            continue;
        };
        let Some(active) = item.raw("active").and_then(|raw| yes_or_no(raw.get())) else {
            continue;
        };
        if !module_id.is_empty() && !module_id.contains('|') && !kind.is_empty() {
            changes.push((kind_name(&module_id, &kind), active));
        }
    }
    if items.is_empty() {
        return Err(wrong());
    }
    call.wish(user, NOTIFICATIONS, &changes).await?;
    Ok("true".to_owned())
}
