//! The request target: query parameters, channel lists, what of them may be logged.
//!
//! Owns the names and values of queue-server.md §3 and the header `Message-Expiry`. Knows nothing
//! of routes, and decides nothing about a request but whether its channel list may be used.

use std::borrow::Cow;
use std::fmt;

use vestnik_core::message::{Encoding, Expiry, MessageId};
use vestnik_core::receiver::{ChannelId, Receiver};
use vestnik_core::sign::{KeyRing, Signature};

/// `CHANNEL_ID` was given more than once: no list is chosen, the request is refused (Q-171, W-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CHANNEL_ID is repeated")]
pub struct RepeatedChannelId;

/// How a subscriber wants its messages, and how it writes its own (README D2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Framed text.
    Text,
    /// Protobuf batches.
    Protobuf,
    /// Plain JSON arrays.
    Json,
    /// JSON-RPC of generation 5.
    JsonRpc,
}

impl Framing {
    /// The ready-made bytes that serve this framing.
    #[must_use]
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::Text => Encoding::Text,
            Self::Protobuf => Encoding::Protobuf,
            Self::Json => Encoding::Json,
            Self::JsonRpc => Encoding::JsonRpc,
        }
    }
}

/// The parameters of a request that mean something; all others are ignored (K-007).
///
/// Names are case-sensitive; of a repeated one the first counts, except `CHANNEL_ID`.
/// Names and values are percent-decoded and `+` is a space, as Node's `querystring` does it.
/// `Debug` shows no value.
#[derive(Clone, Default)]
pub struct Query<'a> {
    channel_id: Option<Result<Cow<'a, str>, RepeatedChannelId>>,
    binary_mode: Option<Cow<'a, str>>,
    format: Option<Cow<'a, str>>,
    json_rpc: Option<Cow<'a, str>>,
    mid: Option<Cow<'a, str>>,
    token: Option<Cow<'a, str>>,
    host_id: Option<Cow<'a, str>>,
    signature: Option<Cow<'a, str>>,
    has_revision: bool,
}

impl<'a> Query<'a> {
    /// Reads what follows the `?` of a request target; empty when there is none. Takes any text.
    #[must_use]
    pub fn parse(raw_query: &'a str) -> Self {
        let mut query = Self::default();
        for part in raw_query.split('&') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let slot = match &*decode(name) {
                "CHANNEL_ID" => {
                    query.channel_id = Some(match query.channel_id {
                        None => Ok(decode(value)),
                        Some(_) => Err(RepeatedChannelId),
                    });
                    continue;
                }
                "revision" => {
                    query.has_revision = true;
                    continue;
                }
                "binaryMode" => &mut query.binary_mode,
                "format" => &mut query.format,
                "jsonRpc" => &mut query.json_rpc,
                "mid" => &mut query.mid,
                "token" => &mut query.token,
                "hostId" => &mut query.host_id,
                "signature" => &mut query.signature,
                _ => continue,
            };
            slot.get_or_insert_with(|| decode(value));
        }
        query
    }

    /// The channel list, not yet parsed; `None` when absent.
    #[must_use]
    pub fn channel_id(&self) -> Option<Result<&str, RepeatedChannelId>> {
        self.channel_id.as_ref().map(|list| list.as_deref().map_err(|error| *error))
    }

    /// Whether `binaryMode` is exactly `true`.
    #[must_use]
    pub fn binary_mode(&self) -> bool {
        self.binary_mode.as_deref() == Some("true")
    }

    /// Whether `format` is exactly `json`.
    #[must_use]
    pub fn format_json(&self) -> bool {
        self.format.as_deref() == Some("json")
    }

    /// Whether `jsonRpc` is exactly `true`.
    #[must_use]
    pub fn json_rpc(&self) -> bool {
        self.json_rpc.as_deref() == Some("true")
    }

    /// The position; anything but 26 decimal digits counts as absent.
    #[must_use]
    pub fn mid(&self) -> Option<MessageId> {
        self.mid.as_deref().and_then(|mid| mid.parse().ok())
    }

    /// Whether `revision` is there, with any value; mobile clients never send it (K-008).
    #[must_use]
    pub const fn has_revision(&self) -> bool {
        self.has_revision
    }

    /// The connection token of generation 5; never to be logged.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The name of the site that calls JSON-RPC; empty when it gives none.
    #[must_use]
    pub fn host_id(&self) -> &str {
        self.host_id.as_deref().unwrap_or_default()
    }

    /// The signature of a JSON-RPC request of a site, over its body; `None` when absent or malformed.
    #[must_use]
    pub fn signature(&self) -> Option<Signature> {
        self.signature.as_deref().and_then(Signature::from_hex)
    }

    /// The framing: `jsonRpc=true` before `binaryMode=true` before `format=json` before text (D2).
    #[must_use]
    pub fn framing(&self) -> Framing {
        if self.json_rpc() {
            Framing::JsonRpc
        } else if self.binary_mode() {
            Framing::Protobuf
        } else if self.format_json() {
            Framing::Json
        } else {
            Framing::Text
        }
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("channel_id", &self.channel_id.is_some())
            .field("framing", &self.framing())
            .field("mid", &self.mid())
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// Percent-decodes `raw`, allocating only when something changes. A `%` without two hex digits
/// stays; bytes that are no UTF-8 become U+FFFD.
fn decode(raw: &str) -> Cow<'_, str> {
    if !raw.contains(['%', '+']) {
        return Cow::Borrowed(raw);
    }
    let bytes = raw.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match bytes.get(at..at + 2).and_then(hex_pair) {
                Some(value) => {
                    at += 2;
                    value
                }
                None => b'%',
            },
            other => other,
        });
    }
    Cow::Owned(match String::from_utf8(decoded) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Value of two hex digits in either case.
fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(0)? << 4 | digit(1)?)
}

/// Why a text is no channel list. The whole list is void, there is no partial acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannelList {
    /// Some item does not follow the grammar; an empty one does not either.
    #[error("channel list has a malformed item")]
    MalformedItem,
    /// More items than the caller allows.
    #[error("channel list has over {limit} items")]
    TooManyItems {
        /// The most items allowed.
        limit: usize,
    },
}

/// One item of a channel list: `private[:public][.signature]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelItem {
    /// The channel that the back end writes to.
    pub private: ChannelId,
    /// The channel that other clients write to.
    pub public: Option<ChannelId>,
    /// Signature of the id or of the pair, unchecked.
    pub signature: Option<Signature>,
}

impl ChannelItem {
    /// Reads one item; the signature may have any length that some algorithm could make.
    fn parse(text: &str) -> Option<Self> {
        let (ids, signature) = match text.split_once('.') {
            Some((ids, signature)) => (ids, Some(Signature::from_hex(signature)?)),
            None => (text, None),
        };
        let (private, public) = match ids.split_once(':') {
            Some((private, public)) => (private, Some(public.parse().ok()?)),
            None => (ids, None),
        };
        Some(Self { private: private.parse().ok()?, public, signature })
    }
}

/// Whose rules a channel list is held to (queue-server.md §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A browser or app: every id must be signed when there is a key.
    Client,
    /// The site's back end: only pairs are checked.
    Backend,
}

/// The list names a channel that this caller may not use. Wire: 4010.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channel list has a missing or wrong signature")]
pub struct Refused;

/// A private channel and its public one, bound by a valid signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The channel that the back end writes to; connections are counted by it (D12).
    pub private: ChannelId,
    /// The channel that other clients write to.
    pub public: ChannelId,
}

/// What a caller may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorised {
    /// The channels in item order, the private one of a pair before its public one. Without
    /// repeats for a client; as given for the back end.
    pub receivers: Vec<Receiver>,
    /// The pairs in item order; their signatures were checked.
    pub pairs: Vec<Pair>,
}

impl Authorised {
    /// The public id under which this client publishes: that of the first pair.
    #[must_use]
    pub fn author(&self) -> Option<ChannelId> {
        self.pairs.first().map(|pair| pair.public)
    }
}

/// A well-formed channel list; nothing is said about its signatures. Never empty.
///
/// Wire: items joined with `/`, each `private[:public][.signature]` in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelList(Vec<ChannelItem>);

impl ChannelList {
    /// The most channels of a subscription (queue-server.md §11).
    pub const SUBSCRIPTION_ITEMS_MAX: usize = 100;

    /// Reads a decoded `CHANNEL_ID` of at most `items_max` items. A text publish passes
    /// `usize::MAX`: there the size of the request head is the limit.
    ///
    /// # Errors
    /// When any item is malformed or there are too many.
    pub fn parse(text: &str, items_max: usize) -> Result<Self, InvalidChannelList> {
        let mut items = Vec::new();
        for item in text.split('/') {
            if items.len() == items_max {
                return Err(InvalidChannelList::TooManyItems { limit: items_max });
            }
            items.push(ChannelItem::parse(item).ok_or(InvalidChannelList::MalformedItem)?);
        }
        Ok(Self(items))
    }

    /// The items in their order.
    #[must_use]
    pub fn items(&self) -> &[ChannelItem] {
        &self.0
    }

    /// Whether every item is a lone id without signature, as generations 1 and 2 send it (D2).
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.0.iter().all(|item| item.public.is_none() && item.signature.is_none())
    }

    /// Checks every item against `keys` as queue-server.md §3.3 demands. `now_s`: unix seconds,
    /// for keys that have an end.
    ///
    /// # Errors
    /// When any item is refused: the whole list is.
    pub fn authorise(
        &self,
        keys: &KeyRing,
        trust: Trust,
        now_s: u64,
    ) -> Result<Authorised, Refused> {
        let mut authorised = Authorised { receivers: Vec::new(), pairs: Vec::new() };
        for item in &self.0 {
            check_item(item, keys, trust, now_s)?;
            let mut add = |receiver| {
                if trust == Trust::Backend || !authorised.receivers.contains(&receiver) {
                    authorised.receivers.push(receiver);
                }
            };
            add(Receiver::Private(item.private));
            if let Some(public) = item.public {
                add(Receiver::Public(public));
                authorised.pairs.push(Pair { private: item.private, public });
            }
        }
        Ok(authorised)
    }
}

fn check_item(item: &ChannelItem, keys: &KeyRing, trust: Trust, now_s: u64) -> Result<(), Refused> {
    let accepted = match (item.public, &item.signature) {
        (None, None) => trust == Trust::Backend || keys.is_empty(),
        (None, Some(signature)) => {
            keys.fits(signature)
                && (trust == Trust::Backend
                    || keys.is_empty()
                    || keys.verify_private(item.private, signature, now_s))
        }
        (Some(_), None) => false,
        (Some(public), Some(signature)) => keys.verify_pair(item.private, public, signature, now_s),
    };
    if accepted { Ok(()) } else { Err(Refused) }
}

/// The header `Message-Expiry` as JavaScript's `parseInt` reads it: leading white space, a sign,
/// then digits as far as they go, hexadecimal ones after `0x`. Not above zero, or no
/// number: volatile; more than `cap`: `cap`.
#[must_use]
pub fn parse_expiry(header: &str, cap: Expiry) -> Expiry {
    let text = header.trim_start();
    let digits = match text.strip_prefix(['+', '-']) {
        Some(_) if text.starts_with('-') => return Expiry::VOLATILE,
        Some(digits) => digits,
        None => text,
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    let seconds =
        digits.chars().map_while(|digit| digit.to_digit(radix)).fold(0_u64, |seconds, digit| {
            seconds.saturating_mul(radix.into()).saturating_add(digit.into())
        });
    Expiry::new(seconds, cap)
}

/// Writes the spaces inside a request target as `%20`: mobile and old clients send
/// `time=Thu, 01 Jan …` raw (K-004). `head`: a request's first bytes, of which only the first line is looked at.
pub fn escape_target(head: &mut Vec<u8>) {
    let line_end = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    let line = &head[..line_end];
    let Some(first) = line.iter().position(|byte| *byte == b' ') else { return };
    let Some(last) = line.iter().rposition(|byte| *byte == b' ') else { return };
    // Without a version at the end the last space belongs to the target: leave it to the parser.
    let Some(target) = line.get(first + 1..last).filter(|target| target.contains(&b' ')) else {
        return;
    };
    if !line[last..].starts_with(b" HTTP/") {
        return;
    }
    let mut escaped = Vec::with_capacity(head.len() + 16);
    escaped.extend_from_slice(&line[..=first]);
    for byte in target {
        match byte {
            b' ' => escaped.extend_from_slice(b"%20"),
            byte => escaped.push(*byte),
        }
    }
    escaped.extend_from_slice(&head[last..]);
    *head = escaped;
}

/// The longest masked target in bytes, the ending `…` aside.
const MASKED_MAX: usize = 512;

/// A request target for the log: channel ids, signatures, tokens, values of unknown parameters and
/// secret path segments cut to a prefix (Q-193, W-24), control characters replaced, long targets
/// cut. Takes any text.
#[must_use]
pub fn masked(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut out = String::new();
    let mut before = "";
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        match (before, segment) {
            // The segment after `pub` may be the secret of README D15.
            ("pub", secret) if !secret.is_empty() => out.push('…'),
            _ => push_runs(&mut out, segment, LONG_RUN),
        }
        before = segment;
        if out.len() > MASKED_MAX {
            break;
        }
    }
    for (index, part) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        if out.len() > MASKED_MAX {
            break;
        }
        out.push(if index == 0 { '?' } else { '&' });
        match part.split_once('=') {
            Some((name, value)) => {
                push_runs(&mut out, name, LONG_RUN);
                out.push('=');
                push_value(&mut out, name, value);
            }
            None => push_runs(&mut out, part, LONG_RUN),
        }
    }
    if out.len() > MASKED_MAX {
        let end = (0..=MASKED_MAX).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
        out.push('…');
    }
    out
}

/// Parameters whose values identify nobody.
const HARMLESS: [&str; 10] =
    ["binaryMode", "format", "jsonRpc", "mid", "revision", "tag", "time", "rnd", "hostname", "V"];

/// Letters and digits in a row from which on text may be an id or a secret.
const LONG_RUN: usize = 16;

fn push_value(out: &mut String, name: &str, value: &str) {
    if HARMLESS.contains(&name) {
        push_runs(out, value, 2 * LONG_RUN);
    } else if name.eq_ignore_ascii_case("CHANNEL_ID") {
        push_runs(out, value, 5);
    } else {
        push_runs(out, &value.chars().take(4).collect::<String>(), LONG_RUN);
        if value.chars().nth(4).is_some() {
            out.push('…');
        }
    }
}

/// Appends `text` with every run of `shortest` or more letters and digits cut to four characters.
/// A percent-encoded character ends a run.
fn push_runs(out: &mut String, text: &str, shortest: usize) {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match rest.as_bytes() {
            [b'%', pair @ ..] if pair.get(..2).and_then(hex_pair).is_some() => {
                out.push_str(&rest[..3]);
                3
            }
            _ if is_run(first) => {
                let length = rest.find(|next| !is_run(next)).unwrap_or(rest.len());
                if length >= shortest {
                    out.push_str(&rest[..4]);
                    out.push('…');
                } else {
                    out.push_str(&rest[..length]);
                }
                length
            }
            _ => {
                out.push(if first.is_control() { '\u{fffd}' } else { first });
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
}

const fn is_run(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-')
}

#[cfg(test)]
mod tests;
