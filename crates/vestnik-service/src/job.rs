//! Periodic jobs (module.md §13): when each is due, over restarts and over all processes on the database.

use crate::db::{DatabaseError, Statement, Value};
use crate::tenant::Service;

/// A periodic job; the names are those of the PHP module's agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Keeps users online whose pages are connected.
    OnlineChannels,
    /// Removes old channels.
    Channels,
    /// Removes watches that nobody extended.
    Watches,
    /// Removes events that nobody asked for.
    Stack,
    /// Removes devices that were not used for 14 days.
    Devices,
    /// Gives public ids to channels of users that have none.
    PublicIds,
    /// Sends notifications that have waited long enough.
    Pushes,
}

impl Job {
    /// Every job.
    pub const ALL: [Self; 7] = [
        Self::OnlineChannels,
        Self::Channels,
        Self::Watches,
        Self::Stack,
        Self::Devices,
        Self::PublicIds,
        Self::Pushes,
    ];

    /// Its name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnlineChannels => "CPullChannel::CheckOnlineChannel",
            Self::Channels => "CPullChannel::CheckExpireAgent",
            Self::Watches => "CPullWatch::CheckExpireAgent",
            Self::Stack => "CPullStack::CheckExpireAgent",
            Self::Devices => "CPullPush::cleanTokens",
            Self::PublicIds => "updatePublicChannelIdAgent",
            Self::Pushes => "CPushManager::SendAgent",
        }
    }

    /// How long until its first run, seconds.
    #[must_use]
    pub const fn first_s(self) -> u64 {
        match self {
            Self::OnlineChannels => 100,
            Self::Watches => 600,
            Self::Channels | Self::Devices => 43_200,
            Self::Stack => 86_400,
            Self::PublicIds => 60,
            Self::Pushes => 30,
        }
    }

    /// How long until the next run after one that did `done`, seconds: sooner where more is left.
    #[must_use]
    pub const fn period_s(self, done: u64) -> u64 {
        match self {
            Self::OnlineChannels => 240,
            // A run of channels removes at most a thousand of each tenant.
            Self::Channels => {
                if done >= 1000 {
                    60
                } else {
                    43_200
                }
            }
            Self::Devices => 43_200,
            Self::Watches => {
                if done >= 1000 {
                    180
                } else {
                    1200
                }
            }
            Self::Stack => {
                if done > 1000 {
                    600
                } else {
                    86_400
                }
            }
            Self::Pushes => {
                if done >= crate::push::DEFERRED_PER_RUN as u64 {
                    10
                } else {
                    30
                }
            }
            Self::PublicIds => {
                if done >= 100 {
                    60
                } else {
                    86_400
                }
            }
        }
    }
}

/// For so long whoever runs a job has it for itself, seconds.
const RUN_S: u64 = 600;

static ADD: Statement = Statement::new(
    "INSERT INTO vestnik_job (TENANT_ID, NAME, PERIOD_S, NEXT_EXEC) VALUES (0, ?, ?, {at}) {ignore TENANT_ID, NAME}",
);
static NEXT: Statement =
    Statement::new("SELECT {time NEXT_EXEC} FROM vestnik_job WHERE TENANT_ID = 0 AND NAME = ?");
static CLAIM: Statement = Statement::new(
    "UPDATE vestnik_job SET NEXT_EXEC = {at}, PERIOD_S = ? WHERE TENANT_ID = 0 AND NAME = ? AND NEXT_EXEC = {at}",
);
static WITHOUT_PUBLIC: Statement = Statement::new(
    "SELECT ID FROM b_pull_channel WHERE USER_ID > 0 AND COALESCE(CHANNEL_PUBLIC_ID, '') = '' AND DATE_CREATE > {at} ORDER BY ID LIMIT 100",
);
static SET_PUBLIC: Statement = Statement::new(
    "UPDATE b_pull_channel SET CHANNEL_PUBLIC_ID = ? WHERE ID = ? AND COALESCE(CHANNEL_PUBLIC_ID, '') = ''",
);

fn moment(seconds: u64) -> Value<'static> {
    Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX))
}

impl Service {
    /// Claims a job if it is due: nobody else runs it for some minutes then.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_job(&self, job: Job) -> Result<bool, DatabaseError> {
        let now_s = self.clock().unix_s();
        let name = Value::Text(job.name());
        let rows = self.database().fetch(&NEXT, &[name]).await?;
        let Some(row) = rows.first() else {
            let values = [name, moment(job.period_s(0)), moment(now_s + job.first_s())];
            self.database().execute(&ADD, &values).await?;
            return Ok(false);
        };
        let next_s = u64::try_from(row.int(0)?).unwrap_or(0);
        // Further off than it ever is planned: the clock was set back.
        let is_astray = next_s > now_s + job.period_s(0).max(job.first_s()).max(RUN_S) + RUN_S;
        if next_s > now_s && !is_astray {
            return Ok(false);
        }
        let values = [moment(now_s + RUN_S), moment(job.period_s(0)), name, moment(next_s)];
        Ok(self.database().execute(&CLAIM, &values).await? > 0)
    }

    /// Plans the next run of a job that was claimed and did `done`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn plan_job(&self, job: Job, done: u64) -> Result<(), DatabaseError> {
        let name = Value::Text(job.name());
        let rows = self.database().fetch(&NEXT, &[name]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let claimed = Value::Int(row.int(0)?);
        let period_s = job.period_s(done);
        let next_s = self.clock().unix_s() + period_s;
        let values = [moment(next_s), moment(period_s), name, claimed];
        self.database().execute(&CLAIM, &values).await.map(drop)
    }

    /// Gives public ids to up to a hundred channels of the last day that have none; how many.
    ///
    /// # Errors
    /// When the database fails, or the system gives no random bytes.
    pub async fn add_public_ids(&self) -> Result<u64, crate::channel::ChannelError> {
        let since_s = self.clock().unix_s().saturating_sub(86_400);
        let mut done = 0;
        for row in self.database().fetch(&WITHOUT_PUBLIC, &[moment(since_s)]).await? {
            let id = crate::channel::random_id()?.to_string();
            let values = [Value::Text(&id), Value::Int(row.int(0)?)];
            done += self.database().execute(&SET_PUBLIC, &values).await?;
        }
        Ok(done)
    }
}
