//! What all shards of a server share, and what they ask each other.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use vestnik_core::Receiver;
use vestnik_core::metric::Metrics;
use vestnik_core::tenant::Tenant;
use vestnik_hub::{Hub, SubscriberKey};

use crate::admission::Admission;
use crate::options::Options;

/// What all shards share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) hub: Arc<Hub>,
    /// Subscribers.
    pub(crate) admission: Admission,
    /// Connections of strangers that are no WebSockets: those of requests, and who has not said what it
    /// is.
    pub(crate) accepted: Arc<Admission>,
    pub(crate) commands: Box<[mpsc::Sender<Command>]>,
    /// The tabs of one channel may sit on different shards.
    pub(crate) evictions: Mutex<Evictions>,
    /// Set when the process stops: no new connections, polls end, sockets close.
    pub(crate) stopping: CancellationToken,
    /// Set when a thread ended although nobody stopped it.
    pub(crate) failed: CancellationToken,
    /// When the hint about unsigned ids was last logged, in seconds since 1970.
    pub(crate) hinted: AtomicU64,
    /// When a caller without trust was last warned of, in seconds since 1970.
    pub(crate) distrust_said: AtomicU64,
}

impl Shared {
    pub(crate) fn tenant(&self) -> &Tenant {
        &self.options.tenant
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.hub.metrics()
    }
}

/// What one shard asks another.
pub(crate) enum Command {
    /// Which of your connections that count against the limit of this channel came first?
    EarliestCounted(Receiver, oneshot::Sender<Option<SubscriberKey>>),
    /// Close this connection: its channel has too many. Answers whether it still counted; if not,
    /// somebody else's eviction was faster.
    Evict(SubscriberKey, oneshot::Sender<bool>),
}

/// How often each channel had to evict lately (README D12).
#[derive(Default)]
pub(crate) struct Evictions(HashMap<Receiver, (Instant, u32)>);

impl Evictions {
    const WINDOW: Duration = Duration::from_secs(60);
    /// From this many on, the new connection is the one refused.
    const PATIENCE: u32 = 20;
    const CHANNELS_MAX: usize = 10_000;

    /// Counts one; `true` when the tabs of this channel only chase each other.
    pub(crate) fn is_chase(&mut self, receiver: Receiver) -> bool {
        let now = Instant::now();
        if self.0.len() >= Self::CHANNELS_MAX {
            self.0.retain(|_, (since, _)| now - *since < Self::WINDOW);
        }
        let (since, count) = self.0.entry(receiver).or_insert((now, 0));
        if now - *since >= Self::WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count >= Self::PATIENCE
    }
}
