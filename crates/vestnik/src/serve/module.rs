//! The thread on which the module is served: it waits for a database, which shards must not.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vestnik_core::Expiry;
use vestnik_core::sign::KeyRing;
use vestnik_hub::Hub;
use vestnik_server::Door;
use vestnik_web::{Live, Web, WebOptions};

use crate::config::Config;

/// The module, being served.
pub(super) struct Module {
    door: Door,
    live: watch::Sender<Live>,
    stopping: CancellationToken,
    thread: JoinHandle<()>,
}

impl Module {
    /// Starts the thread; `None` when the module is switched off. Its database is waited for there.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        config: &Config,
        keys: &KeyRing,
        hub: &Arc<Hub>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(module) = &config.module else { return Ok(None) };
        // What SQLite is to make there needs the folder; a failure is told by whoever opens the file.
        if let Err(error) = crate::keygen::make_folder(&config.data_dir) {
            tracing::debug!(%error, "data folder not made");
        }
        let (live, seen) = watch::channel(Live { keys: keys.clone() });
        let options = WebOptions {
            database: module.database.clone(),
            expiry_max: Expiry::new(config.history.message_ttl.as_secs(), Expiry::MAX),
            opens_to_trusted: module.opens_to_trusted,
            live: seen,
        };
        let (door, visits) = Door::new();
        let stopping = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the module")?;
        let (hub, stop) = (Arc::clone(hub), stopping.clone());
        let clock = hub.clock().clone();
        let thread = std::thread::Builder::new()
            .name("module".to_owned())
            .spawn(move || runtime.block_on(Web::run(options, hub, clock, visits, stop)))
            .context("cannot start the module")?;
        Ok(Some(Self { door, live, stopping, thread }))
    }

    /// Where its requests go in.
    pub(super) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Tells it what the queue server has now.
    pub(super) fn tell(&self, keys: &KeyRing) {
        self.live.send_modify(|live| live.keys.clone_from(keys));
    }

    /// Ends it once what was begun is done. Blocks.
    pub(super) fn stop(self) {
        self.stopping.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the thread of the module had panicked");
        }
    }
}
