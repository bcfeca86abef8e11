//! `vestnik migrate`: copies the history in Redis from one layout of keys to the other.

use std::io::Write as _;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use vestnik_hub::engine::{Layout, MigrateError, Migrated, Migration};

use crate::client;
use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;

/// Arguments of `vestnik migrate`.
#[derive(Debug, clap::Args)]
pub(crate) struct MigrateArgs {
    /// The layout to copy to; the other one is copied from.
    #[arg(long, value_name = "LAYOUT", value_enum)]
    to: To,
    /// Say what would be copied, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Copy although nodes run. What they publish meanwhile may be missed: copy again when they have
    /// stopped.
    #[arg(long)]
    while_running: bool,
    /// Where Redis is, and the prefix of the layout `own`.
    #[command(flatten)]
    configuration: ConfigArgs,
}

/// A layout of keys (`redis.layout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum To {
    /// Behind `redis.prefix`, for vestnik alone.
    Own,
    /// That of Push server 2.0.
    PushServer,
}

/// Copies and says what.
pub(crate) fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let mut sources = args.configuration.sources();
    // The layout in the configuration is whichever is in use now; the prefix must be known in any case.
    sources.flags.push(("redis.layout".to_owned(), "own".to_owned()));
    let (config, _) = Config::load(&sources)?;
    let (own, original) = (config.redis.layout, Layout::PushServer);
    let (from, to) = match args.to {
        To::Own => (original, own),
        To::PushServer => (own, original),
    };
    let migration = Migration {
        access: config.redis.access,
        from,
        to,
        is_dry: args.dry_run,
        while_running: args.while_running,
    };
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} keys {msg} {elapsed}") {
        bar.set_style(style);
    }
    let mut show = |done: &Migrated| {
        bar.set_length(done.keys.max(done.seen));
        bar.set_position(done.seen);
        bar.set_message(format!("{} messages", done.messages));
    };
    client::run(async {
        let done = migration.run(&mut show).await;
        bar.finish_and_clear();
        let done = done.map_err(explain)?;
        say(&done, args.dry_run).context("cannot write")
    })
}

fn explain(error: MigrateError) -> Failure {
    let hint = match &error {
        MigrateError::Running(_) => {
            "stop them first; one that was killed counts for 70 s. Or copy with --while-running, and again \
             when they have stopped: what is copied already is not copied twice"
        }
        MigrateError::Impossible(_) => "see docs/redis.md",
        MigrateError::Redis(_) => {
            "check redis.* of the configuration; nothing is lost, and the copy may be made again"
        }
    };
    Failure::new(error, hint)
}

fn say(done: &Migrated, is_dry: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let verb = if is_dry { "would be copied" } else { "copied" };
    writeln!(
        out,
        "{verb}: {} messages of {} channels and users, {} times of last seen",
        done.messages, done.receivers, done.users
    )?;
    if done.present > 0 {
        writeln!(out, "there already: {} messages", done.present)?;
    }
    if !is_dry {
        writeln!(
            out,
            "the old keys stay until they expire, a day at most; nothing reads them any more"
        )?;
    }
    Ok(())
}
