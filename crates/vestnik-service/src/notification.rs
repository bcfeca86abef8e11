//! What administrators are to be told: one text per tag (module.md §8.1).

use crate::db::{DatabaseError, Statement, Value};
use crate::tenant::Tenant;

/// Sending to the queue server was stopped after many errors.
pub const SEND_STOPPED: &str = "PULL_ERROR_SEND";
/// The gateway for mobile devices refuses the site.
pub const PUSH_REFUSED: &str = "PUSH_ERROR_SEND";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What it is about.
    pub tag: String,
    /// The text.
    pub message: String,
    /// Since when, unix seconds.
    pub created_s: u64,
}

static SHOW: Statement = Statement::new(
    "INSERT INTO vestnik_notification (TENANT_ID, TAG, MESSAGE, DATE_CREATE) VALUES (?, ?, ?, {at}) {update TENANT_ID, TAG: MESSAGE, DATE_CREATE}",
);
static HIDE: Statement =
    Statement::new("DELETE FROM vestnik_notification WHERE TENANT_ID = ? AND TAG = ?");
static LIST: Statement = Statement::new(
    "SELECT TAG, MESSAGE, {time DATE_CREATE} FROM vestnik_notification WHERE TENANT_ID = ? ORDER BY ID",
);

impl Tenant {
    /// Shows a notification; one with the same tag is replaced.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn notify(&self, tag: &str, message: &str) -> Result<(), DatabaseError> {
        let now = Value::Int(i64::try_from(self.now_s()).unwrap_or(i64::MAX));
        let values = [Value::Int(self.id()), Value::Text(tag), Value::Text(message), now];
        self.database().execute(&SHOW, &values).await.map(drop)
    }

    /// Takes a notification away.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn withdraw_notification(&self, tag: &str) -> Result<(), DatabaseError> {
        let values = [Value::Int(self.id()), Value::Text(tag)];
        self.database().execute(&HIDE, &values).await.map(drop)
    }

    /// What is shown now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn notifications(&self) -> Result<Vec<Notification>, DatabaseError> {
        let rows = self.database().fetch(&LIST, &[Value::Int(self.id())]).await?;
        let read = |row: &crate::db::Row| {
            let created_s = u64::try_from(row.int(2)?).unwrap_or(0);
            Ok(Notification { tag: row.text(0)?, message: row.text(1)?, created_s })
        };
        rows.iter().map(read).collect()
    }
}
