//! What REST applications do: events to their own users (module.md §16).

use super::input::items_of;
use super::{Call, Field, Kind, Operation, Outcome, RestError, Right, event, push};
use crate::channel::ChannelKind;
use crate::event::{Event, Recipient};

const CLIENT: Field = Field::needed("CLIENT_ID", Kind::Text, "The application.");
const ACTING: Field = Field::needed("AUTH_USER_ID", Kind::Number, "The user it works for.");
const ADMIN: Field = Field::may("IS_ADMIN", Kind::Switch, "Whether that user is an administrator.");

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.application.event.add",
        group: "Applications",
        about: "Publishes an event of an application to its users. An administrator names whom; others reach themselves, or everybody who uses the application.",
        right: Right::Backend,
        fields: &[
            CLIENT,
            ACTING,
            ADMIN,
            Field::needed("COMMAND", Kind::Text, "Letters, digits and `_:|.-`."),
            Field::may("PARAMS", Kind::Object, "The details."),
            Field::may(
                "MODULE_ID",
                Kind::Text,
                "Letters in lower case, digits, `.` and `_`; `application` unless given.",
            ),
            Field::may(
                "USER_ID",
                Kind::List,
                "One user or several; absent: everybody who uses the application.",
            ),
        ],
        result: r#"{"const":true}"#,
        example: r#"{"CLIENT_ID":"local.5c8bb1b0917611.15086475","AUTH_USER_ID":1,"IS_ADMIN":"Y","COMMAND":"refresh","PARAMS":{"id":7},"USER_ID":[1,2]}"#,
        run: |call| Box::pin(add(call)),
    },
    Operation {
        name: "pull.application.push.add",
        group: "Applications",
        about: "Pushes a notification of an application to mobile devices.",
        right: Right::Backend,
        fields: &[
            CLIENT,
            ACTING,
            ADMIN,
            Field::needed("USER_ID", Kind::List, "One user or several."),
            Field::needed("TEXT", Kind::Text, "What it says."),
            Field::needed("APP_NAME", Kind::Text, "Who says it: the name of the application."),
            Field::may("AVATAR", Kind::Text, "Address of a picture."),
        ],
        result: r#"{"const":true}"#,
        example: r#"{"CLIENT_ID":"local.5c8bb1b0917611.15086475","AUTH_USER_ID":1,"IS_ADMIN":"Y","USER_ID":[1,2],"TEXT":"Done","APP_NAME":"Tasks"}"#,
        run: |call| Box::pin(push::of_application(call)),
    },
];

fn wrong(code: &'static str, text: &str) -> RestError {
    RestError::new(400, code, text)
}

async fn add(call: Call<'_>) -> Outcome {
    let client_id = call.input.needed_text("CLIENT_ID")?;
    let ChannelKind::Application(_) = ChannelKind::named(&client_id)? else {
        return Err(RestError::new(403, "WRONG_AUTH_TYPE", "no application was named"));
    };
    let acting = call.needed_user("AUTH_USER_ID")?;
    let is_admin = call.input.switch("IS_ADMIN")?.unwrap_or(false);
    let users = recipients(&call, acting, is_admin)?;
    let command = call.input.text("COMMAND")?.unwrap_or_default();
    let is_command = |it: char| it.is_alphanumeric() || "_:|.-".contains(it);
    if command.is_empty() || !command.chars().all(is_command) {
        return Err(wrong("COMMAND_ERROR", "a command has letters, digits and `_:|.-`"));
    }
    let module_id = call.input.text("MODULE_ID")?.filter(|id| !id.is_empty());
    let module_id = module_id.unwrap_or_else(|| "application".to_owned());
    let is_module = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "._".contains(it);
    if !module_id.chars().all(is_module) {
        let text = "a module has lower-case letters, digits, `.` and `_`";
        return Err(wrong("MODULE_ID_ERROR", text));
    }
    let params = call.input.params("PARAMS");
    let params = params.map_err(|_| wrong("PARAMS_ERROR", "field `PARAMS` takes an object"))?;
    if call.input.raw("PARAMS").is_some_and(|raw| !is_structure(raw)) {
        return Err(wrong("PARAMS_ERROR", "field `PARAMS` takes an object"));
    }
    let mut asked = Event::new(users, &module_id, &command);
    asked.params = params;
    asked.kind = ChannelKind::Application(client_id);
    let mut results = event::send(&call, &[asked]).await?;
    results.pop().unwrap_or(Ok(())).map(|()| "true".to_owned())
}

fn is_structure(raw: &serde_json::value::RawValue) -> bool {
    let json = raw.get();
    json.starts_with(['{', '['])
        || json.starts_with("\"{")
        || json.starts_with("\"[")
        || json == "\"\""
}

/// Whom an event of an application reaches: everybody is user 0 of its kind.
fn recipients(call: &Call<'_>, acting: i64, is_admin: bool) -> Result<Vec<Recipient>, RestError> {
    let Some(raw) = call.input.raw("USER_ID").filter(|raw| raw.get() != "\"\"") else {
        return Ok(vec![Recipient::User(0)]);
    };
    let denied = || wrong("USER_ID_ACCESS_ERROR", "this user may not write to others");
    let users = call.input.numbers("USER_ID").map_err(|_| denied())?.unwrap_or_default();
    if !is_admin {
        // The own id, by itself.
        let items = items_of(raw).ok_or_else(denied)?;
        if items.len() != 1 || users != [acting] || raw.get().starts_with('[') {
            return Err(denied());
        }
    }
    if users.is_empty() || users.contains(&0) {
        return Err(denied());
    }
    Ok(users.into_iter().map(Recipient::User).collect())
}
