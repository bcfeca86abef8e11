//! Settings: default, files, environment and flags become one checked [`Config`].
//!
//! The only place that reads configuration files and the environment. Every problem is found in one
//! run and told with its path; nothing is guessed. Files whose names end in `.json` are those of the
//! originals (`config/import.rs`), all others are `vestnik.toml`.

mod acme;
mod certificates;
mod document;
mod files;
mod import;
mod keys;
mod layer;
mod module;
#[cfg(test)]
mod mutation;
mod redis;
mod table;
mod value;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vestnik_core::Secret;
use vestnik_core::sign::{Algorithm, Key, KeyRing};
use vestnik_core::tenant::MissingExpiry;
use vestnik_hub::engine::RedisOptions;

pub(crate) use acme::{Acme, Proof};
pub(crate) use certificates::LoadedCertificate;
pub(crate) use document::options as options_page;
pub(crate) use files::open_files_max;
pub(crate) use keys::{KeySource, KeySummary, LoadKeysError, Security, Strictness};
pub(crate) use layer::{Place, Problem};
pub(crate) use value::{WrittenCertificate, show_size, show_time};
pub(crate) use vestnik_server::{ForwardedHeader, Network};

use import::Import;
pub(crate) use module::Module;

use keys::PoorKey;
use layer::{Layers, Rank};
use value::Value;

/// Everything the program was told, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The files it was read from, in order.
    pub(crate) files: Vec<PathBuf>,
    /// Folder of everything the server keeps.
    pub(crate) data_dir: PathBuf,
    /// What a text publish without `Message-Expiry` means (README D5).
    pub(crate) missing_expiry: MissingExpiry,
    /// Whether clients that are not signed in may write to users (generation 5).
    pub(crate) guests_write_to_users: bool,
    /// Sockets and threads.
    pub(crate) server: Server,
    /// Signatures.
    pub(crate) security: Security,
    /// Who may publish.
    pub(crate) trusted: Trusted,
    /// Sizes and counts.
    pub(crate) limits: Limits,
    /// Times.
    pub(crate) timing: Timing,
    /// Kept messages.
    pub(crate) history: History,
    /// Where Redis is, for the engine that uses it.
    pub(crate) redis: RedisOptions,
    /// The module; `None`: switched off.
    pub(crate) module: Option<Module>,
    /// What is logged.
    pub(crate) log: Log,
    /// Every certificate that a listener names.
    pub(crate) certificates: Vec<LoadedCertificate>,
    /// The certificate that is obtained automatically.
    pub(crate) acme: Option<Acme>,
    /// What all this was made from.
    layers: Arc<Layers>,
}

/// Sockets and threads.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// At least one, with different addresses.
    pub(crate) listeners: Vec<Listener>,
    /// Threads that serve connections: 1 to 64.
    pub(crate) shards: usize,
    /// Where browsers reach the server, without a slash at the end; unknown unless told.
    pub(crate) public_url: Option<String>,
    /// Time over which 10,000 connections are closed at shutdown (K-042).
    pub(crate) drain_per_10000: Duration,
    /// Whether WebSocket messages are compressed for clients that offer it.
    pub(crate) compression: bool,
    /// How often files are looked at for changes; zero: never.
    pub(crate) watch: Duration,
    /// Whether an imported file says that it is one process of a cluster; statistics show it.
    pub(crate) cluster_mode: bool,
    /// Members of `limits` in imported files that mean nothing here; statistics repeat them.
    pub(crate) other_limits: serde_json::Map<String, serde_json::Value>,
}

/// One socket that takes connections.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Its name in the log.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Connections the system may queue.
    pub(crate) backlog: u32,
    /// What it answers.
    pub(crate) routes: Routes,
    /// The certificates of a listener with TLS, the default one first.
    pub(crate) tls: Option<Vec<WrittenCertificate>>,
    /// Whether its connections begin with a PROXY header.
    pub(crate) proxy_protocol: bool,
    /// The socket, when whoever started the program opened it.
    pub(crate) inherited: Option<Arc<TcpListener>>,
}

impl Listener {
    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether it is the same listener as `other`, certificates aside.
    fn is_same(&self, other: &Self) -> bool {
        (
            &self.name,
            self.address,
            self.backlog,
            &self.routes,
            self.tls.is_some(),
            self.proxy_protocol,
        ) == (
            &other.name,
            other.address,
            other.backlog,
            &other.routes,
            other.tls.is_some(),
            other.proxy_protocol,
        )
    }
}

/// A listening socket that the process was started with.
#[derive(Clone, Debug)]
pub(crate) struct InheritedSocket {
    /// What it is for: with `https` or `tls` in its name it is encrypted, with `proxy` its connections
    /// begin with a PROXY header.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Itself.
    pub(crate) socket: Arc<TcpListener>,
}

/// Which paths a listener answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    /// All routes of README "Routes of the one port".
    Standard,
    /// Only these, as in an imported file.
    Only(RoutePrefixes),
}

/// Path prefixes of an imported listener; compared as queue-server.md §4.1 says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoutePrefixes {
    /// Publishing and presence, trusted.
    pub(crate) publish: Option<String>,
    /// Long poll and WebSocket.
    pub(crate) subscribe: Option<String>,
    /// Publishing by clients.
    pub(crate) rest: Option<String>,
    /// Statistics, trusted.
    pub(crate) stat: Option<String>,
}

/// Who may publish (README D15).
#[derive(Clone, Debug)]
pub(crate) struct Trusted {
    /// Callers that may use trusted routes.
    pub(crate) allow: Vec<Network>,
    /// Peers whose word on the caller is believed.
    pub(crate) proxies: Vec<Network>,
    /// Where they write it.
    pub(crate) forwarded: ForwardedHeader,
    /// Path segment that admits a publisher from anywhere.
    pub(crate) path_secret: Option<Secret<String>>,
}

/// Sizes in bytes, and counts.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes of a text publish, a client's request or a WebSocket message.
    pub(crate) payload_bytes: usize,
    /// Bytes of a binary publish; not below `payload_bytes`.
    pub(crate) trusted_payload_bytes: usize,
    /// Connections of one private channel.
    pub(crate) connections_per_channel: usize,
    /// Messages in one binary request.
    pub(crate) messages_per_request: usize,
    /// Receivers of one message, channels of one presence request.
    pub(crate) channels_per_request: usize,
    /// Connections of one user.
    pub(crate) connections_per_user: usize,
    /// Connections of the process.
    pub(crate) connections: usize,
    /// Connections from one address; not above `connections`.
    pub(crate) connections_per_address: usize,
    /// Subscriptions a second from one address; 0: no limit.
    pub(crate) subscriptions_per_second: u32,
    /// Publishes a second from one address; 0: no limit.
    pub(crate) publishes_per_second: u32,
    /// Bytes of memory above which nothing new is taken; 0: no limit.
    pub(crate) memory_bytes: u64,
    /// Bytes of the head of a request.
    pub(crate) request_head_bytes: usize,
    /// Messages that wait for a slow connection.
    pub(crate) outbox_messages: usize,
    /// Bytes that wait for a slow connection.
    pub(crate) outbox_bytes: usize,
    /// Messages that wait for one shard.
    pub(crate) inbox_messages: usize,
}

/// Times.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    /// How long a poll without news is held; below 60 s.
    pub(crate) poll: Duration,
    /// Period of WebSocket pings.
    pub(crate) ping: Duration,
    /// Period of text pings.
    pub(crate) text_ping: Duration,
    /// Silence that ends a JSON-RPC connection.
    pub(crate) text_silence: Duration,
    /// How long a connection may outlive its token.
    pub(crate) token_grace: Duration,
    /// Silence that ends an unfinished body.
    pub(crate) body: Duration,
    /// Time for the head of a request.
    pub(crate) head: Duration,
    /// How long an idle HTTP connection is kept.
    pub(crate) keep_alive: Duration,
    /// How long a channel stays online after a poll.
    pub(crate) presence_grace: Duration,
}

/// Where messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistoryEngine {
    /// On disk; survives a restart.
    Disk,
    /// In memory.
    Memory,
    /// In Redis, shared by several nodes.
    Redis,
}

/// When messages are forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistorySync {
    /// Before a publish is answered.
    Always,
    /// Once in this time.
    Interval(Duration),
    /// When the system likes.
    Never,
}

/// Kept messages.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Where they are kept.
    pub(crate) engine: HistoryEngine,
    /// When they are forced to disk.
    pub(crate) sync: HistorySync,
    /// Longest time one is kept; at most a day.
    pub(crate) message_ttl: Duration,
    /// Kept for one channel.
    pub(crate) messages_per_channel: usize,
    /// Kept in all.
    pub(crate) messages: usize,
    /// Bytes kept in all.
    pub(crate) bytes: u64,
    /// Bytes of memory for recent ones.
    pub(crate) cache_bytes: usize,
    /// Handed to one returning subscriber.
    pub(crate) replay_messages: usize,
}

/// Least important lines that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// Someone must act.
    Error,
    /// Odd, survived.
    Warn,
    /// Start, stop, reload.
    Info,
    /// One line per connection.
    Debug,
    /// Everything.
    Trace,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// What is logged.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// Least important lines.
    pub(crate) level: LogLevel,
    /// How lines are written.
    pub(crate) format: LogFormat,
}

/// Something odd that does not keep the program from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// Where it was written.
    pub(crate) place: Place,
    /// The path of the setting.
    pub(crate) path: String,
    /// What is odd and what is in force.
    pub(crate) text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Place::File(file, _) = &self.place {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// Every problem of one run; printed by place, as in style.md §8.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigErrors {
    /// At least one.
    pub(crate) problems: Vec<Problem>,
    /// What is odd in files besides: whoever mends a problem wants to know it in the same run.
    pub(crate) warnings: Vec<Warning>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest: Vec<_> = self.problems.iter().collect();
        while let Some(first) = rest.first() {
            let place = first.place.to_string();
            let (here, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|problem| problem.place.to_string() == place);
            let noun = if here.len() == 1 { "problem" } else { "problems" };
            write!(f, "{} {noun} in {place}", here.len())?;
            for Problem { place, path, text } in here {
                let line = match place {
                    Place::File(_, Some(line)) => format!("line {line}"),
                    _ => String::new(),
                };
                match (path.is_empty(), line.is_empty()) {
                    (true, true) => write!(f, "\n  {text}")?,
                    (true, false) => write!(f, "\n  {line}: {text}")?,
                    (false, true) => write!(f, "\n  {path}: {text}")?,
                    (false, false) => write!(f, "\n  {path} ({line}): {text}")?,
                }
            }
            rest = others;
            if !rest.is_empty() {
                writeln!(f)?;
            }
        }
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// Files and folders, in order.
    pub(crate) files: Vec<PathBuf>,
    /// Variables of the environment; foreign ones are skipped.
    pub(crate) environment: Vec<(String, String)>,
    /// Paths and values of the command line, in order.
    pub(crate) flags: Vec<(String, String)>,
    /// Folder to keep data in unless told.
    pub(crate) data_dir: PathBuf,
    /// Sockets that the process was started with.
    pub(crate) inherited: Vec<InheritedSocket>,
}

/// Flags of every command that reads the configuration.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// A vestnik.toml, a push-server-*.json, or a folder of such files; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Vec<PathBuf>,
    /// Set one option, for example history.sync=interval; may be repeated.
    #[arg(long, value_name = "OPTION=VALUE", value_parser = option_and_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Listen on this address and port; may be repeated (server.listen).
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Vec<String>,
    /// Keep data in this folder (data_dir).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data_dir: Option<String>,
    /// error, warn, info, debug or trace (log.level).
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// Accept short and published signature keys (security.allow_weak_key).
    #[arg(long)]
    pub(crate) allow_weak_key: bool,
}

fn option_and_value(text: &str) -> Result<(String, String), String> {
    let (option, value) =
        text.split_once('=').ok_or("must be OPTION=VALUE, such as history.sync=always")?;
    Ok((option.trim().to_owned(), value.trim().to_owned()))
}

impl ConfigArgs {
    /// The sources these flags name, with the environment of the process.
    pub(crate) fn sources(&self) -> Sources {
        let mut flags = self.set.clone();
        let direct = [
            ("server.listen", (!self.listen.is_empty()).then(|| self.listen.join(","))),
            ("data_dir", self.data_dir.clone()),
            ("log.level", self.log.clone()),
            ("security.allow_weak_key", self.allow_weak_key.then(|| "true".to_owned())),
        ];
        let direct = direct.into_iter().filter_map(|(path, value)| Some((path.to_owned(), value?)));
        flags.extend(direct);
        Sources {
            files: self.config.clone(),
            environment: std::env::vars_os()
                .map(|(name, value)| {
                    (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
                })
                .collect(),
            flags,
            data_dir: default_data_dir(
                std::env::var_os("STATE_DIRECTORY").map(PathBuf::from),
                Path::new("/var/lib/vestnik"),
            ),
            inherited: Vec::new(),
        }
    }
}

/// The folder to keep data in unless told: what systemd made, the system's, or one right here.
fn default_data_dir(state_directory: Option<PathBuf>, system: &Path) -> PathBuf {
    // systemd separates several folders by colons; the first is ours.
    let first = state_directory
        .and_then(|it| it.to_str()?.split(':').next().map(PathBuf::from))
        .filter(|it| !it.as_os_str().is_empty());
    if let Some(folder) = first {
        return folder;
    }
    if is_writable(system) { system.to_owned() } else { "vestnik-data".into() }
}

/// Whether a file can be made in `folder`: the only sure answer is to make one.
pub(crate) fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(format!(".vestnik-write-test-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    made.is_ok() && std::fs::remove_file(&probe).is_ok()
}

impl Config {
    /// Reads all sources; a later one wins: default, file, environment, flag.
    ///
    /// # Errors
    /// Every problem found.
    pub(crate) fn load(sources: &Sources) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let mut layers = Layers::defaults();
        let (files, mut problems) = files_of(&sources.files);
        let mut import = Import::default();
        for file in &files {
            match std::fs::read_to_string(file) {
                Ok(text) if is_json(file) => import.read(&mut layers, file, &text),
                Ok(text) => problems.extend(layer::read_toml(&mut layers, file, &text)),
                Err(error) => problems.push(unreadable(file, &error)),
            }
        }
        problems.extend(layer::read_environment(&mut layers, &sources.environment));
        problems.extend(layer::read_flags(&mut layers, &sources.flags));
        let imported = import.finish(&mut layers);
        problems.extend(imported.problems);
        let mut build = Build { layers: &layers, problems, warnings: imported.warnings };
        build.warn_of_visible_secrets();
        let mut listeners = imported.listeners;
        let data_dir = build.data_dir(&sources.data_dir);
        build.listeners(&mut listeners, &sources.inherited, &data_dir);
        let mut certificates = imported.certificates;
        build.certificates(&listeners, &mut certificates);
        let acme = build.acme(&listeners, &data_dir);
        if let Some(acme) = &acme {
            build.automatic(acme, &mut certificates);
        }
        let config = Self {
            files,
            data_dir,
            acme,
            missing_expiry: match layers.text("generation") {
                "3" => MissingExpiry::KeepDay,
                _ => MissingExpiry::Volatile,
            },
            guests_write_to_users: layers.flag("security.guests_write_to_users"),
            security: build.security(&listeners, &sources.data_dir),
            trusted: build.trusted(),
            limits: {
                let limits = build.limits();
                build.compare_open_files(&limits);
                limits
            },
            timing: timing(&layers),
            history: build.history(),
            module: build.module(&build.data_dir(&sources.data_dir)),
            redis: build.redis(),
            log: log(&layers),
            server: Server {
                listeners,
                shards: shards(layers.amount("server.shards")),
                public_url: build.public_url(),
                drain_per_10000: layers.time("server.drain"),
                compression: layers.flag("server.compression"),
                watch: layers.time("server.watch"),
                cluster_mode: imported.cluster_mode,
                other_limits: imported.other_limits,
            },
            certificates,
            layers: Arc::new(Layers::defaults()),
        };
        let Build { problems, warnings, .. } = build;
        let config = Self { layers: Arc::new(layers), ..config };
        if problems.is_empty() { Ok((config, warnings)) } else { Err(errors(problems, warnings)) }
    }

    /// Where a setting was written.
    pub(crate) fn place(&self, path: &str) -> Place {
        self.layers.place(path)
    }

    /// What differs from `before` and counts only from the next start: paths of settings.
    pub(crate) fn needs_restart(&self, before: &Self) -> Vec<&'static str> {
        let changed = self.layers.changed_from(&before.layers);
        let mut paths: Vec<_> =
            changed.iter().filter(|it| !it.is_live()).map(|it| it.path).collect();
        let (now, then) = (&self.server.listeners, &before.server.listeners);
        let are_same = now.len() == then.len() && now.iter().zip(then).all(|(a, b)| a.is_same(b));
        if !are_same && !paths.iter().any(|path| path.starts_with("server.")) {
            paths.push("servers");
        }
        paths
    }

    /// What differs from `before` and counts at once: paths of settings.
    pub(crate) fn changed_live(&self, before: &Self) -> Vec<&'static str> {
        let changed = self.layers.changed_from(&before.layers);
        changed.iter().filter(|it| it.is_live()).map(|it| it.path).collect()
    }

    /// The files a change of which changes what is in force.
    pub(crate) fn watched_files(&self) -> BTreeSet<PathBuf> {
        let mut files: BTreeSet<_> = self.files.iter().cloned().collect();
        for LoadedCertificate { files: WrittenCertificate { certificate, key }, .. } in
            &self.certificates
        {
            files.extend([certificate.clone(), key.clone()]);
        }
        if let KeySource::File { path, .. } = &self.security.keys {
            files.insert(path.clone());
        }
        files.extend(self.acme.as_ref().map(Acme::certificate));
        files
    }
}

fn is_json(file: &Path) -> bool {
    file.extension().is_some_and(|it| it.eq_ignore_ascii_case("json"))
}

fn unreadable(file: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Place::File(file.to_owned(), None), "", format!("cannot be read: {error}"))
}

/// The problems of a run, with what is odd in its files; warnings of the command line and the
/// environment are about a start that does not come to pass.
fn errors(problems: Vec<Problem>, mut warnings: Vec<Warning>) -> ConfigErrors {
    warnings.retain(|warning| matches!(warning.place, Place::File(..)));
    ConfigErrors { problems, warnings }
}

/// The files that `paths` name: folders stand for the `.toml` and `.json` files in them, by name,
/// without the templates that the originals keep beside what is generated from them.
fn files_of(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Problem>) {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        match configuration_files_in(path) {
            Ok(found) if found.is_empty() => problems.push(Problem::new(
                Place::File(path.clone(), None),
                "",
                "no .toml or .json file in this folder",
            )),
            Ok(found) => files.extend(found),
            Err(error) => problems.push(unreadable(path, &error)),
        }
    }
    (files, problems)
}

fn configuration_files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let template = name.contains("__PORT__") || name.starts_with('.');
        let toml = path.extension().is_some_and(|it| it == "toml");
        if !template && (toml || is_json(&path)) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// 0 means one per core.
fn shards(configured: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if configured == 0 { cores().min(64) } else { configured }
}

fn timing(layers: &Layers) -> Timing {
    Timing {
        poll: layers.time("timing.poll"),
        ping: layers.time("timing.ping"),
        text_ping: layers.time("timing.text_ping"),
        text_silence: layers.time("timing.text_silence"),
        token_grace: layers.time("timing.token_grace"),
        body: layers.time("timing.body"),
        head: layers.time("timing.head"),
        keep_alive: layers.time("timing.keep_alive"),
        presence_grace: layers.time("timing.presence_grace"),
    }
}

fn log(layers: &Layers) -> Log {
    Log {
        level: match layers.text("log.level") {
            "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => LogLevel::Info,
        },
        format: match layers.text("log.format") {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        },
    }
}

/// Makes the parts of [`Config`] and collects what does not fit together.
struct Build<'run> {
    layers: &'run Layers,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Build<'_> {
    fn problem(&mut self, path: &str, text: impl Into<String>) {
        self.problems.push(Problem::new(self.layers.place(path), path, text));
    }

    fn warn(&mut self, path: &str, text: impl Into<String>) {
        let place = self.layers.place(path);
        self.warnings.push(Warning { place, path: path.to_owned(), text: text.into() });
    }

    fn warn_of_visible_secrets(&mut self) {
        for path in [
            "security.key",
            "trusted.path_secret",
            "redis.password",
            "redis.sentinel_password",
            "module.database",
        ] {
            if self.layers.place(path) == Place::Flag && !self.layers.text(path).is_empty() {
                self.warn(
                    path,
                    "every user of this machine can read the command line; use a file or the environment",
                );
            }
        }
    }

    fn addresses(&self, path: &str) -> Vec<SocketAddr> {
        match self.layers.value(path) {
            Value::Addresses(addresses) => addresses.clone(),
            _ => unreachable!("{path} is a list of addresses in the table"),
        }
    }

    fn written_certificates(&self) -> Vec<WrittenCertificate> {
        match self.layers.value("tls.certificates") {
            Value::Certificates(certificates) => certificates.clone(),
            _ => unreachable!("tls.certificates is a list of certificates in the table"),
        }
    }

    /// Adds inherited sockets and the listeners of `server.listen` and `server.listen_tls` to the
    /// imported ones and checks them all.
    fn listeners(
        &mut self,
        listeners: &mut Vec<Listener>,
        inherited: &[InheritedSocket],
        data_dir: &Path,
    ) {
        let backlog = u32::try_from(self.layers.number("server.backlog")).unwrap_or(1024);
        let listener = |name: String, address: SocketAddr| Listener {
            name,
            address,
            backlog,
            routes: Routes::Standard,
            tls: None,
            proxy_protocol: false,
            inherited: None,
        };
        let mut certificates = self.written_certificates();
        certificates.extend(self.automatic_certificate(data_dir));
        for InheritedSocket { name, address, socket } in inherited {
            let is_tls = name.contains("https") || name.contains("tls");
            listeners.push(Listener {
                tls: is_tls.then(|| certificates.clone()),
                proxy_protocol: name.contains("proxy"),
                inherited: Some(Arc::clone(socket)),
                ..listener(name.clone(), *address)
            });
        }
        if listeners.is_empty() || self.layers.rank("server.listen") > Rank::Default {
            let plain = self.addresses("server.listen").into_iter();
            listeners.extend(plain.map(|address| listener(address.to_string(), address)));
        }
        let encrypted = self.addresses("server.listen_tls").into_iter();
        listeners.extend(encrypted.map(|address| Listener {
            tls: Some(certificates.clone()),
            ..listener(address.to_string(), address)
        }));
        if listeners.is_empty() {
            self.problem("server.listen", "must name at least one address");
        }
        for address in self.addresses("server.proxy_protocol") {
            let mut is_known = false;
            for listener in listeners.iter_mut().filter(|it| it.address == address) {
                listener.proxy_protocol = true;
                is_known = true;
            }
            if !is_known {
                let text = format!(
                    "{address} is not listened on: repeat an address of `server.listen` or `server.listen_tls`"
                );
                self.problem("server.proxy_protocol", text);
            }
        }
        let mut seen = BTreeSet::new();
        for listener in listeners.iter().filter(|it| it.address.port() != 0) {
            if !seen.insert(listener.address) {
                let text = format!("{} is listened on twice", listener.address);
                self.problem("server.listen", text);
            }
        }
    }

    /// Reads the certificates of `tls.certificates`, and sees to it that every listener that needs one
    /// has one.
    fn certificates(&mut self, listeners: &[Listener], loaded: &mut Vec<LoadedCertificate>) {
        for (index, files) in self.written_certificates().iter().enumerate() {
            match certificates::load(files) {
                Ok(certificate) => loaded.push(certificate),
                Err(text) => {
                    self.problem("tls.certificates", format!("certificate {}: {text}", index + 1));
                }
            }
        }
        for certificate in loaded.iter() {
            if let Some(text) = certificate.warning() {
                self.warn("tls.certificates", text);
            }
        }
        let lacking = listeners.iter().find(|it| it.tls.as_ref().is_some_and(Vec::is_empty));
        if let Some(listener) = lacking {
            let text = format!(
                "must name a certificate for {}, or `acme.names` one that is to be obtained",
                listener.name
            );
            self.problem("tls.certificates", text);
        }
    }

    /// Reads the certificate that was obtained automatically. One that cannot be used is no mistake of
    /// the administrator's: another one is obtained.
    fn automatic(&mut self, acme: &Acme, loaded: &mut Vec<LoadedCertificate>) {
        if !acme.certificate().exists() {
            return;
        }
        match certificates::load(&acme.files()) {
            Ok(certificate) => loaded.push(certificate),
            Err(text) => self.warn("acme.names", format!("{text}; another one is asked for")),
        }
    }

    fn data_dir(&self, by_default: &Path) -> PathBuf {
        match self.layers.text("data_dir") {
            "" => by_default.to_owned(),
            written => written.into(),
        }
    }

    fn public_url(&mut self) -> Option<String> {
        let written = self.layers.text("server.public_url").trim_end_matches('/');
        if written.is_empty() {
            return None;
        }
        let host = written.strip_prefix("https://").or_else(|| written.strip_prefix("http://"));
        let plain =
            |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '\\']);
        if !host.is_some_and(plain) {
            self.problem(
                "server.public_url",
                format!(
                    "must be a scheme and a host, such as https://example.com, got `{written}`"
                ),
            );
        }
        Some(written.to_owned())
    }

    fn security(&mut self, listeners: &[Listener], data_dir: &Path) -> Security {
        let strictness = Strictness {
            weak_allowed: self.layers.flag("security.allow_weak_key"),
            loopback_only: listeners.iter().all(|it| it.address.ip().to_canonical().is_loopback()),
        };
        let algorithm = self.layers.text("security.algorithm").parse().unwrap_or_default();
        let keys = self.configured_keys(strictness, algorithm);
        let file = self.layers.text("security.key_file").to_owned();
        let unsigned = self.layers.flag("security.unsigned");
        if !keys.is_empty() && !file.is_empty() {
            let key_path = if self.layers.text("security.key").is_empty() {
                "security.keys"
            } else {
                "security.key"
            };
            // A container may override the key file of its image by a variable, and the reverse.
            let (of_key, of_file) =
                (self.layers.rank(key_path), self.layers.rank("security.key_file"));
            if of_key == of_file {
                self.problem(
                    "security.key_file",
                    format!("cannot be set together with `{key_path}`"),
                );
            } else if of_file > of_key {
                return self.key_file(file.into(), false, unsigned, algorithm, strictness);
            }
        }
        if keys.is_empty() {
            let generate = file.is_empty();
            let file =
                if generate { self.data_dir(data_dir).join("signature.key") } else { file.into() };
            return self.key_file(file, generate, unsigned, algorithm, strictness);
        }
        if unsigned {
            self.problem(
                "security.unsigned",
                "a server with a key refuses bare ids; remove the key or this option",
            );
        }
        let shown = keys.iter().map(|(key, until_s)| KeySummary::new(key, *until_s)).collect();
        let ring = match KeyRing::new(keys.into_iter().map(|(key, _)| key).collect()) {
            Ok(ring) => ring,
            Err(error) => {
                self.problem("security.keys", error.to_string());
                KeyRing::default()
            }
        };
        Security { keys: KeySource::Configured { ring, shown }, algorithm, strictness }
    }

    fn key_file(
        &mut self,
        path: PathBuf,
        generate: bool,
        unsigned: bool,
        algorithm: Algorithm,
        strictness: Strictness,
    ) -> Security {
        let keys = match (unsigned, generate) {
            (true, true) => KeySource::Unsigned,
            (true, false) => {
                self.problem("security.unsigned", "a server with a key refuses bare ids; remove `security.key_file` or this option");
                KeySource::Unsigned
            }
            (false, _) => KeySource::File { path, generate },
        };
        Security { keys, algorithm, strictness }
    }

    /// The keys that stand in the configuration itself with their ends, `security.key` first.
    fn configured_keys(
        &mut self,
        strictness: Strictness,
        algorithm: Algorithm,
    ) -> Vec<(Key, Option<u64>)> {
        let mut keys = Vec::new();
        let single = self.layers.text("security.key").to_owned();
        if !single.is_empty() {
            self.check_key("security.key", "", &single, strictness);
            keys.push((Key::new(Secret::new(single), algorithm, None), None));
        }
        let Value::Keys(written) = self.layers.value("security.keys") else {
            unreachable!("security.keys is a list of keys in the table");
        };
        for (index, it) in written.clone().into_iter().enumerate() {
            let number = format!("key {}: ", index + 1);
            self.check_key("security.keys", &number, &it.key, strictness);
            let algorithm = match it.algorithm.as_deref().map(str::parse) {
                None => algorithm,
                Some(Ok(named)) => named,
                Some(Err(error)) => {
                    self.problem("security.keys", format!("{number}{error}"));
                    algorithm
                }
            };
            keys.push((Key::new(Secret::new(it.key), algorithm, it.until_s), it.until_s));
        }
        keys
    }

    fn check_key(&mut self, path: &str, number: &str, key: &str, strictness: Strictness) {
        let imported = matches!(self.layers.place(path), Place::File(file, _) if is_json(&file));
        match PoorKey::find(key) {
            Some(poor) if poor.is_tolerable(strictness, imported) => {
                self.warn(path, format!("{number}{poor}"));
            }
            Some(poor) => self.problem(path, format!("{number}{poor}")),
            None => {}
        }
    }

    fn networks(&self, path: &str) -> Vec<Network> {
        match self.layers.value(path) {
            Value::Networks(networks) => networks.clone(),
            _ => unreachable!("{path} is a list of networks in the table"),
        }
    }

    fn trusted(&mut self) -> Trusted {
        let allow = self.networks("trusted.allow");
        if allow.iter().any(|network| network.is_everyone()) {
            self.warn("trusted.allow", "everybody may publish and read statistics");
        }
        let proxies = self.networks("trusted.proxies");
        if proxies.iter().any(|network| network.is_everyone()) {
            self.warn("trusted.proxies", "everybody may claim any address");
        }
        let secret = self.layers.text("trusted.path_secret").to_owned();
        let plain = secret.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-".contains(&it));
        let fits = plain && (16..=128).contains(&secret.len());
        if !secret.is_empty() && !fits {
            self.problem("trusted.path_secret", "must be 16 to 128 characters of A-Z a-z 0-9 _ -");
        }
        let path_secret = (!secret.is_empty()).then(|| Secret::new(secret));
        let forwarded = match self.layers.text("trusted.forwarded") {
            "forwarded" => ForwardedHeader::Forwarded,
            _ => ForwardedHeader::XForwardedFor,
        };
        Trusted { allow, proxies, forwarded, path_secret }
    }

    fn limits(&mut self) -> Limits {
        /// What a server with a few connections needs, and some.
        const MEMORY_MIN: usize = 32 << 20;
        let layers = self.layers;
        let payload_bytes = layers.amount("limits.max_payload");
        let mut trusted_payload_bytes = layers.amount("limits.max_trusted_payload");
        if trusted_payload_bytes < payload_bytes {
            if layers.rank("limits.max_trusted_payload") == Rank::Default {
                trusted_payload_bytes = payload_bytes;
            } else {
                self.problem(
                    "limits.max_trusted_payload",
                    "must not be below `limits.max_payload`",
                );
            }
        }
        let outbox_bytes = layers.amount("limits.outbox_bytes");
        if outbox_bytes / 2 < payload_bytes {
            self.warn("limits.outbox_bytes", "below twice `limits.max_payload`: a connection that is slow for one large message is closed");
        }
        let connections = layers.amount("limits.connections");
        let connections_per_address = match layers.amount("limits.connections_per_address") {
            0 => connections,
            number => number.min(connections),
        };
        let memory = layers.amount("limits.memory");
        if (1..MEMORY_MIN).contains(&memory) {
            self.problem(
                "limits.memory",
                "must be 0 or at least 32MiB: less would refuse everybody",
            );
        }
        let per_second = |path| u32::try_from(layers.amount(path)).unwrap_or(u32::MAX);
        Limits {
            payload_bytes,
            trusted_payload_bytes,
            connections_per_channel: layers.amount("limits.connections_per_channel"),
            connections_per_user: layers.amount("limits.connections_per_user"),
            messages_per_request: layers.amount("limits.messages_per_request"),
            channels_per_request: layers.amount("limits.channels_per_request"),
            connections,
            connections_per_address,
            subscriptions_per_second: per_second("limits.subscriptions_per_second"),
            publishes_per_second: per_second("limits.publishes_per_second"),
            memory_bytes: memory as u64,
            request_head_bytes: layers.amount("limits.request_head"),
            outbox_messages: layers.amount("limits.outbox_messages"),
            outbox_bytes,
            inbox_messages: layers.amount("limits.inbox_messages"),
        }
    }

    fn history(&mut self) -> History {
        let layers = self.layers;
        let engine = match layers.text("history.engine") {
            "memory" => HistoryEngine::Memory,
            "redis" => HistoryEngine::Redis,
            _ => HistoryEngine::Disk,
        };
        let sync = match layers.text("history.sync") {
            "interval" => HistorySync::Interval(layers.time("history.sync_interval")),
            "never" => HistorySync::Never,
            _ => HistorySync::Always,
        };
        History {
            engine,
            sync,
            message_ttl: layers.time("history.message_ttl"),
            messages_per_channel: layers.amount("history.messages_per_channel"),
            messages: layers.amount("history.messages"),
            bytes: layers.number("history.bytes"),
            cache_bytes: layers.amount("history.cache_bytes"),
            replay_messages: layers.amount("history.replay_messages"),
        }
    }
}

#[cfg(test)]
mod tests;
