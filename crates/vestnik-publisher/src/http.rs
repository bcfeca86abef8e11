//! One server over HTTP/1.1: connections that are kept, bounded answers, and whether a request was sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No byte of it was sent.
    #[error("{0}")]
    Unsent(String),
    /// It was sent, at least in part.
    #[error("{0}")]
    Unanswered(String),
}

/// An answer read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

/// The connection is served only while a request uses it, so it needs no task.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    served: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    idle_since: Instant,
}

/// Requests to one server: all of them have the same host.
pub struct Client {
    tls: Arc<rustls::ClientConfig>,
    connect_within: Duration,
    answer_within: Duration,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Client {
    /// Requests at a time; as many connections are kept.
    const AT_ONCE: usize = 8;
    /// Shorter than what servers allow, lest one closes while a request is under way.
    const KEPT_FOR: Duration = Duration::from_secs(3);
    const ANSWER_BYTES_MAX: usize = 4 << 20;

    /// A client that trusts whom `tls` says.
    #[must_use]
    pub fn new(
        tls: Arc<rustls::ClientConfig>,
        connect_within: Duration,
        answer_within: Duration,
    ) -> Self {
        let idle = Mutex::default();
        Self { tls, connect_within, answer_within, idle, places: Semaphore::new(Self::AT_ONCE) }
    }

    /// Sends a request with its whole address and waits for the whole answer. Never sends one twice.
    ///
    /// # Errors
    /// When there is no answer; the failure tells whether the request was sent.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let unsent = |error: &dyn std::fmt::Display| Failure::Unsent(error.to_string());
        let _place = self.places.acquire().await.map_err(|error| unsent(&error))?;
        let (mut request, address) = addressed(request)?;
        // A kept connection that turns out to be closed hands the request back.
        while let Some(connection) = self.kept() {
            match self.exchange(connection, request).await {
                Err((Failure::Unsent(_), Some(back))) => request = *back,
                other => return other.map_err(|(failure, _)| failure),
            }
        }
        let connecting = tokio::time::timeout(self.connect_within, self.connect(&address)).await;
        let connection = connecting
            .map_err(|_| {
                Failure::Unsent(format!("no connection within {:?}", self.connect_within))
            })?
            .map_err(Failure::Unsent)?;
        self.exchange(connection, request).await.map_err(|(failure, _)| failure)
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.idle_since.elapsed() < Self::KEPT_FOR);
        idle.pop()
    }

    async fn connect(&self, address: &Address) -> Result<Connection, String> {
        let stream = TcpStream::connect((&*address.host, address.port)).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if !address.is_tls {
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            let served = Box::pin(connection);
            return Ok(Connection { sender, served, idle_since: Instant::now() });
        }
        let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("no TLS: {error}"))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        Ok(Connection { sender, served: Box::pin(connection), idle_since: Instant::now() })
    }

    async fn exchange(
        &self,
        connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, (Failure, Option<Box<Request<Full<Bytes>>>>)> {
        let Connection { mut sender, mut served, .. } = connection;
        let mut is_over = false;
        let answer = {
            let asking = ask(&mut sender, request);
            let mut asking = std::pin::pin!(tokio::time::timeout(self.answer_within, asking));
            tokio::select! {
                biased;
                _ = &mut served => {
                    is_over = true;
                    // As long as it is there, even ended, a request that it did not take waits in it.
                    served = Box::pin(std::future::pending());
                    asking.await
                }
                answer = &mut asking => answer,
            }
        };
        let answer = answer.unwrap_or_else(|_| {
            let text = format!("no answer within {:?}", self.answer_within);
            Err((Failure::Unanswered(text), None))
        })?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_over && !sender.is_closed() && idle.len() < Self::AT_ONCE {
            idle.push(Connection { sender, served, idle_since: Instant::now() });
        }
        Ok(answer)
    }
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, (Failure, Option<Box<Request<Full<Bytes>>>>)> {
    if let Err(error) = sender.ready().await {
        return Err((Failure::Unsent(error.to_string()), Some(Box::new(request))));
    }
    let answer = sender.try_send_request(request).await.map_err(|mut error| {
        let back = error.take_message().map(Box::new);
        let text = error.into_error().to_string();
        let is_sent = back.is_none();
        (if is_sent { Failure::Unanswered(text) } else { Failure::Unsent(text) }, back)
    })?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, Client::ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| (Failure::Unanswered(error.to_string()), None))?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

struct Address {
    host: String,
    port: u16,
    is_tls: bool,
}

/// The request as it is sent over a connection, and where to.
fn addressed(request: Request<Full<Bytes>>) -> Result<(Request<Full<Bytes>>, Address), Failure> {
    let unsent = |text: &str| Failure::Unsent(text.to_owned());
    let (mut head, body) = request.into_parts();
    let is_tls = head.uri.scheme_str() == Some("https");
    let host = head.uri.host().ok_or_else(|| unsent("the address names no host"))?;
    let port = head.uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let authority =
        head.uri.port_u16().map_or_else(|| host.to_owned(), |it| format!("{host}:{it}"));
    let host = host.trim_matches(['[', ']']).to_owned();
    let value = authority.parse().map_err(|_| unsent("the host cannot be written in a header"))?;
    head.headers.insert(HOST, value);
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    head.uri = target.parse::<Uri>().map_err(|error| Failure::Unsent(error.to_string()))?;
    Ok((Request::from_parts(head, body), Address { host, port, is_tls }))
}
