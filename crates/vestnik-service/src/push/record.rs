//! One notification for one device, as the services of Apple, Google and Huawei get it from the PHP module
//! (mobile-push.md §9): byte for byte, unless it is too long. Then it is shortened between characters, and
//! one that cannot be shortened enough is none.

use super::device::Platform;
use crate::php::{Escapes, Value};

/// Bytes of the JSON text of a record.
const BYTES_MAX: usize = 4096;
/// Digits of a token of Apple.
const APPLE_TOKEN_LENGTH: usize = 64;
/// Seconds a notification is worth sending that does not say how long.
const EXPIRY_S: i64 = 7200;
/// The same where it says nonsense.
const NEGATIVE_EXPIRY_S: i64 = 14_400;

/// A notification of one user, ready to be sent to any device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The heading.
    pub title: String,
    /// What it says; empty: data and badge alone.
    pub text: String,
    /// The file of a sound; heard only with a text.
    pub sound: String,
    /// What can be done with it.
    pub category: Option<String>,
    /// Seconds it is worth sending; 0: now or never.
    pub expiry_s: Option<i64>,
    /// The number on the badge, if it is known.
    pub badge: Option<i64>,
    /// What the application gets as `params`.
    pub params: Option<String>,
    /// More for the application, by name.
    pub advanced: Vec<(String, Value)>,
    /// Which account of the device it is for, without saying who that is.
    pub target: String,
}

impl Message {
    /// Seconds it is worth sending.
    #[must_use]
    pub fn life_s(&self) -> i64 {
        match self.expiry_s {
            None => EXPIRY_S,
            Some(..0) => NEGATIVE_EXPIRY_S,
            Some(seconds) => seconds,
        }
    }

    /// A text among what is more.
    fn advanced_text(&self, name: &str) -> Option<String> {
        self.advanced.iter().find(|(known, _)| known == name).and_then(|(_, it)| it.to_text())
    }

    /// Whether there is something more of this name that says something.
    pub(super) fn has(&self, name: &str) -> bool {
        self.advanced_text(name).is_some_and(|text| !text.is_empty() && text != "0")
    }

    /// What goes to applications beside the usual members; `without` stays behind.
    fn custom(&self, without: &[&str]) -> Vec<(Value, Value)> {
        let params = self.params.iter().map(|params| ("params", Value::text(params)));
        // A name is there once; those of the module are the module's.
        let is_own = |name: &str| name == "target" || (name == "params" && self.params.is_some());
        let advanced = self.advanced.iter().filter(|(name, _)| !is_own(name));
        let advanced = advanced.map(|(name, value)| (name.as_str(), value.clone()));
        params
            .chain(advanced)
            .filter(|(name, _)| !without.contains(name))
            .chain([("target", Value::text(&self.target))])
            .map(|(name, value)| (Value::text(name), value))
            .collect()
    }
}

/// The record of a message for a device of this platform, base64 text; `now_s` is what times are counted from
/// and `number` any number up to 10,000. `None` where the platform does not take such a message.
pub(super) fn record(
    message: &Message,
    platform: Platform,
    token: &str,
    now_s: u64,
    number: u16,
) -> Option<String> {
    match platform {
        Platform::Apple | Platform::AppleVoip => {
            if token.len() != APPLE_TOKEN_LENGTH {
                return None;
            }
            let is_call = platform == Platform::AppleVoip;
            // It names who wrote no more: without a name there is nothing to show.
            if !is_call && message.has("senderMessage") && !message.has("senderName") {
                return None;
            }
            let json = apple(message, is_call)?;
            Some(super::base64(&frame(message, token, now_s, number, &json)))
        }
        Platform::Google if message.text.trim().is_empty() => None,
        Platform::Google | Platform::Firebase | Platform::Huawei => {
            let json = shortest(&said(message), |said| other(message, platform, token, said))?;
            let head =
                format!("Content-type: application/json\r\nContent-length: {}\r\n\r\n", json.len());
            Some(super::base64(format!("{head}{json}").as_bytes()))
        }
    }
}

/// The text that is shortened: what the sender says, or the message itself.
fn said(message: &Message) -> String {
    let said = message.advanced_text("senderMessage");
    said.unwrap_or_else(|| message.text.clone())
}

/// What `build` makes of as much of `text` as fits; `None` if nothing of it does.
fn shortest(text: &str, build: impl Fn(&str) -> String) -> Option<String> {
    // No letter is written with less than its own bytes.
    let end = (0..=BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let text = &text[..end.unwrap_or(0)];
    let whole = build(text);
    if whole.len() <= BYTES_MAX {
        return Some(whole);
    }
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let fitting = ends.partition_point(|end| build(&text[..*end]).len() <= BYTES_MAX);
    Some(build(&text[..ends[fitting.checked_sub(1)?]]))
}

fn apple(message: &Message, is_call: bool) -> Option<String> {
    let sender_says = message.advanced_text("senderMessage");
    // A call shows its own text: who calls is told to the application.
    let is_said = !is_call && sender_says.is_some();
    let body = match sender_says {
        Some(said) if !is_call => said,
        Some(_) => String::new(),
        None => message.text.clone(),
    };
    let title = message.advanced_text("senderName").filter(|_| !is_call);
    let mut taken = vec!["aps"];
    if is_said {
        taken.push("senderMessage");
    }
    if title.is_some() {
        taken.push("senderName");
    }
    let title = title.unwrap_or_else(|| message.title.clone());
    let custom = message.custom(&taken);
    shortest(&body, |body| {
        let mut aps = Vec::new();
        let mut add = |name: &str, value: Value| aps.push((Value::text(name), value));
        if body.is_empty() {
            add("content-available", Value::Int(1));
        } else {
            let alert = [("body", Value::text(body)), ("title", Value::text(&title))];
            add("alert", if is_call { Value::text(body) } else { Value::map(alert) });
            add("mutable-content", Value::Int(1));
        }
        if let Some(category) = &message.category {
            add("category", Value::text(category));
        }
        if let Some(badge) = message.badge.filter(|badge| *badge >= 0) {
            add("badge", Value::Int(badge));
        }
        if !message.sound.is_empty() && !message.text.is_empty() {
            add("sound", Value::text(&message.sound));
        }
        let members = [(Value::text("aps"), Value::Array(aps))].into_iter().chain(custom.clone());
        Value::Array(members.collect()).to_php_json(Escapes::MARKUP)
    })
}

/// Apple's frame: big-endian, with the moment it expires.
fn frame(message: &Message, token: &str, now_s: u64, number: u16, json: &str) -> Vec<u8> {
    let life_s = u64::try_from(message.life_s()).unwrap_or(0);
    let end_s = if life_s == 0 { 0 } else { now_s + life_s };
    let mut frame = vec![1];
    frame.extend(u32::from(number).to_be_bytes());
    frame.extend(u32::try_from(end_s).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend([0, 32]);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let nibble = |byte: u8| digit(byte).unwrap_or(0);
    frame.extend(token.as_bytes().chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])));
    // At most `BYTES_MAX`.
    frame.extend(u16::try_from(json.len()).unwrap_or(u16::MAX).to_be_bytes());
    frame.extend(json.as_bytes());
    frame
}

/// The JSON for everybody but Apple, with `said` in the place of what is shortened.
fn other(message: &Message, platform: Platform, token: &str, said: &str) -> String {
    let may = |text: &str| if text.is_empty() { Value::Null } else { Value::text(text) };
    let mut custom = message.custom(&[]);
    let sender_says = custom.iter_mut().find(|(name, _)| *name == Value::text("senderMessage"));
    let text = match sender_says {
        Some((_, sender_says)) => {
            *sender_says = Value::text(said);
            Value::text("")
        }
        None => may(said),
    };
    let custom = Value::Array(custom);
    let sound = if message.text.is_empty() { "" } else { &message.sound };
    let badge = message.badge.filter(|badge| *badge >= 0);
    let number = badge.map_or(Value::Null, Value::Int);
    let digits = Value::Text(badge.map(|badge| badge.to_string()).unwrap_or_default());
    let (badge, custom) = match platform {
        Platform::Firebase => (digits, Value::Text(custom.to_php_json(Escapes::MARKUP))),
        _ => (number, custom),
    };
    let data = Value::map([
        ("contentTitle", may(&message.title)),
        ("contentText", text),
        ("badge", badge),
        ("messageParams", custom),
        ("category", message.category.as_deref().map_or(Value::Null, Value::text)),
        ("sound", Value::text(sound)),
    ]);
    let list = |token| Value::Array(vec![(Value::Int(0), Value::text(token))]);
    let life_s = message.life_s();
    let ttl = |text: String| ("ttl", Value::Text(text));
    let whole = match platform {
        Platform::Firebase => Value::map([(
            "message",
            Value::map([
                ("data", data),
                (
                    "android",
                    Value::map([ttl(format!("{life_s}s")), ("priority", Value::text("high"))]),
                ),
                ("token", Value::text(token)),
            ]),
        )]),
        Platform::Huawei => Value::map([(
            "message",
            Value::map([
                ("data", Value::Text(data.to_php_json(Escapes::MARKUP))),
                ("android", Value::map([ttl(life_s.to_string())])),
                ("token", list(token)),
            ]),
        )]),
        _ => Value::map([
            ("data", data),
            ("time_to_live", Value::Int(life_s)),
            ("priority", Value::text("high")),
            ("registration_ids", list(token)),
        ]),
    };
    whole.to_php_json(Escapes::FEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "fd555a5cd2c23b2ef90876f6a875ed06";
    const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const NOW_S: u64 = 1_800_000_000;

    fn message() -> Message {
        Message {
            text: "Hi".into(),
            expiry_s: Some(43_200),
            badge: Some(2),
            params: Some(r#"{"TAG":"IM_CHAT_5"}"#.into()),
            advanced: [("senderName", "Ann"), ("senderMessage", "Hi"), ("id", "IM_MESS")]
                .map(|(name, text)| (name.to_owned(), Value::text(text)))
                .into(),
            target: TARGET.into(),
            ..Message::default()
        }
    }

    fn body(record: &str) -> String {
        let text = String::from_utf8(super::super::from_base64(record)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let head = head.strip_prefix("Content-type: application/json\r\nContent-length: ").unwrap();
        assert_eq!(head.parse(), Ok(body.len()));
        body.to_owned()
    }

    #[test]
    fn m_090_apple_gets_the_bytes_of_the_php_module() {
        let one = record(&message(), Platform::Apple, TOKEN, NOW_S, 0x1234).unwrap();
        assert_eq!(
            one,
            "AQAAEjRrSnrAACAAESIzRFVmd4iZqrvM3e7/ABEiM0RVZneImaq7zN3u/wC5eyJhcHMiOnsiYWxlcnQiOnsiYm9keSI6IkhpIiwidGl0bGUiOiJBbm4ifSwibXV0YWJsZS1jb250ZW50IjoxLCJiYWRnZSI6Mn0sInBhcmFtcyI6IntcdTAwMjJUQUdcdTAwMjI6XHUwMDIySU1fQ0hBVF81XHUwMDIyfSIsImlkIjoiSU1fTUVTUyIsInRhcmdldCI6ImZkNTU1YTVjZDJjMjNiMmVmOTA4NzZmNmE4NzVlZDA2In0="
        );
        let quiet = Message {
            badge: Some(3),
            expiry_s: Some(43_200),
            target: TARGET.into(),
            ..Message::default()
        };
        let two = record(&quiet, Platform::Apple, TOKEN, NOW_S, 0x1234).unwrap();
        assert_eq!(
            two,
            "AQAAEjRrSnrAACAAESIzRFVmd4iZqrvM3e7/ABEiM0RVZneImaq7zN3u/wBVeyJhcHMiOnsiY29udGVudC1hdmFpbGFibGUiOjEsImJhZGdlIjozfSwidGFyZ2V0IjoiZmQ1NTVhNWNkMmMyM2IyZWY5MDg3NmY2YTg3NWVkMDYifQ=="
        );
        let call = Message {
            text: "Ann calls".into(),
            sound: "call.aif".into(),
            expiry_s: Some(0),
            badge: Some(2),
            advanced: vec![
                ("id".into(), Value::text("IM_CALL_9")),
                (
                    "notificationsToCancel".into(),
                    Value::Array(vec![(Value::Int(0), Value::text("IM_CALL_9"))]),
                ),
                ("isVoip".into(), Value::Bool(true)),
                ("callkit".into(), Value::Bool(true)),
            ],
            target: TARGET.into(),
            ..Message::default()
        };
        let token = "ffeeddccbbaa99887766554433221100".repeat(2);
        let three = record(&call, Platform::AppleVoip, &token, NOW_S, 0x1234).unwrap();
        assert!(
            three.starts_with(
                "AQAAEjQAAAAAACD/7t3Mu6qZiHdmVUQzIhEA/+7dzLuqmYh3ZlVEMyIRAADOeyJhcHMi"
            ),
            "{three}"
        );
        assert_eq!(super::super::from_base64(&three).len(), 251);
    }

    #[test]
    fn m_090_google_and_huawei_get_the_texts_of_the_php_module() {
        let of = |platform| body(&record(&message(), platform, "TOK:1", NOW_S, 1).unwrap());
        assert_eq!(
            of(Platform::Firebase),
            r#"{"message":{"data":{"contentTitle":null,"contentText":"","badge":"2","messageParams":"{\"params\":\"{\\u0022TAG\\u0022:\\u0022IM_CHAT_5\\u0022}\",\"senderName\":\"Ann\",\"senderMessage\":\"Hi\",\"id\":\"IM_MESS\",\"target\":\"fd555a5cd2c23b2ef90876f6a875ed06\"}","category":null,"sound":""},"android":{"ttl":"43200s","priority":"high"},"token":"TOK:1"}}"#
        );
        assert_eq!(
            of(Platform::Google),
            r#"{"data":{"contentTitle":null,"contentText":"","badge":2,"messageParams":{"params":"{\"TAG\":\"IM_CHAT_5\"}","senderName":"Ann","senderMessage":"Hi","id":"IM_MESS","target":"fd555a5cd2c23b2ef90876f6a875ed06"},"category":null,"sound":""},"time_to_live":43200,"priority":"high","registration_ids":["TOK:1"]}"#
        );
        assert_eq!(
            of(Platform::Huawei),
            r#"{"message":{"data":"{\"contentTitle\":null,\"contentText\":\"\",\"badge\":2,\"messageParams\":{\"params\":\"{\\u0022TAG\\u0022:\\u0022IM_CHAT_5\\u0022}\",\"senderName\":\"Ann\",\"senderMessage\":\"Hi\",\"id\":\"IM_MESS\",\"target\":\"fd555a5cd2c23b2ef90876f6a875ed06\"},\"category\":null,\"sound\":\"\"}","android":{"ttl":"43200"},"token":["TOK:1"]}}"#
        );
    }

    #[test]
    fn m_090_what_a_platform_does_not_take_is_no_record() {
        let quiet = Message { target: TARGET.into(), ..Message::default() };
        assert_eq!(record(&quiet, Platform::Google, "T", NOW_S, 1), None);
        assert_eq!(record(&message(), Platform::Apple, "abc", NOW_S, 1), None);
        let mut nameless = message();
        nameless.advanced.remove(0);
        assert_eq!(record(&nameless, Platform::Apple, TOKEN, NOW_S, 1), None);
        assert!(record(&nameless, Platform::AppleVoip, TOKEN, NOW_S, 1).is_some());
    }

    #[test]
    fn a_long_text_is_shortened_between_characters_and_never_lost() {
        for letter in ["я", "\"", "a", "😀"] {
            let mut long = message();
            let text = letter.repeat(5000);
            long.text = text.clone();
            long.advanced[1].1 = Value::Text(text);
            let frame = record(&long, Platform::Apple, TOKEN, NOW_S, 1).unwrap();
            let length = super::super::from_base64(&frame).len() - 45;
            assert!((4080..=4096).contains(&length), "{letter}: {length}");
            for platform in [Platform::Firebase, Platform::Google, Platform::Huawei] {
                let json = body(&record(&long, platform, "TOK:1", NOW_S, 1).unwrap());
                assert!((4080..=4096).contains(&json.len()), "{letter}: {}", json.len());
                let read: serde_json::Value = serde_json::from_str(&json).unwrap();
                assert!(read.is_object());
            }
        }
        let mut hopeless = message();
        hopeless.params = Some("x".repeat(5000));
        assert_eq!(record(&hopeless, Platform::Apple, TOKEN, NOW_S, 1), None);
    }
}
