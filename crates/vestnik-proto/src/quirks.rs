//! Every named quirk: behaviour nobody would design, but someone relies on.
//!
//! Each variant has a fixture of its name in `fixtures/quirks/`; a test checks both directions. The
//! constants are the literals that the quirks prescribe, for whoever writes them to the wire.

/// Value of `Expires` on a poll that timed out ([`Quirk::PollTimeoutExpires1973`]).
pub const POLL_TIMEOUT_EXPIRES: &str = "Thu, 01 Jan 1973 11:11:01 GMT";
/// Payload of the server's pings ([`Quirk::PingPayload`]).
pub const PING_PAYLOAD: &[u8] = b"ws ping";
/// Answer to a presence question when nobody is online ([`Quirk::EmptyPresenceText`]).
pub const EMPTY_PRESENCE: &str = r#"{"infos":[]}"#;
/// Value of `subscribers` of every online channel ([`Quirk::SubscribersAlwaysOne`]).
pub const ONLINE_SUBSCRIBERS: u32 = 1;
/// Body of a refused poll ([`Quirk::RefusalsDiffer`]); headers as in queue-server.md §4.7.
pub const POLL_REFUSAL: &str = "4010: Wrong Channel Id.";
/// Body of a refused handshake ([`Quirk::RefusalsDiffer`]).
pub const HANDSHAKE_REFUSAL: &str = "Wrong Channel Id.";
/// Header lines of a refused handshake besides the length, as they are spelled
/// ([`Quirk::RefusalsDiffer`]).
pub const HANDSHAKE_REFUSAL_HEADERS: &str = "Connection: close\r\nContent-type: text/html\r\n";
/// Reason of an eviction, without the final dot that all other reasons have
/// ([`Quirk::EvictionWithoutDot`]).
pub const EVICTION: &str = "4029: Too many connections";

/// The quirks, in alphabetical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quirk {
    /// `channel` of a text event is `-`, not the channel. Generation 4. Relied on by:
    /// `pull.js` of revision 17, which joins it with `id` to find duplicates. Source:
    /// queue-server.md §7.2 (Q-124).
    AlwaysChannelDash,
    /// `binaryMode` means something only when it is exactly `true`; `1` and `TRUE` do not.
    /// Generation 4. Relied on by: nobody known; kept because the original does it. Source:
    /// queue-server.md §3.5 (Q-045).
    BinaryModeExactlyTrue,
    /// The timestamp parts of a text event come from different ends: `tag` is the last
    /// three digits of the milliseconds, `time` a date in whole seconds. Generations 3, 4.
    /// Relied on by: clients that send both back as their position. Source: queue-server.md
    /// §7.2 (Q-125).
    DateAndMillisecondTag,
    /// When nobody is online the answer to `GET pub` is `{"infos":[]}`, letter for letter.
    /// Generation 4. Relied on by: the PHP module, which needs `infos` to be there. Source:
    /// queue-server.md §4.5 (Q-078).
    EmptyPresenceText,
    /// 4029 reads `Too many connections` without the final dot of its siblings. Generation
    /// 4. Relied on by: nobody known; kept because the original does it. Source:
    /// queue-server.md §6 (Q-099).
    EvictionWithoutDot,
    /// `Message-Expiry` is read as JavaScript's `parseInt` does: `12x` is 12, `1.9` is 1.
    /// Generations 3, 4. Relied on by: nobody known; kept because the original does it.
    /// Source: queue-server.md §4.3 (Q-042).
    ExpiryAsParseInt,
    /// Protobuf fields are written although they hold their default: `expiry` 0,
    /// `isPrivate` and `isOnline` false. Generation 4. Relied on by: the PHP module, which
    /// reads `isOnline`. Source: queue-server.md §5 (Q-082, Q-130).
    ExplicitDefaults,
    /// Without a key any 40 hex digits pass as a signature of a lone id; 39 do not.
    /// Generation 4. Relied on by: nobody known; kept because the original does it. Source:
    /// queue-server.md §3.3 (Q-012).
    FortyDigitsWithoutKey,
    /// A body that is a JavaScript literal stands unquoted in a text event. Generations 1
    /// to 4. Relied on by: `pull.js` before 17.5, which evaluates it. Source: module.md
    /// (M-055), README.md D8.
    JavaScriptLiteralBody,
    /// Of several commands in one protobuf request the last on the wire is served.
    /// Generation 4. Relied on by: nobody known; kept because the original does it. Source:
    /// queue-server.md §5 (Q-064).
    LastCommandWins,
    /// The payload of a ping is `ws ping`. Generation 4. Relied on by: nobody known; kept
    /// because the original does it. Source: queue-server.md §4.8 (Q-113).
    PingPayload,
    /// A poll that times out answers 304 with `Last-Message-Id` and the literal `Expires:
    /// Thu, 01 Jan 1973 11:11:01 GMT`. Generations 3, 4. Relied on by: `pull.client.js`,
    /// which checks the date as text. Source: queue-server.md §4.7 (Q-087).
    PollTimeoutExpires1973,
    /// A publish is answered 200 with an empty `text/plain` body even if it addressed
    /// nobody. Generations 3, 4. Relied on by: the PHP module, which parses any body as
    /// JSON. Source: queue-server.md §4.3 (Q-034 to Q-036).
    PublishAnswersEmpty,
    /// A wrong channel is refused with the code in front for a poll, without it for a
    /// handshake, whose `Content-type` is spelled with a small t. Generation 4. Relied on
    /// by: nobody known; kept because the original does it. Source: queue-server.md §4.7,
    /// §4.8 (Q-003, Q-101).
    RefusalsDiffer,
    /// Every protobuf message has a `sender`, also one of the back end, which has nothing
    /// to say. Generation 4. Relied on by: all clients; their decoder throws without it.
    /// Source: clients.md §5.2 (K-020).
    SenderAlwaysPresent,
    /// `subscribers` of an online channel is 1, however many listen. Generation 4. Relied
    /// on by: the PHP module, to which it means online. Source: queue-server.md §4.5
    /// (Q-077).
    SubscribersAlwaysOne,
    /// `Upgrade: websocket` with `Connection: close` is a poll, not a handshake.
    /// Generations 3, 4. Relied on by: the nginx of BitrixVM, which adds the header to
    /// polls. Source: queue-server.md §1.4 (Q-097).
    UpgradeWithoutConnection,
}

impl Quirk {
    /// Every quirk.
    pub const ALL: [Self; 17] = [
        Self::AlwaysChannelDash,
        Self::BinaryModeExactlyTrue,
        Self::DateAndMillisecondTag,
        Self::EmptyPresenceText,
        Self::EvictionWithoutDot,
        Self::ExpiryAsParseInt,
        Self::ExplicitDefaults,
        Self::FortyDigitsWithoutKey,
        Self::JavaScriptLiteralBody,
        Self::LastCommandWins,
        Self::PingPayload,
        Self::PollTimeoutExpires1973,
        Self::PublishAnswersEmpty,
        Self::RefusalsDiffer,
        Self::SenderAlwaysPresent,
        Self::SubscribersAlwaysOne,
        Self::UpgradeWithoutConnection,
    ];

    /// Name of the fixture: the variant's in snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AlwaysChannelDash => "always_channel_dash",
            Self::BinaryModeExactlyTrue => "binary_mode_exactly_true",
            Self::DateAndMillisecondTag => "date_and_millisecond_tag",
            Self::EmptyPresenceText => "empty_presence_text",
            Self::EvictionWithoutDot => "eviction_without_dot",
            Self::ExpiryAsParseInt => "expiry_as_parse_int",
            Self::ExplicitDefaults => "explicit_defaults",
            Self::FortyDigitsWithoutKey => "forty_digits_without_key",
            Self::JavaScriptLiteralBody => "java_script_literal_body",
            Self::LastCommandWins => "last_command_wins",
            Self::PingPayload => "ping_payload",
            Self::PollTimeoutExpires1973 => "poll_timeout_expires_1973",
            Self::PublishAnswersEmpty => "publish_answers_empty",
            Self::RefusalsDiffer => "refusals_differ",
            Self::SenderAlwaysPresent => "sender_always_present",
            Self::SubscribersAlwaysOne => "subscribers_always_one",
            Self::UpgradeWithoutConnection => "upgrade_without_connection",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn fixtures() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/quirks")
    }

    #[test]
    fn every_quirk_has_its_fixture_and_every_fixture_its_quirk() {
        let files: BTreeSet<String> = fs::read_dir(fixtures())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let quirks: BTreeSet<String> =
            Quirk::ALL.iter().map(|quirk| quirk.name().to_owned()).collect();
        assert_eq!(files, quirks);
        assert_eq!(quirks.len(), Quirk::ALL.len());
    }

    #[test]
    fn a_fixture_names_itself_and_its_origin_and_has_both_sides() {
        for quirk in Quirk::ALL {
            let name = quirk.name();
            let text = fs::read_to_string(fixtures().join(name)).unwrap();
            let first = text.lines().next().unwrap_or_default();
            assert!(first.starts_with(&format!("# quirks/{name} — ")), "{name}: {first}");
            for line in text.lines() {
                let is_known = line.is_empty() || line.starts_with(['#', '>', '<', '@']);
                assert!(is_known, "{name}: {line}");
            }
            for side in ["\n> ", "\n< "] {
                assert!(text.contains(side), "{name} lacks{side}");
            }
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What the codecs make of the fixtures' messages stands in the fixtures.
    #[test]
    fn codecs_write_the_bytes_of_the_fixtures() {
        use vestnik_core::{ChannelId, MessageId, Receiver};

        use crate::tests::{envelope, envelope_of};
        use crate::{protobuf, text};

        let public: ChannelId = "ffeeddccbbaa99887766554433221100".parse().unwrap();
        let mut first = envelope_of(r#"{"a":1}"#, 1_700_000_000_000);
        first.id = MessageId::new(1_795_487_320, 1);
        let text_of = |body| String::from_utf8(text::record(&envelope(body)).to_vec()).unwrap();
        let literal = text_of("{'MESSAGE':[{'module_id':'im'}],'ERROR':''}");
        let offline = protobuf::channel_stats(&[(Receiver::Public(public), false)]);
        for (quirk, expected, is_hex) in [
            (Quirk::AlwaysChannelDash, text_of(r#"{"a":1}"#), false),
            (Quirk::DateAndMillisecondTag, text_of(r#"{"a":1}"#), false),
            (Quirk::JavaScriptLiteralBody, literal, false),
            (Quirk::ExplicitDefaults, hex(&offline), true),
            (Quirk::SenderAlwaysPresent, hex(&protobuf::record(&first)), true),
        ] {
            let fixture = fs::read_to_string(fixtures().join(quirk.name())).unwrap();
            let fixture = if is_hex { fixture.replace(' ', "") } else { fixture };
            assert!(fixture.contains(&expected), "{}: {expected}", quirk.name());
        }
    }

    #[test]
    fn fixtures_hold_the_literals() {
        for (quirk, literal) in [
            (Quirk::EmptyPresenceText, EMPTY_PRESENCE),
            (Quirk::EvictionWithoutDot, EVICTION),
            (Quirk::PingPayload, std::str::from_utf8(PING_PAYLOAD).unwrap()),
            (Quirk::PollTimeoutExpires1973, POLL_TIMEOUT_EXPIRES),
            (Quirk::RefusalsDiffer, POLL_REFUSAL),
            (Quirk::RefusalsDiffer, HANDSHAKE_REFUSAL),
            (Quirk::SubscribersAlwaysOne, &format!(r#""subscribers":{ONLINE_SUBSCRIBERS}"#)),
        ] {
            let text = fs::read_to_string(fixtures().join(quirk.name())).unwrap();
            assert!(text.contains(literal), "{}: {literal}", quirk.name());
        }
    }
}
