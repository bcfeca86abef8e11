//! Listener sockets: one for each address and shard, sharing the port.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};
use vestnik_core::metric::Metric;
use vestnik_hub::SubscriberKey;

use crate::admission::Seat;
use crate::http;
use crate::options::Listener;
use crate::proxy;
use crate::shard::Shard;
use crate::stream::Stream;
use crate::subscribe::Subscription;
use crate::transport::websocket::{self, Accepted, Compression, WebSocket};
use crate::transport::{CloseReason, Connection, Ended};

/// An address that cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is in use by another program")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// The operating system refuses it.
    #[error("cannot listen at {address}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What it said.
        #[source]
        error: io::Error,
    },
}

/// Opens one non-blocking socket for each of `shards`, all on the same port; the kernel spreads
/// connections over them.
///
/// Returns the address with the port that was really taken.
pub(crate) fn bind(
    listener: &Listener,
    shards: usize,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let wrap = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address: listener.address },
        _ => BindError::Refused { address: listener.address, error },
    };
    if let Some(inherited) = &listener.inherited {
        return share(inherited, shards).map_err(wrap);
    }
    // A socket that shares its port would also share it with another vestnik, and each would get half
    // of the connections. The first one is therefore bound alone, which fails if anybody is there.
    let alone = open(listener, listener.address, Sharing::Alone).map_err(wrap)?;
    let address = alone.local_addr().map_err(wrap)?;
    if shards <= 1 {
        return Ok((address, vec![alone]));
    }
    drop(alone);
    let sockets = (0..shards).map(|_| open(listener, address, Sharing::Shared));
    Ok((address, sockets.collect::<Result<_, _>>().map_err(wrap)?))
}

/// One socket for all shards: each of them is woken for a connection, and the first one has it.
fn share(inherited: &TcpListener, shards: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    inherited.set_nonblocking(true)?;
    let sockets = (0..shards).map(|_| inherited.try_clone()).collect::<io::Result<_>>()?;
    Ok((inherited.local_addr()?, sockets))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Shared,
}

fn open(listener: &Listener, address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` serves IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(listener.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A connection whose first request has not arrived in full.
struct Newcomer {
    stream: Stream,
    /// Who it is; until `awaits_proxy` is over, the proxy.
    peer: SocketAddr,
    /// Its PROXY header is still to come.
    awaits_proxy: bool,
    /// It waits for its turn already.
    is_eager: bool,
    listener: usize,
    head: Vec<u8>,
    until_s: u64,
    /// Its head was too long and it was told so; it is kept until it has read that.
    is_refused: bool,
    /// Its place among the connections of strangers.
    seat: Option<Seat>,
}

/// How far the first request of a newcomer is.
enum Reading {
    /// More has to come.
    Waits,
    /// More is there already, but others wait.
    More,
    /// Its head is complete.
    Complete,
    /// It has gone.
    Lost,
}

impl Newcomer {
    /// Reads whom a proxy speaks for, and nothing behind it: what follows may be encrypted.
    fn read_proxy(&mut self, buffer: &mut [u8]) -> Reading {
        let socket = self.stream.socket_mut();
        let seen = match socket.peek(buffer) {
            Ok(0) => return Reading::Lost,
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Reading::Waits,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Reading::More,
            Err(_) => return Reading::Lost,
        };
        let header = match proxy::header(&buffer[..seen]) {
            Ok(None) => return Reading::Waits,
            Ok(Some(header)) => header,
            Err(error) => {
                tracing::debug!(%error, peer = %self.peer, "connection of a proxy refused");
                return Reading::Lost;
            }
        };
        // It was seen a moment ago, so it is there.
        if socket.read_exact(&mut buffer[..header.length]).is_err() {
            return Reading::Lost;
        }
        self.peer = header.source.unwrap_or(self.peer);
        self.awaits_proxy = false;
        Reading::Complete
    }

    /// Reads until a whole request head is there; one over `head_max` bytes is refused.
    fn read(&mut self, buffer: &mut [u8], head_max: usize) -> Reading {
        /// Reads before others get their turn: far more than a head that is not refused needs.
        const READS: usize = 16;
        for _ in 0..READS {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Reading::Lost,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Reading::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Reading::Lost,
            };
            if self.is_refused {
                continue;
            }
            // An end may begin in what was looked at already; looking at all of it again for every
            // byte of a slow client would be work it can make us do.
            let from = self.head.len().saturating_sub(2);
            self.head.extend_from_slice(&buffer[..read]);
            let end = head_end(&self.head[from..]).map(|end| from + end);
            if end.unwrap_or(self.head.len()) > head_max {
                if self.refuse(head_max).is_err() {
                    return Reading::Lost;
                }
            } else if end.is_some() && !http::is_half_preface(&self.head) {
                return Reading::Complete;
            }
        }
        Reading::More
    }

    /// Answers a head that is too long: 414 for its first line, 431 for the rest (README D18).
    /// What still comes is thrown away, so that the answer is not lost in a reset connection.
    fn refuse(&mut self, head_max: usize) -> io::Result<()> {
        let head = std::mem::take(&mut self.head);
        let line = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
        let status = if line > head_max {
            "414 URI Too Long"
        } else {
            "431 Request Header Fields Too Large"
        };
        // The headers of `respond::head_too_large`, which answers later requests of a connection.
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nAccess-Control-Allow-Origin: *\r\n\
             Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        // A new socket has room for these few bytes.
        self.stream.write_all(answer.as_bytes())?;
        self.stream.shut()?;
        self.is_refused = true;
        Ok(())
    }
}

/// The accepting side of a shard: its listeners, and connections that have not said what they are.
pub(crate) struct Accepting {
    listeners: Vec<mio::net::TcpListener>,
    newcomers: Slab<Newcomer>,
    /// Listeners that may have more connections waiting.
    pending: Vec<usize>,
    /// Listeners that could not accept; they are tried again at the next tick.
    stalled: Vec<usize>,
    /// Newcomers that have more to read, or whose reading is work: handshakes of encryption.
    eager: VecDeque<usize>,
    /// When the operating system last refused a descriptor; said once a minute.
    exhausted_s: Option<u64>,
}

/// Registers a stream for everything that may happen to it, once, edge-triggered.
const WATCHED: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Tokens of listeners and newcomers lie above those of subscribers, which are below 2^32.
const LISTENERS: usize = 1 << 40;
const NEWCOMERS: usize = 1 << 41;
/// Connections accepted from one listener before others get their turn.
const ACCEPTS: usize = 64;

impl Accepting {
    /// Watches `listeners`; their places are those of the options.
    pub(crate) fn new(listeners: Vec<TcpListener>, registry: &Registry) -> io::Result<Self> {
        let mut listeners: Vec<_> =
            listeners.into_iter().map(mio::net::TcpListener::from_std).collect();
        for (place, listener) in listeners.iter_mut().enumerate() {
            registry.register(listener, Token(LISTENERS + place), Interest::READABLE)?;
        }
        Ok(Self {
            listeners,
            newcomers: Slab::new(),
            pending: Vec::new(),
            stalled: Vec::new(),
            eager: VecDeque::new(),
            exhausted_s: None,
        })
    }

    /// Whether a token belongs to a listener or a newcomer.
    pub(crate) const fn owns(token: usize) -> bool {
        token >= LISTENERS
    }

    /// Whether connections may be waiting that no event will tell of.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || !self.eager.is_empty()
    }

    /// Lets a newcomer wait for its turn.
    fn hurry(&mut self, index: usize) {
        if let Some(newcomer) = self.newcomers.get_mut(index)
            && !newcomer.is_eager
        {
            newcomer.is_eager = true;
            self.eager.push_back(index);
        }
    }

    /// Closes the listeners and whoever has not sent a request yet.
    pub(crate) fn stop(&mut self, registry: &Registry) {
        for mut listener in self.listeners.drain(..) {
            if let Err(error) = registry.deregister(&mut listener) {
                tracing::debug!(%error, "listener was not registered");
            }
        }
        self.newcomers.clear();
        self.pending.clear();
        self.eager.clear();
    }
}

impl Shard {
    /// Acts on an event of a listener or a newcomer.
    pub(crate) fn accept(self: &Rc<Self>, token: usize) {
        if token >= NEWCOMERS {
            self.look_at_newcomer(token - NEWCOMERS);
        } else {
            self.accept_from(token - LISTENERS);
        }
    }

    /// Goes on with listeners that were left in the middle.
    pub(crate) fn accept_pending(self: &Rc<Self>) {
        let pending = std::mem::take(&mut self.state.borrow_mut().accepting.pending);
        for listener in pending {
            self.accept_from(listener);
        }
        self.serve_eager();
    }

    /// Reads from newcomers that wait for it. A handshake of encryption takes a quarter of a
    /// millisecond, and thousands may come back at once: deliveries have their turn in between.
    fn serve_eager(self: &Rc<Self>) {
        const SLICE: Duration = Duration::from_millis(5);
        let began = Instant::now();
        let waiting = self.state.borrow().accepting.eager.len();
        for _ in 0..waiting {
            let index = {
                let accepting = &mut self.state.borrow_mut().accepting;
                let Some(index) = accepting.eager.pop_front() else { return };
                // It may have gone, and another may have taken its place: that does no harm.
                let Some(newcomer) = accepting.newcomers.get_mut(index) else { continue };
                newcomer.is_eager = false;
                index
            };
            self.read_newcomer(index);
            if began.elapsed() >= SLICE {
                return;
            }
        }
    }

    /// Reads from a newcomer at once, or as soon as others had their turn if that may be work.
    fn look_at_newcomer(self: &Rc<Self>, index: usize) {
        {
            let accepting = &mut self.state.borrow_mut().accepting;
            let newcomer = accepting.newcomers.get(index);
            if newcomer.is_some_and(|it| matches!(it.stream, Stream::Tls(_))) {
                accepting.hurry(index);
                return;
            }
        }
        self.read_newcomer(index);
    }

    /// The place of a stranger's connection among others of its kind; `Err`: there are too many.
    ///
    /// The site must get through whatever strangers do; and a proxy speaks for many clients, who are
    /// counted when they subscribe.
    fn seat(&self, peer: SocketAddr) -> Result<Option<Seat>, ()> {
        let address = peer.ip().to_canonical();
        let trust = &self.shared.options().trust;
        if trust.allows(address) || trust.is_proxy(address) {
            return Ok(None);
        }
        let seat = self.shared.accepted.seat(address);
        if seat.is_none() {
            self.shared.metrics().increment(Metric::ConnectionsRefused);
        }
        seat.map(Some).ok_or(())
    }

    /// Says at most once a minute that somebody came past the proxy.
    fn bypass_refused(&self, peer: SocketAddr) {
        self.shared.metrics().increment(Metric::ConnectionsRefused);
        if self.shared.may_warn_of_distrust() {
            tracing::warn!(
                %peer,
                "connection refused: server.proxy_protocol takes them from trusted.proxies alone"
            );
        }
    }

    fn accept_from(self: &Rc<Self>, listener: usize) {
        for _ in 0..ACCEPTS {
            let accepted = match self.state.borrow().accepting.listeners.get(listener) {
                Some(socket) => socket.accept(),
                None => return,
            };
            match accepted {
                Ok((stream, peer)) => self.greet(stream, peer, listener),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The far end gave up while it was waiting.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    // Out of descriptors or memory: the waiting stay in the backlog, and the next
                    // tick tries again.
                    self.accept_failed(&error);
                    self.state.borrow_mut().accepting.stalled.push(listener);
                    return;
                }
            }
        }
        self.state.borrow_mut().accepting.pending.push(listener);
    }

    fn accept_failed(&self, error: &io::Error) {
        const SAY_AGAIN_S: u64 = 60;
        let now_s = self.now_s();
        let last = &mut self.state.borrow_mut().accepting.exhausted_s;
        if last.is_none_or(|last| now_s - last >= SAY_AGAIN_S) {
            *last = Some(now_s);
            tracing::error!(%error, "cannot accept connections; raise the limit of open files");
        }
    }

    /// Once a second: gives up on newcomers that say nothing, tries stalled listeners again.
    pub(crate) fn tick_accepting(self: &Rc<Self>) {
        let now_s = self.now_s();
        let accepting = &mut self.state.borrow_mut().accepting;
        accepting.newcomers.retain(|_, newcomer| newcomer.until_s > now_s);
        accepting.pending.append(&mut accepting.stalled);
    }

    /// Takes in a new connection; usually its request is there already.
    fn greet(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, listener: usize) {
        self.shared.metrics().increment(Metric::Accepted);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection lost before its first request");
            return;
        }
        let options = self.shared.options();
        let Some(from) = options.listeners.get(listener) else { return };
        let awaits_proxy = from.proxy_protocol;
        if awaits_proxy && !options.trust.is_proxy(peer.ip()) {
            self.bypass_refused(peer);
            return;
        }
        let Ok(seat) = self.seat(peer) else { return };
        let Some(stream) = Stream::accepted(stream, from.tls.as_ref()) else { return };
        let until_s = self.now_s() + options.timing.head.as_secs().max(1);
        let index = {
            let state = &mut *self.state.borrow_mut();
            let newcomer = Newcomer {
                stream,
                peer,
                awaits_proxy,
                is_eager: false,
                listener,
                head: Vec::new(),
                until_s,
                is_refused: false,
                seat,
            };
            let entry = state.accepting.newcomers.vacant_entry();
            let index = entry.key();
            let newcomer = entry.insert(newcomer);
            let token = Token(NEWCOMERS + index);
            let socket = newcomer.stream.socket_mut();
            if let Err(error) = state.registry.register(socket, token, WATCHED) {
                tracing::error!(%error, "a new connection cannot be watched");
                state.accepting.newcomers.remove(index);
                return;
            }
            index
        };
        self.look_at_newcomer(index);
    }

    fn read_newcomer(self: &Rc<Self>, index: usize) {
        let head_max = self.shared.options().limits.request_head;
        let newcomer = {
            let state = &mut *self.state.borrow_mut();
            let Some(newcomer) = state.accepting.newcomers.get_mut(index) else { return };
            let mut reading = Reading::Complete;
            if newcomer.awaits_proxy {
                reading = newcomer.read_proxy(&mut state.read_buffer);
                if matches!(reading, Reading::Complete) {
                    match self.seat(newcomer.peer) {
                        Ok(seat) => newcomer.seat = seat,
                        Err(()) => reading = Reading::Lost,
                    }
                }
            }
            if matches!(reading, Reading::Complete) {
                reading = newcomer.read(&mut state.read_buffer, head_max);
            }
            match reading {
                Reading::Waits => return,
                Reading::More => {
                    state.accepting.hurry(index);
                    return;
                }
                Reading::Lost => {
                    state.accepting.newcomers.remove(index);
                    return;
                }
                Reading::Complete => state.accepting.newcomers.remove(index),
            }
        };
        self.first_request(newcomer);
    }

    /// Hands a connection with its first request to whoever serves it.
    fn first_request(self: &Rc<Self>, newcomer: Newcomer) {
        let Newcomer { mut stream, peer, listener, mut head, seat, .. } = newcomer;
        // Its certificate proves nothing to a client, so nothing may be said under it (RFC 8737 §3).
        if stream.is_for_proof() {
            return;
        }
        vestnik_proto::query::escape_target(&mut head);
        if let Some(opening) = self.opening(listener, peer, &head) {
            let rest = head.split_off(opening.head_length);
            let Opening { accepted, subscription, client, .. } = opening;
            let handshake = Handshake::Answer(websocket::switching_protocols(accepted));
            let socket = (stream, accepted.compression);
            self.open_websocket(socket, client, handshake, &subscription, rest);
            return;
        }
        if let Err(error) = self.state.borrow().registry.deregister(stream.socket_mut()) {
            tracing::debug!(%error, "connection lost before its first request");
            return;
        }
        let (socket, session) = stream.into_parts();
        self.serve_http(socket.into(), session, head.into(), Caller { peer, listener }, seat);
    }

    /// Whether the first request is a handshake that can be accepted at once. Everything else,
    /// refusals included, goes the way of all requests.
    fn opening(&self, listener: usize, peer: SocketAddr, head: &[u8]) -> Option<Opening> {
        let mut headers = [httparse::EMPTY_HEADER; http::HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head_length)) = request.parse(head) else { return None };
        // Empty lines before the request count too.
        let options = self.shared.options();
        if head_length > options.limits.request_head {
            return None;
        }
        let header = |name: &str| {
            request
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .map(|header| header.value)
        };
        if !header("connection").is_some_and(websocket::lists_upgrade) {
            return None;
        }
        let (path, query) = request.path?.split_once('?')?;
        let accepted = websocket::HandshakeHead {
            method: request.method?,
            path,
            upgrade: header("upgrade"),
            version: header("sec-websocket-version"),
            key: header("sec-websocket-key"),
            extensions: header("sec-websocket-extensions"),
        }
        .accept(&options.listeners[listener].routes, options.compression)?;
        if self.shared.hub.is_full() {
            // The other way answers requests.
            return None;
        }
        let subscription = self.shared.handshake_subscription(query).ok()?;
        let forwarded = request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(options.trust.forwarded.name()))
            .map(|header| std::str::from_utf8(header.value).unwrap_or("?"));
        let client = options.trust.client(peer.ip().to_canonical(), forwarded);
        Some(Opening { head_length, client, accepted, subscription })
    }

    /// Begins a WebSocket connection whose handshake was accepted. `received`: what came behind the
    /// request.
    pub(crate) fn open_websocket(
        self: &Rc<Self>,
        (stream, compression): (Stream, Compression),
        client: IpAddr,
        handshake: Handshake,
        subscription: &Subscription,
        mut received: Vec<u8>,
    ) {
        let is_encrypted = matches!(stream, Stream::Tls(_));
        let is_admitted = self.shared.admits(client);
        let admitted = is_admitted.then_some(client);
        let socket = WebSocket::new(stream, subscription, compression, admitted, self.now_s());
        self.shared.metrics().increment(Metric::ConnectionsWebSocket);
        let socket = Connection::WebSocket(socket);
        let (key, answer, ended) = match handshake {
            Handshake::Answer(answer) => (self.subscribe(subscription, socket), Some(answer), None),
            Handshake::Answered(key) => {
                let state = &mut *self.state.borrow_mut();
                let Some(subscriber) = state.subscribers.get(key) else { return };
                match std::mem::replace(&mut subscriber.connection, socket) {
                    Connection::Poll(poll) => (key, None, poll.ended()),
                    Connection::WebSocket(_) | Connection::BetweenPolls(_) => (key, None, None),
                }
            }
        };
        {
            let state = &mut *self.state.borrow_mut();
            let Some(subscriber) = state.subscribers.get(key) else { return };
            let Connection::WebSocket(socket) = &mut subscriber.connection else { return };
            let token = Token(key.index());
            let watched = if answer.is_some() {
                state.registry.reregister(socket.socket_mut(), token, WATCHED)
            } else {
                state.registry.register(socket.socket_mut(), token, WATCHED)
            };
            if let Err(error) = watched {
                tracing::error!(%error, "a new connection cannot be watched");
                self.remove(state, key);
                return;
            }
            let ping_s = socket.ping_period_s(&self.shared.options().timing);
            let greeting = socket.greeting().filter(|_| !subscription.is_rejected);
            state.wheel.add(ping_s, key);
            if let Some(answer) = answer {
                state.subscribers.send(key, answer);
            }
            if let Some(greeting) = greeting {
                state.subscribers.send(key, greeting);
            }
        }
        if subscription.is_rejected {
            let state = &mut *self.state.borrow_mut();
            state.subscribers.replay(key, Vec::new(), vestnik_core::MessageId::ZERO);
            self.close(state, key, CloseReason::WrongToken);
            self.wake();
        } else if is_admitted {
            self.replay(key, subscription);
        } else {
            // It hears nothing, and is told so after a pause (K-044).
            let state = &mut *self.state.borrow_mut();
            state.subscribers.replay(key, Vec::new(), vestnik_core::MessageId::ZERO);
            self.refuse_later(state, key);
            self.wake();
        }
        let state = &mut *self.state.borrow_mut();
        if is_encrypted {
            // What the session has decrypted already, no event tells of.
            state.readable.push(key);
        }
        if !received.is_empty() && self.received(state, key, &mut received) == Ended::Yes {
            self.remove(state, key);
        } else if let Some(reason) = ended {
            self.close(state, key, reason);
        }
    }
}

/// Whose HTTP connection it is.
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    /// The place of its listener in the options.
    pub(crate) listener: usize,
}

/// How far the handshake of a connection is.
pub(crate) enum Handshake {
    /// This is its answer, which leaves together with what the client missed.
    Answer(Bytes),
    /// It was answered, and the subscriber is there since before that, as a poll that nobody waits
    /// for: what is published once the client knows the answer must not be lost.
    Answered(SubscriberKey),
}

/// A handshake that was accepted.
struct Opening {
    head_length: usize,
    client: IpAddr,
    accepted: Accepted,
    subscription: Subscription,
}

/// Where the first empty line of `bytes` ends, and with it a request head. Lines may end in a bare LF.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let line_feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    line_feeds
        .filter_map(|(at, _)| match bytes[at + 1..] {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        })
        .next()
}
