//! `vestnik secret` and `vestnik tenant`: who may use the module, written into its database.

use std::io::Write as _;

use anyhow::Context as _;
use vestnik_core::Clock;
use vestnik_service::access::Right;
use vestnik_service::{Service, Tenant};

use crate::config::{Config, ConfigArgs};
use crate::failure::Failure;

/// Arguments of `vestnik secret`.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretArgs {
    /// What to do.
    what: SecretAction,
    /// add: what the secret is for; remove: its number.
    #[arg(value_name = "NAME|NUMBER")]
    which: Option<String>,
    /// Let a new secret change settings and make secrets too.
    #[arg(long)]
    admin: bool,
    /// `hostId` of the tenant; the default tenant unless given.
    #[arg(long, value_name = "HOST_ID")]
    tenant: Option<String>,
    /// Where the database is.
    #[command(flatten)]
    configuration: ConfigArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SecretAction {
    /// Make a secret for a back end and print it; it is never shown again.
    Add,
    /// List the secrets: number, right, name.
    List,
    /// Remove a secret by its number.
    Remove,
}

/// Arguments of `vestnik tenant`.
#[derive(Debug, clap::Args)]
pub(crate) struct TenantArgs {
    /// What to do.
    what: TenantAction,
    /// add: its `hostId`, 1 to 64 letters, digits, dots, underscores and hyphens.
    #[arg(value_name = "HOST_ID")]
    host_id: Option<String>,
    /// Where the database is.
    #[command(flatten)]
    configuration: ConfigArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum TenantAction {
    /// Make a tenant.
    Add,
    /// List the `hostId`s, that of the default tenant first.
    List,
}

fn needed<'a>(value: Option<&'a str>, what: &str) -> anyhow::Result<&'a str> {
    value.ok_or_else(|| Failure::new(format!("{what} is missing"), "name it").into())
}

/// Makes, lists or removes secrets.
pub(crate) fn secret(args: &SecretArgs) -> anyhow::Result<()> {
    with_service(&args.configuration, async |service| {
        let tenant = tenant(&service, args.tenant.as_deref()).await?;
        let mut out = std::io::stdout();
        match args.what {
            SecretAction::Add => {
                let name = needed(args.which.as_deref(), "what the secret is for")?;
                let right = if args.admin { Right::Administrator } else { Right::Backend };
                let secret = tenant.add_secret(name, right).await?;
                writeln!(out, "{}", secret.expose())?;
            }
            SecretAction::List => {
                for entry in tenant.secrets().await? {
                    writeln!(out, "{}\t{}\t{}", entry.id, entry.right.name(), entry.name)?;
                }
            }
            SecretAction::Remove => {
                let number = needed(args.which.as_deref(), "the number of a secret")?;
                let known = number.parse().ok();
                if !matches!(known, Some(number) if tenant.remove_secret(number).await?) {
                    let text = format!("there is no secret {number}");
                    return Err(Failure::new(text, "`vestnik secret list` has the numbers").into());
                }
            }
        }
        Ok(())
    })
}

/// Makes or lists tenants.
pub(crate) fn tenants(args: &TenantArgs) -> anyhow::Result<()> {
    with_service(&args.configuration, async |service| {
        let mut out = std::io::stdout();
        match args.what {
            TenantAction::Add => {
                let host_id = needed(args.host_id.as_deref(), "the `hostId` of the tenant")?;
                let tenant = service.create_tenant(host_id, host_id).await?;
                writeln!(out, "{}", tenant.host_id())?;
            }
            TenantAction::List => {
                for host_id in service.host_ids().await? {
                    writeln!(out, "{host_id}")?;
                }
            }
        }
        Ok(())
    })
}

async fn tenant(service: &Service, host_id: Option<&str>) -> anyhow::Result<Tenant> {
    let Some(host_id) = host_id else { return Ok(service.default_tenant().await?) };
    service.tenant(host_id).await?.ok_or_else(|| {
        let text = format!("there is no tenant {host_id}");
        Failure::new(text, "`vestnik tenant list` has their names").into()
    })
}

fn with_service<W>(configuration: &ConfigArgs, work: W) -> anyhow::Result<()>
where
    W: AsyncFnOnce(Service) -> anyhow::Result<()>,
{
    let (config, warnings) = Config::load(&configuration.sources())?;
    for warning in warnings {
        // Nothing is left to tell it to if standard error is closed.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let module = config
        .module
        .as_ref()
        .ok_or_else(|| Failure::new("the module is switched off", "set module.enabled to true"))?;
    if let Err(error) = crate::keygen::make_folder(&config.data_dir) {
        tracing::debug!(%error, "data folder not made");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let opened = Service::open(&module.database, Clock::System).await;
        let (service, _notices) = opened.context("cannot open the database of the module")?;
        let done = work(service.clone()).await;
        service.database().close().await;
        done
    })
}
