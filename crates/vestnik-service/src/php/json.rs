//! JSON as values of PHP, members in their order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Value;

/// Reads JSON; of members with one name the last one counts.
///
/// # Errors
/// When it is no JSON, or nested too deep.
pub fn from_json(json: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(json)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "as PHP: what is too large becomes a float")]
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(value) = list.next_element()? {
            let at = i64::try_from(entries.len()).unwrap_or(i64::MAX);
            entries.push((Value::Int(at), value));
        }
        Ok(Value::Array(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Value, Value)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            // Names that are numbers are numbers in PHP.
            let key = match name.parse::<i64>() {
                Ok(number) if number.to_string() == name => Value::Int(number),
                _ => Value::text(&name),
            };
            match places.get(&name) {
                Some(&place) => {
                    let entry: &mut (Value, Value) = &mut entries[place];
                    entry.1 = value;
                }
                None => {
                    places.insert(name, entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Value::Array(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_and_becomes_what_php_makes_of_it() {
        let value = from_json(r#"{"b":[1,2.5,null],"a":{"7":"x"},"b2":true}"#).unwrap();
        assert_eq!(value.to_json(), r#"{"b":[1,2.5,null],"a":{"7":"x"},"b2":true}"#);
        assert_eq!(
            value.serialize(),
            r#"a:3:{s:1:"b";a:3:{i:0;i:1;i:1;d:2.5;i:2;N;}s:1:"a";a:1:{i:7;s:1:"x";}s:2:"b2";b:1;}"#
        );
        assert!(from_json(&"[".repeat(100_000)).is_err());
    }
}
