//! Bytes to vocabulary and back: the only crate that knows a wire format. Pure: no async, no I/O.

mod body;
pub mod json;
pub mod jsonrpc;
pub mod jwt;
pub mod protobuf;
pub mod publisher;
pub mod query;
pub mod quirks;
pub mod text;
pub mod websocket;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vestnik_core::message::{Author, Draft, Envelope, Expiry, MessageId, MessageKind};
    use vestnik_core::{ChannelId, Receiver};

    /// Message 3313 of the back end, numbered at the second of the specification's example.
    pub(crate) fn envelope(body: &'static str) -> Envelope {
        envelope_of(body, 1_795_487_767_733)
    }

    pub(crate) fn envelope_of(body: impl Into<Bytes>, created_ms: u64) -> Envelope {
        let draft = Draft {
            receivers: Box::new([Receiver::Private(ChannelId::from_bytes([1; 16]))]),
            body: body.into(),
            expiry: Expiry::new(60, Expiry::MAX),
            author: Author::Backend,
            kind: MessageKind::UNKNOWN,
            additions: vestnik_core::message::Additions::default(),
        };
        Envelope::new(MessageId::new(1_795_487_320, 3313), created_ms, draft)
    }
}
