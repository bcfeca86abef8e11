//! `pull.request`: what clients without a queue server ask, as forms, answered with JavaScript literals
//! (module.md §10).

use vestnik_core::ChannelId;

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::channel::ChannelError;
use crate::php::Value;

pub(crate) const OPERATIONS: &[Operation] = &[Operation {
    name: "pull.request",
    group: "Polling",
    about: "What a client asks that polls: a channel (`PULL_GET_CHANNEL`), longer watches (`PULL_UPDATE_WATCH`), news (`PULL_UPDATE_STATE`). The result is the text of a JavaScript literal, to be passed on as it is.",
    right: Right::User,
    fields: &[
        Field::may("USER_ID", Kind::Number, "The user; a token's own unless given."),
        Field::may("SITE_ID", Kind::Text, "The site of the page."),
        Field::may("PULL_GET_CHANNEL", Kind::Switch, "Asks for a channel."),
        Field::may("PULL_UPDATE_WATCH", Kind::Switch, "Extends watches."),
        Field::may("WATCH", Kind::List, "Their tags."),
        Field::may("PULL_UPDATE_STATE", Kind::Switch, "Asks for news."),
        Field::may("CHANNEL_ID", Kind::Text, "Of this channel."),
        Field::may("CHANNEL_LAST_ID", Kind::Number, "Behind this event; 0: what is unread."),
        Field::may("HTTPS", Kind::Switch, "The page came by https."),
    ],
    result: r#"{"type":"string"}"#,
    example: r#"{"USER_ID":1,"PULL_GET_CHANNEL":"Y"}"#,
    run: |call| Box::pin(request(call)),
}];

async fn request(call: Call<'_>) -> Outcome {
    let literal = match literal(&call).await {
        Ok(literal) => literal,
        Err(error) if error.status == 403 && error.code == "AUTHORIZE_ERROR" => {
            failure("AUTHORIZE_ERROR")
        }
        Err(error) => return Err(error),
    };
    Ok(Value::Text(literal).to_json())
}

/// An answer that is nothing but an error.
#[must_use]
pub fn failure(code: &str) -> String {
    Value::map([("ERROR", Value::text(code))]).to_literal()
}

async fn literal(call: &Call<'_>) -> Result<String, RestError> {
    let user = call.user("USER_ID")?.unwrap_or(0);
    if user == 0 {
        return Err(RestError::new(403, "AUTHORIZE_ERROR", "no user was named"));
    }
    let site = call.input.text("SITE_ID")?.unwrap_or_default();
    let is = |name| Ok::<_, RestError>(call.input.switch(name)? == Some(true));
    if is("PULL_GET_CHANNEL")? {
        let is_https = is("HTTPS")?;
        let config = call.tenant().polling_config(user, &site, is_https).await;
        return match config {
            Ok(literal) => Ok(literal),
            Err(ChannelError::Database(error)) => Err(error.into()),
            Err(ChannelError::Options(error)) => Err(error.into()),
            Err(_) => Ok(failure("ERROR_OPEN_CHANNEL")),
        };
    }
    if is("PULL_UPDATE_WATCH")? {
        let tags = call.input.texts("WATCH")?.unwrap_or_default();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let extended = call.tenant().extend_watches(user, &tags).await?;
        let result = extended.map_or(Value::Bool(false), |extended| {
            let entry = |(tag, was)| (Value::text(tag), Value::Bool(was));
            Value::Array(extended.into_iter().map(entry).collect())
        });
        return Ok(Value::map([("RESULT", result), ("ERROR", Value::text(""))]).to_literal());
    }
    if is("PULL_UPDATE_STATE")? {
        let named = call.input.text("CHANNEL_ID")?.unwrap_or_default();
        // Signed, or with the shared one behind it, it is the private one all the same.
        let first: String = named.chars().take(ChannelId::TEXT_LENGTH).collect();
        let own = call.tenant().polled_channel(user).await;
        let channel = first.parse::<ChannelId>().ok();
        let last_id = call.input.number("CHANNEL_LAST_ID")?.unwrap_or(0);
        let (Ok(_), Some(channel)) = (own, channel) else {
            return Ok(failure("ERROR_OPEN_CHANNEL"));
        };
        let messages = call.tenant().poll(channel, last_id).await?;
        let messages = (0..).zip(messages).map(|(at, message)| (Value::Int(at), message));
        let messages = Value::Array(messages.collect());
        return Ok(Value::map([("MESSAGE", messages), ("ERROR", Value::text(""))]).to_literal());
    }
    Ok(failure("UNKNOWN_ERROR"))
}
