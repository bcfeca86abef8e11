//! Connections of generation 5: addresses, framings, words, pings, polls (json-rpc.md §6).

use serde_json::{Value, json};
use tungstenite::Message;

use crate::generation5::{RpcClient, event, publish, publish_all, token, token_of};
use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::{binary_messages, metric_of, text_messages, until};
use crate::websocket::{Subscriber, handshake};

const START: &str = "00000000000000000000000000";

#[test]
fn j_070_parameters_come_in_any_order_encoded_or_raw_and_unknown_ones_are_ignored() {
    let server = TestServer::start();
    let token = token(7, &[]);
    let encoded: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for query in [
        format!("token={token}&jsonRpc=true&mid=17000000000000000000000006&revision=19"),
        format!("revision=19&jsonRpc=true&token={token}"),
        format!("x=1&token={encoded}&jsonRpc=true&tag=1&time=Thu, 01 Jan 2026&clientId=c&rnd=5"),
        format!("jsonRpc=%74rue&token={token}&CHANNEL_ID=garbage"),
    ] {
        let mut client = RpcClient::open(server.address(), &query);
        publish(server.address(), &json!({"userList": [7], "body": event(1)}));
        assert_eq!(client.numbers(1), [1], "{query}");
    }
}

#[test]
fn j_071_a_token_goes_with_every_framing() {
    let server = TestServer::start();
    let address = server.address();
    let token = token(7, &[]);
    let open = |more: &str| Subscriber::open(address, &format!("token={token}{more}"));
    let (mut text, mut plain, mut binary) =
        (open(""), open("&format=json"), open("&binaryMode=true"));
    let mut rpc = open("&jsonRpc=true&binaryMode=true&format=json");
    publish(address, &json!({"userList": [7], "body": event(1)}));
    assert_eq!(text.next_text(), event(1));
    let Message::Text(array) = plain.next() else { panic!("a text frame") };
    let array: Value = serde_json::from_str(&array).expect("JSON");
    assert_eq!(array[0]["text"], event(1));
    assert_eq!(binary_messages(&binary.next_binary())[0].body, event(1));
    assert_eq!(rpc.next(), Message::text("ping"), "JSON-RPC wins");
    let Message::Text(packet) = rpc.next() else { panic!("a text frame") };
    assert!(packet.starts_with(r#"{"jsonrpc":"2.0","method":"incoming.message""#), "{packet}");
}

#[test]
fn j_072_k_017_signed_ids_go_with_json_rpc_and_with_protobuf_on_a_site_of_generation_5() {
    let server = TestServer::start();
    let address = server.address();
    let (me, other) = (Pair::new(7), Pair::new(8));
    let mut rpc = RpcClient::open(address, &format!("CHANNEL_ID={}&jsonRpc=true", me.signed()));
    let query = format!("CHANNEL_ID={}&binaryMode=true", other.signed());
    let mut cached = Subscriber::open(address, &query);
    publish(
        address,
        &json!({
            "userList": [7, 8],
            "channelList": [me.private.to_string(), other.private.to_string()],
            "body": event(1),
        }),
    );
    assert_eq!(rpc.numbers(1), [1]);
    assert_eq!(binary_messages(&cached.next_binary())[0].body, event(1));
    // The cached script publishes, as it always did.
    let body = event(2).to_string();
    let message = crate::traffic::incoming(&[crate::traffic::To::SignedPublic(me)], 0, &body);
    cached.send(Message::binary(crate::traffic::batch(&[message])));
    let message = rpc.message();
    assert_eq!(message["body"], event(2));
    assert_eq!(message["sender"], json!({"type": 1, "id": other.public.to_string()}));
    // And the other way round.
    let channel = other.public_signed();
    rpc.result("publish", &json!({"channelList": [channel], "body": event(3)}));
    let batch = cached.next_binary();
    assert_eq!(binary_messages(&batch)[0].body, event(3));
    assert!(raw::find(&batch, me.public.as_bytes()).is_some(), "the author");
}

#[test]
fn j_073_both_base_paths_take_handshakes_and_polls_with_and_without_prefix() {
    let server = TestServer::start();
    publish(server.address(), &json!({"userList": [7], "body": event(1)}));
    let token = token(7, &[]);
    for path in ["/sub/", "/subws/", "/bitrix/sub/", "/bitrix/subws/"] {
        let target = format!("{path}?token={token}&jsonRpc=true&mid={START}");
        let answer = raw::get(server.address(), &target);
        assert_eq!(answer.status, 200, "{path}");
        let packet: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(packet["params"]["body"], event(1));
        let mut connection = Connection::open(server.address());
        connection.send(handshake(&target));
        assert_eq!(connection.answer().status, 101, "{path}");
    }
}

#[test]
fn j_074_j_110_j_112_only_text_is_sent_alone_as_an_object_and_together_as_an_array() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    publish(server.address(), &json!({"userList": [7], "body": event(0)}));
    assert_eq!(client.numbers(1), [0]);
    assert_eq!(client.packets, [1]);
    let burst: Vec<_> = (1..=200).map(|n| json!({"userList": [7], "body": event(n)})).collect();
    publish_all(server.address(), &burst);
    assert_eq!(client.numbers(200), (1..=200).collect::<Vec<_>>());
    assert!(client.packets.iter().any(|count| *count > 1), "{:?}", client.packets);
    // So too what was missed, here more than fits one frame.
    let mut again = RpcClient::reconnect(server.address(), &token(7, &[]), START);
    let mids: Vec<_> = (0..201).map(|_| again.message()["mid"].clone()).collect();
    assert!(mids.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()), "ids grow");
    assert!(again.packets.iter().any(|count| *count > 1), "{:?}", again.packets);
}

#[test]
fn j_075_text_pings_come_at_once_and_then_steadily_twice_as_often_without_revision() {
    let server = TestServer::with(&["timing.text_ping=4s"]);
    let query = format!("token={}&jsonRpc=true", token(7, &[]));
    let open = |more: &str| Subscriber::open(server.address(), &format!("{query}{more}"));
    let (mut web, mut mobile) = (open("&revision=19"), open(""));
    let ping = Message::text("ping");
    assert_eq!((web.next(), mobile.next()), (ping.clone(), ping.clone()), "the first at once");
    assert_eq!(web.next(), ping);
    // By then the mobile one must have got one more; the next read does not wait for it.
    let stream = mobile.socket().get_mut();
    stream.set_nonblocking(true).expect("it is open");
    assert_eq!(mobile.next(), ping);
}

#[test]
fn k_062_other_framings_hear_no_text_pings_even_with_a_token() {
    let server = TestServer::with(&["timing.text_ping=1s"]);
    let mut rpc = RpcClient::connect(server.address(), &token(7, &[]));
    let mut text = Subscriber::open(server.address(), &format!("token={}", token(7, &[])));
    while rpc.pings < 3 {
        rpc.heard_nothing();
    }
    publish(server.address(), &json!({"userList": [7], "body": event(1)}));
    assert_eq!(text.next_text(), event(1));
}

#[test]
fn a_connection_that_says_nothing_is_dropped_and_one_that_answers_pings_stays() {
    let server = TestServer::with(&["timing.text_ping=1s", "timing.text_silence=3s"]);
    let query = format!("token={}&jsonRpc=true&revision=19", token(7, &[]));
    let mut silent = Subscriber::open(server.address(), &query);
    let mut lively = RpcClient::open(server.address(), &query);
    let reader = std::thread::spawn(move || while silent.socket().read().is_ok() {});
    until("the silent one is dropped", || {
        // Answers the pings that came so far.
        lively.heard_nothing();
        metric_of(server.address(), "vestnik_connections_websocket") == 1
    });
    reader.join().expect("it ends");
    assert!(lively.pings >= 2, "it was pinged and answered");
}

#[test]
fn j_076_k_026_words_of_clients_are_accepted_in_silence() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    for word in [
        "pong",
        "mack:17672256000000000000000042",
        "mack:undefined",
        "undefined",
        "null",
        "ping",
        "",
        " ",
        "?",
    ] {
        client.say(word);
    }
    client.heard_nothing();
    // Text that looks like JSON and is none gets an answer that no client waits for.
    client.say("{\"jsonrpc\":");
    let answer = client.answer_to(&Value::Null);
    assert_eq!(answer["error"]["code"], -32700);
    client.heard_nothing();
}

#[test]
fn j_077_answers_of_the_split_client_are_accepted() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    for answer in [
        json!({"jsonrpc": "2.0", "result": {}}),
        json!({"jsonrpc": "2.0", "id": 1, "result": null}),
        json!({"jsonrpc": "2.0", "id": "x", "result": {}}),
        json!({"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}}),
        json!([{"jsonrpc": "2.0", "result": {}}, {"jsonrpc": "2.0", "id": 5, "result": {}}]),
    ] {
        client.say(answer.to_string());
    }
    client.heard_nothing();
}

#[test]
fn j_078_a_binary_frame_of_a_client_is_ignored() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    client.subscriber.send(Message::binary(vec![0x0a, 0xff, 0x00]));
    client.subscriber.send(Message::binary(Vec::new()));
    client.heard_nothing();
}

#[test]
fn j_079_a_long_poll_gets_text_or_304_and_never_an_empty_200() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let address = server.address();
    let target =
        |mid: &str| format!("/bitrix/sub/?token={}&jsonRpc=true{mid}&revision=19", token(7, &[]));
    let nothing = raw::get(address, &target(""));
    assert_eq!(nothing.status, 304);
    assert_eq!(nothing.header("expires"), Some("Thu, 01 Jan 1973 11:11:01 GMT"));
    assert_eq!(nothing.header("last-message-id"), Some(""));
    publish(address, &json!({"userList": [7], "body": event(1)}));
    let one = raw::get(address, &target(&format!("&mid={START}")));
    let packet: Value = serde_json::from_slice(&one.body).expect("one object");
    assert_eq!((one.status, &packet["params"]["body"]), (200, &event(1)));
    publish(address, &json!({"userList": [7], "body": event(2)}));
    let two = raw::get(address, &target(&format!("&mid={START}")));
    let packets: Value = serde_json::from_slice(&two.body).expect("an array");
    assert_eq!(packets.as_array().map(Vec::len), Some(2));
    let mid = packets[1]["params"]["mid"].as_str().expect("an id").to_owned();
    let nothing = raw::get(address, &target(&format!("&mid={mid}")));
    assert_eq!((nothing.status, nothing.header("last-message-id")), (304, Some(&*mid)));
    // Without a position the newest one of the user is told.
    let nothing = raw::get(address, &target(""));
    assert_eq!((nothing.status, nothing.header("last-message-id")), (304, Some(&*mid)));
}

#[test]
fn a_text_that_is_no_object_is_kept_from_json_rpc_and_counted() {
    let server = TestServer::with(&["timing.poll=2s"]);
    let address = server.address();
    let pair = Pair::new(7);
    let query = format!("CHANNEL_ID={}&jsonRpc=true", pair.signed());
    let mut client = RpcClient::open(address, &query);
    let mut text = Subscriber::open(address, &format!("CHANNEL_ID={}", pair.signed()));
    let id = pair.private.to_string();
    assert_eq!(raw::publish(address, &id, 60, "[1]").status, 200);
    assert_eq!(raw::publish(address, &id, 60, "'text'").status, 200);
    assert_eq!(text.next_text(), json!([1]));
    client.heard_nothing();
    until("both are counted", || metric_of(address, "vestnik_skipped_messages_total") == 2);
    // A poll for them is not answered with an empty 200 either, but moves on.
    let polled = raw::get(address, &format!("/bitrix/sub/?{query}&mid={START}"));
    assert_eq!(polled.status, 304);
    assert!(polled.header("last-message-id").is_some_and(|mid| mid > START));
    assert_eq!(raw::publish(address, &id, 60, &event(1).to_string()).status, 200);
    assert_eq!(client.numbers(1), [1]);
}

#[test]
fn j_080_j_081_clients_that_poll_post_what_they_have_to_say_with_their_signed_ids() {
    let server = TestServer::start();
    let address = server.address();
    let (me, other, shared) = (Pair::new(7), Pair::new(8), Pair::new(99));
    let query = format!("CHANNEL_ID={}", other.signed());
    let mut other_client = Subscriber::open(address, &query);
    let ids = format!("{}/{}", shared.private_signed(), me.signed());
    let post = |ids: &str, body: &str| {
        raw::post(address, &format!("/bitrix/pubweb/?CHANNEL_ID={ids}"), &[], body.as_bytes())
    };
    for word in ["mack:17672256000000000000000042", "pong", "undefined", "null"] {
        for ids in [&ids, &shared.private_signed()] {
            let answer = post(ids, word);
            assert_eq!((answer.status, answer.text()), (200, ""), "{word}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
        assert_eq!(post(&me.private.to_string(), word).status, 400, "unsigned");
        assert_eq!(post("", word).status, 400);
    }
    let call = |n| {
        json!({"jsonrpc": "2.0", "method": "publish", "id": n,
               "params": {"channelList": [other.public_signed()], "body": event(n)}})
    };
    let answer = post(&ids, &json!([call(1), call(2)]).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    let answers: Value = serde_json::from_slice(&answer.body).expect("an array");
    assert_eq!(
        answers,
        json!([{"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 2, "result": {}}])
    );
    assert_eq!([other_client.next_text(), other_client.next_text()], [event(1), event(2)]);
    assert_eq!(
        post(&shared.private_signed(), &json!([call(3)]).to_string()).status,
        400,
        "no pair"
    );
    let wrong = json!([{"jsonrpc": "2.0", "method": "publish", "id": 4,
                        "params": {"userList": [8], "body": event(4)}}]);
    let answer = post(&ids, &wrong.to_string());
    assert_eq!(answer.status, 200);
    let answers: Value = serde_json::from_slice(&answer.body).expect("an array");
    assert_eq!(answers[0]["error"]["code"], -32602, "nothing says who posts");
    let poll = raw::get(address, &format!("/bitrix/sub/?CHANNEL_ID={}&mid=0", shared.private));
    assert_eq!(poll.status, 400);
    assert_eq!(poll.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn j_081_polls_may_be_read_from_other_origins() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let target = format!("/bitrix/sub/?token={}&jsonRpc=true", token(7, &[]));
    let nothing = raw::get(server.address(), &target);
    publish(server.address(), &json!({"userList": [7], "body": event(1)}));
    let data = raw::get(server.address(), &format!("{target}&mid={START}"));
    assert_eq!((nothing.status, data.status), (304, 200));
    for answer in [nothing, data] {
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    let nothing = raw::get(server.address(), &target);
    assert_eq!(nothing.header("access-control-expose-headers"), Some("Last-Message-Id"));
}

#[test]
fn a_token_without_a_user_hears_its_channels_as_private_and_its_second_one_as_public_too() {
    let server = TestServer::start();
    let address = server.address();
    let pair = Pair::new(5);
    let channels = format!("{},{}", pair.private, pair.public);
    let mut anonymous = RpcClient::connect(address, &token_of(json!({"chan": channels})));
    publish(address, &json!({"channelList": [pair.private.to_string()], "body": event(1)}));
    let mut user = RpcClient::connect(address, &token(7, &[]));
    user.result("publish", &json!({"channelList": [pair.public_signed()], "body": event(2)}));
    assert_eq!(anonymous.numbers(2), [1, 2]);
    // It writes to signed channels, in the name of its public one.
    let query = format!("CHANNEL_ID={}", Pair::new(8).signed());
    let mut other = Subscriber::open(address, &query);
    let channel = Pair::new(8).public_signed();
    anonymous.result("publish", &json!({"channelList": [channel], "body": event(3)}));
    assert_eq!(other.next_text(), event(3));
    assert_eq!(anonymous.error("publish", &json!({"userList": [7], "body": event(4)})), -32602);
    user.heard_nothing();
    let text = text_messages(
        raw::get(address, &format!("/bitrix/sub/?CHANNEL_ID={}&mid={START}", pair.signed())).text(),
    );
    assert_eq!(text.len(), 1, "what a client publishes without expiry is not stored");
}

#[test]
fn j_102_the_501st_connection_of_a_user_is_refused_and_the_others_stay() {
    let server = TestServer::with(&["limits.connections_per_user=2"]);
    let address = server.address();
    let mut first =
        [RpcClient::connect(address, &token(7, &[])), RpcClient::connect(address, &token(7, &[]))];
    let query = format!("token={}&jsonRpc=true&revision=19", token(7, &[]));
    let (code, _) = Subscriber::open(address, &query).close_reason();
    assert_eq!(code, 4029);
    publish(address, &json!({"userList": [7], "body": event(1)}));
    for client in &mut first {
        assert_eq!(client.numbers(1), [1]);
    }
    RpcClient::connect(address, &token(8, &[])).heard_nothing();
}
