//! What a site's `pull.config.get` answers, with real signatures: the configuration of a client
//! (clients.md §2).

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::server::TestServer;
use crate::sign::Pair;
use crate::websocket::Subscriber;

/// A moment as the portal writes it, `hours` from a fixed day; clients compare with `serverTime`.
fn moment(hours: u32) -> String {
    format!("2026-01-{:02}T{:02}:00:00+00:00", 1 + hours / 24, hours % 24)
}

fn entry(user: u64, pair: Pair) -> Value {
    let (id, signature) = {
        let signed = pair.public_signed();
        let (id, signature) = signed.split_once('.').expect("signed");
        (id.to_owned(), signature.to_owned())
    };
    json!({"user_id": user, "public_id": id, "signature": signature,
           "start": moment(0), "end": moment(12)})
}

/// The whole configuration of `user` for a server of `version` at `address`, who may write to
/// `others`.
pub(crate) fn configuration(
    address: SocketAddr,
    version: u8,
    user: u64,
    shared: Pair,
    others: &[u64],
) -> Value {
    let mine = Pair::new(user);
    let has_public = version >= 4;
    let (private, public) = if has_public {
        (mine.signed(), mine.public_signed())
    } else {
        (mine.private_signed(), String::new())
    };
    let known = others.iter().chain([&user]);
    let public_channels: serde_json::Map<_, _> =
        known.map(|&user| (user.to_string(), entry(user, Pair::new(user)))).collect();
    let (http, ws) = (format!("http://{address}"), format!("ws://{address}"));
    json!({
        "server": {
            "version": version,
            "server_enabled": true,
            "mode": "personal",
            "hostname": "portal.test",
            "long_polling": format!("{http}/bitrix/sub/"),
            "long_pooling_secure": format!("{http}/bitrix/sub/"),
            "websocket_enabled": true,
            "websocket": format!("{ws}/bitrix/subws/"),
            "websocket_secure": format!("{ws}/bitrix/subws/"),
            "publish_enabled": has_public,
            "publish": format!("{http}/bitrix/pubweb/"),
            "publish_secure": format!("{http}/bitrix/pubweb/"),
            "config_timestamp": 0,
        },
        "api": {"revision_web": 19, "revision_mobile": 3},
        "channels": {
            "shared": {"id": shared.private_signed(), "start": moment(0), "end": moment(12),
                       "type": "shared"},
            "private": {"id": private, "public_id": public, "start": moment(0), "end": moment(12),
                        "type": "private"},
        },
        "publicChannels": if has_public { Value::Object(public_channels) } else { json!(false) },
        "serverTime": moment(0),
    })
}

fn text<'a>(configuration: &'a Value, pointer: &str) -> &'a str {
    configuration.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}"))
}

#[test]
fn k_080_the_generator_yields_every_key_with_signatures_that_the_server_accepts() {
    let server = TestServer::start();
    for version in [3, 4] {
        let configuration = configuration(server.address(), version, 7, Pair::new(99), &[8]);
        for key in [
            "version",
            "server_enabled",
            "mode",
            "hostname",
            "long_polling",
            "long_pooling_secure",
            "websocket_enabled",
            "websocket",
            "websocket_secure",
            "publish_enabled",
            "publish",
            "publish_secure",
            "config_timestamp",
        ] {
            assert!(configuration["server"].get(key).is_some(), "server.{key}");
        }
        let channels = format!(
            "{}/{}",
            text(&configuration, "/channels/private/id"),
            text(&configuration, "/channels/shared/id")
        );
        Subscriber::open(server.address(), &format!("CHANNEL_ID={channels}&revision=19"));
        assert_eq!(configuration["publicChannels"].is_object(), version >= 4);
    }
}

#[test]
fn k_081_urls_given_to_clients_carry_no_query() {
    let address: SocketAddr = "127.0.0.1:8895".parse().expect("an address");
    let configuration = configuration(address, 4, 7, Pair::new(99), &[]);
    let server = configuration["server"].as_object().expect("an object");
    let urls: Vec<&str> =
        server.values().filter_map(Value::as_str).filter(|text| text.contains("://")).collect();
    assert_eq!(urls.len(), 6);
    assert!(urls.iter().all(|url| !url.contains(['?', '&']) && url.ends_with('/')), "{urls:?}");
}

#[test]
fn k_082_numbers_that_clients_compare_are_numbers_and_a_channel_ends_in_the_future() {
    let address: SocketAddr = "127.0.0.1:8895".parse().expect("an address");
    for version in [3, 4] {
        let configuration = configuration(address, version, 7, Pair::new(99), &[8]);
        assert!(configuration["server"]["config_timestamp"].is_u64());
        assert_eq!(configuration["api"]["revision_web"], 19);
        let channels = configuration["channels"].as_object().expect("an object");
        let now = text(&configuration, "/serverTime");
        assert!(!channels.is_empty());
        // The same form everywhere, so that the texts compare as the moments do.
        assert!(channels.values().all(|channel| text(channel, "/end") > now));
    }
}
