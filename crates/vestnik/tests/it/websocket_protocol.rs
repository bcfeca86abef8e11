//! The edge of the WebSocket protocol, in the groups of the Autobahn test suite. This server does
//! not echo, so a message shows that it was understood by its answer: on a connection with
//! `binaryMode=true` a question who is online.

use std::net::SocketAddr;

use crate::raw;
use crate::server::TestServer;
use crate::sign::Pair;
use crate::wire::{
    Frame, RawSocket, client_close, client_frame, client_head, field, stats_answer, stats_request,
};

const CONTINUATION: u8 = 0x00;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Takes the final bit away.
const MORE: u8 = 0x7f;

/// What a case must be answered with.
#[derive(Clone, Debug)]
enum Expect {
    /// The answer to the question.
    Answer,
    Pong(Vec<u8>),
    /// A close frame with this code, then the end.
    Close(u16),
    /// A close frame without a code, then the end.
    CloseWithoutCode,
}
use Expect::{Answer, Close, CloseWithoutCode, Pong};

fn pair() -> Pair {
    Pair::new(7)
}

/// A question whose answer shows that it was read.
fn question() -> Vec<u8> {
    stats_request(&[pair()])
}

/// A question of exactly `size` bytes, filled up with a field that nobody knows.
fn question_of(size: usize) -> Vec<u8> {
    let question = question();
    let missing = size - question.len();
    let filling = (2..=6).map(|head| missing - head).map(|length| field(15, &vec![b'.'; length]));
    let filling = filling.into_iter().find(|it| it.len() == missing).expect("a size in reach");
    [question, filling].concat()
}

#[derive(Clone, Copy)]
enum Mode {
    Binary,
    Text,
}

fn open(address: SocketAddr, mode: Mode) -> RawSocket {
    let binary = match mode {
        Mode::Binary => "&binaryMode=true",
        Mode::Text => "",
    };
    RawSocket::open(address, &format!("CHANNEL_ID={}{binary}", pair().signed()))
}

/// Sends `bytes` on a new connection, in segments of `chop` bytes, and compares what comes back.
/// A connection that is not closed must still answer afterwards.
fn check_chopped(
    address: SocketAddr,
    mode: Mode,
    case: &str,
    bytes: &[u8],
    chop: usize,
    expected: &[Expect],
) {
    let mut socket = open(address, mode);
    socket.send_chopped(bytes, chop);
    for expect in expected {
        let frame = socket.next();
        let wanted = match expect {
            Answer => Frame { first: BINARY, payload: stats_answer(&[(pair(), true)]) },
            Pong(payload) => Frame { first: PONG, payload: payload.clone() },
            Close(code) => Frame { first: CLOSE, payload: code.to_be_bytes().to_vec() },
            CloseWithoutCode => Frame { first: CLOSE, payload: Vec::new() },
        };
        assert_eq!(frame, Some(wanted), "{case}");
    }
    if let Some(Close(_) | CloseWithoutCode) = expected.last() {
        assert!(socket.is_ended(), "{case}: the end follows the close");
        return;
    }
    socket.send(client_frame(PING, case.as_bytes()));
    let alive = Frame { first: PONG, payload: case.as_bytes().to_vec() };
    assert_eq!(socket.next(), Some(alive), "{case}: still served");
}

fn check(address: SocketAddr, mode: Mode, case: &str, bytes: &[u8], expected: &[Expect]) {
    check_chopped(address, mode, case, bytes, usize::MAX, expected);
}

#[test]
fn group_1_messages_of_every_length_form_are_read() {
    let server = TestServer::start();
    for size in [125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        let frame = client_frame(BINARY, &question_of(size));
        let case = format!("binary of {size} bytes");
        check(server.address(), Mode::Binary, &case, &frame, &[Answer]);
        check_chopped(server.address(), Mode::Binary, &case, &frame, 997, &[Answer]);
    }
    // Without an answer, but read: the ping behind it is found.
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        let frame = client_frame(TEXT, &vec![b'*'; size]);
        check(server.address(), Mode::Text, &format!("text of {size} bytes"), &frame, &[]);
        let frame = client_frame(BINARY, &vec![0xfe; size]);
        check(server.address(), Mode::Text, &format!("bytes of {size} bytes"), &frame, &[]);
    }
}

#[test]
fn group_1_frames_that_are_not_masked_are_a_protocol_error() {
    let server = TestServer::start();
    let mut unmasked = vec![BINARY, u8::try_from(question().len()).expect("short")];
    unmasked.extend(question());
    check(server.address(), Mode::Binary, "w_039 a message", &unmasked, &[Close(1002)]);
    check(server.address(), Mode::Text, "an empty ping", &[PING, 0], &[Close(1002)]);
    check(server.address(), Mode::Text, "an empty close", &[CLOSE, 0], &[Close(1002)]);
}

#[test]
fn group_1_a_length_with_the_highest_bit_set_is_a_protocol_error() {
    let server = TestServer::start();
    let head = client_head(BINARY, 1 << 63);
    check(server.address(), Mode::Binary, "2^63 bytes", &head, &[Close(1002)]);
}

#[test]
fn group_2_q_115_pings_are_answered_with_their_payload_and_pongs_are_ignored() {
    let server = TestServer::start();
    let most: Vec<u8> = (0..125).map(|n| n + 0x80).collect();
    for payload in [&b""[..], b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &most] {
        let ping = client_frame(PING, payload);
        for chop in [1, usize::MAX] {
            let expected = [Pong(payload.to_vec())];
            check_chopped(server.address(), Mode::Binary, "ping", &ping, chop, &expected);
        }
        let pong = client_frame(PONG, payload);
        check(server.address(), Mode::Binary, "pong nobody asked for", &pong, &[]);
        check(
            server.address(),
            Mode::Text,
            "pong, then ping",
            &[pong, ping].concat(),
            &[Pong(payload.to_vec())],
        );
    }
    for first in [PING, PONG, CLOSE] {
        let frame = client_frame(first, &[b'p'; 126]);
        check(server.address(), Mode::Binary, "control frame of 126 bytes", &frame, &[Close(1002)]);
    }
    let ten: Vec<u8> = (0..10).flat_map(|n| client_frame(PING, &[n])).collect();
    let pongs: Vec<_> = (0..10).map(|n| Pong(vec![n])).collect();
    for chop in [1, usize::MAX] {
        check_chopped(server.address(), Mode::Binary, "ten pings", &ten, chop, &pongs);
    }
}

#[test]
fn group_3_q_197_reserved_bits_are_a_protocol_error() {
    let server = TestServer::start();
    let good = client_frame(BINARY, &question());
    for reserved in 1..=7_u8 {
        for first in [TEXT, BINARY, PING, PONG, CLOSE] {
            let bad = client_frame(first | reserved << 4, b"");
            let case = format!("reserved bits {reserved:03b} with {first:02x}");
            check(server.address(), Mode::Text, &case, &bad, &[Close(1002)]);
            // What came before is still answered, what comes behind is not.
            let between = [&good[..], &bad, &good, &client_frame(PING, b"late")].concat();
            check(server.address(), Mode::Binary, &case, &between, &[Answer, Close(1002)]);
        }
        let chopped = client_frame(BINARY | reserved << 4, &question());
        check_chopped(server.address(), Mode::Binary, "octets", &chopped, 1, &[Close(1002)]);
    }
}

#[test]
fn group_4_unknown_opcodes_are_a_protocol_error() {
    let server = TestServer::start();
    let good = client_frame(BINARY, &question());
    for opcode in (3..=7).chain(11..=15_u8) {
        for payload in [&b""[..], b"unknown payload"] {
            let bad = client_frame(0x80 | opcode, payload);
            let case = format!("opcode {opcode}");
            check(server.address(), Mode::Text, &case, &bad, &[Close(1002)]);
            let between = [&good[..], &bad, &good].concat();
            check(server.address(), Mode::Binary, &case, &between, &[Answer, Close(1002)]);
        }
    }
}

#[test]
fn group_5_q_109_messages_in_fragments_are_joined() {
    let server = TestServer::start();
    let question = question();
    let (head, tail) = question.split_at(20);
    let ping = client_frame(PING, b"between");
    let fragment = |first: u8, payload: &[u8]| client_frame(first, payload);
    let two = [fragment(BINARY & MORE, head), fragment(0x80, tail)];
    let empty = fragment(CONTINUATION, b"");
    let with_empty = [
        fragment(BINARY & MORE, b""),
        empty.clone(),
        fragment(CONTINUATION, head),
        empty.clone(),
        fragment(CONTINUATION, tail),
        fragment(0x80, b""),
    ];
    let single: Vec<_> = (0..question.len())
        .map(|at| {
            let is_last = at + 1 == question.len();
            let opcode = if at == 0 { BINARY & MORE } else { CONTINUATION };
            fragment(opcode | if is_last { 0x80 } else { 0 }, &question[at..=at])
        })
        .collect();
    let between = Pong(b"between".to_vec());
    let with_ping = [two[0].clone(), ping.clone(), two[1].clone()];
    let pings_everywhere: Vec<_> =
        single.iter().flat_map(|fragment| [fragment.clone(), ping.clone()]).collect();
    // The last ping comes behind the message.
    let mut pongs = vec![between.clone(); question.len() - 1];
    pongs.extend([Answer, between.clone()]);
    for chop in [1, 2, usize::MAX] {
        for (case, frames, expected) in [
            ("two", &two[..], &[Answer][..]),
            ("empty ones", &with_empty, &[Answer]),
            ("of one byte", &single, &[Answer]),
            ("a ping between", &with_ping, &[between.clone(), Answer]),
            ("pings everywhere", &pings_everywhere, &pongs),
        ] {
            let bytes = frames.concat();
            check_chopped(server.address(), Mode::Binary, case, &bytes, chop, expected);
        }
    }
}

#[test]
fn group_5_fragments_out_of_place_are_a_protocol_error() {
    let server = TestServer::start();
    let good = client_frame(BINARY, &question());
    let start = client_frame(BINARY & MORE, b"begun");
    let text_start = client_frame(TEXT & MORE, b"begun");
    for (case, frames) in [
        ("a fragmented ping", vec![client_frame(PING & MORE, b"fragment")]),
        ("a fragmented pong", vec![client_frame(PONG & MORE, b"fragment")]),
        ("a fragmented close", vec![client_frame(CLOSE & MORE, &[3, 232])]),
        ("a continuation of nothing", vec![client_frame(CONTINUATION, b"what")]),
        ("the end of nothing", vec![client_frame(0x80, b"what")]),
        ("a message within a message", vec![start.clone(), good.clone()]),
        ("a start within a message", vec![start.clone(), text_start.clone()]),
        ("text within text", vec![text_start, client_frame(TEXT, b"more")]),
        ("a fragmented ping within a message", vec![start, client_frame(PING & MORE, b"")]),
    ] {
        let bytes = frames.concat();
        check(server.address(), Mode::Text, case, &bytes, &[Close(1002)]);
        let after = [&good[..], &bytes].concat();
        check(server.address(), Mode::Binary, case, &after, &[Answer, Close(1002)]);
        check_chopped(server.address(), Mode::Binary, case, &after, 1, &[Answer, Close(1002)]);
    }
}

/// Texts that are UTF-8, at the borders of its ranges.
const VALID: [&[u8]; 10] = [
    "Hello-µ@ßöäüàá-UTF-8!!".as_bytes(),
    "κόσμε".as_bytes(),
    b"\x00",
    b"\x7f",
    b"\xc2\x80\xdf\xbf",
    b"\xe0\xa0\x80\xef\xbf\xbf",
    b"\xed\x9f\xbf\xee\x80\x80",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    b"\xef\xbb\xbf",
];

/// Texts that are not, and at which byte that is certain.
const INVALID: [(&[u8], usize); 16] = [
    (b"a\x80", 2),
    (b"\xbf", 1),
    (b"\xc0\xaf", 1),
    (b"\xc1\xbf", 1),
    (b"\xe0\x80\xaf", 2),
    (b"\xe0\x9f\xbf", 2),
    (b"\xed\xa0\x80", 2),
    (b"\xed\xbf\xbf", 2),
    (b"\xf0\x80\x80\xaf", 2),
    (b"\xf0\x8f\xbf\xbf", 2),
    (b"\xf4\x90\x80\x80", 2),
    (b"\xf5\x80\x80\x80", 1),
    (b"\xf8\x88\x80\x80\x80", 1),
    (b"\xfe", 1),
    (b"\xff", 1),
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", 13),
];

#[test]
fn group_6_valid_text_is_taken_however_it_is_cut() {
    let server = TestServer::start();
    for text in VALID {
        check(server.address(), Mode::Text, "whole", &client_frame(TEXT, text), &[]);
        for at in 0..=text.len() {
            let (head, tail) = text.split_at(at);
            let frames = [client_frame(TEXT & MORE, head), client_frame(0x80, tail)].concat();
            check(server.address(), Mode::Text, &format!("cut at {at}"), &frames, &[]);
        }
    }
    // Bytes are not text.
    check(server.address(), Mode::Text, "bytes", &client_frame(BINARY, b"\xff\xfe"), &[]);
}

#[test]
fn group_6_q_197_text_that_is_not_utf8_is_closed_with_1007() {
    let server = TestServer::start();
    for (text, certain) in INVALID {
        let case = text.escape_ascii().to_string();
        let whole = client_frame(TEXT, text);
        check(server.address(), Mode::Text, &case, &whole, &[Close(1007)]);
        check(server.address(), Mode::Binary, &case, &whole, &[Close(1007)]);
        check_chopped(server.address(), Mode::Text, &case, &whole, 1, &[Close(1007)]);
        // At once, not only with the end of the message.
        let mut begun = client_frame(TEXT & MORE, b"");
        for at in 0..certain {
            begun.extend(client_frame(CONTINUATION, &text[at..=at]));
        }
        check(server.address(), Mode::Text, &case, &begun, &[Close(1007)]);
        if certain > 1 {
            begun.truncate(begun.len() - client_frame(CONTINUATION, b"x").len());
            check(server.address(), Mode::Text, &case, &begun, &[]);
        }
    }
    // A character that the end of the message cuts off.
    for text in [&b"\xce"[..], b"\xe1\xbd", b"\xf0\x9f\x98"] {
        let frames = [client_frame(TEXT & MORE, text), client_frame(0x80, b"")].concat();
        check(server.address(), Mode::Text, "cut off", &frames, &[Close(1007)]);
    }
}

#[test]
fn group_7_q_116_a_close_is_answered_with_its_code() {
    let server = TestServer::start();
    let codes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
    for code in codes.into_iter().chain([3000, 3003, 3999, 4000, 4010, 4999]) {
        let case = format!("code {code}");
        for mode in [Mode::Binary, Mode::Text] {
            check(server.address(), mode, &case, &client_close(code, b""), &[Close(code)]);
            let said = client_close(code, b"config expired");
            check_chopped(server.address(), mode, &case, &said, 1, &[Close(code)]);
        }
    }
    let longest = client_close(1000, &[b'*'; 123]);
    check(server.address(), Mode::Binary, "123 bytes of reason", &longest, &[Close(1000)]);
    let nothing = client_frame(CLOSE, b"");
    check(server.address(), Mode::Binary, "no code", &nothing, &[CloseWithoutCode]);
}

#[test]
fn group_7_nothing_that_follows_a_close_is_answered() {
    let server = TestServer::start();
    let question = client_frame(BINARY, &question());
    let close = client_close(1000, b"");
    for (case, behind) in [
        ("a second close", client_close(1001, b"")),
        ("a ping", client_frame(PING, b"late")),
        ("a message", question.clone()),
        ("an error", client_frame(0xf3, b"")),
    ] {
        let bytes = [&question[..], &close, &behind].concat();
        check(server.address(), Mode::Binary, case, &bytes, &[Answer, Close(1000)]);
    }
    // Between fragments it is a close all the same.
    let within = [client_frame(BINARY & MORE, b"begun"), close].concat();
    check(server.address(), Mode::Binary, "within a message", &within, &[Close(1000)]);
}

#[test]
fn group_7_invalid_closes_are_a_protocol_error() {
    let server = TestServer::start();
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        let case = format!("code {code}");
        check(server.address(), Mode::Binary, &case, &client_close(code, b""), &[Close(1002)]);
        check(server.address(), Mode::Text, &case, &client_close(code, b"why"), &[Close(1002)]);
    }
    check(
        server.address(),
        Mode::Text,
        "half a code",
        &client_frame(CLOSE, b"\x03"),
        &[Close(1002)],
    );
    let bad_reason = client_close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80");
    check(server.address(), Mode::Text, "reason not utf-8", &bad_reason, &[Close(1007)]);
}

#[test]
fn group_9_q_110_a_message_of_exactly_the_limit_is_processed_and_one_byte_more_is_not() {
    let server = TestServer::start();
    let limit = 1 << 20;
    let question = question_of(limit);
    check(server.address(), Mode::Binary, "whole", &client_frame(BINARY, &question), &[Answer]);
    for size in [256, 4096, 65_536, 262_144] {
        let mut frames = client_frame(BINARY & MORE, &question[..size]);
        for chunk in question[size..].chunks(size) {
            frames.extend(client_frame(CONTINUATION, chunk));
        }
        let case = format!("fragments of {size} bytes");
        let whole = [&frames[..], &client_frame(0x80, b"")].concat();
        check(server.address(), Mode::Binary, &case, &whole, &[Answer]);
        let over = [&frames[..], &client_frame(0x80, b"+")].concat();
        check(server.address(), Mode::Binary, &case, &over, &[Close(1009)]);
    }
    let over = client_frame(BINARY, &vec![0; limit + 1]);
    check(server.address(), Mode::Binary, "one byte more", &over, &[Close(1009)]);
    check(server.address(), Mode::Text, "one byte more, text mode", &over, &[Close(1009)]);
    // Known from the head, before anything of the payload is there.
    let head = client_head(BINARY, limit as u64 + 1);
    check(server.address(), Mode::Binary, "only the head", &head, &[Close(1009)]);
    check(server.address(), Mode::Text, "a terabyte", &client_head(TEXT, 1 << 40), &[Close(1009)]);
}

#[test]
fn group_9_ten_thousand_messages_in_a_row_are_answered_in_order() {
    let server = TestServer::start();
    let mut socket = open(server.address(), Mode::Binary);
    let question = client_frame(BINARY, &question());
    let answer = stats_answer(&[(pair(), true)]);
    let mut answers = 0;
    for batch in 0..100_u8 {
        let mut bytes: Vec<u8> = question.repeat(100);
        bytes.extend(client_frame(PING, &[batch]));
        socket.send(bytes);
        loop {
            let frame = socket.next().expect("an answer");
            if frame.first == PONG {
                assert_eq!((frame.payload, answers), (vec![batch], 100), "in order");
                answers = 0;
                break;
            }
            assert_eq!(frame, Frame { first: BINARY, payload: answer.clone() });
            answers += 1;
        }
    }
}

#[test]
fn group_10_segments_of_any_size_make_the_same_frames() {
    let server = TestServer::start();
    let question = question();
    let stream = [
        client_frame(BINARY, &question),
        client_frame(PING, b"one"),
        client_frame(BINARY & MORE, &question[..7]),
        client_frame(PING, b""),
        client_frame(0x80, &question[7..]),
        client_frame(BINARY, &question_of(70_000)),
        client_frame(PONG, b"ignored"),
        client_frame(BINARY, &question),
        client_close(1000, b"done"),
    ]
    .concat();
    let expected =
        [Answer, Pong(b"one".to_vec()), Pong(Vec::new()), Answer, Answer, Answer, Close(1000)];
    for chop in [1, 2, 3, 5, 7, 13, 997, 1300, 4096, 65_537] {
        let case = format!("segments of {chop} bytes");
        check_chopped(server.address(), Mode::Binary, &case, &stream, chop, &expected);
    }
}

#[test]
fn frames_in_the_segment_of_the_handshake_are_answered_also_on_a_kept_connection() {
    let server = TestServer::start();
    let target = format!("/bitrix/subws/?CHANNEL_ID={}&binaryMode=true", pair().signed());
    let handshake = crate::websocket::handshake(&target);
    let frame = client_frame(BINARY, &question());
    let early = [handshake.as_bytes(), &frame, &frame[..9]].concat();
    let answer = Frame { first: BINARY, payload: stats_answer(&[(pair(), true)]) };
    for is_kept in [false, true] {
        let mut connection = raw::Connection::open(server.address());
        if is_kept {
            connection.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(connection.answer().status, 200);
        }
        connection.send(&early);
        let mut socket = RawSocket::upgraded(connection);
        assert_eq!(socket.next(), Some(answer.clone()));
        socket.send(&frame[9..]);
        assert_eq!(socket.next(), Some(answer.clone()));
    }
}
