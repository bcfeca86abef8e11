//! Protobuf requests: of the back end (queue-server.md §4.4) and of clients (§4.6), §6 for errors.
//!
//! Also the small encoder and reader of the wire format that other tests use; it shares nothing with
//! the server's.

use std::net::SocketAddr;

use crate::observe::metric;
use crate::raw::{self, Answer};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A field with bytes, text or a message.
pub(crate) fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = varint(u64::from(number) << 3 | 2);
    bytes.extend(varint(content.len() as u64));
    bytes.extend_from_slice(content);
    bytes
}

/// A field with a number.
pub(crate) fn number(number: u32, value: u64) -> Vec<u8> {
    let mut bytes = varint(u64::from(number) << 3);
    bytes.extend(varint(value));
    bytes
}

fn repeated(number: u32, members: &[Vec<u8>]) -> Vec<u8> {
    members.iter().flat_map(|member| field(number, member)).collect()
}

/// A `Receiver`, or the `ChannelId` of a question.
pub(crate) fn receiver(id: &[u8], is_private: bool, signature: &[u8]) -> Vec<u8> {
    let mut bytes = field(1, id);
    if is_private {
        bytes.extend(number(2, 1));
    }
    if !signature.is_empty() {
        bytes.extend(field(3, signature));
    }
    bytes
}

/// An `IncomingMessage`.
pub(crate) fn message(receivers: &[Vec<u8>], body: &[u8], expiry_s: u64) -> Vec<u8> {
    let mut bytes = repeated(1, receivers);
    bytes.extend(field(3, body));
    bytes.extend(number(4, expiry_s));
    bytes
}

/// A `Request` with messages.
pub(crate) fn publish(messages: &[Vec<u8>]) -> Vec<u8> {
    field(1, &repeated(1, messages))
}

/// A `Request` about channels.
pub(crate) fn channel_stats(channels: &[Vec<u8>]) -> Vec<u8> {
    field(2, &repeated(1, channels))
}

/// A `Request` for the statistics of the server.
pub(crate) fn server_stats() -> Vec<u8> {
    field(3, &[])
}

/// A `RequestBatch`.
pub(crate) fn batch(requests: &[Vec<u8>]) -> Vec<u8> {
    repeated(1, requests)
}

/// The value of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Number(u64),
    Fixed(u32),
    Bytes(Vec<u8>),
}

/// All fields of a message in wire order.
pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u32, Field)> {
    fn take(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = take(&mut bytes);
        let value = match tag & 7 {
            0 => Field::Number(take(&mut bytes)),
            2 => {
                let length = usize::try_from(take(&mut bytes)).expect("a length");
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(content.to_vec())
            }
            5 => {
                let (content, rest) = bytes.split_at(4);
                bytes = rest;
                Field::Fixed(u32::from_le_bytes(content.try_into().expect("four bytes")))
            }
            other => panic!("wire type {other}"),
        };
        found.push((u32::try_from(tag >> 3).expect("a field number"), value));
    }
    found
}

/// Every message field of a `ResponseBatch`'s messages: one list of fields for each message.
pub(crate) fn outgoing(batch: &[u8]) -> Vec<Vec<(u32, Field)>> {
    let inside = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let bytes = fields(bytes).into_iter().map(|(number, field)| match (number, field) {
            (1, Field::Bytes(bytes)) => bytes,
            other => panic!("no message: {other:?}"),
        });
        bytes.collect()
    };
    let responses = inside(batch);
    let messages = responses.iter().flat_map(|response| inside(response));
    messages.flat_map(|messages| inside(&messages)).map(|message| fields(&message)).collect()
}

/// A binary request of the back end.
pub(crate) fn ask(address: SocketAddr, batch: &[u8]) -> Answer {
    raw::post(address, "/bitrix/pub/?binaryMode=true", &[], batch)
}

/// A binary request of a client that shows `channels`.
fn ask_as_client(address: SocketAddr, channels: &str, batch: &[u8]) -> Answer {
    raw::post(address, &format!("/bitrix/rest/?CHANNEL_ID={channels}"), &[], batch)
}

fn private(pair: Pair) -> Vec<u8> {
    receiver(pair.private.as_bytes(), true, &[])
}

fn public(pair: Pair) -> Vec<u8> {
    receiver(pair.public.as_bytes(), false, &pair.public_signature())
}

/// Queue-server.md Q-065: status, headers and body of every refusal.
fn assert_refused(answer: &Answer, body: &str) {
    assert_eq!((answer.status, answer.text()), (400, body));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

fn assert_taken(answer: &Answer) {
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

const WRONG_DATA: &str = "4013: Wrong Request Data.";

#[test]
fn q_052_q_132_the_worked_example_is_published_and_delivered() {
    let server = TestServer::start();
    // Queue-server.md §4.4, byte for byte.
    let mut example = vec![0x0a, 0x2e, 0x0a, 0x2c, 0x0a, 0x2a, 0x0a, 0x14, 0x0a, 0x10];
    example.extend((0..16).map(|n| n * 0x11));
    example.extend([0x10, 0x01, 0x1a, 0x07]);
    example.extend(br#"{"a":1}"#);
    example.extend([0x20, 0x3c, 0x2a, 0x07]);
    example.extend(b"im_test");
    let channels =
        "00112233445566778899aabbccddeeff.cf29ff07dc09d1c9fb80211d358b1301f601054d&binaryMode=true";
    let mut socket = Subscriber::open(server.address(), &format!("CHANNEL_ID={channels}"));
    assert_taken(&ask(server.address(), &example));
    let messages = outgoing(&socket.next_binary());
    assert_eq!(messages.len(), 1);
    assert!(messages[0].contains(&(2, Field::Bytes(br#"{"a":1}"#.to_vec()))));
    assert!(messages[0].contains(&(3, Field::Number(60))));
    assert!(messages[0].contains(&(5, Field::Bytes(vec![0x08, 0x02]))), "{messages:?}");
}

#[test]
fn q_053_a_request_without_messages_is_taken() {
    let server = TestServer::start();
    assert_taken(&ask(server.address(), &batch(&[publish(&[])])));
    let pair = Pair::new(1);
    assert_taken(&ask_as_client(server.address(), &pair.signed(), &batch(&[publish(&[])])));
}

#[test]
fn q_054_q_055_q_065_what_is_no_request_is_4013() {
    let server = TestServer::start();
    let good = batch(&[publish(&[message(&[private(Pair::new(1))], b"{}", 0)])]);
    for body in [
        &b""[..],
        b"garbage",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        &good[..good.len() - 1],
        &field(7, b"only unknown fields"),
        &batch(&[vec![]]),
        &batch(&[field(9, b"x")]),
    ] {
        assert_refused(&ask(server.address(), body), WRONG_DATA);
        let channels = Pair::new(1).signed();
        assert_refused(&ask_as_client(server.address(), &channels, body), WRONG_DATA);
    }
}

#[test]
fn q_056_a_hundred_messages_pass_and_one_more_is_4016() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let many = |count: usize| {
        let messages: Vec<_> = (0..count)
            .map(|n| message(&[private(pair)], format!("{{\"n\":{n}}}").as_bytes(), 0))
            .collect();
        ask(server.address(), &batch(&[publish(&messages)]))
    };
    assert_refused(&many(101), "4016: Request exceeded the maximum number of messages.");
    assert_taken(&many(100));
    for n in 0..100 {
        assert_eq!(socket.next_text()["n"], n);
    }
}

#[test]
fn q_057_a_message_without_receivers_is_4017() {
    let server = TestServer::start();
    let sent = batch(&[publish(&[message(&[], b"{}", 0)])]);
    assert_refused(&ask(server.address(), &sent), "4017: No channels found.");
    let nothing = batch(&[channel_stats(&[])]);
    assert_refused(&ask(server.address(), &nothing), "4017: No channels found.");
}

#[test]
fn q_058_a_hundred_receivers_pass_and_one_more_is_4018() {
    let server = TestServer::start();
    let text = "4018: Request exceeded the maximum number of channels.";
    let channels = |count| (0..count).map(|n| private(Pair::new(n))).collect::<Vec<_>>();
    let send = |count| batch(&[publish(&[message(&channels(count), b"{}", 0)])]);
    assert_taken(&ask(server.address(), &send(100)));
    assert_refused(&ask(server.address(), &send(101)), text);
    let question = |count| batch(&[channel_stats(&channels(count))]);
    assert_eq!(ask(server.address(), &question(100)).status, 200);
    assert_refused(&ask(server.address(), &question(101)), text);
}

#[test]
fn q_059_w_039_an_id_that_is_not_16_bytes_long_is_4019_whoever_sends_it() {
    let server = TestServer::start();
    let text = "4019: Request has an invalid channel id.";
    let pair = Pair::new(1);
    for length in [0, 3, 15, 17, 32] {
        let id = vec![1; length];
        let trusted = batch(&[publish(&[message(&[receiver(&id, true, &[])], b"{}", 0)])]);
        assert_refused(&ask(server.address(), &trusted), text);
        let question = batch(&[channel_stats(&[receiver(&id, true, &[])])]);
        assert_refused(&ask(server.address(), &question), text);
        let signed = receiver(&id, false, &pair.public_signature());
        let untrusted = batch(&[publish(&[message(&[signed], b"{}", 0)])]);
        assert_refused(&ask_as_client(server.address(), &pair.signed(), &untrusted), text);
    }
}

#[test]
fn w_039_a_client_frame_without_a_mask_is_a_protocol_error() {
    let server = TestServer::start();
    let mut connection = raw::Connection::open(server.address());
    let target = format!("/subws/?CHANNEL_ID={}", Pair::new(1).private_signed());
    connection.send(crate::websocket::handshake(&target));
    assert_eq!(connection.answer().status, 101);
    // A whole text frame "x", not masked.
    connection.send([0x81, 0x01, b'x']);
    let (mut stream, mut received) = connection.into_parts();
    while received.len() < 4 {
        let mut buffer = [0; 16];
        let read = std::io::Read::read(&mut stream, &mut buffer).expect("a close frame");
        assert!(read > 0, "closed without a word");
        received.extend_from_slice(&buffer[..read]);
    }
    assert_eq!(received[0], 0x88, "a close frame");
    assert_eq!(received[2..4], 1002_u16.to_be_bytes());
}

#[test]
fn q_060_q_061_the_back_end_reaches_public_channels_unsigned_and_speaks_for_itself() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let query = format!("CHANNEL_ID={}&binaryMode=true", pair.signed());
    let mut socket = Subscriber::open(server.address(), &query);
    let mut sent = message(&[receiver(pair.public.as_bytes(), false, &[])], b"{}", 0);
    // A sender in the request: type CLIENT, some id.
    let forged = [number(1, 1), field(2, &[7; 16])].concat();
    sent.extend(field(2, &forged));
    assert_taken(&ask(server.address(), &batch(&[publish(&[sent])])));
    let messages = outgoing(&socket.next_binary());
    assert!(messages[0].contains(&(5, Field::Bytes(vec![0x08, 0x02]))), "{messages:?}");
}

#[test]
fn q_062_one_invalid_message_refuses_the_whole_request() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let good = message(&[private(pair)], br#"{"refused":1}"#, 60);
    let bad = message(&[private(pair), receiver(&[1], true, &[])], b"{}", 0);
    let answer = ask(server.address(), &batch(&[publish(&[good, bad])]));
    assert_refused(&answer, "4019: Request has an invalid channel id.");
    raw::publish(server.address(), &pair.private.to_string(), 0, r#"{"next":1}"#);
    assert_eq!(socket.next_text()["next"], 1);
    assert_eq!(metric(server.address(), "vestnik_published_messages_total"), 1);
}

#[test]
fn q_063_q_064_unknown_fields_are_skipped_and_the_last_command_counts() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let to = [private(pair), field(15, b"?")].concat();
    let sent = [message(&[to], br#"{"x":1}"#, 0), number(99, 5)].concat();
    let request = [server_stats(), channel_stats(&[private(pair)]), publish(&[sent])].concat();
    let sent = [batch(&[[field(50, b"?"), request].concat()]), number(77, 1)].concat();
    assert_taken(&ask(server.address(), &sent));
    assert_eq!(socket.next_text()["x"], 1);
    // The other way round it is a question.
    let request = [publish(&[message(&[private(pair)], b"{}", 0)]), server_stats()].concat();
    let answer = ask(server.address(), &batch(&[request]));
    assert!(answer.body.windows(5).any(|window| window == b"\"pid\""));
}

#[test]
fn q_066_other_parameters_are_ignored() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let sent = batch(&[publish(&[message(&[private(pair)], br#"{"x":1}"#, 0)])]);
    let target = "/bitrix/pub/?binaryMode=true&hostname=example.com&CHANNEL_ID=nonsense&y";
    assert_taken(&raw::post(server.address(), target, &[], &sent));
    assert_eq!(socket.next_text()["x"], 1);
}

/// The original served the first request and dropped the others without a word.
#[test]
fn q_067_q_194_w_034_all_requests_of_a_batch_are_served_in_order() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let event =
        |n: u32| publish(&[message(&[private(pair)], format!("{{\"n\":{n}}}").as_bytes(), 60)]);
    let bad = publish(&[message(&[], b"{}", 0)]);
    let answer = ask(
        server.address(),
        &batch(&[event(1), channel_stats(&[private(pair)]), bad, event(2), server_stats()]),
    );
    assert_eq!(answer.status, 200, "a later bad request is no error (Q-067)");
    let responses = fields(&answer.body);
    assert_eq!(responses.len(), 2, "both questions are answered");
    assert_eq!(socket.next_text()["n"], 1);
    assert_eq!(socket.next_text()["n"], 2);
    assert_eq!(metric(server.address(), "vestnik_refused_publishes_total"), 1);
}

#[test]
fn q_068_q_069_a_client_without_a_valid_pair_is_4012_whatever_it_sends() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let text = "4012: Public Channel Id is Required.";
    let good = batch(&[publish(&[message(&[public(pair)], b"{}", 0)])]);
    let unsigned = format!("{}:{}", pair.private, pair.public);
    let wrong = format!("{unsigned}.{}", crate::sign::sign("something else"));
    for channels in
        ["", "x", &pair.private_signed(), &unsigned, &wrong, &format!("{}/", pair.signed())]
    {
        for body in [&good[..], b"", b"garbage"] {
            assert_refused(&ask_as_client(server.address(), channels, body), text);
        }
    }
    assert_refused(&raw::post(server.address(), "/rest/", &[], &good), text);
}

#[test]
fn q_070_q_071_q_072_what_clients_may_not_ask_for() {
    let server = TestServer::start();
    let (own, other) = (Pair::new(1), Pair::new(2));
    let ask = |request: Vec<u8>| ask_as_client(server.address(), &own.signed(), &batch(&[request]));
    let send = |to: Vec<u8>| ask(publish(&[message(&[to], b"{}", 0)]));
    assert_refused(&ask(server_stats()), "4014: Request command is not allowed.");
    assert_refused(&ask(field(4, &[])), "4014: Request command is not allowed.");
    assert_refused(&send(private(other)), "4020: Private channel is not allowed.");
    let hex: String = other.public_signature().iter().map(|byte| format!("{byte:02x}")).collect();
    for signature in [&[][..], &[0; 20], &own.public_signature(), hex.as_bytes()] {
        let to = receiver(other.public.as_bytes(), false, signature);
        assert_refused(&send(to.clone()), "4021: Channel has an invalid signature.");
        let question = ask(channel_stats(&[to]));
        assert_refused(&question, "4021: Channel has an invalid signature.");
    }
}

/// Browsers send protobuf with whatever content type their request library thinks fit, or none.
#[test]
fn q_073_q_074_q_133_k_024_a_client_writes_to_a_public_channel_under_its_own_public_id() {
    let server = TestServer::start();
    let (own, second, other) = (Pair::new(1), Pair::new(2), Pair::new(3));
    let query = format!("CHANNEL_ID={}&binaryMode=true", other.signed());
    let mut socket = Subscriber::open(server.address(), &query);
    let mut sent = message(&[public(other)], br#"{"x":1}"#, 0);
    sent.extend(field(2, &[number(1, 2), field(2, &[7; 16])].concat()));
    let sent = batch(&[publish(&[sent])]);
    let channels = format!("{}/{}/{}", own.private_signed(), own.signed(), second.signed());
    for path in ["/rest/", "/bitrix/rest/", "/pubweb/", "/bitrix/pubweb/"] {
        for header in ["X-Nothing: 1", "Content-Type: application/x-protobuf", "Content-Type: a/b"]
        {
            let target = format!("{path}?CHANNEL_ID={channels}");
            assert_taken(&raw::post(server.address(), &target, &[header], &sent));
            let messages = outgoing(&socket.next_binary());
            let sender = [number(1, 1), field(2, own.public.as_bytes())].concat();
            assert!(messages[0].contains(&(5, Field::Bytes(sender))), "{messages:?}");
        }
    }
}

#[test]
fn q_075_q_076_a_client_asks_about_signed_public_ids_and_is_answered_in_binary() {
    let server = TestServer::start();
    let (own, other) = (Pair::new(1), Pair::new(2));
    let _socket = Subscriber::open(server.address(), &format!("CHANNEL_ID={}", other.signed()));
    let question = batch(&[channel_stats(&[public(own), public(other), public(own)])]);
    let answer = ask_as_client(server.address(), &own.signed(), &question);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let entry = |pair: Pair, online| {
        let entry = [field(1, pair.public.as_bytes()), number(2, 0), number(3, online)].concat();
        field(1, &entry)
    };
    let entries = [entry(own, 0), entry(other, 1), entry(own, 0)].concat();
    assert_eq!(answer.body, field(1, &field(2, &entries)));
}

/// A publish of the trusted route may be larger than a client's (README D18); both limits hold to
/// the byte.
#[test]
fn q_046_q_047_binary_requests_have_their_own_limits() {
    let server = TestServer::with(&["limits.max_payload=4KiB", "limits.max_trusted_payload=8KiB"]);
    let pair = Pair::new(1);
    let sized = |to: &[u8], size: usize| {
        let empty = batch(&[publish(&[message(&[to.to_vec()], &[b'x'; 3000], 0)])]);
        // All lengths have two bytes here, so the body alone decides the size.
        let body = vec![b'x'; 3000 + size - empty.len()];
        let sent = batch(&[publish(&[message(&[to.to_vec()], &body, 0)])]);
        assert_eq!(sent.len(), size);
        sent
    };
    assert_taken(&ask(server.address(), &sized(&private(pair), 8192)));
    assert_eq!(ask(server.address(), &sized(&private(pair), 8193)).status, 413);
    let channels = pair.signed();
    assert_taken(&ask_as_client(server.address(), &channels, &sized(&public(pair), 4096)));
    assert_eq!(ask_as_client(server.address(), &channels, &sized(&public(pair), 4097)).status, 413);
}
