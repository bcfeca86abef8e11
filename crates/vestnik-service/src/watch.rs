//! Watches: which users want the events of a tag (module.md §9).
//!
//! Back ends add watches after a check of their own; clients may only extend what is there. A watch nobody
//! extends is removed after 32 minutes.

use std::collections::HashSet;

use crate::channel::{ChannelError, ChannelKind};
use crate::db::{DatabaseError, Statement, Transaction, Value};
use crate::tenant::{Service, Tenant};

/// How long a watch lives without being extended, seconds: 32 minutes.
pub const WATCH_TTL_S: u64 = 1920;
/// A watch of this age is replaced when it is added again, a younger one refreshed, seconds.
pub const WATCH_REFRESH_S: u64 = 1860;
/// Bytes of a tag: the width of its column.
pub const TAG_BYTES_MAX: usize = 255;
/// Tags of one call.
pub const TAGS_MAX: usize = 1000;
/// Rows that one statement of the clean-up removes.
const CLEAN_UP_SLICE: i64 = 1000;
/// Slices of one run: what is left waits for the next one.
const CLEAN_UP_SLICES: usize = 500;

/// Why watches could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A tag does not fit its column; nothing was changed.
    #[error("a tag has at most {TAG_BYTES_MAX} bytes, got {0}")]
    TagTooLong(usize),
    /// Nothing was changed.
    #[error("a call names at most {TAGS_MAX} tags, got {0}")]
    TooManyTags(usize),
    /// The user has no channel, so nothing would reach it.
    #[error("the user has no channel")]
    Channel(#[from] ChannelError),
    /// The database failed.
    #[error("the watches could not be read or written")]
    Database(#[from] DatabaseError),
}

static PRESENT: Statement = Statement::new(
    "SELECT TAG, MAX({time DATE_CREATE}) FROM b_pull_watch WHERE TENANT_ID = ? AND USER_ID = ? AND TAG IN {list} GROUP BY TAG",
);
static REFRESH: Statement = Statement::new(
    "UPDATE b_pull_watch SET DATE_CREATE = {at} WHERE TENANT_ID = ? AND USER_ID = ? AND TAG IN {list}",
);
static INSERT: Statement = Statement::new(
    "INSERT INTO b_pull_watch (TENANT_ID, USER_ID, CHANNEL_ID, TAG, DATE_CREATE) VALUES (?, ?, ?, ?, {at})",
);
static DELETE: Statement = Statement::new(
    "DELETE FROM b_pull_watch WHERE TENANT_ID = ? AND USER_ID = ? AND TAG IN {list}",
);
static DELETE_ALL: Statement =
    Statement::new("DELETE FROM b_pull_watch WHERE TENANT_ID = ? AND USER_ID = ?");
/// Put into order here: asked to do it, SQLite goes through all watches of the tenant in that order.
static USERS: Statement =
    Statement::new("SELECT USER_ID FROM b_pull_watch WHERE TENANT_ID = ? AND TAG IN {list}");
static STALE: Statement = Statement::new(
    "SELECT ID FROM b_pull_watch WHERE DATE_CREATE < {at} ORDER BY DATE_CREATE LIMIT ?",
);
/// Asks for the time again: a watch may have been extended since it was found.
static DELETE_STALE: Statement =
    Statement::new("DELETE FROM b_pull_watch WHERE ID IN {list} AND DATE_CREATE < {at}");

/// The tags as they are stored: trimmed, without empty ones, once each.
fn tags<'a>(tags: &[&'a str]) -> Result<Vec<&'a str>, WatchError> {
    if tags.len() > TAGS_MAX {
        return Err(WatchError::TooManyTags(tags.len()));
    }
    let mut known = HashSet::new();
    let tags = tags.iter().map(|tag| tag.trim());
    let tags: Vec<_> = tags.filter(|tag| !tag.is_empty() && known.insert(*tag)).collect();
    match tags.iter().map(|tag| tag.len()).find(|length| *length > TAG_BYTES_MAX) {
        Some(length) => Err(WatchError::TagTooLong(length)),
        None => Ok(tags),
    }
}

fn moment(seconds: u64) -> Value<'static> {
    Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX))
}

impl Tenant {
    /// Makes `user` watch tags; `false`, and nothing done, for user 0 or without a tag. Everything is
    /// written when this returns: a service has no end of a page to write at, so what PHP calls deferred
    /// is immediate too (M-069).
    ///
    /// # Errors
    /// When the user can have no channel, a tag is too long, or the database fails.
    pub async fn add_watches(&self, user: i64, names: &[&str]) -> Result<bool, WatchError> {
        let names = tags(names)?;
        if user == 0 || names.is_empty() {
            return Ok(false);
        }
        let channel = self.channel(user, &ChannelKind::Private).await?.id.to_string();
        let now_s = self.now_s();
        let mut transaction = self.database().begin().await?;
        let fresh = self.present(&mut transaction, user, &names).await?;
        let is_fresh = |age_s: u64| age_s < WATCH_REFRESH_S;
        let fresh = fresh.into_iter().filter(|(_, at_s)| is_fresh(now_s.saturating_sub(*at_s)));
        let fresh: HashSet<String> = fresh.map(|(tag, _)| tag).collect();
        let (refreshed, written): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|tag| fresh.contains(*tag));
        let [tenant, owner] = [Value::Int(self.id()), Value::Int(user)];
        if !refreshed.is_empty() {
            let values = [moment(now_s), tenant, owner, Value::Texts(&refreshed)];
            transaction.execute(&REFRESH, &values).await?;
        }
        if !written.is_empty() {
            transaction.execute(&DELETE, &[tenant, owner, Value::Texts(&written)]).await?;
        }
        for tag in written {
            let values = [tenant, owner, Value::Text(&channel), Value::Text(tag), moment(now_s)];
            transaction.execute(&INSERT, &values).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Extends watches that are there, and makes none: each tag, as it was given, with whether it was.
    /// `None` for user 0 or without a tag, which the module answers with a mere `false`.
    ///
    /// # Errors
    /// When a tag is too long or the database fails.
    pub async fn extend_watches<'a>(
        &self,
        user: i64,
        names: &[&'a str],
    ) -> Result<Option<Vec<(&'a str, bool)>>, WatchError> {
        let trimmed = tags(names)?;
        if user == 0 || trimmed.is_empty() {
            return Ok(None);
        }
        let mut transaction = self.database().begin().await?;
        let present = self.present(&mut transaction, user, &trimmed).await?;
        let present: HashSet<String> = present.into_iter().map(|(tag, _)| tag).collect();
        let kept: Vec<&str> = trimmed.into_iter().filter(|tag| present.contains(*tag)).collect();
        if !kept.is_empty() {
            let owner = [Value::Int(self.id()), Value::Int(user)];
            let values = [moment(self.now_s()), owner[0], owner[1], Value::Texts(&kept)];
            transaction.execute(&REFRESH, &values).await?;
        }
        transaction.commit().await?;
        Ok(Some(names.iter().map(|name| (*name, present.contains(name.trim()))).collect()))
    }

    /// Removes watches of `user`: those of the tags, or all of them (`None`). Returns whether there
    /// was one.
    ///
    /// # Errors
    /// When a tag is too long or the database fails.
    pub async fn delete_watches(
        &self,
        user: i64,
        names: Option<&[&str]>,
    ) -> Result<bool, WatchError> {
        let owner = [Value::Int(self.id()), Value::Int(user)];
        let removed = match names.map(tags).transpose()? {
            None => self.database().execute(&DELETE_ALL, &owner).await?,
            Some(names) if names.is_empty() => 0,
            Some(names) => {
                let values = [owner[0], owner[1], Value::Texts(&names)];
                self.database().execute(&DELETE, &values).await?
            }
        };
        Ok(removed > 0)
    }

    /// The users who watch any of the tags, ascending, once each.
    ///
    /// # Errors
    /// When a tag is too long or the database fails.
    pub async fn watching_users(&self, names: &[&str]) -> Result<Vec<i64>, WatchError> {
        let names = tags(names)?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let values = [Value::Int(self.id()), Value::Texts(&names)];
        let rows = self.database().fetch(&USERS, &values).await?;
        let mut users = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<_>, _>>()?;
        users.sort_unstable();
        users.dedup();
        Ok(users)
    }

    /// Which of the tags the user watches, each with the moment it was last refreshed.
    async fn present(
        &self,
        transaction: &mut Transaction,
        user: i64,
        names: &[&str],
    ) -> Result<Vec<(String, u64)>, DatabaseError> {
        let values = [Value::Int(self.id()), Value::Int(user), Value::Texts(names)];
        let rows = transaction.fetch(&PRESENT, &values).await?;
        let watch =
            |row: &crate::db::Row| Ok((row.text(0)?, u64::try_from(row.int(1)?).unwrap_or(0)));
        rows.iter().map(watch).collect()
    }
}

impl Service {
    /// Removes the watches of all tenants that nobody extended for 32 minutes, at most half a million a
    /// run, in slices, so that nobody waits long for the table. Returns how many.
    ///
    /// # Errors
    /// When the database fails; what was removed stays removed.
    pub async fn clean_up_watches(&self) -> Result<u64, DatabaseError> {
        let before_s = moment(self.clock().unix_s().saturating_sub(WATCH_TTL_S));
        let mut removed = 0;
        for _ in 0..CLEAN_UP_SLICES {
            let rows =
                self.database().fetch(&STALE, &[before_s, Value::Int(CLEAN_UP_SLICE)]).await?;
            let ids = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<_>, _>>()?;
            if ids.is_empty() {
                break;
            }
            let values = [Value::Ints(&ids), before_s];
            removed += self.database().execute(&DELETE_STALE, &values).await?;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Database, DatabaseOptions};

    #[tokio::test]
    async fn every_statement_finds_its_rows_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("module.db");
        let options = DatabaseOptions::new(format!("sqlite:{}", file.display()));
        let database = Database::open(&options).await.unwrap();
        let (one, tags) = (Value::Int(1), Value::Texts(&["a", "b"]));
        for (statement, values) in [
            (&PRESENT, &[one, one, tags][..]),
            (&REFRESH, &[one, one, one, tags]),
            (&DELETE, &[one, one, tags]),
            (&DELETE_ALL, &[one, one]),
            (&USERS, &[one, tags]),
            (&STALE, &[one, one]),
            (&DELETE_STALE, &[Value::Ints(&[1, 2]), one]),
        ] {
            database.assert_indexed(statement, values).await;
        }
    }
}
