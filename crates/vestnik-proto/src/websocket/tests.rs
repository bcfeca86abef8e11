use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Bytes as TungsteniteBytes, Message};

use super::*;

const MAX: usize = 1 << 20;
const MASK: [u8; 4] = [1, 2, 3, 4];

/// A masked client frame with any first byte and a correct length.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_client_frame(&mut bytes, Opcode::Binary, payload, MASK);
    bytes[0] = first;
    bytes
}

/// Every event of `bytes`, then the error or the number of bytes left over.
fn read_all(bytes: &[u8], max: usize) -> (Vec<Event<'static>>, Result<usize, ProtocolError>) {
    let mut assembler = Assembler::new();
    let mut bytes = bytes.to_vec();
    let mut events = Vec::new();
    loop {
        match assembler.read(&mut bytes, Peer::Client, max) {
            Err(error) => return (events, Err(error)),
            Ok(Step::Incomplete { needed }) => {
                assert!(needed > bytes.len(), "another look must wait for more");
                return (events, Ok(bytes.len()));
            }
            Ok(Step::Event { consumed, event }) => {
                events.push(owned(&event));
                bytes.drain(..consumed);
            }
        }
    }
}

/// Payloads of control frames are leaked: these are tests.
fn owned(event: &Event<'_>) -> Event<'static> {
    fn leak(bytes: &[u8]) -> &'static [u8] {
        bytes.to_vec().leak()
    }
    match event {
        Event::Message(kind, payload) => Event::Message(*kind, Cow::Owned(payload.to_vec())),
        Event::Fragment => Event::Fragment,
        Event::Ping(payload) => Event::Ping(leak(payload)),
        Event::Pong(payload) => Event::Pong(leak(payload)),
        Event::Close(reason) => {
            Event::Close(reason.map(|reason| CloseReason {
                code: reason.code,
                text: reason.text.to_owned().leak(),
            }))
        }
    }
}

fn check_error(bytes: &[u8], expected: ProtocolError, code: u16) {
    let (_, end) = read_all(bytes, MAX);
    assert_eq!(end, Err(expected), "{bytes:02x?}");
    assert_eq!(expected.close_code(), code);
}

fn text(payload: &str) -> Event<'static> {
    Event::Message(MessageType::Text, Cow::Owned(payload.as_bytes().to_vec()))
}

#[test]
fn q_197_broken_frames_are_protocol_errors_1002() {
    use ProtocolError as E;
    for bit in [0x10, 0x20, 0x40] {
        check_error(&raw(0x82 | bit, b"x"), E::ReservedBit, 1002);
    }
    for opcode in [3, 7, 11, 15] {
        check_error(&raw(0x80 | opcode, b"x"), E::UnknownOpcode(opcode), 1002);
    }
    check_error(&raw(0x09, b"x"), E::InvalidControlFrame, 1002);
    check_error(&raw(0x89, &[0; 126]), E::InvalidControlFrame, 1002);
    check_error(&raw(0x80, b"x"), E::FragmentOutOfPlace, 1002);
    check_error(&[raw(0x01, b"x"), raw(0x81, b"y")].concat(), E::FragmentOutOfPlace, 1002);
    check_error(&raw(0x88, b"x"), E::InvalidClose, 1002);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        check_error(&raw(0x88, &code.to_be_bytes()), E::InvalidClose, 1002);
    }
    check_error(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], E::LengthOverflow, 1002);
}

#[test]
fn w_039_an_unmasked_client_frame_and_a_masked_server_frame_are_refused() {
    check_error(&frame(Opcode::Binary, &[b"x"]), ProtocolError::WrongMask, 1002);
    let masked = raw(0x82, b"x");
    assert_eq!(parse(&masked, Peer::Server, MAX), Err(ProtocolError::WrongMask));
}

#[test]
fn q_197_text_that_is_not_utf8_is_1007_also_across_fragments() {
    check_error(&raw(0x81, &[0xff]), ProtocolError::NotUtf8, 1007);
    check_error(&raw(0x88, &[0x03, 0xe8, 0xc3]), ProtocolError::NotUtf8, 1007);
    let split = [raw(0x01, &[0xd0]), raw(0x00, b""), raw(0x80, &[0x90])].concat();
    assert_eq!(read_all(&split, MAX).0, [Event::Fragment, Event::Fragment, text("\u{410}")]);
    check_error(&[raw(0x01, &[0xd0]), raw(0x80, b"x")].concat(), ProtocolError::NotUtf8, 1007);
}

#[test]
fn q_110_a_message_over_the_limit_is_1009_from_its_header_and_one_at_the_limit_passes() {
    let whole = raw(0x82, &[7; 1000]);
    assert_eq!(read_all(&whole, 1000).1, Ok(0));
    let error = ProtocolError::TooLarge { got: 1000, limit: 999 };
    assert_eq!(read_all(&whole[..4], 999).1, Err(error), "the payload need not have come");
    assert_eq!(error.close_code(), 1009);
    let pieces = [raw(0x02, &[7; 600]), raw(0x80, &[7; 400])].concat();
    assert_eq!(read_all(&pieces, 1000).1, Ok(0));
    assert_eq!(read_all(&pieces, 999).1, Err(error), "the sum of fragments counts");
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(read_all(&huge, MAX).1.map_err(ProtocolError::close_code), Err(1009));
}

#[test]
fn q_109_fragments_are_joined_and_control_frames_may_come_between() {
    let bytes = [
        raw(0x01, b"one "),
        raw(0x89, b"alive?"),
        raw(0x00, b"two "),
        raw(0x8a, b""),
        raw(0x80, b"three"),
        raw(0x88, &[0x0f, 0xa0, b'o', b'k']),
    ]
    .concat();
    let (events, end) = read_all(&bytes, MAX);
    assert_eq!(end, Ok(0));
    let close = CloseReason { code: 4000, text: "ok" };
    assert_eq!(
        events,
        [
            Event::Fragment,
            Event::Ping(b"alive?"),
            Event::Fragment,
            Event::Pong(b""),
            text("one two three"),
            Event::Close(Some(close)),
        ]
    );
}

#[test]
fn a_close_without_payload_has_no_reason() {
    assert_eq!(read_all(&raw(0x88, b""), MAX).0, [Event::Close(None)]);
}

#[test]
fn lengths_need_not_be_minimal() {
    let mut bytes = vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'x'];
    let mut assembler = Assembler::new();
    let Ok(Step::Event { consumed, event }) = assembler.read(&mut bytes, Peer::Client, MAX) else {
        panic!("a whole frame")
    };
    assert_eq!(consumed, 15);
    assert_eq!(event, Event::Message(MessageType::Binary, Cow::Borrowed(b"x")));
    assert!(!assembler.is_within_message());
}

#[test]
fn q_111_a_close_frame_carries_code_and_reason_and_is_cut_between_characters() {
    let expected = [&[0x88, 0x1b, 0x0f, 0xad][..], b"4013: Wrong Request Data."].concat();
    assert_eq!(close_frame(4013, "4013: Wrong Request Data."), expected);
    let long = close_frame(1001, &"яя".repeat(100));
    assert_eq!(long.len(), 2 + 2 + 122);
    assert_eq!(std::str::from_utf8(&long[4..]), Ok("я".repeat(61).as_str()));
}

#[test]
fn q_100_the_accept_key_is_that_of_the_rfc_and_takes_keys_of_any_length() {
    assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for length in 0..100 {
        let key = "k".repeat(length);
        let expected = tungstenite::handshake::derive_accept_key(key.as_bytes());
        assert_eq!(accept_key(key.as_bytes()).as_slice(), expected.as_bytes());
    }
}

#[test]
fn an_idle_assembler_is_a_pointer() {
    assert_eq!(size_of::<Assembler>(), size_of::<usize>());
}

/// Bytes in, bytes out: a socket for tungstenite.
struct Pipe {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tungstenite(role: Role, input: Vec<u8>) -> WebSocket<Pipe> {
    let pipe = Pipe { input: Cursor::new(input), output: Vec::new() };
    WebSocket::from_raw_socket(pipe, role, Some(WebSocketConfig::default()))
}

proptest! {
    #[test]
    fn unmasking_equals_the_byte_by_byte_definition(
        payload: Vec<u8>,
        mask: [u8; 4],
    ) {
        let mut fast = payload.clone();
        unmask(&mut fast, mask);
        let slow: Vec<u8> =
            payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, max in 0..200_usize) {
        let _ = read_all(&bytes, max);
        for peer in [Peer::Client, Peer::Server] {
            if let Ok(Parsed::Frame(frame)) = parse(&bytes, peer, max) {
                prop_assert!(frame.payload.end <= bytes.len());
            }
        }
        let _ = payload_of(&Bytes::from(bytes));
    }

    #[test]
    fn our_frames_are_read_by_another_implementation(
        length in prop_oneof![0..300_usize, 65_000..66_000_usize],
        payload_byte: u8,
    ) {
        let payload = vec![payload_byte; length];
        let ours = frame(Opcode::Binary, &[&payload]);
        prop_assert_eq!(payload_of(&ours), &payload);
        let mut theirs = tungstenite(Role::Client, ours.to_vec());
        prop_assert_eq!(theirs.read().unwrap(), Message::Binary(payload.clone().into()));
        let mut masked = Vec::new();
        push_client_frame(&mut masked, Opcode::Binary, &payload, MASK);
        let mut theirs = tungstenite(Role::Server, masked);
        prop_assert_eq!(theirs.read().unwrap(), Message::Binary(payload.into()));
    }

    #[test]
    fn frames_of_another_implementation_are_read_however_they_are_cut_and_fragmented(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
        cuts in prop::collection::vec(1..50_usize, 1..8),
    ) {
        use tungstenite::protocol::frame::Frame as TheirFrame;
        use tungstenite::protocol::frame::coding::{Data, OpCode};
        let mut theirs = tungstenite(Role::Client, Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            let opcode = if index == 0 { Data::Binary } else { Data::Continue };
            let payload = TungsteniteBytes::from(piece.clone());
            let fin = index + 1 == pieces.len();
            let frame = TheirFrame::message(payload, OpCode::Data(opcode), fin);
            theirs.send(Message::Frame(frame)).unwrap();
        }
        theirs.send(Message::Ping(b"ws ping"[..].into())).unwrap();
        let wire = theirs.get_ref().output.clone();

        let mut assembler = Assembler::new();
        let (mut waiting, mut wire, mut cuts) = (Vec::new(), wire.as_slice(), cuts.iter().cycle());
        let (mut messages, mut pings) = (Vec::new(), 0);
        while !wire.is_empty() {
            let (now, later) = wire.split_at((*cuts.next().unwrap()).min(wire.len()));
            waiting.extend_from_slice(now);
            wire = later;
            while let Step::Event { consumed, event } =
                assembler.read(&mut waiting, Peer::Client, MAX).unwrap()
            {
                match event {
                    Event::Message(MessageType::Binary, whole) => messages.push(whole.to_vec()),
                    Event::Ping(payload) => {
                        prop_assert_eq!(payload, b"ws ping");
                        pings += 1;
                    }
                    other => prop_assert_eq!(other, Event::Fragment),
                }
                waiting.drain(..consumed);
            }
        }
        prop_assert_eq!(messages, [pieces.concat()]);
        prop_assert_eq!((pings, waiting.len()), (1, 0));
    }
}
