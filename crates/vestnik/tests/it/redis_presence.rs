//! Who is online on which node, and how the nodes do: on one real Redis (queue-server.md §7.8, §8.1, §9).

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};
use vestnik_core::ChannelId;

use crate::generation5::{RpcClient, call, now_s, token};
use crate::observe::{hold_poll, is_online};
use crate::raw;
use crate::redis::{Redis, connected};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::until;
use crate::websocket::Subscriber;
use crate::wire::{RawSocket, client_frame, stats_answer, stats_request};

fn key(prefix: &str, id: ChannelId) -> Vec<u8> {
    [prefix.as_bytes(), id.as_bytes()].concat()
}

/// Whether public channels are online, as a client of a node hears of them.
fn hears_of(address: SocketAddr, pairs: &[Pair], is_online: bool) -> bool {
    let mut asks =
        RawSocket::open(address, &format!("CHANNEL_ID={}&binaryMode=true", Pair::new(99).signed()));
    asks.send(client_frame(0x82, &stats_request(pairs)));
    let expected: Vec<_> = pairs.iter().map(|pair| (*pair, is_online)).collect();
    asks.next_data().payload == stats_answer(&expected)
}

#[test]
fn q_119_answers_about_channels_come_in_the_order_of_the_questions_whoever_must_be_asked() {
    let redis = Redis::start();
    let nodes = [(); 2].map(|()| redis.node("own"));
    let [here, there, nowhere] = [1, 2, 3].map(Pair::new);
    let _here = Subscriber::open(nodes[0].address(), &format!("CHANNEL_ID={}", here.signed()));
    let _there = Subscriber::open(nodes[1].address(), &format!("CHANNEL_ID={}", there.signed()));
    until("both are online", || {
        [here, there].iter().all(|it| is_online(nodes[0].address(), it.private))
    });
    let list = format!("CHANNEL_ID={}&binaryMode=true", Pair::new(99).signed());
    let mut asks = RawSocket::open(nodes[0].address(), &list);
    // Of the first two Redis must be asked, of the third not.
    let questions = [(nowhere, false), (there, true), (here, true)];
    let asked = |n: usize| client_frame(0x82, &stats_request(&[questions[n % 3].0]));
    asks.send((0..60).flat_map(asked).collect::<Vec<u8>>());
    for n in 0..60 {
        assert_eq!(asks.next_data().payload, stats_answer(&[questions[n % 3]]), "question {n}");
    }
}

fn stat(address: SocketAddr) -> Vec<Value> {
    let answer = raw::get(address, "/server-stat/");
    assert_eq!(answer.status, 200);
    serde_json::from_str(answer.text()).expect("an array")
}

fn names(address: SocketAddr) -> Vec<String> {
    let name = |it: &Value| it["processUniqueId"].as_str().expect("a name").to_owned();
    stat(address).iter().map(name).collect()
}

fn now_ms() -> u64 {
    vestnik_core::Clock::System.unix_ms()
}

/// As a process of Push server 2.0 reports.
fn report(redis: &Redis, name: &str, date_ms: u64) -> String {
    let json = format!(r#"{{"pid":1,"date":{date_ms},"processUniqueId":"{name}","channels":0}}"#);
    redis.ask(&[b"HMSET", b"stats", name.as_bytes(), json.as_bytes()]);
    json
}

#[test]
fn q_085_q_184_channels_are_online_on_every_node_that_asks_and_go_when_their_connection_does() {
    let redis = Redis::start();
    for layout in ["own", "push-server"] {
        let nodes = [(); 3].map(|()| redis.node(layout));
        let [here, there, third] = [0, 1, 2].map(|n: usize| nodes[n].address());
        let [a, b, c] = [1, 2, 3].map(Pair::new);
        let list = format!("CHANNEL_ID={}/{}", a.signed(), b.signed());
        let socket = Subscriber::open(here, &list);
        let _poll = hold_poll(there, &format!("CHANNEL_ID={}", c.signed()));
        for node in [here, there, third] {
            for pair in [a, b, c] {
                until("it is online everywhere", || is_online(node, pair.private));
            }
            until("clients hear of it", || hears_of(node, &[a, b, c], true));
            let list = format!("/bitrix/pub/?CHANNEL_ID={}", Pair::new(4).private);
            assert_eq!(raw::get(node, &list).text(), r#"{"infos":[]}"#, "others are not");
        }
        // A second connection elsewhere keeps it online.
        let second = Subscriber::open(third, &format!("CHANNEL_ID={}", a.signed()));
        drop(socket);
        until("one is offline", || !is_online(there, b.private) && !is_online(here, b.private));
        until("the other is not", || is_online(here, a.private) && is_online(there, a.private));
        drop(second);
        until("both are offline", || !is_online(here, a.private) && !is_online(there, a.private));
        assert!(is_online(third, c.private));
    }
}

#[test]
fn q_085_q_161_originals_and_vestnik_see_each_others_channels() {
    let redis = Redis::start();
    let node = redis.node("push-server");
    let address = node.address();
    let [a, b] = [1, 2].map(Pair::new);
    // An original writes its presence (the commands of queue-server.md §8.1).
    redis.ask(&[b"SETEX", &key("channel:online:", b.private), b"130", b"1"]);
    redis.ask(&[b"SETEX", &key("pubchannel:online:", b.public), b"130", b"1"]);
    assert!(is_online(address, b.private), "at once: nothing is cached");
    assert!(hears_of(address, &[b], true));
    // And reads ours.
    let ours = [key("channel:online:", a.private), key("pubchannel:online:", a.public)];
    let socket = Subscriber::open(address, &format!("CHANNEL_ID={}", a.signed()));
    for key in &ours {
        until("it is written at connect", || redis.ask(&[b"GET", key]) == [b"1"]);
        let seconds = redis.number(&[b"TTL", key]);
        assert!((100..=130).contains(&seconds), "{seconds}");
    }
    // Alone, a channel is offline as soon as its connection is gone.
    drop(socket);
    until("it is deleted", || redis.ask(&[b"GET", &ours[0]]).is_empty());
    assert!(!is_online(address, a.private));
    // An original runs beside: it may have the channel too, so its key is left to expire (README D13).
    report(&redis, "node-1", now_ms());
    let name = names(address).remove(0);
    let before = redis.ask(&[b"HGET", b"stats", name.as_bytes()]);
    until("a sign of life was given since", || {
        redis.ask(&[b"HGET", b"stats", name.as_bytes()]) != before
    });
    let socket = Subscriber::open(address, &format!("CHANNEL_ID={}", a.signed()));
    until("it is written", || redis.ask(&[b"GET", &ours[0]]) == [b"1"]);
    drop(socket);
    until("the list has forgotten it", || {
        let lists = redis.ask(&[b"KEYS", b"vestnik:online:*"]);
        redis.number(&[b"HLEN", &lists[0]]) == 1
    });
    assert_eq!(redis.ask(&[b"GET", &ours[0]]), [b"1"]);
}

#[test]
fn q_161_presence_keys_are_refreshed_while_the_connection_is_there() {
    let redis = Redis::start();
    let node = redis.node("push-server");
    let pairs: Vec<_> = (1..=60).map(Pair::new).collect();
    let list = |pairs: &[Pair]| {
        let ids: Vec<_> = pairs.iter().map(|pair| pair.signed()).collect();
        format!("CHANNEL_ID={}", ids.join("/"))
    };
    let _socket = Subscriber::open(node.address(), &list(&pairs));
    let keys: Vec<_> = pairs.iter().map(|it| key("channel:online:", it.private)).collect();
    for key in &keys {
        until("it is written", || redis.number(&[b"TTL", key]) > 100);
        redis.ask(&[b"EXPIRE", key, b"90"]);
    }
    // A part of them each second, all of them in about a minute.
    until("some are refreshed", || {
        keys.iter().filter(|key| redis.number(&[b"TTL", key]) > 100).count() >= 3
    });
}

#[test]
fn q_161_the_channels_of_a_killed_node_go_offline_and_its_users_are_said_to_be_gone() {
    let redis = Redis::start();
    let [killed, node] = [(); 2].map(|()| redis.node("own"));
    let address = node.address();
    let pair = Pair::new(1);
    let _socket = Subscriber::open(killed.address(), &format!("CHANNEL_ID={}", pair.signed()));
    let mut watcher = RpcClient::connect(address, &token(7, &[]));
    watcher.result("subscribeStatusChange", &json!({"userId": 8}));
    let _eight = RpcClient::connect(killed.address(), &token(8, &[]));
    until("it is online", || is_online(address, pair.private));
    assert_eq!(status(&mut watcher), (8, true));
    killed.signal("KILL");
    assert!(is_online(address, pair.private), "nobody can know yet");
    until("it is offline", || !is_online(address, pair.private));
    assert_eq!(status(&mut watcher), (8, false));
    let seen = call(address, "getUsersLastSeen", &json!({"userList": [7, 8]}));
    assert_eq!(seen["7"], 0);
    assert!((1..=60).contains(&seen["8"].as_i64().expect("seconds")), "{seen}");
    watcher.heard_nothing();
}

#[test]
fn q_161_after_a_crash_or_a_loss_of_redis_everybody_is_announced_again() {
    let mut redis = Redis::start();
    for layout in ["own", "push-server"] {
        let nodes = [(); 2].map(|()| redis.node(layout));
        let [here, there] = [nodes[0].address(), nodes[1].address()];
        let pair = Pair::new(1);
        let _socket = Subscriber::open(here, &format!("CHANNEL_ID={}", pair.signed()));
        let _seven = RpcClient::connect(here, &token(7, &[]));
        let is_known = || {
            let seen = call(there, "getUsersLastSeen", &json!({"userList": [7]}));
            is_online(there, pair.private) && seen == json!({"7": 0})
        };
        until("it is known", is_known);
        redis.kill();
        assert!(is_online(here, pair.private), "one's own channels need no redis");
        redis.start_again();
        nodes.iter().for_each(|node| connected(node.address()));
        until("it is known again", is_known);
        redis.ask(&[b"FLUSHALL"]);
        until("it is known although redis lost everything", is_known);
    }
}

#[test]
fn q_162_q_148_statistics_show_all_nodes_are_refreshed_and_old_ones_are_dropped() {
    let redis = Redis::start();
    let nodes = [(); 2].map(|()| redis.node("push-server"));
    let [here, there] = [nodes[0].address(), nodes[1].address()];
    let fresh = report(&redis, "node-1", now_ms());
    report(&redis, "node-2", now_ms() - 71_000);
    redis.ask(&[b"HSET", b"stats", b"rubbish", b"{"]);
    until("both nodes have reported", || names(here).len() == 3 && names(there).len() == 3);
    let [mine, other] = [&names(here)[0], &names(there)[0]];
    assert_ne!(mine, other, "the asked one comes first");
    assert!(names(here).contains(other) && names(there).contains(mine));
    assert!(raw::get(here, "/server-stat/").text().contains(&fresh), "byte for byte");
    assert_eq!(redis.number(&[b"HEXISTS", b"stats", b"node-2"]), 0, "too old: dropped");
    assert_eq!(redis.number(&[b"HEXISTS", b"stats", b"rubbish"]), 1, "not ours to judge");
    let date_of = |name: &str| {
        let all = stat(here);
        let found = all.iter().find(|it| it["processUniqueId"] == name).expect("it is shown");
        assert_eq!(found["clusterMode"], true);
        found["date"].as_u64().expect("milliseconds")
    };
    // Far below 60 s.
    let _socket = Subscriber::open(there, &format!("CHANNEL_ID={}", Pair::new(1).signed()));
    let (before, began) = (date_of(other), Instant::now());
    until("it is refreshed", || date_of(other) > before);
    until("it shows what is so", || {
        stat(here).iter().any(|it| it["processUniqueId"] == **other && it["channels"] == 1)
    });
    assert!(began.elapsed().as_secs() < 60);
    // Whoever stops in order is not shown any more.
    let other = other.clone();
    nodes[1].signal("TERM");
    until("it is gone", || !names(here).contains(&other));
}

#[test]
fn the_command_stats_shows_one_node_or_all_of_them_and_says_what_is_wrong() {
    let mut redis = Redis::start();
    let nodes = [(); 2].map(|()| redis.node("own"));
    let [here, there] = [nodes[0].address(), nodes[1].address()];
    until("both nodes have reported", || names(here).len() == 2);
    let stats_at = |path: &str, more: &[&str]| {
        let url = format!("http://{here}{path}");
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_vestnik"))
            .args(["stats", "--url", &url])
            .args(more)
            .output()
            .expect("it is built");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (program.status.code(), text(program.stdout), text(program.stderr))
    };
    let stats = |more: &[&str]| stats_at("/server-stat/", more);
    let [mine, other] = [names(here).remove(0), names(there).remove(0)];
    let (code, table, _) = stats(&[]);
    assert_eq!(code, Some(0));
    assert!(table.starts_with("node ") && table.contains(&mine) && !table.contains(&other));
    let (_, table, _) = stats(&["--cluster"]);
    assert!(
        table.contains(&mine) && table.contains(&other) && table.contains("2 nodes"),
        "{table}"
    );
    let count = |more: &[&str]| {
        let (_, json, _) = stats(more);
        serde_json::from_str::<Vec<Value>>(&json).expect("JSON").len()
    };
    assert_eq!((count(&["--json"]), count(&["--json", "--cluster"])), (1, 2));
    redis.kill();
    let (code, _, error) = stats(&["--cluster"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("error: the server cannot ask") && error.contains("hint: is Redis"));
    let (code, _, error) = stats_at("/healthz", &[]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no statistics") && error.contains("hint: the address"), "{error}");
}

#[test]
fn q_189_statistics_of_all_nodes_are_an_error_within_5_seconds_while_redis_is_down() {
    let mut redis = Redis::start();
    let node = redis.node("own");
    assert_eq!(raw::get(node.address(), "/server-stat/").status, 200);
    redis.kill();
    let began = Instant::now();
    assert_eq!(raw::get(node.address(), "/server-stat/").status, 503);
    assert!(began.elapsed().as_secs() < 5);
    redis.start_again();
    until("they are back", || raw::get(node.address(), "/server-stat/").status == 200);
}

#[test]
fn q_185_connections_of_a_channel_are_limited_over_all_nodes() {
    let redis = Redis::start();
    for limit in [1, 3] {
        let setting = format!("limits.connections_per_channel={limit}");
        let nodes = [(); 2].map(|()| redis.node_with("own", &[&setting]));
        let pair = Pair::new(limit);
        let list = format!("CHANNEL_ID={}", pair.signed());
        let here = |n: usize| Subscriber::open(nodes[n].address(), &list);
        let mut first: Vec<_> = (0..limit).map(|_| here(0)).collect();
        until("the other node knows", || is_online(nodes[1].address(), pair.private));
        let mut last = here(1);
        let closed = (4029, "4029: Too many connections".to_owned());
        assert_eq!(first.remove(0).close_reason(), closed, "the oldest");
        assert_eq!(
            raw::publish(nodes[0].address(), &pair.private.to_string(), 0, r#"{"n":1}"#).status,
            200
        );
        for subscriber in first.iter_mut().chain([&mut last]) {
            assert_eq!(subscriber.next_text()["n"], 1, "the others stay");
        }
    }
}

fn status(client: &mut RpcClient) -> (i64, bool) {
    let message = client.message();
    assert_eq!(message["body"]["command"], "userStatusChange");
    let params = &message["body"]["params"];
    (params["user_id"].as_i64().expect("an id"), params["online"].as_bool().expect("a bool"))
}

#[test]
fn j_040_j_116_users_of_other_nodes_are_seen_and_go_after_the_last_node_has_none_of_them() {
    let redis = Redis::start();
    for layout in ["own", "push-server"] {
        let nodes: [TestServer; 2] =
            [(); 2].map(|()| redis.node_with(layout, &["timing.presence_grace=1s"]));
        let [here, there] = [nodes[0].address(), nodes[1].address()];
        let mut one = RpcClient::connect(here, &token(7, &[]));
        let mut all = RpcClient::connect(there, &token(9, &[]));
        one.result("subscribeStatusChange", &json!({"userId": 8}));
        all.result("subscribe", &json!({"channelList": ["internal:user_status"]}));
        let heard = |one: &mut RpcClient, all: &mut RpcClient, is_online| {
            assert_eq!(status(one), (8, is_online), "{layout}");
            let mut next = status(all);
            // It hears of everybody, also of who came before it.
            while next.0 != 8 {
                next = status(all);
            }
            assert_eq!(next, (8, is_online), "{layout}");
        };
        let eight = RpcClient::connect(there, &token(8, &[]));
        heard(&mut one, &mut all, true);
        let seen =
            |node, users: &[i64]| call(node, "getUsersLastSeen", &json!({"userList": users}));
        assert_eq!(seen(here, &[7, 8, 5]), json!({"7": 0, "8": 0}));
        assert_eq!(one.result("getUsersLastSeen", &json!({"userList": [8]})), json!({"8": 0}));
        assert_eq!(one.result("getUsersLastSeen", &json!({})), json!({"7": 0, "8": 0, "9": 0}));
        // On two nodes, then on one, is no news.
        let second = RpcClient::connect(here, &token(8, &[]));
        drop(eight);
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert_eq!(seen(there, &[8]), json!({"8": 0}));
        one.heard_nothing();
        all.heard_nothing();
        drop(second);
        heard(&mut one, &mut all, false);
        for node in [here, there] {
            let seconds = seen(node, &[8])["8"].as_i64().expect("it was seen");
            assert!((1..=60).contains(&seconds), "{seconds}");
        }
        one.heard_nothing();
        // What a site says to one node is known to all (J-042).
        call(here, "updateUsersLastSeen", &json!({"5": now_s() - 500, "7": now_s() - 500}));
        let asked = seen(there, &[5, 7]);
        assert!((500..=560).contains(&asked["5"].as_i64().expect("seconds")), "{asked}");
        assert_eq!(asked["7"], 0);
    }
}
