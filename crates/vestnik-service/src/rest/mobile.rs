//! What users want to hear of on their mobile devices, and the number on the badge (module.md §16, §19).
//! Sending to devices is not done here: those operations say so.

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right, event};
use crate::event::Params;
use crate::option::Key;
use crate::php::{self, Value};

const USER: Field = Field::may("USER_ID", Kind::Number, "The user; a token's own unless given.");
const ACTIVE: Field = Field::needed("ACTIVE", Kind::Switch, "Whether.");
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

macro_rules! unavailable {
    ($name:literal, $about:literal) => {
        Operation {
            name: $name,
            group: "Mobile",
            about: $about,
            right: Right::Backend,
            fields: &[],
            result: r#"{"const":true}"#,
            example: "",
            run: |call| Box::pin(no_push(call)),
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
        |call| Box::pin(status(call, "push_status", true))
    ),
    operation!(
        "mobile.push.status.set",
        "Says whether the user wants notifications; `null` while push is off.",
        &[USER, ACTIVE],
        STATUS,
        r#"{"USER_ID":1,"ACTIVE":"Y"}"#,
        |call| Box::pin(set_status(call, "push_status"))
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
        |call| Box::pin(set_status(call, "push_smartfilter_status"))
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
        "mobile.counter.config.get",
        "Which counters the user wants on the badge, of those that were ever set.",
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
    unavailable!("pull.push.add", "Pushes a notification to mobile devices."),
    unavailable!("pull.push.token.add", "Registers a device."),
    unavailable!("pull.push.queue.deleteByTag", "Removes notifications that wait, by tag."),
    unavailable!("pull.push.queue.deleteBySubTag", "Removes notifications that wait, by sub-tag."),
];

async fn no_push(call: Call<'_>) -> Outcome {
    Err(event::no_push(call.tenant()).await?)
}

impl Call<'_> {
    /// The user of the call; users of devices are signed in.
    fn device_user(&self) -> Result<i64, RestError> {
        let user = self.needed_user("USER_ID")?;
        if user > 0 { Ok(user) } else { Err(RestError::argument("USER_ID", "a user above 0")) }
    }

    async fn is_push_off(&self) -> Result<bool, RestError> {
        Ok(self.tenant().options("").await?.text(Key::Push) == "N")
    }
}

async fn status(call: Call<'_>, name: &str, otherwise: bool) -> Outcome {
    let user = call.device_user()?;
    if call.is_push_off().await? {
        return Ok("null".to_owned());
    }
    let value = call.tenant().user_option(user, name).await?;
    Ok(value.map_or(otherwise, |value| value == "Y").to_string())
}

async fn smart_filter(call: Call<'_>) -> Outcome {
    let options = call.tenant().options("").await?;
    let otherwise = !options.is_on(Key::IsSmartfilterDisabledByDefault);
    status(call, "push_smartfilter_status", otherwise).await
}

async fn set_status(call: Call<'_>, name: &str) -> Outcome {
    let user = call.device_user()?;
    if call.is_push_off().await? {
        return Ok("null".to_owned());
    }
    let active = call.input.switch("ACTIVE")?.ok_or_else(|| RestError::missing("ACTIVE"))?;
    let letter = if active { "Y" } else { "N" };
    call.tenant().set_user_option(user, name, letter).await?;
    Ok("true".to_owned())
}

async fn counter(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    Ok(call.tenant().mobile_counter(user).await.to_string())
}

async fn counter_config(call: Call<'_>) -> Outcome {
    let user = call.device_user()?;
    let stored = call.tenant().user_option(user, "mobileCounterType").await?;
    let stored = stored.and_then(|text| php::unserialize(&text).ok());
    let Some(Value::Array(entries)) = stored else { return Ok("[]".to_owned()) };
    let entries = (0..).zip(entries).map(|(at, (name, value))| {
        let is_on = matches!(value, Value::Bool(true));
        (Value::Int(at), Value::map([("type", name), ("value", Value::Bool(is_on))]))
    });
    Ok(Value::Array(entries.collect()).to_json())
}

async fn set_counter_config(call: Call<'_>) -> Outcome {
    const TYPES_MAX: usize = 100;
    let wrong =
        || RestError::new(400, "CONFIG_ERROR", "field `CONFIG` takes types with true or false");
    let user = call.device_user()?;
    let config: Params = call.input.object("CONFIG").map_err(|_| wrong())?.ok_or_else(wrong)?;
    let mut entries = Vec::new();
    for (name, raw) in config.members() {
        let is_on = match raw.get().trim_matches('"').to_ascii_lowercase().as_str() {
            "true" | "1" | "y" => true,
            "false" | "0" | "n" | "" => false,
            _ => return Err(wrong()),
        };
        entries.push((Value::text(name), Value::Bool(is_on)));
    }
    if entries.is_empty() || entries.len() > TYPES_MAX {
        return Err(wrong());
    }
    let text = Value::Array(entries).serialize();
    call.tenant().set_user_option(user, "mobileCounterType", &text).await?;
    Ok("true".to_owned())
}
