//! The ways to the queue servers of all tenants: which one a tenant's options name, what is told through
//! it, and what waits while it cannot be reached.

mod outbox;
mod way;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use vestnik_core::publisher::{EVENTS_MAX, ModuleEvent, Publisher};
use vestnik_core::{Clock, Expiry};
use vestnik_hub::Hub;
use vestnik_publisher::{BreakerEvent, TlsConfig};
use vestnik_service::rest::{RestError, ServerState};
use vestnik_service::{Notice, Service, Tenant};

pub(crate) use outbox::Durable;
use way::Way;

/// What breakers said, that wait to be written down; more are dropped: the next one says it again.
const TOLD_MAX: usize = 64;

/// The ways to the queue servers of all tenants.
pub(crate) struct Publishers {
    service: Service,
    hub: Arc<Hub>,
    clock: Clock,
    expiry_max: Expiry,
    tls: TlsConfig,
    /// Where the queue server of this process listens.
    own: Mutex<Vec<SocketAddr>>,
    ways: Mutex<HashMap<String, Arc<Durable>>>,
    breakers: mpsc::Sender<(String, BreakerEvent)>,
    tasks: TaskTracker,
}

/// What breakers say, with the `hostId`.
pub(crate) type Breakers = mpsc::Receiver<(String, BreakerEvent)>;

impl Publishers {
    /// The ways of a service; tasks that send what waits are kept by `tasks`.
    pub(crate) fn new(
        service: Service,
        hub: Arc<Hub>,
        expiry_max: Expiry,
        tls: TlsConfig,
        tasks: TaskTracker,
    ) -> (Self, Breakers) {
        let (breakers, said) = mpsc::channel(TOLD_MAX);
        let clock = service.clock().clone();
        let publishers = Self {
            service,
            hub,
            clock,
            expiry_max,
            tls,
            own: Mutex::default(),
            ways: Mutex::default(),
            breakers,
            tasks,
        };
        (publishers, said)
    }

    /// Where the queue server of this process listens now.
    pub(crate) fn set_own(&self, addresses: Vec<SocketAddr>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        for way in ways.values() {
            way.forget();
        }
    }

    /// The way to the queue server of a tenant, as its options are now.
    ///
    /// # Errors
    /// When the options cannot be read, or make no server.
    pub(crate) async fn of(&self, tenant: &Tenant) -> Result<Arc<Durable>, RestError> {
        let options = tenant.options("").await?;
        let durable = {
            let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
            let way = ways.entry(tenant.host_id().to_owned()).or_insert_with(|| {
                Arc::new(Durable::new(tenant.clone(), self.clock.clone(), self.tasks.clone()))
            });
            Arc::clone(way)
        };
        if !durable.is_for(&options) {
            let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let way = Way::of(&options, tenant.host_id(), &own);
            durable.take(&options, way, |way| self.publisher(tenant, &options, way))?;
        }
        durable.begin().await?;
        Ok(durable)
    }

    /// The way as the options are now, which stays the same when they change. What it cannot publish
    /// does not wait.
    ///
    /// # Errors
    /// When the options cannot be read, or make no server.
    pub(crate) async fn as_now(&self, tenant: &Tenant) -> Result<Arc<dyn Publisher>, RestError> {
        let options = tenant.options("").await?;
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let way = Way::of(&options, tenant.host_id(), &own);
        Ok(self.publisher(tenant, &options, &way)?.publisher)
    }

    fn publisher(
        &self,
        tenant: &Tenant,
        options: &vestnik_service::option::Options,
        way: &Way,
    ) -> Result<way::Made, RestError> {
        let (breakers, host_id) = (self.breakers.clone(), tenant.host_id().to_owned());
        let tell = move |event| {
            if breakers.try_send((host_id.clone(), event)).is_err() {
                tracing::warn!("what a breaker says is not written down: too much waits");
            }
        };
        let local = (Arc::clone(&self.hub), self.expiry_max);
        way.publisher(options, local, Some(self.tls.clone()), self.clock.clone(), Box::new(tell))
    }

    /// What became of the last events of a tenant.
    pub(crate) fn state(&self, tenant: &Tenant) -> ServerState {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.get(tenant.host_id()).map(|way| way.state()).unwrap_or_default()
    }

    /// Goes on with what waited when the process ended last.
    pub(crate) async fn resume(&self) {
        let waiting = match self.service.tenants_with_waiting_events().await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(%error, "events that wait cannot be read; it is tried again");
                return;
            }
        };
        for host_id in waiting {
            let tenant = match self.service.tenant(&host_id).await {
                Ok(Some(tenant)) => tenant,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a tenant with waiting events cannot be read");
                    continue;
                }
            };
            if let Err(error) = self.of(&tenant).await {
                tracing::warn!(%error, "events wait and their server cannot be reached");
            }
        }
    }

    /// Publishes notices until no more can come: the service is gone.
    pub(crate) async fn publish_notices(&self, mut notices: mpsc::Receiver<Notice>) {
        let mut waiting = Vec::new();
        while notices.recv_many(&mut waiting, EVENTS_MAX).await > 0 {
            let mut of_tenants: HashMap<String, Vec<ModuleEvent>> = HashMap::new();
            for Notice { host_id, event } in waiting.drain(..) {
                of_tenants.entry(host_id).or_default().push(event);
            }
            for (host_id, events) in of_tenants {
                if let Err(error) = self.publish_notices_of(&host_id, &events).await {
                    tracing::warn!(%error, "notices of the module were not published");
                }
            }
        }
    }

    async fn publish_notices_of(
        &self,
        host_id: &str,
        events: &[ModuleEvent],
    ) -> Result<(), RestError> {
        let Some(tenant) = self.service.tenant(host_id).await? else { return Ok(()) };
        let outcomes = self.of(&tenant).await?.publish(events).await;
        for error in outcomes.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a notice of the module was not published");
        }
        Ok(())
    }
}
