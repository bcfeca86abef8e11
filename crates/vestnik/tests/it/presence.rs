//! Who is online (queue-server.md §4.5, §7.8).

use crate::observe::{hold_poll, is_online, presence, until};
use crate::raw;
use crate::requests::{Field, ask, batch, channel_stats, fields, receiver};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;

/// `(id in hex, is private, is online)` of a binary answer; fails when a field is missing on the wire.
fn stats(body: &[u8]) -> Vec<(String, bool, bool)> {
    let responses = fields(body);
    let [(1, Field::Bytes(response))] = &responses[..] else { panic!("{responses:?}") };
    let commands = fields(response);
    let [(2, Field::Bytes(answer))] = &commands[..] else { panic!("{commands:?}") };
    let channel = |(number, field): (u32, Field)| {
        let Field::Bytes(channel) = field else { panic!("{field:?}") };
        assert_eq!(number, 1);
        let found = fields(&channel);
        let [(1, Field::Bytes(id)), (2, Field::Number(private)), (3, Field::Number(online))] =
            &found[..]
        else {
            panic!("{found:?}")
        };
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        (id, *private == 1, *online == 1)
    };
    fields(answer).into_iter().map(channel).collect()
}

#[test]
fn q_077_presence_lists_online_channels_in_order_and_as_often_as_asked() {
    let server = TestServer::start();
    let [a, b, c] = [1, 2, 3].map(Pair::new);
    let _a = Subscriber::open(server.address(), &format!("CHANNEL_ID={}", a.private_signed()));
    let _c = Subscriber::open(server.address(), &format!("CHANNEL_ID={}", c.private_signed()));
    let [a, b, c] = [a, b, c].map(|pair| pair.private.to_string());
    let target = format!("/bitrix/pub/?CHANNEL_ID={c}/{b}/{a}/{c}");
    let answer = raw::get(server.address(), &target);
    let one = |id: &str| format!(r#"{{"channel":"{id}","subscribers":1}}"#);
    let expected = format!(r#"{{"infos":[{},{},{}]}}"#, one(&c), one(&a), one(&c));
    assert_eq!((answer.status, answer.text()), (200, &*expected));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn q_078_nobody_online_is_an_empty_list_to_the_byte() {
    let server = TestServer::start();
    assert_eq!(presence(server.address(), &Pair::new(1).private.to_string()), r#"{"infos":[]}"#);
}

#[test]
fn q_079_no_channels_and_broken_lists_are_4017() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let unsigned = format!("?CHANNEL_ID={}:{}", pair.private, pair.public);
    for query in ["", "?", "?CHANNEL_ID=", "?CHANNEL_ID=x", "?channel_id=1", &unsigned] {
        for mode in ["", "&binaryMode=true"] {
            let mode = if query.is_empty() { "" } else { mode };
            let answer = raw::get(server.address(), &format!("/bitrix/pub/{query}{mode}"));
            assert_eq!(
                (answer.status, answer.text()),
                (400, "4017: No channels found."),
                "{query}"
            );
            assert_eq!(answer.header("content-type"), Some("text/plain"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
    }
}

#[test]
fn q_080_a_hundred_channels_pass_and_one_more_is_4018() {
    let server = TestServer::start();
    let list = |count| {
        let ids: Vec<_> = (0..count).map(|n| Pair::new(n).private.to_string()).collect();
        raw::get(server.address(), &format!("/bitrix/pub/?CHANNEL_ID={}", ids.join("/")))
    };
    assert_eq!(list(100).text(), r#"{"infos":[]}"#);
    let answer = list(101);
    let expected = "4018: Request exceeded the maximum number of channels.";
    assert_eq!((answer.status, answer.text()), (400, expected));
}

#[test]
fn q_081_in_binary_mode_every_channel_is_listed() {
    let server = TestServer::start();
    let [a, b] = [1, 2].map(Pair::new);
    let _a = Subscriber::open(server.address(), &format!("CHANNEL_ID={}", a.private_signed()));
    let target =
        format!("/bitrix/pub/?binaryMode=true&CHANNEL_ID={}/{}", b.private, a.private_signed());
    let answer = raw::get(server.address(), &target);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let expected = vec![(b.private.to_string(), true, false), (a.private.to_string(), true, true)];
    assert_eq!(stats(&answer.body), expected);
}

#[test]
fn q_082_q_083_binary_questions_are_answered_in_order_with_false_on_the_wire() {
    let server = TestServer::start();
    let [a, b] = [1, 2].map(Pair::new);
    let _a = Subscriber::open(server.address(), &format!("CHANNEL_ID={}", a.signed()));
    let channels = [
        receiver(a.public.as_bytes(), false, &[]),
        receiver(b.private.as_bytes(), true, &[]),
        receiver(a.private.as_bytes(), true, &[]),
        // A public id asked about as a private one is offline (Q-083).
        receiver(a.public.as_bytes(), true, &[]),
        receiver(a.public.as_bytes(), false, &[]),
    ];
    let answer = ask(server.address(), &batch(&[channel_stats(&channels)]));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let expected = vec![
        (a.public.to_string(), false, true),
        (b.private.to_string(), true, false),
        (a.private.to_string(), true, true),
        (a.public.to_string(), true, false),
        (a.public.to_string(), false, true),
    ];
    assert_eq!(stats(&answer.body), expected);
}

#[test]
fn q_084_presence_ends_when_a_connection_ends() {
    let server = TestServer::start();
    let address = server.address();
    let [a, b] = [1, 2].map(Pair::new);
    let list = format!("CHANNEL_ID={}/{}", a.signed(), b.private_signed());
    let socket = Subscriber::open(address, &list);
    assert!(is_online(address, a.private) && is_online(address, b.private));
    drop(socket);
    until("both are offline", || !is_online(address, a.private) && !is_online(address, b.private));
}

#[test]
fn q_098_a_poll_that_its_client_breaks_off_is_offline_at_once() {
    // The grace time would show as a failure: it is longer than the test waits.
    let server = TestServer::with(&["timing.presence_grace=5m"]);
    let pair = Pair::new(1);
    let poll = hold_poll(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    assert!(is_online(server.address(), pair.private));
    drop(poll);
    until("it is offline", || !is_online(server.address(), pair.private));
}
