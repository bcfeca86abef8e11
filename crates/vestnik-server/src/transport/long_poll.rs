//! Long polling: a request that is held until there is something to say.

use std::net::IpAddr;
use std::rc::Rc;
use std::task::{self, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use vestnik_core::metric::Metric;
use vestnik_core::{Cursor, Envelope, MessageId};
use vestnik_hub::{Item, SubscriberKey};
use vestnik_proto::query::Framing;
use vestnik_proto::{json, quirks, websocket};

use crate::respond::{self, Answer};
use crate::shard::{CloseReason, REFUSAL_PAUSE, Shard};
use crate::subscribe::Subscription;
use crate::transport::Connection;

/// The longest wait for a message that was announced but has not reached its shard.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The shard's half of a held poll.
#[derive(Default)]
pub(crate) struct Poll {
    waker: Option<Waker>,
    has_news: bool,
    ended: Option<CloseReason>,
}

impl Poll {
    /// Something waits in the outbox: answer.
    pub(crate) fn wake(&mut self) {
        self.has_news = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Why it must end, if it must.
    pub(crate) const fn ended(&self) -> Option<CloseReason> {
        self.ended
    }

    /// Answer now, with the way to end that `reason` asks for.
    pub(crate) fn end(&mut self, reason: CloseReason) {
        self.ended.get_or_insert(reason);
        self.wake();
    }
}

/// A poll being held. Dropped when its client goes away: then it is no longer online, at once
/// (README D13), and what waited for it is not lost, since it was not taken (K-072).
struct Held {
    shard: Rc<Shard>,
    key: SubscriberKey,
    client: IpAddr,
    is_answered: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shard.shared.metrics().subtract(Metric::ConnectionsPolling, 1);
        self.shard.shared.admission.leave(self.client);
        let state = &mut *self.shard.state.borrow_mut();
        if self.is_answered && !self.shard.shared.stopping.is_cancelled() {
            let grace = self.shard.shared.options.timing.presence_grace;
            if let Some(subscriber) = state.subscribers.get(self.key) {
                subscriber.connection = Connection::BetweenPolls;
                state.subscribers.deafen(self.key);
                state.subscribers.uncount(self.key);
                state.wheel.add(grace.as_secs(), self.key);
                return;
            }
        }
        state.subscribers.unsubscribe(self.key);
    }
}

impl Shard {
    /// Serves one poll: answers at once what was missed, else waits for news (queue-server.md §4.7).
    pub(crate) async fn poll(self: &Rc<Self>, client: IpAddr, target: &str) -> Answer {
        let raw_query = target.split_once('?').map_or("", |(_, query)| query);
        let Ok(subscription) = self.shared.subscription(raw_query) else {
            self.shared.subscription_refused(client, target);
            return respond::poll_refused(StatusCode::BAD_REQUEST, quirks::POLL_REFUSAL);
        };
        if !self.shared.admission.enter(client) {
            return self.too_many().await;
        }
        let key = self.subscribe(&subscription, Connection::Poll(Poll::default()));
        self.shared.metrics().increment(Metric::ConnectionsPolling);
        let mut held = Held { shard: Rc::clone(self), key, client, is_answered: false };
        // Before anything waits for it: a message stored from now on is delivered, not stepped over.
        let position = self.position(&subscription);
        self.replay(key, &subscription);
        let timing = &self.shared.options.timing;
        // A timeout is no failure: it ends the poll like any other way of having no news.
        let ended = tokio::time::timeout(timing.poll, self.news(key)).await.unwrap_or(None);
        if position != self.position(&subscription) {
            // Something for it is between the history and this shard.
            let _ = tokio::time::timeout(ON_ITS_WAY, self.message(key)).await;
        }
        held.is_answered = true;
        // If its history is still being read, this drops what waits behind it.
        self.state.borrow_mut().subscribers.deafen(key);
        let envelopes = self.take_messages(key);
        if !envelopes.is_empty() {
            return messages(subscription.framing, &envelopes);
        }
        match ended {
            Some(CloseReason::TooManyConnections) => too_many(),
            Some(CloseReason::HistoryUnreadable) => {
                respond::poll_refused(StatusCode::BAD_REQUEST, "4011: Couldn't get last messages.")
            }
            Some(CloseReason::Stopping | CloseReason::SlowSubscriber) | None => {
                respond::poll_ended(position)
            }
        }
    }

    /// Refuses a poll over a limit after a pause, so that its client does not come back at once
    /// (K-044).
    async fn too_many(&self) -> Answer {
        tokio::select! {
            () = tokio::time::sleep(REFUSAL_PAUSE) => {}
            () = self.shared.stopping.cancelled() => {}
        }
        too_many()
    }

    /// The position a client goes on from after a poll without news.
    fn position(&self, subscription: &Subscription) -> Option<MessageId> {
        match subscription.cursor {
            Cursor::After(position) => Some(position),
            Cursor::Live => self.shared.hub.engine().newest(&subscription.receivers),
        }
    }

    /// Waits until something is there for a poll, or it must end.
    async fn news(&self, key: SubscriberKey) -> Option<CloseReason> {
        std::future::poll_fn(|context| {
            let state = &mut *self.state.borrow_mut();
            let Some(subscriber) = state.subscribers.get(key) else {
                return task::Poll::Ready(None);
            };
            let is_empty = subscriber.outbox.is_empty();
            let Connection::Poll(poll) = &mut subscriber.connection else {
                return task::Poll::Ready(None);
            };
            if poll.ended.is_some() || (poll.has_news && !is_empty) {
                return task::Poll::Ready(poll.ended);
            }
            poll.has_news = false;
            poll.waker = Some(context.waker().clone());
            task::Poll::Pending
        })
        .await
    }

    /// Waits until a message is there for a poll that ended without one.
    async fn message(&self, key: SubscriberKey) {
        const LOOK_AGAIN: Duration = Duration::from_millis(1);
        let is_empty = || {
            let state = &mut *self.state.borrow_mut();
            state.subscribers.get(key).is_some_and(|subscriber| subscriber.outbox.is_empty())
        };
        while is_empty() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Everything that is ready for a poll.
    fn take_messages(&self, key: SubscriberKey) -> Vec<std::sync::Arc<Envelope>> {
        let state = &mut *self.state.borrow_mut();
        let Some(queue) = state.subscribers.get(key).and_then(|s| s.outbox.queue()) else {
            return Vec::new();
        };
        let mut envelopes = Vec::new();
        while let Some(item) = queue.pop() {
            match item {
                Item::Live(envelope) => {
                    self.shared.metrics().increment(Metric::Delivered);
                    envelopes.push(envelope);
                }
                Item::Replayed(envelope) => envelopes.push(envelope),
                // Polls are sent no frames.
                Item::Frame(_) => {}
            }
        }
        state.subscribers.release(key);
        envelopes
    }
}

fn too_many() -> Answer {
    respond::poll_refused(StatusCode::TOO_MANY_REQUESTS, quirks::EVICTION)
}

/// All messages in one body (Q-127, README D9).
fn messages(framing: Framing, envelopes: &[std::sync::Arc<Envelope>]) -> Answer {
    let kind = match framing {
        Framing::Protobuf => respond::BINARY,
        Framing::Text | Framing::Json | Framing::JsonRpc => respond::TEXT,
    };
    let body = if framing == Framing::Json {
        let elements: Vec<_> = envelopes.iter().map(|envelope| json::element(envelope)).collect();
        json::array(&elements)
    } else {
        concatenation(framing, envelopes)
    };
    respond::answer(StatusCode::OK, kind, body)
}

fn concatenation(framing: Framing, envelopes: &[std::sync::Arc<Envelope>]) -> Bytes {
    let mut records =
        envelopes.iter().map(|envelope| websocket::payload_of(super::frame(framing, envelope)));
    if envelopes.len() == 1 {
        return records.next().unwrap_or_default();
    }
    let mut body = BytesMut::new();
    for record in records {
        body.extend_from_slice(&record);
    }
    body.freeze()
}
