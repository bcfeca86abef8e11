//! Long polling as clients see it.

use std::net::{Shutdown, SocketAddr};
use std::time::Instant;

use crate::raw::{self, Answer, Connection, WAIT, events, exchange, get, publish};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::wire::{self, KEPT_S, field, outgoing, public_receiver, publish_request};

const NO_EXPOSE: Option<&str> = None;

fn target(channels: &str, more: &str) -> String {
    format!("/bitrix/sub/?CHANNEL_ID={channels}{more}")
}

fn request(channels: &str, more: &str) -> String {
    format!("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", target(channels, more))
}

/// Sends a poll and waits until the server holds it.
fn held(server: &TestServer, channels: &str, more: &str) -> Connection {
    held_as(server, &request(channels, more), 1)
}

/// Sends a poll as these bytes and waits until the server holds `count` polls.
fn held_as(server: &TestServer, request: &str, count: u64) -> Connection {
    let mut connection = Connection::open(server.address());
    connection.send(request);
    wait_for_metric(server.address(), "vestnik_connections_polling", count);
    connection
}

/// Waits until a metric has a value.
pub(crate) fn wait_for_metric(address: SocketAddr, name: &str, value: u64) {
    let until = Instant::now() + WAIT;
    while metric(address, name) != value {
        assert!(Instant::now() < until, "{name} does not become {value}");
    }
}

/// The value of a metric.
pub(crate) fn metric(address: SocketAddr, name: &str) -> u64 {
    let page = get(address, "/metrics");
    let line = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("a known metric").parse().expect("a number")
}

/// Waits until a private channel is online or not.
pub(crate) fn wait_for_presence(address: SocketAddr, pair: Pair, is_online: bool) {
    let until = Instant::now() + WAIT;
    let target = format!("/bitrix/pub/?CHANNEL_ID={}", pair.private);
    while get(address, &target).text().contains("\"channel\"") != is_online {
        assert!(Instant::now() < until, "presence does not become {is_online}");
    }
}

/// Publishes a number as a stored message and returns its `mid`.
pub(crate) fn store(address: SocketAddr, pair: Pair, number: u64) -> String {
    let body = format!(r#"{{"n":{number}}}"#);
    assert_eq!(publish(address, &pair.private.to_string(), KEPT_S, &body).status, 200);
    newest(address, pair)
}

/// The newest `mid` of what is stored for a private channel.
fn newest(address: SocketAddr, pair: Pair) -> String {
    let zero = "0".repeat(26);
    let answer = get(address, &target(&pair.signed(), &format!("&mid={zero}")));
    mids(&answer).pop().expect("something is stored")
}

fn mids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mids = events(answer.text()).into_iter();
    mids.map(|event| event["mid"].as_str().expect("text").to_owned()).collect()
}

fn numbers(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let events = events(answer.text()).into_iter();
    events.map(|event| event["text"]["n"].as_u64().expect("a number")).collect()
}

#[test]
fn q_086_k_070_a_poll_without_news_is_held_for_40_s_by_default_and_as_long_as_configured() {
    let options = std::process::Command::new(env!("CARGO_BIN_EXE_vestnik"))
        .args(["check", "--options"])
        .output()
        .expect("it is built");
    let options = String::from_utf8(options.stdout).expect("text");
    let line = options.lines().find(|line| line.starts_with("| `poll` ")).expect("the option");
    assert!(line.contains("| `\"40s\"` |") && line.contains("1s to 59s"), "{line}");
    let server = TestServer::with(&["timing.poll=1s"]);
    let begun = Instant::now();
    let answer = get(server.address(), &target(&Pair::new(1).signed(), ""));
    assert_eq!(answer.status, 304);
    assert!(begun.elapsed().as_millis() >= 1000, "not before its time");
}

#[test]
fn q_087_q_090_k_034_a_poll_without_news_ends_with_304_and_its_headers_in_every_framing() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let (address, pair) = (server.address(), Pair::new(1));
    std::thread::scope(|scope| {
        for more in ["", "&binaryMode=true", "&format=json"] {
            scope.spawn(move || {
                let answer = get(address, &target(&pair.signed(), more));
                assert_eq!((answer.status, answer.body.len()), (304, 0), "{more}");
                assert!(answer.head.starts_with("HTTP/1.1 304 Not Modified\r\n"));
                for (name, value) in [
                    ("content-type", "text/plain"),
                    ("access-control-allow-origin", "*"),
                    ("access-control-expose-headers", "Last-Message-Id"),
                    ("last-message-id", ""),
                    ("expires", "Thu, 01 Jan 1973 11:11:01 GMT"),
                ] {
                    assert_eq!(answer.header(name), Some(value), "{more}");
                }
                assert_eq!(answer.header("content-length"), None, "{more}");
            });
        }
    });
}

#[test]
fn q_088_a_poll_without_news_repeats_its_position() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let pair = Pair::new(1);
    let mid = store(server.address(), pair, 1);
    let answer = get(server.address(), &target(&pair.signed(), &format!("&mid={mid}")));
    assert_eq!((answer.status, answer.header("last-message-id")), (304, Some(&*mid)));
}

#[test]
fn q_095_a_position_above_everything_waits_and_hears_what_comes() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let _ = store(server.address(), pair, 1);
    let mut poll = held(&server, &pair.signed(), &format!("&mid={}", "9".repeat(26)));
    publish(server.address(), &pair.private.to_string(), 0, r#"{"n":2}"#);
    assert_eq!(numbers(&poll.answer()), [2]);
}

#[test]
fn q_089_without_a_position_it_is_the_newest_stored_one_over_all_channels() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let [one, two] = [Pair::new(1), Pair::new(2)];
    let first = store(server.address(), one, 1);
    // The newest is addressed to the public channel.
    let message = wire::incoming(&[public_receiver(one)], r#"{"n":2}"#, KEPT_S.into());
    let target_pub = "/bitrix/pub/?binaryMode=true";
    raw::post(server.address(), target_pub, &[], &publish_request(&[message]));
    let public = newest(server.address(), one);
    assert!(public > first);
    let other = store(server.address(), two, 3);
    for (channels, expected) in [
        (one.signed(), &public),
        (one.private_signed(), &first),
        (format!("{}/{}", one.signed(), two.private_signed()), &other),
    ] {
        let answer = get(server.address(), &target(&channels, ""));
        assert_eq!((answer.status, answer.header("last-message-id")), (304, Some(&**expected)));
    }
}

#[test]
fn w_013_the_position_survives_the_expiry_of_the_newest_message() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let pair = Pair::new(1);
    let mid = store(server.address(), pair, 1);
    publish(server.address(), &pair.private.to_string(), 1, r#"{"n":2}"#);
    // The second one is gone when a poll from the first finds nothing any more.
    let from_first = target(&pair.signed(), &format!("&mid={mid}"));
    let mut seen = Vec::new();
    let until = Instant::now() + WAIT;
    loop {
        let answer = get(server.address(), &from_first);
        if answer.status == 304 {
            break;
        }
        seen.extend(mids(&answer));
        assert!(Instant::now() < until, "it never expires");
    }
    let answer = get(server.address(), &target(&pair.signed(), ""));
    let position = answer.header("last-message-id").expect("the header").to_owned();
    assert!(position > mid, "{position}");
    assert!(seen.iter().all(|seen| *seen == position));
}

#[test]
fn q_091_q_092_a_live_message_ends_the_poll_with_200() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    for (more, kind) in [
        ("", "text/plain"),
        ("&format=json", "text/plain"),
        ("&binaryMode=true", "application/octet-stream"),
    ] {
        let mut poll = held(&server, &pair.signed(), more);
        publish(server.address(), &pair.private.to_string(), 0, r#"{"n":7}"#);
        let answer = poll.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(kind));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-expose-headers"), NO_EXPOSE);
        assert!(raw::find(&answer.body, br#"{"n":7}"#).is_some(), "{answer:?}");
    }
}

#[test]
fn q_093_k_036_what_is_newer_than_the_position_comes_at_once_ascending() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let first = store(server.address(), pair, 1);
    for number in 2..=5 {
        store(server.address(), pair, number);
    }
    let answer = get(server.address(), &target(&pair.signed(), &format!("&mid={first}")));
    assert_eq!(numbers(&answer), [2, 3, 4, 5]);
    let binary =
        get(server.address(), &target(&pair.signed(), &format!("&binaryMode=true&mid={first}")));
    let bodies: Vec<_> = outgoing(&binary.body).into_iter().map(|it| it.body).collect();
    assert_eq!(bodies, [2, 3, 4, 5].map(|n| format!(r#"{{"n":{n}}}"#)));
}

#[test]
fn q_094_what_is_no_position_is_ignored() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let pair = Pair::new(1);
    let mid = store(server.address(), pair, 1);
    for bad in ["0".repeat(25), "0".repeat(27), format!("{}x", "0".repeat(25)), "1:1".into()] {
        let answer = get(server.address(), &target(&pair.signed(), &format!("&mid={bad}")));
        // As without: no history, and the newest id as position.
        assert_eq!((answer.status, answer.header("last-message-id")), (304, Some(&*mid)), "{bad}");
    }
}

#[test]
fn q_096_k_035_polls_in_sequence_on_one_connection_miss_nothing_that_is_stored() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut connection = held(&server, &pair.signed(), "");
    let mut mid = String::new();
    for round in 0..5 {
        let (first, second) = (2 * round, 2 * round + 1);
        if round > 0 {
            connection.send(request(&pair.signed(), &format!("&mid={mid}")));
        } else {
            let _ = store(server.address(), pair, first);
        }
        let answer = connection.answer();
        assert_eq!(numbers(&answer), [first], "round {round}");
        mid = mids(&answer).pop().expect("one");
        // Between two polls.
        let _ = store(server.address(), pair, second);
        connection.send(request(&pair.signed(), &format!("&mid={mid}")));
        let answer = connection.answer();
        assert_eq!(numbers(&answer), [second], "round {round}");
        mid = mids(&answer).pop().expect("one");
        let _ = store(server.address(), pair, second + 1);
    }
}

#[test]
fn k_035_a_message_that_is_not_stored_waits_for_the_next_poll_of_its_client() {
    let server = TestServer::with(&["server.shards=1", "timing.poll=1s"]);
    let pair = Pair::new(1);
    let send = |number: u64| {
        let body = format!(r#"{{"n":{number}}}"#);
        publish(server.address(), &pair.private.to_string(), 0, &body);
    };
    let mut poll = held(&server, &pair.signed(), "");
    send(1);
    let answer = poll.answer();
    assert_eq!(numbers(&answer), [1]);
    let first = mids(&answer).remove(0);
    // Stored and not, in their order; on a new connection, as behind a proxy.
    send(2);
    store(server.address(), pair, 3);
    send(4);
    let answer = get(server.address(), &target(&pair.signed(), &format!("&mid={first}")));
    assert_eq!(numbers(&answer), [2, 3, 4]);
    let last = mids(&answer).pop().expect("three");
    // Who comes with another position is somebody else.
    send(5);
    let other = get(server.address(), &target(&pair.signed(), &format!("&mid={first}")));
    assert_eq!(numbers(&other), [3], "from the history");
    let answer = get(server.address(), &target(&pair.signed(), &format!("&mid={last}")));
    assert_eq!(numbers(&answer), [5]);
    // Also behind a poll that ended without news.
    let last = mids(&answer).remove(0);
    let from_last = target(&pair.signed(), &format!("&mid={last}"));
    let ended = get(server.address(), &from_last);
    assert_eq!((ended.status, ended.header("last-message-id")), (304, Some(&*last)));
    send(6);
    assert_eq!(numbers(&get(server.address(), &from_last)), [6]);
}

#[test]
fn k_035_polls_over_new_connections_that_reach_other_threads_miss_nothing() {
    /// Until every client has heard so many.
    const MESSAGES: u64 = 600;
    for engine in ["history.engine=memory", "history.engine=disk"] {
        let server = TestServer::with(&["server.shards=2", "timing.poll=2s", engine]);
        let (address, pair) = (server.address(), Pair::new(1));
        // Two clients at the same channels, which may stand at the same place.
        let polls = [1, 2].map(|count| held_as(&server, &request(&pair.signed(), ""), count));
        std::thread::scope(|scope| {
            for poll in polls {
                scope.spawn(move || {
                    let mut poll = poll;
                    let mut expected = 1;
                    let mut answers = 0;
                    while expected <= MESSAGES {
                        let answer = poll.answer();
                        answers += 1;
                        for number in numbers(&answer) {
                            assert_eq!(number, expected, "answer {answers}: {answer:?}");
                            expected += 1;
                        }
                        let mid = mids(&answer).pop().expect("no answer is empty");
                        poll = Connection::open(address);
                        poll.send(request(&pair.signed(), &format!("&mid={mid}")));
                    }
                    assert!(answers > 20, "only {answers} polls");
                });
            }
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                for number in 1..=MESSAGES {
                    // One of ten is stored; in bursts, so that messages come between polls as well as
                    // while they are held.
                    let expiry: &[&str] =
                        if number % 10 == 0 { &["Message-Expiry: 3600"] } else { &[] };
                    let target = format!("/bitrix/pub/?CHANNEL_ID={}", pair.private);
                    let body = format!(r#"{{"n":{number}}}"#);
                    connection.send(raw::post_bytes(&target, expiry, body.as_bytes()));
                    assert_eq!(connection.answer().status, 200);
                    if number % 7 == 0 {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                }
            });
        });
    }
}

#[test]
fn k_035_two_tabs_that_were_answered_alike_both_get_what_comes_between_their_polls() {
    let server = TestServer::with(&["server.shards=1", "timing.poll=1s"]);
    let pair = Pair::new(1);
    let mut tabs = [1, 2].map(|held| held_as(&server, &request(&pair.signed(), ""), held));
    let publish = |body: &str| publish(server.address(), &pair.private.to_string(), 0, body);
    publish(r#"{"n":1}"#);
    let answers = tabs.each_mut().map(|tab| tab.answer());
    publish(r#"{"n":2}"#);
    for (tab, answer) in tabs.iter_mut().zip(&answers) {
        let mid = mids(answer).pop().expect("one");
        tab.send(request(&pair.signed(), &format!("&mid={mid}")));
        assert_eq!(numbers(&tab.answer()), [2]);
    }
}

#[test]
fn a_client_that_only_repeats_one_poll_leaves_a_bounded_number_behind() {
    let server = TestServer::with(&["server.shards=1", "limits.outbox_messages=10"]);
    let pair = Pair::new(1);
    let mid = store(server.address(), pair, 1);
    let _ = store(server.address(), pair, 2);
    let mut connection = Connection::open(server.address());
    for _ in 0..200 {
        connection.send(request(&pair.signed(), &format!("&mid={mid}")));
        assert_eq!(numbers(&connection.answer()), [2]);
    }
    // Every one of them would run over its outbox and be given up.
    for n in 0..20 {
        publish(server.address(), &pair.private.to_string(), 0, &format!("{{\"n\":{n}}}"));
    }
    let given_up = metric(server.address(), "vestnik_slow_subscribers_total");
    assert!(given_up <= 16, "{given_up} polls were still gathering");
}

#[test]
fn a_poll_that_heard_nothing_because_of_a_limit_does_not_stand_in_for_the_history() {
    let settings = ["timing.poll=1s", "limits.connections_per_channel=1", "server.shards=1"];
    let server = TestServer::with(&settings);
    let pair = Pair::new(1);
    let mid = store(server.address(), pair, 1);
    let more = format!("&mid={mid}");
    // Each closes the one before, until the newest is the one that is deaf.
    let mut polls: Vec<Connection> = Vec::new();
    for number in 1..=21 {
        let mut poll = Connection::open(server.address());
        poll.send(request(&pair.signed(), &more));
        polls.push(poll);
        wait_for_metric(server.address(), "vestnik_evicted_connections_total", number - 1);
    }
    let deaf = polls.pop().expect("the last").answer();
    assert_eq!((deaf.status, deaf.header("last-message-id")), (304, Some(&*mid)));
    let _ = store(server.address(), pair, 2);
    let answer = get(server.address(), &target(&pair.signed(), &more));
    assert_eq!(numbers(&answer), [2]);
}

#[test]
fn more_between_two_polls_than_may_wait_comes_from_the_history() {
    let server = TestServer::with(&["server.shards=1", "limits.outbox_messages=3"]);
    let pair = Pair::new(1);
    let mut poll = held(&server, &pair.signed(), "");
    publish(server.address(), &pair.private.to_string(), 0, r#"{"n":0}"#);
    let mid = mids(&poll.answer()).remove(0);
    for number in 1..=6 {
        let body = format!(r#"{{"n":{number}}}"#);
        publish(server.address(), &pair.private.to_string(), KEPT_S, &body);
    }
    wait_for_presence(server.address(), pair, true);
    assert_eq!(metric(server.address(), "vestnik_slow_subscribers_total"), 0);
    let answer = get(server.address(), &target(&pair.signed(), &format!("&mid={mid}")));
    assert_eq!(numbers(&answer), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn q_097_an_upgrade_header_with_connection_close_is_a_poll() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let request = format!(
        "GET /bitrix/subws/?CHANNEL_ID={} HTTP/1.0\r\nHost: test\r\nUpgrade: websocket\r\n\
         Connection: close\r\n\r\n",
        pair.signed()
    );
    let mut poll = held_as(&server, &request, 1);
    publish(server.address(), &pair.private.to_string(), 0, r#"{"n":1}"#);
    let answer = poll.answer();
    assert_eq!(numbers(&answer), [1]);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(poll.is_closed());
}

#[test]
fn q_098_a_poll_that_its_client_gives_up_is_no_longer_online() {
    let server = TestServer::with(&["timing.presence_grace=5m"]);
    let pair = Pair::new(1);
    let mut poll = held(&server, &pair.signed(), "");
    wait_for_presence(server.address(), pair, true);
    poll.stream().shutdown(Shutdown::Both).expect("it is open");
    wait_for_presence(server.address(), pair, false);
}

#[test]
fn k_073_a_poller_is_online_between_its_polls_and_not_for_ever() {
    let server = TestServer::with(&["timing.presence_grace=2s"]);
    let pair = Pair::new(1);
    let mut poll = held(&server, &pair.signed(), "");
    publish(server.address(), &pair.private.to_string(), 0, r#"{"n":1}"#);
    assert_eq!(numbers(&poll.answer()), [1]);
    let answer = get(server.address(), &format!("/bitrix/pub/?CHANNEL_ID={}", pair.private));
    let online = format!(r#"{{"infos":[{{"channel":"{}","subscribers":1}}]}}"#, pair.private);
    assert_eq!(answer.text(), online);
    wait_for_presence(server.address(), pair, false);
}

#[test]
fn k_072_an_aborted_poll_does_not_swallow_a_message() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let position = store(server.address(), pair, 1);
    let more = format!("&mid={position}");
    // The message and the end of the poll race: whichever wins, the message is there again.
    for number in 2..12 {
        let mut poll = Connection::open(server.address());
        poll.send(request(&pair.signed(), &more));
        std::thread::scope(|scope| {
            scope.spawn(|| store(server.address(), pair, number));
            poll.stream().shutdown(Shutdown::Both).expect("it is open");
        });
        let again = get(server.address(), &target(&pair.signed(), &more));
        assert_eq!(numbers(&again), (2..=number).collect::<Vec<_>>());
    }
}

#[test]
fn q_175_q_127_w_006_k_013_a_poll_returns_all_that_is_ready() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let messages: Vec<_> = (1..=20)
        .map(|n| wire::incoming(&[wire::private_receiver(pair)], &format!(r#"{{"n":{n}}}"#), 0))
        .collect();
    let batch = publish_request(&messages);
    let send = |address| raw::post(address, "/bitrix/pub/?binaryMode=true", &[], &batch).status;
    let mut poll = held(&server, &pair.signed(), "");
    assert_eq!(send(server.address()), 200);
    let answer = poll.answer();
    assert_eq!(numbers(&answer), (1..=20).collect::<Vec<_>>());
    assert_eq!(answer.text().matches("#!NGINXNME!##!NGINXNMS!#").count(), 19, "concatenated");
    let mut poll = held(&server, &pair.signed(), "&binaryMode=true");
    send(server.address());
    assert_eq!(outgoing(&poll.answer().body).len(), 20);
    let mut poll = held(&server, &pair.signed(), "&format=json");
    send(server.address());
    let array: serde_json::Value = serde_json::from_slice(&poll.answer().body).expect("an array");
    assert_eq!(array.as_array().map(Vec::len), Some(20));
}

#[test]
fn q_099_an_evicted_poll_gets_429() {
    let server = TestServer::with(&["limits.connections_per_channel=1", "server.shards=2"]);
    let pair = Pair::new(1);
    let mut first = held(&server, &pair.signed(), "");
    let mut second = Connection::open(server.address());
    second.send(request(&pair.signed(), ""));
    let answer = first.answer();
    assert_eq!((answer.status, answer.text()), (429, "4029: Too many connections"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("Last-Message-Id"));
    publish(server.address(), &pair.private.to_string(), 0, r#"{"n":1}"#);
    assert_eq!(numbers(&second.answer()), [1], "the new one is served");
}

#[test]
fn k_040_a_poll_for_a_wrong_channel_is_refused_with_400() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let forged = format!("{}.{}", pair.private, "0".repeat(40));
    for channels in [forged, pair.private.to_string(), String::new()] {
        let answer = get(server.address(), &target(&channels, ""));
        assert_eq!((answer.status, answer.text()), (400, "4010: Wrong Channel Id."));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-expose-headers"), Some("Last-Message-Id"));
    }
}

#[test]
fn k_015_no_answer_with_200_is_empty() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let pair = Pair::new(1);
    // An empty publish and an empty batch reach nobody.
    let mut poll = held(&server, &pair.signed(), "");
    publish(server.address(), &pair.private.to_string(), 0, "");
    raw::post(server.address(), "/bitrix/pub/?binaryMode=true", &[], &field(1, &field(1, &[])));
    assert_eq!(poll.answer().status, 304);
}

#[test]
fn polls_with_different_heads_are_one_thing_to_the_server() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    // An old site checker: HTTP/1.0 and conditional headers (queue-server.md §15.4).
    let old = format!(
        "GET {} HTTP/1.0\r\nIf-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n\
         If-None-Match: 1\r\n\r\n",
        target(&pair.private_signed(), "")
    );
    let mut poll = held_as(&server, &old, 1);
    publish(server.address(), &pair.private.to_string(), 0, &"x".repeat(32));
    assert!(poll.answer().text().contains(&"x".repeat(32)));
    let answer = exchange(server.address(), "DELETE /bitrix/pub/ HTTP/1.0\r\n\r\n");
    assert_eq!(answer.status, 404);
}
