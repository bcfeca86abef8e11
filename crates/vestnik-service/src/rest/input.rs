//! What a call brings: the fields of one JSON object or form. Names in any case, with or without
//! underscores; lists and objects also as texts that hold JSON (M-086).

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::failure::RestError;
use super::form;
use crate::event::Params;

/// Bytes of one input.
pub const INPUT_BYTES_MAX: usize = 16 << 20;
/// Fields of one input.
const FIELDS_MAX: usize = 1000;
/// Items of one list.
const ITEMS_MAX: usize = 100_000;

/// Text that is no input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// It is neither a JSON object nor a form.
    #[error("the body is no JSON object: {0}")]
    Json(String),
    /// A text in it is not UTF-8; where, as `/params/k/0`.
    #[error("a text is not UTF-8: {0}")]
    Encoding(String),
    /// Over a limit.
    #[error("too many {0}")]
    TooMuch(&'static str),
}

impl From<InputError> for RestError {
    fn from(error: InputError) -> Self {
        let (status, code) = match error {
            InputError::Json(_) => (400, "INVALID_REQUEST"),
            InputError::Encoding(_) => (400, "EVENT_BAD_ENCODING"),
            InputError::TooMuch(_) => (413, "TOO_LARGE"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// The fields of a call, by name.
#[derive(Debug, Default)]
pub struct Input(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Input;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Input, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.len() >= FIELDS_MAX {
                        return Err(serde::de::Error::custom("too many fields"));
                    }
                    fields.push((plain(&name), value));
                }
                Ok(Input(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A name as it is compared.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|letter| *letter != '_').map(|letter| letter.to_ascii_lowercase()).collect()
}

impl Input {
    /// Reads a JSON object; of an empty body the empty one.
    ///
    /// # Errors
    /// When it is too long, no JSON object, or not UTF-8.
    pub fn of_json(body: &[u8]) -> Result<Self, InputError> {
        if body.len() > INPUT_BYTES_MAX {
            return Err(InputError::TooMuch("bytes"));
        }
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            Err(_) => return Err(InputError::Encoding(bad_place(body))),
        };
        // PHP writes an empty array where there are no fields.
        if text.trim() == "[]" {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|error| InputError::Json(error.to_string()))
    }

    /// Reads a form.
    ///
    /// # Errors
    /// When it is too long, has too many fields, or is not UTF-8.
    pub fn of_form(body: &[u8]) -> Result<Self, InputError> {
        if body.len() > INPUT_BYTES_MAX {
            return Err(InputError::TooMuch("bytes"));
        }
        let json = form::parse(body)?.to_json();
        Self::of_json(json.as_bytes())
    }

    /// The fields, by their plain names.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// A field; of repeated ones the last. `null` is none.
    pub(crate) fn raw(&self, name: &str) -> Option<&RawValue> {
        let name = plain(name);
        let found = self.0.iter().rfind(|(known, _)| *known == name)?;
        (found.1.get() != "null").then_some(&*found.1)
    }

    /// A text; numbers and switches are taken as PHP prints them.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, RestError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        text_of(raw).map(Some).ok_or_else(|| RestError::argument(name, "a text"))
    }

    /// A text, if it is there and is one.
    #[must_use]
    pub fn plain_text(&self, name: &str) -> Option<String> {
        self.raw(name).and_then(text_of)
    }

    /// With a text beside what is there; it wins.
    #[must_use]
    pub fn with(mut self, name: &str, text: &str) -> Self {
        let json = serde_json::Value::from(text).to_string();
        // The text of a JSON string is JSON.
        if let Ok(raw) = RawValue::from_string(json) {
            self.0.push((plain(name), raw));
        }
        self
    }

    /// A text that must be there and not be empty.
    pub(crate) fn needed_text(&self, name: &str) -> Result<String, RestError> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| RestError::missing(name))
    }

    /// A whole number; one in a text as well, an empty text is none.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, RestError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if raw.get() == "\"\"" {
            return Ok(None);
        }
        let number = number_of(raw);
        number.map(Some).ok_or_else(|| RestError::argument(name, "a whole number"))
    }

    /// `true`, `Y`, `1`, or their opposites; in any case.
    pub(crate) fn switch(&self, name: &str) -> Result<Option<bool>, RestError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "y" | "1" | "true" => Ok(Some(true)),
            "n" | "0" | "false" | "" => Ok(Some(false)),
            _ => Err(RestError::argument(name, "`Y` or `N`")),
        }
    }

    /// The items of a list; a single value is a list of one, an object its values.
    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<Box<RawValue>>>, RestError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let items = items_of(raw).ok_or_else(|| RestError::argument(name, "a list"))?;
        if items.len() > ITEMS_MAX {
            return Err(RestError::argument(name, "at most 100000 items"));
        }
        Ok(Some(items))
    }

    /// A list of whole numbers.
    pub(crate) fn numbers(&self, name: &str) -> Result<Option<Vec<i64>>, RestError> {
        let Some(items) = self.list(name)? else { return Ok(None) };
        let numbers: Option<Vec<i64>> = items.iter().map(|item| number_of(item)).collect();
        numbers.map(Some).ok_or_else(|| RestError::argument(name, "a list of whole numbers"))
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, RestError> {
        let Some(items) = self.list(name)? else { return Ok(None) };
        let texts: Option<Vec<String>> = items.iter().map(|item| text_of(item)).collect();
        texts.map(Some).ok_or_else(|| RestError::argument(name, "a list of texts"))
    }

    /// An object or a list, its text untouched; anything else is an empty one.
    pub(crate) fn params(&self, name: &str) -> Result<Params, RestError> {
        let Some(raw) = self.raw(name) else { return Ok(Params::default()) };
        let unpacked = packed(raw);
        let json = unpacked.as_deref().unwrap_or(raw).get();
        Params::parse(json).map_err(|_| RestError::argument(name, "an object"))
    }

    /// The fields of an object.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Params>, RestError> {
        if self.raw(name).is_none() { Ok(None) } else { self.params(name).map(Some) }
    }
}

/// JSON in a text: what it holds, when that is an object or a list.
fn packed(raw: &RawValue) -> Option<Box<RawValue>> {
    if !raw.get().starts_with('"') {
        return None;
    }
    let text: String = serde_json::from_str(raw.get()).ok()?;
    text.trim_start().starts_with(['{', '[']).then(|| RawValue::from_string(text).ok()).flatten()
}

/// The items of a list, the values of an object, or the single value.
pub(crate) fn items_of(raw: &RawValue) -> Option<Vec<Box<RawValue>>> {
    let unpacked = packed(raw);
    let raw = unpacked.as_deref().unwrap_or(raw);
    match raw.get().as_bytes().first()? {
        b'[' => serde_json::from_str(raw.get()).ok(),
        b'{' => {
            let input: Input = serde_json::from_str(raw.get()).ok()?;
            Some(input.0.into_iter().map(|(_, value)| value).collect())
        }
        // An empty text is how forms write an empty list.
        b'"' if raw.get() == "\"\"" => Some(Vec::new()),
        _ => Some(vec![raw.to_owned()]),
    }
}

/// A plain value as a text.
pub(crate) fn text_of(raw: &RawValue) -> Option<String> {
    let json = raw.get();
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b't' => Some("1".into()),
        b'f' | b'n' => Some(String::new()),
        b'{' | b'[' => None,
        _ => Some(json.to_owned()),
    }
}

/// A whole number, also in a text.
pub(crate) fn number_of(raw: &RawValue) -> Option<i64> {
    text_of(raw)?.trim().parse().ok()
}

/// Where in a JSON document the first text is that is not UTF-8: its keys, as `/params/k/0`.
fn bad_place(body: &[u8]) -> String {
    /// No character of Unicode, so that nothing else in the document is it.
    const MARK: char = '\u{FDD0}';
    let mut marked = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        marked.extend(chunk.valid().chars().filter(|letter| *letter != MARK));
        if !chunk.invalid().is_empty() {
            marked.push(MARK);
        }
    }
    let Ok(document) = serde_json::from_str::<serde_json::Value>(&marked) else {
        return "/".to_owned();
    };
    let mut path = String::new();
    if find_mark(&document, MARK, &mut path) { path } else { "/".to_owned() }
}

fn find_mark(value: &serde_json::Value, mark: char, path: &mut String) -> bool {
    use serde_json::Value;
    let length = path.len();
    let mut below = |key: &str, value: &Value| {
        path.push('/');
        path.extend(key.chars().map(|letter| if letter == mark { '?' } else { letter }));
        if key.contains(mark) || find_mark(value, mark, path) {
            return true;
        }
        path.truncate(length);
        false
    };
    match value {
        Value::String(text) => text.contains(mark),
        Value::Array(items) => {
            items.iter().enumerate().any(|(at, item)| below(&at.to_string(), item))
        }
        Value::Object(members) => members.iter().any(|(key, item)| below(key, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m_086_names_come_in_any_case_and_lists_also_as_json_in_a_text() {
        let input = Input::of_json(
            br#"{"USER_ID":"7","tags":"[\"a\",\"b\"]","groupId":5,"Cache":"N","users":[1,"2"],"x":null}"#,
        )
        .unwrap();
        assert_eq!(input.number("user_id"), Ok(Some(7)));
        assert_eq!(input.number("userId"), Ok(Some(7)));
        assert_eq!(input.texts("TAGS"), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(input.text("group_id"), Ok(Some("5".into())));
        assert_eq!(input.switch("CACHE"), Ok(Some(false)));
        assert_eq!(input.numbers("users"), Ok(Some(vec![1, 2])));
        assert_eq!(input.text("x"), Ok(None));
        assert_eq!(input.number("tags").unwrap_err().code, "ERROR_ARGUMENT");
        let form = Input::of_form(b"USERS[]=1&USERS[]=2&PARAMS[a]=b").unwrap();
        assert_eq!(form.numbers("users"), Ok(Some(vec![1, 2])));
        assert_eq!(form.params("params").unwrap().to_json(), r#"{"a":"b"}"#);
    }

    #[test]
    fn m_049_bad_utf_8_is_refused_with_its_path() {
        let place = |body: &[u8]| match Input::of_json(body) {
            Err(InputError::Encoding(path)) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(place(b"{\"params\":{\"a\":1,\"k\":[\"\xff\"]}}"), "/params/k/0");
        assert_eq!(place(b"{\"command\":\"\xc3\x28\"}"), "/command");
        assert_eq!(place(b"{\"a\xff\":1}"), "/a?");
        assert_eq!(place(b"\xff"), "/");
        let error: RestError = InputError::Encoding("/params/k/0".into()).into();
        assert_eq!((error.code.as_ref(), error.status), ("EVENT_BAD_ENCODING", 400));
        assert!(error.text.contains("/params/k/0"));
    }

    #[test]
    fn what_is_no_object_is_no_input() {
        for bad in ["1", "\"a\"", "[1]", "{", "{\"a\":}", "nonsense"] {
            assert!(matches!(Input::of_json(bad.as_bytes()), Err(InputError::Json(_))), "{bad}");
        }
        for empty in ["", "  ", "[]", "{}"] {
            assert!(Input::of_json(empty.as_bytes()).unwrap().0.is_empty());
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let input = Input::of_json(deep.as_bytes());
        assert!(input.is_err() || input.unwrap().numbers("a").is_err(), "no stack overflows");
    }
}
