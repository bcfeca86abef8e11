//! Long polling: a request that is held until there is something to say.

use std::net::IpAddr;
use std::rc::Rc;
use std::task::{self, Waker};

use bytes::BytesMut;
use http::StatusCode;
use vestnik_core::metric::Metric;
use vestnik_core::{Cursor, Envelope, MessageId, User};
use vestnik_hub::{Item, SubscriberKey};
use vestnik_proto::query::Framing;
use vestnik_proto::{json, quirks, websocket};

use crate::respond::{self, Answer};
use crate::shard::Shard;
use crate::subscribe::Subscription;
use crate::transport::between_polls::Place;
use crate::transport::{CloseReason, Connection, REFUSAL_PAUSE};

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
    /// Set once the poll is answered: with the position its client goes on from, if it has one.
    answered: Option<Option<MessageId>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shard.shared.metrics().subtract(Metric::ConnectionsPolling, 1);
        self.shard.shared.admission.leave(self.client);
        let state = &mut *self.shard.state.borrow_mut();
        if let Some(position) = self.answered
            && !self.shard.shared.stopping.is_cancelled()
        {
            let grace = self.shard.shared.options().timing.presence_grace;
            if let Some(subscriber) = state.subscribers.get(self.key) {
                // What did not hear everything since its position cannot stand in for the history.
                let position = position.filter(|_| subscriber.is_live());
                subscriber.connection = Connection::BetweenPolls(position);
                let place = position.map(|position| Place::new(position, subscriber.receivers()));
                match place {
                    Some(place) => {
                        let shared = &self.shard.shared;
                        if !shared.between_polls.add(place, self.shard.number, self.key) {
                            // As many others are online for its client.
                            state.subscribers.unsubscribe(self.key);
                            return;
                        }
                    }
                    // Its client cannot say that it is the one that comes back.
                    None => state.subscribers.deafen(self.key),
                }
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
        if self.shared.refuses_for_memory() {
            return respond::unavailable();
        }
        let raw_query = target.split_once('?').map_or("", |(_, query)| query);
        let subscription = match self.shared.subscription(raw_query) {
            Ok(subscription) => subscription,
            Err(refused) => {
                self.shared.subscription_refused(client, target, &refused);
                return respond::poll_refused(StatusCode::BAD_REQUEST, quirks::POLL_REFUSAL);
            }
        };
        if !self.shared.admits(client) {
            return self.too_many().await;
        }
        let key = self.subscribe(&subscription, Connection::Poll(Poll::default()));
        self.shared.metrics().increment(Metric::ConnectionsPolling);
        let mut held = Held { shard: Rc::clone(self), key, client, answered: None };
        // Looked up now: at the end of the poll it could be a message that was not delivered yet,
        // which the client would then never ask for.
        let position = self.position(&subscription).await;
        let adopted = match subscription.cursor {
            Cursor::After(position) => self.adopt(key, position, &subscription.receivers).await,
            Cursor::Live => false,
        };
        if !adopted {
            self.replay(key, &subscription);
        }
        let poll = self.shared.options().timing.poll;
        // A timeout is no failure: it ends the poll like any other way of having no news.
        let ended = tokio::time::timeout(poll, self.news(key)).await.unwrap_or(None);
        if !self.is_live(key) {
            // Its history is still being read: what waits behind it must not be taken for all.
            self.state.borrow_mut().subscribers.deafen(key);
        }
        let envelopes = self.take_messages(key);
        if let Some(last) = envelopes.last() {
            held.answered = Some(Some(last.id));
            let user = subscription.identity.and_then(|identity| identity.addressee);
            return match messages(subscription.framing, user, &envelopes) {
                Some(answer) => answer,
                None => {
                    // None of them has a form in its framing.
                    let skipped = envelopes.len() as u64;
                    self.shared.metrics().add(Metric::NotObject, skipped);
                    respond::poll_ended(Some(last.id))
                }
            };
        }
        held.answered = Some(position.filter(|_| ended.is_none()));
        match ended {
            Some(CloseReason::TooManyConnections) => too_many(),
            Some(CloseReason::HistoryUnreadable) => {
                respond::poll_refused(StatusCode::BAD_REQUEST, "4011: Couldn't get last messages.")
            }
            Some(
                CloseReason::Stopping
                | CloseReason::SlowSubscriber
                | CloseReason::MoreMissed
                | CloseReason::WrongToken
                | CloseReason::TokenOver { .. },
            )
            | None => respond::poll_ended(position),
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

    /// The position a client goes on from if its poll brings no news.
    async fn position(&self, subscription: &Subscription) -> Option<MessageId> {
        match subscription.cursor {
            Cursor::After(position) => Some(position),
            Cursor::Live => self.shared.hub.engine().newest(&subscription.receivers).await,
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

    fn is_live(&self, key: SubscriberKey) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.subscribers.get(key).is_some_and(|subscriber| subscriber.is_live())
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

/// All messages in one body (Q-127, README D9); `None` when none of them has a form in this framing.
fn messages(
    framing: Framing,
    user: Option<User>,
    envelopes: &[std::sync::Arc<Envelope>],
) -> Option<Answer> {
    let frames = envelopes.iter().map(|envelope| super::frame(framing, envelope, || user));
    let mut records: Vec<_> =
        frames.filter(|frame| !frame.is_empty()).map(websocket::payload_of).collect();
    let kind = match framing {
        Framing::Protobuf => respond::BINARY,
        Framing::Text | Framing::Json | Framing::JsonRpc => respond::TEXT,
    };
    let body = match (framing, &mut records[..]) {
        (_, []) => return None,
        // Of these every record is an array of one.
        (Framing::Json, records) => {
            let elements: Vec<_> =
                records.iter().map(|record| record.slice(1..record.len() - 1)).collect();
            json::array(&elements)
        }
        (_, [record]) => std::mem::take(record),
        (Framing::JsonRpc, records) => json::array(records),
        (Framing::Text | Framing::Protobuf, records) => {
            let mut body = BytesMut::new();
            records.iter().for_each(|record| body.extend_from_slice(record));
            body.freeze()
        }
    };
    Some(respond::answer(StatusCode::OK, kind, body))
}
