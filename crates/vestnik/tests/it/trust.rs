//! Trusted routes: who may publish, ask for presence and read statistics (README D15).

use crate::observe::metric;
use crate::raw::{self, Answer};
use crate::server::TestServer;
use crate::sign::{KEY, Pair};
use crate::websocket::Subscriber;

const PROXIED: &str = "X-Forwarded-For: 203.0.113.9";

fn get(server: &TestServer, target: &str, header: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\n{header}\r\n\r\n");
    raw::exchange(server.address(), head)
}

fn assert_untrusted(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.text()), (403, ""), "{what}");
    assert_eq!(answer.header("content-type"), Some("text/plain"), "{what}");
}

#[test]
fn w_022_a_proxy_that_forwards_trusted_routes_by_mistake_opens_nothing() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let publish = format!("/bitrix/pub/?CHANNEL_ID={}", pair.private);
    let binary = "/pub/?binaryMode=true";
    for target in [&*publish, binary] {
        let answer = raw::post(server.address(), target, &[PROXIED], br#"{"forged":1}"#);
        assert_untrusted(&answer, target);
    }
    for target in [&*publish, "/server-stat/", "/metrics"] {
        assert_untrusted(&get(&server, target, PROXIED), target);
    }
    assert_eq!(metric(server.address(), "vestnik_refused_untrusted_total"), 5);
    // What the site itself sends arrives, and nothing of the above before it.
    raw::publish(server.address(), &pair.private.to_string(), 0, r#"{"genuine":1}"#);
    assert_eq!(socket.next_text()["genuine"], 1);
    // Subscribers need no trust.
    let target =
        format!("/sub/?CHANNEL_ID={}&mid=00000000000000000000000000", pair.private_signed());
    raw::publish(server.address(), &pair.private.to_string(), 60, "{}");
    assert_eq!(get(&server, &target, PROXIED).status, 200);
    assert_eq!(get(&server, "/healthz", PROXIED).text(), "ok\n");
}

#[test]
fn w_022_addresses_outside_the_list_are_refused_and_the_connection_goes_on() {
    let server = TestServer::with(&["trusted.allow=192.0.2.0/24", "trusted.proxies="]);
    let mut connection = raw::Connection::open(server.address());
    for _ in 0..2 {
        connection.send(raw::post_bytes("/pub/?CHANNEL_ID=1", &[], &[b'x'; 100_000]));
        assert_untrusted(&connection.answer(), "the same connection, also after a body");
    }
}

#[test]
fn w_027_forwarded_addresses_count_only_from_configured_proxies() {
    // Nobody is a proxy: the header is noise, in both directions.
    let server = TestServer::with(&["trusted.proxies="]);
    assert_eq!(get(&server, "/server-stat/", PROXIED).status, 200);
    let server = TestServer::with(&["trusted.allow=203.0.113.0/24", "trusted.proxies="]);
    assert_untrusted(&get(&server, "/server-stat/", PROXIED), "claimed, but not from a proxy");
    // Networks are compared as networks, and the rightmost foreign entry counts.
    let server = TestServer::with(&["trusted.allow=203.0.113.0/24"]);
    for (header, status) in [
        ("X-Forwarded-For: 203.0.113.77", 200),
        ("X-Forwarded-For: 203.0.114.1", 403),
        ("X-Forwarded-For: 203.0.113.1, 198.51.100.1", 403),
        ("X-Forwarded-For: 198.51.100.1, 203.0.113.1, 127.0.0.1", 200),
        ("X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 198.51.100.1", 403),
        ("X-Forwarded-For: 203.0.113.1, unknown", 403),
        ("X-Forwarded-For: \u{fffd}", 403),
        ("X-Forwarded-For: ", 403),
        ("X-Other: 203.0.113.1", 403),
    ] {
        assert_eq!(get(&server, "/server-stat/", header).status, status, "{header}");
    }
}

#[test]
fn q_186_a_secret_in_the_path_opens_publishing_without_a_change_in_php() {
    let server =
        TestServer::with(&["trusted.allow=192.0.2.1", "trusted.path_secret=0123456789abcdef-X"]);
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let post = |path: &str| {
        let target = format!("{path}?CHANNEL_ID={}", pair.private);
        raw::post(server.address(), &target, &[], path.as_bytes())
    };
    for wrong in [
        "",
        "0123456789abcdef-x/",
        "0123456789abcdef-/",
        "0123456789abcdef-XX/",
        "x/0123456789abcdef-X/",
    ] {
        assert_untrusted(&post(&format!("/bitrix/pub/{wrong}")), wrong);
    }
    assert_eq!(post("/bitrix/pub/0123456789abcdef-X/").status, 200);
    assert_eq!(socket.next_text(), "/bitrix/pub/0123456789abcdef-X/");
    let target = format!("/pub/0123456789abcdef-X/?CHANNEL_ID={}", pair.private);
    assert!(raw::get(server.address(), &target).text().contains("subscribers"));
    assert_untrusted(&raw::get(server.address(), "/server-stat/"), "the secret is for publishing");
}

#[test]
fn q_186_trust_can_be_bound_to_addresses() {
    let server = TestServer::with(&["trusted.allow=127.0.0.0/8"]);
    assert_eq!(raw::get(server.address(), "/server-stat/").status, 200);
    let server = TestServer::with(&["trusted.allow=127.0.0.2"]);
    assert_untrusted(&raw::get(server.address(), "/server-stat/"), "127.0.0.1 is not on the list");
}

/// A signed id opens a subscription for whoever has it, for as long as the key lives: every client
/// reconnects with the id it was given, so that is kept. What is absent is the leak: neither ids nor
/// signatures, secrets or messages are written to the log, at its most talkative level.
#[test]
fn q_193_w_024_the_log_shows_no_ids_signatures_secrets_or_bodies() {
    let secret = "0123456789abcdef-X";
    let server = TestServer::with(&[
        "log.level=trace",
        "timing.poll=1s",
        &format!("trusted.path_secret={secret}"),
    ]);
    let address = server.address();
    let pair = Pair::new(0x1234_5678_9abc_def0);
    let body = "a very private message";
    {
        let mut socket = Subscriber::open(address, &format!("CHANNEL_ID={}", pair.signed()));
        raw::publish(address, &pair.private.to_string(), 60, body);
        assert_eq!(socket.next_text(), body);
        Subscriber::open(address, &format!("CHANNEL_ID={}&binaryMode=true", pair.signed()))
            .send(tungstenite::Message::Text("no protobuf".into()));
    }
    let signed = pair.signed();
    for target in [
        // Refused in many ways, each of which is logged.
        format!("/sub/?CHANNEL_ID={signed}/"),
        format!("/sub/{secret}?CHANNEL_ID={signed}x"),
        format!("/sub/?CHANNEL_ID={}", signed.to_uppercase()),
        format!("/sub/?token={signed}"),
        format!("/sub/?CHANNEL_ID={}", signed.replace(':', "%3A")),
        format!("/pub/{secret}x/?CHANNEL_ID={signed}x"),
        format!("/{secret}/?CHANNEL_ID={signed}"),
    ] {
        get(&server, &target, PROXIED);
        raw::post(address, &target, &[PROXIED], body.as_bytes());
        raw::post(address, &target, &[], body.as_bytes());
        let mut socket = raw::Connection::open(address);
        socket.send(crate::websocket::handshake(&target));
        socket.answer();
    }
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(log.contains("subscription refused") && log.contains("trusted route refused"), "{log}");
    let ids = [pair.private.to_string(), pair.public.to_string(), crate::sign::sign("x")];
    let signature = signed.rsplit('.').next().expect("a signature").to_owned();
    for hidden in [&ids[0], &ids[1], &signature, secret, body, KEY] {
        assert!(!log.to_lowercase().contains(&hidden.to_lowercase()), "{hidden} in\n{log}");
    }
    assert!(!log.contains(&signature[..12]) && !log.contains(&ids[0][..12]), "{log}");
}

/// Refused callers could otherwise fill the disk with warnings.
#[test]
fn w_028_callers_without_trust_cannot_flood_the_log() {
    let server = TestServer::start();
    for _ in 0..20 {
        assert_untrusted(&get(&server, "/server-stat/", PROXIED), "refused");
        let answer = raw::post(server.address(), "/rest/?CHANNEL_ID=x", &[], b"");
        assert_eq!(answer.status, 400);
    }
    assert_eq!(metric(server.address(), "vestnik_refused_untrusted_total"), 20);
    assert_eq!(metric(server.address(), "vestnik_refused_publishes_total"), 20);
    server.signal("TERM");
    let (_, log) = server.wait();
    assert_eq!(log.matches("refused").count(), 1, "{log}");
}
