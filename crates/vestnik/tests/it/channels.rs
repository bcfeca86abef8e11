//! Who may subscribe to what: channel lists and their signatures (queue-server.md §3).

use std::net::SocketAddr;

use crate::raw::{self, Connection};
use crate::server::TestServer;
use crate::sign::{KEY, Pair, sign};
use crate::websocket::handshake;

/// Ids and signatures of the worked examples (queue-server.md §3.4).
const PRIVATE: &str = "00112233445566778899aabbccddeeff";
const PUBLIC: &str = "ffeeddccbbaa99887766554433221100";
const SHA1: &str = "cf29ff07dc09d1c9fb80211d358b1301f601054d";
const SHA1_PAIR: &str = "c9c1f42ccc4ff9152fcdfc62b8c03cd56bfea155";
const SHA1_PUBLIC: &str = "d50c2c98ed6f8e8ba0698d91b5a2fdac97fb26b0";
const SHA256: &str = "929e436b38ca60607ef2228809fdb7b09d71c29eb22c7bce63d72ee342639af7";
const SHA256_PAIR: &str = "6327cbc2ea6c7f30d6514350a4add1b3b9527cad7cbebcd2ae2913b986bb99a5";
const MD5: &str = "fb95d1d5aa3c74c48ef9cbc556bc8db0";
const MD5_PAIR: &str = "a025ab1f9b1dde07c326cc1bb47ec9e7";

/// A position that everything stored comes after.
const START: &str = "mid=00000000000000000000000000";

/// Whether a query may subscribe: a WebSocket handshake and a poll are asked, and must agree.
fn subscribes(address: SocketAddr, query: &str) -> bool {
    // Something to find, so that the poll is answered at once.
    assert_eq!(raw::publish(address, PRIVATE, 60, r#"{"found":1}"#).status, 200);
    let poll = raw::get(address, &format!("/bitrix/sub/?{query}&{START}"));
    let mut socket = Connection::open(address);
    socket.send(handshake(&format!("/bitrix/subws/?{query}")));
    let socket = socket.answer();
    if poll.status == 200 {
        assert!(poll.text().contains(r#""text":{"found":1}"#), "{poll:?}");
        assert_eq!(socket.status, 101, "{query}: {socket:?}");
        return true;
    }
    assert_eq!((poll.status, poll.text()), (400, "4010: Wrong Channel Id."), "{query}");
    assert_eq!(poll.header("content-type"), Some("text/plain"));
    assert_eq!(poll.header("access-control-allow-origin"), Some("*"));
    assert_eq!(poll.header("access-control-expose-headers"), Some("Last-Message-Id"));
    assert_eq!((socket.status, socket.text()), (400, "Wrong Channel Id."), "{query}");
    false
}

fn accepts(address: SocketAddr, list: &str) -> bool {
    subscribes(address, &format!("CHANNEL_ID={list}"))
}

#[test]
fn q_001_q_002_q_018_signed_ids_and_pairs_of_the_specification_subscribe() {
    let server = TestServer::start();
    assert!(accepts(server.address(), &format!("{PRIVATE}.{SHA1}")));
    assert!(accepts(server.address(), &format!("{PRIVATE}:{PUBLIC}.{SHA1_PAIR}")));
}

#[test]
fn q_003_q_004_w_025_with_a_key_unsigned_ids_and_pairs_are_refused() {
    let server = TestServer::start();
    assert!(!accepts(server.address(), PRIVATE));
    assert!(!accepts(server.address(), &format!("{PRIVATE}:{PUBLIC}")));
}

/// The original accepted every id while no key was set. Here a start without a key makes one.
#[test]
fn w_025_a_server_without_a_configured_key_refuses_bare_ids_too() {
    let server = TestServer::with(&["security.algorithm=sha1"]);
    assert!(server.data().join("signature.key").is_file(), "a key was made");
    assert!(!accepts(server.address(), PRIVATE));
    assert!(!accepts(server.address(), &format!("{PRIVATE}.{SHA1}")), "signed with another key");
}

#[test]
fn q_005_q_006_q_007_wrong_signatures_and_upper_case_are_refused() {
    let server = TestServer::start();
    let upper = PRIVATE.to_uppercase();
    for list in [
        format!("{PRIVATE}.{SHA1_PAIR}"),
        format!("{PRIVATE}:{PUBLIC}.{SHA1}"),
        format!("{PRIVATE}.{}", SHA1.to_uppercase()),
        format!("{PRIVATE}:{PUBLIC}.{}", SHA1_PAIR.to_uppercase()),
        format!("{upper}.{SHA1}"),
        format!("{upper}.{}", sign(&upper)),
    ] {
        assert!(!accepts(server.address(), &list), "{list}");
    }
}

#[test]
fn q_008_q_009_one_bad_or_empty_item_refuses_the_whole_list() {
    let server = TestServer::start();
    let good = format!("{PRIVATE}.{SHA1}");
    let other = Pair::new(1).private_signed();
    assert!(accepts(server.address(), &format!("{good}/{other}")));
    for list in [
        format!("{good}/{}", Pair::new(1).private),
        format!("{other}x/{good}"),
        format!("{good}/"),
        format!("/{good}"),
        format!("{good}//{other}"),
        format!("{good}%20"),
        String::new(),
        "/".to_owned(),
    ] {
        assert!(!accepts(server.address(), &list), "{list}");
    }
}

#[test]
fn q_010_encoded_slashes_and_colons_are_separators() {
    let server = TestServer::start();
    let other = Pair::new(1).private_signed();
    assert!(accepts(server.address(), &format!("{PRIVATE}%3A{PUBLIC}.{SHA1_PAIR}%2F{other}")));
    assert!(accepts(server.address(), &format!("{PRIVATE}%3a{PUBLIC}.{SHA1_PAIR}%2f{other}")));
}

#[test]
fn q_011_q_012_q_013_without_a_key_single_ids_subscribe_and_pairs_do_not() {
    let server = TestServer::with(&["security.unsigned=true"]);
    assert!(accepts(server.address(), PRIVATE));
    assert!(accepts(server.address(), &format!("{PRIVATE}.{}", "f".repeat(40))));
    assert!(!accepts(server.address(), &format!("{PRIVATE}.{}", "f".repeat(39))));
    assert!(!accepts(server.address(), &format!("{PRIVATE}:{PUBLIC}")));
    assert!(!accepts(server.address(), &format!("{PRIVATE}:{PUBLIC}.{SHA1_PAIR}")));
}

#[test]
fn q_014_q_015_signatures_are_those_of_the_configured_algorithm() {
    let key = format!("security.key={KEY}");
    for (algorithm, single, pair) in [("sha256", SHA256, SHA256_PAIR), ("md5", MD5, MD5_PAIR)] {
        let server = TestServer::with(&[&key, &format!("security.algorithm={algorithm}")]);
        assert!(accepts(server.address(), &format!("{PRIVATE}.{single}")), "{algorithm}");
        assert!(accepts(server.address(), &format!("{PRIVATE}:{PUBLIC}.{pair}")), "{algorithm}");
        assert!(!accepts(server.address(), &format!("{PRIVATE}.{SHA1}")), "{algorithm}");
        assert!(!accepts(server.address(), &format!("{PRIVATE}.{}", &single[..30])), "{algorithm}");
    }
}

#[test]
fn q_016_a_public_id_with_its_receiver_signature_cannot_subscribe() {
    let server = TestServer::start();
    assert!(!accepts(server.address(), &format!("{PUBLIC}.{SHA1_PUBLIC}")));
}

#[test]
fn q_017_the_name_of_the_parameter_is_case_sensitive() {
    let server = TestServer::start();
    for query in ["", "x=1"] {
        assert!(!subscribes(server.address(), query));
    }
    for name in ["channel_id", "Channel_Id", "CHANNEL_ID%20"] {
        assert!(!subscribes(server.address(), &format!("{name}={PRIVATE}.{SHA1}")), "{name}");
    }
    assert!(subscribes(server.address(), &format!("CHANNEL%5FID={PRIVATE}.{SHA1}")));
}

/// Every signature that misses by one digit, at whatever place, and every cut or lengthened one is
/// refused with the same answer. That the comparison takes the same time for all of them is a matter
/// of its function, which is written for that purpose and has no early exit.
#[test]
fn q_187_w_023_near_misses_of_a_signature_are_refused_like_any_other() {
    let server = TestServer::start();
    let mut connection = Connection::open(server.address());
    let mut refused = |signature: &str| {
        connection.send(format!(
            "GET /sub/?CHANNEL_ID={PRIVATE}.{signature} HTTP/1.1\r\nHost: test\r\n\r\n"
        ));
        let answer = connection.answer();
        assert_eq!((answer.status, answer.text()), (400, "4010: Wrong Channel Id."), "{signature}");
    };
    for place in 0..SHA1.len() {
        let digit = if &SHA1[place..=place] == "0" { "1" } else { "0" };
        refused(&format!("{}{digit}{}", &SHA1[..place], &SHA1[place + 1..]));
    }
    for signature in ["", &SHA1[..39], &SHA1[1..], &format!("{SHA1}0"), &format!("0{SHA1}")] {
        refused(signature);
    }
    assert!(accepts(server.address(), &format!("{PRIVATE}.{SHA1}")));
}

#[test]
fn q_171_w_001_a_repeated_channel_list_is_refused_and_ends_nothing() {
    let server = TestServer::start();
    let address = server.address();
    let good = format!("CHANNEL_ID={PRIVATE}.{SHA1}");
    let twice = format!("{good}&{good}");
    assert!(!subscribes(address, &twice));
    assert!(!subscribes(address, &format!("CHANNEL%5FID=&{good}")));
    // On pub it is dropped, on rest it is no pair, for presence it is no list.
    let published = raw::post(address, &format!("/pub/?{twice}"), &[], b"{}");
    assert_eq!((published.status, published.text()), (200, ""));
    let rest = raw::post(address, &format!("/rest/?{twice}"), &[], b"");
    assert_eq!((rest.status, rest.text()), (400, "4012: Public Channel Id is Required."));
    let asked = raw::get(address, &format!("/pub/?{twice}"));
    assert_eq!((asked.status, asked.text()), (400, "4017: No channels found."));
    assert!(subscribes(address, &good), "the server is still there");
}

/// Pages of the site may lie on another host than the push server, and mobile apps have no origin at
/// all, so `Access-Control-Allow-Origin: *` and the missing check of `Origin` are kept. A page that
/// learns an id without its signature hears nothing, and the metrics, which no page needs, are not
/// opened to other origins.
#[test]
fn w_026_other_origins_may_listen_with_a_signature_only() {
    let server = TestServer::start();
    let address = server.address();
    let ask = |target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\nOrigin: https://evil\r\n\r\n");
        raw::exchange(address, head)
    };
    raw::publish(address, PRIVATE, 60, "{}");
    let heard = ask(&format!("/sub/?CHANNEL_ID={PRIVATE}.{SHA1}&{START}"));
    assert_eq!((heard.status, heard.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(ask(&format!("/sub/?CHANNEL_ID={PRIVATE}&{START}")).status, 400);
    assert_eq!(ask("/metrics").header("access-control-allow-origin"), None);
}
