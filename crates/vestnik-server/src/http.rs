//! Requests that are not the opening of a WebSocket connection: one hyper connection each, its
//! service, and the way from a request to its handler.

mod stream;

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::time::Instant;
use vestnik_core::metric::Metric;
use vestnik_proto::protobuf::RequestError;
use vestnik_proto::query::Query;
use vestnik_proto::quirks;
use vestnik_proto::websocket::deflate;

use self::stream::{Stream, Watch};

use crate::admission::Seat;
use crate::bodies::Share;
use crate::listen::{Caller, Handshake};
use crate::publish::TextPublish;
use crate::respond::{self, Answer};
use crate::route::Route;
use crate::rpc;
use crate::shard::Shard;
use crate::shared::Shared;
use crate::subscribe::SubscriptionRefused;
use crate::transport::websocket::Compression;
use crate::transport::{Connection, Poll, websocket};

/// The most header lines of a request.
pub(crate) const HEADERS_MAX: usize = 64;

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const MESSAGE_EXPIRY: HeaderName = HeaderName::from_static("message-expiry");

/// Why a request gets no answer: its connection is closed instead.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the request body paused for too long")]
    Silence,
    #[error("the client of a poll is gone")]
    Gone,
}

/// A body in memory, and what it takes of the budget of strangers: held until the request is answered.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) share: Option<Share>,
}

/// Why a body was not taken.
pub(crate) enum BodyError {
    TooLarge,
    /// Memory is full, or strangers send too much at a time.
    NoRoom,
    /// It ended before its announced length, or is wrongly chunked.
    Cut(hyper::Error),
    Silent,
}

/// Where a request comes from.
#[derive(Clone)]
struct Origin {
    peer: SocketAddr,
    listener: usize,
    watch: Watch,
}

impl Origin {
    fn new(caller: &Caller, watch: Watch) -> Self {
        Self { peer: caller.peer, listener: caller.listener, watch }
    }
}

/// Runs what serves the streams of a connection on the thread that serves the connection.
#[derive(Clone)]
struct OnShard(Rc<Shard>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnShard {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// How many requests of a connection are being served, and since when none is.
#[derive(Default)]
struct Activity {
    requests: Cell<usize>,
    idle_since: Cell<Option<Instant>>,
}

/// One request that is being served.
struct Busy(Rc<Activity>);

impl Activity {
    fn begin(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        Busy(Rc::clone(self))
    }

    /// Waits until nothing was asked for `idle`.
    async fn over(&self, idle: Duration) {
        let began = Instant::now();
        loop {
            let since = match self.requests.get() {
                0 => self.idle_since.get().unwrap_or(began),
                _ => Instant::now(),
            };
            if since.elapsed() >= idle {
                return;
            }
            tokio::time::sleep_until(since + idle).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.idle_since.set(Some(Instant::now()));
    }
}

impl Shared {
    /// Counts and logs a caller without trust (README D15).
    fn trust_refused(&self, client: IpAddr, route: Route) {
        self.metrics().increment(Metric::TrustRefused);
        if self.may_warn_of_distrust() {
            tracing::warn!(
                %client,
                ?route,
                "trusted route refused; add the address to trusted.allow if it is your site"
            );
        } else {
            tracing::debug!(%client, ?route, "trusted route refused");
        }
    }
}

/// What a connection of HTTP/2 begins with, by agreement (ALPN) or because its client knows (RFC 9113
/// §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether this may become the preface of HTTP/2, but is not all of it. The first part of the preface
/// alone looks like the whole head of a request.
pub(crate) fn is_half_preface(head: &[u8]) -> bool {
    head.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(head)
}

impl Shard {
    /// Serves all requests of a connection. `read`: what was read from it already. `seat`: its place
    /// among the connections of strangers.
    pub(crate) fn serve_http(
        self: &Rc<Self>,
        socket: std::net::TcpStream,
        session: Option<ServerConnection>,
        read: Bytes,
        caller: Caller,
        seat: Option<Seat>,
    ) {
        let socket = match TcpStream::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "a new connection cannot be watched");
                return;
            }
        };
        let is_http2 = read.starts_with(HTTP2_PREFACE);
        let pause = self.shared.options().timing.body;
        let stream = Stream::new(socket, session, read, pause);
        let (shard, peer) = (Rc::clone(self), caller.peer);
        self.spawn(async move {
            let _seat = seat;
            let served = if is_http2 {
                shard.serve_http2(stream, &caller).await
            } else {
                shard.serve_http1(stream, &caller).await
            };
            if let Err(error) = served {
                tracing::debug!(%error, %peer, "connection ended");
            }
        });
    }

    async fn serve_http1(self: &Rc<Self>, stream: Stream, caller: &Caller) -> hyper::Result<()> {
        let origin = Origin::new(caller, stream.watch());
        let shard = Rc::clone(self);
        let service = hyper::service::service_fn(move |request| {
            let (shard, origin) = (Rc::clone(&shard), origin.clone());
            async move { shard.handle(&origin, request).await }
        });
        let connection = {
            let options = self.shared.options();
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(options.timing.keep_alive)
                // Room to read a head that is over the limit, so that it gets the right answer.
                .max_buf_size(options.limits.request_head.saturating_mul(4).max(8192))
                .max_headers(HEADERS_MAX)
                .title_case_headers(true)
                // A publisher that closes after sending still gets its messages published;
                // polls look for themselves whether their client is there.
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
        };
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            served = connection.as_mut() => served,
            () = self.shared.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }

    /// Serves requests that share a connection. Floods of streams that are reset at once, of settings
    /// and of pings end it: hyper's own limits, which are not changed here (20 resets that wait to be
    /// taken, 1024 errors of one's own).
    async fn serve_http2(self: &Rc<Self>, stream: Stream, caller: &Caller) -> hyper::Result<()> {
        /// Requests at a time; a browser has a few polls, a publisher one request after the other.
        const STREAMS: u32 = 100;
        /// Bytes of bodies that may come before anybody reads them: of a request, of all.
        const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);
        /// A peer that answers no ping for so long is gone.
        const PING_TIMEOUT: Duration = Duration::from_secs(20);
        let origin = Origin::new(caller, Watch::by_reader());
        let activity = Rc::new(Activity::default());
        let (shard, activities) = (Rc::clone(self), Rc::clone(&activity));
        let service = hyper::service::service_fn(move |request| {
            let (shard, origin) = (Rc::clone(&shard), origin.clone());
            let busy = activities.begin();
            async move {
                let _busy = busy;
                shard.handle(&origin, request).await
            }
        });
        let (connection, idle, pause) = {
            let options = self.shared.options();
            let (idle, pause) = (options.timing.keep_alive, options.timing.body);
            let head_max = u32::try_from(options.limits.request_head).unwrap_or(u32::MAX);
            let connection = hyper::server::conn::http2::Builder::new(OnShard(Rc::clone(self)))
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(head_max)
                .initial_stream_window_size(WINDOWS.0)
                .initial_connection_window_size(WINDOWS.1)
                .keep_alive_interval(idle)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            (connection, idle, pause)
        };
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            served = connection.as_mut() => return served,
            () = self.shared.stopping.cancelled() => {}
            () = activity.over(idle) => {}
        }
        connection.as_mut().graceful_shutdown();
        // A peer that takes no answers, or none of the goodbye, keeps hyper waiting for ever.
        let patience = async {
            tokio::time::sleep(pause).await;
            activity.over(pause).await;
        };
        tokio::select! {
            served = connection => served,
            () = patience => Ok(()),
        }
    }

    async fn handle(
        self: &Rc<Self>,
        origin: &Origin,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        // A client of HTTP/1.0 reads until the connection ends. And whatever follows a
        // chunked body is not looked at: were there a length too, a proxy may have gone by that, and
        // what it takes for the body's end would be somebody's next request.
        let version = request.version();
        let is_last =
            version < Version::HTTP_11 || request.headers().contains_key(TRANSFER_ENCODING);
        let has_body = !request.body().is_end_stream();
        let mut answer = match self.oversize(&request) {
            Some(answer) => self.refuse(request, answer).await,
            None => self.answer(origin, request).await?,
        };
        if is_last {
            // Otherwise hyper adds `keep-alive` to the answers of old clients that asked for it.
            *answer.version_mut() = version;
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if has_body && answer.headers().get(CONNECTION).is_some_and(|it| it == "close") {
            origin.watch.linger();
        }
        Ok(answer)
    }

    /// The answer to a head over its limit (README D18).
    fn oversize(&self, request: &Request<Incoming>) -> Option<Answer> {
        let limit = self.shared.options().limits.request_head;
        let line = request.method().as_str().len() + target(request).len() + " HTTP/1.1\r\n".len();
        let headers = request.headers().iter();
        let headers: usize =
            headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
        if line > limit {
            return Some(respond::head_too_large(StatusCode::URI_TOO_LONG));
        }
        let is_over = line + headers > limit;
        is_over.then(|| respond::head_too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
    }

    /// Whether all is well, in a word. Always 200: whoever restarts what fails would close all connections,
    /// and without Redis they would return to no better node.
    fn health(&self) -> Answer {
        let hub = &self.shared.hub;
        let word = match (hub.engine().is_reachable(), hub.is_full()) {
            (false, _) => "ok, but redis is not connected\n",
            (true, true) => "full\n",
            (true, false) => "ok\n",
        };
        respond::answer(StatusCode::OK, respond::TEXT, word)
    }

    /// What proves to an authority of certificates that its name leads here.
    fn proof(&self, token: &str) -> Answer {
        match self.shared.options().challenges.of_request(token) {
            Some(proof) => respond::private(StatusCode::OK, respond::BINARY, String::from(proof)),
            None => respond::not_found(),
        }
    }

    async fn answer(
        self: &Rc<Self>,
        origin: &Origin,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        let is_handshake = request
            .headers()
            .get_all(CONNECTION)
            .iter()
            .any(|value| websocket::lists_upgrade(value.as_bytes()));
        let target = target(&request);
        let route = self.shared.options().listeners[origin.listener].routes.find(&target);
        // A handshake is judged by its exact path, on whatever route; but only where it would
        // be one: clients of other routes may send the header too.
        if is_handshake && request.headers().contains_key(UPGRADE) {
            return Ok(self.handshake(origin, request, &target));
        }
        let Some((route, rest)) = route else {
            return Ok(self.nowhere(origin, request, &target).await);
        };
        let client = self.client(origin.peer.ip(), &request);
        let raw_query = target.split_once('?').map_or("", |(_, query)| query);
        match (route, request.method()) {
            (Route::Subscribe, &Method::GET) => {
                // A body says nothing, but the next request of the connection comes behind it. Anybody
                // may send one, so it must not cost much.
                const BODY_MAX: usize = 8 * 1024;
                let share = self.shared.body_share(client);
                if let Err(error) = self.body(request, BODY_MAX, share).await {
                    return error.answer();
                }
                tokio::select! {
                    answer = self.poll(client, &target) => Ok(answer),
                    () = origin.watch.gone() => Err(NoAnswer::Gone),
                }
            }
            (Route::Subscribe, &Method::OPTIONS) => Ok(respond::preflight()),
            (Route::ClientPublish, &Method::POST) => {
                self.client_publish(client, raw_query, request).await
            }
            (Route::Api, &Method::POST) => self.site_request(client, raw_query, request).await,
            (Route::Module, _) => self.module(origin, client, request).await,
            (Route::Api, _) => Ok(self.refuse(request, rpc::api_not_found()).await),
            (Route::Health, &Method::GET) => Ok(self.health()),
            (Route::Challenge, &Method::GET) => Ok(self.proof(rest)),
            (Route::Publish, &Method::GET | &Method::POST)
            | (Route::ServerStat | Route::Metrics, &Method::GET) => {
                if !self.is_trusted(client, route, rest) {
                    return Ok(self.refuse(request, respond::untrusted()).await);
                }
                let publishes = request.method() == Method::POST;
                if publishes && !self.shared.may_publish(client) {
                    return Ok(self.refuse(request, respond::too_fast()).await);
                }
                self.trusted(route, raw_query, request).await
            }
            (
                Route::Subscribe
                | Route::ClientPublish
                | Route::Health
                | Route::Challenge
                | Route::Publish
                | Route::ServerStat
                | Route::Metrics,
                _,
            ) => Ok(self.refuse(request, respond::not_found()).await),
        }
    }

    /// `POST rest`.
    async fn client_publish(
        self: &Rc<Self>,
        client: IpAddr,
        raw_query: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        // Without a pair there is nothing to say but `pong` and `mack:…`.
        const WORDS_MAX: usize = 8 * 1024;
        // Before memory is spent on what a stranger sends.
        if !self.shared.may_publish(client) {
            return Ok(self.refuse(request, respond::too_fast()).await);
        }
        let Some(author) = self.shared.client_author(raw_query) else {
            let answer = self.refusal(&RequestError::PublicChannelRequired);
            return Ok(self.refuse(request, answer).await);
        };
        let max_payload = self.shared.options().limits.max_payload;
        let limit = author.map_or(WORDS_MAX.min(max_payload), |_| max_payload);
        let share = self.shared.body_share(client);
        let Body { bytes, share: _share } = match self.body(request, limit, share).await {
            Ok(body) => body,
            Err(error) => return error.answer(),
        };
        if is_text(&bytes) {
            return Ok(self.publish_text_of_client(raw_query, author, bytes).await);
        }
        match author {
            Some(author) => Ok(self.publish_client(author, &bytes).await),
            None => Ok(self.refusal(&RequestError::PublicChannelRequired)),
        }
    }

    /// `POST api`: what cannot be served is refused before its body is read, which may be large and of
    /// anybody.
    async fn site_request(
        self: &Rc<Self>,
        client: IpAddr,
        raw_query: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        if !self.shared.may_publish(client) {
            return Ok(self.refuse(request, rpc::api_unavailable()).await);
        }
        if Query::parse(raw_query).signature().is_none() {
            // Whatever the body says, it is not signed.
            let answer = self.api(raw_query, Bytes::new()).await;
            return Ok(self.refuse(request, answer).await);
        }
        let share = self.shared.body_share(client);
        if share.is_some() && self.shared.refuses_for_memory() {
            return Ok(self.refuse(request, rpc::api_unavailable()).await);
        }
        let limit = self.shared.options().limits.max_trusted_payload;
        match self.body(request, limit, share).await {
            Ok(Body { bytes, share: _share }) => Ok(self.api(raw_query, bytes).await),
            Err(BodyError::TooLarge) => Ok(rpc::api_too_large()),
            Err(BodyError::NoRoom) => Ok(respond::closing(rpc::api_unavailable())),
            Err(error) => error.answer(),
        }
    }

    /// The answer to a path that leads nowhere; a person who has typed none is led to the pages.
    async fn nowhere(&self, origin: &Origin, request: Request<Incoming>, target: &str) -> Answer {
        let is_root = target == "/" && request.method() == Method::GET;
        let has_pages = self.shared.door.is_some()
            && self.shared.options().listeners[origin.listener].routes.find("/admin/").is_some();
        let answer =
            if is_root && has_pages { respond::see("/admin/") } else { respond::not_found() };
        self.refuse(request, answer).await
    }

    /// Whether a request may use a trusted route (README D15).
    fn is_trusted(&self, client: IpAddr, route: Route, rest: &str) -> bool {
        let trust = &self.shared.options().trust;
        if trust.allows(client) || (route == Route::Publish && trust.has_secret(rest)) {
            return true;
        }
        self.shared.trust_refused(client, route);
        false
    }

    async fn trusted(
        self: &Rc<Self>,
        route: Route,
        raw_query: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        let (max_payload, max_trusted_payload) = {
            let limits = &self.shared.options().limits;
            (limits.max_payload, limits.max_trusted_payload)
        };
        if request.method() == Method::GET {
            // PHP sends the ids once more as a body: read it, so that the next request of the
            // connection is found behind it.
            if let Err(error) = self.body(request, max_payload, None).await {
                return error.answer();
            }
            return Ok(match route {
                Route::ServerStat => self.server_stat(raw_query).await,
                Route::Metrics => self.metrics_page(),
                Route::Publish
                | Route::Subscribe
                | Route::ClientPublish
                | Route::Api
                | Route::Module
                | Route::Health
                | Route::Challenge => self.presence(raw_query).await,
            });
        }
        let is_binary = Query::parse(raw_query).binary_mode();
        let limit = if is_binary { max_trusted_payload } else { max_payload };
        let expiry = request
            .headers()
            .get(MESSAGE_EXPIRY)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let body = match self.body(request, limit, None).await {
            Ok(body) => body.bytes,
            Err(error) => return error.answer(),
        };
        if is_binary {
            return Ok(self.publish_binary(body).await);
        }
        Ok(self.publish_text(TextPublish { raw_query, expiry: expiry.as_deref() }, body).await)
    }

    /// `GET /metrics`.
    fn metrics_page(&self) -> Answer {
        const PROMETHEUS: HeaderValue =
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        respond::private(StatusCode::OK, PROMETHEUS, self.shared.metrics().render())
    }

    /// The address a request really comes from.
    fn client(&self, peer: IpAddr, request: &Request<Incoming>) -> IpAddr {
        let trust = &self.shared.options().trust;
        let forwarded = request.headers().get_all(trust.forwarded.name());
        // A value that is no text names nobody, and must not be skipped over either.
        let forwarded = forwarded.iter().map(|value| value.to_str().unwrap_or("?"));
        trust.client(peer.to_canonical(), forwarded)
    }

    /// A request for the module.
    async fn module(
        self: &Rc<Self>,
        origin: &Origin,
        client: IpAddr,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        let is_encrypted = self.shared.options().listeners[origin.listener].tls.is_some()
            || self.is_encrypted_before(origin.peer.ip(), &request);
        match self.visit(origin.peer.ip(), client, is_encrypted, request).await {
            Ok(answer) => Ok(answer),
            Err(error) => error.answer(),
        }
    }

    /// Whether a known proxy says that it was reached by https.
    fn is_encrypted_before(&self, peer: IpAddr, request: &Request<Incoming>) -> bool {
        const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
        let said = request.headers().get(X_FORWARDED_PROTO);
        let is_https = said.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"https"));
        is_https && self.shared.options().trust.is_proxy(peer.to_canonical())
    }

    /// A handshake that comes as a later request of a connection, or that must be refused.
    fn handshake(
        self: &Rc<Self>,
        origin: &Origin,
        mut request: Request<Incoming>,
        target: &str,
    ) -> Answer {
        let (path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
        let accepted = websocket::HandshakeHead {
            method: request.method().as_str(),
            path,
            upgrade: header("upgrade"),
            version: header("sec-websocket-version"),
            key: header("sec-websocket-key"),
            extensions: header("sec-websocket-extensions"),
        }
        .accept(
            &self.shared.options().listeners[origin.listener].routes,
            self.shared.options().compression,
        );
        let Some(accepted) = accepted else { return respond::handshake_refused("Bad Request") };
        if self.shared.refuses_for_memory() {
            return respond::unavailable();
        }
        let client = self.client(origin.peer.ip(), &request);
        let subscription = match self.shared.handshake_subscription(raw_query) {
            Ok(subscription) => subscription,
            Err(refused) => {
                self.shared.subscription_refused(client, target, &refused);
                return respond::handshake_refused(match refused {
                    SubscriptionRefused::Channels => quirks::HANDSHAKE_REFUSAL,
                    // What the native layer of mobile clients looks for (J-057).
                    SubscriptionRefused::Token(_) => quirks::POLL_REFUSAL,
                });
            }
        };
        let upgraded = hyper::upgrade::on(&mut request);
        let shard = Rc::clone(self);
        let key = self.subscribe(&subscription, Connection::Poll(Poll::default()));
        self.spawn(async move {
            if let Some((stream, received)) = detached(upgraded).await {
                let handshake = Handshake::Answered(key);
                let socket = (stream, accepted.compression);
                shard.open_websocket(socket, client, handshake, &subscription, received);
            } else {
                tracing::debug!(%client, "connection lost at its handshake");
                shard.state.borrow_mut().subscribers.unsubscribe(key);
            }
            shard.wake();
        });
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(key) = HeaderValue::from_bytes(&accepted.key) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, key);
        }
        if accepted.compression == Compression::Deflate {
            let extension = HeaderValue::from_static(deflate::ACCEPTED_EXTENSION);
            headers.insert(http::header::SEC_WEBSOCKET_EXTENSIONS, extension);
        }
        answer
    }

    /// Reads a request body of at most `limit` bytes, with a pause of at most the body timeout. What it
    /// takes is added to `share`, unless it is of somebody trusted.
    async fn body(
        &self,
        request: Request<Incoming>,
        limit: usize,
        share: Option<Share>,
    ) -> Result<Body, BodyError> {
        let (head, body) = request.into_parts();
        self.body_behind(&head.headers, body, limit, share).await
    }

    /// Reads the body behind `headers`, as [`Shard::body`].
    pub(crate) async fn body_behind(
        &self,
        headers: &HeaderMap,
        mut body: Incoming,
        limit: usize,
        mut share: Option<Share>,
    ) -> Result<Body, BodyError> {
        let announced = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let announced = announced.unwrap_or(0);
        let refused = if announced > limit as u64 {
            Some(BodyError::TooLarge)
        } else {
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            self.has_no_memory_for(announced).then_some(BodyError::NoRoom)
        };
        if let Some(error) = refused {
            if !waits_for_consent(headers) {
                self.discard(&mut body).await;
            }
            return Err(error);
        }
        match self.gather(&mut body, limit, share.as_mut()).await {
            Ok(bytes) => Ok(Body { bytes, share }),
            Err(error) => {
                drop(share);
                if matches!(error, BodyError::TooLarge | BodyError::NoRoom) {
                    self.discard(&mut body).await;
                }
                Err(error)
            }
        }
    }

    /// Whether memory is full and a body of `bytes` would make it worse; counted. Small ones are always
    /// read: whoever takes the request knows what can still be done, and administrators may look what is
    /// the matter.
    fn has_no_memory_for(&self, bytes: usize) -> bool {
        const SMALL: usize = 8 * 1024;
        bytes > SMALL && self.shared.refuses_for_memory()
    }

    /// All of a body, unless it is too large or there is no room for it any more.
    async fn gather(
        &self,
        body: &mut Incoming,
        limit: usize,
        mut share: Option<&mut Share>,
    ) -> Result<Bytes, BodyError> {
        /// A body that never pauses for long, but never ends either, gets this many pauses.
        const PAUSES: u32 = 15;
        let mut first = Bytes::new();
        let mut gathered = BytesMut::new();
        let (pause, budget) = {
            let options = self.shared.options();
            (options.timing.body, options.limits.strangers_bodies())
        };
        let until = Instant::now() + pause.saturating_mul(PAUSES);
        while !body.is_end_stream() {
            let silent_at = until.min(Instant::now() + pause);
            let frame = tokio::time::timeout_at(silent_at, body.frame())
                .await
                .map_err(|_| BodyError::Silent)?;
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(BodyError::Cut)?.into_data() else { continue };
            let length = first.len() + gathered.len() + data.len();
            if length > limit {
                return Err(BodyError::TooLarge);
            }
            if self.has_no_memory_for(length) {
                return Err(BodyError::NoRoom);
            }
            if let Some(share) = share.as_deref_mut()
                && !share.grow(data.len(), budget)
            {
                self.shared.metrics().increment(Metric::MemoryRefused);
                return Err(BodyError::NoRoom);
            }
            // Nearly every body comes in one piece, which is then not copied.
            if first.is_empty() && gathered.is_empty() {
                first = data;
            } else {
                gathered.extend_from_slice(&std::mem::take(&mut first));
                gathered.extend_from_slice(&data);
            }
        }
        Ok(if gathered.is_empty() { first } else { gathered.freeze() })
    }

    /// Answers a request whatever its body says. A connection whose body was not read to its end is
    /// closed.
    pub(crate) async fn refuse(&self, request: Request<Incoming>, mut answer: Answer) -> Answer {
        let waits = waits_for_consent(request.headers());
        let mut body = request.into_body();
        if !waits {
            self.discard(&mut body).await;
        }
        if !body.is_end_stream() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Reads on for a moment what nobody wants: a caller that is still writing would otherwise see a
    /// reset connection instead of the answer.
    pub(crate) async fn discard(&self, body: &mut Incoming) {
        const BYTES_MAX: usize = 64 * 1024 * 1024;
        const MOMENT: Duration = Duration::from_secs(5);
        let read_on = async {
            let mut discarded = 0;
            while !body.is_end_stream()
                && discarded <= BYTES_MAX
                && let Some(Ok(frame)) = body.frame().await
            {
                discarded += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Whatever the caller does, the answer is the same.
        let _ = tokio::time::timeout(MOMENT, read_on).await;
    }
}

/// Whether a client's request is text of generation 5 instead of protobuf: JSON, or one of the words
/// that those clients send. No protobuf batch of ours begins with any of them.
fn is_text(body: &[u8]) -> bool {
    const WORDS: [&[u8]; 5] = [b"mack:", b"pong", b"ping", b"undefined", b"null"];
    let body = body.trim_ascii_start();
    matches!(body.first(), Some(b'{' | b'[')) || WORDS.iter().any(|word| body.starts_with(word))
}

/// Whether the caller sends its body only when it is told to go on. Reading the body tells
/// it; an answer without reading spares it the body.
pub(crate) fn waits_for_consent(headers: &HeaderMap) -> bool {
    headers
        .get(EXPECT)
        .is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

impl BodyError {
    fn answer(self) -> Result<Answer, NoAnswer> {
        match self {
            Self::TooLarge => Ok(respond::too_large()),
            Self::NoRoom => Ok(respond::closing(respond::unavailable())),
            Self::Cut(error) => {
                tracing::debug!(%error, "request body cut");
                Ok(respond::malformed())
            }
            Self::Silent => Err(NoAnswer::Silence),
        }
    }
}

/// The socket of a connection that hyper has let go, and what was read from it already.
async fn detached(upgraded: OnUpgrade) -> Option<(crate::stream::Stream, Vec<u8>)> {
    let parts = upgraded.await.ok()?.downcast::<TokioIo<Stream>>().ok()?;
    let mut received = parts.read_buf.to_vec();
    let (read, socket, session) = parts.io.into_inner().into_parts()?;
    received.extend_from_slice(&read);
    let socket = mio::net::TcpStream::from_std(socket.into_std().ok()?);
    Some((crate::stream::Stream::resumed(socket, session), received))
}

/// The request target as it was sent. Absolute forms keep their scheme and thus match no route
///
fn target(request: &Request<Incoming>) -> String {
    let uri = request.uri();
    // There the scheme and the host are always sent, beside the path.
    let is_whole = request.version() < Version::HTTP_2;
    if is_whole && (uri.scheme().is_some() || uri.authority().is_some()) {
        return uri.to_string();
    }
    uri.path_and_query().map_or_else(String::new, |target| target.as_str().to_owned())
}
