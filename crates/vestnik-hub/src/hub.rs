//! The hub's front: publishing, presence and statistics for every thread.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Clock, Draft, MessageId, Receiver, User, UserId, UserSpace};

use crate::announce::Announcer;
use crate::engine::{Batch, Engine, EngineError, IfUnstored, Moment, NodeFacts, NodeStats, Ticket};
use crate::pairs::Pairs;
use crate::presence::Presence;
use crate::stats::DailyStats;

/// Why messages were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Deliveries are so far behind that nothing more is taken; nothing was published.
    #[error("deliveries are too far behind")]
    Overloaded,
    /// Memory is over its limit; nothing was published.
    #[error("memory is full")]
    Full,
    /// The engine did not take or did not keep the messages.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store did not answer in time; it is unknown whether the messages are kept.
    #[error("the history did not answer in time")]
    TimedOut,
}

/// What all shards share.
pub struct Hub {
    engine: Arc<Engine>,
    announcer: Arc<Announcer>,
    metrics: Arc<Metrics>,
    stats: DailyStats,
    presence: Arc<Presence>,
    pairs: Pairs,
    clock: Clock,
    is_full: AtomicBool,
}

impl Hub {
    /// Publishers are answered within this time: PHP waits one second (README D6).
    pub const ANSWER_WITHIN: Duration = Duration::from_millis(900);

    /// A hub over an engine that announces to `announcer`, which tells `presence` of users.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        announcer: Arc<Announcer>,
        metrics: Arc<Metrics>,
        presence: Arc<Presence>,
        clock: Clock,
    ) -> Self {
        announcer.tell(Arc::clone(&presence));
        let stats = DailyStats::new(clock.clone());
        Self {
            engine,
            announcer,
            metrics,
            stats,
            presence,
            pairs: Pairs::default(),
            clock,
            is_full: AtomicBool::new(false),
        }
    }

    /// How long publishers are slowed down for while deliveries are behind; the rest of their time is
    /// for storing.
    const SLOWED_FOR: Duration = Duration::from_millis(400);

    /// Numbers, stores and announces `drafts`, in order, within [`Hub::ANSWER_WITHIN`].
    ///
    /// Returns their ids, which grow. Not cancel safe: dropped midway, the messages may have been
    /// published without their ids ever being returned.
    ///
    /// # Errors
    /// `Overloaded`: nothing was published. `Engine`: see there. `TimedOut`: unknown.
    pub async fn publish(
        &self,
        drafts: Vec<Draft>,
        if_unstored: IfUnstored,
    ) -> Result<Vec<MessageId>, PublishError> {
        self.publish_within(Self::ANSWER_WITHIN, drafts, if_unstored).await
    }

    /// Like [`Hub::publish`], for a publisher that waits for another time.
    ///
    /// # Errors
    /// As there.
    pub async fn publish_within(
        &self,
        time: Duration,
        mut drafts: Vec<Draft>,
        if_unstored: IfUnstored,
    ) -> Result<Vec<MessageId>, PublishError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        self.has_memory()?;
        drafts.iter_mut().for_each(Draft::detach);
        let published = async {
            if !self.announcer.is_calm() {
                // Whether it became calm or not, what counts is whether there is room.
                let _ = tokio::time::timeout(Self::SLOWED_FOR, self.announcer.calm()).await;
            }
            if !self.announcer.has_room() {
                return Err(PublishError::Overloaded);
            }
            self.stats.count_messages(drafts.iter().map(|draft| &draft.kind));
            Ok(self.engine.submit(Batch { drafts, if_unstored })?.ids().await?)
        };
        let result =
            tokio::time::timeout(time, published).await.unwrap_or(Err(PublishError::TimedOut));
        if result.is_err() {
            self.metrics.increment(Metric::Refused);
        }
        result
    }

    /// Like [`Hub::publish`], for a connection that gets no answer: never waits.
    ///
    /// # Errors
    /// When the messages were not taken.
    pub fn publish_unanswered(&self, drafts: Vec<Draft>) -> Result<(), PublishError> {
        self.publish_now(drafts).map(drop)
    }

    /// Like [`Hub::publish`], for a connection whose next message must not overtake: takes or refuses
    /// the messages before it returns; the ticket tells when they are stored.
    ///
    /// # Errors
    /// When the messages were not taken.
    pub fn publish_now(&self, mut drafts: Vec<Draft>) -> Result<Ticket, PublishError> {
        if drafts.is_empty() {
            return Ok(Ticket::Ready(Vec::new()));
        }
        self.has_memory()?;
        if !self.announcer.has_room() {
            self.metrics.increment(Metric::Refused);
            return Err(PublishError::Overloaded);
        }
        drafts.iter_mut().for_each(Draft::detach);
        self.stats.count_messages(drafts.iter().map(|draft| &draft.kind));
        Ok(self.engine.submit(Batch { drafts, if_unstored: IfUnstored::Deliver })?)
    }

    /// Says whether memory is over its limit: then no messages are taken.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Whether memory is over its limit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    fn has_memory(&self) -> Result<(), PublishError> {
        if !self.is_full() {
            return Ok(());
        }
        self.metrics.increment(Metric::Refused);
        self.metrics.increment(Metric::MemoryRefused);
        Err(PublishError::Full)
    }

    /// Whether there are other nodes that may know more than this one.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.engine.shared().is_some()
    }

    /// Whether somebody listens to each of `receivers` now, on any node, as far as this one knows without
    /// asking; `None` if it must ask with [`Hub::who_is_online`].
    #[must_use]
    pub fn who_is_online_here(&self, receivers: &[Receiver]) -> Option<Vec<bool>> {
        let here: Vec<_> = receivers.iter().map(|it| self.is_online(*it)).collect();
        (!self.is_shared() || !here.contains(&false)).then_some(here)
    }

    /// Whether somebody listens to each of `receivers` now, on any node. Only those who are not online
    /// here are asked about, in one round trip. When the other nodes cannot be asked, what this one knows
    /// is the answer.
    pub async fn who_is_online(&self, receivers: &[Receiver]) -> Vec<bool> {
        let mut online: Vec<_> = receivers.iter().map(|it| self.is_online(*it)).collect();
        let Some(shared) = self.engine.shared() else { return online };
        let unknown: Vec<_> = (0..online.len()).filter(|&at| !online[at]).collect();
        if unknown.is_empty() {
            return online;
        }
        let asked: Vec<_> = unknown.iter().map(|&at| receivers[at]).collect();
        match shared.is_online_elsewhere(&asked).await {
            Ok(found) => {
                unknown.into_iter().zip(found).for_each(|(at, is_online)| online[at] = is_online);
            }
            Err(error) => self.answers_alone(&error),
        }
        online
    }

    /// The other nodes could not be asked.
    fn answers_alone(&self, error: &EngineError) {
        self.metrics.increment(Metric::AnsweredAlone);
        tracing::debug!(%error, "other nodes not asked; this one answers for itself");
    }

    /// Says which users came to or went from this node, and answers which of them were or are on no other
    /// one. Those that cannot be settled now are told by [`Presence::take_changes`] again.
    pub async fn settle(&self, changes: Vec<(User, bool)>) -> Vec<(User, bool)> {
        let Some(shared) = self.engine.shared() else { return changes };
        let moments: Vec<_> = changes
            .iter()
            .map(|(user, is_online)| {
                let seen_s = self.presence.seen_s(*user);
                (*user, if *is_online { Moment::Came(seen_s) } else { Moment::Went(seen_s) })
            })
            .collect();
        match shared.settle(&moments).await {
            Ok(news) => changes
                .into_iter()
                .zip(news)
                .filter(|(_, is_news)| *is_news)
                .map(|it| it.0)
                .collect(),
            Err(error) => {
                tracing::debug!(%error, "coming and going of users not told; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.presence.untell(&changes);
                Vec::new()
            }
        }
    }

    /// Seconds since each user was seen on any node: see [`Presence::last_seen`].
    pub async fn last_seen(
        &self,
        space: UserSpace,
        asked: Option<&[UserId]>,
    ) -> Vec<(UserId, u64)> {
        let here = self.presence.last_seen(space, asked);
        let Some(shared) = self.engine.shared() else { return here };
        if asked.is_some_and(<[_]>::is_empty) {
            return here;
        }
        let elsewhere = match shared.last_seen(space, asked).await {
            Ok(elsewhere) => elsewhere,
            Err(error) => {
                self.answers_alone(&error);
                return here;
            }
        };
        let now_s = self.clock.unix_s();
        let mut ago: HashMap<UserId, u64> = here.iter().copied().collect();
        let mut more = Vec::new();
        for (id, seen_s) in elsewhere {
            let ago_s = if seen_s == 0 { 0 } else { now_s.saturating_sub(seen_s).max(1) };
            match ago.entry(id) {
                Entry::Occupied(mut known) => _ = known.insert(ago_s.min(*known.get())),
                Entry::Vacant(unknown) => {
                    unknown.insert(ago_s);
                    more.push(id);
                }
            }
        }
        match asked {
            Some(asked) => asked.iter().filter_map(|id| Some((*id, *ago.get(id)?))).collect(),
            None => here.iter().map(|it| it.0).chain(more).map(|id| (id, ago[&id])).collect(),
        }
    }

    /// Notes when users were seen, on all nodes: see [`Presence::update`].
    pub async fn update_last_seen(&self, space: UserSpace, seen_s: &[(UserId, u64)]) {
        self.presence.update(space, seen_s);
        let Some(shared) = self.engine.shared() else { return };
        if let Err(error) = shared.update_last_seen(space, seen_s, self.clock.unix_s()).await {
            self.answers_alone(&error);
        }
    }

    /// Keeps what the other nodes are to know of this one; they hear of it within seconds.
    pub fn tell(&self, facts: NodeFacts) {
        if let Some(shared) = self.engine.shared() {
            shared.tell(facts);
        }
    }

    /// The statistics of all nodes; `None`: there is only this one.
    ///
    /// # Errors
    /// `Store` when they cannot be read.
    pub async fn stats_of_nodes(&self) -> Result<Option<Vec<NodeStats>>, EngineError> {
        match self.engine.shared() {
            Some(shared) => shared.stats().await.map(Some),
            None => Ok(None),
        }
    }

    /// Waits for a channel that has too many connections over all nodes, one of which is to be closed
    /// here. Cancel safe; never, where there is only one node.
    pub async fn too_many(&self) -> Receiver {
        match self.engine.shared() {
            Some(shared) => shared.too_many().await,
            None => std::future::pending().await,
        }
    }

    /// Whether somebody listens to `receiver` now, on any shard of this node.
    #[must_use]
    pub fn is_online(&self, receiver: Receiver) -> bool {
        self.announcer.is_online(receiver)
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The announcer, to build shards with.
    #[must_use]
    pub const fn announcer(&self) -> &Arc<Announcer> {
        &self.announcer
    }

    /// Who is online, and when the others were seen.
    #[must_use]
    pub const fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Which private channel is whose.
    #[must_use]
    pub const fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// The counters of today.
    #[must_use]
    pub const fn stats(&self) -> &DailyStats {
        &self.stats
    }

    /// The process' metrics.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The process' clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }
}
