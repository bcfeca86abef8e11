//! The messages of queue-server.md §5 as they stand on the wire, proto3.
//!
//! A field that must be written although it holds its default is an `Option`. Bodies are bytes
//! where the original says `string`: the wire form is the same, and a body with broken UTF-8 can
//! be repaired instead of refused.

use bytes::Bytes;

/// What a publisher or a client sends: any number of requests.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestBatch {
    /// The requests.
    #[prost(message, repeated, tag = "1")]
    pub requests: Vec<Request>,
}

/// One request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is asked for.
    #[prost(oneof = "RequestCommand", tags = "1, 2, 3")]
    pub command: Option<RequestCommand>,
}

/// The commands of a [`Request`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum RequestCommand {
    /// Publish messages.
    #[prost(message, tag = "1")]
    IncomingMessages(IncomingMessagesRequest),
    /// Which channels are online.
    #[prost(message, tag = "2")]
    ChannelStats(ChannelStatsRequest),
    /// Statistics of the server.
    #[prost(message, tag = "3")]
    ServerStats(ServerStatsRequest),
}

/// Messages to publish.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IncomingMessagesRequest {
    /// The messages, in order.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<IncomingMessage>,
}

/// One message to publish.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IncomingMessage {
    /// Where it goes.
    #[prost(message, repeated, tag = "1")]
    pub receivers: Vec<Receiver>,
    /// Ignored: the server sets it.
    #[prost(message, optional, tag = "2")]
    pub sender: Option<Sender>,
    /// The event, UTF-8.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
    /// Seconds to keep it; 0: not at all.
    #[prost(uint32, tag = "4")]
    pub expiry: u32,
    /// What it is counted as.
    #[prost(string, tag = "5")]
    pub kind: String,
}

/// A channel that a message goes to, or that is asked about (there named `ChannelId`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Receiver {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Whether the id is of the private space.
    #[prost(bool, tag = "2")]
    pub is_private: bool,
    /// Raw bytes of the signature of a public id; from clients only.
    #[prost(bytes = "bytes", tag = "3")]
    pub signature: Bytes,
}

/// Which channels are asked about.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelStatsRequest {
    /// The channels.
    #[prost(message, repeated, tag = "1")]
    pub channels: Vec<Receiver>,
}

/// Nothing to say.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ServerStatsRequest {}

/// Who a message comes from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sender {
    /// Back end or client.
    #[prost(enumeration = "SenderType", tag = "1")]
    pub kind: i32,
    /// Public id of a client, 16 bytes; absent for the back end.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub id: Option<Bytes>,
}

/// Kinds of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SenderType {
    /// Not said.
    Unknown = 0,
    /// Another client.
    Client = 1,
    /// The site.
    Backend = 2,
}

/// What the server sends: any number of responses.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseBatch {
    /// The responses.
    #[prost(message, repeated, tag = "1")]
    pub responses: Vec<Response>,
}

/// One response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    /// What is said.
    #[prost(oneof = "ResponseCommand", tags = "1, 2, 3")]
    pub command: Option<ResponseCommand>,
}

/// The commands of a [`Response`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ResponseCommand {
    /// Messages for this subscriber.
    #[prost(message, tag = "1")]
    OutgoingMessages(OutgoingMessagesResponse),
    /// Which channels are online.
    #[prost(message, tag = "2")]
    ChannelStats(ChannelStatsResponse),
    /// Statistics of the server.
    #[prost(message, tag = "3")]
    ServerStats(JsonResponse),
}

/// Messages for a subscriber.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutgoingMessagesResponse {
    /// The messages, in order.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<OutgoingMessage>,
}

/// One message for a subscriber.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutgoingMessage {
    /// The 13 bytes of the message id.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// The event.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub body: Option<Bytes>,
    /// Seconds it is kept.
    #[prost(uint32, optional, tag = "3")]
    pub expiry: Option<u32>,
    /// Unix seconds.
    #[prost(fixed32, optional, tag = "4")]
    pub created: Option<u32>,
    /// Who it comes from; clients fail without it (K-020).
    #[prost(message, optional, tag = "5")]
    pub sender: Option<Sender>,
}

/// Which channels are online.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelStatsResponse {
    /// The channels in the order they were asked for.
    #[prost(message, repeated, tag = "1")]
    pub channels: Vec<ChannelStats>,
}

/// Whether one channel is online.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChannelStats {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// Whether the id is of the private space.
    #[prost(bool, optional, tag = "2")]
    pub is_private: Option<bool>,
    /// Whether somebody listens to it.
    #[prost(bool, optional, tag = "3")]
    pub is_online: Option<bool>,
}

/// JSON text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JsonResponse {
    /// The text.
    #[prost(string, tag = "1")]
    pub json: String,
}

/// What processes of one cluster tell each other through Redis.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NotificationBatch {
    /// The notifications.
    #[prost(message, repeated, tag = "1")]
    pub notifications: Vec<Notification>,
}

/// One notification.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Notification {
    /// What is told; other kinds than messages are skipped.
    #[prost(message, optional, tag = "1")]
    pub messages: Option<IpcMessages>,
}

/// Messages another process published.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IpcMessages {
    /// The messages, in order.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<IpcMessage>,
}

/// One message another process published.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IpcMessage {
    /// Where it goes.
    #[prost(message, repeated, tag = "1")]
    pub receivers: Vec<Receiver>,
    /// The message itself.
    #[prost(message, optional, tag = "3")]
    pub outgoing: Option<OutgoingMessage>,
}
