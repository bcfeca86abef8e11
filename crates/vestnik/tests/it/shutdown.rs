//! The end of a server: SIGTERM, connections that are closed in time, clients that come back
//! (queue-server.md §18, clients.md "Failures").

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;

use serde_json::json;

use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::{
    To, binary_messages, hold_poll, incoming, publish_batch, text_messages, until,
};
use crate::websocket::Subscriber;

fn has_news(subscriber: &mut Subscriber) -> bool {
    let stream = subscriber.socket().get_ref();
    stream.set_nonblocking(true).expect("it is open");
    let has_news = stream.peek(&mut [0]).is_ok();
    stream.set_nonblocking(false).expect("it is open");
    has_news
}

#[test]
fn q_190_k_042_k_043_w_031_connections_are_closed_spread_over_time_and_new_ones_refused() {
    // 50 ms for each connection of a shard.
    let server = TestServer::with(&["server.drain=250s", "server.shards=2"]);
    let address = server.address();
    let me = Pair::new(1);
    let stored = incoming(&[To::Private(me)], 600, "1");
    assert_eq!(publish_batch(address, &[stored]).status, 200);
    let mut subscribers: Vec<_> = (0..40)
        .map(|n| {
            let binary = if n % 2 == 0 { "&binaryMode=true" } else { "" };
            let query = format!("CHANNEL_ID={}{binary}", Pair::new(2 + n).signed());
            Subscriber::open(address, &query)
        })
        .collect();
    let mut with_position = hold_poll(
        address,
        &format!("CHANNEL_ID={}&mid={}", Pair::new(90).signed(), "9".repeat(26)),
    );
    let mut without_position = hold_poll(address, &format!("CHANNEL_ID={}", me.signed()));
    server.signal("TERM");
    // Polls are answered at once, as if nothing had come.
    let answer = with_position.answer();
    assert_eq!(answer.status, 304);
    assert_eq!(answer.header("last-message-id"), Some("9".repeat(26).as_str()));
    let answer = without_position.answer();
    assert_eq!(answer.status, 304);
    let position = answer.header("last-message-id").expect("a position");
    assert_eq!((position.len(), &position[25..]), (26, "1"));
    until("new connections are refused", || match TcpStream::connect(address) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    });
    let closed = subscribers.iter_mut().map(has_news).filter(|has_news| *has_news).count();
    assert!(closed < 40, "not all at once");
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.close_reason(), (1001, String::new()));
    }
    drop(subscribers);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn q_190_a_server_without_open_connections_stops_at_once() {
    let server = TestServer::start();
    let mut idle = Connection::open(server.address());
    idle.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    // Says nothing at all.
    let mut silent = Connection::open(server.address());
    let mut poll = hold_poll(server.address(), &format!("CHANNEL_ID={}", Pair::new(1).signed()));
    let began = std::time::Instant::now();
    server.signal("TERM");
    assert_eq!(poll.answer().status, 304);
    assert!(idle.is_closed() && silent.is_closed() && poll.is_closed());
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    // The last words of a connection that does not answer are waited for five seconds; here is none.
    assert!(began.elapsed().as_secs() < 4, "{:?}", began.elapsed());
}

#[test]
fn q_190_what_was_published_before_the_end_is_delivered_before_the_close() {
    for engine in ["history.engine=disk", "history.engine=memory"] {
        let server = TestServer::with(&[engine]);
        let me = Pair::new(1);
        let query = format!("CHANNEL_ID={}", me.signed());
        let mut text = Subscriber::open(server.address(), &query);
        let mut binary = Subscriber::open(server.address(), &format!("{query}&binaryMode=true"));
        for request in 0..10 {
            let messages: Vec<_> = (0..100)
                .map(|n| incoming(&[To::Private(me)], n % 2, &(request * 100 + n).to_string()))
                .collect();
            assert_eq!(publish_batch(server.address(), &messages).status, 200);
        }
        server.signal("TERM");
        for number in 0..1000 {
            assert_eq!(text.next_text(), json!(number));
        }
        assert_eq!(text.close_reason(), (1001, String::new()));
        let mut received = Vec::new();
        while received.len() < 1000 {
            received.extend(binary_messages(&binary.next_binary()));
        }
        assert_eq!(binary.close_reason(), (1001, String::new()));
        drop((text, binary));
        assert!(server.wait().0.success());
    }
}

#[test]
fn q_190_the_end_does_not_cut_off_a_fan_out_that_is_behind() {
    const MESSAGES: usize = 400;
    let server = TestServer::with(&["history.engine=memory", "server.drain=0s"]);
    let shared = Pair::new(1);
    let query = format!("CHANNEL_ID={}", shared.private_signed());
    let mut listeners: Vec<_> =
        (0..200).map(|_| Subscriber::open(server.address(), &query)).collect();
    let messages: Vec<_> =
        (0..MESSAGES).map(|n| incoming(&[To::Private(shared)], 0, &n.to_string())).collect();
    for request in messages.chunks(100) {
        assert_eq!(publish_batch(server.address(), request).status, 200);
    }
    server.signal("TERM");
    for listener in &mut listeners {
        for number in 0..MESSAGES {
            assert_eq!(listener.next_text(), json!(number));
        }
        assert_eq!(listener.close_reason(), (1001, String::new()));
    }
    drop(listeners);
    assert!(server.wait().0.success());
}

#[test]
fn q_190_requests_under_way_are_finished_and_kept() {
    let server = TestServer::start();
    let me = Pair::new(1);
    let list = me.private_signed();
    let target = format!("/bitrix/pub/?CHANNEL_ID={list}");
    let publish = raw::post_bytes(&target, &["Message-Expiry: 600"], b"\"half and half\"");
    let (first, second) = publish.split_at(publish.len() - 5);
    let mut publisher = Connection::open(server.address());
    publisher.send(first);
    // Begins a poll on a connection that was kept, and has not said all of it.
    let mut latecomer = Connection::open(server.address());
    latecomer.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(latecomer.answer().status, 200);
    latecomer.send(format!("GET /bitrix/sub/?CHANNEL_ID={list} HTTP/1.1\r\nHost: te"));
    let mut poll = hold_poll(server.address(), &format!("CHANNEL_ID={}", Pair::new(2).signed()));
    server.signal("TERM");
    assert_eq!(poll.answer().status, 304, "the end has begun");
    publisher.send(second);
    assert_eq!(publisher.answer().status, 200);
    // It may be cut off or answered; it must not be held.
    let _ = latecomer.stream().write_all(b"st\r\n\r\n");
    if let Ok(answer) = latecomer.try_answer() {
        assert_ne!(answer.status, 101, "{answer:?}");
    }
    let server = server.restarted();
    let replay = format!("/bitrix/sub/?CHANNEL_ID={list}&mid={:026}", 0);
    let answer = raw::get(server.address(), &replay);
    assert_eq!(text_messages(answer.text())[0].body, "half and half");
}

#[test]
fn q_190_a_client_that_does_not_answer_the_close_does_not_hold_the_server_up() {
    let server = TestServer::with(&["server.drain=0s"]);
    let query = format!("CHANNEL_ID={}", Pair::new(1).signed());
    let mut silent = Subscriber::open(server.address(), &query);
    server.signal("TERM");
    until("it is told", || has_news(&mut silent));
    // Nothing is read and nothing answered.
    let (status, _) = server.wait();
    assert!(status.success());
    assert_eq!(silent.close_reason(), (1001, String::new()));
}
