//! `vestnik serve`: builds every part once, in order; takes them down in reverse.

pub(crate) mod module;
mod reload;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use vestnik_core::metric::Metrics;
use vestnik_core::sign::KeyRing;
use vestnik_core::tenant::Tenant;
use vestnik_core::{Clock, Expiry};
use vestnik_hub::engine::{DiskOptions, Engine, HistoryLimits, OpenError, Sync};
use vestnik_hub::presence::Loaded;
use vestnik_hub::{Announcer, Hub, OutboxLimits, Presence};
use vestnik_server::{
    Challenges, Door, Limits, Listener, Options, Route, Routes, Server, StartError, Tickets,
    Timing, Tls, Trust, UserPublishing,
};

use crate::acme::{self, Renewal};
use crate::config::{
    self, Config, ConfigArgs, HistoryEngine, HistorySync, LogFormat, LogLevel, RoutePrefixes,
};
use crate::failure::Failure;
use crate::parent::ParentArgs;
use crate::summary;
use crate::systemd::{self, State};
use reload::{Reloader, Watched};

/// Arguments of `vestnik serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// What to serve and how.
    #[command(flatten)]
    pub(crate) configuration: ConfigArgs,
    #[command(flatten)]
    pub(crate) parent: ParentArgs,
}

/// Serves until the process is told to stop.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    args.parent.end_with_it()?;
    let mut sources = args.configuration.sources();
    sources.inherited = systemd::sockets(&sources.environment)?;
    let mut watched = Watched::load(&sources)?;
    let set_log_level = start_log(&watched.config.log);
    for warning in &watched.warnings {
        tracing::warn!("{warning}");
    }
    let keys = watched.load_keys()?;
    let config = &watched.config;
    let metrics = Arc::new(Metrics::default());
    let clock = Clock::System;
    let announcer = Arc::new(Announcer::new(config.server.shards, config.limits.inbox_messages));
    let engine = open_engine(config, &announcer, &clock, &metrics)?;
    let presence = Arc::new(Presence::new(clock.clone(), config.timing.presence_grace));
    load_last_seen(config, &presence)?;
    let tickets = open_tickets(config, &clock);
    let hub = Hub::new(
        Arc::clone(&engine),
        announcer,
        Arc::clone(&metrics),
        Arc::clone(&presence),
        clock.clone(),
    );
    let hub = Arc::new(hub);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot watch for signals")?;
    // Signals are caught before the first connection, so that none finds the process unprepared.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let encryption = Encryption { tickets, challenges: Arc::default() };
    let options = options(config, keys.clone(), &encryption);
    let (door, visits) = Door::new();
    let door = config.module.is_some().then_some(door);
    let mut server = Server::start(options, Arc::clone(&hub), door).map_err(explain_start)?;
    summary::print(config, server.addresses());
    let module = module::Module::start(config, hub, &server, visits, &keys)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), addresses = ?server.addresses(), "serving");
    systemd::tell(State::Ready);
    let challenges = Arc::clone(&encryption.challenges);
    let (wanted, wishes) = watch::channel(config.acme.clone());
    let renewal = Renewal { wishes, challenges, metrics, clock };
    let mut reloader = Reloader::new(sources, watched, encryption, wanted, set_log_level);
    let served = Served { server: &server, module: module.as_ref() };
    let ended = runtime.block_on(watch_over(served, &mut signals, &mut reloader, renewal));
    systemd::tell(State::Stopping);
    systemd::alive_during(|| {
        server.stop();
        if let Some(module) = module {
            module.stop();
        }
    });
    if let Err(error) = presence.save(&last_seen(reloader.config())) {
        tracing::error!(%error, "times of last seen not saved");
    }
    engine.close();
    tracing::info!("stopped");
    anyhow::ensure!(ended == Ended::Told, "a thread of the server has failed");
    Ok(())
}

/// What a changed configuration is put in force in.
#[derive(Clone, Copy)]
struct Served<'a> {
    server: &'a Server,
    module: Option<&'a module::Module>,
}

/// Why serving is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The process was told to stop.
    Told,
    /// A thread has failed.
    Failed,
}

/// What encrypted listeners share, the same over every reload.
struct Encryption {
    tickets: Arc<Tickets>,
    challenges: Arc<Challenges>,
}

/// Does what is to be done beside serving, until that is over.
async fn watch_over(
    served: Served<'_>,
    signals: &mut Signals,
    reloader: &mut Reloader,
    renewal: Renewal,
) -> Ended {
    const TICKETS: Duration = Duration::from_secs(60);
    let watch = reloader.config().server.watch;
    let mut looks = tokio::time::interval(if watch.is_zero() { TICKETS } else { watch });
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut renewals = tokio::time::interval(TICKETS);
    let (obtained, mut new_certificates) = mpsc::channel(1);
    let mut renewing = std::pin::pin!(acme::run(renewal, obtained));
    let mut signs_of_life = std::pin::pin!(show_signs_of_life(served.server));
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::HangUp => {
                    reloader.reload(served, "SIGHUP");
                    reloader.retry_certificate();
                }
                Signal::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    return Ended::Told;
                }
            },
            () = served.server.failed() => {
                tracing::error!("a thread of the server has failed; stopping, to be started again");
                return Ended::Failed;
            }
            _ = looks.tick(), if !watch.is_zero() => reloader.look(served),
            _ = renewals.tick() => renew(reloader.tickets()),
            Some(()) = new_certificates.recv() => reloader.reload(served, "a new certificate"),
            () = &mut renewing => {}
            () = &mut signs_of_life => {}
        }
    }
}

/// Tells systemd's watchdog, for ever, as long as every thread of the server answers.
async fn show_signs_of_life(server: &Server) {
    let Some(period) = systemd::watchdog_period() else { return std::future::pending().await };
    loop {
        server.responds().await;
        systemd::tell(State::Alive);
        tokio::time::sleep(period).await;
    }
}

/// The keys of session tickets: kept beside the history if anything is encrypted at all.
fn open_tickets(config: &Config, clock: &Clock) -> Arc<Tickets> {
    if config.certificates.is_empty() && config.acme.is_none() {
        return Arc::new(Tickets::in_memory(clock.clone()));
    }
    if let Err(error) = crate::keygen::make_folder(&config.data_dir) {
        tracing::debug!(%error, "data folder not made");
    }
    let tickets = Tickets::open(config.data_dir.join("tls-tickets.key"), clock.clone());
    renew(&tickets);
    Arc::new(tickets)
}

fn renew(tickets: &Tickets) {
    if let Err(error) = tickets.renew() {
        let error = anyhow::Error::from(error);
        tracing::warn!(error = format!("{error:#}"), "session tickets do not outlive the process");
    }
}

/// The signals that end the process or have it read its configuration again.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    /// Does not end it: caught, a write over the limit of file sizes (`ulimit -f`) fails and is
    /// answered like one to a full disk (README D6).
    _file_size: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        /// `SIGXFSZ` of Linux.
        const FILE_SIZE: i32 = 25;
        use tokio::signal::unix::{SignalKind, signal};
        let catch = |kind| signal(kind).context("cannot watch for signals");
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
            _file_size: catch(SignalKind::from_raw(FILE_SIZE))?,
        })
    }

    /// Waits for the next one. Cancel safe.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hang_up.recv() => Signal::HangUp,
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug)]
enum Signal {
    /// End; the name of the signal.
    Stop(&'static str),
    /// Read the configuration again.
    HangUp,
}

/// Changes the least important lines that are logged.
type SetLogLevel = Box<dyn Fn(LogLevel)>;

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn start_log(log: &config::Log) -> SetLogLevel {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(level_filter(log.level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Otherwise a full disk or a closed pipe behind standard error would be reported there, and
        // failing to do so ends the thread that wrote the line (W-37).
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    let all = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => all.with(lines).init(),
        LogFormat::Json => all.with(lines.json().flatten_event(true)).init(),
    }
    Box::new(move |level| set_level(handle.reload(level_filter(level))))
}

fn set_level(result: Result<(), tracing_subscriber::reload::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "log level not changed");
    }
}

/// The file with the times at which users were last seen.
fn last_seen(config: &Config) -> PathBuf {
    config.data_dir.join("last-seen")
}

fn load_last_seen(config: &Config, presence: &Presence) -> anyhow::Result<()> {
    let loaded = presence.load(&last_seen(config)).map_err(|error| {
        explain(error.into(), "let this user read and write the data folder, or choose another")
    })?;
    match loaded {
        Loaded::Users(users) => tracing::debug!(users, "times of last seen read"),
        Loaded::SetAside(aside) => tracing::error!(
            aside = %aside.display(),
            "the file with times of last seen is damaged and was set aside; nobody was seen so far"
        ),
    }
    Ok(())
}

fn open_engine(
    config: &Config,
    announcer: &Arc<Announcer>,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Arc<Engine>> {
    let history = &config.history;
    let limits = HistoryLimits {
        messages_per_channel: history.messages_per_channel,
        messages: history.messages,
        bytes: history.bytes,
        replay_messages: history.replay_messages,
    };
    let (announcer, clock, metrics) = (Arc::clone(announcer), clock.clone(), Arc::clone(metrics));
    let engine = match history.engine {
        HistoryEngine::Memory => Engine::memory(limits, announcer, clock, metrics),
        HistoryEngine::Redis => {
            let options = config.redis.clone();
            Engine::redis(options, limits, announcer, clock, metrics)
                .context("cannot start the thread of redis")?
        }
        HistoryEngine::Disk => {
            let options = DiskOptions {
                sync: match history.sync {
                    HistorySync::Always => Sync::Always,
                    HistorySync::Interval(period) => Sync::Interval(period),
                    HistorySync::Never => Sync::Never,
                },
                cache_bytes: history.cache_bytes as u64,
                ..DiskOptions::new(config.data_dir.join("history"))
            };
            Engine::disk(options, limits, announcer, clock, metrics).map_err(explain_open)?
        }
    };
    Ok(Arc::new(engine))
}

fn explain_open(error: OpenError) -> anyhow::Error {
    let hint = "give a folder of its own that this user can write to with --data-dir, or keep the \
                history in memory with --set history.engine=memory";
    explain(error.into(), hint)
}

fn explain_start(error: StartError) -> anyhow::Error {
    let hint = match &error {
        StartError::Bind(vestnik_server::BindError::InUse { address }) => format!(
            "stop the program that listens there (`ss -ltnp 'sport = :{}'` names it), or choose \
             another port with --listen",
            address.port()
        ),
        StartError::Bind(vestnik_server::BindError::Refused { .. }) => {
            "choose an address of this machine with --listen; ports below 1024 need a privilege"
                .to_owned()
        }
        StartError::Thread(_) => {
            "the system is out of threads or files; raise its limits".to_owned()
        }
    };
    explain(error.into(), hint)
}

/// What went wrong with all its causes in one line, and what to do about it.
fn explain(error: anyhow::Error, hint: impl Into<String>) -> anyhow::Error {
    Failure::new(format!("{error:#}"), hint).into()
}

/// The part of the configuration that the network edge is told.
fn options(config: &Config, keys: KeyRing, encryption: &Encryption) -> Options {
    let limits = &config.limits;
    let timing = &config.timing;
    let listeners = config.server.listeners.iter().map(|listener| Listener {
        name: listener.name.clone(),
        address: listener.address,
        backlog: listener.backlog,
        routes: routes(&listener.routes),
        tls: tls(config, listener, encryption),
        proxy_protocol: listener.proxy_protocol,
        inherited: listener.inherited.clone(),
    });
    Options {
        listeners: listeners.collect(),
        trust: Trust {
            allow: config.trusted.allow.clone(),
            proxies: config.trusted.proxies.clone(),
            forwarded: config.trusted.forwarded,
            path_secret: config.trusted.path_secret.clone(),
        },
        limits: Limits {
            max_payload: limits.payload_bytes,
            max_trusted_payload: limits.trusted_payload_bytes,
            connections_per_channel: u32::try_from(limits.connections_per_channel)
                .unwrap_or(u32::MAX),
            connections_per_user: u32::try_from(limits.connections_per_user).unwrap_or(u32::MAX),
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            subscriptions_per_second: limits.subscriptions_per_second,
            publishes_per_second: limits.publishes_per_second,
            memory: limits.memory_bytes,
            messages_per_request: limits.messages_per_request,
            channels_per_request: limits.channels_per_request,
            request_head: limits.request_head_bytes,
            outbox: OutboxLimits { messages: limits.outbox_messages, bytes: limits.outbox_bytes },
        },
        timing: Timing {
            poll: timing.poll,
            ping: timing.ping,
            text_ping: timing.text_ping,
            text_silence: timing.text_silence,
            token_grace: timing.token_grace,
            body: timing.body,
            head: timing.head,
            keep_alive: timing.keep_alive,
            presence_grace: timing.presence_grace,
            drain: config.server.drain_per_10000,
        },
        user_publishing: if config.guests_write_to_users {
            UserPublishing::Everybody
        } else {
            UserPublishing::SignedIn
        },
        last_seen: Some(last_seen(config)),
        challenges: Arc::clone(&encryption.challenges),
        tenant: Tenant { keys, missing_expiry: config.missing_expiry },
        compression: config.server.compression,
        message_ttl: Expiry::new(config.history.message_ttl.as_secs(), Expiry::MAX),
        cluster_mode: config.server.cluster_mode || config.history.engine == HistoryEngine::Redis,
        other_limits: config.server.other_limits.clone(),
        process_unique_id: process_unique_id(),
    }
}

/// The encryption of a listener, if it has any.
fn tls(config: &Config, listener: &config::Listener, encryption: &Encryption) -> Option<Tls> {
    let wanted = listener.tls.as_ref()?.iter();
    let certificates: Vec<_> = wanted
        .filter_map(|files| config.certificates.iter().find(|it| it.files == *files))
        .map(|it| it.certificate.clone())
        .collect();
    let Encryption { tickets, challenges } = encryption;
    Some(Tls::new(&certificates, Arc::clone(challenges), Arc::clone(tickets)))
}

fn routes(routes: &config::Routes) -> Routes {
    match routes {
        config::Routes::Standard => Routes::standard(),
        config::Routes::Only(RoutePrefixes { publish, subscribe, rest, stat }) => Routes::new(
            [
                (publish, Route::Publish),
                (subscribe, Route::Subscribe),
                (rest, Route::ClientPublish),
                (stat, Route::ServerStat),
            ]
            .into_iter()
            .filter_map(|(path, route)| Some((path.clone()?, route)))
            .chain([(Routes::CHALLENGE.0.to_owned(), Routes::CHALLENGE.1)]),
        ),
    }
}

/// `<host name>-<process id>`, as the originals call themselves in the statistics.
fn process_unique_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "vestnik" } else { host };
    format!("{host}-{}", std::process::id())
}
