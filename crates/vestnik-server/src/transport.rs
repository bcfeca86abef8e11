//! The ways messages reach a subscriber: WebSocket and long polling.

pub(crate) mod between_polls;
pub(crate) mod long_poll;
pub(crate) mod websocket;

use std::time::Duration;

use bytes::Bytes;
use vestnik_core::{Encoding, Envelope, MessageId, User};
use vestnik_proto::query::Framing;
use vestnik_proto::websocket::deflate;
use vestnik_proto::{json, jsonrpc, protobuf, text};

pub(crate) use long_poll::Poll;
pub(crate) use websocket::{CLOSING_S, Deadline, Ended, WebSocket, Written, websocket};

/// A connection over a limit is refused after this time, which slows its tab down (K-044).
pub(crate) const REFUSAL_PAUSE: Duration = Duration::from_secs(3);

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The process stops.
    Stopping,
    /// Its outbox ran full.
    SlowSubscriber,
    /// It missed more than may wait for one connection, and was given the beginning of it: it comes back for
    /// the rest.
    MoreMissed,
    /// Its channel, or the server, has too many connections.
    TooManyConnections,
    /// What it missed cannot be read.
    HistoryUnreadable,
    /// Its token is refused.
    WrongToken,
    /// Its token ended long ago.
    TokenOver {
        /// Whether it is a web client.
        has_revision: bool,
    },
}

impl CloseReason {
    /// Seconds that a peer has to take what goes out before the close, and to answer it.
    pub(crate) const fn patience_s(self) -> u64 {
        match self {
            // It was given all that an outbox takes, over a way that may be slow.
            Self::MoreMissed => 120,
            _ => CLOSING_S,
        }
    }
}

/// What a shard keeps for one subscriber beside its channels and its outbox.
pub(crate) enum Connection {
    /// An open WebSocket connection.
    WebSocket(WebSocket),
    /// A long poll that is being held.
    Poll(Poll),
    /// A poll that was answered a moment ago: it counts as online until its client comes back
    /// (README D13). With the position it was answered with, messages gather for its next poll.
    BetweenPolls(Option<MessageId>),
}

/// A message as a ready compressed WebSocket frame, or a plain one where that is no larger.
pub(crate) fn deflated_frame(
    framing: Framing,
    envelope: &Envelope,
    user: impl FnOnce() -> Option<User>,
) -> &Bytes {
    let encoding = match framing {
        Framing::Text => Encoding::TextDeflated,
        Framing::Protobuf => Encoding::ProtobufDeflated,
        Framing::Json => Encoding::JsonDeflated,
        Framing::JsonRpc => Encoding::JsonRpcDeflated,
    };
    envelope.for_user(user, jsonrpc::merged).frame(encoding, |envelope| {
        let frame = frame(framing, envelope, || None);
        if frame.is_empty() { Bytes::new() } else { deflate::compressed(frame) }
    })
}

/// A message as a ready WebSocket frame, as connections of `user` get it. Empty when it has no form in
/// this framing.
pub(crate) fn frame(
    framing: Framing,
    envelope: &Envelope,
    user: impl FnOnce() -> Option<User>,
) -> &Bytes {
    let envelope = envelope.for_user(user, jsonrpc::merged);
    match framing {
        Framing::Text => text::frame(envelope),
        Framing::JsonRpc => jsonrpc::frame(envelope),
        Framing::Protobuf => protobuf::frame(envelope),
        Framing::Json => json::frame(envelope),
    }
}
