//! Tries the configured addresses as clients and the site checker do (S-63, module.md §15): publish, long
//! poll, WebSocket, replay, publishing of clients; with the signatures of the options. Step by step, and
//! each says what failed and what would mend it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use vestnik_core::ChannelId;
use vestnik_core::date;
use vestnik_publisher::{CallError, Caller, Reply};
use vestnik_service::channel::FreeChannel;
use vestnik_service::option::{Generation, Key, Options};
use vestnik_service::rest::TriedAddress;

/// How long each step may take.
const WITHIN: Duration = Duration::from_secs(5);
const MESSAGE_EXPIRY: HeaderName = HeaderName::from_static("message-expiry");
/// Clocks that differ by more make tokens and channels expire at the wrong moment, seconds.
const SKEW_S: i64 = 60;

/// What a step tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Try {
    Key,
    Publish,
    JsonRpc,
    Clock,
    Poll,
    PollSecure,
    WebSocket,
    WebSocketSecure,
    Replay,
    ClientPublish,
    ClientPublishSecure,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Waiting,
    Running,
    Good,
    Warning,
    Bad,
    Skipped,
}

/// What would mend a step that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Make a key.
    MakeKey,
    /// The two sides have different keys.
    SameKey,
    /// Correct the address.
    Address,
    /// The name of the host.
    Name,
    /// Nobody listens there.
    Listen,
    /// The certificate.
    Certificate,
    /// This machine may not publish.
    Trust,
    /// The path is not forwarded.
    Forward,
    /// The upgrade is not forwarded.
    Upgrade,
    /// Answers are held back.
    Buffering,
    /// Set the clock.
    Clock,
    /// What was published was not kept.
    History,
    /// A step before has to work first.
    Before,
}

impl Remedy {
    /// Its name for programs.
    const fn name(self) -> &'static str {
        match self {
            Self::MakeKey => "make_key",
            Self::SameKey => "same_key",
            Self::Address => "address",
            Self::Name => "name",
            Self::Listen => "listen",
            Self::Certificate => "certificate",
            Self::Trust => "trust",
            Self::Forward => "forward",
            Self::Upgrade => "upgrade",
            Self::Buffering => "buffering",
            Self::Clock => "clock",
            Self::History => "history",
            Self::Before => "before",
        }
    }

    /// The line for a configuration that mends it; the same in every language.
    pub(crate) const fn line(self) -> &'static str {
        match self {
            Self::SameKey => "security.key = \"…\"",
            Self::Trust => "trusted.allow = [\"127.0.0.0/8\", \"<address of the site>\"]",
            Self::Forward => {
                "location ~ ^/bitrix/(sub|subws|pubweb|rest|api)/ { proxy_pass http://127.0.0.1:8895; }"
            }
            Self::Upgrade => {
                "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";"
            }
            Self::Buffering => "proxy_buffering off; proxy_read_timeout 120s;",
            Self::Listen => "server.listen = [\"0.0.0.0:8895\"]",
            Self::MakeKey
            | Self::Address
            | Self::Name
            | Self::Certificate
            | Self::Clock
            | Self::History
            | Self::Before => "",
        }
    }
}

impl Outcome {
    /// Its name for programs.
    const fn name(self) -> &'static str {
        match self {
            Self::Waiting | Self::Running | Self::Skipped => "skipped",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) tries: Try,
    pub(crate) address: String,
    pub(crate) outcome: Outcome,
    /// What was seen.
    pub(crate) detail: String,
    pub(crate) remedy: Option<Remedy>,
    pub(crate) milliseconds: u64,
}

/// A check that is being made, or has been.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) steps: Vec<Step>,
    pub(crate) is_done: bool,
}

/// Shared with whoever watches.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Mutex<Progress>>);

impl Watched {
    pub(crate) fn look(&self) -> Progress {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What went wrong in a step.
struct Failure {
    outcome: Outcome,
    detail: String,
    remedy: Remedy,
}

type Seen = Result<String, Failure>;

fn bad(detail: impl Into<String>, remedy: Remedy) -> Failure {
    Failure { outcome: Outcome::Bad, detail: detail.into(), remedy }
}

fn warning(detail: impl Into<String>, remedy: Remedy) -> Failure {
    Failure { outcome: Outcome::Warning, detail: detail.into(), remedy }
}

/// A check of one tenant's options.
pub(crate) struct Check {
    caller: Caller,
    options: Arc<Options>,
    host_id: String,
    domain: String,
    now_s: i64,
    channel: FreeChannel,
    watched: Watched,
    /// Id of the message that a poll has brought.
    mid: Option<String>,
    /// The time the server says it is, unix seconds.
    server_time_s: Option<i64>,
}

impl Check {
    /// A check with all its steps waiting. `domain` stands for `#DOMAIN#`.
    pub(crate) fn new(
        options: Arc<Options>,
        host_id: &str,
        domain: String,
        channel: FreeChannel,
    ) -> Result<(Self, Watched), String> {
        let caller = Caller::new(WITHIN).map_err(|error| error.to_string())?;
        let address = |key: Option<Key>| match key {
            Some(key) => options.address(key, &domain),
            None => String::new(),
        };
        let steps = steps(&options).into_iter().map(|tries| Step {
            tries,
            address: address(tries.key()),
            outcome: Outcome::Waiting,
            detail: String::new(),
            remedy: None,
            milliseconds: 0,
        });
        let progress = Progress { steps: steps.collect(), is_done: false };
        let watched = Watched(Arc::new(Mutex::new(progress)));
        let check = Self {
            caller,
            host_id: host_id.to_owned(),
            domain,
            now_s: i64::try_from(channel.created_s).unwrap_or(i64::MAX),
            channel,
            watched: watched.clone(),
            mid: None,
            server_time_s: None,
            options,
        };
        Ok((check, watched))
    }

    /// Makes it and says how each step went.
    pub(crate) async fn tried(self) -> Vec<TriedAddress> {
        let watched = self.watched.clone();
        self.run().await;
        let steps = watched.look().steps.into_iter().map(|step| TriedAddress {
            step: step.tries.name(),
            address: step.address,
            outcome: step.outcome.name(),
            detail: step.detail,
            remedy: step.remedy.map(Remedy::name),
            line: step.remedy.map_or("", Remedy::line),
            milliseconds: step.milliseconds,
        });
        steps.collect()
    }

    /// Makes it.
    pub(crate) async fn run(mut self) {
        let count = self.watched.locked().steps.len();
        for index in 0..count {
            let tries = {
                let mut progress = self.watched.locked();
                progress.steps[index].outcome = Outcome::Running;
                progress.steps[index].tries
            };
            let began = Instant::now();
            let seen = self.step(tries).await;
            let mut progress = self.watched.locked();
            let step = &mut progress.steps[index];
            step.milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            match seen {
                Ok(detail) => {
                    step.outcome = Outcome::Good;
                    step.detail = detail;
                }
                Err(failure) => {
                    step.outcome = failure.outcome;
                    step.detail = failure.detail;
                    step.remedy = Some(failure.remedy);
                }
            }
        }
        self.watched.locked().is_done = true;
    }

    async fn step(&mut self, tries: Try) -> Seen {
        match tries {
            Try::Key => self.key(),
            Try::Publish => {
                let reply = self.publish(&random_text(self.channel.id, "publish")).await?;
                self.server_time_s = date_of(&reply);
                Ok(format!("HTTP {}", reply.status.as_u16()))
            }
            Try::JsonRpc => self.json_rpc().await,
            Try::Clock => self.clock(),
            Try::Poll | Try::PollSecure => self.poll(tries).await,
            Try::WebSocket | Try::WebSocketSecure => self.websocket(tries).await,
            Try::Replay => self.replay().await,
            Try::ClientPublish | Try::ClientPublishSecure => self.client_publish(tries).await,
        }
    }

    fn address(&self, key: Key) -> String {
        self.options.address(key, &self.domain)
    }

    fn key(&self) -> Seen {
        if self.options.signing_key().is_some() {
            return Ok(self.options.text(Key::SignatureAlgo).to_owned());
        }
        if self.options.generation().has_public_channels() {
            return Err(bad(String::new(), Remedy::MakeKey));
        }
        Ok(String::new())
    }

    /// Publishes as the site does.
    async fn publish(&self, text: &str) -> Result<Reply, Failure> {
        let address =
            format!("{}?CHANNEL_ID={}", self.address(Key::PathToPublish), self.channel.id);
        let headers = [(MESSAGE_EXPIRY, HeaderValue::from_static("60"))];
        let body = Bytes::from(text.to_owned());
        let reply = self.caller.send(Method::POST, &address, &headers, body).await;
        let reply = reply.map_err(|error| explain(&error))?;
        judge(&reply)?;
        Ok(reply)
    }

    async fn json_rpc(&self) -> Seen {
        let Some(key) = self.options.signing_key() else {
            return Err(bad(String::new(), Remedy::MakeKey));
        };
        let body = r#"{"jsonrpc":"2.0","method":"getUsersLastSeen","params":{"userList":[1]},"id":"check"}"#;
        let address = format!(
            "{}?hostId={}&signature={}",
            self.address(Key::PathToJsonRpc),
            self.host_id,
            key.sign(&[body.as_bytes()])
        );
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let reply = self.caller.send(Method::POST, &address, &json, Bytes::from(body)).await;
        let reply = reply.map_err(|error| explain(&error))?;
        judge(&reply)?;
        let text = String::from_utf8_lossy(&reply.body);
        let answer: Option<serde_json::Value> = serde_json::from_slice(&reply.body).ok();
        if answer.is_some_and(|answer| answer.get("result").is_some()) {
            return Ok(format!("HTTP {}", reply.status.as_u16()));
        }
        Err(bad(shortened(&text), Remedy::Forward))
    }

    fn clock(&self) -> Seen {
        let Some(time) = self.server_time_s else {
            return Err(Failure {
                outcome: Outcome::Skipped,
                detail: String::new(),
                remedy: Remedy::Before,
            });
        };
        let skew = time - self.now_s;
        if skew.abs() > SKEW_S {
            return Err(warning(format!("{skew:+} s"), Remedy::Clock));
        }
        Ok(format!("{skew:+} s"))
    }

    fn signed(&self) -> String {
        self.options.sign_channel(self.channel.id)
    }

    /// Publishes until the listener has heard it: it may not be there yet the first time.
    async fn publish_while(&self, text: &str) -> Result<(), Failure> {
        for pause in [300, 1200, 2000] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.publish(text).await?;
        }
        // Who listens has the rest of its time.
        std::future::pending().await
    }

    async fn poll(&mut self, tries: Try) -> Seen {
        let key = tries.key().unwrap_or(Key::PathToModernListener);
        let text = random_text(self.channel.id, tries.name());
        let address = format!("{}?CHANNEL_ID={}", self.address(key), self.signed());
        let reply = {
            let listening = self.caller.send(Method::GET, &address, &[], Bytes::new());
            tokio::select! {
                reply = listening => reply.map_err(|error| explain(&error))?,
                published = self.publish_while(&text) => match published {
                    Ok(()) => return Err(bad(String::new(), Remedy::Before)),
                    Err(failure) => return Err(failure),
                },
            }
        };
        judge(&reply)?;
        let body = String::from_utf8_lossy(&reply.body);
        if !body.contains(&text) {
            return Err(bad(shortened(&body), Remedy::Forward));
        }
        let mid = body.split("\"mid\":\"").nth(1).and_then(|rest| rest.split('"').next());
        self.mid = mid.map(str::to_owned).or(self.mid.take());
        trusted(&reply.distrust, format!("HTTP {}", reply.status.as_u16()))
    }

    async fn websocket(&self, tries: Try) -> Seen {
        let key = tries.key().unwrap_or(Key::PathToWebsocket);
        let text = random_text(self.channel.id, tries.name());
        let address = format!("{}?CHANNEL_ID={}", self.address(key), self.signed());
        let mut opened = self.caller.open_websocket(&address).await.map_err(|error| {
            let mut failure = explain(&error);
            if matches!(&error, CallError::Answer(text) if text.starts_with("no WebSocket")) {
                failure.remedy =
                    if failure.detail.contains(" 404") { Remedy::Forward } else { Remedy::Upgrade };
            }
            failure
        })?;
        let distrust = opened.distrust.clone();
        tokio::select! {
            heard = opened.wait_for(&text) => heard.map_err(|error| explain(&error))?,
            published = self.publish_while(&text) => published?,
        }
        trusted(&distrust, "HTTP 101".to_owned())
    }

    /// What was published while nobody listened is given to who comes back.
    async fn replay(&self) -> Seen {
        let Some(mid) = &self.mid else {
            return Err(Failure {
                outcome: Outcome::Skipped,
                detail: String::new(),
                remedy: Remedy::Before,
            });
        };
        let text = random_text(self.channel.id, "replay");
        self.publish(&text).await?;
        let key = if self.is_plain_polled() {
            Key::PathToModernListener
        } else {
            Key::PathToModernListenerSecure
        };
        let address = format!("{}?CHANNEL_ID={}&mid={mid}", self.address(key), self.signed());
        let reply = self.caller.send(Method::GET, &address, &[], Bytes::new()).await;
        let reply = reply.map_err(|error| match error {
            CallError::Silence(_) => bad(error.to_string(), Remedy::History),
            other => explain(&other),
        })?;
        judge(&reply)?;
        if String::from_utf8_lossy(&reply.body).contains(&text) {
            Ok(format!("HTTP {}", reply.status.as_u16()))
        } else {
            Err(bad(shortened(&String::from_utf8_lossy(&reply.body)), Remedy::History))
        }
    }

    fn is_plain_polled(&self) -> bool {
        let progress = self.watched.locked();
        progress.steps.iter().any(|it| it.tries == Try::Poll && it.outcome == Outcome::Good)
    }

    /// A publish of no messages with a good signature is taken.
    async fn client_publish(&self, tries: Try) -> Seen {
        let key = tries.key().unwrap_or(Key::PathToPublishWeb);
        let pair = self.options.sign_pair(self.channel.id, self.channel.public_id);
        let address = format!("{}?CHANNEL_ID={pair}", self.address(key));
        // A batch with one request that holds nothing.
        let nothing = Bytes::from_static(b"\x0a\x02\x0a\x00");
        let reply = self.caller.send(Method::POST, &address, &[], nothing).await;
        let reply = reply.map_err(|error| explain(&error))?;
        judge(&reply)?;
        trusted(&reply.distrust, format!("HTTP {}", reply.status.as_u16()))
    }
}

impl Try {
    /// The option whose address it tries.
    pub(crate) const fn key(self) -> Option<Key> {
        match self {
            Self::Key | Self::Clock | Self::Replay => None,
            Self::Publish => Some(Key::PathToPublish),
            Self::JsonRpc => Some(Key::PathToJsonRpc),
            Self::Poll => Some(Key::PathToModernListener),
            Self::PollSecure => Some(Key::PathToModernListenerSecure),
            Self::WebSocket => Some(Key::PathToWebsocket),
            Self::WebSocketSecure => Some(Key::PathToWebsocketSecure),
            Self::ClientPublish => Some(Key::PathToPublishWeb),
            Self::ClientPublishSecure => Some(Key::PathToPublishWebSecure),
        }
    }

    /// Its name for programs, and in what is published to try it.
    const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Publish => "publish",
            Self::JsonRpc => "json-rpc",
            Self::Clock => "clock",
            Self::Poll => "poll",
            Self::PollSecure => "poll-secure",
            Self::WebSocket => "websocket",
            Self::WebSocketSecure => "websocket-secure",
            Self::Replay => "replay",
            Self::ClientPublish => "client-publish",
            Self::ClientPublishSecure => "client-publish-secure",
        }
    }
}

/// The steps that make sense for a generation.
fn steps(options: &Options) -> Vec<Try> {
    let generation = options.generation();
    let mut steps = vec![Try::Key, Try::Publish];
    if generation == Generation::Five {
        steps.push(Try::JsonRpc);
    }
    steps.extend([Try::Clock, Try::Poll, Try::PollSecure]);
    if options.has_legacy_websockets() {
        steps.extend([Try::WebSocket, Try::WebSocketSecure]);
    }
    steps.push(Try::Replay);
    if generation.has_public_channels() {
        steps.extend([Try::ClientPublish, Try::ClientPublishSecure]);
    }
    steps
}

/// A body that nothing else has.
fn random_text(channel: ChannelId, word: &str) -> String {
    format!(
        "{{\"module_id\":\"pull\",\"command\":\"check\",\"params\":{{\"text\":\"{word}-{channel}\"}}}}"
    )
}

fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}

fn explain(error: &CallError) -> Failure {
    let remedy = match error {
        CallError::Address(_) => Remedy::Address,
        CallError::Name { .. } => Remedy::Name,
        CallError::Connection { .. } => Remedy::Listen,
        CallError::Encryption(_) => Remedy::Certificate,
        CallError::Answer(_) => Remedy::Forward,
        CallError::Silence(_) => Remedy::Buffering,
    };
    bad(error.to_string(), remedy)
}

/// Whether an answer is one of a queue server that has taken the request.
fn judge(reply: &Reply) -> Result<(), Failure> {
    if reply.status.is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&reply.body);
    let remedy = match reply.status {
        StatusCode::BAD_REQUEST => Remedy::SameKey,
        StatusCode::FORBIDDEN => Remedy::Trust,
        StatusCode::NOT_MODIFIED | StatusCode::GATEWAY_TIMEOUT => Remedy::Buffering,
        _ => Remedy::Forward,
    };
    Err(bad(format!("HTTP {} {}", reply.status.as_u16(), shortened(&body)), remedy))
}

fn trusted(distrust: &Option<String>, detail: String) -> Seen {
    match distrust {
        Some(reason) => Err(warning(reason.clone(), Remedy::Certificate)),
        None => Ok(detail),
    }
}

/// The moment in the header `Date`, unix seconds.
fn date_of(reply: &Reply) -> Option<i64> {
    let text = reply.headers.get(http::header::DATE)?.to_str().ok()?;
    i64::try_from(date::from_http(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_read() {
        let mut headers = http::HeaderMap::new();
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        headers.insert(http::header::DATE, date);
        let reply = Reply { status: StatusCode::OK, headers, body: Bytes::new(), distrust: None };
        assert_eq!(date_of(&reply), Some(784_111_777));
    }

    #[test]
    fn answers_name_what_would_mend_them() {
        for (status, remedy) in [
            (400, Remedy::SameKey),
            (403, Remedy::Trust),
            (404, Remedy::Forward),
            (502, Remedy::Forward),
            (504, Remedy::Buffering),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let reply = Reply {
                status,
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
                distrust: None,
            };
            assert_eq!(judge(&reply).unwrap_err().remedy, remedy, "{status}");
        }
    }
}
