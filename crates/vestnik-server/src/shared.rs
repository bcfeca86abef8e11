//! What all shards of a server share, and what they ask each other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use vestnik_core::Receiver;
use vestnik_core::metric::{Metric, Metrics};
use vestnik_core::sign::{Key, KeyRing};
use vestnik_core::tenant::Tenant;
use vestnik_hub::{Hub, SubscriberKey};

use crate::admission::Admission;
use crate::bodies::{Bodies, Share};
use crate::observe::{ConnectionInfo, Survey, Wanted};
use crate::options::Options;
use crate::rate::Rates;
use crate::transport::between_polls::{Adopter, BetweenPolls, Place};
use crate::visit::Door;

/// What all shards share.
pub(crate) struct Shared {
    pub(crate) options: ArcSwap<Options>,
    /// Held while the options are replaced.
    pub(crate) module_keys: Mutex<ModuleKeys>,
    pub(crate) hub: Arc<Hub>,
    /// Where requests for the module go; `None`: it is switched off.
    pub(crate) door: Option<Door>,
    /// Subscribers.
    pub(crate) admission: Admission,
    /// Connections of strangers that are no WebSockets: those of requests, and who has not said what it
    /// is.
    pub(crate) accepted: Arc<Admission>,
    /// What the bodies of strangers take.
    pub(crate) bodies: Arc<Bodies>,
    /// Subscriptions of each address.
    pub(crate) subscribe_rates: Rates,
    /// Publishes of each address.
    pub(crate) publish_rates: Rates,
    pub(crate) commands: Box<[mpsc::Sender<Command>]>,
    /// The tabs of one channel may sit on different shards.
    pub(crate) evictions: Mutex<Evictions>,
    /// Answered polls that wait for the next one of their clients, which may come to another shard.
    pub(crate) between_polls: BetweenPolls,
    /// Set when the process stops: no new connections, polls end, sockets close.
    pub(crate) stopping: CancellationToken,
    /// Set when a thread ended although nobody stopped it.
    pub(crate) failed: CancellationToken,
    /// When the hint about unsigned ids was last logged, in seconds since 1970.
    pub(crate) hinted: AtomicU64,
    /// When a caller without trust was last warned of, in seconds since 1970.
    pub(crate) distrust_said: AtomicU64,
}

/// Where the keys of the default tenant come from: those of its settings are in force before those of
/// the configuration, which stay valid beside them.
pub(crate) struct ModuleKeys {
    pub(crate) configured: KeyRing,
    pub(crate) module: Vec<Key>,
}

impl Shared {
    fn module_keys(&self) -> MutexGuard<'_, ModuleKeys> {
        self.module_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts other options in force; keys of the module stay.
    pub(crate) fn reload(&self, mut options: Options) {
        let mut keys = self.module_keys();
        keys.configured = std::mem::take(&mut options.tenant.keys);
        options.tenant.keys = keys.configured.led_by(&keys.module);
        self.options.store(Arc::new(options));
    }

    /// Puts other keys of the module in force; `true` when they differ from those before.
    pub(crate) fn set_module_keys(&self, module: Vec<Key>) -> bool {
        let mut keys = self.module_keys();
        let is_same = keys.module.len() == module.len()
            && keys.module.iter().zip(&module).all(|(a, b)| {
                a.secret().expose() == b.secret().expose() && a.algorithm() == b.algorithm()
            });
        if is_same {
            return false;
        }
        keys.module = module;
        let mut options = Options::clone(&self.options());
        options.tenant.keys = keys.configured.led_by(&keys.module);
        self.options.store(Arc::new(options));
        true
    }
    /// The options in force. They may change at any time: whoever needs several of them together asks
    /// once. Not to be kept over an `await`.
    pub(crate) fn options(&self) -> Guard<Arc<Options>> {
        self.options.load()
    }

    /// The default tenant as it is in force.
    pub(crate) fn tenant(&self) -> CurrentTenant {
        CurrentTenant(self.options())
    }

    /// Whether a caller without trust may be warned of: anybody can be one at any rate, so only one in
    /// a minute is.
    pub(crate) fn may_warn_of_distrust(&self) -> bool {
        const SAY_AGAIN_S: u64 = 60;
        let now_s = self.hub.clock().unix_s();
        let is_due = now_s >= self.distrust_said.load(Ordering::Relaxed) + SAY_AGAIN_S;
        if is_due {
            self.distrust_said.store(now_s, Ordering::Relaxed);
        }
        is_due
    }

    /// Counts a subscriber in; `false`, and nothing counted, when there are too many, or too many came
    /// lately from this address.
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        let options = self.options();
        let rate = options.limits.subscriptions_per_second;
        if rate > 0 && !options.trust.allows(client) && !self.subscribe_rates.allows(client, rate) {
            self.metrics().increment(Metric::RateLimitedSubscriptions);
            return false;
        }
        self.admission.enter(client)
    }

    /// Whether this address may publish once more now.
    pub(crate) fn may_publish(&self, client: IpAddr) -> bool {
        let options = self.options();
        let rate = options.limits.publishes_per_second;
        let may =
            rate == 0 || options.trust.allows(client) || self.publish_rates.allows(client, rate);
        if !may {
            self.metrics().increment(Metric::RateLimitedPublishes);
        }
        may
    }

    /// The share of a body that `client` sends; `None`: it is trusted, and counts against no budget.
    pub(crate) fn body_share(&self, client: IpAddr) -> Option<Share> {
        (!self.options().trust.allows(client)).then(|| self.bodies.share())
    }

    /// Whether there is no memory for another subscriber, or for a large body; counted.
    pub(crate) fn refuses_for_memory(&self) -> bool {
        let is_full = self.hub.is_full();
        if is_full {
            self.metrics().increment(Metric::MemoryRefused);
        }
        is_full
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.hub.metrics()
    }
}

/// The default tenant at the moment it was asked for.
pub(crate) struct CurrentTenant(Guard<Arc<Options>>);

impl Deref for CurrentTenant {
    type Target = Tenant;

    fn deref(&self) -> &Tenant {
        &self.0.tenant
    }
}

/// What one shard asks another.
pub(crate) enum Command {
    /// Which of your connections that count against the limit of this channel came first?
    EarliestCounted(Receiver, oneshot::Sender<Option<SubscriberKey>>),
    /// Close this connection: its channel has too many. Answers whether it still counted; if not,
    /// somebody else's eviction was faster.
    Evict(SubscriberKey, oneshot::Sender<bool>),
    /// What gathered with you for the next poll at this place? It is yours no more once the answer is
    /// taken.
    Adopt(Place, Adopter),
    /// How many of which kind are with you?
    Survey(oneshot::Sender<Survey>),
    /// Which of your connections fit, so many at most?
    List(Wanted, usize, oneshot::Sender<Vec<ConnectionInfo>>),
    /// Close the connection with this serial number. Answers whether it was there.
    Disconnect(u64, oneshot::Sender<bool>),
    /// Are you there?
    Respond(oneshot::Sender<()>),
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
