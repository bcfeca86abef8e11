//! HTTP/2 for polls, publishing and statistics: over TLS by agreement, and to clients that know.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::raw;
use crate::server::TestServer;
use crate::sign::{KEY, Pair};
use crate::tls;
use crate::traffic::{is_online, metric_of, until};

type Client = SendRequest<Full<Bytes>>;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one")
}

async fn client_over<S>(stream: S) -> Client
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    #[expect(clippy::disallowed_methods, reason = "a test ends with its runtime")]
    tokio::spawn(connection);
    client
}

async fn plain(address: SocketAddr) -> Client {
    client_over(TcpStream::connect(address).await.expect("it accepts")).await
}

async fn ask(client: &mut Client, method: &str, uri: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(format!("http://push.test{uri}"));
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let request = request.body(body).expect("a request");
    let answer = client.send_request(request).await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn polls_publishing_and_statistics_share_one_connection() {
    let server = TestServer::start();
    let pairs = [1, 2, 3].map(Pair::new);
    runtime().block_on(async {
        let mut client = plain(server.address()).await;
        let polls = pairs.map(|pair| {
            let mut client = client.clone();
            let target = format!("/bitrix/sub/?CHANNEL_ID={}", pair.signed());
            #[expect(clippy::disallowed_methods, reason = "a test ends with its runtime")]
            tokio::spawn(async move { ask(&mut client, "GET", &target, "").await })
        });
        until("the polls are held", || {
            metric_of(server.address(), "vestnik_connections_polling") == 3
        });
        let (status, page) = ask(&mut client, "GET", "/server-stat/", "").await;
        assert_eq!(status, 200);
        assert!(page.contains("\"pollings\":3"), "{page}");
        for (pair, poll) in pairs.into_iter().zip(polls) {
            let text = format!("for {}", pair.private);
            let target = format!("/bitrix/pub/?CHANNEL_ID={}", pair.private);
            assert_eq!(ask(&mut client, "POST", &target, &text).await.0, 200);
            let (status, body) = poll.await.expect("it ends");
            assert_eq!(status, 200);
            assert!(body.contains(&text), "{body}");
        }
        assert_eq!(ask(&mut client, "GET", "/nothing", "").await.0, 404);
        let large = "x".repeat(1_048_577);
        let target = format!("/bitrix/pub/?CHANNEL_ID={}", pairs[0].private);
        assert_eq!(ask(&mut client, "POST", &target, &large).await.0, 413);
        assert_eq!(ask(&mut client, "GET", "/healthz", "").await, (StatusCode::OK, "ok\n".into()));
    });
}

#[test]
fn q_084_a_poll_ends_with_its_stream() {
    let server = TestServer::start();
    let pair = Pair::new(1);
    runtime().block_on(async {
        let mut client = plain(server.address()).await;
        let target = format!("/bitrix/sub/?CHANNEL_ID={}", pair.signed());
        let poll = ask(&mut client, "GET", &target, "");
        let held = async {
            until("the poll is held", || is_online(server.address(), pair.private));
        };
        tokio::select! {
            biased;
            (status, _) = poll => panic!("answered {status}"),
            () = async {
                // The request has to leave before anybody waits for it.
                tokio::task::yield_now().await;
                held.await;
            } => {}
        }
        until("nobody listens", || !is_online(server.address(), pair.private));
        assert_eq!(ask(&mut client, "GET", "/healthz", "").await.0, 200);
    });
}

#[test]
fn w_027_trust_and_heads_are_judged_as_ever() {
    let server = TestServer::with(&["trusted.allow=10.0.0.1"]);
    runtime().block_on(async {
        let mut client = plain(server.address()).await;
        assert_eq!(ask(&mut client, "GET", "/server-stat/", "").await.0, 403);
        let long = format!("/bitrix/sub/?{}", "x".repeat(20_000));
        let request = Request::get(format!("http://push.test{long}")).body(Full::default());
        let answer = client.send_request(request.expect("a request")).await;
        // Too long for the target, or for all headers: a client may learn it before it sends.
        assert!(
            answer.is_err() || answer.is_ok_and(|it| matches!(it.status().as_u16(), 414 | 431))
        );
    });
    assert_eq!(raw::get(server.address(), "/healthz").status, 200);
}

#[test]
fn k_042_the_end_of_the_server_answers_polls_of_http2() {
    let server = TestServer::start();
    let target = format!("/bitrix/sub/?CHANNEL_ID={}", Pair::new(1).signed());
    runtime().block_on(async {
        let mut client = plain(server.address()).await;
        #[expect(clippy::disallowed_methods, reason = "a test ends with its runtime")]
        let poll = tokio::spawn(async move { ask(&mut client, "GET", &target, "").await });
        until("the poll is held", || {
            metric_of(server.address(), "vestnik_connections_polling") == 1
        });
        server.signal("TERM");
        assert_eq!(poll.await.expect("it ends").0, 304);
    });
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
}

#[test]
fn encrypted_connections_agree_on_http2() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = tls::certificate(folder.path(), "push", &["push.test"]);
    let path = |kind: &str| folder.path().join(format!("push.{kind}")).display().to_string();
    let certificates = format!("tls.certificates={}:{}", path("crt"), path("key"));
    let key = format!("security.key={KEY}");
    let settings = ["server.listen_tls=127.0.0.1:0", &certificates, &key];
    let server = TestServer::with_folder(folder, &settings);
    let config = tls::client_of(&[&certificate], rustls::DEFAULT_VERSIONS, &["h2", "http/1.1"]);
    runtime().block_on(async {
        let stream = TcpStream::connect(server.secure()).await.expect("it accepts");
        let name = ServerName::try_from("push.test").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let stream = connector.connect(name, stream).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = client_over(stream).await;
        let target = format!("/bitrix/pub/?CHANNEL_ID={}", Pair::new(1).private);
        let body = "x".repeat(700_000);
        for _ in 0..3 {
            assert_eq!(ask(&mut client, "POST", &target, &body).await.0, 200);
        }
    });
}

/// What may take a second each, instead of many.
const SHORT: [&str; 3] = ["timing.head=1s", "timing.keep_alive=1s", "timing.body=1s"];

#[test]
fn half_a_preface_holds_no_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = tls::certificate(folder.path(), "push", &["push.test"]);
    let path = |kind: &str| folder.path().join(format!("push.{kind}")).display().to_string();
    let certificates = format!("tls.certificates={}:{}", path("crt"), path("key"));
    let key = format!("security.key={KEY}");
    let encrypted = ["server.listen_tls=127.0.0.1:0", &certificates, &key];
    let server = TestServer::with_folder(folder, &[&SHORT[..], &encrypted].concat());
    // The first part alone looks like the whole head of a request.
    for half in [&b"PRI * HTTP/2.0\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut connection = raw::Connection::open(server.address());
        connection.send(half);
        assert!(connection.is_closed(), "plain");
        let config = tls::client_of(&[&certificate], rustls::DEFAULT_VERSIONS, &["h2"]);
        let mut connection =
            tls::connect(&config, server.secure(), "push.test").expect("it accepts");
        connection.write_all(half).expect("it reads");
        let mut rest = Vec::new();
        // Cut off without a goodbye is an error; a wait for ever would be one of another kind.
        if let Err(error) = connection.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "encrypted");
        }
        assert!(rest.is_empty());
    }
    // In pieces, but all of it: settings come back.
    let mut connection = raw::Connection::open(server.address());
    for piece in [&b"PRI * HTTP/2.0\r\n\r\n"[..], b"SM\r\n\r", b"\n\0\0\0\x04\0\0\0\0\0"] {
        connection.send(piece);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut head = [0; 9];
    connection.stream().read_exact(&mut head).expect("a frame");
    assert_eq!(head[3], 0x04, "settings");
}

#[test]
fn a_peer_that_takes_no_answers_holds_no_connection() {
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const ACKNOWLEDGED: u8 = 1;
    let frame = |kind: u8, flags: u8, stream: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("a short one");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], content].concat()
    };
    let server = TestServer::with(&SHORT);
    let mut connection = raw::Connection::open(server.address());
    connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // No answer may have a body (RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE is 0).
    connection.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    // `GET /healthz`, with a name of the host (RFC 7541 §6).
    let request = [&b"\x82\x86\x04\x08/healthz\x01\x04test"[..]].concat();
    for number in 0..20 {
        connection.send(frame(1, 0x05, number * 2 + 1, &request));
    }
    let (mut answers, mut goodbyes) = (0, 0);
    let stream = connection.stream();
    loop {
        let mut head = [0; 9];
        if let Err(error) = stream.read_exact(&mut head) {
            let is_timeout = matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            );
            assert!(!is_timeout, "it is held");
            break;
        }
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut content = vec![0; length];
        stream.read_exact(&mut content).expect("a whole frame");
        match head[3] {
            1 => answers += 1,
            GOAWAY => goodbyes += 1,
            // It may have gone meanwhile.
            SETTINGS if head[4] != ACKNOWLEDGED => {
                let _ = stream.write_all(&frame(SETTINGS, ACKNOWLEDGED, 0, &[]));
            }
            PING if head[4] != ACKNOWLEDGED => {
                let _ = stream.write_all(&frame(PING, ACKNOWLEDGED, 0, &content));
            }
            _ => {}
        }
    }
    assert_eq!(answers, 20);
    assert!(goodbyes >= 1, "it was told");
}
