//! One queue server and how events are sent to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use vestnik_core::publisher::{
    AskError, BoxFuture, EVENTS_MAX, Listeners, ModuleEvent, PublishError, Publisher,
};
use vestnik_core::sign::Key;
use vestnik_core::{ChannelId, Clock, UserId};
use vestnik_proto::publisher::{self, BatchLimits};

use crate::breaker::{Breaker, BreakerEvent};
use crate::http::{Answer, Client, Failure};

/// What the server understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Generations 1 to 3, and 4 without protobuf: so many channels in a request, 1 for generation 1.
    Text(usize),
    /// Generation 4; in the cloud with the public hash of the licence.
    Protobuf(Option<String>),
    /// Generation 5, for the site of this `hostId`.
    JsonRpc(String),
}

/// A server, from options that a module has.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it takes events: `path_to_publish` or `path_to_json_rpc`, `#DOMAIN#` replaced.
    pub url: String,
    /// What it understands.
    pub protocol: Protocol,
    /// The site's host name, told to the server.
    pub hostname: String,
    /// What requests of generation 5 and of the cloud are signed with.
    pub key: Option<Key>,
    /// Bounds of a request.
    pub limits: BatchLimits,
    /// How long connecting may take.
    pub connect_within: Duration,
    /// How long a whole answer may take.
    pub answer_within: Duration,
    /// Whom to trust over TLS; `None`: the public authorities.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// Options that make no server.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// No address.
    #[error("{0:?} is no address that begins with http:// or https://")]
    Url(String),
    /// Nothing to sign with.
    #[error("this kind of server needs a signature key")]
    NoKey,
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Publishes to a server over HTTP. Its futures need a tokio runtime with timers and network; keep it on
/// one runtime, which its connections belong to.
pub struct RemotePublisher {
    options: Options,
    client: Client,
    breaker: Breaker,
    clock: Clock,
    tell: Box<dyn Fn(BreakerEvent) + Send + Sync>,
}

type Outcomes = Vec<Option<Result<(), PublishError>>>;

impl RemotePublisher {
    /// A publisher; `tell` hears when the breaker opens and closes, and must not block.
    ///
    /// # Errors
    /// When the options do not fit together.
    pub fn new(
        options: Options,
        breaker: Breaker,
        clock: Clock,
        tell: Box<dyn Fn(BreakerEvent) + Send + Sync>,
    ) -> Result<Self, OptionsError> {
        let uri: Option<Uri> = options.url.parse().ok();
        let is_http = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        if !uri.is_some_and(|uri| is_http(&uri) && uri.host().is_some()) {
            return Err(OptionsError::Url(options.url));
        }
        let needs_key =
            matches!(options.protocol, Protocol::JsonRpc(_) | Protocol::Protobuf(Some(_)));
        if needs_key && options.key.is_none() {
            return Err(OptionsError::NoKey);
        }
        let tls = match &options.tls {
            Some(tls) => Arc::clone(tls),
            None => public_authorities()?,
        };
        let client = Client::new(tls, options.connect_within, options.answer_within);
        Ok(Self { options, client, breaker, clock, tell })
    }

    /// The breaker, whose state outlives the process.
    #[must_use]
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        expiry: u32,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let (may_send, event) = self.breaker.ask(self.clock.unix_s());
        if let Some(event) = event {
            (self.tell)(event);
        }
        if !may_send {
            return Err(Failure::Unsent("sending is stopped after many errors".to_owned()));
        }
        let mut request = Request::builder().method(method).uri(url);
        if expiry > 0 {
            request = request.header("Message-Expiry", expiry);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| Failure::Unsent(error.to_string()))?;
        let answer = self.client.send(request).await;
        if let Err(failure) = &answer {
            self.breaker.failed(self.clock.unix_s());
            tracing::warn!(error = ?failure, "queue server did not answer");
        }
        answer
    }

    /// The address of a request with a batch as its body.
    fn batch_url(&self, body: &[u8]) -> String {
        let Options { url, hostname, key, protocol, .. } = &self.options;
        match (protocol, key) {
            (Protocol::JsonRpc(host_id), Some(key)) => {
                publisher::json_rpc_url(url, host_id, hostname, key, body)
            }
            (Protocol::Protobuf(Some(client)), Some(key)) => {
                publisher::protobuf_url(url, Some((client, key)), hostname, body)
            }
            // `new` saw that there is a key where one is needed.
            _ => publisher::protobuf_url(url, None, hostname, body),
        }
    }

    async fn publish_all(&self, events: &[ModuleEvent]) -> Vec<Result<(), PublishError>> {
        let taken = &events[..events.len().min(EVENTS_MAX)];
        let mut outcomes: Outcomes = vec![None; taken.len()];
        let limits = self.options.limits;
        match &self.options.protocol {
            Protocol::Text(per_request) => {
                let plan = publisher::text(taken, *per_request, limits.bytes);
                refuse(&mut outcomes, &plan.refused);
                let requests = plan.requests.into_iter().map(|request| {
                    let list = [("CHANNEL_ID", &*request.channels)];
                    let url = publisher::with_parameters(&self.options.url, &list);
                    (url, request.expiry.seconds(), request.body, vec![request.event])
                });
                self.send_all(requests, &mut outcomes).await;
            }
            Protocol::Protobuf(_) | Protocol::JsonRpc(_) => {
                let plan = match self.options.protocol {
                    Protocol::JsonRpc(_) => publisher::json_rpc(taken, limits.bytes),
                    Protocol::Text(_) | Protocol::Protobuf(_) => publisher::protobuf(taken, limits),
                };
                refuse(&mut outcomes, &plan.refused);
                let requests = plan.requests.into_iter().map(|request| {
                    (self.batch_url(&request.body), 0, request.body, request.events)
                });
                self.send_all(requests, &mut outcomes).await;
            }
        }
        let unsent = |text: &'static str| Err(PublishError::Unpublished(text.into()));
        let beyond = events[taken.len()..].iter().map(|_| unsent("too many events at once"));
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| unsent("an earlier request had no answer")))
            .chain(beyond)
            .collect()
    }

    /// Sends requests until one has no answer: those after it could only overtake it.
    async fn send_all(
        &self,
        requests: impl Iterator<Item = (String, u32, Bytes, Vec<usize>)>,
        outcomes: &mut Outcomes,
    ) {
        let mut is_broken = false;
        for (url, expiry, body, events) in requests {
            let outcome = if is_broken {
                Err(PublishError::Unpublished("an earlier request had no answer".into()))
            } else {
                let answer = self.send(Method::POST, &url, expiry, body).await;
                is_broken = answer.is_err();
                self.outcome(answer)
            };
            for event in events {
                let known = outcomes[event].take();
                outcomes[event] = Some(joined(known, outcome.clone()));
            }
        }
    }

    /// What an answer says about the events of its request.
    fn outcome(&self, answer: Result<Answer, Failure>) -> Result<(), PublishError> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(Failure::Unsent(text)) => return Err(PublishError::Unpublished(text.into())),
            Err(Failure::Unanswered(text)) => return Err(PublishError::Unknown(text.into())),
        };
        let is_rpc = matches!(self.options.protocol, Protocol::JsonRpc(_));
        let status = answer.status;
        let text = format!("the server answered {status}");
        if status.is_success() {
            if let Some(reason) = answer.headers.get("vestnik-dropped") {
                let reason = String::from_utf8_lossy(reason.as_bytes()).into_owned();
                return Err(PublishError::Refused(reason.into()));
            }
            if is_rpc && !(status == StatusCode::OK && publisher::is_json_rpc_taken(&answer.body)) {
                return Err(PublishError::Unknown("the answer is no JSON-RPC".into()));
            }
            return Ok(());
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS => Err(PublishError::Unpublished(text.into())),
            // Generation 5 keeps nothing then; the older ones deliver what they cannot store.
            StatusCode::SERVICE_UNAVAILABLE if is_rpc => {
                Err(PublishError::Unpublished(text.into()))
            }
            StatusCode::REQUEST_TIMEOUT => Err(PublishError::Unknown(text.into())),
            _ if status.is_server_error() => Err(PublishError::Unknown(text.into())),
            _ => Err(PublishError::Refused(text.into())),
        }
    }

    async fn question(&self, method: Method, url: &str, body: Bytes) -> Result<Bytes, AskError> {
        let answer = self.send(method, url, 0, body).await.map_err(|failure| match failure {
            Failure::Unsent(text) | Failure::Unanswered(text) => AskError::Failed(text.into()),
        })?;
        let text = format!("the server answered {}", answer.status);
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            status if status.is_client_error() => Err(AskError::Refused(text.into())),
            _ => Err(AskError::Failed(text.into())),
        }
    }

    async fn count(&self, channels: &[ChannelId]) -> Result<Vec<Listeners>, AskError> {
        let unreadable = || AskError::Failed("the answer makes no sense".into());
        let mut listeners = Vec::with_capacity(channels.len());
        match &self.options.protocol {
            Protocol::Text(per_request) => {
                for asked in channels.chunks((*per_request).max(1)) {
                    let list = publisher::joined(asked);
                    let url =
                        publisher::with_parameters(&self.options.url, &[("CHANNEL_ID", &list)]);
                    let answer = self.question(Method::GET, &url, list.into()).await?;
                    let counted = publisher::text_listeners(&answer, asked);
                    listeners.extend(counted.ok_or_else(unreadable)?);
                }
            }
            Protocol::Protobuf(_) => {
                for (body, asked) in publisher::protobuf_questions(channels, self.options.limits) {
                    let answer = self.question(Method::POST, &self.batch_url(&body), body).await?;
                    let counted = publisher::protobuf_listeners(answer, asked);
                    listeners.extend(counted.ok_or_else(unreadable)?);
                }
            }
            Protocol::JsonRpc(_) => return Err(AskError::Unsupported("who listens to a channel")),
        }
        Ok(listeners)
    }

    async fn call(&self, method: &str, params: String) -> Result<Bytes, AskError> {
        if !self.addresses_users() {
            return Err(AskError::Unsupported("when users were last seen"));
        }
        let body = Bytes::from(publisher::json_rpc_call(method, &params));
        self.question(Method::POST, &self.batch_url(&body), body).await
    }
}

/// The result of a call.
fn result_of(answer: &[u8]) -> Result<&str, AskError> {
    publisher::json_rpc_result(answer).map_err(|error| match error {
        publisher::AnswerError::Unreadable => AskError::Failed(error.to_string().into()),
        publisher::AnswerError::Told { .. } => AskError::Refused(error.to_string().into()),
    })
}

fn refuse(outcomes: &mut Outcomes, refused: &[(usize, publisher::EncodeError)]) {
    for (event, error) in refused {
        outcomes[*event] = Some(Err(PublishError::Refused(error.to_string().into())));
    }
}

/// The outcome of an event that went out in several requests: known only if they agree.
fn joined(
    known: Option<Result<(), PublishError>>,
    next: Result<(), PublishError>,
) -> Result<(), PublishError> {
    match (known, next) {
        (None, next) => next,
        (Some(Ok(())), Ok(())) => Ok(()),
        (Some(Err(error)), Ok(())) | (Some(Ok(())), Err(error)) => {
            Err(PublishError::Unknown(format!("a part of the recipients: {error}").into()))
        }
        (Some(Err(_)), Err(error @ PublishError::Unknown(_))) => Err(error),
        (Some(Err(error)), Err(_)) => Err(error),
    }
}

/// Certificates of authorities that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It is no PEM file with certificates.
    #[error("no PEM file with certificates: {0}")]
    Pem(String),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// TLS that trusts the public authorities and those of a PEM file beside them; empty: nobody else.
///
/// # Errors
/// When there is no certificate in it, or one is none.
pub fn trusting(pem: &[u8]) -> Result<Arc<rustls::ClientConfig>, AuthoritiesError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| AuthoritiesError::Pem(error.to_string()))?;
        roots.add(certificate)?;
        count += 1;
    }
    if count == 0 && !pem.is_empty() {
        return Err(AuthoritiesError::Pem("it holds none".to_owned()));
    }
    Ok(with_roots(roots)?)
}

pub(crate) fn public_authorities() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    with_roots(rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

fn with_roots(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl Publisher for RemotePublisher {
    fn addresses_users(&self) -> bool {
        matches!(self.options.protocol, Protocol::JsonRpc(_))
    }

    fn publish<'a>(
        &'a self,
        events: &'a [ModuleEvent],
    ) -> BoxFuture<'a, Vec<Result<(), PublishError>>> {
        Box::pin(self.publish_all(events))
    }

    fn listeners<'a>(
        &'a self,
        channels: &'a [ChannelId],
    ) -> BoxFuture<'a, Result<Vec<Listeners>, AskError>> {
        Box::pin(self.count(channels))
    }

    fn last_seen<'a>(
        &'a self,
        users: &'a [UserId],
    ) -> BoxFuture<'a, Result<Vec<(UserId, u64)>, AskError>> {
        Box::pin(async move {
            let ids: Vec<_> = users.iter().map(UserId::to_string).collect();
            let params = format!(r#"{{"userList":[{}]}}"#, ids.join(","));
            let answer = self.call("getUsersLastSeen", params).await?;
            publisher::last_seen(result_of(&answer)?)
                .map_err(|error| AskError::Failed(error.to_string().into()))
        })
    }

    fn update_last_seen<'a>(
        &'a self,
        seen_s: &'a [(UserId, u64)],
    ) -> BoxFuture<'a, Result<(), AskError>> {
        Box::pin(async move {
            let seen: Vec<_> = seen_s.iter().map(|(id, at)| format!(r#""{id}":{at}"#)).collect();
            let params = format!("{{{}}}", seen.join(","));
            let answer = self.call("updateUsersLastSeen", params).await?;
            result_of(&answer).map(drop)
        })
    }
}

#[cfg(test)]
mod tests;
