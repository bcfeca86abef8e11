//! When users were last seen.

use vestnik_core::UserId;
use vestnik_core::publisher::AskError;

use super::input::number_of;
use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::php::Value;

const USERS_MAX: usize = 100_000;

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "getUsersLastSeen",
        group: "Online",
        about: "Seconds since each user was seen, 0 for who is online; users never seen are left out.",
        right: Right::Backend,
        fields: &[Field::needed("userList", Kind::List, "The users.")],
        result: r#"{"oneOf":[{"type":"object","additionalProperties":{"type":"integer"}},{"type":"array","maxItems":0}]}"#,
        example: r#"{"userList":[1,2,3]}"#,
        run: |call| Box::pin(get(call)),
    },
    Operation {
        name: "updateUsersLastSeen",
        group: "Online",
        about: "Tells when users were seen elsewhere: the fields are user ids with unix times.",
        right: Right::Backend,
        fields: &[],
        result: r#"{"type":"array","maxItems":0}"#,
        example: r#"{"1":1767225600,"2":1767225660}"#,
        run: |call| Box::pin(update(call)),
    },
];

async fn get(call: Call<'_>) -> Outcome {
    let numbers = call.input.numbers("userList")?.ok_or_else(|| RestError::missing("userList"))?;
    if numbers.len() > USERS_MAX {
        return Err(RestError::argument("userList", "at most 100000 users"));
    }
    let users: Vec<UserId> = numbers.into_iter().filter_map(UserId::new).collect();
    if users.is_empty() {
        return Ok("[]".to_owned());
    }
    let server = call.stage.server(call.tenant()).await?;
    let seen = match server.last_seen(&users).await {
        Err(AskError::Unsupported(_)) => seen_here(&call, &users).await?,
        other => other?,
    };
    let seen = seen.into_iter().map(|(user, seconds)| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        (Value::Text(user.to_string()), Value::Int(seconds))
    });
    Ok(Value::Array(seen.collect()).to_json())
}

/// What the module knows by itself, where the server knows no users.
async fn seen_here(call: &Call<'_>, users: &[UserId]) -> Result<Vec<(UserId, u64)>, RestError> {
    let numbers: Vec<i64> = users.iter().map(|user| user.number()).collect();
    let since = call.tenant().seconds_since_activity(&numbers).await?;
    Ok(since.into_iter().filter_map(|(user, ago)| Some((UserId::new(user)?, ago))).collect())
}

async fn update(call: Call<'_>) -> Outcome {
    let wrong = || RestError::new(400, "ERROR_ARGUMENT", "an object of user ids and unix times");
    let mut seen = Vec::new();
    for (user, at) in call.input.fields() {
        let Ok(user) = user.parse::<i64>() else { continue };
        let at = number_of(at).and_then(|at| u64::try_from(at).ok()).ok_or_else(wrong)?;
        seen.extend(UserId::new(user).map(|user| (user, at)));
    }
    if seen.is_empty() {
        return Err(wrong());
    }
    let active: Vec<_> = seen.iter().map(|(user, at_s)| (user.number(), *at_s)).collect();
    call.tenant().note_activity(&active).await?;
    match call.stage.server(call.tenant()).await?.update_last_seen(&seen).await {
        // Below generation 5 the module alone keeps it.
        Ok(()) | Err(AskError::Unsupported(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok("[]".to_owned())
}
