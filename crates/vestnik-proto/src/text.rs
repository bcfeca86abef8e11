//! Framed text of generations 3 and 4: `#!NGINXNMS!#{…}#!NGINXNME!#` (queue-server.md §7.2).

use bytes::Bytes;
use vestnik_core::ChannelId;
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
        http_date(envelope.created_s()),
    )
}

/// Unix seconds as an RFC 1123 date, for instance `Tue, 24 Nov 2026 02:36:07 GMT`. Seconds after
/// the year 9999 show its end.
#[must_use]
pub fn http_date(unix_s: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let unix_s = unix_s.min(LAST_SECOND);
    let Date { year, month, day, second } = Date::of(unix_s);
    let pick = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        pick(&DAYS, unix_s / 86_400 % 7),
        pick(&MONTHS, month - 1),
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// Unix seconds as PHP's ATOM date, for instance `2026-11-24T02:36:07+00:00`.
pub(crate) fn atom_date(unix_s: u64) -> String {
    let Date { year, month, day, second } = Date::of(unix_s.min(LAST_SECOND));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}+00:00")
}

/// The end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A date in UTC.
struct Date {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    /// Of the day.
    second: u64,
}

impl Date {
    fn of(unix_s: u64) -> Self {
        let (days, second) = (unix_s / 86_400, unix_s % 86_400);
        // Counted from 1 March of year 0, so that the leap day ends a year (the algorithm of
        // H. Hinnant's `civil_from_days`).
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let year = year_of_era + era * 400 + u64::from(month >= 10);
        Self { year, month: (month + 2) % 12 + 1, day, second }
    }
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

    #[test]
    fn dates_know_leap_years_and_centuries() {
        for (unix_s, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (94_734_661, "Mon, 01 Jan 1973 11:11:01 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix_s), expected);
        }
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
