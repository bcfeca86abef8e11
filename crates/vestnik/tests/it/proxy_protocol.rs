//! The PROXY protocol and the header `Forwarded`: who is behind a proxy (README D15).

use std::net::SocketAddr;

use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::KEY;
use crate::tls;

const STAT: &str = "GET /server-stat/ HTTP/1.1\r\nHost: test\r\n\r\n";

fn server(settings: &[&str]) -> TestServer {
    let key = format!("security.key={KEY}");
    let mut all = vec!["server.proxy_protocol=127.0.0.1:0", &key];
    all.extend_from_slice(settings);
    TestServer::with(&all)
}

/// The status of the statistics behind a header; `None`: the connection was closed.
fn status_behind(address: SocketAddr, header: &[u8], request: &str) -> Option<u16> {
    let mut connection = Connection::open(address);
    connection.send([header, request.as_bytes()].concat());
    connection.try_answer().ok().map(|answer| answer.status)
}

fn block(address: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&address);
    header.extend_from_slice(&[127, 0, 0, 1, 0x12, 0x67, 0, 80]);
    header
}

#[test]
fn w_027_the_address_in_a_proxy_header_counts_as_the_callers() {
    let server = server(&[]);
    for (header, status) in [
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 80\r\n".to_vec(), 200),
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n".to_vec(), 403),
        (b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n".to_vec(), 403),
        (b"PROXY UNKNOWN\r\n".to_vec(), 200),
        (block([127, 0, 0, 1]), 200),
        (block([203, 0, 113, 9]), 403),
        // The proxy looks after us: itself.
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), 200),
    ] {
        let found = status_behind(server.address(), &header, STAT);
        assert_eq!(found, Some(status), "{}", header.escape_ascii());
    }
    // A proxy below another one of HTTP: both rules, one after the other.
    let header = b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 80\r\n";
    let request = STAT.replace("Host", "X-Forwarded-For: 203.0.113.9\r\nHost");
    assert_eq!(status_behind(server.address(), header, &request), Some(403));
}

#[test]
fn a_proxy_header_may_come_in_pieces() {
    let server = server(&[]);
    let all = [&block([127, 0, 0, 1])[..], STAT.as_bytes()].concat();
    let mut connection = Connection::open(server.address());
    for byte in all {
        connection.send([byte]);
    }
    assert_eq!(connection.answer().status, 200);
}

#[test]
fn connections_without_a_proxy_header_or_from_strangers_are_closed() {
    let server = server(&[]);
    for bad in [
        &b""[..],
        b"PROXY TCP4 127.0.0.1\r\n",
        b"PROXY TCP9 127.0.0.1 127.0.0.1 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        assert_eq!(status_behind(server.address(), bad, STAT), None, "{}", bad.escape_ascii());
    }
    let strangers = TestServer::with(&[
        "server.proxy_protocol=127.0.0.1:0",
        "trusted.proxies=10.0.0.1",
        &format!("security.key={KEY}"),
    ]);
    let header = b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 80\r\n";
    assert_eq!(status_behind(strangers.address(), header, STAT), None);
    strangers.signal("TERM");
    let (_, log) = strangers.wait();
    assert!(log.contains("takes them from trusted.proxies alone"), "{log}");
}

#[test]
fn encryption_begins_behind_the_proxy_header() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = tls::certificate(folder.path(), "push", &["push.test"]);
    let path = |kind: &str| folder.path().join(format!("push.{kind}")).display().to_string();
    let certificates = format!("tls.certificates={}:{}", path("crt"), path("key"));
    let key = format!("security.key={KEY}");
    let server = TestServer::with_folder(
        folder,
        &[
            "server.listen_tls=127.0.0.1:0",
            "server.proxy_protocol=127.0.0.1:0",
            &certificates,
            &key,
        ],
    );
    let client = tls::client(&[&certificate]);
    for (address, status) in [("127.0.0.1", "200"), ("203.0.113.9", "403")] {
        let mut below = Connection::open(server.secure());
        below.send(format!("PROXY TCP4 {address} 127.0.0.1 4711 443\r\n"));
        let (stream, _) = below.into_parts();
        let mut connection = tls::over(&client, stream, "push.test").expect("a handshake");
        let answer = tls::exchange(&mut connection, STAT);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[test]
fn w_027_only_the_header_that_was_chosen_names_the_caller() {
    let ask = |server: &TestServer, header: &str| {
        raw::exchange(server.address(), STAT.replace("Host", &format!("{header}\r\nHost"))).status
    };
    let by_default = TestServer::start();
    assert_eq!(ask(&by_default, "X-Forwarded-For: 203.0.113.9"), 403);
    assert_eq!(ask(&by_default, "Forwarded: for=203.0.113.9"), 200, "not looked at");
    let chosen = TestServer::with(&["trusted.forwarded=forwarded"]);
    assert_eq!(ask(&chosen, "Forwarded: for=203.0.113.9;proto=https"), 403);
    assert_eq!(ask(&chosen, "Forwarded: for=127.0.0.1, for=\"[2001:db8::1]:80\""), 403);
    assert_eq!(ask(&chosen, "Forwarded: for=127.0.0.1"), 200);
    assert_eq!(ask(&chosen, "Forwarded: for=unknown"), 403);
    assert_eq!(ask(&chosen, "Forwarded: for=203.0.113.9\r\nX-Forwarded-For: 127.0.0.1"), 403);
}
