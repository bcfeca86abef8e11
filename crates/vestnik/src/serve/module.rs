//! The thread on which the module is served: it waits for a database, which shards must not.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vestnik_core::Expiry;
use vestnik_core::sign::KeyRing;
use vestnik_hub::Hub;
use vestnik_server::{Server, Visits};
use vestnik_service::option::{Key, OwnValues};
use vestnik_web::{AdminOptions, AdminParts, Live, Web, WebOptions};

use crate::config::{Config, KeySource};
use crate::summary;

/// The module, being served.
pub(super) struct Module {
    stopping: CancellationToken,
    own_values: watch::Sender<OwnValues>,
    live: watch::Sender<Live>,
    thread: JoinHandle<()>,
}

impl Module {
    /// Starts the thread for what comes through the door; `None` when the module is switched off. Its
    /// database is waited for there.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        config: &Config,
        hub: Arc<Hub>,
        server: &Server,
        visits: Visits,
        keys: &KeyRing,
    ) -> anyhow::Result<Option<Self>> {
        let Some(module) = &config.module else { return Ok(None) };
        // What SQLite is to make there needs the folder; a failure is told by whoever opens the file.
        if let Err(error) = crate::keygen::make_folder(&config.data_dir) {
            tracing::debug!(%error, "data folder not made");
        }
        let (live, seen) =
            watch::channel(Live { keys: keys.clone(), addresses: server.addresses().to_vec() });
        let options = WebOptions {
            database: module.database.clone(),
            expiry_max: Expiry::new(config.history.message_ttl.as_secs(), Expiry::MAX),
            opens_to_trusted: module.opens_to_trusted,
            tls: Arc::clone(&module.tls),
            cloud_directory: module.cloud_directory.clone(),
            live: seen,
        };
        let (own_values, values) = watch::channel(own_values(config, keys));
        let addresses = server.addresses();
        let page = summary::admin_page(config, addresses);
        let parts = AdminParts {
            options: AdminOptions {
                session_lifetime: module.admin.session_lifetime,
                proxy_user_header: module.admin.proxy_user_header.clone(),
                node: super::process_unique_id(),
                shows_bodies: module.admin.shows_bodies,
                cloud: module.cloud_directory.clone(),
                own_addresses: summary::own_addresses(config, addresses),
            },
            server: server.handle(),
            own_values: values,
            print_first_password: Box::new(move |login, password| {
                summary::print_password(page.as_deref(), login, password);
            }),
        };
        let stopping = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the module")?;
        let stop = stopping.clone();
        let clock = hub.clock().clone();
        let thread = std::thread::Builder::new()
            .name("module".to_owned())
            .spawn(move || runtime.block_on(Web::run(options, hub, clock, parts, visits, stop)))
            .context("cannot start the module")?;
        Ok(Some(Self { stopping, own_values, live, thread }))
    }

    /// Tells it that the configuration has changed.
    pub(super) fn reload(&self, config: &Config, keys: &KeyRing) {
        // The thread may have ended already.
        let _ = self.own_values.send(own_values(config, keys));
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

/// What the configuration says about options of the default tenant: a key that stands there pins the
/// field of the settings page, a generated one is where it begins.
pub(crate) fn own_values(config: &Config, keys: &KeyRing) -> OwnValues {
    let mut values = OwnValues::default();
    let Some(key) = keys.signing_key() else { return values };
    let both = [
        (Key::SignatureKey, key.secret().expose().clone()),
        (Key::SignatureAlgo, key.algorithm().name().to_owned()),
    ];
    match &config.security.keys {
        KeySource::File { generate: true, .. } => values.generated.extend(both),
        KeySource::File { .. } | KeySource::Configured { .. } => values.pinned.extend(both),
        KeySource::Unsigned => {}
    }
    values
}
