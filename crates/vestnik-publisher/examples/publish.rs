//! Publishes one event to a channel of a queue server: `publish http://127.0.0.1:8895/bitrix/pub/ CHANNEL_ID`.

use std::time::Duration;

use vestnik_core::publisher::{ModuleEvent, Publisher as _, Recipients};
use vestnik_core::{Clock, Expiry, MessageKind};
use vestnik_proto::publisher::BatchLimits;
use vestnik_publisher::{Breaker, Options, Protocol, RemotePublisher};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("the address comes first")?;
    let channel = arguments.next().ok_or("the channel comes second")?.parse()?;
    let options = Options {
        url,
        protocol: Protocol::Protobuf(None),
        hostname: String::new(),
        key: None,
        limits: BatchLimits::default(),
        connect_within: Duration::from_secs(2),
        answer_within: Duration::from_secs(5),
        tls: None,
    };
    let publisher =
        RemotePublisher::new(options, Breaker::default(), Clock::System, Box::new(|_| {}))?;
    let event = ModuleEvent {
        body: br#"{"module_id":"chat","command":"message","params":{"text":"hello"}}"#[..].into(),
        kind: MessageKind::parse("chat_message"),
        expiry: Expiry::new(3600, Expiry::MAX),
        recipients: Recipients { channels: vec![channel], ..Recipients::default() },
        user_params: Vec::new(),
        dictionary: None,
    };
    for outcome in publisher.publish(&[event]).await {
        outcome?;
    }
    Ok(())
}
