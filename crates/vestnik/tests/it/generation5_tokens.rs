//! Connection tokens (json-rpc.md §5).

use serde_json::json;

use crate::generation5::{
    HOST, RpcClient, api, base64url, event, now_s, publish, token, token_of, token_with,
};
use crate::raw;
use crate::server::TestServer;
use crate::sign::{KEY, Pair};
use crate::websocket::Subscriber;

/// How a web client's handshake with a bad token ends.
fn closed(address: std::net::SocketAddr, token: &str) -> (u16, String) {
    let query = format!("token={token}&jsonRpc=true&revision=19");
    Subscriber::open(address, &query).close_reason()
}

fn wrong() -> (u16, String) {
    (4010, "Wrong Channel Id.".to_owned())
}

#[test]
fn j_050_j_056_k_041_a_bad_token_of_a_web_client_is_closed_with_4010() {
    let server = TestServer::start();
    let claims = json!({"iss": HOST, "exp": now_s() + 60, "sub": "7"});
    let good = token(7, &[]);
    let unsigned = format!(
        "{}.{}.",
        base64url(br#"{"typ":"JWT","alg":"none"}"#),
        base64url(claims.to_string().as_bytes())
    );
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    // Another first letter: the last one may stand for nothing.
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let other_key = format!("{signed}.{first}{}", &signature[1..]);
    for bad in [
        token_with(&json!({"typ": "JWT", "alg": "none"}), &claims),
        token_with(&json!({"typ": "JWT", "alg": "HS512"}), &claims),
        token_with(&json!({"typ": "JWT", "alg": "RS256"}), &claims),
        unsigned,
        other_key,
        token_of(json!({"sub": "7", "exp": now_s() - 61})),
        "x".to_owned(),
        String::new(),
    ] {
        assert_eq!(closed(server.address(), &bad), wrong(), "{bad}");
    }
    // Nothing is heard before the close, not even a ping.
    let query = format!("token={}&jsonRpc=true&revision=19", "a.b.c");
    let mut refused = Subscriber::open(server.address(), &query);
    assert!(matches!(refused.next(), tungstenite::Message::Close(Some(_))));
    RpcClient::connect(server.address(), &good).heard_nothing();
}

#[test]
fn j_057_k_041_a_bad_token_without_revision_or_of_a_poll_gets_400() {
    let server = TestServer::start();
    let expired = token_of(json!({"sub": "7", "exp": now_s() - 61}));
    for more in ["&jsonRpc=true", ""] {
        let Err(answer) = Subscriber::try_open(server.address(), &format!("token={expired}{more}"))
        else {
            panic!("refused")
        };
        assert_eq!((answer.status, answer.text()), (400, "4010: Wrong Channel Id."));
    }
    for revision in ["", "&revision=19"] {
        let target = format!("/bitrix/sub/?token={expired}&jsonRpc=true{revision}");
        let answer = raw::get(server.address(), &target);
        assert_eq!((answer.status, answer.text()), (400, "4010: Wrong Channel Id."));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
}

#[test]
fn j_053_j_054_j_055_leeway_subjects_and_channels_are_those_of_the_specification() {
    let server = TestServer::start();
    let address = server.address();
    for claims in [
        json!({"sub": "7", "exp": now_s() - 30}),
        json!({"sub": "7", "iat": now_s() + 30}),
        json!({"sub": "7", "nbf": now_s() + 30}),
        json!({"sub": "-12", "chan": "x,,y"}),
        json!({"chan": format!("garbage,{},{}", "A".repeat(32), "z".repeat(32))}),
        json!({"sub": "7", "unknown": {"a": [1]}}),
    ] {
        RpcClient::connect(address, &token_of(claims)).heard_nothing();
    }
    for claims in [
        json!({"iat": now_s() + 90, "sub": "7"}),
        json!({"chan": "x,y"}),
        json!({}),
        json!({"sub": "0"}),
        json!({"sub": "seven", "chan": "a".repeat(32)}),
    ] {
        assert_eq!(closed(address, &token_of(claims.clone())), wrong(), "{claims}");
    }
}

#[test]
fn j_058_an_open_connection_outlives_its_token() {
    // It has ended already, but within the leeway; deadlines are looked at every second.
    let ended = token_of(json!({"sub": "7", "exp": now_s() - 20}));
    let server = TestServer::with(&["timing.text_ping=1s"]);
    let mut client = RpcClient::connect(server.address(), &ended);
    while client.pings < 4 {
        publish(server.address(), &json!({"userList": [7], "body": event(1)}));
        assert_eq!(client.numbers(1), [1]);
    }
    // The grace can be shortened, down to nothing.
    let server = TestServer::with(&["timing.text_ping=1s", "timing.token_grace=0s"]);
    let query = format!("token={ended}&jsonRpc=true");
    let web = format!("{query}&revision=19");
    assert_eq!(Subscriber::open(server.address(), &web).close_reason(), wrong());
    let mobile = Subscriber::open(server.address(), &query).close_reason();
    assert_eq!(mobile, (1001, String::new()), "mobile clients come back only after others");
}

#[test]
fn j_059_without_a_key_generation_5_is_refused_and_the_log_says_why() {
    let server = TestServer::with(&["security.unsigned=true"]);
    assert_eq!(closed(server.address(), &token(7, &[])), wrong());
    let empty = {
        let signed = format!(
            "{}.{}",
            base64url(br#"{"typ":"JWT","alg":"HS256"}"#),
            base64url(json!({"sub": "7", "exp": now_s() + 60}).to_string().as_bytes())
        );
        let key = vestnik_core::sign::Key::new(
            vestnik_core::Secret::new(String::new()),
            vestnik_core::sign::Algorithm::Sha1,
            None,
        );
        let signature = key.sign_token(signed.as_bytes());
        format!("{signed}.{}", base64url(signature.as_bytes()))
    };
    assert_eq!(closed(server.address(), &empty), wrong(), "what PHP signs with an empty key");
    assert_eq!(api(server.address(), "[]").status, 403);
    // Signed ids are another matter: old clients of such a site are served.
    let query = format!("CHANNEL_ID={}&jsonRpc=true", Pair::new(1).private);
    RpcClient::open(server.address(), &query).heard_nothing();
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(log.contains("generation 5 needs a signature key"), "{log}");
}

#[test]
fn j_060_tokens_and_signatures_never_reach_the_log() {
    let server = TestServer::with(&["log.level=trace", &format!("security.key={KEY}")]);
    let good = token(7, &[Pair::new(99).private]);
    let expired = token_of(json!({"sub": "7", "exp": now_s() - 100}));
    RpcClient::connect(server.address(), &good).heard_nothing();
    closed(server.address(), &expired);
    let target = format!("/bitrix/sub/?token={expired}&jsonRpc=true");
    raw::get(server.address(), &target);
    assert!(Subscriber::try_open(server.address(), &format!("token={expired}")).is_err());
    raw::get(server.address(), &format!("/nowhere/?token={good}"));
    api(server.address(), "[]");
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(log.contains("token refused") && log.contains("expired"), "{log}");
    for token in [&good, &expired] {
        for part in token.split('.').skip(1) {
            assert!(!log.contains(&part[..20]), "{log}");
        }
    }
    assert!(!log.contains(&crate::sign::sign("[]")), "{log}");
}
