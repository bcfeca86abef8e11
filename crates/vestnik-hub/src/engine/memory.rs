//! The engine without a disk: everything is gone after a restart.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::{Clock, Draft, Envelope, MessageId, Receiver};

use super::index::{Index, Place};
use super::{Announcer, Batch, EngineError, HistoryLimits, Replay, SWEEP_SLICE, SWEEP_SLICES};
use crate::announce::Unwoken;

/// Gives ids and times.
#[derive(Debug)]
pub(super) struct Counter {
    /// The id given last.
    pub last: MessageId,
    /// The id announced last: what a subscriber may take for "now".
    pub announced: MessageId,
    /// The time given last; times never fall, even if the clock does.
    pub created_ms: u64,
}

impl Counter {
    /// Continues after `last`, at `created_ms` or later.
    pub(super) fn after(last: MessageId, created_ms: u64) -> Self {
        Self { last, announced: last, created_ms }
    }

    /// Takes `count` numbers: the id before the first of them, and the time of all.
    pub(super) fn take(&mut self, count: usize, now_ms: u64) -> (MessageId, u64) {
        let before = self.last;
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.last = MessageId::new(before.epoch(), before.seq().saturating_add(count));
        self.created_ms = self.created_ms.max(now_ms);
        (before, self.created_ms)
    }
}

/// Numbers drafts one after the other, beginning behind `before`.
pub(super) fn number(
    before: &mut MessageId,
    created_ms: u64,
    drafts: Vec<Draft>,
) -> Vec<Arc<Envelope>> {
    let mut number_one = |draft| {
        *before = before.next();
        Arc::new(Envelope::new(*before, created_ms, draft))
    };
    drafts.into_iter().map(&mut number_one).collect()
}

/// Announces numbered messages and counts them. Called with the engine's lock held; who hears of them is
/// best woken when it is not any more.
pub(super) fn announce(
    announcer: &Announcer,
    metrics: &Metrics,
    counter: &mut Counter,
    envelopes: &[Arc<Envelope>],
) -> Unwoken {
    let Some(last) = envelopes.last() else { return Unwoken::default() };
    let unwoken = announcer.put(envelopes);
    counter.announced = last.id;
    let bytes = envelopes.iter().map(|envelope| envelope.body.len() as u64).sum();
    metrics.add(Metric::Published, envelopes.len() as u64);
    metrics.add(Metric::PublishedBytes, bytes);
    unwoken
}

/// The engine that keeps messages in memory only.
pub struct Memory {
    state: Mutex<State>,
    announcer: Arc<Announcer>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

struct State {
    counter: Counter,
    index: Index,
    closed: bool,
}

impl Memory {
    pub(super) fn new(
        limits: HistoryLimits,
        announcer: Arc<Announcer>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let start = MessageId::new(clock.unix_s().max(1), 0);
        let state = State {
            counter: Counter::after(start, clock.unix_ms()),
            index: Index::new(limits, Arc::clone(&metrics), start),
            closed: false,
        };
        Self { state: Mutex::new(state), announcer, clock, metrics }
    }

    pub(super) fn submit(&self, batch: Batch) -> Result<Vec<MessageId>, EngineError> {
        let mut locked = self.lock();
        let state = &mut *locked;
        if state.closed {
            return Err(EngineError::Closed);
        }
        let now_ms = self.clock.unix_ms();
        let (mut before, created_ms) = state.counter.take(batch.drafts.len(), now_ms);
        let envelopes = number(&mut before, created_ms, batch.drafts);
        let mut stored = 0;
        for envelope in envelopes.iter().filter(|envelope| envelope.expiry.is_stored()) {
            state.index.insert(envelope, Place::Memory(Arc::clone(envelope)), now_ms / 1000);
            stored += 1;
        }
        if stored > 0 {
            self.metrics.add(Metric::Stored, stored);
            self.show(&state.index);
        }
        let unwoken = announce(&self.announcer, &self.metrics, &mut state.counter, &envelopes);
        drop(locked);
        self.announcer.wake(unwoken);
        Ok(envelopes.iter().map(|envelope| envelope.id).collect())
    }

    pub(super) fn history(&self, receivers: &[Receiver], after: MessageId, bytes: usize) -> Replay {
        let state = self.lock();
        let now_s = self.clock.unix_s();
        let found =
            state.index.find(receivers, after, state.counter.announced, now_s).within(bytes);
        let envelopes = found.messages.into_iter().filter_map(|(_, place)| match place {
            Place::Memory(envelope) => Some(envelope),
            Place::Disk(_) => None, // never made here
        });
        Replay {
            envelopes: envelopes.collect(),
            gap: found.gap,
            more: found.more,
            last: state.counter.announced,
        }
    }

    pub(super) fn newest(&self, receivers: &[Receiver]) -> Option<MessageId> {
        self.lock().index.newest(receivers)
    }

    pub(super) fn last_id(&self) -> MessageId {
        self.lock().counter.announced
    }

    pub(super) fn sweep(&self) {
        let now_s = self.clock.unix_s();
        for _ in 0..SWEEP_SLICES {
            let mut state = self.lock();
            let more = state.index.sweep(now_s, SWEEP_SLICE);
            self.show(&state.index);
            if !more {
                break;
            }
        }
    }

    pub(super) fn shed(&self) {
        let now_s = self.clock.unix_s();
        let mut state = self.lock();
        let count = state.index.len().div_ceil(8);
        state.index.evict_oldest(count, now_s);
        self.show(&state.index);
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    #[cfg(test)]
    pub(super) fn channel_count(&self) -> usize {
        self.lock().index.channel_count()
    }

    fn show(&self, index: &Index) {
        self.metrics.set(Metric::HistoryMessages, index.len() as u64);
        self.metrics.set(Metric::HistoryBytes, index.memory_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
