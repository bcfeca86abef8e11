//! The front: the service, its tenants, and what a tenant keeps in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use vestnik_core::Clock;
use vestnik_core::publisher::ModuleEvent;

use crate::access::Right;
use crate::cache::Recent;
use crate::channel::{CachedChannel, ChannelKey};
use crate::db::{Database, DatabaseError, DatabaseOptions, Statement, Value};
use crate::hook::{Hooks, NoHooks};
use crate::notice::Notice;
use crate::option::{Files, Key, OptionError, Options, OwnValues};
use crate::site::ModuleUse;

/// Notices that wait for the publisher at most; who makes another one waits.
const NOTICES_MAX: usize = 1024;
/// Channels of one tenant held in memory, at least.
const CHANNELS_MAX: usize = 50_000;
/// Sites of one tenant whose host names are held in memory, at least.
const SITES_MAX: usize = 1000;
/// Letters of a `hostId`.
const HOST_ID_LENGTH: usize = 32;
const HOST_ID_BYTES_MAX: usize = 64;
/// The tenant of installations that have one: its id is what rows of the PHP module fall to.
const DEFAULT_TENANT: i64 = 1;
/// Secrets held in memory, at least.
const KNOWN_SECRETS_MAX: usize = 1000;

/// Why the service or a tenant cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The database failed.
    #[error("the database of the module failed")]
    Database(#[from] DatabaseError),
    /// Options of a new tenant could not be written.
    #[error("the options of a new tenant could not be written")]
    Options(#[from] OptionError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A `hostId` is 1 to 64 letters, digits, `.`, `_`, `-`.
    #[error("a host id has 1 to 64 letters, digits, `.`, `_` and `-`")]
    HostId,
}

/// The module as a service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    clock: Clock,
    notices: mpsc::Sender<Notice>,
    tenants: Mutex<HashMap<String, Arc<State>>>,
    /// The tenant with the first number, once it was read: its row never changes.
    default: OnceLock<Arc<State>>,
    /// Secrets of back ends by their hashes: tenant, right, and when that was read.
    secrets: Mutex<Recent<String, KnownSecret>>,
    /// What the queue server in this process signs with; options that name no key have it.
    own_key: Mutex<Option<vestnik_core::sign::Key>>,
    /// What asks back ends.
    hooks: Mutex<Arc<dyn Hooks>>,
    /// Wakes whoever sends to gateways.
    pushing: tokio::sync::Notify,
}

/// Tenant and right of a secret, and when that was read.
pub(crate) type KnownSecret = ((String, Right), u64);

/// One customer: everything the module does is done for one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tenant {
    service: Service,
    state: Arc<State>,
}

/// What the list of tenants shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantInfo {
    /// Its `hostId`.
    pub host_id: String,
    /// Its name.
    pub name: String,
    /// Whether it is in use.
    pub is_active: bool,
    /// When it was made, unix seconds.
    pub made_s: i64,
}

/// What is kept of a tenant in memory.
#[derive(Debug)]
pub(crate) struct State {
    id: i64,
    host_id: String,
    options: Mutex<HashMap<String, (Arc<Options>, u64)>>,
    options_version: AtomicU64,
    files: Mutex<Files>,
    own_values: Mutex<OwnValues>,
    channels: Mutex<Recent<ChannelKey, CachedChannel>>,
    /// Grows with each change that makes what was read before it wrong.
    channels_version: AtomicU64,
    site_names: Mutex<Recent<String, (Option<String>, u64)>>,
    modules: Mutex<Option<(Arc<Vec<ModuleUse>>, u64)>>,
    token_keys: Mutex<Option<(Arc<vestnik_core::sign::KeyRing>, u64)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(crate) fn options(&self) -> MutexGuard<'_, HashMap<String, (Arc<Options>, u64)>> {
        locked(&self.options)
    }

    pub(crate) fn options_version(&self) -> u64 {
        self.options_version.load(Ordering::SeqCst)
    }

    pub(crate) fn forget_options(&self) {
        self.options_version.fetch_add(1, Ordering::SeqCst);
        self.options().clear();
    }

    pub(crate) fn files(&self) -> Files {
        locked(&self.files).clone()
    }

    pub(crate) fn set_files(&self, files: Files) {
        *locked(&self.files) = files;
        self.forget_options();
    }

    pub(crate) fn own_values(&self) -> OwnValues {
        locked(&self.own_values).clone()
    }

    pub(crate) fn set_own_values(&self, values: OwnValues) {
        *locked(&self.own_values) = values;
        self.forget_options();
    }

    pub(crate) fn channels(&self) -> MutexGuard<'_, Recent<ChannelKey, CachedChannel>> {
        locked(&self.channels)
    }

    pub(crate) fn channels_version(&self) -> u64 {
        self.channels_version.load(Ordering::SeqCst)
    }

    /// Forgets channels: one, or all of them.
    pub(crate) fn forget_channels(&self, key: Option<&ChannelKey>) {
        self.channels_version.fetch_add(1, Ordering::SeqCst);
        match key {
            Some(key) => self.channels().remove(key),
            None => self.channels().clear(),
        }
    }

    pub(crate) fn site_names(&self) -> MutexGuard<'_, Recent<String, (Option<String>, u64)>> {
        locked(&self.site_names)
    }

    pub(crate) fn token_keys(
        &self,
    ) -> MutexGuard<'_, Option<(Arc<vestnik_core::sign::KeyRing>, u64)>> {
        locked(&self.token_keys)
    }

    pub(crate) fn modules(&self) -> MutexGuard<'_, Option<(Arc<Vec<ModuleUse>>, u64)>> {
        locked(&self.modules)
    }
}

static FIND: Statement =
    Statement::new("SELECT ID, HOST_ID FROM vestnik_tenant WHERE HOST_ID = ? AND ACTIVE = 'Y'");
static FIND_BY_ID: Statement =
    Statement::new("SELECT ID, HOST_ID FROM vestnik_tenant WHERE ID = ?");
static LIST: Statement =
    Statement::new("SELECT HOST_ID FROM vestnik_tenant WHERE ACTIVE = 'Y' ORDER BY ID");
static LIST_ALL: Statement = Statement::new(
    "SELECT HOST_ID, NAME, ACTIVE, {time DATE_CREATE} FROM vestnik_tenant ORDER BY ID",
);
static CREATE: Statement = Statement::new(
    "INSERT INTO vestnik_tenant (HOST_ID, NAME, DATE_CREATE) VALUES (?, ?, {at}) {ignore HOST_ID}",
);
static CREATE_DEFAULT: Statement = Statement::new(
    "INSERT INTO vestnik_tenant (ID, HOST_ID, NAME, DATE_CREATE) VALUES (1, ?, ?, {at}) {ignore ID}",
);
/// An identity of PostgreSQL does not notice an id that was given to it.
static SKIP_DEFAULT: Statement = Statement::new(
    "SELECT CASE WHEN nextval(pg_get_serial_sequence('vestnik_tenant', 'id')) > 0 THEN 1 ELSE 0 END",
);

impl Service {
    /// Opens the database, makes the default tenant if there is none, and hands out the notices:
    /// whoever holds the receiver publishes them.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn open(
        options: &DatabaseOptions,
        clock: Clock,
    ) -> Result<(Self, mpsc::Receiver<Notice>), ServiceError> {
        let database = Database::open(options).await?;
        let (notices, receiver) = mpsc::channel(NOTICES_MAX);
        let inner = Inner {
            database,
            clock,
            notices,
            tenants: Mutex::default(),
            default: OnceLock::new(),
            secrets: Mutex::new(Recent::new(KNOWN_SECRETS_MAX)),
            own_key: Mutex::default(),
            hooks: Mutex::new(Arc::new(NoHooks)),
            pushing: tokio::sync::Notify::new(),
        };
        let service = Self(Arc::new(inner));
        service.default_tenant().await?;
        Ok((service, receiver))
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.0.database
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// What the queue server in this process signs with: tenants that have no key of their own use it.
    pub fn set_own_key(&self, key: Option<vestnik_core::sign::Key>) {
        *locked(&self.0.own_key) = key;
        for state in locked(&self.0.tenants).values() {
            state.forget_options();
        }
    }

    pub(crate) fn own_key(&self) -> Option<vestnik_core::sign::Key> {
        locked(&self.0.own_key).clone()
    }

    /// Has back ends asked by `hooks` from now on.
    pub fn set_hooks(&self, hooks: Arc<dyn Hooks>) {
        *locked(&self.0.hooks) = hooks;
    }

    pub(crate) fn hooks(&self) -> Arc<dyn Hooks> {
        Arc::clone(&locked(&self.0.hooks))
    }

    /// Wakes one of those who send to gateways.
    pub fn wake_pushing(&self) {
        self.0.pushing.notify_one();
    }

    /// Waits until something was handed to whoever sends to gateways.
    pub async fn pushing_due(&self) {
        self.0.pushing.notified().await;
    }

    pub(crate) fn secrets(&self) -> MutexGuard<'_, Recent<String, KnownSecret>> {
        locked(&self.0.secrets)
    }

    /// The tenant of installations that have only one. Its `hostId`, 32 random letters and digits, is
    /// made once (M-007).
    ///
    /// # Errors
    /// When the database fails.
    pub async fn default_tenant(&self) -> Result<Tenant, ServiceError> {
        if let Some(state) = self.0.default.get() {
            return Ok(Tenant { service: self.clone(), state: Arc::clone(state) });
        }
        let tenant = self.read_default_tenant().await?;
        // Who was faster has put the same there.
        let _ = self.0.default.set(Arc::clone(&tenant.state));
        Ok(tenant)
    }

    async fn read_default_tenant(&self) -> Result<Tenant, ServiceError> {
        let find = &[Value::Int(DEFAULT_TENANT)];
        let mut rows = self.0.database.fetch(&FIND_BY_ID, find).await?;
        if rows.is_empty() {
            let host_id = random_host_id()?;
            let values = [Value::Text(&host_id), Value::Text("default"), self.now()];
            let made = self.0.database.execute(&CREATE_DEFAULT, &values).await?;
            if made > 0 && self.0.database.dialect() == crate::db::Dialect::Postgres {
                self.0.database.fetch(&SKIP_DEFAULT, &[]).await?;
            }
            rows = self.0.database.fetch(&FIND_BY_ID, find).await?;
            let tenant = self.tenant_of(&rows)?;
            if made > 0 {
                tenant.write_first_options().await?;
            }
            return Ok(tenant);
        }
        self.tenant_of(&rows)
    }

    /// The tenant with this `hostId`; `None` when there is none, or it was switched off.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant(&self, host_id: &str) -> Result<Option<Tenant>, ServiceError> {
        if let Some(state) = locked(&self.0.tenants).get(host_id) {
            return Ok(Some(Tenant { service: self.clone(), state: Arc::clone(state) }));
        }
        if !is_host_id(host_id) {
            return Ok(None);
        }
        let rows = self.0.database.fetch(&FIND, &[Value::Text(host_id)]).await?;
        if rows.is_empty() { Ok(None) } else { self.tenant_of(&rows).map(Some) }
    }

    /// Makes a tenant; the one that is there when there is one. A new one is of generation 4.
    ///
    /// # Errors
    /// When the name is none, or the database fails.
    pub async fn create_tenant(&self, host_id: &str, name: &str) -> Result<Tenant, ServiceError> {
        if !is_host_id(host_id) {
            return Err(ServiceError::HostId);
        }
        if let Some(tenant) = self.tenant(host_id).await? {
            return Ok(tenant);
        }
        let values = [Value::Text(host_id), Value::Text(name), self.now()];
        let made = self.0.database.execute(&CREATE, &values).await?;
        let rows = self.0.database.fetch(&FIND, &[Value::Text(host_id)]).await?;
        let tenant = self.tenant_of(&rows)?;
        if made > 0 {
            tenant.write_first_options().await?;
        }
        Ok(tenant)
    }

    /// All tenants, also those switched off: `hostId`, name, whether in use, moment they were made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenants(&self) -> Result<Vec<TenantInfo>, ServiceError> {
        let rows = self.0.database.fetch(&LIST_ALL, &[]).await?;
        let info = |row: &crate::db::Row| {
            Ok(TenantInfo {
                host_id: row.text(0)?,
                name: row.text(1)?,
                is_active: row.text(2)? == "Y",
                made_s: row.int(3)?,
            })
        };
        Ok(rows.iter().map(info).collect::<Result<_, DatabaseError>>()?)
    }

    /// The `hostId`s of all tenants.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn host_ids(&self) -> Result<Vec<String>, ServiceError> {
        let rows = self.0.database.fetch(&LIST, &[]).await?;
        Ok(rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>()?)
    }

    fn now(&self) -> Value<'static> {
        Value::Int(i64::try_from(self.0.clock.unix_s()).unwrap_or(i64::MAX))
    }

    fn tenant_of(&self, rows: &[crate::db::Row]) -> Result<Tenant, ServiceError> {
        let row = rows.first().ok_or(ServiceError::HostId)?;
        let (id, host_id) = (row.int(0)?, row.text(1)?);
        let mut tenants = locked(&self.0.tenants);
        let state = tenants.entry(host_id.clone()).or_insert_with(|| {
            Arc::new(State {
                id,
                host_id,
                options: Mutex::default(),
                options_version: AtomicU64::new(0),
                files: Mutex::default(),
                own_values: Mutex::default(),
                channels: Mutex::new(Recent::new(CHANNELS_MAX)),
                channels_version: AtomicU64::new(0),
                site_names: Mutex::new(Recent::new(SITES_MAX)),
                modules: Mutex::default(),
                token_keys: Mutex::default(),
            })
        });
        Ok(Tenant { service: self.clone(), state: Arc::clone(state) })
    }
}

impl Tenant {
    /// Its number in the tables.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.state.id
    }

    /// Its `hostId`.
    #[must_use]
    pub fn host_id(&self) -> &str {
        &self.state.host_id
    }

    /// Whether it is the tenant of installations that have only one.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.state.id == DEFAULT_TENANT
    }

    /// The service it belongs to.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn database(&self) -> &Database {
        &self.service.0.database
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.service.0.clock.unix_ms()
    }

    pub(crate) fn now_s(&self) -> u64 {
        self.service.0.clock.unix_s()
    }

    /// Hands an event to the publisher; waits while too many wait already.
    pub(crate) async fn tell(&self, event: ModuleEvent) {
        const WAIT: Duration = Duration::from_secs(5);
        let notice = Notice { host_id: self.state.host_id.clone(), event };
        if self.service.0.notices.send_timeout(notice, WAIT).await.is_err() {
            tracing::error!(tenant = self.state.id, "a notice was dropped: nobody publishes them");
        }
    }

    /// A new installation is of generation 4, whatever the default for old sites is (README D23); and that
    /// of the default tenant uses the queue server it comes with.
    async fn write_first_options(&self) -> Result<(), OptionError> {
        let mut first = vec![(Key::NginxVersion, Some("4"))];
        if self.is_default() {
            first.push((Key::Nginx, Some("Y")));
        }
        self.write_options("", &first, None).await
    }
}

fn is_host_id(text: &str) -> bool {
    (1..=HOST_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn random_host_id() -> Result<String, ServiceError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; HOST_ID_LENGTH];
    getrandom::fill(&mut bytes).map_err(|_| ServiceError::Random)?;
    Ok(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)])).collect())
}
