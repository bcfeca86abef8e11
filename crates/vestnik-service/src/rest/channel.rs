//! Channels: their ids, signatures, public ids, deletion, and who listens.

use vestnik_core::ChannelId;
use vestnik_core::date;

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::channel::{Channel, ChannelKind};
use crate::config::{Shape, public_channel, public_channels};
use crate::option::Options;
use crate::php::Value;

const CHANNEL: &str = r#"{"type":"object","required":["user_id","type","id","public_id","signed_id","signed_public_id","start","end","last_id"],"properties":{"user_id":{"type":"integer"},"type":{"type":"string"},"id":{"type":"string"},"public_id":{"type":["string","null"]},"signed_id":{"type":"string"},"signed_public_id":{"type":"string"},"start":{"type":"string"},"end":{"type":"string"},"last_id":{"type":"integer"}}}"#;
const PUBLIC: &str = r#"{"type":"object","required":["user_id","public_id","signature","start","end"],"properties":{"user_id":{"type":"integer"},"public_id":{"type":"string"},"signature":{"type":"string"},"start":{"type":"string"},"end":{"type":"string"}}}"#;
const FREE: &str =
    r#"{"type":"object","required":["id","public_id","signed_id","signed_public_id"]}"#;

/// Schemas that results refer to.
pub(crate) const SCHEMAS: &[(&str, &str)] =
    &[("Channel", CHANNEL), ("PublicChannel", PUBLIC), ("TagChannel", FREE)];

const TYPE: Field =
    Field::may("TYPE", Kind::Text, "`private` unless given, or the client id of an application.");
const APPLICATION: Field = Field::may(
    "APPLICATION",
    Kind::Switch,
    "`Y`: the channel that `TYPE` or `CLIENT_ID` names, which must be an application's.",
);
const CLIENT: Field = Field::may("CLIENT_ID", Kind::Text, "The application that asks.");

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.channel.get",
        group: "Channels",
        about: "A user's channel; made, or renewed, when needed.",
        right: Right::Backend,
        fields: &[Field::needed("USER_ID", Kind::Number, "The user; negative for guests."), TYPE],
        result: r##"{"$ref":"#/components/schemas/Channel"}"##,
        example: r#"{"USER_ID":1}"#,
        run: |call| Box::pin(get(call)),
    },
    Operation {
        name: "pull.channel.shared.get",
        group: "Channels",
        about: "The channel that everybody hears; with a type the one of an application.",
        right: Right::Backend,
        fields: &[TYPE],
        result: r##"{"$ref":"#/components/schemas/Channel"}"##,
        example: "{}",
        run: |call| Box::pin(shared(call)),
    },
    Operation {
        name: "pull.channel.public.get",
        group: "Channels",
        about: "What others need to write to a user.",
        right: Right::User,
        fields: &[
            Field::may("USER_ID", Kind::Number, "The user; a token's own unless given."),
            TYPE,
            APPLICATION,
            CLIENT,
        ],
        result: r##"{"$ref":"#/components/schemas/PublicChannel"}"##,
        example: r#"{"USER_ID":1}"#,
        run: |call| Box::pin(public_get(call)),
    },
    Operation {
        name: "pull.channel.public.list",
        group: "Channels",
        about: "The same for many users, by user id; users that have no channel are left out.",
        right: Right::User,
        fields: &[Field::needed("USERS", Kind::List, "The users."), TYPE, APPLICATION, CLIENT],
        result: r##"{"oneOf":[{"type":"object","additionalProperties":{"$ref":"#/components/schemas/PublicChannel"}},{"type":"array","maxItems":0}]}"##,
        example: r#"{"USERS":[1,2]}"#,
        run: |call| Box::pin(public_list(call)),
    },
    Operation {
        name: "pull.channel.tag.get",
        group: "Channels",
        about: "The channel of a tag: always the same, without an end.",
        right: Right::Backend,
        fields: &[Field::needed("TAG", Kind::Text, "The tag.")],
        result: r##"{"$ref":"#/components/schemas/TagChannel"}"##,
        example: r#"{"TAG":"news"}"#,
        run: |call| Box::pin(of_tag(call)),
    },
    Operation {
        name: "pull.channel.delete",
        group: "Channels",
        about: "Deletes a channel by its id, or by user and type; its clients are told. Whether there was one.",
        right: Right::Backend,
        fields: &[
            Field::may("ID", Kind::Text, "The private id."),
            Field::may("USER_ID", Kind::Number, "The user; 0 for a shared one."),
            TYPE,
        ],
        result: r#"{"type":"boolean"}"#,
        example: r#"{"USER_ID":7}"#,
        run: |call| Box::pin(delete(call)),
    },
    Operation {
        name: "pull.channel.sign",
        group: "Channels",
        about: "Signs a channel id: as a private one, as a pair with `PUBLIC_ID`, or as a public one.",
        right: Right::Backend,
        fields: &[
            Field::needed("ID", Kind::Text, "The id: 32 hex digits."),
            Field::may("PUBLIC", Kind::Switch, "It is a public one."),
            Field::may("PUBLIC_ID", Kind::Text, "The public id of a pair."),
        ],
        result: r#"{"type":"string"}"#,
        example: r#"{"ID":"00112233445566778899aabbccddeeff"}"#,
        run: |call| Box::pin(sign(call)),
    },
    Operation {
        name: "pull.channel.stats",
        group: "Online",
        about: "How many connections listen to each channel.",
        right: Right::Backend,
        fields: &[Field::needed("CHANNELS", Kind::List, "Private ids of channels.")],
        result: r#"{"oneOf":[{"type":"object","additionalProperties":{"type":"integer"}},{"type":"array","maxItems":0}]}"#,
        example: r#"{"CHANNELS":["00112233445566778899aabbccddeeff"]}"#,
        run: |call| Box::pin(stats(call)),
    },
];

impl Call<'_> {
    fn kind(&self) -> Result<ChannelKind, RestError> {
        let named = self.input.text("TYPE")?.filter(|kind| !kind.is_empty());
        Ok(named.map_or(Ok(ChannelKind::Private), |kind| ChannelKind::named(&kind))?)
    }

    /// The kind that public ids are asked of: an application's with `APPLICATION`.
    fn public_kind(&self) -> Result<ChannelKind, RestError> {
        if self.input.switch("APPLICATION")? != Some(true) {
            return self.kind();
        }
        let client_id = self.input.text("CLIENT_ID")?.or(self.input.text("TYPE")?);
        match client_id.filter(|id| !id.is_empty()).map(|id| ChannelKind::named(&id)).transpose()? {
            Some(kind @ ChannelKind::Application(_)) => Ok(kind),
            _ => Err(RestError::new(400, "WRONG_AUTH_TYPE", "no application was named")),
        }
    }

    /// A channel id in a field.
    fn id(&self, name: &'static str) -> Result<Option<ChannelId>, RestError> {
        let Some(text) = self.input.text(name)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| RestError::argument(name, "32 hex digits"))
    }
}

fn described(channel: &Channel, options: &Options) -> Value {
    let public_id = channel.public_id.filter(|_| options.generation().has_public_channels());
    let signed = public_id.map_or_else(String::new, |id| options.sign_public_channel(id));
    Value::map([
        ("user_id", Value::Int(channel.user)),
        ("type", Value::text(channel.kind.name())),
        ("id", Value::Text(channel.id.to_string())),
        ("public_id", public_id.map_or(Value::Null, |id| Value::Text(id.to_string()))),
        ("signed_id", Value::Text(options.sign_for_listener(channel))),
        ("signed_public_id", Value::Text(signed)),
        ("start", Value::Text(date::atom(channel.created_s))),
        ("end", Value::Text(date::atom(channel.ends_s()))),
        ("last_id", Value::Int(channel.last_id)),
    ])
}

async fn get(call: Call<'_>) -> Outcome {
    let user = call.needed_user("USER_ID")?;
    let channel = call.tenant().channel(user, &call.kind()?).await?;
    let options = call.tenant().options("").await?;
    Ok(described(&channel, &options).to_json())
}

async fn shared(call: Call<'_>) -> Outcome {
    let named = call.input.text("TYPE")?.filter(|kind| !kind.is_empty());
    let kind = named.map_or(Ok(ChannelKind::Shared), |kind| ChannelKind::named(&kind))?;
    let channel = call.tenant().channel(0, &kind).await?;
    let options = call.tenant().options("").await?;
    Ok(described(&channel, &options).to_json())
}

async fn public_get(call: Call<'_>) -> Outcome {
    // Anybody signed in may write to anybody: that is what the ids are for.
    let user = match call.input.number("USER_ID")?.or(call.caller.user) {
        Some(user) => user,
        None => return Err(RestError::missing("USER_ID")),
    };
    let ids = call.tenant().public_ids(&[user], &call.public_kind()?).await?;
    let id = ids
        .first()
        .ok_or_else(|| RestError::new(400, "USER_NOT_ACTIVE", "this user has no public channel"))?;
    Ok(public_channel(id, Shape::Json).to_json())
}

async fn public_list(call: Call<'_>) -> Outcome {
    const USERS_MAX: usize = 1000;
    let wrong = |text| RestError::new(400, "INVALID_FORMAT", text);
    let users = call.input.numbers("USERS").map_err(|error| wrong(error.text))?;
    let users = users.filter(|users| users.iter().any(|user| *user > 0));
    let users = users.ok_or_else(|| wrong("field `USERS` takes a list of user ids".into()))?;
    if users.len() > USERS_MAX {
        return Err(wrong(format!("at most {USERS_MAX} users at a time")));
    }
    let ids = call.tenant().public_ids(&users, &call.public_kind()?).await?;
    Ok(public_channels(&ids, Shape::Json).to_json())
}

async fn of_tag(call: Call<'_>) -> Outcome {
    let tag = call.input.needed_text("TAG")?;
    let channel = call.tenant().tag_channel(&tag);
    let options = call.tenant().options("").await?;
    let described = Value::map([
        ("id", Value::Text(channel.id.to_string())),
        ("public_id", Value::Text(channel.public_id.to_string())),
        ("signed_id", Value::Text(options.sign_pair(channel.id, channel.public_id))),
        ("signed_public_id", Value::Text(options.sign_public_channel(channel.public_id))),
    ]);
    Ok(described.to_json())
}

async fn delete(call: Call<'_>) -> Outcome {
    let was_there = match call.id("ID")? {
        Some(id) => call.tenant().delete_channel(id).await?,
        None => {
            let user = call.needed_user("USER_ID")?;
            let named = call.input.text("TYPE")?.is_some_and(|kind| !kind.is_empty());
            let kind = if user == 0 && !named { ChannelKind::Shared } else { call.kind()? };
            call.tenant().delete_channel_of(user, &kind).await?
        }
    };
    Ok(was_there.to_string())
}

async fn sign(call: Call<'_>) -> Outcome {
    let id = call.id("ID")?.ok_or_else(|| RestError::missing("ID"))?;
    let options = call.tenant().options("").await?;
    let signed = match (call.id("PUBLIC_ID")?, call.input.switch("PUBLIC")?) {
        (Some(public_id), _) => options.sign_pair(id, public_id),
        (None, Some(true)) => options.sign_public_channel(id),
        (None, _) => options.sign_channel(id),
    };
    Ok(Value::Text(signed).to_json())
}

async fn stats(call: Call<'_>) -> Outcome {
    const CHANNELS_MAX: usize = 10_000;
    let texts = call.input.texts("CHANNELS")?.ok_or_else(|| RestError::missing("CHANNELS"))?;
    let ids: Result<Vec<ChannelId>, _> = texts.iter().map(|text| text.parse()).collect();
    let ids = ids.map_err(|_| RestError::argument("CHANNELS", "a list of 32 hex digits each"))?;
    if ids.len() > CHANNELS_MAX {
        return Err(RestError::argument("CHANNELS", "at most 10000 ids"));
    }
    if !call.tenant().options("").await?.is_server_on() {
        return Err(RestError::no_server());
    }
    if ids.is_empty() {
        return Ok("[]".to_owned());
    }
    let listeners = call.stage.server(call.tenant()).await?.listeners(&ids).await?;
    let counts = listeners
        .iter()
        .map(|it| (Value::Text(it.channel.to_string()), Value::Int(i64::from(it.count))));
    Ok(Value::Array(counts.collect()).to_json())
}
