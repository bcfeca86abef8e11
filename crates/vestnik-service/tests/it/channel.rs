//! Channels over SQLite; what databases could differ in is in `databases.rs`.

use std::time::Duration;

use serde_json::json;
use vestnik_core::ChannelId;
use vestnik_service::channel::{ChannelError, ChannelKind};
use vestnik_service::option::Key;

use crate::fixture::{Fixture, P, Q, S, START_S};

const TTL: Duration = Duration::from_secs(43_205);

fn application() -> ChannelKind {
    ChannelKind::named("app.123").unwrap()
}

#[tokio::test]
async fn m_013_m_014_one_channel_for_each_user_and_kind_and_public_ids_for_users_alone() {
    let fixture = Fixture::example("4").await;
    let tenant = &fixture.tenant;
    let private = tenant.channel(2, &ChannelKind::Private).await.unwrap();
    assert_eq!(tenant.channel(2, &ChannelKind::Private).await.unwrap(), private);
    let of_application = tenant.channel(2, &application()).await.unwrap();
    let shared_of_application = tenant.channel(0, &application()).await.unwrap();
    let ids = [private.id, of_application.id, shared_of_application.id];
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    assert!(private.public_id.is_some() && of_application.public_id.is_some());
    assert!(shared_of_application.public_id.is_none());
    assert!(tenant.shared_channel().await.unwrap().public_id.is_none());
    assert!(matches!(ChannelKind::named(&"x".repeat(51)), Err(ChannelError::Kind)));
}

#[tokio::test]
async fn m_015_m_019_a_channel_is_renewed_after_43205_s_and_its_client_told_on_the_old_one() {
    let mut fixture = Fixture::example("4").await;
    while fixture.told().is_some() {}
    fixture.clock.advance(TTL - Duration::from_secs(1));
    let channel = fixture.tenant.channel(1, &ChannelKind::Private).await.unwrap();
    assert_eq!(channel.id.to_string(), P);
    fixture.clock.advance(Duration::from_secs(1));
    let renewed = fixture.tenant.channel(1, &ChannelKind::Private).await.unwrap();
    assert_ne!(renewed.id, channel.id);
    assert_eq!(renewed.created_s, START_S + 43_205);
    let signed = format!("{P}.9d333147261a76d29bd6d042d45a85abca946800");
    let expected = json!({"module_id": "pull", "command": "channel_expire",
        "params": {"action": "get_config", "channel": {"id": signed, "type": "private"}}});
    assert_eq!(fixture.told().unwrap(), (P.to_owned(), expected));

    let shared = fixture.tenant.shared_channel().await.unwrap();
    let options = fixture.tenant.options("").await.unwrap();
    let expected = json!({"module_id": "pull", "command": "channel_expire", "params": {
        "action": "reconnect",
        "channel": {"id": format!("{S}.b7874858e2aff98a26359ab2fd08b9880240220b"), "type": "shared"},
        "new_channel": {"id": options.sign_channel(shared.id), "start": "2026-01-01T12:00:05+00:00",
            "end": "2026-01-02T00:00:10+00:00", "type": "shared"}}});
    assert_eq!(fixture.told().unwrap(), (S.to_owned(), expected));
    assert!(fixture.told().is_none());
}

#[tokio::test]
async fn m_019_channels_of_applications_ask_for_a_new_configuration() {
    let mut fixture = Fixture::example("4").await;
    for user in [2, 0] {
        fixture.tenant.channel(user, &application()).await.unwrap();
    }
    while fixture.told().is_some() {}
    fixture.clock.advance(TTL);
    fixture.tenant.channel(2, &application()).await.unwrap();
    let (_, body) = fixture.told().unwrap();
    assert_eq!(body["params"]["action"], "get_config");
    assert_eq!(body["params"]["channel"]["type"], "app.123");
    assert!(body["params"].get("new_channel").is_none());
    let shared = fixture.tenant.channel(0, &application()).await.unwrap();
    let (_, body) = fixture.told().unwrap();
    assert_eq!(body["params"]["action"], "get_config");
    let new = body["params"]["new_channel"]["id"].as_str().unwrap();
    assert!(new.starts_with(&shared.id.to_string()));
    assert_eq!(body["params"]["new_channel"]["type"], "app.123");
}

/// X-11 of the specification is kept: an application is told the tenant's shared channel.
#[tokio::test]
async fn m_020_m_100_a_deleted_channel_tells_its_clients_where_to_go() {
    let mut fixture = Fixture::example("4").await;
    let of_application = fixture.tenant.channel(2, &application()).await.unwrap();
    while fixture.told().is_some() {}
    assert!(fixture.tenant.delete_channel_of(1, &ChannelKind::Private).await.unwrap());
    let (to, body) = fixture.told().unwrap();
    assert_eq!(to, P);
    assert_eq!(body["params"]["action"], "get_config");
    assert!(fixture.tenant.delete_channel(of_application.id).await.unwrap());
    let (_, body) = fixture.told().unwrap();
    assert_eq!(body["params"]["action"], "reconnect");
    assert_eq!(body["params"]["channel"]["type"], "app.123");
    let expected = json!({"id": format!("{S}.b7874858e2aff98a26359ab2fd08b9880240220b"),
        "start": START_S, "end": "2026-01-01T12:00:05+00:00", "type": "shared"});
    assert_eq!(body["params"]["new_channel"], expected);
    assert!(!fixture.tenant.delete_channel(of_application.id).await.unwrap(), "it is gone");
    let again = fixture.tenant.channel(1, &ChannelKind::Private).await.unwrap();
    assert_ne!(again.id.to_string(), P);
}

#[tokio::test]
async fn m_018_inactive_users_get_no_channel() {
    let fixture = Fixture::example("4").await;
    let tenant = &fixture.tenant;
    tenant.channel(1, &ChannelKind::Private).await.unwrap();
    tenant.set_user_active(1, false).await.unwrap();
    let error = tenant.channel(1, &ChannelKind::Private).await.unwrap_err();
    assert!(matches!(error, ChannelError::InactiveUser(1)), "{error}");
    let ids = tenant.public_ids(&[1, 2], &ChannelKind::Private).await.unwrap();
    assert_eq!(ids.iter().map(|id| id.user).collect::<Vec<_>>(), [2], "left out");
    tenant.set_user_active(1, true).await.unwrap();
    assert_eq!(tenant.channel(1, &ChannelKind::Private).await.unwrap().id.to_string(), P);
}

#[tokio::test]
async fn m_022_m_023_signatures_equal_the_vectors_and_without_a_key_there_are_none() {
    let fixture = Fixture::example("4").await;
    let [p, q, s] = [P, Q, S].map(|id| id.parse::<ChannelId>().unwrap());
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(options.sign_channel(p), format!("{P}.9d333147261a76d29bd6d042d45a85abca946800"));
    assert_eq!(options.sign_channel(s), format!("{S}.b7874858e2aff98a26359ab2fd08b9880240220b"));
    let pair = format!("{P}:{Q}.63cdefd7c89f60974b7e3577ff355dad1c4a3516");
    assert_eq!(options.sign_pair(p, q), pair);
    let public = "360b94c6dd0e909786df84d0f60a40cfde79add8";
    assert_eq!(options.sign_public_channel(q), format!("{Q}.{public}"));
    assert_eq!(options.public_signature(q), public);
    fixture.set(&[(Key::SignatureAlgo, "sha256")]).await;
    let options = fixture.tenant.options("").await.unwrap();
    let sha256 = "e2f18cb41fd0132236a07d04a640d4835d49aa14a1e3cadc7a6af79b13bd33bb";
    assert_eq!(options.sign_channel(p), format!("{P}.{sha256}"));
    fixture.set(&[(Key::SignatureKey, "")]).await;
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(options.sign_channel(p), P);
    assert_eq!(options.sign_pair(p, q), format!("{P}:{Q}"));
    assert_eq!(options.sign_public_channel(q), "");
}

#[tokio::test]
async fn m_024_the_channel_of_a_tag_is_always_the_same_and_that_of_chance_never() {
    let fixture = Fixture::example("4").await;
    let tag = fixture.tenant.tag_channel("CRM_DEAL_7");
    assert_eq!(fixture.tenant.tag_channel("CRM_DEAL_7"), tag);
    assert_ne!(tag.id, tag.public_id);
    assert_ne!(fixture.tenant.tag_channel("CRM_DEAL_8").id, tag.id);
    assert!(!fixture.tenant.delete_channel(tag.id).await.unwrap(), "there is no row");
    let random = || fixture.tenant.random_channel().unwrap();
    assert_ne!(random().id, random().id);
}

#[tokio::test]
async fn m_025_m_026_public_ids_are_made_when_needed_and_generation_3_has_none() {
    use vestnik_service::config::{Shape, public_channel, public_channels};
    let fixture = Fixture::example("4").await;
    let tenant = &fixture.tenant;
    let ids = tenant.public_ids(&[1, 0, -3, 7, 1], &ChannelKind::Private).await.unwrap();
    assert_eq!(ids.iter().map(|id| id.user).collect::<Vec<_>>(), [1, 7]);
    let made = tenant.channel(7, &ChannelKind::Private).await.unwrap();
    assert_eq!(Some(ids[1].public_id), made.public_id);
    let signature = "360b94c6dd0e909786df84d0f60a40cfde79add8";
    assert_eq!(
        public_channel(&ids[0], Shape::Upper).to_json(),
        format!(
            r#"{{"USER_ID":1,"PUBLIC_ID":"{Q}","SIGNATURE":"{signature}","START":1767225600,"END":1767268805}}"#
        )
    );
    assert_eq!(
        public_channels(&ids[..1], Shape::Json).to_json(),
        format!(
            r#"{{"1":{{"user_id":1,"public_id":"{Q}","signature":"{signature}","start":"2026-01-01T00:00:00+00:00","end":"2026-01-01T12:00:05+00:00"}}}}"#
        )
    );
    fixture.set(&[(Key::NginxVersion, "3")]).await;
    let error = tenant.public_ids(&[1], &ChannelKind::Private).await.unwrap_err();
    assert!(matches!(error, ChannelError::NoPublicChannels));
    fixture.set(&[(Key::Nginx, "N")]).await;
    let error = tenant.public_ids(&[1], &ChannelKind::Private).await.unwrap_err();
    assert!(matches!(error, ChannelError::ServerOff));
}

#[tokio::test]
async fn guests_drop_out_of_many_channels_where_guests_are_not_allowed() {
    let fixture = Fixture::example("4").await;
    for (guest, expected) in [("Y", vec![-7, 1]), ("N", vec![1])] {
        fixture.set(&[(Key::Guest, guest)]).await;
        let channels = fixture.tenant.channels(&[1, -7], &ChannelKind::Private).await.unwrap();
        let mut users: Vec<_> = channels.iter().map(|channel| channel.user).collect();
        users.sort_unstable();
        assert_eq!(users, expected);
    }
}
