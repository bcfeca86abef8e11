//! More than the server was told to take: rates of an address, memory, open files.

use std::io::Write as _;
use std::process::Command;

use crate::observe::{metric, until};
use crate::raw::{self, Answer, Connection};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;

/// Part of the path that admits publishers.
const KEY_SECRET: &str = "a-secret-of-the-path";
const STRANGER: &str = "X-Forwarded-For: 203.0.113.9";

/// Asks until it is refused with `status`; how often it was not.
fn asks_until(status: u16, mut ask: impl FnMut() -> Answer) -> usize {
    (0..1000).position(|_| ask().status == status).expect("there is a limit")
}

#[test]
fn w_028_an_address_that_publishes_too_fast_is_refused_and_others_are_not() {
    let secret = format!("trusted.path_secret={KEY_SECRET}");
    let server = TestServer::with(&["limits.publishes_per_second=1", &secret]);
    let address = server.address();
    let pair = Pair::new(1);
    let site = format!("/bitrix/pub/{KEY_SECRET}/?CHANNEL_ID={}", pair.private);
    let refused = asks_until(429, || raw::post(address, &site, &[STRANGER], b"{}"));
    assert!(refused >= 10, "ten seconds' worth at once, got {refused}");
    let answer = raw::post(address, "/bitrix/api/", &[STRANGER], b"{}");
    assert_eq!(answer.status, 503, "PHP sends it again");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let client = format!("/rest/?CHANNEL_ID={}", pair.signed());
    assert_eq!(raw::post(address, &client, &[STRANGER], b"{}").status, 429);
    // The site itself, and another stranger.
    for _ in 0..50 {
        assert_eq!(raw::publish(address, &pair.private.to_string(), 0, "{}").status, 200);
    }
    let other = raw::post(address, &site, &["X-Forwarded-For: 203.0.113.10"], b"{}");
    assert_eq!(other.status, 200);
    assert!(metric(address, "vestnik_rate_limited_publishes_total") >= 3);
}

#[test]
fn w_028_an_address_that_subscribes_too_often_is_refused_like_one_with_too_many_connections() {
    let server = TestServer::with(&["limits.subscriptions_per_second=1"]);
    let address = server.address();
    let pair = Pair::new(1);
    raw::publish(address, &pair.private.to_string(), 60, "{}");
    let target =
        format!("/sub/?CHANNEL_ID={}&mid=00000000000000000000000000", pair.private_signed());
    let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n{STRANGER}\r\n\r\n");
    let refused = asks_until(429, || raw::exchange(address, &request));
    assert!(refused >= 10, "ten seconds' worth at once, got {refused}");
    assert!(metric(address, "vestnik_rate_limited_subscriptions_total") >= 1);
    // Trusted addresses are not limited.
    for _ in 0..50 {
        assert_eq!(raw::get(address, &target).status, 200);
    }
}

#[test]
fn full_memory_refuses_what_is_new_in_order_and_is_over_by_itself() {
    let server = TestServer::with(&["limits.memory=64MiB", "history.engine=memory"]);
    let address = server.address();
    let pair = Pair::new(1);
    let query = format!("CHANNEL_ID={}", pair.private_signed());
    let mut subscriber = Subscriber::open(address, &query);
    let to = format!("/pub/?CHANNEL_ID={}", Pair::new(2).private);
    let body = vec![b'x'; 1 << 20];
    let kept = asks_until(503, || raw::post(address, &to, &["Message-Expiry: 3600"], &body));
    assert!(kept > 10, "{kept}");
    // It may be over any moment; what matters is that it was refused and is counted.
    let refused = Subscriber::try_open(address, &query).err();
    if metric(address, "vestnik_memory_full") == 1 {
        assert_eq!(refused.map(|answer| answer.status), Some(503));
        assert_eq!(raw::get(address, &format!("/sub/?{query}")).status, 503);
        assert_eq!(raw::get(address, "/healthz").text(), "full\n");
    }
    assert!(metric(address, "vestnik_refused_for_memory_total") >= 1);
    until("memory is enough again", || metric(address, "vestnik_memory_full") == 0);
    assert_eq!(raw::get(address, "/healthz").text(), "ok\n");
    assert!(metric(address, "vestnik_history_evicted_messages_total") >= 1);
    raw::publish(address, &pair.private.to_string(), 0, r#"{"number":1}"#);
    assert_eq!(subscriber.next_text()["number"], 1, "who was there still is");
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success());
    assert_eq!(log.matches("memory is full").count(), log.matches("memory is enough").count());
    assert!(!log.contains("publish not stored"), "said once, not for every message");
}

/// The largest body that a site may send is 16 MiB.
const LARGE: usize = 15 << 20;

/// Sends all of a large request but its last byte; how far it comes is up to the server.
fn burst(address: std::net::SocketAddr, target: &str, headers: &[&str], body: &[u8]) -> Connection {
    let request = raw::post_bytes(target, headers, body);
    let mut connection = Connection::open(address);
    // It may be answered, and cut off, before all of it is sent.
    let _ = connection.stream().write_all(&request[..request.len() - 1]);
    connection
}

#[test]
fn bodies_of_strangers_share_a_part_of_memory_and_the_site_gets_through() {
    let server = TestServer::with(&["limits.memory=256MiB"]);
    let address = server.address();
    let body = vec![b'x'; LARGE];
    let signature = "0".repeat(40);
    let target = format!("/bitrix/api/?hostId=x&signature={signature}");
    // A quarter of the memory holds four of them.
    let mut held: Vec<_> = (0..10).map(|_| burst(address, &target, &[STRANGER], &body)).collect();
    until("those beyond the budget are refused", || {
        metric(address, "vestnik_refused_for_memory_total") == 6
    });
    for connection in &mut held {
        let _ = connection.stream().set_read_timeout(Some(std::time::Duration::from_millis(300)));
    }
    // They are heard out for a moment first.
    let mut told = None;
    until("who is still there is told so", || {
        told = held.iter_mut().find_map(|it| it.try_answer().ok());
        told.is_some()
    });
    let told = told.expect("an answer");
    assert_eq!((told.status, told.header("retry-after")), (503, Some("1")));
    assert_eq!(metric(address, "vestnik_memory_full"), 0);
    // The site sends as large ones beside them; its signature is as wrong, which it is told.
    assert_eq!(raw::post(address, &target, &[], &body).status, 403);
    drop(held);
    until("the budget is free again", || {
        raw::post(address, &target, &[STRANGER], &body).status == 403
    });
}

#[test]
fn who_shows_nothing_is_refused_before_the_body() {
    let server = TestServer::with_module(&[]);
    let address = server.address();
    // They wait for consent to send their bodies, and get an answer instead.
    for (target, status) in [("/bitrix/api/?hostId=x", 403), ("/module/pull.event.add", 401)] {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\n{STRANGER}\r\nContent-Length: {LARGE}\r\nExpect: 100-continue\r\n\r\n"
        );
        // Until the module is there it answers 503.
        let mut answer = raw::exchange(address, &request);
        until("it serves", || {
            answer = raw::exchange(address, &request);
            ![100, 503].contains(&answer.status)
        });
        assert_eq!(answer.status, status, "{target}: {}", answer.head);
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn memory_that_a_burst_took_is_given_back() {
    let server = TestServer::with(&["limits.memory=64MiB"]);
    let address = server.address();
    let body = vec![b'x'; LARGE];
    let target = format!("/bitrix/api/?hostId=x&signature={}", "0".repeat(40));
    // Of the site itself, which is trusted.
    let held: Vec<_> = (0..12).map(|_| burst(address, &target, &[], &body)).collect();
    until("memory is full", || metric(address, "vestnik_refused_for_memory_total") > 0);
    drop(held);
    until("memory is enough again", || metric(address, "vestnik_memory_full") == 0);
    let pair = Pair::new(1);
    let query = format!("CHANNEL_ID={}", pair.private_signed());
    let mut subscriber = Subscriber::open(address, &query);
    assert_eq!(raw::publish(address, &pair.private.to_string(), 0, r#"{"number":1}"#).status, 200);
    assert_eq!(subscriber.next_text()["number"], 1);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success());
    assert!(log.contains("memory is full"), "{log}");
}

#[test]
fn running_out_of_open_files_is_survived_and_reported() {
    let server = TestServer::start();
    let address = server.address();
    let pid = server.pid().to_string();
    let limit = |soft: &str| {
        let limit = format!("--nofile={soft}:");
        let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(status.expect("prlimit is there").success());
    };
    let pair = Pair::new(1);
    let mut subscriber =
        Subscriber::open(address, &format!("CHANNEL_ID={}", pair.private_signed()));
    let mut publisher = Connection::open(address);
    let to = format!("/pub/?CHANNEL_ID={}", pair.private);
    publisher.send(raw::post_bytes(&to, &[], br#"{"number":1}"#));
    assert_eq!(publisher.answer().status, 200);
    assert_eq!(subscriber.next_text()["number"], 1);
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files are listed").count();
    limit(&(open + 2).to_string());
    // More than there is room for: they wait in the system's queue.
    let waiting: Vec<_> = (0..20).map(|_| Connection::open(address)).collect();
    let mut late = Connection::open(address);
    late.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
    // Who is there is served all the same.
    publisher.send(raw::post_bytes(&to, &[], br#"{"number":2}"#));
    assert_eq!(publisher.answer().status, 200);
    assert_eq!(subscriber.next_text()["number"], 2);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    limit("1000");
    assert_eq!(late.answer().status, 200, "it was only late");
    drop(waiting);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success());
    assert!(log.contains("raise the limit of open files"), "{log}");
}
