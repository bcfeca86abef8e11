//! What calls of the module cost over kept connections, signed with the key of the server, as a back end
//! makes them: one after the other, and from eight back ends at once.

use std::fmt::Display;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::Context as _;
use serde_json::{Value, json};
use vestnik_core::sign::Key;

use super::figures::Run;
use super::http::{self, Answer, Connection};
use super::report::{Better, Figure, Goal, micros_each};
use crate::client::Address;
use crate::failure::Failure;

/// The user who is online.
const USER: i64 = 1;
/// Back ends that call at once, as many as there are publishers in the other measurements.
const BACK_ENDS: u32 = 8;
/// Makes the events of one measurement known from all others.
const MARK: &str = "bench-mark-";

/// A connection that makes one call after the other.
pub(super) struct Caller<'a> {
    connection: Connection,
    key: &'a Key,
}

impl<'a> Caller<'a> {
    /// Connects to the server whose address is `url`.
    pub(super) fn open(url: &Address, key: &'a Key) -> anyhow::Result<Self> {
        Ok(Self { connection: Connection::open(url.resolve()?)?, key })
    }

    /// Whether the module is there: `false` while it waits for its database.
    pub(super) fn is_ready(&mut self) -> anyhow::Result<bool> {
        // Refused, since calls are posted, but by the module: it costs nothing and leaves nothing.
        let request = "GET /module/server.time HTTP/1.1\r\nHost: bench\r\n\r\n";
        Ok(self.connection.exchange(request.as_bytes())?.status != 503)
    }

    /// The whole answer to an operation, which must succeed.
    fn call(&mut self, operation: &str, input: &str) -> anyhow::Result<Vec<u8>> {
        let signature = self.key.sign(&[input.as_bytes()]);
        let request = format!(
            "POST /module/{operation}?signature={signature} HTTP/1.1\r\nHost: bench\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{input}",
            input.len()
        );
        let Answer { status, body } = self.connection.exchange(request.as_bytes())?;
        if status != 200 {
            let said = String::from_utf8_lossy(body).into_owned();
            let hint = "the part `module` needs the module of the server, and the key of both";
            return Err(Failure::new(format!("{operation}: {status}: {said}"), hint).into());
        }
        Ok(body.to_vec())
    }
}

/// The WebSocket connection of one user, as the configuration of the module tells it to connect.
struct Listener {
    stream: TcpStream,
    received: Vec<u8>,
    marks: usize,
}

impl Listener {
    fn open(subscribe: &Address, config: &[u8]) -> anyhow::Result<Self> {
        let config: Value = serde_json::from_slice(config).context("no configuration")?;
        let channels = &config["result"]["channels"];
        let id = |name: &str| channels[name]["id"].as_str().map(|id| id.replace(':', "%3A"));
        let private = id("private").context("the configuration names no private channel")?;
        let shared = id("shared").context("the configuration names no shared channel")?;
        let list = format!("{private}%2F{shared}");
        let target = subscribe.with(&[("CHANNEL_ID", &list), ("binaryMode", "true")]);
        let mut stream = http::connect(subscribe.resolve()?)?;
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        let mut listener = Self { stream, received: Vec::new(), marks: 0 };
        while !listener.received.ends_with(b"\r\n\r\n") {
            listener.read()?;
        }
        anyhow::ensure!(listener.received.starts_with(b"HTTP/1.1 101"), "the user is refused");
        listener.received.clear();
        Ok(listener)
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer).context("events stopped coming")?;
        anyhow::ensure!(read > 0, "the server hung up on the user");
        self.received.extend_from_slice(&buffer[..read]);
        Ok(())
    }

    /// Waits until this user has got `count` events in all, and not one more.
    fn expect(&mut self, count: usize) -> anyhow::Result<()> {
        while self.marks < count {
            self.read()?;
            let mark = MARK.as_bytes();
            let is_mark = |window: &&[u8]| *window == mark;
            self.marks += self.received.windows(mark.len()).filter(is_mark).count();
            // The beginning of a mark may be there already.
            let rest = self.received.len().min(mark.len() - 1);
            self.received.drain(..self.received.len() - rest);
        }
        anyhow::ensure!(self.marks == count, "{} events came instead of {count}", self.marks);
        Ok(())
    }
}

fn to_users(users: &[i64], number: impl Display, expiry_s: Option<u32>) -> String {
    let mut event = json!({
        "recipients": {"users": users},
        "module_id": "im",
        "command": "message",
        "params": {"mark": format!("{MARK}{number}"), "text": "x".repeat(100)},
    });
    if let Some(expiry_s) = expiry_s {
        event["expiry"] = expiry_s.into();
    }
    event.to_string()
}

/// How calls are made, and whether the user who is online hears of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// One after the other; nobody hears of them.
    Unheard,
    /// One after the other.
    Heard,
    /// From all back ends at once.
    HeardTogether,
}

/// Makes calls one after the other from each of several back ends at once, `calls` in all.
fn call_together(
    url: &Address,
    key: &Key,
    operation: &str,
    calls: u32,
    input: &(dyn Fn(u32) -> String + Sync),
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let back_end = |first: u32| {
            let mut caller = Caller::open(url, key)?;
            let mut numbers = (first..calls).step_by(BACK_ENDS as usize);
            numbers.try_for_each(|number| caller.call(operation, &input(number)).map(drop))
        };
        let back_ends: Vec<_> = (0..BACK_ENDS)
            .map(|first| scope.spawn(move || -> anyhow::Result<()> { back_end(first) }))
            .collect();
        back_ends
            .into_iter()
            .try_for_each(|it| it.join().map_err(|_| anyhow::anyhow!("a back end failed"))?)
    })
}

impl Run<'_> {
    /// Calls of the module: an event for one user who is online, for a thousand, a configuration.
    pub(super) fn module(&mut self) -> anyhow::Result<Vec<Figure>> {
        const CALLS: u32 = 2000;
        let key = self.key.clone();
        let mut caller = Caller::open(&self.target.publish, &key)?;
        let ask = json!({"USER_ID": USER, "HOST": "bench.test"}).to_string();
        let config = caller.call("pull.config.get", &ask)?;
        let mut listener = Listener::open(&self.target.subscribe, &config)?;
        let mut expected = 0;
        let mut measure = |name,
                           about,
                           goal,
                           calls: u32,
                           how: How,
                           operation: &str,
                           input: &(dyn Fn(u32) -> String + Sync)| {
            // Channels are made by the first calls, and then remembered.
            for number in 0..calls / 10 {
                caller.call(operation, &input(number))?;
            }
            let before = self.target.cpu();
            if how == How::HeardTogether {
                call_together(&self.target.publish, &key, operation, calls, input)?;
            } else {
                for number in 0..calls {
                    caller.call(operation, &input(number))?;
                }
            }
            let cpu = self.target.cpu() - before;
            if how != How::Unheard {
                expected += (calls / 10 + calls) as usize;
                listener.expect(expected)?;
            }
            let mut figure = Figure::new(name, "µs CPU", about, Better::Lower, goal);
            figure.samples.push(micros_each(cpu, calls.into()));
            anyhow::Ok(figure)
        };
        let everybody: Vec<i64> = (USER..USER + 1000).collect();
        Ok(vec![
            measure(
                "module, a call that does nothing",
                "server.time: HTTP and the signature; part of all that follow",
                Goal::Shown,
                CALLS,
                How::Unheard,
                "server.time",
                &|_| "{}".to_owned(),
            )?,
            measure(
                "module, events of eight at once",
                "pull.event.add to one user, kept for a day and forced to disk; eight back ends at once, as publishers elsewhere",
                Goal::Value(150.0),
                CALLS,
                How::HeardTogether,
                "pull.event.add",
                &|number| to_users(&[USER], number, None),
            )?,
            measure(
                "module, event to one user",
                "the same, one call after the other: nothing shares a wake or a sync",
                Goal::Value(150.0),
                CALLS,
                How::Heard,
                "pull.event.add",
                &|number| to_users(&[USER], number, None),
            )?,
            measure(
                "module, volatile event to one user",
                "one call after the other, not kept",
                Goal::Shown,
                CALLS,
                How::Heard,
                "pull.event.add",
                &|number| to_users(&[USER], number, Some(0)),
            )?,
            measure(
                "module, event to 1,000 users",
                "the same for a thousand users, one of them online",
                Goal::Value(2000.0),
                CALLS / 10,
                How::Heard,
                "pull.event.add",
                &|number| to_users(&everybody, number, None),
            )?,
            measure(
                "module, configuration of a client",
                "pull.config.get, the user's channels signed anew",
                Goal::Value(200.0),
                CALLS,
                How::Unheard,
                "pull.config.get",
                &|_| ask.clone(),
            )?,
        ])
    }
}
