//! Who gets which message, when, in which order and how often (queue-server.md §7).

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vestnik_core::Clock;

use crate::raw::{self, Connection, publish};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::traffic::{
    Message, To, batch, hold_poll, incoming, is_online, metric_of, publish_batch, text_messages,
    until,
};
use crate::websocket::Subscriber;

/// The position before everything.
const START: &str = "00000000000000000000000000";

fn channel(list: &str) -> String {
    format!("CHANNEL_ID={list}")
}

fn since(list: &str, mid: &str) -> String {
    format!("CHANNEL_ID={list}&mid={mid}")
}

/// What the history gives for a list after a position; something must be there.
fn replayed(server: &TestServer, list: &str, mid: &str) -> Vec<Message> {
    let answer = raw::get(server.address(), &format!("/bitrix/sub/?{}", since(list, mid)));
    assert_eq!(answer.status, 200, "{answer:?}");
    text_messages(answer.text())
}

fn bodies(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(|message| message.body.clone()).collect()
}

fn store(server: &TestServer, list: &str, body: impl std::fmt::Display) {
    assert_eq!(publish(server.address(), list, 600, &body.to_string()).status, 200);
}

fn say(server: &TestServer, list: &str, body: impl std::fmt::Display) {
    assert_eq!(publish(server.address(), list, 0, &body.to_string()).status, 200);
}

#[test]
fn q_135_q_137_messages_to_a_quiet_connection_go_out_at_once_also_after_a_burst() {
    let server = TestServer::start();
    let me = Pair::new(1).private_signed();
    let mut subscriber = Subscriber::open(server.address(), &channel(&me));
    let mut connection = Connection::open(server.address());
    let began = Instant::now();
    for round in 0..50 {
        for number in 0..5 {
            let target = format!("/bitrix/pub/?CHANNEL_ID={me}");
            let body = format!("[{round},{number}]");
            connection.send(raw::post_bytes(&target, &[], body.as_bytes()));
            assert_eq!(connection.answer().status, 200);
        }
        for number in 0..5 {
            assert_eq!(subscriber.next_text(), json!([round, number]));
        }
    }
    // A window of 400 ms after each first message, or any other timer, would take 20 s.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn q_136_what_is_ready_together_leaves_in_one_write() {
    const WRITES: &str = "vestnik_socket_writes_total";
    let server = TestServer::with(&["history.engine=memory"]);
    let me = Pair::new(1);
    let mut subscriber = Subscriber::open(server.address(), &channel(&me.signed()));
    let messages: Vec<_> =
        (0..20).map(|n| incoming(&[To::Private(me)], 600, &n.to_string())).collect();
    // The thread may look while a batch is being announced, which parts it; that is rare.
    let in_one_write = (0..10).any(|_| {
        let before = metric_of(server.address(), WRITES);
        assert_eq!(publish_batch(server.address(), &messages).status, 200);
        for number in 0..20 {
            assert_eq!(subscriber.next_text(), json!(number), "each event in its own frame");
        }
        metric_of(server.address(), WRITES) == before + 1
    });
    assert!(in_one_write);
}

#[test]
fn q_138_stored_messages_published_one_by_one_arrive_in_order() {
    let server = TestServer::start();
    let me = Pair::new(1).private_signed();
    let mut text = Subscriber::open(server.address(), &channel(&me));
    let mut connection = Connection::open(server.address());
    for number in 0..100 {
        let target = format!("/bitrix/pub/?CHANNEL_ID={me}");
        let body = number.to_string();
        connection.send(raw::post_bytes(&target, &["Message-Expiry: 60"], body.as_bytes()));
        assert_eq!(connection.answer().status, 200);
    }
    for number in 0..100 {
        assert_eq!(text.next_text(), json!(number));
    }
    let mut ids: Vec<_> =
        replayed(&server, &me, START).into_iter().map(|message| message.mid).collect();
    assert_eq!(ids.len(), 100);
    assert!(ids.is_sorted());
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

#[test]
fn q_139_a_private_receiver_reaches_all_connections_of_the_channel_on_all_threads() {
    let server = TestServer::with(&["server.shards=4"]);
    let me = Pair::new(1);
    let lists =
        [me.signed(), me.private_signed(), format!("{}/{}", me.signed(), Pair::new(2).signed())];
    let mut subscribers: Vec<_> = lists
        .iter()
        .cycle()
        .take(48)
        .map(|list| Subscriber::open(server.address(), &channel(list)))
        .collect();
    let mut polls: Vec<_> =
        (0..8).map(|_| hold_poll(server.address(), &channel(&me.private_signed()))).collect();
    for number in 0..3 {
        store(&server, &me.private_signed(), number);
    }
    for subscriber in &mut subscribers {
        assert_eq!([0, 1, 2].map(|_| subscriber.next_text()), [0, 1, 2]);
    }
    for poll in &mut polls {
        assert_eq!(text_messages(poll.answer().text())[0].body, 0);
    }
}

#[test]
fn q_140_q_141_a_public_receiver_reaches_those_who_presented_the_pair_and_nobody_else() {
    let server = TestServer::start();
    let me = Pair::new(1);
    let mut pair = [0, 1].map(|_| Subscriber::open(server.address(), &channel(&me.signed())));
    let mut private_only = Subscriber::open(server.address(), &channel(&me.private_signed()));
    let to_public = incoming(&[To::Public(me)], 0, "\"public\"");
    let to_private = incoming(&[To::Private(me)], 0, "\"private\"");
    assert_eq!(publish_batch(server.address(), &[to_public, to_private]).status, 200);
    for subscriber in &mut pair {
        assert_eq!(subscriber.next_text(), "public");
        assert_eq!(subscriber.next_text(), "private");
    }
    assert_eq!(private_only.next_text(), "private");
}

#[test]
fn q_142_messages_to_a_public_channel_are_replayed_to_its_owner() {
    let server = TestServer::start();
    let me = Pair::new(1);
    let messages = [
        incoming(&[To::Public(me)], 600, "\"public\""),
        incoming(&[To::Private(me)], 600, "\"private\""),
    ];
    assert_eq!(publish_batch(server.address(), &messages).status, 200);
    let both = replayed(&server, &me.signed(), START);
    assert_eq!(bodies(&both), ["public", "private"]);
    assert_eq!(bodies(&replayed(&server, &me.signed(), &both[0].mid)), ["private"]);
    assert_eq!(bodies(&replayed(&server, &me.private_signed(), START)), ["private"]);
}

#[test]
fn q_143_q_145_stored_messages_nobody_heard_are_replayed_and_volatile_ones_are_not() {
    let server = TestServer::start();
    let me = Pair::new(1).private_signed();
    store(&server, &me, 1);
    say(&server, &me, 2);
    store(&server, &me, 3);
    assert_eq!(bodies(&replayed(&server, &me, START)), [1, 3]);
    let mut socket = Subscriber::open(server.address(), &since(&me, START));
    assert_eq!([socket.next_text(), socket.next_text()], [1, 3]);
}

#[test]
fn w_007_a_volatile_message_reaches_whoever_is_connected_when_it_is_published() {
    let server = TestServer::with(&["timing.ping=1s"]);
    let me = Pair::new(1).private_signed();
    let mut reader = Subscriber::open(server.address(), &channel(&me));
    // It owes an answer to a ping: the original counts it as gone then.
    let ping = reader.socket().read().expect("a ping");
    assert!(matches!(ping, tungstenite::Message::Ping(_)), "{ping:?}");
    let mut newcomer = Subscriber::open(server.address(), &channel(&me));
    say(&server, &me, 1);
    assert_eq!(reader.next_text(), 1);
    assert_eq!(newcomer.next_text(), 1);
}

#[test]
fn q_144_q_178_w_011_expired_messages_leave_and_the_channel_lives_on() {
    const KEPT: &str = "vestnik_history_messages";
    let server = TestServer::start();
    let me = Pair::new(1).private_signed();
    assert_eq!(publish(server.address(), &me, 1, "1").status, 200);
    store(&server, &me, 2);
    until("the first message expires", || bodies(&replayed(&server, &me, START)) == [2]);
    until("its place is given back", || metric_of(server.address(), KEPT) == 1);
    store(&server, &me, 3);
    assert_eq!(bodies(&replayed(&server, &me, START)), [2, 3]);
}

#[test]
fn q_146_the_101st_connection_of_a_pair_closes_the_oldest_with_4029() {
    let server = TestServer::start();
    let me = channel(&Pair::new(1).signed());
    let mut connections: Vec<_> =
        (0..101).map(|_| Subscriber::open(server.address(), &me)).collect();
    assert_eq!(connections[0].close_reason(), (4029, "4029: Too many connections".to_owned()));
    say(&server, &Pair::new(1).private_signed(), 1);
    for subscriber in &mut connections[1..] {
        assert_eq!(subscriber.next_text(), 1, "the others stay");
    }
}

#[test]
fn q_146_many_connections_at_once_leave_exactly_as_many_as_allowed() {
    const OPEN: &str = "vestnik_connections_websocket";
    let server = TestServer::with(&["limits.connections_per_channel=10", "server.shards=2"]);
    let me = channel(&Pair::new(1).signed());
    let address = server.address();
    let connections: Vec<_> = std::thread::scope(|scope| {
        let opening: Vec<_> =
            (0..24).map(|_| scope.spawn(|| Subscriber::open(address, &me))).collect();
        opening.into_iter().map(|thread| thread.join().expect("it opens")).collect()
    });
    let mut closed = 0;
    let mut open: Vec<_> = connections.into_iter().collect();
    // Fewer than 20 evictions: the older ones go, at once (README D12).
    until("the surplus is closed", || {
        open.retain_mut(|subscriber| {
            let stream = subscriber.socket().get_ref();
            stream.set_nonblocking(true).expect("it is open");
            let is_quiet = stream.peek(&mut [0]).is_err();
            stream.set_nonblocking(false).expect("it is open");
            if !is_quiet {
                assert_eq!(subscriber.close_reason().0, 4029);
                closed += 1;
            }
            is_quiet
        });
        closed >= 14
    });
    assert_eq!(open.len(), 10);
    until("ten are left", || metric_of(address, OPEN) == 10);
    say(&server, &Pair::new(1).private_signed(), 1);
    for subscriber in &mut open {
        assert_eq!(subscriber.next_text(), 1);
    }
}

#[test]
fn q_146_a_poll_that_is_the_oldest_is_answered_429() {
    let server = TestServer::with(&["limits.connections_per_channel=2"]);
    let me = channel(&Pair::new(1).signed());
    let mut poll = hold_poll(server.address(), &me);
    let _others = [0, 1].map(|_| Subscriber::open(server.address(), &me));
    let answer = poll.answer();
    assert_eq!((answer.status, answer.text()), (429, "4029: Too many connections"));
}

#[test]
fn q_147_a_connection_hears_all_channels_of_its_list() {
    let server = TestServer::start();
    let pairs = [1, 2, 3].map(Pair::new);
    let list = pairs.map(Pair::signed).join("/");
    let mut socket = Subscriber::open(server.address(), &channel(&list));
    for (number, pair) in pairs.iter().enumerate() {
        say(&server, &pair.private_signed(), number);
        assert_eq!(socket.next_text(), json!(number));
        let public = incoming(&[To::Public(*pair)], 0, "\"public\"");
        assert_eq!(publish_batch(server.address(), &[public]).status, 200);
        assert_eq!(socket.next_text(), "public");
        let mut poll = hold_poll(server.address(), &channel(&list));
        say(&server, &pair.private_signed(), number);
        assert_eq!(bodies(&text_messages(poll.answer().text())), [json!(number)]);
        assert_eq!(socket.next_text(), json!(number));
    }
}

#[test]
fn q_176_w_008_messages_of_one_request_keep_their_order_stored_or_not() {
    let server = TestServer::start();
    let me = Pair::new(1);
    let mut socket = Subscriber::open(server.address(), &channel(&me.signed()));
    for round in 0..20 {
        let messages: Vec<_> = (0..8)
            .map(|n| incoming(&[To::Private(me)], if n % 2 == 0 { 600 } else { 0 }, &n.to_string()))
            .collect();
        assert_eq!(publish_batch(server.address(), &messages).status, 200);
        let mut last = String::new();
        for number in 0..8 {
            let mut event = socket.next_events().remove(0);
            assert_eq!(event["text"].take(), json!(number), "round {round}");
            let mid = event["mid"].as_str().expect("a mid").to_owned();
            assert!(mid > last);
            last = mid;
        }
    }
}

#[test]
fn q_179_the_position_of_a_poll_without_news_is_the_newest_id_also_after_it_expired() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let me = Pair::new(1).private_signed();
    let mut socket = Subscriber::open(server.address(), &channel(&me));
    store(&server, &me, 1);
    assert_eq!(publish(server.address(), &me, 1, "2").status, 200);
    socket.next();
    let newest = socket.next_events()[0]["mid"].as_str().expect("a mid").to_owned();
    until("the newest expires", || bodies(&replayed(&server, &me, START)) == [1]);
    let answer = raw::get(server.address(), &format!("/bitrix/sub/?{}", channel(&me)));
    assert_eq!(answer.status, 304);
    assert_eq!(answer.header("last-message-id"), Some(newest.as_str()));
}

#[test]
fn q_180_w_014_ids_do_not_go_back_when_the_store_is_lost() {
    let server = TestServer::start();
    let me = Pair::new(1).private_signed();
    for number in 0..100 {
        store(&server, &me, number);
    }
    let before = replayed(&server, &me, START).remove(99).mid;
    // Ids begin with the second in which their counter started.
    let epoch: u64 = before[..10].parse().expect("seconds");
    until("the second is over", || Clock::System.unix_s() > epoch);
    std::fs::remove_dir_all(server.data().join("history")).expect("the history is there");
    let server = server.crash_and_restart();
    let mut socket = Subscriber::open(server.address(), &since(&me, &before));
    store(&server, &me, "\"new\"");
    let event = socket.next_events().remove(0);
    assert_eq!(event["text"], "new", "a client with the old position still gets what is new");
    let after = event["mid"].as_str().expect("a mid").to_owned();
    assert!(after > before, "{after} {before}");
    assert_eq!(bodies(&replayed(&server, &me, &before)), ["new"]);
    let server = server.crash_and_restart();
    store(&server, &me, "\"newer\"");
    assert_eq!(bodies(&replayed(&server, &me, &after)), ["newer"]);
}

#[test]
fn q_183_w_018_a_client_addressed_several_times_gets_one_copy() {
    let server = TestServer::start();
    let (me, shared) = (Pair::new(1), Pair::new(2));
    let list = format!("{}/{}", me.signed(), shared.signed());
    let mut socket = Subscriber::open(server.address(), &channel(&list));
    let mut poll = hold_poll(server.address(), &channel(&list));
    let everywhere =
        [To::Private(me), To::Public(me), To::Private(shared), To::Private(me), To::Public(shared)];
    assert_eq!(publish_batch(server.address(), &[incoming(&everywhere, 600, "1")]).status, 200);
    let repeated = format!("{0}/{0}/{1}", me.private_signed(), shared.private_signed());
    store(&server, &repeated, 2);
    assert_eq!([socket.next_text(), socket.next_text()], [1, 2]);
    assert_eq!(text_messages(poll.answer().text())[0].body, json!(1));
    assert_eq!(bodies(&replayed(&server, &list, START)), [1, 2]);
}

#[test]
fn q_184_w_019_presence_covers_every_channel_of_a_connection_and_ends_with_it() {
    let server = TestServer::with(&["timing.presence_grace=1s"]);
    let pairs = [1, 2, 3].map(Pair::new);
    let list = channel(&pairs.map(Pair::signed).join("/"));
    let online = |server: &TestServer| pairs.map(|p| is_online(server.address(), p.private));
    let socket = Subscriber::open(server.address(), &list);
    assert_eq!(online(&server), [true; 3]);
    drop(socket);
    until("all are offline", || online(&server) == [false; 3]);
    let mut poll = hold_poll(server.address(), &list);
    assert_eq!(online(&server), [true; 3]);
    say(&server, &pairs[2].private_signed(), 1);
    assert_eq!(poll.answer().status, 200);
    assert_eq!(online(&server), [true; 3], "between two polls");
    until("all are offline", || online(&server) == [false; 3]);
}

#[test]
fn q_195_w_012_a_channel_keeps_its_newest_1000_messages_and_a_replay_brings_no_more() {
    let server = TestServer::start();
    let me = Pair::new(1);
    for request in 0..11 {
        let messages: Vec<_> = (0..100)
            .map(|n| incoming(&[To::Private(me)], 600, &(request * 100 + n).to_string()))
            .collect();
        assert_eq!(publish_batch(server.address(), &messages).status, 200);
    }
    let kept = replayed(&server, &me.signed(), START);
    let newest: Vec<_> = (100..1100).map(|number| json!(number)).collect();
    assert_eq!(bodies(&kept), newest);
    assert_eq!(metric_of(server.address(), "vestnik_history_messages"), 1000);
    assert_eq!(metric_of(server.address(), "vestnik_history_evicted_messages_total"), 100);
    assert!(metric_of(server.address(), "vestnik_recovery_gaps_total") > 0, "it is counted (D19)");
    let other = Pair::new(2);
    let messages: Vec<_> =
        (0..100).map(|n| incoming(&[To::Private(other)], 600, &n.to_string())).collect();
    assert_eq!(publish_batch(server.address(), &messages).status, 200);
    let both = replayed(&server, &format!("{}/{}", me.signed(), other.signed()), START);
    assert_eq!(both.len(), 1000, "the newest of both channels");
    assert_eq!(both[999].body, json!(99));
    assert_eq!(both[899].body, json!(1099));
}

#[test]
fn w_020_statistics_are_those_of_now() {
    let server = TestServer::start();
    let count = || {
        let stats = raw::get(server.address(), "/server-stat/");
        let stats: Value = serde_json::from_str(stats.text()).expect("an array");
        (stats[0]["websockets"].as_u64(), stats[0]["channels"].as_u64())
    };
    let sockets: Vec<_> = (1..4)
        .map(|n| Subscriber::open(server.address(), &channel(&Pair::new(n).signed())))
        .collect();
    assert_eq!(count(), (Some(3), Some(3)));
    drop(sockets);
    until("nobody is connected", || count() == (Some(0), Some(0)));
}

#[test]
fn w_032_a_history_that_cannot_be_read_harms_neither_poll_nor_process() {
    let server = TestServer::with(&["history.cache_bytes=0", "timing.poll=1s"]);
    let me = Pair::new(1).private_signed();
    store(&server, &me, 1);
    store(&server, &me, 2);
    assert_eq!(bodies(&replayed(&server, &me, START)), [1, 2], "read from a file");
    let files = std::fs::read_dir(server.data().join("history")).expect("the history is there");
    for file in files.map(|file| file.expect("a file").path()) {
        if file.metadata().expect("a file").len() > 0 {
            let file = std::fs::OpenOptions::new().write(true).open(file).expect("ours");
            file.set_len(0).expect("it is shortened");
        }
    }
    let mut connection = Connection::open(server.address());
    for _ in 0..2 {
        connection
            .send(format!("GET /bitrix/sub/?{} HTTP/1.1\r\nHost: test\r\n\r\n", since(&me, START)));
        // One answer each, on a connection that goes on.
        assert_eq!(connection.answer().status, 304);
    }
    let mut socket = Subscriber::open(server.address(), &since(&me, START));
    store(&server, &me, 3);
    assert_eq!(socket.next_text(), 3, "what is live is not held up");
}

#[test]
fn w_035_a_public_channel_leads_nowhere_once_its_pair_has_left() {
    let server = TestServer::start();
    let (me, renewed) = (Pair::new(1), Pair::new(2));
    let socket = Subscriber::open(server.address(), &channel(&me.signed()));
    drop(socket);
    until("it has left", || !is_online(server.address(), me.private));
    // The same private channel comes back without a public one, and with another.
    let new_pair = format!("{}:{}", me.private, renewed.public);
    let signed = format!("{new_pair}.{}", crate::sign::sign(&new_pair));
    let mut private_only = Subscriber::open(server.address(), &channel(&me.private_signed()));
    let mut other_public = Subscriber::open(server.address(), &channel(&signed));
    let messages = [
        incoming(&[To::Public(me)], 0, "\"to the old one\""),
        incoming(&[To::Public(renewed)], 0, "\"to the new one\""),
        incoming(&[To::Private(me)], 0, "\"to the private one\""),
    ];
    assert_eq!(publish_batch(server.address(), &messages).status, 200);
    assert_eq!(private_only.next_text(), "to the private one");
    assert_eq!(other_public.next_text(), "to the new one");
    assert_eq!(other_public.next_text(), "to the private one");
}

#[test]
fn w_042_what_one_connection_does_ends_no_other() {
    let server = TestServer::with(&["server.shards=1", "timing.poll=30s"]);
    let me = Pair::new(1);
    let mut witness = Subscriber::open(server.address(), &channel(&me.signed()));
    let mut poll = hold_poll(server.address(), &channel(&me.signed()));
    let huge = vec![b'x'; (1 << 20) + 1];
    let twice = format!("/bitrix/pub/?CHANNEL_ID={0}&CHANNEL_ID={0}", me.private_signed());
    let target = format!("/bitrix/pub/?CHANNEL_ID={}", me.private_signed());
    let requests = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /bitrix/pub/ HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\n"
            .to_vec(),
        b"POST /bitrix/pub/ HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            .to_vec(),
        raw::post_bytes(&twice, &[], b"1"),
        raw::post_bytes(&target, &[], &huge),
        raw::post_bytes("/bitrix/pub/?binaryMode=true", &[], &[0xff; 100]),
        raw::post_bytes("/bitrix/rest/", &[], b"\x0a\xff\xff\xff\xff\x0f"),
        format!(
            "GET /bitrix/sub/?CHANNEL_ID={}&mid={} HTTP/1.1\r\nHost: t\r\n\r\n",
            "a:b.c",
            "9".repeat(26)
        )
        .into_bytes(),
        format!("GET /bitrix/sub/?{} HTTP/1.1\r\n\r\n", "CHANNEL_ID=%".repeat(500)).into_bytes(),
    ];
    for request in &requests {
        let mut connection = Connection::open(server.address());
        // A server that has heard enough may close before the end.
        let _ = std::io::Write::write_all(connection.stream(), request);
        let _ = connection.stream().shutdown(std::net::Shutdown::Write);
        let _ = connection.try_answer();
    }
    let frames: [&[u8]; 5] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\xfe\xff\xff\0\0\0\0",
        b"\x81\x82\0\0\0\0\xc0\xaf",
        b"\x00\x80\0\0\0\0",
        b"\x88\x81\0\0\0\0\x03",
    ];
    for frame in frames {
        let other = Pair::new(2).signed();
        let query = format!("{}&binaryMode=true", channel(&other));
        let mut subscriber = Subscriber::open(server.address(), &query);
        let _ = std::io::Write::write_all(subscriber.socket().get_mut(), frame);
    }
    say(&server, &me.private_signed(), "\"all is well\"");
    assert_eq!(witness.next_text(), "all is well");
    assert_eq!(bodies(&text_messages(poll.answer().text())), ["all is well"]);
}

#[test]
fn k_050_system_commands_pass_unchanged_and_an_old_position_counts_on_new_channels() {
    let server = TestServer::start();
    let (old, new, shared) = (Pair::new(1), Pair::new(2), Pair::new(3));
    let list = format!("{}/{}", old.signed(), shared.private_signed());
    let mut socket = Subscriber::open(server.address(), &channel(&list));
    let command = |name: &str, params: &str| {
        format!(
            r#"{{"module_id":"pull","command":"{name}","params":{params},"extra":{{"server_time":"x"}}}}"#
        )
    };
    let commands = [
        command("server_restart", "{}"),
        command("config_expire", "[]"),
        command(
            "channel_expire",
            &format!(r#"{{"action":"reconnect","channel":{{"id":"{}"}}}}"#, old.private_signed()),
        ),
    ];
    let mut position = String::new();
    for command in &commands {
        store(&server, &old.private_signed(), command);
        let tungstenite::Message::Text(frame) = socket.next() else { panic!("a text frame") };
        assert!(frame.contains(&format!("\"text\":{command}")), "{frame}");
        position = text_messages(&frame)[0].mid.clone();
    }
    drop(socket);
    // Published before it is there with its new channel.
    store(&server, &new.private_signed(), "\"on the new channel\"");
    store(&server, &shared.private_signed(), "\"on the shared one\"");
    let list = format!("{}/{}", new.signed(), shared.private_signed());
    let mut socket = Subscriber::open(server.address(), &since(&list, &position));
    assert_eq!(socket.next_text(), "on the new channel");
    assert_eq!(socket.next_text(), "on the shared one");
}

#[test]
fn a_poll_over_a_client_request_hears_what_came_before_it_connected_only_by_its_position() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let me = Pair::new(1);
    let body = batch(&[incoming(&[To::SignedPublic(me)], 600, "1")]);
    let target = format!("/bitrix/rest/?CHANNEL_ID={}", Pair::new(2).signed());
    assert_eq!(raw::post(server.address(), &target, &[], &body).status, 200);
    let answer = raw::get(server.address(), &format!("/bitrix/sub/?{}", channel(&me.signed())));
    assert_eq!(answer.status, 304);
    let position = answer.header("last-message-id").expect("a position").to_owned();
    assert_eq!(replayed(&server, &me.signed(), START)[0].mid, position);
}

/// Spreading a mass `config_expire` over seconds is optional, and vestnik does not: events keep their
/// order, and a site that wants its clients to return slowly spreads what it publishes.
#[test]
fn k_053_config_expire_for_everybody_keeps_its_place_among_the_events() {
    let server = TestServer::start();
    let shared = Pair::new(1000);
    let mut subscribers: Vec<_> = (0..50)
        .map(|number| {
            let channels = format!("{}/{}", Pair::new(number).signed(), shared.private_signed());
            Subscriber::open(server.address(), &format!("CHANNEL_ID={channels}"))
        })
        .collect();
    let to = shared.private.to_string();
    for body in [
        r#"{"module_id":"im","command":"before","params":{}}"#,
        r#"{"module_id":"pull","command":"config_expire","params":{}}"#,
        r#"{"module_id":"im","command":"after","params":{}}"#,
    ] {
        assert_eq!(raw::publish(server.address(), &to, 60, body).status, 200);
    }
    for subscriber in &mut subscribers {
        let commands = [0; 3].map(|_| subscriber.next_text()["command"].clone());
        assert_eq!(commands, ["before", "config_expire", "after"]);
    }
}

#[test]
fn who_missed_more_than_may_wait_for_one_gets_it_in_parts_whole_and_in_order() {
    for engine in ["memory", "disk"] {
        let settings = [format!("history.engine={engine}"), "limits.outbox_bytes=64KiB".to_owned()];
        let server = TestServer::with(&settings.each_ref().map(String::as_str));
        let me = Pair::new(1).private_signed();
        let body = |number: usize| json!({"number": number, "rest": "x".repeat(10_000)});
        (0..12).for_each(|number| store(&server, &me, body(number)));
        let all: Vec<_> = (0..12).map(body).collect();

        let (mut heard, mut position, mut parts) = (Vec::new(), START.to_owned(), 0);
        while heard.len() < all.len() {
            parts += 1;
            assert!(parts <= all.len(), "each part is something");
            let mut subscriber = Subscriber::open(server.address(), &since(&me, &position));
            loop {
                match subscriber.next() {
                    tungstenite::Message::Text(text) => {
                        let events = text_messages(&text);
                        position.clone_from(&events.last().expect("an event").mid);
                        heard.extend(bodies(&events));
                    }
                    tungstenite::Message::Close(Some(frame)) => {
                        assert_eq!(u16::from(frame.code), 1001, "clients come back after it");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
                if heard.len() == all.len() {
                    break;
                }
            }
        }
        assert_eq!(heard, all, "{engine}");
        assert!(parts > 2, "it was not more than may wait");
        let given = metric_of(server.address(), "vestnik_partial_replays_total");
        assert_eq!(given, parts as u64 - 1);

        let (mut polled, mut position) = (Vec::new(), START.to_owned());
        while polled.len() < all.len() {
            let events = replayed(&server, &me, &position);
            position.clone_from(&events.last().expect("an event").mid);
            polled.extend(bodies(&events));
        }
        assert_eq!(polled, all, "{engine}");
    }
}

#[test]
fn parts_of_a_history_that_have_no_form_for_a_subscriber_do_not_keep_it_from_the_rest() {
    for engine in ["memory", "disk"] {
        let settings = [format!("history.engine={engine}"), "limits.outbox_bytes=64KiB".to_owned()];
        let server = TestServer::with(&settings.each_ref().map(String::as_str));
        let me = Pair::new(1).private_signed();
        // JSON-RPC connections get objects alone.
        (0..12).for_each(|_| store(&server, &me, json!(["x".repeat(10_000)])));
        store(&server, &me, json!({"number": 1}));
        let query = format!("{}&jsonRpc=true", since(&me, START));
        let mut subscriber = Subscriber::open(server.address(), &query);
        let text = loop {
            match subscriber.next() {
                tungstenite::Message::Text(text) if text.as_str() == "ping" => {}
                tungstenite::Message::Text(text) => break text,
                other => panic!("{other:?}"),
            }
        };
        assert!(text.contains(r#"{"number":1}"#), "{text}");
        assert_eq!(metric_of(server.address(), "vestnik_partial_replays_total"), 0);
    }
}
