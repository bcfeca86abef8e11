//! The extension permessage-deflate (RFC 7692), always without context takeover: so a message is
//! compressed once for everybody, and an idle connection keeps no window.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::DeflateDecoder;
use flate2::{Compress, Compression, FlushCompress};

use super::{Opcode, ProtocolError, header, payload_of};

/// What the server answers to an offer it takes, as the value of `Sec-WebSocket-Extensions`.
pub const ACCEPTED_EXTENSION: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Payloads below this many bytes go out as they are: compressed they would hardly shrink.
const WORTH_IT: usize = 128;

/// An empty stored block, which a sender leaves off each message and a reader puts back.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Whether an offer, the value of a client's `Sec-WebSocket-Extensions`, has one that can be taken.
///
/// Not taken is an offer that limits the server's window: the compressor has but one.
#[must_use]
pub fn is_offered(extensions: &str) -> bool {
    extensions.split(',').any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"))
            && parts.all(|parameter| {
                let (name, value) =
                    parameter.split_once('=').map_or((parameter, None), |(n, v)| {
                        (n.trim(), Some(v.trim().trim_matches('"')))
                    });
                match name {
                    "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
                    "client_max_window_bits" => value.is_none_or(is_window),
                    "server_max_window_bits" => value == Some("15"),
                    _ => false,
                }
            })
    })
}

fn is_window(bits: &str) -> bool {
    !bits.starts_with('0') && bits.parse().is_ok_and(|bits: u8| (8..=15).contains(&bits))
}

/// The same message as `frame`, a server frame of this module, compressed; `frame` itself when that
/// is no smaller.
#[must_use]
pub fn compressed(frame: &Bytes) -> Bytes {
    let payload = payload_of(frame);
    if payload.len() < WORTH_IT {
        return frame.clone();
    }
    let Some(body) = deflate(&payload) else { return frame.clone() };
    let opcode = if frame.first().is_some_and(|byte| byte & 0x0f == Opcode::Text as u8) {
        Opcode::Text
    } else {
        Opcode::Binary
    };
    let head = header(opcode, body.len());
    if head.as_bytes().len() + body.len() >= frame.len() {
        return frame.clone();
    }
    let mut bytes = head.as_bytes().to_vec();
    // The first reserved bit says that the message is compressed.
    bytes[0] |= 0x40;
    bytes.extend_from_slice(&body);
    bytes.into()
}

/// Compresses a message up to a byte boundary and leaves off the tail; `None` if that would not make
/// it smaller.
fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(payload.len());
    let mut compress = Compress::new(Compression::new(6), false);
    // With room for as much as came in: a message that needs more is not worth it.
    compress.compress_vec(payload, &mut body, FlushCompress::Sync).ok()?;
    if compress.total_in() < payload.len() as u64 || !body.ends_with(&TAIL) {
        return None;
    }
    body.truncate(body.len() - TAIL.len());
    Some(body)
}

/// The message that a peer compressed into `payload`, of at most `limit` bytes.
///
/// # Errors
/// When it is no deflate data, or grows over the limit: known without growing further.
pub(super) fn inflate(payload: &[u8], limit: usize) -> Result<Vec<u8>, ProtocolError> {
    let stream = payload.chain(&TAIL[..]);
    let mut message = Vec::new();
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match DeflateDecoder::new(stream).take(one_more).read_to_end(&mut message) {
        Ok(_) => {}
        // A message ends with a block that is not the last one: the decoder then wants more, after it
        // has given everything.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
        Err(_) => return Err(ProtocolError::InvalidDeflate),
    }
    if message.len() > limit {
        return Err(ProtocolError::TooLarge { got: message.len() as u64, limit });
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Assembler, Event, MessageType, Peer, Step, frame, unmask};
    use super::*;

    #[test]
    fn offers_are_taken_unless_they_limit_the_servers_window() {
        for (offer, expected) in [
            ("permessage-deflate", true),
            ("permessage-deflate; client_max_window_bits", true),
            ("permessage-deflate; client_max_window_bits=10", true),
            ("x-webkit-deflate-frame, permessage-deflate; server_no_context_takeover", true),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; client_max_window_bits=16", false),
            ("permessage-deflate; unknown", false),
            ("", false),
            ("deflate", false),
        ] {
            assert_eq!(is_offered(offer), expected, "{offer}");
        }
    }

    /// What a client that agreed on the extension reads from a server frame.
    fn read_back(bytes: &Bytes, limit: usize) -> Result<(MessageType, Vec<u8>), ProtocolError> {
        let mut bytes = bytes.to_vec();
        match Assembler::new().read_deflate(&mut bytes, Peer::Server, limit)? {
            Step::Event { event: Event::Message(kind, payload), .. } => {
                Ok((kind, payload.into_owned()))
            }
            other => panic!("no message: {other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_read_back(text in "[a-e]{0,3000}", is_text: bool) {
            let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
            let plain = frame(opcode, &[text.as_bytes()]);
            let compressed = compressed(&plain);
            prop_assert!(compressed.len() <= plain.len());
            let (kind, payload) = read_back(&compressed, 4000).unwrap();
            prop_assert_eq!(kind == MessageType::Text, is_text);
            prop_assert_eq!(payload, text.into_bytes());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = inflate(&bytes, 100);
        }
    }

    #[test]
    fn w_040_a_repetitive_message_shrinks_and_a_bomb_is_stopped_at_the_limit() {
        let plain = frame(Opcode::Text, &[&[b'x'; 100_000]]);
        let small = compressed(&plain);
        assert!(small.len() < 1000, "{}", small.len());
        let error = read_back(&small, 50_000).unwrap_err();
        assert!(matches!(error, ProtocolError::TooLarge { limit: 50_000, .. }), "{error}");
        assert_eq!(error.close_code(), 1009);
    }

    #[test]
    fn a_compressed_message_in_fragments_is_joined_before_it_is_read() {
        let body = compressed(&frame(Opcode::Text, &["молоко ".repeat(100).as_bytes()]));
        let body = payload_of(&body);
        let (first, second) = body.split_at(body.len() / 2);
        let mut bytes = Vec::new();
        for (byte, part) in [(0x41, first), (0x80, second)] {
            let mut masked = part.to_vec();
            unmask(&mut masked, [1, 2, 3, 4]);
            let length = u8::try_from(part.len()).unwrap();
            bytes.extend_from_slice(&[byte, 0x80 | length, 1, 2, 3, 4]);
            bytes.extend_from_slice(&masked);
        }
        let mut assembler = Assembler::new();
        let Ok(Step::Event { consumed, event: Event::Fragment }) =
            assembler.read_deflate(&mut bytes, Peer::Client, 10_000)
        else {
            panic!("a fragment");
        };
        let Ok(Step::Event { event: Event::Message(_, text), .. }) =
            assembler.read_deflate(&mut bytes[consumed..], Peer::Client, 10_000)
        else {
            panic!("a message");
        };
        assert_eq!(text, "молоко ".repeat(100).as_bytes());
    }

    #[test]
    fn the_bit_is_refused_where_the_extension_was_not_agreed_on_and_on_continuations() {
        let mut bytes = [0xc1, 0x80, 0, 0, 0, 0];
        let error = Assembler::new().read(&mut bytes, Peer::Client, 10).unwrap_err();
        assert_eq!(error, ProtocolError::ReservedBit);
        let mut bytes = [0x01, 0x80, 0, 0, 0, 0, 0xc0, 0x80, 0, 0, 0, 0];
        let mut assembler = Assembler::new();
        assert!(assembler.read_deflate(&mut bytes, Peer::Client, 10).is_ok());
        let error = assembler.read_deflate(&mut bytes[6..], Peer::Client, 10).unwrap_err();
        assert_eq!(error, ProtocolError::ReservedBit);
    }
}
