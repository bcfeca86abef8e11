//! `vestnik publish`: sends one event, as a site's back end does.

use std::io::{Read as _, Write as _};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use vestnik_proto::query::ChannelList;

use crate::client::{self, Address};
use crate::failure::Failure;

/// Arguments of `vestnik publish`.
#[derive(Debug, clap::Args)]
pub(crate) struct PublishArgs {
    /// Channels to publish to: private ids (32 hex digits), signed or not, joined by `/`.
    #[arg(value_name = "CHANNELS")]
    channels: String,
    /// The event: JSON, for example {"module_id":"im","command":"hello","params":{}}; `-` reads it
    /// from standard input.
    #[arg(value_name = "EVENT")]
    event: String,
    /// Keep the event this many seconds for those who come back; 0: only for who is connected.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    expiry: u32,
    /// The publish address, as on the site's settings page.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8895/bitrix/pub/")]
    url: Address,
}

/// Publishes and says so.
pub(crate) fn run(args: &PublishArgs) -> anyhow::Result<()> {
    let event = event(args)?;
    ChannelList::parse(&args.channels, usize::MAX).map_err(|error| {
        Failure::new(
            error,
            "a channel is 32 lower-case hex digits, with `:<public id>` and `.<signature>` if it is \
             signed; `vestnik sign --random` makes one",
        )
    })?;
    client::run(publish(args, event))
}

fn event(args: &PublishArgs) -> anyhow::Result<String> {
    let mut event = args.event.clone();
    if event == "-" {
        event.clear();
        std::io::stdin().read_to_string(&mut event).context("cannot read the event")?;
    }
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(&event);
    let hint = "an event is a JSON object: {\"module_id\":\"…\",\"command\":\"…\",\"params\":{…}}";
    match parsed {
        Ok(value) if value.get("module_id").is_some_and(serde_json::Value::is_string) => Ok(event),
        Ok(_) => {
            Err(Failure::new("the event has no module_id, clients would ignore it", hint).into())
        }
        Err(error) => Err(Failure::new(format!("the event is no JSON: {error}"), hint).into()),
    }
}

async fn publish(args: &PublishArgs, event: String) -> anyhow::Result<()> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(args.url.with(&[("CHANNEL_ID", &args.channels)]))
        .header("Message-Expiry", args.expiry);
    let answer = args.url.send(request, Bytes::from(event)).await?;
    match answer.status() {
        StatusCode::OK => {
            if let Some(reason) = answer.headers().get("vestnik-dropped") {
                let reason = String::from_utf8_lossy(reason.as_bytes());
                return Err(Failure::new(
                    format!("the server dropped the event: {reason}"),
                    "sites get a success for this too; check the channel and the key it is signed with",
                )
                .into());
            }
            writeln!(std::io::stdout(), "published").context("cannot write")?;
            Ok(())
        }
        StatusCode::FORBIDDEN => Err(Failure::new(
            "the server does not let this address publish (403)",
            "publish from the server itself, or add the address to trusted.allow",
        )
        .into()),
        StatusCode::NOT_FOUND => Err(Failure::new(
            "there is nothing at this address (404)",
            "the publish path ends with /bitrix/pub/; `vestnik serve` prints it",
        )
        .into()),
        status => {
            let body = client::short_body(answer).await;
            Err(Failure::new(format!("the server answered {status} {body}"), "its log says why")
                .into())
        }
    }
}
