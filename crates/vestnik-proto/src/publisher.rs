//! Requests of a publisher: what the module sends to a queue server of each generation, and how it
//! reads the answers (module.md §8, §11).
//!
//! Events are escaped and split here, so that every request is within the limits of its server; who
//! sends the requests only has to send them in order.

use std::collections::HashMap;
use std::fmt::Write as _;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use prost::Message as _;
use vestnik_core::message::{Expiry, MessageKind};
use vestnik_core::publisher::{Listeners, ModuleEvent};
use vestnik_core::receiver::hex;
use vestnik_core::sign::Key;
use vestnik_core::{ChannelId, UserId};

use crate::body::{elements, is_json, member, members, string_text};
use crate::protobuf::schema;

/// Why an event cannot be sent to a server of this kind.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodeError {
    /// The body, an addition or the dictionary is no JSON object.
    #[error("the event is not the text of a JSON object")]
    NotAnObject,
    /// There is nobody whom a server of this kind could deliver to.
    #[error("the event names no recipient that this server can address")]
    NoRecipients,
    /// Public channels, which this protocol has no place for.
    #[error("this server cannot be told to publish to public channels")]
    PublicChannels,
    /// Additions for single users, which only generation 5 knows.
    #[error("user_params and dictionary need a server of generation 5")]
    UserParams,
    /// The event alone is more than a request may hold.
    #[error("the event takes {bytes} bytes, over the limit of {limit}")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What a request may hold.
        limit: usize,
    },
}

/// Requests to be sent in their order, and events that no request can be made of.
#[derive(Debug)]
pub struct Plan<R> {
    /// The requests.
    pub requests: Vec<R>,
    /// Indexes of the other events, with the reason.
    pub refused: Vec<(usize, EncodeError)>,
}

/// One legacy publish: one event to some of its channels.
#[derive(Debug, PartialEq, Eq)]
pub struct TextRequest {
    /// Ids joined by `/`, the value of `CHANNEL_ID`.
    pub channels: String,
    /// Header `Message-Expiry`, left out when volatile.
    pub expiry: Expiry,
    /// The event.
    pub body: Bytes,
    /// Index of the event.
    pub event: usize,
}

/// One protobuf or JSON-RPC publish of several events.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchRequest {
    /// The body to be posted.
    pub body: Bytes,
    /// Indexes of the events in it, growing; the last may go on in the next request.
    pub events: Vec<usize>,
}

/// Bounds of protobuf requests (`limit_max_*` of the module's options). Zero counts as one.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Receivers of one message; also channels of one question, less one.
    pub receivers: usize,
    /// Messages of one request.
    pub messages: usize,
    /// Bytes of one request.
    pub bytes: usize,
}

impl Default for BatchLimits {
    /// Those of the module: 100, 100, 1 MiB.
    fn default() -> Self {
        Self { receivers: 100, messages: 100, bytes: 1_048_576 }
    }
}

/// Plans legacy publishes (module.md §8.1): `per_request` channels at once, 1 for generation 1.
#[must_use]
pub fn text(events: &[ModuleEvent], per_request: usize, bytes_max: usize) -> Plan<TextRequest> {
    let mut plan = Plan { requests: Vec::new(), refused: Vec::new() };
    for (index, event) in events.iter().enumerate() {
        match text_body(event, bytes_max) {
            Ok(body) => plan.requests.extend(
                event.recipients.channels.chunks(per_request.max(1)).map(|channels| TextRequest {
                    channels: joined(channels),
                    expiry: event.expiry,
                    body: body.clone(),
                    event: index,
                }),
            ),
            Err(error) => plan.refused.push((index, error)),
        }
    }
    plan
}

fn text_body(event: &ModuleEvent, bytes_max: usize) -> Result<Bytes, EncodeError> {
    without_additions(event)?;
    if !event.recipients.public_channels.is_empty() {
        return Err(EncodeError::PublicChannels);
    }
    if event.recipients.channels.is_empty() {
        return Err(EncodeError::NoRecipients);
    }
    let body = escaped(object(&event.body)?, Escapes::Text);
    within(body.len(), bytes_max)?;
    Ok(body.into())
}

/// Channel ids as one list of the text protocol.
#[must_use]
pub fn joined(channels: &[ChannelId]) -> String {
    let mut list = String::with_capacity(channels.len() * (ChannelId::TEXT_LENGTH + 1));
    for (index, channel) in channels.iter().enumerate() {
        let slash = if index > 0 { "/" } else { "" };
        // Writing to a text does not fail.
        let _ = write!(list, "{slash}{channel}");
    }
    list
}

/// Plans protobuf publishes (module.md §8.2). Sizes are counted anew for each request, and there is
/// never a request without messages (M-099).
#[must_use]
pub fn protobuf(events: &[ModuleEvent], limits: BatchLimits) -> Plan<BatchRequest> {
    /// What the original leaves for all that stands around the messages.
    const AROUND: usize = 200;
    let bytes_max = limits.bytes.saturating_sub(AROUND);
    let mut plan = Plan { requests: Vec::new(), refused: Vec::new() };
    let (mut messages, mut indexes, mut bytes) = (Vec::new(), Vec::new(), 0);
    let flush = |messages: &mut Vec<_>, events: &mut Vec<usize>, requests: &mut Vec<_>| {
        let messages = std::mem::take(messages);
        let command =
            schema::RequestCommand::IncomingMessages(schema::IncomingMessagesRequest { messages });
        requests.push(BatchRequest { body: request(command), events: std::mem::take(events) });
    };
    for (index, event) in events.iter().enumerate() {
        let pieces = match pieces(event, limits.receivers.max(1), bytes_max) {
            Ok(pieces) => pieces,
            Err(error) => {
                plan.refused.push((index, error));
                continue;
            }
        };
        for (piece, piece_bytes) in pieces {
            let is_full = messages.len() >= limits.messages.max(1);
            if !messages.is_empty() && (is_full || bytes + piece_bytes > bytes_max) {
                flush(&mut messages, &mut indexes, &mut plan.requests);
                bytes = 0;
            }
            bytes += piece_bytes;
            messages.push(piece);
            if indexes.last() != Some(&index) {
                indexes.push(index);
            }
        }
    }
    if !messages.is_empty() {
        flush(&mut messages, &mut indexes, &mut plan.requests);
    }
    plan
}

/// The messages of one event, with the bytes that each takes in a request.
fn pieces(
    event: &ModuleEvent,
    receivers_max: usize,
    bytes_max: usize,
) -> Result<Vec<(schema::IncomingMessage, usize)>, EncodeError> {
    without_additions(event)?;
    let body = Bytes::from(escaped(object(&event.body)?, Escapes::Text));
    let private = event.recipients.channels.iter().map(|id| receiver(*id, true));
    let public = event.recipients.public_channels.iter().map(|id| receiver(*id, false));
    let receivers: Vec<_> = private.chain(public).collect();
    if receivers.is_empty() {
        return Err(EncodeError::NoRecipients);
    }
    let pieces = receivers.chunks(receivers_max).map(|receivers| {
        let message = schema::IncomingMessage {
            receivers: receivers.to_vec(),
            sender: None,
            body: body.clone(),
            expiry: event.expiry.seconds(),
            kind: kind(event).unwrap_or_default().to_owned(),
        };
        let length = message.encoded_len();
        let bytes = 1 + prost::length_delimiter_len(length) + length;
        within(bytes, bytes_max).map(|()| (message, bytes))
    });
    pieces.collect()
}

fn receiver(id: ChannelId, is_private: bool) -> schema::Receiver {
    let id = Bytes::copy_from_slice(id.as_bytes());
    schema::Receiver { id, is_private, signature: Bytes::new() }
}

fn request(command: schema::RequestCommand) -> Bytes {
    let requests = vec![schema::Request { command: Some(command) }];
    schema::RequestBatch { requests }.encode_to_vec().into()
}

/// Protobuf questions who listens to `channels`: one less than the limit in each, as the original asks
/// (M-060).
pub fn protobuf_questions(
    channels: &[ChannelId],
    limits: BatchLimits,
) -> impl Iterator<Item = (Bytes, &[ChannelId])> {
    let at_once = limits.receivers.saturating_sub(1).max(1);
    channels.chunks(at_once).map(|asked| {
        let channels = asked.iter().map(|id| receiver(*id, true)).collect();
        let question = schema::ChannelStatsRequest { channels };
        (request(schema::RequestCommand::ChannelStats(question)), asked)
    })
}

/// Reads the answer to one of [`protobuf_questions`]. Channels that it does not mention are offline.
/// `None`: it is no such answer.
#[must_use]
pub fn protobuf_listeners(answer: Bytes, asked: &[ChannelId]) -> Option<Vec<Listeners>> {
    let batch = schema::ResponseBatch::decode(answer).ok()?;
    let schema::ResponseCommand::ChannelStats(stats) =
        batch.responses.into_iter().next()?.command?
    else {
        return None;
    };
    let online = stats.channels.iter().filter(|it| it.is_online == Some(true));
    let counts =
        online.filter_map(|it| Some((ChannelId::from_bytes(it.id[..].try_into().ok()?), 1)));
    Some(in_order(asked, &counts.collect()))
}

/// Reads the answer to a legacy `GET` for `asked` (M-056): `infos`, or one bare object. `None`: it is
/// no such answer.
#[must_use]
pub fn text_listeners(answer: &[u8], asked: &[ChannelId]) -> Option<Vec<Listeners>> {
    let answer = std::str::from_utf8(answer).ok()?.trim();
    if !answer.starts_with('{') || !is_json(answer) {
        return None;
    }
    let infos: Vec<_> = match member(answer, "infos") {
        Some(infos) if infos.starts_with('[') => elements(infos).collect(),
        Some(_) => return None,
        None => vec![answer],
    };
    let mut counts = HashMap::new();
    for info in infos {
        let channel = member(info, "channel").and_then(string_text)?;
        let subscribers = member(info, "subscribers")?;
        let subscribers = string_text(subscribers).unwrap_or(subscribers.into());
        // Other channels than ours are none of our business.
        if let Ok(channel) = channel.parse::<ChannelId>() {
            counts.insert(channel, subscribers.parse().ok()?);
        }
    }
    Some(in_order(asked, &counts))
}

fn in_order(asked: &[ChannelId], counts: &HashMap<ChannelId, u32>) -> Vec<Listeners> {
    let listeners = asked.iter().map(|channel| Listeners {
        channel: *channel,
        count: counts.get(channel).copied().unwrap_or(0),
    });
    listeners.collect()
}

/// Plans JSON-RPC publishes (module.md §8.3): arrays of notifications, never an empty one.
#[must_use]
pub fn json_rpc(events: &[ModuleEvent], bytes_max: usize) -> Plan<BatchRequest> {
    /// What the original leaves for the array itself.
    const AROUND: usize = 20;
    let bytes_max = bytes_max.saturating_sub(AROUND);
    let mut plan = Plan { requests: Vec::new(), refused: Vec::new() };
    let (mut body, mut indexes) = (String::new(), Vec::new());
    let flush = |body: &mut String, events: &mut Vec<usize>, requests: &mut Vec<_>| {
        let array = format!("[{}]", std::mem::take(body));
        requests.push(BatchRequest { body: array.into(), events: std::mem::take(events) });
    };
    for (index, event) in events.iter().enumerate() {
        let call = json_rpc_params(event).map(|params| json_rpc_call("publish", &params));
        let call = call.and_then(|call| within(call.len(), bytes_max).map(|()| call));
        match call {
            Ok(call) => {
                if !body.is_empty() && body.len() + 1 + call.len() > bytes_max {
                    flush(&mut body, &mut indexes, &mut plan.requests);
                }
                if !body.is_empty() {
                    body.push(',');
                }
                body.push_str(&call);
                indexes.push(index);
            }
            Err(error) => plan.refused.push((index, error)),
        }
    }
    if !body.is_empty() {
        flush(&mut body, &mut indexes, &mut plan.requests);
    }
    plan
}

/// The parameters of `publish` for an event; empty lists are left out.
///
/// # Errors
/// When generation 5 has no words for it.
pub fn json_rpc_params(event: &ModuleEvent) -> Result<String, EncodeError> {
    let to = &event.recipients;
    if !to.public_channels.is_empty() {
        return Err(EncodeError::PublicChannels);
    }
    if to.is_empty() {
        return Err(EncodeError::NoRecipients);
    }
    let mut members = Vec::new();
    if !to.channels.is_empty() {
        let ids: Vec<_> = to.channels.iter().map(|id| format!(r#""{id}""#)).collect();
        members.push(format!(r#""channelList":[{}]"#, ids.join(",")));
    }
    if !to.users.is_empty() {
        let ids: Vec<_> = to.users.iter().map(UserId::to_string).collect();
        members.push(format!(r#""userList":[{}]"#, ids.join(",")));
    }
    let escaped = |json: &Bytes| object(json).map(|json| escaped(json, Escapes::JsonRpc));
    members.push(format!(r#""body":{}"#, escaped(&event.body)?));
    if !event.user_params.is_empty() {
        let additions: Result<Vec<_>, _> = event
            .user_params
            .iter()
            .map(|(user, addition)| Ok(format!(r#""{user}":{}"#, escaped(addition)?)))
            .collect();
        members.push(format!(r#""user_params":{{{}}}"#, additions?.join(",")));
    }
    if let Some(dictionary) = &event.dictionary {
        members.push(format!(r#""dictionary":{}"#, escaped(dictionary)?));
    }
    // It has no way to say "not at all".
    let expiry = if event.expiry.is_stored() { event.expiry } else { Expiry::MAX };
    members.push(format!(r#""expiry":{}"#, expiry.seconds()));
    if let Some(kind) = kind(event) {
        members.push(format!(r#""type":"{kind}""#));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

/// One call without an id. `params`: JSON text.
#[must_use]
pub fn json_rpc_call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
}

/// Whether an answer to a batch says that it was taken: any JSON object or array (M-062).
#[must_use]
pub fn is_json_rpc_taken(answer: &[u8]) -> bool {
    let answer = std::str::from_utf8(answer).unwrap_or_default().trim();
    answer.starts_with(['{', '[']) && is_json(answer)
}

/// Why the answer to a call is no result.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnswerError {
    /// No JSON-RPC 2.0.
    #[error("the answer is no JSON-RPC 2.0")]
    Unreadable,
    /// An error that the server tells.
    #[error("the server answered error {code}: {message}")]
    Told {
        /// Its code, as written.
        code: String,
        /// Its text.
        message: String,
    },
}

/// The result of a call that is not in a batch, as JSON text.
///
/// # Errors
/// When it has none.
pub fn json_rpc_result(answer: &[u8]) -> Result<&str, AnswerError> {
    let answer = std::str::from_utf8(answer).map_err(|_| AnswerError::Unreadable)?.trim();
    let version = || member(answer, "jsonrpc").and_then(string_text);
    if !answer.starts_with('{') || !is_json(answer) || version().as_deref() != Some("2.0") {
        return Err(AnswerError::Unreadable);
    }
    if let Some(error) = member(answer, "error").filter(|error| *error != "null") {
        return Err(AnswerError::Told {
            code: member(error, "code").unwrap_or("?").to_owned(),
            message: member(error, "message").and_then(string_text).unwrap_or_default().into(),
        });
    }
    member(answer, "result").ok_or(AnswerError::Unreadable)
}

/// Reads the result of `getUsersLastSeen`: an object, or an empty array (M-067). What is no user or no
/// number is left out.
///
/// # Errors
/// When it is neither.
pub fn last_seen(result: &str) -> Result<Vec<(UserId, u64)>, AnswerError> {
    if !result.starts_with('{') && elements(result).next().is_some()
        || !result.starts_with(['{', '['])
    {
        return Err(AnswerError::Unreadable);
    }
    let seen =
        members(result).filter_map(|(user, ago)| Some((user.parse().ok()?, ago.parse().ok()?)));
    Ok(seen.collect())
}

/// `url` with parameters added to its query, before a `#`. Values are escaped where an address needs it;
/// PHP escapes nothing, and with the names it uses the result is the same.
#[must_use]
pub fn with_parameters(url: &str, parameters: &[(&str, &str)]) -> String {
    let (url, fragment) = url.find('#').map_or((url, ""), |at| url.split_at(at));
    let mut out = url.to_owned();
    for (name, value) in parameters {
        out.push(if out.contains('?') { '&' } else { '?' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out + fragment
}

/// Address of a JSON-RPC request with `body`, signed over its bytes (M-061).
#[must_use]
pub fn json_rpc_url(url: &str, host_id: &str, hostname: &str, key: &Key, body: &[u8]) -> String {
    let signature = key.sign(&[body]).to_string();
    with_parameters(url, &[("hostId", host_id), ("signature", &signature), ("hostname", hostname)])
}

/// Address of a protobuf request. In the cloud `client` is the public licence hash and the key, over
/// whose signature of `body` the server knows its tenant; elsewhere nothing is signed (M-059).
#[must_use]
pub fn protobuf_url(
    url: &str,
    client: Option<(&str, &Key)>,
    hostname: &str,
    body: &[u8],
) -> String {
    let mode = [("binaryMode", "true"), ("hostname", hostname)];
    let Some((client_id, key)) = client else { return with_parameters(url, &mode) };
    let signature = key.sign(&[body]).to_string();
    let url = with_parameters(url, &[("clientId", client_id)]);
    with_parameters(&with_parameters(&url, &mode), &[("signature", &signature)])
}

/// What registers a site with a cloud server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Public hash of the licence: `clientId` of all later requests.
    pub client_id: String,
    /// Form body of `POST register-client`.
    pub form: String,
}

impl Registration {
    /// The registration of a licence; without a key that of a demo (module.md §11).
    #[must_use]
    pub fn of(licence_key: Option<&str>) -> Self {
        const TYPE: &str = "CP";
        let key = licence_key.filter(|key| !key.is_empty()).unwrap_or("DEMO");
        let digest = |text: &str| hex(&Md5::digest(text));
        let client_id = digest(&format!("BITRIX{key}LICENCE"));
        let hash = digest(&[digest(&format!("{client_id}|{TYPE}")), digest(key)].concat());
        let form = format!(
            "verificationQuery=BX_LICENCE%3D{client_id}%26BX_TYPE%3D{TYPE}%26BX_HASH%3D{hash}%26BX_ALL%3Dy"
        );
        Self { client_id, form }
    }
}

/// Why a cloud server does not register a site: the texts that the settings page shows (M-078).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// What the server says.
    #[error("{0}")]
    Told(String),
    /// Another status than 200 and nothing said.
    #[error("Server returned {0} code")]
    Status(u16),
    /// Nothing was said.
    #[error("Empty server response")]
    Empty,
    /// Something else than JSON.
    #[error("Could not parse server response. Raw response: {0}")]
    Unreadable(String),
    /// JSON without a key; the PHP module takes it for a success with an empty key, with which nothing
    /// could be signed.
    #[error("The server did not give a key")]
    NoKey,
}

/// The key in the answer to a registration.
///
/// # Errors
/// When there is none.
pub fn registration_key(status: u16, answer: &[u8]) -> Result<String, RegistrationError> {
    const SHOWN_MAX: usize = 500;
    let told: Option<serde_json::Value> = serde_json::from_slice(answer).ok();
    let member = |name: &str| {
        let text = told.as_ref()?.get(name)?.as_str()?;
        Some(text.to_owned()).filter(|text| !text.is_empty())
    };
    if status != 200 {
        return Err(
            member("error").map_or(RegistrationError::Status(status), RegistrationError::Told)
        );
    }
    if answer.trim_ascii().is_empty() {
        return Err(RegistrationError::Empty);
    }
    if !told.as_ref().is_some_and(serde_json::Value::is_object) {
        let raw = String::from_utf8_lossy(answer).chars().take(SHOWN_MAX).collect();
        return Err(RegistrationError::Unreadable(raw));
    }
    if member("status").as_deref() == Some("error") {
        let text = member("error").unwrap_or_else(|| "error".to_owned());
        return Err(RegistrationError::Told(text));
    }
    member("securityKey").ok_or(RegistrationError::NoKey)
}

/// Reads the list of cloud servers: lines of an address and a region. Other lines are skipped.
pub fn cloud_servers(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.lines().filter_map(|line| {
        let (url, region) = line.trim().split_once(';')?;
        Some((url.trim(), region.trim())).filter(|(url, _)| !url.is_empty())
    })
}

fn kind(event: &ModuleEvent) -> Option<&str> {
    (event.kind != MessageKind::UNKNOWN).then(|| event.kind.as_str())
}

fn without_additions(event: &ModuleEvent) -> Result<(), EncodeError> {
    let has_none = event.user_params.is_empty() && event.dictionary.is_none();
    if has_none { Ok(()) } else { Err(EncodeError::UserParams) }
}

fn within(bytes: usize, limit: usize) -> Result<(), EncodeError> {
    if bytes > limit { Err(EncodeError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// The text of a JSON object, checked.
///
/// # Errors
/// When it is none.
pub fn object(json: &[u8]) -> Result<&str, EncodeError> {
    let json = std::str::from_utf8(json).map(str::trim).unwrap_or_default();
    if json.starts_with('{') && is_json(json) { Ok(json) } else { Err(EncodeError::NotAnObject) }
}

/// Which characters of strings PHP does not send as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    /// `/` and the two line ends of JavaScript.
    Text,
    /// Those, and what means something in HTML.
    JsonRpc,
}

/// Valid JSON with the characters in its strings escaped as PHP does; its meaning stays the same.
fn escaped(json: &str, escapes: Escapes) -> String {
    let for_html = escapes == Escapes::JsonRpc;
    let mut out = String::with_capacity(json.len() + json.len() / 16);
    let mut is_string = false;
    let mut characters = json.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                is_string = !is_string;
                out.push('"');
            }
            _ if !is_string => out.push(character),
            '\\' => match characters.next() {
                Some('"') if for_html => out.push_str("\\u0022"),
                following => {
                    out.push('\\');
                    out.extend(following);
                }
            },
            '/' => out.push_str("\\/"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            '<' if for_html => out.push_str("\\u003C"),
            '>' if for_html => out.push_str("\\u003E"),
            '&' if for_html => out.push_str("\\u0026"),
            '\'' if for_html => out.push_str("\\u0027"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests;
