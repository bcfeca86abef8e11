//! When users were last active on the site, and the job that keeps those online whose pages are connected
//! (module.md §14).

use vestnik_core::UserId;
use vestnik_core::publisher::{AskError, Publisher};

use crate::channel::{ChannelError, ChannelKind};
use crate::db::{DatabaseError, Statement, Value};
use crate::tenant::Tenant;

/// How long a session lives without activity, seconds: PHP's default.
pub const SESSION_S: u64 = 1440;
/// Users of one run.
const USERS_MAX: i64 = 10_000;

static TOUCH: Statement = Statement::new(
    "INSERT INTO vestnik_user (TENANT_ID, USER_ID, LAST_ACTIVITY_DATE) VALUES (?, ?, {at}) {update TENANT_ID, USER_ID: LAST_ACTIVITY_DATE}",
);
static ONLINE: Statement = Statement::new(
    "SELECT USER_ID FROM vestnik_user WHERE TENANT_ID = ? AND LAST_ACTIVITY_DATE > {at} AND ACTIVE = 'Y' AND USER_ID > 0 ORDER BY LAST_ACTIVITY_DATE DESC LIMIT ?",
);
static LAST: Statement = Statement::new(
    "SELECT USER_ID, {time LAST_ACTIVITY_DATE} FROM vestnik_user WHERE TENANT_ID = ? AND USER_ID IN {list} AND LAST_ACTIVITY_DATE IS NOT NULL",
);

/// Why the job could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OnlineError {
    /// The queue server could not be asked.
    #[error("the queue server could not be asked who is connected")]
    Server(#[from] AskError),
    /// Channels cannot be had.
    #[error("the channels of users cannot be had")]
    Channel(#[from] ChannelError),
    /// The database failed.
    #[error("activity could not be read or written")]
    Database(#[from] DatabaseError),
}

fn moment(seconds: u64) -> Value<'static> {
    Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX))
}

impl Tenant {
    /// Notes when users were active, unix seconds.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_activity(&self, seen_s: &[(i64, u64)]) -> Result<(), DatabaseError> {
        let mut transaction = self.database().begin().await?;
        for (user, at_s) in seen_s {
            let values = [Value::Int(self.id()), Value::Int(*user), moment(*at_s)];
            transaction.execute(&TOUCH, &values).await?;
        }
        transaction.commit().await
    }

    /// Seconds since users were active; those who never were are left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn seconds_since_activity(
        &self,
        users: &[i64],
    ) -> Result<Vec<(i64, u64)>, DatabaseError> {
        let now_s = self.now_s();
        let mut since = Vec::new();
        for users in users.chunks(512) {
            let values = [Value::Int(self.id()), Value::Ints(users)];
            for row in self.database().fetch(&LAST, &values).await? {
                let at_s = u64::try_from(row.int(1)?).unwrap_or(0);
                since.push((row.int(0)?, now_s.saturating_sub(at_s)));
            }
        }
        Ok(since)
    }

    /// Asks the queue server which of those who were active within a session's life are connected, and
    /// notes them as active now; who they are. Nobody while no server is in use.
    ///
    /// # Errors
    /// When the server or the database fail.
    pub async fn refresh_online(&self, server: &dyn Publisher) -> Result<Vec<i64>, OnlineError> {
        let options = self.options("").await.map_err(ChannelError::from)?;
        if !options.is_server_on() {
            return Ok(Vec::new());
        }
        let now_s = self.now_s();
        let since = moment(now_s.saturating_sub(SESSION_S));
        let values = [Value::Int(self.id()), since, Value::Int(USERS_MAX)];
        let rows = self.database().fetch(&ONLINE, &values).await?;
        let users = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<_>, _>>()?;
        if users.is_empty() {
            return Ok(users);
        }
        let connected: Vec<i64> = if options.generation().has_tokens() {
            let ids: Vec<UserId> = users.iter().filter_map(|user| UserId::new(*user)).collect();
            let seen = server.last_seen(&ids).await?;
            seen.into_iter().filter(|(_, ago_s)| *ago_s == 0).map(|(id, _)| id.number()).collect()
        } else {
            let channels = self.channels(&users, &ChannelKind::Private).await?;
            let ids: Vec<_> = channels.iter().map(|channel| channel.id).collect();
            let listeners = server.listeners(&ids).await?;
            let heard = channels.iter().filter(|channel| {
                listeners.iter().any(|it| it.channel == channel.id && it.count > 0)
            });
            heard.map(|channel| channel.user).collect()
        };
        let seen_s: Vec<_> = connected.iter().map(|user| (*user, now_s)).collect();
        self.note_activity(&seen_s).await?;
        Ok(connected)
    }
}
