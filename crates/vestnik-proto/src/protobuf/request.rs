//! Requests of publishers: bytes from outside, checked in the order of queue-server.md §6.
//!
//! A batch is read twice: first for its shape, without an allocation; then for its content, each
//! limit before the memory that it guards is spent.

use bytes::Bytes;
use vestnik_core::message::{Author, Draft, Expiry, MessageKind};
use vestnik_core::sign::{KeyRing, Signature};
use vestnik_core::{ChannelId, Receiver};

use super::wire::{Fields, Malformed};
use crate::body::{is_reserved, repaired};

/// Who sends a request, and with that whose rules it is held to.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// The site's back end: may address any channel, needs no signatures.
    Backend,
    /// A browser or app: may address public channels whose signatures it has.
    Client {
        /// Public id of its first signed pair; without one it may ask for nothing.
        author: Option<ChannelId>,
        /// Keys that receivers may be signed with.
        keys: &'a KeyRing,
        /// Unix seconds, for keys that have an end.
        now_s: u64,
    },
}

/// How much one batch may ask for. Its size in bytes is limited where it is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests in one batch; those beyond are not served.
    pub requests: usize,
    /// Messages in one request. Configuration: `maxMessagesPerRequest`.
    pub messages: usize,
    /// Receivers of one message, channels of one statistics request. Configuration:
    /// `maxChannelsPerRequest`.
    pub channels: usize,
    /// The longest expiry; longer ones become it. Configuration: `messageTTL`.
    pub expiry: Expiry,
}

impl Default for RequestLimits {
    /// The limits of the original (queue-server.md §11).
    fn default() -> Self {
        Self { requests: 100, messages: 100, channels: 100, expiry: Expiry::MAX }
    }
}

/// One request that may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Publish these in this order; possibly none.
    Publish(Vec<Draft>),
    /// Say which of these are online, in this order.
    ChannelStats(Vec<Receiver>),
    /// Say how the server is; from the back end only.
    ServerStats,
}

/// A request that is refused as a whole. Wire: [`RequestError::code`] and text; `Display` is the
/// body of the answer and the reason of the close frame: `<code>: <text>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.code(), self.text())]
pub enum RequestError {
    /// A client that showed no signed pair.
    PublicChannelRequired,
    /// No protobuf of the known shape, or a client message that only the server may send (D20).
    WrongData,
    /// A command that clients may not use.
    CommandNotAllowed,
    /// A command that nothing serves here (registration).
    WrongCommand,
    /// Over [`RequestLimits::messages`], or over [`RequestLimits::requests`].
    TooManyMessages,
    /// A message without receivers, or a statistics request without channels.
    NoChannels,
    /// Over [`RequestLimits::channels`].
    TooManyChannels,
    /// An id that is not 16 bytes long (also from clients, W-39).
    InvalidChannelId,
    /// A client addresses a private channel.
    PrivateChannel,
    /// A client addresses a public channel without its signature.
    InvalidSignature,
}

impl RequestError {
    /// The code: 4012 to 4021.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::PublicChannelRequired => 4012,
            Self::WrongData => 4013,
            Self::CommandNotAllowed => 4014,
            Self::WrongCommand => 4015,
            Self::TooManyMessages => 4016,
            Self::NoChannels => 4017,
            Self::TooManyChannels => 4018,
            Self::InvalidChannelId => 4019,
            Self::PrivateChannel => 4020,
            Self::InvalidSignature => 4021,
        }
    }

    /// The text that goes with the code.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::PublicChannelRequired => "Public Channel Id is Required.",
            Self::WrongData => "Wrong Request Data.",
            Self::CommandNotAllowed => "Request command is not allowed.",
            Self::WrongCommand => "Wrong Request Command.",
            Self::TooManyMessages => "Request exceeded the maximum number of messages.",
            Self::NoChannels => "No channels found.",
            Self::TooManyChannels => "Request exceeded the maximum number of channels.",
            Self::InvalidChannelId => "Request has an invalid channel id.",
            Self::PrivateChannel => "Private channel is not allowed.",
            Self::InvalidSignature => "Channel has an invalid signature.",
        }
    }
}

impl From<Malformed> for RequestError {
    fn from(_: Malformed) -> Self {
        Self::WrongData
    }
}

/// A batch whose first request may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What is to be served, in order; the first request of the batch is the first here.
    pub requests: Vec<Request>,
    /// Why later requests are not served. The caller is not told, because only the first request
    /// of a batch decides the answer: count these.
    pub rejected: Vec<RequestError>,
}

/// Reads a `RequestBatch`. Bodies share the memory of `batch`.
///
/// # Errors
/// When the batch is malformed, or its first request is refused: then nothing of it is served
///
pub fn decode_request_batch(
    batch: &Bytes,
    caller: Caller<'_>,
    limits: &RequestLimits,
) -> Result<Decoded, RequestError> {
    if matches!(caller, Caller::Client { author: None, .. }) {
        return Err(RequestError::PublicChannelRequired);
    }
    for request in members(batch, 1) {
        Command::of(request?)?;
    }
    let reader = Reader { batch, caller, limits };
    let mut decoded = Decoded { requests: Vec::new(), rejected: Vec::new() };
    for (index, request) in members(batch, 1).enumerate() {
        if index == limits.requests {
            decoded.rejected.push(RequestError::TooManyMessages);
            break;
        }
        match reader.request(Command::of(request?)?) {
            Ok(request) => decoded.requests.push(request),
            Err(error) if index == 0 => return Err(error),
            Err(error) => decoded.rejected.push(error),
        }
    }
    if decoded.requests.is_empty() {
        return Err(RequestError::WrongData);
    }
    Ok(decoded)
}

/// The values of the length-delimited field `number`; other fields are skipped.
fn members(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields::new(message).filter_map(move |field| match field {
        Ok((found, value)) if found == number => Some(value.bytes()),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// The command of a request; its content has the right shape.
#[derive(Clone, Copy)]
enum Command<'a> {
    Publish(&'a [u8]),
    ChannelStats(&'a [u8]),
    ServerStats,
    Registration,
    Missing,
}

impl<'a> Command<'a> {
    /// Of several the last on the wire.
    fn of(request: &'a [u8]) -> Result<Self, Malformed> {
        let mut command = Self::Missing;
        for field in Fields::new(request) {
            command = match field? {
                (1, value) => {
                    let content = value.bytes()?;
                    for message in members(content, 1) {
                        RawMessage::of(message?)?;
                    }
                    Self::Publish(content)
                }
                (2, value) => {
                    let content = value.bytes()?;
                    for channel in members(content, 1) {
                        RawReceiver::of(channel?)?;
                    }
                    Self::ChannelStats(content)
                }
                (3, value) => check_shape(value.bytes()?).map(|()| Self::ServerStats)?,
                (4, value) => check_shape(value.bytes()?).map(|()| Self::Registration)?,
                _ => command,
            };
        }
        Ok(command)
    }
}

fn check_shape(message: &[u8]) -> Result<(), Malformed> {
    Fields::new(message).try_for_each(|field| field.map(|_| ()))
}

/// A message as it came; receivers are read when needed.
#[derive(Default)]
struct RawMessage<'a> {
    body: &'a [u8],
    expiry_s: u32,
    kind: &'a [u8],
}

impl<'a> RawMessage<'a> {
    fn of(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut raw = Self::default();
        for field in Fields::new(message) {
            match field? {
                (1, value) => {
                    RawReceiver::of(value.bytes()?)?;
                }
                (2, value) => check_shape(value.bytes()?)?,
                (3, value) => raw.body = value.bytes()?,
                (4, value) => raw.expiry_s = low_bits(value.varint()?),
                (5, value) => raw.kind = value.bytes()?,
                _ => {}
            }
        }
        Ok(raw)
    }
}

/// A 32-bit number as protobuf reads it from a longer varint.
#[expect(clippy::cast_possible_truncation, reason = "protobuf keeps the low 32 bits")]
const fn low_bits(number: u64) -> u32 {
    number as u32
}

#[derive(Default)]
struct RawReceiver<'a> {
    id: &'a [u8],
    is_private: bool,
    signature: &'a [u8],
}

impl<'a> RawReceiver<'a> {
    fn of(receiver: &'a [u8]) -> Result<Self, Malformed> {
        let mut raw = Self::default();
        for field in Fields::new(receiver) {
            match field? {
                (1, value) => raw.id = value.bytes()?,
                (2, value) => raw.is_private = value.varint()? != 0,
                (3, value) => raw.signature = value.bytes()?,
                _ => {}
            }
        }
        Ok(raw)
    }
}

struct Reader<'a> {
    batch: &'a Bytes,
    caller: Caller<'a>,
    limits: &'a RequestLimits,
}

impl Reader<'_> {
    fn request(&self, command: Command<'_>) -> Result<Request, RequestError> {
        let is_trusted = matches!(self.caller, Caller::Backend);
        match command {
            Command::Missing => Err(RequestError::WrongData),
            Command::Publish(content) => self.messages(content).map(Request::Publish),
            Command::ChannelStats(content) => self.receivers(content).map(Request::ChannelStats),
            Command::ServerStats | Command::Registration if !is_trusted => {
                Err(RequestError::CommandNotAllowed)
            }
            Command::ServerStats => Ok(Request::ServerStats),
            Command::Registration => Err(RequestError::WrongCommand),
        }
    }

    fn messages(&self, content: &[u8]) -> Result<Vec<Draft>, RequestError> {
        let count = members(content, 1).count();
        if count > self.limits.messages {
            return Err(RequestError::TooManyMessages);
        }
        let mut drafts = Vec::with_capacity(count);
        for message in members(content, 1) {
            drafts.push(self.message(message?)?);
        }
        Ok(drafts)
    }

    fn message(&self, message: &[u8]) -> Result<Draft, RequestError> {
        let receivers = self.receivers(message)?.into_boxed_slice();
        let raw = RawMessage::of(message)?;
        let author = match self.caller {
            Caller::Backend => Author::Backend,
            Caller::Client { author, .. } => {
                if is_reserved(raw.body) {
                    return Err(RequestError::WrongData);
                }
                Author::Client(author.ok_or(RequestError::PublicChannelRequired)?)
            }
        };
        let body = repaired(self.batch.slice_ref(raw.body));
        Ok(Draft {
            receivers,
            body,
            expiry: Expiry::new(raw.expiry_s.into(), self.limits.expiry),
            author,
            kind: MessageKind::parse(&String::from_utf8_lossy(raw.kind)),
            additions: vestnik_core::message::Additions::default(),
        })
    }

    /// The receivers of a message, or the channels of a statistics request: both are field 1.
    fn receivers(&self, message: &[u8]) -> Result<Vec<Receiver>, RequestError> {
        let count = members(message, 1).count();
        if count == 0 {
            return Err(RequestError::NoChannels);
        }
        if count > self.limits.channels {
            return Err(RequestError::TooManyChannels);
        }
        let mut receivers = Vec::with_capacity(count);
        for receiver in members(message, 1) {
            receivers.push(self.receiver(&RawReceiver::of(receiver?)?)?);
        }
        Ok(receivers)
    }

    fn receiver(&self, raw: &RawReceiver<'_>) -> Result<Receiver, RequestError> {
        let id = <[u8; 16]>::try_from(raw.id)
            .map(ChannelId::from_bytes)
            .map_err(|_| RequestError::InvalidChannelId);
        match self.caller {
            Caller::Backend if raw.is_private => id.map(Receiver::Private),
            Caller::Backend => id.map(Receiver::Public),
            Caller::Client { .. } if raw.is_private => Err(RequestError::PrivateChannel),
            Caller::Client { keys, now_s, .. } => {
                let id = id?;
                let is_signed = Signature::from_bytes(raw.signature)
                    .is_some_and(|signature| keys.verify_public(id, &signature, now_s));
                if is_signed {
                    Ok(Receiver::Public(id))
                } else {
                    Err(RequestError::InvalidSignature)
                }
            }
        }
    }
}
