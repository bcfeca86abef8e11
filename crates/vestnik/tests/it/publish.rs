//! Text publishes (queue-server.md §4.3) and what becomes of them when something is wrong.

use std::fmt::Write as _;
use std::net::Shutdown;
use std::process::Command;

use crate::observe::{hold_poll, metric};
use crate::raw::{self, Answer, Connection, events, publish};
use crate::requests::{Field, outgoing};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;

const START: &str = "mid=00000000000000000000000000";

fn subscriber(server: &TestServer, pair: Pair) -> Subscriber {
    Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()))
}

fn assert_taken(answer: &Answer) {
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

/// What a poll from the beginning gets.
fn stored(server: &TestServer, pair: Pair) -> Answer {
    raw::get(server.address(), &format!("/sub/?CHANNEL_ID={}&{START}", pair.signed()))
}

#[test]
fn q_034_q_051_a_publish_to_an_unsigned_id_is_taken_with_an_empty_answer() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let query = format!("CHANNEL_ID={}&binaryMode=true", pair.private_signed());
    let mut socket = Subscriber::open(server.address(), &query);
    let answer = publish(server.address(), &pair.private.to_string(), 0, r#"{"a":1}"#);
    assert_taken(&answer);
    let order: Vec<_> = answer.head.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(order[1..3], ["Content-Type", "Access-Control-Allow-Origin"], "as they are listed");
    let messages = outgoing(&socket.next_binary());
    let is_backend = messages[0].contains(&(5, Field::Bytes(vec![0x08, 0x02])));
    assert!(is_backend, "type BACKEND, no id: {messages:?}");
}

/// PHP reads neither status nor body of these, and never repeats them; but they are counted and
/// logged, so that somebody can know (README D6).
#[test]
fn q_035_q_036_q_037_q_049_w_003_what_cannot_be_addressed_is_taken_dropped_and_counted() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket = subscriber(&server, pair);
    let post = |query: &str, body: &[u8]| {
        assert_taken(&raw::post(server.address(), &format!("/bitrix/pub/{query}"), &[], body));
    };
    let id = pair.private;
    let good = format!("?CHANNEL_ID={id}");
    post("", b"{}");
    post("?channel_id=1", b"{}");
    post("?CHANNEL_ID=", b"{}");
    post(&format!("?CHANNEL_ID={id}/"), b"{}");
    post(&format!("?CHANNEL_ID={}", id.to_string().to_uppercase()), b"{}");
    post(&format!("?CHANNEL_ID={id}/{id}:{}", pair.public), b"{}");
    post(&format!("{good}&CHANNEL_ID={id}"), b"{}");
    post(&good, b"");
    assert_eq!(metric(server.address(), "vestnik_dropped_publishes_total"), 8);
    post(&good, br#"{"next":1}"#);
    assert_eq!(socket.next_text()["next"], 1);
    assert_eq!(metric(server.address(), "vestnik_published_messages_total"), 1);
    server.signal("TERM");
    let (_, log) = server.wait();
    for reason in ["no CHANNEL_ID", "repeated", "malformed", "wrong signature", "empty body"] {
        assert!(log.contains(reason), "{reason} in {log}");
    }
}

#[test]
fn q_038_q_048_a_list_and_its_pairs_are_sent_one_message_with_one_id() {
    let server = TestServer::start();
    let [a, b] = [1, 2].map(Pair::new);
    let (mut first, mut second) = (subscriber(&server, a), subscriber(&server, b));
    assert_taken(&publish(server.address(), &format!("{}/{}", a.private, b.private), 0, "{}"));
    let (first, second) = (first.next_events(), second.next_events());
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0]["mid"], second[0]["mid"]);
    assert_eq!(metric(server.address(), "vestnik_published_messages_total"), 1);
    // A signed pair addresses the public id too: that is where the message is kept besides.
    assert_taken(&publish(server.address(), &a.signed(), 60, r#"{"pair":1}"#));
    let mut public = Pair::new(3);
    public.public = a.public;
    let found =
        raw::get(server.address(), &format!("/sub/?CHANNEL_ID={}&{START}", public.signed()));
    assert_eq!(events(found.text())[0]["text"]["pair"], 1);
}

/// The answer comes while the only subscriber reads nothing at all.
#[test]
fn q_039_the_answer_does_not_wait_for_delivery() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut deaf = Connection::open(server.address());
    deaf.send(crate::websocket::handshake(&format!("/sub/?CHANNEL_ID={}", pair.private_signed())));
    assert_eq!(deaf.answer().status, 101);
    let large = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..20 {
        assert_taken(&publish(server.address(), &pair.private.to_string(), 0, &large));
    }
}

/// Publishes with a header; the expiry that subscribers see.
fn expiry(server: &TestServer, socket: &mut Subscriber, pair: Pair, header: &str) -> u64 {
    let target = format!("/pub/?CHANNEL_ID={}", pair.private);
    assert_taken(&raw::post(server.address(), &target, &[header], b"{}"));
    let messages = outgoing(&socket.next_binary());
    let found = messages[0].iter().find_map(|field| match field {
        (3, Field::Number(seconds)) => Some(*seconds),
        _ => None,
    });
    found.expect("an expiry")
}

#[test]
fn q_040_q_041_q_042_q_043_q_044_the_expiry_header_is_read_as_far_as_its_digits_go() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let query = format!("CHANNEL_ID={}&binaryMode=true", pair.private_signed());
    let mut socket = Subscriber::open(server.address(), &query);
    for (header, seconds) in [
        ("Message-Expiry: 60", 60),
        ("message-expiry: 60", 60),
        ("MESSAGE-EXPIRY:60", 60),
        ("Message-Expiry: 12x", 12),
        ("Message-Expiry: 1.9", 1),
        ("Message-Expiry: 99999999999", 86400),
        ("Message-Expiry: 86401", 86400),
        ("Message-Expiry: 0", 0),
        ("Message-Expiry: -5", 0),
        ("Message-Expiry: abc", 0),
        ("Message-Expiry: ", 0),
        ("X-Nothing: 60", 0),
    ] {
        let before = metric(server.address(), "vestnik_stored_messages_total");
        assert_eq!(expiry(&server, &mut socket, pair, header), seconds, "{header}");
        let stored = metric(server.address(), "vestnik_stored_messages_total") - before;
        assert_eq!(stored, u64::from(seconds > 0), "{header}");
    }
    let server = TestServer::with(&["history.message_ttl=1h"]);
    let mut socket = Subscriber::open(server.address(), &query);
    assert_eq!(
        expiry(&server, &mut socket, pair, "Message-Expiry: 7200"),
        3600,
        "the configured one"
    );
}

#[test]
fn q_045_binary_mode_is_exactly_true() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket = subscriber(&server, pair);
    for mode in ["1", "TRUE", "True", "true%20", ""] {
        let target = format!("/pub/?CHANNEL_ID={}&binaryMode={mode}", pair.private);
        assert_taken(&raw::post(server.address(), &target, &[], b"just text"));
        assert_eq!(socket.next_text(), "just text", "{mode}");
    }
}

#[test]
fn q_046_q_047_q_172_w_002_a_body_may_have_1048576_bytes_and_not_one_more() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let id = pair.private.to_string();
    let mut socket = subscriber(&server, pair);
    let body = format!("\"{}\"", "x".repeat(1_048_574));
    assert_taken(&publish(server.address(), &id, 0, &body));
    assert_eq!(socket.next_text().as_str().map(str::len), Some(1_048_574));
    let over = format!("{body} ");
    let target = format!("/bitrix/pub/?CHANNEL_ID={id}");
    let assert_too_large = |answer: &Answer| {
        assert_eq!((answer.status, answer.text()), (413, ""));
        assert!(answer.head.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{}", answer.head);
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    };
    let mut connection = Connection::open(server.address());
    connection.send(raw::post_bytes(&target, &[], over.as_bytes()));
    assert_too_large(&connection.answer());
    assert!(connection.is_closed());
    // In chunks of any size nothing is announced; on rest the same holds.
    let rest = format!("/rest/?CHANNEL_ID={}", pair.signed());
    for path in [&*target, &*rest] {
        for size in [1_048_577, 65_536, 999] {
            let mut request =
                format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
            for chunk in over.as_bytes().chunks(size) {
                let text = std::str::from_utf8(chunk).expect("ASCII");
                write!(request, "{:x}\r\n{text}\r\n", chunk.len()).expect("memory");
            }
            request.push_str("0\r\n\r\n");
            assert_too_large(&raw::exchange(server.address(), request));
        }
    }
    let absurd =
        format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", u64::MAX / 2);
    let mut connection = Connection::open(server.address());
    connection.send(absurd);
    connection.stream().shutdown(Shutdown::Write).expect("open");
    assert_too_large(&connection.answer());
    publish(server.address(), &id, 0, r#"{"alive":1}"#);
    assert_eq!(socket.next_text()["alive"], 1);
}

#[test]
fn q_050_a_publish_may_have_more_than_a_hundred_ids() {
    let server = TestServer::start();
    let mut socket = subscriber(&server, Pair::new(149));
    let ids: Vec<_> = (0..150).map(|n| Pair::new(n).private.to_string()).collect();
    assert_taken(&publish(server.address(), &ids.join("/"), 0, r#"{"x":1}"#));
    assert_eq!(socket.next_text()["x"], 1);
}

/// PHP of these revisions writes its request and drops the connection without reading.
#[test]
fn q_170_a_caller_that_hangs_up_after_its_request_still_gets_it_published() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket = subscriber(&server, pair);
    let target = format!("/bitrix/pub/?CHANNEL_ID={}", pair.private);
    for n in 0..50 {
        let body = format!("{{\"n\":{n}}}");
        let request = raw::post_bytes(&target, &["Message-Expiry: 60"], body.as_bytes());
        let mut connection = Connection::open(server.address());
        match n % 4 {
            // Everything in one segment with the end right behind it.
            0 => connection.send(&request),
            // Head and body apart.
            1 => {
                connection.send(&request[..request.len() - body.len()]);
                connection.send(&request[request.len() - body.len()..]);
            }
            2 => {
                connection.send(&request);
                connection.stream().shutdown(Shutdown::Write).expect("open");
                assert_taken(&connection.answer());
                assert!(connection.is_closed());
            }
            _ => {
                let head = format!("POST {target} HTTP/1.0\r\nMessage-Expiry: 60\r\n");
                connection.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
            }
        }
        drop(connection);
        assert_eq!(socket.next_text()["n"], n);
    }
    assert_eq!(events(stored(&server, pair).text()).len(), 50);
}

/// Nobody limits the rate unless told to (`overload.rs`): a site that publishes much would lose
/// messages, and the original's setting for it was never read. What one caller may cost is bounded: connections
/// (`limits.connections_per_address`), messages of a request, sizes of heads and bodies, and what
/// waits; a text publish has as many channels as its head has room for.
#[test]
fn w_028_what_one_caller_may_ask_for_is_bounded() {
    let server = TestServer::with(&["limits.connections_per_address=2"]);
    let address = server.address();
    let pairs = [1, 2, 3].map(Pair::new);
    let _polls: Vec<_> = pairs[..2]
        .iter()
        .map(|pair| hold_poll(address, &format!("CHANNEL_ID={}", pair.private_signed())))
        .collect();
    let third = raw::get(address, &format!("/sub/?CHANNEL_ID={}", pairs[2].private_signed()));
    assert_eq!((third.status, third.text()), (429, "4029: Too many connections"));
    let ids: Vec<_> = (0..1000).map(|n| Pair::new(n).private.to_string()).collect();
    assert_eq!(publish(address, &ids.join("/"), 0, "{}").status, 414);
    let many: Vec<_> = (0..101).map(|n| Pair::new(n).private_signed()).collect();
    let list = raw::get(address, &format!("/sub/?CHANNEL_ID={}", many.join("/")));
    assert_eq!(list.status, 400);
}

/// A disk that fails: files of the history may not grow beyond what the process may write.
#[test]
fn q_189_w_003_a_message_that_cannot_be_stored_is_answered_503_and_delivered_live() {
    let server = TestServer::start();
    let address = server.address();
    let pair = Pair::new(1);
    let mut socket = subscriber(&server, pair);
    let id = pair.private.to_string();
    assert_taken(&publish(address, &id, 60, r#"{"n":0}"#));
    assert_eq!(socket.next_text()["n"], 0);
    // From now on every write to a file fails with EFBIG, as it would with ENOSPC on a full disk.
    let pid = server.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=0:"]).status();
    assert!(limited.expect("prlimit is there").success());
    for n in 1..4 {
        let answer = publish(address, &id, 60, &format!("{{\"n\":{n}}}"));
        assert_eq!((answer.status, answer.text()), (503, ""));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(socket.next_text()["n"], n, "delivered live all the same");
    }
    assert_eq!(metric(address, "vestnik_unstored_messages_total"), 3);
    // The rest goes on: statistics, presence, polls, what was stored before.
    assert_eq!(raw::get(address, "/server-stat/").status, 200);
    assert_eq!(events(stored(&server, pair).text())[0]["text"]["n"], 0);
    // Once there is room again, storing works again.
    let lifted = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status();
    assert!(lifted.expect("prlimit is there").success());
    assert_taken(&publish(address, &id, 60, r#"{"n":9}"#));
    let kept: Vec<_> = events(stored(&server, pair).text());
    assert_eq!(kept.last().expect("something is kept")["text"]["n"], 9);
}

#[test]
fn q_189_all_requests_of_a_batch_are_delivered_when_the_first_cannot_be_stored() {
    use crate::requests::{ask, batch, message, publish, receiver};
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket = subscriber(&server, pair);
    let pid = server.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, "--fsize=0:"]).status();
    assert!(limited.expect("prlimit is there").success());
    let to = [receiver(pair.private.as_bytes(), true, &[])];
    let event = |n: u32| publish(&[message(&to, format!("{{\"n\":{n}}}").as_bytes(), 60)]);
    assert_eq!(ask(server.address(), &batch(&[event(1), event(2)])).status, 503);
    assert_eq!(socket.next_text()["n"], 1);
    assert_eq!(socket.next_text()["n"], 2);
}
