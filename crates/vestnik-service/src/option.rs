//! The option store: keys of module.md §3, where each value comes from, and what follows from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use vestnik_core::Secret;
use vestnik_core::publisher::ModuleEvent;
use vestnik_core::sign::{Algorithm, Key as SignatureKey, ParseAlgorithmError};

use crate::db::{DatabaseError, Statement, Value};
use crate::notice;
use crate::php::{self, ReadError};
use crate::tenant::Tenant;

/// What a key's values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Y` or `N`.
    Switch,
    /// A whole number, in this range.
    Number(i64, i64),
    /// An address, http or https, whose path ends with `/`; may hold `#DOMAIN#` and `#PORT#`.
    Address,
    /// The same with ws or wss.
    SocketAddress,
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// The name of a signature algorithm.
    Algorithm,
    /// `personal` or `shared`.
    Mode,
    /// A serialized map of site ids.
    Sites,
}

macro_rules! keys {
    ($($variant:ident $name:literal $default:literal $kind:expr;)*) => {
        /// An option. The names are those of the PHP module; the last ones are ours.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "module.md §3 explains each by its name")]
        pub enum Key { $($variant,)* }

        impl Key {
            /// Every option.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in files, tables and requests.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its built-in value.
            #[must_use]
            pub const fn default_value(self) -> &'static str {
                match self { $(Self::$variant => $default,)* }
            }

            /// What its values look like.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => $kind,)* }
            }
        }
    };
}

const ANY: Kind = Kind::Number(i64::MIN, i64::MAX);

keys! {
    Nginx "nginx" "N" Kind::Switch;
    NginxVersion "nginx_version" "2" Kind::Number(1, 5);
    NginxCommandPerHit "nginx_command_per_hit" "100" Kind::Number(1, 10_000);
    NginxHeaders "nginx_headers" "Y" Kind::Switch;
    NginxError "nginx_error" "N" Kind::Text;
    ServerMode "server_mode" "personal" Kind::Mode;
    PathToPublish "path_to_publish" "http://127.0.0.1:8895/bitrix/pub/" Kind::Address;
    PathToJsonRpc "path_to_json_rpc" "https://#DOMAIN#/bitrix/api/" Kind::Address;
    PathToPublishWeb "path_to_publish_web" "http://#DOMAIN#/bitrix/pubweb/" Kind::Address;
    PathToPublishWebSecure "path_to_publish_web_secure" "https://#DOMAIN#/bitrix/pubweb/" Kind::Address;
    PathToModernListener "path_to_modern_listener" "http://#DOMAIN#/bitrix/sub/" Kind::Address;
    PathToModernListenerSecure "path_to_modern_listener_secure" "https://#DOMAIN#/bitrix/sub/" Kind::Address;
    PathToListener "path_to_listener" "http://#DOMAIN#/bitrix/sub/" Kind::Address;
    PathToListenerSecure "path_to_listener_secure" "https://#DOMAIN#/bitrix/sub/" Kind::Address;
    PathToMobileListener "path_to_mobile_listener" "http://#DOMAIN#:8893/bitrix/sub/" Kind::Address;
    PathToMobileListenerSecure "path_to_mobile_listener_secure" "https://#DOMAIN#:8894/bitrix/sub/" Kind::Address;
    PathToWebsocket "path_to_websocket" "ws://#DOMAIN#/bitrix/subws/" Kind::SocketAddress;
    PathToWebsocketSecure "path_to_websocket_secure" "wss://#DOMAIN#/bitrix/subws/" Kind::SocketAddress;
    Websocket "websocket" "Y" Kind::Switch;
    SignatureKey "signature_key" "" Kind::Secret;
    SignatureAlgo "signature_algo" "sha1" Kind::Algorithm;
    EnableProtobuf "enable_protobuf" "Y" Kind::Switch;
    LimitMaxPayload "limit_max_payload" "1048576" Kind::Number(1024, 16_777_216);
    LimitMaxMessagesPerRequest "limit_max_messages_per_request" "100" Kind::Number(1, 10_000);
    LimitMaxChannelsPerRequest "limit_max_channels_per_request" "100" Kind::Number(2, 10_000);
    ConfigTimestamp "config_timestamp" "0" ANY;
    ConfigTtl "config_ttl" "0" Kind::Number(0, 31_536_000);
    Push "push" "N" Kind::Switch;
    PushMessagePerHit "push_message_per_hit" "100" Kind::Number(0, 10_000);
    PushServiceUrl "push_service_url" "https://cloud-messaging.bitrix24.com/send/" Kind::Address;
    Guest "guest" "N" Kind::Switch;
    ExcludeSites "exclude_sites" "a:0:{}" Kind::Sites;
    RegisteredOnSharedServer "registered_on_shared_server" "N" Kind::Switch;
    SharedServerAddress "shared_server_address" "" Kind::Text;
    SharedServerKey "shared_server_key" "" Kind::Secret;
    SharedWorkerAllowed "shared_worker_allowed" "Y" Kind::Switch;
    NewClientUsers "new_client_users" "" Kind::Text;
    IsSmartfilterDisabledByDefault "is_smartfilter_disabled_by_default" "N" Kind::Switch;
    Debug "debug" "N" Kind::Switch;
    PullLogEnable "pull_log_196916_enable" "N" Kind::Switch;
    // Ours: what the PHP module takes from its site.
    ServerName "server_name" "" Kind::Text;
    Region "region" "" Kind::Text;
    LicenceKey "licence_key" "" Kind::Secret;
    CallbackUrl "callback_url" "" Kind::Text;
}

/// Regions whose services are under another domain.
const REGIONS: [&str; 4] = ["ru", "by", "kz", "uz"];

impl Key {
    /// The option called `name`, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.name().eq_ignore_ascii_case(name))
    }

    /// Checks a value that somebody wants to set.
    ///
    /// # Errors
    /// When the option cannot have it.
    pub fn check(self, value: &str) -> Result<(), OptionError> {
        const VALUE_BYTES_MAX: usize = 4096;
        let wrong = |wanted: &'static str| {
            Err(OptionError::Value { key: self.name(), wanted: wanted.to_owned() })
        };
        if value.len() > VALUE_BYTES_MAX {
            return wrong("at most 4096 bytes");
        }
        match self.kind() {
            Kind::Text if self == Self::CallbackUrl && !is_callback(value) => {
                wrong("an http or https address, or nothing")
            }
            Kind::Switch if !matches!(value, "Y" | "N") => wrong("`Y` or `N`"),
            Kind::Mode if !matches!(value, "personal" | "shared") => {
                wrong("`personal` or `shared`")
            }
            Kind::Algorithm => Ok(value.parse::<Algorithm>().map(drop)?),
            Kind::Sites => match php::unserialize(value)? {
                php::Value::Array(_) => Ok(()),
                _ => wrong("a serialized array"),
            },
            Kind::Number(min, max) => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(OptionError::Value {
                    key: self.name(),
                    wanted: format!("a whole number from {min} to {max}"),
                }),
            },
            Kind::Address if !is_address(value, &["http://", "https://"]) => {
                wrong("an http or https address whose path ends with `/`")
            }
            Kind::SocketAddress if !is_address(value, &["ws://", "wss://"]) => {
                wrong("a ws or wss address whose path ends with `/`")
            }
            Kind::Switch
            | Kind::Mode
            | Kind::Address
            | Kind::SocketAddress
            | Kind::Text
            | Kind::Secret => Ok(()),
        }
    }
}

fn is_callback(value: &str) -> bool {
    let host = ["http://", "https://"].iter().find_map(|scheme| value.strip_prefix(scheme));
    value.is_empty()
        || (host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
            && value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'))
}

fn is_address(value: &str, schemes: &[&str]) -> bool {
    let rest = schemes.iter().find_map(|scheme| value.strip_prefix(scheme));
    let Some((host, path)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    let is_plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\');
    !host.is_empty()
        && value.bytes().all(is_plain)
        && !path.contains(['?', '#'])
        && (path.is_empty() || path.ends_with('/'))
}

/// Where a value comes from; the first of these that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration of this program: nothing else can change it.
    Pinned,
    /// The database, for this site alone.
    Site,
    /// The database, for all sites.
    Database,
    /// The site's configuration file, section `pull`.
    File,
    /// The include file of PHP installations.
    IncludeFile,
    /// Made by this program at its first start.
    Generated,
    /// Built in.
    BuiltIn,
}

/// Values that the program itself brings for the tenant it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnValues {
    /// What its configuration says: nothing changes these.
    pub pinned: BTreeMap<Key, String>,
    /// What it made at its first start: these count as long as nothing else says anything.
    pub generated: BTreeMap<Key, String>,
}

/// What is wrong with options.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// There is no such option.
    #[error("there is no option `{0}`")]
    Unknown(String),
    /// The option cannot have this value.
    #[error("option `{key}` takes {wanted}")]
    Value {
        /// The option.
        key: &'static str,
        /// What it takes.
        wanted: String,
    },
    /// The configuration of the program says what the option is.
    #[error("option `{0}` is set by the configuration of this program and cannot be changed here")]
    Pinned(&'static str),
    /// The signature algorithm in force is none.
    #[error("option `signature_algo` is wrong")]
    Algorithm(#[from] ParseAlgorithmError),
    /// The list of sites is not in PHP's form.
    #[error("option `exclude_sites` is not a serialized array")]
    Sites(#[from] ReadError),
    /// The store failed.
    #[error("options could not be read or written")]
    Database(#[from] DatabaseError),
}

/// Values of files: what an administrator of PHP has in `.settings.php` and `pull.php`.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Section `pull` of `.settings.php`, with `.settings_extra.php` merged over it.
    pub settings: BTreeMap<String, String>,
    /// `$pull_default_option` of `php_interface/pull.php`.
    pub include: BTreeMap<String, String>,
}

impl Files {
    /// Takes over the section `pull` of the text of a `.settings.php`; later calls win.
    ///
    /// # Errors
    /// When the text is no array of PHP; a file without the section is none.
    pub fn read_settings(&mut self, text: &str) -> Result<(), ReadError> {
        let array = php::source_array(text, "return")?;
        let section = array.get("pull").and_then(|pull| pull.get("value"));
        self.settings.extend(section.into_iter().flat_map(values));
        Ok(())
    }

    /// Takes over `$pull_default_option` of the text of a `pull.php`.
    ///
    /// # Errors
    /// When the text has no such array.
    pub fn read_include(&mut self, text: &str) -> Result<(), ReadError> {
        let array = php::source_array(text, "$pull_default_option")?;
        self.include.extend(values(&array));
        Ok(())
    }
}

/// Names and plain values of an array; numbers become texts, true and false `Y` and `N`.
fn values(array: &php::Value) -> Vec<(String, String)> {
    let php::Value::Array(entries) = array else { return Vec::new() };
    let text = |value: &php::Value| match value {
        php::Value::Bool(value) => Some(if *value { "Y" } else { "N" }.to_owned()),
        other => other.to_text(),
    };
    entries.iter().filter_map(|(key, value)| Some((key.to_text()?, text(value)?))).collect()
}

/// How a queue server is spoken to: option `nginx_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// nginx push stream 0.3.4.
    One,
    /// nginx push stream 0.4.0.
    Two,
    /// Push server 1.0.
    Three,
    /// Push server 2.0.
    Four,
    /// JSON-RPC.
    Five,
}

impl Generation {
    pub(crate) const fn numbered(number: i64) -> Self {
        match number {
            ..=1 => Self::One,
            2 => Self::Two,
            3 => Self::Three,
            4 => Self::Four,
            5.. => Self::Five,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i64 {
        self as i64 + 1
    }

    /// Whether clients publish: private channels come with public ids, signed as a pair.
    #[must_use]
    pub fn has_public_channels(self) -> bool {
        matches!(self, Self::Four | Self::Five)
    }

    /// Whether clients get a token.
    #[must_use]
    pub fn has_tokens(self) -> bool {
        matches!(self, Self::Five)
    }
}

/// The options of a site in force. A snapshot: a change makes a new one.
#[derive(Clone, Debug)]
pub struct Options {
    values: Vec<(String, Source)>,
    signing: Option<SignatureKey>,
    is_key_own: bool,
    excluded: Vec<String>,
}

impl Options {
    fn new(
        site: &BTreeMap<String, String>,
        common: &BTreeMap<String, String>,
        files: &Files,
        values: &OwnValues,
        server_key: Option<SignatureKey>,
    ) -> Result<Self, OptionError> {
        let find = |key: Key| {
            if let Some(value) = values.pinned.get(&key) {
                return (value.clone(), Source::Pinned);
            }
            let sources = [
                (site, Source::Site),
                (common, Source::Database),
                (&files.settings, Source::File),
                (&files.include, Source::IncludeFile),
            ];
            let found =
                sources.iter().find_map(|(map, source)| Some((map.get(key.name())?, *source)));
            let found = found.map(|(value, source)| (value.clone(), source));
            let generated = || Some((values.generated.get(&key)?.clone(), Source::Generated));
            let built_in = || (key.default_value().to_owned(), Source::BuiltIn);
            found.or_else(generated).unwrap_or_else(built_in)
        };
        let mut options = Self {
            values: Key::ALL.iter().map(|key| find(*key)).collect(),
            signing: None,
            is_key_own: false,
            excluded: Vec::new(),
        };
        let push = &mut options.values[Key::PushServiceUrl as usize];
        if push.1 == Source::BuiltIn && REGIONS.contains(&&*find(Key::Region).0) {
            "https://cloud-messaging.bitrix24.tech/send/".clone_into(&mut push.0);
        }
        let secret = if options.is_cloud() { Key::SharedServerKey } else { Key::SignatureKey };
        let algorithm = options.text(Key::SignatureAlgo).parse()?;
        let secret = options.text(secret);
        if !secret.is_empty() {
            let secret = Secret::new(secret.to_owned());
            options.signing = Some(SignatureKey::new(secret, algorithm, None));
            options.is_key_own = true;
        } else if !options.is_cloud() {
            options.signing = server_key;
        }
        let php::Value::Array(excluded) = php::unserialize(options.text(Key::ExcludeSites))? else {
            return Err(OptionError::Value {
                key: Key::ExcludeSites.name(),
                wanted: "a serialized array".into(),
            });
        };
        options.excluded = excluded.iter().filter_map(|(_, site)| site.to_text()).collect();
        Ok(options)
    }

    /// Options with these values in the database.
    #[cfg(test)]
    pub(crate) fn of(values: &[(Key, &str)]) -> Self {
        let common = values.iter().map(|(key, value)| (key.name().to_owned(), (*value).to_owned()));
        Self::new(
            &BTreeMap::new(),
            &common.collect(),
            &Files::default(),
            &OwnValues::default(),
            None,
        )
        .expect("good values")
    }

    /// Options with these values in the program's configuration.
    #[cfg(test)]
    pub(crate) fn pinned(values: &[(Key, &str)]) -> Self {
        let pinned = values.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let own = OwnValues { pinned, generated: BTreeMap::new() };
        let nothing = BTreeMap::new();
        Self::new(&nothing, &nothing, &Files::default(), &own, None).expect("good values")
    }

    /// The value of `key`.
    #[must_use]
    pub fn text(&self, key: Key) -> &str {
        &self.values[key as usize].0
    }

    /// Whether `key` is `Y`.
    #[must_use]
    pub fn is_on(&self, key: Key) -> bool {
        self.text(key) == "Y"
    }

    /// Whether notifications go to mobile devices: option `push` is anything but `N`.
    #[must_use]
    pub fn is_push_on(&self) -> bool {
        self.text(Key::Push) != "N"
    }

    /// The value of `key` as a number, as PHP reads one.
    #[must_use]
    pub fn number(&self, key: Key) -> i64 {
        php::intval(self.text(key))
    }

    /// Where the value of `key` comes from.
    #[must_use]
    pub fn source(&self, key: Key) -> Source {
        self.values[key as usize].1
    }

    /// Whether Bitrix' own server is used.
    #[must_use]
    pub fn is_cloud(&self) -> bool {
        self.text(Key::ServerMode) == "shared"
    }

    /// The generation in force; the cloud is always of the fourth.
    #[must_use]
    pub fn generation(&self) -> Generation {
        if self.is_cloud() { Generation::Four } else { self.stored_generation() }
    }

    /// The generation of the local server, in force or not.
    #[must_use]
    pub fn stored_generation(&self) -> Generation {
        Generation::numbered(self.number(Key::NginxVersion))
    }

    /// The sites on whose pages the module does not start.
    pub fn excluded_sites(&self) -> impl Iterator<Item = &str> {
        self.excluded.iter().map(String::as_str)
    }

    /// Whether there is a queue server.
    #[must_use]
    pub fn is_server_on(&self) -> bool {
        let key = if self.is_cloud() { Key::RegisteredOnSharedServer } else { Key::Nginx };
        self.is_on(key)
    }

    /// Whether a configuration says that WebSockets may be used.
    #[must_use]
    pub fn has_websockets(&self) -> bool {
        self.is_on(Key::Websocket) || self.generation() >= Generation::Three
    }

    /// Whether the configuration of old clients names an address for WebSockets.
    #[must_use]
    pub fn has_legacy_websockets(&self) -> bool {
        self.has_websockets() && self.generation() != Generation::One
    }

    /// Whether old clients may read headers of answers.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.is_on(Key::NginxHeaders) && self.generation() < Generation::Three
    }

    /// The key that signs; `None`: nothing is signed.
    #[must_use]
    pub fn signing_key(&self) -> Option<&SignatureKey> {
        self.signing.as_ref()
    }

    /// The key that signs if it is the tenant's own and not that of the queue server in this process.
    #[must_use]
    pub fn own_signing_key(&self) -> Option<&SignatureKey> {
        self.signing.as_ref().filter(|_| self.is_key_own)
    }

    /// Whether the module does not start on pages of `site`.
    #[must_use]
    pub fn is_excluded(&self, site: &str) -> bool {
        self.excluded.iter().any(|excluded| excluded == site)
    }

    /// An address with `#DOMAIN#` and `#PORT#` replaced; only generation 1 has a port of its own.
    #[must_use]
    pub fn address(&self, key: Key, domain: &str) -> String {
        self.without_port(key).replace("#DOMAIN#", domain)
    }

    /// An address in which `#DOMAIN#` stays: old clients replace it themselves.
    pub(crate) fn without_port(&self, key: Key) -> String {
        let is_secure = self.text(key).starts_with("https:") || self.text(key).starts_with("wss:");
        let port = match (self.generation(), is_secure) {
            (Generation::One, false) => ":8893",
            (Generation::One, true) => ":8894",
            _ => "",
        };
        self.text(key).replace("#PORT#", port)
    }

    /// Who the site is to the cloud: the hash of its licence key.
    #[must_use]
    pub fn cloud_client_id(&self) -> String {
        let licence = self.text(Key::LicenceKey);
        let licence = if licence.is_empty() { "DEMO" } else { licence };
        php::md5_hex(&format!("BITRIX{licence}LICENCE"))
    }
}

static READ: Statement =
    Statement::new("SELECT SITE_ID, NAME, VALUE FROM vestnik_option WHERE TENANT_ID = ?");
static WRITE: Statement = Statement::new(
    "INSERT INTO vestnik_option (TENANT_ID, SITE_ID, NAME, VALUE) VALUES (?, ?, ?, ?) {update TENANT_ID, SITE_ID, NAME: VALUE}",
);
static REMOVE: Statement =
    Statement::new("DELETE FROM vestnik_option WHERE TENANT_ID = ? AND SITE_ID = ? AND NAME = ?");

/// For so long options that another process may have changed are not read again, seconds.
const OPTIONS_TTL_S: u64 = 5;
/// Sites whose options are held in memory.
const SITES_MAX: usize = 1000;

impl Tenant {
    /// The options in force for `site`; an empty name for what is common to all.
    ///
    /// # Errors
    /// When they cannot be read, or a stored value makes no sense.
    pub async fn options(&self, site: &str) -> Result<Arc<Options>, OptionError> {
        let now_s = self.now_s();
        if let Some((options, read_s)) = self.state().options().get(site)
            && now_s < read_s + OPTIONS_TTL_S
        {
            return Ok(Arc::clone(options));
        }
        let version = self.state().options_version();
        let rows = self.database().fetch(&READ, &[Value::Int(self.id())]).await?;
        let (mut own, mut common) = (BTreeMap::new(), BTreeMap::new());
        for row in rows {
            let row_site = row.text(0)?;
            if row_site.is_empty() {
                common.insert(row.text(1)?, row.text(2)?);
            } else if row_site == site {
                own.insert(row.text(1)?, row.text(2)?);
            }
        }
        let options = Arc::new({
            let (files, values) = (self.state().files(), self.state().own_values());
            Options::new(&own, &common, &files, &values, self.service().own_key())?
        });
        let mut known = self.state().options();
        if known.len() >= SITES_MAX {
            known.clear();
        }
        // What was read before a change must not outlive it.
        if version == self.state().options_version() {
            known.insert(site.to_owned(), (Arc::clone(&options), now_s));
        }
        Ok(options)
    }

    /// Replaces the values that files give.
    pub fn set_files(&self, files: Files) {
        self.state().set_files(files);
    }

    /// Replaces the values that the program itself brings. Clients are not told.
    pub fn set_own_values(&self, values: OwnValues) {
        self.state().set_own_values(values);
    }

    /// Changes options of `site` (empty: of all), all or none; `None`, or an empty address, takes the value away, so that
    /// the next source counts. Clients are told to fetch their configuration again (M-083).
    ///
    /// # Errors
    /// When a value is wrong or pinned: nothing was changed then; or when the store fails.
    pub async fn set_options(
        &self,
        site: &str,
        changes: &[(Key, Option<&str>)],
    ) -> Result<(), OptionError> {
        // An address cannot be empty: without one the next source counts (S-52).
        let is_address = |key: Key| matches!(key.kind(), Kind::Address | Kind::SocketAddress);
        let changes = changes.iter().map(|(key, value)| {
            (*key, value.filter(|value| !value.is_empty() || !is_address(*key)))
        });
        let changes: Vec<_> = changes.collect();
        let pinned = self.state().own_values().pinned;
        for (key, value) in &changes {
            if let Some(value) = value {
                if pinned.contains_key(key) {
                    return Err(OptionError::Pinned(key.name()));
                }
                key.check(value)?;
            }
        }
        // Clients of a server that is being switched off are told as well.
        let before = self.settings_changed(site).await?;
        // Clients compare: two changes within one second differ, too (S-51).
        let last = self.options(site).await?.number(Key::ConfigTimestamp);
        let now = i64::try_from(self.now_s()).unwrap_or(i64::MAX).max(last.saturating_add(1));
        self.write_options(site, &changes, Some(&now.to_string())).await?;
        let after = self.settings_changed(site).await?;
        if let Some(event) = after.or(before) {
            self.tell(event).await;
        }
        Ok(())
    }

    /// Takes away everything that was set, except who the tenant is to the cloud and to itself
    /// (settings-page.md §5).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn restore_default_options(&self, site: &str) -> Result<(), OptionError> {
        const KEPT: [Key; 12] = [
            Key::RegisteredOnSharedServer,
            Key::SharedServerAddress,
            Key::SharedServerKey,
            Key::NginxError,
            Key::SharedWorkerAllowed,
            Key::Debug,
            Key::NewClientUsers,
            Key::ConfigTimestamp,
            Key::ServerName,
            Key::Region,
            Key::LicenceKey,
            Key::CallbackUrl,
        ];
        let keys = Key::ALL.iter().filter(|key| !KEPT.contains(key));
        let changes: Vec<_> = keys.map(|key| (*key, None)).collect();
        self.set_options(site, &changes).await
    }

    /// Keeps a state of the module in an option; nobody is told.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keep_state(&self, key: Key, value: &str) -> Result<(), OptionError> {
        self.write_options("", &[(key, Some(value))], None).await
    }

    /// Writes values without telling anybody: states that the module keeps in its options.
    pub(crate) async fn write_options(
        &self,
        site: &str,
        changes: &[(Key, Option<&str>)],
        timestamp: Option<&str>,
    ) -> Result<(), OptionError> {
        let tenant = Value::Int(self.id());
        let mut transaction = self.database().begin().await?;
        for (key, value) in changes {
            let name = Value::Text(key.name());
            match value {
                Some(value) => {
                    let values = [tenant, Value::Text(site), name, Value::Text(value)];
                    transaction.execute(&WRITE, &values).await?;
                }
                None => {
                    transaction.execute(&REMOVE, &[tenant, Value::Text(site), name]).await?;
                }
            }
        }
        if let Some(timestamp) = timestamp {
            let name = Value::Text(Key::ConfigTimestamp.name());
            let values = [tenant, Value::Text(""), name, Value::Text(timestamp)];
            transaction.execute(&WRITE, &values).await?;
        }
        transaction.commit().await?;
        self.state().forget_options();
        Ok(())
    }

    /// The message that settings changed, to the shared channel; none while there is no server or
    /// nobody has a shared channel yet.
    ///
    /// # Errors
    /// When options or the channel cannot be read.
    pub async fn settings_changed(&self, site: &str) -> Result<Option<ModuleEvent>, OptionError> {
        let options = self.options(site).await?;
        if !options.is_server_on() {
            return Ok(None);
        }
        let Some(shared) = self.stored_shared_channel().await? else { return Ok(None) };
        let extra = notice::extra(self.now_ms(), options.text(Key::ServerName));
        let nothing = php::Value::Array(Vec::new());
        Ok(Some(notice::event(shared, "config_expire", nothing, extra)))
    }
}
