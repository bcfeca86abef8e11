//! What clients of generation 5 ask for (json-rpc.md §7).

use serde_json::{Value, json};

use crate::generation5::{RpcClient, event, publish, token, token_of};
use crate::server::TestServer;
use crate::sign::{KEY, Pair};
use crate::traffic::metric_of;
use crate::websocket::Subscriber;

#[test]
fn j_090_j_101_an_answer_has_the_id_of_its_request_as_it_was_written() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[Pair::new(99).private]));
    for id in ["1", "\"1\"", "1.50", "\"a\\u0062\"", "-7"] {
        client.say(format!(r#"{{"jsonrpc":"2.0","method":"ping","params":{{}},"id":{id}}}"#));
        assert_eq!(client.next_text(), format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"pong"}}"#));
    }
    let channels = json!([Pair::new(99).private.to_string()]);
    assert_eq!(client.result("listChannels", &json!({})), channels);
    assert_eq!(client.error("unknown", &json!({})), -32601);
    assert_eq!(client.error("incoming.message", &json!({})), -32601);
    // A request without an id is done, and wants no answer.
    client.say(
        json!({"jsonrpc": "2.0", "method": "publish",
                      "params": {"userList": [7], "body": event(1)}})
        .to_string(),
    );
    assert_eq!(client.numbers(1), [1]);
    client.heard_nothing();
}

#[test]
fn j_091_j_093_clients_write_to_users_and_to_signed_public_channels_as_clients() {
    let server = TestServer::start();
    let address = server.address();
    let mut seven = RpcClient::connect(address, &token(7, &[]));
    let mut eight = RpcClient::connect(address, &token(8, &[]));
    let pair = Pair::new(9);
    let query = format!("CHANNEL_ID={}&jsonRpc=true", pair.signed());
    let mut nine = RpcClient::open(address, &query);
    // The example of the specification; the sender is among the receivers and gets it too.
    let body = json!({"module_id": "im", "command": "hello", "params": {"t": 1}});
    let result = seven.result("publish", &json!({"userList": [7, 8], "body": body, "expiry": 30}));
    assert_eq!(result, json!({}));
    for client in [&mut seven, &mut eight] {
        let message = client.message();
        assert_eq!(message["body"], body);
        assert_eq!(message["sender"], json!({"type": 1, "id": "7"}));
    }
    let (id, signature) = (pair.public.to_string(), pair.public_signed()[33..].to_owned());
    for channel in
        [json!(format!("{id}.{signature}")), json!({"publicId": id, "signature": signature})]
    {
        // Whatever the client says of itself.
        let mut body = body.clone();
        body["sender"] = json!({"type": 2});
        eight.result("publish", &json!({"channelList": [channel], "userList": [7], "body": body}));
        for client in [&mut nine, &mut seven] {
            let message = client.message();
            assert_eq!(message["sender"], json!({"type": 1, "id": "8"}));
        }
    }
}

#[test]
fn j_092_a_wrong_signature_of_a_channel_is_an_error_and_no_close() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let pair = Pair::new(9);
    for channel in [
        json!(format!("{}.{}", pair.public, "0".repeat(40))),
        json!(pair.public.to_string()),
        json!(pair.private_signed()),
        json!({"publicId": pair.public.to_string(), "signature": "x"}),
    ] {
        let params = json!({"channelList": [channel], "userList": [7], "body": event(1)});
        assert_eq!(client.error("publish", &params), -32602);
    }
    client.heard_nothing();
}

#[test]
fn j_094_k_051_nobody_speaks_for_pull_or_online() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    for module in ["pull", "PULL", "Pull", "online", "ONLINE"] {
        let body = json!({"module_id": module, "command": "config_expire", "params": {}});
        assert_eq!(client.error("publish", &json!({"userList": [7], "body": body})), -32602);
    }
    let body = json!({"command": "x", "params": {}});
    assert_eq!(client.error("publish", &json!({"userList": [7], "body": body})), -32602);
    client.heard_nothing();
    assert_eq!(metric_of(server.address(), "vestnik_published_messages_total"), 0);
}

#[test]
fn j_095_what_a_client_publishes_is_stored_only_when_it_says_so() {
    let server = TestServer::start();
    let address = server.address();
    let mut client = RpcClient::connect(address, &token(7, &[]));
    for (n, expiry) in [(1, json!(0)), (2, Value::Null), (3, json!(60)), (4, json!(-1))] {
        let params = json!({"userList": [8], "body": event(n), "expiry": expiry});
        client.result("publish", &params);
    }
    client.result("publish", &json!({"userList": [8], "body": event(5), "expiry": 60}));
    let start = "00000000000000000000000000";
    let mut eight = RpcClient::reconnect(address, &token(8, &[]), start);
    assert_eq!(eight.numbers(2), [3, 5]);
    eight.heard_nothing();
    // It was answered when it was stored: it survives a kill.
    let server = server.crash_and_restart();
    let mut eight = RpcClient::reconnect(server.address(), &token(8, &[]), start);
    assert_eq!(eight.numbers(2), [3, 5]);
    assert_eq!(eight.message_authors(start, &server), ["7", "7"]);
}

#[test]
fn j_096_requests_in_an_array_are_answered_by_an_array() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let call = |id: Value, method: &str| json!({"jsonrpc": "2.0", "method": method, "params": {}, "id": id});
    let batch =
        json!([call(json!(1), "ping"), call(json!("b"), "listChannels"), call(json!(3), "x"), 5]);
    client.say(batch.to_string());
    let answers: Value = serde_json::from_str(&client.next_text()).expect("JSON");
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": 1, "result": "pong"}));
    assert_eq!(answers[1], json!({"jsonrpc": "2.0", "id": "b", "result": []}));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["code"]), (&json!(3), &json!(-32601)));
    assert_eq!((&answers[3]["id"], &answers[3]["error"]["code"]), (&json!(null), &json!(-32600)));
    assert_eq!(answers.as_array().map(Vec::len), Some(4));
    // One is still an array; none, or too many, is an error.
    client.say(json!([call(json!(9), "ping")]).to_string());
    assert!(client.next_text().starts_with('['));
    for batch in [json!([]), Value::from(vec![call(json!(1), "ping"); 101])] {
        client.say(batch.to_string());
        let answer: Value = serde_json::from_str(&client.next_text()).expect("JSON");
        assert_eq!(answer["error"]["code"], -32600);
    }
    client.say(Value::from(vec![call(json!(1), "ping"); 100]).to_string());
    let answers: Value = serde_json::from_str(&client.next_text()).expect("JSON");
    assert_eq!(answers.as_array().map(Vec::len), Some(100));
    // A batch of messages, ids 1 to n, as `sendMessageBatch` sends them.
    let messages: Vec<_> = (1..=20)
        .map(|n| {
            json!({"jsonrpc": "2.0", "method": "publish", "id": n,
                        "params": {"userList": [7], "body": event(n), "expiry": n % 2}})
        })
        .collect();
    client.say(Value::from(messages).to_string());
    assert_eq!(client.numbers(20), (1..=20).collect::<Vec<_>>());
    for n in 1..=20 {
        assert_eq!(client.answer_to(&json!(n))["result"], json!({}));
    }
}

#[test]
fn j_102_who_publishes_too_fast_gets_errors_and_stays_connected() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let calls = 400;
    for id in 1..=calls {
        client.say(
            json!({"jsonrpc": "2.0", "method": "publish", "id": id,
                          "params": {"userList": [424_242], "body": event(1)}})
            .to_string(),
        );
    }
    let answers: Vec<_> = (1..=calls).map(|id| client.answer_to(&json!(id))).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.get("error").is_some()).collect();
    assert!(!refused.is_empty() && refused.len() <= 200, "{}", refused.len());
    for answer in &refused {
        assert_eq!(answer["error"]["code"], -32603);
        assert_eq!(answer["error"]["message"], "Rate limit");
    }
    assert_eq!(
        metric_of(server.address(), "vestnik_rate_limited_requests_total"),
        refused.len() as u64
    );
    client.heard_nothing();
}

#[test]
fn lists_of_a_client_are_bounded() {
    let server = TestServer::start();
    let mut client = RpcClient::connect(server.address(), &token(7, &[]));
    let users: Vec<_> = (1..=1001).collect();
    assert_eq!(client.error("publish", &json!({"userList": users, "body": event(1)})), -32602);
    let channels = vec![Pair::new(9).public_signed(); 101];
    assert_eq!(
        client.error("publish", &json!({"channelList": channels, "body": event(1)})),
        -32602
    );
    let users: Vec<_> = (1..=5001).collect();
    assert_eq!(client.error("getUsersLastSeen", &json!({"userList": users})), -32602);
    assert_eq!(client.result("publish", &json!({"userList": [], "body": event(1)})), json!({}));
    client.heard_nothing();
}

#[test]
fn guests_write_to_users_only_where_a_setting_lets_them() {
    let guest = token_of(json!({"chan": Pair::new(99).private.to_string()}));
    for lets in [false, true] {
        let server = TestServer::with(&[
            &format!("security.guests_write_to_users={lets}"),
            &format!("security.key={KEY}"),
        ]);
        let mut client = RpcClient::connect(server.address(), &guest);
        let mut user = RpcClient::connect(server.address(), &token(7, &[]));
        let params = json!({"userList": [7], "body": event(1)});
        if lets {
            client.result("publish", &params);
            assert_eq!(user.message()["sender"], json!({"type": 1}));
        } else {
            assert_eq!(client.error("publish", &params), -32602);
        }
        user.heard_nothing();
    }
}

#[test]
fn what_a_user_writes_reaches_clients_of_generation_4_without_an_id_of_16_bytes() {
    let server = TestServer::start();
    let address = server.address();
    let pair = Pair::new(9);
    let query = format!("CHANNEL_ID={}&binaryMode=true", pair.signed());
    let mut nine = Subscriber::open(address, &query);
    let mut seven = RpcClient::connect(address, &token(7, &[]));
    let params = json!({"channelList": [pair.public_signed()], "body": event(1)});
    seven.result("publish", &params);
    let batch = nine.next_binary();
    assert_eq!(crate::traffic::binary_messages(&batch)[0].body, event(1));
    // Sender: a message of two bytes, type 1.
    assert!(raw_contains(&batch, &[0x2a, 0x02, 0x08, 0x01]), "{batch:?}");
    publish(address, &json!({"channelList": [pair.private.to_string()], "body": event(2)}));
    assert!(raw_contains(&nine.next_binary(), &[0x08, 0x02]));
}

fn raw_contains(bytes: &[u8], part: &[u8]) -> bool {
    crate::raw::find(bytes, part).is_some()
}

impl RpcClient {
    /// The senders of what the history holds for user 8.
    fn message_authors(&self, start: &str, server: &TestServer) -> Vec<String> {
        let mut again = Self::reconnect(server.address(), &token(8, &[]), start);
        (0..2)
            .map(|_| again.message()["sender"]["id"].as_str().expect("an id").to_owned())
            .collect()
    }
}
