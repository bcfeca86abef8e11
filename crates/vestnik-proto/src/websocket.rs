//! WebSocket frames (RFC 6455): reading what a peer sends, writing what it gets.
//!
//! Owns the frame layout and the rules about fragments, close codes and text. Knows nothing of
//! sockets, channels or messages. A whole unfragmented frame is read and written without an
//! allocation; a fragmented message is gathered in a buffer that exists only meanwhile.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use sha1::{Digest, Sha1};

pub mod deflate;

/// What a frame is. Wire: the low four bits of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation = 0,
    /// A text message or its first fragment.
    Text = 1,
    /// A binary message or its first fragment.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// A question whether the peer lives.
    Ping = 9,
    /// The answer to it.
    Pong = 10,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether it is a control frame: never fragmented, at most 125 bytes of payload.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Who wrote the bytes that are read: clients must mask their frames, servers must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The far end is a client.
    Client,
    /// The far end is a server.
    Server,
}

/// What a peer did wrong. The connection is closed with [`ProtocolError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set although no extension was agreed on.
    #[error("reserved bit set in a frame")]
    ReservedBit,
    /// An opcode that RFC 6455 does not define.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u8),
    /// A client frame without mask, or a server frame with one (W-39).
    #[error("frame is masked by the wrong side")]
    WrongMask,
    /// A control frame in fragments or with more than 125 bytes.
    #[error("control frame is fragmented or over 125 bytes")]
    InvalidControlFrame,
    /// A continuation without a start, or a start within a fragmented message.
    #[error("fragment out of place")]
    FragmentOutOfPlace,
    /// A 64-bit length with the highest bit set.
    #[error("frame length has its highest bit set")]
    LengthOverflow,
    /// A close frame with one byte of payload or a code that may not be sent.
    #[error("invalid close frame")]
    InvalidClose,
    /// A compressed message that is no deflate data.
    #[error("compressed message cannot be read")]
    InvalidDeflate,
    /// A text message or close reason that is not UTF-8.
    #[error("text is not utf-8")]
    NotUtf8,
    /// A message over the limit; known from the header, before its payload arrives.
    #[error("message is {got} bytes, over the limit of {limit}")]
    TooLarge {
        /// Bytes of the message as far as its headers announce them.
        got: u64,
        /// The limit in bytes.
        limit: usize,
    },
}

impl ProtocolError {
    /// The code that the connection is closed with: 1002, 1007 or 1009.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::ReservedBit
            | Self::UnknownOpcode(_)
            | Self::WrongMask
            | Self::InvalidControlFrame
            | Self::FragmentOutOfPlace
            | Self::LengthOverflow
            | Self::InvalidClose
            | Self::InvalidDeflate => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge { .. } => 1009,
        }
    }
}

/// The largest payload of a control frame in bytes.
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// Where one whole frame lies in the bytes it was read from; the payload may still be masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub opcode: Opcode,
    /// Whether it ends its message.
    pub is_final: bool,
    /// Whether the message that begins with it is compressed; see [`deflate`].
    pub is_compressed: bool,
    /// The mask that the payload still has to be freed of with [`unmask`].
    pub mask: Option<[u8; 4]>,
    /// Where the payload lies; its end is the end of the frame.
    pub payload: Range<usize>,
}

/// Result of looking for a frame at the start of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The frame is not whole yet. `needed`: least number of bytes from the start of the frame
    /// with which another look pays. It comes from the peer: wait for it, do not reserve it.
    Incomplete {
        /// Bytes, counted from the start of the frame.
        needed: usize,
    },
    /// A whole frame.
    Frame(Frame),
}

/// Reads the frame at the start of `bytes`. A data frame may have `payload_max` bytes of payload.
///
/// # Errors
/// As soon as the header shows the mistake, that is before the payload has arrived.
pub fn parse(bytes: &[u8], peer: Peer, payload_max: usize) -> Result<Parsed, ProtocolError> {
    parse_extended(bytes, peer, payload_max, Extension::None)
}

/// What was agreed on beyond RFC 6455.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    None,
    /// The first reserved bit of a message's first frame says that it is compressed.
    Deflate,
}

fn parse_extended(
    bytes: &[u8],
    peer: Peer,
    payload_max: usize,
    extension: Extension,
) -> Result<Parsed, ProtocolError> {
    let [first, rest @ ..] = bytes else { return Ok(Parsed::Incomplete { needed: 2 }) };
    let bits = first & 0x0f;
    let is_compressed = first & 0x40 != 0;
    let may_be_compressed = extension == Extension::Deflate && matches!(bits, 1 | 2);
    if first & 0x30 != 0 || (is_compressed && !may_be_compressed) {
        return Err(ProtocolError::ReservedBit);
    }
    let opcode = Opcode::from_bits(bits).ok_or(ProtocolError::UnknownOpcode(bits))?;
    let is_final = first & 0x80 != 0;
    let [second, ..] = rest else { return Ok(Parsed::Incomplete { needed: 2 }) };
    let is_masked = second & 0x80 != 0;
    if is_masked != (peer == Peer::Client) {
        return Err(ProtocolError::WrongMask);
    }
    let short_length = second & 0x7f;
    if opcode.is_control() && (!is_final || usize::from(short_length) > CONTROL_PAYLOAD_MAX) {
        return Err(ProtocolError::InvalidControlFrame);
    }
    let mask_start = match short_length {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let payload_start = mask_start + if is_masked { 4 } else { 0 };
    let Some(long_length) = bytes.get(2..mask_start) else {
        return Ok(Parsed::Incomplete { needed: payload_start });
    };
    let length = match long_length {
        [] => u64::from(short_length),
        long => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    if length >> 63 != 0 {
        return Err(ProtocolError::LengthOverflow);
    }
    let too_large = ProtocolError::TooLarge { got: length, limit: payload_max };
    let length = usize::try_from(length).map_err(|_| too_large)?;
    if !opcode.is_control() && length > payload_max {
        return Err(too_large);
    }
    let end = payload_start.checked_add(length).ok_or(too_large)?;
    if bytes.len() < end {
        return Ok(Parsed::Incomplete { needed: end });
    }
    let mask = bytes[mask_start..payload_start].first_chunk().copied();
    let payload = payload_start..end;
    Ok(Parsed::Frame(Frame { opcode, is_final, is_compressed, mask, payload }))
}

/// Masks or unmasks `payload` in place; both are the same operation.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for chunk in &mut words {
        let mut value = [0; 8];
        value.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(value) ^ word).to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Kind of a whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// UTF-8 text, checked.
    Text,
    /// Any bytes.
    Binary,
}

/// Why a peer ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReason<'a> {
    /// The code: 1000 to 1003, 1007 to 1014, 3000 to 4999.
    pub code: u16,
    /// The reason in words, often empty.
    pub text: &'a str,
}

/// What came in with one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message; borrowed when it came in one frame.
    Message(MessageType, Cow<'a, [u8]>),
    /// A fragment was put aside.
    Fragment,
    /// A ping: answer with the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// The peer closes; without a code there is no reason.
    Close(Option<CloseReason<'a>>),
}

/// Result of [`Assembler::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// No whole frame yet; `needed` as in [`Parsed::Incomplete`].
    Incomplete {
        /// Bytes, counted from the start of the frame.
        needed: usize,
    },
    /// One frame was taken from the start of the bytes.
    Event {
        /// Length of the frame in bytes.
        consumed: usize,
        /// What it brought.
        event: Event<'a>,
    },
}

/// Reads the frames of one connection and joins fragments. Eight bytes while no message is in
/// fragments.
#[derive(Debug, Default)]
pub struct Assembler {
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    kind: MessageType,
    payload: Vec<u8>,
    /// How much of the payload is known to be UTF-8, if it is text.
    checked: usize,
    is_compressed: bool,
}

impl Partial {
    /// Adds a fragment. Text is checked as far as it goes: what can never become UTF-8 is refused at
    /// once, a character that is cut off at the end is left for the next fragment.
    fn add(&mut self, fragment: &[u8]) -> Result<(), ProtocolError> {
        self.payload.extend_from_slice(fragment);
        if self.kind == MessageType::Binary || self.is_compressed {
            return Ok(());
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(ProtocolError::NotUtf8),
        }
        Ok(())
    }

    /// The whole message.
    fn finish(self, payload_max: usize) -> Result<Event<'static>, ProtocolError> {
        if self.is_compressed {
            return compressed_message(self.kind, &self.payload, payload_max);
        }
        if self.kind == MessageType::Text && self.checked < self.payload.len() {
            return Err(ProtocolError::NotUtf8);
        }
        Ok(Event::Message(self.kind, Cow::Owned(self.payload)))
    }
}

impl Assembler {
    /// An assembler for a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes one frame from the start of `bytes` and unmasks it in place. A message, in one frame
    /// or in fragments, may have `payload_max` bytes.
    ///
    /// # Errors
    /// The connection is to be closed with the error's code; the assembler is of no further use.
    pub fn read<'a>(
        &mut self,
        bytes: &'a mut [u8],
        peer: Peer,
        payload_max: usize,
    ) -> Result<Step<'a>, ProtocolError> {
        self.read_extended(bytes, peer, payload_max, Extension::None)
    }

    /// As [`Assembler::read`], for a connection that agreed on [`deflate`]. A message may have
    /// `payload_max` bytes before and after it is unpacked.
    ///
    /// # Errors
    /// As [`Assembler::read`].
    pub fn read_deflate<'a>(
        &mut self,
        bytes: &'a mut [u8],
        peer: Peer,
        payload_max: usize,
    ) -> Result<Step<'a>, ProtocolError> {
        self.read_extended(bytes, peer, payload_max, Extension::Deflate)
    }

    fn read_extended<'a>(
        &mut self,
        bytes: &'a mut [u8],
        peer: Peer,
        payload_max: usize,
        extension: Extension,
    ) -> Result<Step<'a>, ProtocolError> {
        let gathered = self.partial.as_ref().map_or(0, |partial| partial.payload.len());
        let room = payload_max.saturating_sub(gathered);
        let frame = match parse_extended(bytes, peer, room, extension) {
            Ok(Parsed::Frame(frame)) => frame,
            Ok(Parsed::Incomplete { needed }) => return Ok(Step::Incomplete { needed }),
            Err(ProtocolError::TooLarge { got, .. }) => {
                let got = got.saturating_add(gathered as u64);
                return Err(ProtocolError::TooLarge { got, limit: payload_max });
            }
            Err(error) => return Err(error),
        };
        let consumed = frame.payload.end;
        let payload = &mut bytes[frame.payload.clone()];
        if let Some(mask) = frame.mask {
            unmask(payload, mask);
        }
        let event = self.accept(&frame, payload, payload_max)?;
        Ok(Step::Event { consumed, event })
    }

    /// Whether a fragmented message is under way.
    #[must_use]
    pub const fn is_within_message(&self) -> bool {
        self.partial.is_some()
    }

    fn accept<'a>(
        &mut self,
        frame: &Frame,
        payload: &'a [u8],
        payload_max: usize,
    ) -> Result<Event<'a>, ProtocolError> {
        match frame.opcode {
            Opcode::Text => self.start(MessageType::Text, frame, payload, payload_max),
            Opcode::Binary => self.start(MessageType::Binary, frame, payload, payload_max),
            Opcode::Continuation => {
                let partial = self.partial.as_mut().ok_or(ProtocolError::FragmentOutOfPlace)?;
                partial.add(payload)?;
                match self.partial.take_if(|_| frame.is_final) {
                    Some(whole) => whole.finish(payload_max),
                    None => Ok(Event::Fragment),
                }
            }
            Opcode::Ping => Ok(Event::Ping(payload)),
            Opcode::Pong => Ok(Event::Pong(payload)),
            Opcode::Close => close_reason(payload).map(Event::Close),
        }
    }

    fn start<'a>(
        &mut self,
        kind: MessageType,
        frame: &Frame,
        payload: &'a [u8],
        payload_max: usize,
    ) -> Result<Event<'a>, ProtocolError> {
        if self.partial.is_some() {
            return Err(ProtocolError::FragmentOutOfPlace);
        }
        let is_compressed = frame.is_compressed;
        if frame.is_final {
            return if is_compressed {
                compressed_message(kind, payload, payload_max)
            } else {
                message(kind, Cow::Borrowed(payload))
            };
        }
        let mut partial =
            Box::new(Partial { kind, payload: Vec::new(), checked: 0, is_compressed });
        partial.add(payload)?;
        self.partial = Some(partial);
        Ok(Event::Fragment)
    }
}

fn message(kind: MessageType, payload: Cow<'_, [u8]>) -> Result<Event<'_>, ProtocolError> {
    if kind == MessageType::Text && std::str::from_utf8(&payload).is_err() {
        return Err(ProtocolError::NotUtf8);
    }
    Ok(Event::Message(kind, payload))
}

fn compressed_message(
    kind: MessageType,
    payload: &[u8],
    payload_max: usize,
) -> Result<Event<'static>, ProtocolError> {
    message(kind, Cow::Owned(deflate::inflate(payload, payload_max)?))
}

fn close_reason(payload: &[u8]) -> Result<Option<CloseReason<'_>>, ProtocolError> {
    let (code, text) = match payload {
        [] => return Ok(None),
        [_] => return Err(ProtocolError::InvalidClose),
        [high, low, text @ ..] => (u16::from_be_bytes([*high, *low]), text),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtocolError::InvalidClose);
    }
    let text = std::str::from_utf8(text).map_err(|_| ProtocolError::NotUtf8)?;
    Ok(Some(CloseReason { code, text }))
}

/// The head of an unmasked, unfragmented frame: 2, 4 or 10 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; 10],
    length: u8,
}

impl Header {
    /// The bytes that go before the payload.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The head of a frame that a server sends with `payload_length` bytes of payload.
#[must_use]
pub fn header(opcode: Opcode, payload_length: usize) -> Header {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let length = match (u8::try_from(payload_length), u16::try_from(payload_length)) {
        (Ok(short @ ..=125), _) => {
            bytes[1] = short;
            2
        }
        (_, Ok(medium)) => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(payload_length as u64).to_be_bytes());
            10
        }
    };
    Header { bytes, length }
}

/// A whole server frame whose payload is the concatenation of `parts`; one allocation.
#[must_use]
pub fn frame(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let payload_length = parts.iter().map(|part| part.len()).sum();
    let header = header(opcode, payload_length);
    let mut bytes = Vec::with_capacity(header.as_bytes().len() + payload_length);
    bytes.extend_from_slice(header.as_bytes());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Bytes::from(bytes)
}

/// The payload of a server frame made by this module, sharing its memory. Bytes that are no such
/// frame give an empty payload.
#[must_use]
pub fn payload_of(frame: &Bytes) -> Bytes {
    frame.slice(payload_start(frame)..)
}

/// The same without holding the frame.
#[must_use]
pub fn payload_in(frame: &[u8]) -> &[u8] {
    &frame[payload_start(frame)..]
}

fn payload_start(frame: &[u8]) -> usize {
    let start = match frame.get(1) {
        Some(..=125) => 2,
        Some(126) => 4,
        _ => 10,
    };
    start.min(frame.len())
}

/// A close frame with `code` and as much of `reason` as fits, cut between characters.
/// Wire: reason `<code>: <text>` for the errors of queue-server.md §6.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let longest = reason.len().min(CONTROL_PAYLOAD_MAX - 2);
    let end = (0..=longest).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    frame(Opcode::Close, &[&code.to_be_bytes(), &reason.as_bytes()[..end]])
}

/// A close frame without a code: the bytes `88 00`, the only ones old scripts survive (D10).
pub const CLOSE_WITHOUT_CODE: [u8; 2] = [0x88, 0x00];

/// Appends a masked, whole frame as a client sends it. The caller draws `mask` at random.
pub fn push_client_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    let header = header(opcode, payload.len());
    let head_start = out.len();
    out.reserve(header.as_bytes().len() + 4 + payload.len());
    out.extend_from_slice(header.as_bytes());
    out[head_start + 1] |= 0x80;
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask);
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` of any length.
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new()
        .chain_update(key)
        .chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; 28];
    for (four, three) in text.chunks_exact_mut(4).zip(digest.chunks(3)) {
        let bits = three.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
            << (8 * (3 - three.len()));
        for (place, letter) in four.iter_mut().take(three.len() + 1).enumerate() {
            *letter = ALPHABET[bits >> (18 - 6 * place) & 63];
        }
    }
    text
}

#[cfg(test)]
mod tests;
