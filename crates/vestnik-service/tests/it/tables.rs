//! Everything that is stored beside channels, over whatever database is given.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use vestnik_core::publisher::{ModuleEvent, Recipients};
use vestnik_core::sign::KeyRing;
use vestnik_core::{ChannelId, Expiry, MessageKind};
use vestnik_service::access::Right;
use vestnik_service::event::{Event, Recipient};
use vestnik_service::job::Job;
use vestnik_service::option::Key;

use crate::fixture::Fixture;
use crate::rest::{Stage, call};

/// Checks all of it.
pub(crate) async fn check(fixture: &Fixture) {
    check_outbox(fixture).await;
    check_access(fixture).await;
    let (service, tenant) = (&fixture.service, &fixture.tenant);
    tenant.notify("T", "one").await.unwrap();
    tenant.notify("T", "two").await.unwrap();
    let shown = tenant.notifications().await.unwrap();
    assert_eq!((shown.len(), shown[0].message.as_str()), (1, "two"));
    tenant.withdraw_notification("T").await.unwrap();
    assert!(tenant.notifications().await.unwrap().is_empty());
    tenant.set_user_option(1, "push_status", "Y").await.unwrap();
    tenant.set_user_option(1, "push_status", "N").await.unwrap();
    assert_eq!(tenant.user_option(1, "push_status").await.unwrap().as_deref(), Some("N"));
    assert_eq!(tenant.user_option(2, "push_status").await.unwrap(), None);
    let now_s = fixture.clock.unix_s();
    tenant.note_activity(&[(90_001, now_s - 5), (90_002, now_s)]).await.unwrap();
    let mut since = tenant.seconds_since_activity(&[90_001, 90_002, 90_003]).await.unwrap();
    since.sort_unstable();
    assert_eq!(since, [(90_001, 5), (90_002, 0)]);
    for job in Job::ALL {
        assert!(!service.claim_job(job).await.unwrap());
    }
    fixture.clock.advance(Duration::from_secs(86_400));
    for job in Job::ALL {
        assert!(service.claim_job(job).await.unwrap(), "{job:?}");
        assert!(!service.claim_job(job).await.unwrap(), "{job:?}");
        service.plan_job(job, 0).await.unwrap();
    }
    service.clean_up_devices().await.unwrap();
    service.add_public_ids().await.unwrap();
    check_stack(fixture).await;
}

async fn check_stack(fixture: &Fixture) {
    let (service, tenant) = (&fixture.service, &fixture.tenant);
    tenant.set_options("", &[(Key::Nginx, Some("N"))]).await.unwrap();
    let event = Event::new(vec![Recipient::User(90_001)], "im", "x");
    let results = tenant.stack_events(&[event]).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let channel = tenant.polled_channel(90_001).await.unwrap().id;
    assert_eq!(tenant.poll(channel, 0).await.unwrap().len(), 1);
    assert!(tenant.poll(channel, 0).await.unwrap().is_empty(), "it was read");
    fixture.clock.advance(Duration::from_secs(86_401));
    assert_eq!(service.clean_up_stack().await.unwrap(), 1);
    tenant.set_options("", &[(Key::Nginx, Some("Y"))]).await.unwrap();
}

async fn check_access(fixture: &Fixture) {
    let (service, tenant) = (&fixture.service, &fixture.tenant);
    let secret = tenant.add_secret("shop", Right::Backend).await.unwrap();
    let caller = service.bearer(secret.expose()).await.unwrap().unwrap();
    assert_eq!(
        (caller.tenant.id(), caller.right, caller.user),
        (tenant.id(), Right::Backend, None)
    );
    let entries = tenant.secrets().await.unwrap();
    assert!(tenant.remove_secret(entries[0].id).await.unwrap());
    assert!(service.bearer(secret.expose()).await.unwrap().is_none());
    let (token, _) = tenant.issue_token(-7, 60).await.unwrap();
    let caller = service.bearer(&token).await.unwrap().unwrap();
    assert_eq!((caller.right, caller.user), (Right::User, Some(-7)));
    fixture.clock.advance(Duration::from_secs(60));
    assert!(service.bearer(&token).await.unwrap().is_none(), "it is over");
    tenant.set_options("", &[(Key::SignatureKey, Some(crate::fixture::KEY))]).await.unwrap();
    let options = tenant.options("").await.unwrap();
    let signature = options.signing_key().unwrap().sign(&[b"{}"]);
    assert!(tenant.is_signed(b"{}", &signature, &KeyRing::default()).await.unwrap());
    assert!(!tenant.is_signed(b"{ }", &signature, &KeyRing::default()).await.unwrap());
}

async fn check_outbox(fixture: &Fixture) {
    let tenant = &fixture.tenant;
    let event = |number: u32, expiry_s: u64| ModuleEvent {
        body: Bytes::from(format!(r#"{{"module_id":"im","command":"n{number}","text":"я"}}"#)),
        kind: MessageKind::parse("im_n"),
        expiry: Expiry::new(expiry_s, Expiry::MAX),
        recipients: Recipients {
            channels: vec![ChannelId::from_bytes([7; 16])],
            ..Recipients::default()
        },
        user_params: Vec::new(),
        dictionary: None,
    };
    let events = [event(1, 100), event(2, 0), event(3, 86_400)];
    tenant.keep_events(&events).await.unwrap();
    assert_eq!(tenant.waiting().await.unwrap().count, 3);
    let waiting = tenant.waiting_events(10).await.unwrap();
    let bodies: Vec<_> = waiting.iter().map(|it| it.event.body.clone()).collect();
    assert_eq!(bodies, events.clone().map(|event| event.body), "in their order");
    fixture.clock.advance(Duration::from_secs(99));
    let waiting = tenant.waiting_events(10).await.unwrap();
    let expired: Vec<_> = waiting.iter().map(|it| it.is_expired).collect();
    assert_eq!(expired, [false, true, false], "what nobody was to keep waits a minute");
    assert_eq!(waiting[0].event.expiry.seconds(), 1, "what is left of its life");
    let hosts = fixture.service.tenants_with_waiting_events().await.unwrap();
    assert_eq!(hosts, [tenant.host_id()]);
    let ids: Vec<i64> = waiting.iter().map(|it| it.id).collect();
    tenant.forget_events(&ids).await.unwrap();
    assert_eq!(tenant.waiting().await.unwrap().count, 0);
}

/// What a caller hears when the database is gone.
pub(crate) async fn check_failure(fixture: &Fixture) {
    let input = json!({"USER_ID": 777_777});
    let error = call(fixture, &Stage::default(), "pull.channel.get", input).await.unwrap_err();
    assert_eq!((error.status, &*error.code), (503, "SERVICE_UNAVAILABLE"), "{error:?}");
}
