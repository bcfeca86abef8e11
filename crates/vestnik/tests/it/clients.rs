//! Drives real subscribers: the SDK's pull client in Node or in headless Chromium.
//!
//! Owns the child process and its lines; `tests/clients/README.md` lists settings, events and
//! commands. It must not know the server: a test puts the server's addresses into the settings.
//!
//! Everything here blocks the calling thread. A server that runs in the same process therefore
//! needs a thread or runtime of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for one event. Generous: it ends a hanging test and measures nothing.
const WAIT: Duration = Duration::from_secs(30);

/// Longest wait for a client to end by itself; a browser needs up to 2 s for that.
const LEAVE: Duration = Duration::from_secs(10);

/// Events that may wait unread before the client is slowed down by its full pipe.
const UNREAD_EVENTS_MAX: usize = 10_000;

/// Which program runs the SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In Node, over the package `ws`: quick to start.
    Node,
    /// In a page of headless Chromium, whose origin differs from the push server's.
    Chromium,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Node => "node-client.mjs",
            Self::Chromium => "chromium-client.mjs",
        }
    }
}

/// One running client. Dropping it ends the process and its browser.
pub(crate) struct Client {
    child: Child,
    /// `None` once the client was told to leave.
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
    reader: Option<JoinHandle<()>>,
    /// Read and not yet expected, in order.
    backlog: Vec<Value>,
    commands_sent: u64,
}

/// Whether the tests with real clients and servers are asked for (`SLOW=1`, as the gate sets it).
#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the tests, not a setting of the program"
)]
pub(crate) fn slow() -> bool {
    std::env::var("SLOW").is_ok_and(|value| value == "1")
}

/// The prepared folder of clients: `TEST_CLIENTS`, or `tests/clients` of this repository.
#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the tests, not a setting of the program"
)]
pub(crate) fn folder() -> PathBuf {
    match std::env::var("TEST_CLIENTS") {
        Ok(path) => PathBuf::from(path),
        Err(_) => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients"),
    }
}

impl Client {
    /// Starts a client with `settings` and waits until it is ready to connect.
    ///
    /// # Panics
    /// When the folder is not prepared, Node or Chromium is missing, or the start takes over 30 s.
    pub(crate) fn start(kind: Kind, settings: &Value) -> Self {
        let folder = folder();
        assert!(
            folder.join("node_modules").is_dir(),
            "{} has no node_modules; run `npm ci` there or start the tests by `./test`",
            folder.display()
        );
        let mut child = Command::new("node")
            .arg(folder.join(kind.program()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`node` must be installed for the tests with real clients");
        let input = child.stdin.take().expect("standard input was piped");
        let output = child.stdout.take().expect("standard output was piped");
        let (sender, lines) = mpsc::sync_channel(UNREAD_EVENTS_MAX);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let line = line.expect("the client writes UTF-8");
                let event = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("the client wrote no JSON: {error}: {line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut client = Self {
            child,
            input: Some(input),
            lines,
            reader: Some(reader),
            backlog: Vec::new(),
            commands_sent: 0,
        };
        client.write(settings);
        client.expect_named("ready");
        client
    }

    /// Takes the first event, old or coming, that `matches`; others stay for later calls.
    ///
    /// # Panics
    /// When none comes within 30 s or the client ends; the message lists what was not taken.
    pub(crate) fn expect(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.backlog.iter().position(&matches) {
            return self.backlog.remove(at);
        }
        let deadline = Instant::now() + WAIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(event) if matches(&event) => return event,
                Ok(event) => self.backlog.push(event),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no such event within {WAIT:?}; not taken:\n{}", self.list_backlog())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the client has ended; not taken:\n{}", self.list_backlog())
                }
            }
        }
    }

    /// Takes the first event whose `event` is `name`. Successive calls keep the order in which the
    /// SDK reported them, so `expect_named("message")` yields messages as they were delivered.
    pub(crate) fn expect_named(&mut self, name: &str) -> Value {
        self.expect(|event| event["event"] == name)
    }

    /// Tells the client to do something and waits until it did; returns the result.
    ///
    /// # Panics
    /// When the client answers `failed`; the message holds the reason.
    pub(crate) fn send(&mut self, command: Value) -> Value {
        let done = self.attempt(command);
        assert_eq!(done["event"], "done", "the command failed: {done}");
        done["result"].clone()
    }

    /// As [`Client::send`], for commands that may fail: returns the `done` or `failed` event.
    pub(crate) fn attempt(&mut self, mut command: Value) -> Value {
        self.commands_sent += 1;
        let id = self.commands_sent;
        command["id"] = json!(id);
        self.write(&command);
        self.expect(|event| {
            event["id"] == id && (event["event"] == "done" || event["event"] == "failed")
        })
    }

    /// The client's position now: the last `mid`, if it has one.
    pub(crate) fn mid(&mut self) -> Option<String> {
        self.send(json!({"do": "session"}));
        self.expect_named("session")["mid"].as_str().map(str::to_owned)
    }

    /// Events that arrived so far and were not taken, for the question what did *not* happen.
    ///
    /// Asks the client for its position first, so everything it reported before that is included.
    pub(crate) fn not_taken(&mut self) -> &[Value] {
        self.mid();
        &self.backlog
    }

    /// Ends the client in order and waits for it.
    ///
    /// # Panics
    /// When it does not end within 10 s or ends with an error.
    pub(crate) fn stop(mut self) {
        let code = self.leave();
        assert_eq!(code, Some(0), "the client must end without an error");
    }

    fn write(&mut self, line: &Value) {
        let input = self.input.as_mut().expect("a client takes commands until it is stopped");
        writeln!(input, "{line}").expect("the client must read its input");
    }

    fn list_backlog(&self) -> String {
        self.backlog.iter().map(|event| format!("  {event}\n")).collect()
    }

    /// Closes the input, waits for the end and kills what is left; the exit code if there is one.
    fn leave(&mut self) -> Option<i32> {
        self.input = None;
        // The reader ends with the process's output. Draining keeps a full pipe from blocking it.
        let deadline = Instant::now() + LEAVE;
        while self.reader.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(event) => self.backlog.push(event),
                Err(RecvTimeoutError::Disconnected) => break,
                // Its browser hangs on a pipe that breaks with it, so nothing is left behind.
                // Killing fails only when the process has just ended, which is what is wanted.
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill().ok();
                    break;
                }
            }
        }
        let code = self.child.wait().ok().and_then(|status| status.code());
        if let Some(reader) = self.reader.take() {
            // A panic of the reader was printed where it happened.
            reader.join().ok();
        }
        code
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.reader.is_some() {
            self.leave();
        }
    }
}

/// Settings of user 7 for a server of `version` on `host`, with `channels` as the portal gives them.
///
/// `transport` decides between WebSocket and long polling. Publishing goes to `/bitrix/pubweb/`.
pub(crate) fn settings(version: u8, host: &str, transport: Transport, channels: &Value) -> Value {
    json!({
        "userId": 7,
        "server": {
            "version": version,
            "websocket": format!("ws://{host}/bitrix/subws/"),
            "long_polling": format!("http://{host}/bitrix/sub/"),
            "publish": format!("http://{host}/bitrix/pubweb/"),
            "websocket_enabled": transport == Transport::WebSocket,
        },
        "channels": channels,
    })
}

/// How the client is to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `websocket_enabled` is true.
    WebSocket,
    /// `websocket_enabled` is false.
    LongPolling,
}

/// Settings for an address where nobody listens: a listener was bound there and dropped.
fn nobody(transport: Transport) -> Value {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let host = listener.local_addr().expect("a bound address").to_string();
    settings(4, &host, transport, &json!({"shared": {"id": "a".repeat(32)}}))
}

#[test]
fn a_driven_client_reports_its_request_and_its_failure() {
    if !slow() {
        return;
    }
    for kind in [Kind::Node, Kind::Chromium] {
        let mut client = Client::start(kind, &nobody(Transport::WebSocket));
        let url = client.expect_named("url")["url"].to_string();
        assert!(url.contains("/bitrix/subws/?CHANNEL_ID=aaaa"), "{kind:?}: {url}");
        assert!(url.contains("binaryMode=true&revision=19"), "{kind:?}: {url}");
        assert_eq!(client.expect_named("closed")["code"], 1006, "{kind:?}");
        assert_eq!(client.mid(), None);
        client.stop();
    }
}

#[test]
fn a_driven_client_polls_when_web_sockets_are_off() {
    if !slow() {
        return;
    }
    for kind in [Kind::Node, Kind::Chromium] {
        let mut client = Client::start(kind, &nobody(Transport::LongPolling));
        assert_eq!(client.expect_named("url")["transport"], "long-polling", "{kind:?}");
        assert_eq!(client.expect_named("answered")["status"], 0, "{kind:?}");
        assert!(client.not_taken().iter().all(|event| event["event"] != "open"), "{kind:?}");
        client.stop();
    }
}

#[test]
fn a_failed_command_says_why_and_a_dropped_client_ends() {
    if !slow() {
        return;
    }
    let mut client = Client::start(Kind::Node, &nobody(Transport::WebSocket));
    let failed = client.attempt(json!({"do": "dance"}));
    assert_eq!(failed["event"], "failed");
    assert_eq!(failed["message"], "unknown command dance");
    drop(client);
}
