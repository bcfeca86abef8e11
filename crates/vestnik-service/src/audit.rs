//! What was changed, when and by whom (S-60). Secrets are masked before they are written.

use crate::db::{DatabaseError, Row, Statement, Value};
use crate::tenant::Tenant;

/// Who changes something.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Their login; of a command: `command line`.
    pub login: &'a str,
    /// The address they come from; may be empty.
    pub address: &'a str,
}

/// One thing that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, unix seconds.
    pub at_s: i64,
    /// By whom.
    pub login: String,
    /// From where.
    pub address: String,
    /// What was done: `settings.save`, `settings.defaults`, …
    pub action: String,
    /// To what: the name of an option, a login, a site.
    pub name: String,
    /// What it was before; of a secret a mask.
    pub old: String,
    /// What it is now; of a secret a mask.
    pub new: String,
}

static WRITE: Statement = Statement::new(
    "INSERT INTO vestnik_audit (TENANT_ID, DATE_CREATE, LOGIN, ADDRESS, ACTION, NAME, OLD_VALUE, NEW_VALUE) VALUES (?, {at}, ?, ?, ?, ?, ?, ?)",
);
static READ: Statement = Statement::new(
    "SELECT {time DATE_CREATE}, LOGIN, ADDRESS, ACTION, NAME, OLD_VALUE, NEW_VALUE FROM vestnik_audit WHERE TENANT_ID = ? ORDER BY ID DESC LIMIT 200",
);

/// What may be shown of a secret: that there is one, and how long it is.
#[must_use]
pub fn masked(secret: &str) -> String {
    match secret.chars().count() {
        0 => String::new(),
        count => format!("•••••• ({count})"),
    }
}

fn entry(row: &Row) -> Result<AuditEntry, DatabaseError> {
    Ok(AuditEntry {
        at_s: row.int(0)?,
        login: row.text(1)?,
        address: row.text(2)?,
        action: row.text(3)?,
        name: row.text(4)?,
        old: row.text(5)?,
        new: row.text(6)?,
    })
}

impl Tenant {
    /// Writes down a change; `old` and `new` of secrets are masked by the caller.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(
        &self,
        actor: Actor<'_>,
        action: &str,
        name: &str,
        old: &str,
        new: &str,
    ) -> Result<(), DatabaseError> {
        let now = i64::try_from(self.now_s()).unwrap_or(i64::MAX);
        let values = [
            Value::Int(self.id()),
            Value::Int(now),
            Value::Text(actor.login),
            Value::Text(actor.address),
            Value::Text(action),
            Value::Text(name),
            Value::Text(old),
            Value::Text(new),
        ];
        self.database().execute(&WRITE, &values).await?;
        Ok(())
    }

    /// The last 200 changes, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&self) -> Result<Vec<AuditEntry>, DatabaseError> {
        let rows = self.database().fetch(&READ, &[Value::Int(self.id())]).await?;
        rows.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_tells_the_length_alone() {
        assert_eq!(masked(""), "");
        assert_eq!(masked("secret"), "•••••• (6)");
    }
}
