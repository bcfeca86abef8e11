//! `POST api`: JSON-RPC of a site's back end (json-rpc.md §4).
//!
//! PHP waits one second, looks at the status and at nothing in the answer to a batch, and keeps its
//! messages only when the status is not 200. So everything that PHP could send better later is
//! answered 503, and everything that it could not, 200 with an error inside.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;
use vestnik_core::metric::Metric;
use vestnik_core::{Draft, UserId, UserSpace};
use vestnik_hub::PublishError;
use vestnik_hub::engine::IfUnstored;
use vestnik_hub::stats::RequestKind;
use vestnik_proto::jsonrpc::{self, Call, Item, Packet, RpcError};
use vestnik_proto::query::Query;

use super::last_seen_result;
use crate::respond::{self, Answer};
use crate::shard::Shard;
use crate::shared::Shared;

/// Elements of one array; PHP sends some thousand at most.
const ITEMS_MAX: usize = 100_000;
/// Users in one question.
const USERS_MAX: usize = 1_000_000;
/// Longer bodies are checked and read beside the shard's thread, which serves connections meanwhile.
const READ_ASIDE: usize = 64 * 1024;

/// A checked request, taken apart.
struct Request {
    is_batch: bool,
    tasks: Vec<Task>,
}

/// One call and how its answer is addressed.
struct Task {
    id: Option<String>,
    todo: Todo,
}

enum Todo {
    Publish(Draft),
    LastSeen(Option<Vec<UserId>>),
    UpdateLastSeen(Vec<(UserId, u64)>),
    /// There is nothing to do but to say what is wrong.
    Refuse(RpcError),
}

/// Why a request is not served at all.
enum Refusal {
    /// Wrong signature, or no key to check it with.
    Unauthorised,
    /// More elements than are taken.
    TooMany,
    /// Neither an object nor an array.
    Unreadable(RpcError),
}

impl Shard {
    /// Serves one request of a site.
    pub(crate) async fn api(self: &Rc<Self>, raw_query: &str, body: Bytes) -> Answer {
        let query = Query::parse(raw_query);
        let space = UserSpace::of(query.host_id());
        let request = if body.len() < READ_ASIDE {
            self.shared.read_api(&query, space, &body)
        } else {
            let (shared, raw_query) = (Arc::clone(&self.shared), raw_query.to_owned());
            let read = tokio::task::spawn_blocking(move || {
                shared.read_api(&Query::parse(&raw_query), space, &body)
            });
            // It is only ever ended by the end of the process.
            read.await.unwrap_or(Err(Refusal::Unreadable(RpcError::Internal("Internal error"))))
        };
        match request {
            Ok(request) => self.serve_api(space, request).await,
            Err(Refusal::Unauthorised) => {
                self.shared.api_refused(query.host_id());
                failure(StatusCode::FORBIDDEN, RpcError::Unauthorised)
            }
            Err(Refusal::TooMany) => api_too_large(),
            Err(Refusal::Unreadable(error)) => failure(StatusCode::OK, error),
        }
    }

    async fn serve_api(self: &Rc<Self>, space: UserSpace, request: Request) -> Answer {
        let hub = &self.shared.hub;
        let mut answers = Vec::with_capacity(request.tasks.len());
        let mut drafts = Vec::new();
        for Task { id, todo } in request.tasks {
            let id = id.as_deref();
            answers.push(match todo {
                Todo::Publish(draft) => {
                    // Who has no receivers is delivered to nobody.
                    self.shared.hub.pairs().learn(&draft);
                    if !draft.receivers.is_empty() {
                        drafts.push(draft);
                    }
                    jsonrpc::result(id, "{}")
                }
                Todo::LastSeen(users) => {
                    let seen = hub.last_seen(space, users.as_deref()).await;
                    jsonrpc::result(id, &last_seen_result(&seen))
                }
                Todo::UpdateLastSeen(seen) => {
                    hub.update_last_seen(space, &seen).await;
                    jsonrpc::result(id, "{}")
                }
                Todo::Refuse(error) => {
                    self.shared.metrics().increment(Metric::Refused);
                    tracing::warn!(%error, ?error, "request of a site refused");
                    jsonrpc::error(id, error)
                }
            });
        }
        if !drafts.is_empty() && !self.publish_all(drafts).await {
            return api_unavailable();
        }
        let body = match &mut answers[..] {
            [answer] if !request.is_batch => std::mem::take(answer),
            answers => jsonrpc::array(answers),
        };
        respond::private(StatusCode::OK, respond::JSON, body)
    }

    /// Publishes all of a request's messages or none, in a task of its own: a caller that hangs up
    /// does not take them back.
    async fn publish_all(self: &Rc<Self>, drafts: Vec<Draft>) -> bool {
        let (answer, answered) = oneshot::channel();
        let hub = Arc::clone(&self.shared.hub);
        hub.stats().count_request(RequestKind::IncomingMessages);
        self.spawn(async move {
            let published = hub.publish(drafts, IfUnstored::Withhold).await;
            // Full memory is said once, when it began.
            if let Err(error) = &published
                && !matches!(error, PublishError::Full)
            {
                tracing::error!(%error, "messages of a site not stored");
            }
            // The caller may be gone; the messages are published all the same.
            let _ = answer.send(published.is_ok());
        });
        answered.await.unwrap_or(false)
    }
}

impl Shared {
    /// Checks the signature over the body and takes it apart.
    fn read_api(
        &self,
        query: &Query<'_>,
        space: UserSpace,
        body: &Bytes,
    ) -> Result<Request, Refusal> {
        let keys = &self.tenant().keys;
        let signature = query.signature().ok_or(Refusal::Unauthorised)?;
        // Without a key nothing verifies (J-059).
        if !keys.verify(&[body], &signature, self.hub.clock().unix_s()) {
            return Err(Refusal::Unauthorised);
        }
        let packet = jsonrpc::parse(body, ITEMS_MAX).map_err(|_| Refusal::TooMany)?;
        let (items, is_batch) = match packet.map_err(Refusal::Unreadable)? {
            Packet::Single(item) => (vec![item], false),
            Packet::Batch(items) => (items, true),
        };
        let tasks = items.into_iter().map(|item| self.task(item, space)).collect();
        Ok(Request { is_batch, tasks })
    }

    fn task(&self, item: Item<'_>, space: UserSpace) -> Task {
        let (id, todo) = match item {
            Item::Call(call) => (call.id, self.todo(&call, space)),
            Item::Invalid(id) => (id, Err(RpcError::InvalidRequest)),
            Item::Answer => (None, Err(RpcError::InvalidRequest)),
        };
        Task { id: id.map(str::to_owned), todo: todo.unwrap_or_else(Todo::Refuse) }
    }

    fn todo(&self, call: &Call<'_>, space: UserSpace) -> Result<Todo, RpcError> {
        match &*call.method {
            "publish" => {
                let ttl = self.options().message_ttl;
                jsonrpc::site_publish(call.params, space, ttl).map(Todo::Publish)
            }
            "getUsersLastSeen" => jsonrpc::last_seen(call.params, USERS_MAX).map(Todo::LastSeen),
            "updateUsersLastSeen" => {
                jsonrpc::last_seen_updates(call.params).map(Todo::UpdateLastSeen)
            }
            _ => Err(RpcError::MethodNotFound),
        }
    }

    fn api_refused(&self, host_id: &str) {
        self.metrics().increment(Metric::ApiRefused);
        let reason = if self.tenant().keys.is_empty() {
            "generation 5 needs a signature key, and this server has none"
        } else {
            "wrong or missing signature; the site's option signature_key differs"
        };
        let host_id: String = host_id.chars().take(4).collect();
        tracing::warn!(%host_id, reason, "JSON-RPC request of a site refused");
    }
}

/// 413: over the limit of trusted bodies.
pub(crate) fn api_too_large() -> Answer {
    let mut answer = respond::too_large();
    let body = jsonrpc::error(None, RpcError::Internal("Request too large"));
    *answer.body_mut() = http_body_util::Full::new(body.into());
    answer.headers_mut().insert(http::header::CONTENT_TYPE, respond::JSON);
    answer
}

/// 404 for what is no POST: JSON too, because nothing else is ever to be read on this route (J-008).
pub(crate) fn api_not_found() -> Answer {
    failure(StatusCode::NOT_FOUND, RpcError::InvalidRequest)
}

/// 503: nothing of the request was published (README D6).
pub(crate) fn api_unavailable() -> Answer {
    let mut answer =
        failure(StatusCode::SERVICE_UNAVAILABLE, RpcError::Internal("Messages not stored"));
    answer.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    answer
}

fn failure(status: StatusCode, error: RpcError) -> Answer {
    respond::private(status, respond::JSON, jsonrpc::error(None, error))
}
