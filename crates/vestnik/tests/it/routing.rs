//! Paths, methods and HTTP itself (queue-server.md §4.1, §4.2, §4.11), long polls among them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::clients::slow;
use crate::observe::{hold, hold_poll, is_online, metric, polls, until};
use crate::raw::{self, Answer, Connection, events, get, publish};
use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::{Subscriber, handshake};

const EMPTY_PRESENCE: &str = r#"{"infos":[]}"#;

fn request(address: SocketAddr, method: &str, target: &str) -> Answer {
    raw::exchange(address, format!("{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

fn assert_not_found(answer: &Answer, what: &str) {
    assert_eq!((answer.status, answer.text()), (404, ""), "{what}");
    assert_eq!(answer.header("content-type"), Some("text/plain"), "{what}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{what}");
}

#[test]
fn q_019_whatever_begins_with_a_path_belongs_to_it() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    for path in ["/pub/", "/pub/anything", "/bitrix/pub/", "/bitrix/pub/a/b"] {
        let target = format!("{path}?x=1&CHANNEL_ID={}", pair.private);
        assert_eq!(raw::post(server.address(), &target, &[], path.as_bytes()).status, 200);
        assert_eq!(socket.next_text(), path);
    }
}

#[test]
fn q_020_q_021_near_misses_of_a_path_are_404() {
    let server = TestServer::start();
    let query = format!("?CHANNEL_ID={}", Pair::new(1).private_signed());
    let absolute = format!("http://{}/pub/{query}", server.address());
    for target in
        ["/pub", "/PUB/", "//pub/", "/bitrix//pub/", "/", "/bitrix/", "/x/pub/", &absolute]
    {
        let target = format!("{target}{}", if target.contains('?') { "" } else { &query });
        for method in ["GET", "OPTIONS"] {
            assert_not_found(&request(server.address(), method, &target), &target);
        }
        let answer = raw::post(server.address(), &target, &[], b"{}");
        assert_not_found(&answer, &target);
    }
    assert_not_found(&request(server.address(), "OPTIONS", "*"), "*");
}

#[test]
fn q_022_q_023_q_024_other_methods_are_404_and_the_connection_goes_on() {
    let server = TestServer::start();
    let mut connection = Connection::open(server.address());
    for (method, path) in [
        ("PUT", "/pub/"),
        ("DELETE", "/bitrix/pub/"),
        ("OPTIONS", "/pub/"),
        ("OPTIONS", "/rest/"),
        ("OPTIONS", "/bitrix/pubweb/"),
        ("GET", "/rest/"),
        ("POST", "/sub/"),
        ("POST", "/bitrix/subws/"),
        ("PATCH", "/sub/"),
        ("POST", "/server-stat/"),
        ("POST", "/metrics"),
        ("BREW", "/pub/"),
    ] {
        let what = format!("{method} {path}");
        let query = format!("?CHANNEL_ID={}", Pair::new(1).private_signed());
        let head = format!("{what}{query} HTTP/1.1\r\nHost: test\r\n");
        connection.send(format!("{head}Content-Length: 3\r\n\r\nabc"));
        assert_not_found(&connection.answer(), &what);
    }
    connection.send("HEAD /pub/ HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let answer = connection.answer();
    assert_eq!((answer.status, answer.text()), (404, ""));
}

#[test]
fn q_025_k_071_a_preflight_on_sub_is_answered_for_any_channel() {
    let server = TestServer::start();
    for target in ["/sub/", "/bitrix/subws/?CHANNEL_ID=wrong", "/bitrix/sub/x"] {
        let answer = request(server.address(), "OPTIONS", target);
        assert_eq!((answer.status, answer.text()), (200, ""));
        for (name, value) in [
            ("content-type", "text/plain"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "POST, GET, DELETE, OPTIONS"),
            ("access-control-allow-headers", "If-Modified-Since, If-None-Match"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{target}");
        }
    }
}

#[test]
fn k_071_answers_of_every_status_may_be_read_by_other_origins() {
    let server = TestServer::with(&["timing.poll=1s"]);
    let pair = Pair::new(1);
    publish(server.address(), &pair.private.to_string(), 60, "{}");
    let signed = pair.private_signed();
    let over = "x".repeat(17_000);
    for (target, status) in [
        (format!("/sub/?CHANNEL_ID={signed}&mid=00000000000000000000000000"), 200),
        (format!("/sub/?CHANNEL_ID={signed}"), 304),
        ("/sub/?CHANNEL_ID=x".to_owned(), 400),
        ("/nothing".to_owned(), 404),
        (format!("/sub/?{over}"), 414),
    ] {
        let answer = get(server.address(), &target);
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{status}");
    }
}

/// No client can count on a preflight for `/rest/`: it is 404 (Q-023), and the stock clients ask
/// none, because they send neither special headers nor a special content type. Such a plain request
/// from another origin works, which is all that publishing across origins takes.
#[test]
fn w_041_k_024_a_plain_request_of_another_origin_publishes_without_a_preflight() {
    use crate::requests::{batch, message, publish, receiver};
    let server = TestServer::start();
    let (own, other) = (Pair::new(1), Pair::new(2));
    let mut socket = Subscriber::open(server.address(), &format!("CHANNEL_ID={}", other.signed()));
    let to = receiver(other.public.as_bytes(), false, &other.public_signature());
    let sent = batch(&[publish(&[message(&[to], br#"{"x":1}"#, 0)])]);
    let target = format!("/bitrix/rest/?CHANNEL_ID={}", own.signed());
    let headers = ["Origin: https://site.example", "Content-Type: text/plain;charset=UTF-8"];
    let answer = raw::post(server.address(), &target, &headers, &sent);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(socket.next_text()["x"], 1);
}

#[test]
fn q_026_answers_to_http_1_0_are_unchunked_and_end_with_the_connection() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let query = format!("?CHANNEL_ID={}", pair.private_signed());
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut connection = Connection::open(server.address());
        connection.send(format!("GET /pub/{query} HTTP/1.0\r\n{keep_alive}\r\n"));
        let answer = connection.answer();
        assert_eq!((answer.status, answer.text()), (200, EMPTY_PRESENCE));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("transfer-encoding"), None);
        assert!(connection.is_closed());
    }
    let mut poll = hold(server.address(), &format!("GET /sub/{query} HTTP/1.0\r\n\r\n"));
    publish(server.address(), &pair.private.to_string(), 0, r#"{"x":1}"#);
    let answer = poll.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(events(answer.text())[0]["text"]["x"], 1);
    assert!(poll.is_closed());
}

#[test]
fn q_027_kept_and_pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let mut connection = Connection::open(server.address());
    let target = format!("/pub/?CHANNEL_ID={}", pair.private);
    let mut requests = Vec::new();
    for n in 0..20 {
        requests.extend(raw::post_bytes(&target, &[], format!("{{\"n\":{n}}}").as_bytes()));
        requests.extend(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        requests.extend(b"GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    connection.send(&requests);
    for n in 0..20 {
        assert_eq!(connection.answer().status, 200);
        assert!(connection.answer().text().contains("subscribers"));
        assert_eq!(connection.answer().status, 404);
        assert_eq!(socket.next_text()["n"], n);
    }
    // And once more on the same connection, a moment later.
    connection.send(&requests[..requests.len() / 20]);
    assert_eq!(connection.answer().status, 200);
}

#[test]
fn q_028_a_chunked_body_is_put_together() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let head = format!(
        "POST /pub/?CHANNEL_ID={} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n",
        pair.private
    );
    let mut connection = Connection::open(server.address());
    for part in [&head, "4;ext=1\r\n{\"x\"\r\n", "3\r\n:1}\r\n0\r\nTrailer: 1\r\n\r\n"] {
        connection.send(part);
    }
    let answer = connection.answer();
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(socket.next_text()["x"], 1);
}

/// Two lengths are the way to hide a request in another's body from a proxy. Here the chunks count,
/// as RFC 9112 has it, and what follows them is never read as a request; lengths that contradict
/// each other are refused.
#[test]
fn a_request_hidden_behind_two_lengths_is_never_served() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let target = format!("/pub/?CHANNEL_ID={}", pair.private);
    let hidden = String::from_utf8(raw::post_bytes(&target, &[], b"hidden")).expect("ASCII");
    let length = format!("Content-Length: {}\r\n", hidden.len() + 5);
    let chunked = "Transfer-Encoding: chunked\r\n";
    for lengths in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let mut connection = Connection::open(server.address());
        connection.send(format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\n{lengths}\r\n7\r\n{{\"x\":1}}\r\n0\r\n\r\n{hidden}"
        ));
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(connection.is_closed(), "nothing more is answered");
        assert_eq!(socket.next_text()["x"], 1);
    }
    for lengths in [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 2, 3\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: gzip\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let mut connection = Connection::open(server.address());
        connection
            .send(format!("POST {target} HTTP/1.1\r\nHost: test\r\n{lengths}\r\n{{}}{hidden}"));
        assert_eq!(connection.answer().status, 400, "{lengths}");
        assert!(connection.is_closed(), "{lengths}");
    }
    publish(server.address(), &pair.private.to_string(), 0, r#"{"last":1}"#);
    assert_eq!(socket.next_text()["last"], 1);
}

#[test]
fn q_029_a_caller_that_asks_to_continue_is_told_so_only_if_its_body_is_wanted() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let head = |path: &str, length: usize| {
        format!(
            "POST {path}?CHANNEL_ID={} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n",
            pair.private
        )
    };
    let mut connection = Connection::open(server.address());
    connection.send(head("/pub/", 7));
    let told = connection.answer();
    assert_eq!(told.head, "HTTP/1.1 100 Continue\r\n\r\n");
    connection.send(r#"{"x":1}"#);
    assert_eq!(connection.answer().status, 200);
    assert_eq!(socket.next_text()["x"], 1);
    for (path, length, status) in [("/pub/", 2_000_000, 413), ("/nothing/", 7, 404)] {
        let mut connection = Connection::open(server.address());
        connection.send(head(path, length));
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        assert!(connection.is_closed());
    }
    // One that does not wait sees the answer all the same, and not a reset connection.
    let mut connection = Connection::open(server.address());
    connection.send(head("/pub/", 3_000_000));
    connection.send(vec![b'x'; 3_000_000]);
    assert_eq!(connection.answer().status, 413);
}

#[test]
fn q_030_a_get_with_a_body_is_answered_and_the_connection_goes_on() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    publish(server.address(), &pair.private.to_string(), 60, r#"{"x":1}"#);
    let mut connection = Connection::open(server.address());
    // The body is the head of a request: it must not be taken for one.
    let body = "GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n";
    let target = format!("?CHANNEL_ID={}&mid=00000000000000000000000000", pair.private_signed());
    for (path, found) in [("/pub/", EMPTY_PRESENCE), ("/sub/", "\"x\":1"), ("/pub/", "subscribers")]
    {
        let head = format!("GET {path}{target} HTTP/1.1\r\nHost: test\r\n");
        connection.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        let answer = connection.answer();
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().contains(found), "{answer:?}");
    }
}

#[test]
fn q_031_head_and_body_of_a_poll_arrive_in_one_read() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut poll = hold_poll(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    publish(server.address(), &pair.private.to_string(), 0, r#"{"x":1}"#);
    let mut buffer = [0; 4096];
    let read = poll.stream().read(&mut buffer).expect("an answer");
    let text = String::from_utf8_lossy(&buffer[..read]);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.ends_with(r#""text":{"x":1}}#!NGINXNME!#"#), "{text}");
}

/// Half of the bytes, then nothing: the default is shown by the options, the behaviour by a shorter
/// time.
#[test]
fn q_032_an_unfinished_body_is_given_up_after_a_silence() {
    let options = include_str!("../../../../docs/options.md");
    let default = options.lines().find(|line| line.starts_with("| `body` |")).expect("the option");
    assert!(default.contains("`\"20s\"`"), "{default}");
    let server = TestServer::with(&["timing.body=1s"]);
    let pair = Pair::new(1);
    for path in ["/pub/", "/rest/"] {
        let mut connection = Connection::open(server.address());
        let head = format!("POST {path}?CHANNEL_ID={} HTTP/1.1\r\nHost: t\r\n", pair.signed());
        connection.send(format!("{head}Content-Length: 10\r\n\r\n{{\"x\""));
        assert!(connection.is_closed(), "closed without an answer");
    }
    assert_eq!(metric(server.address(), "vestnik_published_messages_total"), 0);
}

#[test]
fn q_033_a_body_cut_short_publishes_nothing() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut socket =
        Subscriber::open(server.address(), &format!("CHANNEL_ID={}", pair.private_signed()));
    let target = format!("/pub/?CHANNEL_ID={}", pair.private);
    let whole = raw::post_bytes(&target, &["Message-Expiry: 60"], br#"{"cut":"short"}"#);
    let chunked =
        format!("POST {target} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    for request in [
        whole[..whole.len() - 1].to_vec(),
        whole[..whole.len() - 14].to_vec(),
        format!("{chunked}7\r\n{{\"x\":1}}\r\n").into_bytes(),
        format!("{chunked}zz\r\n").into_bytes(),
    ] {
        let mut connection = Connection::open(server.address());
        connection.send(&request);
        connection.stream().shutdown(Shutdown::Write).expect("open");
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        assert!(connection.is_closed());
        // And without waiting for an answer.
        Connection::open(server.address()).send(&request);
    }
    publish(server.address(), &pair.private.to_string(), 0, r#"{"last":1}"#);
    assert_eq!(socket.next_text()["last"], 1);
    assert_eq!(metric(server.address(), "vestnik_published_messages_total"), 1);
}

#[test]
fn heads_over_the_limit_are_414_or_431_and_what_is_no_http_is_400() {
    let server = TestServer::start();
    let long = "x".repeat(20_000);
    let whole = "x".repeat(16_000);
    for (head, status) in [
        (format!("GET /pub/?{long} HTTP/1.1\r\nHost: t\r\n\r\n"), 414),
        (format!("POST /pub/?{long} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{{}}"), 414),
        (format!("GET /healthz HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET /healthz HTTP/1.1\r\nHost: t\r\n{}\r\n", "A: b\r\n".repeat(100)), 431),
        ("no http\r\n\r\n".to_owned(), 400),
        ("GET /healthz HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("POST /pub/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 400),
    ] {
        // As the first request of a connection and as a later one.
        for before in ["", "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"] {
            let mut connection = Connection::open(server.address());
            connection.send(before);
            if !before.is_empty() {
                assert_eq!(connection.answer().status, 200);
            }
            connection.send(&head);
            assert_eq!(connection.answer().status, status, "{}", &head[..30.min(head.len())]);
            assert!(connection.is_closed());
        }
    }
    let fits = format!("GET /healthz?{whole} HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(raw::exchange(server.address(), fits).status, 200);
}

/// Queue-server.md §15.4, as the site's checker does it: one request on one raw socket, a publish on
/// another, one read.
#[test]
fn q_168_the_site_checker_finds_its_message() {
    let server = TestServer::start();
    let address = server.address();
    let pair = Pair::new(1);
    let mut listener = hold(
        address,
        &format!(
            "GET /bitrix/sub/?CHANNEL_ID={} HTTP/1.0\r\nHost: test\r\n\
             If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
            pair.private_signed()
        ),
    );
    let text = "0123456789abcdefghijklmnopqrstuv";
    let published = raw::exchange(
        address,
        format!(
            "POST /bitrix/pub/?CHANNEL_ID={} HTTP/1.0\r\nHost: test\r\n\
             Content-Length: 32\r\n\r\n{text}",
            pair.private
        ),
    );
    assert_eq!(published.status, 200);
    let mut buffer = [0; 4096];
    let read = listener.stream().read(&mut buffer).expect("an answer");
    assert!(String::from_utf8_lossy(&buffer[..read]).contains(text));
    let mut last = Connection::open(address);
    last.send(format!("DELETE /bitrix/pub/?CHANNEL_ID={} HTTP/1.0\r\n\r\n", pair.private));
    assert_eq!(last.answer().status, 404);
    assert!(last.is_closed());
    assert_eq!(get(address, "/healthz").status, 200);
}

#[test]
fn q_096_q_097_polls_follow_each_other_and_an_upgrade_that_is_none_is_a_poll() {
    let server = TestServer::start();
    let address = server.address();
    let pair = Pair::new(1);
    let target = format!("/bitrix/subws/?CHANNEL_ID={}", pair.private_signed());
    let mut connection = Connection::open(address);
    for n in 0..3 {
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        until("it is held", || polls(address) == 1);
        publish(address, &pair.private.to_string(), 0, &format!("{{\"n\":{n}}}"));
        assert_eq!(events(connection.answer().text())[0]["text"]["n"], n);
    }
    // What nginx makes of a plain GET (queue-server.md §1.4).
    let head = "Upgrade: websocket\r\nConnection: close\r\n";
    let mut poll = hold(address, &format!("GET {target} HTTP/1.1\r\nHost: test\r\n{head}\r\n"));
    publish(address, &pair.private.to_string(), 0, r#"{"n":9}"#);
    let answer = poll.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(events(answer.text())[0]["text"]["n"], 9);
}

#[test]
fn a_handshake_may_be_a_later_request_of_a_connection() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    let mut connection = Connection::open(server.address());
    for _ in 0..2 {
        connection.send("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.answer().text(), "ok\n");
    }
    connection.send(handshake(&format!("/subws/?CHANNEL_ID={}", pair.private_signed())));
    let answer = connection.answer();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    publish(server.address(), &pair.private.to_string(), 0, r#"{"x":1}"#);
    let (mut stream, received) = connection.into_parts();
    let mut bytes = received;
    while !bytes.ends_with(b"#!NGINXNME!#") {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).expect("a frame");
        assert!(read > 0);
        bytes.extend_from_slice(&buffer[..read]);
    }
    assert_eq!(bytes[0], 0x81, "one text frame");
}

/// Runs a program and returns what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

#[test]
fn curl_and_python_are_understood() {
    if !slow() {
        return;
    }
    let server = TestServer::with(&["timing.poll=1s"]);
    let address = server.address();
    let pair = Pair::new(1);
    let curl = || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "|%{http_code}"]);
        curl
    };
    let publish = format!("http://{address}/bitrix/pub/?CHANNEL_ID={}", pair.private);
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("large");
    for (size, printed) in [(1_048_576, "|200"), (1_048_577, "|413"), (5_000_000, "|413")] {
        std::fs::write(&large, vec![b'x'; size]).expect("a file");
        let body = format!("@{}", large.display());
        for header in ["Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"] {
            for version in ["--http1.1", "--http1.0"] {
                if version == "--http1.0" && header.starts_with("Transfer") {
                    continue;
                }
                let command = &mut curl();
                command.args([version, "-H", header, "--data-binary", &body, &publish]);
                assert_eq!(run(command), printed, "{size} {header} {version}");
            }
        }
    }
    let stored = ["-H", "Message-Expiry: 60", "--data-binary", r#"{"x":1}"#, &publish];
    assert_eq!(run(curl().args(stored)), "|200");
    let poll = format!("http://{address}/bitrix/sub/?CHANNEL_ID={}", pair.private_signed());
    let missed = format!("{poll}&mid=00000000000000000000000000");
    assert!(run(curl().args(["--http1.0", &missed])).ends_with("#!NGINXNME!#|200"));
    assert_eq!(run(curl().args(["--http1.0", &poll])), "|304");
    // Offering HTTP/2 is a handshake for another protocol, which the originals refuse too.
    assert_eq!(run(curl().args(["--http2", &missed])), "Bad Request|400");
    let script = r#"
import http.client, sys
port, private, signed = int(sys.argv[1]), sys.argv[2], sys.argv[3]
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
def ask(*request, **more):
    connection.request(*request, **more)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.will_close
socket = None
for turn in range(3):
    assert ask("POST", "/pub/?CHANNEL_ID=" + private, body=b'{"x":1}') == (200, b"", False)
    assert ask("GET", "/pub/?CHANNEL_ID=" + private, body=b"ids")[0] == 200
    assert ask("GET", "/sub/?CHANNEL_ID=" + signed) == (304, b"", False)
    assert ask("HEAD", "/pub/") == (404, b"", False)
    assert ask("DELETE", "/pub/", body=b"x") == (404, b"", False)
    socket = socket or connection.sock
    assert connection.sock is socket, "one connection for all of it"
assert ask("POST", "/pub/?CHANNEL_ID=" + private, body=iter([b'{"x"', b":2}"]))[:2] == (200, b"")
assert ask("POST", "/pub/?CHANNEL_ID=" + private, body=b"x" * 1048577) == (413, b"", True)
print("fine")
"#;
    let mut python = Command::new("python3");
    // Another channel than the one polled, which would get what was just published.
    let other = Pair::new(2).private.to_string();
    python.args(["-c", script, &address.port().to_string(), &other]);
    assert_eq!(run(python.arg(pair.private_signed())), "fine\n");
}

/// An nginx in front of the server; stopped when dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts it with the locations of BitrixVM (queue-server.md §1.4), publishing included, as some
    /// public deployments have it.
    fn before(server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
        let address = free.expect("bound");
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, Self::configuration(folder.path(), address, server)).expect("a file");
        let child = Command::new("nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("nginx is installed (package nginx-light)");
        until("nginx listens", || TcpStream::connect(address).is_ok());
        Self { child, address, _folder: folder }
    }

    fn configuration(folder: &Path, address: SocketAddr, server: SocketAddr) -> String {
        let folder = folder.display();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String =
            kinds.iter().map(|kind| format!("{kind}_temp_path {folder}/{kind};\n")).collect();
        format!(
            r#"
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 256; }}
http {{
    access_log off;
    {temporary}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' 'close'; }}
    map $http_upgrade $replace_upgrade {{ default $http_upgrade; '' "websocket"; }}
    upstream nodejs {{ ip_hash; server {server}; keepalive 1024; }}
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    server {{
        listen {address};
        location ~* ^/bitrix/subws/ {{
            proxy_pass http://nodejs;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 43800;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Upgrade $replace_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
        location /bitrix/sub/ {{
            rewrite ^/bitrix/sub/(.*)$ /bitrix/subws/$1 break;
            proxy_pass http://nodejs;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 43800;
        }}
        location /bitrix/rest/ {{ proxy_pass http://nodejs; }}
        location /bitrix/pubweb/ {{
            proxy_pass http://nodejs;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Connection "";
        }}
        location /bitrix/pub/ {{ proxy_pass http://nodejs; proxy_ignore_client_abort on; }}
        location /server-stat/ {{ proxy_pass http://nodejs; }}
    }}
}}
"#
        )
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn q_097_w_022_behind_nginx_as_the_vendor_configures_it() {
    use crate::requests::{batch, message, publish as request, receiver};
    if !slow() {
        return;
    }
    let server = TestServer::with(&["timing.poll=1s", "timing.presence_grace=0s"]);
    let nginx = Nginx::before(server.address());
    let (direct, proxied) = (server.address(), nginx.address);
    let (pair, other) = (Pair::new(1), Pair::new(2));
    let id = pair.private.to_string();
    let signed = pair.private_signed();
    // Long polls, by HTTP/1.0 and by an upgrade that is none: with news, without, broken off.
    for path in ["sub", "subws"] {
        let target = format!("/bitrix/{path}/?CHANNEL_ID={signed}");
        let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut poll = Connection::open(proxied);
        poll.send(&head);
        until("it is held", || polls(direct) == 1);
        publish(direct, &id, 0, r#"{"x":1}"#);
        let answer = poll.answer();
        assert_eq!(events(answer.text())[0]["text"]["x"], 1, "{path}");
        let answer = get(proxied, &target);
        assert_eq!((answer.status, answer.header("last-message-id")), (304, Some("")), "{path}");
        assert_eq!(answer.header("expires"), Some("Thu, 01 Jan 1973 11:11:01 GMT"), "{path}");
        let mut poll = Connection::open(proxied);
        poll.send(&head);
        until("it is held", || polls(direct) == 1);
        drop(poll);
        until("it is gone", || polls(direct) == 0);
    }
    assert!(get(proxied, "/bitrix/sub/?CHANNEL_ID=x").text().starts_with("4010"));
    // Publishing of clients, over connections that nginx keeps open; the handshake that follows
    // comes over one of them.
    let to = receiver(other.public.as_bytes(), false, &other.public_signature());
    let sent = batch(&[request(&[message(&[to], br#"{"x":2}"#, 0)])]);
    let mut listener = Subscriber::open(direct, &format!("CHANNEL_ID={}", other.signed()));
    let target = |path: &str| format!("/bitrix/{path}/?CHANNEL_ID={}", pair.signed());
    let accepted = || metric(direct, "vestnik_accepted_connections_total");
    for path in ["rest", "pubweb", "pubweb"] {
        assert_eq!(raw::post(proxied, &target(path), &[], &sent).status, 200, "{path}");
        assert_eq!(listener.next_text()["x"], 2, "{path}");
    }
    let before = accepted();
    let mut socket = Subscriber::open(proxied, &format!("CHANNEL_ID={signed}"));
    assert_eq!(accepted() - before, 1, "only the question itself: nginx used an open connection");
    assert!(is_online(direct, &id));
    publish(direct, &id, 0, r#"{"x":3}"#);
    assert_eq!(socket.next_text()["x"], 3);
    drop(socket);
    until("it is offline", || !is_online(direct, &id));
    // A caller from outside may not use trusted routes, although nginx is on the trusted machine.
    let outside = "X-Forwarded-For: 203.0.113.9";
    let publish_target = format!("/bitrix/pub/?CHANNEL_ID={id}");
    assert_eq!(raw::post(proxied, &publish_target, &[outside], b"{}").status, 403);
    let head = format!("GET /server-stat/ HTTP/1.1\r\nHost: test\r\n{outside}\r\n\r\n");
    assert_eq!(raw::exchange(proxied, head).status, 403);
}

/// A client that reads nothing of its answer is not kept for ever.
#[test]
fn a_poll_whose_answer_is_not_read_is_dropped() {
    let server = TestServer::with(&["timing.body=1s", "history.bytes=256MiB"]);
    let address = server.address();
    let pair = Pair::new(1);
    let large = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..12 {
        assert_eq!(publish(address, &pair.private.to_string(), 60, &large).status, 200);
    }
    let mut stream = TcpStream::connect(address).expect("it accepts");
    let target = format!("/sub/?CHANNEL_ID={}", pair.private_signed());
    let head = format!("GET {target}&mid=00000000000000000000000000 HTTP/1.1\r\nHost: t\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    // Its side of the connection is gone from the system's table once the server has dropped it.
    let port = format!(":{:04X} ", stream.local_addr().expect("bound").port());
    let server_side = format!(":{:04X} ", address.port());
    until("the server has dropped it", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        let mut lines = table.lines().filter_map(|line| line.split_once(": ").map(|line| line.1));
        // Local address, remote address, state; 01 is established.
        !lines.any(|line| {
            line[8..].starts_with(&server_side)
                && line[22..].starts_with(&port)
                && line[28..].starts_with("01")
        })
    });
}
