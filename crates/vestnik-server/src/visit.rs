//! Requests for a part of the program that does not live on the shards, because it waits for a
//! database: they are handed over whole, and the answer comes back. Those that are little work are served
//! at the door.

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{mpsc, oneshot};
use vestnik_core::publisher::BoxFuture;
use vestnik_core::sign::Signature;
use vestnik_proto::query::Query;

use crate::http::{Body, BodyError, waits_for_consent};
use crate::respond::{self, Answer};
use crate::shard::Shard;

/// Where visits go in.
#[derive(Clone)]
pub struct Door {
    visits: mpsc::Sender<Visit>,
    desk: Arc<OnceLock<Weak<dyn FrontDesk>>>,
}

/// Where visits come out.
pub struct Visits {
    visits: mpsc::Receiver<Visit>,
    desk: Arc<OnceLock<Weak<dyn FrontDesk>>>,
}

/// Serves visits that are little work on the thread on which they come in: the way to another thread and
/// back would cost more than they do.
pub trait FrontDesk: Send + Sync {
    /// What serves a visit, to be run on this thread; the visit again when it must go in. It is for who may
    /// be gone: it ends with [`Visit::answer`].
    ///
    /// # Errors
    /// The visit, when it must go in.
    fn serve(self: Arc<Self>, visit: Visit) -> Result<BoxFuture<'static, ()>, Box<Visit>>;

    /// Whether the answer to a visit, whose body was not read yet, depends on its body at all. It is given
    /// none otherwise.
    fn wants_body(&self, visit: &Visit) -> bool;
}

impl Door {
    /// Visits that wait to be served at most; more are refused.
    const VISITS_MAX: usize = 256;

    /// A door, and where its visits come out.
    #[must_use]
    pub fn new() -> (Self, Visits) {
        let (sender, receiver) = mpsc::channel(Self::VISITS_MAX);
        let desk = Arc::default();
        (Self { visits: sender, desk: Arc::clone(&desk) }, Visits { visits: receiver, desk })
    }

    /// What serves a visit at once, or the visit when it must go in, as all do when the server stops: inside
    /// they are served to the end.
    fn serve(&self, visit: Visit, stops: bool) -> Result<BoxFuture<'static, ()>, Box<Visit>> {
        match self.desk.get().filter(|_| !stops).and_then(Weak::upgrade) {
            Some(desk) => desk.serve(visit),
            None => Err(Box::new(visit)),
        }
    }

    /// Whether the answer to a visit depends on its body.
    fn wants_body(&self, visit: &Visit) -> bool {
        self.desk.get().and_then(Weak::upgrade).is_none_or(|desk| desk.wants_body(visit))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Visits {
    /// The next visit; `None` when no more can come. Cancel safe.
    pub async fn next(&mut self) -> Option<Visit> {
        self.visits.recv().await
    }

    /// Has little visits served by `desk` from now on, as long as it is there; only the first one counts.
    pub fn serve_at(&self, desk: Weak<dyn FrontDesk>) {
        // Whoever came first stays.
        let _ = self.desk.set(desk);
    }
}

/// One request, with its whole body.
#[derive(Debug)]
pub struct Visit {
    head: Parts,
    body: Body,
    client: IpAddr,
    is_trusted: bool,
    is_encrypted: bool,
    is_from_proxy: bool,
    answer: oneshot::Sender<Response<Bytes>>,
}

impl Visit {
    /// How long an answer is waited for.
    pub const PATIENCE: Duration = Duration::from_secs(60);

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path, as it was sent, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The query, as it was sent, without `?`; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// Which site says that it sends this, and its signature over the body, if they are there: the
    /// parameters that JSON-RPC of sites has (json-rpc.md §4).
    #[must_use]
    pub fn site_credentials(&self) -> (String, Option<Signature>) {
        let query = Query::parse(self.query());
        (query.host_id().to_owned(), query.signature())
    }

    /// Whether the request names a signature at all, well formed or not.
    #[must_use]
    pub fn has_signature(&self) -> bool {
        self.query().split('&').any(|part| part.split('=').next() == Some("signature"))
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The body; empty if there is none.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body.bytes
    }

    /// The address it really comes from, behind known proxies.
    #[must_use]
    pub const fn client(&self) -> IpAddr {
        self.client
    }

    /// Whether that address may use trusted routes (README D15).
    #[must_use]
    pub const fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Whether the client reached this server, or the proxy before it, by https.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Whether it was handed over by a known proxy, whose word on who asks may be believed.
    #[must_use]
    pub const fn is_from_proxy(&self) -> bool {
        self.is_from_proxy
    }

    /// Answers it. A client that is gone does not get it.
    pub fn answer(self, answer: Response<Bytes>) {
        // Nobody waits for an answer that took too long.
        let _ = self.answer.send(answer);
    }
}

impl Shard {
    /// Hands a request over and waits for the answer; `is_encrypted` speaks of the connection, `peer` is
    /// its other end.
    pub(crate) async fn visit(
        self: &Rc<Self>,
        peer: IpAddr,
        client: IpAddr,
        is_encrypted: bool,
        request: Request<Incoming>,
    ) -> Result<Answer, BodyError> {
        let Some(door) = &self.shared.door else {
            return Ok(self.refuse(request, respond::not_found()).await);
        };
        let (limit, is_trusted, is_from_proxy) = {
            let options = self.shared.options();
            let is_from_proxy = options.trust.is_proxy(peer.to_canonical());
            (options.limits.max_trusted_payload, options.trust.allows(client), is_from_proxy)
        };
        let mut closes = false;
        let Ok(place) = door.visits.try_reserve() else {
            return Ok(self.refuse(request, respond::unavailable()).await);
        };
        let (head, mut rest) = request.into_parts();
        let (answer, answered) = oneshot::channel();
        let body = Body { bytes: Bytes::new(), share: None };
        let mut visit =
            Visit { head, body, client, is_trusted, is_encrypted, is_from_proxy, answer };
        if door.wants_body(&visit) {
            let share = self.shared.body_share(client);
            visit.body = self.body_behind(&visit.head.headers, rest, limit, share).await?;
        } else {
            if !waits_for_consent(&visit.head.headers) {
                self.discard(&mut rest).await;
            }
            closes = !rest.is_end_stream();
        }
        match door.serve(visit, self.shared.stopping.is_cancelled()) {
            // In a task of its own: a caller that hangs up after sending does not take back what it sent.
            Ok(served) => self.spawn(served),
            Err(visit) => place.send(*visit),
        }
        let answer = tokio::time::timeout(Visit::PATIENCE, answered).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer.map(Full::new),
            Ok(Err(_)) => respond::unavailable(),
            Err(_) => {
                let mut answer = respond::unavailable();
                *answer.status_mut() = StatusCode::GATEWAY_TIMEOUT;
                answer
            }
        };
        Ok(if closes { respond::closing(answer) } else { answer })
    }
}
