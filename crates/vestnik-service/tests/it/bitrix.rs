//! Data of a Bitrix site is taken over from real databases, with its tables as Bitrix makes them.

use vestnik_core::Clock;
use vestnik_service::bitrix::{
    Action, ImportError, ImportOptions, Part, PartReport, Report, Source,
};
use vestnik_service::channel::ChannelKind;
use vestnik_service::db::{Statement, Tables, Trouble, Value};
use vestnik_service::option::{Files, Key, Source as ValueSource};
use vestnik_service::{DatabaseOptions, Service};

use crate::database_server::{DatabaseServer, mariadb, postgres};
use crate::fixture::{KEY, sqlite};

const CHANNELS: u64 = 100_000;
const WATCHES: u64 = 5_000;

/// Tables of a new version, with what differs between the two databases filled in.
const TABLES: &str = "
CREATE TABLE b_option (MODULE_ID VARCHAR(50) NOT NULL, NAME VARCHAR(100) NOT NULL, VALUE {long}, DESCRIPTION VARCHAR(255), SITE_ID CHAR(2), PRIMARY KEY (MODULE_ID, NAME));
CREATE TABLE b_option_site (MODULE_ID VARCHAR(50) NOT NULL, NAME VARCHAR(100) NOT NULL, SITE_ID CHAR(2) NOT NULL, VALUE {long}, PRIMARY KEY (MODULE_ID, NAME, SITE_ID));
CREATE TABLE b_lang (LID CHAR(2) NOT NULL, SORT INT NOT NULL DEFAULT 100, DEF CHAR(1) NOT NULL DEFAULT 'N', ACTIVE CHAR(1) NOT NULL DEFAULT 'Y', NAME VARCHAR(50) NOT NULL, DIR VARCHAR(50) NOT NULL, LANGUAGE_ID CHAR(2) NOT NULL, SERVER_NAME VARCHAR(255), PRIMARY KEY (LID));
CREATE TABLE b_lang_domain (LID CHAR(2) NOT NULL, DOMAIN VARCHAR(255) NOT NULL, PRIMARY KEY (LID, DOMAIN));
CREATE TABLE b_user ({id}, LOGIN VARCHAR(50) NOT NULL, ACTIVE CHAR(1) NOT NULL DEFAULT 'Y', LAST_ACTIVITY_DATE {datetime});
CREATE TABLE b_pull_channel ({id}, USER_ID INT NOT NULL, CHANNEL_TYPE VARCHAR(255), CHANNEL_ID VARCHAR(50) NOT NULL, CHANNEL_PUBLIC_ID VARCHAR(50), LAST_ID INT, DATE_CREATE {datetime} NOT NULL);
CREATE UNIQUE INDEX ix_b_pull_channel_user_type ON b_pull_channel (USER_ID, CHANNEL_TYPE);
CREATE TABLE b_pull_watch ({id}, USER_ID INT NOT NULL, CHANNEL_ID VARCHAR(50) NOT NULL, TAG VARCHAR(255) NOT NULL, DATE_CREATE {datetime} NOT NULL);
CREATE TABLE b_pull_push ({id}, USER_ID INT NOT NULL, DEVICE_TYPE VARCHAR(50), APP_ID VARCHAR(50), UNIQUE_HASH VARCHAR(50), DEVICE_ID VARCHAR(255), DEVICE_NAME VARCHAR(50), DEVICE_TOKEN VARCHAR(255) DEFAULT '' NOT NULL, VOIP_TYPE VARCHAR(50), VOIP_TOKEN VARCHAR(255), DATE_CREATE {datetime} NOT NULL, DATE_AUTH {datetime});
";

const ROWS: &str = "
INSERT INTO b_option (MODULE_ID, NAME, VALUE) VALUES ('pull', 'nginx', 'Y'), ('pull', 'nginx_version', '3'), ('pull', 'signature_key', '0123456789abcdef0123456789abcdef'), ('pull', 'guest', 'Y'), ('pull', 'host_id', 'abcdefgh'), ('pull', 'nginx_error', 'N'), ('pull', 'config_timestamp', '1700000000'), ('pull', 'no_such_key', 'x'), ('pull', 'path_to_publish', 'nonsense'), ('pull', 'path_to_json_rpc', ''), ('main', 'server_name', 'сайт.example'), ('im', 'guest', 'N');
INSERT INTO b_option_site (MODULE_ID, NAME, SITE_ID, VALUE) VALUES ('pull', 'guest', 's1', 'N'), ('main', 'server_name', 's1', 'x');
INSERT INTO b_lang (LID, ACTIVE, NAME, DIR, LANGUAGE_ID, SERVER_NAME) VALUES ('s1', 'Y', 'Первый', '/', 'ru', 'one.example'), ('s2', 'N', 'Second', '/two/', 'en', '');
INSERT INTO b_lang_domain (LID, DOMAIN) VALUES ('s1', 'one.example'), ('s1', 'www.one.example'), ('s2', 'two.example');
INSERT INTO b_user (ID, LOGIN, ACTIVE) VALUES (1, 'admin', 'Y'), (5, 'gone', 'N'), (6, 'blocked', 'N');
INSERT INTO b_pull_channel (USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) VALUES (0, 'shared', 'a0a1a2a3a4a5a6a7a8a9aaabacadaeaf', '', 5, {now}), (1, 'app.1', '00112233445566778899aabbccddeeff', 'ffeeddccbbaa99887766554433221100', 0, {now}), (-7, 'private', '10112233445566778899aabbccddeeff', NULL, 0, {now}), (200001, 'private', 'short', '', 0, {now}), (200002, '', '20112233445566778899aabbccddeeff', '', 0, {now}), (200003, 'private', '30112233445566778899aabbccddeeff', '', 0, {hours 14});
INSERT INTO b_pull_watch (USER_ID, CHANNEL_ID, TAG, DATE_CREATE) VALUES (1, 'c', 'Метка \"1\" ''', {now}), (1, 'c', 'twice', {now}), (1, 'c', 'twice', {hours 0.25}), (1, 'c', ' ', {now}), (1, 'c', 'stale', {hours 1});
INSERT INTO b_pull_push (USER_ID, DEVICE_TYPE, APP_ID, UNIQUE_HASH, DEVICE_ID, DEVICE_NAME, DEVICE_TOKEN, DATE_CREATE, DATE_AUTH) VALUES (1, 'APPLE', 'Bitrix24', 'h', 'd', 'Phone', 'token', {hours 900}, {now}), (1, 'GOOGLE', 'Bitrix24', 'h', 'd2', 'Old phone', 'token2', {hours 900}, {hours 400}), (1, 'GOOGLE', 'Bitrix24', 'h', 'd3', NULL, '', {now}, NULL);
";

const MYSQL_MANY: &str = "
INSERT INTO b_pull_channel (USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) SELECT seq, 'private', MD5(seq), MD5(CONCAT(seq, 'public')), 0, NOW() FROM seq_1_to_100000;
INSERT INTO b_pull_watch (USER_ID, CHANNEL_ID, TAG, DATE_CREATE) SELECT seq, MD5(seq), CONCAT('TAG_', seq % 100), NOW() FROM seq_1_to_5000;
";
const POSTGRES_MANY: &str = "
INSERT INTO b_pull_channel (USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) SELECT s, 'private', MD5(s::text), MD5(s::text || 'public'), 0, now() FROM generate_series(1, 100000) s;
INSERT INTO b_pull_watch (USER_ID, CHANNEL_ID, TAG, DATE_CREATE) SELECT s, MD5(s::text), 'TAG_' || s % 100, now() FROM generate_series(1, 5000) s;
";

/// A script in the words of one of the databases.
fn worded(script: &str, is_postgres: bool) -> String {
    let (id, datetime, long) = if is_postgres {
        ("ID INT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", "TIMESTAMP", "TEXT")
    } else {
        ("ID INT(18) NOT NULL AUTO_INCREMENT PRIMARY KEY", "DATETIME", "LONGTEXT")
    };
    let mut text =
        script.replace("{id}", id).replace("{datetime}", datetime).replace("{long}", long);
    text = text.replace("{now}", "{hours 0}");
    while let Some(begin) = text.find("{hours ") {
        let end = begin + text[begin..].find('}').expect("it is closed");
        let hours: f64 = text[begin + 7..end].parse().expect("a number");
        let minutes = hours * 60.0;
        let past = if is_postgres {
            format!("now() - interval '{minutes} minutes'")
        } else {
            format!("NOW() - INTERVAL {minutes} MINUTE")
        };
        text.replace_range(begin..=end, &past);
    }
    text
}

async fn run(source: &Source, into: &DatabaseOptions, options: &ImportOptions) -> Report {
    let (service, _notices) = Service::open(into, Clock::System).await.expect("it opens");
    let mut seen = Vec::new();
    let mut progress =
        |it: vestnik_service::bitrix::Progress| seen.push((it.part, it.done, it.total));
    let report = service.import_bitrix(source, options, &mut progress).await;
    let report = report.unwrap_or_else(|error| panic!("{error:?}"));
    service.database().close().await;
    let mut channels = seen.iter().filter(|(part, ..)| *part == Part::Channels);
    assert!(channels.clone().count() > 100, "large tables are read in portions");
    assert!(channels.next_back().is_some_and(|(_, done, total)| done == total));
    report
}

fn part(report: &Report, part: Part) -> &PartReport {
    report.parts.iter().find(|it| it.part == part).expect("it was done")
}

/// Counts of a part: new, changed, same, kept, left out.
fn counts(report: &Report, wanted: Part) -> [u64; 5] {
    let part = part(report, wanted);
    let left_out = part.left_out.values().map(|it| it.count).sum();
    [part.new, part.changed, part.same, part.kept, left_out]
}

fn options() -> ImportOptions {
    let mut files = Files::default();
    let settings = "<?php return ['pull' => ['value' => ['nginx_version' => '4', 'push' => 'Y', 'signature_algo' => 'sha256']]];";
    files.read_settings(settings).expect("PHP");
    files
        .read_include("<?php $pull_default_option = ['push' => 'N', 'websocket' => 'N'];")
        .expect("PHP");
    ImportOptions { files, ..ImportOptions::default() }
}

/// M-089: everything of a site is taken over once, and a second time nothing changes.
async fn check_import(
    server: &DatabaseServer,
    from: &str,
    is_postgres: bool,
    into: &DatabaseOptions,
) {
    server.script("site", &worded(TABLES, is_postgres));
    server.script("site", &worded(ROWS, is_postgres));
    server.script("site", if is_postgres { POSTGRES_MANY } else { MYSQL_MANY });
    let source = Source::open(&DatabaseOptions::new(from), None).await.expect("it is there");

    // A dry run into tables that are there: it says the same, and does nothing.
    drop(Service::open(into, Clock::System).await.expect("it opens"));
    assert_eq!(Tables::at(into).await.unwrap(), Tables::Current);
    let dry = run(&source, into, &ImportOptions { dry_run: true, ..options() }).await;
    let first = run(&source, into, &options()).await;
    assert!(dry.is_new_tenant && first.is_new_tenant);
    assert_eq!(first.host_id, "abcdefgh");
    assert_eq!(first.time_zone, if is_postgres { "Asia/Yekaterinburg" } else { "+05:00" });
    for report in [&dry, &first] {
        assert_eq!(counts(report, Part::Sites), [2, 0, 0, 0, 1]);
        assert_eq!(counts(report, Part::Users), [2, 0, 0, 0, 0]);
        assert_eq!(counts(report, Part::Channels), [CHANNELS + 3, 0, 0, 0, 3]);
        assert_eq!(counts(report, Part::Watches), [WATCHES + 2, 0, 0, 0, 3]);
        assert_eq!(counts(report, Part::Devices), [1, 0, 0, 0, 2]);
    }
    // Of an untouched tenant even the generation is replaced that this program wrote itself.
    assert_eq!(counts(&first, Part::Options), [8, 1, 0, 0, 5]);
    let reasons: Vec<&str> =
        part(&first, Part::Channels).left_out.keys().map(String::as_str).collect();
    let expected =
        ["older than 13 hours: expired", "the channel id is not 32 hex digits", "without a type"];
    assert_eq!(reasons, expected);
    let secret = first.details.iter().find(|it| it.name == "signature_key").expect("it is told");
    assert_eq!(secret.there, "***");

    check_imported(into).await;
    check_again(&source, server, is_postgres, into).await;
    source.close().await;
}

async fn check_imported(into: &DatabaseOptions) {
    let (service, _notices) = Service::open(into, Clock::System).await.expect("it opens");
    let tenant = service.tenant("abcdefgh").await.unwrap().expect("it was made");
    let in_force = tenant.options("").await.unwrap();
    assert_eq!(in_force.text(Key::SignatureKey), KEY);
    assert_eq!(in_force.number(Key::NginxVersion), 3, "the database comes before the file");
    assert_eq!((in_force.is_on(Key::Push), in_force.is_on(Key::Websocket)), (true, false));
    assert_eq!(in_force.text(Key::ServerName), "сайт.example");
    assert_eq!(in_force.source(Key::PathToPublish), ValueSource::BuiltIn);
    assert!(in_force.is_on(Key::Guest) && !tenant.options("s1").await.unwrap().is_on(Key::Guest));
    let sites = tenant.sites().await.unwrap();
    let sites: Vec<_> = sites.iter().map(|it| (&*it.id, &*it.server_name, it.is_active)).collect();
    assert_eq!(sites, [("s1", "one.example", true), ("s2", "two.example", false)]);
    // The clocks of both sides mean the same moment, whatever zone the site writes in.
    let now_s = Clock::System.unix_s();
    let channel = tenant.channel(17, &ChannelKind::Private).await.unwrap();
    assert_eq!(channel.id.to_string(), "70efdf2ec9b086079795c442636b55fb", "of the site");
    assert!(now_s.abs_diff(channel.created_s) < 300, "{} {now_s}", channel.created_s);
    let app = tenant.channel(1, &ChannelKind::named("app.1").unwrap()).await.unwrap();
    assert_eq!(app.public_id.unwrap().to_string(), crate::fixture::Q);
    assert_eq!(tenant.shared_channel().await.unwrap().id.to_string(), crate::fixture::S);
    assert_eq!(tenant.shared_channel().await.unwrap().last_id, 0, "rows of the stack stay there");
    assert!(tenant.channel(5, &ChannelKind::Private).await.is_err(), "switched off there");
    assert_eq!(tenant.watching_users(&["Метка \"1\" '"]).await.unwrap(), [1]);
    assert_eq!(tenant.watching_users(&["TAG_7"]).await.unwrap().len(), 50);
    assert_eq!(tenant.watching_users(&["stale"]).await.unwrap(), [0_i64; 0]);
    service.database().close().await;
}

async fn check_again(
    source: &Source,
    server: &DatabaseServer,
    is_postgres: bool,
    into: &DatabaseOptions,
) {
    let second = run(source, into, &options()).await;
    assert!(!second.is_new_tenant);
    assert_eq!(counts(&second, Part::Options), [0, 0, 9, 0, 5]);
    assert_eq!(counts(&second, Part::Sites), [0, 0, 2, 0, 1]);
    assert_eq!(counts(&second, Part::Users), [0, 0, 2, 0, 0]);
    assert_eq!(counts(&second, Part::Channels), [0, 0, CHANNELS + 3, 0, 3]);
    assert_eq!(counts(&second, Part::Watches), [0, 0, WATCHES + 2, 0, 3]);
    assert_eq!(counts(&second, Part::Devices), [0, 0, 1, 0, 2]);

    // Changed here: an option and a channel. Changed there: a channel was renewed, a watch extended.
    static OURS: Statement = Statement::new(
        "UPDATE b_pull_channel SET CHANNEL_ID = ?, DATE_CREATE = {at} WHERE USER_ID = 18",
    );
    let (service, _notices) = Service::open(into, Clock::System).await.expect("it opens");
    let tenant = service.tenant("abcdefgh").await.unwrap().unwrap();
    tenant.set_options("", &[(Key::Guest, Some("N"))]).await.unwrap();
    let later = Value::Int(i64::try_from(Clock::System.unix_s() + 60).unwrap());
    service.database().execute(&OURS, &[Value::Text(crate::fixture::P), later]).await.unwrap();
    service.database().close().await;
    let ahead =
        if is_postgres { "now() + interval '2 minutes'" } else { "NOW() + INTERVAL 2 MINUTE" };
    let theirs = "40112233445566778899aabbccddeeff";
    server.script(
        "site",
        &format!(
            "UPDATE b_pull_channel SET CHANNEL_ID = '{theirs}', DATE_CREATE = {ahead} WHERE USER_ID = 19; \
             UPDATE b_pull_watch SET DATE_CREATE = {ahead} WHERE TAG = 'twice';"
        ),
    );
    let third = run(source, into, &options()).await;
    assert_eq!(counts(&third, Part::Options), [0, 0, 8, 1, 5]);
    let kept: Vec<_> = third.details.iter().filter(|it| it.action == Action::Kept).collect();
    assert_eq!((kept.len(), &*kept[0].name, &*kept[0].here), (1, "guest", "N"));
    assert_eq!(counts(&third, Part::Channels), [0, 1, CHANNELS + 1, 1, 3]);
    assert_eq!(counts(&third, Part::Watches), [0, 1, WATCHES + 1, 0, 3]);
    let forced = run(source, into, &ImportOptions { overwrite: true, ..options() }).await;
    assert_eq!(counts(&forced, Part::Options), [0, 1, 8, 0, 5]);
    assert_eq!(counts(&forced, Part::Channels), [0, 1, CHANNELS + 2, 0, 3]);
    let (service, _notices) = Service::open(into, Clock::System).await.expect("it opens");
    let tenant = service.tenant("abcdefgh").await.unwrap().unwrap();
    let channel = |user| {
        let tenant = tenant.clone();
        async move { tenant.channel(user, &ChannelKind::Private).await.unwrap().id.to_string() }
    };
    assert_eq!(channel(18).await, "6f4922f45568161a8cdf4ad2299f6d23");
    assert_eq!(channel(19).await, theirs);
    service.database().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m_089_a_site_on_mariadb_is_taken_over_into_sqlite() {
    let Some((server, admin)) = mariadb().await else { return };
    // A zone of its own, as sites have it.
    server.script(
        "mysql",
        "SET GLOBAL time_zone = '+05:00'; CREATE DATABASE site CHARACTER SET utf8mb4;",
    );
    let folder = tempfile::tempdir().unwrap();
    let site = admin.address.expose().replace("/test?", "/site?");
    check_import(&server, &site, false, &sqlite(&folder)).await;
    check_old_tables(&server, &admin, &folder).await;
    check_refusals(&server, &admin).await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m_089_a_site_on_postgresql_is_taken_over_into_postgresql() {
    let Some((server, admin)) = postgres().await else { return };
    let zone = "CREATE DATABASE site; ALTER DATABASE site SET timezone = 'Asia/Yekaterinburg';";
    // One statement a call: a database cannot be made in a transaction.
    zone.split_inclusive(';').for_each(|it| server.script("postgres", it));
    let site = admin.address.expose().replace("/postgres", "/site");
    check_import(&server, &site, true, &admin).await;
    // One whose texts are in no encoding at all.
    server.script("postgres", "CREATE DATABASE bare ENCODING 'SQL_ASCII' TEMPLATE template0;");
    server.script("bare", &worded(TABLES, true));
    server.script("bare", r"INSERT INTO b_option (MODULE_ID, NAME, VALUE) VALUES ('pull', 'server_name', E'\xff\xfe');");
    let bare = admin.address.expose().replace("/postgres", "/bare");
    let error = failure(&bare).await;
    assert_eq!(error.trouble(), Some((Trouble::Encoding, true)), "{error:?}");
    let missing = admin.address.expose().replace("/postgres", "/missing");
    assert_eq!(failure(&missing).await.trouble(), Some((Trouble::NoDatabase, true)));
    drop(server);
}

/// The error of an import from this address.
async fn failure(from: &str) -> ImportError {
    let folder = tempfile::tempdir().unwrap();
    let source = match Source::open(&DatabaseOptions::new(from), None).await {
        Ok(source) => source,
        Err(error) => return error,
    };
    let (service, _notices) = Service::open(&sqlite(&folder), Clock::System).await.unwrap();
    let options = ImportOptions::default();
    service.import_bitrix(&source, &options, &mut |_| {}).await.expect_err("it fails")
}

/// Tables of years ago: values of sites in the table of options, texts in Windows' Cyrillic, channels without
/// public ids, no mobile devices, and no `host_id`.
async fn check_old_tables(
    server: &DatabaseServer,
    admin: &DatabaseOptions,
    folder: &tempfile::TempDir,
) {
    server.script("mysql", "CREATE DATABASE old CHARACTER SET cp1251;");
    server.script(
        "old",
        "CREATE TABLE b_option (MODULE_ID VARCHAR(50), NAME VARCHAR(50) NOT NULL, VALUE TEXT, DESCRIPTION VARCHAR(255), SITE_ID CHAR(2), UNIQUE KEY ix_option (MODULE_ID, NAME, SITE_ID));
         CREATE TABLE b_pull_channel (ID INT(18) NOT NULL AUTO_INCREMENT PRIMARY KEY, USER_ID INT(18) NOT NULL, CHANNEL_TYPE VARCHAR(50), CHANNEL_ID VARCHAR(50) NOT NULL, LAST_ID INT(18), DATE_CREATE DATETIME NOT NULL);
         CREATE TABLE b_pull_watch (ID INT(18) NOT NULL AUTO_INCREMENT PRIMARY KEY, USER_ID INT(18) NOT NULL, CHANNEL_ID VARCHAR(50) NOT NULL, TAG VARCHAR(255) NOT NULL, DATE_CREATE DATETIME NOT NULL);
         INSERT INTO b_option (MODULE_ID, NAME, VALUE, SITE_ID) VALUES ('pull', 'nginx', 'Y', NULL), ('pull', 'nginx', 'N', 's2');
         INSERT INTO b_pull_channel (USER_ID, CHANNEL_TYPE, CHANNEL_ID, DATE_CREATE) VALUES (3, 'private', '00112233445566778899aabbccddeeff', NOW());
         INSERT INTO b_pull_watch (USER_ID, CHANNEL_ID, TAG, DATE_CREATE) VALUES (3, 'c', 'Сделка № 7', NOW());",
    );
    let from = admin.address.expose().replace("/test?", "/old?");
    let source = Source::open(&DatabaseOptions::new(from), None).await.unwrap();
    // MariaDB takes it as well as the others do.
    let (service, _notices) = Service::open(admin, Clock::System).await.unwrap();
    for [new, same] in [[1, 0], [0, 1]] {
        let report = service.import_bitrix(&source, &ImportOptions::default(), &mut |_| {}).await;
        let report = report.unwrap_or_else(|error| panic!("{error:?}"));
        for part in [Part::Channels, Part::Watches] {
            assert_eq!(counts(&report, part), [new, 0, same, 0, 0]);
        }
    }
    service.database().close().await;
    let (service, _notices) = Service::open(&sqlite(folder), Clock::System).await.unwrap();
    let report =
        service.import_bitrix(&source, &ImportOptions::default(), &mut |_| {}).await.unwrap();
    let tenant = service.default_tenant().await.unwrap();
    assert_eq!(report.host_id, tenant.host_id());
    let absent: Vec<_> = report.absent.iter().map(|(_, table)| *table).collect();
    assert_eq!(absent, ["b_lang", "b_user", "b_pull_push"]);
    assert!(tenant.options("").await.unwrap().is_server_on());
    assert!(!tenant.options("s2").await.unwrap().is_server_on());
    assert_eq!(tenant.watching_users(&["Сделка № 7"]).await.unwrap(), [3]);
    // Without a public id the channel is renewed as soon as it is used.
    assert_eq!(counts(&report, Part::Channels), [1, 0, 0, 0, 0]);
    assert!(tenant.channel(3, &ChannelKind::Private).await.unwrap().public_id.is_some());
    source.close().await;
}

/// What goes wrong says what it is.
async fn check_refusals(server: &DatabaseServer, admin: &DatabaseOptions) {
    server.script(
        "mysql",
        "CREATE USER reader@localhost IDENTIFIED BY 'right'; GRANT SELECT ON old.b_pull_watch TO reader@localhost;",
    );
    let reader = |password: &str, name: &str| {
        let address = admin.address.expose().replace("root@", &format!("reader:{password}@"));
        address.replace("/test?", &format!("/{name}?"))
    };
    let trouble = |error: ImportError| {
        error.trouble().map(|(trouble, is_source)| {
            assert!(is_source);
            trouble
        })
    };
    assert_eq!(trouble(failure(&reader("wrong", "old")).await), Some(Trouble::Password));
    assert_eq!(trouble(failure(&reader("right", "mysql")).await), Some(Trouble::Forbidden));
    let missing = admin.address.expose().replace("/test?", "/missing?");
    assert_eq!(trouble(failure(&missing).await), Some(Trouble::NoDatabase));
    let empty = failure(admin.address.expose()).await;
    assert!(
        matches!(empty, ImportError::Source(_) | ImportError::NoTable("b_option")),
        "{empty:?}"
    );
    let nobody = failure("postgres://a:b@127.0.0.1:1/c").await;
    assert_eq!(trouble(nobody), Some(Trouble::Unreachable));
    assert!(matches!(failure("sqlite:/tmp/x").await, ImportError::Address));
}
