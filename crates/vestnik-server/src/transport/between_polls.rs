//! What comes for a client between two of its long polls, whichever shards those reach.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use vestnik_core::metric::Metric;
use vestnik_core::{Envelope, MessageId, Receiver};
use vestnik_hub::{ShardNumber, SubscriberKey};

use crate::shard::{Shard, State};
use crate::shared::Command;
use crate::transport::Connection;

/// Where a client goes on: with this position, at these channels. Tabs of one browser that were
/// answered alike stand at the same place, and any of them may have what any other left.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    position: MessageId,
    /// Sorted: a client may name them in another order.
    receivers: Box<[Receiver]>,
}

impl Place {
    pub(crate) fn new(position: MessageId, receivers: impl Iterator<Item = Receiver>) -> Self {
        let mut receivers: Box<[_]> = receivers.collect();
        receivers.sort_unstable();
        Self { position, receivers }
    }
}

/// Which answered polls gather messages for the next poll of their clients, and on which shard. Only
/// the shard of an entry takes it out.
#[derive(Default)]
pub(crate) struct BetweenPolls(Mutex<HashMap<Place, Vec<(ShardNumber, SubscriberKey)>>>);

impl BetweenPolls {
    /// Who only repeats one poll must not fill memory.
    const TABS_MAX: usize = 16;

    /// Adds a poll that was answered; `false`, and nothing added, when its place is full.
    pub(crate) fn add(&self, place: Place, shard: ShardNumber, key: SubscriberKey) -> bool {
        let mut places = self.lock();
        let tabs = places.entry(place).or_default();
        let has_room = tabs.len() < Self::TABS_MAX;
        if has_room {
            tabs.push((shard, key));
        }
        has_room
    }

    /// Takes one out, if it is still there.
    pub(crate) fn remove(&self, place: Place, shard: ShardNumber, key: SubscriberKey) {
        if let Entry::Occupied(mut entry) = self.lock().entry(place) {
            entry.get_mut().retain(|tab| *tab != (shard, key));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// A shard that has something for this place; `own` if that has.
    fn shard_of(&self, place: &Place, own: ShardNumber) -> Option<ShardNumber> {
        let places = self.lock();
        let tabs = places.get(place)?;
        let is_here = tabs.iter().any(|(shard, _)| *shard == own);
        if is_here { Some(own) } else { tabs.last().map(|(shard, _)| *shard) }
    }

    /// What the shard `own` has for this place.
    fn tab(&self, place: &Place, own: ShardNumber) -> Option<SubscriberKey> {
        let places = self.lock();
        places.get(place)?.iter().rev().find(|(shard, _)| *shard == own).map(|(_, key)| *key)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Vec<(ShardNumber, SubscriberKey)>>> {
        // Plain data: a panic cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A poll on another shard that waits for what gathered at a place. `None`: nothing did.
pub(crate) type Adopter = oneshot::Sender<Option<Vec<Arc<Envelope>>>>;

impl Shard {
    /// Gives a poll what gathered since the answer of the one before, if its client comes back to
    /// the same channels with exactly that position: so it misses no message between two polls, not
    /// even one that is not stored (K-035). `false`: there is none such; the history has to serve.
    ///
    /// The poll was registered before, so it hears what comes from then on; what gathered reaches
    /// beyond that moment, and [`vestnik_hub::Shard::replay`] drops what is in both. Dropped while it
    /// waits, it leaves behind what it asked for.
    pub(crate) async fn adopt(
        self: &Rc<Self>,
        key: SubscriberKey,
        position: MessageId,
        receivers: &[Receiver],
    ) -> bool {
        let place = Place::new(position, receivers.iter().copied());
        // Others may take what was seen there, but never more than there was.
        for _ in 0..BetweenPolls::TABS_MAX {
            if !self.is_replaying(key) {
                // It hears nothing: what gathered is for the next one.
                return false;
            }
            let Some(shard) = self.shared.between_polls.shard_of(&place, self.number) else {
                return false;
            };
            let gathered = if shard == self.number {
                self.hand_over(&mut self.state.borrow_mut(), &place, Ok::<_, ()>)
            } else {
                self.ask(shard, place.clone()).await
            };
            if let Some(envelopes) = gathered {
                self.state.borrow_mut().subscribers.replay(key, envelopes, position);
                self.wake();
                return true;
            }
        }
        false
    }

    /// Asks another shard for what gathered there.
    async fn ask(&self, shard: ShardNumber, place: Place) -> Option<Vec<Arc<Envelope>>> {
        /// A shard that does not answer within this time has far more to do than to keep messages
        /// for polls.
        const WITHIN: Duration = Duration::from_secs(1);
        let (adopter, mut answered) = oneshot::channel();
        let commands = &self.shared.commands[shard.index()];
        // A shard that is gone took everything with it.
        commands.send_timeout(Command::Adopt(place, adopter), WITHIN).await.ok()?;
        match tokio::time::timeout(WITHIN, &mut answered).await {
            Ok(answer) => answer.ok().flatten(),
            Err(_) => {
                // From here on it keeps what it has; what it had sent already is not lost.
                answered.close();
                answered.try_recv().ok().flatten()
            }
        }
    }

    /// Answers polls on other shards that asked for what gathered here, once everything that was
    /// announced before they came is among it.
    pub(crate) fn answer_adopters(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.adopters.is_empty() || !state.subscribers.is_caught_up() {
            return;
        }
        for (place, adopter) in std::mem::take(&mut state.adopters) {
            let mut adopter = Some(adopter);
            let sent = self.hand_over(state, &place, |envelopes| match adopter.take() {
                Some(adopter) => adopter.send(Some(envelopes)),
                None => Err(Some(envelopes)),
            });
            if sent.is_none()
                && let Some(adopter) = adopter
            {
                // Nobody waits for the answer any more: nothing to do.
                let _ = adopter.send(None);
            }
        }
    }

    /// Takes an answered poll of a place out, if `take` takes what it gathered. What cannot stand in
    /// for the history, because it left or more came than may wait, is not there any more.
    fn hand_over<T, E>(
        &self,
        state: &mut State,
        place: &Place,
        take: impl FnOnce(Vec<Arc<Envelope>>) -> Result<T, E>,
    ) -> Option<T> {
        let between_polls = &self.shared.between_polls;
        while let Some(key) = between_polls.tab(place, self.number) {
            let subscriber = state.subscribers.get(key).filter(|it| {
                it.is_live() && matches!(it.connection, Connection::BetweenPolls(Some(_)))
            });
            let Some(subscriber) = subscriber else {
                between_polls.remove(place.clone(), self.number, key);
                continue;
            };
            let queue = subscriber.outbox.queue();
            let envelopes: Vec<_> =
                queue.map(|queue| queue.messages().map(Arc::clone).collect()).unwrap_or_default();
            let count = envelopes.len() as u64;
            let taken = take(envelopes).ok()?;
            self.shared.metrics().add(Metric::Delivered, count);
            between_polls.remove(place.clone(), self.number, key);
            state.subscribers.unsubscribe(key);
            return Some(taken);
        }
        None
    }

    fn is_replaying(&self, key: SubscriberKey) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.subscribers.get(key).is_some_and(|subscriber| subscriber.is_replaying())
    }
}
