//! Connections with TLS: https and wss as browsers make them, certificates by name, tickets that
//! outlive the server (design.md §2, performance.md §6 item 13).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use rustls::pki_types::CertificateDer;
use tungstenite::Message;

use crate::raw;
use crate::server::TestServer;
use crate::sign::{KEY, Pair};
use crate::tls;
use crate::traffic::{is_online, metric_of, until};
use crate::websocket::handshake;

/// A server with one certificate, for `push.test`.
fn secure_server(settings: &[&str]) -> (TestServer, CertificateDer<'static>) {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = tls::certificate(folder.path(), "push", &["push.test"]);
    let (chain, key) = (folder.path().join("push.crt"), folder.path().join("push.key"));
    let certificates = format!("tls.certificates={}:{}", chain.display(), key.display());
    let key = format!("security.key={KEY}");
    let mut all = vec!["server.listen_tls=127.0.0.1:0", &certificates, &key];
    all.extend_from_slice(settings);
    (TestServer::with_folder(folder, &all), certificate)
}

#[test]
fn events_go_out_over_wss_and_come_in_over_https_with_both_versions() {
    let (server, certificate) = secure_server(&[]);
    for (number, version) in [(1, &rustls::version::TLS13), (2, &rustls::version::TLS12)] {
        let client = tls::client_of(&[&certificate], &[version], &["http/1.1"]);
        let pair = Pair::new(number);
        let connection = tls::connect(&client, server.secure(), "push.test").expect("a handshake");
        assert_eq!(connection.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let query = format!("CHANNEL_ID={}", pair.signed());
        let mut subscriber = tls::subscribe(connection, &query);
        let mut publisher = tls::connect(&client, server.secure(), "push.test").expect("again");
        for text in ["one", "two", &"large ".repeat(50_000)] {
            let answer = tls::publish(&mut publisher, pair.private, text);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(tls::next_text(&mut subscriber), text);
        }
        // What a client says is heard: a ping is answered, and its close.
        subscriber.send(Message::Ping("are you there".into())).expect("it reads");
        assert!(matches!(subscriber.read(), Ok(Message::Pong(text)) if text == "are you there"));
        subscriber.close(None).expect("it reads");
        let closed = std::iter::from_fn(|| subscriber.read().ok()).any(|it| it.is_close());
        assert!(closed, "the close is answered");
        // And the end of the encryption is told, so that nobody can cut a connection off unnoticed.
        let mut rest = Vec::new();
        subscriber.get_mut().read_to_end(&mut rest).expect("a goodbye");
    }
}

#[test]
fn a_burst_for_a_reader_that_sleeps_arrives_whole_and_in_order() {
    let (server, certificate) = secure_server(&["limits.outbox_bytes=64MiB"]);
    let client = tls::client(&[&certificate]);
    let pair = Pair::new(1);
    let connection = tls::connect(&client, server.secure(), "push.test").expect("a handshake");
    let mut subscriber = tls::subscribe(connection, &format!("CHANNEL_ID={}", pair.signed()));
    let mut publisher = raw::Connection::open(server.address());
    // Far more than the kernel holds for one connection; the sizes make writes end anywhere.
    let text = |n: usize| format!("text {n} {}", "x".repeat(n * 37 % 40_000));
    let target = format!("/bitrix/pub/?CHANNEL_ID={}", pair.private);
    for n in 0..500 {
        publisher.send(raw::post_bytes(&target, &[], text(n).as_bytes()));
        assert_eq!(publisher.answer().status, 200);
    }
    for n in 0..500 {
        assert!(tls::next_text(&mut subscriber) == text(n), "message {n}");
    }
}

#[test]
fn a_connection_serves_requests_before_it_becomes_a_websocket() {
    let (server, certificate) = secure_server(&[]);
    let client = tls::client(&[&certificate]);
    let pair = Pair::new(1);
    let mut connection = tls::connect(&client, server.secure(), "push.test").expect("a handshake");
    for _ in 0..2 {
        assert!(tls::get(&mut connection, "/healthz").ends_with("ok\n"));
    }
    let mut subscriber = tls::subscribe(connection, &format!("CHANNEL_ID={}", pair.signed()));
    assert_eq!(raw::publish(server.address(), &pair.private.to_string(), 0, "late").status, 200);
    assert_eq!(tls::next_text(&mut subscriber), "late");
}

#[test]
fn frames_behind_a_handshake_are_heard_however_they_were_encrypted() {
    const PINGS: usize = 300;
    let (server, certificate) = secure_server(&[]);
    let client = tls::client(&[&certificate]);
    let target = format!("/bitrix/subws/?CHANNEL_ID={}", Pair::new(1).signed());
    // Masked with zeros; far more than is read at once.
    let ping = [&b"\x89\xfd\0\0\0\0"[..], &[b'p'; 125]].concat();
    for is_first in [true, false] {
        let mut connection = tls::connect(&client, server.secure(), "push.test").expect("again");
        if !is_first {
            assert!(tls::get(&mut connection, "/healthz").ends_with("ok\n"));
        }
        let all = [handshake(&target).as_bytes(), &ping.repeat(PINGS)].concat();
        connection.write_all(&all).expect("it reads");
        let mut received = Vec::new();
        let pong = [&b"\x8a\x7d"[..], &[b'p'; 125]].concat();
        while !received.ends_with(&pong.repeat(PINGS)) {
            let mut buffer = [0; 4096];
            let read = connection.read(&mut buffer).expect("pongs");
            assert!(read > 0, "cut off after {}", received.len());
            received.extend_from_slice(&buffer[..read]);
        }
        assert!(received.starts_with(b"HTTP/1.1 101 "));
    }
}

#[test]
fn q_084_a_poll_over_tls_is_offline_as_soon_as_its_client_leaves() {
    let (server, certificate) = secure_server(&[]);
    let client = tls::client(&[&certificate]);
    let pair = Pair::new(1);
    let poll = crate::traffic::poll_bytes(&format!("CHANNEL_ID={}", pair.signed()));
    // With a goodbye, and without.
    for says_goodbye in [true, false] {
        let mut connection = tls::connect(&client, server.secure(), "push.test").expect("again");
        connection.write_all(poll.as_bytes()).expect("it reads");
        until("the poll is held", || is_online(server.address(), pair.private));
        if says_goodbye {
            connection.conn.send_close_notify();
            connection.flush().expect("it reads");
        }
        connection.sock.shutdown(Shutdown::Both).expect("it is open");
        until("nobody listens", || {
            metric_of(server.address(), "vestnik_connections_polling") == 0
                && !is_online(server.address(), pair.private)
        });
    }
    let mut connection = tls::connect(&client, server.secure(), "push.test").expect("again");
    connection.write_all(poll.as_bytes()).expect("it reads");
    until("the poll is held", || is_online(server.address(), pair.private));
    assert_eq!(raw::publish(server.address(), &pair.private.to_string(), 0, "news").status, 200);
    assert!(tls::answer(&mut connection).contains("news"));
}

#[test]
fn the_certificate_is_that_of_the_name_a_client_asks_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = tls::certificate(folder.path(), "first", &["first.test"]);
    let second = tls::certificate(folder.path(), "second", &["second.test", "*.many.test"]);
    let path = |file: &str| folder.path().join(file).display().to_string();
    let certificates = format!(
        "tls.certificates={}:{},{}:{}",
        path("first.crt"),
        path("first.key"),
        path("second.crt"),
        path("second.key")
    );
    let key = format!("security.key={KEY}");
    let settings = ["server.listen_tls=127.0.0.1:0", &certificates, &key];
    let server = TestServer::with_folder(folder, &settings);
    let client = tls::client(&[&first, &second]);
    for name in ["first.test", "second.test", "one.many.test"] {
        let mut connection = tls::connect(&client, server.secure(), name).expect(name);
        assert!(tls::get(&mut connection, "/healthz").ends_with("ok\n"));
        let shown = connection.conn.peer_certificates().expect("a certificate");
        let expected = if name == "first.test" { &first } else { &second };
        assert_eq!(&shown[0], expected, "{name}");
    }
    // Who asks for another name is shown the first one, which is not what it wants.
    let refused = tls::connect(&client, server.secure(), "third.test").expect_err("a wrong name");
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
}

#[test]
fn sessions_are_resumed_also_after_a_restart() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (server, certificate) = secure_server(&[]);
        let client = tls::client_of(&[&certificate], &[version], &[]);
        let visit = |server: &TestServer| {
            let mut connection =
                tls::connect(&client, server.secure(), "push.test").expect("a handshake");
            assert!(tls::get(&mut connection, "/healthz").ends_with("ok\n"));
            tls::is_resumed(&connection)
        };
        assert!(!visit(&server), "the first visit");
        assert!(visit(&server), "the second one");
        let server = server.stop_and_restart();
        assert!(visit(&server), "after a restart");
        let server = server.crash_and_restart();
        assert!(visit(&server), "after a crash");
        use std::os::unix::fs::PermissionsExt as _;
        let keys = server.data().join("tls-tickets.key");
        let mode = std::fs::metadata(keys).expect("it is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn whatever_is_no_handshake_is_refused_and_harms_nobody() {
    let (server, certificate) = secure_server(&["timing.head=1s"]);
    let client = tls::client(&[&certificate]);
    let pair = Pair::new(1);
    let connection = tls::connect(&client, server.secure(), "push.test").expect("a handshake");
    let mut subscriber = tls::subscribe(connection, &format!("CHANNEL_ID={}", pair.signed()));
    for bytes in [
        &b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"",
    ] {
        let mut stream = TcpStream::connect(server.secure()).expect("it accepts");
        stream.set_read_timeout(Some(raw::WAIT)).expect("a socket");
        stream.write_all(bytes).expect("it reads");
        let mut answer = Vec::new();
        // An alert, if anything, and the end; a reset is one too.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 64 && !answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    }
    // Encryption on the plain port, and a handshake there.
    let refused = tls::connect(&client, server.address(), "push.test");
    assert!(refused.is_err());
    assert_eq!(raw::get(server.address(), "/healthz").status, 200);
    assert_eq!(raw::publish(server.address(), &pair.private.to_string(), 0, "news").status, 200);
    assert_eq!(tls::next_text(&mut subscriber), "news");
}

#[test]
fn too_long_heads_are_told_so_over_tls_too() {
    let (server, certificate) = secure_server(&[]);
    let client = tls::client(&[&certificate]);
    for (line, header, status) in
        [("x".repeat(20_000), "a".to_owned(), "414"), ("x".into(), "a".repeat(20_000), "431")]
    {
        let mut connection = tls::connect(&client, server.secure(), "push.test").expect("again");
        let request = format!("GET /sub/?{line} HTTP/1.1\r\nHost: {header}\r\n\r\n");
        let answer = tls::exchange(&mut connection, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).expect("a goodbye");
    }
}

#[test]
fn q_197_a_protocol_error_over_tls_is_answered_with_its_code() {
    let (server, certificate) = secure_server(&[]);
    let client = tls::client(&[&certificate]);
    let mut connection = tls::connect(&client, server.secure(), "push.test").expect("a handshake");
    let target = format!("/bitrix/subws/?CHANNEL_ID={}", Pair::new(1).signed());
    let answer = tls::exchange(&mut connection, handshake(&target));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // A frame that is not masked.
    connection.write_all(b"\x81\x01a").expect("it reads");
    let mut close = Vec::new();
    connection.read_to_end(&mut close).expect("a close and a goodbye");
    assert_eq!(close, b"\x88\x02\x03\xea");
}

#[test]
fn k_042_the_end_of_the_server_closes_wss_connections_with_their_code() {
    let (server, certificate) = secure_server(&[]);
    let client = tls::client(&[&certificate]);
    let connection = tls::connect(&client, server.secure(), "push.test").expect("a handshake");
    let query = format!("CHANNEL_ID={}", Pair::new(1).signed());
    let mut subscriber = tls::subscribe(connection, &query);
    server.signal("TERM");
    let Ok(Message::Close(Some(frame))) = subscriber.read() else { panic!("a close") };
    assert_eq!(u16::from(frame.code), 1001);
    drop(subscriber);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
}
