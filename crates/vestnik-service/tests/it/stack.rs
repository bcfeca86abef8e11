//! Clients that poll because there is no queue server.

use std::time::Duration;

use serde_json::{Value, json};
use vestnik_service::option::Key;
use vestnik_service::php;
use vestnik_service::rest::RestError;

use crate::fixture::{Fixture, P};
use crate::rest::{Stage, call};

async fn without_server() -> (Fixture, Stage) {
    let fixture = Fixture::example("4").await;
    fixture.set(&[(Key::Nginx, "N")]).await;
    (fixture, Stage::default())
}

async fn add(fixture: &Fixture, command: &str) {
    let stage = Stage::default();
    let event =
        json!({"recipients": [1], "module_id": "im", "command": command, "params": {"a": 1}});
    assert_eq!(call(fixture, &stage, "pull.event.add", event).await, Ok(json!(true)));
}

async fn request(fixture: &Fixture, fields: Value) -> Result<String, RestError> {
    let mut input = json!({"USER_ID": 1});
    for (name, value) in fields.as_object().unwrap() {
        input[name] = value.clone();
    }
    let result = call(fixture, &Stage::default(), "pull.request", input).await?;
    Ok(result.as_str().unwrap().to_owned())
}

/// The commands and the id of the last of an answer.
fn commands(answer: &str) -> (Vec<String>, Option<String>) {
    let part = |behind: &str| {
        let parts = answer.split(behind).skip(1);
        parts.map(|rest| rest.split('\'').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    (part("'command':'"), part("'id':'").pop())
}

#[tokio::test]
async fn m_073_three_actions_and_their_answers() {
    let (fixture, _) = without_server().await;
    let channel = request(&fixture, json!({"PULL_GET_CHANNEL": "Y"})).await.unwrap();
    assert!(channel.contains(&format!("'CHANNEL_ID':'{P}'")), "{channel}");
    assert!(channel.contains("'METHOD':'PULL'"), "{channel}");
    let path = "'PATH':'/bitrix/components/bitrix/pull.request/ajax.php?UPDATE_STATE'";
    assert!(channel.contains(path), "{channel}");
    assert!(channel.contains("'PATH_WS':''"), "{channel}");
    let watch = request(&fixture, json!({"PULL_UPDATE_WATCH": "Y", "WATCH": ["a"]})).await.unwrap();
    assert_eq!(watch, "{'RESULT':{'a':false},'ERROR':''}");
    let state = json!({"PULL_UPDATE_STATE": "Y", "CHANNEL_ID": P, "CHANNEL_LAST_ID": 0});
    assert_eq!(request(&fixture, state).await.unwrap(), "{'MESSAGE':[],'ERROR':''}");
    assert_eq!(request(&fixture, json!({})).await.unwrap(), "{'ERROR':'UNKNOWN_ERROR'}");
    let nobody = request(&fixture, json!({"USER_ID": 0, "PULL_GET_CHANNEL": "Y"})).await.unwrap();
    assert_eq!(nobody, "{'ERROR':'AUTHORIZE_ERROR'}", "before the action is looked at");
    let bad = json!({"PULL_UPDATE_STATE": "Y", "CHANNEL_ID": "x"});
    assert_eq!(request(&fixture, bad).await.unwrap(), "{'ERROR':'ERROR_OPEN_CHANNEL'}");
    fixture.tenant.set_user_active(5, false).await.unwrap();
    let inactive = json!({"USER_ID": 5, "PULL_GET_CHANNEL": "Y"});
    assert_eq!(request(&fixture, inactive).await.unwrap(), "{'ERROR':'ERROR_OPEN_CHANNEL'}");
}

#[tokio::test]
async fn m_074_ids_last_id_and_extra_of_what_is_read() {
    let (fixture, stage) = without_server().await;
    add(&fixture, "first").await;
    add(&fixture, "second").await;
    let poll = async |last: i64| {
        let fields = json!({"PULL_UPDATE_STATE": "Y", "CHANNEL_ID": P, "CHANNEL_LAST_ID": last});
        request(&fixture, fields).await.unwrap()
    };
    let answer = poll(0).await;
    let (names, last) = commands(&answer);
    assert_eq!(names, ["first", "second"]);
    let message = "{'module_id':'im','command':'first','params':{'a':'1'},'id':'1','extra':{";
    assert!(answer.contains(message), "{answer}");
    assert!(answer.contains("'server_time':'2026-01-01T00:00:00+00:00'"), "{answer}");
    let last: i64 = last.unwrap().parse().unwrap();
    assert_eq!(commands(&poll(1).await).0, ["second"], "rows stay");
    assert!(commands(&poll(last).await).0.is_empty());
    assert!(commands(&poll(0).await).0.is_empty(), "what was read is noted");
    assert_eq!(fixture.tenant.polled_channel(1).await.unwrap().last_id, last);
    let shared = json!({"recipients": {"shared": true}, "module_id": "im", "command": "x"});
    let refused = call(&fixture, &stage, "pull.event.add", shared).await.unwrap_err();
    assert_eq!(refused.code, "SERVER_ERROR", "nobody polls for everybody's");
}

#[tokio::test]
async fn m_075_a_client_that_polls_at_60_20_and_10_seconds_gets_everything_once() {
    let (fixture, _) = without_server().await;
    let (mut last, mut got, mut pauses) = (0, Vec::new(), Vec::new());
    // As the old script counts: after news the next poll comes after 10 s, then four times after 20 s.
    let mut since_news = 5;
    for turn in 0..20 {
        if matches!(turn, 3 | 4 | 12) {
            add(&fixture, &format!("news{turn}")).await;
        }
        let fields = json!({"PULL_UPDATE_STATE": "Y", "CHANNEL_ID": P, "CHANNEL_LAST_ID": last});
        let (names, newest) = commands(&request(&fixture, fields).await.unwrap());
        since_news = if names.is_empty() { since_news + 1 } else { 0 };
        got.extend(names);
        last = newest.map_or(last, |id| id.parse().unwrap());
        let pause = match since_news {
            0 => 10,
            1..=4 => 20,
            _ => 60,
        };
        pauses.push(pause);
        fixture.clock.advance(Duration::from_secs(pause));
    }
    assert_eq!(got, ["news3", "news4", "news12"]);
    assert_eq!(pauses[3..10], [10, 10, 20, 20, 20, 20, 60]);
}

#[tokio::test]
async fn m_076_after_a_day_nobody_gets_an_event_any_more() {
    let (fixture, _) = without_server().await;
    add(&fixture, "old").await;
    fixture.clock.advance(Duration::from_secs(86_399));
    add(&fixture, "new").await;
    assert_eq!(fixture.service.clean_up_stack().await.unwrap(), 0);
    fixture.clock.advance(Duration::from_secs(2));
    assert_eq!(fixture.service.clean_up_stack().await.unwrap(), 1);
    // The channel was renewed meanwhile.
    let channel = fixture.tenant.polled_channel(1).await.unwrap().id;
    let left = fixture.tenant.poll(channel, 0).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].get("command"), Some(&php::Value::text("new")));
}
