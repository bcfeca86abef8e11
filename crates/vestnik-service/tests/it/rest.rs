//! Operations without HTTP, over a queue server that remembers what it was told.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use vestnik_core::publisher::{
    AskError, BoxFuture, Listeners, ModuleEvent, PublishError, Publisher,
};
use vestnik_core::{ChannelId, Secret, UserId};
use vestnik_service::Tenant;
use vestnik_service::option::Key;
use vestnik_service::rest::{
    self, Backstage, Caller, Input, RestError, Right, ServerState, TriedAddress,
};

use crate::fixture::{Fixture, P, START_S};

/// A queue server: what was published, and who listens to what.
#[derive(Default)]
pub(crate) struct FakeServer {
    pub(crate) published: Mutex<Vec<ModuleEvent>>,
    pub(crate) online: Vec<ChannelId>,
}

impl Publisher for FakeServer {
    fn addresses_users(&self) -> bool {
        false
    }

    fn publish<'a>(
        &'a self,
        events: &'a [ModuleEvent],
    ) -> BoxFuture<'a, Vec<Result<(), PublishError>>> {
        self.published.lock().unwrap().extend(events.iter().cloned());
        Box::pin(std::future::ready(vec![Ok(()); events.len()]))
    }

    fn listeners<'a>(
        &'a self,
        channels: &'a [ChannelId],
    ) -> BoxFuture<'a, Result<Vec<Listeners>, AskError>> {
        let count = |channel: &ChannelId| u32::from(self.online.contains(channel));
        let listeners =
            channels.iter().map(|channel| Listeners { channel: *channel, count: count(channel) });
        Box::pin(std::future::ready(Ok(listeners.collect())))
    }

    fn last_seen<'a>(
        &'a self,
        _users: &'a [UserId],
    ) -> BoxFuture<'a, Result<Vec<(UserId, u64)>, AskError>> {
        Box::pin(std::future::ready(Err(AskError::Unsupported("users"))))
    }

    fn update_last_seen<'a>(
        &'a self,
        _seen_s: &'a [(UserId, u64)],
    ) -> BoxFuture<'a, Result<(), AskError>> {
        Box::pin(std::future::ready(Err(AskError::Unsupported("users"))))
    }
}

#[derive(Default)]
pub(crate) struct Stage(pub(crate) Arc<FakeServer>);

impl Backstage for Stage {
    fn server<'a>(
        &'a self,
        _tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<Arc<dyn Publisher>, RestError>> {
        let server: Arc<dyn Publisher> = Arc::<FakeServer>::clone(&self.0);
        Box::pin(std::future::ready(Ok(server)))
    }

    fn server_state(&self, _tenant: &Tenant) -> ServerState {
        ServerState::default()
    }

    fn try_addresses<'a>(
        &'a self,
        _tenant: &'a Tenant,
        _domain: &'a str,
    ) -> BoxFuture<'a, Result<Vec<TriedAddress>, RestError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn cloud_servers<'a>(
        &'a self,
        _region: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, RestError>> {
        Box::pin(std::future::ready(Err(RestError::server("no cloud"))))
    }

    fn cloud_register<'a>(
        &'a self,
        _region: &'a str,
        _host: Option<&'a str>,
        _licence: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(String, Secret<String>), RestError>> {
        Box::pin(std::future::ready(Err(RestError::server("no cloud"))))
    }
}

/// Calls an operation as a back end.
pub(crate) async fn call(
    fixture: &Fixture,
    stage: &Stage,
    operation: &str,
    input: Value,
) -> Result<Value, RestError> {
    let tenant = fixture.tenant.clone();
    let caller = Caller { tenant, right: Right::Administrator, user: None, host: "h.test".into() };
    let input = Input::of_json(input.to_string().as_bytes())?;
    let result = rest::call(&caller, stage, operation, input).await?;
    Ok(serde_json::from_str(&result).expect("JSON"))
}

fn code(result: Result<Value, RestError>) -> (u16, String) {
    let error = result.unwrap_err();
    (error.status, error.code.into_owned())
}

#[tokio::test]
async fn events_of_a_batch_are_merged_and_a_mistake_is_its_own() {
    let fixture = Fixture::example("4").await;
    let stage = Stage::default();
    let event = |user: i64| json!({"recipients": [user], "module_id": "im", "command": "a"});
    let wrong = json!({"recipients": [], "module_id": "im", "command": "a"});
    let events = json!({"events": [event(1), wrong, event(2), "x"]});
    let results = call(&fixture, &stage, "pull.event.addBatch", events).await.unwrap();
    assert_eq!(results[0], true);
    assert_eq!(results[1]["error"], "RECIPIENT_FORMAT");
    assert_eq!(results[2], true);
    assert_eq!(results[3]["error"], "INVALID_REQUEST");
    let published = stage.0.published.lock().unwrap();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].recipients.channels.len(), 2);
}

#[tokio::test]
async fn applications_write_to_their_own_users_within_limits() {
    let fixture = Fixture::example("4").await;
    let stage = Stage::default();
    let add = |extra: Value| {
        let mut input = json!({"CLIENT_ID": "app.1", "AUTH_USER_ID": 1, "COMMAND": "x"});
        for (name, value) in extra.as_object().unwrap() {
            input[name] = value.clone();
        }
        call(&fixture, &stage, "pull.application.event.add", input)
    };
    for accepted in [
        json!({}),
        json!({"USER_ID": 1}),
        json!({"USER_ID": "1"}),
        json!({"IS_ADMIN": "Y", "USER_ID": [2, 3]}),
        json!({"MODULE_ID": "a.b_1", "PARAMS": {"a": 1}}),
        json!({"PARAMS": "{\"a\":1}"}),
    ] {
        assert_eq!(add(accepted.clone()).await, Ok(json!(true)), "{accepted}");
    }
    for (refused, expected) in [
        (json!({"USER_ID": 2}), "USER_ID_ACCESS_ERROR"),
        (json!({"USER_ID": [1]}), "USER_ID_ACCESS_ERROR"),
        (json!({"USER_ID": "x", "IS_ADMIN": "Y"}), "USER_ID_ACCESS_ERROR"),
        (json!({"COMMAND": "a b"}), "COMMAND_ERROR"),
        (json!({"COMMAND": ""}), "COMMAND_ERROR"),
        (json!({"MODULE_ID": "Big"}), "MODULE_ID_ERROR"),
        (json!({"PARAMS": "text"}), "PARAMS_ERROR"),
        (json!({"PARAMS": 5}), "PARAMS_ERROR"),
    ] {
        assert_eq!(code(add(refused.clone()).await), (400, expected.into()), "{refused}");
    }
    assert_eq!(code(add(json!({"CLIENT_ID": "private"})).await), (403, "WRONG_AUTH_TYPE".into()));
    let body = stage.0.published.lock().unwrap()[0].body.clone();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["module_id"], "application");
    let config = json!({"CLIENT_ID": "app.1", "USER_ID": 1});
    let config = call(&fixture, &stage, "pull.application.config.get", config).await.unwrap();
    assert_eq!(config["channels"]["private"]["type"], "private");
}

#[tokio::test]
async fn m_088_whoever_has_the_token_of_a_device_may_remove_it() {
    let fixture = Fixture::example("4").await;
    let stage = Stage::default();
    static DEVICE: vestnik_service::db::Statement = vestnik_service::db::Statement::new(
        "INSERT INTO b_pull_push (TENANT_ID, USER_ID, DEVICE_TOKEN, VOIP_TOKEN, DATE_CREATE) VALUES (?, 1, ?, ?, {at})",
    );
    use vestnik_service::db::Value as Bound;
    for (token, voip) in [("t1", "v1"), ("t2", "v2")] {
        let at = Bound::Int(i64::try_from(START_S).unwrap());
        let values = [Bound::Int(fixture.tenant.id()), Bound::Text(token), Bound::Text(voip), at];
        fixture.service.database().execute(&DEVICE, &values).await.unwrap();
    }
    // Nobody: no user, no secret.
    let tenant = fixture.tenant.clone();
    let nobody = Caller { tenant, right: Right::User, user: Some(0), host: String::new() };
    let remove = async |token: &str| {
        let input = Input::default().with("token", token);
        rest::call(&nobody, &stage, rest::OPEN_TO_ALL, input).await
    };
    assert_eq!(remove("t1").await.unwrap(), "true");
    assert_eq!(remove("v2").await.unwrap(), "true", "or that for calls");
    assert_eq!(remove("t1").await.unwrap_err().code, "NOT_FOUND");
    assert_eq!(remove("").await.unwrap_err().code, "ERROR_ARGUMENT");
}

#[tokio::test]
async fn m_092_what_users_want_is_null_while_push_is_off() {
    let fixture = Fixture::example("4").await;
    let stage = Stage::default();
    let user = json!({"USER_ID": 1});
    let names = ["mobile.push.status", "mobile.push.smartfilter.status"];
    for name in names {
        let get = call(&fixture, &stage, &format!("{name}.get"), user.clone()).await;
        assert_eq!(get, Ok(Value::Null), "{name}");
        let set = json!({"USER_ID": 1, "ACTIVE": "Y"});
        assert_eq!(call(&fixture, &stage, &format!("{name}.set"), set).await, Ok(Value::Null));
    }
    fixture.set(&[(Key::Push, "Y")]).await;
    for name in names {
        let get = async || call(&fixture, &stage, &format!("{name}.get"), user.clone()).await;
        assert_eq!(get().await, Ok(json!(true)), "{name}");
        let set = json!({"USER_ID": 1, "ACTIVE": "N"});
        call(&fixture, &stage, &format!("{name}.set"), set).await.unwrap();
        assert_eq!(get().await, Ok(json!(false)), "{name}");
    }
}

#[tokio::test]
async fn m_081_whose_page_is_connected_stays_online_every_240_s() {
    use vestnik_service::job::Job;
    assert_eq!((Job::OnlineChannels.first_s(), Job::OnlineChannels.period_s(0)), (100, 240));
    let fixture = Fixture::example("4").await;
    let mut server = FakeServer::default();
    server.online.push(P.parse().unwrap());
    fixture.tenant.note_activity(&[(1, START_S), (2, START_S), (3, START_S - 2000)]).await.unwrap();
    fixture.clock.advance(std::time::Duration::from_secs(1000));
    // 1 is connected; 2 is not; 3 was away for longer than a session lives and is not asked for.
    assert_eq!(fixture.tenant.refresh_online(&server).await.unwrap(), [1]);
    let mut since = fixture.tenant.seconds_since_activity(&[1, 2, 4]).await.unwrap();
    since.sort_unstable();
    assert_eq!(since, [(1, 0), (2, 1000)]);
    fixture.clock.advance(std::time::Duration::from_secs(1000));
    assert_eq!(fixture.tenant.refresh_online(&server).await.unwrap(), [1], "as long as it is");
    fixture.set(&[(Key::Nginx, "N")]).await;
    assert!(fixture.tenant.refresh_online(&server).await.unwrap().is_empty());
    let stage = Stage::default();
    let seen = call(&fixture, &stage, "getUsersLastSeen", json!({"userList": [1, 2]})).await;
    assert_eq!(seen, Ok(json!({"1": 0, "2": 2000})), "below generation 5 from what is known here");
}

#[tokio::test]
async fn m_080_jobs_run_when_they_are_due_once_and_sooner_when_more_is_left() {
    use std::time::Duration;
    use vestnik_service::job::Job;
    let fixture = Fixture::new().await;
    let period = |job: Job, done| job.period_s(done);
    assert_eq!((period(Job::Channels, 0), period(Job::Devices, 0)), (43_200, 43_200));
    assert_eq!((period(Job::Watches, 10), period(Job::Watches, 1000)), (1200, 180));
    assert_eq!((period(Job::Stack, 10), period(Job::Stack, 1001)), (86_400, 600));
    let claim = || fixture.service.claim_job(Job::Watches);
    assert!(!claim().await.unwrap(), "it is planned first");
    fixture.clock.advance(Duration::from_secs(599));
    assert!(!claim().await.unwrap());
    fixture.clock.advance(Duration::from_secs(1));
    assert!(claim().await.unwrap());
    assert!(!claim().await.unwrap(), "somebody has it");
    fixture.service.plan_job(Job::Watches, 1000).await.unwrap();
    fixture.clock.advance(Duration::from_secs(179));
    assert!(!claim().await.unwrap());
    fixture.clock.advance(Duration::from_secs(1));
    assert!(claim().await.unwrap());
    // Whoever had it ended: another one has it after a while.
    fixture.clock.advance(Duration::from_secs(600));
    assert!(claim().await.unwrap());
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_stop_jobs() {
    use vestnik_service::job::Job;
    let fixture = Fixture::new().await;
    let ahead = vestnik_core::Clock::manual(START_S + 10 * 86_400);
    let options = fixture.options();
    let (other, _notices) = vestnik_service::Service::open(&options, ahead).await.unwrap();
    assert!(!other.claim_job(Job::Watches).await.unwrap());
    assert!(fixture.service.claim_job(Job::Watches).await.unwrap(), "ten days off is no plan");
}

#[tokio::test]
async fn a_hook_says_who_is_active_and_silence_means_everybody() {
    #[derive(Debug)]
    struct Says(&'static str);
    impl vestnik_service::hook::Hooks for Says {
        fn ask<'a>(
            &'a self,
            _tenant: &'a Tenant,
            hook: &'a str,
            params: String,
        ) -> BoxFuture<'a, Option<String>> {
            assert_eq!(hook, "user.active");
            assert!(params.starts_with(r#"{"USERS":["#), "{params}");
            Box::pin(std::future::ready(Some(self.0.to_owned())))
        }
    }
    let fixture = Fixture::example("4").await;
    let stage = Stage::default();
    fixture.service.set_hooks(Arc::new(Says(r#"{"7":false,"8":true}"#)));
    let get = async |user: i64| {
        call(&fixture, &stage, "pull.channel.get", json!({"USER_ID": user})).await
    };
    assert_eq!(code(get(7).await), (400, "USER_NOT_ACTIVE".into()));
    get(8).await.unwrap();
    get(9).await.unwrap();
    let event = json!({"recipients": [7, 8], "module_id": "im", "command": "x"});
    call(&fixture, &stage, "pull.event.add", event).await.unwrap();
    assert_eq!(stage.0.published.lock().unwrap()[0].recipients.channels.len(), 1);
    for silence in ["null", "[]", "\"x\"", "5"] {
        fixture.service.set_hooks(Arc::new(Says(silence)));
        get(7).await.unwrap();
        fixture
            .tenant
            .delete_channel_of(7, &vestnik_service::channel::ChannelKind::Private)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn m_084_methods_of_bitrix_rest_have_their_scopes_fields_and_results() {
    #[derive(Debug)]
    struct Types;
    impl vestnik_service::hook::Hooks for Types {
        fn ask<'a>(
            &'a self,
            _tenant: &'a Tenant,
            hook: &'a str,
            _params: String,
        ) -> BoxFuture<'a, Option<String>> {
            let answer = match hook {
                "mobile.counter.types" => r#"[{"type":"im_m","name":"Messages","default":true}]"#,
                "mobile.push.types" => {
                    r#"[{"module_id":"tasks","name":"Tasks","types":[]},{"module_id":"im","name":"Chat","types":[{"name":"Messages","type":"message","default":true}]}]"#
                }
                "mobile.counter" => "12",
                _ => return Box::pin(std::future::ready(None)),
            };
            Box::pin(std::future::ready(Some(answer.to_owned())))
        }
    }
    let document = rest::document();
    let scope =
        |name: &str| document["paths"][format!("/module/{name}")]["post"]["x-scope"].clone();
    for (name, expected) in [
        ("pull.config.get", "pull_channel"),
        ("pull.application.config.get", "pull"),
        ("pull.application.event.add", "pull"),
        ("pull.application.push.add", "pull"),
        ("pull.watch.extend", "pull"),
        ("pull.channel.public.get", "pull_channel"),
        ("pull.channel.public.list", "pull_channel"),
        ("mobile.counter.types.get", "mobile"),
        ("mobile.push.smartfilter.status.set", "mobile"),
    ] {
        assert_eq!(scope(name), expected, "{name}");
    }
    let fixture = Fixture::example("4").await;
    fixture.service.set_hooks(Arc::new(Types));
    let stage = Stage::default();
    let user = |more: Value| {
        let mut input = json!({"USER_ID": 1});
        for (name, value) in more.as_object().unwrap() {
            input[name] = value.clone();
        }
        input
    };
    let ask = async |name: &str, more: Value| call(&fixture, &stage, name, user(more)).await;
    assert_eq!(ask("mobile.counter.get", json!({})).await, Ok(json!(12)));
    let messages = json!({"type": "im_m", "name": "Messages", "default": true});
    assert_eq!(ask("mobile.counter.types.get", json!({})).await, Ok(json!([messages])));
    let off = json!({"CONFIG": {"im_m": false}});
    assert_eq!(ask("mobile.counter.config.set", off).await, Ok(json!(true)));
    let values = ask("mobile.counter.types.get", json!({"USER_VALUES": "Y"})).await.unwrap();
    assert_eq!(values[0]["value"], false);
    let counters = ask("mobile.counter.config.get", json!({})).await;
    assert_eq!(counters, Ok(json!([{"type": "im_m", "value": false}])));
    let types = ask("mobile.push.types.get", json!({"USER_VALUES": "Y"})).await.unwrap();
    assert_eq!((&types[0]["module_id"], &types[1]["module_id"]), (&json!("im"), &json!("tasks")));
    let kind = json!({"name": "Messages", "type": "message", "disabled": false, "default": true, "value": true});
    assert_eq!(types[0]["types"], json!([kind]));
    let config =
        json!({"CONFIG": [{"module_id": "im", "type": "message", "active": "N"}, {"type": "x"}]});
    assert_eq!(ask("mobile.push.config.set", config).await, Ok(json!(true)));
    let wanted = ask("mobile.push.config.get", json!({})).await;
    assert_eq!(wanted, Ok(json!([{"module_id": "im", "type": "message", "active": false}])));
    for (name, bad) in [
        ("mobile.counter.config.set", json!({"CONFIG": {"a": "maybe"}})),
        ("mobile.counter.config.set", json!({})),
        ("mobile.push.config.set", json!({"CONFIG": []})),
    ] {
        assert_eq!(code(ask(name, bad).await), (400, "CONFIG_ERROR".into()), "{name}");
    }
}
