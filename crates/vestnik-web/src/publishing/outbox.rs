//! One tenant's way that loses nothing it accepted: what cannot be published now waits in the database,
//! and is sent later in the same order.
//!
//! Only what surely nobody got is sent again. Of what was sent without an answer nobody knows whether it
//! arrived; its publisher is told so. A process that ends between the answer of the server and its own note
//! of it sends those events once more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;
use vestnik_core::publisher::{
    AskError, BoxFuture, Listeners, ModuleEvent, PublishError, Publisher,
};
use vestnik_core::{Clock, UserId};
use vestnik_publisher::RemotePublisher;
use vestnik_service::option::{Key, Options};
use vestnik_service::outbox::{WAITING_BYTES_MAX, WAITING_MAX};
use vestnik_service::rest::{RestError, ServerState};
use vestnik_service::{DatabaseError, Tenant};

use super::way::{Made, Way, breaker_text};

/// Events of one turn of sending what waits.
const TURN_EVENTS: usize = 100;
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A tenant's way. Cheap to hold, shared by all calls.
pub(crate) struct Durable(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    clock: Clock,
    tasks: TaskTracker,
    way: Mutex<Option<Current>>,
    /// Whether it is known how much waits in the database.
    has_begun: AtomicBool,
    /// Held by whoever changes what waits.
    order: tokio::sync::Mutex<()>,
    waiting: AtomicU64,
    waiting_bytes: AtomicU64,
    is_sending: AtomicBool,
    last_error: Mutex<Option<(String, u64)>>,
    /// The state of the breaker that was written down last.
    written: Mutex<String>,
}

/// The server in use, and the options it was made for.
#[derive(Clone)]
struct Current {
    options: Arc<Options>,
    way: Way,
    publisher: Arc<dyn Publisher>,
    remote: Option<Arc<RemotePublisher>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Durable {
    pub(super) fn new(tenant: Tenant, clock: Clock, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner {
            tenant,
            clock,
            tasks,
            way: Mutex::default(),
            has_begun: AtomicBool::new(false),
            order: tokio::sync::Mutex::default(),
            waiting: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            is_sending: AtomicBool::new(false),
            last_error: Mutex::default(),
            written: Mutex::default(),
        }))
    }

    /// Whether the server in use was made for these options.
    pub(super) fn is_for(&self, options: &Arc<Options>) -> bool {
        locked(&self.0.way).as_ref().is_some_and(|way| Arc::ptr_eq(&way.options, options))
    }

    /// Has the next caller look at the options again.
    pub(super) fn forget(&self) {
        *locked(&self.0.way) = None;
    }

    /// Goes over to the server that new options name, unless it is the same one.
    pub(super) fn take(
        &self,
        options: &Arc<Options>,
        way: Way,
        make: impl FnOnce(&Way) -> Result<Made, RestError>,
    ) -> Result<(), RestError> {
        let mut current = locked(&self.0.way);
        if let Some(known) = &mut *current
            && known.way == way
        {
            known.options = Arc::clone(options);
            return Ok(());
        }
        let Made { publisher, remote } = make(&way)?;
        *current = Some(Current { options: Arc::clone(options), way, publisher, remote });
        Ok(())
    }

    /// Learns once what waits in the database, and has it sent.
    pub(super) async fn begin(&self) -> Result<(), DatabaseError> {
        if self.0.has_begun.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _order = self.0.order.lock().await;
        if self.0.has_begun.load(Ordering::SeqCst) {
            return Ok(());
        }
        let waiting = self.0.tenant.waiting().await?;
        self.0.waiting.store(waiting.count, Ordering::SeqCst);
        self.0.waiting_bytes.store(waiting.bytes, Ordering::SeqCst);
        self.0.has_begun.store(true, Ordering::SeqCst);
        if waiting.count > 0 {
            self.0.send_later();
        }
        Ok(())
    }

    pub(super) fn state(&self) -> ServerState {
        let remote = locked(&self.0.way).as_ref().and_then(|way| way.remote.clone());
        let breaker = remote.and_then(|remote| remote.breaker().state());
        ServerState {
            last_error: locked(&self.0.last_error).clone(),
            is_stopped: breaker.is_some_and(|state| state.count >= 10),
            waiting: self.0.waiting.load(Ordering::SeqCst),
        }
    }

    fn publisher(&self) -> Option<Arc<dyn Publisher>> {
        self.0.publisher()
    }
}

impl Inner {
    fn publisher(&self) -> Option<Arc<dyn Publisher>> {
        locked(&self.way).as_ref().map(|way| Arc::clone(&way.publisher))
    }

    fn note(&self, error: &PublishError) {
        *locked(&self.last_error) = Some((error.to_string(), self.clock.unix_s()));
    }

    /// Writes the state of the breaker down where the PHP module keeps it.
    async fn keep_breaker(&self) {
        let remote = locked(&self.way).as_ref().and_then(|way| way.remote.clone());
        let Some(remote) = remote else { return };
        let text = breaker_text(remote.breaker().state());
        let is_known = {
            let mut written = locked(&self.written);
            let is_known = *written == text || (written.is_empty() && text == "N");
            written.clone_from(&text);
            is_known
        };
        if !is_known && let Err(error) = self.tenant.keep_state(Key::NginxError, &text).await {
            tracing::warn!(%error, "the state of the breaker was not written");
        }
    }

    async fn publish(self: &Arc<Self>, events: &[ModuleEvent]) -> Vec<Result<(), PublishError>> {
        let Some(publisher) = self.publisher() else {
            let error = PublishError::Unpublished("the options changed; try again".into());
            return vec![Err(error); events.len()];
        };
        // What waits goes first.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let all: Vec<usize> = (0..events.len()).collect();
            let mut outcomes = vec![Ok(()); events.len()];
            self.keep(events, &all, &mut outcomes).await;
            return outcomes;
        }
        let mut outcomes = if locked(&self.way).as_ref().is_some_and(|way| way.remote.is_some()) {
            self.publish_elsewhere(publisher, events.to_vec()).await
        } else {
            publisher.publish(events).await
        };
        let failed = |outcome: &Result<(), PublishError>| {
            outcome.as_ref().is_err_and(PublishError::may_be_repeated)
        };
        let again: Vec<usize> = (0..outcomes.len()).filter(|at| failed(&outcomes[*at])).collect();
        if let Some(error) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
            self.note(error);
            self.keep_breaker().await;
        }
        if !again.is_empty() {
            self.keep(events, &again, &mut outcomes).await;
        }
        outcomes
    }

    /// Publishes over the network, on the thread that serves its connections, whoever calls: there it is known
    /// first which of them were closed meanwhile.
    async fn publish_elsewhere(
        &self,
        publisher: Arc<dyn Publisher>,
        events: Vec<ModuleEvent>,
    ) -> Vec<Result<(), PublishError>> {
        let count = events.len();
        let publishing = self.tasks.spawn(async move { publisher.publish(&events).await });
        let failed = |_| vec![Err(PublishError::Unknown("publishing failed".into())); count];
        publishing.await.unwrap_or_else(failed)
    }

    /// Has events wait. The outcome of one that cannot says why.
    async fn keep(
        self: &Arc<Self>,
        events: &[ModuleEvent],
        which: &[usize],
        outcomes: &mut [Result<(), PublishError>],
    ) {
        let _order = self.order.lock().await;
        let kept: Vec<ModuleEvent> = which.iter().map(|at| events[*at].clone()).collect();
        let bytes: u64 = kept.iter().map(|event| event.body.len() as u64).sum();
        let count = kept.len() as u64;
        let is_full = self.waiting.load(Ordering::SeqCst) + count > WAITING_MAX
            || self.waiting_bytes.load(Ordering::SeqCst) + bytes > WAITING_BYTES_MAX;
        let result = if is_full {
            Err("too many events wait for the queue server")
        } else {
            self.tenant.keep_events(&kept).await.map_err(|error| {
                tracing::error!(%error, "events could not be kept");
                "it is not reached, and the database does not keep the event"
            })
        };
        if result.is_ok() {
            self.waiting.fetch_add(count, Ordering::SeqCst);
            self.waiting_bytes.fetch_add(bytes, Ordering::SeqCst);
            self.send_later();
        }
        for at in which {
            outcomes[*at] = result.map_err(|text| PublishError::Unpublished(text.into()));
        }
    }

    /// Sends what waits, in a task of its own; there is one at a time.
    fn send_later(self: &Arc<Self>) {
        if self.is_sending.swap(true, Ordering::SeqCst) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut pause = PAUSE_MIN;
            loop {
                match inner.send_turn().await {
                    Ok(Turn::Done) => break,
                    Ok(Turn::More) => pause = PAUSE_MIN,
                    Ok(Turn::Later) => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "waiting events cannot be read; it is tried again");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
            }
        });
    }

    /// Sends some of what waits. Other processes on the database keep out meanwhile.
    async fn send_turn(&self) -> Result<Turn, DatabaseError> {
        const LOCK_WAIT: Duration = Duration::from_secs(1);
        let lock = self.tenant.outbox_lock();
        let database = self.tenant.service().database().clone();
        let Some(guard) = database.lock(&lock, LOCK_WAIT).await? else { return Ok(Turn::Later) };
        let turn = self.send_locked().await;
        guard.release().await?;
        turn
    }

    async fn send_locked(&self) -> Result<Turn, DatabaseError> {
        let waiting = self.tenant.waiting_events(TURN_EVENTS).await?;
        if waiting.is_empty() {
            let _order = self.order.lock().await;
            // Somebody may have added while the lock was waited for.
            let left = self.tenant.waiting().await?;
            self.waiting.store(left.count, Ordering::SeqCst);
            self.waiting_bytes.store(left.bytes, Ordering::SeqCst);
            if left.count > 0 {
                return Ok(Turn::More);
            }
            self.is_sending.store(false, Ordering::SeqCst);
            return Ok(Turn::Done);
        }
        let expired: Vec<i64> = waiting.iter().filter(|it| it.is_expired).map(|it| it.id).collect();
        if !expired.is_empty() {
            tracing::warn!(count = expired.len(), "events expired before their server came back");
            self.tenant.forget_events(&expired).await?;
        }
        let (ids, events): (Vec<i64>, Vec<ModuleEvent>) =
            waiting.into_iter().filter(|it| !it.is_expired).map(|it| (it.id, it.event)).unzip();
        // Options may have changed while they waited.
        let Some(publisher) = self.publisher() else { return Ok(Turn::Later) };
        let outcomes = publisher.publish(&events).await;
        let mut gone = Vec::with_capacity(ids.len());
        let mut is_reached = true;
        for (id, outcome) in ids.into_iter().zip(&outcomes) {
            match outcome {
                Ok(()) => gone.push(id),
                Err(error) if error.may_be_repeated() => is_reached = false,
                Err(error) => {
                    tracing::warn!(%error, "an event that waited was not published");
                    gone.push(id);
                }
            }
        }
        if let Some(error) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
            self.note(error);
        }
        self.keep_breaker().await;
        self.tenant.forget_events(&gone).await?;
        // Of bytes it is counted anew when nothing is left.
        let count = gone.len() as u64;
        let less = |waiting: u64| Some(waiting.saturating_sub(count).max(1));
        // The closure always has a value.
        let _ = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        Ok(if is_reached { Turn::More } else { Turn::Later })
    }
}

/// What a turn of sending came to.
enum Turn {
    /// Nothing waits.
    Done,
    /// More may wait.
    More,
    /// The server does not take them now.
    Later,
}

impl Publisher for Durable {
    fn addresses_users(&self) -> bool {
        self.publisher().is_some_and(|publisher| publisher.addresses_users())
    }

    fn publish<'a>(
        &'a self,
        events: &'a [ModuleEvent],
    ) -> BoxFuture<'a, Vec<Result<(), PublishError>>> {
        Box::pin(self.0.publish(events))
    }

    fn listeners<'a>(
        &'a self,
        channels: &'a [vestnik_core::ChannelId],
    ) -> BoxFuture<'a, Result<Vec<Listeners>, AskError>> {
        Box::pin(async move {
            let publisher = self.publisher().ok_or_else(changed)?;
            publisher.listeners(channels).await
        })
    }

    fn last_seen<'a>(
        &'a self,
        users: &'a [UserId],
    ) -> BoxFuture<'a, Result<Vec<(UserId, u64)>, AskError>> {
        Box::pin(async move {
            let publisher = self.publisher().ok_or_else(changed)?;
            publisher.last_seen(users).await
        })
    }

    fn update_last_seen<'a>(
        &'a self,
        seen_s: &'a [(UserId, u64)],
    ) -> BoxFuture<'a, Result<(), AskError>> {
        Box::pin(async move {
            let publisher = self.publisher().ok_or_else(changed)?;
            publisher.update_last_seen(seen_s).await
        })
    }
}

fn changed() -> AskError {
    AskError::Failed("the options changed; try again".into())
}
