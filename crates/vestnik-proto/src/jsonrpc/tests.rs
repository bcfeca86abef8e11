use proptest::prelude::*;
use serde_json::{Value, json};
use vestnik_core::message::{Additions, Expiry};
use vestnik_core::sign::{Algorithm, Key, KeyRing};
use vestnik_core::{ChannelId, Draft, MessageId, Receiver, Secret, User, UserId, UserSpace};

use super::*;
use crate::tests::envelope;

const CHANNEL: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn space() -> UserSpace {
    UserSpace::of("site")
}

fn user(number: i64) -> User {
    User { space: space(), id: UserId::new(number).unwrap() }
}

fn channel() -> Receiver {
    Receiver::Private(CHANNEL.parse().unwrap())
}

fn publish(params: &Value) -> Draft {
    site_publish(&params.to_string(), space(), Expiry::MAX).unwrap()
}

fn record_of(envelope: &Envelope) -> Value {
    serde_json::from_slice(&websocket::payload_of(frame(envelope))).unwrap()
}

#[test]
fn j_111_a_message_is_the_packet_of_the_specification_and_its_body_is_an_object() {
    let envelope = envelope(r#"{"module_id":"im","extra":{"server_time_unix":1767225600.250}}"#);
    let expected = concat!(
        r#"{"jsonrpc":"2.0","method":"incoming.message","params":{"mid":"17954873200000000000003313","#,
        r#""body":{"module_id":"im","extra":{"server_time_unix":1767225600.250}},"sender":{"type":2}}}"#,
    );
    assert_eq!(websocket::payload_of(frame(&envelope)), expected);
    assert_eq!(frame(&envelope)[0], 0x81, "a text frame");
    for body in ["[1]", "\"text\"", "5", "", "{", "{'a':1}"] {
        assert!(frame(&crate::tests::envelope(body)).is_empty(), "{body}");
    }
}

#[test]
fn j_093_messages_of_clients_always_say_that_they_come_from_one() {
    let draft = |author| Draft { author, ..publish(&json!({"body": {"module_id": "im"}})) };
    for (author, sender) in [
        (Author::User(UserId::new(7).unwrap()), json!({"type": 1, "id": "7"})),
        (Author::Client(CHANNEL.parse().unwrap()), json!({"type": 1, "id": CHANNEL})),
        (Author::Unnamed, json!({"type": 1})),
    ] {
        let envelope = Envelope::new(MessageId::new(1, 1), 0, draft(author));
        assert_eq!(record_of(&envelope)["params"]["sender"], sender);
    }
}

fn single(text: &str) -> Item<'_> {
    match parse(text.as_bytes(), 9) {
        Ok(Ok(Packet::Single(item))) => item,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn j_014_what_is_no_request_is_told_apart_from_what_is_no_json() {
    for text in ["", "{", "x", "{\"a\":1}}", "\u{1}"] {
        assert_eq!(parse(text.as_bytes(), 9), Ok(Err(RpcError::Parse)), "{text}");
    }
    assert_eq!(parse(b"\xff{}", 9), Ok(Err(RpcError::Parse)));
    for text in ["1", "null", "true", "\"ok\""] {
        assert_eq!(parse(text.as_bytes(), 9), Ok(Err(RpcError::InvalidRequest)), "{text}");
    }
    for text in [
        "{}",
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"1.0","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":5}"#,
        r#"{"jsonrpc":"2.0","method":"ping","id":{"a":1}}"#,
    ] {
        assert_eq!(single(text), Item::Invalid(None), "{text}");
    }
    assert_eq!(single(r#"{"method":"ping","id":5}"#), Item::Invalid(Some("5")));
}

#[test]
fn j_090_an_id_is_kept_byte_for_byte() {
    for id in ["1", "1.50", "\"1\"", "\"\\u0031\"", "null", "-3", "12345678901234567890123"] {
        let text = format!(r#" {{"id": {id} ,"method":"p","jsonrpc":"2.0","params":[]}} "#);
        let Item::Call(call) = single(&text) else { panic!("{text}") };
        assert_eq!((call.id, &*call.method, call.params), (Some(id), "p", "[]"));
        assert_eq!(
            result(call.id, "{}"),
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
        );
    }
}

#[test]
fn j_077_answers_are_told_apart_from_requests() {
    for text in [
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"}}"#,
    ] {
        assert_eq!(single(text), Item::Answer, "{text}");
    }
}

#[test]
fn a_batch_is_read_element_by_element_and_bounded() {
    let text = br#"[1, {"jsonrpc":"2.0","method":"ping"},{} ]"#;
    let Ok(Ok(Packet::Batch(items))) = parse(text, 3) else { panic!("a batch") };
    assert!(matches!(&items[..], [Item::Invalid(None), Item::Call(_), Item::Invalid(None)]));
    assert_eq!(parse(text, 2), Err(TooManyItems { limit: 2 }));
    assert_eq!(parse(b" [] ", 0), Ok(Ok(Packet::Batch(Vec::new()))));
}

#[test]
fn answers_are_json_and_say_the_codes_of_the_specification() {
    for (reason, code, message) in [
        (RpcError::Parse, -32700, "Parse error"),
        (RpcError::InvalidRequest, -32600, "Invalid Request"),
        (RpcError::MethodNotFound, -32601, "Method not found"),
        (RpcError::InvalidParams("why"), -32602, "Invalid params"),
        (RpcError::Internal("Internal error"), -32603, "Internal error"),
    ] {
        let answer: Value = serde_json::from_str(&error(None, reason)).unwrap();
        assert_eq!(answer["jsonrpc"], "2.0");
        assert_eq!(answer["id"], Value::Null);
        assert_eq!(answer["error"]["code"], code);
        assert_eq!(answer["error"]["message"], message);
    }
    assert_eq!(array(&[]), "[]");
    assert_eq!(array(&["1".to_owned(), "2".to_owned()]), "[1,2]");
}

#[test]
fn j_020_j_021_j_023_j_024_receivers_are_channels_and_users_but_never_user_0() {
    let draft = publish(&json!({
        "channelList": [CHANNEL], "userList": [7, 0, -12, 7], "body": {"module_id": "im"},
    }));
    let mut expected = vec![channel(), Receiver::User(user(-12)), Receiver::User(user(7))];
    expected.sort_unstable();
    assert_eq!(*draft.receivers, *expected);
    assert_eq!(draft.author, Author::Backend);
    let nobody = publish(&json!({"userList": [0], "body": {}}));
    assert!(nobody.receivers.is_empty());
}

#[test]
fn j_025_swapped_lists_are_read_as_they_are_meant_and_garbage_is_skipped() {
    let draft = publish(&json!({
        "userList": [CHANNEL, "x", null, [1], 1.5], "channelList": {"0": 7, "5": "8"}, "body": {},
    }));
    assert_eq!(*draft.receivers, [channel(), Receiver::User(user(7)), Receiver::User(user(8))]);
}

#[test]
fn j_027_j_015_a_body_keeps_its_keys_numbers_and_escapes() {
    let body = r#"{"z":1.0,"a":1e2,"module_id":"im","params":[],"s":"\/\u0026","extra":{"server_time_unix":1767225600.250}}"#;
    let params = format!(r#"{{"body": {body} ,"userList":[7],"user_params":[],"dictionary":[]}}"#);
    let draft = site_publish(&params, space(), Expiry::MAX).unwrap();
    assert_eq!(draft.body, body);
    assert_eq!(draft.additions, Additions::default());
}

#[test]
fn j_031_a_site_always_stores_and_a_day_is_the_usual_time() {
    for (expiry, seconds) in [
        (json!(60), 60),
        (json!("60"), 60),
        (json!(0), 86_400),
        (json!(-5), 86_400),
        (json!(null), 86_400),
        (json!(1_000_000_000), 86_400),
    ] {
        let draft = publish(&json!({"body": {}, "expiry": expiry}));
        assert_eq!(draft.expiry.seconds(), seconds, "{expiry}");
    }
    assert_eq!(publish(&json!({"body": {}})).expiry.seconds(), 86_400);
}

#[test]
fn j_034_the_type_is_what_a_message_is_counted_as() {
    let draft = publish(&json!({"body": {}, "type": "im_messageadd"}));
    assert_eq!(draft.kind.as_str(), "im_messageadd");
    assert_eq!(publish(&json!({"body": {}, "type": [1]})).kind.as_str(), "unknown");
}

#[test]
fn a_publish_without_an_object_as_its_body_is_refused() {
    for params in ["null", "{}", "[]", r#"{"body":[]}"#, r#"{"body":"{}"}"#, r#"{"body":null}"#] {
        let refused = site_publish(params, space(), Expiry::MAX);
        assert_eq!(refused.map_err(RpcError::code), Err(-32602), "{params}");
    }
}

/// The message of `params` as user 7 and as everybody else gets it.
fn personal(params: &Value) -> (Value, Value) {
    let envelope = Envelope::new(MessageId::new(1, 1), 0, publish(params));
    let of = |user| {
        let body = &envelope.for_user(|| user, merged).body;
        serde_json::from_slice::<Value>(body).unwrap()["params"].clone()
    };
    assert_eq!(of(Some(user(8))), of(None), "additions of user 7 never reach user 8");
    (of(Some(user(7))), of(None))
}

#[test]
fn j_028_j_029_params_get_the_users_addition_and_then_the_dictionary() {
    let (mine, others) = personal(&json!({
        "body": {"params": {"a": 1, "b": 1, "c": 1, "d": 1}},
        "user_params": {"7": {"b": 2, "c": 2, "e": 2, "f": 2}, "x": {"a": 9}, "9": []},
        "dictionary": {"c": 3, "f": 3, "g": 3},
    }));
    assert_eq!(mine, json!({"a": 1, "b": 2, "c": 3, "d": 1, "e": 2, "f": 3, "g": 3}));
    assert_eq!(others, json!({"a": 1, "b": 1, "c": 3, "d": 1, "f": 3, "g": 3}));
}

#[test]
fn j_030_an_empty_list_becomes_an_object_only_where_something_is_merged() {
    let params = json!({"body": {"params": []}, "user_params": {"7": {"counter": 3}}});
    assert_eq!(personal(&params), (json!({"counter": 3}), json!([])));
    let params = json!({"body": {"params": []}, "dictionary": {"name": "Ann"}});
    assert_eq!(personal(&params), (json!({"name": "Ann"}), json!({"name": "Ann"})));
    let params = json!({"body": {"params": [1]}, "user_params": {"7": {"counter": 3}}});
    assert_eq!(personal(&params), (json!([1]), json!([1])), "a list has no place for names");
    let params = json!({"body": {}, "user_params": {"7": {"counter": 3}}});
    assert_eq!(personal(&params), (json!({"counter": 3}), Value::Null));
    let params = json!({"body": {"x": 1}, "dictionary": {"name": "Ann"}});
    assert_eq!(personal(&params).1, json!({"name": "Ann"}));
}

fn client(params: &Value, space: Option<UserSpace>) -> Result<Draft, RpcError> {
    let caller = ClientCaller {
        author: Author::User(UserId::new(7).unwrap()),
        space,
        keys: &keys(),
        now_s: 0,
        expiry_max: Expiry::MAX,
        channels_max: 2,
        users_max: 3,
    };
    client_publish(&params.to_string(), &caller)
}

fn keys() -> KeyRing {
    let secret = Secret::new("test-signature-key-0123456789abcdef".to_owned());
    KeyRing::new(vec![Key::new(secret, Algorithm::Sha1, None)]).unwrap()
}

#[test]
fn j_091_j_092_a_client_writes_to_users_and_to_signed_public_channels() {
    let id = "ffeeddccbbaa99887766554433221100";
    let signature = keys().signing_key().unwrap().sign(&[b"public:", id.as_bytes()]).to_string();
    let body = json!({"module_id": "im"});
    let public = Receiver::Public(id.parse::<ChannelId>().unwrap());
    for channel in
        [json!(format!("{id}.{signature}")), json!({"publicId": id, "signature": signature})]
    {
        let draft = client(&json!({"channelList": [channel], "body": body}), None).unwrap();
        assert_eq!(*draft.receivers, [public]);
    }
    let draft = client(&json!({"userList": [8, "9", 0], "body": body}), Some(space())).unwrap();
    assert_eq!(*draft.receivers, [Receiver::User(user(8)), Receiver::User(user(9))]);
    for params in [
        json!({"channelList": [format!("{id}.{}", "0".repeat(40))], "body": body}),
        json!({"channelList": [id], "body": body}),
        json!({"channelList": [format!("{id}."), 5], "body": body}),
        json!({"channelList": [{"publicId": id}], "body": body}),
        json!({"channelList": vec![format!("{id}.{signature}"); 3], "body": body}),
        json!({"userList": [1, 2, 3, 4], "body": body}),
        json!({"userList": ["x"], "body": body}),
        json!({"userList": [1], "body": []}),
        json!({"userList": [1], "body": {"command": "x"}}),
        json!({"userList": [1], "body": {"module_id": 5}}),
    ] {
        let refused = client(&params, Some(space())).map_err(RpcError::code);
        assert_eq!(refused, Err(-32602), "{params}");
    }
    let refused = client(&json!({"userList": [8], "body": body}), None).map_err(RpcError::code);
    assert_eq!(refused, Err(-32602), "who is not signed in writes to no user");
}

#[test]
fn j_094_k_051_a_client_never_speaks_for_the_modules_pull_and_online() {
    for body in [
        r#"{"module_id":"pull"}"#,
        r#"{"module_id":"PULL"}"#,
        r#"{"module_id":"\u0070ull"}"#,
        r#"{"module_id":"pull","module_id":"im"}"#,
        r#"{"module_id":"im","module_id":"Online"}"#,
    ] {
        let params = format!(r#"{{"userList":[8],"body":{body}}}"#);
        let caller = ClientCaller {
            author: Author::Unnamed,
            space: Some(space()),
            keys: &keys(),
            now_s: 0,
            expiry_max: Expiry::MAX,
            channels_max: 1,
            users_max: 1,
        };
        let refused = client_publish(&params, &caller).map_err(RpcError::code);
        assert_eq!(refused, Err(-32602), "{body}");
    }
}

#[test]
fn j_095_a_client_stores_only_what_it_asks_to_store() {
    let seconds = |expiry: Value| {
        let params = json!({"userList": [8], "body": {"module_id": "im"}, "expiry": expiry});
        client(&params, Some(space())).unwrap().expiry.seconds()
    };
    assert_eq!([json!(0), json!(null), json!(-1), json!("x")].map(seconds), [0; 4]);
    assert_eq!([json!(30), json!("30"), json!(100_000)].map(seconds), [30, 30, 86_400]);
}

#[test]
fn j_099_a_watched_user_is_a_number_or_its_text() {
    assert_eq!(watched_user(r#"{"userId":8}"#), Ok(UserId::new(8).unwrap()));
    assert_eq!(watched_user(r#"{"userId":"8"}"#), Ok(UserId::new(8).unwrap()));
    for params in ["{}", "[]", r#"{"userId":0}"#, r#"{"userId":"x"}"#, "null"] {
        assert_eq!(watched_user(params).map_err(RpcError::code), Err(-32602), "{params}");
    }
}

#[test]
fn questions_and_news_about_presence_are_read_leniently() {
    let id = |number| UserId::new(number).unwrap();
    assert_eq!(last_seen(r#"{"userList":[7,"8",0]}"#, 9), Ok(Some(vec![id(7), id(8)])));
    assert_eq!(last_seen("{}", 9), Ok(None));
    assert_eq!(last_seen("[]", 9), Ok(None));
    assert_eq!(last_seen(r#"{"userList":[]}"#, 9), Ok(Some(Vec::new())));
    assert_eq!(last_seen(r#"{"userList":[1,2]}"#, 1).map_err(RpcError::code), Err(-32602));
    let updates = last_seen_updates(r#"{"8":1767225000,"0":1,"x":2,"9":"3","7":-1}"#);
    assert_eq!(updates, Ok(vec![(id(8), 1_767_225_000), (id(9), 3)]));
    assert_eq!(last_seen_updates("[]"), Ok(Vec::new()));
    assert!(last_seen_updates("null").is_err());
    assert_eq!(
        channel_names(r#"{"channelList":["internal:user_status",5]}"#),
        Ok(vec![STATUS_CHANNEL.to_owned()])
    );
}

#[test]
fn a_status_message_is_that_of_the_specification() {
    let body = status_body(UserId::new(8).unwrap(), true, 1_767_225_600_250);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        body,
        json!({
            "module_id": "online", "command": "userStatusChange",
            "params": {"user_id": 8, "online": true},
            "extra": {"server_time": "2026-01-01T00:00:00+00:00", "server_time_unix": 1_767_225_600.25},
        })
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = serde_json::Map<String, Value>> {
    prop::collection::hash_map("[a-e\"\\\\]{1,2}", any_json(), 0..5)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn merging_is_what_a_map_would_do(
        body in any_object(),
        params in any_object(),
        mine in any_object(),
        dictionary in any_object(),
    ) {
        let mut body = body;
        body.insert("params".to_owned(), params.clone().into());
        let draft = publish(&json!({
            "body": body, "user_params": {"7": mine}, "dictionary": dictionary,
        }));
        let envelope = Envelope::new(MessageId::new(1, 1), 0, draft);
        let mut expected = body;
        let mut whole = params;
        whole.extend(mine);
        whole.extend(dictionary);
        expected.insert("params".to_owned(), whole.into());
        let got: Value = serde_json::from_slice(&envelope.for_user(|| Some(user(7)), merged).body).unwrap();
        prop_assert_eq!(got, Value::Object(expected));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>, value in any_json()) {
        let _ = parse(&bytes, 5);
        let text = value.to_string();
        let _ = parse(text.as_bytes(), 5);
        let _ = site_publish(&text, space(), Expiry::MAX);
        let _ = client(&value, Some(space()));
        let _ = (last_seen(&text, 5), last_seen_updates(&text), channel_names(&text));
    }
}
