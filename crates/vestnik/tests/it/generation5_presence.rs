//! Who is online and when others were seen (json-rpc.md §4.6, §4.7, §9).

use serde_json::{Value, json};

use crate::generation5::{RpcClient, call, now_s, token, token_of};
use crate::raw;
use crate::server::TestServer;
use crate::traffic::{hold_poll, until};

fn seen(server: &TestServer, users: &[i64]) -> Value {
    call(server.address(), "getUsersLastSeen", &json!({"userList": users}))
}

#[test]
fn j_040_j_098_connected_users_are_0_others_are_seconds_and_unknown_ones_are_left_out() {
    let server = TestServer::with(&["timing.presence_grace=0s"]);
    assert_eq!(seen(&server, &[7, 8, 9]), json!({}));
    let first = RpcClient::connect(server.address(), &token(7, &[]));
    let second = RpcClient::connect(server.address(), &token(7, &[]));
    let mut asks = RpcClient::connect(server.address(), &token(8, &[]));
    assert_eq!(seen(&server, &[7, 8, 9]), json!({"7": 0, "8": 0}));
    assert_eq!(asks.result("getUsersLastSeen", &json!({"userList": [9]})), json!({}));
    drop(first);
    assert_eq!(asks.result("getUsersLastSeen", &json!({"userList": [7, 99]})), json!({"7": 0}));
    drop(second);
    until("the last connection is gone", || seen(&server, &[7])["7"].as_u64() >= Some(1));
    assert_eq!(seen(&server, &[8]), json!({"8": 0}));
}

#[test]
fn j_041_ten_thousand_users_are_asked_about_at_once() {
    let server = TestServer::start();
    let now_s = now_s();
    let updates: serde_json::Map<String, Value> =
        (1..=10_000).map(|id| (id.to_string(), json!(now_s - 100 - id))).collect();
    let result = call(server.address(), "updateUsersLastSeen", &updates.into());
    assert!(result.is_object());
    let users: Vec<i64> = (1..=10_000).collect();
    let all = seen(&server, &users);
    assert_eq!(all.as_object().map(serde_json::Map::len), Some(10_000));
    for id in [1, 5000, 10_000] {
        let ago = all[id.to_string()].as_i64().expect("an integer");
        assert!((100 + id..=220 + id).contains(&ago), "{ago}");
    }
}

#[test]
fn j_042_an_update_raises_never_lowers_and_makes_nobody_online() {
    let server = TestServer::start();
    let _eight = RpcClient::connect(server.address(), &token(8, &[]));
    let update = |seen_s: i64| {
        call(server.address(), "updateUsersLastSeen", &json!({"7": seen_s, "8": seen_s}));
        let seen = seen(&server, &[7, 8]);
        assert_eq!(seen["8"], 0, "who is here is here");
        seen["7"].as_i64()
    };
    assert_eq!(update(now_s() + 600), None, "times to come say nothing");
    assert!(update(now_s() - 500) >= Some(500));
    assert!(update(now_s() - 300) < Some(400));
    assert!(update(now_s() - 500) < Some(400));
    assert!(update(now_s()) >= Some(1));
}

#[test]
fn j_097_without_a_list_all_users_of_the_site_are_meant() {
    let server = TestServer::start();
    let mut seven = RpcClient::connect(server.address(), &token(7, &[]));
    let _guest = RpcClient::connect(server.address(), &token(-5, &[]));
    let other = token_of(json!({"iss": "another", "sub": "9"}));
    let mut nine = RpcClient::connect(server.address(), &other);
    assert_eq!(seven.result("getUsersLastSeen", &json!({})), json!({"7": 0, "-5": 0}));
    assert_eq!(nine.result("getUsersLastSeen", &json!({})), json!({"9": 0}));
}

#[test]
fn times_of_last_seen_survive_a_restart() {
    let server = TestServer::with(&["timing.presence_grace=0s"]);
    call(server.address(), "updateUsersLastSeen", &json!({"8": now_s() - 5000}));
    let client = RpcClient::connect(server.address(), &token(7, &[]));
    let server = server.stop_and_restart();
    drop(client);
    let seen = seen(&server, &[7, 8, 9]);
    assert!((1..=60).contains(&seen["7"].as_i64().expect("it was here")), "{seen}");
    assert!((5000..=5060).contains(&seen["8"].as_i64().expect("it was told")), "{seen}");
    assert_eq!(seen.get("9"), None);
}

/// The status in the next message.
fn status(client: &mut RpcClient) -> (i64, bool) {
    let message = client.message();
    let body = &message["body"];
    assert_eq!(body["module_id"], "online");
    assert_eq!(body["command"], "userStatusChange");
    assert_eq!(message["sender"], json!({"type": 2}));
    assert!(body["extra"]["server_time"].is_string() && body["extra"]["server_time_unix"].is_f64());
    let params = &body["params"];
    (params["user_id"].as_i64().expect("an integer"), params["online"].as_bool().expect("a bool"))
}

#[test]
fn j_099_j_116_j_110_a_watched_user_comes_at_once_and_goes_after_the_grace() {
    let server = TestServer::with(&["timing.presence_grace=2s"]);
    let address = server.address();
    let mut watcher = RpcClient::connect(address, &token(7, &[]));
    for id in [json!(8), json!("8"), json!(8)] {
        watcher.result("subscribeStatusChange", &json!({"userId": id}));
    }
    assert_eq!(watcher.error("subscribeStatusChange", &json!({"userId": "x"})), -32602);
    let first = RpcClient::connect(address, &token(8, &[]));
    assert_eq!(status(&mut watcher), (8, true));
    // A second tab, a reconnect and somebody else are no news.
    let second = RpcClient::connect(address, &token(8, &[]));
    drop(first);
    drop(second);
    let third = RpcClient::connect(address, &token(8, &[]));
    let nine = RpcClient::connect(address, &token(9, &[]));
    drop((third, nine));
    assert_eq!(status(&mut watcher), (8, false));
    watcher.heard_nothing();
    // It can be ended, and ends with the connection.
    watcher.result("unsubscribeStatusChange", &json!({"userId": "8"}));
    let mut eight = RpcClient::connect(address, &token(8, &[]));
    eight.heard_nothing();
    watcher.heard_nothing();
    let mut again = RpcClient::connect(address, &token(7, &[]));
    drop(eight);
    until("user 8 is gone", || seen(&server, &[8])["8"].as_u64() >= Some(1));
    let _eight = RpcClient::connect(address, &token(8, &[]));
    again.heard_nothing();
    watcher.heard_nothing();
}

#[test]
fn j_100_one_subscription_hears_of_all_users_of_the_site() {
    let server = TestServer::with(&["timing.presence_grace=0s"]);
    let address = server.address();
    let mut watcher = RpcClient::open(address, &format!("token={}&jsonRpc=true", token(7, &[])));
    let channels = json!({"channelList": ["internal:user_status", "internal:unknown"]});
    watcher.result("subscribe", &channels);
    watcher.result("subscribe", &json!({"channelList": ["x"]}));
    // Both kinds of watching: once.
    watcher.result("subscribeStatusChange", &json!({"userId": 8}));
    let other = token_of(json!({"iss": "another", "sub": "9"}));
    let _other = RpcClient::connect(address, &other);
    let eight = RpcClient::connect(address, &token(8, &[]));
    // That the watcher itself came may be told after it asked: first, and once.
    let first = status(&mut watcher);
    let news = if first == (7, true) { status(&mut watcher) } else { first };
    assert_eq!(news, (8, true));
    let _guest = RpcClient::connect(address, &token(-5, &[]));
    assert_eq!(status(&mut watcher), (-5, true));
    drop(eight);
    assert_eq!(status(&mut watcher), (8, false));
    watcher.heard_nothing();
    assert_eq!(watcher.error("subscribe", &json!({})), -32602);
}

#[test]
fn a_user_who_polls_is_online_between_two_polls() {
    let server = TestServer::with(&["timing.poll=1s", "timing.presence_grace=2s"]);
    let query = format!("token={}&jsonRpc=true&revision=19", token(7, &[]));
    let mut poll = hold_poll(server.address(), &query);
    assert_eq!(seen(&server, &[7]), json!({"7": 0}));
    assert_eq!(poll.answer().status, 304);
    assert_eq!(seen(&server, &[7]), json!({"7": 0}));
    until("nobody came back", || seen(&server, &[7])["7"].as_u64() >= Some(1));
}

#[test]
fn a_connection_without_a_token_asks_about_the_only_site_there_is() {
    let server = TestServer::start();
    let pair = crate::sign::Pair::new(1);
    let mut old =
        RpcClient::open(server.address(), &format!("CHANNEL_ID={}&jsonRpc=true", pair.signed()));
    assert_eq!(old.result("getUsersLastSeen", &json!({"userList": [7]})), json!({}));
    let _seven = RpcClient::connect(server.address(), &token(7, &[]));
    assert_eq!(old.result("getUsersLastSeen", &json!({"userList": [7]})), json!({"7": 0}));
    let other = token_of(json!({"iss": "another", "sub": "9"}));
    let _nine = RpcClient::connect(server.address(), &other);
    assert_eq!(old.result("getUsersLastSeen", &json!({"userList": [7]})), json!({}));
    let online = raw::get(server.address(), &format!("/bitrix/pub/?CHANNEL_ID={}", pair.private));
    assert!(online.text().contains("subscribers"));
}
