//! Secrets of back ends and tokens of users.

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::access::TOKEN_TTL_S;
use crate::php::Value;
use vestnik_core::date;

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.token.get",
        group: "Access",
        about: "A token with which a page calls the operations of users, as this user alone. It is sent as `Authorization: Bearer`.",
        right: Right::Backend,
        fields: &[
            Field::needed("USER_ID", Kind::Number, "The user; negative for guests."),
            Field::may("TTL", Kind::Number, "Seconds it lives, up to 86400; 3600 unless given."),
        ],
        result: r#"{"type":"object","required":["token","expires"],"properties":{"token":{"type":"string"},"expires":{"type":"string"}}}"#,
        example: r#"{"USER_ID":1}"#,
        run: |call| Box::pin(token(call)),
    },
    Operation {
        name: "pull.token.revokeAll",
        group: "Access",
        about: "Makes all tokens of users worthless that were issued so far.",
        right: Right::Administrator,
        fields: &[],
        result: r#"{"const":true}"#,
        example: "{}",
        run: |call| Box::pin(revoke(call)),
    },
    Operation {
        name: "pull.secret.add",
        group: "Access",
        about: "Makes a secret for a back end; it is shown here and never again.",
        right: Right::Administrator,
        fields: &[
            Field::needed("NAME", Kind::Text, "What it is for."),
            Field::may("RIGHT", Kind::Text, "`backend` unless given, or `admin`."),
        ],
        result: r#"{"type":"object","required":["secret"],"properties":{"secret":{"type":"string"}}}"#,
        example: r#"{"NAME":"shop"}"#,
        run: |call| Box::pin(add(call)),
    },
    Operation {
        name: "pull.secret.list",
        group: "Access",
        about: "The secrets there are, without their texts.",
        right: Right::Administrator,
        fields: &[],
        result: r#"{"type":"array","items":{"type":"object","required":["id","name","right","created"]}}"#,
        example: "{}",
        run: |call| Box::pin(list(call)),
    },
    Operation {
        name: "pull.secret.delete",
        group: "Access",
        about: "Removes a secret. Whether there was one.",
        right: Right::Administrator,
        fields: &[Field::needed("ID", Kind::Number, "Its number.")],
        result: r#"{"type":"boolean"}"#,
        example: r#"{"ID":1}"#,
        run: |call| Box::pin(remove(call)),
    },
];

async fn token(call: Call<'_>) -> Outcome {
    let user = call.needed_user("USER_ID")?;
    let life_s = call.input.number("TTL")?.map_or(Ok(TOKEN_TTL_S), u64::try_from);
    let life_s = life_s.map_err(|_| RestError::argument("TTL", "1 to 86400"))?;
    let (token, end_s) = call.tenant().issue_token(user, life_s).await?;
    let expires = Value::Text(date::atom(end_s));
    Ok(Value::map([("token", Value::Text(token)), ("expires", expires)]).to_json())
}

async fn revoke(call: Call<'_>) -> Outcome {
    call.tenant().revoke_tokens().await?;
    Ok("true".to_owned())
}

async fn add(call: Call<'_>) -> Outcome {
    let name = call.input.needed_text("NAME")?;
    let right = call.input.text("RIGHT")?.unwrap_or_else(|| Right::Backend.name().to_owned());
    let right = Right::of_secret(&right)
        .ok_or_else(|| RestError::argument("RIGHT", "`backend` or `admin`"))?;
    let secret = call.tenant().add_secret(&name, right).await?;
    Ok(Value::map([("secret", Value::text(secret.expose()))]).to_json())
}

async fn list(call: Call<'_>) -> Outcome {
    let secrets = call.tenant().secrets().await?;
    let entries = (0..).zip(secrets).map(|(at, secret)| {
        let entry = Value::map([
            ("id", Value::Int(secret.id)),
            ("name", Value::Text(secret.name)),
            ("right", Value::text(secret.right.name())),
            ("created", Value::Text(date::atom(secret.created_s))),
        ]);
        (Value::Int(at), entry)
    });
    Ok(Value::Array(entries.collect()).to_json())
}

async fn remove(call: Call<'_>) -> Outcome {
    let id = call.input.number("ID")?.ok_or_else(|| RestError::missing("ID"))?;
    Ok(call.tenant().remove_secret(id).await?.to_string())
}
