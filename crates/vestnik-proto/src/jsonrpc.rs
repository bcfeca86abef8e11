//! JSON-RPC 2.0 of generation 5: requests of sites and clients, answers, and messages on their way to
//! clients (json-rpc.md §4, §6 to §8).
//!
//! JSON is taken apart as text: ids, bodies and additions keep every byte of their publisher, key
//! order and number forms included (J-027). Nothing here recurses.

use std::borrow::Cow;

use bytes::Bytes;
use vestnik_core::date;
use vestnik_core::message::{Author, Encoding, Envelope};

use crate::body::{elements, is_json, members, string_text};
use crate::websocket::{self, Opcode};

mod merge;
mod params;

pub use merge::merged;
pub use params::{
    ClientCaller, ClientPublish, STATUS_CHANNEL, channel_names, client_publish, last_seen,
    last_seen_updates, site_publish, user_list, watched_user,
};

/// The text that both sides send to show that they are alive (json-rpc.md §6.3).
pub const PING: &str = "ping";

/// A complete WebSocket text frame with one `incoming.message`, made once for each message. Empty when
/// the body is no JSON object: clients of generation 5 would fail at it (D8).
#[must_use]
pub fn frame(envelope: &Envelope) -> &Bytes {
    envelope.frame(Encoding::JsonRpc, |envelope| {
        let Some(body) = object_text(&envelope.body) else { return Bytes::new() };
        let sender = match envelope.author {
            Author::Backend => r#"{"type":2}"#.to_owned(),
            Author::Client(id) => format!(r#"{{"type":1,"id":"{id}"}}"#),
            Author::User(id) => format!(r#"{{"type":1,"id":"{id}"}}"#),
            Author::Unnamed => r#"{"type":1}"#.to_owned(),
        };
        let head = format!(
            r#"{{"jsonrpc":"2.0","method":"incoming.message","params":{{"mid":"{}","body":"#,
            envelope.id
        );
        let parts = [head.as_bytes(), body.as_bytes(), br#","sender":"#, sender.as_bytes(), b"}}"];
        websocket::frame(Opcode::Text, &parts)
    })
}

/// The text of one JSON object, without white space around it; `None` for anything else.
fn object_text(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim_ascii();
    (text.starts_with('{') && is_json(text)).then_some(text)
}

/// What somebody sent: one request, or several in an array.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// One.
    Single(Item<'a>),
    /// An array of them, perhaps empty.
    Batch(Vec<Item<'a>>),
}

/// An element of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A request to do something.
    Call(Call<'a>),
    /// The answer to some request, as the split client sends them (J-077).
    Answer,
    /// Neither; with its id, as far as it has a proper one.
    Invalid(Option<&'a str>),
}

/// A request to do something.
#[derive(Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// What to do.
    pub method: Cow<'a, str>,
    /// Its parameters, valid JSON; `null` when there are none.
    pub params: &'a str,
    /// Its id, byte for byte; `None` when it has none, as PHP sends them.
    pub id: Option<&'a str>,
}

/// Why a request is not served. Wire: `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Not JSON.
    #[error("Parse error")]
    Parse,
    /// JSON, but no request.
    #[error("Invalid Request")]
    InvalidRequest,
    /// No such method.
    #[error("Method not found")]
    MethodNotFound,
    /// The parameters do not fit; the sentence says which.
    #[error("Invalid params")]
    InvalidParams(&'static str),
    /// Something failed here; the sentence is the message.
    #[error("{0}")]
    Internal(&'static str),
    /// The caller is not who it says.
    #[error("Wrong signature")]
    Unauthorised,
}

impl RpcError {
    /// The code (json-rpc.md §4.8).
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Parse => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams(_) => -32602,
            Self::Internal(_) => -32603,
            Self::Unauthorised => -32001,
        }
    }
}

/// More elements in an array than are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("over {limit} requests in one array")]
pub struct TooManyItems {
    /// The most there may be.
    pub limit: usize,
}

/// Reads a packet of at most `items_max` elements.
///
/// # Errors
/// The outer one when there are too many elements, the inner one when `text` is not JSON or neither an
/// object nor an array.
pub fn parse(text: &[u8], items_max: usize) -> Result<Result<Packet<'_>, RpcError>, TooManyItems> {
    let text = std::str::from_utf8(text).unwrap_or_default().trim_ascii();
    if !is_json(text) {
        return Ok(Err(RpcError::Parse));
    }
    if !text.starts_with('[') {
        return Ok(match item(text) {
            Item::Invalid(None) if !text.starts_with('{') => Err(RpcError::InvalidRequest),
            item => Ok(Packet::Single(item)),
        });
    }
    let mut items = Vec::new();
    for element in elements(text) {
        if items.len() == items_max {
            return Err(TooManyItems { limit: items_max });
        }
        items.push(item(element));
    }
    Ok(Ok(Packet::Batch(items)))
}

fn item(json: &str) -> Item<'_> {
    let (mut version, mut method, mut params, mut id) = (None, None, None, None);
    let mut is_answer = false;
    for (key, value) in members(json) {
        match &*key {
            "jsonrpc" => version = string_text(value),
            "method" => method = Some(value),
            "params" => params = Some(value),
            "id" => id = Some(value),
            "result" | "error" => is_answer = true,
            _ => {}
        }
    }
    let is_id =
        |id: &str| id.starts_with(['"', '-']) || id.starts_with(|d: char| d.is_ascii_digit());
    let proper_id = id.filter(|id| is_id(id) || *id == "null");
    if version.as_deref() != Some("2.0") || id != proper_id {
        return Item::Invalid(proper_id);
    }
    match method.map(string_text) {
        Some(Some(method)) => {
            Item::Call(Call { method, params: params.unwrap_or("null"), id: proper_id })
        }
        None if is_answer => Item::Answer,
        Some(None) | None => Item::Invalid(proper_id),
    }
}

/// An answer with a result, which must be valid JSON; without an id it says `null` (json-rpc.md §4.3).
#[must_use]
pub fn result(id: Option<&str>, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.unwrap_or("null"))
}

/// An answer with an error.
#[must_use]
pub fn error(id: Option<&str>, error: RpcError) -> String {
    let data = match error {
        RpcError::InvalidParams(reason) => format!(r#","data":"{reason}""#),
        RpcError::Parse
        | RpcError::InvalidRequest
        | RpcError::MethodNotFound
        | RpcError::Internal(_)
        | RpcError::Unauthorised => String::new(),
    };
    let (id, code) = (id.unwrap_or("null"), error.code());
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{error}"{data}}}}}"#)
}

/// Answers as one array.
#[must_use]
pub fn array(answers: &[String]) -> String {
    let mut array = String::with_capacity(answers.iter().map(|it| it.len() + 1).sum::<usize>() + 2);
    array.push('[');
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            array.push(',');
        }
        array.push_str(answer);
    }
    array.push(']');
    array
}

/// The body of a message that says that a user came or went (json-rpc.md §9).
#[must_use]
pub fn status_body(user: vestnik_core::UserId, is_online: bool, now_ms: u64) -> String {
    let time = date::atom(now_ms / 1000);
    let (seconds, millis) = (now_ms / 1000, now_ms % 1000);
    format!(
        r#"{{"module_id":"online","command":"userStatusChange","params":{{"user_id":{user},"online":{is_online}}},"extra":{{"server_time":"{time}","server_time_unix":{seconds}.{millis:03}}}}}"#
    )
}

#[cfg(test)]
mod tests;
