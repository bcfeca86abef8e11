//! Connections of a fixture: HTTP answers and WebSocket messages as they come, with deadlines.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use vestnik_proto::websocket::{self as codec};
use vestnik_proto::websocket::{Assembler, Event, MessageType, Opcode, Peer, Step};

/// The largest head, body or message that is read.
const BYTES_MAX: usize = 64 << 20;

/// A connection to the server under test.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Read, but not taken.
    received: Vec<u8>,
    /// The server has sent its last byte.
    ended: bool,
    /// An answer said that no other follows.
    finished: bool,
    /// Methods of requests without an answer.
    methods: VecDeque<String>,
    assembler: Option<Assembler>,
    /// Text of frames whose events were not taken yet.
    pub(crate) text: String,
    /// Bytes of binary frames that were not taken yet, as hex.
    pub(crate) binary: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) status: u16,
    /// Names and values in their order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The value of a header, in any letter case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A message of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Code and reason; 1005 stands for none.
    Close(u16, String),
}

impl Connection {
    /// Connects to `authority`, a host with a port.
    pub(crate) fn open(authority: &str, patience: Duration) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_write_timeout(Some(patience.max(Duration::from_secs(1))))?;
                    return Ok(Self {
                        stream,
                        received: Vec::new(),
                        ended: false,
                        finished: false,
                        methods: VecDeque::new(),
                        assembler: None,
                        text: String::new(),
                        binary: String::new(),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether another request can be sent on it.
    pub(crate) fn is_usable(&self) -> bool {
        !self.ended && !self.finished
    }

    /// Whether it has become a WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        self.assembler.is_some()
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request whose method decides how its answer ends.
    pub(crate) fn send_request(&mut self, method: &str, bytes: &[u8]) -> io::Result<()> {
        self.methods.push_back(method.to_owned());
        self.send(bytes)
    }

    /// Sends a masked frame.
    pub(crate) fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        codec::push_client_frame(&mut frame, opcode, payload, [0x5a, 0xa5, 0x3c, 0xc3]);
        self.send(&frame)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Reads until the server ends the connection; false if it does not in time.
    pub(crate) fn ends(&mut self, until: Instant) -> bool {
        while !self.ended {
            self.received.clear();
            match self.read(until) {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
        true
    }

    /// Whether any byte is there or comes until then.
    pub(crate) fn brings_bytes(&mut self, until: Instant) -> bool {
        !self.received.is_empty() || matches!(self.read(until), Ok(true))
    }

    /// Reads one answer.
    pub(crate) fn answer(&mut self, until: Instant) -> io::Result<Received> {
        let method = self.methods.front().cloned().unwrap_or_default();
        let end = loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                break at + 4;
            }
            self.more(until)?;
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let mut answer = parse_head(&String::from_utf8_lossy(&head)).ok_or_else(no_http)?;
        let has_no_body = matches!(answer.status, 100..=199 | 204 | 304) || method == "HEAD";
        if answer.status != 100 {
            self.methods.pop_front();
        }
        if answer.status == 101 {
            self.assembler = Some(Assembler::new());
            return Ok(answer);
        }
        self.finished |=
            answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if has_no_body {
            return Ok(answer);
        }
        answer.body = if answer.header("transfer-encoding").is_some() {
            self.chunks(until)?
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| no_http())?;
            self.take(length, until)?
        } else {
            while self.read(until)? {}
            self.finished = true;
            std::mem::take(&mut self.received)
        };
        Ok(answer)
    }

    fn chunks(&mut self, until: Instant) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = find(&self.received, b"\r\n") {
                    break at;
                }
                self.more(until)?;
            };
            let line = self.take(end + 2, until)?;
            let digits = String::from_utf8_lossy(&line);
            let digits = digits.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(|_| no_http())?;
            let mut chunk = self.take(length.saturating_add(2), until)?;
            chunk.truncate(length);
            body.append(&mut chunk);
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn take(&mut self, length: usize, until: Instant) -> io::Result<Vec<u8>> {
        if length > BYTES_MAX {
            return Err(no_http());
        }
        while self.received.len() < length {
            self.more(until)?;
        }
        Ok(self.received.drain(..length).collect())
    }

    /// Reads the next message of a WebSocket; pings are answered and returned.
    pub(crate) fn message(&mut self, until: Instant) -> io::Result<Message> {
        loop {
            let assembler = self.assembler.as_mut().ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "the connection is no WebSocket")
            })?;
            let step = assembler
                .read(&mut self.received, Peer::Server, BYTES_MAX)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let (consumed, message) = match step {
                Step::Incomplete { .. } => {
                    self.more(until)?;
                    continue;
                }
                Step::Event { consumed, event } => (consumed, message_of(event)),
            };
            self.received.drain(..consumed);
            if let Some(Message::Ping(payload)) = &message {
                let payload = payload.clone();
                self.send_frame(Opcode::Pong, &payload)?;
            }
            if let Some(message) = message {
                return Ok(message);
            }
        }
    }

    /// Reads something or fails: at the deadline, or at the end of the connection.
    fn more(&mut self, until: Instant) -> io::Result<()> {
        if self.received.len() > BYTES_MAX {
            return Err(no_http());
        }
        match self.read(until)? {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads what is there; false at the end of the connection.
    fn read(&mut self, until: Instant) -> io::Result<bool> {
        // Timeouts of sockets are coarse, the longer the more: 39 s may become 41.
        const SLICE: Duration = Duration::from_millis(200);
        let mut buffer = [0; 64 << 10];
        while !self.ended {
            let left = until.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.clamp(Duration::from_millis(1), SLICE)))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= until {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

fn message_of(event: Event<'_>) -> Option<Message> {
    Some(match event {
        Event::Message(MessageType::Text, text) => {
            Message::Text(String::from_utf8_lossy(&text).into_owned())
        }
        Event::Message(MessageType::Binary, bytes) => Message::Binary(bytes.into_owned()),
        Event::Fragment => return None,
        Event::Ping(payload) => Message::Ping(payload.to_vec()),
        Event::Pong(payload) => Message::Pong(payload.to_vec()),
        Event::Close(None) => Message::Close(1005, String::new()),
        Event::Close(Some(reason)) => Message::Close(reason.code, reason.text.to_owned()),
    })
}

fn parse_head(head: &str) -> Option<Received> {
    let mut lines = head.lines();
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    Some(Received { status, headers: headers.collect(), body: Vec::new() })
}

fn no_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP, or too long")
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
