//! What PHP writes and reads: ordered arrays as JSON, as JavaScript literals, serialized, and in source
//! files; its times and hashes.

mod encode;
mod json;
mod read;

use std::fmt::Write as _;

use md5::{Digest, Md5};

pub use encode::Escapes;
pub use json::from_json;
pub use read::{ReadError, source_array, unserialize};

/// The MD5 of `bytes`.
pub(crate) fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// The MD5 of `text` in lower-case hex.
pub(crate) fn md5_hex(text: &str) -> String {
    vestnik_core::receiver::hex(&md5(text.as_bytes()))
}

/// The number a text begins with, as PHP's `intval` reads it; 0 where there is none.
#[must_use]
pub fn intval(text: &str) -> i64 {
    let text = text.trim_start();
    let sign = usize::from(text.starts_with(['-', '+']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let number = &text[..sign + digits];
    let number = number.strip_prefix('+').unwrap_or(number);
    match number.parse() {
        Ok(number) => number,
        Err(_) if digits == 0 => 0,
        Err(_) if text.starts_with('-') => i64::MIN,
        Err(_) => i64::MAX,
    }
}

/// A value of PHP. Arrays keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A string.
    Text(String),
    /// An array: keys are texts or whole numbers.
    Array(Vec<(Value, Value)>),
}

impl Value {
    /// A string.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// An array with names for keys.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Array(entries.into_iter().map(|(key, value)| (Self::text(key), value)).collect())
    }

    /// The member of an array called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Array(entries) = self else { return None };
        entries
            .iter()
            .find(|(key, _)| matches!(key, Self::Text(key) if key == name))
            .map(|it| &it.1)
    }

    /// A plain value as a string, as PHP prints it; `None` for arrays.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::Null | Self::Bool(false) => Some(String::new()),
            Self::Bool(true) => Some("1".into()),
            Self::Int(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Array(_) => None,
        }
    }

    /// JSON: an array whose keys are 0, 1, 2 … is a list, any other an object; an empty one `[]`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        self.write_json(&mut json);
        json
    }

    fn write_json(&self, json: &mut String) {
        match self {
            Self::Null => json.push_str("null"),
            Self::Bool(value) => _ = write!(json, "{value}"),
            Self::Int(number) => _ = write!(json, "{number}"),
            Self::Float(number) => json.push_str(&serde_json::Value::from(*number).to_string()),
            Self::Text(text) => json.push_str(&serde_json::Value::from(text.as_str()).to_string()),
            Self::Array(entries) => {
                let key = |json: &mut String, key: &str| Self::text(key).write_json(json);
                write_entries(json, entries, key, |json, value| value.write_json(json));
            }
        }
    }

    /// A JavaScript literal as the PHP module prints it: single quotes, numbers quoted, `null` as an
    /// empty string.
    #[must_use]
    pub fn to_literal(&self) -> String {
        let mut literal = String::new();
        self.write_literal(&mut literal);
        literal
    }

    fn write_literal(&self, literal: &mut String) {
        match self {
            Self::Null => literal.push_str("''"),
            Self::Bool(value) => _ = write!(literal, "{value}"),
            Self::Int(number) => _ = write!(literal, "'{number}'"),
            Self::Float(number) => _ = write!(literal, "'{number}'"),
            Self::Text(text) => write_quoted(literal, text),
            Self::Array(entries) => {
                write_entries(literal, entries, write_quoted, |literal, value| {
                    value.write_literal(literal);
                });
            }
        }
    }

    /// The form of PHP's `serialize`.
    #[must_use]
    pub fn serialize(&self) -> String {
        let mut text = String::new();
        self.write_serialized(&mut text);
        text
    }

    fn write_serialized(&self, into: &mut String) {
        match self {
            Self::Null => into.push_str("N;"),
            Self::Bool(value) => _ = write!(into, "b:{};", u8::from(*value)),
            Self::Int(number) => _ = write!(into, "i:{number};"),
            Self::Float(number) => _ = write!(into, "d:{number};"),
            Self::Text(text) => _ = write!(into, "s:{}:\"{text}\";", text.len()),
            Self::Array(entries) => {
                _ = write!(into, "a:{}:{{", entries.len());
                for (key, value) in entries {
                    key.write_serialized(into);
                    value.write_serialized(into);
                }
                into.push('}');
            }
        }
    }
}

/// A list, where the keys are 0, 1, 2 … or there are none; else an object.
fn write_entries(
    into: &mut String,
    entries: &[(Value, Value)],
    key: impl Fn(&mut String, &str),
    value: impl Fn(&mut String, &Value),
) {
    let is_list = (0_i64..).zip(entries).all(|(at, (key, _))| *key == Value::Int(at));
    into.push(if is_list { '[' } else { '{' });
    for (at, (name, entry)) in entries.iter().enumerate() {
        if at > 0 {
            into.push(',');
        }
        if !is_list {
            key(into, &name.to_text().unwrap_or_default());
            into.push(':');
        }
        value(into, entry);
    }
    into.push(if is_list { ']' } else { '}' });
}

/// A string between single quotes; nothing in it ends the quotes, the line or a script element.
fn write_quoted(literal: &mut String, text: &str) {
    literal.push('\'');
    let mut last = ' ';
    for letter in text.chars() {
        match letter {
            '\\' => literal.push_str("\\\\"),
            '\'' => literal.push_str("\\'"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\u{2028}' => literal.push_str("\\u2028"),
            '\u{2029}' => literal.push_str("\\u2029"),
            '/' if last == '<' => literal.push_str("\\/"),
            other => literal.push(other),
        }
        last = letter;
    }
    literal.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_php_reads_them() {
        for (text, number) in
            [("4", 4), (" 4abc", 4), ("-5", -5), ("abc", 0), ("", 0), ("+7", 7), ("-", 0)]
        {
            assert_eq!(intval(text), number, "{text}");
        }
        assert_eq!(intval("99999999999999999999"), i64::MAX);
    }

    #[test]
    fn a_literal_cannot_be_left_from_inside() {
        let value = Value::map([("A", Value::text("'\\\n</script>\u{2028}")), ("N", Value::Null)]);
        assert_eq!(value.to_literal(), r"{'A':'\'\\\n<\/script>\u2028','N':''}");
    }

    #[test]
    fn arrays_are_lists_or_objects_as_their_keys_are() {
        let list = |keys: [i64; 2]| {
            Value::Array(keys.into_iter().map(|key| (Value::Int(key), Value::Int(7))).collect())
        };
        assert_eq!(list([0, 1]).to_json(), "[7,7]");
        assert_eq!(list([1, 2]).to_json(), r#"{"1":7,"2":7}"#);
        assert_eq!(Value::Array(Vec::new()).to_json(), "[]");
    }
}
