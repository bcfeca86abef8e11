//! `vestnik admin`: who may use the settings page and the dashboard. Works on the database, whether a
//! server runs or not.

use std::io::{Read as _, Write as _};

use anyhow::Context as _;
use vestnik_core::Clock;
use vestnik_service::Service;
use vestnik_service::administrator::{Access, AdministratorError, FIRST_LOGIN, random_password};

use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;

/// Arguments of `vestnik admin`.
#[derive(Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// What to do.
    #[arg(value_enum)]
    pub(crate) action: Action,
    /// Whom it is about.
    #[arg(value_name = "LOGIN", default_value = FIRST_LOGIN)]
    pub(crate) login: String,
    /// What they may do: R looks, W changes. Without it an administrator keeps the right they have.
    #[arg(long, value_name = "R|W", value_parser = access)]
    pub(crate) access: Option<Access>,
    /// Take the password from standard input instead of making one.
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Where the database is.
    #[command(flatten)]
    pub(crate) configuration: ConfigArgs,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Action {
    /// Set a password; adds the administrator if there is none of that name.
    Password,
    /// Show all.
    List,
    /// Remove one.
    Remove,
}

fn access(text: &str) -> Result<Access, String> {
    Access::of_letter(text).ok_or_else(|| "must be R or W".to_owned())
}

/// Opens the database that a configuration names.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Service> {
    let module = config.module.as_ref().ok_or_else(|| {
        Failure::new("the module is switched off", "set module.enabled = true in the configuration")
    })?;
    crate::keygen::make_folder(&config.data_dir).context("cannot make the data folder")?;
    let (service, _) = Service::open(&module.database, Clock::System).await.map_err(|error| {
        Failure::new(
            format!("{:#}", anyhow::Error::from(error)),
            "check module.database and --data-dir: they must be those of the server",
        )
    })?;
    Ok(service)
}

/// A runtime for one command.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")
}

/// Does it.
pub(crate) fn run(args: &AdminArgs) -> anyhow::Result<()> {
    let (config, _) = Config::load(&args.configuration.sources())?;
    runtime()?.block_on(async {
        let service = open(&config).await?;
        let done = act(&service, args).await;
        service.database().close().await;
        done
    })
}

async fn act(service: &Service, args: &AdminArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match args.action {
        Action::List => {
            for administrator in service.administrators().await.map_err(explained)? {
                writeln!(out, "{}  {}", administrator.access.letter(), administrator.login)?;
            }
        }
        Action::Remove => {
            service.remove_administrator(&args.login).await.map_err(explained)?;
            writeln!(out, "`{}` is removed and signed out", args.login)?;
        }
        Action::Password => {
            let known = service.administrator(&args.login).await.map_err(explained)?;
            let access = args.access.or(known.map(|it| it.access)).unwrap_or(Access::Write);
            let password = if args.stdin { read_password()? } else { random_password()? };
            let saved = service.save_administrator(&args.login, &password, access).await;
            saved.map_err(explained)?;
            writeln!(out, "login     {}", args.login)?;
            if !args.stdin {
                writeln!(out, "password  {password}")?;
            }
            writeln!(out, "right     {}", access.letter())?;
        }
    }
    Ok(())
}

/// The first line of standard input.
fn read_password() -> anyhow::Result<String> {
    const BYTES_MAX: u64 = 4096;
    let mut text = String::new();
    std::io::stdin().lock().take(BYTES_MAX).read_to_string(&mut text).context("no password")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn explained(error: AdministratorError) -> anyhow::Error {
    let hint = match &error {
        AdministratorError::Database(_) => "check that the database can be reached",
        AdministratorError::Random => "the system must give random bytes",
        AdministratorError::Password => "choose a longer password, or leave --stdin away",
        AdministratorError::Login | AdministratorError::Unknown(_) => {
            "`vestnik admin list` shows all"
        }
        AdministratorError::Last(_) => "give another administrator the right W first",
        AdministratorError::Hash(_) => "this is a fault of the program",
    };
    Failure::new(format!("{:#}", anyhow::Error::from(error)), hint).into()
}
