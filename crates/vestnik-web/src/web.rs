//! The front: takes requests, serves them beside each other, and stops in order.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vestnik_core::publisher::BoxFuture;
use vestnik_core::sign::KeyRing;
use vestnik_core::{Clock, Expiry};
use vestnik_hub::Hub;
use vestnik_publisher::TlsConfig;
use vestnik_server::{FrontDesk, Visit, Visits};
use vestnik_service::rest::OPEN_TO_ALL;
use vestnik_service::{DatabaseOptions, Notice, Service, ServiceError};

use crate::admin::{self, Admin, AdminParts};
use crate::answer::{self, Answer};
use crate::compatible::{CONTROLLER_PATH, POLLING_PATH};
use crate::hooks::HttpHooks;
use crate::jobs;
use crate::publishing::{Breakers, Publishers};
use crate::pushing::{self, Gateways};
use crate::rest;

/// What the paths of operations begin with.
const OPERATIONS_PATH: &str = "/module/";

/// What the module service is told.
#[derive(Clone, Debug)]
pub struct WebOptions {
    /// Where its tables are.
    pub database: DatabaseOptions,
    /// The longest time a message is kept.
    pub expiry_max: Expiry,
    /// Whether addresses of trusted routes may call operations of the default tenant's back end without
    /// any proof.
    pub opens_to_trusted: bool,
    /// Whom the certificates of other servers are checked with.
    pub tls: TlsConfig,
    /// Where the directory of the cloud is; `None`: by the region of the site.
    pub cloud_directory: Option<String>,
    /// What may change while it runs.
    pub live: watch::Receiver<Live>,
}

/// The queue server in the same process, as it is now.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Its keys: the default tenant signs with them unless it has one of its own.
    pub keys: KeyRing,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
}

fn take_over(web: &Web, live: &Live) {
    web.service.set_own_key(live.keys.signing_key().cloned());
    web.publishers.set_own(live.addresses.clone());
}

/// The module service over HTTP.
pub struct Web {
    pub(crate) service: Service,
    pub(crate) publishers: Arc<Publishers>,
    pub(crate) options: WebOptions,
    /// Whoever tries the addresses of options has one of these.
    pub(crate) checking: Semaphore,
    admin: Admin,
    /// Whoever serves a request has one of these.
    places: Arc<Semaphore>,
    /// Timers, sockets and tasks of requests belong to it, on whatever thread they are served.
    runtime: Handle,
}

impl FrontDesk for Web {
    fn serve(self: Arc<Self>, visit: Visit) -> Result<BoxFuture<'static, ()>, Box<Visit>> {
        let operation = match visit.path().strip_prefix(OPERATIONS_PATH) {
            Some(operation) if rest::is_little_work(&visit, operation) => operation.to_owned(),
            _ => return Err(Box::new(visit)),
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Box::new(visit));
        };
        let runtime = self.runtime.clone();
        let serving = async move {
            let _place = place;
            let answer = self.operate(&visit, &operation).await;
            visit.answer(answer);
        };
        Ok(Box::pin(OfRuntime { runtime, future: Some(Box::pin(serving)) }))
    }

    fn wants_body(&self, visit: &Visit) -> bool {
        let Some(operation) = visit.path().strip_prefix(OPERATIONS_PATH) else { return true };
        rest::may_be_somebody(visit) || operation.eq_ignore_ascii_case(OPEN_TO_ALL)
    }
}

/// A future of a runtime that is run by another thread. What it makes, and what is undone when it is cut off,
/// belongs to the runtime.
struct OfRuntime {
    runtime: Handle,
    /// There until it is dropped.
    future: Option<BoxFuture<'static, ()>>,
}

impl Future for OfRuntime {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let _inside = this.runtime.enter();
        this.future.as_mut().map_or(Poll::Ready(()), |future| future.as_mut().poll(context))
    }
}

impl Drop for OfRuntime {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.future = None;
    }
}

impl Web {
    /// Requests that are served at a time; more wait.
    const AT_A_TIME: usize = 64;
    /// Checks of addresses that are made at a time.
    const CHECKING_AT_A_TIME: usize = 2;
    /// Batches of notifications that are sent at a time.
    const PUSHING_AT_A_TIME: usize = 8;

    /// Serves `visits` until `stopping`, then finishes what it has begun. A database that is not there is
    /// tried again for ever; visits are refused meanwhile. Needs a tokio runtime with timers and
    /// sockets.
    pub async fn run(
        options: WebOptions,
        hub: Arc<Hub>,
        clock: Clock,
        mut parts: AdminParts,
        mut visits: Visits,
        stopping: CancellationToken,
    ) {
        let Some((service, notices)) = open(&options, &clock, &mut visits, &stopping).await else {
            return;
        };
        let tls = options.tls.clone();
        service.set_hooks(Arc::new(HttpHooks::new(tls.clone())));
        let tasks = TaskTracker::new();
        let (publishers, breakers) = Publishers::new(
            service.clone(),
            Arc::clone(&hub),
            options.expiry_max,
            tls,
            tasks.clone(),
        );
        let publishers = Arc::new(publishers);
        let mut live = options.live.clone();
        admin::make_first_administrator(&service, &mut parts).await;
        let admin =
            Admin::new(service.clone(), hub, Arc::clone(&publishers), parts, options.tls.clone());
        let web = Arc::new(Self {
            service,
            publishers,
            options,
            checking: Semaphore::new(Self::CHECKING_AT_A_TIME),
            admin,
            places: Arc::new(Semaphore::new(Self::AT_A_TIME)),
            runtime: Handle::current(),
        });
        let helpers = Self::start_beside(&web, &tasks, notices, breakers);
        let pushing = Self::start_pushing(&web, &tasks, &stopping);
        // Nobody is served before the keys are known.
        take_over(&web, &live.borrow_and_update());
        web.admin.apply_settings().await;
        let (followed, stop) = (Arc::clone(&web), stopping.clone());
        tasks.spawn(async move { followed.admin.follow_settings(&stop).await });
        let kept = Arc::clone(&web);
        let keeping = tasks.spawn(async move {
            while live.changed().await.is_ok() {
                take_over(&kept, &live.borrow_and_update());
            }
        });
        let desk: Weak<dyn FrontDesk> = Arc::<Self>::downgrade(&web);
        visits.serve_at(desk);
        loop {
            let place = tokio::select! {
                place = Arc::clone(&web.places).acquire_owned() => place,
                () = stopping.cancelled() => break,
            };
            let visit = tokio::select! {
                visit = visits.next() => visit,
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
        // Whoever has a place in here is served to the end; the time of it is limited by the one who waits. The
        // shards, and what they served at the desk, have ended by now.
        let served = u32::try_from(Self::AT_A_TIME).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(Visit::PATIENCE, web.places.acquire_many(served)).await;
        web.places.close();
        // What was sent to a gateway is written down, lest it is sent once more.
        for sending in pushing {
            let _ = tokio::time::timeout(pushing::WITHIN, sending).await;
        }
        keeping.abort();
        helpers.iter().for_each(tokio::task::JoinHandle::abort);
        web.service.database().close().await;
    }

    /// What runs beside requests until the end.
    fn start_beside(
        web: &Arc<Self>,
        tasks: &TaskTracker,
        notices: mpsc::Receiver<Notice>,
        breakers: Breakers,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let (service, publishers) = (web.service.clone(), Arc::clone(&web.publishers));
        let telling = tasks.spawn(async move { publishers.publish_notices(notices).await });
        let hearing = tasks.spawn(jobs::hear_breakers(service.clone(), breakers));
        let working = tasks.spawn(jobs::run(service, Arc::clone(&web.publishers)));
        vec![telling, hearing, working]
    }

    /// Those who send notifications to gateways.
    fn start_pushing(
        web: &Arc<Self>,
        tasks: &TaskTracker,
        stopping: &CancellationToken,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let gateways = Arc::new(Gateways::new(web.options.tls.clone()));
        let pushing = || {
            let (service, gateways) = (web.service.clone(), Arc::clone(&gateways));
            tasks.spawn(pushing::run(service, gateways, stopping.clone()))
        };
        (0..Self::PUSHING_AT_A_TIME).map(|_| pushing()).collect()
    }

    /// The answer to a request.
    async fn answer(&self, visit: &Visit) -> Answer {
        match visit.path().strip_prefix(OPERATIONS_PATH) {
            Some(operation) => self.operate(visit, operation).await,
            None if visit.path().starts_with("/admin/") => self.admin.answer(visit).await,
            None if visit.path() == POLLING_PATH => self.poll(visit).await,
            None if visit.path() == CONTROLLER_PATH => self.control(visit).await,
            None => answer::error(StatusCode::NOT_FOUND, "NOT_FOUND", visit.path()),
        }
    }
}

/// The service; `None` when it is to stop before its database is there.
async fn open(
    options: &WebOptions,
    clock: &Clock,
    visits: &mut Visits,
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
async fn serve_meanwhile<T>(visits: &mut Visits, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(visit) = visits.next() => visit.answer(answer::unavailable()),
        }
    }
}
