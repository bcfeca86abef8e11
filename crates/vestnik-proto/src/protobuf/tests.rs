use proptest::prelude::*;
use prost::Message;
use vestnik_core::Secret;
use vestnik_core::message::{Draft, Expiry, MessageId, MessageKind};
use vestnik_core::sign::{Algorithm, Key, KeyRing};

use super::schema::{IncomingMessage, RequestBatch, RequestCommand, ResponseBatch};
use super::*;

/// Bytes from hex digits and spaces.
fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

const PRIVATE: &str = "00112233445566778899aabbccddeeff";
const PUBLIC: &str = "ffeeddccbbaa99887766554433221100";
const SIGNED_PUBLIC: &str = "d50c2c98ed6f8e8ba0698d91b5a2fdac97fb26b0";

fn id(hex: &str) -> ChannelId {
    hex.parse().unwrap()
}

fn keys() -> KeyRing {
    let secret = Secret::new("test-signature-key-0123456789abcdef".to_owned());
    KeyRing::new(vec![Key::new(secret, Algorithm::Sha1, None)]).unwrap()
}

fn receiver(id: impl Into<Bytes>, is_private: bool, signature: &str) -> schema::Receiver {
    schema::Receiver { id: id.into(), is_private, signature: bytes(signature) }
}

fn private() -> schema::Receiver {
    receiver(bytes(PRIVATE), true, "")
}

fn public() -> schema::Receiver {
    receiver(bytes(PUBLIC), false, SIGNED_PUBLIC)
}

fn message(receivers: Vec<schema::Receiver>) -> IncomingMessage {
    let body = Bytes::from_static(br#"{"a":1}"#);
    IncomingMessage { receivers, body, ..IncomingMessage::default() }
}

fn publish(messages: Vec<IncomingMessage>) -> RequestCommand {
    RequestCommand::IncomingMessages(schema::IncomingMessagesRequest { messages })
}

fn channels(channels: Vec<schema::Receiver>) -> RequestCommand {
    RequestCommand::ChannelStats(schema::ChannelStatsRequest { channels })
}

fn statistics() -> RequestCommand {
    RequestCommand::ServerStats(schema::ServerStatsRequest {})
}

fn batch(commands: Vec<RequestCommand>) -> Bytes {
    let requests =
        commands.into_iter().map(|command| schema::Request { command: Some(command) }).collect();
    RequestBatch { requests }.encode_to_vec().into()
}

fn by_backend(batch: &Bytes) -> Result<Decoded, RequestError> {
    decode_request_batch(batch, Caller::Backend, &RequestLimits::default())
}

fn by_client(batch: &Bytes) -> Result<Decoded, RequestError> {
    let caller = Caller::Client { author: Some(id(PUBLIC)), keys: &keys(), now_s: 0 };
    decode_request_batch(batch, caller, &RequestLimits::default())
}

fn draft(receiver: Receiver, author: Author) -> Draft {
    Draft {
        receivers: Box::new([receiver]),
        body: Bytes::from_static(br#"{"a":1}"#),
        expiry: Expiry::VOLATILE,
        author,
        kind: MessageKind::UNKNOWN,
        additions: vestnik_core::message::Additions::default(),
    }
}

#[track_caller]
fn check(got: Result<Decoded, RequestError>, expected: Result<Vec<Request>, RequestError>) {
    let expected = expected.map(|requests| Decoded { requests, rejected: Vec::new() });
    assert_eq!(got, expected);
}

#[test]
fn q_052_a_publish_of_the_specification_is_read() {
    let wire = bytes(
        "0a2e 0a2c 0a2a 0a14 0a10 00112233445566778899aabbccddeeff 1001
         1a07 7b2261223a317d 203c 2a07 696d5f74657374",
    );
    let draft = Draft {
        expiry: Expiry::new(60, Expiry::MAX),
        kind: MessageKind::parse("im_test"),
        additions: vestnik_core::message::Additions::default(),
        ..draft(Receiver::Private(id(PRIVATE)), Author::Backend)
    };
    check(by_backend(&wire), Ok(vec![Request::Publish(vec![draft])]));
}

#[test]
fn statistics_requests_of_the_specification_are_read() {
    let wire = bytes("0a18 1216 0a14 0a10 00112233445566778899aabbccddeeff 1001");
    let expected = Request::ChannelStats(vec![Receiver::Private(id(PRIVATE))]);
    check(by_backend(&wire), Ok(vec![expected]));
    check(by_backend(&bytes("0a02 1a00")), Ok(vec![Request::ServerStats]));
}

#[test]
fn k_023_the_captured_publish_frame_is_read() {
    let [first, second] = [0xcc, 0xdd].map(|byte| ChannelId::from_bytes([byte; 16]));
    let body = r#"{"module_id":"im","command":"hi","params":{"t":1}}"#;
    let body_hex: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
    let wire = bytes(&format!(
        "0a 9001 0a 8d01 0a 8a01 0a28 0a10 {} 1a14 {} 0a28 0a10 {} 1a14 {} 1a32 {body_hex} 201e",
        "cc".repeat(16),
        "44".repeat(20),
        "dd".repeat(16),
        "55".repeat(20),
    ));
    let decoded = by_backend(&wire).unwrap();
    let [Request::Publish(drafts)] = &decoded.requests[..] else { panic!("one publish") };
    assert_eq!(*drafts[0].receivers, [Receiver::Public(first), Receiver::Public(second)]);
    assert_eq!((&drafts[0].body[..], drafts[0].expiry.seconds()), (body.as_bytes(), 30));
    // Its signatures are placeholders.
    check(by_client(&wire), Err(RequestError::InvalidSignature));
}

#[test]
fn q_053_a_publish_of_nothing_is_fine() {
    check(by_backend(&batch(vec![publish(vec![])])), Ok(vec![Request::Publish(vec![])]));
}

#[test]
fn q_054_q_055_q_108_what_is_no_request_is_4013() {
    for wire in ["", "ff", "0a", "0a00", "0a05", "1203 616263", "0a02 2a00", "0a02 0800", "7b7d"] {
        check(by_backend(&bytes(wire)), Err(RequestError::WrongData));
        check(by_client(&bytes(wire)), Err(RequestError::WrongData));
    }
    // Broken deep inside a message, and in a member that a later one overrides.
    check(by_backend(&bytes("0a08 0a06 0a04 0a02 0a05")), Err(RequestError::WrongData));
    check(by_backend(&bytes("0a05 0a01ff 1a00")), Err(RequestError::WrongData));
}

#[test]
fn q_056_a_hundred_messages_pass_and_one_more_is_4016() {
    let messages = vec![message(vec![private()]); 101];
    check(by_backend(&batch(vec![publish(messages.clone())])), Err(RequestError::TooManyMessages));
    assert!(by_backend(&batch(vec![publish(messages[1..].to_vec())])).is_ok());
}

#[test]
fn q_057_no_receivers_is_4017() {
    check(by_backend(&batch(vec![publish(vec![message(vec![])])])), Err(RequestError::NoChannels));
    check(by_backend(&batch(vec![channels(vec![])])), Err(RequestError::NoChannels));
}

#[test]
fn q_058_a_hundred_receivers_pass_and_one_more_is_4018() {
    let receivers = vec![private(); 101];
    for command in [publish(vec![message(receivers.clone())]), channels(receivers.clone())] {
        check(by_backend(&batch(vec![command])), Err(RequestError::TooManyChannels));
    }
    let receivers = receivers[1..].to_vec();
    for command in [publish(vec![message(receivers.clone())]), channels(receivers.clone())] {
        assert!(by_backend(&batch(vec![command])).is_ok());
    }
}

#[test]
fn q_059_w_039_an_id_that_is_not_16_bytes_long_is_4019_whoever_sends_it() {
    for length in [0, 3, 15, 17] {
        let short = receiver(vec![7; length], false, SIGNED_PUBLIC);
        let wire = batch(vec![publish(vec![message(vec![short])])]);
        check(by_backend(&wire), Err(RequestError::InvalidChannelId));
        check(by_client(&wire), Err(RequestError::InvalidChannelId));
    }
}

#[test]
fn q_060_the_back_end_needs_no_signature_for_a_public_channel() {
    let unsigned = receiver(bytes(PUBLIC), false, "");
    let expected = draft(Receiver::Public(id(PUBLIC)), Author::Backend);
    let wire = batch(vec![publish(vec![message(vec![unsigned])])]);
    check(by_backend(&wire), Ok(vec![Request::Publish(vec![expected])]));
}

#[test]
fn q_061_q_073_q_074_the_author_is_set_by_the_server() {
    let mut forged = message(vec![public()]);
    forged.sender = Some(schema::Sender { kind: 2, id: Some(bytes(PRIVATE)) });
    let wire = batch(vec![publish(vec![forged])]);
    for (got, author) in
        [(by_backend(&wire), Author::Backend), (by_client(&wire), Author::Client(id(PUBLIC)))]
    {
        let expected = draft(Receiver::Public(id(PUBLIC)), author);
        check(got, Ok(vec![Request::Publish(vec![expected])]));
    }
}

#[test]
fn q_062_one_bad_message_refuses_the_request() {
    let wire = batch(vec![publish(vec![message(vec![private()]), message(vec![])])]);
    check(by_backend(&wire), Err(RequestError::NoChannels));
}

#[test]
fn q_063_unknown_fields_are_skipped_at_every_level() {
    // Field 31 as varint, fixed64, bytes, group and fixed32, at the end of each message.
    let unknown = "f801 9601 f901 0000000000000000 fa01 01ff fb01 0801 fc01 fd01 00000000";
    let nest = |number: u8, inner: &Bytes| {
        let mut out = vec![number << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        Bytes::from([&out[..], inner].concat())
    };
    let with_unknown = |known: &Bytes| Bytes::from([known, &bytes(unknown)[..]].concat());
    let receiver = with_unknown(&bytes(&format!("0a10 {PRIVATE} 1001")));
    let body = bytes("1a07 7b2261223a317d");
    let message = with_unknown(&[nest(1, &receiver), body].concat().into());
    let request = with_unknown(&nest(1, &with_unknown(&nest(1, &message))));
    let wire = with_unknown(&nest(1, &request));
    let expected = draft(Receiver::Private(id(PRIVATE)), Author::Backend);
    check(by_backend(&wire), Ok(vec![Request::Publish(vec![expected])]));
}

#[test]
fn q_064_of_several_commands_the_last_on_the_wire_is_served() {
    check(by_backend(&bytes("0a04 0a00 1a00")), Ok(vec![Request::ServerStats]));
    check(by_backend(&bytes("0a04 1a00 0a00")), Ok(vec![Request::Publish(vec![])]));
}

#[test]
fn q_065_errors_print_as_code_and_text() {
    use RequestError as E;
    let printed: Vec<String> = [
        E::PublicChannelRequired,
        E::WrongData,
        E::CommandNotAllowed,
        E::WrongCommand,
        E::TooManyMessages,
        E::NoChannels,
        E::TooManyChannels,
        E::InvalidChannelId,
        E::PrivateChannel,
        E::InvalidSignature,
    ]
    .map(|error| error.to_string())
    .to_vec();
    assert_eq!(printed[0], "4012: Public Channel Id is Required.");
    assert_eq!(printed[9], "4021: Channel has an invalid signature.");
    let codes: Vec<String> = (4012..=4021).map(|code| code.to_string()).collect();
    assert!(printed.iter().zip(codes).all(|(text, code)| text.starts_with(&code)));
}

#[test]
fn q_067_q_194_w_034_all_requests_are_served_and_later_bad_ones_cause_no_error() {
    let publish_one = publish(vec![message(vec![private()])]);
    let wire = batch(vec![statistics(), channels(vec![]), publish_one]);
    let decoded = by_backend(&wire).unwrap();
    let expected = draft(Receiver::Private(id(PRIVATE)), Author::Backend);
    assert_eq!(decoded.requests, [Request::ServerStats, Request::Publish(vec![expected])]);
    assert_eq!(decoded.rejected, [RequestError::NoChannels]);
}

#[test]
fn requests_over_the_limit_are_not_served_and_counted() {
    let decoded = by_backend(&bytes(&"0a021a00".repeat(1000))).unwrap();
    assert_eq!(decoded.requests.len(), 100);
    assert_eq!(decoded.rejected, [RequestError::TooManyMessages]);
}

#[test]
fn q_068_q_069_q_117_a_client_without_a_pair_is_4012_whatever_it_sends() {
    let caller = Caller::Client { author: None, keys: &keys(), now_s: 0 };
    for wire in ["", "ff", "0a021a00"] {
        let got = decode_request_batch(&bytes(wire), caller, &RequestLimits::default());
        check(got, Err(RequestError::PublicChannelRequired));
    }
}

#[test]
fn q_070_clients_may_not_ask_for_server_statistics_or_register() {
    for wire in ["0a021a00", "0a022200"] {
        check(by_client(&bytes(wire)), Err(RequestError::CommandNotAllowed));
    }
    check(by_backend(&bytes("0a022200")), Err(RequestError::WrongCommand));
}

#[test]
fn q_071_a_client_may_not_address_a_private_channel() {
    for command in [publish(vec![message(vec![private()])]), channels(vec![private()])] {
        check(by_client(&batch(vec![command])), Err(RequestError::PrivateChannel));
    }
}

#[test]
fn q_072_a_receiver_without_its_signature_is_4021() {
    let hex_text: String = SIGNED_PUBLIC.bytes().map(|digit| format!("{digit:02x}")).collect();
    let pair = "c9c1f42ccc4ff9152fcdfc62b8c03cd56bfea155";
    for signature in ["", pair, &SIGNED_PUBLIC[..38], &hex_text] {
        let receiver = receiver(bytes(PUBLIC), false, signature);
        for command in [publish(vec![message(vec![receiver.clone()])]), channels(vec![receiver])] {
            check(by_client(&batch(vec![command])), Err(RequestError::InvalidSignature));
        }
    }
    let caller = Caller::Client { author: Some(id(PUBLIC)), keys: &KeyRing::default(), now_s: 0 };
    let wire = batch(vec![publish(vec![message(vec![public()])])]);
    let got = decode_request_batch(&wire, caller, &RequestLimits::default());
    check(got, Err(RequestError::InvalidSignature));
}

#[test]
fn q_075_signed_public_ids_are_asked_about_in_order() {
    let wire = batch(vec![channels(vec![public(), public()])]);
    let expected = Request::ChannelStats(vec![Receiver::Public(id(PUBLIC)); 2]);
    check(by_client(&wire), Ok(vec![expected]));
}

#[test]
fn k_051_clients_may_not_speak_for_the_modules_pull_and_online_but_the_back_end_may() {
    let mut command = message(vec![public()]);
    command.body = Bytes::from_static(br#"{"module_id":"Pull","command":"server_restart"}"#);
    let wire = batch(vec![publish(vec![message(vec![public()]), command])]);
    check(by_client(&wire), Err(RequestError::WrongData));
    assert!(by_backend(&wire).is_ok());
}

#[test]
fn k_012_a_body_that_is_no_utf8_is_repaired_and_any_other_shares_the_memory_of_the_batch() {
    let mut broken = message(vec![private()]);
    broken.body = Bytes::from_static(b"\"a\xff\"");
    let wire = batch(vec![publish(vec![broken, message(vec![private()])])]);
    let decoded = by_backend(&wire).unwrap();
    let [Request::Publish(drafts)] = &decoded.requests[..] else { panic!("one publish") };
    assert_eq!(drafts[0].body, "\"a\u{fffd}\"");
    assert!(wire.as_ptr_range().contains(&drafts[1].body.as_ptr()));
}

#[test]
fn q_043_a_long_expiry_becomes_the_cap() {
    let mut long = message(vec![private()]);
    long.expiry = u32::MAX;
    let wire = batch(vec![publish(vec![long])]);
    let limits = RequestLimits { expiry: Expiry::new(7, Expiry::MAX), ..RequestLimits::default() };
    for (limits, seconds) in [(RequestLimits::default(), 86_400), (limits, 7)] {
        let decoded = decode_request_batch(&wire, Caller::Backend, &limits).unwrap();
        let [Request::Publish(drafts)] = &decoded.requests[..] else { panic!("one publish") };
        assert_eq!(drafts[0].expiry.seconds(), seconds);
    }
}

fn outgoing(expiry_s: u64, author: Author) -> Envelope {
    let draft = Draft {
        expiry: Expiry::new(expiry_s, Expiry::MAX),
        ..draft(Receiver::Private(id(PRIVATE)), author)
    };
    Envelope::new(MessageId::new(1_795_487_320, 1), 1_700_000_000_999, draft)
}

#[test]
fn q_131_q_132_k_020_k_021_a_record_is_that_of_the_specification() {
    let expected = bytes(
        "0a27 0a25 0a23 0a0d 17954873200000000000000001 1207 7b2261223a317d
         183c 2500f15365 2a02 0802",
    );
    let envelope = outgoing(60, Author::Backend);
    assert_eq!(record(&envelope), expected);
    assert_eq!(frame(&envelope)[..2], [0x82, 0x29], "one binary frame");
    assert_eq!(frame(&envelope)[2..], expected);
}

#[test]
fn q_130_a_volatile_message_shows_its_expiry_of_zero() {
    let record = record(&outgoing(0, Author::Backend));
    assert!(record.windows(5).any(|window| window == [0x7d, 0x18, 0x00, 0x25, 0x00]));
}

#[test]
fn q_133_a_client_as_author_has_its_16_byte_id() {
    let record = record(&outgoing(60, Author::Client(id(PUBLIC))));
    assert!(record.ends_with(&bytes(&format!("2a14 0801 1210 {PUBLIC}"))));
}

#[test]
fn q_134_q_128_the_position_is_the_same_in_text_and_protobuf() {
    let envelope = outgoing(60, Author::Backend);
    let mid = envelope.id.to_string();
    let text = crate::text::record(&envelope);
    assert!(std::str::from_utf8(&text).unwrap().contains(&format!(r#""mid":"{mid}""#)));
    assert!(record(&envelope).windows(13).any(|window| window == bytes(&mid)));
}

#[test]
fn q_181_w_015_text_clients_do_not_change_what_protobuf_clients_get() {
    let [first, second] = [(); 2].map(|()| outgoing(60, Author::Backend));
    let _ = (crate::text::frame(&first), crate::json::frame(&first));
    assert_eq!(record(&first), record(&second));
}

#[test]
fn q_120_records_in_a_row_are_one_batch() {
    let ids = [outgoing(60, Author::Backend), outgoing(0, Author::Client(id(PUBLIC)))];
    let records: Vec<Bytes> =
        ids.iter().map(record).chain([server_stats("[]".to_owned())]).collect();
    let frame = batch_frame(&records);
    let batch = ResponseBatch::decode(crate::websocket::payload_of(&frame)).unwrap();
    assert_eq!((frame[0], batch.responses.len()), (0x82, 3));
}

#[test]
fn q_082_channel_statistics_write_their_false_values() {
    let asked = [(Receiver::Private(id(PRIVATE)), true), (Receiver::Public(id(PUBLIC)), false)];
    let wire = channel_stats(&asked);
    let first = bytes(&format!("0a16 0a10 {PRIVATE} 1001 1801"));
    let second = bytes(&format!("0a16 0a10 {PUBLIC} 1000 1800"));
    assert_eq!(wire, [&bytes("0a32 1230")[..], &first, &second].concat());
}

#[test]
fn q_152_server_statistics_carry_their_json() {
    assert_eq!(server_stats("[]".to_owned()), bytes("0a06 1a04 0a02 5b5d"));
}

fn any_receiver() -> impl Strategy<Value = schema::Receiver> {
    let id = prop::collection::vec(any::<u8>(), 14..18);
    (id, any::<bool>(), prop::collection::vec(any::<u8>(), 0..70)).prop_map(
        |(id, is_private, signature)| schema::Receiver {
            id: id.into(),
            is_private,
            signature: signature.into(),
        },
    )
}

fn any_command() -> impl Strategy<Value = RequestCommand> {
    let receivers = || prop::collection::vec(any_receiver(), 0..4);
    let message = (receivers(), any::<Vec<u8>>(), any::<u32>(), any::<String>()).prop_map(
        |(receivers, body, expiry, kind)| IncomingMessage {
            receivers,
            sender: Some(schema::Sender { kind: 1, id: Some(Bytes::from_static(b"x")) }),
            body: body.into(),
            expiry,
            kind,
        },
    );
    prop_oneof![
        prop::collection::vec(message, 0..4).prop_map(publish),
        receivers().prop_map(channels),
        Just(statistics()),
    ]
}

/// What the batch means, worked out from the structs instead of the bytes.
fn meaning(command: &RequestCommand) -> Result<Request, RequestError> {
    let receivers = |all: &[schema::Receiver]| match all {
        [] => Err(RequestError::NoChannels),
        all => all
            .iter()
            .map(|one| {
                let id = <[u8; 16]>::try_from(&one.id[..]).map(ChannelId::from_bytes);
                let id = id.map_err(|_| RequestError::InvalidChannelId)?;
                Ok(if one.is_private { Receiver::Private(id) } else { Receiver::Public(id) })
            })
            .collect::<Result<Vec<_>, _>>(),
    };
    Ok(match command {
        RequestCommand::ServerStats(_) => Request::ServerStats,
        RequestCommand::ChannelStats(asked) => Request::ChannelStats(receivers(&asked.channels)?),
        RequestCommand::IncomingMessages(request) => {
            let drafts = request.messages.iter().map(|message| {
                Ok(Draft {
                    receivers: receivers(&message.receivers)?.into(),
                    body: String::from_utf8_lossy(&message.body).into_owned().into(),
                    expiry: Expiry::new(message.expiry.into(), Expiry::MAX),
                    author: Author::Backend,
                    kind: MessageKind::parse(&message.kind),
                    additions: vestnik_core::message::Additions::default(),
                })
            });
            Request::Publish(drafts.collect::<Result<_, RequestError>>()?)
        }
    })
}

proptest! {
    #[test]
    fn what_prost_writes_is_read_with_the_same_meaning(
        commands in prop::collection::vec(any_command(), 1..4)
    ) {
        let meanings: Vec<_> = commands.iter().map(meaning).collect();
        let got = by_backend(&batch(commands));
        match (&meanings[0], got) {
            (Err(error), got) => prop_assert_eq!(got, Err(*error)),
            (Ok(_), Err(error)) => prop_assert!(false, "{}", error),
            (Ok(_), Ok(decoded)) => {
                let (served, rejected): (Vec<_>, Vec<_>) =
                    meanings.into_iter().partition(Result::is_ok);
                let served: Vec<_> = served.into_iter().filter_map(Result::ok).collect();
                let rejected: Vec<_> = rejected.into_iter().filter_map(Result::err).collect();
                prop_assert_eq!(decoded, Decoded { requests: served, rejected });
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(wire: Vec<u8>) {
        let wire = Bytes::from(wire);
        let _ = by_backend(&wire);
        let _ = by_client(&wire);
    }

    #[test]
    fn a_damaged_batch_never_panics(
        commands in prop::collection::vec(any_command(), 1..3),
        at: prop::sample::Index,
        damage: u8,
    ) {
        let mut wire = batch(commands).to_vec();
        let at = at.index(wire.len());
        wire[at] = damage;
        let wire = Bytes::from(wire);
        let _ = by_client(&wire);
        if let Ok(decoded) = by_backend(&wire) {
            prop_assert!(!decoded.requests.is_empty());
        }
    }

    #[test]
    fn a_record_is_read_back_by_prost(body: Vec<u8>, created_s: u32, seq in 1..MessageId::SEQ_MAX) {
        let draft = Draft {
            body: body.clone().into(),
            ..draft(Receiver::Private(id(PRIVATE)), Author::Client(id(PUBLIC)))
        };
        let id = MessageId::new(1, seq);
        let envelope = Envelope::new(id, u64::from(created_s) * 1000, draft);
        let batch = ResponseBatch::decode(record(&envelope)).unwrap();
        let command = batch.responses[0].command.clone();
        let Some(schema::ResponseCommand::OutgoingMessages(response)) = command else {
            panic!("messages")
        };
        let message = &response.messages[0];
        prop_assert_eq!(MessageId::from_packed(&message.id), Ok(id));
        prop_assert_eq!(message.body.as_deref(), Some(&body[..]));
        prop_assert_eq!(message.created, Some(created_s));
    }
}
