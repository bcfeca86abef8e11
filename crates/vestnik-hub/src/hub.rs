//! The hub's front: publishing, presence and statistics for every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Clock, Draft, MessageId, Receiver};

use crate::announce::Announcer;
use crate::engine::{Batch, Engine, EngineError, IfUnstored, Ticket};
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
    #[error("the history did not answer within {} ms", Hub::ANSWER_WITHIN.as_millis())]
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

    /// Numbers, stores and announces `drafts`, in order.
    ///
    /// Returns their ids, which grow. Not cancel safe: dropped midway, the messages may have been
    /// published without their ids ever being returned.
    ///
    /// # Errors
    /// `Overloaded`: nothing was published. `Engine`: see there. `TimedOut`: unknown.
    pub async fn publish(
        &self,
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
        let result = tokio::time::timeout(Self::ANSWER_WITHIN, published)
            .await
            .unwrap_or(Err(PublishError::TimedOut));
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

    /// Whether somebody listens to `receiver` now, on any shard.
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
