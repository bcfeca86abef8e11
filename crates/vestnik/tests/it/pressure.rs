//! Bursts, floods, slow readers and many at once: what is bounded, and who is not harmed.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::{
    Message, To, batch, incoming, metric_of, publish_batch, text_messages, until,
};
use crate::websocket::{Subscriber, handshake};

const SLOW: &str = "vestnik_slow_subscribers_total";

/// Reads text frames until a number of messages has come.
fn read(subscriber: &mut Subscriber, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        match subscriber.next() {
            tungstenite::Message::Text(text) => messages.extend(text_messages(&text)),
            other => panic!("after {} messages: {other:?}", messages.len()),
        }
    }
    messages
}

/// The messages until the server closes so that clients come back.
fn until_close(subscriber: &mut Subscriber) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        match subscriber.next() {
            tungstenite::Message::Text(text) => messages.extend(text_messages(&text)),
            tungstenite::Message::Close(reason) => {
                assert_eq!(reason.map(|reason| u16::from(reason.code)), Some(1001));
                return messages;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_burst_larger_than_an_outbox_reaches_a_client_that_reads() {
    const REQUESTS: usize = 50;
    let server = TestServer::with(&["limits.outbox_messages=100", "history.engine=memory"]);
    let me = Pair::new(1);
    let mut subscriber = Subscriber::open(server.address(), &format!("CHANNEL_ID={}", me.signed()));
    let mut requests = Vec::new();
    for request in 0..REQUESTS {
        let messages: Vec<_> = (0..100)
            .map(|n| incoming(&[To::Private(me)], 0, &(request * 100 + n).to_string()))
            .collect();
        requests.extend(raw::post_bytes("/bitrix/pub/?binaryMode=true", &[], &batch(&messages)));
    }
    let mut publisher = Connection::open(server.address());
    std::thread::scope(|scope| {
        scope.spawn(|| publisher.send(requests));
        for (number, message) in read(&mut subscriber, REQUESTS * 100).iter().enumerate() {
            assert_eq!(message.body, json!(number));
        }
    });
    for _ in 0..REQUESTS {
        assert_eq!(publisher.answer().status, 200);
    }
    assert_eq!(metric_of(server.address(), SLOW), 0);
}

#[test]
fn publishers_faster_than_a_fan_out_are_slowed_down_and_nobody_is_closed() {
    const LISTENERS: usize = 400;
    const MESSAGES: usize = 400;
    let server = TestServer::with(&["limits.outbox_messages=50", "history.engine=memory"]);
    let shared = Pair::new(1);
    let query = format!("CHANNEL_ID={}", shared.private_signed());
    let mut listeners: Vec<_> =
        (0..LISTENERS).map(|_| Subscriber::open(server.address(), &query)).collect();
    let messages: Vec<_> =
        (0..MESSAGES).map(|n| incoming(&[To::Private(shared)], 0, &n.to_string())).collect();
    for request in messages.chunks(100) {
        assert_eq!(publish_batch(server.address(), request).status, 200);
    }
    for listener in &mut listeners {
        for (number, message) in read(listener, MESSAGES).iter().enumerate() {
            assert_eq!(message.body, json!(number));
        }
    }
    assert_eq!(metric_of(server.address(), SLOW), 0);
}

/// Reads and forgets whatever comes.
fn drain(address: SocketAddr, query: &str, goes_on: &AtomicBool) {
    let mut connection = Connection::open(address);
    connection.send(handshake(&format!("/bitrix/subws/?{query}")));
    let stream = connection.stream();
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let mut buffer = vec![0; 256 * 1024];
    while goes_on.load(Ordering::Relaxed) {
        // A timeout is as good as bytes.
        let _ = stream.read(&mut buffer);
    }
}

#[test]
fn nothing_starves_while_publishers_never_pause() {
    let server = TestServer::with(&[
        "server.shards=1",
        "history.engine=memory",
        "timing.ping=1s",
        "timing.poll=1s",
    ]);
    let address = server.address();
    let shared = Pair::new(1);
    let query = format!("CHANNEL_ID={}", shared.private_signed());
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| drain(address, &query, &goes_on));
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let messages: Vec<_> =
                    (0..20).map(|_| incoming(&[To::Private(shared)], 0, "\"noise\"")).collect();
                let request =
                    raw::post_bytes("/bitrix/pub/?binaryMode=true", &[], &batch(&messages));
                let mut publisher = Connection::open(address);
                while goes_on.load(Ordering::Relaxed) {
                    publisher.send(&request);
                    assert_eq!(publisher.answer().status, 200);
                }
            });
        }
        // Whatever happens, the threads above end.
        let result = std::panic::catch_unwind(|| everything_works(address));
        goes_on.store(false, Ordering::Relaxed);
        result.expect("everything works meanwhile");
    });
}

/// New connections, requests, reads, ticks and commands.
fn everything_works(address: SocketAddr) {
    let delivered = metric_of(address, "vestnik_delivered_messages_total");
    let me = Pair::new(2);
    let query = format!("CHANNEL_ID={}", me.signed());
    for round in 0..20 {
        let mut subscriber = Subscriber::open(address, &query);
        subscriber.send(tungstenite::Message::Ping(vec![7].into()));
        loop {
            match subscriber.socket().read().expect("a pong") {
                tungstenite::Message::Pong(payload) => break assert_eq!(payload[..], [7]),
                tungstenite::Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(raw::publish(address, &me.private_signed(), 0, &round.to_string()).status, 200);
        assert_eq!(subscriber.next_text(), json!(round));
    }
    let mut subscriber = Subscriber::open(address, &query);
    let poll = raw::get(address, &format!("/bitrix/sub/?CHANNEL_ID={}", Pair::new(3).signed()));
    assert_eq!(poll.status, 304, "a timer on the same thread");
    loop {
        // The server's own, once a second.
        if let tungstenite::Message::Ping(_) = subscriber.socket().read().expect("a ping") {
            break;
        }
    }
    assert!(metric_of(address, "vestnik_delivered_messages_total") > delivered, "under load");
}

/// Resident memory of a process in bytes.
fn memory(server: &TestServer) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a number");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn q_188_w_029_a_client_that_does_not_read_costs_little_and_is_closed_with_1001() {
    let server = TestServer::start();
    let me = Pair::new(1);
    let query = format!("CHANNEL_ID={}", me.signed());
    let mut slow: Vec<_> = (0..3).map(|_| Subscriber::open(server.address(), &query)).collect();
    let before = memory(&server);
    let body = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..100 {
        let answer = raw::publish(server.address(), &me.private_signed(), 0, &body);
        assert_eq!(answer.status, 200);
    }
    until("they are given up", || metric_of(server.address(), SLOW) == 3);
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < 64 << 20, "100 MB for three clients that do not read took {grown} bytes");
    // Whoever reads after all finds whole messages, and then the reason.
    let mut read_first = 0;
    loop {
        match slow[0].next() {
            tungstenite::Message::Text(text) => {
                assert_eq!(text_messages(&text).len(), 1);
                read_first += 1;
            }
            tungstenite::Message::Close(reason) => {
                assert_eq!(reason.map(|reason| u16::from(reason.code)), Some(1001));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(read_first < 100);
}

#[test]
fn a_kept_message_takes_its_own_size_and_not_that_of_the_buffer_it_came_in() {
    const MESSAGES: u64 = 6000;
    let server = TestServer::with(&["history.sync=never"]);
    let target = format!("/bitrix/pub/?CHANNEL_ID={}", Pair::new(1).private);
    let body = "x".repeat(200);
    let mut connection = raw::Connection::open(server.address());
    let mut publish = |count| {
        for _ in 0..count {
            connection.send(raw::post_bytes(&target, &["Message-Expiry: 600"], body.as_bytes()));
            assert_eq!(connection.answer().status, 200);
        }
    };
    publish(100);
    let before = memory(&server);
    publish(MESSAGES);
    let each = memory(&server).saturating_sub(before) / MESSAGES;
    assert!(each < 2048, "{each} bytes for a message of 200");
}

#[test]
fn q_188_a_slow_client_gets_the_rest_by_its_position() {
    const MESSAGES: usize = 400;
    let server = TestServer::with(&["limits.outbox_bytes=64KiB"]);
    let me = Pair::new(1);
    let list = me.private_signed();
    let mut subscriber = Subscriber::open(server.address(), &format!("CHANNEL_ID={list}"));
    let padding = "x".repeat(30_000);
    for request in 0..MESSAGES / 20 {
        let messages: Vec<_> = (0..20)
            .map(|n| {
                let body = json!([request * 20 + n, padding]).to_string();
                incoming(&[To::Private(me)], 600, &body)
            })
            .collect();
        assert_eq!(publish_batch(server.address(), &messages).status, 200);
    }
    until("it is too slow", || metric_of(server.address(), SLOW) == 1);
    let mut received = until_close(&mut subscriber);
    assert!(received.len() < MESSAGES);
    while received.len() < MESSAGES {
        // Of the rest too it is given no more at a time than may wait for it.
        let position = &received.last().expect("some fit the kernel's buffers").mid;
        let query = format!("CHANNEL_ID={list}&mid={position}");
        let mut subscriber = Subscriber::open(server.address(), &query);
        let rest = MESSAGES - received.len();
        let part = if rest > 1 { until_close(&mut subscriber) } else { read(&mut subscriber, 1) };
        assert!(!part.is_empty(), "it gets on");
        received.extend(part);
    }
    assert_eq!(received.len(), MESSAGES);
    for (number, message) in received.iter().enumerate() {
        assert_eq!(message.body[0], json!(number));
    }
}

#[test]
fn w_029_a_client_that_asks_and_never_reads_is_given_up() {
    let server = TestServer::with(&["limits.outbox_bytes=64KiB"]);
    let query = format!("CHANNEL_ID={}", Pair::new(1).signed());
    let mut subscriber = Subscriber::open(server.address(), &query);
    // Masked pings with 125 bytes each, many in one write.
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([b'x'; 125]);
    let flood = ping.repeat(500);
    let stream = subscriber.socket().get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    until("it is given up", || {
        // It is cut off, or not read any more.
        let _ = stream.write_all(&flood);
        metric_of(server.address(), SLOW) == 1
    });
}

#[test]
fn k_047_thousands_of_clients_that_come_back_at_once_are_all_served() {
    const CLIENTS: u64 = 3000;
    const THREADS: u64 = 24;
    let server = TestServer::start();
    let address = server.address();
    let shared = Pair::new(1);
    let first = publish_one(address, shared, 1);
    let round = |position: &str, expected: i64| -> Vec<Subscriber> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || {
                        let open = |client: u64| {
                            let list = format!(
                                "{}/{}",
                                Pair::new(client).signed(),
                                shared.private_signed()
                            );
                            let query = format!("CHANNEL_ID={list}&mid={position}");
                            let mut subscriber = Subscriber::open(address, &query);
                            assert_eq!(subscriber.next_text(), json!(expected));
                            subscriber
                        };
                        (10..10 + CLIENTS)
                            .filter(|client| client % THREADS == thread)
                            .map(open)
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("all are served")).collect()
        })
    };
    let clients = round(&format!("{:026}", 0), 1);
    assert_eq!(metric_of(address, "vestnik_connections_websocket"), CLIENTS);
    // Everybody is thrown off, misses a message and comes back.
    let server = server.crash_and_restart();
    drop(clients);
    publish_one(address, shared, 2);
    let clients = round(&first, 2);
    assert_eq!(metric_of(address, "vestnik_connections_websocket"), CLIENTS);
    assert_eq!(metric_of(address, "vestnik_refused_subscriptions_total"), 0);
    drop((clients, server));
}

/// Publishes a stored number; returns its id.
fn publish_one(address: SocketAddr, to: Pair, number: i64) -> String {
    let channel = to.private_signed();
    assert_eq!(raw::publish(address, &channel, 600, &number.to_string()).status, 200);
    let all = format!("/bitrix/sub/?CHANNEL_ID={channel}&mid={:026}", 0);
    let messages = text_messages(raw::get(address, &all).text());
    messages.last().expect("it is stored").mid.clone()
}

#[test]
fn w_028_strangers_may_hold_only_so_many_connections_and_the_site_gets_through() {
    // The clients of this test come from 127.0.0.1, the site from 127.0.0.2.
    let server =
        TestServer::with(&["limits.connections=5", "trusted.allow=127.0.0.2", "trusted.proxies="]);
    let held: Vec<_> = (0..5)
        .map(|_| {
            let mut connection = Connection::open(server.address());
            connection.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(connection.answer().status, 200);
            connection
        })
        .collect();
    assert!(Connection::open(server.address()).is_closed(), "a sixth one");
    let from = |address: &str| {
        let local: SocketAddr = address.parse().expect("an address");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&local.into()).expect("an address of this machine");
        socket.connect(&server.address().into()).expect("the server accepts");
        Connection::over(socket.into()).expect("it was just made")
    };
    let mut site = from("127.0.0.2:0");
    site.send("GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
    let page = site.answer();
    assert_eq!(crate::traffic::metric(&page, "vestnik_refused_connections_total"), 1);
    drop(held);
    until("places are free again", || {
        let mut connection = Connection::open(server.address());
        let request = "GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(connection.stream(), request.as_bytes()).is_ok()
            && connection.try_answer().is_ok()
    });
}

#[test]
fn q_069_w_029_a_stranger_is_refused_before_its_body_is_read() {
    let server = TestServer::start();
    let head = "POST /bitrix/rest/ HTTP/1.1\r\nHost: test\r\nContent-Length: 1048576\r\n\
                Expect: 100-continue\r\n\r\n";
    let answer = raw::exchange(server.address(), head);
    assert_eq!((answer.status, answer.text()), (400, "4012: Public Channel Id is Required."));
    // A body of a poll is nobody's business: it may be small.
    let channels = Pair::new(1).signed();
    let head = format!(
        "GET /bitrix/sub/?CHANNEL_ID={channels} HTTP/1.1\r\nHost: test\r\n\
         Content-Length: 1048576\r\nExpect: 100-continue\r\n\r\n"
    );
    assert_eq!(raw::exchange(server.address(), head).status, 413);
}
