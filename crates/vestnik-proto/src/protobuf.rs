//! Protobuf of generation 4: what goes out to subscribers, and the requests of publishers.
//!
//! Messages are the structs of [`schema`]; requests from outside are read by [`request`] without
//! them, because their limits must hold before memory is spent.

use bytes::Bytes;
use prost::Message;
use vestnik_core::message::{Author, Encoding, Envelope};
use vestnik_core::{ChannelId, Receiver};

use crate::websocket::{self, Opcode};

pub mod request;
pub mod schema;
mod wire;

pub use request::{Caller, Decoded, Request, RequestError, RequestLimits, decode_request_batch};

/// A complete WebSocket binary frame with a ResponseBatch of one message, made once for each
/// message (queue-server.md §7.3).
///
/// `sender` is always there (K-020), `expiry` also when it is 0, `created` in unix seconds
/// . The body is the published one, byte for byte (D8).
#[must_use]
pub fn frame(envelope: &Envelope) -> &Bytes {
    envelope.frame(Encoding::Protobuf, |envelope| {
        websocket::frame(Opcode::Binary, &[&response(outgoing(envelope))])
    })
}

/// The batch of [`frame`] without the frame. Several in a row are one batch of all their
/// messages: protobuf joins repeated fields.
#[must_use]
pub fn record(envelope: &Envelope) -> Bytes {
    websocket::payload_of(frame(envelope))
}

/// One binary frame with everything in `records`: batches made by [`record`],
/// [`channel_stats`] or [`server_stats`], in their order (D9).
#[must_use]
pub fn batch_frame(records: &[Bytes]) -> Bytes {
    let parts: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
    websocket::frame(Opcode::Binary, &parts)
}

/// The answer to a channel statistics request: a batch with each asked channel in the order it was
/// asked for and whether it is online.
#[must_use]
pub fn channel_stats(channels: &[(Receiver, bool)]) -> Bytes {
    let channels = channels
        .iter()
        .filter_map(|(receiver, is_online)| {
            Some(schema::ChannelStats {
                id: raw_id(receiver.channel()?),
                is_private: Some(receiver.is_private()),
                is_online: Some(*is_online),
            })
        })
        .collect();
    response(schema::ResponseCommand::ChannelStats(schema::ChannelStatsResponse { channels }))
        .into()
}

/// The answer to a server statistics request: a batch with the JSON text of the statistics.
#[must_use]
pub fn server_stats(json: String) -> Bytes {
    response(schema::ResponseCommand::ServerStats(schema::JsonResponse { json })).into()
}

fn outgoing(envelope: &Envelope) -> schema::ResponseCommand {
    let sender = match envelope.author {
        Author::Backend => schema::Sender { kind: schema::SenderType::Backend.into(), id: None },
        Author::Client(id) => {
            schema::Sender { kind: schema::SenderType::Client.into(), id: Some(raw_id(id)) }
        }
        // A user has no id of 16 bytes (D20).
        Author::User(_) | Author::Unnamed => {
            schema::Sender { kind: schema::SenderType::Client.into(), id: None }
        }
    };
    let message = schema::OutgoingMessage {
        id: Bytes::copy_from_slice(&envelope.id.to_packed()),
        body: Some(envelope.body.clone()),
        expiry: Some(envelope.expiry.seconds()),
        created: Some(u32::try_from(envelope.created_s()).unwrap_or(u32::MAX)),
        sender: Some(sender),
    };
    schema::ResponseCommand::OutgoingMessages(schema::OutgoingMessagesResponse {
        messages: vec![message],
    })
}

fn response(command: schema::ResponseCommand) -> Vec<u8> {
    let response = schema::Response { command: Some(command) };
    schema::ResponseBatch { responses: vec![response] }.encode_to_vec()
}

fn raw_id(id: ChannelId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

#[cfg(test)]
mod tests;
