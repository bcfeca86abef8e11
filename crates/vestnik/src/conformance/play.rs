//! Carries out the steps of a fixture against a server.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use vestnik_proto::websocket::Opcode;

use super::language::{
    Action, Answer, Expectation, ExpectedBody, Fixture, Frame, Order, Payload, Request,
};
use super::pattern::{Captures, Pattern, bytes_of};
use super::scope::Scope;
use super::wire::{Connection, Message, Received};

/// The server under test.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Host and port for subscribers.
    pub(crate) authority: String,
    /// Host and port of trusted routes, statistics and client publishing.
    pub(crate) publish_authority: String,
    /// The longest wait for something that is expected.
    pub(crate) patience: Duration,
}

/// Why a fixture does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Line of the step.
    pub(crate) line: usize,
    pub(crate) fault: Fault,
}

/// What went wrong with a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// Something else came.
    #[error("expected {expected}, received {received}")]
    Mismatch { expected: String, received: String },
    /// It did not come in time, or the connection ended.
    #[error("expected {expected}, but {why}")]
    Missing { expected: String, why: String },
    /// The step could not be sent.
    #[error("cannot send: {0}")]
    Unsent(String),
    /// The fixture itself is wrong.
    #[error("the fixture is wrong: {0}")]
    Fixture(String),
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Fixture(what)
    }
}

/// Headers that the platform adds, besides those a fixture names.
const PLATFORM_HEADERS: [&str; 6] =
    ["date", "server", "connection", "keep-alive", "transfer-encoding", "content-length"];

/// Times presence is asked for until it is as expected.
const PRESENCE_PAUSE: Duration = Duration::from_millis(10);

/// Plays a fixture from its first step to the first that does not hold.
pub(crate) fn play(fixture: &Fixture, target: &Target, scope: Scope<'_>) -> Result<(), Broken> {
    let mut player = Player { target, scope, connections: BTreeMap::new() };
    for step in &fixture.steps {
        player.step(&step.action).map_err(|fault| Broken { line: step.line, fault })?;
    }
    Ok(())
}

struct Player<'a> {
    target: &'a Target,
    scope: Scope<'a>,
    connections: BTreeMap<String, Connection>,
}

impl Player<'_> {
    fn step(&mut self, action: &Action) -> Result<(), Fault> {
        match action {
            Action::Request { on, request } => self.request(on, request),
            Action::Bytes { on, hex } => {
                let bytes = self.hex(hex)?;
                let publishes = on.starts_with('P');
                self.connection(on, publishes)?.send(&bytes).map_err(unsent)
            }
            Action::Connect { on, target } => self.connect(on, target),
            Action::Frame { on, frame } => self.frame(on, frame),
            Action::Publish { expiry, channels, body } => self.publish(expiry, channels, body),
            Action::Close { on } => {
                self.connections.remove(on);
                Ok(())
            }
            Action::HalfClose { on } => self.existing(on)?.half_close().map_err(unsent),
            Action::Wait(time) => {
                std::thread::sleep(*time);
                Ok(())
            }
            Action::Presence { channels, is_online } => self.presence(channels, *is_online),
            Action::Compare { left, order, right } => self.compare(left, *order, right),
            Action::Expect { on, expectation } => self.expect(on, expectation),
        }
    }

    fn text(&self, written: &str) -> Result<String, Fault> {
        Ok(Pattern::of_text(written, &self.scope)?.literal()?)
    }

    fn hex(&self, written: &str) -> Result<Vec<u8>, Fault> {
        Ok(bytes_of(&Pattern::of_hex(written, &self.scope)?.literal()?))
    }

    fn until(&self) -> Instant {
        Instant::now() + self.target.patience
    }

    /// The connection of a name, opened if there is none that can be used.
    fn connection(&mut self, on: &str, publishes: bool) -> Result<&mut Connection, Fault> {
        if !self.connections.get(on).is_some_and(Connection::is_usable) {
            let opened = self.open(publishes)?;
            self.connections.insert(on.to_owned(), opened);
        }
        self.existing(on)
    }

    fn open(&self, publishes: bool) -> Result<Connection, Fault> {
        let authority = self.authority(publishes);
        Connection::open(authority, self.target.patience).map_err(unsent)
    }

    fn authority(&self, publishes: bool) -> &str {
        if publishes { &self.target.publish_authority } else { &self.target.authority }
    }

    fn existing(&mut self, on: &str) -> Result<&mut Connection, Fault> {
        let unknown = || Fault::Fixture(format!("connection `{on}` was not opened"));
        self.connections.get_mut(on).ok_or_else(unknown)
    }

    fn request(&mut self, on: &str, request: &Request) -> Result<(), Fault> {
        let line = self.text(&request.line)?;
        let publishes = is_publish_side(&line);
        let bytes = self.request_bytes(&line, request, publishes)?;
        let method = line.split(' ').next().unwrap_or_default();
        self.connection(on, publishes)?.send_request(method, &bytes).map_err(unsent)
    }

    fn request_bytes(
        &self,
        line: &str,
        request: &Request,
        publishes: bool,
    ) -> Result<Vec<u8>, Fault> {
        let body = match &request.body {
            None => Vec::new(),
            Some(Payload::Text(text)) => self.text(text)?.into_bytes(),
            Some(Payload::Hex(hex)) => self.hex(hex)?,
        };
        let has = |name: &str| {
            request.headers.iter().any(|header| header.to_ascii_lowercase().starts_with(name))
        };
        let mut bytes = format!("{line}\r\n").into_bytes();
        if !has("host:") && line.ends_with("HTTP/1.1") {
            bytes.extend_from_slice(format!("Host: {}\r\n", self.authority(publishes)).as_bytes());
        }
        let has_length = has("content-length:") || has("transfer-encoding:");
        if !has_length && (!body.is_empty() || line.starts_with("POST ")) {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        for header in &request.headers {
            bytes.extend_from_slice(self.text(header)?.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    fn connect(&mut self, on: &str, target: &str) -> Result<(), Fault> {
        let target = self.text(target)?;
        let mut connection = self.open(false)?;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.target.authority
        );
        connection.send_request("GET", request.as_bytes()).map_err(unsent)?;
        let expected = || "the handshake to be answered with 101".to_owned();
        let answer =
            connection.answer(self.until()).map_err(|error| missing(expected(), &error))?;
        if answer.status != 101 {
            return Err(Fault::Mismatch { expected: expected(), received: shown(&answer) });
        }
        self.connections.insert(on.to_owned(), connection);
        Ok(())
    }

    fn frame(&mut self, on: &str, frame: &Frame) -> Result<(), Fault> {
        let (opcode, payload) = match frame {
            Frame::Text(text) => (Opcode::Text, self.text(text)?.into_bytes()),
            Frame::Binary(hex) => (Opcode::Binary, self.hex(hex)?),
            Frame::Ping(text) => (Opcode::Ping, self.text(text)?.into_bytes()),
            Frame::Pong(text) => (Opcode::Pong, self.text(text)?.into_bytes()),
            Frame::Close { code, reason } => {
                let mut payload = code.to_be_bytes().to_vec();
                payload.extend_from_slice(self.text(reason)?.as_bytes());
                (Opcode::Close, payload)
            }
        };
        self.existing(on)?.send_frame(opcode, &payload).map_err(unsent)
    }

    fn publish(&mut self, expiry: &str, channels: &str, body: &str) -> Result<(), Fault> {
        let request = Request {
            line: format!("POST /bitrix/pub/?CHANNEL_ID={channels} HTTP/1.1"),
            headers: vec![format!("Message-Expiry: {expiry}")],
            body: Some(Payload::Text(body.to_owned())),
        };
        let answer = self.ask(&request)?;
        if answer.status == 200 {
            return Ok(());
        }
        let expected = "the publish to be answered with 200".to_owned();
        Err(Fault::Mismatch { expected, received: shown(&answer) })
    }

    /// Sends a request on a connection of its own to the publishing side.
    fn ask(&self, request: &Request) -> Result<Received, Fault> {
        let line = self.text(&request.line)?;
        let mut connection = self.open(true)?;
        let bytes = self.request_bytes(&line, request, true)?;
        connection.send_request("", &bytes).map_err(unsent)?;
        let answer = connection.answer(self.until());
        answer.map_err(|error| missing("an answer".to_owned(), &error))
    }

    fn presence(&self, channels: &str, is_online: bool) -> Result<(), Fault> {
        let line = format!("GET /bitrix/pub/?CHANNEL_ID={channels} HTTP/1.1");
        let request = Request { line, ..Request::default() };
        let wanted = match is_online {
            true => self.text(channels)?.split('/').count(),
            false => 0,
        };
        let until = self.until();
        loop {
            let answer = self.ask(&request)?;
            let infos: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
            let online = infos.and_then(|value| value["infos"].as_array().map(Vec::len));
            if online == Some(wanted) {
                return Ok(());
            }
            if Instant::now() > until {
                let state = if is_online { "online" } else { "offline" };
                let expected = format!("{channels} to become {state}");
                return Err(Fault::Mismatch { expected, received: shown(&answer) });
            }
            std::thread::sleep(PRESENCE_PAUSE);
        }
    }

    fn compare(&self, left: &str, order: Order, right: &str) -> Result<(), Fault> {
        let (left, right) = (self.text(left)?, self.text(right)?);
        let number = |text: &str| {
            text.parse::<u128>().map_err(|_| Fault::Fixture(format!("`{text}` is no number")))
        };
        let (holds, sign) = match order {
            Order::Equal => (left == right, "equal to"),
            Order::Less => (number(&left)? < number(&right)?, "less than"),
        };
        match holds {
            true => Ok(()),
            false => Err(Fault::Mismatch { expected: format!("{sign} {right}"), received: left }),
        }
    }

    fn expect(&mut self, on: &str, expectation: &Expectation) -> Result<(), Fault> {
        let until = self.until();
        match expectation {
            Expectation::Answer(expected) => {
                let what = format!("an answer with status {}", expected.status);
                let answer =
                    self.existing(on)?.answer(until).map_err(|error| missing(what, &error))?;
                self.check_answer(expected, &answer)
            }
            Expectation::Event { name, body } => self.expect_event(on, name, body, until),
            Expectation::Text(written) => {
                let pattern = Pattern::of_text(written, &self.scope)?;
                let expected = format!("a text frame {pattern}");
                match self.data_frame(on, until, &expected)? {
                    Message::Text(text) => self.matched(&pattern, &text, &expected),
                    other => Err(mismatch(expected, &other)),
                }
            }
            Expectation::Binary(written) => self.expect_binary(on, written, until),
            Expectation::Ping(text) => self.expect_control(on, until, Message::Ping, text),
            Expectation::Pong(text) => self.expect_control(on, until, Message::Pong, text),
            Expectation::Close { code, reason } => {
                let reason = reason.as_deref().map(|reason| self.text(reason)).transpose()?;
                let words = reason.as_deref().map_or(String::new(), |reason| format!(" {reason}"));
                let expected = format!("a close frame {code}{words}");
                match self.data_frame(on, until, &expected)? {
                    Message::Close(found, text)
                        if found == *code && reason.is_none_or(|reason| reason == text) =>
                    {
                        Ok(())
                    }
                    other => Err(mismatch(expected, &other)),
                }
            }
            Expectation::Closed => match self.existing(on)?.ends(until) {
                true => Ok(()),
                false => Err(Fault::Missing {
                    expected: "the connection to end".to_owned(),
                    why: "it goes on".to_owned(),
                }),
            },
            Expectation::Nothing(time) => self.expect_nothing(on, *time),
        }
    }

    /// The next message that is no ping or pong.
    fn data_frame(&mut self, on: &str, until: Instant, what: &str) -> Result<Message, Fault> {
        let connection = self.existing(on)?;
        loop {
            match connection.message(until) {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return Ok(message),
                Err(error) => return Err(missing(what.to_owned(), &error)),
            }
        }
    }

    fn expect_control(
        &mut self,
        on: &str,
        until: Instant,
        make: fn(Vec<u8>) -> Message,
        text: &str,
    ) -> Result<(), Fault> {
        let wanted = make(self.text(text)?.into_bytes());
        let expected = printed(&wanted);
        match self.existing(on)?.message(until) {
            Ok(message) if message == wanted => Ok(()),
            Ok(other) => Err(mismatch(expected, &other)),
            Err(error) => Err(missing(expected, &error)),
        }
    }

    fn expect_event(
        &mut self,
        on: &str,
        name: &str,
        body: &str,
        until: Instant,
    ) -> Result<(), Fault> {
        let pattern = Pattern::of_text(&event_text(body), &self.scope)?;
        let expected = format!("the event {body}");
        if self.existing(on)?.text.is_empty() {
            match self.data_frame(on, until, &expected)? {
                Message::Text(text) => self.existing(on)?.text = text,
                other => return Err(mismatch(expected, &other)),
            }
        }
        let text = self.existing(on)?.text.clone();
        let Some((length, captures)) = pattern.match_start(&text) else {
            return Err(Fault::Mismatch { expected: pattern.to_string(), received: short(&text) });
        };
        self.keep_event(captures, name)?;
        self.existing(on)?.text = text[length..].to_owned();
        Ok(())
    }

    /// Keeps the `mid` of an event under `name` and checks its `id` (Q-123).
    fn keep_event(&mut self, captures: Captures, name: &str) -> Result<(), Fault> {
        let mut id = String::new();
        for (found, value) in captures {
            match found.as_str() {
                "event-id" => id = value,
                "event-mid" if name == "-" => self.scope.capture("-", &value),
                "event-mid" => self.scope.capture(name, &value),
                other => self.scope.capture(other, &value),
            }
        }
        let expected = self.scope.value(&format!("seq {name}"))?;
        if id == expected {
            return Ok(());
        }
        Err(Fault::Mismatch { expected: format!("the id {expected} of its mid"), received: id })
    }

    /// Batches of protobuf in a row are one batch, so it does not matter how frames cut them.
    fn expect_binary(&mut self, on: &str, written: &str, until: Instant) -> Result<(), Fault> {
        let pattern = Pattern::of_hex(written, &self.scope)?;
        let expected = format!("the bytes {}", short(&pattern.to_string()));
        while self.existing(on)?.binary.len() < pattern.hex_digits() {
            match self.data_frame(on, until, &expected)? {
                Message::Binary(bytes) => {
                    let digits = vestnik_core::receiver::hex(&bytes);
                    self.existing(on)?.binary.push_str(&digits);
                }
                other => return Err(mismatch(expected, &other)),
            }
        }
        let received = self.existing(on)?.binary.clone();
        let Some((length, captures)) = pattern.match_start(&received) else {
            return Err(Fault::Mismatch { expected, received: short(&received) });
        };
        self.existing(on)?.binary = received[length..].to_owned();
        captures.iter().for_each(|(name, value)| self.scope.capture(name, value));
        Ok(())
    }

    fn expect_nothing(&mut self, on: &str, time: Duration) -> Result<(), Fault> {
        let until = Instant::now() + time;
        let expected = format!("nothing for {time:?}");
        let connection = self.existing(on)?;
        if !connection.text.is_empty() || !connection.binary.is_empty() {
            let received = short(&format!("{}{}", connection.text, connection.binary));
            return Err(Fault::Mismatch { expected, received });
        }
        if !connection.is_websocket() {
            return match connection.brings_bytes(until) {
                false => Ok(()),
                true => Err(match connection.answer(until.max(Instant::now() + time)) {
                    Ok(answer) => Fault::Mismatch { expected, received: shown(&answer) },
                    Err(error) => missing(expected, &error),
                }),
            };
        }
        loop {
            match connection.message(until) {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(other) => return Err(mismatch(expected, &other)),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
                Err(error) => return Err(missing(expected, &error)),
            }
        }
    }

    fn matched(&mut self, pattern: &Pattern, text: &str, expected: &str) -> Result<(), Fault> {
        let captures = pattern.match_all(text).ok_or_else(|| Fault::Mismatch {
            expected: expected.to_owned(),
            received: short(text),
        })?;
        captures.iter().for_each(|(name, value)| self.scope.capture(name, value));
        Ok(())
    }

    fn check_answer(&mut self, expected: &Answer, answer: &Received) -> Result<(), Fault> {
        if answer.status != expected.status {
            let expected = format!("status {}", expected.status);
            return Err(Fault::Mismatch { expected, received: shown(answer) });
        }
        let mut named = Vec::new();
        for header in &expected.headers {
            let (name, value) = header.split_once(':').unwrap_or((header, ""));
            named.push(name.to_ascii_lowercase());
            let pattern = Pattern::of_text(value.trim(), &self.scope)?;
            let what = format!("the header {name}: {pattern}");
            match answer.header(name) {
                Some(found) => self.matched(&pattern, found, &what)?,
                None => {
                    return Err(Fault::Mismatch { expected: what, received: shown(answer) });
                }
            }
        }
        let unwanted = answer.headers.iter().find(|(name, _)| {
            let name = name.to_ascii_lowercase();
            let is_surplus = expected.exact
                && !named.contains(&name)
                && !PLATFORM_HEADERS.contains(&name.as_str());
            is_surplus || expected.absent.iter().any(|absent| absent.eq_ignore_ascii_case(&name))
        });
        if let Some((name, value)) = unwanted {
            let expected = format!("no header {name}");
            return Err(Fault::Mismatch { expected, received: format!("{name}: {value}") });
        }
        self.check_body(&expected.body, &answer.body)
    }

    fn check_body(&mut self, expected: &ExpectedBody, body: &[u8]) -> Result<(), Fault> {
        let text = String::from_utf8_lossy(body);
        let wrong = |expected: String| Fault::Mismatch {
            expected: format!("the body {expected}"),
            received: short(&text),
        };
        match expected {
            ExpectedBody::Any => Ok(()),
            ExpectedBody::Text(written) => {
                let pattern = Pattern::of_text(written, &self.scope)?;
                self.matched(&pattern, &text, &format!("the body `{pattern}`"))
            }
            ExpectedBody::Hex(written) => {
                let pattern = Pattern::of_hex(written, &self.scope)?;
                let digits = vestnik_core::receiver::hex(body);
                self.matched(&pattern, &digits, &format!("the bytes {pattern}"))
            }
            ExpectedBody::Json(written) => {
                let wanted = self.text(written)?;
                let wanted: serde_json::Value = serde_json::from_str(&wanted)
                    .map_err(|error| Fault::Fixture(format!("no JSON: {error}")))?;
                let found: Option<serde_json::Value> = serde_json::from_slice(body).ok();
                match found.as_ref() == Some(&wanted) {
                    true => Ok(()),
                    false => Err(wrong(wanted.to_string())),
                }
            }
            ExpectedBody::Contains(written) => {
                let part = self.text(written)?;
                match text.contains(&part) {
                    true => Ok(()),
                    false => Err(wrong(format!("with {part}"))),
                }
            }
            ExpectedBody::Events(events) => {
                let mut rest: &str = &text;
                for (name, body) in events {
                    let pattern = Pattern::of_text(&event_text(body), &self.scope)?;
                    let (length, captures) =
                        pattern.match_start(rest).ok_or_else(|| wrong(pattern.to_string()))?;
                    self.keep_event(captures, name)?;
                    rest = &rest[length..];
                }
                match rest.is_empty() {
                    true => Ok(()),
                    false => Err(wrong(format!("to end before {}", short(rest)))),
                }
            }
        }
    }
}

/// An event of framed text with `body` (queue-server.md §7.2).
fn event_text(body: &str) -> String {
    format!(
        r##"#!NGINXNMS!#{{"id":{{event-id=number}},"mid":"{{event-mid=mid}}","channel":"-","tag":"{{=tag}}","time":"{{=date}}","text":{body}}}#!NGINXNME!#"##
    )
}

/// Whether a request line goes to the publishing side of a split installation.
fn is_publish_side(line: &str) -> bool {
    let target = line.split(' ').nth(1).unwrap_or_default();
    let path = target.strip_prefix("/bitrix").unwrap_or(target);
    ["/pub", "/rest", "/server-stat"].iter().any(|route| path.starts_with(route))
}

fn unsent(error: io::Error) -> Fault {
    Fault::Unsent(error.to_string())
}

fn missing(expected: String, error: &io::Error) -> Fault {
    let why = match error.kind() {
        io::ErrorKind::TimedOut => "nothing came in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection ended".to_owned(),
        _ => error.to_string(),
    };
    Fault::Missing { expected, why }
}

fn mismatch(expected: String, received: &Message) -> Fault {
    Fault::Mismatch { expected, received: printed(received) }
}

fn printed(message: &Message) -> String {
    let text = |bytes: &[u8]| short(&String::from_utf8_lossy(bytes));
    match message {
        Message::Text(text) => format!("a text frame {}", short(text)),
        Message::Binary(bytes) => {
            format!("a binary frame {}", short(&vestnik_core::receiver::hex(bytes)))
        }
        Message::Ping(payload) => format!("a ping {}", text(payload)),
        Message::Pong(payload) => format!("a pong {}", text(payload)),
        Message::Close(code, reason) => format!("a close frame {code} {reason}"),
    }
}

fn shown(answer: &Received) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    format!("status {} with body `{}`", answer.status, short(&body))
}

/// As much of a text as a report has room for, on one line.
fn short(text: &str) -> String {
    const LETTERS_MAX: usize = 300;
    let mut out: String =
        text.chars().take(LETTERS_MAX).map(|c| if c.is_control() { '.' } else { c }).collect();
    if text.chars().nth(LETTERS_MAX).is_some() {
        out.push('…');
    }
    out
}
