//! Notifications on mobile devices: sent, taken back, and the devices they go to (module.md §19).

use super::{Call, Field, Input, Kind, Operation, Outcome, RestError, Right, event};
use crate::event::Params;
use crate::notice;
use crate::option::Key;
use crate::php::{self, Value};
use crate::push::{APPLICATION, Push, Registration};
use crate::tenant::Tenant;

const APP: Field = Field::may("APP_ID", Kind::Text, "The application; `Bitrix24` unless given.");
const USER: Field = Field::needed("USER_ID", Kind::Number, "The user.");

macro_rules! operation {
    ($name:literal, $about:literal, $fields:expr, $result:literal, $example:literal, $run:expr) => {
        Operation {
            name: $name,
            group: "Mobile",
            about: $about,
            right: Right::Backend,
            fields: $fields,
            result: $result,
            example: $example,
            run: $run,
        }
    };
}

pub(crate) const OPERATIONS: &[Operation] = &[
    operation!(
        "pull.push.add",
        "Notifies users on their mobile devices: at once, in silence, later, or not at all, as they are and want. `PUSH`: `message`, `title`, `type`, `params`, `advanced_params`, `badge`, `sound`, `tag`, `sub_tag`, `app_id`, `expiry`, `send_immediately`, `important`, `skip_users`, `groupId`.",
        &[
            Field::needed("USERS", Kind::List, "One user or several, at most 10000."),
            Field::needed("MODULE_ID", Kind::Text, "The module it is of."),
            Field::needed("PUSH", Kind::Object, "What is said, and how."),
            Field::may("SKIP_USERS", Kind::List, "Users who get the data and no text."),
            Field::may("EXTRA", Kind::Object, "More for the application."),
        ],
        r#"{"const":true}"#,
        r#"{"USERS":[1],"MODULE_ID":"im","PUSH":{"message":"Hi","params":{"TAG":"IM_CHAT_5"},"sub_tag":"IM_MESS"}}"#,
        |call| Box::pin(add(call))
    ),
    operation!(
        "pull.push.token.add",
        "Registers a device: the one with this `DEVICE_ID` is changed, whoever had it. A token for calls may come by itself.",
        &[
            USER,
            Field::needed("DEVICE_ID", Kind::Text, "What stays the same on a device."),
            Field::needed(
                "DEVICE_TYPE",
                Kind::Text,
                "`APPLE`, `APPLE/VOIP`, `GOOGLE/REV2`, `GOOGLE`, `HUAWEI`."
            ),
            Field::may("DEVICE_TOKEN", Kind::Text, "Where messages go."),
            Field::may("VOIP_TOKEN", Kind::Text, "Where calls go."),
            Field::may("DEVICE_NAME", Kind::Text, "What people call it."),
            APP,
        ],
        r#"{"type":"object","required":["register_token"],"properties":{"register_token":{"enum":["created","updated"]}}}"#,
        r#"{"USER_ID":1,"DEVICE_ID":"5f0c","DEVICE_TYPE":"GOOGLE/REV2","DEVICE_TOKEN":"fcm:token"}"#,
        |call| Box::pin(add_token(call))
    ),
    operation!(
        "pull.push.queue.deleteByTag",
        "Removes notifications of a user that wait, and tells devices to remove those they show, by tag.",
        &[USER, Field::needed("TAG", Kind::Text, "The tag."), APP],
        r#"{"const":true}"#,
        r#"{"USER_ID":1,"TAG":"IM_CHAT_5"}"#,
        |call| Box::pin(cancel(call, "TAG", false))
    ),
    operation!(
        "pull.push.queue.deleteBySubTag",
        "Removes notifications of a user that wait, and tells devices to remove those they show, by sub-tag.",
        &[USER, Field::needed("SUB_TAG", Kind::Text, "The sub-tag."), APP],
        r#"{"const":true}"#,
        r#"{"USER_ID":1,"SUB_TAG":"IM_MESS"}"#,
        |call| Box::pin(cancel(call, "SUB_TAG", true))
    ),
];

/// Members of `advanced_params` that mean something to PHP alone.
const OF_PHP: [&str; 1] = ["filterCallback"];

/// The notification that a description asks for; `users` may still be empty.
pub(super) fn notification(
    tenant: &Tenant,
    server_name: &str,
    description: &Params,
    users: Vec<i64>,
    module_id: &str,
    extra: &Params,
) -> Result<Push, RestError> {
    if description.is_empty() {
        return Err(RestError::new(
            400,
            "EVENT_PUSH_PARAMETERS_FORMAT",
            "a notification is an object with `message`, `params`, `advanced_params` or `badge`",
        ));
    }
    let input = Input::of_json(description.to_json().as_bytes())?;
    let value =
        |raw: &serde_json::value::RawValue| php::from_json(raw.get()).unwrap_or(Value::Null);
    let text = |name: &str| input.text(name).map(Option::unwrap_or_default);
    let switch = |name: &str| input.switch(name).map(|it| it == Some(true));
    let mut advanced: Vec<(String, Value)> = input
        .params("advanced_params")?
        .members()
        .filter(|(name, _)| !OF_PHP.contains(name) && *name != "extra")
        .map(|(name, raw)| (name.to_owned(), value(raw)))
        .collect();
    let has_own = !advanced.is_empty();
    let ours = notice::extra(tenant.now_ms(), server_name);
    let mut more: Vec<(Value, Value)> =
        extra.members().map(|(name, raw)| (Value::text(name), value(raw))).collect();
    if let Value::Array(ours) = ours {
        let is_new = |more: &[(Value, Value)], name: &Value| more.iter().all(|it| it.0 != *name);
        for (name, value) in ours {
            if is_new(&more, &name) {
                more.push((name, value));
            }
        }
    }
    let params = input.raw("params").map(value).filter(|value| *value != Value::Null);
    let message = text("message")?;
    if has_own || !message.is_empty() || params.is_some() {
        advanced.push(("extra".to_owned(), Value::Array(more)));
    }
    Ok(Push {
        users,
        module_id: module_id.to_lowercase(),
        kind: input.text("type")?,
        message,
        title: text("title")?,
        params,
        advanced,
        badge: input.number("badge")?,
        sound: text("sound")?,
        tag: text("tag")?,
        sub_tag: text("sub_tag")?,
        application_id: text("app_id")?,
        expiry_s: input.number("expiry")?,
        is_urgent: switch("send_immediately")?,
        is_important: switch("important")?,
        skip_users: input.numbers("skip_users")?.unwrap_or_default(),
        group: input.text("groupId")?.filter(|group| !group.is_empty()),
    })
}

async fn add(call: Call<'_>) -> Outcome {
    let users = call.input.numbers("USERS")?.unwrap_or_default();
    let module_id = call.input.needed_text("MODULE_ID")?;
    let description = call.input.params("PUSH")?;
    let extra = call.input.params("EXTRA")?;
    let name = call.tenant().options("").await?.text(Key::ServerName).to_owned();
    let mut notification =
        notification(call.tenant(), &name, &description, users, &module_id, &extra)?;
    notification.skip_users.extend(call.input.numbers("SKIP_USERS")?.unwrap_or_default());
    call.tenant().push(vec![notification]).await?;
    Ok("true".to_owned())
}

async fn add_token(call: Call<'_>) -> Outcome {
    let text = |name: &str| call.input.text(name).map(Option::unwrap_or_default);
    let application_id = call.input.text("APP_ID")?.filter(|id| !id.is_empty());
    let user = call.needed_user("USER_ID")?;
    if user <= 0 {
        return Err(RestError::argument("USER_ID", "a user above 0"));
    }
    let device = Registration {
        user,
        device_id: text("DEVICE_ID")?,
        name: text("DEVICE_NAME")?,
        kind: text("DEVICE_TYPE")?,
        application_id: application_id.unwrap_or_else(|| APPLICATION.to_owned()),
        token: text("DEVICE_TOKEN")?,
        voip_token: text("VOIP_TOKEN")?,
    };
    let is_new = call.tenant().register_device(&device).await?;
    let done = if is_new { "created" } else { "updated" };
    Ok(format!(r#"{{"register_token":"{done}"}}"#))
}

async fn cancel(call: Call<'_>, field: &'static str, is_sub_tag: bool) -> Outcome {
    let tag = call.input.needed_text(field)?;
    let user = call.needed_user("USER_ID")?;
    let application_id = call.input.text("APP_ID")?.unwrap_or_default();
    call.tenant().cancel_push(user, &tag, is_sub_tag, &application_id).await?;
    Ok("true".to_owned())
}

/// A notification of a REST application (module.md §16).
pub(super) async fn of_application(call: Call<'_>) -> Outcome {
    let wrong = |code, text: &str| Err(RestError::new(400, code, text));
    let client_id = call.input.needed_text("CLIENT_ID")?;
    call.needed_user("AUTH_USER_ID")?;
    if call.input.switch("IS_ADMIN")? != Some(true) {
        return wrong("ACCESS_ERROR", "only administrators push notifications");
    }
    let Some(text) = call.input.text("TEXT")?.filter(|text| !text.is_empty()) else {
        return wrong("TEXT_ERROR", "field `TEXT` is needed");
    };
    let Some(name) = call.input.text("APP_NAME")?.filter(|name| !name.is_empty()) else {
        return wrong("EMPTY_APP_NAME", "field `APP_NAME` is needed: who says it");
    };
    let avatar = call.input.text("AVATAR")?.unwrap_or_default();
    let advanced = [
        ("group", client_id),
        ("avatarUrl", avatar),
        ("senderName", name),
        ("senderMessage", text.clone()),
    ];
    let advanced = advanced.into_iter().filter(|(_, text)| !text.is_empty());
    let notification = Push {
        users: call.input.numbers("USER_ID")?.unwrap_or_default(),
        module_id: "im".to_owned(),
        message: text,
        advanced: advanced.map(|(name, text)| (name.to_owned(), Value::Text(text))).collect(),
        ..Push::default()
    };
    call.tenant().push(vec![notification]).await?;
    Ok("true".to_owned())
}

/// The notification beside an event: for its users, also for those who watch its tags.
pub(super) async fn beside_event(
    tenant: &Tenant,
    event: &crate::event::Event,
    description: &Params,
) -> Result<Push, RestError> {
    let users = event::users_of(tenant, event).await?;
    let name = tenant.options("").await?.text(Key::ServerName).to_owned();
    let mut asked =
        notification(tenant, &name, description, users, &event.module_id, &event.extra)?;
    asked.skip_users.extend(&event.skip_users);
    if asked.group.is_none() {
        asked.group.clone_from(&event.group);
    }
    Ok(asked)
}
