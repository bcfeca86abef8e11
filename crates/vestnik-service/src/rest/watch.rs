//! Watches: who wants the events of a tag.

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right};
use crate::php::Value;

const USER: Field = Field::needed("USER_ID", Kind::Number, "The user.");
const TAGS: Field =
    Field::needed("TAGS", Kind::List, "The tags; a single one may be called `TAG`.");

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.watch.add",
        group: "Watches",
        about: "Makes a user watch tags for 32 minutes. `false` without a user or a tag.",
        right: Right::Backend,
        fields: &[
            USER,
            TAGS,
            Field::may(
                "IMMEDIATE",
                Kind::Switch,
                "Taken, and without effect: everything is written at once.",
            ),
        ],
        result: r#"{"type":"boolean"}"#,
        example: r#"{"USER_ID":1,"TAGS":["CRM_DEAL_7"]}"#,
        run: |call| Box::pin(add(call)),
    },
    Operation {
        name: "pull.watch.extend",
        group: "Watches",
        about: "Extends watches that are there: whether each was. Makes none.",
        right: Right::User,
        fields: &[USER, TAGS],
        result: r#"{"oneOf":[{"type":"object","additionalProperties":{"type":"boolean"}},{"type":"array","items":{"type":"boolean"}},{"const":false}]}"#,
        example: r#"{"USER_ID":1,"TAGS":["CRM_DEAL_7","X"]}"#,
        run: |call| Box::pin(extend(call)),
    },
    Operation {
        name: "pull.watch.delete",
        group: "Watches",
        about: "Removes watches of a user: those of the tags, or all. Whether there was one.",
        right: Right::Backend,
        fields: &[USER, Field::may("TAGS", Kind::List, "The tags; absent: all.")],
        result: r#"{"type":"boolean"}"#,
        example: r#"{"USER_ID":1,"TAGS":["CRM_DEAL_7"]}"#,
        run: |call| Box::pin(delete(call)),
    },
    Operation {
        name: "pull.watch.users",
        group: "Watches",
        about: "The users who watch any of the tags.",
        right: Right::Backend,
        fields: &[TAGS],
        result: r#"{"type":"array","items":{"type":"string"}}"#,
        example: r#"{"TAGS":["CRM_DEAL_7"]}"#,
        run: |call| Box::pin(users(call)),
    },
];

impl Call<'_> {
    fn tags(&self) -> Result<Option<Vec<String>>, RestError> {
        match self.input.texts("TAGS")? {
            Some(tags) => Ok(Some(tags)),
            None => self.input.texts("TAG"),
        }
    }
}

fn plain(tags: &[String]) -> Vec<&str> {
    tags.iter().map(String::as_str).collect()
}

async fn add(call: Call<'_>) -> Outcome {
    let user = call.user("USER_ID")?.unwrap_or(0);
    let tags = call.tags()?.unwrap_or_default();
    Ok(call.tenant().add_watches(user, &plain(&tags)).await?.to_string())
}

pub(super) async fn extend(call: Call<'_>) -> Outcome {
    let user = call.user("USER_ID")?.unwrap_or(0);
    let tags = call.tags()?.unwrap_or_default();
    let Some(extended) = call.tenant().extend_watches(user, &plain(&tags)).await? else {
        return Ok("false".to_owned());
    };
    let map = extended.into_iter().map(|(tag, was)| (Value::text(tag), Value::Bool(was)));
    Ok(Value::Array(map.collect()).to_json())
}

async fn delete(call: Call<'_>) -> Outcome {
    let user = call.needed_user("USER_ID")?;
    let tags = call.tags()?;
    let tags = tags.as_deref().map(plain);
    Ok(call.tenant().delete_watches(user, tags.as_deref()).await?.to_string())
}

async fn users(call: Call<'_>) -> Outcome {
    let tags = call.tags()?.ok_or_else(|| RestError::missing("TAGS"))?;
    let users = call.tenant().watching_users(&plain(&tags)).await?;
    // As texts: so the PHP module gives them.
    let users = (0..).zip(users).map(|(at, user)| (Value::Int(at), Value::Text(user.to_string())));
    Ok(Value::Array(users.collect()).to_json())
}
