//! Notifications for mobile devices: who gets what, when, and what becomes of batches.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use vestnik_core::Clock;
use vestnik_core::publisher::BoxFuture;
use vestnik_service::hook::Hooks;
use vestnik_service::option::Key;
use vestnik_service::php::{Escapes, from_json};
use vestnik_service::push::{PushBatch, Sent};
use vestnik_service::{Service, Tenant};

use crate::fixture::{Fixture, START_S};
use crate::rest::{Stage, call};

/// A back end that knows where its users are and how many things they have not read.
#[derive(Debug, Default)]
struct BackEnd {
    users: Value,
    modes: Value,
    asked: Mutex<Vec<(String, Value)>>,
}

impl Hooks for BackEnd {
    fn ask<'a>(
        &'a self,
        _tenant: &'a Tenant,
        hook: &'a str,
        params: String,
    ) -> BoxFuture<'a, Option<String>> {
        let params = serde_json::from_str(&params).expect("JSON");
        self.asked.lock().unwrap().push((hook.to_owned(), params));
        let answer = match hook {
            "push.users" => Some(self.users.to_string()),
            "push.mode" => Some(self.modes.to_string()),
            "mobile.counter" => Some("5".to_owned()),
            "mobile.push.types" => Some(
                r#"[{"module_id":"im","types":[{"type":"like","default":false},{"type":"message","default":true}]}]"#
                    .to_owned(),
            ),
            _ => None,
        };
        Box::pin(std::future::ready(answer))
    }
}

/// A tenant that pushes, users with a device of Google each, and what the back end says.
async fn pushing(users: &[i64], back_end: BackEnd) -> (Fixture, Arc<BackEnd>) {
    let fixture = Fixture::example("4").await;
    prepare(&fixture, users).await;
    let back_end = Arc::new(back_end);
    let hooks: Arc<dyn Hooks> = Arc::<BackEnd>::clone(&back_end);
    fixture.service.set_hooks(hooks);
    (fixture, back_end)
}

async fn prepare(fixture: &Fixture, users: &[i64]) {
    let gateway = "http://gateway.test/send/";
    fixture.set(&[(Key::Push, "Y"), (Key::PushServiceUrl, gateway), (Key::LicenceKey, "L")]).await;
    for user in users {
        let device = json!({"USER_ID": user, "DEVICE_ID": format!("d{user}"),
            "DEVICE_TYPE": "GOOGLE/REV2", "DEVICE_TOKEN": format!("token{user}")});
        let added = call(fixture, &Stage::default(), "pull.push.token.add", device).await;
        assert_eq!(added, Ok(json!({"register_token": "created"})));
    }
}

async fn push(fixture: &Fixture, users: &[i64], description: Value) {
    let input = json!({"USERS": users, "MODULE_ID": "im", "PUSH": description});
    assert_eq!(call(fixture, &Stage::default(), "pull.push.add", input).await, Ok(json!(true)));
}

/// Takes everything that is due, as a gateway that takes it would see it.
async fn sent(fixture: &Fixture) -> Vec<PushBatch> {
    let mut batches = Vec::new();
    while let Some(batch) = fixture.service.claim_push().await.expect("it answers") {
        fixture.service.settle_push(&batch, Sent::Done).await.expect("it is noted");
        batches.push(batch);
    }
    batches
}

/// Token, text and badge of the records of batches for Google.
fn records(batches: &[PushBatch]) -> Vec<(String, String, String)> {
    let mut records = Vec::new();
    for part in batches.iter().flat_map(|batch| batch.body.split(';')) {
        if part.len() < 30 || part.starts_with("h=") {
            continue;
        }
        let json = decoded(part);
        let message: Value = serde_json::from_str(&json).expect("JSON");
        let message = &message["message"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let data = &message["data"];
        records.push((text(&message["token"]), text(&data["contentText"]), text(&data["badge"])));
    }
    records
}

/// The JSON of a record: base64 of a head, an empty line, and that.
fn decoded(record: &str) -> String {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is not base64"),
    };
    let mut bytes = Vec::new();
    for group in record.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 6 | u32::from(digit(*byte)));
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    let text = String::from_utf8(bytes).expect("text");
    text.split_once("\r\n\r\n").expect("an empty line").1.to_owned()
}

fn record(user: i64, text: &str, badge: &str) -> (String, String, String) {
    (format!("token{user}"), text.to_owned(), badge.to_owned())
}

#[tokio::test]
async fn m_090_each_user_is_notified_as_the_user_is_and_wants_it() {
    let users = json!({
        "2": {"mobile": true, "badge": 7},
        "3": {"desktop": true},
        "4": {"desktop": true, "idle": true},
    });
    let (fixture, _) =
        pushing(&[1, 2, 3, 4, 5, 6, 7], BackEnd { users, ..BackEnd::default() }).await;
    let online: Vec<_> = (2..=7).map(|user| (user, START_S)).collect();
    fixture.tenant.note_activity(&online).await.unwrap();
    fixture.tenant.set_wants_push(6, false).await.unwrap();
    fixture.tenant.set_smart_filter(7, false).await.unwrap();
    // 8 has no device.
    push(&fixture, &[1, 2, 3, 4, 5, 6, 7, 8, 1], json!({"message": "Hi", "tag": "T"})).await;
    let mut found = records(&sent(&fixture).await);
    found.sort();
    assert_eq!(
        found,
        [
            record(1, "Hi", "5"),
            record(2, "Hi", "7"),
            record(3, "", "5"),
            record(4, "Hi", "5"),
            record(5, "", "5"),
            record(7, "Hi", "5"),
        ]
    );
    // Who was online longer ago than five minutes is not.
    fixture.clock.advance(Duration::from_secs(301));
    push(&fixture, &[5], json!({"message": "Hi", "badge": 0})).await;
    assert_eq!(records(&sent(&fixture).await), [record(5, "Hi", "0")]);
}

#[tokio::test]
async fn m_090_what_is_deferred_is_sent_after_15_seconds_unless_it_was_read() {
    let (fixture, _) = pushing(&[1, 2], BackEnd::default()).await;
    fixture.tenant.note_activity(&[(1, START_S), (2, START_S)]).await.unwrap();
    let description = json!({"message": "Hi", "tag": "IM_CHAT_5", "sub_tag": "IM_MESS",
        "params": {"CATEGORY": "ANSWER", "TAG": "x"}});
    push(&fixture, &[1, 2], description.clone()).await;
    let quiet = records(&sent(&fixture).await);
    assert_eq!(quiet, [record(1, "", "5"), record(2, "", "5")]);
    fixture.clock.advance(Duration::from_secs(15));
    assert_eq!(fixture.tenant.send_deferred().await.unwrap(), 0, "not yet");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.service.tenants_with_deferred_push().await.unwrap(), ["h"]);
    let read = json!({"USER_ID": 1, "SUB_TAG": "IM_MESS"});
    let stage = Stage::default();
    let removed = call(&fixture, &stage, "pull.push.queue.deleteBySubTag", read).await;
    assert_eq!(removed, Ok(json!(true)));
    let cancelling = sent(&fixture).await;
    let body = decoded(cancelling[0].body.split(';').next_back().unwrap());
    assert!(body.contains(r#"\"notificationsToCancel\":[\"IM_MESS\"]"#), "{body}");
    assert_eq!(fixture.tenant.send_deferred().await.unwrap(), 1);
    let late = sent(&fixture).await;
    assert_eq!(records(&late), [record(2, "Hi", "5")]);
    let body = decoded(late[0].body.split(';').next_back().unwrap());
    for wanted in [r#""category":"ANSWER""#, r#""ttl":"7200s""#, r#"\"id\":\"IM_MESS\""#] {
        assert!(body.contains(wanted), "{wanted} in {body}");
    }
    assert!(!body.contains("CATEGORY"), "{body}");
    assert_eq!(fixture.tenant.send_deferred().await.unwrap(), 0);
    // Urgent ones never wait.
    let mut urgent = description.clone();
    urgent["send_immediately"] = json!("Y");
    push(&fixture, &[2], urgent).await;
    assert_eq!(records(&sent(&fixture).await), [record(2, "Hi", "5")]);
}

#[tokio::test]
async fn m_090_many_that_wait_are_sent_280_at_a_time() {
    let users: Vec<i64> = (1..=300).collect();
    let (fixture, _) = pushing(&users, BackEnd::default()).await;
    let online: Vec<_> = users.iter().map(|user| (*user, START_S)).collect();
    fixture.tenant.note_activity(&online).await.unwrap();
    push(&fixture, &users, json!({"message": "Hi"})).await;
    sent(&fixture).await;
    fixture.clock.advance(Duration::from_secs(16));
    use vestnik_service::job::Job;
    assert_eq!(fixture.tenant.send_deferred().await.unwrap(), 280);
    assert_eq!((Job::Pushes.period_s(280), Job::Pushes.period_s(20)), (10, 30));
    assert_eq!(records(&sent(&fixture).await).len(), 280);
    assert_eq!(fixture.tenant.send_deferred().await.unwrap(), 20);
    assert_eq!(records(&sent(&fixture).await).len(), 20);
}

#[tokio::test]
async fn m_090_a_back_end_may_change_modes_and_users_switch_kinds_off() {
    let modes = json!({"1": "SKIP", "2": false, "3": "nonsense", "9": "IMMEDIATELY"});
    let (fixture, back_end) = pushing(&[1, 2, 3, 4], BackEnd { modes, ..BackEnd::default() }).await;
    let stage = Stage::default();
    let unwanted = json!({"USER_ID": 4, "CONFIG": [
        {"module_id": "im", "type": "message", "active": false},
        {"module_id": "im", "type": "like", "active": true}]});
    call(&fixture, &stage, "mobile.push.config.set", unwanted).await.unwrap();
    push(&fixture, &[1, 2, 3, 4, 9], json!({"message": "Hi", "type": "message"})).await;
    assert_eq!(
        records(&sent(&fixture).await),
        [record(1, "", "5"), record(3, "Hi", "5"), record(4, "", "5")]
    );
    let asked = back_end.asked.lock().unwrap().clone();
    let (_, params) = asked.iter().find(|(hook, _)| hook == "push.mode").unwrap();
    assert_eq!(
        params["MODES"],
        json!({"1": "IMMEDIATELY", "2": "IMMEDIATELY", "3": "IMMEDIATELY", "4": "SKIP"})
    );
    // A kind that nobody wants unless asked for: only user 4 did.
    push(&fixture, &[3, 4], json!({"message": "Hi", "type": "like"})).await;
    assert_eq!(records(&sent(&fixture).await), [record(3, "", "5"), record(4, "Hi", "5")]);
}

#[tokio::test]
async fn a_notification_reaches_the_devices_of_its_application_alone() {
    let (fixture, _) = pushing(&[1], BackEnd::default()).await;
    let stage = Stage::default();
    let other = json!({"USER_ID": 1, "DEVICE_ID": "admin", "DEVICE_TYPE": "GOOGLE/REV2",
        "DEVICE_TOKEN": "other", "APP_ID": "BitrixAdmin"});
    call(&fixture, &stage, "pull.push.token.add", other).await.unwrap();
    let event = |text: &str, application: &str, expiry: i64| {
        json!({"recipients": [1], "module_id": "im",
            "push": {"message": text, "app_id": application, "expiry": expiry}})
    };
    let events = json!({"events": [event("A", "Bitrix24", 60), event("B", "BitrixAdmin", 60)]});
    call(&fixture, &stage, "pull.event.addBatch", events).await.unwrap();
    let other = ("other".to_owned(), "B".to_owned(), "5".to_owned());
    assert_eq!(records(&sent(&fixture).await), [record(1, "A", "5"), other.clone()]);
    // Also those that waited together.
    fixture.tenant.note_activity(&[(1, START_S)]).await.unwrap();
    let events = json!({"events": [event("A", "Bitrix24", 60), event("B", "BitrixAdmin", 60)]});
    call(&fixture, &stage, "pull.event.addBatch", events).await.unwrap();
    sent(&fixture).await;
    fixture.clock.advance(Duration::from_secs(16));
    assert_eq!(fixture.tenant.send_deferred().await.unwrap(), 2);
    assert_eq!(records(&sent(&fixture).await), [record(1, "A", "5"), other]);
    // What is worth sending for a minute does not wait with what is for hours.
    fixture.clock.advance(Duration::from_secs(400));
    let events = json!({"events": [event("A", "", 60), event("B", "", 3600)]});
    call(&fixture, &stage, "pull.event.addBatch", events).await.unwrap();
    assert_eq!(fixture.tenant.waiting_push().await.unwrap().0, 2);
    fixture.clock.advance(Duration::from_secs(61));
    assert_eq!(records(&sent(&fixture).await), [record(1, "B", "5")]);
}

#[tokio::test]
async fn too_many_users_or_too_much_text_is_refused_before_anything_is_published() {
    let (fixture, _) = pushing(&[1], BackEnd::default()).await;
    let stage = Stage::default();
    let users: Vec<i64> = (1..=10_001).collect();
    let event = json!({"recipients": {"users": users}, "module_id": "im", "command": "x",
        "push": {"message": "Hi"}});
    let refused = call(&fixture, &stage, "pull.event.add", event).await.unwrap_err();
    assert_eq!(refused.code, "EVENT_PUSH_PARAMETERS_FORMAT");
    let event = json!({"recipients": [1], "module_id": "im", "command": "x",
        "push": {"message": "x".repeat(70_000)}});
    assert!(call(&fixture, &stage, "pull.event.add", event).await.is_err());
    assert!(stage.0.published.lock().unwrap().is_empty());
    // Equal ones that together are for too many stay several.
    let half = |first: i64| {
        let users: Vec<i64> = (first..first + 6000).collect();
        json!({"recipients": {"users": users}, "module_id": "im", "push": {"message": "Ho"}})
    };
    let events = json!({"events": [half(1), half(7000)]});
    let answer = call(&fixture, &stage, "pull.event.addBatch", events).await;
    assert_eq!(answer, Ok(json!([true, true])));
    assert_eq!(records(&sent(&fixture).await), [record(1, "Ho", "5")]);
    let users: Vec<i64> = vec![1; 20_000];
    let twice = json!({"recipients": {"users": users}, "module_id": "im", "command": "x",
        "push": {"message": "Hi"}});
    assert_eq!(call(&fixture, &stage, "pull.event.add", twice).await, Ok(json!(true)));
    assert_eq!(records(&sent(&fixture).await), [record(1, "Hi", "5")]);
}

#[tokio::test]
async fn one_tenant_never_takes_all_who_send_and_a_clock_set_back_stops_nobody() {
    let (fixture, _) = pushing(&[1], BackEnd::default()).await;
    for number in 0..4 {
        push(&fixture, &[1], json!({"message": format!("n{number}")})).await;
    }
    let claim = async || fixture.service.claim_push().await.unwrap();
    let first = claim().await.expect("it is due");
    assert!(claim().await.is_some());
    assert!(claim().await.is_none(), "two of a tenant at a time");
    fixture.service.settle_push(&first, Sent::Away).await.unwrap();
    assert!(claim().await.is_none(), "its gateway is away");
    fixture.clock.advance(Duration::from_secs(2));
    assert!(claim().await.is_some());
    // A clock that was an hour ahead is set right: what it noted lies far off.
    fixture.clock.advance(Duration::from_secs(3600));
    push(&fixture, &[1], json!({"message": "late"})).await;
    // Whoever had the others ended without a word meanwhile.
    let right = Clock::manual(START_S + 60);
    let (service, _notices) = Service::open(&fixture.options(), right).await.unwrap();
    while let Some(batch) = service.claim_push().await.unwrap() {
        service.settle_push(&batch, Sent::Done).await.unwrap();
    }
    assert_eq!(fixture.tenant.waiting_push().await.unwrap().0, 0, "all are sent all the same");
}

#[tokio::test]
async fn m_091_the_option_says_how_many_devices_go_in_one_batch() {
    let users: Vec<i64> = (1..=5).collect();
    let (fixture, _) = pushing(&users, BackEnd::default()).await;
    for (option, sizes) in [("2", vec![2, 2, 1]), ("0", vec![5]), ("100", vec![5])] {
        fixture.set(&[(Key::PushMessagePerHit, option)]).await;
        push(&fixture, &users, json!({"message": "Hi"})).await;
        let batches = sent(&fixture).await;
        let found: Vec<_> =
            batches.iter().map(|it| records(std::slice::from_ref(it)).len()).collect();
        assert_eq!(found, sizes, "{option}");
        assert!(batches[0].body.starts_with(";7;tkey=Bitrix24;h=example.test;"));
    }
    // md5("L").
    push(&fixture, &[1], json!({"message": "Hi"})).await;
    assert_eq!(
        sent(&fixture).await[0].address,
        "http://gateway.test/send/?key=d20caec3b48a1eef164cb4ca81ba2587"
    );
}

/// What a dialect could get wrong about devices and what waits.
pub(crate) async fn check(fixture: &Fixture) {
    prepare(fixture, &[71, 72]).await;
    let now_s = fixture.clock.unix_s();
    fixture.tenant.note_activity(&[(71, now_s)]).await.unwrap();
    push(fixture, &[71, 72], json!({"message": "Привет 🔑", "tag": "T"})).await;
    let mut found = records(&sent(fixture).await);
    found.sort();
    assert_eq!(found, [record(71, "", ""), record(72, "Привет 🔑", "")]);
    fixture.clock.advance(Duration::from_secs(16));
    assert_eq!(fixture.tenant.send_deferred().await.unwrap(), 1);
    // The gateway is away, then it is there.
    let batch = fixture.service.claim_push().await.unwrap().expect("it is due");
    assert!(fixture.service.claim_push().await.unwrap().is_none(), "somebody has it");
    fixture.service.settle_push(&batch, Sent::Again).await.unwrap();
    assert!(fixture.service.claim_push().await.unwrap().is_none(), "it is left alone for a while");
    assert_eq!(fixture.tenant.waiting_push().await.unwrap().0, 1);
    fixture.clock.advance(Duration::from_secs(2));
    assert_eq!(records(&sent(fixture).await), [record(71, "Привет 🔑", "")]);
    // Whoever had it ended without a word: another one sends it.
    push(fixture, &[72], json!({"message": "x"})).await;
    fixture.service.claim_push().await.unwrap().expect("it is due");
    fixture.clock.advance(Duration::from_secs(39));
    assert!(fixture.service.claim_push().await.unwrap().is_none());
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(records(&sent(fixture).await), [record(72, "x", "")]);
    // But for calls, which are not sent twice.
    push(fixture, &[72], json!({"message": "call", "expiry": 0})).await;
    fixture.service.claim_push().await.unwrap().expect("it is due");
    fixture.clock.advance(Duration::from_secs(30));
    assert!(fixture.service.claim_push().await.unwrap().is_none());
    fixture.clock.advance(Duration::from_secs(1));
    assert!(sent(fixture).await.is_empty());
    // Calls are not worth sending for long.
    push(fixture, &[72], json!({"message": "call", "expiry": 0})).await;
    fixture.clock.advance(Duration::from_secs(31));
    assert_eq!(fixture.service.clean_up_push().await.unwrap(), 2, "this one and the last one");
    assert_eq!(fixture.tenant.waiting_push().await.unwrap(), (0, 0));
    let moved = json!({"USER_ID": 73, "DEVICE_ID": "d72", "DEVICE_TYPE": "APPLE",
        "VOIP_TOKEN": "ab".repeat(32)});
    let stage = Stage::default();
    let moved = call(fixture, &stage, "pull.push.token.add", moved).await;
    assert_eq!(moved, Ok(json!({"register_token": "updated"})));
    let devices = fixture.tenant.devices(&[72, 73], "Bitrix24").await.unwrap();
    let [device] = &devices[..] else { panic!("{devices:?}") };
    assert_eq!((device.user, &*device.token, &*device.voip_kind), (73, "token72", "APPLE/VOIP"));
    assert!(fixture.tenant.remove_device("token71").await.unwrap());
    fixture.clock.advance(Duration::from_secs(15 * 86_400));
    assert_eq!(fixture.service.clean_up_devices().await.unwrap(), 1);
    fixture.set(&[(Key::Push, "N")]).await;
}

#[tokio::test]
async fn wrong_notifications_are_refused_with_a_code_and_events_go_without() {
    let (fixture, _) = pushing(&[1], BackEnd::default()).await;
    let stage = Stage::default();
    let code = async |operation: &str, input: Value| match call(&fixture, &stage, operation, input)
        .await
    {
        Ok(result) => result.to_string(),
        Err(error) => error.code.into_owned(),
    };
    let add = "pull.push.add";
    let push = json!({"message": "a"});
    for (input, wanted) in [
        (json!({"USERS": [1], "MODULE_ID": "im", "PUSH": {}}), "EVENT_PUSH_PARAMETERS_FORMAT"),
        (
            json!({"USERS": [1], "MODULE_ID": "im", "PUSH": {"tag": "x"}}),
            "EVENT_PUSH_PARAMETERS_FORMAT",
        ),
        (json!({"USERS": [], "MODULE_ID": "im", "PUSH": push}), "RECIPIENT_FORMAT"),
        (json!({"USERS": [-5], "MODULE_ID": "im", "PUSH": push}), "RECIPIENT_FORMAT"),
        (json!({"USERS": [1], "PUSH": push}), "ERROR_ARGUMENT"),
        (
            json!({"USERS": [1], "MODULE_ID": "im", "PUSH": {"message": "a", "badge": "x"}}),
            "ERROR_ARGUMENT",
        ),
    ] {
        assert_eq!(code(add, input.clone()).await, wanted, "{input}");
    }
    let event = |recipients: Value, command: &str| json!({"recipients": recipients, "module_id": "im", "command": command, "push": push});
    let both = event(json!([1]), "x");
    assert_eq!(code("pull.event.add", both.clone()).await, "true");
    assert_eq!(records(&sent(&fixture).await), [record(1, "a", "5")]);
    assert_eq!(stage.0.published.lock().unwrap().len(), 1);
    let guests = event(json!({"shared": true}), "x");
    assert_eq!(code("pull.event.add", guests).await, "true", "who has no devices is not notified");
    assert_eq!(code("pull.event.add", event(json!([1]), "")).await, "true");
    assert_eq!(stage.0.published.lock().unwrap().len(), 2, "a notification alone is no event");
    assert_eq!(records(&sent(&fixture).await).len(), 1);
    assert_eq!(code("pull.event.add", event(json!([-1]), "")).await, "RECIPIENT_FORMAT");
    fixture.set(&[(Key::Push, "N")]).await;
    assert_eq!(code("pull.event.add", both).await, "true", "the event all the same");
    assert_eq!(code("pull.event.add", event(json!([1]), "")).await, "PUSH_DISABLED");
    let input = json!({"USERS": [1], "MODULE_ID": "im", "PUSH": push});
    assert_eq!(code(add, input).await, "PUSH_DISABLED");
    assert!(sent(&fixture).await.is_empty());
    let device =
        json!({"USER_ID": 1, "DEVICE_ID": "d", "DEVICE_TYPE": "APPLE", "DEVICE_TOKEN": "x"});
    assert_eq!(code("pull.push.token.add", device).await, "ERROR_ARGUMENT");
}

#[tokio::test]
async fn an_application_notifies_in_its_own_name() {
    let (fixture, _) = pushing(&[1], BackEnd::default()).await;
    let stage = Stage::default();
    let input = json!({"CLIENT_ID": "app.1", "AUTH_USER_ID": 2, "IS_ADMIN": "Y", "USER_ID": 1,
        "TEXT": "Done", "APP_NAME": "Tasks", "AVATAR": "https://a.test/a.png"});
    let name = "pull.application.push.add";
    assert_eq!(call(&fixture, &stage, name, input.clone()).await, Ok(json!(true)));
    let body = decoded(sent(&fixture).await[0].body.split(';').next_back().unwrap());
    for wanted in [
        r#"\"group\":\"app.1\""#,
        r#"\"avatarUrl\":\"https:\\\/\\\/a.test\\\/a.png\""#,
        r#"\"senderName\":\"Tasks\""#,
        r#"\"senderMessage\":\"Done\""#,
    ] {
        assert!(body.contains(wanted), "{wanted} in {body}");
    }
    for (field, wanted) in
        [("IS_ADMIN", "ACCESS_ERROR"), ("TEXT", "TEXT_ERROR"), ("APP_NAME", "EMPTY_APP_NAME")]
    {
        let mut wrong = input.clone();
        wrong[field] = json!("");
        assert_eq!(call(&fixture, &stage, name, wrong).await.unwrap_err().code, wanted);
    }
}

#[tokio::test]
async fn m_092_the_smart_filter_has_another_option_where_it_is_off_by_default() {
    let (fixture, _) = pushing(&[1], BackEnd::default()).await;
    assert!(fixture.tenant.has_smart_filter(1).await.unwrap());
    fixture.set(&[(Key::IsSmartfilterDisabledByDefault, "Y")]).await;
    assert!(!fixture.tenant.has_smart_filter(1).await.unwrap());
    fixture.tenant.set_smart_filter(1, true).await.unwrap();
    assert!(fixture.tenant.has_smart_filter(1).await.unwrap());
    fixture.set(&[(Key::IsSmartfilterDisabledByDefault, "N")]).await;
    fixture.tenant.set_smart_filter(1, false).await.unwrap();
    fixture.set(&[(Key::IsSmartfilterDisabledByDefault, "Y")]).await;
    assert!(fixture.tenant.has_smart_filter(1).await.unwrap(), "each keeps its own value");
}

/// What a real PHP makes of a JSON document; `None` where there is none, which fails the full run.
fn by_php(document: &str, flags: &str) -> Option<String> {
    let script =
        format!("echo json_encode(json_decode(stream_get_contents(STDIN), true), {flags});");
    let child = Command::new("php")
        .args(["-n", "-d", "serialize_precision=-1", "-r", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        #[expect(clippy::disallowed_methods, reason = "the switch of the gate")]
        let is_full = std::env::var("SLOW").is_ok();
        assert!(!is_full, "php is not installed: run ./test");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, document.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn json_for_devices_is_what_a_real_php_writes() {
    let numbers = "[1.0,1e15,1e16,1e17,1e18,1e25,-0.0,0.1,1.5e-5,0.0001,0.00012,0.00001,1.25e-7,3.14,100.0,1e22,\
        123456789012345678.0,12345678901234567890.5,1.7976931348623157e308,5e-324,-7,0,9007199254740993]";
    let texts = r#"["a\b\f\n\r\t\u0001\u001f\u007f/\\\"<>&' \u2028\u2029é😀я","",{"<k>/é":1,"7":2},[],{},[null,true,false]]"#;
    let few = "JSON_UNESCAPED_UNICODE";
    let markup = "JSON_UNESCAPED_UNICODE|JSON_HEX_TAG|JSON_HEX_AMP|JSON_HEX_APOS|JSON_HEX_QUOT";
    for document in [numbers, texts] {
        let value = from_json(document).unwrap();
        for (escapes, flags) in
            [(Escapes::FEW, few), (Escapes::MARKUP, markup), (Escapes::FOREIGN, "0")]
        {
            let Some(wanted) = by_php(document, flags) else { return };
            assert_eq!(value.to_php_json(escapes), wanted);
        }
    }
}
