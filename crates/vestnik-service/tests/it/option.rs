//! The option store.

use vestnik_service::option::{Files, Key, OptionError, Source};

use crate::fixture::Fixture;

#[tokio::test]
async fn m_003_every_key_has_its_default_and_a_new_installation_is_of_generation_4() {
    let fixture = Fixture::new().await;
    let options = fixture.tenant.options("").await.unwrap();
    for (name, value) in [
        ("nginx", "N"),
        ("nginx_command_per_hit", "100"),
        ("nginx_headers", "Y"),
        ("nginx_error", "N"),
        ("server_mode", "personal"),
        ("path_to_publish", "http://127.0.0.1:8895/bitrix/pub/"),
        ("path_to_json_rpc", "https://#DOMAIN#/bitrix/api/"),
        ("path_to_publish_web", "http://#DOMAIN#/bitrix/pubweb/"),
        ("path_to_mobile_listener_secure", "https://#DOMAIN#:8894/bitrix/sub/"),
        ("path_to_websocket_secure", "wss://#DOMAIN#/bitrix/subws/"),
        ("websocket", "Y"),
        ("signature_algo", "sha1"),
        ("enable_protobuf", "Y"),
        ("limit_max_payload", "1048576"),
        ("push", "N"),
        ("push_message_per_hit", "100"),
        ("push_service_url", "https://cloud-messaging.bitrix24.com/send/"),
        ("guest", "N"),
        ("exclude_sites", "a:0:{}"),
        ("shared_worker_allowed", "Y"),
    ] {
        let key = Key::named(name).unwrap();
        assert_eq!((options.text(key), options.source(key)), (value, Source::BuiltIn), "{name}");
    }
    assert_eq!(Key::NginxVersion.default_value(), "2", "for options of an existing site");
    assert_eq!(options.text(Key::NginxVersion), "4");
    fixture.set(&[(Key::Region, "ru")]).await;
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(options.text(Key::PushServiceUrl), "https://cloud-messaging.bitrix24.tech/send/");
}

#[tokio::test]
async fn m_004_the_first_source_with_a_value_counts() {
    let fixture = Fixture::new().await;
    let tenant = &fixture.tenant;
    let mut files = Files::default();
    let check = async |site: &str, value: &str, source| {
        let options = tenant.options(site).await.unwrap();
        let found = (options.text(Key::Websocket), options.source(Key::Websocket));
        assert_eq!(found, (value, source));
    };
    check("s1", "Y", Source::BuiltIn).await;
    files.read_include("<?php\n$pull_default_option = array('websocket' => 'N');").unwrap();
    tenant.set_files(files.clone());
    check("s1", "N", Source::IncludeFile).await;
    files.read_settings("<?php return ['pull' => ['value' => ['websocket' => 'Y']]];").unwrap();
    tenant.set_files(files);
    check("s1", "Y", Source::File).await;
    fixture.set(&[(Key::Websocket, "N")]).await;
    check("s1", "N", Source::Database).await;
    tenant.set_options("s1", &[(Key::Websocket, Some("Y"))]).await.unwrap();
    check("s1", "Y", Source::Site).await;
    check("s2", "N", Source::Database).await;
    tenant.set_options("s1", &[(Key::Websocket, None)]).await.unwrap();
    check("s1", "N", Source::Database).await;
}

/// What BitrixVM writes.
const BITRIX_VM: &str = r"<?php
return array(
  'utf_mode' => array('value' => true, 'readonly' => true),
  'pull' => array(
    'value' => array(
      'path_to_listener' => 'http://#DOMAIN#/bitrix/sub/',
      'path_to_modern_listener' => 'http://#DOMAIN#/bitrix/sub/',
      'path_to_publish_web' => 'http://#DOMAIN#/bitrix/rest/',
      'path_to_publish_web_secure' => 'https://#DOMAIN#/bitrix/rest/',
      'nginx_version' => '4', 'nginx_command_per_hit' => 50, 'nginx' => 'Y',
      'signature_key' => 'a key of the machine, long enough', 'signature_algo' => 'sha1',
      'enable_protobuf' => 'N', 'limit_max_payload' => 2000000, 'guest' => 'N',
    ),
  ),
);";

#[tokio::test]
async fn m_005_m_006_m_012_the_file_of_a_virtual_machine_is_read_whole() {
    let fixture = Fixture::new().await;
    let mut files = Files::default();
    files.read_settings(BITRIX_VM).unwrap();
    fixture.tenant.set_files(files);
    let options = fixture.tenant.options("").await.unwrap();
    assert!(options.is_server_on());
    assert_eq!(options.generation().number(), 4);
    // Numbers and texts alike, and keys that the PHP module does not take from the file.
    assert_eq!(options.number(Key::NginxCommandPerHit), 50);
    assert_eq!(options.number(Key::LimitMaxPayload), 2_000_000);
    assert!(!options.is_on(Key::EnableProtobuf));
    assert_eq!(options.address(Key::PathToPublishWeb, "a.test"), "http://a.test/bitrix/rest/");
    assert!(Files::default().read_settings("<?php die();").is_err());
}

#[tokio::test]
async fn m_007_a_host_id_is_made_once_and_has_32_characters() {
    let fixture = Fixture::new().await;
    let first = fixture.service.default_tenant().await.unwrap();
    let again = fixture.service.default_tenant().await.unwrap();
    assert_eq!(first.host_id(), again.host_id());
    assert_eq!(first.host_id().len(), 32);
    assert_eq!(fixture.service.host_ids().await.unwrap(), [first.host_id(), "h"]);
    assert!(fixture.service.create_tenant("a/b", "").await.is_err());
    assert!(fixture.service.tenant("unknown").await.unwrap().is_none());
}

#[tokio::test]
async fn m_008_m_009_the_cloud_is_of_generation_4_and_on_once_registered() {
    let fixture = Fixture::new().await;
    let check = async |changes: &[(Key, &str)], generation, is_on| {
        fixture.set(changes).await;
        let options = fixture.tenant.options("").await.unwrap();
        assert_eq!((options.generation().number(), options.is_server_on()), (generation, is_on));
    };
    check(&[(Key::NginxVersion, "5")], 5, false).await;
    check(&[(Key::Nginx, "Y")], 5, true).await;
    check(&[(Key::ServerMode, "shared")], 4, false).await;
    check(&[(Key::RegisteredOnSharedServer, "Y"), (Key::Nginx, "N")], 4, true).await;
}

#[tokio::test]
async fn m_010_what_follows_from_generation_websocket_and_headers() {
    let fixture = Fixture::new().await;
    for (generation, websocket, expected) in [
        ("1", "Y", [true, false, true, false]),
        ("1", "N", [false, false, true, false]),
        ("2", "Y", [true, true, true, false]),
        ("2", "N", [false, false, true, false]),
        ("3", "Y", [true, true, false, false]),
        ("3", "N", [true, true, false, false]),
        ("4", "N", [true, true, false, true]),
        ("5", "N", [true, true, false, true]),
    ] {
        fixture.set(&[(Key::NginxVersion, generation), (Key::Websocket, websocket)]).await;
        let options = fixture.tenant.options("").await.unwrap();
        let found = [
            options.has_websockets(),
            options.has_legacy_websockets(),
            options.has_headers(),
            options.generation().has_public_channels(),
        ];
        assert_eq!(found, expected, "generation {generation}, websocket {websocket}");
    }
    fixture.set(&[(Key::NginxVersion, "1"), (Key::NginxHeaders, "N")]).await;
    assert!(!fixture.tenant.options("").await.unwrap().has_headers());
}

#[tokio::test]
async fn m_011_only_generation_1_has_ports_of_its_own() {
    let fixture = Fixture::new().await;
    fixture
        .set(&[
            (Key::PathToModernListener, "http://#DOMAIN##PORT#/bitrix/sub/"),
            (Key::PathToModernListenerSecure, "https://#DOMAIN##PORT#/bitrix/sub/"),
        ])
        .await;
    for (generation, plain, secure) in [
        ("1", "http://a.test:8893/bitrix/sub/", "https://a.test:8894/bitrix/sub/"),
        ("2", "http://a.test/bitrix/sub/", "https://a.test/bitrix/sub/"),
    ] {
        fixture.set(&[(Key::NginxVersion, generation)]).await;
        let options = fixture.tenant.options("").await.unwrap();
        assert_eq!(options.address(Key::PathToModernListener, "a.test"), plain);
        assert_eq!(options.address(Key::PathToModernListenerSecure, "a.test"), secure);
    }
}

#[tokio::test]
async fn m_083_every_change_is_dated_and_told_on_the_shared_channel() {
    let mut fixture = Fixture::example("4").await;
    while fixture.told().is_some() {}
    fixture.clock.advance(std::time::Duration::from_secs(9));
    fixture.set(&[(Key::Push, "Y")]).await;
    let (to, body) = fixture.told().unwrap();
    assert_eq!(to, crate::fixture::S);
    let expected =
        serde_json::json!({"module_id": "pull", "command": "config_expire", "params": []});
    assert_eq!(body, expected);
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(options.text(Key::ConfigTimestamp), "1767225609");
    // An empty address is none.
    let options = &fixture.tenant;
    options.set_options("", &[(Key::PathToPublish, Some("http://a.test/pub/"))]).await.unwrap();
    options.set_options("", &[(Key::PathToPublish, Some(""))]).await.unwrap();
    let source = options.options("").await.unwrap().source(Key::PathToPublish);
    assert_eq!(source, Source::BuiltIn);
    assert!(fixture.told().is_some() && fixture.told().is_some(), "each change is told");
    // Clients of a server that is switched off hear of it too; then there is nobody to tell.
    fixture.set(&[(Key::Nginx, "N")]).await;
    assert!(fixture.told().is_some());
    fixture.set(&[(Key::Push, "N")]).await;
    assert!(fixture.told().is_none());
}

#[tokio::test]
async fn wrong_values_are_refused_together_with_the_good_ones_beside_them() {
    let fixture = Fixture::new().await;
    for (key, value) in [
        (Key::NginxVersion, "6"),
        (Key::NginxVersion, "four"),
        (Key::Push, "yes"),
        (Key::PathToPublish, "ftp://a/"),
        (Key::PathToPublish, "http://a/pub"),
        (Key::PathToWebsocket, "http://a/subws/"),
        (Key::PathToPublish, "http://a\"><script>/"),
        (Key::SignatureAlgo, "crc32"),
        (Key::ExcludeSites, "s1"),
        (Key::PushMessagePerHit, "10001"),
        (Key::ServerMode, "both"),
    ] {
        let changes = [(Key::Guest, Some("Y")), (key, Some(value))];
        let error = fixture.tenant.set_options("", &changes).await.unwrap_err();
        assert!(!matches!(error, OptionError::Database(_)), "{value}: {error}");
    }
    assert!(!fixture.tenant.options("").await.unwrap().is_on(Key::Guest));
}

#[tokio::test]
async fn defaults_take_away_what_was_set_and_keep_who_the_tenant_is() {
    let fixture = Fixture::example("5").await;
    fixture.set(&[(Key::SharedServerAddress, "cloud.test")]).await;
    fixture.tenant.restore_default_options("").await.unwrap();
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(options.text(Key::SignatureKey), "");
    assert_eq!(options.text(Key::SharedServerAddress), "cloud.test");
    assert!(!options.is_server_on());
}
