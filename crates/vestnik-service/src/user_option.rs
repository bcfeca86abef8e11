//! Options of single users, and their devices (module.md §3, §18).

use crate::db::{DatabaseError, Statement, Value};
use crate::tenant::Tenant;

static READ: Statement = Statement::new(
    "SELECT VALUE FROM vestnik_user_option WHERE TENANT_ID = ? AND USER_ID = ? AND NAME = ?",
);
static WRITE: Statement = Statement::new(
    "INSERT INTO vestnik_user_option (TENANT_ID, USER_ID, NAME, VALUE) VALUES (?, ?, ?, ?) {update TENANT_ID, USER_ID, NAME: VALUE}",
);
static REMOVE_DEVICE: Statement = Statement::new(
    "DELETE FROM b_pull_push WHERE TENANT_ID = ? AND (DEVICE_TOKEN = ? OR VOIP_TOKEN = ?)",
);

impl Tenant {
    /// The value of a user's option.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user_option(
        &self,
        user: i64,
        name: &str,
    ) -> Result<Option<String>, DatabaseError> {
        let values = [Value::Int(self.id()), Value::Int(user), Value::Text(name)];
        let rows = self.database().fetch(&READ, &values).await?;
        rows.first().map(|row| row.text(0)).transpose()
    }

    /// Sets a user's option.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_user_option(
        &self,
        user: i64,
        name: &str,
        value: &str,
    ) -> Result<(), DatabaseError> {
        let values =
            [Value::Int(self.id()), Value::Int(user), Value::Text(name), Value::Text(value)];
        self.database().execute(&WRITE, &values).await.map(drop)
    }

    /// Forgets the device with this token, for messages or for calls; whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_device(&self, token: &str) -> Result<bool, DatabaseError> {
        if token.is_empty() {
            return Ok(false);
        }
        let token = Value::Text(token);
        let values = [Value::Int(self.id()), token, token];
        Ok(self.database().execute(&REMOVE_DEVICE, &values).await? > 0)
    }
}
