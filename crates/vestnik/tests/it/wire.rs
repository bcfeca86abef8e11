//! WebSocket frames and protobuf by hand: what no well-behaved library would send, and bytes that
//! do not come from the codecs under test.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::raw::{Answer, Connection};
use crate::sign::Pair;
use crate::websocket::handshake;

/// The least a stored message is kept, in seconds, wherever a test does not care.
pub(crate) const KEPT_S: u32 = 600;

/// One frame as it came from the server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Final bit, reserved bits and opcode.
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.payload[..self.payload.len().min(60)];
        write!(f, "{:02x} {} bytes: {}", self.first, self.payload.len(), shown.escape_ascii())
    }
}

impl Frame {
    /// Code and reason of a close frame.
    pub(crate) fn close(&self) -> Option<(u16, &str)> {
        if self.first != 0x88 {
            return None;
        }
        let (code, reason) = self.payload.split_first_chunk()?;
        let reason = std::str::from_utf8(reason).expect("a reason of text");
        Some((u16::from_be_bytes(*code), reason))
    }
}

/// A WebSocket connection of bytes.
pub(crate) struct RawSocket {
    stream: TcpStream,
    received: Vec<u8>,
}

impl RawSocket {
    /// Connects to `/bitrix/subws/` with a query; the handshake must be accepted.
    pub(crate) fn open(address: SocketAddr, query: &str) -> Self {
        let mut connection = Connection::open(address);
        connection.send(handshake(&format!("/bitrix/subws/?{query}")));
        Self::upgraded(connection)
    }

    /// Goes on with a connection on which a handshake was sent.
    pub(crate) fn upgraded(mut connection: Connection) -> Self {
        let answer: Answer = connection.answer();
        assert_eq!(answer.status, 101, "{answer:?}");
        let (stream, received) = connection.into_parts();
        Self { stream, received }
    }

    /// Sends bytes in one write. A server that has closed meanwhile is no failure: what it said is
    /// read afterwards.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.stream.write_all(bytes.as_ref()) {
            let is_gone =
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            assert!(is_gone, "{error}");
        }
    }

    /// Sends bytes in segments of `size` bytes.
    pub(crate) fn send_chopped(&mut self, bytes: &[u8], size: usize) {
        for chunk in bytes.chunks(size) {
            self.send(chunk);
        }
    }

    /// The next frame; none at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.received) {
                self.received.drain(..length);
                return Some(frame);
            }
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next frame that is neither ping nor pong.
    pub(crate) fn next_data(&mut self) -> Frame {
        loop {
            let frame = self.next().expect("a frame");
            if !matches!(frame.first & 0x0f, 9 | 10) {
                return frame;
            }
        }
    }

    /// Whether the connection ends without a further frame.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.next().is_none()
    }

    /// Changes something of the socket itself.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&TcpStream) -> io::Result<()>) {
        change(&self.stream).expect("an open socket");
    }

    /// Sends what the server takes; it may take nothing, or be gone.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        // How much it took does not matter to who calls this.
        let _ = self.stream.write(bytes);
    }

    /// Vanishes without a word, as a phone in a tunnel: the socket stays open and says nothing.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends the connection without a close frame.
    pub(crate) fn hang_up(self) {
        self.stream.shutdown(Shutdown::Both).expect("it is open");
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (&short, _) = rest.split_first()?;
    assert_eq!(short & 0x80, 0, "a server does not mask");
    let (start, length) = match short {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let end = start + usize::try_from(length).expect("a length that fits");
    let payload = bytes.get(start..end)?.to_vec();
    Some((Frame { first, payload }, end))
}

/// A masked client frame; `first` holds the final bit, reserved bits and opcode.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = client_head(first, payload.len() as u64);
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The head of a masked client frame up to its length.
pub(crate) fn client_head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => head.push(0x80 | short),
        (_, Ok(medium)) => {
            head.push(0x80 | 126);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head
}

/// A close frame of a client.
pub(crate) fn client_close(code: u16, reason: &[u8]) -> Vec<u8> {
    client_frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// A protobuf number.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A protobuf field of bytes: text, message or raw.
pub(crate) fn field(number: u64, value: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &varint(value.len() as u64), value].concat()
}

/// A protobuf field of a number.
pub(crate) fn number_field(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A field of a decoded protobuf message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a protobuf message in their order.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Value)> {
    fn take_varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("a number of at most ten bytes");
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes);
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut bytes)),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)).expect("a length that fits");
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(value.to_vec())
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk().expect("four bytes");
                bytes = rest;
                Value::Number(u64::from(u32::from_le_bytes(*value)))
            }
            kind => panic!("wire type {kind}"),
        };
        found.push((tag >> 3, value));
    }
    found
}

/// The values of the fields `number` of a message that hold bytes.
pub(crate) fn messages_in(bytes: &[u8], number: u64) -> Vec<Vec<u8>> {
    let values = fields(bytes).into_iter().filter(|(found, _)| *found == number);
    values
        .map(|(_, value)| match value {
            Value::Bytes(bytes) => bytes,
            Value::Number(number) => panic!("a number: {number}"),
        })
        .collect()
}

/// One message of a ResponseBatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) id: Vec<u8>,
    pub(crate) body: String,
    pub(crate) expiry: u64,
    pub(crate) created: u64,
    /// Raw bytes of the sender.
    pub(crate) sender: Vec<u8>,
}

impl Outgoing {
    /// The id in the form of the text framing.
    pub(crate) fn mid(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// All messages of a ResponseBatch, in order.
pub(crate) fn outgoing(batch: &[u8]) -> Vec<Outgoing> {
    let responses = messages_in(batch, 1);
    let lists = responses.iter().flat_map(|response| messages_in(response, 1));
    let messages = lists.flat_map(|list| messages_in(&list, 1));
    messages.map(|message| read_outgoing(&message)).collect()
}

fn read_outgoing(message: &[u8]) -> Outgoing {
    let fields = fields(message);
    let numbers: Vec<u64> = fields.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5], "id, body, expiry, created and sender, once each");
    let bytes = |at: usize| match &fields[at].1 {
        Value::Bytes(bytes) => bytes.clone(),
        Value::Number(number) => panic!("a number: {number}"),
    };
    let number = |at: usize| match fields[at].1 {
        Value::Number(number) => number,
        Value::Bytes(_) => panic!("bytes"),
    };
    let body = String::from_utf8(bytes(1)).expect("a body of text");
    Outgoing { id: bytes(0), body, expiry: number(2), created: number(3), sender: bytes(4) }
}

/// A receiver of a request: its public channel with the signature that clients need.
pub(crate) fn public_receiver(pair: Pair) -> Vec<u8> {
    [field(1, pair.public.as_bytes()), field(3, &pair.public_signature())].concat()
}

/// A receiver of a trusted request: a private channel.
pub(crate) fn private_receiver(pair: Pair) -> Vec<u8> {
    [field(1, pair.private.as_bytes()), number_field(2, 1)].concat()
}

/// An IncomingMessage.
pub(crate) fn incoming(receivers: &[Vec<u8>], body: &str, expiry_s: u64) -> Vec<u8> {
    let mut message: Vec<u8> = receivers.iter().flat_map(|it| field(1, it)).collect();
    message.extend(field(3, body.as_bytes()));
    if expiry_s > 0 {
        message.extend(number_field(4, expiry_s));
    }
    message
}

/// A RequestBatch that publishes messages made by [`incoming`].
pub(crate) fn publish_request(messages: &[Vec<u8>]) -> Vec<u8> {
    let messages: Vec<u8> = messages.iter().flat_map(|message| field(1, message)).collect();
    field(1, &field(1, &messages))
}

/// A RequestBatch that asks whether public channels are online.
pub(crate) fn stats_request(pairs: &[Pair]) -> Vec<u8> {
    let channels: Vec<u8> =
        pairs.iter().flat_map(|pair| field(1, &public_receiver(*pair))).collect();
    field(1, &field(2, &channels))
}

/// The whole answer to [`stats_request`].
pub(crate) fn stats_answer(channels: &[(Pair, bool)]) -> Vec<u8> {
    let channels: Vec<u8> = channels
        .iter()
        .flat_map(|(pair, is_online)| {
            let id = field(1, pair.public.as_bytes());
            field(1, &[id, vec![0x10, 0, 0x18, u8::from(*is_online)]].concat())
        })
        .collect();
    field(1, &field(2, &channels))
}
