//! Options of single users (module.md §3).

use crate::db::{DatabaseError, Statement, Value};
use crate::tenant::Tenant;

static READ: Statement = Statement::new(
    "SELECT VALUE FROM vestnik_user_option WHERE TENANT_ID = ? AND USER_ID = ? AND NAME = ?",
);
static WRITE: Statement = Statement::new(
    "INSERT INTO vestnik_user_option (TENANT_ID, USER_ID, NAME, VALUE) VALUES (?, ?, ?, ?) {update TENANT_ID, USER_ID, NAME: VALUE}",
);
static READ_MANY: Statement = Statement::new(
    "SELECT USER_ID, NAME, VALUE FROM vestnik_user_option WHERE TENANT_ID = ? AND USER_ID IN {list} AND NAME IN {list}",
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

    /// Options of several users that are set: user, name, value.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn user_options(
        &self,
        users: &[i64],
        names: &[&str],
    ) -> Result<Vec<(i64, String, String)>, DatabaseError> {
        let mut options = Vec::new();
        for users in users.chunks(512) {
            let values = [Value::Int(self.id()), Value::Ints(users), Value::Texts(names)];
            for row in self.database().fetch(&READ_MANY, &values).await? {
                options.push((row.int(0)?, row.text(1)?, row.text(2)?));
            }
        }
        Ok(options)
    }
}
