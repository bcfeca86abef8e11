//! The unmodified SDK client in its JSON-RPC mode, in Node and in headless Chromium.

use serde_json::{Value, json};

use crate::clients::{Client, Kind, Transport, settings, slow};
use crate::generation5::{RpcClient, call, event, now_s, publish, publish_all, token, token_of};
use crate::raw;
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::until;

const WAYS: [(Kind, Transport); 4] = [
    (Kind::Node, Transport::WebSocket),
    (Kind::Node, Transport::LongPolling),
    (Kind::Chromium, Transport::WebSocket),
    (Kind::Chromium, Transport::LongPolling),
];

const SHARED: u64 = 99;

/// Settings of user 7 as the portal of a site of generation 5 gives them (clients.md §2.2).
fn portal(server: &TestServer, transport: Transport, jwt: &str) -> Value {
    let (me, shared) = (Pair::new(7), Pair::new(SHARED));
    let channels = json!({
        "shared": {"id": shared.private_signed()},
        "private": {"id": me.signed(), "public_id": me.public_signed()},
    });
    let mut settings = settings(5, &server.address().to_string(), transport, &channels);
    settings["jwt"] = json!(jwt);
    settings
}

fn my_token() -> String {
    token(7, &[Pair::new(SHARED).private])
}

fn until_online(server: &TestServer) {
    until("the client is online", || {
        call(server.address(), "getUsersLastSeen", &json!({"userList": [7]}))["7"] == 0
    });
}

/// Publishes to user 7, as PHP does it, and to the shared channel in turn.
fn publish_numbers(server: &TestServer, numbers: std::ops::Range<u64>) {
    let (private, shared) = (Pair::new(7).private, Pair::new(SHARED).private);
    for n in numbers {
        let message = if n % 2 == 0 {
            json!({"userList": [7], "channelList": [private.to_string()], "body": event(n)})
        } else {
            json!({"channelList": [shared.to_string()], "body": event(n)})
        };
        publish(server.address(), &message);
    }
}

fn expect_numbers(client: &mut Client, numbers: std::ops::Range<u64>) {
    let received: Vec<u64> = numbers
        .clone()
        .map(|_| client.expect_named("message")["params"]["n"].as_u64().expect("a number"))
        .collect();
    assert_eq!(received, numbers.collect::<Vec<_>>(), "in order, once each");
}

fn no_duplicates(client: &mut Client) {
    let left = client.not_taken();
    assert!(left.iter().all(|event| event["event"] != "message"), "{left:?}");
    assert!(!left.iter().any(|event| event.to_string().contains("Duplicate")), "{left:?}");
}

#[expect(clippy::print_stdout, reason = "shown by the test runner with a failure")]
fn for_each_way(story: impl Fn(Kind, Transport)) {
    if !slow() {
        return;
    }
    for (kind, transport) in WAYS {
        println!("{kind:?}, {transport:?}");
        story(kind, transport);
    }
}

#[test]
fn k_090_k_091_k_030_j_112_a_real_client_in_json_rpc_mode_gets_events_and_what_it_missed() {
    for_each_way(|kind, transport| {
        let server = TestServer::start();
        let mut client = Client::start(kind, &portal(&server, transport, &my_token()));
        let url = client.expect_named("url")["url"].to_string();
        assert!(url.contains("token=") && url.contains("jsonRpc=true"), "{url}");
        assert!(!url.contains("CHANNEL_ID"), "{url}");
        until_online(&server);
        publish_numbers(&server, 0..10);
        expect_numbers(&mut client, 0..10);
        assert!(client.mid().is_some());
        client.send(json!({"do": "offline"}));
        publish_numbers(&server, 10..14);
        client.send(json!({"do": "online"}));
        expect_numbers(&mut client, 10..14);
        // A burst comes as an array.
        let burst: Vec<_> = (14..40).map(|n| json!({"userList": [7], "body": event(n)})).collect();
        publish_all(server.address(), &burst);
        expect_numbers(&mut client, 14..40);
        // The death of the server.
        let server = server.crash_and_restart();
        publish_numbers(&server, 40..44);
        expect_numbers(&mut client, 40..44);
        no_duplicates(&mut client);
        client.stop();
    });
}

#[test]
fn j_029_a_real_client_sees_its_additions_in_params() {
    for_each_way(|kind, transport| {
        let server = TestServer::start();
        let mut client = Client::start(kind, &portal(&server, transport, &my_token()));
        until_online(&server);
        publish(
            server.address(),
            &json!({
                "userList": [7],
                "body": {"module_id": "im", "command": "test", "params": []},
                "user_params": {"7": {"counter": 3}, "8": {"counter": 4}},
                "dictionary": {"name": "Ann"},
            }),
        );
        let message = client.expect_named("message");
        assert_eq!(message["params"], json!({"counter": 3, "name": "Ann"}));
        client.stop();
    });
}

#[test]
fn j_091_j_116_j_101_a_real_client_publishes_watches_and_asks() {
    if !slow() {
        return;
    }
    for kind in [Kind::Node, Kind::Chromium] {
        let server = TestServer::with(&["timing.presence_grace=1s"]);
        let mut client = Client::start(kind, &portal(&server, Transport::WebSocket, &my_token()));
        until_online(&server);
        let mut other = RpcClient::connect(server.address(), &token(8, &[]));
        client.send(json!({"do": "publish", "to": [8], "module_id": "im", "command": "typing",
                           "params": {"chat": 5}, "expiry": 60}));
        let message = other.message();
        assert_eq!(message["body"]["command"], "typing");
        assert_eq!(message["sender"], json!({"type": 1, "id": "7"}));
        other.result("publish", &json!({"userList": [7], "body": event(1)}));
        let message = client.expect_named("message");
        assert_eq!((&message["from"], &message["params"]["n"]), (&json!("client"), &json!(1)));

        client.send(json!({"do": "watch-status", "user": 8}));
        drop(other);
        let gone = client.expect_named("user-status");
        assert_eq!(
            (gone["userId"].to_string().trim_matches('"'), &gone["isOnline"]),
            ("8", &json!(false)),
            "{gone}"
        );
        let _other = RpcClient::connect(server.address(), &token(8, &[]));
        let back = client.expect_named("user-status");
        assert_eq!(back["isOnline"], true, "{back}");
        client.send(json!({"do": "ping", "timeout_s": 5}));
        let channels = client.send(json!({"do": "list-channels"}));
        assert!(
            channels.to_string().contains(&Pair::new(SHARED).private.to_string()),
            "{channels}"
        );
        client.stop();
    }
}

#[test]
fn k_061_a_real_client_stays_connected_through_silence() {
    if !slow() {
        return;
    }
    for kind in [Kind::Node, Kind::Chromium] {
        // Its watchdog ends the connection 20 s after a ping without another.
        let server = TestServer::with(&["timing.text_silence=15s"]);
        let mut client = Client::start(kind, &portal(&server, Transport::WebSocket, &my_token()));
        until_online(&server);
        let since = now_s();
        while now_s() < since + 45 {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        assert!(client.not_taken().iter().all(|event| event["event"] != "closed"), "{kind:?}");
        publish_numbers(&server, 0..1);
        expect_numbers(&mut client, 0..1);
        client.stop();
    }
}

#[test]
fn k_046_k_041_a_real_client_closed_with_4010_fetches_its_configuration_and_comes_back() {
    if !slow() {
        return;
    }
    for kind in [Kind::Node, Kind::Chromium] {
        let server = TestServer::start();
        let expired = token_of(json!({"sub": "7", "exp": now_s() - 100}));
        let mut client = Client::start(kind, &portal(&server, Transport::WebSocket, &expired));
        assert_eq!(client.expect_named("closed")["code"], 4010, "{kind:?}");
        let next = portal(&server, Transport::WebSocket, &my_token());
        client.send(json!({"do": "configure", "settings": next}));
        // 6 to 35 s later.
        until_online(&server);
        publish_numbers(&server, 0..2);
        expect_numbers(&mut client, 0..2);
        client.stop();
    }
}

#[test]
fn k_031_a_real_client_keeps_its_place_when_its_portal_moves_from_generation_4_to_5() {
    if !slow() {
        return;
    }
    for kind in [Kind::Node, Kind::Chromium] {
        let server = TestServer::start();
        let mut four = portal(&server, Transport::WebSocket, "");
        four["server"]["version"] = json!(4);
        four.as_object_mut().expect("settings").remove("jwt");
        let mut client = Client::start(kind, &four);
        until("the client is online", || {
            let target = format!("/bitrix/pub/?CHANNEL_ID={}", Pair::new(7).private);
            raw::get(server.address(), &target).text().contains("subscribers")
        });
        publish_numbers(&server, 0..2);
        expect_numbers(&mut client, 0..2);
        client.send(json!({"do": "offline"}));
        publish_numbers(&server, 2..6);
        let five = portal(&server, Transport::WebSocket, &my_token());
        client.send(json!({"do": "configure", "settings": five}));
        let expire = json!({"module_id": "pull", "command": "config_expire", "params": {}});
        publish(
            server.address(),
            &json!({
                "userList": [7], "channelList": [Pair::new(7).private.to_string()], "body": expire,
            }),
        );
        client.send(json!({"do": "online"}));
        expect_numbers(&mut client, 2..6);
        client.expect(|event| {
            event["event"] == "url" && event["url"].to_string().contains("jsonRpc=true")
        });
        until_online(&server);
        publish_numbers(&server, 6..8);
        expect_numbers(&mut client, 6..8);
        no_duplicates(&mut client);
        client.stop();
    }
}

#[test]
fn j_080_a_real_client_that_polls_posts_its_acknowledgements_and_batches() {
    if !slow() {
        return;
    }
    for kind in [Kind::Node, Kind::Chromium] {
        let server = TestServer::start();
        let mut settings = portal(&server, Transport::LongPolling, &my_token());
        settings["frames"] = json!(true);
        let mut client = Client::start(kind, &settings);
        until_online(&server);
        publish_numbers(&server, 0..1);
        expect_numbers(&mut client, 0..1);
        client.expect(|it| it["event"] == "sent" && it["text"].to_string().contains("mack:"));
        let posted = client.expect(|it| it["event"] == "answered" && it["method"] == "POST");
        assert_eq!(posted["status"], 200, "{posted}");
        let query = format!("CHANNEL_ID={}", Pair::new(8).signed());
        let mut other = crate::websocket::Subscriber::open(server.address(), &query);
        let channel = Pair::new(8).public_signed();
        client.send(json!({"do": "batch", "messages": [
            {"channelList": [channel], "body": event(7), "expiry": 0},
            {"channelList": [channel], "body": event(8), "expiry": 0},
        ]}));
        assert_eq!([other.next_text(), other.next_text()], [event(7), event(8)]);
        client.stop();
    }
}

#[test]
fn compressed_connections_carry_json_rpc_too() {
    if !slow() {
        return;
    }
    let server = TestServer::with(&["server.compression=true"]);
    let portal = portal(&server, Transport::WebSocket, &my_token());
    let mut client = Client::start(Kind::Chromium, &portal);
    let open = client.expect_named("open");
    assert!(open["extensions"].to_string().contains("permessage-deflate"), "{open}");
    until_online(&server);
    let mut body = event(1);
    body["params"]["text"] = json!("again and again ".repeat(100));
    publish_all(
        server.address(),
        &[
            json!({"userList": [7], "body": body, "user_params": {"7": {"mine": 1}}}),
            json!({"userList": [7], "body": body}),
        ],
    );
    assert_eq!(client.expect_named("message")["params"]["mine"], 1);
    assert_eq!(client.expect_named("message")["params"]["mine"], serde_json::Value::Null);
    client.stop();
}
