use vestnik_core::Secret;
use vestnik_core::publisher::Recipients;
use vestnik_core::sign::{Algorithm, KeyRing};

use super::*;

const P: &str = "00112233445566778899aabbccddeeff";

fn channels(count: usize) -> Vec<ChannelId> {
    (0..count).map(|n| ChannelId::from_bytes((n as u128).to_be_bytes())).collect()
}

fn event(body: impl Into<Bytes>, channels: Vec<ChannelId>) -> ModuleEvent {
    ModuleEvent {
        body: body.into(),
        kind: MessageKind::parse("im_m"),
        expiry: Expiry::new(60, Expiry::MAX),
        recipients: Recipients { channels, ..Recipients::default() },
        user_params: Vec::new(),
        dictionary: None,
    }
}

/// An event of about so many bytes.
fn sized(bytes: usize) -> ModuleEvent {
    event(format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes)), channels(1))
}

fn key() -> Key {
    let secret = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
    Key::new(secret, Algorithm::Sha1, None)
}

#[test]
fn m_053_legacy_requests_group_channels_and_escape_as_php_does() {
    let body = "{\"module_id\":\"im\",\"u\":\"/\u{2028}\u{2029}ж<&'\\\"\\/\"}";
    let events = [event(body, channels(5))];
    let plan = text(&events, 2, 1 << 20);
    let groups: Vec<_> = plan.requests.iter().map(|it| it.channels.split('/').count()).collect();
    assert_eq!((groups, plan.refused), (vec![2, 2, 1], vec![]));
    let expected = "{\"module_id\":\"im\",\"u\":\"\\/\\u2028\\u2029ж<&'\\\"\\/\"}";
    assert_eq!(plan.requests[0].body, expected);
    assert_eq!(plan.requests[0].channels, format!("{}/{}", channels(2)[0], channels(2)[1]));
    assert_eq!(plan.requests[2].expiry.seconds(), 60);
    assert_eq!(text(&events, 1, 1 << 20).requests.len(), 5, "generation 1: one at a time");
    let plan = text(&[sized(100)], 100, 50);
    assert_eq!(plan.refused, [(0, EncodeError::TooLarge { bytes: 108, limit: 50 })]);
}

#[test]
fn m_050_below_generation_5_nothing_of_an_event_is_dropped_in_silence() {
    let mut with_params = event("{}", channels(1));
    with_params.dictionary = Some("{}".into());
    let mut only_users = event("{}", vec![]);
    only_users.recipients.users.extend(UserId::new(7));
    let mut public = event("{}", channels(1));
    public.recipients.public_channels = channels(1);
    let broken = event("{\"a\":", channels(1));
    let events = [with_params, only_users, public, broken];
    let expected = [
        (0, EncodeError::UserParams),
        (1, EncodeError::NoRecipients),
        (2, EncodeError::PublicChannels),
        (3, EncodeError::NotAnObject),
    ];
    let plan = text(&events, 100, 1 << 20);
    assert_eq!((plan.requests.len(), &plan.refused[..]), (0, &expected[..]));
    let plan = protobuf(&events, BatchLimits::default());
    let refused = [expected[0], expected[1], expected[3]];
    assert_eq!((plan.requests.len(), &plan.refused[..]), (1, &refused[..]), "it knows public ones");
}

#[test]
fn m_058_the_bytes_of_a_protobuf_publish() {
    let body = format!(r#"{{"a":"{}"}}"#, "x".repeat(192));
    assert_eq!(body.len(), 200);
    let plan = protobuf(&[event(body.clone(), vec![P.parse().unwrap()])], BatchLimits::default());
    let head = format!("0aef010aec010ae9010a140a10{P}10011ac801");
    let expected = format!("{head}{}203c2a04696d5f6d", hex(body.as_bytes()));
    assert_eq!(hex(&plan.requests[0].body), expected);
}

#[test]
fn m_058_receivers_messages_and_bytes_of_a_request_are_limited() {
    let limits = BatchLimits::default();
    let counts = |events: &[ModuleEvent]| {
        let plan = protobuf(events, limits);
        assert_eq!(plan.refused, []);
        let batches = plan.requests.iter().map(|request| {
            assert!(request.body.len() <= limits.bytes);
            let batch = schema::RequestBatch::decode(request.body.clone()).unwrap();
            let Some(schema::RequestCommand::IncomingMessages(it)) = &batch.requests[0].command
            else {
                panic!("messages");
            };
            it.messages.iter().map(|it| it.receivers.len()).collect::<Vec<_>>()
        });
        batches.collect::<Vec<_>>()
    };
    assert_eq!(counts(&[event("{}", channels(249))]), [[100, 100, 49]]);
    let sizes: Vec<_> = counts(&vec![event("{}", channels(1)); 250]).iter().map(Vec::len).collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(counts(&[]), Vec::<Vec<usize>>::new());
}

#[test]
fn m_099_the_size_counter_starts_anew_with_each_request_and_none_is_empty() {
    let limits = BatchLimits::default();
    let counts = |sizes: &[usize]| {
        let events: Vec<_> = sizes.iter().map(|bytes| sized(*bytes)).collect();
        let plan = protobuf(&events, limits);
        let binary: Vec<_> = plan.requests.iter().map(|it| it.events.len()).collect();
        let rpc = json_rpc(&events, limits.bytes);
        let texts: Vec<_> = rpc.requests.iter().map(|it| it.events.len()).collect();
        assert!(rpc.requests.iter().all(|it| it.body.len() <= limits.bytes));
        assert_eq!((&binary, plan.refused.len()), (&texts, rpc.refused.len()));
        (binary, plan.refused.len())
    };
    assert_eq!(counts(&[100_000; 14]), (vec![10, 4], 0));
    let kilobytes = [300_000, 800_000, 700_000, 700_000, 700_000];
    assert_eq!(counts(&kilobytes), (vec![1; 5], 0));
    assert_eq!(counts(&[2_000_000]), (vec![], 1), "a clear error instead of an empty request");
    assert_eq!(counts(&[10, 2_000_000, 10]), (vec![2], 1), "the others are sent");
}

#[test]
fn m_060_questions_are_of_99_and_who_is_not_mentioned_is_offline() {
    let all = channels(250);
    let questions: Vec<_> = protobuf_questions(&all, BatchLimits::default()).collect();
    let sizes: Vec<_> = questions.iter().map(|(_, asked)| asked.len()).collect();
    assert_eq!(sizes, [99, 99, 52]);
    let p: ChannelId = P.parse().unwrap();
    let (question, _) = protobuf_questions(&[p], BatchLimits::default()).next().unwrap();
    assert_eq!(hex(&question), format!("0a1812160a140a10{P}1001"));
    let [a, b, c] = channels(3)[..] else { panic!("three") };
    let private = vestnik_core::Receiver::Private;
    let answer = crate::protobuf::channel_stats(&[(private(a), true), (private(b), false)]);
    let counts: Vec<_> =
        protobuf_listeners(answer, &[c, a, b]).unwrap().iter().map(|it| it.count).collect();
    assert_eq!(counts, [0, 1, 0]);
    for garbage in ["", "<html>", "\u{a}\u{2}\u{a}"] {
        assert_eq!(protobuf_listeners(garbage.into(), &[a]), None, "{garbage}");
    }
}

#[test]
fn m_056_legacy_statistics_are_an_array_or_one_bare_object() {
    let [a, b] = channels(2)[..] else { panic!("two") };
    let counts = |answer: String| {
        let listeners = text_listeners(answer.as_bytes(), &[a, b])?;
        Some(listeners.iter().map(|it| it.count).collect::<Vec<_>>())
    };
    let two = format!(r#"{{"infos":[{{"channel":"{b}","subscribers":2}}]}}"#);
    assert_eq!(counts(two), Some(vec![0, 2]));
    let bare = format!(r#"{{"channel": "{a}", "subscribers": "3"}}"#);
    assert_eq!(counts(bare), Some(vec![3, 0]));
    assert_eq!(counts(r#"{"infos": []}"#.to_owned()), Some(vec![0, 0]));
    for garbage in ["", "null", "<html>", "{", r#"{"infos":5}"#, "{}"] {
        assert_eq!(counts(garbage.to_owned()), None, "{garbage}");
    }
}

#[test]
fn m_062_a_json_rpc_batch_has_no_ids_and_php_escapes() {
    let mut event =
        event(r#"{"module_id":"im","t":"<a href='/x'>\"&ж"}"#, vec![P.parse().unwrap()]);
    event.recipients.users.extend(UserId::new(1));
    event.user_params = vec![(UserId::new(1).unwrap(), r#"{"a":1}"#.into())];
    event.dictionary = Some(r#"{"d":2}"#.into());
    let plan = json_rpc(&[event.clone()], 1 << 20);
    let expected = concat!(
        r#"[{"jsonrpc":"2.0","method":"publish","params":{"channelList":["#,
        r#""00112233445566778899aabbccddeeff"],"userList":[1],"body":{"module_id":"im","#,
        r#""t":"\u003Ca href=\u0027\/x\u0027\u003E\u0022\u0026ж"},"user_params":{"1":{"a":1}},"#,
        r#""dictionary":{"d":2},"expiry":60,"type":"im_m"}}]"#,
    );
    assert_eq!(plan.requests[0].body, expected);
    // The server's own codec reads it.
    let params = json_rpc_params(&event).unwrap();
    let space = vestnik_core::UserSpace::of("h");
    let draft = crate::jsonrpc::site_publish(&params, space, Expiry::MAX).unwrap();
    assert_eq!((draft.receivers.len(), draft.expiry.seconds()), (2, 60));
    event.expiry = Expiry::VOLATILE;
    assert!(json_rpc_params(&event).unwrap().contains(r#""expiry":86400"#));
    assert!(is_json_rpc_taken(b"[]") && is_json_rpc_taken(br#"{"a":1}"#));
    for garbage in ["", "0", "null", "\"\"", "<html>", "[", "{}x"] {
        assert!(!is_json_rpc_taken(garbage.as_bytes()), "{garbage}");
    }
}

#[test]
fn m_061_json_rpc_is_signed_over_its_bytes() {
    let url = json_rpc_url("http://s/api/", "h", "example.test", &key(), b"[1]");
    let signature = key().sign(&[b"[1]"]);
    assert_eq!(url, format!("http://s/api/?hostId=h&signature={signature}&hostname=example.test"));
    let ring = KeyRing::new(vec![key()]).unwrap();
    assert!(ring.verify(&[b"[1]"], &signature, 0) && !ring.verify(&[b"[1] "], &signature, 0));
}

#[test]
fn m_059_protobuf_is_signed_in_the_cloud_only() {
    let local = protobuf_url("http://s/pub/?a=1#f", None, "e.test", b"x");
    assert_eq!(local, "http://s/pub/?a=1&binaryMode=true&hostname=e.test#f");
    let key = key();
    let cloud = protobuf_url("https://c/pub/", Some(("id", &key)), "e t&", b"x");
    let signature = key.sign(&[b"x"]);
    let expected = "https://c/pub/?clientId=id&binaryMode=true&hostname=e%20t%26&signature=";
    assert_eq!(cloud, format!("{expected}{signature}"));
}

#[test]
fn m_067_last_seen_is_an_object_or_an_empty_array() {
    let read = |answer: &str| last_seen(json_rpc_result(answer.as_bytes())?);
    let seen = read(r#"{"jsonrpc":"2.0","result":{"1":0,"2":77}}"#).unwrap();
    assert_eq!(seen, [(UserId::new(1).unwrap(), 0), (UserId::new(2).unwrap(), 77)]);
    assert_eq!(read(r#"{"jsonrpc":"2.0","result":[]}"#), Ok(vec![]));
    for bad in ["", "5", r#"{"result":{}}"#, r#"{"jsonrpc":"1.0","result":{}}"#] {
        assert_eq!(read(bad), Err(AnswerError::Unreadable), "{bad}");
    }
    assert_eq!(read(r#"{"jsonrpc":"2.0","result":[1]}"#), Err(AnswerError::Unreadable));
    let told = read(r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"no such"}}"#);
    let told = told.unwrap_err().to_string();
    assert_eq!(told, "the server answered error -32601: no such");
}

#[test]
fn m_077_the_registration_of_a_demo_licence() {
    let registration = Registration::of(None);
    assert_eq!(registration.client_id, "9300e3d70f5eb313b91e90b11fe0bdea");
    let expected = concat!(
        "verificationQuery=BX_LICENCE%3D9300e3d70f5eb313b91e90b11fe0bdea%26BX_TYPE%3DCP",
        "%26BX_HASH%3D4e72efebcabab87e91bbd005bf285238%26BX_ALL%3Dy",
    );
    assert_eq!(registration.form, expected);
    assert_ne!(Registration::of(Some("K")).client_id, registration.client_id);
    let servers: Vec<_> = cloud_servers("https://a;ru\r\n\nbroken\nhttps://b;eu\n").collect();
    assert_eq!(servers, [("https://a", "ru"), ("https://b", "eu")]);
}

#[test]
fn m_078_answers_to_a_registration_are_told_in_the_words_of_the_settings_page() {
    let check = |status, answer: &str, text: &str| {
        let error = registration_key(status, answer.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), text, "{answer}");
    };
    assert_eq!(registration_key(200, br#"{"securityKey":"SEC"}"#), Ok("SEC".to_owned()));
    check(200, r#"{"status":"error","error":"no licence"}"#, "no licence");
    check(403, r#"{"error":"forbidden"}"#, "forbidden");
    check(500, "oops", "Server returned 500 code");
    check(200, "", "Empty server response");
    check(200, "<html>", "Could not parse server response. Raw response: <html>");
    check(200, "{}", "The server did not give a key");
}
