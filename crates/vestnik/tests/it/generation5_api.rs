//! JSON-RPC of a site's back end over HTTP (json-rpc.md §4).

use serde_json::{Value, json};

use crate::generation5::{
    HOST, RpcClient, answer_json, api, api_of, api_request, api_target, call, event, publish,
    publish_all, token, token_of,
};
use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::{Pair, sign};
use crate::traffic::{metric_of, until};

const ONLINE: &str =
    r#"{"jsonrpc":"2.0","method":"getUsersLastSeen","params":{"userList":[7,8,9]}}"#;

#[test]
fn j_001_j_002_j_005_php_s_own_request_is_json_whatever_its_header_says() {
    let server = TestServer::start();
    let signature = sign(ONLINE);
    for query in [
        format!("hostId={HOST}&signature={signature}&hostname=portal.test"),
        format!("signature={signature}&hostId={HOST}"),
        format!("clientId=x&hostname=portal.test&signature={signature}&unknown=1&hostId={HOST}"),
    ] {
        for path in ["/bitrix/api/", "/api/"] {
            let request = api_request(&format!("{path}?{query}"), ONLINE.as_bytes());
            let answer = raw::exchange(server.address(), request);
            assert_eq!(answer.status, 200, "{answer:?}");
            let json = answer_json(&answer);
            assert_eq!(json, json!({"jsonrpc": "2.0", "id": null, "result": {}}));
        }
    }
}

#[test]
fn j_003_the_signature_is_over_the_raw_bytes_with_the_configured_algorithm() {
    let server = TestServer::start();
    // The same JSON with other bytes.
    let other = ONLINE.replace("\"params\":", "\"params\": ");
    let target = api_target(HOST, ONLINE);
    let answer = raw::exchange(server.address(), api_request(&target, other.as_bytes()));
    assert_eq!(answer.status, 403);
    assert_eq!(api(server.address(), &other).status, 200);

    let server = TestServer::with(&[
        "security.algorithm=sha256",
        &format!("security.key={}", crate::sign::KEY),
    ]);
    assert_eq!(api(server.address(), ONLINE).status, 403, "SHA-1 is not what this site uses");
    let key = vestnik_core::sign::Key::new(
        vestnik_core::Secret::new(crate::sign::KEY.to_owned()),
        vestnik_core::sign::Algorithm::Sha256,
        None,
    );
    let signature = key.sign(&[ONLINE.as_bytes()]);
    let target = format!("/bitrix/api/?hostId={HOST}&signature={signature}");
    let answer = raw::exchange(server.address(), api_request(&target, ONLINE.as_bytes()));
    assert_eq!(answer.status, 200);
}

#[test]
fn j_004_a_wrong_signature_gets_403_with_json_and_nothing_is_delivered() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let body = json!([{"jsonrpc": "2.0", "method": "publish",
                       "params": {"userList": [7], "body": event(1)}}])
    .to_string();
    let right = sign(&body);
    for signature in ["", "0", &"0".repeat(40), &right.to_uppercase(), &right[..38], &sign("")] {
        let target = format!("/bitrix/api/?hostId={HOST}&signature={signature}");
        let answer = raw::exchange(server.address(), api_request(&target, body.as_bytes()));
        assert_eq!(answer.status, 403, "{signature}");
        assert!(answer_json(&answer)["error"]["code"].is_i64());
    }
    let answer = raw::exchange(server.address(), api_request("/bitrix/api/", body.as_bytes()));
    assert_eq!(answer.status, 403);
    assert!(answer_json(&answer)["error"].is_object());
    client.heard_nothing();
    assert_eq!(api(server.address(), &body).status, 200);
    assert_eq!(client.numbers(1), [1]);
    assert_eq!(metric_of(server.address(), "vestnik_refused_api_requests_total"), 7);
}

#[test]
fn j_006_j_007_a_batch_is_answered_by_an_array_also_an_empty_one() {
    let server = TestServer::start();
    let call =
        json!({"jsonrpc": "2.0", "method": "publish", "params": {"userList": [7], "body": {}}});
    for count in [0, 1, 3] {
        let answer = api(server.address(), &Value::from(vec![call.clone(); count]).to_string());
        assert_eq!(answer.status, 200);
        let expected = json!({"jsonrpc": "2.0", "id": null, "result": {}});
        assert_eq!(answer_json(&answer), Value::from(vec![expected; count]));
    }
    // The worked example of the specification, with the key of these tests.
    assert_eq!(api(server.address(), "[]").text(), "[]");
}

#[test]
fn j_008_no_answer_is_a_scalar_or_empty_or_of_another_success() {
    let server = TestServer::start();
    for body in [
        "[]",
        "{}",
        "null",
        "1",
        "\"ok\"",
        "",
        "x",
        "[",
        "[1,null,[]]",
        "{\"jsonrpc\":\"2.0\"}",
        ONLINE,
        r#"{"jsonrpc":"2.0","method":"publish","params":[],"id":1}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
    ] {
        let answer = api(server.address(), body);
        assert_eq!(answer.status, 200, "{body}");
        answer_json(&answer);
        assert_eq!(answer.header("location"), None);
    }
    let get = raw::get(server.address(), "/bitrix/api/");
    assert_eq!(get.status, 404);
    answer_json(&get);
}

#[test]
fn j_009_an_answer_does_not_wait_for_a_subscriber_that_does_not_read() {
    let server = TestServer::start();
    let _silent = RpcClient::connect(server.address(), &token(7, &[]));
    let text = "x".repeat(1 << 20);
    for n in 0..24 {
        let mut body = event(n);
        body["params"]["text"] = json!(text);
        publish(server.address(), &json!({"userList": [7], "body": body}));
    }
    until("the one that does not read is closed, not waited for", || {
        metric_of(server.address(), "vestnik_slow_subscribers_total") == 1
    });
}

#[test]
fn j_010_a_connection_for_each_request_is_no_matter() {
    let server = TestServer::start();
    let address = server.address();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for n in 0..500 {
                    publish(address, &json!({"userList": [7], "body": event(n)}));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every request is answered");
    }
    assert_eq!(metric_of(address, "vestnik_published_messages_total"), 2000);
    let mut connection = Connection::open(address);
    connection.send(api_request(&api_target(HOST, "[]"), b"[]"));
    assert_eq!(connection.answer().header("connection"), Some("close"));
    assert!(connection.is_closed());
}

#[test]
fn j_011_j_012_four_and_eight_mebibytes_are_taken_and_more_than_the_limit_is_not() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let mut read = |length: usize| {
        let message = client.message();
        assert_eq!(message["body"]["params"]["text"].as_str().map(str::len), Some(length));
    };
    // PHP counts characters, and one may take four bytes.
    let text = "\u{1f600}".repeat((1_048_556 - 200) / 2);
    let message = |text: &str| json!({"userList": [7], "body": {"module_id": "im", "command": "x", "params": {"text": text}}});
    publish_all(server.address(), &[message(&text), message(&text)]);
    read(text.len());
    read(text.len());
    let text = "x".repeat(8 << 20);
    publish(server.address(), &message(&text));
    read(text.len());

    let small = TestServer::with(&["limits.max_payload=1KiB", "limits.max_trusted_payload=2KiB"]);
    let fits = format!("[{}]", " ".repeat(2046));
    assert_eq!(api(small.address(), &fits).text(), "[]");
    let over = format!("[{}]", " ".repeat(2047));
    let answer = api(small.address(), &over);
    assert_eq!(answer.status, 413);
    assert!(answer_json(&answer)["error"]["message"].is_string());
}

#[test]
fn j_013_j_014_a_bad_element_does_not_prevent_the_others() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let publish = |n| json!({"jsonrpc": "2.0", "method": "publish", "params": {"userList": [7], "body": event(n)}});
    let batch = json!([
        publish(1),
        5,
        {"jsonrpc": "2.0", "method": "unknown", "id": "a"},
        {"jsonrpc": "2.0", "method": "publish", "params": {"userList": [7], "body": "text"}, "id": 3},
        {"method": "publish"},
        publish(2),
    ]);
    let answer = api(server.address(), &batch.to_string());
    assert_eq!(answer.status, 200);
    let answers = answer_json(&answer);
    let codes: Vec<_> =
        answers.as_array().unwrap().iter().map(|it| it["error"]["code"].as_i64()).collect();
    assert_eq!(codes, [None, Some(-32600), Some(-32601), Some(-32602), Some(-32600), None]);
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
    assert_eq!(ids, [json!(null), json!(null), json!("a"), json!(3), json!(null), json!(null)]);
    assert_eq!(client.numbers(2), [1, 2]);

    for (body, code) in [
        ("{\"jsonrpc\":\"2.0\",\"method\":\"x\"}", -32601),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"publish\"}", -32602),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"updateUsersLastSeen\"}", -32602),
        ("{\"jsonrpc\":\"2.0\",", -32700),
        ("1", -32600),
    ] {
        let answer = api(server.address(), body);
        assert_eq!((answer.status, &answer_json(&answer)["error"]["code"]), (200, &json!(code)));
        assert!(answer_json(&answer)["error"]["message"].is_string());
    }
}

#[test]
fn j_015_escapes_of_php_mean_what_they_mean() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let params =
        r#"{"url":"https:\/\/x.test\/?a=1\u0026b=\u003Ci\u003E\u0027\u0022","name":"Анна\u2028"}"#;
    let body = format!(
        r#"[{{"jsonrpc":"2.0","method":"publish","params":{{"userList":[7],"body":{{"module_id":"im","command":"x","params":{params}}}}}}}]"#
    );
    assert_eq!(api(server.address(), &body).status, 200);
    assert_eq!(
        client.message()["body"]["params"],
        json!({"url": "https://x.test/?a=1&b=<i>'\"", "name": "Анна\u{2028}"})
    );
}

#[test]
fn j_020_j_021_j_022_j_023_everybody_who_is_meant_hears_it_once() {
    let server = TestServer::start();
    let address = server.address();
    let shared = Pair::new(99);
    let mut tabs = [
        RpcClient::connect(address, &token(7, &[shared.private])),
        RpcClient::connect(address, &token(7, &[shared.private])),
    ];
    let mut other = RpcClient::connect(address, &token(8, &[shared.private]));
    let query = format!("CHANNEL_ID={}&jsonRpc=true", Pair::new(7).signed());
    let mut old = RpcClient::open(address, &query);
    let mut guest =
        RpcClient::connect(address, &token_of(json!({"chan": shared.private.to_string()})));

    // As PHP does it: the user, and the user's private channel.
    let private = Pair::new(7).private.to_string();
    publish(address, &json!({"userList": [7], "channelList": [private], "body": event(1)}));
    // The user and a channel of the same connection.
    let channel = shared.private.to_string();
    publish(address, &json!({"userList": [7, 7], "channelList": [channel], "body": event(2)}));
    publish(address, &json!({"userList": [0], "body": event(3)}));
    publish(address, &json!({"channelList": [channel], "userList": [0], "body": event(4)}));
    for tab in &mut tabs {
        assert_eq!(tab.numbers(3), [1, 2, 4]);
        tab.heard_nothing();
    }
    assert_eq!(other.numbers(2), [2, 4]);
    assert_eq!(old.numbers(1), [1]);
    assert_eq!(guest.numbers(2), [2, 4]);
    for client in [&mut other, &mut old, &mut guest] {
        client.heard_nothing();
    }
}

#[test]
fn j_024_j_025_j_026_guests_swapped_lists_and_unknown_recipients_are_no_error() {
    let server = TestServer::start();
    let address = server.address();
    let shared = Pair::new(99).private;
    let mut user = RpcClient::connect(address, &token(7, &[shared]));
    let mut guest = RpcClient::connect(address, &token(-12, &[]));
    publish(address, &json!({"userList": [-12], "body": event(1)}));
    assert_eq!(guest.numbers(1), [1]);
    publish(address, &json!({"userList": [shared.to_string()], "body": event(2)}));
    publish(address, &json!({"channelList": [7], "body": event(3)}));
    publish(
        address,
        &json!({"channelList": [7], "userList": [shared.to_string()], "body": event(4)}),
    );
    publish(
        address,
        &json!({"channelList": ["x", null, {}], "userList": ["y", 1.5, [7]], "body": event(5)}),
    );
    publish(
        address,
        &json!({"channelList": ["f".repeat(32)], "userList": [424_242], "body": event(6)}),
    );
    publish(address, &json!({"body": event(7)}));
    assert_eq!(user.numbers(3), [2, 3, 4]);
    user.heard_nothing();
    guest.heard_nothing();
}

#[test]
fn j_027_what_is_in_a_body_arrives_as_it_is() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let body = r#"{"module_id":"im","zeta":1,"command":"message.add","alpha":1.0,"params":[],"groupId":"g","skip_users":[],"extra":{"server_time":"2026-01-01T00:00:00+00:00","server_time_unix":1767225600.250,"server_name":"portal.test","revision_web":19,"revision_mobile":3}}"#;
    let request = format!(
        r#"[{{"jsonrpc":"2.0","method":"publish","params":{{"userList":[7],"body":{body},"expiry":60}}}}]"#
    );
    assert_eq!(api(server.address(), &request).status, 200);
    let text = client.next_text();
    assert!(text.contains(&format!(r#""body":{body},"sender":{{"type":2}}"#)), "{text}");
}

#[test]
fn j_028_j_029_j_030_k_052_every_user_gets_the_own_addition_and_the_dictionary() {
    let server = TestServer::start();
    let address = server.address();
    let private = Pair::new(7).private;
    let mut seven = RpcClient::connect(address, &token(7, &[]));
    let mut eight = RpcClient::connect(address, &token(8, &[]));
    // A connection of the same number at another site, which hears the channel.
    let foreign = token_of(json!({"iss": "another", "sub": "7", "chan": private.to_string()}));
    let mut foreign = RpcClient::connect(address, &foreign);
    let text = format!("token={}&revision=19", token(7, &[]));
    let mut text = crate::websocket::Subscriber::open(address, &text);

    publish(
        address,
        &json!({
            "userList": [7, 8], "channelList": [private.to_string()],
            "body": {"module_id": "im", "command": "x", "params": {"a": 1, "b": 1}},
            "user_params": {"7": {"b": 2, "counter": 3}, "9": {"secret": true}},
            "dictionary": {"name": "Ann", "counter": 9},
        }),
    );
    let mine = json!({"a": 1, "b": 2, "counter": 9, "name": "Ann"});
    let others = json!({"a": 1, "b": 1, "counter": 9, "name": "Ann"});
    let message = seven.message();
    assert_eq!(message["body"]["params"], mine);
    assert_eq!((message.get("user_params"), message.get("dictionary")), (None, None));
    assert_eq!(eight.message()["body"]["params"], others);
    assert_eq!(foreign.message()["body"]["params"], others);
    assert_eq!(text.next_text()["params"], mine, "every framing");

    let empty = json!({"module_id": "im", "command": "x", "params": []});
    publish(address, &json!({"userList": [7, 8], "body": empty, "user_params": {"7": {"n": 1}}}));
    assert_eq!(seven.message()["body"]["params"], json!({"n": 1}));
    assert_eq!(eight.message()["body"]["params"], json!([]));
    // After a restart too, from the history.
    let mid = "00000000000000000000000000";
    drop((seven, eight));
    let server = server.crash_and_restart();
    let mut seven = RpcClient::reconnect(server.address(), &token(7, &[]), mid);
    assert_eq!(seven.message()["body"]["params"], mine);
    assert_eq!(seven.message()["body"]["params"], json!({"n": 1}));
}

#[test]
fn j_031_an_expiry_bounds_what_is_replayed_and_a_day_is_the_usual_one() {
    let server = TestServer::start();
    let address = server.address();
    publish(address, &json!({"userList": [7], "body": event(1), "expiry": 1}));
    publish(address, &json!({"userList": [7], "body": event(2)}));
    publish(address, &json!({"userList": [7], "body": event(3), "expiry": 0}));
    publish(address, &json!({"userList": [7], "body": event(4), "expiry": 600}));
    let start = "00000000000000000000000000";
    until("the first message expires", || {
        let mut client = RpcClient::reconnect(address, &token(7, &[]), start);
        client.numbers(1) == [2]
    });
    let mut client = RpcClient::reconnect(address, &token(7, &[]), start);
    assert_eq!(client.numbers(3), [2, 3, 4]);
    // Protobuf shows the seconds.
    let query = format!("token={}&binaryMode=true&mid={start}", token(7, &[]));
    let batch = crate::websocket::Subscriber::open(address, &query).next_binary();
    assert_eq!(crate::traffic::expiries(&batch), [86_400, 86_400, 600]);
}

#[test]
fn j_032_the_order_of_a_batch_is_the_order_of_delivery() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    for round in 0..10 {
        let messages: Vec<_> =
            (0..50).map(|n| json!({"userList": [7], "body": event(round * 50 + n)})).collect();
        publish_all(server.address(), &messages);
    }
    assert_eq!(client.numbers(500), (0..500).collect::<Vec<_>>());
}

#[test]
fn j_033_one_publish_reaches_every_framing_of_a_channel() {
    let server = TestServer::start();
    let address = server.address();
    let pair = Pair::new(7);
    let open = |more: &str| {
        let query = format!("CHANNEL_ID={}{more}", pair.signed());
        crate::websocket::Subscriber::open(address, &query)
    };
    let mut text = open("");
    let mut binary = open("&binaryMode=true");
    let mut plain = open("&format=json");
    let mut rpc = RpcClient::connect(address, &token_of(json!({"chan": pair.private.to_string()})));
    publish(address, &json!({"channelList": [pair.private.to_string()], "body": event(5)}));
    let message = rpc.message();
    assert_eq!(message["body"], event(5));
    let mut events = text.next_events();
    assert_eq!((&events[0]["text"], &events[0]["mid"]), (&event(5), &message["mid"]));
    let messages = crate::traffic::binary_messages(&binary.next_binary());
    assert_eq!(
        (&messages[0].body, messages[0].mid.as_str()),
        (&event(5), message["mid"].as_str().unwrap())
    );
    let tungstenite::Message::Text(array) = plain.next() else { panic!("a text frame") };
    events = serde_json::from_str(&array).expect("an array");
    assert_eq!((&events[0]["text"], &events[0]["mid"]), (&event(5), &message["mid"]));
}

#[test]
fn j_034_a_type_is_counted_and_not_delivered() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    publish(server.address(), &json!({"userList": [7], "body": event(1), "type": "im_messageadd"}));
    assert!(!client.next_text().contains("im_messageadd"));
    let stats = raw::get(server.address(), "/server-stat/");
    let stats: Value = serde_json::from_slice(&stats.body).expect("JSON");
    assert_eq!(stats[0]["daily"]["messages"]["im_messageadd"], 1);
}

#[test]
fn j_052_sites_do_not_hear_each_other() {
    let server = TestServer::start();
    let address = server.address();
    let mut here = RpcClient::connect(address, &token(7, &[]));
    let mut there = RpcClient::connect(address, &token_of(json!({"iss": "another", "sub": "7"})));
    let request = |n| {
        json!([{"jsonrpc": "2.0", "method": "publish", "params": {"userList": [7], "body": event(n)}}])
            .to_string()
    };
    assert_eq!(api_of(address, "another", &request(1)).status, 200);
    assert_eq!(api(address, &request(2)).status, 200);
    assert_eq!((there.numbers(1), here.numbers(1)), (vec![1], vec![2]));
    assert_eq!(here.result("getUsersLastSeen", &json!({})), json!({"7": 0}));
    let body = json!({"module_id": "im", "command": "x", "params": {"n": 3}});
    here.result("publish", &json!({"userList": [7], "body": body}));
    assert_eq!(here.numbers(1), [3]);
    there.heard_nothing();
    assert_eq!(call(address, "getUsersLastSeen", &json!({"userList": [7, 8]})), json!({"7": 0}));
}

#[test]
fn w_003_what_cannot_be_stored_is_answered_503_and_delivered_to_nobody() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    // Longer than the history takes: nothing of the request is published.
    let users: Vec<i64> = (1..=4_000_000).collect();
    let big = TestServer::with(&["limits.max_trusted_payload=64MiB"]);
    let batch = json!([
        {"jsonrpc": "2.0", "method": "publish", "params": {"userList": [7], "body": event(1)}},
        {"jsonrpc": "2.0", "method": "publish", "params": {"userList": users, "body": event(2)}},
    ]);
    let mut there = RpcClient::connect(big.address(), &token(7, &[]));
    let answer = api(big.address(), &batch.to_string());
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert!(answer_json(&answer)["error"].is_object());
    assert_eq!(answer.header("retry-after"), Some("1"));
    there.heard_nothing();
    publish(server.address(), &json!({"userList": [7], "body": event(3)}));
    assert_eq!(client.numbers(1), [3]);
}
