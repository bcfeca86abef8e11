//! The fixture language: text to fixtures and their steps (docs/conformance.md).
//!
//! Knows how steps are written, nothing of how they are carried out; placeholders stay text here.

use std::time::Duration;

/// One story with the promises it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fixture {
    /// Name of the file, for messages.
    pub(crate) file: String,
    /// Ids of the promises, such as `Q-034`; and names of quirks, such as `quirks/ping_payload`.
    pub(crate) items: Vec<String>,
    /// What is promised, in words.
    pub(crate) title: String,
    /// Where the bytes come from: `observed: …` or `decided: …`.
    pub(crate) origin: String,
    /// Whom it holds for; nobody named means everybody.
    pub(crate) only: Option<Profile>,
    pub(crate) steps: Vec<Step>,
}

/// Whose behaviour is expected where vestnik improves on the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// The Push server that vestnik replaces.
    Original,
    /// vestnik, and whatever else improves on the original in the same way.
    Vestnik,
}

/// One step with its line in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) action: Action,
}

/// What a step does. `on` is the name of a connection; the unnamed one is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sends an HTTP request.
    Request { on: String, request: Request },
    /// Sends bytes as they are.
    Bytes { on: String, hex: String },
    /// Opens a WebSocket on a connection of its own and expects that it is accepted.
    Connect { on: String, target: String },
    /// Sends one masked frame.
    Frame { on: String, frame: Frame },
    /// Publishes a text and expects 200.
    Publish { expiry: String, channels: String, body: String },
    /// Closes the connection without a word.
    Close { on: String },
    /// Says that nothing more will be sent.
    HalfClose { on: String },
    /// Lets time pass.
    Wait(Duration),
    /// Asks until the channels are, or are not, online.
    Presence { channels: String, is_online: bool },
    /// Compares two values.
    Compare { left: String, order: Order, right: String },
    /// Expects something.
    Expect { on: String, expectation: Expectation },
}

/// An HTTP request; `Host` and `Content-Length` are added when it is sent, unless they are there.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Request {
    /// `GET /path HTTP/1.1`.
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Option<Payload>,
}

/// Bytes as they are written in a fixture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Text with placeholders.
    Text(String),
    /// Hex with placeholders, strings and lengths.
    Hex(String),
}

/// A frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(String),
    Ping(String),
    Pong(String),
    Close { code: u16, reason: String },
}

/// How two values relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    Less,
}

/// What a connection is to bring next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// An HTTP answer.
    Answer(Answer),
    /// One event of framed text; the `mid` is kept under `name`, unless it is `-`.
    Event {
        name: String,
        body: String,
    },
    /// A text frame.
    Text(String),
    /// Protobuf bytes, in one binary frame or in several.
    Binary(String),
    Ping(String),
    Pong(String),
    /// A close frame.
    Close {
        code: u16,
        reason: Option<String>,
    },
    /// The end of the connection, with whatever came before it skipped.
    Closed,
    /// Nothing but pings for this long.
    Nothing(Duration),
}

/// An expected answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Whether these are all of its headers, besides those of the platform.
    pub(crate) exact: bool,
    /// `name: value` with placeholders.
    pub(crate) headers: Vec<String>,
    /// Names that must not be there.
    pub(crate) absent: Vec<String>,
    pub(crate) body: ExpectedBody,
}

/// An expected body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedBody {
    /// Not looked at.
    Any,
    /// Exactly this text.
    Text(String),
    /// These bytes.
    Hex(String),
    /// This JSON value, however it is written.
    Json(String),
    /// Somewhere in it.
    Contains(String),
    /// These events of framed text in this order and nothing else: name and body of each.
    Events(Vec<(String, String)>),
}

/// A line that says nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file}:{line}: {what}")]
pub(crate) struct SyntaxError {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Waits that add up to more than this make a fixture slow.
const SLOW: Duration = Duration::from_secs(4);

impl Fixture {
    /// Whether it waits long, as time-outs of the original demand.
    pub(crate) fn is_slow(&self) -> bool {
        let waits = self.steps.iter().map(|step| match &step.action {
            Action::Wait(time) => *time,
            Action::Expect { expectation: Expectation::Nothing(time), .. } => *time,
            _ => Duration::ZERO,
        });
        waits.sum::<Duration>() > SLOW
    }
}

/// Reads a duration such as `40s` or `300ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s').and_then(|n| n.parse().ok()).map(Duration::from_secs),
    };
    parsed.ok_or_else(|| format!("`{text}` is no duration such as 40s or 300ms"))
}

/// Reads a file with fixtures.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Fixture>, SyntaxError> {
    let mut reader = Reader { fixtures: Vec::new(), open: Open::Nothing };
    for (index, line) in text.lines().enumerate() {
        reader.line(file, index + 1, line.trim_end()).map_err(|what| SyntaxError {
            file: file.to_owned(),
            line: index + 1,
            what,
        })?;
    }
    Ok(reader.fixtures)
}

/// What the next line may add to.
#[derive(Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    /// A request or an answer of this connection; `in_body`: its empty line was there.
    Head {
        mark: String,
        in_body: bool,
    },
}

struct Reader {
    fixtures: Vec<Fixture>,
    open: Open,
}

impl Reader {
    fn line(&mut self, file: &str, number: usize, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            self.open = Open::Nothing;
            if let Some(fixture) = head(file, line)? {
                self.fixtures.push(fixture);
            }
            return Ok(());
        }
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Open::Head { mark: open, in_body } = &self.open
            && open == mark
            && self.continues(*in_body, rest)?
        {
            return Ok(());
        }
        self.open = Open::Nothing;
        let action = action(mark, rest)?;
        if matches!(
            action,
            Action::Request { .. } | Action::Expect { expectation: Expectation::Answer(_), .. }
        ) {
            self.open = Open::Head { mark: mark.to_owned(), in_body: false };
        }
        let fixture = self.fixtures.last_mut().ok_or("a step before the first head line")?;
        fixture.steps.push(Step { line: number, action });
        Ok(())
    }

    /// Adds a line to the request or answer that is open; false if it begins something new.
    fn continues(&mut self, in_body: bool, rest: &str) -> Result<bool, String> {
        let Some(step) = self.fixtures.last_mut().and_then(|fixture| fixture.steps.last_mut())
        else {
            return Ok(false);
        };
        match &mut step.action {
            Action::Request { .. } if is_request_line(rest) => return Ok(false),
            Action::Expect { .. } if begins_expectation(rest) => return Ok(false),
            Action::Request { request, .. } if in_body => add_body(&mut request.body, rest),
            Action::Request { .. } if rest.is_empty() => {}
            Action::Request { request, .. } => {
                if !is_header(rest) {
                    return Ok(false);
                }
                request.headers.push(rest.to_owned());
            }
            Action::Expect { expectation: Expectation::Answer(answer), .. } if in_body => {
                expect_body(&mut answer.body, rest)?;
            }
            Action::Expect { expectation: Expectation::Answer(answer), .. } if rest.is_empty() => {
                answer.body = ExpectedBody::Text(String::new());
            }
            Action::Expect { expectation: Expectation::Answer(answer), .. } => {
                match rest.strip_prefix('!') {
                    Some(name) => answer.absent.push(name.trim().to_owned()),
                    None if is_header(rest) => answer.headers.push(rest.to_owned()),
                    None => return Ok(false),
                }
            }
            _ => return Ok(false),
        }
        if rest.is_empty()
            && let Open::Head { in_body, .. } = &mut self.open
        {
            *in_body = true;
        }
        Ok(true)
    }
}

fn is_header(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

fn is_request_line(line: &str) -> bool {
    line.rsplit_once(" HTTP/1.").is_some_and(|(rest, _)| {
        let method = rest.split(' ').next().unwrap_or_default();
        !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase())
    })
}

/// Whether a line expects something of its own, so that a body ends before it.
fn begins_expectation(line: &str) -> bool {
    is_status_line(line)
        || line == "closed"
        || ["nothing for ", "ws "].iter().any(|start| line.starts_with(start))
}

fn is_status_line(line: &str) -> bool {
    line.strip_prefix("exactly ").unwrap_or(line).starts_with("HTTP/1.")
}

/// The head line `# ITEMS — title — origin [profile]`; None for a comment.
fn head(file: &str, line: &str) -> Result<Option<Fixture>, String> {
    let Some(text) = line.strip_prefix("# ") else { return Ok(None) };
    let mut parts = text.split(" — ");
    let items: Vec<String> =
        parts.next().unwrap_or_default().split(' ').map(str::to_owned).collect();
    if !items.iter().all(|item| is_item(item)) {
        return Ok(None);
    }
    let rest: Vec<&str> = parts.collect();
    let (title, origin) = match rest[..] {
        [title, origin] => (title.to_owned(), origin),
        [origin] => (items.join(" "), origin),
        _ => return Err("a head line is `# ITEMS — title — origin`".to_owned()),
    };
    let (origin, only) = match origin.split_once(" [") {
        None => (origin, None),
        Some((origin, "vestnik]")) => (origin, Some(Profile::Vestnik)),
        Some((origin, "original]")) => (origin, Some(Profile::Original)),
        Some((_, other)) => return Err(format!("`[{other}` is no profile")),
    };
    if !["observed: ", "decided: "].iter().any(|kind| origin.starts_with(kind)) {
        return Err("an origin begins with `observed: ` or `decided: `".to_owned());
    }
    let (file, origin) = (file.to_owned(), origin.to_owned());
    Ok(Some(Fixture { file, items, title, origin, only, steps: Vec::new() }))
}

fn is_item(word: &str) -> bool {
    word.starts_with("quirks/")
        || word.split_once('-').is_some_and(|(letter, digits)| {
            letter.len() == 1
                && letter.bytes().all(|byte| byte.is_ascii_uppercase())
                && digits.len() == 3
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

fn action(mark: &str, rest: &str) -> Result<Action, String> {
    match mark {
        "@" => return passing(rest),
        "?" => return comparison(rest),
        _ => {}
    }
    let (on, direction) = mark.split_at(mark.len().saturating_sub(1));
    if !on.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
        return Err(format!("`{mark}` begins no step"));
    }
    let on = on.to_owned();
    match direction {
        ">" => sending(on, rest),
        "<" => Ok(Action::Expect { on, expectation: expectation(rest)? }),
        _ => Err(format!("`{mark}` begins no step")),
    }
}

fn passing(rest: &str) -> Result<Action, String> {
    match rest.split_once(' ') {
        Some(("online", channels)) => {
            Ok(Action::Presence { channels: channels.to_owned(), is_online: true })
        }
        Some(("offline", channels)) => {
            Ok(Action::Presence { channels: channels.to_owned(), is_online: false })
        }
        _ => duration(rest).map(Action::Wait),
    }
}

fn comparison(rest: &str) -> Result<Action, String> {
    let (left, order, right) = if let Some((left, right)) = rest.split_once(" = ") {
        (left, Order::Equal, right)
    } else if let Some((left, right)) = rest.split_once(" < ") {
        (left, Order::Less, right)
    } else {
        return Err("a comparison is `? left = right` or `? left < right`".to_owned());
    };
    Ok(Action::Compare { left: left.to_owned(), order, right: right.to_owned() })
}

fn sending(on: String, rest: &str) -> Result<Action, String> {
    if is_request_line(rest) {
        let request = Request { line: rest.to_owned(), ..Request::default() };
        return Ok(Action::Request { on, request });
    }
    let (verb, value) = rest.split_once(' ').unwrap_or((rest, ""));
    let value = value.to_owned();
    match verb {
        "hex" => Ok(Action::Bytes { on, hex: value }),
        "close" => Ok(Action::Close { on }),
        "half-close" => Ok(Action::HalfClose { on }),
        "publish" => {
            let (expiry, rest) = split_word(&value);
            let (channels, body) = split_word(rest);
            if channels.is_empty() {
                return Err("a publish is `publish EXPIRY CHANNELS BODY`".to_owned());
            }
            let (expiry, channels, body) =
                (expiry.to_owned(), channels.to_owned(), body.to_owned());
            Ok(Action::Publish { expiry, channels, body })
        }
        "ws" => {
            let (kind, value) = value.split_once(' ').unwrap_or((&value, ""));
            let value = value.to_owned();
            let frame = match kind {
                "connect" => return Ok(Action::Connect { on, target: value }),
                "text" => Frame::Text(value),
                "binary" => Frame::Binary(value),
                "ping" => Frame::Ping(value),
                "pong" => Frame::Pong(value),
                "close" => {
                    let (code, reason) = close(&value)?;
                    Frame::Close { code, reason: reason.unwrap_or_default() }
                }
                _ => return Err(format!("`ws {kind}` is nothing to send")),
            };
            Ok(Action::Frame { on, frame })
        }
        _ => Err(format!("`{rest}` is nothing to send")),
    }
}

/// The text up to the first space outside of placeholders, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let mut inside = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => inside = true,
            '}' => inside = false,
            ' ' if !inside => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn expectation(rest: &str) -> Result<Expectation, String> {
    if is_status_line(rest) {
        let (exact, line) = match rest.strip_prefix("exactly ") {
            Some(line) => (true, line),
            None => (false, rest),
        };
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or("a status line is `HTTP/1.1 200 OK`")?;
        let (headers, absent) = (Vec::new(), Vec::new());
        let body = ExpectedBody::Any;
        return Ok(Expectation::Answer(Answer { status, exact, headers, absent, body }));
    }
    if let Some(time) = rest.strip_prefix("nothing for ") {
        return duration(time).map(Expectation::Nothing);
    }
    if rest == "closed" {
        return Ok(Expectation::Closed);
    }
    let unknown = || format!("`{rest}` is nothing to expect");
    let (kind, value) = rest.strip_prefix("ws ").ok_or_else(unknown).map(|rest| {
        let (kind, value) = rest.split_once(' ').unwrap_or((rest, ""));
        (kind, value.to_owned())
    })?;
    match kind {
        "event" => event(&value).map(|(name, body)| Expectation::Event { name, body }),
        "text" => Ok(Expectation::Text(value)),
        "binary" => Ok(Expectation::Binary(value)),
        "ping" => Ok(Expectation::Ping(value)),
        "pong" => Ok(Expectation::Pong(value)),
        "close" => close(&value).map(|(code, reason)| Expectation::Close { code, reason }),
        _ => Err(unknown()),
    }
}

fn close(value: &str) -> Result<(u16, Option<String>), String> {
    let (code, reason) = match value.split_once(' ') {
        Some((code, reason)) => (code, Some(reason.to_owned())),
        None => (value, None),
    };
    Ok((code.parse().map_err(|_| format!("`{code}` is no close code"))?, reason))
}

fn event(value: &str) -> Result<(String, String), String> {
    value
        .split_once(' ')
        .map(|(name, body)| (name.to_owned(), body.to_owned()))
        .ok_or_else(|| "an event is `event NAME BODY`".to_owned())
}

fn add_body(body: &mut Option<Payload>, line: &str) {
    match body {
        None => {
            *body = Some(match line.strip_prefix("hex ") {
                Some(hex) => Payload::Hex(hex.to_owned()),
                None => Payload::Text(line.to_owned()),
            });
        }
        Some(Payload::Text(text)) => {
            text.push('\n');
            text.push_str(line);
        }
        Some(Payload::Hex(hex)) => {
            hex.push('\n');
            hex.push_str(line.strip_prefix("hex ").unwrap_or(line));
        }
    }
}

fn expect_body(body: &mut ExpectedBody, line: &str) -> Result<(), String> {
    match body {
        ExpectedBody::Any => return Err("a body before its empty line".to_owned()),
        ExpectedBody::Text(text) if text.is_empty() => {
            *body = match line.split_once(' ') {
                Some(("hex", hex)) => ExpectedBody::Hex(hex.to_owned()),
                Some(("json", json)) => ExpectedBody::Json(json.to_owned()),
                Some(("contains", part)) => ExpectedBody::Contains(part.to_owned()),
                Some(("event", value)) => ExpectedBody::Events(vec![event(value)?]),
                _ => ExpectedBody::Text(line.to_owned()),
            };
        }
        ExpectedBody::Text(text) | ExpectedBody::Json(text) | ExpectedBody::Contains(text) => {
            text.push('\n');
            text.push_str(line);
        }
        ExpectedBody::Hex(hex) => {
            hex.push('\n');
            hex.push_str(line.strip_prefix("hex ").unwrap_or(line));
        }
        ExpectedBody::Events(events) => {
            let value = line.strip_prefix("event ").ok_or("events stand alone in a body")?;
            events.push(event(value)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = "\
# Q-034 Q-051 — a story — observed: push server 2.0; queue-server.md §4.3
# A comment.
A> ws connect /bitrix/subws/?CHANNEL_ID={signed priv1}
> POST /bitrix/pub/ HTTP/1.1
> Message-Expiry: 60
>
> {\"a\":1}
< HTTP/1.1 200 OK
< !Expires
<
A< ws event m1 {\"a\":1}
A< nothing for 300ms

# Q-171 — another — decided: queue-server.md §18 [vestnik]
@ 40s
";

    #[test]
    fn a_file_holds_stories_with_their_steps() {
        let fixtures = parse("x.fixture", STORY).unwrap();
        assert_eq!(fixtures[0].items, ["Q-034", "Q-051"]);
        assert_eq!(fixtures[0].title, "a story");
        assert_eq!(fixtures[0].steps.len(), 5);
        assert!(!fixtures[0].is_slow() && fixtures[1].is_slow());
        assert_eq!(fixtures[1].only, Some(Profile::Vestnik));
        let Action::Request { on, request } = &fixtures[0].steps[1].action else { panic!() };
        assert_eq!((on.as_str(), request.headers.len()), ("", 1));
        assert_eq!(request.body, Some(Payload::Text("{\"a\":1}".into())));
        let Action::Expect { expectation: Expectation::Answer(answer), .. } =
            &fixtures[0].steps[2].action
        else {
            panic!()
        };
        assert_eq!((answer.status, answer.absent.len()), (200, 1));
        assert_eq!(answer.body, ExpectedBody::Text(String::new()));
    }

    #[test]
    fn requests_in_a_row_are_pipelined() {
        let text = "# Q-027 — t — observed: x\n> GET /a HTTP/1.1\n> GET /b HTTP/1.1\n";
        assert_eq!(parse("x", text).unwrap()[0].steps.len(), 2);
    }

    #[test]
    fn what_is_no_step_is_told_with_its_line() {
        for (step, what) in [
            ("A> dance", "nothing to send"),
            ("A< dance", "nothing to expect"),
            ("@ soon", "no duration"),
            ("? 1 + 1", "a comparison is"),
            ("a> close", "begins no step"),
            ("A< ws close x", "no close code"),
        ] {
            let text = format!("# Q-001 — t — observed: x\n\n{step}\n");
            let error = parse("x.fixture", &text).unwrap_err();
            assert_eq!(error.line, 3);
            assert!(error.to_string().contains(what), "{error}");
        }
        assert!(parse("x", "> close").unwrap_err().what.contains("before the first head"));
        assert!(parse("x", "# Q-001 — t — heard: x").unwrap_err().what.contains("origin"));
    }
}
