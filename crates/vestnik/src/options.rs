//! `vestnik options`: what the settings page shows, on the command line, by the same rules.

use std::collections::BTreeMap;
use std::io::Write as _;

use vestnik_service::audit::{Actor, masked};
use vestnik_service::option::{Key, Kind, Options, Source};
use vestnik_service::settings::{self, Problem};

use crate::admin::{open, runtime};
use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;

/// Arguments of `vestnik options`.
#[derive(Debug, clap::Args)]
pub(crate) struct OptionsArgs {
    /// What to do.
    #[arg(value_enum)]
    pub(crate) action: Action,
    /// Options to show, or to set as NAME=VALUE; an empty address goes back to its default.
    #[arg(value_name = "NAME[=VALUE]")]
    pub(crate) options: Vec<String>,
    /// `hostId` of the tenant; the default tenant without it.
    #[arg(long, value_name = "HOST_ID")]
    pub(crate) tenant: Option<String>,
    /// Show keys as they are instead of a mask.
    #[arg(long)]
    pub(crate) show_secrets: bool,
    /// Really set an empty signature key: anybody who knows a channel id may listen then.
    #[arg(long)]
    pub(crate) allow_empty_key: bool,
    /// Where the database is.
    #[command(flatten)]
    pub(crate) configuration: ConfigArgs,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Action {
    /// Show options, each with its value and where that comes from.
    Get,
    /// Set options, all or none.
    Set,
    /// Take away everything that was set.
    Defaults,
}

const ACTOR: Actor<'_> = Actor { login: "command line", address: "" };

/// Does it.
pub(crate) fn run(args: &OptionsArgs) -> anyhow::Result<()> {
    let (config, _) = Config::load(&args.configuration.sources())?;
    let keys = config.security.read_keys().unwrap_or_default();
    runtime()?.block_on(async {
        let service = open(&config).await?;
        let default = service.default_tenant().await?;
        default.set_own_values(crate::serve::module::own_values(&config, &keys));
        let tenant = match &args.tenant {
            None => default,
            Some(host_id) => service.tenant(host_id).await?.ok_or_else(|| {
                let hint = "the page `Tenants` of the dashboard lists them";
                Failure::new(format!("there is no tenant `{host_id}`"), hint)
            })?,
        };
        match args.action {
            Action::Get => show(args, &*tenant.options("").await?)?,
            Action::Set => set(args, &tenant).await?,
            Action::Defaults => {
                let saved = tenant.restore_default_settings(ACTOR).await?;
                say_saved(&saved.changed)?;
            }
        }
        service.database().close().await;
        Ok(())
    })
}

fn unknown(name: &str) -> anyhow::Error {
    let names = Key::ALL.iter().map(|key| key.name());
    let near = names.min_by_key(|known| strsim::levenshtein(known, name)).unwrap_or_default();
    Failure::new(format!("there is no option `{name}`"), format!("did you mean `{near}`?")).into()
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Pinned => "configuration of the server",
        Source::Site => "database, this site",
        Source::Database => "database",
        Source::File => ".settings.php",
        Source::IncludeFile => "pull.php",
        Source::Generated => "generated",
        Source::BuiltIn => "built-in",
    }
}

fn show(args: &OptionsArgs, options: &Options) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let keys = if args.options.is_empty() {
        Key::ALL.to_vec()
    } else {
        let keys = args.options.iter().map(|name| Key::named(name).ok_or_else(|| unknown(name)));
        keys.collect::<Result<_, _>>()?
    };
    for key in keys {
        let value = options.text(key);
        let is_masked = key.kind() == Kind::Secret && !args.show_secrets;
        let value = if is_masked { masked(value) } else { value.to_owned() };
        writeln!(out, "{} = {value}  # {}", key.name(), source(options.source(key)))?;
    }
    Ok(())
}

async fn set(args: &OptionsArgs, tenant: &vestnik_service::Tenant) -> anyhow::Result<()> {
    let mut changes = Vec::new();
    for option in &args.options {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("`{option}` has no value"), "write NAME=VALUE"))?;
        let key = Key::named(name.trim()).ok_or_else(|| unknown(name))?;
        changes.push((key, Some(value.trim())));
    }
    let options = tenant.options("").await?;
    settings::check(&options, &changes, args.allow_empty_key).map_err(refused)?;
    let saved = tenant.set_settings("", &changes, ACTOR).await?;
    say_saved(&saved.changed)
}

fn refused(problems: BTreeMap<Key, Problem>) -> anyhow::Error {
    let lines = problems.iter().map(|(key, problem)| {
        let wanted = match problem {
            Problem::Address => "takes an http or https address whose path ends with `/`".to_owned(),
            Problem::SocketAddress => {
                "takes a ws or wss address whose path ends with `/`".to_owned()
            }
            Problem::Number(min, max) => format!("takes a whole number from {min} to {max}"),
            Problem::Choice => "does not take this value".to_owned(),
            Problem::Length => "takes at most 4096 bytes".to_owned(),
            Problem::EmptyKey => {
                "must not be empty with Push server 2.0 and later, unless --allow-empty-key is given"
                    .to_owned()
            }
            Problem::Pinned => "is set by the configuration of the server".to_owned(),
        };
        format!("{} {wanted}", key.name())
    });
    let text = lines.collect::<Vec<_>>().join("; ");
    Failure::new(text, "nothing was changed").into()
}

fn say_saved(changed: &[&'static str]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match changed {
        [] => writeln!(out, "nothing has changed")?,
        changed => writeln!(out, "changed: {}", changed.join(", "))?,
    }
    writeln!(
        out,
        "a running server puts this in force within 5 seconds; clients that are connected learn of it when \
         they next fetch their configuration"
    )?;
    Ok(())
}
