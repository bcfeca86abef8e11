//! Many WebSocket subscribers in one thread, which check what they get: once each, in order.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use prost::Message as _;
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};
use vestnik_core::sign::Key;
use vestnik_core::{ChannelId, MessageId};
use vestnik_proto::protobuf::schema::{ResponseBatch, ResponseCommand};
use vestnik_proto::websocket::{self as codec, Opcode, Parsed, Peer};

use super::link::Link;
use super::report::Latencies;
use crate::failure::Failure;
use crate::token;

/// A wait that gets nowhere for this long has failed.
const STUCK: Duration = Duration::from_secs(30);
/// What Linux says of a connection that is being made.
const EINPROGRESS: i32 = 115;
/// Handshakes under way at the same time.
const UNDER_WAY: usize = 100;

/// Channels of the subscriber number `number`.
pub(super) fn channel(kind: u8, number: u64) -> ChannelId {
    let mut bytes = [kind; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ChannelId::from_bytes(bytes)
}

/// The channel that everybody listens to.
pub(super) fn shared_channel() -> ChannelId {
    channel(0xcc, 0)
}

/// One subscriber.
struct Member {
    stream: Link,
    number: u64,
    is_asked: bool,
    is_open: bool,
    partial: Vec<u8>,
    last: Option<MessageId>,
    /// Messages since [`Swarm::count_whole`].
    taken: usize,
}

/// What a swarm has received.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    pub(super) messages: u64,
    pub(super) frames: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) closed: u64,
    /// How many subscribers have the first, the second, ... message since [`Swarm::count_whole`].
    reached: Vec<usize>,
    /// How many of those messages everybody has, and how many that is.
    pub(super) whole: u64,
    everybody: usize,
}

/// How far a socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// Until nothing is there now: whatever comes, the end too, will be told of.
    Drained,
    /// To the end, which was told of and will not be again.
    End,
}

/// How subscribers connect, and in which form they get messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// A signed pair and the shared channel each, protobuf frames.
    Four,
    /// A token for its user and the same channels, JSON-RPC frames.
    Five,
}

/// Many subscribers, each with a private channel of its own and the shared one.
pub(super) struct Swarm {
    address: SocketAddr,
    target: String,
    key: Key,
    generation: Generation,
    /// What connections are encrypted with, if they are.
    tls: Option<Arc<ClientConfig>>,
    poll: Poll,
    events: Events,
    members: Vec<Option<Member>>,
    /// Of those: connections, and how many of them are open.
    connected: usize,
    opened: usize,
    buffer: Vec<u8>,
    /// What the server said last to somebody it let go.
    last_words: Option<String>,
    pub(super) received: Received,
    pub(super) latencies: Latencies,
    origin: Instant,
}

impl Swarm {
    /// A swarm without members. `origin`: the time that stamps in event bodies count from.
    pub(super) fn new(
        address: SocketAddr,
        target: &str,
        key: Key,
        generation: Generation,
        origin: Instant,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            target: target.to_owned(),
            key,
            generation,
            tls: None,
            poll: Poll::new().context("cannot watch sockets")?,
            events: Events::with_capacity(1024),
            members: Vec::new(),
            connected: 0,
            opened: 0,
            buffer: vec![0; 256 * 1024],
            last_words: None,
            received: Received::default(),
            latencies: Latencies::default(),
            origin,
        })
    }

    /// The same with encrypted connections.
    pub(super) fn encrypted(self, tls: &Arc<ClientConfig>) -> Self {
        Self { tls: Some(Arc::clone(tls)), ..self }
    }

    /// Bytes that an event is wrapped in on its way to a subscriber.
    pub(super) const fn wrapping(&self) -> usize {
        match self.generation {
            Generation::Four => 36,
            Generation::Five => 123,
        }
    }

    /// An event of `bytes` bytes with a time stamp that this swarm understands.
    pub(super) fn event(&self, bytes: usize) -> String {
        event(self.origin, bytes)
    }

    /// Counts from now on how many of the next `messages` messages everybody has.
    pub(super) fn count_whole(&mut self, messages: u64) {
        self.members.iter_mut().flatten().for_each(|member| member.taken = 0);
        let Received { reached, everybody, whole, .. } = &mut self.received;
        reached.clear();
        reached.extend((0..messages).map(|_| 0));
        *everybody = self.opened;
        *whole = 0;
    }

    /// How many subscribers are connected.
    pub(super) fn len(&self) -> usize {
        self.opened
    }

    /// Connects subscribers until there are `count`, a hundred handshakes at a time.
    pub(super) fn connect(
        &mut self,
        count: usize,
        mut step: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        self.members.resize_with(count.max(self.members.len()), || None);
        let mut open = self.len();
        let mut next = 0;
        let mut under_way = self.connected - open;
        let mut progress = Instant::now();
        while open < count {
            while under_way < UNDER_WAY && next < count {
                if self.members[next].is_none() {
                    self.open(next, None)?;
                    under_way += 1;
                }
                next += 1;
            }
            let before = open;
            self.turn(Duration::from_millis(100))?;
            open = self.len();
            under_way = self.connected - open;
            step(open);
            if open > before {
                progress = Instant::now();
            } else if progress.elapsed() > STUCK || (next >= count && under_way == 0) {
                let said = self.last_words.as_deref().unwrap_or("nothing");
                return Err(Failure::new(
                    format!(
                        "only {open} of {count} subscribers could connect; the server said {said}"
                    ),
                    "check that the key and its --algorithm fit; raise `ulimit -n`, or use fewer \
                     --connections",
                )
                .into());
            }
        }
        Ok(())
    }

    /// Drops every connection at once and returns the positions where they stopped.
    pub(super) fn drop_all(&mut self) -> Vec<Option<MessageId>> {
        (self.connected, self.opened) = (0, 0);
        self.members.drain(..).map(|member| member.and_then(|member| member.last)).collect()
    }

    /// Connects everybody again at once with these positions, a hundred handshakes at a time.
    pub(super) fn reconnect(&mut self, positions: &[Option<MessageId>]) -> anyhow::Result<()> {
        self.members.resize_with(positions.len(), || None);
        let mut progress = Instant::now();
        let mut next = 0;
        loop {
            let open = self.len();
            let mut under_way = self.connected - open;
            while under_way < UNDER_WAY && next < positions.len() {
                self.open(next, positions[next])?;
                under_way += 1;
                next += 1;
            }
            if open == positions.len() {
                return Ok(());
            }
            self.turn(Duration::from_millis(100))?;
            if self.len() > open {
                progress = Instant::now();
            }
            anyhow::ensure!(progress.elapsed() < STUCK, "only {open} could come back");
        }
    }

    fn open(&mut self, index: usize, after: Option<MessageId>) -> anyhow::Result<()> {
        let number = index as u64;
        let stream = connect(self.address, index)
            .context("cannot connect; raise `ulimit -n` or use fewer --connections")?;
        let mut stream = Link::new(stream, self.tls.as_ref())?;
        self.poll.registry().register(
            &mut stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let member = Member {
            stream,
            number,
            is_asked: false,
            is_open: false,
            partial: Vec::new(),
            last: after,
            taken: 0,
        };
        self.members[index] = Some(member);
        self.connected += 1;
        Ok(())
    }

    /// Drops the connection of one subscriber, if it is there.
    pub(super) fn drop_one(&mut self, index: usize) {
        if let Some(member) = self.members.get_mut(index).and_then(Option::take) {
            self.connected -= 1;
            self.opened -= usize::from(member.is_open);
        }
    }

    /// The request that subscriber number `number` begins with.
    pub(super) fn handshake(&self, number: u64, after: Option<MessageId>) -> String {
        let mid = after.map_or_else(String::new, |mid| format!("&mid={mid}"));
        let query = match self.generation {
            Generation::Four => self.signed_channels(number),
            Generation::Five => self.token(number),
        };
        format!(
            "GET {}?{query}{mid}&revision=19 HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.target
        )
    }

    fn signed_channels(&self, number: u64) -> String {
        let (private, public) = (channel(0xaa, number), channel(0xbb, number));
        let pair = format!("{private}:{public}");
        let signature = self.key.sign(&[pair.as_bytes()]);
        let shared = shared_channel();
        let shared_signature = self.key.sign(&[shared.to_string().as_bytes()]);
        format!(
            "CHANNEL_ID={private}%3A{public}.{signature}%2F{shared}.{shared_signature}&binaryMode=true"
        )
    }

    fn token(&self, number: u64) -> String {
        let (user, private, shared) = (number + 1, channel(0xaa, number), shared_channel());
        let claims = format!(
            r#"{{"iss":"bench","iat":0,"exp":9999999999,"sub":"{user}","chan":"{shared},{private}"}}"#
        );
        format!("token={}&jsonRpc=true", token::signed(&self.key, &claims))
    }

    /// Waits for events once and handles them.
    pub(super) fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(error).context("cannot watch sockets");
            }
            Ok(()) | Err(_) => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Token(index) = event.token();
            if event.is_writable() {
                self.ask(index);
            }
            let is_ending = event.is_read_closed() || event.is_error();
            self.read(index, if is_ending { Until::End } else { Until::Drained });
        }
        self.events = events;
        Ok(())
    }

    /// Handles what happened until `done` says so; fails when nothing comes for half a minute.
    pub(super) fn until(&mut self, done: impl Fn(&Received) -> bool) -> anyhow::Result<()> {
        let mut progress = (Instant::now(), self.received.messages);
        while !done(&self.received) {
            self.turn(Duration::from_millis(100))?;
            if self.received.messages > progress.1 {
                progress = (Instant::now(), self.received.messages);
            }
            anyhow::ensure!(
                progress.0.elapsed() < STUCK,
                "messages stopped coming after {}; {} connections closed",
                self.received.messages,
                self.received.closed
            );
        }
        Ok(())
    }

    /// Sends the handshake's request of a member that has not done so.
    fn ask(&mut self, index: usize) {
        let Some(Some(member)) = self.members.get(index) else { return };
        if member.is_asked {
            return;
        }
        let request = self.handshake(member.number, member.last);
        let Some(Some(member)) = self.members.get_mut(index) else { return };
        match member.stream.write(request.as_bytes()) {
            Ok(written) if written == request.len() => member.is_asked = true,
            // A handshake is far smaller than any socket buffer.
            Ok(_) | Err(_) => self.lost(index),
        }
    }

    /// Reads what there is for a member.
    fn read(&mut self, index: usize, until: Until) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(Some(member)) = self.members.get_mut(index) {
            let is_drained = match member.stream.read(&mut buffer) {
                Ok(0) => {
                    self.lost(index);
                    break;
                }
                Ok(read) => {
                    let is_drained = member.stream.is_drained_by(read, buffer.len());
                    if member.partial.is_empty() {
                        self.take(index, &buffer[..read]);
                    } else {
                        let mut bytes = std::mem::take(&mut member.partial);
                        bytes.extend_from_slice(&buffer[..read]);
                        self.take(index, &bytes);
                    }
                    is_drained
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.lost(index);
                    break;
                }
            };
            if is_drained && until == Until::Drained {
                break;
            }
        }
        self.buffer = buffer;
    }

    fn lost(&mut self, index: usize) {
        self.received.closed += 1;
        self.drop_one(index);
    }

    /// Takes whole frames from what a member has received; the rest stays with it.
    fn take(&mut self, index: usize, bytes: &[u8]) {
        let Some(Some(member)) = self.members.get_mut(index) else { return };
        let mut at = 0;
        if !member.is_open {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                member.partial = bytes.to_vec();
                return;
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let head = String::from_utf8_lossy(&bytes[..end]);
                self.last_words = Some(head.lines().next().unwrap_or_default().to_owned());
                return self.lost(index);
            }
            member.is_open = true;
            self.opened += 1;
            at = end + 4;
        }
        while let Ok(Parsed::Frame(frame)) = codec::parse(&bytes[at..], Peer::Server, usize::MAX) {
            let payload = &bytes[at + frame.payload.start..at + frame.payload.end];
            match frame.opcode {
                Opcode::Binary => {
                    self.received.frames += 1;
                    count(&mut self.received, &mut self.latencies, self.origin, member, payload);
                }
                Opcode::Text if self.generation == Generation::Five => {
                    let calls = incoming(payload);
                    self.received.frames += u64::from(!calls.is_empty());
                    for Incoming { params: IncomingParams { mid, body } } in calls {
                        let (received, latencies) = (&mut self.received, &mut self.latencies);
                        if let Ok(id) = mid.parse() {
                            let body = body.get().as_bytes();
                            received.count(latencies, self.origin, member, id, body);
                        }
                    }
                }
                Opcode::Ping => {
                    let mut pong = Vec::new();
                    codec::push_client_frame(&mut pong, Opcode::Pong, payload, [0; 4]);
                    // A server that takes no pong closes the connection, which is then counted.
                    let _ = member.stream.write(&pong);
                }
                Opcode::Close => {
                    self.last_words = Some(farewell(payload));
                    return self.lost(index);
                }
                Opcode::Text | Opcode::Pong | Opcode::Continuation => {}
            }
            at += frame.payload.end;
        }
        member.partial = bytes[at..].to_vec();
    }
}

/// The code and the reason of a close frame.
fn farewell(payload: &[u8]) -> String {
    match payload.split_first_chunk() {
        Some((code, reason)) => {
            format!("close {} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason))
        }
        None => "close".to_owned(),
    }
}

/// Begins a connection. On the loopback every few thousand come from an address of their own: with
/// most ports of one address in use, the kernel takes half a millisecond to find a free one, and that
/// would be what is measured. They end with a reset, so that their ports are free for the next round.
fn connect(address: SocketAddr, index: usize) -> io::Result<TcpStream> {
    const FROM_ONE: usize = 1000;
    if !matches!(address.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
        return TcpStream::connect(address);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let from = Ipv4Addr::new(127, 0, 0, u8::try_from(1 + index / FROM_ONE).unwrap_or(1));
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    match socket.connect(&address.into()) {
        // It goes on by itself.
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        result => result?,
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// A message as JSON-RPC brings it. Greetings and pings are something else.
#[derive(serde::Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    params: IncomingParams<'a>,
}

#[derive(serde::Deserialize)]
struct IncomingParams<'a> {
    mid: &'a str,
    #[serde(borrow)]
    body: &'a serde_json::value::RawValue,
}

/// The messages of one frame: a call, or several in an array.
fn incoming(payload: &[u8]) -> Vec<Incoming<'_>> {
    let calls = match payload.first() {
        Some(b'[') => serde_json::from_slice(payload),
        _ => serde_json::from_slice(payload).map(|call| vec![call]),
    };
    calls.unwrap_or_default()
}

/// Counts and checks the messages of one protobuf frame.
fn count(
    received: &mut Received,
    latencies: &mut Latencies,
    origin: Instant,
    member: &mut Member,
    payload: &[u8],
) {
    // One copy for the frame, which the bodies of its messages share.
    let Ok(batch) = ResponseBatch::decode(Bytes::copy_from_slice(payload)) else { return };
    for response in batch.responses {
        let Some(ResponseCommand::OutgoingMessages(outgoing)) = response.command else { continue };
        for message in outgoing.messages {
            let Ok(id) = MessageId::from_packed(&message.id) else { continue };
            let body = message.body.as_deref().unwrap_or_default();
            received.count(latencies, origin, member, id, body);
        }
    }
}

impl Received {
    /// Counts and checks one message.
    fn count(
        &mut self,
        latencies: &mut Latencies,
        origin: Instant,
        member: &mut Member,
        id: MessageId,
        body: &[u8],
    ) {
        self.messages += 1;
        if let Some(reached) = self.reached.get_mut(member.taken) {
            member.taken += 1;
            *reached += 1;
            self.whole += u64::from(*reached == self.everybody);
        }
        match member.last {
            Some(last) if last == id => self.duplicated += 1,
            Some(last) if last > id => self.reordered += 1,
            _ => member.last = Some(id),
        }
        if let Some(sent) = stamp_of(body) {
            latencies.add(origin.elapsed().saturating_sub(sent));
        }
    }
}

/// The time stamp in an event of the benchmark.
fn stamp_of(body: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(body).ok()?;
    let digits = text.strip_prefix("{\"module_id\":\"bench\",\"sent\":")?;
    let end = digits.find(|character: char| !character.is_ascii_digit())?;
    digits[..end].parse().ok().map(Duration::from_nanos)
}

/// An event of `bytes` bytes with a time stamp.
pub(super) fn event(origin: Instant, bytes: usize) -> String {
    let mut event = format!(
        "{{\"module_id\":\"bench\",\"sent\":{},\"command\":\"c\",\"params\":{{\"t\":\"",
        origin.elapsed().as_nanos()
    );
    let rest = bytes.saturating_sub(event.len() + 3);
    event.extend(std::iter::repeat_n('x', rest));
    event.push_str("\"}}");
    event
}
