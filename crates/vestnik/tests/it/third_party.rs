//! Requests of clients as they really send them: the built-in ones in every spelling
//! (clients.md §3) and those of third parties (clients.md §15), replayed as raw bytes.

use serde_json::json;

use crate::long_poll::{store, wait_for_metric};
use crate::raw::{self, Connection, events, publish};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::handshake;
use crate::wire::{RawSocket, client_frame};

/// A private channel with its public one, and a shared channel: what a site hands out.
struct Site {
    server: TestServer,
    private: Pair,
    shared: Pair,
}

impl Site {
    fn start() -> Self {
        Self { server: TestServer::start(), private: Pair::new(1), shared: Pair::new(2) }
    }

    fn publish(&self, to: Pair, body: &str) {
        let channel = to.private.to_string();
        assert_eq!(publish(self.server.address(), &channel, 0, body).status, 200);
    }

    /// Connects with this target, and shows that messages of `channels` arrive by it, as a socket
    /// and as a poll.
    fn serves(&self, target: &str, channels: &[Pair]) {
        let mut connection = Connection::open(self.server.address());
        connection.send(handshake(target));
        let mut socket = RawSocket::upgraded(connection);
        for (number, to) in (0..).zip(channels) {
            self.publish(*to, &format!(r#"{{"n":{number}}}"#));
            let frame = socket.next_data();
            let wanted = format!(r#"{{"n":{number}}}"#);
            assert!(raw::find(&frame.payload, wanted.as_bytes()).is_some(), "{target}: {frame:?}");
        }
        socket.hang_up();
        for to in channels {
            let mut poll = Connection::open(self.server.address());
            poll.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            wait_for_metric(self.server.address(), "vestnik_connections_polling", 1);
            self.publish(*to, r#"{"n":9}"#);
            let answer = poll.answer();
            assert_eq!(answer.status, 200, "{target}: {answer:?}");
            assert!(raw::find(&answer.body, br#"{"n":9}"#).is_some(), "{target}: {answer:?}");
        }
    }
}

#[test]
fn k_001_k_002_k_003_k_007_parameters_are_taken_in_any_order_and_spelling() {
    let site = Site::start();
    let (private, shared) = (site.private.signed(), site.shared.private_signed());
    let encoded = |text: &str| text.replace(':', "%3A").replace('/', "%2F");
    let both = [site.private, site.shared];
    for (query, channels) in [
        (format!("CHANNEL_ID={private}/{shared}&revision=19"), &both[..]),
        (format!("CHANNEL_ID={shared}/{private}"), &both),
        (format!("CHANNEL_ID={}&revision=19", encoded(&format!("{private}/{shared}"))), &both),
        (format!("revision=19&CHANNEL_ID={}%2f{shared}", encoded(&private)), &both),
        (format!("CHANNEL_ID={private}"), &both[..1]),
        (format!("CHANNEL_ID={shared}"), &both[1..]),
        (format!("CHANNEL_ID={private}&binaryMode=true&revision=19"), &both[..1]),
        (format!("binaryMode=true&x=&=&&y&CHANNEL_ID={private}"), &both[..1]),
        (
            format!(
                "CHANNEL_ID={private}&clientId=unknown&revision=999&rnd=1700000000000&format=xml\
                 &tag=122&time=Thu%2C%2001%20Jan%202026%2000%3A00%3A02%20GMT&hostname=portal.test"
            ),
            &both[..1],
        ),
    ] {
        for path in ["/bitrix/subws/", "/bitrix/sub/"] {
            site.serves(&format!("{path}?{query}"), channels);
        }
    }
}

#[test]
fn k_004_a_time_with_raw_spaces_and_commas_is_tolerated() {
    let site = Site::start();
    let time = "time=Thu, 01 Jan 2026 00:00:02 GMT";
    let channels = site.private.signed();
    for query in
        [format!("CHANNEL_ID={channels}&tag=122&{time}"), format!("{time}&CHANNEL_ID={channels}")]
    {
        site.serves(&format!("/bitrix/subws/?{query}"), &[site.private]);
    }
}

#[test]
fn k_006_both_paths_serve_both_ways_with_and_without_the_prefix() {
    let site = Site::start();
    for path in ["/bitrix/subws/", "/bitrix/sub/", "/subws/", "/sub/"] {
        site.serves(&format!("{path}?CHANNEL_ID={}", site.private.signed()), &[site.private]);
    }
}

#[test]
fn k_092_the_vendors_recipe_and_the_messenger_proxy_get_json() {
    let site = Site::start();
    let (private, shared) = (site.private.signed(), site.shared.private_signed());
    let both = [site.private, site.shared];
    for query in [
        format!("CHANNEL_ID={private}/{shared}&format=json&clientId=eee"),
        format!(
            "CHANNEL_ID={}%2F{shared}&format=json&clientId=eee&revision=19",
            private.replace(':', "%3A")
        ),
    ] {
        site.serves(&format!("/bitrix/subws/?{query}"), &both);
        let mut socket = RawSocket::open(site.server.address(), &query);
        site.publish(site.shared, r#"{"module_id":"im","command":"x"}"#);
        let array: serde_json::Value =
            serde_json::from_slice(&socket.next_data().payload).expect("an array");
        assert_eq!(array[0]["text"], json!({"module_id": "im", "command": "x"}));
    }
}

#[test]
fn k_092_k_012_a_json_string_of_awz_pull_arrives_as_one() {
    let site = Site::start();
    let channels = format!("CHANNEL_ID={}", site.private.private_signed());
    let mut socket = RawSocket::open(site.server.address(), &channels);
    let body = r#""eyJjb21tYW5kIjoieCJ9""#;
    let target = format!("/pub/?CHANNEL_ID={}", site.private.private_signed());
    let answer = raw::post(
        site.server.address(),
        &target,
        &["Message-Expiry: 60", "Content-Type: application/json"],
        body.as_bytes(),
    );
    assert_eq!(answer.status, 200);
    let frame = String::from_utf8(socket.next_data().payload).expect("text");
    assert_eq!(events(&frame)[0]["text"], json!("eyJjb21tYW5kIjoieCJ9"));
}

#[test]
fn k_092_k_013_a_greedy_reader_of_the_shared_channel_gets_one_event_per_frame() {
    let site = Site::start();
    let first = store(site.server.address(), site.shared, 1);
    for number in 2..=5 {
        store(site.server.address(), site.shared, number);
    }
    let query = format!("CHANNEL_ID={}&clientId=x&mid={first}", site.shared.private_signed());
    let mut socket = RawSocket::open(site.server.address(), &query);
    for number in 2..=5 {
        let frame = String::from_utf8(socket.next_data().payload).expect("text");
        assert!(frame.starts_with("#!NGINXNMS!#{") && frame.ends_with("}#!NGINXNME!#"));
        let events = events(&frame);
        assert_eq!((events.len(), &events[0]["text"]["n"]), (1, &json!(number)));
    }
}

#[test]
fn k_092_k_005_k_025_the_desktop_client_with_its_own_ideas_is_served() {
    let site = Site::start();
    let query = format!(
        "CHANNEL_ID={}&user_id=7&site_id=s1&hostname=portal.test&timestamp=1700000000&version=4\
         &mode=personal&binary=true&format=json&revision=19",
        site.private.private_signed()
    );
    let request = handshake(&format!("/bitrix/subws/?{query}"))
        .replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: binary\r\n\r\n");
    let mut connection = Connection::open(site.server.address());
    connection.send(request);
    let answer = connection.answer();
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, None));
    let (mut stream, _) = connection.into_parts();
    for text in ["subscribe", "ping", "ack", "publish"] {
        let frame = client_frame(0x81, format!(r#"{{"type":"{text}"}}"#).as_bytes());
        std::io::Write::write_all(&mut stream, &frame).expect("the server reads");
    }
    std::io::Write::write_all(&mut stream, &client_frame(0x89, b"30s")).expect("it reads");
    let mut pong = [0; 5];
    std::io::Read::read_exact(&mut stream, &mut pong).expect("a pong");
    assert_eq!(&pong, b"\x8a\x0330s");
}

#[test]
fn k_092_q_011_web_shops_with_bare_ids_are_served_where_that_is_allowed() {
    let server = TestServer::with(&["security.unsigned=true"]);
    let [one, two] = [Pair::new(1), Pair::new(2)];
    let site = Site { server, private: one, shared: two };
    let target =
        format!("/bitrix/sub/?CHANNEL_ID={}/{}&tag=1&rnd=1700000000000", one.private, two.private);
    site.serves(&target, &[one, two]);
}
