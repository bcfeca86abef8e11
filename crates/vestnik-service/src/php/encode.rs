//! JSON text byte for byte as PHP writes it, which whoever compares, signs or limits such text rests on.

use std::fmt::Write as _;

use super::{Value, write_entries};

/// Which letters are written as `\u` and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escapes {
    /// `<`, `>`, `&`, `'` and `"`.
    pub markup: bool,
    /// Everything beyond ASCII.
    pub foreign: bool,
}

impl Escapes {
    /// None that need not be.
    pub const FEW: Self = Self { markup: false, foreign: false };
    /// Those that mean something in HTML.
    pub const MARKUP: Self = Self { markup: true, foreign: false };
    /// Those beyond ASCII: what PHP does unless told otherwise.
    pub const FOREIGN: Self = Self { markup: false, foreign: true };
}

impl Value {
    /// The text that PHP's `json_encode` gives with these escapes.
    #[must_use]
    pub fn to_php_json(&self, escapes: Escapes) -> String {
        let mut json = String::new();
        self.write_php_json(&mut json, escapes);
        json
    }

    fn write_php_json(&self, json: &mut String, escapes: Escapes) {
        match self {
            Self::Null => json.push_str("null"),
            Self::Bool(value) => _ = write!(json, "{value}"),
            Self::Int(number) => _ = write!(json, "{number}"),
            Self::Float(number) => write_float(json, *number),
            Self::Text(text) => write_text(json, text, escapes),
            Self::Array(entries) => {
                let key = |json: &mut String, key: &str| write_text(json, key, escapes);
                write_entries(json, entries, key, |json, value| {
                    value.write_php_json(json, escapes);
                });
            }
        }
    }
}

fn write_text(json: &mut String, text: &str, escapes: Escapes) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '\'' | '"' if escapes.markup => {
                _ = write!(json, "\\u{:04X}", u32::from(letter));
            }
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '/' => json.push_str("\\/"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                _ = write!(json, "\\u{:04x}", u32::from(letter));
            }
            _ if escapes.foreign && !letter.is_ascii() => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    _ = write!(json, "\\u{unit:04x}");
                }
            }
            _ => json.push(letter),
        }
    }
    json.push('"');
}

/// The shortest digits that read back as the same number; with an exponent beyond 17 digits before the
/// point or four zeros behind it.
fn write_float(json: &mut String, number: f64) {
    if !number.is_finite() {
        json.push('0');
        return;
    }
    let exact = format!("{number:e}");
    let (digits, exponent) = exact.split_once('e').unwrap_or((&exact, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..17).contains(&exponent) {
        _ = write!(json, "{number}");
        return;
    }
    json.push_str(digits);
    if !digits.contains('.') {
        json.push_str(".0");
    }
    _ = write!(json, "e{}{}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
}
