//! Work without a queue server: events wait in a stack, and clients ask for theirs (module.md §10).

use vestnik_core::ChannelId;
use vestnik_core::publisher::ModuleEvent;

use crate::channel::{Channel, ChannelError, ChannelKind};
use crate::db::{DatabaseError, Statement, Value as Bound};
use crate::event::{Event, EventError};
use crate::notice;
use crate::option::Key;
use crate::php::{self, Value};
use crate::tenant::{Service, Tenant};

/// How long an event waits, seconds: a day.
pub const STACK_TTL_S: u64 = 86_400;
/// Rows of one answer; the next poll gets the rest.
const ROWS_MAX: i64 = 1000;
/// Rows that one statement of the clean-up removes.
const CLEAN_UP_SLICE: i64 = 1000;
/// Slices of one run.
const CLEAN_UP_SLICES: usize = 100;

static PUT: Statement = Statement::new(
    "INSERT INTO b_pull_stack (TENANT_ID, CHANNEL_ID, MESSAGE, DATE_CREATE) VALUES (?, ?, ?, {at})",
);
static READ: Statement = Statement::new(
    "SELECT ID, MESSAGE, {time DATE_CREATE} FROM b_pull_stack WHERE TENANT_ID = ? AND CHANNEL_ID = ? AND ID > ? ORDER BY ID LIMIT ?",
);
static LAST_ID: Statement =
    Statement::new("SELECT LAST_ID FROM b_pull_channel WHERE TENANT_ID = ? AND CHANNEL_ID = ?");
static SET_LAST_ID: Statement = Statement::new(
    "UPDATE b_pull_channel SET LAST_ID = ? WHERE TENANT_ID = ? AND CHANNEL_ID = ? AND COALESCE(LAST_ID, 0) < ?",
);
static OLD: Statement =
    Statement::new("SELECT ID FROM b_pull_stack WHERE DATE_CREATE < {at} ORDER BY ID LIMIT ?");
static REMOVE: Statement = Statement::new("DELETE FROM b_pull_stack WHERE ID IN {list}");

impl Tenant {
    /// The private channel of a user who polls, whether or not a server is in use.
    ///
    /// # Errors
    /// When there can be none, or the database fails.
    pub async fn polled_channel(&self, user: i64) -> Result<Channel, ChannelError> {
        let options = self.options("").await?;
        self.any_channel(user, &ChannelKind::Private, &options).await
    }

    /// Has events wait for whoever polls: a row for each channel. The result of each at its place.
    ///
    /// # Errors
    /// When nothing can be kept at all.
    pub async fn stack_events(
        &self,
        asked: &[Event],
    ) -> Result<Vec<Result<(), EventError>>, EventError> {
        let options = self.options("").await?;
        let prepared = self.prepare(asked, &options).await?;
        let now = Bound::Int(i64::try_from(self.now_s()).unwrap_or(i64::MAX));
        let mut transaction = self.database().begin().await.map_err(ChannelError::Database)?;
        for event in &prepared.events {
            let message = message(event)?.serialize();
            for channel in &event.recipients.channels {
                let channel = channel.to_string();
                let values =
                    [Bound::Int(self.id()), Bound::Text(&channel), Bound::Text(&message), now];
                transaction.execute(&PUT, &values).await.map_err(ChannelError::Database)?;
            }
        }
        transaction.commit().await.map_err(ChannelError::Database)?;
        Ok(prepared.of_asked.into_iter().map(|parts| parts.map(drop)).collect())
    }

    /// What waits on a channel behind `last_id`, or, for 0, behind what was read before; in order. It is
    /// noted as read and stays until it is a day old.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn poll(&self, channel: ChannelId, last_id: i64) -> Result<Vec<Value>, ChannelError> {
        let (tenant, name) = (Bound::Int(self.id()), channel.to_string());
        let name = Bound::Text(&name);
        let mut behind = last_id;
        if last_id <= 0 {
            let rows = self.database().fetch(&LAST_ID, &[tenant, name]).await?;
            let known = rows.first().map_or(Ok(None), |row| row.optional_int(0))?;
            behind = known.unwrap_or(0);
        }
        let values = [tenant, name, Bound::Int(behind), Bound::Int(ROWS_MAX)];
        let rows = self.database().fetch(&READ, &values).await?;
        let options = self.options("").await?;
        let mut messages = Vec::with_capacity(rows.len());
        let mut highest = None;
        for row in &rows {
            let id = row.int(0)?;
            highest = Some(id);
            let Ok(Value::Array(mut members)) = php::unserialize(&row.text(1)?) else {
                tracing::warn!(id, "a row of the stack is not what PHP writes, and is skipped");
                continue;
            };
            let at_ms = u64::try_from(row.int(2)?).unwrap_or(0).saturating_mul(1000);
            members.push((Value::text("id"), Value::Text(id.to_string())));
            let extra = notice::extra(at_ms, options.text(Key::ServerName));
            members.push((Value::text("extra"), extra));
            messages.push(Value::Array(members));
        }
        if let Some(highest) = highest {
            let highest = Bound::Int(highest);
            self.database().execute(&SET_LAST_ID, &[highest, tenant, name, highest]).await?;
            // The channel in memory has the old one.
            self.state().forget_channels(None);
        }
        Ok(messages)
    }
}

/// What is kept of an event.
fn message(event: &ModuleEvent) -> Result<Value, EventError> {
    let text = std::str::from_utf8(&event.body).map_err(|_| EventError::Json)?;
    let Value::Array(members) = php::from_json(text).map_err(|_| EventError::Json)? else {
        return Err(EventError::Json);
    };
    let kept = members.into_iter().filter(|(name, _)| *name != Value::text("extra"));
    Ok(Value::Array(kept.collect()))
}

impl Service {
    /// Removes events of all tenants that nobody asked for within a day; how many.
    ///
    /// # Errors
    /// When the database fails; what was removed stays removed.
    pub async fn clean_up_stack(&self) -> Result<u64, DatabaseError> {
        let before = self.clock().unix_s().saturating_sub(STACK_TTL_S);
        let before = Bound::Int(i64::try_from(before).unwrap_or(0));
        let mut removed = 0;
        for _ in 0..CLEAN_UP_SLICES {
            let rows = self.database().fetch(&OLD, &[before, Bound::Int(CLEAN_UP_SLICE)]).await?;
            let ids = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<_>, _>>()?;
            if ids.is_empty() {
                break;
            }
            removed += self.database().execute(&REMOVE, &[Bound::Ints(&ids)]).await?;
        }
        Ok(removed)
    }
}
