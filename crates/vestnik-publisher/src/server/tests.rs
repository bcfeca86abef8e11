use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use vestnik_core::message::{Expiry, MessageKind};
use vestnik_core::publisher::Recipients;

use super::*;

fn event(channels: u8) -> ModuleEvent {
    let channels = (0..channels).map(|n| ChannelId::from_bytes([n; 16])).collect();
    ModuleEvent {
        body: r#"{"module_id":"im","command":"m","params":[]}"#.into(),
        kind: MessageKind::parse("im_m"),
        expiry: Expiry::new(60, Expiry::MAX),
        recipients: Recipients { channels, ..Recipients::default() },
        user_params: Vec::new(),
        dictionary: None,
    }
}

fn publisher(address: std::net::SocketAddr, protocol: Protocol) -> RemotePublisher {
    let secret = vestnik_core::Secret::new("0123456789abcdef0123456789abcdef".to_owned());
    let options = Options {
        url: format!("http://{address}/bitrix/pub/"),
        protocol,
        hostname: "example.test".to_owned(),
        key: Some(Key::new(secret, vestnik_core::sign::Algorithm::Sha1, None)),
        limits: BatchLimits::default(),
        connect_within: Duration::from_secs(10),
        answer_within: Duration::from_secs(2),
        tls: None,
    };
    RemotePublisher::new(options, Breaker::default(), Clock::System, Box::new(|_| ())).unwrap()
}

/// Answers one request on each connection, or nothing for an empty text; then closes.
async fn answering(
    answers: &'static [&'static str],
    protocol: Protocol,
    events: &[ModuleEvent],
) -> (Vec<Result<(), PublishError>>, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let publisher = publisher(listener.local_addr().unwrap(), protocol);
    let serve = async {
        let mut requests = Vec::new();
        let mut silent = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 * 1024];
            let length = stream.read(&mut request).await.unwrap();
            requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.is_empty() {
                silent.push(stream);
            }
        }
        (requests, silent)
    };
    let (outcomes, (requests, _)) = tokio::join!(publisher.publish(events), serve);
    (outcomes, requests)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]";

#[tokio::test]
async fn m_053_a_legacy_request_as_it_goes_over_the_wire() {
    let (outcomes, requests) = answering(&[OK, OK, OK], Protocol::Text(2), &[event(5)]).await;
    assert_eq!(outcomes, [Ok(())]);
    let first = requests[0].to_ascii_lowercase();
    let list = format!("{}/{}", "00".repeat(16), "01".repeat(16));
    assert!(
        first.starts_with(&format!("post /bitrix/pub/?channel_id={list} http/1.1\r\n")),
        "{first}"
    );
    assert!(first.contains("\r\nmessage-expiry: 60\r\n"), "{first}");
    assert!(
        first.ends_with("\r\n\r\n{\"module_id\":\"im\",\"command\":\"m\",\"params\":[]}"),
        "{first}"
    );
}

#[tokio::test]
async fn m_062_what_an_answer_says_of_the_events() {
    let rpc = || Protocol::JsonRpc("h".to_owned());
    let text = || Protocol::Text(100);
    const UNAVAILABLE: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
    const FORBIDDEN: &str = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
    const ZERO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n0";
    let name = |outcome: &Result<(), PublishError>| match outcome {
        Ok(()) => "published",
        Err(PublishError::Refused(_)) => "refused",
        Err(PublishError::Unpublished(_)) => "unpublished",
        Err(PublishError::Unknown(_)) => "unknown",
    };
    let cases: [(&'static [&'static str], Protocol, &str); 8] = [
        (&[OK], rpc(), "published"),
        (&[ZERO], rpc(), "unknown"),
        (&[UNAVAILABLE], rpc(), "unpublished"),
        (&[UNAVAILABLE], text(), "unknown"),
        (&[FORBIDDEN], text(), "refused"),
        (&[""], text(), "unknown"),
        (&["SMTP here\r\n\r\n"], Protocol::Protobuf(None), "unknown"),
        (
            &["HTTP/1.1 200 OK\r\nVestnik-Dropped: why\r\nContent-Length: 0\r\n\r\n"],
            text(),
            "refused",
        ),
    ];
    for (answers, protocol, expected) in cases {
        let (outcomes, _) = answering(answers, protocol.clone(), &[event(1)]).await;
        assert_eq!(name(&outcomes[0]), expected, "{answers:?} {protocol:?} {outcomes:?}");
    }
}

#[tokio::test]
async fn m_099_after_a_request_without_an_answer_the_rest_waits_and_is_not_doubled() {
    let events = [event(1), event(3), event(1)];
    let (outcomes, requests) = answering(&[OK, OK, ""], Protocol::Text(1), &events).await;
    assert_eq!((requests.len(), &outcomes[0]), (3, &Ok(())));
    assert!(matches!(outcomes[1], Err(PublishError::Unknown(_))), "a part got it: {outcomes:?}");
    assert!(outcomes[2].as_ref().is_err_and(PublishError::may_be_repeated), "{outcomes:?}");
}

#[tokio::test]
async fn m_057_a_server_that_is_down_takes_nothing_and_what_it_missed_can_be_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let publisher = publisher(listener.local_addr().unwrap(), Protocol::Protobuf(None));
    drop(listener);
    let outcomes = publisher.publish(&[event(1), event(1)]).await;
    assert!(outcomes.iter().all(|it| it.as_ref().is_err_and(PublishError::may_be_repeated)));
    assert_eq!(publisher.breaker().state().map(|it| it.count), Some(1));
}
