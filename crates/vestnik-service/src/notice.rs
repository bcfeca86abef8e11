//! What the module itself tells clients: channels that expire, settings that changed.

use bytes::Bytes;
use vestnik_core::date;
use vestnik_core::publisher::{ModuleEvent, Recipients};
use vestnik_core::{ChannelId, Expiry, MessageKind};

use crate::php::Value;

/// Revision of the web client that events and configurations carry.
pub const REVISION_WEB: i64 = 19;
/// Revision of the mobile client.
pub const REVISION_MOBILE: i64 = 3;

/// A message to be published on behalf of a tenant.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `hostId` of the tenant.
    pub host_id: String,
    /// The event, addressed to one channel.
    pub event: ModuleEvent,
}

/// The member `extra` of every event (module.md §7.2).
#[must_use]
pub fn extra(now_ms: u64, server_name: &str) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds fit the 53 bits of a float")]
    let unix = now_ms as f64 / 1000.0;
    Value::map([
        ("server_time", Value::Text(date::atom(now_ms / 1000))),
        ("server_time_unix", Value::Float(unix)),
        ("server_name", Value::text(server_name)),
        ("revision_web", Value::Int(REVISION_WEB)),
        ("revision_mobile", Value::Int(REVISION_MOBILE)),
    ])
}

/// An event of the module `pull` to one channel, kept for a day.
pub(crate) fn event(to: ChannelId, command: &str, params: Value, extra: Value) -> ModuleEvent {
    let body = Value::map([
        ("module_id", Value::text("pull")),
        ("command", Value::text(command)),
        ("params", params),
        ("extra", extra),
    ]);
    ModuleEvent {
        body: Bytes::from(body.to_json()),
        kind: MessageKind::parse(&format!("pull_{command}")),
        expiry: Expiry::MAX,
        recipients: Recipients { channels: vec![to], ..Recipients::default() },
        user_params: Vec::new(),
        dictionary: None,
    }
}
