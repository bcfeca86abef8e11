//! Single requests to addresses that somebody has entered: what answers there, and if nothing does, at
//! which step it failed. Nothing is kept between two requests.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why a request has no answer, by the step that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It is no address.
    #[error("`{0}` is no address")]
    Address(String),
    /// The host has no address.
    #[error("the name {host} is not known: {reason}")]
    Name {
        /// The host.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// Nobody takes the connection.
    #[error("no connection to {address}: {reason}")]
    Connection {
        /// Host and port.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// The encryption failed, certificates aside.
    #[error("no TLS: {0}")]
    Encryption(String),
    /// What came back is no HTTP, or broke off.
    #[error("no answer in HTTP: {0}")]
    Answer(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Silence(Duration),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, at most 64 KiB of it.
    pub body: Bytes,
    /// Why the certificate is trusted by nobody; `None`: it is, or there is none.
    pub distrust: Option<String>,
}

/// An open WebSocket connection.
pub struct Opened {
    stream: Stream,
    received: Vec<u8>,
    within: Duration,
    /// As in [`Reply`].
    pub distrust: Option<String>,
}

/// Makes requests.
#[derive(Clone)]
pub struct Caller {
    strict: Arc<rustls::ClientConfig>,
    credulous: Arc<rustls::ClientConfig>,
    within: Duration,
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Takes every certificate, to go on behind one that is not trusted. Used where nothing secret is sent and
/// the distrust is reported.
#[derive(Debug)]
struct Credulous(rustls::crypto::CryptoProvider);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// An address taken apart.
struct Target {
    host: String,
    port: u16,
    is_encrypted: bool,
    authority: String,
    path: String,
}

impl Target {
    fn of(address: &str) -> Result<Self, CallError> {
        let wrong = || CallError::Address(address.to_owned());
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let is_encrypted = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?.as_str().to_owned();
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
        Ok(Self { host, port, is_encrypted, authority, path })
    }
}

impl Caller {
    const BODY_BYTES_MAX: usize = 64 * 1024;
    const HEAD_BYTES_MAX: usize = 16 * 1024;

    /// A caller that waits so long for each answer.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(within: Duration) -> Result<Self, rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let credulous = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous(provider)))
            .with_no_client_auth();
        let strict = crate::server::public_authorities()?;
        Ok(Self { strict, credulous: Arc::new(credulous), within })
    }

    /// Sends a request and reads the answer. A certificate that nobody trusts is reported with it.
    ///
    /// # Errors
    /// Names the step that failed.
    pub async fn send(
        &self,
        method: Method,
        address: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Reply, CallError> {
        let asking = self.ask(method, address, headers, body);
        tokio::time::timeout(self.within, asking)
            .await
            .unwrap_or(Err(CallError::Silence(self.within)))
    }

    async fn ask(
        &self,
        method: Method,
        address: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Reply, CallError> {
        let target = Target::of(address)?;
        let (stream, distrust) = self.connect(&target).await?;
        let failed = |error: hyper::Error| CallError::Answer(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() =
            target.path.parse().map_err(|_| CallError::Address(address.to_owned()))?;
        let host = HeaderValue::from_str(&target.authority)
            .map_err(|_| CallError::Address(address.to_owned()))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        for (name, value) in headers {
            request.headers_mut().insert(name, value.clone());
        }
        let asking = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, Self::BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| CallError::Answer(error.to_string()))?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body, distrust })
        };
        let mut asking = std::pin::pin!(asking);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            answer = &mut asking => answer,
            // It has been served to its end; what was read is being taken.
            _ = &mut connection => asking.await,
        }
    }

    /// Opens a WebSocket connection.
    ///
    /// # Errors
    /// Names the step that failed; `Answer` holds the status when it is not 101.
    pub async fn open_websocket(&self, address: &str) -> Result<Opened, CallError> {
        let opening = self.handshake(address);
        tokio::time::timeout(self.within, opening)
            .await
            .unwrap_or(Err(CallError::Silence(self.within)))
    }

    async fn handshake(&self, address: &str) -> Result<Opened, CallError> {
        let target = Target::of(address)?;
        let (mut stream, distrust) = self.connect(&target).await?;
        let scheme = if target.is_encrypted { "https" } else { "http" };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dmVzdG5payBjaGVja3Mgbm8=\r\nOrigin: {scheme}://{authority}\r\n\r\n",
            target.path,
            authority = target.authority,
        );
        let broken = |error: io::Error| CallError::Answer(error.to_string());
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        let mut received = Vec::new();
        let end = loop {
            if let Some(at) = find(&received, b"\r\n\r\n") {
                break at;
            }
            let read = stream.read_buf(&mut received).await.map_err(broken)?;
            if read == 0 || received.len() > Self::HEAD_BYTES_MAX {
                return Err(CallError::Answer("the head of the answer broke off".to_owned()));
            }
        };
        let line = String::from_utf8_lossy(&received[..end]);
        let line = line.lines().next().unwrap_or_default().to_owned();
        if line.split(' ').nth(1) != Some("101") {
            return Err(CallError::Answer(format!("no WebSocket: `{line}`")));
        }
        let rest = received.split_off(end + 4);
        Ok(Opened { stream, received: rest, within: self.within, distrust })
    }

    async fn connect(&self, target: &Target) -> Result<(Stream, Option<String>), CallError> {
        let stream = dial(target).await?;
        if !target.is_encrypted {
            return Ok((Stream::Plain(stream), None));
        }
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| CallError::Address(target.host.clone()))?;
        let strict = TlsConnector::from(Arc::clone(&self.strict));
        let error = match strict.connect(name.clone(), stream).await {
            Ok(stream) => return Ok((Stream::Encrypted(Box::new(stream)), None)),
            Err(error) => error,
        };
        let is_distrust = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>())
            .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
        if !is_distrust {
            return Err(CallError::Encryption(error.to_string()));
        }
        let credulous = TlsConnector::from(Arc::clone(&self.credulous));
        let stream = credulous.connect(name, dial(target).await?).await;
        let stream = stream.map_err(|error| CallError::Encryption(error.to_string()))?;
        Ok((Stream::Encrypted(Box::new(stream)), Some(error.to_string())))
    }
}

async fn dial(target: &Target) -> Result<TcpStream, CallError> {
    let at = (target.host.as_str(), target.port);
    let addresses = tokio::net::lookup_host(at).await.map_err(|error| CallError::Name {
        host: target.host.clone(),
        reason: error.to_string(),
    })?;
    let addresses: Vec<_> = addresses.collect();
    let stream = TcpStream::connect(addresses.as_slice()).await;
    let stream = stream.map_err(|error| CallError::Connection {
        address: format!("{}:{}", target.host, target.port),
        reason: error.to_string(),
    })?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

impl Opened {
    /// Waits until `text` has come in a message.
    ///
    /// # Errors
    /// When it does not, or the connection ends.
    pub async fn wait_for(&mut self, text: &str) -> Result<(), CallError> {
        const BYTES_MAX: usize = 64 * 1024;
        let waiting = async {
            loop {
                if find(&self.received, text.as_bytes()).is_some() {
                    return Ok(());
                }
                let read = self.stream.read_buf(&mut self.received).await;
                let read = read.map_err(|error| CallError::Answer(error.to_string()))?;
                if read == 0 || self.received.len() > BYTES_MAX {
                    return Err(CallError::Answer("the connection was closed".to_owned()));
                }
            }
        };
        let within = self.within;
        tokio::time::timeout(within, waiting).await.unwrap_or(Err(CallError::Silence(within)))
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    async fn answering(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        #[expect(clippy::disallowed_methods, reason = "a test")]
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        (address, served)
    }

    #[tokio::test]
    async fn an_answer_is_read_whole() {
        let (address, served) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
        let caller = Caller::new(WITHIN).unwrap();
        let address = format!("http://{address}/a/?b=1");
        let reply = caller.send(Method::POST, &address, &[], Bytes::from("x")).await.unwrap();
        assert_eq!((reply.status.as_u16(), &*reply.body), (200, &b"hi"[..]));
        let request = served.await.unwrap();
        assert!(request.starts_with("POST /a/?b=1 HTTP/1.1\r\n"), "{request}");
    }

    #[tokio::test]
    async fn a_message_of_a_websocket_is_waited_for() {
        let answer = "HTTP/1.1 101 Switching Protocols\r\n\r\n\u{1}\u{5}probe";
        let (address, served) = answering(answer).await;
        let caller = Caller::new(WITHIN).unwrap();
        let mut opened = caller.open_websocket(&format!("ws://{address}/s/")).await.unwrap();
        opened.wait_for("probe").await.unwrap();
        served.await.unwrap();
        assert!(matches!(opened.wait_for("more").await, Err(CallError::Answer(_))));
    }

    #[tokio::test]
    async fn the_step_that_failed_is_named() {
        let caller = Caller::new(Duration::from_millis(200)).unwrap();
        let get = async |address: &str| {
            caller.send(Method::GET, address, &[], Bytes::new()).await.unwrap_err()
        };
        assert!(matches!(get("nonsense").await, CallError::Address(_)));
        assert!(matches!(get("ftp://127.0.0.1/").await, CallError::Address(_)));
        assert!(matches!(get("http://127.0.0.1:1/").await, CallError::Connection { .. }));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", silent.local_addr().unwrap());
        assert!(matches!(get(&address).await, CallError::Silence(_)));
        let (address, _served) = answering("SSH-2.0-OpenSSH\r\n\r\n").await;
        assert!(matches!(get(&format!("http://{address}/")).await, CallError::Answer(_)));
        let (address, _served) = answering("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let refused = caller.open_websocket(&format!("ws://{address}/")).await;
        assert!(matches!(refused, Err(CallError::Answer(text)) if text.contains("400")));
    }
}
