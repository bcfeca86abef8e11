//! The benchmark in its smallest form: that it runs, checks what it gets, and says so.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::sign::KEY;

#[test]
fn the_benchmark_measures_every_part_and_prints_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "20", "--repeat", "1", "--json"])
        .output()
        .expect("it is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figures = figures.as_array().expect("a list");
    assert!(figures.len() >= 20, "{figures:?}");
    let is_measured = |name: &str| figures.iter().any(|figure| figure["name"] == name);
    assert!(is_measured("module, event to one user"), "{figures:?}");
    for figure in figures {
        let median = figure["median"].as_f64().expect("a number");
        assert!(median.is_finite() && median >= 0.0, "{figure}");
    }
}

#[test]
fn the_benchmark_measures_json_frames_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "20", "--repeat", "1", "--json", "--generation", "5"])
        .args(["--only", "idle,fan-out,coalescing,burst,replay,latency,publish,storm"])
        .output()
        .expect("it is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(figures.as_array().expect("a list").len() >= 12, "{figures:?}");
}

#[test]
fn a_wrong_key_is_said_instead_of_measured() {
    let server = crate::server::TestServer::start();
    let (subscribe, publish) = (
        format!("ws://{}/bitrix/subws/", server.address()),
        format!("http://{}/bitrix/pub/", server.address()),
    );
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "2", "--only", "idle", "--key", "wrong"])
        .args(["--subscribe", &subscribe, "--publish", &publish])
        .output()
        .expect("it is built");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["0 of 2 subscribers could connect", "check that the key"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn what_stops_a_publisher_is_said_at_once() {
    let server = crate::server::TestServer::start();
    let (subscribe, publish) = (
        format!("ws://{}/bitrix/subws/", server.address()),
        format!("http://{}/nowhere/", server.address()),
    );
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "1", "--only", "publish", "--key", KEY])
        .args(["--subscribe", &subscribe, "--publish", &publish])
        .output()
        .expect("it is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a publish was refused with 404"), "{said}");
}

#[test]
fn servers_elsewhere_are_measured_with_keys_of_their_algorithm_and_what_cannot_be_is_said_apart() {
    let server = crate::server::TestServer::with(&[
        &format!("security.key={KEY}"),
        "security.algorithm=sha256",
    ]);
    let output = Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["bench", "--connections", "20", "--repeat", "2", "--json", "--bytes", "300"])
        .args(["--only", "idle,burst,module", "--key", KEY, "--algorithm", "sha256"])
        .args(["--subscribe", &format!("ws://{}/bitrix/subws/", server.address())])
        .args(["--publish", &format!("http://{}/bitrix/pub/", server.address())])
        .args(["--pid", &server.pid().to_string()])
        .output()
        .expect("it is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "this server has no module: {said}");
    assert!(said.contains("not everything could be measured: Module"), "{said}");
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let figure = |name: &str| {
        let mut figures = figures.as_array().expect("a list").iter();
        figures.find(|figure| figure["name"] == name).expect("it is measured").clone()
    };
    let samples = |name: &str| figure(name)["samples"].as_array().expect("a list").len();
    // The second round finds a server that has the memory of the first.
    assert_eq!(samples("memory of an idle WebSocket"), 1);
    assert_eq!(samples("connect"), 2);
    let burst = figure("burst of 50 messages");
    assert!(burst["reached"].is_null(), "goals are for other events: {burst}");
}

/// A benchmark that goes on until it is killed, which it is at the end of its test at the latest.
struct Running {
    bench: Child,
    /// Where its server keeps its data, which nobody removes for one who was killed.
    _data: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let bench = Command::new(env!("CARGO_BIN_EXE_vestnik"))
            .args(["bench", "--connections", "1", "--only", "soak", "--soak", "600"])
            .env("TMPDIR", data.path())
            .spawn()
            .expect("it is built");
        Self { bench, _data: data }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.bench.kill();
        let _ = self.bench.wait();
    }
}

#[test]
fn a_server_of_the_benchmark_ends_with_it_however_that_ends() {
    let mut running = Running::start();
    let until = Instant::now() + Duration::from_secs(60);
    let wait = |what: &str| {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let children = format!("/proc/{0}/task/{0}/children", running.bench.id());
    let server = loop {
        let children = std::fs::read_to_string(&children).expect("it runs");
        if let Some(server) = children.split_whitespace().next() {
            let command = std::fs::read(format!("/proc/{server}/cmdline")).unwrap_or_default();
            // Not the copy of the benchmark that it is at first.
            if command.windows(7).any(|window| window == b"\0serve\0") {
                break server.to_owned();
            }
        }
        wait("no server was started");
    };
    running.bench.kill().expect("it runs");
    running.bench.wait().expect("it was started here");
    while runs(&server) {
        wait("the server goes on alone");
    }
}

/// Whether a process is there and has not ended: who has may wait for somebody to ask how.
fn runs(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.is_some_and(|state| !state.trim_start().starts_with(['Z', 'X']))
}
