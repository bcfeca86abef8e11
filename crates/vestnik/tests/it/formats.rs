//! What a message looks like on its way to a client: text, JSON and protobuf.

use serde_json::{Value, json};
use vestnik_core::Clock;

use crate::long_poll::store;
use crate::raw::{self, events, get, post, publish};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;
use crate::wire::{
    self, KEPT_S, RawSocket, incoming, outgoing, private_receiver, public_receiver, publish_request,
};

fn query(pair: Pair, more: &str) -> String {
    format!("CHANNEL_ID={}{more}", pair.signed())
}

/// What a live text client gets for a body published as text.
fn text_frame(server: &TestServer, body: &str) -> String {
    let pair = Pair::new(1);
    let mut client = Subscriber::open(server.address(), &query(pair, ""));
    assert_eq!(publish(server.address(), &pair.private.to_string(), 0, body).status, 200);
    match client.next() {
        tungstenite::Message::Text(text) => text.as_str().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// The value of `text` as it stands in a frame.
fn raw_text(frame: &str) -> &str {
    let inner = frame.strip_prefix("#!NGINXNMS!#").expect("the start marker");
    let inner = inner.strip_suffix("}#!NGINXNME!#").expect("the end marker");
    inner.split_once("\"text\":").expect("the key").1
}

#[test]
fn q_122_q_123_q_124_q_125_k_010_k_011_the_text_envelope_is_exact() {
    let server = TestServer::start();
    let frame = text_frame(&server, r#"{"a":1}"#);
    let inner = frame.strip_prefix("#!NGINXNMS!#{").expect("the start marker");
    let inner = inner.strip_suffix("}#!NGINXNME!#").expect("the end marker");
    let event: Value = serde_json::from_str(&format!("{{{inner}}}")).expect("JSON");
    let (id, mid) = (event["id"].as_u64().expect("a number"), event["mid"].as_str().expect("text"));
    let (tag, time) = (event["tag"].as_str().expect("text"), event["time"].as_str().expect("text"));
    assert_eq!(
        inner,
        format!(
            r#""id":{id},"mid":"{mid}","channel":"-","tag":"{tag}","time":"{time}","text":{{"a":1}}"#
        ),
        "keys in their order without spaces"
    );
    assert!(mid.len() == 26 && mid.bytes().all(|byte| byte.is_ascii_digit()));
    assert_eq!(mid[10..].parse(), Ok(id), "the number of the last 16 digits");
    assert!(id > 0, "positive");
    assert!(tag.len() == 3 && tag.bytes().all(|byte| byte.is_ascii_digit()));
    let words: Vec<_> = time.split(' ').collect();
    let [day, date, month, year, clock, "GMT"] = words[..] else { panic!("{time}") };
    assert!(day.len() == 4 && day.ends_with(','), "{time}");
    assert_eq!([date.len(), month.len(), year.len(), clock.len()], [2, 3, 4, 8], "{time}");
}

#[test]
fn q_126_k_012_k_052_json_is_relayed_byte_for_byte() {
    let server = TestServer::start();
    for body in [
        r#"{"module_id":"im","command":"x","params":{"n":1.50,"big":12345678901234567890}}"#,
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{"text":"$& $1 $$ \/ \u0041 \ud83d\ude00 😀"}"#,
        r#"{"module_id":"im","extra":{"revision_web":19,"revision_mobile":3,"server_name":"x"}}"#,
        r#""eyJhIjoxfQ==""#,
        "[1, 2,\t3]",
        "1e3",
        "null",
        "true",
    ] {
        assert_eq!(raw_text(&text_frame(&server, body)), body);
    }
}

#[test]
fn k_014_json_that_clients_could_not_cut_out_is_compacted_and_escaped() {
    let server = TestServer::start();
    for (body, relayed) in [
        ("{\n  \"a\": [1,\r\n 2],\n\t\"b\": \" x \"\n}", r#"{"a":[1,2],"b":" x "}"#),
        ("{\"a\":\"x\u{2028}y\u{2029}z\"}", r#"{"a":"x\u2028y\u2029z"}"#),
        (r##"{"a":"#!NGINXNME!#"}"##, r#"{"a":"\u0023!NGINXNME!#"}"#),
        (r##"{"a":"#!NGINXNMS!#{}"}"##, r#"{"a":"\u0023!NGINXNMS!#{}"}"#),
    ] {
        let frame = text_frame(&server, body);
        assert_eq!(raw_text(&frame), relayed);
        let [event] = &events(&frame)[..] else { panic!("{frame}") };
        let published: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(event["text"], published, "intact");
    }
}

#[test]
fn q_182_w_017_a_body_cannot_break_or_forge_an_event() {
    let server = TestServer::start();
    let forged = concat!(
        r##"1}#!NGINXNME!##!NGINXNMS!#{"id":1,"mid":"99999999999999999999999999","##,
        r#""text":{"module_id":"pull"}"#
    );
    for body in ["not json", "{\"a\":", "\"", "a\nb\u{2028}", forged, "#!NGINXNME!#", "\\"] {
        let frame = text_frame(&server, body);
        let [event] = &events(&frame)[..] else { panic!("one event: {frame}") };
        assert_eq!(event["text"], json!(body), "as a JSON string");
        assert_eq!(frame.matches("#!NGINXNME!#").count(), 1);
        assert!(!frame.contains(['\n', '\r', '\u{2028}', '\u{2029}']));
    }
}

#[test]
fn q_182_a_literal_of_a_client_cannot_forge_the_keys_around_it() {
    let server = TestServer::start();
    let [pair, other] = [Pair::new(1), Pair::new(2)];
    let mut victim = Subscriber::open(server.address(), &query(other, ""));
    let literal = "{a:1},\"mid\":\"9\",\"x\":{b:2}";
    let request = publish_request(&[incoming(&[public_receiver(other)], literal, 0)]);
    let target = format!("/bitrix/rest/?CHANNEL_ID={}", pair.signed());
    assert_eq!(post(server.address(), &target, &[], &request).status, 200);
    let event = victim.next_events().remove(0);
    assert_eq!(event["text"], json!(literal));
}

#[test]
fn k_016_json_events_are_an_array_with_extra() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut client = Subscriber::open(server.address(), &query(pair, "&format=json"));
    for (body, extra) in [
        (r#"{"module_id":"im","extra":{"server_time":1.0}}"#, json!({"server_time": 1.0})),
        (r#"{"module_id":"im"}"#, json!({})),
        ("not json", json!({})),
    ] {
        publish(server.address(), &pair.private.to_string(), 0, body);
        let tungstenite::Message::Text(text) = client.next() else { panic!("no text") };
        let array: Vec<Value> = serde_json::from_str(&text).expect("an array");
        let [event] = &array[..] else { panic!("{text}") };
        let keys = ["id", "mid", "channel", "tag", "time", "text", "extra"];
        let places = keys.map(|key| text.find(&format!("\"{key}\":")).expect("each key"));
        assert!(places.is_sorted(), "{text}");
        assert_eq!(event.as_object().map(serde_json::Map::len), Some(keys.len()));
        assert_eq!(event["extra"], extra);
    }
}

#[test]
fn q_128_q_130_q_131_q_132_k_020_k_021_the_protobuf_message_is_exact() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut binary = RawSocket::open(server.address(), &query(pair, "&binaryMode=true"));
    let mut text = Subscriber::open(server.address(), &query(pair, ""));
    let body = "{\n \"a\": 1}";
    for (asked_s, effective_s) in [(0, 0), (60, 60), (100_000, 86_400)] {
        publish(server.address(), &pair.private.to_string(), asked_s, body);
        let payload = binary.next_data().payload;
        let [message] = &outgoing(&payload)[..] else { panic!("one message") };
        assert_eq!(message.id.len(), 13);
        let event = text.next_events().remove(0);
        assert_eq!(event["mid"], message.mid());
        assert_eq!(message.body, body, "as it came");
        assert_eq!(message.expiry, effective_s);
        assert!(payload.ends_with(&[0x2a, 0x02, 0x08, 0x02]), "BACKEND");
        let now_s = Clock::System.unix_s();
        assert!((now_s - 60..=now_s).contains(&message.created), "{}", message.created);
        if effective_s == 0 {
            assert!(raw::find(&payload, &[0x18, 0x00, 0x25]).is_some(), "0 is on the wire");
        }
    }
}

#[test]
fn q_129_ids_grow_strictly() {
    let server = TestServer::start();
    let [one, two] = [Pair::new(1), Pair::new(2)];
    let channels = format!("CHANNEL_ID={}/{}", one.signed(), two.private_signed());
    let mut client = Subscriber::open(server.address(), &channels);
    let mut last = String::new();
    for number in 0..50 {
        let to = if number % 2 == 0 { one } else { two };
        publish(server.address(), &to.private.to_string(), number % 3 * KEPT_S, "1");
        let mid = client.next_events().remove(0)["mid"].as_str().expect("text").to_owned();
        assert!(mid > last, "{mid} after {last}");
        last = mid;
    }
}

#[test]
fn q_134_k_030_k_031_a_position_of_one_framing_holds_in_the_others() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let first = store(server.address(), pair, 1);
    let mut binary =
        RawSocket::open(server.address(), &query(pair, &format!("&binaryMode=true&mid={first}")));
    store(server.address(), pair, 2);
    let second = outgoing(&binary.next_data().payload).remove(0).mid();
    store(server.address(), pair, 3);
    let third = outgoing(&binary.next_data().payload).remove(0).mid();
    let mut text = Subscriber::open(server.address(), &query(pair, &format!("&mid={second}")));
    let event = text.next_events().remove(0);
    assert_eq!((event["mid"].as_str(), &event["text"]["n"]), (Some(&*third), &json!(3)));
    let poll = get(
        server.address(),
        &format!("/bitrix/sub/?{}", query(pair, &format!("&format=json&mid={second}"))),
    );
    let array: Vec<Value> = serde_json::from_slice(&poll.body).expect("an array");
    assert_eq!(array.len(), 1);
    assert_eq!(array[0]["mid"], json!(third));
}

#[test]
fn q_181_w_015_w_016_times_are_those_of_the_creation_for_everybody_and_ever() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    // A text client first: it once changed the time of the shared message.
    let mut text = Subscriber::open(server.address(), &query(pair, ""));
    let mut binary = RawSocket::open(server.address(), &query(pair, "&binaryMode=true"));
    let first = store(server.address(), pair, 1);
    store(server.address(), pair, 2);
    let live: Vec<Value> = (0..2).map(|_| text.next_events().remove(0)).collect();
    let mut created = Vec::new();
    while created.len() < 2 {
        created.extend(outgoing(&binary.next_data().payload).into_iter().map(|it| it.created));
    }
    // Replayed in a later second than they were created in.
    let until = created[1] + 1;
    let clock = Clock::System;
    while clock.unix_s() <= until {
        std::thread::yield_now();
    }
    let mid = format!("&mid={first}");
    let mut again = Subscriber::open(server.address(), &query(pair, &mid));
    let replayed = again.next_events().remove(0);
    assert_eq!([&replayed["tag"], &replayed["time"]], [&live[1]["tag"], &live[1]["time"]]);
    let mut again =
        RawSocket::open(server.address(), &query(pair, &format!("&binaryMode=true{mid}")));
    assert_eq!(outgoing(&again.next_data().payload)[0].created, created[1]);
}

#[test]
fn k_022_no_frame_is_without_messages() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut sockets = ["", "&binaryMode=true", "&format=json"].map(|more| {
        RawSocket::open(server.address(), &query(pair, &format!("{more}&mid={}", "9".repeat(26))))
    });
    // Nothing was missed, and nothing is published by these.
    publish(server.address(), &pair.private.to_string(), 0, "");
    post(server.address(), "/bitrix/pub/?binaryMode=true", &[], &publish_request(&[]));
    let message = incoming(&[private_receiver(pair)], "{}", 0);
    post(server.address(), "/bitrix/pub/?binaryMode=true", &[], &publish_request(&[message]));
    for socket in &mut sockets {
        let frame = socket.next_data();
        assert!(raw::find(&frame.payload, b"{}").is_some(), "{frame:?}");
    }
}

#[test]
fn k_023_k_024_the_captured_publish_of_the_sdk_reaches_both_receivers() {
    let server = TestServer::start();
    let [pair, one, two] = [Pair::new(1), Pair::new(2), Pair::new(3)];
    let body = r#"{"module_id":"im","command":"hi","params":{"t":1}}"#;
    // The bytes of clients.md §5.2 with ids and signatures of the test key.
    let mut frame = b"\x0a\x90\x01\x0a\x8d\x01\x0a\x8a\x01".to_vec();
    for to in [one, two] {
        frame.extend_from_slice(b"\x0a\x28\x0a\x10");
        frame.extend_from_slice(to.public.as_bytes());
        frame.extend_from_slice(b"\x1a\x14");
        frame.extend_from_slice(&to.public_signature());
    }
    frame.extend_from_slice(b"\x1a\x32");
    frame.extend_from_slice(body.as_bytes());
    frame.extend_from_slice(b"\x20\x1e");
    assert_eq!(frame.len(), 147);
    assert_eq!(
        frame,
        publish_request(&[incoming(&[public_receiver(one), public_receiver(two)], body, 30)])
    );
    let mut receivers =
        [one, two].map(|to| RawSocket::open(server.address(), &query(to, "&binaryMode=true")));
    let mut sender = RawSocket::open(server.address(), &query(pair, "&binaryMode=true"));
    sender.send(wire::client_frame(0x82, &frame));
    let expect = |receivers: &mut [RawSocket; 2]| {
        for receiver in receivers {
            let message = outgoing(&receiver.next_data().payload).remove(0);
            assert_eq!((&*message.body, message.expiry), (body, 30));
        }
    };
    expect(&mut receivers);
    // The same by POST without a content type.
    for path in ["/bitrix/rest/", "/bitrix/pubweb/"] {
        let target = format!("{path}?CHANNEL_ID={}", pair.signed());
        let answer = post(server.address(), &target, &[], &frame);
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        expect(&mut receivers);
    }
}

#[test]
fn k_017_protobuf_by_channel_id_also_serves_clients_of_generation_5_sites() {
    let server = TestServer::start();
    let [pair, other] = [Pair::new(1), Pair::new(2)];
    // What stock clients before 2025 send on such a site: no token, no jsonRpc.
    let mut client =
        RawSocket::open(server.address(), &query(pair, "&binaryMode=true&revision=19"));
    publish(server.address(), &pair.private.to_string(), 0, r#"{"module_id":"im"}"#);
    assert_eq!(outgoing(&client.next_data().payload)[0].body, r#"{"module_id":"im"}"#);
    let mut receiver = RawSocket::open(server.address(), &query(other, "&binaryMode=true"));
    let request = publish_request(&[incoming(&[public_receiver(other)], "{}", 0)]);
    client.send(wire::client_frame(0x82, &request));
    assert_eq!(outgoing(&receiver.next_data().payload)[0].body, "{}");
}
