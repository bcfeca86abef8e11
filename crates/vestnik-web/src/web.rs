//! The front: takes requests, serves them beside each other, and stops in order.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vestnik_core::{Clock, Expiry};
use vestnik_hub::Hub;
use vestnik_server::Visit;
use vestnik_service::{DatabaseOptions, Notice, Service, ServiceError};

use crate::admin::{self, Admin, AdminParts};
use crate::answer::{self, Answer};
use crate::publishing::Publishers;

/// What the module service is told.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// Where its tables are.
    pub database: DatabaseOptions,
    /// The longest time a message is kept.
    pub expiry_max: Expiry,
}

/// The module service over HTTP.
pub struct Web {
    service: Service,
    publishers: Arc<Publishers>,
    admin: Admin,
}

impl Web {
    /// Requests that are served at a time; more wait.
    const AT_A_TIME: usize = 64;

    /// Serves `visits` until `stopping`, then finishes what it has begun. A database that is not there is
    /// tried again for ever; visits are refused meanwhile. Needs a tokio runtime with timers and
    /// sockets.
    pub async fn run(
        options: WebOptions,
        hub: Arc<Hub>,
        clock: Clock,
        mut parts: AdminParts,
        mut visits: mpsc::Receiver<Visit>,
        stopping: CancellationToken,
    ) {
        let Some((service, notices)) = open(&options, &clock, &mut visits, &stopping).await else {
            return;
        };
        let publishers = Arc::new(Publishers::new(Arc::clone(&hub), options.expiry_max));
        admin::make_first_administrator(&service, &mut parts).await;
        let admin = Admin::new(service.clone(), hub, Arc::clone(&publishers), parts);
        let web = Arc::new(Self { service, publishers, admin });
        let tasks = TaskTracker::new();
        let told = Arc::clone(&web);
        let telling = tasks.spawn(async move { told.publishers.publish_notices(notices).await });
        let (followed, stop) = (Arc::clone(&web), stopping.clone());
        tasks.spawn(async move { followed.admin.follow_settings(&stop).await });
        let places = Arc::new(Semaphore::new(Self::AT_A_TIME));
        loop {
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                () = stopping.cancelled() => break,
            };
            let visit = tokio::select! {
                visit = visits.recv() => visit,
                () = stopping.cancelled() => break,
            };
            let Some(visit) = visit else { break };
            let web = Arc::clone(&web);
            tasks.spawn(async move {
                let _place = place;
                let answer = web.answer(&visit).await;
                visit.answer(answer);
            });
        }
        // Whoever has a place is served to the end; the time of it is limited by the one who waits.
        let served = u32::try_from(Self::AT_A_TIME).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(Visit::PATIENCE, places.acquire_many(served)).await;
        telling.abort();
        web.service.database().close().await;
    }

    /// The answer to a request.
    async fn answer(&self, visit: &Visit) -> Answer {
        if visit.path().starts_with("/admin/") {
            return self.admin.answer(visit).await;
        }
        answer::error(StatusCode::NOT_FOUND, "ERROR_METHOD_NOT_FOUND", visit.path())
    }
}

/// The service; `None` when it is to stop before its database is there.
async fn open(
    options: &WebOptions,
    clock: &Clock,
    visits: &mut mpsc::Receiver<Visit>,
    stopping: &CancellationToken,
) -> Option<(Service, mpsc::Receiver<Notice>)> {
    const PAUSE_MAX: Duration = Duration::from_secs(30);
    let mut pause = Duration::from_millis(500);
    loop {
        let opened = serve_meanwhile(visits, Service::open(&options.database, clock.clone()));
        let error: ServiceError = tokio::select! {
            opened = opened => match opened {
                Ok(opened) => return Some(opened),
                Err(error) => error,
            },
            () = stopping.cancelled() => {
                tracing::warn!("stopping before the database of the module was reached");
                return None;
            }
        };
        let causes =
            std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        tracing::error!(
            error = causes.join(": "),
            again_in = ?pause,
            "the module is not available; the queue server works without it"
        );
        tokio::select! {
            () = serve_meanwhile(visits, tokio::time::sleep(pause)) => {}
            () = stopping.cancelled() => return None,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Waits for `work`; who comes meanwhile is told that nothing is there yet.
async fn serve_meanwhile<T>(
    visits: &mut mpsc::Receiver<Visit>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(visit) = visits.recv() => visit.answer(answer::unavailable()),
        }
    }
}
