//! Requests that are not the opening of a WebSocket connection: one hyper connection each, its
//! service, and the way from a request to its handler.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use vestnik_proto::quirks;

use crate::publish::TextPublish;
use crate::respond::{self, Answer};
use crate::route::Route;
use crate::shard::Shard;
use crate::transport::websocket;

/// The most header lines of a request.
pub(crate) const HEADERS_MAX: usize = 64;

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const MESSAGE_EXPIRY: HeaderName = HeaderName::from_static("message-expiry");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Writes the spaces inside a request target as `%20`: mobile and old clients send
/// `time=Thu, 01 Jan …` raw (K-004). Looks at the first line only.
pub(crate) fn escape_target(head: &mut Vec<u8>) {
    let line_end = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    let line = &head[..line_end];
    let Some(first) = line.iter().position(|byte| *byte == b' ') else { return };
    let Some(last) = line.iter().rposition(|byte| *byte == b' ') else { return };
    // Without a version at the end the last space belongs to the target: leave it to the parser.
    if !line[last..].starts_with(b" HTTP/") || !line[first + 1..last].contains(&b' ') {
        return;
    }
    let mut escaped = Vec::with_capacity(head.len() + 16);
    escaped.extend_from_slice(&line[..=first]);
    for byte in &line[first + 1..last] {
        match byte {
            b' ' => escaped.extend_from_slice(b"%20"),
            byte => escaped.push(*byte),
        }
    }
    escaped.extend_from_slice(&head[last..]);
    *head = escaped;
}

/// A stream some bytes of which were read already.
struct Rewound {
    read: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let length = self.read.len().min(into.remaining());
        into.put_slice(&self.read[..length]);
        self.read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Why a request gets no answer: its connection is closed instead.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the request body paused for too long")]
    Silence,
    #[error("the request body ended early")]
    Cut(#[source] hyper::Error),
}

/// Why a body was not taken.
enum BodyError {
    TooLarge,
    Lost(NoAnswer),
}

/// Where a request comes from.
#[derive(Clone, Copy)]
struct Origin {
    peer: SocketAddr,
    listener: usize,
}

impl Shard {
    /// Serves all requests of a connection. `read`: what was read from it already.
    pub(crate) fn serve_http(
        self: &Rc<Self>,
        stream: std::net::TcpStream,
        read: Bytes,
        peer: SocketAddr,
        listener: usize,
    ) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "a new connection cannot be watched");
                return;
            }
        };
        let origin = Origin { peer, listener };
        let shard = Rc::clone(self);
        let service = hyper::service::service_fn(move |request| {
            let shard = Rc::clone(&shard);
            async move { shard.handle(origin, request).await }
        });
        let options = &self.shared.options;
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.timing.keep_alive)
            .max_buf_size(options.limits.request_head.max(8192))
            .max_headers(HEADERS_MAX)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(Rewound { read, stream }), service)
            .with_upgrades();
        let stopping = self.shared.stopping.clone();
        self.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, peer = %origin.peer, "connection ended");
            }
        });
    }

    async fn handle(
        self: &Rc<Self>,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        let is_old = request.version() < Version::HTTP_11;
        let mut answer = self.answer(origin, request).await?;
        if is_old {
            // Its client reads until the connection ends.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(answer)
    }

    async fn answer(
        self: &Rc<Self>,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        let is_handshake = request
            .headers()
            .get_all(CONNECTION)
            .iter()
            .any(|value| websocket::lists_upgrade(value.as_bytes()));
        let target = target(&request);
        let routes = &self.shared.options.listeners[origin.listener].routes;
        let route = routes.find(&target);
        // A handshake is judged by its exact path, on whatever route; but only where it would
        // be one: clients of other routes may send the header too.
        if is_handshake && request.headers().contains_key(UPGRADE) {
            return Ok(self.handshake(origin, request, &target));
        }
        let Some((route, rest)) = route else { return Ok(respond::not_found()) };
        let client = self.client(origin.peer.ip(), &request);
        let raw_query = target.split_once('?').map_or("", |(_, query)| query);
        match (route, request.method()) {
            (Route::Subscribe, &Method::GET) => Ok(self.poll(client, &target).await),
            (Route::Subscribe, &Method::OPTIONS) => Ok(respond::preflight()),
            (Route::ClientPublish, &Method::POST) => {
                let limit = self.shared.options.limits.max_payload;
                let body = match self.body(request, limit).await {
                    Ok(body) => body,
                    Err(error) => return error.answer(),
                };
                Ok(self.publish_client(raw_query, body).await)
            }
            (Route::Health, &Method::GET) => {
                Ok(respond::answer(StatusCode::OK, respond::TEXT, "ok\n"))
            }
            (Route::Publish, &Method::GET | &Method::POST)
            | (Route::ServerStat | Route::Metrics, &Method::GET) => {
                if !self.is_trusted(client, route, rest) {
                    return Ok(respond::untrusted());
                }
                self.trusted(route, raw_query, request).await
            }
            (
                Route::Subscribe
                | Route::ClientPublish
                | Route::Health
                | Route::Publish
                | Route::ServerStat
                | Route::Metrics,
                _,
            ) => Ok(respond::not_found()),
        }
    }

    /// Whether a request may use a trusted route (README D15).
    fn is_trusted(&self, client: IpAddr, route: Route, rest: &str) -> bool {
        let trust = &self.shared.options.trust;
        if trust.allows(client) || (route == Route::Publish && trust.has_secret(rest)) {
            return true;
        }
        self.shared.metrics().increment(vestnik_core::metric::Metric::TrustRefused);
        tracing::warn!(
            %client,
            ?route,
            "trusted route refused; add the address to trusted.allow if it is your site"
        );
        false
    }

    async fn trusted(
        self: &Rc<Self>,
        route: Route,
        raw_query: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, NoAnswer> {
        let limits = &self.shared.options.limits;
        if request.method() == Method::GET {
            // PHP sends the ids once more as a body: read it, so that the next request of the
            // connection is found behind it.
            if let Err(error) = self.body(request, limits.max_payload).await {
                return error.answer();
            }
            return Ok(match route {
                Route::ServerStat => self.server_stat(raw_query),
                Route::Metrics => self.metrics_page(),
                Route::Publish | Route::Subscribe | Route::ClientPublish | Route::Health => {
                    self.presence(raw_query)
                }
            });
        }
        let is_binary = vestnik_proto::query::Query::parse(raw_query).binary_mode();
        let limit = if is_binary { limits.max_trusted_payload } else { limits.max_payload };
        let expiry = request
            .headers()
            .get(MESSAGE_EXPIRY)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let body = match self.body(request, limit).await {
            Ok(body) => body,
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
        respond::answer(StatusCode::OK, PROMETHEUS, self.shared.metrics().render())
    }

    /// The address a request really comes from.
    fn client(&self, peer: IpAddr, request: &Request<Incoming>) -> IpAddr {
        let forwarded = request.headers().get_all(X_FORWARDED_FOR);
        // A value that is no text names nobody, and must not be skipped over either.
        let forwarded = forwarded.iter().map(|value| value.to_str().unwrap_or("?"));
        self.shared.options.trust.client(peer.to_canonical(), forwarded)
    }

    /// A handshake that comes as a later request of a connection, or that must be refused.
    fn handshake(
        self: &Rc<Self>,
        origin: Origin,
        mut request: Request<Incoming>,
        target: &str,
    ) -> Answer {
        let (path, raw_query) = target.split_once('?').unwrap_or((target, ""));
        let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
        let accept = websocket::HandshakeHead {
            method: request.method().as_str(),
            path,
            upgrade: header("upgrade"),
            version: header("sec-websocket-version"),
            key: header("sec-websocket-key"),
        }
        .accept(&self.shared.options.listeners[origin.listener].routes);
        let Some(accept) = accept else { return respond::handshake_refused("Bad Request") };
        let client = self.client(origin.peer.ip(), &request);
        let Ok(subscription) = self.shared.subscription(raw_query) else {
            self.shared.subscription_refused(client, target);
            return respond::handshake_refused(quirks::HANDSHAKE_REFUSAL);
        };
        let upgraded = hyper::upgrade::on(&mut request);
        let shard = Rc::clone(self);
        self.spawn(async move {
            let stream = match upgraded.await.map(|io| io.downcast::<TokioIo<Rewound>>()) {
                Ok(Ok(parts)) => parts,
                Ok(Err(_)) | Err(_) => return,
            };
            let mut received = stream.read_buf.to_vec();
            let Rewound { read, stream } = stream.io.into_inner();
            received.extend_from_slice(&read);
            match stream.into_std() {
                Ok(stream) => {
                    let stream = mio::net::TcpStream::from_std(stream);
                    shard.open_websocket(stream, client, None, &subscription, received);
                    shard.wake();
                }
                Err(error) => tracing::debug!(%error, "connection lost at its handshake"),
            }
        });
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = HeaderValue::from_bytes(&accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        answer
    }

    /// Reads a request body of at most `limit` bytes, with a pause of at most the body timeout.
    async fn body(&self, request: Request<Incoming>, limit: usize) -> Result<Bytes, BodyError> {
        let announced = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let mut body = request.into_body();
        let is_over = |length: usize| length > limit;
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(self.discard(body).await);
        }
        let mut first = Bytes::new();
        let mut gathered = BytesMut::new();
        let pause = self.shared.options.timing.body;
        while !body.is_end_stream() {
            let frame = tokio::time::timeout(pause, body.frame())
                .await
                .map_err(|_| BodyError::Lost(NoAnswer::Silence))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| BodyError::Lost(NoAnswer::Cut(error)))?;
            let Ok(data) = frame.into_data() else { continue };
            if is_over(first.len() + gathered.len() + data.len()) {
                return Err(self.discard(body).await);
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

    /// Reads on for a moment after a body turned out too large: a caller that is still writing would
    /// otherwise see a reset connection instead of the answer.
    async fn discard(&self, mut body: Incoming) -> BodyError {
        const BYTES_MAX: usize = 64 * 1024 * 1024;
        const MOMENT: Duration = Duration::from_secs(5);
        let read_on = async {
            let mut discarded = 0;
            while let Some(Ok(frame)) = body.frame().await {
                discarded += frame.data_ref().map_or(0, Bytes::len);
                if discarded > BYTES_MAX {
                    break;
                }
            }
        };
        // Whatever the caller does, the answer is the same.
        let _ = tokio::time::timeout(MOMENT, read_on).await;
        BodyError::TooLarge
    }
}

impl BodyError {
    fn answer(self) -> Result<Answer, NoAnswer> {
        match self {
            Self::TooLarge => Ok(respond::too_large()),
            Self::Lost(error) => Err(error),
        }
    }
}

/// The request target as it was sent. Absolute forms keep their scheme and thus match no route
///
fn target(request: &Request<Incoming>) -> String {
    let uri = request.uri();
    if uri.scheme().is_some() || uri.authority().is_some() {
        return uri.to_string();
    }
    uri.path_and_query().map_or_else(String::new, |target| target.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_004_raw_spaces_in_a_target_are_escaped() {
        let escaped = |head: &str| {
            let mut head = head.as_bytes().to_vec();
            escape_target(&mut head);
            String::from_utf8(head).unwrap()
        };
        assert_eq!(
            escaped("GET /sub/?time=Thu, 01 Jan&x=1 HTTP/1.1\r\nHost: a b\r\n\r\n"),
            "GET /sub/?time=Thu,%2001%20Jan&x=1 HTTP/1.1\r\nHost: a b\r\n\r\n",
        );
        for same in ["GET / HTTP/1.1\r\n\r\n", "GET /a b", "GET", "", "\r\n", "GET  HTTP/1.1\n\n"] {
            assert_eq!(escaped(same), same);
        }
    }
}
