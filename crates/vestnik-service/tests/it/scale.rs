//! The module with many channels and watches: everything that is asked for often stays quick, and the clean-up ends.
//! A small number in the gate; `cargo nextest run --release -p vestnik-service --run-ignored only -E 'test(scale)'
//! --no-capture` prints the figures of docs/performance.md.

use std::io::Write as _;
use std::time::Instant;

use vestnik_core::Clock;
use vestnik_service::channel::ChannelKind;
use vestnik_service::db::{Statement, Value};
use vestnik_service::option::Key;
use vestnik_service::{DatabaseOptions, Service, Tenant};

use crate::database_server::postgres;
use crate::fixture::{START_S, sqlite};

/// How much there is.
#[derive(Clone, Copy)]
struct Size {
    channels: i64,
    watches: i64,
    /// Calls of each measurement.
    calls: i64,
}

const SMALL: Size = Size { channels: 5_000, watches: 25_000, calls: 200 };
const FULL: Size = Size { channels: 1_000_000, watches: 5_000_000, calls: 2_000 };

/// Users of one tag: a deal that a department looks at, and one that everybody does.
const USERS_OF_A_TAG: i64 = 50;
/// Watches of one user.
const TAGS_OF_A_USER: i64 = 5;

static CHANNELS: Statement = Statement::new(
    "INSERT INTO b_pull_channel (TENANT_ID, USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) VALUES {rows ?, ?, ?, ?, ?, ?, at}",
);
static WATCHES: Statement = Statement::new(
    "INSERT INTO b_pull_watch (TENANT_ID, USER_ID, CHANNEL_ID, TAG, DATE_CREATE) VALUES {rows ?, ?, ?, ?, at}",
);
static COUNT_WATCHES: Statement = Statement::new("SELECT COUNT(*) FROM b_pull_watch");
static COUNT_CHANNELS: Statement = Statement::new("SELECT COUNT(*) FROM b_pull_channel");

/// Numbers in no order, the same each time.
struct Shuffled(u64);

impl Shuffled {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = self.0 >> 33;
        i64::try_from(number).expect("31 bits") % limit
    }
}

fn tag(number: i64) -> String {
    format!("CRM_DEAL_{number}")
}

/// The number of the tag that is the `place`th of a user.
fn tag_of(user: i64, place: i64, size: Size) -> i64 {
    let tags = size.watches / USERS_OF_A_TAG;
    (user + place * 7919) % tags
}

/// The nth share of the rows is this old.
fn age(number: i64, of: i64, old_s: i64) -> i64 {
    let start = i64::try_from(START_S).expect("small");
    if number % of == 0 { start - old_s } else { start }
}

/// Fills the tables: every tenth channel is older than 13 hours, every tenth watch older than 32 minutes.
async fn fill(tenant: &Tenant, size: Size) {
    const ROWS: i64 = 500;
    const ROWS_OF_A_TRANSACTION: i64 = 100_000;
    let database = tenant.service().database();
    let owner = Value::Int(tenant.id());
    let mut transaction = database.begin().await.unwrap();
    for first in (1..=size.channels).step_by(usize::try_from(ROWS).unwrap()) {
        let users: Vec<i64> = (first..(first + ROWS).min(size.channels + 1)).collect();
        let ids: Vec<[String; 2]> = users
            .iter()
            .map(|user| [format!("{:032x}", user * 77_777), format!("{:032x}", user * 99_991)])
            .collect();
        let row = |(user, [id, public_id]): (&i64, &'_ [String; 2])| {
            (*user, id.clone(), public_id.clone())
        };
        let plain: Vec<(i64, String, String)> = users.iter().zip(&ids).map(row).collect();
        let mut rows = Vec::with_capacity(plain.len());
        for (user, id, public_id) in &plain {
            let made = Value::Int(age(*user, 10, 50_000));
            let (id, public_id) = (Value::Text(id), Value::Text(public_id));
            let user = Value::Int(*user);
            rows.push(vec![
                owner,
                user,
                Value::Text("private"),
                id,
                public_id,
                Value::Int(0),
                made,
            ]);
        }
        transaction.execute(&CHANNELS, &[Value::Rows(&rows)]).await.unwrap();
        if first % ROWS_OF_A_TRANSACTION == 1 {
            transaction.commit().await.unwrap();
            transaction = database.begin().await.unwrap();
        }
    }
    for first in (0..size.watches).step_by(usize::try_from(ROWS).unwrap()) {
        let numbers: Vec<i64> = (first..(first + ROWS).min(size.watches)).collect();
        let tags: Vec<(i64, String, String)> = numbers
            .iter()
            .map(|number| {
                let user = 1 + number / TAGS_OF_A_USER;
                let id = format!("{:032x}", user * 77_777);
                (user, id, tag(tag_of(user, number % TAGS_OF_A_USER, size)))
            })
            .collect();
        let mut rows = Vec::with_capacity(tags.len());
        for (number, (user, id, tag)) in numbers.iter().zip(&tags) {
            let made = Value::Int(age(*number / TAGS_OF_A_USER, 10, 2_000));
            rows.push(vec![owner, Value::Int(*user), Value::Text(id), Value::Text(tag), made]);
        }
        transaction.execute(&WATCHES, &[Value::Rows(&rows)]).await.unwrap();
        if first % ROWS_OF_A_TRANSACTION == 0 {
            transaction.commit().await.unwrap();
            transaction = database.begin().await.unwrap();
        }
    }
    transaction.commit().await.unwrap();
}

/// The figures of a run, told as they come.
struct Figures {
    calls: i64,
}

impl Figures {
    fn tell(&self, what: &str, value: impl std::fmt::Display) {
        drop(writeln!(std::io::stderr(), "{what:42} {value}"));
    }

    /// Takes the time of `calls` calls.
    async fn time<F: Future>(&self, what: &str, mut call: impl FnMut(i64) -> F) {
        let begin = Instant::now();
        for number in 0..self.calls {
            call(number).await;
        }
        let each = begin.elapsed() / u32::try_from(self.calls).expect("few");
        self.tell(what, format_args!("{each:?}"));
    }
}

/// Memory of this process, kilobytes; `None` where the system does not say.
fn memory_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

async fn count(service: &Service, statement: &Statement) -> i64 {
    service.database().fetch(statement, &[]).await.unwrap()[0].int(0).unwrap()
}

async fn measure(options: &DatabaseOptions, size: Size, file: Option<&std::path::Path>) {
    let figures = Figures { calls: size.calls };
    let clock = Clock::manual(START_S);
    let (service, mut notices) = Service::open(options, clock.clone()).await.unwrap();
    // What the clean-up tells is read as fast as it comes.
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(async move { while notices.recv().await.is_some() {} });
    let tenant = service.create_tenant("h", "test").await.unwrap();
    tenant.set_options("", &[(Key::Nginx, Some("Y"))]).await.unwrap();
    tenant.shared_channel().await.unwrap();
    let begin = Instant::now();
    fill(&tenant, size).await;
    figures.tell("filling", format_args!("{:?}", begin.elapsed()));
    if let Some(file) = file {
        let size = file.metadata().unwrap().len() / 1_048_576;
        figures.tell("size of the file, MiB", size);
    }
    measure_calls(&figures, &tenant, size).await;
    measure_clean_up(&figures, &service, &tenant, size).await;
    if let Some(memory) = memory_kb() {
        figures.tell("memory of the process, MiB", memory / 1024);
    }
    service.database().close().await;
}

async fn measure_calls(figures: &Figures, tenant: &Tenant, size: Size) {
    let kind = &ChannelKind::Private;
    let users = size.channels;
    let mut random = Shuffled(1);
    // Users of the first rows that are expired are renewed, which is another measurement.
    let mut young = move || loop {
        let user = 1 + random.below(users);
        if user % 10 != 0 {
            return user;
        }
    };
    figures
        .time("a channel that is not in memory", |_| {
            let user = young();
            async move {
                let channel = tenant.channel(user, kind).await.unwrap();
                assert_eq!(channel.id.to_string(), format!("{:032x}", user * 77_777));
            }
        })
        .await;
    figures
        .time("a channel that is renewed", |number| async move {
            tenant.channel(10 * (number + 1), kind).await.unwrap();
        })
        .await;
    figures
        .time("channels of 1,000 users", |number| async move {
            let first = (number * 997) % (users - 1000);
            let wanted: Vec<i64> =
                (first..first + 1300).filter(|it| it % 10 != 0).take(1000).collect();
            let wanted: Vec<i64> =
                wanted.into_iter().filter(|it| *it > 0 && *it <= users).collect();
            let channels = tenant.channels(&wanted, kind).await.unwrap();
            assert_eq!(channels.len(), wanted.len());
        })
        .await;
    figures
        .time("one more watch of a user", |number| async move {
            let name = format!("NEW_{number}");
            assert!(tenant.add_watches(1 + (number * 7919) % users, &[&name]).await.unwrap());
        })
        .await;
    figures
        .time("five watches of a user, extended", |number| async move {
            let user = 1 + (number * 7907) % users;
            let tags: Vec<String> =
                (0..TAGS_OF_A_USER).map(|place| tag(tag_of(user, place, size))).collect();
            let names: Vec<&str> = tags.iter().map(String::as_str).collect();
            let extended = tenant.extend_watches(user, &names).await.unwrap().unwrap();
            assert!(extended.iter().all(|(_, is_there)| *is_there), "{user}");
        })
        .await;
    figures
        .time("users of a tag with 50", |number| async move {
            let name = tag((number * 7919) % (size.watches / USERS_OF_A_TAG));
            let watching = tenant.watching_users(&[&name]).await.unwrap();
            assert_eq!(i64::try_from(watching.len()).unwrap(), USERS_OF_A_TAG);
        })
        .await;
}

async fn measure_clean_up(figures: &Figures, service: &Service, tenant: &Tenant, size: Size) {
    let before = count(service, &COUNT_WATCHES).await;
    let begin = Instant::now();
    let removed = service.clean_up_watches().await.unwrap();
    let took = begin.elapsed();
    figures.tell("clean-up of watches, rows", removed);
    figures.tell("clean-up of watches", format_args!("{took:?}"));
    let left = count(service, &COUNT_WATCHES).await;
    assert_eq!(before - left, i64::try_from(removed).unwrap());
    // Of every tenth user, but for those whose watches were extended just now.
    assert!(removed > 0 && i64::try_from(removed).unwrap() <= size.watches / 10, "{removed}");
    assert_eq!(service.clean_up_watches().await.unwrap(), 0);
    let begin = Instant::now();
    let removed = tenant.clean_up_channels().await.unwrap();
    let each = begin.elapsed() / u32::try_from(removed.max(1)).unwrap();
    figures.tell("clean-up of channels, rows", removed);
    figures.tell("clean-up of a channel", format_args!("{each:?}"));
    assert!(removed > 0);
    let begin = Instant::now();
    assert_eq!(tenant.clean_up_channels().await.unwrap(), 0);
    figures.tell("clean-up that finds nothing", format_args!("{:?}", begin.elapsed()));
    assert!(count(service, &COUNT_CHANNELS).await >= size.channels * 9 / 10);
}

#[tokio::test]
async fn with_many_channels_and_watches_everything_is_found_and_cleaned_up() {
    let folder = tempfile::tempdir().unwrap();
    measure(&sqlite(&folder), SMALL, None).await;
}

#[tokio::test]
#[ignore = "minutes: prints the figures of docs/performance.md"]
async fn scale_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    measure(&sqlite(&folder), FULL, Some(&folder.path().join("module.db"))).await;
}

#[tokio::test]
#[ignore = "minutes: prints the figures of docs/performance.md"]
async fn scale_of_postgresql() {
    let Some((server, options)) = postgres().await else { return };
    measure(&options, FULL, None).await;
    drop(server);
}
