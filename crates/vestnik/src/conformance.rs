//! `vestnik conformance`: replays recorded exchanges against a server and says which promises of
//! the specification it keeps (docs/conformance.md).

mod language;
mod pattern;
mod play;
mod report;
mod scope;
mod suite;
mod wire;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use vestnik_core::sign::{Algorithm, Key};

use self::language::{Fixture, Profile};
use self::play::{Broken, Target};
use self::report::{Outcome, Played};
use self::scope::Scope;
use self::wire::Connection;
use crate::client::Address;
use crate::failure::Failure;
use crate::keygen;

/// Arguments of `vestnik conformance`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConformanceArgs {
    /// The server: where subscribers connect; and where messages are published, unless
    /// --publish-target says otherwise.
    #[arg(long, value_name = "URL", required_unless_present = "list")]
    target: Option<Address>,
    /// Where messages are published and statistics are read, if that is another port.
    #[arg(long, value_name = "URL")]
    publish_target: Option<Address>,
    /// The server's signature key itself; other users of this machine can see it.
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// A file that holds the key.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["key", "list"])]
    key_file: Option<PathBuf>,
    /// Algorithm of the key.
    #[arg(long, value_name = "NAME", default_value = "sha1")]
    algorithm: Algorithm,
    /// Expect what the original server does, or what vestnik does better.
    #[arg(long, value_name = "PROFILE", value_enum, default_value = "vestnik")]
    profile: Profile,
    /// Play only fixtures with this text in an item or in their title.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Read the fixtures from the `*.fixture` files of this folder.
    #[arg(long, value_name = "FOLDER")]
    fixtures: Option<PathBuf>,
    /// Play also fixtures that wait long, such as for a poll to time out.
    #[arg(long)]
    slow: bool,
    /// The longest wait for what is expected.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = language::duration)]
    patience: Duration,
    /// Fixtures that are played at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print the items with their titles and origins, and play nothing.
    #[arg(long)]
    list: bool,
}

/// Plays and reports; fails if a promise is broken.
pub(crate) fn run(args: &ConformanceArgs) -> anyhow::Result<()> {
    let fixtures = fixtures(args)?;
    let Some(target) = args.target.as_ref().filter(|_| !args.list) else {
        return list(&fixtures);
    };
    let target = Target {
        authority: target.authority(),
        publish_authority: args.publish_target.as_ref().unwrap_or(target).authority(),
        patience: args.patience,
    };
    let key = key(args)?;
    let mut seed = [0; 16];
    keygen::fill_random(&mut seed)?;
    greet(&target, &Scope::new(seed, usize::MAX, &key, args.algorithm))?;
    let played = play_all(&fixtures, args, |number, fixture| {
        play::play(fixture, &target, Scope::new(seed, number, &key, args.algorithm))
    });
    write!(std::io::stdout(), "{}", report::table(&played)).context("cannot write")?;
    if let Some(file) = &args.junit {
        std::fs::write(file, report::junit(&played)).map_err(|error| {
            let hint = "give --junit a file that can be written";
            Failure::new(format!("cannot write {}: {error}", file.display()), hint)
        })?;
    }
    let counts = report::counts(&played);
    if counts.failed == 0 {
        return Ok(());
    }
    Err(Failure::new(
        format!("{} items are not kept by {}", counts.failed, target.authority),
        "docs/conformance.md explains the fixtures; --filter plays one of them again",
    )
    .into())
}

/// Plays all fixtures, several at once: most of their time they wait.
fn play_all<'a>(
    fixtures: &'a [Fixture],
    args: &ConformanceArgs,
    play: impl Fn(usize, &Fixture) -> Result<(), Broken> + Sync,
) -> Vec<Played<'a>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut played = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(fixture) = fixtures.get(number) else { return played };
            let began = Instant::now();
            let outcome = match skipped(fixture, args) {
                Some(why) => Outcome::Skipped(why),
                None => play(number, fixture).map_or_else(Outcome::Failed, |()| Outcome::Passed),
            };
            played.push((number, Played { fixture, outcome, took: began.elapsed() }));
        }
    };
    let mut played: Vec<(usize, Played<'_>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.jobs).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter().map(|worker| worker.join().expect("workers do not panic"));
        done.flatten().collect()
    });
    played.sort_by_key(|(number, _)| *number);
    played.into_iter().map(|(_, played)| played).collect()
}

/// Why a fixture is not played, if it is not.
fn skipped(fixture: &Fixture, args: &ConformanceArgs) -> Option<&'static str> {
    match fixture.only {
        Some(profile) if profile != args.profile => Some("of the other profile"),
        _ if fixture.is_slow() && !args.slow => Some("waits long, --slow plays it"),
        _ => None,
    }
}

fn fixtures(args: &ConformanceArgs) -> anyhow::Result<Vec<Fixture>> {
    let mut fixtures = match &args.fixtures {
        None => suite::fixtures()?,
        Some(folder) => from_folder(folder)?,
    };
    if let Some(filter) = &args.filter {
        fixtures.retain(|fixture| {
            fixture.title.contains(filter) || fixture.items.iter().any(|item| item.contains(filter))
        });
    }
    if fixtures.is_empty() {
        let hint = "--list without --filter prints all there are";
        return Err(Failure::new("there is no such fixture", hint).into());
    }
    Ok(fixtures)
}

fn from_folder(folder: &Path) -> anyhow::Result<Vec<Fixture>> {
    let unreadable = |error: std::io::Error| {
        let hint = "give --fixtures a folder with *.fixture files";
        Failure::new(format!("cannot read {}: {error}", folder.display()), hint)
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "fixture") {
            files.push(path);
        }
    }
    files.sort();
    let mut fixtures = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let read = language::parse(&name, &text)
            .map_err(|error| Failure::new(error, "docs/conformance.md has the language"))?;
        fixtures.extend(read);
    }
    Ok(fixtures)
}

fn list(fixtures: &[Fixture]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let items: BTreeSet<&String> = fixtures.iter().flat_map(|fixture| &fixture.items).collect();
    for item in &items {
        for fixture in fixtures.iter().filter(|fixture| fixture.items.contains(item)) {
            let Fixture { title, origin, .. } = fixture;
            writeln!(out, "{item}  {title}; {origin}").context("cannot write")?;
        }
    }
    writeln!(out, "\n{} items in {} fixtures", items.len(), fixtures.len()).context("cannot write")
}

fn key(args: &ConformanceArgs) -> anyhow::Result<Key> {
    let secret = match (&args.key, &args.key_file) {
        (Some(key), _) => vestnik_core::Secret::new(key.clone()),
        (None, Some(file)) => keygen::load_key(file)?,
        (None, None) => {
            return Err(Failure::new("there is no key", "give --key or --key-file").into());
        }
    };
    Ok(Key::new(secret, args.algorithm, None))
}

/// How long a poll that is accepted is watched: a refusal comes at once.
const REFUSAL: Duration = Duration::from_millis(500);

/// Says in one sentence what would otherwise be a hundred failures: nobody there, a wrong key, no
/// right to publish.
fn greet(target: &Target, scope: &Scope<'_>) -> anyhow::Result<()> {
    let value = |written: &str| scope.value(written).map_err(anyhow::Error::msg);
    let unreachable = |authority: &str, error: std::io::Error| {
        let hint = "is the server running? `vestnik serve` prints its addresses";
        Failure::new(format!("cannot connect to {authority}: {error}"), hint)
    };
    let ask = |authority: &str, path: &str, wait: Duration| {
        let mut connection = Connection::open(authority, target.patience)
            .map_err(|error| unreachable(authority, error))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        connection
            .send_request("GET", request.as_bytes())
            .map_err(|error| unreachable(authority, error))?;
        // A poll that waits has no answer, and that is fine.
        Ok::<_, Failure>(connection.answer(Instant::now() + wait).ok())
    };
    let poll = format!("/bitrix/subws/?CHANNEL_ID={}", value("signed priv1")?);
    if let Some(answer) = ask(&target.authority, &poll, REFUSAL)?
        && answer.status == 400
        && answer.body.starts_with(b"4010")
    {
        return Err(Failure::new(
            "the key does not fit: the server refuses a channel signed with it",
            "give the key and --algorithm of the server's own configuration",
        )
        .into());
    }
    let presence = format!("/bitrix/pub/?CHANNEL_ID={}", value("priv1")?);
    if let Some(answer) = ask(&target.publish_authority, &presence, target.patience)?
        && answer.status == 403
    {
        return Err(Failure::new(
            "the server does not let this address publish (403)",
            "run this on the server itself, or add the address to trusted.allow",
        )
        .into());
    }
    Ok(())
}
