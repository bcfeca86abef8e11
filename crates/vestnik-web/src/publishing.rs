//! What the service wants told to clients, published.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use vestnik_core::Expiry;
use vestnik_core::publisher::{EVENTS_MAX, ModuleEvent, Publisher};
use vestnik_hub::Hub;
use vestnik_server::LocalPublisher;
use vestnik_service::Notice;

/// The ways to the queue servers of all tenants.
pub(crate) struct Publishers {
    hub: Arc<Hub>,
    expiry_max: Expiry,
    ways: Mutex<HashMap<String, Arc<dyn Publisher>>>,
}

impl Publishers {
    pub(crate) fn new(hub: Arc<Hub>, expiry_max: Expiry) -> Self {
        Self { hub, expiry_max, ways: Mutex::default() }
    }

    /// The way to the queue server of a tenant.
    pub(crate) fn of(&self, host_id: &str) -> Arc<dyn Publisher> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let way = ways.entry(host_id.to_owned()).or_insert_with(|| {
            let hub = Arc::clone(&self.hub);
            Arc::new(LocalPublisher::new(hub, host_id, self.expiry_max))
        });
        Arc::clone(way)
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
                let outcomes = self.of(&host_id).publish(&events).await;
                for error in outcomes.into_iter().filter_map(Result::err) {
                    tracing::warn!(%error, "a notice of the module was not published");
                }
            }
        }
    }
}
