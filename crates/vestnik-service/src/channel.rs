//! Channels: rows with a life time, renewed under a lock; signatures; public ids (module.md §4).

use std::time::Duration;

use vestnik_core::ChannelId;
use vestnik_core::date;
use vestnik_core::publisher::ModuleEvent;

use crate::db::{DatabaseError, Row, Statement, Value};
use crate::notice;
use crate::option::{Key, OptionError, Options};
use crate::php;
use crate::tenant::Tenant;

/// How long a channel lives, seconds.
pub const CHANNEL_TTL_S: u64 = 43_205;
/// Age at which the clean-up removes a channel, seconds: 13 hours.
pub const CHANNEL_AGE_MAX_S: u64 = 46_800;
/// Bytes of the name of an application; the column's older width.
const KIND_BYTES_MAX: usize = 50;
/// How long the lock of a channel is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// For so long a channel that another process may have changed is not read again, seconds.
const CACHE_TTL_S: u64 = 30;
/// Rows that the clean-up looks at together.
const CLEAN_UP_SLICE: i64 = 1000;
/// Slices of one run: what is left waits for the next one.
const CLEAN_UP_SLICES: usize = 100;

/// What a channel is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// One per user.
    Private,
    /// One per tenant, everybody listens.
    Shared,
    /// One per application and user, and one per application for everybody: its client id.
    Application(String),
}

impl ChannelKind {
    /// The kind called `name` in tables and requests.
    ///
    /// # Errors
    /// When the name is empty or longer than 50 bytes.
    pub fn named(name: &str) -> Result<Self, ChannelError> {
        match name {
            "private" => Ok(Self::Private),
            "shared" => Ok(Self::Shared),
            "" => Err(ChannelError::Kind),
            _ if name.len() > KIND_BYTES_MAX => Err(ChannelError::Kind),
            _ => Ok(Self::Application(name.to_owned())),
        }
    }

    /// Its name in tables and on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Private => "private",
            Self::Shared => "shared",
            Self::Application(client_id) => client_id,
        }
    }
}

/// Which row: user (0: everybody) and kind.
pub(crate) type ChannelKey = (i64, ChannelKind);

/// A channel in memory, and when it was read.
#[derive(Clone, Debug)]
pub(crate) struct CachedChannel {
    channel: Channel,
    read_s: u64,
}

impl CachedChannel {
    const fn is_good(&self, now_s: u64) -> bool {
        now_s < self.read_s + CACHE_TTL_S && !self.channel.is_expired(now_s)
    }
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Whose; 0: everybody's.
    pub user: i64,
    /// What for.
    pub kind: ChannelKind,
    /// The id that the back end writes to.
    pub id: ChannelId,
    /// The id that other clients write to; users alone have one.
    pub public_id: Option<ChannelId>,
    /// When it was made, unix seconds.
    pub created_s: u64,
    /// Last message that was read by polling.
    pub last_id: i64,
}

impl Channel {
    /// When it ends, unix seconds.
    #[must_use]
    pub const fn ends_s(&self) -> u64 {
        self.created_s.saturating_add(CHANNEL_TTL_S)
    }

    const fn is_expired(&self, now_s: u64) -> bool {
        self.ends_s() <= now_s
    }
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// No queue server is in use.
    #[error("the queue server is switched off")]
    ServerOff,
    /// The user is not active.
    #[error("user {0} is not active")]
    InactiveUser(i64),
    /// Guests get no channels: option `guest` is off.
    #[error("guests have no channels: option `guest` is off")]
    Guest,
    /// The generation in force has no public channels.
    #[error("public channels need generation 4 or newer")]
    NoPublicChannels,
    /// The name of a kind is none.
    #[error("a channel type has 1 to 50 bytes")]
    Kind,
    /// Somebody else held the channel's lock for too long.
    #[error("the lock of the channel was not obtained within 2 s")]
    Locked,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The options are not usable.
    #[error("the options could not be read")]
    Options(#[from] OptionError),
    /// The database failed.
    #[error("the channels could not be read or written")]
    Database(#[from] DatabaseError),
}

/// A channel that has no row: made of a tag, or of chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeChannel {
    /// The id that the back end writes to.
    pub id: ChannelId,
    /// The id that clients write to.
    pub public_id: ChannelId,
    /// When this value was made, unix seconds.
    pub created_s: u64,
}

/// What others need to write to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicId {
    /// The user.
    pub user: i64,
    /// Their public id.
    pub public_id: ChannelId,
    /// Its signature; empty without a key.
    pub signature: String,
    /// When the channel was made, unix seconds.
    pub starts_s: u64,
    /// When it ends, unix seconds.
    pub ends_s: u64,
}

impl Options {
    /// `id.signature`; the bare id without a key.
    #[must_use]
    pub fn sign_channel(&self, id: ChannelId) -> String {
        self.signed(&id.to_string())
    }

    /// `private:public.signature`, as generations with public channels want it.
    #[must_use]
    pub fn sign_pair(&self, id: ChannelId, public_id: ChannelId) -> String {
        self.signed(&format!("{id}:{public_id}"))
    }

    /// `public.signature`; empty without a key.
    #[must_use]
    pub fn sign_public_channel(&self, public_id: ChannelId) -> String {
        let signature = self.public_signature(public_id);
        if signature.is_empty() { signature } else { format!("{public_id}.{signature}") }
    }

    /// The signature of a public id alone; empty without a key.
    #[must_use]
    pub fn public_signature(&self, public_id: ChannelId) -> String {
        self.signing_key().map_or_else(String::new, |key| {
            key.sign(&[b"public:", public_id.to_string().as_bytes()]).to_string()
        })
    }

    /// The id of a channel as its own listener gets it.
    pub(crate) fn sign_for_listener(&self, channel: &Channel) -> String {
        match channel.public_id {
            Some(public_id) if self.generation().has_public_channels() => {
                self.sign_pair(channel.id, public_id)
            }
            _ => self.sign_channel(channel.id),
        }
    }

    fn signed(&self, text: &str) -> String {
        self.signing_key().map_or_else(
            || text.to_owned(),
            |key| format!("{text}.{}", key.sign(&[text.as_bytes()])),
        )
    }
}

/// Users that one query asks for.
const USERS_OF_A_QUERY_MAX: usize = 512;

static FIND: Statement = Statement::new(
    "SELECT CHANNEL_ID, CHANNEL_PUBLIC_ID, {time DATE_CREATE}, LAST_ID FROM b_pull_channel WHERE TENANT_ID = ? AND USER_ID = ? AND CHANNEL_TYPE = ?",
);
static FIND_MANY: Statement = Statement::new(
    "SELECT CHANNEL_ID, CHANNEL_PUBLIC_ID, {time DATE_CREATE}, LAST_ID, USER_ID FROM b_pull_channel WHERE TENANT_ID = ? AND CHANNEL_TYPE = ? AND USER_ID IN {list}",
);
static INACTIVE_MANY: Statement = Statement::new(
    "SELECT USER_ID FROM vestnik_user WHERE TENANT_ID = ? AND ACTIVE <> 'Y' AND USER_ID IN {list}",
);
static INSERT: Statement = Statement::new(
    "INSERT INTO b_pull_channel (TENANT_ID, USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) VALUES (?, ?, ?, ?, ?, 0, {at})",
);
static RENEW: Statement = Statement::new(
    "UPDATE b_pull_channel SET CHANNEL_ID = ?, CHANNEL_PUBLIC_ID = ?, DATE_CREATE = {at} WHERE TENANT_ID = ? AND USER_ID = ? AND CHANNEL_TYPE = ?",
);
static DELETE: Statement = Statement::new(
    "DELETE FROM b_pull_channel WHERE TENANT_ID = ? AND USER_ID = ? AND CHANNEL_TYPE = ? AND CHANNEL_ID = ?",
);
static FIND_BY_ID: Statement = Statement::new(
    "SELECT USER_ID, CHANNEL_TYPE FROM b_pull_channel WHERE TENANT_ID = ? AND CHANNEL_ID = ?",
);
static OLD: Statement = Statement::new(
    "SELECT USER_ID, CHANNEL_TYPE FROM b_pull_channel WHERE TENANT_ID = ? AND DATE_CREATE < {at} ORDER BY DATE_CREATE LIMIT ?",
);
static IS_INACTIVE: Statement = Statement::new(
    "SELECT 1 FROM vestnik_user WHERE TENANT_ID = ? AND USER_ID = ? AND ACTIVE <> 'Y'",
);
static SET_ACTIVE: Statement = Statement::new(
    "INSERT INTO vestnik_user (TENANT_ID, USER_ID, ACTIVE) VALUES (?, ?, ?) {update TENANT_ID, USER_ID: ACTIVE}",
);

/// Seconds as the tables take them.
fn moment(seconds: u64) -> Value<'static> {
    Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX))
}

impl Tenant {
    /// The channel of `user` (0: everybody's) of this kind; made, or renewed, when needed. Clients of
    /// a renewed channel are told so on the old one.
    ///
    /// # Errors
    /// When there can be none, or the database fails.
    pub async fn channel(&self, user: i64, kind: &ChannelKind) -> Result<Channel, ChannelError> {
        let options = self.options("").await?;
        if !options.is_server_on() {
            return Err(ChannelError::ServerOff);
        }
        self.any_channel(user, kind, &options).await
    }

    /// The same also while no server is in use: whoever polls has a channel too.
    pub(crate) async fn any_channel(
        &self,
        user: i64,
        kind: &ChannelKind,
        options: &Options,
    ) -> Result<Channel, ChannelError> {
        if user < 0 && !options.is_on(Key::Guest) {
            return Err(ChannelError::Guest);
        }
        let now_s = self.now_s();
        let cached = self.state().channels().get(&(user, kind.clone()));
        if let Some(known) = cached
            && known.is_good(now_s)
        {
            return Ok(known.channel);
        }
        let version = self.state().channels_version();
        if user != 0
            && (self.is_inactive(user).await?
                || (user > 0 && !self.inactive_by_hook(&[user]).await.is_empty()))
        {
            return Err(ChannelError::InactiveUser(user));
        }
        match self.find_channel(user, kind).await? {
            Stored::Channel(channel) if !channel.is_expired(now_s) => {
                self.remember(&channel, version);
                Ok(channel)
            }
            _ => self.renew(user, kind, options, version).await,
        }
    }

    /// The channels of many users of this kind, each once, in no particular order; read together where
    /// they are not in memory. Users that get no channel are left out.
    ///
    /// # Errors
    /// When the server is off, or the database fails.
    pub async fn channels(
        &self,
        users: &[i64],
        kind: &ChannelKind,
    ) -> Result<Vec<Channel>, ChannelError> {
        let options = self.options("").await?;
        if !options.is_server_on() {
            return Err(ChannelError::ServerOff);
        }
        self.any_channels(users, kind, &options).await
    }

    /// The same also while no server is in use.
    pub(crate) async fn any_channels(
        &self,
        users: &[i64],
        kind: &ChannelKind,
        options: &Options,
    ) -> Result<Vec<Channel>, ChannelError> {
        let now_s = self.now_s();
        let version = self.state().channels_version();
        let mut missing: Vec<i64> = Vec::new();
        let mut channels = Vec::with_capacity(users.len());
        let mut users = users.to_vec();
        users.sort_unstable();
        users.dedup();
        users.retain(|user| *user >= 0 || options.is_on(Key::Guest));
        for user in users {
            match self.state().channels().get(&(user, kind.clone())) {
                Some(known) if known.is_good(now_s) => channels.push(known.channel),
                _ => missing.push(user),
            }
        }
        for users in missing.chunks(USERS_OF_A_QUERY_MAX) {
            let (tenant, list) = (Value::Int(self.id()), Value::Ints(users));
            let inactive = self.inactive_users(users).await?;
            let values = [tenant, Value::Text(kind.name()), list];
            let mut found = std::collections::HashMap::new();
            for row in self.database().fetch(&FIND_MANY, &values).await? {
                let user = row.int(4)?;
                found.insert(user, Stored::read(&row, user, kind)?);
            }
            for user in users.iter().filter(|user| !inactive.contains(user)) {
                match found.remove(user) {
                    Some(Stored::Channel(channel)) if !channel.is_expired(now_s) => {
                        self.remember(&channel, version);
                        channels.push(channel);
                    }
                    _ => match self.any_channel(*user, kind, options).await {
                        Err(ChannelError::InactiveUser(_)) => {}
                        other => channels.push(other?),
                    },
                }
            }
        }
        Ok(channels)
    }

    /// The channel that everybody listens to.
    ///
    /// # Errors
    /// As [`Tenant::channel`].
    pub async fn shared_channel(&self) -> Result<Channel, ChannelError> {
        self.channel(0, &ChannelKind::Shared).await
    }

    /// The channel of a tag: the same for ever, without a row (M-024).
    #[must_use]
    pub fn tag_channel(&self, tag: &str) -> FreeChannel {
        let secret = self.host_id();
        FreeChannel {
            id: ChannelId::from_bytes(php::md5(format!("{tag}{secret}").as_bytes())),
            public_id: ChannelId::from_bytes(php::md5(format!("{tag}{secret}public").as_bytes())),
            created_s: self.now_s(),
        }
    }

    /// A channel that nobody else knows, without a row.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random_channel(&self) -> Result<FreeChannel, ChannelError> {
        Ok(FreeChannel { id: random_id()?, public_id: random_id()?, created_s: self.now_s() })
    }

    /// What others need to write to `users`, in the order asked for; users that get no channel are
    /// left out, channels are made when needed.
    ///
    /// # Errors
    /// When there are no public channels, or the database fails.
    pub async fn public_ids(
        &self,
        users: &[i64],
        kind: &ChannelKind,
    ) -> Result<Vec<PublicId>, ChannelError> {
        let options = self.options("").await?;
        if !options.is_server_on() {
            return Err(ChannelError::ServerOff);
        }
        if !options.generation().has_public_channels() {
            return Err(ChannelError::NoPublicChannels);
        }
        let mut ids: Vec<PublicId> = Vec::with_capacity(users.len());
        for user in users.iter().copied().filter(|user| *user > 0) {
            if ids.iter().any(|known| known.user == user) {
                continue;
            }
            let channel = match self.channel(user, kind).await {
                Err(ChannelError::InactiveUser(_)) => continue,
                other => other?,
            };
            let Some(public_id) = channel.public_id else { continue };
            let signature = options.public_signature(public_id);
            let (starts_s, ends_s) = (channel.created_s, channel.ends_s());
            ids.push(PublicId { user, public_id, signature, starts_s, ends_s });
        }
        Ok(ids)
    }

    /// Deletes the channel with this private id; its clients are told. Whether there was one.
    ///
    /// # Errors
    /// When the channel is locked for too long, or the database fails.
    pub async fn delete_channel(&self, id: ChannelId) -> Result<bool, ChannelError> {
        let id = id.to_string();
        let rows =
            self.database().fetch(&FIND_BY_ID, &[Value::Int(self.id()), Value::Text(&id)]).await?;
        let mut found = false;
        for row in &rows {
            let kind = ChannelKind::named(&row.text(1)?)?;
            found |= self.delete_channel_of(row.int(0)?, &kind).await?;
        }
        Ok(found)
    }

    /// Deletes the channel of `user` of this kind; its clients are told. Whether there was one.
    ///
    /// # Errors
    /// When the channel is locked for too long, or the database fails.
    pub async fn delete_channel_of(
        &self,
        user: i64,
        kind: &ChannelKind,
    ) -> Result<bool, ChannelError> {
        self.delete(user, kind, LOCK_WAIT, None).await
    }

    /// Removes channels that were made more than 13 hours ago, up to a hundred thousand of them; how many.
    /// Ones that somebody is just renewing are left alone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clean_up_channels(&self) -> Result<usize, ChannelError> {
        let before_s = self.now_s().saturating_sub(CHANNEL_AGE_MAX_S);
        let values = [Value::Int(self.id()), moment(before_s), Value::Int(CLEAN_UP_SLICE)];
        let mut count = 0;
        for _ in 0..CLEAN_UP_SLICES {
            let before = count;
            for row in self.database().fetch(&OLD, &values).await? {
                let kind = ChannelKind::named(&row.text(1)?)?;
                match self.delete(row.int(0)?, &kind, Duration::ZERO, Some(before_s)).await {
                    Ok(was_there) => count += usize::from(was_there),
                    Err(ChannelError::Locked) => {}
                    Err(error) => return Err(error),
                }
            }
            // Nothing is left, or only what others hold.
            if count == before {
                break;
            }
        }
        Ok(count)
    }

    /// Says whether a user may have channels. Users nobody spoke of may.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_user_active(&self, user: i64, is_active: bool) -> Result<(), ChannelError> {
        let letter = Value::Text(if is_active { "Y" } else { "N" });
        let values = [Value::Int(self.id()), Value::Int(user), letter];
        self.database().execute(&SET_ACTIVE, &values).await?;
        // The user may have channels of many applications.
        self.state().forget_channels(None);
        Ok(())
    }

    /// Which of `users` are not active, as the table and the back end say.
    pub(crate) async fn inactive_users(&self, users: &[i64]) -> Result<Vec<i64>, DatabaseError> {
        let mut inactive = Vec::new();
        for users in users.chunks(USERS_OF_A_QUERY_MAX) {
            let values = [Value::Int(self.id()), Value::Ints(users)];
            for row in self.database().fetch(&INACTIVE_MANY, &values).await? {
                inactive.push(row.int(0)?);
            }
            inactive.extend(self.inactive_by_hook(users).await);
        }
        Ok(inactive)
    }

    async fn is_inactive(&self, user: i64) -> Result<bool, DatabaseError> {
        let values = [Value::Int(self.id()), Value::Int(user)];
        Ok(!self.database().fetch(&IS_INACTIVE, &values).await?.is_empty())
    }

    /// The id of the shared channel, expired or not; makes none.
    pub(crate) async fn stored_shared_channel(&self) -> Result<Option<ChannelId>, DatabaseError> {
        Ok(match self.find_channel(0, &ChannelKind::Shared).await? {
            Stored::Channel(channel) => Some(channel.id),
            Stored::Nothing | Stored::Unreadable(_) => None,
        })
    }

    /// The private channel of a user, as it is: not made, not renewed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn known_channel(&self, user: i64) -> Result<Option<Channel>, DatabaseError> {
        Ok(match self.find_channel(user, &ChannelKind::Private).await? {
            Stored::Channel(channel) => Some(channel),
            Stored::Nothing | Stored::Unreadable(_) => None,
        })
    }

    async fn find_channel(&self, user: i64, kind: &ChannelKind) -> Result<Stored, DatabaseError> {
        let values = [Value::Int(self.id()), Value::Int(user), Value::Text(kind.name())];
        let rows = self.database().fetch(&FIND, &values).await?;
        rows.first().map_or(Ok(Stored::Nothing), |row| Stored::read(row, user, kind))
    }

    /// Keeps a channel in memory, unless something changed since `version`: what was read before a
    /// deletion must not outlive it.
    fn remember(&self, channel: &Channel, version: u64) {
        let mut channels = self.state().channels();
        if version != self.state().channels_version() {
            return;
        }
        let key = (channel.user, channel.kind.clone());
        let cached = CachedChannel { channel: channel.clone(), read_s: self.now_s() };
        channels.insert(key, cached);
    }

    /// The name of the lock: that of the PHP module for the tenant whose rows it may share.
    fn lock_name(&self, user: i64, kind: &ChannelKind) -> String {
        let name = format!("b_pchc_{user}_{}", kind.name());
        if self.id() == 1 { name } else { format!("vestnik_{}_{name}", self.id()) }
    }

    async fn renew(
        &self,
        user: i64,
        kind: &ChannelKind,
        options: &Options,
        version: u64,
    ) -> Result<Channel, ChannelError> {
        let lock = self.lock_name(user, kind);
        let Some(guard) = self.database().lock(&lock, LOCK_WAIT).await? else {
            tracing::warn!(tenant = self.id(), "the lock of a channel was not obtained");
            return Err(ChannelError::Locked);
        };
        let renewed = self.renew_locked(user, kind).await;
        guard.release().await?;
        let (channel, old) = renewed?;
        self.remember(&channel, version);
        if let Some(old) = old
            && options.is_server_on()
        {
            let event = self.renewal_notice(&channel, old, options);
            self.tell(event).await;
        }
        Ok(channel)
    }

    /// Reads the row again, since its renewal may just have been somebody else's; otherwise writes a new
    /// channel. The old id, when there was one.
    async fn renew_locked(
        &self,
        user: i64,
        kind: &ChannelKind,
    ) -> Result<(Channel, Option<ChannelId>), ChannelError> {
        let now_s = self.now_s();
        let stored = self.find_channel(user, kind).await?;
        let (is_there, old, last_id) = match stored {
            Stored::Channel(channel) if !channel.is_expired(now_s) => return Ok((channel, None)),
            Stored::Channel(channel) => (true, Some(channel.id), channel.last_id),
            Stored::Unreadable(last_id) => (true, None, last_id),
            Stored::Nothing => (false, None, 0),
        };
        let public_id = if user > 0 { Some(random_id()?) } else { None };
        let channel = Channel {
            user,
            kind: kind.clone(),
            id: random_id()?,
            public_id,
            created_s: now_s,
            last_id,
        };
        let id = channel.id.to_string();
        let public = public_id.map(|id| id.to_string()).unwrap_or_default();
        let (id, public) = (Value::Text(&id), Value::Text(&public));
        let key = [Value::Int(self.id()), Value::Int(user), Value::Text(kind.name())];
        let [tenant, owner, name] = key;
        if is_there {
            let values = [id, public, moment(now_s), tenant, owner, name];
            self.database().execute(&RENEW, &values).await?;
        } else {
            let values = [tenant, owner, name, id, public, moment(now_s)];
            self.database().execute(&INSERT, &values).await?;
        }
        Ok((channel, old))
    }

    /// What listeners of a renewed channel's old id are told (module.md §4.4).
    fn renewal_notice(&self, new: &Channel, old: ChannelId, options: &Options) -> ModuleEvent {
        let action = if new.kind == ChannelKind::Shared { "reconnect" } else { "get_config" };
        let mut params = vec![
            ("action", php::Value::text(action)),
            ("channel", described(options.sign_channel(old), new.kind.name())),
        ];
        if new.user == 0 {
            let starts = php::Value::Text(date::atom(new.created_s));
            params.push(("new_channel", replacement(new, starts, options)));
        }
        self.expire_event(old, php::Value::map(params), options)
    }

    fn expire_event(&self, old: ChannelId, params: php::Value, options: &Options) -> ModuleEvent {
        let extra = notice::extra(self.now_ms(), options.text(Key::ServerName));
        notice::event(old, "channel_expire", params, extra)
    }

    /// Deletes a row under its lock; with `before_s` only if it is older than that.
    async fn delete(
        &self,
        user: i64,
        kind: &ChannelKind,
        wait: Duration,
        before_s: Option<u64>,
    ) -> Result<bool, ChannelError> {
        let lock = self.lock_name(user, kind);
        let Some(guard) = self.database().lock(&lock, wait).await? else {
            return Err(ChannelError::Locked);
        };
        let deleted = self.delete_locked(user, kind, before_s).await;
        guard.release().await?;
        let Some(old) = deleted? else { return Ok(false) };
        let options = self.options("").await?;
        if !options.is_server_on() {
            return Ok(true);
        }
        let mut params = vec![("channel", described(options.sign_channel(old), kind.name()))];
        if *kind == ChannelKind::Private {
            params.insert(0, ("action", php::Value::text("get_config")));
        } else {
            // Of applications as well: that is what the PHP module does.
            let shared = self.shared_channel().await?;
            let starts = php::Value::Int(i64::try_from(shared.created_s).unwrap_or(i64::MAX));
            params.insert(0, ("action", php::Value::text("reconnect")));
            params.push(("new_channel", replacement(&shared, starts, &options)));
        }
        let event = self.expire_event(old, php::Value::map(params), &options);
        self.tell(event).await;
        Ok(true)
    }

    async fn delete_locked(
        &self,
        user: i64,
        kind: &ChannelKind,
        before_s: Option<u64>,
    ) -> Result<Option<ChannelId>, DatabaseError> {
        let Stored::Channel(channel) = self.find_channel(user, kind).await? else {
            return Ok(None);
        };
        if before_s.is_some_and(|before_s| channel.created_s >= before_s) {
            return Ok(None);
        }
        let id = channel.id.to_string();
        let key = [Value::Int(self.id()), Value::Int(user), Value::Text(kind.name())];
        let [tenant, owner, name] = key;
        self.database().execute(&DELETE, &[tenant, owner, name, Value::Text(&id)]).await?;
        self.state().forget_channels(Some(&(user, kind.clone())));
        Ok(Some(channel.id))
    }
}

/// A row as it was found.
enum Stored {
    Nothing,
    Channel(Channel),
    /// One whose ids are none; with its last id.
    Unreadable(i64),
}

impl Stored {
    fn read(row: &Row, user: i64, kind: &ChannelKind) -> Result<Self, DatabaseError> {
        let last_id = row.optional_int(3)?.unwrap_or(0);
        let Ok(id) = row.text(0)?.parse() else { return Ok(Self::Unreadable(last_id)) };
        let public_id = row.optional_text(1)?.and_then(|text| text.parse().ok());
        if user > 0 && public_id.is_none() {
            // Rows of modules without public channels: a new pair is the same as an expired one.
            return Ok(Self::Channel(Channel {
                user,
                kind: kind.clone(),
                id,
                public_id,
                created_s: 0,
                last_id,
            }));
        }
        let created_s = u64::try_from(row.int(2)?).unwrap_or(0);
        Ok(Self::Channel(Channel { user, kind: kind.clone(), id, public_id, created_s, last_id }))
    }
}

fn described(signed: String, kind: &str) -> php::Value {
    php::Value::map([("id", php::Value::Text(signed)), ("type", php::Value::text(kind))])
}

fn replacement(new: &Channel, starts: php::Value, options: &Options) -> php::Value {
    php::Value::map([
        ("id", php::Value::Text(options.sign_channel(new.id))),
        ("start", starts),
        ("end", php::Value::Text(date::atom(new.ends_s()))),
        ("type", php::Value::text(new.kind.name())),
    ])
}

pub(crate) fn random_id() -> Result<ChannelId, ChannelError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| ChannelError::Random)?;
    Ok(ChannelId::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Database, DatabaseOptions};

    #[tokio::test]
    async fn every_statement_finds_its_rows_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("module.db");
        let options = DatabaseOptions::new(format!("sqlite:{}", file.display()));
        let database = Database::open(&options).await.unwrap();
        let (one, text, users) = (Value::Int(1), Value::Text("a"), Value::Ints(&[1, 2]));
        for (statement, values) in [
            (&FIND, &[one, one, text][..]),
            (&FIND_MANY, &[one, text, users]),
            (&INACTIVE_MANY, &[one, users]),
            (&RENEW, &[text, text, one, one, one, text]),
            (&DELETE, &[one, one, text, text]),
            (&FIND_BY_ID, &[one, text]),
            (&OLD, &[one, one, one]),
            (&IS_INACTIVE, &[one, one]),
        ] {
            database.assert_indexed(statement, values).await;
        }
    }
}
