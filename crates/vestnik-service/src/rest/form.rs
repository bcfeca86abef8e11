//! Forms as PHP writes them: `a[b][]=1` becomes nested arrays.

use crate::php::Value;
use crate::rest::input::InputError;

/// Fields of one form.
const FIELDS_MAX: usize = 10_000;
/// How deep a name may be nested.
const DEPTH_MAX: usize = 16;

/// Reads a form; the text of a query as well.
///
/// # Errors
/// When there are too many fields, they are nested too deep, or a text is not UTF-8.
pub(crate) fn parse(form: &[u8]) -> Result<Value, InputError> {
    let mut root = Vec::new();
    let parts = form.split(|byte| *byte == b'&').filter(|part| !part.is_empty());
    for (count, part) in parts.enumerate() {
        if count >= FIELDS_MAX {
            return Err(InputError::TooMuch("fields"));
        }
        let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let name = decode(&part[..at]).map_err(|_| InputError::Encoding(String::new()))?;
        let value = decode(part.get(at + 1..).unwrap_or_default())
            .map_err(|_| InputError::Encoding(format!("/{name}")))?;
        put(&mut root, &keys(&name)?, value);
    }
    Ok(Value::Array(root))
}

/// The keys of a name: `a[b][]` is `a`, `b` and the next free number.
fn keys(name: &str) -> Result<Vec<&str>, InputError> {
    let Some((first, rest)) = name.split_once('[') else { return Ok(vec![name]) };
    let mut keys = vec![first];
    let mut rest = rest;
    while let Some((key, behind)) = rest.split_once(']') {
        keys.push(key);
        if keys.len() > DEPTH_MAX {
            return Err(InputError::TooMuch("nested names"));
        }
        match behind.strip_prefix('[') {
            Some(next) => rest = next,
            None => break,
        }
    }
    Ok(keys)
}

fn put(array: &mut Vec<(Value, Value)>, keys: &[&str], value: String) {
    let Some((key, deeper)) = keys.split_first() else { return };
    let key = match key.parse::<i64>() {
        _ if key.is_empty() => Value::Int(next(array)),
        // As PHP: `01` and `+1` are texts.
        Ok(number) if number.to_string() == **key => Value::Int(number),
        _ => Value::text(key),
    };
    // The last one is looked at first: fields of one list stand together.
    let place = array.iter().rposition(|(known, _)| *known == key);
    if deeper.is_empty() {
        match place {
            Some(place) => array[place].1 = Value::Text(value),
            None => array.push((key, Value::Text(value))),
        }
        return;
    }
    let place = place.unwrap_or_else(|| {
        array.push((key, Value::Array(Vec::new())));
        array.len() - 1
    });
    if !matches!(array[place].1, Value::Array(_)) {
        array[place].1 = Value::Array(Vec::new());
    }
    if let Value::Array(inner) = &mut array[place].1 {
        put(inner, deeper, value);
    }
}

/// The number that `[]` stands for: one above the last, since they come in order.
fn next(array: &[(Value, Value)]) -> i64 {
    let last = array.iter().rev().find_map(|(key, _)| match key {
        Value::Int(number) => Some(*number),
        _ => None,
    });
    last.map_or(0, |last| last.saturating_add(1))
}

fn decode(text: &[u8]) -> Result<String, std::string::FromUtf8Error> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        match (byte, digit(text.get(at)), digit(text.get(at + 1))) {
            (b'+', ..) => bytes.push(b' '),
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                at += 2;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(form: &str) -> String {
        parse(form.as_bytes()).unwrap().to_json()
    }

    #[test]
    fn names_in_brackets_are_nested() {
        assert_eq!(
            json("a=1&b[]=x&b[]=y&c[k][0]=%D1%8F+z"),
            r#"{"a":"1","b":["x","y"],"c":{"k":["я z"]}}"#
        );
        assert_eq!(json("u[7]=a&u[9]=b"), r#"{"u":{"7":"a","9":"b"}}"#);
        assert_eq!(json("a=1&a=2&a[x]=3"), r#"{"a":{"x":"3"}}"#);
        assert_eq!(json(""), "[]");
        assert!(matches!(parse(b"k[0]=%FF"), Err(InputError::Encoding(path)) if path == "/k[0]"));
        let deep = format!("a{}=1", "[x]".repeat(20));
        assert!(matches!(parse(deep.as_bytes()), Err(InputError::TooMuch(_))));
        let many = "a[]=1&".repeat(FIELDS_MAX + 1);
        assert!(matches!(parse(many.as_bytes()), Err(InputError::TooMuch(_))));
    }

    proptest! {
        #[test]
        fn no_form_makes_the_reader_panic(form in "[a-z\\[\\]=&%0-9+]{0,100}") {
            if let Ok(value) = parse(form.as_bytes()) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&value.to_json()).is_ok());
            }
        }
    }
}
