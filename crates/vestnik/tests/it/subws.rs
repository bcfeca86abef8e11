//! WebSocket connections as clients see them: the handshake, requests, replay, pings, limits, and
//! connections that say nothing.

use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::long_poll::{metric, store, wait_for_metric, wait_for_presence};
use crate::raw::{self, Connection, WAIT, exchange, publish};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::{Subscriber, handshake};
use crate::wire::{
    self, Frame, KEPT_S, RawSocket, client_close, client_frame, field, incoming, number_field,
    outgoing, private_receiver, public_receiver, publish_request, stats_answer, stats_request,
};

const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn query(pair: Pair, more: &str) -> String {
    format!("CHANNEL_ID={}{more}", pair.signed())
}

fn binary(server: &TestServer, pair: Pair) -> RawSocket {
    RawSocket::open(server.address(), &query(pair, "&binaryMode=true"))
}

fn text(server: &TestServer, pair: Pair) -> RawSocket {
    RawSocket::open(server.address(), &query(pair, ""))
}

/// Waits until a round trip on the connection is done: whatever was sent before is read.
fn sync(socket: &mut RawSocket) {
    socket.send(client_frame(PING, b"sync"));
    assert_eq!(socket.next(), Some(Frame { first: PONG, payload: b"sync".to_vec() }));
}

/// The next frame must be a close with this code and reason.
fn assert_close(socket: &mut RawSocket, code: u16, reason: &str) {
    let frame = socket.next_data();
    assert_eq!(frame.close(), Some((code, reason)), "{frame:?}");
    socket.send(client_close(code, b""));
    assert!(socket.is_ended());
}

/// The `n` of the body of the next text frame with one event.
fn next_number(socket: &mut RawSocket) -> u64 {
    let frame = socket.next_data();
    assert_eq!(frame.first, 0x81, "{frame:?}");
    let events = raw::events(std::str::from_utf8(&frame.payload).expect("text"));
    assert_eq!(events.len(), 1, "one event per frame");
    events[0]["text"]["n"].as_u64().expect("a number")
}

fn publish_number(server: &TestServer, pair: Pair, number: u64) {
    let body = format!(r#"{{"n":{number}}}"#);
    assert_eq!(publish(server.address(), &pair.private.to_string(), 0, &body).status, 200);
}

#[test]
fn q_100_q_104_k_005_an_accepted_handshake_has_exactly_three_headers() {
    let server = TestServer::start();
    let target = format!("/bitrix/subws/?{}", query(Pair::new(1), ""));
    let plain = handshake(&target);
    // Subprotocols and extensions are offered in vain.
    let offers = "Sec-WebSocket-Protocol: binary, chat\r\n\
                  Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
                  Origin: https://portal.test\r\n\r\n";
    let offering = plain.replace("\r\n\r\n", &format!("\r\n{offers}"));
    let version_8 = plain.replace("Version: 13", "Version: 8");
    let several = plain.replace("Connection: Upgrade", "connection: keep-alive, uPGRADE");
    for request in [&plain, &offering, &version_8, &several] {
        for is_kept in [false, true] {
            let mut connection = Connection::open(server.address());
            if is_kept {
                connection.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
                assert_eq!(connection.answer().status, 200);
            }
            connection.send(request);
            let head = connection.answer().head;
            let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
            assert_eq!(lines.remove(0), "HTTP/1.1 101 Switching Protocols");
            lines.retain(|line| !(is_kept && line.starts_with("Date: ")));
            lines.sort_unstable_by_key(|line| line.to_lowercase());
            let [connection, accept, upgrade] = lines[..] else { panic!("{head}") };
            assert!(connection.eq_ignore_ascii_case("Connection: Upgrade"), "{head}");
            assert!(upgrade.eq_ignore_ascii_case("Upgrade: websocket"), "{head}");
            let (name, value) = accept.split_once(": ").expect("a header");
            assert!(name.eq_ignore_ascii_case("Sec-WebSocket-Accept"), "{head}");
            assert_eq!(value, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        }
    }
}

#[test]
fn q_101_k_040_a_handshake_for_a_wrong_channel_is_refused() {
    let server = TestServer::start();
    let forged = format!("{}.{}", Pair::new(1).private, "0".repeat(40));
    for channels in [format!("CHANNEL_ID={forged}"), "CHANNEL_ID=".into(), "x=1".into()] {
        let mut connection = Connection::open(server.address());
        connection.send(handshake(&format!("/bitrix/subws/?{channels}")));
        let answer = connection.answer();
        assert_eq!((answer.status, answer.text()), (400, "Wrong Channel Id."));
        assert_eq!(answer.header("content-length"), Some("17"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert!(connection.is_closed());
    }
}

#[test]
fn q_102_q_103_what_is_no_handshake_for_us_is_refused() {
    let server = TestServer::start();
    let good = handshake(&format!("/bitrix/subws/?{}", query(Pair::new(1), "")));
    for (wanted, other) in [
        ("/bitrix/subws/?", "/bitrix/subws/x?"),
        ("/bitrix/subws/?", "/bitrix/subws?"),
        ("/bitrix/subws/?", "/bitrix/pub/?"),
        ("Version: 13", "Version: 12"),
        ("Version: 13", "Version: 0"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("GET ", "POST "),
        ("Upgrade: websocket", "Upgrade: h2c"),
    ] {
        let answer = exchange(server.address(), good.replace(wanted, other));
        assert_eq!((answer.status, answer.text()), (400, "Bad Request"), "{other}");
        assert_eq!(answer.header("content-length"), Some("11"), "{other}");
    }
    assert_eq!(exchange(server.address(), good).status, 101);
}

#[test]
fn q_105_k_001_the_mode_decides_the_kind_of_frame() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut sockets = [
        text(&server, pair),
        binary(&server, pair),
        RawSocket::open(server.address(), &query(pair, "&binaryMode=1")),
        RawSocket::open(server.address(), &query(pair, "&format=json")),
    ];
    publish_number(&server, pair, 1);
    let first = sockets.each_mut().map(|socket| socket.next_data().first);
    assert_eq!(first, [0x81, 0x82, 0x81, 0x81]);
}

#[test]
fn q_106_k_025_a_text_frame_from_a_binary_client_is_wrong_data() {
    let server = TestServer::start();
    let mut socket = binary(&server, Pair::new(1));
    socket.send(client_frame(0x81, br#"{"subscribe":1}"#));
    let frame = socket.next().expect("a close");
    let wanted = [&[0x0f, 0xad][..], b"4013: Wrong Request Data."].concat();
    assert_eq!(frame, Frame { first: 0x88, payload: wanted });
}

#[test]
fn q_107_k_025_frames_from_a_text_client_are_ignored() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket = text(&server, pair);
    for payload in [&b""[..], b"ping", b"null", b"mack:1", &stats_request(&[pair])] {
        socket.send(client_frame(0x82, payload));
        if std::str::from_utf8(payload).is_ok() {
            socket.send(client_frame(0x81, payload));
        }
    }
    publish_number(&server, pair, 1);
    assert_eq!(next_number(&mut socket), 1);
}

/// One bad request with the code and reason it is closed with.
fn errors(pair: Pair, other: Pair) -> Vec<(Vec<u8>, u16, &'static str)> {
    let message = |receivers: &[Vec<u8>]| incoming(receivers, r#"{"module_id":"im"}"#, 0);
    let good = public_receiver(other);
    let unsigned = field(1, other.public.as_bytes());
    let private = [private_receiver(other), field(3, &other.public_signature())].concat();
    let stats = |channel: &[u8]| field(1, &field(2, &field(1, channel)));
    vec![
        (Vec::new(), 4013, "4013: Wrong Request Data."),
        (b"\xff\xff\xff".to_vec(), 4013, "4013: Wrong Request Data."),
        (field(1, &[]), 4013, "4013: Wrong Request Data."),
        (field(1, &field(3, &[])), 4014, "4014: Request command is not allowed."),
        (
            publish_request(&vec![message(std::slice::from_ref(&good)); 101]),
            4016,
            "4016: Request exceeded the maximum number of messages.",
        ),
        (publish_request(&[message(&[])]), 4017, "4017: No channels found."),
        (field(1, &field(2, &[])), 4017, "4017: No channels found."),
        (
            publish_request(&[message(&vec![good.clone(); 101])]),
            4018,
            "4018: Request exceeded the maximum number of channels.",
        ),
        (
            stats_request(&[pair; 101]),
            4018,
            "4018: Request exceeded the maximum number of channels.",
        ),
        (publish_request(&[message(&[private])]), 4020, "4020: Private channel is not allowed."),
        (stats(&private_receiver(pair)), 4020, "4020: Private channel is not allowed."),
        (
            publish_request(&[message(std::slice::from_ref(&unsigned))]),
            4021,
            "4021: Channel has an invalid signature.",
        ),
        (
            publish_request(&[message(&[good, unsigned.clone()])]),
            4021,
            "4021: Channel has an invalid signature.",
        ),
        (stats(&unsigned), 4021, "4021: Channel has an invalid signature."),
    ]
}

#[test]
fn q_108_q_111_q_112_w_033_every_error_closes_its_own_connection_and_no_other() {
    let server = TestServer::start();
    let [pair, other] = [Pair::new(1), Pair::new(2)];
    let mut bystander = text(&server, pair);
    let mut receiver = text(&server, other);
    for (request, code, reason) in errors(pair, other) {
        let mut socket = binary(&server, pair);
        socket.send(client_frame(BINARY, &request));
        assert_close(&mut socket, code, reason);
        sync(&mut bystander);
        // Nothing of a bad request is delivered (Q-062).
        sync(&mut receiver);
    }
}

#[test]
fn q_117_a_client_without_public_id_may_ask_nothing() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let channels = format!("CHANNEL_ID={}&binaryMode=true", pair.private_signed());
    // It comes before everything else (queue-server.md §6).
    for request in [stats_request(&[pair]), Vec::new(), field(1, &field(3, &[]))] {
        let mut socket = RawSocket::open(server.address(), &channels);
        socket.send(client_frame(BINARY, &request));
        assert_close(&mut socket, 4012, "4012: Public Channel Id is Required.");
    }
}

#[test]
fn k_051_clients_cannot_send_in_the_name_of_the_server() {
    let server = TestServer::start();
    let [pair, other] = [Pair::new(1), Pair::new(2)];
    let mut victim = text(&server, other);
    for module in ["pull", "online", "PULL", "Online"] {
        let body = format!(r#"{{"module_id":"{module}","command":"config_expire"}}"#);
        let fine = incoming(&[public_receiver(other)], r#"{"module_id":"im"}"#, 0);
        let forged = incoming(&[public_receiver(other)], &body, 0);
        let mut socket = binary(&server, pair);
        socket.send(client_frame(BINARY, &publish_request(&[fine, forged])));
        assert_close(&mut socket, 4013, "4013: Wrong Request Data.");
        sync(&mut victim);
    }
}

#[test]
fn q_118_q_119_questions_are_answered_in_order_and_messages_are_not() {
    let server = TestServer::start();
    let [pair, other] = [Pair::new(1), Pair::new(2)];
    let mut socket = binary(&server, pair);
    let message = incoming(&[public_receiver(other)], r#"{"module_id":"im"}"#, 0);
    socket.send(client_frame(BINARY, &publish_request(&[message])));
    socket.send(client_frame(BINARY, &stats_request(&[other, pair, other])));
    let frame = socket.next().expect("the answer to the question only");
    let wanted = stats_answer(&[(other, false), (pair, true), (other, false)]);
    assert_eq!(frame, Frame { first: BINARY, payload: wanted });
    sync(&mut socket);
}

#[test]
fn q_121_q_133_k_020_a_sender_hears_itself_on_its_own_public_channel() {
    let server = TestServer::start();
    let [pair, other] = [Pair::new(1), Pair::new(2)];
    let mut sender = binary(&server, pair);
    let mut receiver = binary(&server, other);
    let body = r#"{"module_id":"im","command":"typing"}"#;
    let to = [public_receiver(pair), public_receiver(other)];
    sender.send(client_frame(BINARY, &publish_request(&[incoming(&to, body, 0)])));
    for socket in [&mut sender, &mut receiver] {
        let frame = socket.next_data();
        let messages = outgoing(&frame.payload);
        let [message] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(message.body, body);
        let author = [number_field(1, 1), field(2, pair.public.as_bytes())].concat();
        assert_eq!(message.sender, author, "type CLIENT and 16 bytes of id");
    }
}

#[test]
fn q_120_k_030_a_return_with_a_position_replays_in_order_before_anything_live() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let first = store(server.address(), pair, 1);
    for number in 2..=6 {
        store(server.address(), pair, number);
    }
    let mid = format!("&mid={first}");
    let mut text = RawSocket::open(server.address(), &query(pair, &mid));
    let mut json = RawSocket::open(server.address(), &query(pair, &format!("&format=json{mid}")));
    let mut binary =
        RawSocket::open(server.address(), &query(pair, &format!("&binaryMode=true{mid}")));
    publish_number(&server, pair, 7);
    for number in 2..=7 {
        assert_eq!(next_number(&mut text), number);
        let array: serde_json::Value =
            serde_json::from_slice(&json.next_data().payload).expect("an array");
        assert_eq!(array.as_array().map(Vec::len), Some(1));
        assert_eq!(array[0]["text"]["n"], number);
    }
    let replay = outgoing(&binary.next_data().payload);
    let mids: Vec<_> = replay.iter().map(wire::Outgoing::mid).collect();
    assert!(mids.is_sorted() && mids[0] > first, "{mids:?}");
    let mut bodies: Vec<_> = replay.into_iter().map(|it| it.body).collect();
    // The live one may have been there in time for the same frame.
    if bodies.len() < 6 {
        assert_eq!(bodies.len(), 5, "the replay is one response");
        bodies.extend(outgoing(&binary.next_data().payload).into_iter().map(|it| it.body));
    }
    assert_eq!(bodies, [2, 3, 4, 5, 6, 7].map(|n| format!(r#"{{"n":{n}}}"#)));
    for socket in [&mut text, &mut json, &mut binary] {
        sync(socket);
    }
}

#[test]
fn q_120_a_long_replay_is_cut_into_responses_of_64_kib_and_a_larger_message_goes_alone() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let first = store(server.address(), pair, 1);
    let large = format!(r#"{{"n":2,"x":"{}"}}"#, "y".repeat(100_000));
    publish(server.address(), &pair.private.to_string(), KEPT_S, &large);
    let medium = format!(r#"{{"n":3,"x":"{}"}}"#, "y".repeat(20_000));
    for _ in 0..8 {
        publish(server.address(), &pair.private.to_string(), KEPT_S, &medium);
    }
    let more = format!("&binaryMode=true&mid={first}");
    let mut socket = RawSocket::open(server.address(), &query(pair, &more));
    let alone = outgoing(&socket.next_data().payload);
    assert_eq!((alone.len(), &alone[0].body), (1, &large));
    let mut rest = 0;
    while rest < 8 {
        let frame = socket.next_data();
        assert!(frame.payload.len() <= 64 * 1024);
        rest += outgoing(&frame.payload).len();
    }
    sync(&mut socket);
}

#[test]
fn q_113_k_060_k_062_pings_come_with_their_payload_and_nothing_else_is_sent() {
    let options = include_str!("../../../../docs/options.md");
    let line = options.lines().find(|line| line.starts_with("| `ping` ")).expect("the option");
    assert!(line.contains("`\"120s\"`"), "{line}");
    let server = TestServer::with(&["timing.ping=1s"]);
    let mut sockets = [text(&server, Pair::new(1)), binary(&server, Pair::new(2))];
    for _ in 0..3 {
        for socket in &mut sockets {
            let ping = socket.next().expect("a ping");
            assert_eq!(ping, Frame { first: PING, payload: b"ws ping".to_vec() });
            socket.send(client_frame(PONG, &ping.payload));
        }
    }
}

#[test]
fn q_114_k_060_who_does_not_answer_a_ping_is_dropped_by_the_next() {
    let server = TestServer::with(&["timing.ping=1s"]);
    let pair = Pair::new(1);
    let mut socket = text(&server, pair);
    let ping = socket.next().expect("a ping");
    socket.send(client_frame(PONG, &ping.payload));
    assert_eq!(socket.next().expect("a second ping").first, PING);
    assert!(socket.is_ended(), "no close frame, no third ping");
    wait_for_presence(server.address(), pair, false);
}

#[test]
fn a_client_that_vanishes_without_a_word_is_found_by_its_ping() {
    let server = TestServer::with(&["timing.ping=1s"]);
    let pair = Pair::new(1);
    let silent = text(&server, pair).into_stream();
    wait_for_presence(server.address(), pair, true);
    wait_for_presence(server.address(), pair, false);
    wait_for_metric(server.address(), "vestnik_connections_websocket", 0);
    drop(silent);
}

#[test]
fn q_173_w_004_no_message_is_dropped_between_ping_and_pong() {
    let server = TestServer::with(&["timing.ping=1s"]);
    let pair = Pair::new(1);
    let mut socket = text(&server, pair);
    assert_eq!(socket.next().expect("a ping").first, PING);
    for number in 1..=3 {
        publish_number(&server, pair, number);
        assert_eq!(next_number(&mut socket), number);
    }
    socket.send(client_frame(PONG, b"ws ping"));
    publish_number(&server, pair, 4);
    assert_eq!(next_number(&mut socket), 4);
}

#[test]
fn q_174_w_005_what_waits_is_written_before_a_close() {
    let server = TestServer::start();
    let [pair, other] = [Pair::new(1), Pair::new(2)];
    let mut socket = binary(&server, pair);
    let messages: Vec<_> = (0..50)
        .map(|n| incoming(&[public_receiver(pair)], &format!(r#"{{"n":{n}}}"#), 0))
        .collect();
    // One segment: messages to itself, then an error.
    let bad = client_frame(BINARY, &[]);
    socket.send([client_frame(BINARY, &publish_request(&messages[..1])), bad.clone()].concat());
    let (mut bodies, mut reason) = (0, None);
    while let Some(frame) = socket.next() {
        match frame.close() {
            Some((code, _)) => reason = Some(code),
            None => bodies += outgoing(&frame.payload).len(),
        }
        if reason.is_some() {
            socket.send(client_close(1000, b""));
        }
    }
    assert_eq!(reason, Some(4013));
    assert!(bodies <= 1);
    // A reader that pauses: everything is in its outbox when the close comes.
    let mut slow = binary(&server, other);
    let large = format!(r#"{{"x":"{}"}}"#, "y".repeat(100_000));
    for _ in 0..30 {
        publish(server.address(), &other.private.to_string(), 0, &large);
    }
    slow.send(bad);
    let mut bodies = 0;
    let code = loop {
        let frame = slow.next_data();
        match frame.close() {
            Some((code, _)) => break code,
            None => bodies += outgoing(&frame.payload).len(),
        }
    };
    assert_eq!((bodies, code), (30, 4013));
}

#[test]
fn k_043_the_server_never_closes_with_1000_by_itself() {
    let server = TestServer::start();
    let mut sockets = [text(&server, Pair::new(1)), binary(&server, Pair::new(2))];
    sockets.iter_mut().for_each(sync);
    server.signal("TERM");
    for socket in &mut sockets {
        assert_close(socket, 1001, "");
    }
    assert!(server.wait().0.success());
}

#[test]
fn k_008_a_connection_without_revision_is_served_like_one_with_it() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut mobile = text(&server, pair);
    let mut web = RawSocket::open(server.address(), &query(pair, "&revision=19"));
    publish_number(&server, pair, 1);
    assert_eq!([next_number(&mut mobile), next_number(&mut web)], [1, 1]);
    server.signal("TERM");
    assert_close(&mut mobile, 1001, "");
    assert_close(&mut web, 1001, "");
}

#[test]
fn q_146_q_185_w_021_one_connection_too_many_closes_the_oldest_over_all_shards() {
    for limit in [1_usize, 2, 5] {
        let setting = format!("limits.connections_per_channel={limit}");
        let server = TestServer::with(&[&setting, "server.shards=2"]);
        let pair = Pair::new(1);
        let mut sockets: Vec<RawSocket> = Vec::new();
        for number in 0..10 {
            // Private ids alone do not count.
            let channels = format!("CHANNEL_ID={}", pair.private_signed());
            let mut uncounted = RawSocket::open(server.address(), &channels);
            let mut socket = text(&server, pair);
            sync(&mut socket);
            sockets.push(socket);
            if sockets.len() > limit {
                assert_close(&mut sockets.remove(0), 4029, "4029: Too many connections");
            }
            publish_number(&server, pair, number);
            for socket in sockets.iter_mut().chain([&mut uncounted]) {
                assert_eq!(next_number(socket), number, "limit {limit}");
            }
        }
    }
}

#[test]
fn q_146_newcomers_at_the_same_moment_leave_exactly_as_many_as_allowed() {
    let server = TestServer::with(&["limits.connections_per_channel=2", "server.shards=2"]);
    let (address, pair) = (server.address(), Pair::new(1));
    let sockets: Vec<_> = std::thread::scope(|scope| {
        let open: Vec<_> = (0..12)
            .map(|_| scope.spawn(move || RawSocket::open(address, &query(pair, ""))))
            .collect();
        open.into_iter().map(|it| it.join().expect("it opens")).collect()
    });
    // Those who are told to go, go.
    wait_for_metric(address, "vestnik_evicted_connections_total", 10);
    publish_number(&server, pair, 1);
    let mut served = 0;
    for mut socket in sockets {
        let frame = socket.next_data();
        match frame.close() {
            Some(close) => assert_eq!(close, (4029, "4029: Too many connections")),
            None => served += 1,
        }
    }
    assert_eq!(served, 2);
}

#[test]
fn q_099_polls_and_sockets_share_the_limit_of_their_channel() {
    let server = TestServer::with(&["limits.connections_per_channel=1", "server.shards=2"]);
    let pair = Pair::new(1);
    let request = format!("GET /bitrix/sub/?{} HTTP/1.1\r\nHost: test\r\n\r\n", query(pair, ""));
    let mut socket = text(&server, pair);
    sync(&mut socket);
    let mut poll = Connection::open(server.address());
    poll.send(&request);
    assert_close(&mut socket, 4029, "4029: Too many connections");
    let mut socket = text(&server, pair);
    assert_eq!(poll.answer().status, 429);
    publish_number(&server, pair, 1);
    assert_eq!(next_number(&mut socket), 1);
}

#[test]
fn k_044_tabs_that_chase_each_other_are_slowed_down() {
    let server = TestServer::with(&["limits.connections_per_channel=1"]);
    let pair = Pair::new(1);
    let mut current = text(&server, pair);
    for _ in 1..20 {
        let mut next = text(&server, pair);
        assert_close(&mut current, 4029, "4029: Too many connections");
        sync(&mut next);
        current = next;
    }
    // The twentieth eviction within a minute hits the newcomer, after a pause.
    let begun = Instant::now();
    let mut refused = text(&server, pair);
    assert_close(&mut refused, 4029, "4029: Too many connections");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    publish_number(&server, pair, 1);
    assert_eq!(next_number(&mut current), 1, "the old one stays");
}

#[test]
fn k_044_limits_of_address_and_total_refuse_the_new_connection_after_a_pause() {
    std::thread::scope(|scope| {
        for limit in ["limits.connections=1", "limits.connections_per_address=1"] {
            scope.spawn(move || {
                let server = TestServer::with(&[limit]);
                let [one, two] = [Pair::new(1), Pair::new(2)];
                let mut first = text(&server, one);
                sync(&mut first);
                let begun = Instant::now();
                let mut second = text(&server, two);
                publish_number(&server, two, 1);
                assert_close(&mut second, 4029, "4029: Too many connections");
                assert!(begun.elapsed() >= Duration::from_secs(3), "{limit}");
                publish_number(&server, one, 1);
                assert_eq!(next_number(&mut first), 1);
                first.hang_up();
                wait_for_metric(server.address(), "vestnik_connections_websocket", 0);
                sync(&mut text(&server, two));
            });
        }
    });
}

#[test]
fn k_045_a_refused_handshake_is_final_so_that_old_clients_wait() {
    // The delay of 15 s is the client's own; what it hangs on is status 400 before any open.
    let server = TestServer::start();
    let forged = format!("CHANNEL_ID={}.{}", Pair::new(1).private, "0".repeat(40));
    let refused = Subscriber::try_open(server.address(), &forged).err().expect("refused");
    assert_eq!((refused.status, refused.header("connection")), (400, Some("close")));
}

#[test]
fn a_client_that_asks_and_does_not_read_is_closed_before_it_fills_memory() {
    let server = TestServer::with(&["limits.outbox_bytes=64KiB"]);
    let pair = Pair::new(1);
    let mut socket = binary(&server, pair);
    let questions = client_frame(BINARY, &stats_request(&[pair; 100])).repeat(8);
    socket.configure(|stream| stream.set_write_timeout(Some(Duration::from_millis(200))));
    let until = Instant::now() + WAIT;
    while metric(server.address(), "vestnik_slow_subscribers_total") == 0 {
        assert!(Instant::now() < until, "it is never too much");
        socket.try_send(&questions);
    }
}

/// Waits until the server closes the connection without a byte.
fn assert_dropped(connection: &mut Connection) {
    assert!(connection.is_closed());
}

#[test]
fn who_connects_and_does_not_finish_a_request_head_is_dropped() {
    let server = TestServer::with(&["timing.head=1s"]);
    let starts = ["", "G", "GET /bitrix/sub/?CHANNEL_ID=", "GET / HTTP/1.1\r\nHost: te"];
    let mut connections: Vec<_> = starts
        .iter()
        .map(|start| {
            let mut connection = Connection::open(server.address());
            connection.send(start);
            connection
        })
        .collect();
    connections.iter_mut().for_each(assert_dropped);
    // Neither does a byte now and then buy more time.
    let mut slow = Connection::open(server.address());
    let stream = slow.stream();
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let until = Instant::now() + WAIT;
    loop {
        assert!(Instant::now() < until, "it is never dropped");
        let sent = std::io::Write::write_all(stream, b"x");
        match stream.read(&mut [0; 16]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => break,
            Ok(read) => panic!("{read} bytes, {sent:?}"),
        }
    }
}

#[test]
fn a_head_may_come_in_single_bytes() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut connection = Connection::open(server.address());
    for byte in handshake(&format!("/bitrix/subws/?{}", query(pair, ""))).as_bytes() {
        connection.send([*byte]);
    }
    let mut socket = RawSocket::upgraded(connection);
    sync(&mut socket);
}

fn status_of(address: SocketAddr, request: &str) -> u16 {
    exchange(address, request).status
}

#[test]
fn heads_that_are_too_long_are_refused() {
    let server = TestServer::start();
    let line = "x".repeat(20 * 1024);
    let fits = "x".repeat(15 * 1024);
    let address = server.address();
    let get = |target: &str, header: &str| {
        format!("GET /healthz{target} HTTP/1.1\r\nHost: test\r\n{header}\r\n")
    };
    assert_eq!(status_of(address, &get(&format!("?{fits}"), "")), 200);
    assert_eq!(status_of(address, &get("", &format!("X: {fits}\r\n"))), 200);
    assert_eq!(status_of(address, &get(&format!("?{line}"), "")), 414);
    assert_eq!(status_of(address, &get("", &format!("X: {line}\r\n"))), 431);
    let many = |count: usize| "X: 1\r\n".repeat(count);
    assert_eq!(status_of(address, &get("", &many(63))), 200);
    assert_eq!(status_of(address, &get("", &many(64))), 431);
    // A handshake is no exception.
    let good = handshake(&format!("/bitrix/subws/?{}", query(Pair::new(1), "")));
    let with = |header: &str| good.replace("\r\n\r\n", &format!("\r\n{header}\r\n"));
    assert_eq!(status_of(address, &with(&many(59))), 101);
    assert_eq!(status_of(address, &with(&many(60))), 431);
    assert_eq!(status_of(address, &with(&format!("X: {line}\r\n"))), 431);
}
