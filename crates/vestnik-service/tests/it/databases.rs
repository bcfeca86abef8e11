//! The same promises over all three databases, real ones.

use std::time::{Duration, Instant};

use vestnik_core::Clock;
use vestnik_service::administrator::{Access, AdministratorError};
use vestnik_service::audit::Actor;
use vestnik_service::channel::{ChannelError, ChannelKind};
use vestnik_service::db::{Database, Statement, Value};
use vestnik_service::option::Key;
use vestnik_service::{DatabaseError, DatabaseOptions, Service};

use crate::database_server::{mariadb, postgres};
use crate::fixture::{Fixture, START_S, sqlite};

/// Everything that a dialect could get wrong.
async fn check_everything(options: &DatabaseOptions) {
    let mut fixture = Fixture::over(options).await;
    check_options(&fixture).await;
    fixture.set(&[(Key::Nginx, "Y"), (Key::SignatureKey, "k")]).await;
    check_renewal_has_one_winner(options, &mut fixture).await;
    check_locks(&fixture).await;
    check_clean_up(&mut fixture).await;
    check_many_channels(&fixture).await;
    check_rows_of_the_php_module(&fixture).await;
    let modules = [("im", true), ("tasks", false), ("im", false)];
    for (module_id, is_for_admin) in modules {
        let module_id = module_id.to_owned();
        let module =
            vestnik_service::site::ModuleUse { module_id, is_for_admin, is_for_public: true };
        fixture.tenant.register_module(&module).await.unwrap();
    }
    let modules = fixture.tenant.dependent_modules().await.unwrap();
    assert_eq!(modules.iter().map(|it| it.is_for_admin).collect::<Vec<_>>(), [false, false]);
    crate::watch::check_watches(&fixture).await;
    check_transactions(fixture.service.database()).await;
    check_administrators(&fixture).await;
    crate::tables::check(&fixture).await;
    crate::push::check(&fixture).await;
    fixture.service.database().close().await;
    // Opened again, the tables are those of before.
    let again = Fixture::over(options).await;
    assert_eq!(again.tenant.id(), fixture.tenant.id());
    assert!(again.tenant.options("").await.unwrap().is_server_on());
    assert_eq!(again.service.host_ids().await.unwrap().len(), 2);
    again.service.database().close().await;
}

/// Administrators, their sessions, and what was written down.
async fn check_administrators(fixture: &Fixture) {
    let (service, password) = (&fixture.service, "a long password");
    let first = service.make_first_administrator().await.expect("it is made").expect("the first");
    assert!(service.make_first_administrator().await.expect("there is one").is_none());
    assert!(service.checks_password("admin", &first).await.expect("it answers"));
    assert!(!service.checks_password("admin", "another").await.expect("it answers"));
    assert!(!service.checks_password("nobody", &first).await.expect("it answers"));
    service.save_administrator("alice", password, Access::Read).await.expect("it is saved");
    let last = service.remove_administrator("admin").await;
    assert!(matches!(last, Err(AdministratorError::Last(_))), "{last:?}");
    let token = service.begin_session("alice", 100).await.expect("it begins");
    let session = service.session(&token, 100).await.expect("it is read").expect("it is there");
    assert_eq!((&*session.login, session.access), ("alice", Access::Read));
    assert_eq!(service.session("another", 100).await.expect("it is read"), None);
    // It is prolonged by use, and ends without.
    for _ in 0..3 {
        fixture.clock.advance(Duration::from_secs(60));
        assert!(service.session(&token, 100).await.expect("it is read").is_some());
    }
    fixture.clock.advance(Duration::from_secs(101));
    assert_eq!(service.session(&token, 100).await.expect("it is read"), None);
    let token = service.begin_session("alice", 100).await.expect("it begins");
    service.save_administrator("alice", password, Access::Write).await.expect("it is saved");
    assert_eq!(service.session(&token, 100).await.expect("it is read"), None, "a new password");
    service.remove_administrator("admin").await.expect("there is another");
    let actor = Actor { login: "alice", address: "192.0.2.1" };
    let tenant = &fixture.tenant;
    let set = [(Key::LicenceKey, Some("secret"))];
    tenant.set_settings("", &set, actor).await.expect("it is set");
    let audit = tenant.audit().await.expect("it is read");
    let entry = audit.first().expect("it is written down");
    assert_eq!((&*entry.login, &*entry.name, &*entry.new), ("alice", "licence_key", "•••••• (6)"));
    tenant.set_settings("", &[(Key::LicenceKey, None)], actor).await.expect("it is taken away");
}

async fn check_options(fixture: &Fixture) {
    let text = "Ключ '\"\\ % _ ? {x} 🔑";
    fixture.set(&[(Key::ServerName, text)]).await;
    fixture.set(&[(Key::ServerName, text), (Key::Guest, "Y")]).await;
    let options = fixture.tenant.options("").await.unwrap();
    assert_eq!(options.text(Key::ServerName), text);
    // Each change is seen, also within one second (S-51).
    assert_eq!(options.text(Key::ConfigTimestamp), (START_S + 1).to_string());
}

/// M-016: many that find an expired channel at once agree on one new one, over two processes' worth of
/// connections; its old listeners are told once.
async fn check_renewal_has_one_winner(options: &DatabaseOptions, fixture: &mut Fixture) {
    let (other, mut other_notices) =
        Service::open(options, fixture.clock.clone()).await.expect("it opens");
    let theirs = other.tenant("h").await.unwrap().expect("it is there");
    let old = fixture.tenant.channel(5, &ChannelKind::Private).await.unwrap();
    fixture.clock.advance(Duration::from_secs(43_205));
    while fixture.told().is_some() {}
    let gets = (0..24).map(|at| {
        let tenant = if at % 2 == 0 { fixture.tenant.clone() } else { theirs.clone() };
        async move { tenant.channel(5, &ChannelKind::Private).await.unwrap().id }
    });
    let mut running = tokio::task::JoinSet::new();
    gets.for_each(|get| drop(running.spawn(get)));
    let ids = running.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0] && *id != old.id), "one winner");
    let mut told = usize::from(fixture.told().is_some());
    told += usize::from(other_notices.try_recv().is_ok());
    assert!(told == 1 && fixture.told().is_none() && other_notices.try_recv().is_err(), "{told}");
    if fixture.service.database().dialect() != vestnik_service::db::Dialect::Sqlite {
        other.database().close().await;
    }
}

/// M-017.
async fn check_locks(fixture: &Fixture) {
    let database = fixture.service.database();
    let name = format!("vestnik_{}_b_pchc_77_private", fixture.tenant.id());
    let guard = database.lock(&name, Duration::ZERO).await.unwrap().expect("it is free");
    let get = fixture.tenant.channel(77, &ChannelKind::Private).await;
    assert!(matches!(get, Err(ChannelError::Locked)), "{get:?}");
    // A guard that is dropped gives the lock back too, as soon as the server sees the connection end.
    drop(guard);
    let end = Instant::now() + Duration::from_secs(10);
    while fixture.tenant.channel(77, &ChannelKind::Private).await.is_err() {
        assert!(Instant::now() < end, "the lock is free again");
    }
}

/// M-021.
async fn check_clean_up(fixture: &mut Fixture) {
    let tenant = fixture.tenant.clone();
    let kind = ChannelKind::named("app").unwrap();
    let old = tenant.channel(9, &kind).await.unwrap();
    fixture.clock.advance(Duration::from_secs(46_800));
    let young = tenant.channel(10, &kind).await.unwrap();
    assert_eq!(tenant.channel(10, &kind).await.unwrap().id, young.id);
    fixture.clock.advance(Duration::from_secs(1));
    assert!(tenant.clean_up_channels().await.unwrap() >= 1);
    assert_eq!(tenant.clean_up_channels().await.unwrap(), 0, "the rest is young");
    assert_ne!(tenant.channel(9, &kind).await.unwrap().id, old.id);
    assert_eq!(tenant.channel(10, &kind).await.unwrap().id, young.id);
}

/// Many channels are read together; who has none gets one, and inactive users drop out.
async fn check_many_channels(fixture: &Fixture) {
    let tenant = &fixture.tenant;
    let kind = ChannelKind::named("many").unwrap();
    let users: Vec<i64> = (1000..1600).collect();
    tenant.set_user_active(1005, false).await.unwrap();
    let made = tenant.channels(&users[..10], &kind).await.unwrap();
    assert_eq!(made.len(), 9);
    // Forgotten, they are read again.
    tenant.set_user_active(1006, true).await.unwrap();
    fixture.clock.advance(Duration::from_secs(31));
    let read = tenant.channels(&users[..10], &kind).await.unwrap();
    assert_eq!(read, made);
    let all = tenant.channels(&[&users[..50], &users[..50]].concat(), &kind).await.unwrap();
    let ids: std::collections::HashSet<_> = all.iter().map(|channel| channel.id).collect();
    assert_eq!((all.len(), ids.len()), (49, 49), "each once");
    assert!(made.iter().all(|channel| ids.contains(&channel.id)));
}

/// M-089: columns that we added have values of their own where the PHP module writes.
async fn check_rows_of_the_php_module(fixture: &Fixture) {
    static INSERT: Statement = Statement::new(
        "INSERT INTO b_pull_channel (USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) VALUES (3, 'private', ?, ?, 17, {at})",
    );
    let tenant = fixture.service.default_tenant().await.unwrap();
    tenant.set_options("", &[(Key::Nginx, Some("Y"))]).await.unwrap();
    let now_s = fixture.clock.unix_s();
    let values = [
        Value::Text(crate::fixture::P),
        Value::Text(crate::fixture::Q),
        Value::Int(i64::try_from(now_s).unwrap()),
    ];
    fixture.service.database().execute(&INSERT, &values).await.unwrap();
    let channel = tenant.channel(3, &ChannelKind::Private).await.unwrap();
    assert_eq!(channel.id.to_string(), crate::fixture::P);
    assert_eq!((channel.last_id, channel.created_s), (17, now_s));
}

async fn check_transactions(database: &Database) {
    static INSERT: Statement = Statement::new(
        "INSERT INTO b_pull_watch (TENANT_ID, USER_ID, CHANNEL_ID, TAG, DATE_CREATE) VALUES (1, ?, 'c', ?, {at})",
    );
    static FIND: Statement = Statement::new(
        "SELECT USER_ID, {time DATE_CREATE} FROM b_pull_watch WHERE TAG IN {list} ORDER BY USER_ID",
    );
    let insert = |user, tag| [Value::Int(user), Value::Text(tag), Value::Int(1_767_225_600)];
    let mut undone = database.begin().await.unwrap();
    undone.execute(&INSERT, &insert(1, "A")).await.unwrap();
    drop(undone);
    let mut kept = database.begin().await.unwrap();
    for (user, tag) in [(2, "A"), (3, "a"), (4, "B"), (5, "C")] {
        assert_eq!(kept.execute(&INSERT, &insert(user, tag)).await.unwrap(), 1);
    }
    kept.commit().await.unwrap();
    let rows = database.fetch(&FIND, &[Value::Texts(&["A", "B", "x"])]).await.unwrap();
    let users: Vec<_> = rows.iter().map(|row| row.int(0).unwrap()).collect();
    assert_eq!(users, [2, 4], "texts are compared letter by letter");
    assert_eq!(rows[0].int(1).unwrap(), 1_767_225_600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m_016_m_017_m_021_m_089_over_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let options = sqlite(&folder);
    // Its locks are those of one process: two services share one.
    let mut fixture = Fixture::over(&options).await;
    fixture.set(&[(Key::Nginx, "Y")]).await;
    let old = fixture.tenant.channel(5, &ChannelKind::Private).await.unwrap();
    fixture.clock.advance(Duration::from_secs(43_205));
    while fixture.told().is_some() {}
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let tenant = fixture.tenant.clone();
        running.spawn(async move { tenant.channel(5, &ChannelKind::Private).await.unwrap().id });
    }
    let ids = running.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0] && *id != old.id), "one winner");
    assert!(fixture.told().is_some() && fixture.told().is_none(), "told once");
    check_locks(&fixture).await;
    check_clean_up(&mut fixture).await;
    check_many_channels(&fixture).await;
    check_rows_of_the_php_module(&fixture).await;
    check_transactions(fixture.service.database()).await;
    crate::tables::check(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m_016_m_017_m_021_m_089_over_postgresql() {
    let Some((server, options)) = postgres().await else { return };
    check_everything(&options).await;
    check_adoption(&options, "ID INT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "TIMESTAMP")
        .await;
    let mut fixture = Fixture::over(&options).await;
    fixture.set(&[(Key::Nginx, "Y")]).await;
    drop(server);
    while fixture.told().is_some() {}
    crate::tables::check_failure(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m_016_m_017_m_021_m_089_over_mariadb() {
    let Some((server, options)) = mariadb().await else { return };
    check_everything(&options).await;
    check_adoption(&options, "ID INT(18) NOT NULL AUTO_INCREMENT PRIMARY KEY", "DATETIME").await;
    drop(server);
}

/// Tables that the PHP module made are taken over with their rows.
async fn check_adoption(options: &DatabaseOptions, id: &str, moment: &str) {
    let (service, _notices) =
        Service::open(options, Clock::manual(START_S)).await.expect("it opens");
    let drop_all = ["b_pull_channel", "vestnik_migration"].map(|table| {
        let template: &'static str = Box::leak(format!("DROP TABLE {table}").into_boxed_str());
        Statement::new(template)
    });
    for statement in &drop_all {
        service.database().execute(statement, &[]).await.unwrap();
    }
    let create = format!(
        "CREATE TABLE b_pull_channel ({id}, USER_ID INT NOT NULL, CHANNEL_TYPE VARCHAR(50), CHANNEL_ID VARCHAR(50) NOT NULL, CHANNEL_PUBLIC_ID VARCHAR(50), LAST_ID INT, DATE_CREATE {moment} NOT NULL)"
    );
    let create = Statement::new(Box::leak(create.into_boxed_str()));
    service.database().execute(&create, &[]).await.unwrap();
    static ROW: Statement = Statement::new(
        "INSERT INTO b_pull_channel (USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) VALUES (8, 'private', ?, ?, 5, {at})",
    );
    let now = Value::Int(i64::try_from(START_S).unwrap());
    let values = [Value::Text(crate::fixture::P), Value::Text(crate::fixture::Q), now];
    service.database().execute(&ROW, &values).await.unwrap();
    service.database().close().await;
    let (service, _notices) =
        Service::open(options, Clock::manual(START_S)).await.expect("it opens");
    let tenant = service.default_tenant().await.unwrap();
    let channel = tenant.channel(8, &ChannelKind::Private).await.unwrap();
    assert_eq!((channel.id.to_string().as_str(), channel.last_id), (crate::fixture::P, 5));
    tenant.channel(9, &ChannelKind::Private).await.unwrap();
    service.database().close().await;
}

#[tokio::test]
async fn addresses_of_no_database_and_tables_of_the_future_are_refused() {
    let error = Database::open(&DatabaseOptions::new("oracle://a/b")).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Address), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let options = sqlite(&folder);
    let (service, _notices) =
        Service::open(&options, Clock::manual(START_S)).await.expect("it opens");
    static FUTURE: Statement =
        Statement::new("INSERT INTO vestnik_migration (VERSION, NAME) VALUES (99, 'future')");
    service.database().execute(&FUTURE, &[]).await.unwrap();
    service.database().close().await;
    let mode = folder.path().join("module.db").metadata().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
    assert_eq!(mode & 0o077, 0, "keys are in it");
    let error = Database::open(&options).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Newer { found: 99, .. }), "{error}");
}
