//! One WebSocket connection: the handshake, reading, writing, pings and the close.

use std::borrow::Cow;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::Method;
use mio::net::TcpStream;
use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{ChannelId, Envelope, Receiver, User};
use vestnik_hub::{Item, Outbox, PublishError, Queue, SubscriberKey};
use vestnik_proto::jsonrpc;
use vestnik_proto::protobuf::{Caller, Request, RequestError};
use vestnik_proto::query::Framing;
use vestnik_proto::quirks;
use vestnik_proto::websocket::deflate;
use vestnik_proto::websocket::{self as codec, Assembler, Event, MessageType, Opcode, Peer, Step};

use crate::options::Timing;
use crate::route::Routes;
use crate::rpc::{Allowance, Identity};
use crate::shard::{Shard, State};
use crate::stream::Stream;
use crate::subscribe::Subscription;
use crate::transport::{CloseReason, Connection};

/// A connection that was told to close is dropped after this many seconds (README D10).
pub(crate) const CLOSING_S: u64 = 10;
/// Questions of one connection that may wait for other nodes.
const QUESTIONS_MAX: usize = 64;
/// One write takes at most about this many bytes, and one protobuf batch (README D9).
const WRITE_MAX: usize = 64 * 1024;
/// Reads from one connection before others get their turn.
const READS: usize = 4;
/// Compressed bytes of one read: they may be a thousand times as many.
const DEFLATED_READ: usize = 8 * 1024;
/// Writes to one connection before others get their turn.
const WRITES: usize = 16;

/// The parts of a request that make a handshake.
pub(crate) struct HandshakeHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) upgrade: Option<&'a [u8]>,
    pub(crate) version: Option<&'a [u8]>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) extensions: Option<&'a [u8]>,
}

/// What a handshake was accepted with.
#[derive(Clone, Copy)]
pub(crate) struct Accepted {
    /// The value of `Sec-WebSocket-Accept`.
    pub(crate) key: [u8; 28],
    pub(crate) compression: Compression,
}

/// Whether the messages of a connection may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Off,
    /// permessage-deflate was offered and taken.
    Deflate,
}

/// Whether a `Connection` header makes its request a handshake: it lists `upgrade` (README D2).
pub(crate) fn lists_upgrade(connection: &[u8]) -> bool {
    connection
        .split(|byte| *byte == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

impl HandshakeHead<'_> {
    /// How this handshake is answered; `None` when it is none that can be accepted.
    /// Subprotocols are not looked at (K-005), and extensions only if `compression` is switched on
    ///
    pub(crate) fn accept(&self, routes: &Routes, compression: bool) -> Option<Accepted> {
        let is_valid = self.method == Method::GET.as_str()
            && routes.subscribes_at(self.path)
            && self.upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
            && matches!(self.version, Some(b"13" | b"8"));
        let key = self.key.filter(|key| !key.is_empty())?;
        let extensions = self.extensions.and_then(|value| std::str::from_utf8(value).ok());
        let is_deflate = compression && extensions.is_some_and(deflate::is_offered);
        is_valid.then(|| Accepted {
            key: codec::accept_key(key),
            compression: if is_deflate { Compression::Deflate } else { Compression::Off },
        })
    }
}

/// The whole answer to an accepted handshake.
pub(crate) fn switching_protocols(accepted: Accepted) -> Bytes {
    let mut answer = Vec::with_capacity(129);
    answer.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n");
    answer.extend_from_slice(b"Connection: Upgrade\r\nSec-WebSocket-Accept: ");
    answer.extend_from_slice(&accepted.key);
    if accepted.compression == Compression::Deflate {
        answer.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        answer.extend_from_slice(deflate::ACCEPTED_EXTENSION.as_bytes());
    }
    answer.extend_from_slice(b"\r\n\r\n");
    answer.into()
}

/// Whether a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    No,
    Yes,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything is written, or the socket says when it takes more.
    Waits,
    /// More is to be written, after others had their turn.
    More,
    /// The connection is over.
    Ended,
}

/// What a deadline means for a connection.
pub(crate) enum Deadline {
    /// Look again after this many seconds.
    Later(u64),
    /// Send this ping, and look again after these seconds.
    Ping(Bytes, u64),
    /// End it.
    Close(CloseReason),
    /// Nobody is there any more.
    Dead,
}

/// How far the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// Our close frame is queued or sent; the peer's is awaited until this second.
    Ours {
        until_s: u64,
    },
    /// The peer broke the protocol and nothing it says can be understood any more. Our side of the
    /// socket is shut behind the close frame, and whatever comes in is thrown away until the peer
    /// has gone or this second: closing earlier would reset the connection, and the peer might never
    /// see why.
    Failed {
        until_s: u64,
    },
    /// Both sides have said it: the socket goes as soon as everything is written.
    Both,
}

/// Why a connection ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
    Lost,
    NoPong,
}

/// An open WebSocket connection.
pub(crate) struct WebSocket {
    stream: Stream,
    framing: Framing,
    compression: Compression,
    /// The public channel it may publish under.
    author: Option<ChannelId>,
    /// The address it was counted in under; none when it was over a limit.
    admitted: Option<IpAddr>,
    assembler: Assembler,
    /// The beginning of a frame whose rest has not arrived.
    #[expect(clippy::box_collection, reason = "one word while idle, for nearly every connection")]
    partial: Option<Box<Vec<u8>>>,
    awaits_pong: bool,
    closing: Closing,
    end: End,
    /// What connections of generation 5 have beside; others do without.
    rpc: Option<Box<Rpc>>,
}

/// What a connection with a token or with JSON-RPC framing has beside.
pub(crate) struct Rpc {
    pub(crate) identity: Identity,
    pub(crate) allowance: Allowance,
    /// When anything came from the client, in seconds of the shard.
    heard_s: u64,
}

impl WebSocket {
    pub(crate) fn new(
        stream: Stream,
        subscription: &Subscription,
        compression: Compression,
        admitted: Option<IpAddr>,
        now_s: u64,
    ) -> Self {
        let rpc = subscription.identity.map(|identity| {
            Box::new(Rpc { identity, allowance: Allowance::new(), heard_s: now_s })
        });
        Self {
            stream,
            framing: subscription.framing,
            compression,
            author: subscription.author,
            admitted,
            assembler: Assembler::new(),
            partial: None,
            awaits_pong: false,
            closing: Closing::No,
            end: End::Lost,
            rpc,
        }
    }

    /// What a connection of generation 5 has beside.
    pub(crate) fn rpc_mut(&mut self) -> Option<&mut Rpc> {
        self.rpc.as_deref_mut()
    }

    fn addressee(&self) -> Option<User> {
        self.rpc.as_ref()?.identity.addressee
    }

    /// What a client is sent as soon as it is there, behind the answer to its handshake.
    pub(crate) fn greeting(&self) -> Option<Bytes> {
        (self.framing == Framing::JsonRpc).then(text_ping)
    }

    /// Seconds between two pings (README D14).
    pub(crate) fn ping_period_s(&self, timing: &Timing) -> u64 {
        if self.framing != Framing::JsonRpc {
            return timing.ping.as_secs();
        }
        let is_web = self.rpc.as_ref().is_some_and(|rpc| rpc.identity.has_revision);
        let period = if is_web { timing.text_ping } else { timing.text_ping / 2 };
        // Whole seconds, rounded down: a client waits for a ping, never for a late one.
        period.as_secs().max(1)
    }

    /// Its socket, to be watched.
    pub(crate) fn socket_mut(&mut self) -> &mut TcpStream {
        self.stream.socket_mut()
    }

    /// Makes the end of the socket a reset: what its peer has not read is not kept for it in the
    /// kernel (README D10).
    pub(crate) fn reset(&mut self) {
        // A socket that cannot be told any more has gone already.
        let _ = socket2::SockRef::from(&*self.stream.socket_mut()).set_linger(Some(Duration::ZERO));
    }

    /// The form of its messages.
    /// Whether a message has a form in its framing.
    pub(crate) fn has_form(&self, envelope: &Envelope) -> bool {
        !super::frame(self.framing, envelope, || self.addressee()).is_empty()
    }

    pub(crate) const fn framing(&self) -> Framing {
        self.framing
    }

    pub(crate) fn admitted(&self) -> Option<IpAddr> {
        self.admitted
    }

    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// Writes of what waits as much as the kernel takes and others can wait for.
    pub(crate) fn write(
        &mut self,
        outbox: &mut Outbox,
        buffer: &mut Vec<u8>,
        metrics: &Metrics,
    ) -> Written {
        for _ in 0..WRITES {
            let Some(queue) = outbox.queue().filter(|queue| !queue.is_empty()) else {
                return self.written();
            };
            let result = if queue.rest_mut().is_empty() {
                self.write_items(queue, buffer, metrics)
            } else {
                self.write_rest(queue, metrics)
            };
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Written::Ended,
            }
        }
        Written::More
    }

    /// Nothing is left to write but what was encrypted already.
    fn written(&mut self) -> Written {
        match self.stream.flush() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Waits,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Written::More,
            Err(_) => return Written::Ended,
        }
        match self.closing {
            Closing::No | Closing::Ours { .. } => Written::Waits,
            Closing::Failed { .. } => match self.stream.shut() {
                Ok(()) => Written::Waits,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Written::Waits,
                // The peer was faster.
                Err(_) => Written::Ended,
            },
            Closing::Both => {
                self.stream.part();
                Written::Ended
            }
        }
    }

    fn write_rest(&mut self, queue: &mut Queue, metrics: &Metrics) -> io::Result<()> {
        metrics.increment(Metric::SocketWrites);
        let rest = queue.rest_mut();
        let written = self.stream.write(rest)?;
        rest.advance(written);
        if rest.is_empty() {
            *rest = Bytes::new();
        }
        Ok(())
    }

    /// Takes items from the queue and writes them in one call. What the kernel does not take becomes
    /// the queue's rest.
    fn write_items(
        &mut self,
        queue: &mut Queue,
        buffer: &mut Vec<u8>,
        metrics: &Metrics,
    ) -> io::Result<()> {
        let Some(first) = queue.pop() else { return Ok(()) };
        if queue.peek().is_none() || self.is_large(&first) {
            // The usual case: one ready frame, shared by everybody, written as it is. A large one
            // never shares a write: its unsent rest would be copied for every slow connection.
            return self.write_one(&first, queue, metrics);
        }
        buffer.clear();
        let mut delivered = 0;
        let mut next = Some(first);
        while let Some(item) = next {
            delivered += live(&item);
            match item {
                Item::Frame(frame) => buffer.extend_from_slice(&frame),
                Item::Live(envelope) | Item::Replayed(envelope) => {
                    delivered += self.append_messages(&envelope, queue, buffer, metrics);
                }
            }
            let goes_on =
                buffer.len() < WRITE_MAX && queue.peek().is_some_and(|item| !self.is_large(item));
            next = if goes_on { queue.pop() } else { None };
        }
        metrics.add(Metric::Delivered, delivered);
        metrics.increment(Metric::SocketWrites);
        let written = match self.stream.write(buffer) {
            Ok(written) => written,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                0
            }
            Err(error) => return Err(error),
        };
        // The rest is tried again: only a write that was refused is followed by an event.
        *queue.rest_mut() = Bytes::copy_from_slice(&buffer[written..]);
        Ok(())
    }

    /// Writes one item. Only what the kernel does not take is held: a counter that all threads change
    /// for each of their deliveries would cost more than the rest of this.
    fn write_one(&mut self, item: &Item, queue: &mut Queue, metrics: &Metrics) -> io::Result<()> {
        metrics.add(Metric::Delivered, live(item));
        let frame = match item {
            Item::Live(envelope) | Item::Replayed(envelope) => self.frame(envelope),
            Item::Frame(frame) => frame,
        };
        if frame.is_empty() {
            metrics.increment(Metric::NotObject);
            return Ok(());
        }
        metrics.increment(Metric::SocketWrites);
        match self.stream.write(frame) {
            Ok(written) => {
                if written < frame.len() {
                    *queue.rest_mut() = frame.slice(written..);
                }
                Ok(())
            }
            Err(error) => {
                *queue.rest_mut() = frame.clone();
                Err(error)
            }
        }
    }

    /// A message as this connection wants it.
    fn frame<'e>(&self, envelope: &'e Envelope) -> &'e Bytes {
        match self.compression {
            Compression::Off => super::frame(self.framing, envelope, || self.addressee()),
            Compression::Deflate => {
                super::deflated_frame(self.framing, envelope, || self.addressee())
            }
        }
    }

    /// Whether an item fills a write of its own.
    fn is_large(&self, item: &Item) -> bool {
        let length = match item {
            Item::Live(envelope) | Item::Replayed(envelope) => self.frame(envelope).len(),
            Item::Frame(frame) => frame.len(),
        };
        length >= WRITE_MAX
    }

    /// Appends a message to `buffer`: a frame of its own, or with protobuf and JSON-RPC one batch
    /// together with the messages that follow in the queue (README D9). How many of those were live.
    fn append_messages(
        &self,
        first: &Envelope,
        queue: &mut Queue,
        buffer: &mut Vec<u8>,
        metrics: &Metrics,
    ) -> u64 {
        let first = self.frame(first);
        // Compressed messages are shared by everybody, each as it is.
        let joins = matches!(self.framing, Framing::Protobuf | Framing::JsonRpc)
            && self.compression == Compression::Off;
        let mut batch = Batch::default();
        batch.count(first);
        let mut length = first.len();
        let mut following = 0;
        if joins && first.len() < WRITE_MAX {
            for envelope in queue.next_messages() {
                let frame = self.frame(envelope);
                length += frame.len();
                if length > WRITE_MAX {
                    break;
                }
                batch.count(frame);
                following += 1;
            }
        }
        metrics.add(Metric::NotObject, batch.empty);
        batch.begin(self.framing, buffer);
        batch.append(first, buffer);
        let mut delivered = 0;
        for _ in 0..following {
            let Some(item) = queue.pop() else { break };
            delivered += live(&item);
            if let Item::Live(envelope) | Item::Replayed(envelope) = &item {
                batch.append(self.frame(envelope), buffer);
            }
        }
        batch.end(buffer);
        delivered
    }

    /// What is to be done now that a deadline has come. `unix_s`: the time for tokens.
    pub(crate) fn deadline(&mut self, now_s: u64, unix_s: u64, timing: &Timing) -> Deadline {
        let period_s = self.ping_period_s(timing);
        if self.closing == Closing::No
            && let Some(rpc) = &self.rpc
        {
            if rpc.identity.until_s.is_some_and(|until_s| unix_s > until_s) {
                let has_revision = rpc.identity.has_revision;
                return Deadline::Close(CloseReason::TokenOver { has_revision });
            }
            if self.framing == Framing::JsonRpc {
                if now_s.saturating_sub(rpc.heard_s) >= timing.text_silence.as_secs() {
                    self.end = End::NoPong;
                    return Deadline::Dead;
                }
                return Deadline::Ping(text_ping(), period_s);
            }
        }
        match self.closing {
            Closing::No if self.awaits_pong => {
                self.end = End::NoPong;
                Deadline::Dead
            }
            Closing::No => {
                self.awaits_pong = true;
                Deadline::Ping(codec::frame(Opcode::Ping, &[quirks::PING_PAYLOAD]), period_s)
            }
            Closing::Ours { until_s } | Closing::Failed { until_s } if now_s < until_s => {
                Deadline::Later(until_s - now_s)
            }
            Closing::Ours { .. } | Closing::Failed { .. } | Closing::Both => Deadline::Dead,
        }
    }

    /// Begins the end from our side; the close frame to send, unless it has begun already.
    pub(crate) fn close(&mut self, reason: CloseReason, now_s: u64) -> Option<Bytes> {
        let (code, text) = match reason {
            CloseReason::Stopping | CloseReason::SlowSubscriber | CloseReason::MoreMissed => {
                (1001, "")
            }
            CloseReason::TooManyConnections => (4029, quirks::EVICTION),
            CloseReason::WrongToken | CloseReason::TokenOver { has_revision: true } => {
                (4010, quirks::HANDSHAKE_REFUSAL)
            }
            // Mobile clients do not come back after 4010 (json-rpc.md §5.4).
            CloseReason::TokenOver { has_revision: false } => (1001, ""),
            CloseReason::HistoryUnreadable => (4011, "4011: Couldn't get last messages."),
        };
        self.begin_close(code, text, now_s + reason.patience_s())
    }

    fn begin_close(&mut self, code: u16, text: &str, until_s: u64) -> Option<Bytes> {
        if self.closing != Closing::No {
            return None;
        }
        self.closing = Closing::Ours { until_s };
        self.end = End::Server;
        Some(codec::close_frame(code, text))
    }
}

/// Messages that become one frame (README D9): first each is counted, then each is appended.
#[derive(Default)]
struct Batch {
    /// Messages that have a form in this framing, and bytes of them without their frames.
    messages: usize,
    bytes: usize,
    /// Messages that have none.
    empty: u64,
    /// What stands before the next message of an array.
    separator: Option<u8>,
}

impl Batch {
    fn count(&mut self, frame: &Bytes) {
        if frame.is_empty() {
            self.empty += 1;
        } else {
            self.messages += 1;
            self.bytes += codec::payload_in(frame).len();
        }
    }

    /// The header of the frame; a single message has one already.
    fn begin(&mut self, framing: Framing, buffer: &mut Vec<u8>) {
        if self.messages < 2 {
            return;
        }
        let (opcode, length) = if framing == Framing::JsonRpc {
            // An array: its brackets, and a comma before each element but the first.
            self.separator = Some(b'[');
            (Opcode::Text, self.bytes + self.messages + 1)
        } else {
            (Opcode::Binary, self.bytes)
        };
        buffer.extend_from_slice(codec::header(opcode, length).as_bytes());
    }

    fn append(&mut self, frame: &Bytes, buffer: &mut Vec<u8>) {
        if self.messages < 2 || frame.is_empty() {
            buffer.extend_from_slice(frame);
            return;
        }
        if let Some(separator) = &mut self.separator {
            buffer.push(*separator);
            *separator = b',';
        }
        buffer.extend_from_slice(codec::payload_in(frame));
    }

    fn end(&self, buffer: &mut Vec<u8>) {
        if self.separator.is_some() {
            buffer.push(b']');
        }
    }
}

/// The ping of JSON-RPC clients, whose watchdog hears no other.
fn text_ping() -> Bytes {
    // A header of two bytes: final text, four bytes long.
    const FRAME: &[u8] = b"\x81\x04ping";
    debug_assert_eq!(FRAME[2..], *jsonrpc::PING.as_bytes());
    Bytes::from_static(FRAME)
}

/// How many live messages an item is.
fn live(item: &Item) -> u64 {
    matches!(item, Item::Live(_)).into()
}

impl Shard {
    /// Reads what has arrived at a WebSocket connection and acts on it, until `until`.
    pub(crate) fn read_websocket(self: &Rc<Self>, key: SubscriberKey, until: Instant) {
        let state = &mut *self.state.borrow_mut();
        let mut buffer = std::mem::take(&mut state.read_buffer);
        let ended = self.read_into(state, key, &mut buffer, until);
        state.read_buffer = buffer;
        if ended == Ended::Yes {
            self.remove(state, key);
        }
    }

    fn read_into(
        self: &Rc<Self>,
        state: &mut State,
        key: SubscriberKey,
        buffer: &mut [u8],
        until: Instant,
    ) -> Ended {
        for count in 0..READS {
            if count > 0 && Instant::now() >= until {
                break;
            }
            let Some(socket) = websocket(state, key) else { return Ended::No };
            let length = match socket.compression {
                Compression::Off => buffer.len(),
                Compression::Deflate => DEFLATED_READ.min(buffer.len()),
            };
            let read = match socket.stream.read(&mut buffer[..length]) {
                Ok(0) => return Ended::Yes,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ended::No,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ended::Yes,
            };
            if self.received(state, key, &mut buffer[..read]) == Ended::Yes {
                return Ended::Yes;
            }
        }
        // More may be there, but others wait.
        state.readable.push(key);
        Ended::No
    }

    /// Acts on bytes that a client sent.
    pub(crate) fn received(
        self: &Rc<Self>,
        state: &mut State,
        key: SubscriberKey,
        bytes: &mut [u8],
    ) -> Ended {
        let now_s = self.now_s();
        let Some(socket) = websocket(state, key) else { return Ended::Yes };
        if let Some(rpc) = &mut socket.rpc {
            rpc.heard_s = now_s;
        }
        if matches!(socket.closing, Closing::Failed { .. } | Closing::Both) {
            return Ended::No;
        }
        let Some(mut partial) = socket.partial.take() else {
            let consumed = self.take_frames(state, key, bytes);
            return self.keep(state, key, consumed, |rest| Box::new(bytes[rest..].to_vec()));
        };
        partial.extend_from_slice(bytes);
        let consumed = self.take_frames(state, key, &mut partial);
        self.keep(state, key, consumed, |rest| {
            if rest == 0 {
                return partial;
            }
            // A copy, so that a large message that was taken does not keep its memory.
            Box::new(partial[rest..].to_vec())
        })
    }

    /// Puts aside what is left of the received bytes after whole frames were taken.
    fn keep(
        &self,
        state: &mut State,
        key: SubscriberKey,
        consumed: Consumed,
        rest: impl FnOnce(usize) -> Box<Vec<u8>>,
    ) -> Ended {
        match consumed {
            Consumed::All => {}
            Consumed::UpTo(end) => {
                if let Some(socket) = websocket(state, key) {
                    socket.partial = Some(rest(end));
                }
            }
            Consumed::Ended => return Ended::Yes,
        }
        Ended::No
    }

    /// Handles the whole frames at the start of `bytes`.
    fn take_frames(
        self: &Rc<Self>,
        state: &mut State,
        key: SubscriberKey,
        bytes: &mut [u8],
    ) -> Consumed {
        let payload_max = self.shared.options().limits.max_payload;
        let mut at = 0;
        while at < bytes.len() {
            let Some(socket) = websocket(state, key) else { return Consumed::Ended };
            let bytes = &mut bytes[at..];
            let step = match socket.compression {
                Compression::Off => socket.assembler.read(bytes, Peer::Client, payload_max),
                Compression::Deflate => {
                    socket.assembler.read_deflate(bytes, Peer::Client, payload_max)
                }
            };
            match step {
                Ok(Step::Incomplete { .. }) => return Consumed::UpTo(at),
                Ok(Step::Event { consumed, event }) => {
                    at += consumed;
                    // After our close only the peer's matters.
                    let is_open = socket.closing == Closing::No;
                    if is_open || matches!(event, Event::Close(_)) {
                        self.act(state, key, event);
                    }
                    let closing = websocket(state, key).map(|socket| socket.closing);
                    if matches!(closing, None | Some(Closing::Failed { .. } | Closing::Both)) {
                        return Consumed::All;
                    }
                }
                Err(error) => {
                    tracing::debug!(conn = key.serial(), %error, "protocol error of a client");
                    self.fail(state, key, error.close_code());
                    return Consumed::All;
                }
            }
        }
        Consumed::All
    }

    fn act(self: &Rc<Self>, state: &mut State, key: SubscriberKey, event: Event<'_>) {
        let Some(socket) = websocket(state, key) else { return };
        match event {
            Event::Fragment => {}
            Event::Pong(_) => socket.awaits_pong = false,
            Event::Ping(payload) => {
                state.subscribers.send(key, codec::frame(Opcode::Pong, &[payload]));
            }
            Event::Close(reason) => {
                let echo = match (socket.closing, reason) {
                    (Closing::No, None) => Some(Bytes::from_static(&codec::CLOSE_WITHOUT_CODE)),
                    (Closing::No, Some(reason)) => Some(codec::close_frame(reason.code, "")),
                    (Closing::Ours { .. } | Closing::Failed { .. } | Closing::Both, _) => None,
                };
                if socket.closing == Closing::No {
                    socket.end = End::Client;
                }
                socket.closing = Closing::Both;
                state.subscribers.deafen(key);
                match echo {
                    Some(echo) => state.subscribers.send(key, echo),
                    None => state.subscribers.touch(key),
                }
                state.wheel.add(CLOSING_S, key);
            }
            Event::Message(kind, payload) => match (socket.framing, kind) {
                // Q-107, K-025: whatever clients of text framings send is ignored.
                (Framing::Text | Framing::Json, _) => {}
                (Framing::JsonRpc, MessageType::Text) => self.client_text(state, key, &payload),
                // No client of generation 5 sends any (J-078).
                (Framing::JsonRpc, MessageType::Binary) => {}
                (Framing::Protobuf, MessageType::Text) => {
                    self.refuse_request(state, key, &RequestError::WrongData);
                }
                (Framing::Protobuf, MessageType::Binary) => {
                    if let Err(error) = self.client_request(state, key, payload) {
                        self.refuse_request(state, key, &error);
                    }
                }
            },
        }
    }

    /// Serves a protobuf request of a client: messages get no answer, statistics do.
    fn client_request(
        self: &Rc<Self>,
        state: &mut State,
        key: SubscriberKey,
        payload: Cow<'_, [u8]>,
    ) -> Result<(), RequestError> {
        let author = websocket(state, key).and_then(|socket| socket.author);
        for request in self.decode_client_requests(&payload.into_owned().into(), author)? {
            match request {
                Request::Publish(drafts) => {
                    let address = websocket(state, key).and_then(|socket| socket.admitted);
                    if address.is_some_and(|address| !self.shared.may_publish(address)) {
                        self.close_with(state, key, 1013, "try again later");
                        return Ok(());
                    }
                    if let Err(error) = self.shared.hub.publish_unanswered(drafts) {
                        // Full memory is said once, when it began.
                        if !matches!(error, PublishError::Full) {
                            tracing::warn!(conn = key.serial(), %error, "client message not accepted");
                        }
                        self.close_with(state, key, 1013, "try again later");
                    }
                }
                Request::ChannelStats(channels) => {
                    if !self.answer_channel_stats(state, key, channels) {
                        self.close_with(state, key, 1013, "try again later");
                        return Ok(());
                    }
                }
                Request::ServerStats => return Err(RequestError::CommandNotAllowed),
            }
        }
        Ok(())
    }

    /// Says who is online: at once if this node knows it, else when the others were asked; behind the answers
    /// to earlier questions of the connection, but not in order with messages. `false`: too many wait.
    fn answer_channel_stats(
        self: &Rc<Self>,
        state: &mut State,
        key: SubscriberKey,
        channels: Vec<Receiver>,
    ) -> bool {
        if let Some(waiting) = state.questions.get_mut(&key) {
            let is_room = waiting.len() < QUESTIONS_MAX;
            if is_room {
                waiting.push_back(channels);
            }
            return is_room;
        }
        if let Some(answer) = self.channel_stats_here(&channels) {
            state.subscribers.send(key, codec::frame(Opcode::Binary, &[&answer]));
            return true;
        }
        state.questions.insert(key, [channels].into());
        let shard = Rc::clone(self);
        self.spawn(async move {
            loop {
                let asked: Vec<_> = {
                    let state = &mut *shard.state.borrow_mut();
                    let is_open = is_open(state, key);
                    match state.questions.get_mut(&key) {
                        Some(waiting) if is_open && !waiting.is_empty() => {
                            waiting.drain(..).collect()
                        }
                        _ => {
                            state.questions.remove(&key);
                            return;
                        }
                    }
                };
                let answers = shard.channel_stats_of_each(&asked).await;
                let state = &mut *shard.state.borrow_mut();
                // Nothing comes behind a Close frame of ours.
                if !is_open(state, key) {
                    state.questions.remove(&key);
                    return;
                }
                for answer in answers {
                    state.subscribers.send(key, codec::frame(Opcode::Binary, &[&answer]));
                }
                shard.wake();
            }
        });
        true
    }

    /// Decodes and checks what a client asks; counts the requests.
    pub(crate) fn decode_client_requests(
        &self,
        payload: &Bytes,
        author: Option<ChannelId>,
    ) -> Result<Vec<Request>, RequestError> {
        let keys = &self.shared.tenant().keys;
        let now_s = self.shared.hub.clock().unix_s();
        self.decode_requests(payload, Caller::Client { author, keys, now_s })
    }

    fn refuse_request(&self, state: &mut State, key: SubscriberKey, error: &RequestError) {
        tracing::debug!(conn = key.serial(), %error, "client request refused");
        self.close_with(state, key, error.code(), &error.to_string());
    }

    /// Closes a connection whose peer broke the protocol.
    fn fail(&self, state: &mut State, key: SubscriberKey, code: u16) {
        self.close_with(state, key, code, "");
        let until_s = self.now_s() + CLOSING_S;
        if let Some(socket) = websocket(state, key) {
            socket.closing = Closing::Failed { until_s };
            // No more is read: give back what was put aside.
            socket.assembler = Assembler::new();
        }
        // When our close was sent before, there is nothing to write but the end to be seen.
        state.subscribers.touch(key);
    }

    fn close_with(&self, state: &mut State, key: SubscriberKey, code: u16, text: &str) {
        let until_s = self.now_s() + CLOSING_S;
        let Some(frame) = websocket(state, key).and_then(|s| s.begin_close(code, text, until_s))
        else {
            return;
        };
        state.wheel.add(CLOSING_S, key);
        state.subscribers.deafen(key);
        state.subscribers.send(key, frame);
    }
}

/// How much of the received bytes was made of whole frames.
enum Consumed {
    All,
    UpTo(usize),
    Ended,
}

/// Whether the connection is there and nobody began to close it.
fn is_open(state: &mut State, key: SubscriberKey) -> bool {
    websocket(state, key).is_some_and(|socket| socket.closing == Closing::No)
}

/// The WebSocket connection of a subscriber, if it is one.
pub(crate) fn websocket(state: &mut State, key: SubscriberKey) -> Option<&mut WebSocket> {
    match &mut state.subscribers.get(key)?.connection {
        Connection::WebSocket(socket) => Some(socket),
        Connection::Poll(_) | Connection::BetweenPolls(_) => None,
    }
}
