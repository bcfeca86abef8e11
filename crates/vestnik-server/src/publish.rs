//! Requests that bring messages in: the back end's text and protobuf, and clients'.

use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::oneshot;
use vestnik_core::message::Additions;
use vestnik_core::metric::Metric;
use vestnik_core::{Author, ChannelId, Draft, MessageId, MessageKind, Receiver};
use vestnik_hub::PublishError;
use vestnik_hub::engine::IfUnstored;
use vestnik_hub::stats::RequestKind;
use vestnik_proto::protobuf::{self, Caller, Request, RequestError, RequestLimits};
use vestnik_proto::query::{ChannelList, Query, Trust, parse_expiry};
use vestnik_proto::text;

use crate::respond::{self, Answer};
use crate::shard::Shard;
use crate::shared::Shared;

impl Shared {
    /// The public channel that a client publishes under: that of the first signed pair it shows, if it
    /// shows one. `None`: its ids are missing, malformed or wrongly signed.
    pub(crate) fn client_author(&self, raw_query: &str) -> Option<Option<ChannelId>> {
        let query = Query::parse(raw_query);
        let items_max = self.options().limits.channels_per_request;
        let list = ChannelList::parse(query.channel_id()?.ok()?, items_max).ok()?;
        let now_s = self.hub.clock().unix_s();
        Some(list.authorise(&self.tenant().keys, Trust::Client, now_s).ok()?.author())
    }

    fn request_limits(&self) -> RequestLimits {
        let limits = &self.options().limits;
        RequestLimits {
            messages: limits.messages_per_request,
            channels: limits.channels_per_request,
            expiry: self.options().message_ttl,
            ..RequestLimits::default()
        }
    }

    /// Counts and logs a refused request. Anybody can send one as a client, but the back end should
    /// not.
    fn request_refused(&self, error: &RequestError, caller: Caller<'_>) {
        self.metrics().increment(Metric::Refused);
        match caller {
            Caller::Backend => tracing::warn!(%error, "request of the back end refused"),
            Caller::Client { .. } => tracing::debug!(%error, "request of a client refused"),
        }
    }
}

/// What a text publish says beside its body.
pub(crate) struct TextPublish<'a> {
    pub(crate) raw_query: &'a str,
    /// The header `Message-Expiry`, if it was sent.
    pub(crate) expiry: Option<&'a str>,
}

impl Shard {
    /// `POST pub`: one text to all channels of the list (queue-server.md §4.3).
    ///
    /// Whatever cannot be addressed is answered 200 and dropped, as PHP expects, but counted and
    /// logged (README D6).
    pub(crate) async fn publish_text(
        self: &Rc<Self>,
        publish: TextPublish<'_>,
        body: Bytes,
    ) -> Answer {
        let query = Query::parse(publish.raw_query);
        let receivers = match self.text_receivers(&query) {
            Ok(_) if body.is_empty() => Err("empty body"),
            receivers => receivers,
        };
        let receivers = match receivers {
            Ok(receivers) => receivers,
            Err(reason) => {
                self.shared.metrics().increment(Metric::Dropped);
                tracing::warn!(reason, "publish dropped");
                return respond::dropped(reason);
            }
        };
        let expiry = match publish.expiry {
            Some(header) => parse_expiry(header, self.shared.options().message_ttl),
            None => {
                let expiry = self.shared.tenant().missing_expiry.expiry();
                expiry.min(self.shared.options().message_ttl)
            }
        };
        let draft = Draft {
            receivers: receivers.into(),
            body: text::published_body(body),
            expiry,
            author: Author::Backend,
            kind: MessageKind::UNKNOWN,
            additions: Additions::default(),
        };
        self.publish(vec![draft]).await
    }

    fn text_receivers(&self, query: &Query<'_>) -> Result<Vec<Receiver>, &'static str> {
        let list = query.channel_id().ok_or("no CHANNEL_ID")?.map_err(|_| "repeated CHANNEL_ID")?;
        let list = ChannelList::parse(list, usize::MAX).map_err(|_| "malformed CHANNEL_ID")?;
        let now_s = self.shared.hub.clock().unix_s();
        list.authorise(&self.shared.tenant().keys, Trust::Backend, now_s)
            .map(|authorised| authorised.receivers)
            .map_err(|_| "wrong signature of a channel pair")
    }

    /// `POST pub?binaryMode=true`: a protobuf batch of the back end (queue-server.md §4.4).
    pub(crate) async fn publish_binary(self: &Rc<Self>, body: Bytes) -> Answer {
        match self.decode_requests(&body, Caller::Backend) {
            Ok(requests) => self.serve_requests(requests).await,
            Err(error) => respond::refused(error.to_string()),
        }
    }

    /// Decodes and checks a batch; counts its requests, and those that cannot be served, even if the
    /// first one can.
    pub(crate) fn decode_requests(
        &self,
        body: &Bytes,
        caller: Caller<'_>,
    ) -> Result<Vec<Request>, RequestError> {
        let decoded = protobuf::decode_request_batch(body, caller, &self.shared.request_limits())
            .inspect_err(|error| self.shared.request_refused(error, caller))?;
        for error in &decoded.rejected {
            self.shared.request_refused(error, caller);
        }
        for request in &decoded.requests {
            self.shared.hub.stats().count_request(match request {
                Request::Publish(_) => RequestKind::IncomingMessages,
                Request::ChannelStats(_) => RequestKind::ChannelStats,
                Request::ServerStats => RequestKind::ServerStats,
            });
        }
        Ok(decoded.requests)
    }

    /// `POST rest`: a protobuf batch of a client (queue-server.md §4.6), who showed a signed pair
    /// before the body was looked at.
    pub(crate) async fn publish_client(self: &Rc<Self>, author: ChannelId, body: &Bytes) -> Answer {
        match self.decode_client_requests(body, Some(author)) {
            Ok(requests) => self.serve_requests(requests).await,
            Err(error) => self.refusal(&error),
        }
    }

    /// The answer to a request that is refused as a whole.
    pub(crate) fn refusal(&self, error: &RequestError) -> Answer {
        self.shared.metrics().increment(Metric::Refused);
        tracing::debug!(%error, "request refused");
        respond::refused(error.to_string())
    }

    /// Serves all requests of a batch. Messages are answered with an empty body, questions
    /// with one batch of answers; but with 503 when any message could not be stored.
    async fn serve_requests(self: &Rc<Self>, requests: Vec<Request>) -> Answer {
        let mut answers = Vec::new();
        let mut failed = None;
        for request in requests {
            match request {
                Request::Publish(drafts) => {
                    let answer = self.publish(drafts).await;
                    if answer.status() != StatusCode::OK {
                        failed = Some(answer);
                    }
                }
                Request::ChannelStats(channels) => {
                    answers.extend_from_slice(&self.channel_stats(&channels).await);
                }
                Request::ServerStats => match self.shared.server_stats().await {
                    Ok(stats) => answers.extend_from_slice(&protobuf::server_stats(stats)),
                    Err(_) => failed = Some(respond::unavailable()),
                },
            }
        }
        if let Some(answer) = failed {
            return answer;
        }
        if answers.is_empty() {
            return respond::taken();
        }
        respond::answer(StatusCode::OK, respond::BINARY, answers)
    }

    /// Publishes in a task of its own: a caller that hangs up after sending does not take its
    /// messages back.
    async fn publish(self: &Rc<Self>, mut drafts: Vec<Draft>) -> Answer {
        for draft in drafts.iter_mut().filter(|draft| draft.author == Author::Backend) {
            self.shared.hub.pairs().complete(draft);
        }
        let (answer, answered) = oneshot::channel::<Result<Vec<MessageId>, PublishError>>();
        let hub = std::sync::Arc::clone(&self.shared.hub);
        self.spawn(async move {
            // The caller may be gone; the messages are published all the same.
            let _ = answer.send(hub.publish(drafts, IfUnstored::Deliver).await);
        });
        match answered.await {
            Ok(Ok(_)) => respond::taken(),
            // Said once, when it began.
            Ok(Err(PublishError::Full)) => respond::unavailable(),
            Ok(Err(error)) => {
                tracing::error!(%error, "publish not stored");
                respond::unavailable()
            }
            // The task is only ever ended by the end of the process.
            Err(_) => respond::unavailable(),
        }
    }
}
