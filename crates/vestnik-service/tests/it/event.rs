//! Events: who gets them, what they say, and which of them are one.

use serde_json::{Value, json};
use vestnik_core::ChannelId;
use vestnik_core::publisher::ModuleEvent;
use vestnik_service::channel::{ChannelError, ChannelKind};
use vestnik_service::event::{Event, EventError, Params, Recipient};
use vestnik_service::option::Key;

use crate::fixture::{Fixture, P, S, START_S};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn event(recipients: &[Recipient], params: &str) -> Event {
    let params = Params::parse(params).unwrap();
    Event { params, ..Event::new(recipients.to_vec(), "im", "message") }
}

async fn prepared(fixture: &Fixture, asked: &[Event]) -> Vec<ModuleEvent> {
    let prepared = fixture.tenant.prepare_events(asked).await.unwrap();
    assert!(prepared.of_asked.iter().all(Result::is_ok), "{prepared:?}");
    prepared.events
}

fn channels(event: &ModuleEvent) -> Vec<String> {
    event.recipients.channels.iter().map(ToString::to_string).collect()
}

fn body(event: &ModuleEvent) -> Value {
    serde_json::from_slice(&event.body).unwrap()
}

fn id(text: &str) -> ChannelId {
    text.parse().unwrap()
}

#[tokio::test]
async fn m_042_recipients_are_users_channels_and_texts_of_either_in_one_list() {
    let fixture = Fixture::example("4").await;
    let of_text = |text| Recipient::of_text(text).unwrap();
    assert_eq!(of_text("12abc"), Recipient::User(12), "as PHP reads it");
    assert_eq!(of_text(A), Recipient::Channel(id(A)));
    assert!(matches!(Recipient::of_text(&"z".repeat(32)), Err(EventError::Recipient)));
    let to = [of_text("1"), Recipient::User(1), Recipient::Channel(id(A)), Recipient::Shared];
    let events = prepared(&fixture, &[event(&to, "{}")]).await;
    assert_eq!(events.len(), 1);
    assert_eq!(channels(&events[0]), [A, S, P], "each once");
    assert!(events[0].recipients.users.is_empty(), "generation 4 knows no users");
    fixture.set(&[(Key::NginxVersion, "5")]).await;
    let events = prepared(&fixture, &[event(&to, "{}")]).await;
    assert_eq!(channels(&events[0]), [A, S, P]);
    assert_eq!(events[0].recipients.users[0].number(), 1);
}

#[tokio::test]
async fn m_043_m_044_m_045_an_event_gets_what_it_does_not_say() {
    let fixture = Fixture::example("4").await;
    let mut asked = Event::new(vec![Recipient::User(1)], "CRM.Deal", "a-b");
    let events = prepared(&fixture, &[asked.clone()]).await;
    let text = std::str::from_utf8(&events[0].body).unwrap();
    let begin = r#"{"module_id":"crm.deal","command":"a-b","params":[],"extra":{"server_time":"2026-01-01T00:00:00+00:00","server_time_unix":1767225600.0,"server_name":"example.test","revision_web":19,"revision_mobile":3}}"#;
    assert_eq!(text, begin);
    assert_eq!((events[0].expiry.seconds(), events[0].kind.as_str()), (86_400, "crmdeal_ab"));
    for (params, expected) in [("17", json!([])), ("\"x\"", json!([])), ("[1]", json!([1]))] {
        asked.params = Params::parse(params).unwrap();
        assert_eq!(body(&prepared(&fixture, &[asked.clone()]).await[0])["params"], expected);
    }
    assert!(matches!(Params::parse("{\"a\":"), Err(EventError::Json)));
    asked.params = Params::parse(r#"{"z":1.50,"a":"й","z2":{"b":[]}}"#).unwrap();
    asked.extra = Params::parse(r#"{"server_time":"then","server_name":"evil","own":1}"#).unwrap();
    asked.expiry_s = Some(-5);
    let events = prepared(&fixture, &[asked]).await;
    assert_eq!(events[0].expiry.seconds(), 0);
    let text = std::str::from_utf8(&events[0].body).unwrap();
    assert!(text.contains(r#""params":{"z":1.50,"a":"й","z2":{"b":[]}}"#), "untouched: {text}");
    let extra = &body(&events[0])["extra"];
    assert_eq!(extra["server_time"], "then");
    assert_eq!((&extra["server_name"], &extra["own"]), (&json!("example.test"), &json!(1)));
    assert_eq!(extra["server_time_unix"], json!(1_767_225_600.0));
    assert_eq!(START_S, 1_767_225_600);
}

#[tokio::test]
async fn m_046_m_047_equal_events_of_one_call_are_one_with_all_recipients() {
    let fixture = Fixture::example("4").await;
    let (one, all) = ([Recipient::User(1)], [Recipient::Shared]);
    let mut later = event(&all, r#"{"a":1}"#);
    later.extra = Params::parse(r#"{"server_time":"later"}"#).unwrap();
    let other = event(&one, r#"{"a":2}"#);
    let asked = [event(&one, r#"{"a":1}"#), other, later];
    let prepared = fixture.tenant.prepare_events(&asked).await.unwrap();
    assert_eq!(prepared.events.len(), 2, "times make no difference");
    assert_eq!(channels(&prepared.events[0]), [S, P]);
    let places: Vec<_> = prepared.of_asked.into_iter().map(Result::unwrap).collect();
    assert_eq!(places, [vec![0], vec![1], vec![0]]);

    let grouped = |params, to: &[Recipient]| {
        let group = Some("g".to_owned());
        Event { group, ..event(to, params) }
    };
    let asked = [grouped(r#"{"n":"first"}"#, &one), grouped(r#"{"n":"second"}"#, &all)];
    let events = self::prepared(&fixture, &asked).await;
    assert_eq!(events.len(), 1);
    assert_eq!(body(&events[0])["params"], json!({"n": "first"}));
    assert_eq!(channels(&events[0]), [S, P]);
}

#[tokio::test]
async fn m_048_a_mistake_has_the_code_of_the_module_and_harms_no_other_event() {
    let fixture = Fixture::example("4").await;
    let to = [Recipient::User(1)];
    let asked = [
        event(&[], "{}"),
        event(&[Recipient::User(0)], "{}"),
        event(&[Recipient::Tag(" ".into())], "{}"),
        event(&[Recipient::Tag("t".repeat(300))], "{}"),
        Event { module_id: " ".into(), ..event(&to, "{}") },
        Event { command: String::new(), ..event(&to, "{}") },
        event(&to, "{}"),
    ];
    let prepared = fixture.tenant.prepare_events(&asked).await.unwrap();
    let code = |it: &Result<Vec<usize>, EventError>| it.as_ref().err().map(EventError::code);
    let codes: Vec<_> = prepared.of_asked.iter().map(code).collect();
    let (nobody, format) = (Some("RECIPIENT_FORMAT"), Some("EVENT_PARAMETERS_FORMAT"));
    assert_eq!(codes, [nobody, nobody, nobody, nobody, format, format, None]);
    assert_eq!(prepared.events.len(), 1);
    let refused = fixture.tenant.prepare_events(&vec![event(&to, "{}"); 1001]).await;
    assert!(matches!(refused, Err(EventError::TooMany(1001))));
}

#[tokio::test]
async fn m_050_below_generation_5_each_user_gets_an_event_of_its_own() {
    let fixture = Fixture::example("4").await;
    fixture.put_channel(2, "private", A, B).await;
    let mut asked = event(&[Recipient::User(1), Recipient::User(2)], r#"{"a":1,"b":1,"c":1}"#);
    asked.dictionary = Params::parse(r#"{"b":2,"c":2}"#).unwrap();
    asked.user_params = vec![(1, Params::parse(r#"{"c":3}"#).unwrap())];
    let events = prepared(&fixture, &[asked.clone()]).await;
    assert_eq!(events.len(), 2);
    assert_eq!(channels(&events[0]), [P]);
    assert_eq!(body(&events[0])["params"], json!({"a": 1, "b": 2, "c": 3}));
    assert_eq!(channels(&events[1]), [A]);
    assert_eq!(body(&events[1])["params"], json!({"a": 1, "b": 2, "c": 2}));
    assert!(events.iter().all(|it| it.user_params.is_empty() && it.dictionary.is_none()));

    fixture.set(&[(Key::NginxVersion, "5")]).await;
    let events = prepared(&fixture, &[asked]).await;
    assert_eq!(events.len(), 1, "the server does it");
    assert_eq!(body(&events[0])["params"], json!({"a": 1, "b": 1, "c": 1}));
    assert_eq!(events[0].dictionary.as_deref(), Some(&br#"{"b":2,"c":2}"#[..]));
    assert_eq!(events[0].user_params[0].1, r#"{"c":3}"#);
}

#[tokio::test]
async fn m_051_without_a_server_nothing_is_taken() {
    let fixture = Fixture::new().await;
    let refused = fixture.tenant.prepare_events(&[event(&[Recipient::Shared], "{}")]).await;
    assert!(matches!(refused, Err(EventError::Channel(ChannelError::ServerOff))), "{refused:?}");
}

#[tokio::test]
async fn m_052_a_tag_reaches_who_watches_it_but_for_skipped_users() {
    let fixture = Fixture::example("4").await;
    fixture.put_channel(2, "private", A, B).await;
    fixture.tenant.add_watches(1, &["DEAL_7"]).await.unwrap();
    fixture.tenant.add_watches(2, &["DEAL_7"]).await.unwrap();
    let tag = Recipient::Tag("DEAL_7".into());
    let skipping = |to: &[Recipient]| Event { skip_users: vec![2], ..event(to, "{}") };
    let events = prepared(&fixture, &[event(std::slice::from_ref(&tag), "{}")]).await;
    assert_eq!(channels(&events[0]), [P, A]);
    let events = prepared(&fixture, &[skipping(std::slice::from_ref(&tag))]).await;
    assert_eq!(channels(&events[0]), [P]);
    // Who is named gets it all the same.
    let events = prepared(&fixture, &[skipping(&[tag, Recipient::User(2)])]).await;
    assert_eq!(channels(&events[0]), [P, A]);
    let nobody = fixture.tenant.prepare_events(&[event(&[Recipient::Tag("X".into())], "{}")]).await;
    let nobody = nobody.unwrap();
    assert!(nobody.events.is_empty());
    assert!(matches!(&nobody.of_asked[0], Ok(places) if places.is_empty()), "no mistake");
}

#[tokio::test]
async fn m_065_an_event_of_an_application_goes_to_its_channels() {
    let fixture = Fixture::example("5").await;
    let kind = ChannelKind::named("app.1").unwrap();
    let of_user = fixture.tenant.channel(1, &kind).await.unwrap().id.to_string();
    let of_all = fixture.tenant.channel(0, &kind).await.unwrap().id.to_string();
    let to = [Recipient::User(1)];
    let events = prepared(&fixture, &[Event { kind: kind.clone(), ..event(&to, "{}") }]).await;
    assert_eq!(channels(&events[0]), [of_user]);
    assert_eq!(events[0].recipients.users[0].number(), 1, "as the module sends it");
    let to = [Recipient::User(0)];
    let events = prepared(&fixture, &[Event { kind, ..event(&to, "{}") }]).await;
    assert_eq!(channels(&events[0]), [of_all]);
    assert!(events[0].recipients.users.is_empty());
}
