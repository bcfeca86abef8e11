//! The unmodified pull client of the SDK, in Node and in headless Chromium, against the server.

use serde_json::{Value, json};

use crate::clients::{Client, Kind, Transport, settings, slow};
use crate::portal;
use crate::raw::{self, publish};
use crate::server::TestServer;
use crate::sign::Pair;

/// Every way in which generations 3 and 4 reach a real client.
const WAYS: [(Kind, u8, Transport); 8] = [
    (Kind::Node, 3, Transport::WebSocket),
    (Kind::Node, 4, Transport::WebSocket),
    (Kind::Node, 3, Transport::LongPolling),
    (Kind::Node, 4, Transport::LongPolling),
    (Kind::Chromium, 3, Transport::WebSocket),
    (Kind::Chromium, 4, Transport::WebSocket),
    (Kind::Chromium, 3, Transport::LongPolling),
    (Kind::Chromium, 4, Transport::LongPolling),
];

const ME: u64 = 7;
const OTHER: u64 = 8;
const SHARED: u64 = 99;

/// Settings of user 7, with the configuration that the portal of a site would give.
fn portal(server: &TestServer, version: u8, transport: Transport) -> Value {
    let address = server.address();
    let mut configuration =
        portal::configuration(address, version, ME, Pair::new(SHARED), &[OTHER]);
    let channels = configuration["channels"].take();
    let mut settings = settings(version, &address.to_string(), transport, &channels);
    // The driver dates channels itself: those of the generator are fixed.
    for channel in ["shared", "private"] {
        for date in ["start", "end"] {
            settings["channels"][channel].as_object_mut().expect("a channel").remove(date);
        }
    }
    if version >= 4 {
        let other = &configuration["publicChannels"]["8"];
        settings["publicChannels"] = json!({"8": {
            "user_id": 8, "public_id": other["public_id"], "signature": other["signature"],
        }});
    }
    settings
}

fn event(number: u64) -> String {
    json!({"module_id": "im", "command": "test", "params": {"n": number}}).to_string()
}

/// Waits until somebody listens to the private channel of user 7.
fn until_online(server: &TestServer) {
    let target = format!("/bitrix/pub/?CHANNEL_ID={}", Pair::new(ME).private);
    for _ in 0..3000 {
        if raw::get(server.address(), &target).text().contains("subscribers") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the client never came online");
}

fn number(message: &Value) -> u64 {
    message["params"]["n"].as_u64().expect("a number")
}

/// Publishes to the channel of user 7 and to the shared one in turn, kept for an hour.
fn publish_numbers(server: &TestServer, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let channel = Pair::new(if n % 2 == 0 { ME } else { SHARED }).private;
        let answer = publish(server.address(), &channel.to_string(), 3600, &event(n));
        assert_eq!(answer.status, 200);
    }
}

fn expect_numbers(client: &mut Client, numbers: std::ops::Range<u64>) {
    let received: Vec<u64> =
        numbers.clone().map(|_| number(&client.expect_named("message"))).collect();
    assert_eq!(received, numbers.collect::<Vec<_>>(), "in order, once each");
}

fn no_duplicates(client: &mut Client) {
    let left = client.not_taken();
    assert!(left.iter().all(|event| event["event"] != "message"), "{left:?}");
    assert!(!left.iter().any(|event| event.to_string().contains("Duplicate")), "{left:?}");
}

/// Runs one story for every way; a failure names the way.
#[expect(clippy::print_stdout, reason = "shown by the test runner with a failure")]
fn for_each_way(story: impl Fn(Kind, u8, Transport)) {
    if !slow() {
        return;
    }
    for (kind, version, transport) in WAYS {
        println!("{kind:?}, generation {version}, {transport:?}");
        story(kind, version, transport);
    }
}

#[test]
fn k_090_k_091_a_real_client_gets_events_of_its_channel_and_of_the_shared_one() {
    for_each_way(|kind, version, transport| {
        let server = TestServer::start();
        let mut client = Client::start(kind, &portal(&server, version, transport));
        let url = client.expect_named("url")["url"].to_string();
        assert_eq!(url.contains("binaryMode=true"), version == 4, "{url}");
        until_online(&server);
        publish_numbers(&server, 0..10);
        expect_numbers(&mut client, 0..10);
        assert!(client.mid().is_some());
        no_duplicates(&mut client);
        client.stop();
    });
}

#[test]
fn k_030_a_real_client_that_was_away_gets_exactly_what_it_missed() {
    for_each_way(|kind, version, transport| {
        let server = TestServer::start();
        let mut client = Client::start(kind, &portal(&server, version, transport));
        until_online(&server);
        publish_numbers(&server, 0..2);
        expect_numbers(&mut client, 0..2);
        client.send(json!({"do": "offline"}));
        publish_numbers(&server, 2..6);
        client.send(json!({"do": "online"}));
        expect_numbers(&mut client, 2..6);
        publish_numbers(&server, 6..8);
        expect_numbers(&mut client, 6..8);
        no_duplicates(&mut client);
        client.stop();
    });
}

#[test]
fn k_090_a_real_client_survives_the_death_of_the_server_without_a_loss() {
    for_each_way(|kind, version, transport| {
        let server = TestServer::start();
        let mut client = Client::start(kind, &portal(&server, version, transport));
        until_online(&server);
        publish_numbers(&server, 0..2);
        expect_numbers(&mut client, 0..2);
        let server = server.crash_and_restart();
        // Nobody is there yet: these wait for the client in the history.
        publish_numbers(&server, 2..5);
        expect_numbers(&mut client, 2..5);
        let server = server.stop_and_restart();
        publish_numbers(&server, 5..7);
        expect_numbers(&mut client, 5..7);
        no_duplicates(&mut client);
        client.stop();
    });
}

#[test]
fn q_073_k_024_a_real_client_publishes_to_another_users_public_channel() {
    for_each_way(|kind, version, transport| {
        if version < 4 {
            // Generation 3 has no publishing by clients: the SDK itself refuses.
            return;
        }
        let server = TestServer::start();
        let mut client = Client::start(kind, &portal(&server, version, transport));
        until_online(&server);
        let query = format!("CHANNEL_ID={}", Pair::new(OTHER).signed());
        let mut other = crate::websocket::Subscriber::open(server.address(), &query);
        client.send(json!({"do": "publish", "to": [8], "module_id": "im", "command": "typing",
                           "params": {"chat": 5}, "expiry": 60}));
        let text = other.next_text();
        assert_eq!(text["command"], "typing");
        assert_eq!(text["params"]["chat"], 5);
        client.stop();
    });
}

#[test]
fn k_050_system_commands_reach_real_clients_unchanged_and_they_come_back_with_their_position() {
    for_each_way(|kind, version, transport| {
        let server = TestServer::start();
        let mut client = Client::start(kind, &portal(&server, version, transport));
        until_online(&server);
        publish_numbers(&server, 0..2);
        expect_numbers(&mut client, 0..2);
        let me = Pair::new(ME).private.to_string();
        let expire = r#"{"module_id":"pull","command":"config_expire","params":{}}"#;
        assert_eq!(publish(server.address(), &me, 3600, expire).status, 200);
        client.expect(|event| event["event"] == "rest");
        publish_numbers(&server, 2..4);
        expect_numbers(&mut client, 2..4);
        no_duplicates(&mut client);
        client.stop();
    });
}

#[test]
fn w_040_real_clients_read_compressed_events_where_compression_is_switched_on() {
    for_each_way(|kind, version, transport| {
        if transport == Transport::LongPolling {
            return;
        }
        let server = TestServer::with(&["server.compression=true"]);
        let mut client = Client::start(kind, &portal(&server, version, transport));
        let open = client.expect_named("open");
        assert!(open["extensions"].to_string().contains("permessage-deflate"), "{open}");
        until_online(&server);
        let me = Pair::new(ME).private.to_string();
        for n in 0..20 {
            // Long and repetitive, so that it is worth it; every third too short.
            let filler = if n % 3 == 0 { String::new() } else { "событие ".repeat(200) };
            let event = json!({"module_id": "im", "command": "test",
                               "params": {"n": n, "filler": filler}});
            assert_eq!(publish(server.address(), &me, 60, &event.to_string()).status, 200);
        }
        for n in 0..20 {
            let message = client.expect_named("message");
            assert_eq!(number(&message), n);
            let filler = message["params"]["filler"].as_str().expect("a text");
            assert_eq!(filler.is_empty(), n % 3 == 0);
        }
        no_duplicates(&mut client);
        if version >= 4 {
            // What the client sends is compressed too, if its library finds it worth while.
            let query = format!("CHANNEL_ID={}", Pair::new(OTHER).signed());
            let mut other = crate::websocket::Subscriber::open(server.address(), &query);
            let text = "сообщение ".repeat(300);
            client.send(json!({"do": "publish", "to": [8], "module_id": "im", "command": "say",
                               "params": {"text": text}}));
            assert_eq!(other.next_text()["params"]["text"], text);
        }
        client.stop();
    });
}
