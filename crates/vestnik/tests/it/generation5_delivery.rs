//! Coming back, across framings and generations, and the end (json-rpc.md §8).

use serde_json::{Value, json};
use tungstenite::Message;

use crate::generation5::{RpcClient, event, publish, publish_all, token, token_of};
use crate::raw;
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::{To, batch, binary_messages, incoming, publish_batch, text_messages};
use crate::websocket::Subscriber;

const START: &str = "00000000000000000000000000";

fn numbered(users: &[i64], numbers: std::ops::Range<u64>) -> Vec<Value> {
    numbers.map(|n| json!({"userList": users, "body": event(n)})).collect()
}

fn story(settings: &[&str]) {
    let server = TestServer::with(settings);
    let address = server.address();
    let shared = Pair::new(99).private;
    let token = token(7, &[shared]);
    let mut client = RpcClient::connect(address, &token);
    publish_all(address, &numbered(&[7], 0..3));
    let seen: Vec<_> = (0..3).map(|_| client.message()["mid"].clone()).collect();
    let mid = seen[1].as_str().expect("an id");
    drop(client);
    publish_all(address, &numbered(&[7, 8], 3..5));
    publish(
        address,
        &json!({"channelList": [shared.to_string()], "userList": [7], "body": event(5)}),
    );
    publish_all(address, &numbered(&[8], 6..7));
    let mut client = RpcClient::reconnect(address, &token, mid);
    publish_all(address, &numbered(&[7], 7..9));
    assert_eq!(
        client.numbers(6),
        [2, 3, 4, 5, 7, 8],
        "what was missed, then what is new, once each"
    );
    client.heard_nothing();
    // A position that is none: from now on.
    for mid in ["x", "", "1700000000000000000000000", "1700000000000000000000000g"] {
        let mut live = RpcClient::reconnect(address, &token, mid);
        live.heard_nothing();
        publish_all(address, &numbered(&[7], 9..10));
        assert_eq!(live.numbers(1), [9]);
    }
}

#[test]
fn j_113_j_115_k_030_who_comes_back_gets_exactly_what_was_missed() {
    story(&["history.engine=disk"]);
    story(&["history.engine=memory"]);
    story(&["history.engine=disk", "history.cache_bytes=0"]);
}

#[test]
fn j_114_k_031_a_position_of_one_generation_is_good_in_another() {
    let server = TestServer::start();
    let address = server.address();
    let pair = Pair::new(7);
    // As PHP publishes for a user of both worlds.
    for n in 0..4 {
        publish(
            address,
            &json!({
                "userList": [7], "channelList": [pair.private.to_string()], "body": event(n),
            }),
        );
    }
    let by_ids = format!("CHANNEL_ID={}", pair.signed());
    let binary =
        Subscriber::open(address, &format!("{by_ids}&binaryMode=true&mid={START}")).next_binary();
    let mids: Vec<_> = binary_messages(&binary).into_iter().map(|message| message.mid).collect();
    assert_eq!(mids.len(), 4);
    // Protobuf, then JSON-RPC with a token: the portal moved from 4 to 5.
    let mut five = RpcClient::reconnect(address, &token(7, &[]), &mids[1]);
    let message = five.message();
    assert_eq!((message["body"].clone(), message["mid"].as_str()), (event(2), Some(&*mids[2])));
    assert_eq!(five.numbers(1), [3]);
    // And back, and in text.
    let binary = Subscriber::open(address, &format!("{by_ids}&binaryMode=true&mid={}", mids[2]));
    let binary = { binary }.next_binary();
    assert_eq!(binary_messages(&binary)[0].body, event(3));
    let text = raw::get(address, &format!("/bitrix/sub/?{by_ids}&mid={}", mids[2]));
    assert_eq!(text_messages(text.text())[0].mid, mids[3]);
    let poll = raw::get(
        address,
        &format!("/bitrix/sub/?token={}&jsonRpc=true&mid={}", token(7, &[]), mids[2]),
    );
    let packet: Value = serde_json::from_slice(&poll.body).expect("one object");
    assert_eq!(packet["params"]["body"], event(3));
}

#[test]
fn publishers_of_every_generation_reach_clients_of_every_generation() {
    let server = TestServer::start();
    let address = server.address();
    let (pair, shared) = (Pair::new(7), Pair::new(99));
    let ids = format!("CHANNEL_ID={}/{}", pair.signed(), shared.private_signed());
    let mut three = Subscriber::open(address, &ids);
    let mut four = Subscriber::open(address, &format!("{ids}&binaryMode=true"));
    let mut five = RpcClient::connect(address, &token(7, &[shared.private]));
    // Text, protobuf and JSON-RPC to the shared channel.
    let channel = shared.private.to_string();
    assert_eq!(raw::publish(address, &channel, 60, &event(1).to_string()).status, 200);
    let message = incoming(&[To::Private(shared)], 60, &event(2).to_string());
    assert_eq!(publish_batch(address, &[message]).status, 200);
    publish(address, &json!({"channelList": [channel], "body": event(3)}));
    // The user, as PHP of generation 5 does it; and as PHP of generation 4 does it after that.
    let private = pair.private.to_string();
    publish(address, &json!({"userList": [7], "channelList": [private], "body": event(4)}));
    assert_eq!(raw::publish(address, &private, 60, &event(5).to_string()).status, 200);
    let message = incoming(&[To::Private(pair)], 60, &event(6).to_string());
    assert_eq!(publish_batch(address, &[message]).status, 200);
    let mut binary = Vec::new();
    while binary.len() < 6 {
        binary.extend(binary_messages(&four.next_binary()));
    }
    for n in 1..=6 {
        assert_eq!(three.next_text(), event(n));
        assert_eq!(binary.remove(0).body, event(n));
    }
    assert_eq!(five.numbers(6), [1, 2, 3, 4, 5, 6]);
    five.heard_nothing();
    // Who comes back gets it too.
    let mut five = RpcClient::reconnect(address, &token(7, &[shared.private]), START);
    assert_eq!(five.numbers(6), [1, 2, 3, 4, 5, 6]);
    // Clients of both generations write to each other.
    four.send(Message::binary(batch(&[incoming(
        &[To::SignedPublic(pair)],
        0,
        &event(7).to_string(),
    )])));
    assert_eq!(three.next_text(), event(7));
    let params = json!({"channelList": [pair.public_signed()], "body": event(8)});
    five.result("publish", &params);
    assert_eq!(three.next_text(), event(8));
}

#[test]
fn a_channel_becomes_a_users_only_by_a_message_to_both_of_them_alone() {
    let server = TestServer::start();
    let address = server.address();
    let (pair, shared) = (Pair::new(7), Pair::new(99));
    let mut seven = RpcClient::connect(address, &token(7, &[]));
    let (private, common) = (pair.private.to_string(), shared.private.to_string());
    publish(address, &json!({"userList": [7, 8], "channelList": [private], "body": event(1)}));
    publish(address, &json!({"userList": [7], "channelList": [private, common], "body": event(2)}));
    assert_eq!(seven.numbers(2), [1, 2]);
    for channel in [&private, &common] {
        assert_eq!(raw::publish(address, channel, 0, &event(3).to_string()).status, 200);
    }
    seven.heard_nothing();
    // Now it is known whose it is; additions reach connections of that channel too.
    let mut old = RpcClient::open(address, &format!("CHANNEL_ID={}&jsonRpc=true", pair.signed()));
    publish(address, &json!({"userList": [7], "channelList": [private], "body": event(4)}));
    assert_eq!((seven.numbers(1), old.numbers(1)), (vec![4], vec![4]));
    assert_eq!(raw::publish(address, &private, 0, &event(5).to_string()).status, 200);
    assert_eq!((seven.numbers(1), old.numbers(1)), (vec![5], vec![5]));
    let mut later = RpcClient::open(address, &format!("CHANNEL_ID={}&jsonRpc=true", pair.signed()));
    publish(
        address,
        &json!({
            "userList": [7], "channelList": [private], "body": event(6), "user_params": {"7": {"n": 60}},
        }),
    );
    assert_eq!((seven.numbers(1), later.numbers(1)), (vec![60], vec![60]));
    // Everybody else of the channel's site is not concerned.
    let mut foreign = RpcClient::connect(address, &token_of(json!({"iss": "another", "sub": "7"})));
    assert_eq!(raw::publish(address, &private, 0, &event(7).to_string()).status, 200);
    foreign.heard_nothing();
}

#[test]
fn j_117_the_end_is_1001_for_everybody_and_nothing_is_lost_by_it() {
    let server = TestServer::with(&["server.drain=1s"]);
    let address = server.address();
    let mut clients: Vec<_> =
        (0..20).map(|_| RpcClient::connect(address, &token(7, &[]))).collect();
    publish(address, &json!({"userList": [7], "body": event(1)}));
    server.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.numbers(1), [1]);
        assert_eq!(client.subscriber.close_reason(), (1001, String::new()));
    }
    let (status, _) = server.wait();
    assert!(status.success());
}
