//! The `vestnik` program.

mod acme;
mod admin;
mod back_end;
mod bench;
mod check;
mod client;
mod config;
mod conformance;
mod failure;
mod import;
mod keygen;
mod listen;
mod migrate;
mod options;
mod parent;
mod publish;
mod serve;
mod sign;
mod stats;
mod summary;
mod systemd;
mod token;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

/// Queue server for Bitrix "Push and Pull".
#[derive(Debug, clap::Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve: accept events from sites and hand them to browsers and apps.
    Serve(serve::ServeArgs),
    /// Send an event to channels.
    Publish(publish::PublishArgs),
    /// Subscribe to channels and print their events.
    Listen(listen::ListenArgs),
    /// Show how a server does, or all nodes of it.
    Stats(stats::StatsArgs),
    /// Copy the history in Redis from one layout of keys to the other.
    Migrate(Box<migrate::MigrateArgs>),
    /// Measure what a server costs.
    Bench(bench::BenchArgs),
    /// The bare loop that the benchmark compares with.
    #[command(hide = true)]
    BenchFloor(bench::floor::FloorArgs),
    /// Say what a configuration means.
    Check(check::CheckArgs),
    /// Take over the data of another installation into the module's tables.
    Import(import::ImportArgs),
    /// Make a signature key.
    Keygen(keygen::KeygenArgs),
    /// Sign channel ids as a site does.
    Sign(sign::SignArgs),
    /// Make, list and remove the secrets with which back ends call the module.
    Secret(back_end::SecretArgs),
    /// Make and list the tenants of the module.
    Tenant(back_end::TenantArgs),
    /// Manage who may use the settings page and the dashboard.
    Admin(admin::AdminArgs),
    /// Read and set what the settings page shows.
    Options(options::OptionsArgs),
    /// Ask a server which promises of the protocol it keeps.
    Conformance(Box<conformance::ConformanceArgs>),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to tell it to if the stream is closed. Wrong arguments exit with 1,
            // which is ours for what the user can fix; help and version with 0.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let done = match arguments.command {
        Command::Serve(args) => serve::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Listen(args) => listen::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchFloor(args) => bench::floor::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Secret(args) => back_end::secret(&args),
        Command::Tenant(args) => back_end::tenants(&args),
        Command::Admin(args) => admin::run(&args),
        Command::Options(args) => options::run(&args),
        Command::Conformance(args) => conformance::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (text, code) = failure::report(&error);
            // Nothing is left to tell it to if standard error is closed.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(code)
        }
    }
}
