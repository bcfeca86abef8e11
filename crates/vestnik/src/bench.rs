//! `vestnik bench`: what a server costs, measured against a bare loop over the same sockets.

mod encrypted;
mod fan_out;
mod figures;
mod flood;
pub(crate) mod floor;
mod hardship;
mod http;
mod link;
mod module;
mod process;
mod publisher;
mod redis;
mod report;
mod swarm;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vestnik_core::Secret;
use vestnik_core::sign::{Algorithm, Key};

use crate::client::Address;
use crate::failure::Failure;
use figures::Run;
use process::{Target, own_key};
use report::{Figure, Goal};
use swarm::Generation;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Memory of an empty process and of idle connections; cost of connecting.
    Idle,
    /// One message to everybody, one at a time and up to ten under way.
    FanOut,
    /// From one message under way to many: how many leave in one write, what that saves, how long it takes.
    Coalescing,
    /// Delay from one publisher to one subscriber.
    Latency,
    /// Cost of a publish to one subscriber, in every form.
    Publish,
    /// Everybody comes back at once and gets what was missed.
    Replay,
    /// Messages to long polls.
    Poll,
    /// Many messages to the same connections: writes per client.
    Burst,
    /// Everybody comes back at once while publishing goes on; nothing may be lost.
    Storm,
    /// One subscriber that reads nothing: what it costs, and whom it delays.
    SlowReader,
    /// Encrypted connections: memory, handshakes and fan-out, against plain ones and a bare loop.
    Tls,
    /// Connections come and go for a long time: whether memory grows. Only when asked for.
    Soak,
    /// Calls of the module: events for users, a configuration.
    Module,
    /// A publish through Redis, and the commands of Push server 2.0 for it. Needs `--redis`.
    Redis,
}

/// Bytes of the events that goals are meant for.
const BYTES: usize = 200;
/// The setting of a server that is a queue server and nothing else.
const WITHOUT_MODULE: &str = "module.enabled=false";

/// Arguments of `vestnik bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// What to measure; all of it unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Subscribers. Each takes a file of this process and one of the server (`ulimit -n`).
    #[arg(long, value_name = "NUMBER", default_value_t = 5000)]
    connections: usize,
    /// How often everything is measured.
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    repeat: usize,
    /// Seconds of the part `soak`. The goal is meant for an hour: short runs show little but noise.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    soak: u64,
    /// Bytes of an event. Goals are meant for 200.
    #[arg(long, value_name = "BYTES", default_value_t = BYTES)]
    bytes: usize,
    /// Generation of the subscribers: 4 (signed channels, protobuf frames) or 5 (tokens, JSON-RPC frames).
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    generation: u8,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a goal is missed.
    #[arg(long)]
    strict: bool,
    /// Measure this server instead of one of our own: its WebSocket address.
    #[arg(long, value_name = "URL", requires_all = ["publish", "key"])]
    subscribe: Option<Address>,
    /// The publish address of that server.
    #[arg(long, value_name = "URL", requires = "subscribe")]
    publish: Option<Address>,
    /// The signature key of that server.
    #[arg(long, value_name = "KEY", requires = "subscribe")]
    key: Option<String>,
    /// The algorithm of that key: md5, sha1, sha224, sha256, sha384 or sha512.
    #[arg(long, value_name = "NAME", default_value = "sha1", requires = "subscribe")]
    algorithm: Algorithm,
    /// Process ids of that server, for processor time and memory; comma-separated.
    #[arg(long, value_name = "PID", value_delimiter = ',', requires = "subscribe")]
    pid: Vec<u32>,
    /// Setting of the server that is started, for example history.engine=memory; may be repeated.
    #[arg(long, value_name = "OPTION=VALUE", conflicts_with = "subscribe")]
    set: Vec<String>,
    /// A Redis server for the part `redis`, without TLS and password. Some keys are left in it, which
    /// expire.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "subscribe")]
    redis: Option<String>,
}

impl BenchArgs {
    fn measures(&self, part: Part) -> bool {
        let is_usual = match part {
            Part::Soak => false,
            // The module of a server elsewhere may have another key, and real users.
            Part::Module => self.subscribe.is_none() && !self.switches_module_off(),
            Part::Redis => self.redis.is_some(),
            _ => true,
        };
        (self.only.is_empty() && is_usual) || self.only.contains(&part)
    }

    fn switches_module_off(&self) -> bool {
        self.set.iter().any(|setting| setting == WITHOUT_MODULE)
    }

    fn target(&self) -> anyhow::Result<Target> {
        match (&self.subscribe, &self.publish) {
            (Some(subscribe), Some(publish)) => {
                Ok(Target::elsewhere(subscribe.clone(), publish.clone(), self.pid.clone()))
            }
            _ => {
                let settings: Vec<&str> = self.set.iter().map(String::as_str).collect();
                Target::start(&settings)
            }
        }
    }

    /// The server that is measured but for its module; `None`: that one has none, or is elsewhere.
    fn queue_server(&self) -> anyhow::Result<Option<Target>> {
        if self.switches_module_off() || self.subscribe.is_some() {
            return Ok(None);
        }
        let settings = self.set.iter().map(String::as_str).chain([WITHOUT_MODULE]);
        Target::start(&settings.collect::<Vec<_>>()).map(Some)
    }

    fn generation(&self) -> Generation {
        if self.generation == 5 { Generation::Five } else { Generation::Four }
    }

    fn key(&self) -> Key {
        match &self.key {
            Some(key) => Key::new(Secret::new(key.clone()), self.algorithm, None),
            None => own_key(),
        }
    }

    fn round(&self, round: usize, target: &Target) -> Round {
        let is_elsewhere = self.subscribe.is_some();
        Round {
            // A server elsewhere is the same in every round: what it once needed it has from then on.
            is_fresh: round == 1 || !is_elsewhere,
            sees_processes: !target.processes.is_empty(),
            is_as_meant: self.bytes == BYTES,
        }
    }
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.connections >= 1 && args.repeat >= 1,
        Failure::new("nothing to measure", "give at least 1 connection and 1 repetition")
    );
    let mut figures = Vec::<Figure>::new();
    let mut failed = Vec::<(Part, anyhow::Error)>::new();
    for round in 1..=args.repeat {
        // A fresh server for every repetition: what one leaves behind must not help the next.
        let target = args.target()?;
        let run = || Run::new(&target, args.key(), args.generation(), args.connections, args.bytes);
        let mut bench = run()?;
        let progress = progress(round, args.repeat, PARTS.len());
        for part in PARTS {
            progress.set_message(format!("{part:?}"));
            if args.measures(part) && !failed.iter().any(|(known, _)| *known == part) {
                match measure(part, &mut bench, args) {
                    Ok(mut measured) => {
                        args.round(round, &target).judge(&mut measured);
                        merge(&mut figures, measured);
                    }
                    // What others measure is not lost for it.
                    Err(error) => {
                        failed.push((part, error));
                        bench = run()?;
                    }
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
    }
    if figures.is_empty() && !failed.is_empty() {
        let (part, error) = failed.swap_remove(0);
        return Err(error.context(format!("measuring {part:?}")));
    }
    let reached =
        if args.json { report::print_json(&figures)? } else { report::print_table(&figures)? };
    if !failed.is_empty() {
        let reasons: Vec<_> =
            failed.iter().map(|(part, error)| format!("{part:?}: {error:#}")).collect();
        return Err(Failure::new(
            format!("not everything could be measured: {}", reasons.join("; ")),
            "choose what can be with --only",
        )
        .into());
    }
    if args.strict && !reached {
        return Err(Failure::new("a goal was missed", "run it again on a quiet machine").into());
    }
    Ok(())
}

/// Everything that can be measured, in the order in which it is.
const PARTS: [Part; 14] = [
    Part::Idle,
    Part::FanOut,
    Part::Coalescing,
    Part::Burst,
    Part::Replay,
    Part::Latency,
    Part::Publish,
    Part::Poll,
    Part::Storm,
    Part::SlowReader,
    Part::Tls,
    Part::Module,
    Part::Soak,
    Part::Redis,
];

fn measure(part: Part, bench: &mut Run<'_>, args: &BenchArgs) -> anyhow::Result<Vec<Figure>> {
    match part {
        Part::Idle => args.queue_server().and_then(|it| bench.idle(it)),
        Part::FanOut => bench.fan_out(),
        Part::Coalescing => bench.coalescing(),
        Part::Burst => bench.burst(),
        Part::Replay => bench.replay(),
        Part::Latency => bench.latency(),
        Part::Publish => bench.publish(),
        Part::Poll => bench.poll(),
        Part::Storm => bench.storm(),
        Part::SlowReader => bench.slow_reader(),
        Part::Tls => bench.tls(args),
        Part::Module => bench.module(),
        Part::Soak => bench.soak(Duration::from_secs(args.soak)),
        Part::Redis => through_redis(args),
    }
}

/// What figures of one repetition can be taken for.
struct Round {
    is_fresh: bool,
    sees_processes: bool,
    is_as_meant: bool,
}

impl Round {
    /// Drops figures that would say something else than they seem to.
    fn judge(&self, measured: &mut Vec<Figure>) {
        measured.retain(|figure| {
            (self.sees_processes || !figure.is_of_processes())
                && (self.is_fresh || !figure.is_of_memory())
        });
        if !self.is_as_meant {
            measured.iter_mut().for_each(|figure| figure.goal = Goal::Shown);
        }
    }
}

/// A server of its own, whose history is in Redis.
fn through_redis(args: &BenchArgs) -> anyhow::Result<Vec<Figure>> {
    let Some(address) = &args.redis else {
        return Err(Failure::new(
            "there is no Redis to measure with",
            "start one and name it with --redis 127.0.0.1:6379",
        )
        .into());
    };
    let place = format!("redis.address={address}");
    let target = Target::start(&["history.engine=redis", &place, "redis.prefix=vestnik-bench"])?;
    Run::new(&target, args.key(), args.generation(), 1, args.bytes)?.through_redis(address)
}

fn merge(figures: &mut Vec<Figure>, measured: Vec<Figure>) {
    for new in measured {
        match figures.iter_mut().find(|known| known.name == new.name) {
            Some(known) => {
                known.samples.extend(new.samples);
                known.floor.extend(new.floor);
            }
            None => figures.push(new),
        }
    }
}

fn progress(round: usize, rounds: usize, parts: usize) -> ProgressBar {
    let bar = ProgressBar::new(parts as u64).with_prefix(format!("run {round} of {rounds}"));
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
