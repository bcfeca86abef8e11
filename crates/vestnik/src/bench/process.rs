//! The server under test: its process or processes, their processor time and memory.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use vestnik_core::Secret;
use vestnik_core::sign::{Algorithm, Key};

use super::module::Caller;
use crate::client::Address;
use crate::failure::Failure;
use crate::parent;

/// The key of servers that the benchmark starts for itself.
const OWN_KEY: &str = "a-key-for-benchmarks-on-loopback-only";

/// A server to measure.
pub(super) struct Target {
    pub(super) subscribe: Address,
    pub(super) publish: Address,
    /// The encrypted WebSocket address, of a server that was started with one.
    pub(super) encrypted: Option<SocketAddr>,
    /// Processes whose time and memory count; none for a server elsewhere.
    pub(super) processes: Vec<u32>,
    /// Processor time of each thread of those, also of threads that have ended since.
    threads: Mutex<HashMap<u32, Duration>>,
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
        let threads = Mutex::default();
        Self { subscribe, publish, encrypted: None, processes, threads, _own: None }
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
        parent::ends_with_this_one(&mut command);
        let child = command.spawn().context("cannot start the server")?;
        let mut own = Own { child, _data: data };
        let output = own.child.stdout.take().context("the server has no output")?;
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
        let target = Self {
            subscribe: address("ws", "/bitrix/subws/")?,
            publish: address("http", "/bitrix/pub/")?,
            encrypted,
            processes: vec![own.child.id()],
            threads: Mutex::default(),
            _own: Some(own),
        };
        target.settle()?;
        Ok(target)
    }

    /// Waits until the module is there, if the server has one, and memory stays what it is: what a start
    /// takes must not be counted as the cost of what comes next.
    fn settle(&self) -> anyhow::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        const PAUSE: Duration = Duration::from_millis(200);
        /// So often in a row memory is the same.
        const SAME: u32 = 5;
        let until = Instant::now() + PATIENCE;
        let key = own_key();
        while !Caller::open(&self.publish, &key)?.is_ready()? {
            anyhow::ensure!(
                Instant::now() < until,
                Failure::new("the module of the server is not there", "its own words stand above")
            );
            std::thread::sleep(PAUSE / 4);
        }
        let (mut memory, mut same) = (self.memory(), 0);
        // A server that never comes to rest is measured as it is.
        while same < SAME && Instant::now() < until {
            std::thread::sleep(PAUSE);
            let now = self.memory();
            same = if now == memory { same + 1 } else { 0 };
            memory = now;
        }
        Ok(())
    }

    /// Processor time that the server has used so far; zero for a server elsewhere.
    pub(super) fn cpu(&self) -> Duration {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.extend(self.processes.iter().flat_map(|pid| threads_of(*pid)));
        threads.values().sum()
    }

    /// Resident memory of the server in bytes; zero for a server elsewhere.
    pub(super) fn memory(&self) -> u64 {
        self.processes.iter().map(|pid| status_of(*pid, "VmRSS:")).sum()
    }

    /// The part of that which is not mapped from files.
    pub(super) fn own_memory(&self) -> u64 {
        self.processes.iter().map(|pid| status_of(*pid, "RssAnon:")).sum()
    }
}

/// The key of servers that the benchmark starts.
pub(super) fn own_key() -> Key {
    Key::new(Secret::new(OWN_KEY.to_owned()), Algorithm::Sha1, None)
}

/// Processor time of all threads that a process has, to the nanosecond.
pub(super) fn cpu_of(pid: u32) -> Duration {
    threads_of(pid).into_iter().map(|(_, time)| time).sum()
}

/// The threads that a process has now, with their processor time.
fn threads_of(pid: u32) -> Vec<(u32, Duration)> {
    let tasks = format!("/proc/{pid}/task");
    let Ok(threads) = fs::read_dir(Path::new(&tasks)) else { return Vec::new() };
    threads
        .filter_map(|thread| {
            let thread = thread.ok()?;
            let schedule = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let time = Duration::from_nanos(schedule.split(' ').next()?.parse().ok()?);
            Some((thread.file_name().to_str()?.parse().ok()?, time))
        })
        .collect()
}

/// A number of bytes from the status of a process.
fn status_of(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
