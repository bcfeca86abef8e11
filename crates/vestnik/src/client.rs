//! A small client for the commands: one HTTP request, or a WebSocket connection.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::failure::Failure;

/// A server's answer may take this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address without TLS: `http://host:port/path` or `ws://…`.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    host: String,
    port: u16,
    /// Path with query.
    pub(crate) target: String,
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|error| format!("no address: {error}"))?;
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => {
                return Err("this command speaks no TLS yet; give the http:// address behind the \
                            proxy"
                    .to_owned());
            }
            _ => return Err("an address begins with http:// or ws://".to_owned()),
        }
        let host = uri.host().ok_or("the address names no host")?.to_owned();
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), target })
    }
}

impl Address {
    /// The target with `parameters` added to its query; values must need no escaping.
    pub(crate) fn with(&self, parameters: &[(&str, &str)]) -> String {
        let mut target = self.target.clone();
        for (name, value) in parameters {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{name}={value}"));
        }
        target
    }

    /// The first address of the host.
    pub(crate) fn resolve(&self) -> anyhow::Result<std::net::SocketAddr> {
        use std::net::ToSocketAddrs as _;
        let host = self.host.trim_matches(['[', ']']);
        let mut addresses = (host, self.port).to_socket_addrs().map_err(|error| {
            Failure::new(format!("cannot find {host}: {error}"), "check the address for a slip")
        })?;
        addresses.next().context("the host has no address")
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Connects and starts HTTP.
    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let address = self.resolve()?;
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(|error| {
            Failure::new(
                format!("cannot connect to {}: {error}", self.authority()),
                "is the server running? `vestnik serve` prints its addresses",
            )
        })?;
        stream.set_nodelay(true).context("cannot set up the connection")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        #[expect(clippy::disallowed_methods, reason = "a command ends with its connection")]
        tokio::spawn(async move {
            // What goes wrong here is what the request reports.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// Sends one request for `target` and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut sender = self.connect().await?;
        let request: Request<Full<Bytes>> =
            request.header(HOST, self.authority()).body(Full::new(body))?;
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| {
                Failure::new(
                    format!("{} did not answer within {PATIENCE:?}", self.authority()),
                    "is something else than vestnik listening there?",
                )
            })?
            .context("the request failed")
    }
}

/// The body of an answer, for messages to the user: at most a few kilobytes.
pub(crate) async fn short_body(answer: Response<Incoming>) -> String {
    const BYTES_MAX: usize = 4096;
    let body = http_body_util::Limited::new(answer.into_body(), BYTES_MAX).collect().await;
    body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default()
}

/// Runs a command that waits for the network.
pub(crate) fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot use the network")?
        .block_on(command)
}
