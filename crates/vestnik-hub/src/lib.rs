//! The queue: who is connected, what was said, who gets it.
//!
//! The hub names no generation, no HTTP and no JSON: it moves [`vestnik_core::Envelope`]s from
//! publishers to the connections that listen, and keeps what must be kept.

pub mod announce;
pub mod engine;
pub mod hub;
pub mod outbox;
pub mod pairs;
pub mod presence;
mod reply;
pub mod shard;
pub mod stats;

pub use announce::{Announced, Announcer, ShardNumber};
pub use engine::{Engine, EngineError};
pub use hub::{Hub, PublishError};
pub use outbox::{Item, Outbox, OutboxLimits, Queue};
pub use presence::Presence;
pub use reply::settle_on;
pub use shard::{Shard, Subscriber, SubscriberKey};
