//! Configurations of clients, byte for byte.

use vestnik_service::channel::ChannelError;
use vestnik_service::channel::ChannelKind;
use vestnik_service::config::{ConfigRequest, Shape};
use vestnik_service::option::Key;

use crate::fixture::{Fixture, P, Q, S};

const PAIR_SIGNATURE: &str = "63cdefd7c89f60974b7e3577ff355dad1c4a3516";
const PUBLIC_SIGNATURE: &str = "360b94c6dd0e909786df84d0f60a40cfde79add8";
const SHARED_SIGNATURE: &str = "b7874858e2aff98a26359ab2fd08b9880240220b";

fn user_1() -> ConfigRequest<'static> {
    ConfigRequest { user: 1, host: "example.test", ..ConfigRequest::default() }
}

async fn json(fixture: &Fixture, request: &ConfigRequest<'_>) -> String {
    fixture.tenant.client_config(request).await.unwrap().to_json()
}

/// The same after a second change of the settings within one second, which clients notice (S-51).
fn changed_twice(config: &str) -> String {
    config.replace(r#""config_timestamp":1767225600"#, r#""config_timestamp":1767225601"#)
}

/// The examples of module.md §5.2 with the parts in which they differ.
fn example(version: u8, websockets: bool, publishing: bool, private: &str, rest: &str) -> String {
    format!(
        r#"{{"server":{{"version":{version},"server_enabled":true,"mode":"personal","hostname":"example.test",
"long_polling":"http://example.test/bitrix/sub/","long_pooling_secure":"https://example.test/bitrix/sub/",
"websocket_enabled":{websockets},"websocket":"ws://example.test/bitrix/subws/","websocket_secure":"wss://example.test/bitrix/subws/",
"publish_enabled":{publishing},"publish":"http://example.test/bitrix/pubweb/","publish_secure":"https://example.test/bitrix/pubweb/",
"config_timestamp":1767225600}},
"api":{{"revision_web":19,"revision_mobile":3}},
"channels":{{
"shared":{{"id":"{S}.{SHARED_SIGNATURE}",
"start":"2026-01-01T00:00:00+00:00","end":"2026-01-01T12:00:05+00:00","type":"shared"}},
"private":{{"id":{private},
"start":"2026-01-01T00:00:00+00:00","end":"2026-01-01T12:00:05+00:00","type":"private"}}}},
{rest}}}"#
    )
    .replace('\n', "")
}

fn pair() -> String {
    format!(r#""{P}:{Q}.{PAIR_SIGNATURE}","public_id":"{Q}.{PUBLIC_SIGNATURE}""#)
}

fn public_channels() -> String {
    format!(
        r#""publicChannels":{{"1":{{"user_id":1,"public_id":"{Q}","signature":"{PUBLIC_SIGNATURE}","start":"2026-01-01T00:00:00+00:00","end":"2026-01-01T12:00:05+00:00"}}}}"#
    )
}

#[tokio::test]
async fn m_027_m_031_the_configuration_of_generation_4() {
    let fixture = Fixture::example("4").await;
    let expected = example(4, true, true, &pair(), &public_channels());
    assert_eq!(json(&fixture, &user_1()).await, expected);
}

#[tokio::test]
async fn m_028_the_configuration_of_generation_5_has_a_token() {
    let fixture = Fixture::example("5").await;
    let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJoIiwiaWF0IjoxNzY3MjI1NjAwLCJleHAiOjE3NjcyNjg4MDAsInN1YiI6IjEiLCJjaGFuIjoiYTBhMWEyYTNhNGE1YTZhN2E4YTlhYWFiYWNhZGFlYWYifQ.9RaKzzi_Dd5KNu2bS5nCD8UQnrTg-lZDG3oMZrHOF3c";
    let rest = format!(r#""jwt":"{token}","exp":1767268800,{}"#, public_channels());
    assert_eq!(json(&fixture, &user_1()).await, example(5, true, true, &pair(), &rest));
}

#[tokio::test]
async fn m_029_the_configuration_of_the_cloud() {
    let fixture = Fixture::example("4").await;
    let key = (Key::SharedServerKey, crate::fixture::KEY);
    fixture
        .set(&[
            (Key::ServerMode, "shared"),
            (Key::RegisteredOnSharedServer, "Y"),
            (Key::SharedServerAddress, "cloud.test"),
            key,
            (Key::SignatureKey, ""),
        ])
        .await;
    let rest = format!(r#""clientId":"9300e3d70f5eb313b91e90b11fe0bdea",{}"#, public_channels());
    let expected = example(4, true, true, &pair(), &rest)
        .replace("personal", "shared")
        .replace("http://example.test/bitrix/sub/", "https://cloud.test/subws/")
        .replace("https://example.test/bitrix/sub/", "https://cloud.test/subws/")
        .replace("wss://example.test/bitrix/subws/", "wss://cloud.test/subws/")
        .replace("ws://example.test/bitrix/subws/", "wss://cloud.test/subws/")
        .replace("https://example.test/bitrix/pubweb/", "https://cloud.test/rest/")
        .replace("http://example.test/bitrix/pubweb/", "https://cloud.test/rest/");
    assert_eq!(json(&fixture, &user_1()).await, changed_twice(&expected));
}

#[tokio::test]
async fn m_030_configurations_of_generations_1_to_3() {
    let private = format!(r#""{P}.9d333147261a76d29bd6d042d45a85abca946800","public_id":"""#);
    for (generation, websocket, expected) in
        [(3, "N", true), (2, "Y", true), (2, "N", false), (1, "Y", true), (1, "N", false)]
    {
        let fixture = Fixture::example(&generation.to_string()).await;
        fixture.set(&[(Key::Websocket, websocket)]).await;
        let expected = example(generation, expected, false, &private, r#""publicChannels":false"#);
        assert_eq!(json(&fixture, &user_1()).await, changed_twice(&expected));
    }
}

#[tokio::test]
async fn m_032_upper_case_names_come_with_unix_times() {
    let fixture = Fixture::example("4").await;
    let config = fixture.tenant.client_config(&user_1()).await.unwrap();
    let expected = format!(
        r#"{{"SERVER":{{"VERSION":4,"SERVER_ENABLED":true,"MODE":"personal","HOSTNAME":"example.test","LONG_POLLING":"http://example.test/bitrix/sub/","LONG_POOLING_SECURE":"https://example.test/bitrix/sub/","WEBSOCKET_ENABLED":true,"WEBSOCKET":"ws://example.test/bitrix/subws/","WEBSOCKET_SECURE":"wss://example.test/bitrix/subws/","PUBLISH_ENABLED":true,"PUBLISH":"http://example.test/bitrix/pubweb/","PUBLISH_SECURE":"https://example.test/bitrix/pubweb/","CONFIG_TIMESTAMP":1767225600}},"API":{{"REVISION_WEB":19,"REVISION_MOBILE":3}},"CHANNELS":{{"SHARED":{{"ID":"{S}.{SHARED_SIGNATURE}","START":1767225600,"END":1767268805}},"PRIVATE":{{"ID":"{P}:{Q}.{PAIR_SIGNATURE}","PUBLIC_ID":"{Q}.{PUBLIC_SIGNATURE}","START":1767225600,"END":1767268805}}}},"PUBLIC_CHANNELS":{{"1":{{"USER_ID":1,"PUBLIC_ID":"{Q}","SIGNATURE":"{PUBLIC_SIGNATURE}","START":1767225600,"END":1767268805}}}}}}"#
    );
    assert_eq!(config.to_value(Shape::Upper).to_json(), expected);
}

#[tokio::test]
async fn m_023_without_a_key_ids_are_bare() {
    let fixture = Fixture::example("4").await;
    fixture.set(&[(Key::SignatureKey, "")]).await;
    let json = json(&fixture, &user_1()).await;
    assert!(json.contains(&format!(r#""id":"{P}:{Q}","public_id":"","#)), "{json}");
    assert!(json.contains(&format!(r#""id":"{S}","#)), "{json}");
}

#[tokio::test]
async fn m_033_without_a_server_there_is_no_configuration() {
    let fixture = Fixture::example("4").await;
    let nobody = ConfigRequest::default();
    let error = fixture.tenant.client_config(&nobody).await.unwrap_err();
    assert!(matches!(error, ChannelError::InactiveUser(0)));
    fixture.set(&[(Key::Nginx, "N")]).await;
    let error = fixture.tenant.client_config(&user_1()).await.unwrap_err();
    assert!(matches!(error, ChannelError::ServerOff));
    let error = fixture.tenant.legacy_config(1, "", false).await.unwrap_err();
    assert!(matches!(error, ChannelError::ServerOff));
}

#[tokio::test]
async fn m_034_m_100_guests_get_the_shared_channel_and_their_own_where_guests_are_allowed() {
    let fixture = Fixture::example("5").await;
    let guest = ConfigRequest { user: -7, host: "example.test", ..ConfigRequest::default() };
    let config = json(&fixture, &guest).await;
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["publicChannels"], false);
    assert!(config["channels"].get("private").is_none());
    // The vector of a guest's token.
    let token = config["jwt"].as_str().unwrap();
    assert!(token.ends_with(".4FGocMVCHqmy_YfSqoe_Fswf1vYPn2pDD_4WJAseUh4"));
    fixture.set(&[(Key::Guest, "Y")]).await;
    let config: serde_json::Value = serde_json::from_str(&json(&fixture, &guest).await).unwrap();
    let private = fixture.tenant.channel(-7, &ChannelKind::Private).await.unwrap();
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(config["channels"]["private"]["id"], options.sign_channel(private.id));
    assert_eq!(config["channels"]["private"]["public_id"], "");
    assert_ne!(config["jwt"].as_str(), Some(token), "the private channel is in the token");
}

#[tokio::test]
async fn m_035_the_configuration_of_a_channel_object_lasts_a_year() {
    let fixture = Fixture::example("5").await;
    let channel = vestnik_service::channel::FreeChannel {
        id: P.parse().unwrap(),
        public_id: Q.parse().unwrap(),
        created_s: crate::fixture::START_S,
    };
    let request = ConfigRequest { channel: Some(channel), ..user_1() };
    let request = ConfigRequest { user: 0, ..request };
    let config: serde_json::Value = serde_json::from_str(&json(&fixture, &request).await).unwrap();
    let expected = serde_json::json!({"private": {
        "id": format!("{P}:{Q}.{PAIR_SIGNATURE}"), "public_id": format!("{Q}.{PUBLIC_SIGNATURE}"),
        "start": "2026-01-01T00:00:00+00:00", "end": "2027-01-01T00:00:00+00:00", "type": "private"}});
    assert_eq!(config["channels"], expected);
    assert_eq!(config["publicChannels"], false);
    assert!(config["jwt"].is_string());
}

#[tokio::test]
async fn m_036_an_application_gets_both_channels_of_its_own_under_the_literal_names() {
    let fixture = Fixture::example("4").await;
    let request = ConfigRequest { application: Some("app.1"), ..user_1() };
    let config: serde_json::Value = serde_json::from_str(&json(&fixture, &request).await).unwrap();
    let kind = ChannelKind::named("app.1").unwrap();
    for (name, user) in [("shared", 0), ("private", 1)] {
        let channel = fixture.tenant.channel(user, &kind).await.unwrap();
        let id = config["channels"][name]["id"].as_str().unwrap();
        assert!(id.starts_with(&channel.id.to_string()), "{id}");
        assert_eq!(config["channels"][name]["type"], name);
    }
    assert_eq!(config["publicChannels"]["1"]["public_id"], Q, "the user's, not the application's");
}

#[tokio::test]
async fn m_037_an_end_below_generation_5_comes_from_config_ttl_alone() {
    let fixture = Fixture::example("4").await;
    assert!(!json(&fixture, &user_1()).await.contains("\"exp\""));
    fixture.set(&[(Key::ConfigTtl, "600")]).await;
    assert!(json(&fixture, &user_1()).await.contains(r#","exp":1767226200,"publicChannels""#));
    fixture.set(&[(Key::NginxVersion, "5")]).await;
    assert!(json(&fixture, &user_1()).await.contains(r#","exp":1767226200,"publicChannels""#));
}

#[tokio::test]
async fn m_038_m_100_the_domain_is_the_host_of_the_page_and_replaced_everywhere() {
    let fixture = Fixture::example("4").await;
    let request = ConfigRequest { host: "other.test", ..user_1() };
    let config = json(&fixture, &request).await;
    assert!(
        config.contains(
            r#""hostname":"example.test","long_polling":"http://other.test/bitrix/sub/""#
        )
    );
    assert!(!config.contains('#'));
    let without_host = ConfigRequest { host: "", ..user_1() };
    assert!(json(&fixture, &without_host).await.contains("ws://example.test/bitrix/subws/"));
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(options.address(Key::PathToJsonRpc, "a.test"), "https://a.test/bitrix/api/");
}

fn literal(head: &str, ids: &str, public_id: &str, publish: &str, websocket: &str) -> String {
    let address = |base: &str| match base {
        "" => String::new(),
        base => format!("{base}?CHANNEL_ID={ids}"),
    };
    format!(
        "{{{head}'CHANNEL_ID':'{ids}','CHANNEL_PUBLIC_ID':'{public_id}','CHANNEL_DT':'1767225600/1767225600','USER_ID':'1','LAST_ID':'0','PATH':'{}','PATH_PUB':'{}','PATH_WS':'{}','PATH_COMMAND':'','METHOD':'LONG','REVISION':'19','ERROR':''}}",
        address("http://#DOMAIN#/bitrix/sub/"),
        address(publish),
        address(websocket),
    )
}

#[tokio::test]
async fn m_040_m_041_the_literal_of_old_clients_for_each_generation() {
    let bare = format!("{P}/{S}");
    let signed = format!("{P}.9d333147261a76d29bd6d042d45a85abca946800/{S}.{SHARED_SIGNATURE}");
    let paired = format!("{P}:{Q}.{PAIR_SIGNATURE}/{S}.{SHARED_SIGNATURE}");
    let public_id = format!("{Q}.{PUBLIC_SIGNATURE}");
    let websocket = "ws://#DOMAIN#/bitrix/subws/";
    let publish = "http://#DOMAIN#/bitrix/pubweb/";
    for (generation, key, expected) in [
        ("1", "", literal("", &bare, "", "", "")),
        ("2", "", literal("", &bare, "", "", websocket)),
        ("3", crate::fixture::KEY, literal("'HEADERS':'N',", &signed, "", "", websocket)),
        (
            "4",
            crate::fixture::KEY,
            literal("'HEADERS':'N',", &paired, &public_id, publish, websocket),
        ),
    ] {
        let fixture = Fixture::example(generation).await;
        fixture.set(&[(Key::SignatureKey, key)]).await;
        let found = fixture.tenant.legacy_config(1, "", false).await.unwrap();
        assert_eq!(found, expected, "generation {generation}");
    }
    let fixture = Fixture::example("4").await;
    let secure = fixture.tenant.legacy_config(1, "", true).await.unwrap();
    for address in
        ["https://#DOMAIN#/bitrix/sub/", "wss://#DOMAIN#/", "https://#DOMAIN#/bitrix/pubweb/"]
    {
        assert!(secure.contains(address), "{secure}");
    }
    fixture.set(&[(Key::Guest, "Y")]).await;
    let guest = fixture.tenant.legacy_config(-7, "", false).await.unwrap();
    assert!(!guest.contains(S), "a guest hears the private channel alone: {guest}");
}

/// X-17: the PHP module gives old clients local addresses with the cloud's key, which cannot work.
#[tokio::test]
async fn m_100_old_clients_get_the_addresses_of_the_cloud() {
    let fixture = Fixture::example("4").await;
    fixture
        .set(&[
            (Key::ServerMode, "shared"),
            (Key::RegisteredOnSharedServer, "Y"),
            (Key::SharedServerAddress, "cloud.test"),
            (Key::SharedServerKey, crate::fixture::KEY),
        ])
        .await;
    let found = fixture.tenant.legacy_config(1, "", false).await.unwrap();
    let client = "&clientId=9300e3d70f5eb313b91e90b11fe0bdea'";
    assert!(found.contains("'PATH':'https://cloud.test/subws/?CHANNEL_ID="), "{found}");
    assert!(found.contains("'PATH_WS':'wss://cloud.test/subws/?CHANNEL_ID="), "{found}");
    assert_eq!(found.matches(client).count(), 3, "{found}");
    assert!(!found.contains("#DOMAIN#"), "{found}");
}
