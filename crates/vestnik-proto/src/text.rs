//! Framed text of generations 3 and 4: `#!NGINXNMS!#{…}#!NGINXNME!#` (queue-server.md §7.2).

use bytes::Bytes;
use vestnik_core::ChannelId;
use vestnik_core::date;
use vestnik_core::message::{Encoding, Envelope};

use crate::body::{END_MARKER, START_MARKER, repaired, text_value};
use crate::quirks::ONLINE_SUBSCRIBERS;
use crate::websocket::{self, Opcode};

/// A complete WebSocket text frame with one event (K-013), made once for each message.
///
/// The event's keys are id, mid, channel, tag, time, text in this order (Q-122). `channel` is `-`
/// (Q-124), `tag` and `time` are those of the message's creation (Q-125, W-16).
#[must_use]
pub fn frame(envelope: &Envelope) -> &Bytes {
    envelope.frame(Encoding::Text, |envelope| {
        let head = head(envelope);
        let value = text_value(&envelope.body, &envelope.author);
        websocket::frame(
            Opcode::Text,
            &[
                START_MARKER.as_bytes(),
                head.as_bytes(),
                value.as_bytes(),
                b"}",
                END_MARKER.as_bytes(),
            ],
        )
    })
}

/// The event of [`frame`] without the frame: a poll's body is the concatenation of these (Q-127).
#[must_use]
pub fn record(envelope: &Envelope) -> Bytes {
    websocket::payload_of(frame(envelope))
}

/// The event that a text publish carries: its body, with U+FFFD for bytes that are no UTF-8
/// (queue-server.md §4.3).
#[must_use]
pub fn published_body(raw: Bytes) -> Bytes {
    repaired(raw)
}

/// The answer to `GET pub`: the `online` ones of the channels asked about, in the order and as often
/// as they were asked about (Q-077); without any `{"infos":[]}` (Q-078).
#[must_use]
pub fn presence(online: &[ChannelId]) -> String {
    let infos: Vec<String> = online
        .iter()
        .map(|id| format!(r#"{{"channel":"{id}","subscribers":{ONLINE_SUBSCRIBERS}}}"#))
        .collect();
    format!(r#"{{"infos":[{}]}}"#, infos.join(","))
}

/// The envelope up to and with `"text":`.
pub(crate) fn head(envelope: &Envelope) -> String {
    format!(
        r#"{{"id":{},"mid":"{}","channel":"-","tag":"{:03}","time":"{}","text":"#,
        envelope.id.seq(),
        envelope.id,
        envelope.created_ms % 1000,
        date::http(envelope.created_s()),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::{envelope, envelope_of};

    const RECORD: &str = concat!(
        r##"#!NGINXNMS!#{"id":3313,"mid":"17954873200000000000003313","channel":"-","##,
        r##""tag":"733","time":"Tue, 24 Nov 2026 02:36:07 GMT","text":{"a":1}}#!NGINXNME!#"##,
    );

    #[test]
    fn q_122_q_123_q_124_q_125_k_010_the_envelope_is_that_of_the_specification() {
        assert_eq!(record(&envelope(r#"{"a":1}"#)), RECORD);
    }

    #[test]
    fn k_013_a_frame_is_a_text_message_with_one_event_and_is_made_once() {
        let envelope = envelope(r#"{"a":1}"#);
        assert_eq!(frame(&envelope)[..4], [0x81, 126, 0, u8::try_from(RECORD.len()).unwrap()]);
        assert_eq!(frame(&envelope)[4..], *RECORD.as_bytes());
        assert_eq!(frame(&envelope).as_ptr(), frame(&envelope).as_ptr());
        assert_eq!(record(&envelope).as_ptr(), frame(&envelope)[4..].as_ptr());
    }

    #[test]
    fn q_127_events_of_a_poll_are_concatenated_records() {
        let body = [record(&envelope("1")), record(&envelope("2"))].concat();
        let body = String::from_utf8(body).unwrap();
        assert_eq!(body.matches(START_MARKER).count(), 2);
        assert!(body.contains("}#!NGINXNME!##!NGINXNMS!#{"));
    }

    #[test]
    fn q_077_q_078_presence_lists_the_online_ones_each_with_one_subscriber() {
        let id: ChannelId = "00112233445566778899aabbccddeeff".parse().unwrap();
        let info = r#"{"channel":"00112233445566778899aabbccddeeff","subscribers":1}"#;
        assert_eq!(presence(&[id, id]), format!(r#"{{"infos":[{info},{info}]}}"#));
        assert_eq!(presence(&[]), crate::quirks::EMPTY_PRESENCE);
    }

    #[test]
    fn a_published_body_is_utf8() {
        assert_eq!(published_body(Bytes::from_static(b"a\xff")), "a\u{fffd}");
        assert_eq!(published_body(Bytes::from_static(b"\xd0\x90")), "\u{410}");
    }

    #[test]
    fn q_125_w_016_tag_and_time_are_those_of_the_creation_and_a_tag_keeps_its_zeros() {
        let envelope = envelope_of(r#"{"a":1}"#, 1_700_000_000_007);
        let record = record(&envelope);
        let record = std::str::from_utf8(&record).unwrap();
        assert!(record.contains(r#""tag":"007","time":"Tue, 14 Nov 2023 22:13:20 GMT""#));
    }

    proptest! {
        #[test]
        fn any_body_gives_exactly_one_event(body: Vec<u8>, created_ms: u64) {
            let record = record(&envelope_of(body, created_ms));
            let text = std::str::from_utf8(&record).unwrap();
            prop_assert_eq!(text.matches(START_MARKER).count(), 1);
            prop_assert_eq!(text.matches(END_MARKER).count(), 1);
            let line_ends = ['\n', '\r', '\u{2028}', '\u{2029}'];
            prop_assert!(!text.contains(line_ends));
        }
    }
}
