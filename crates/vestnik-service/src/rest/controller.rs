//! The PHP module's controllers under their own names (module.md §17), for REST and for the AJAX envelope.

use vestnik_core::UserId;

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::channel::ChannelKind;
use crate::config::{ConfigRequest, Shape, public_channels};
use crate::php::Value;

/// An operation that nobody needs to prove anything for: who has a device's token may remove it.
pub const OPEN_TO_ALL: &str = "pull.api.token.remove";

const USER: Field = Field::may("USER_ID", Kind::Number, "The user; a token's own unless given.");

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.api.config.get",
        group: "Controllers",
        about: "As `pull.config.get`, without the time of the server.",
        right: Right::User,
        fields: &[
            USER,
            Field::may("cache", Kind::Switch, "Taken, and without effect."),
            Field::may("reopen", Kind::Switch, "Taken, and without effect."),
        ],
        result: r#"{"type":"object","required":["server","api","publicChannels"]}"#,
        example: r#"{"USER_ID":1}"#,
        run: |call| Box::pin(config(call)),
    },
    Operation {
        name: "pull.api.config.extendWatch",
        group: "Controllers",
        about: "As `pull.watch.extend`.",
        right: Right::User,
        fields: &[USER, Field::needed("tags", Kind::List, "The tags.")],
        result: r#"{"oneOf":[{"type":"object","additionalProperties":{"type":"boolean"}},{"const":false}]}"#,
        example: r#"{"USER_ID":1,"tags":["X"]}"#,
        run: |call| Box::pin(super::watch::extend(call)),
    },
    Operation {
        name: "pull.api.channel.getPublicIds",
        group: "Controllers",
        about: "As `pull.channel.public.list`.",
        right: Right::User,
        fields: &[Field::needed("users", Kind::List, "The users.")],
        result: r##"{"oneOf":[{"type":"object","additionalProperties":{"$ref":"#/components/schemas/PublicChannel"}},{"type":"array","maxItems":0}]}"##,
        example: r#"{"users":[1]}"#,
        run: |call| Box::pin(public_ids(call)),
    },
    Operation {
        name: "pull.api.user.getLastSeen",
        group: "Controllers",
        about: "Seconds since users were active on the site; those who never were are left out.",
        right: Right::User,
        fields: &[
            Field::needed("userIds", Kind::List, "The users."),
            Field::may("sendToQueueSever", Kind::Switch, "Tell the queue server, too."),
        ],
        result: r#"{"oneOf":[{"type":"object","additionalProperties":{"type":"integer"}},{"type":"array","maxItems":0}]}"#,
        example: r#"{"userIds":[1]}"#,
        run: |call| Box::pin(last_seen(call)),
    },
    Operation {
        name: OPEN_TO_ALL,
        group: "Controllers",
        about: "Forgets a device by its token; needs no proof.",
        right: Right::User,
        fields: &[Field::needed("token", Kind::Text, "The token of the device.")],
        result: r#"{"const":true}"#,
        example: "",
        run: |call| Box::pin(remove_token(call)),
    },
    Operation {
        name: "pull.push.token.remove",
        group: "Mobile",
        about: "Forgets a device by its token.",
        right: Right::Backend,
        fields: &[Field::needed("token", Kind::Text, "The token of the device.")],
        result: r#"{"const":true}"#,
        example: "",
        run: |call| Box::pin(remove_token(call)),
    },
];

async fn config(call: Call<'_>) -> Outcome {
    let user = call.user("USER_ID")?.unwrap_or(0);
    if user == 0 {
        return Err(RestError::new(403, "AUTHORIZE_ERROR", "no user was named"));
    }
    let request = ConfigRequest { user, host: &call.caller.host, ..ConfigRequest::default() };
    Ok(call.tenant().client_config(&request).await?.to_json())
}

async fn public_ids(call: Call<'_>) -> Outcome {
    const USERS_MAX: usize = 1000;
    let users = call.input.numbers("users")?.unwrap_or_default();
    if users.len() > USERS_MAX {
        return Err(RestError::argument("users", "at most 1000 users"));
    }
    let ids = call.tenant().public_ids(&users, &ChannelKind::Private).await?;
    Ok(public_channels(&ids, Shape::Json).to_json())
}

async fn last_seen(call: Call<'_>) -> Outcome {
    const USERS_MAX: usize = 10_000;
    let users = call.input.numbers("userIds")?.ok_or_else(|| RestError::missing("userIds"))?;
    if users.len() > USERS_MAX {
        return Err(RestError::argument("userIds", "at most 10000 users"));
    }
    if users.is_empty() {
        return Ok("[]".to_owned());
    }
    let since = call.tenant().seconds_since_activity(&users).await?;
    if call.input.switch("sendToQueueSever")? == Some(true) && !since.is_empty() {
        let now_s = call.tenant().now_s();
        let seen = since
            .iter()
            .filter_map(|(user, ago_s)| Some((UserId::new(*user)?, now_s.saturating_sub(*ago_s))));
        let seen: Vec<_> = seen.collect();
        // The answer does not depend on it.
        match call.stage.server(call.tenant()).await {
            Ok(server) => {
                if let Err(error) = server.update_last_seen(&seen).await {
                    tracing::debug!(%error, "the queue server was not told when users were seen");
                }
            }
            Err(error) => tracing::debug!(%error, "there is no queue server to tell"),
        }
    }
    let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let since = since.into_iter().map(|(user, ago_s)| (Value::Text(user.to_string()), int(ago_s)));
    Ok(Value::Array(since.collect()).to_json())
}

async fn remove_token(call: Call<'_>) -> Outcome {
    let token = call.input.needed_text("token")?;
    if call.tenant().remove_device(&token).await? {
        Ok("true".to_owned())
    } else {
        Err(RestError::new(404, "NOT_FOUND", "there is no device with this token"))
    }
}
