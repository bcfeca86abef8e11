//! The cloud and the queue server itself: `pull.server.*` (module.md §11, §15).

use super::{Call, Field, Kind, Operation, Outcome, RestError, Right, TriedAddress};
use crate::option::Key;
use crate::php::Value;

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "pull.server.list",
        group: "Server",
        about: "The servers of the cloud that a site can register with.",
        right: Right::Administrator,
        fields: &[],
        result: r#"{"type":"array","items":{"type":"object","required":["url","region"]}}"#,
        example: "",
        run: |call| Box::pin(list(call)),
    },
    Operation {
        name: "pull.server.register",
        group: "Server",
        about: "Registers with a server of the cloud and goes over to it. A failed try changes nothing.",
        right: Right::Administrator,
        fields: &[Field::may(
            "HOST",
            Kind::Text,
            "The server; absent: the one the directory chooses.",
        )],
        result: r#"{"type":"object","required":["host"],"properties":{"host":{"type":"string"}}}"#,
        example: "",
        run: |call| Box::pin(register(call)),
    },
    Operation {
        name: "pull.server.check",
        group: "Server",
        about: "Asks the queue server something, and tells whether and what it answers. With `STEPS` every configured address is tried, too, as clients and the site checker do: publishing, polls, WebSockets, replay, publishing of clients.",
        right: Right::Backend,
        fields: &[
            Field::may(
                "STEPS",
                Kind::Switch,
                "Try every address; takes some seconds, and needs the right of an administrator.",
            ),
            Field::may(
                "HOST",
                Kind::Text,
                "What stands for `#DOMAIN#`; that of the request unless given.",
            ),
        ],
        result: r#"{"type":"object","required":["reachable","version","error"],"properties":{"reachable":{"type":"boolean"},"version":{"type":"integer"},"error":{"type":["string","null"]},"steps":{"type":"array","items":{"type":"object","required":["step","address","outcome","detail","remedy","line","milliseconds"]}}}}"#,
        example: "{}",
        run: |call| Box::pin(check(call)),
    },
];

async fn list(call: Call<'_>) -> Outcome {
    let region = call.tenant().options("").await?.text(Key::Region).to_owned();
    let servers = call.stage.cloud_servers(&region).await?;
    let servers = (0..).zip(servers).map(|(at, (url, region))| {
        let server = Value::map([("url", Value::Text(url)), ("region", Value::Text(region))]);
        (Value::Int(at), server)
    });
    Ok(Value::Array(servers.collect()).to_json())
}

async fn register(call: Call<'_>) -> Outcome {
    let options = call.tenant().options("").await?;
    let wanted = call.input.text("HOST")?.filter(|host| !host.is_empty());
    let licence = options.text(Key::LicenceKey);
    let licence = Some(licence).filter(|key| !key.is_empty());
    let region = options.text(Key::Region);
    let (host, key) = call.stage.cloud_register(region, wanted.as_deref(), licence).await?;
    // The mode last known to work stays until there is a key (S-59).
    let changes = [
        (Key::SharedServerAddress, Some(host.as_str())),
        (Key::SharedServerKey, Some(key.expose().as_str())),
        (Key::RegisteredOnSharedServer, Some("Y")),
        (Key::ServerMode, Some("shared")),
    ];
    call.tenant().set_options("", &changes).await?;
    Ok(Value::map([("host", Value::Text(host.clone()))]).to_json())
}

async fn check(call: Call<'_>) -> Outcome {
    let options = call.tenant().options("").await?;
    if !options.is_server_on() {
        return Err(RestError::no_server());
    }
    let error = match call.stage.server(call.tenant()).await {
        Err(error) => Some(error.text),
        Ok(server) if server.addresses_users() && options.generation().has_tokens() => {
            let user = vestnik_core::UserId::new(1);
            let users: Vec<_> = user.into_iter().collect();
            server.last_seen(&users).await.err().map(|error| error.to_string())
        }
        Ok(server) => {
            let channel = call.tenant().random_channel()?;
            server.listeners(&[channel.id]).await.err().map(|error| error.to_string())
        }
    };
    let mut answer = vec![
        ("reachable", Value::Bool(error.is_none())),
        ("version", Value::Int(options.generation().number())),
        ("error", error.map_or(Value::Null, Value::Text)),
    ];
    if call.input.switch("STEPS")? == Some(true) {
        if call.caller.right < Right::Administrator {
            // It makes this program connect to hosts that the caller names, and says what they answer.
            return Err(RestError::denied("`STEPS` needs the right of an administrator"));
        }
        if options.text(Key::ServerMode) == "shared" {
            let text = "the addresses of a cloud server are not configured here";
            return Err(RestError::argument("STEPS", text));
        }
        let host = call.input.text("HOST")?.filter(|host| !host.is_empty());
        let domain = host.unwrap_or_else(|| call.caller.host.clone());
        let steps = call.stage.try_addresses(call.tenant(), &domain).await?;
        let steps = (0..).zip(steps).map(|(at, step)| (Value::Int(at), step_of(step)));
        answer.push(("steps", Value::Array(steps.collect())));
    }
    Ok(Value::map(answer).to_json())
}

fn step_of(tried: TriedAddress) -> Value {
    let milliseconds = i64::try_from(tried.milliseconds).unwrap_or(i64::MAX);
    Value::map([
        ("step", Value::text(tried.step)),
        ("address", Value::Text(tried.address)),
        ("outcome", Value::text(tried.outcome)),
        ("detail", Value::Text(tried.detail)),
        ("remedy", tried.remedy.map_or(Value::Null, Value::text)),
        ("line", Value::text(tried.line)),
        ("milliseconds", Value::Int(milliseconds)),
    ])
}
