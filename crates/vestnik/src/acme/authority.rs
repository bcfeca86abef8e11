//! How an authority is spoken to: HTTPS, one connection for each request.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A request and its answer take at most this long.
const WITHIN: Duration = Duration::from_secs(30);
/// Bytes of an answer; a chain of certificates has a few thousand.
const ANSWER_MAX: usize = 1 << 20;

/// A client that trusts the public authorities, or others instead.
pub(super) struct Https(TlsConnector);

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

impl Https {
    /// `trusted`: whose certificates are believed; `None`: the public authorities'.
    pub(super) fn new(trusted: Option<&[CertificateDer<'static>]>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        match trusted {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(certificates) => {
                for certificate in certificates {
                    roots.add(certificate.clone())?;
                }
            }
        }
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let connector = self.0.clone();
        Box::pin(async move {
            let uri = request.uri().clone();
            let answered = tokio::time::timeout(WITHIN, exchange(&connector, request)).await;
            let answer = answered.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")));
            let host = uri.host().unwrap_or("?").to_owned();
            answer
                .map(BytesResponse::from)
                .map_err(|text| Error::Other(Box::new(Unanswered(format!("{host}: {text}")))))
        })
    }
}

async fn exchange(
    connector: &TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Full<Bytes>>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let uri = std::mem::take(request.uri_mut());
    if uri.scheme_str() != Some("https") {
        return Err(format!("the authority leads to {uri}, which is not encrypted"));
    }
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return Err("the address names no host".to_owned());
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    let value = HeaderValue::from_str(authority.as_str()).map_err(|error| said(&error))?;
    request.headers_mut().insert(HOST, value);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = target.parse::<Uri>().map_err(|error| said(&error))?;
    let stream = TcpStream::connect((&*host, uri.port_u16().unwrap_or(443))).await;
    let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
    let name = ServerName::try_from(host).map_err(|error| said(&error))?;
    let stream = connector.connect(name, stream).await;
    let stream = stream.map_err(|error| format!("no TLS: {error}"))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    let answering = async {
        let (head, body) =
            sender.send_request(request).await.map_err(|error| said(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map_err(|error| said(&error))?.to_bytes();
        Ok(Response::from_parts(head, Full::new(body)))
    };
    let (mut answering, mut connection) = (std::pin::pin!(answering), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut answering => answer,
        // What was read before the connection ended may still be the answer.
        _ = &mut connection => answering.await,
    }
}
