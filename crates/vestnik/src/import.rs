//! `vestnik import`: takes over the data of a Bitrix site into the module's tables.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use vestnik_core::{Clock, Secret};
use vestnik_service::bitrix::{
    Action, Detail, ImportError, ImportOptions, Part, Progress, Report, Source, address_in_settings,
};
use vestnik_service::db::{Tables, Trouble};
use vestnik_service::option::Files;
use vestnik_service::{DatabaseError, DatabaseOptions, Service};

use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;

/// Bytes of a configuration file that are read at most.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Arguments of `vestnik import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    source: ImportSource,
}

#[derive(Debug, clap::Subcommand)]
enum ImportSource {
    /// From the database of a Bitrix site: options, sites, channels, watches, devices. The database is only read.
    BitrixDb(Box<BitrixDbArgs>),
}

/// Arguments of `vestnik import bitrix-db`.
#[derive(Debug, clap::Args)]
pub(crate) struct BitrixDbArgs {
    /// The site's database: mysql://user:password@host/name or postgres://…; `-` reads it from standard input,
    /// where no other user of the machine sees the password. Without it the one that --settings names.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// The site's bitrix/.settings.php: its section `pull` counts where the database has no value. May be
    /// repeated, with .settings_extra.php last.
    #[arg(long, value_name = "FILE")]
    settings: Vec<PathBuf>,
    /// The site's bitrix/php_interface/pull.php.
    #[arg(long, value_name = "FILE")]
    include: Option<PathBuf>,
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Replace also what was changed here.
    #[arg(long)]
    overwrite: bool,
    /// The tenant it all goes to; without it the one with the site's own host_id.
    #[arg(long, value_name = "HOST_ID")]
    tenant: Option<String>,
    /// The zone that the site writes its times in, for example +03:00; without it the database server's own.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Where the module's tables are (module.database).
    #[command(flatten)]
    configuration: ConfigArgs,
}

/// Takes over what is asked for.
pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let ImportSource::BitrixDb(args) = &args.source;
    let (files, named) = read_files(args)?;
    let from = source_address(args, named)?;
    let (config, _warnings) = Config::load(&args.configuration.sources())?;
    let Some(module) = &config.module else {
        return Err(Failure::new(
            "the module is switched off",
            "set module.enabled=true, so that there is something to import into",
        )
        .into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    crate::keygen::make_folder(&config.data_dir)
        .with_context(|| format!("the data folder {} cannot be made", config.data_dir.display()))?;
    runtime.block_on(import(args, files, from, &module.database))
}

/// The values of the site's files, and the address of its database if one of them has it.
fn read_files(args: &BitrixDbArgs) -> anyhow::Result<(Files, Option<Secret<String>>)> {
    let (mut files, mut address) = (Files::default(), None);
    let hint = "only plain arrays of PHP are read, nothing is executed; give --from where the address of the \
                database is computed, and leave the file out";
    let broken = |path: &Path, error| {
        Failure::new(format!("{} is not understood: {error}", path.display()), hint)
    };
    for path in &args.settings {
        let text = read_file(path)?;
        files.read_settings(&text).map_err(|error| broken(path, error))?;
        let named = address_in_settings(&text).map_err(|error| broken(path, error))?;
        address = named.or(address);
    }
    if let Some(path) = &args.include {
        files.read_include(&read_file(path)?).map_err(|error| broken(path, error))?;
    }
    Ok((files, address))
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let broken = |error: std::io::Error| {
        Failure::new(
            format!("{} cannot be read: {error}", path.display()),
            "run it as a user who may read the site's files",
        )
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(broken)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(broken)?;
    Ok(String::from_utf8(text).map_err(|_| {
        Failure::new(
            format!("{} is not in UTF-8", path.display()),
            "convert a copy: iconv -f cp1251 -t utf-8",
        )
    })?)
}

fn source_address(
    args: &BitrixDbArgs,
    named: Option<Secret<String>>,
) -> anyhow::Result<DatabaseOptions> {
    let address = match args.from.as_deref() {
        Some("-") => {
            let mut line = String::new();
            std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut line).context("no input")?;
            Secret::new(line.trim().to_owned())
        }
        Some(address) => Secret::new(address.to_owned()),
        None => named.ok_or_else(|| {
            Failure::new(
                "no database to import from",
                "give --from mysql://user:password@host/name, or --settings with the site's .settings.php",
            )
        })?,
    };
    let mut options = DatabaseOptions::new(String::new());
    options.address = address;
    // One after the other: the site goes on using its database meanwhile.
    options.connections_max = 1;
    Ok(options)
}

async fn import(
    args: &BitrixDbArgs,
    files: Files,
    from: DatabaseOptions,
    into: &DatabaseOptions,
) -> anyhow::Result<()> {
    let source = Source::open(&from, args.time_zone.as_deref()).await.map_err(explained)?;
    let tables = Tables::at(into).await.map_err(|error| explained(ImportError::Target(error)))?;
    let mut into = into.clone();
    // Where there is nothing yet, a dry run compares with an empty database of its own.
    let mut empty = None;
    if args.dry_run && tables == Tables::None {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let file = folder.path().join("empty.db");
        into = DatabaseOptions::new(format!("sqlite:{}", file.display()));
        empty = Some(folder);
    }
    if args.dry_run && tables == Tables::Older {
        return Err(Failure::new(
            "the module's tables are of an older version, and a dry run changes nothing",
            "start `vestnik serve` once, or import without --dry-run: both bring them to this version",
        )
        .into());
    }
    let opened = Service::open(&into, Clock::System).await;
    // The notices are of no use here: whoever serves this database publishes its own.
    let (service, _notices) = opened.map_err(|error| explained(ImportError::Tenant(error)))?;
    let options = ImportOptions {
        host_id: args.tenant.clone(),
        files,
        overwrite: args.overwrite,
        dry_run: args.dry_run,
    };
    let bar = ProgressBar::new(0);
    if let Ok(style) =
        ProgressStyle::with_template("{msg:16} {bar:30} {human_pos} of {human_len} {per_sec} {eta}")
    {
        bar.set_style(style);
    }
    let mut show = |progress: Progress| {
        bar.set_message(progress.part.name());
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    };
    let done = service.import_bitrix(&source, &options, &mut show).await;
    bar.finish_and_clear();
    source.close().await;
    service.database().close().await;
    let report = done.map_err(explained)?;
    drop(empty);
    print_report(&report, args.dry_run, &mut std::io::stdout().lock()).context("cannot write")
}

/// An error with what can be done about it.
fn explained(error: ImportError) -> anyhow::Error {
    let hint = match (&error, error.trouble()) {
        (ImportError::Address, _) => {
            "give --from mysql://user:password@host/name or postgres://…".into()
        }
        (ImportError::NoTable(_), _) => {
            "is it the site's database? Its name is the last part of the address".into()
        }
        (ImportError::Target(DatabaseError::Newer { .. }), _) => {
            "use the newer version of vestnik that made the tables".into()
        }
        (_, Some((trouble, is_source))) => remedy(trouble, is_source),
        _ => return error.into(),
    };
    let mut what = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !what.ends_with(&text) {
            what.push_str(": ");
            what.push_str(&text);
        }
        cause = inner.source();
    }
    Failure::new(plain(&what), hint).into()
}

fn remedy(trouble: Trouble, is_source: bool) -> String {
    let (which, option) = if is_source {
        ("the site's database", "--from or --settings")
    } else {
        ("the module's database", "module.database")
    };
    match trouble {
        Trouble::Unreachable => format!(
            "nobody answers where {which} should be; check host and port in {option}. `localhost` means TCP here: \
             for a socket add ?socket=/path"
        ),
        Trouble::Password => format!(
            "check user and password in {option}; signs such as @ : / % in them are written as %40 %3A %2F %25"
        ),
        Trouble::NoDatabase => format!("check the last part of the address in {option}"),
        Trouble::NoTable => format!("a table is not as expected: is it really {which}?"),
        Trouble::Forbidden => {
            format!("the user of {which} lacks a right; reading needs SELECT on all tables b_*")
        }
        Trouble::Encoding => format!(
            "texts of {which} cannot be read as Unicode: convert its tables to utf8mb4 (MySQL 5.5.3 or newer), or \
             set the right encoding of a PostgreSQL database that has SQL_ASCII"
        ),
        Trouble::Encryption => {
            format!("add ?ssl-mode=DISABLED (MySQL) or ?sslmode=disable to {option}")
        }
    }
}

/// Values of a database without what would move the cursor of a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '·' } else { letter }).collect()
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::New => "new",
        Action::Changed => "replace",
        Action::Same => "same",
        Action::Kept => "keep",
    }
}

/// Prints rows with their columns below each other.
fn print_table(rows: &[Vec<String>], out: &mut impl Write) -> std::io::Result<()> {
    const WIDTH_MAX: usize = 60;
    let width = |at: usize| {
        let widths = rows.iter().filter_map(|row| Some(row.get(at)?.chars().count()));
        widths.max().unwrap_or(0).min(WIDTH_MAX)
    };
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn print_report(report: &Report, dry_run: bool, out: &mut impl Write) -> std::io::Result<()> {
    let Report { host_id, is_new_tenant, time_zone, parts, details, absent } = report;
    let new = if *is_new_tenant { " (new)" } else { "" };
    let would = if dry_run { "would go" } else { "went" };
    writeln!(out, "everything {would} to the tenant {host_id}{new}")?;
    writeln!(out, "times of the site are read in the zone {}", plain(time_zone))?;
    let head = ["", "found", "new", "replaced", "same", "kept", "left out"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for part in parts {
        let left_out = part.left_out.values().map(|it| it.count).sum();
        let counts = [part.found, part.new, part.changed, part.same, part.kept, left_out];
        let counts = counts.iter().map(u64::to_string);
        rows.push(std::iter::once(part.part.name().to_owned()).chain(counts).collect());
    }
    print_table(&rows, out)?;
    let is_shown = |detail: &&Detail| dry_run || detail.action == Action::Kept;
    let shown: Vec<&Detail> = details.iter().filter(is_shown).collect();
    if !shown.is_empty() {
        let title = if dry_run { "options and sites" } else { "kept as they are here" };
        writeln!(out, "{title}:")?;
        let head = ["", "here", "there", ""].map(str::to_owned);
        let row = |detail: &&Detail| {
            let Detail { part, name, here, there, action } = detail;
            let what = if *part == Part::Sites { format!("site {name}") } else { name.clone() };
            vec![plain(&what), plain(here), plain(there), word(*action).to_owned()]
        };
        let rows: Vec<_> = std::iter::once(head.to_vec()).chain(shown.iter().map(row)).collect();
        print_table(&rows, out)?;
    }
    if parts.iter().any(|part| !part.left_out.is_empty()) {
        writeln!(out, "left out:")?;
    }
    for part in parts {
        for (reason, left_out) in &part.left_out {
            let more = if left_out.count > left_out.examples.len() as u64 { ", …" } else { "" };
            let examples = plain(&left_out.examples.join(", "));
            let (name, count) = (part.part.name(), left_out.count);
            writeln!(out, "  {name}: {count}: {reason} ({examples}{more})")?;
        }
    }
    for (part, table) in absent {
        writeln!(out, "  {}: the site has no table {table}", part.name())?;
    }
    if parts.iter().any(|part| part.kept > 0) {
        writeln!(out, "what was changed here stays; --overwrite replaces it")?;
    }
    if dry_run {
        writeln!(out, "nothing was changed: it was a dry run")?;
    }
    Ok(())
}
