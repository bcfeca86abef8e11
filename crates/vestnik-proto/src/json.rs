//! Plain JSON of `format=json`: an array of events (README D8, clients.md §5.4).

use bytes::Bytes;
use vestnik_core::message::{Encoding, Envelope};

use crate::body::{json_value, member};
use crate::text::head;
use crate::websocket::{self, Opcode};

/// A complete WebSocket text frame with an array of one event, made once for each message.
///
/// The event's keys are id, mid, channel, tag, time, text, extra; `extra` is that of the body or
/// `{}`. A body that is not JSON becomes a JSON string.
#[must_use]
pub fn frame(envelope: &Envelope) -> &Bytes {
    envelope.frame(Encoding::Json, |envelope| {
        let head = head(envelope);
        let value = json_value(&envelope.body);
        let extra = member(&value, "extra").unwrap_or("{}");
        websocket::frame(
            Opcode::Text,
            &[b"[", head.as_bytes(), value.as_bytes(), br#","extra":"#, extra.as_bytes(), b"}]"],
        )
    })
}

/// The event of [`frame`] as an array of one, without the frame.
#[must_use]
pub fn record(envelope: &Envelope) -> Bytes {
    websocket::payload_of(frame(envelope))
}

/// The event of [`frame`] without the array's brackets, to be joined with [`array`].
#[must_use]
pub fn element(envelope: &Envelope) -> Bytes {
    let record = record(envelope);
    record.slice(1..record.len() - 1)
}

/// The body of a poll: one array of all `elements`. None make an empty array, which is never to be
/// sent (K-015).
#[must_use]
pub fn array(elements: &[Bytes]) -> Bytes {
    let length = elements.iter().map(|element| element.len() + 1).sum::<usize>() + 2;
    let mut out = Vec::with_capacity(length);
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(element);
    }
    out.push(b']');
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::tests::{envelope, envelope_of};

    #[test]
    fn k_016_an_event_is_an_array_of_one_with_the_extra_of_its_body() {
        let body = r#"{"module_id":"im","extra":{"server_time":1.0}}"#;
        let expected = concat!(
            r#"[{"id":3313,"mid":"17954873200000000000003313","channel":"-","tag":"733","#,
            r#""time":"Tue, 24 Nov 2026 02:36:07 GMT","#,
            r#""text":{"module_id":"im","extra":{"server_time":1.0}},"#,
            r#""extra":{"server_time":1.0}}]"#,
        );
        let envelope = envelope(body);
        assert_eq!(record(&envelope), expected);
        assert_eq!(element(&envelope), expected[1..expected.len() - 1]);
        assert_eq!(frame(&envelope)[0], 0x81, "a text frame");
    }

    #[test]
    fn several_events_are_one_array() {
        let elements = [element(&envelope("1")), element(&envelope("two"))];
        let array: Value = serde_json::from_slice(&array(&elements)).unwrap();
        assert_eq!([&array[0]["text"], &array[1]["text"]], [&json!(1), &json!("two")]);
        assert_eq!(array[0]["extra"], json!({}));
    }

    proptest! {
        #[test]
        fn any_body_gives_an_array_of_one(body: Vec<u8>, created_ms: u64) {
            let record = record(&envelope_of(body, created_ms));
            let array: Value = serde_json::from_slice(&record).unwrap();
            prop_assert_eq!(array.as_array().map(Vec::len), Some(1));
        }
    }
}
