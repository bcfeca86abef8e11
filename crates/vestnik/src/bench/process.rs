//! The server under test: its process or processes, their processor time and memory.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::client::Address;
use crate::failure::Failure;

/// The key of servers that the benchmark starts for itself.
pub(super) const OWN_KEY: &str = "a-key-for-benchmarks-on-loopback-only";

/// A server to measure.
pub(super) struct Target {
    pub(super) subscribe: Address,
    pub(super) publish: Address,
    /// The encrypted WebSocket address, of a server that was started with one.
    pub(super) encrypted: Option<SocketAddr>,
    /// Processes whose time and memory count; none for a server elsewhere.
    pub(super) processes: Vec<u32>,
    /// The server, if the benchmark started it; ended with it.
    _own: Option<Own>,
}

struct Own {
    child: Child,
    _data: tempfile::TempDir,
}

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    /// A server that runs already.
    pub(super) fn elsewhere(subscribe: Address, publish: Address, processes: Vec<u32>) -> Self {
        Self { subscribe, publish, encrypted: None, processes, _own: None }
    }

    /// Starts this program's server on a free port of the loopback, with `settings`.
    pub(super) fn start(settings: &[&str]) -> anyhow::Result<Self> {
        let data = tempfile::tempdir().context("cannot make a folder for the server's data")?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir"])
            .arg(data.path())
            .args(["--set", "history.bytes=4GiB"])
            .env("VESTNIK_SECURITY_KEY", OWN_KEY)
            .stdout(Stdio::piped());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.spawn().context("cannot start the server")?;
        let output = child.stdout.take().context("the server has no output")?;
        let own = Own { child, _data: data };
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        // What follows the addresses.
        let lines = lines.take_while(|line| !line.trim().starts_with("data in "));
        let lines: Vec<_> = lines.collect();
        let listening = |scheme: &str| {
            let mut lines = lines.iter().filter_map(|line| line.trim().strip_prefix(scheme));
            lines.next().map(str::to_owned)
        };
        let encrypted = listening("listening on https://").and_then(|it| it.parse().ok());
        let listening = listening("listening on http://")
            .ok_or_else(|| Failure::new("the server did not start", "its own words stand above"))?;
        let address = |scheme: &str, path: &str| {
            format!("{scheme}://{listening}{path}").parse::<Address>().map_err(anyhow::Error::msg)
        };
        Ok(Self {
            subscribe: address("ws", "/bitrix/subws/")?,
            publish: address("http", "/bitrix/pub/")?,
            encrypted,
            processes: vec![own.child.id()],
            _own: Some(own),
        })
    }

    /// Processor time that the server has used so far; zero for a server elsewhere.
    pub(super) fn cpu(&self) -> Duration {
        self.processes.iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Resident memory of the server in bytes; zero for a server elsewhere.
    pub(super) fn memory(&self) -> u64 {
        self.processes.iter().map(|pid| resident_of(*pid)).sum()
    }
}

/// Processor time of all threads of a process, to the nanosecond. Threads that have ended are not
/// counted; servers keep theirs.
pub(super) fn cpu_of(pid: u32) -> Duration {
    let tasks = format!("/proc/{pid}/task");
    let Ok(threads) = fs::read_dir(Path::new(&tasks)) else { return Duration::ZERO };
    threads
        .filter_map(|thread| {
            let schedule = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            Some(Duration::from_nanos(schedule.split(' ').next()?.parse().ok()?))
        })
        .sum()
}

fn resident_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
