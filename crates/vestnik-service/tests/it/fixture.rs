//! A service over a database of its own, and what tests do with it.

use tokio::sync::mpsc::Receiver;
use vestnik_core::Clock;
use vestnik_service::db::{Statement, Value};
use vestnik_service::option::Key;
use vestnik_service::{DatabaseOptions, Notice, Service, Tenant};

pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const P: &str = "00112233445566778899aabbccddeeff";
pub(crate) const Q: &str = "ffeeddccbbaa99887766554433221100";
pub(crate) const S: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf";
/// 2026-01-01T00:00:00+00:00, when all channels of examples were made.
pub(crate) const START_S: u64 = 1_767_225_600;

pub(crate) struct Fixture {
    pub(crate) service: Service,
    pub(crate) tenant: Tenant,
    pub(crate) clock: Clock,
    pub(crate) notices: Receiver<Notice>,
    folder: Option<tempfile::TempDir>,
}

static CHANNEL: Statement = Statement::new(
    "INSERT INTO b_pull_channel (TENANT_ID, USER_ID, CHANNEL_TYPE, CHANNEL_ID, CHANNEL_PUBLIC_ID, LAST_ID, DATE_CREATE) VALUES (?, ?, ?, ?, ?, 0, {at})",
);

impl Fixture {
    /// Over a file of SQLite.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = sqlite(&folder);
        let mut fixture = Self::over(&options).await;
        fixture.folder = Some(folder);
        fixture
    }

    /// How its file is opened once more.
    pub(crate) fn options(&self) -> DatabaseOptions {
        sqlite(self.folder.as_ref().expect("it has a file"))
    }

    /// Over any database, with a tenant `h`.
    pub(crate) async fn over(options: &DatabaseOptions) -> Self {
        let clock = Clock::manual(START_S);
        let (service, notices) = Service::open(options, clock.clone()).await.expect("it opens");
        let tenant = service.create_tenant("h", "test").await.expect("a tenant");
        Self { service, tenant, clock, notices, folder: None }
    }

    /// A local server of this generation, and the channels of the examples.
    pub(crate) async fn example(generation: &str) -> Self {
        let fixture = Self::new().await;
        fixture
            .set(&[
                (Key::Nginx, "Y"),
                (Key::NginxVersion, generation),
                (Key::SignatureKey, KEY),
                (Key::ServerName, "example.test"),
            ])
            .await;
        fixture.put_channel(1, "private", P, Q).await;
        fixture.put_channel(0, "shared", S, "").await;
        fixture
    }

    pub(crate) async fn set(&self, options: &[(Key, &str)]) {
        let options: Vec<_> = options.iter().map(|(key, value)| (*key, Some(*value))).collect();
        self.tenant.set_options("", &options).await.expect("good values");
    }

    pub(crate) async fn put_channel(&self, user: i64, kind: &str, id: &str, public_id: &str) {
        let values = [
            Value::Int(self.tenant.id()),
            Value::Int(user),
            Value::Text(kind),
            Value::Text(id),
            Value::Text(public_id),
            Value::Int(i64::try_from(START_S).expect("small")),
        ];
        self.service.database().execute(&CHANNEL, &values).await.expect("a row");
    }

    /// The next message for clients: the channel it goes to, and its body without `extra`.
    pub(crate) fn told(&mut self) -> Option<(String, serde_json::Value)> {
        let notice = self.notices.try_recv().ok()?;
        assert_eq!(notice.event.expiry.seconds(), 86_400);
        let mut body: serde_json::Value = serde_json::from_slice(&notice.event.body).expect("JSON");
        let extra = body.as_object_mut().expect("an object").remove("extra").expect("extra");
        assert_eq!(extra["revision_web"], 19);
        let to = notice.event.recipients.channels[0].to_string();
        Some((to, body))
    }
}

pub(crate) fn sqlite(folder: &tempfile::TempDir) -> DatabaseOptions {
    DatabaseOptions::new(format!("sqlite:{}", folder.path().join("module.db").display()))
}
