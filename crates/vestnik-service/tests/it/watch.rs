//! Watches: adding, extending, removing, and who is found by a tag.

use std::time::Duration;

use vestnik_service::channel::{ChannelError, ChannelKind};
use vestnik_service::db::{Statement, Value};
use vestnik_service::option::Key;
use vestnik_service::watch::{TAG_BYTES_MAX, TAGS_MAX, WatchError};

use crate::fixture::Fixture;

static ROWS: Statement = Statement::new(
    "SELECT ID, {time DATE_CREATE}, CHANNEL_ID FROM b_pull_watch WHERE TENANT_ID = ? AND TAG = ? ORDER BY ID",
);

/// Id, age in seconds and channel of every row of a tag.
async fn rows(fixture: &Fixture, tag: &str) -> Vec<(i64, u64, String)> {
    let values = [Value::Int(fixture.tenant.id()), Value::Text(tag)];
    let rows = fixture.service.database().fetch(&ROWS, &values).await.unwrap();
    let now_s = fixture.clock.unix_s();
    let age_s = |at_s: i64| now_s - u64::try_from(at_s).unwrap();
    rows.iter()
        .map(|it| (it.int(0).unwrap(), age_s(it.int(1).unwrap()), it.text(2).unwrap()))
        .collect()
}

/// Everything the module promises of watches, over any database.
pub(crate) async fn check_watches(fixture: &Fixture) {
    let tenant = &fixture.tenant;
    assert!(tenant.add_watches(1, &[" DEAL_7 ", "DEAL_8", "DEAL_7"]).await.unwrap());
    assert!(tenant.add_watches(2, &["DEAL_7"]).await.unwrap());
    let first = rows(fixture, "DEAL_7").await;
    assert_eq!(first.len(), 2, "trimmed, and once each");
    let channel = tenant.channel(1, &ChannelKind::Private).await.unwrap();
    assert_eq!(first[0].2, channel.id.to_string());
    assert_eq!(tenant.watching_users(&["DEAL_8", "DEAL_7"]).await.unwrap(), [1, 2]);

    // Below 1860 s the row is refreshed, from then on replaced.
    fixture.clock.advance(Duration::from_secs(1859));
    tenant.add_watches(1, &["DEAL_7"]).await.unwrap();
    let refreshed = rows(fixture, "DEAL_7").await;
    assert_eq!((refreshed[0].0, refreshed[0].1, refreshed[1].1), (first[0].0, 0, 1859));
    fixture.clock.advance(Duration::from_secs(1));
    tenant.add_watches(2, &["DEAL_7"]).await.unwrap();
    let replaced = rows(fixture, "DEAL_7").await;
    let second = replaced.iter().find(|row| row.1 == 0).unwrap();
    assert_eq!(replaced.len(), 2);
    assert!(second.0 > first[1].0, "another row: {second:?}");

    // Extending is for what is there.
    let extended = tenant.extend_watches(1, &["DEAL_7", "OTHER"]).await.unwrap();
    assert_eq!(extended, Some(vec![("DEAL_7", true), ("OTHER", false)]));
    assert_eq!(tenant.watching_users(&["OTHER"]).await.unwrap(), [0_i64; 0]);
    assert_eq!(tenant.extend_watches(0, &["DEAL_7"]).await.unwrap(), None);
    assert_eq!(tenant.extend_watches(1, &[" "]).await.unwrap(), None);

    // 32 minutes after its last refresh, and not before.
    fixture.clock.advance(Duration::from_secs(60));
    assert_eq!(fixture.service.clean_up_watches().await.unwrap(), 0, "DEAL_8 has its last second");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.service.clean_up_watches().await.unwrap(), 1, "DEAL_8");
    assert_eq!(tenant.watching_users(&["DEAL_7", "DEAL_8"]).await.unwrap(), [1, 2]);

    assert!(tenant.delete_watches(1, Some(&["DEAL_7"])).await.unwrap());
    assert!(!tenant.delete_watches(1, Some(&["DEAL_7"])).await.unwrap());
    tenant.add_watches(2, &["A", "B"]).await.unwrap();
    assert!(tenant.delete_watches(2, None).await.unwrap());
    assert_eq!(tenant.watching_users(&["DEAL_7", "A", "B"]).await.unwrap(), [0_i64; 0]);
}

#[tokio::test]
async fn m_068_m_069_m_070_m_071_m_072_watches_live_as_long_as_they_are_wanted() {
    check_watches(&Fixture::example("4").await).await;
}

#[tokio::test]
async fn m_072_a_clean_up_takes_more_than_one_slice() {
    let fixture = Fixture::example("4").await;
    let names: Vec<String> = (0..900).map(|number| format!("TAG_{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for user in 1..=3 {
        fixture.tenant.add_watches(user, &names).await.unwrap();
    }
    fixture.clock.advance(Duration::from_secs(1000));
    fixture.tenant.extend_watches(2, &names[..1]).await.unwrap();
    fixture.clock.advance(Duration::from_secs(921));
    assert_eq!(fixture.service.clean_up_watches().await.unwrap(), 2699);
    assert_eq!(fixture.tenant.watching_users(&names).await.unwrap(), [2]);
}

#[tokio::test]
async fn watches_need_a_user_a_tag_and_a_channel() {
    let fixture = Fixture::example("4").await;
    let tenant = &fixture.tenant;
    assert!(!tenant.add_watches(0, &["T"]).await.unwrap());
    assert!(!tenant.add_watches(1, &["", " "]).await.unwrap());
    let long = "t".repeat(TAG_BYTES_MAX + 1);
    let refused = tenant.add_watches(1, &["T", &long]).await;
    assert!(matches!(refused, Err(WatchError::TagTooLong(256))), "{refused:?}");
    let refused = tenant.add_watches(1, &vec!["T"; TAGS_MAX + 1]).await;
    assert!(matches!(refused, Err(WatchError::TooManyTags(1001))), "{refused:?}");
    assert_eq!(tenant.watching_users(&["T"]).await.unwrap(), [0_i64; 0], "nothing was done");
    tenant.set_user_active(5, false).await.unwrap();
    let refused = tenant.add_watches(5, &["T"]).await;
    assert!(matches!(refused, Err(WatchError::Channel(ChannelError::InactiveUser(5)))));
    fixture.set(&[(Key::Nginx, "N")]).await;
    let refused = tenant.add_watches(1, &["T"]).await;
    assert!(matches!(refused, Err(WatchError::Channel(ChannelError::ServerOff))));
}

#[tokio::test]
async fn m_095_watches_of_one_tenant_are_nothing_to_another() {
    let fixture = Fixture::example("4").await;
    let other = fixture.service.create_tenant("other", "another site").await.unwrap();
    other.set_options("", &[(Key::Nginx, Some("Y"))]).await.unwrap();
    fixture.tenant.add_watches(1, &["T"]).await.unwrap();
    other.add_watches(9, &["T"]).await.unwrap();
    assert_eq!(fixture.tenant.watching_users(&["T"]).await.unwrap(), [1]);
    assert!(!other.delete_watches(1, None).await.unwrap());
    assert_eq!(fixture.tenant.watching_users(&["T"]).await.unwrap(), [1]);
}
