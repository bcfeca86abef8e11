//! The body of an event inside a text envelope: valid JSON that cannot break or forge the text
//! around it, whatever the publisher sent (README D8, Q-182, W-17).
//!
//! JSON is checked and rewritten as text, token by token: key order, number forms and escapes of
//! the publisher survive (K-012). Nothing here recurses, so nesting cannot exhaust the stack.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;
use vestnik_core::Author;

/// What stands before each framed text event.
pub(crate) const START_MARKER: &str = "#!NGINXNMS!#";
/// What stands after it.
pub(crate) const END_MARKER: &str = "#!NGINXNME!#";

/// `raw` itself if it is UTF-8, else a copy with U+FFFD for what is not.
pub(crate) fn repaired(raw: Bytes) -> Bytes {
    match String::from_utf8_lossy(&raw) {
        Cow::Borrowed(_) => raw,
        Cow::Owned(repaired) => Bytes::from(repaired),
    }
}

/// Whether `text` is one JSON value. serde_json skips values without recursion and knows the
/// grammar; bodies with lone surrogates in `\u` escapes pass, as they do in JavaScript.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The value of an event's `text` key in framed text.
///
/// JSON goes out byte for byte unless it holds what clients cannot cut out of a frame (K-014); a
/// JavaScript literal of an old site passes through (M-055); anything else becomes a JSON string.
/// Only the back end writes literals: of a client one could forge the keys around it.
pub(crate) fn text_value<'a>(body: &'a [u8], author: &Author) -> Cow<'a, str> {
    let body = String::from_utf8_lossy(body);
    if is_json(&body) {
        return rewritten(body);
    }
    if *author == Author::Backend && is_literal(&body) {
        return Cow::Owned(flattened(&body));
    }
    json_string(&body)
}

/// The value of an event's `text` key in a JSON array: as [`text_value`], but always JSON.
pub(crate) fn json_value(body: &[u8]) -> Cow<'_, str> {
    let body = String::from_utf8_lossy(body);
    if is_json(&body) { rewritten(body) } else { json_string(&body) }
}

fn json_string(text: &str) -> Cow<'static, str> {
    rewritten(Cow::Owned(serde_json::Value::from(text).to_string()))
}

/// Valid JSON without line ends, U+2028, U+2029 and markers.
fn rewritten(json: Cow<'_, str>) -> Cow<'_, str> {
    if is_clean(&json) { json } else { Cow::Owned(compacted(&json)) }
}

/// Whether `text` can be cut out of a frame by the clients' regular expression, whose dot does not
/// match line ends and which stops at the first end marker (clients.md §5.1).
fn is_clean(text: &str) -> bool {
    !text.bytes().any(|byte| matches!(byte, b'\n' | b'\r'))
        && !text.contains(['\u{2028}', '\u{2029}'])
        && !text.contains(START_MARKER)
        && !text.contains(END_MARKER)
}

/// Valid JSON without white space between tokens and with the characters that [`is_clean`] forbids
/// escaped inside strings.
fn compacted(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut in_string = false;
    let mut is_escaped = false;
    for (at, letter) in json.char_indices() {
        if !in_string {
            in_string = letter == '"';
            if !matches!(letter, ' ' | '\t' | '\n' | '\r') {
                out.push(letter);
            }
            continue;
        }
        match letter {
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            '#' if starts_with_marker(&json[at..]) => out.push_str("\\u0023"),
            _ => out.push(letter),
        }
        in_string = is_escaped || letter != '"';
        is_escaped = !is_escaped && letter == '\\';
    }
    out
}

fn starts_with_marker(text: &str) -> bool {
    text.starts_with(START_MARKER) || text.starts_with(END_MARKER)
}

/// Whether `text` is one expression in braces, like the JavaScript object literals of sites before
/// 17.5: the brace that opens it closes at its very end, strings in `'` or `"` aside.
fn is_literal(text: &str) -> bool {
    let text = text.trim_ascii_end();
    if !text.starts_with('{') {
        return false;
    }
    let mut depth = 0_usize;
    let mut quote = None;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if let Some(end) = quote {
            if !is_escaped && byte == end {
                quote = None;
            }
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'\'' | b'"' => quote = Some(byte),
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => {
                depth -= 1;
                if depth == 0 {
                    return byte == b'}' && at + 1 == text.len();
                }
            }
            _ => {}
        }
    }
    false
}

/// A literal with line ends turned into spaces and the `!` of markers escaped.
fn flattened(literal: &str) -> String {
    literal
        .replace(['\n', '\r', '\u{2028}', '\u{2029}'], " ")
        .replace("#!NGINXNMS!", "#\\u0021NGINXNMS!")
        .replace("#!NGINXNME!", "#\\u0021NGINXNME!")
}

/// The members of a JSON object in their order: decoded key, value as it stands. Nothing for any
/// other JSON value.
///
/// `json` must be valid JSON; what comes out for other text is unspecified, but it ends.
pub(crate) fn members(json: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    raw_members(json).map_while(|(key, value)| Some((string_text(key)?, value)))
}

/// As [`members`], with the keys as they stand, quotes included.
pub(crate) fn raw_members(json: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = json.trim_ascii().strip_prefix('{').unwrap_or_default();
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([',', ' ', '\t', '\n', '\r']);
        let (key, after_key) = rest.split_at(value_length(rest));
        let value_and_rest = after_key.trim_ascii_start().strip_prefix(':')?.trim_ascii_start();
        let (value, after_value) = value_and_rest.split_at(value_length(value_and_rest));
        rest = after_value;
        Some((key, value))
    })
}

/// The elements of a JSON array, as they stand. Nothing for any other JSON value.
///
/// `json` must be valid JSON; what comes out for other text is unspecified, but it ends.
pub(crate) fn elements(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json.trim_ascii().strip_prefix('[').unwrap_or_default();
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([',', ' ', '\t', '\n', '\r']);
        let (value, after) = rest.split_at(value_length(rest));
        rest = after;
        // The bracket at the end has no length of its own.
        (!value.is_empty()).then_some(value)
    })
}

/// Length of the JSON value at the start of `text`, without white space after it.
fn value_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            if !in_string && depth == 0 {
                return at + 1;
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return if depth == 1 { at + 1 } else { at },
            b'}' | b']' => depth -= 1,
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// The text of a JSON string literal; `None` for anything else. A literal whose escapes are no
/// Unicode text comes out undecoded: it equals no name we ask for.
pub(crate) fn string_text(literal: &str) -> Option<Cow<'_, str>> {
    let inside = literal.strip_prefix('"')?.strip_suffix('"')?;
    if !inside.contains('\\') {
        return Some(Cow::Borrowed(inside));
    }
    Some(serde_json::from_str(literal).map_or(Cow::Borrowed(inside), Cow::Owned))
}

/// The value of the top-level member `name` of valid JSON; of a repeated one the last, which is
/// the one JavaScript takes.
pub(crate) fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    members(json).filter(|(key, _)| key == name).last().map(|(_, value)| value)
}

/// The values of several top-level members of valid JSON, as [`member`] finds them, in one pass.
pub(crate) fn pick<'a, const N: usize>(json: &'a str, names: [&str; N]) -> [Option<&'a str>; N] {
    let mut picked = [None; N];
    for (key, value) in members(json) {
        if let Some(at) = names.iter().position(|name| *name == key) {
            picked[at] = Some(value);
        }
    }
    picked
}

/// Whether a client may not send this event: one in the name of the module `pull` or `online`
/// commands the receiving client itself (K-051, D20). In any letter case; of repeated members any.
pub(crate) fn is_reserved(body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    is_json(&body)
        && members(&body)
            .filter(|(key, _)| key == "module_id")
            .filter_map(|(_, value)| string_text(value))
            .any(|module| matches!(module.to_lowercase().as_str(), "pull" | "online"))
}

#[cfg(test)]
mod tests;
