//! What waits: notifications for users who may read the page instead, in the PHP module's table; and batches
//! until the gateway has them, in ours.

use super::record::Message;
use super::{Device, PushError, params, plain_text, target};
use crate::db::{DatabaseError, Row, Statement, Value};
use crate::option::Key;
use crate::php;
use crate::tenant::{Service, Tenant};

/// Notifications that one run of the job sends.
pub const DEFERRED_PER_RUN: usize = 280;
/// Of those so many go in one batch.
const DEFERRED_PER_BATCH: usize = 10;
/// A notification waits at least so long, seconds.
const DEFERRED_S: u64 = 15;
/// Batches of one tenant that wait at most, and their bytes.
const WAITING_MAX: u64 = 20_000;
const WAITING_BYTES_MAX: u64 = 256 << 20;
/// What is now or never is worth sending for so long, seconds.
const NOW_S: u64 = 30;
/// Who sends a batch has it for so long, seconds; longer than any request may take. Whoever ends without a
/// word is followed by another one then.
const SENDING_S: u64 = 40;
/// The longest pause between two tries, seconds; and for the other batches of the tenant, whose gateway may
/// be back sooner.
const PAUSE_MAX_S: u64 = 60;
const REST_S: u64 = 5;
/// Batches of one tenant that are sent at a time, so that a slow gateway is slow for its own tenant alone.
const SENT_AT_A_TIME: i64 = 2;

/// A notification that waits.
pub(super) struct Deferred {
    pub(super) user: i64,
    pub(super) tag: String,
    pub(super) sub_tag: String,
    pub(super) message: String,
    pub(super) params: Option<String>,
    /// JSON.
    pub(super) advanced: String,
    pub(super) application_id: String,
}

/// A batch that somebody sends.
#[derive(Clone)]
pub struct PushBatch {
    id: i64,
    tries: u64,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where it goes, with the key of the site.
    pub address: String,
    /// What the gateway gets as `MessageBody`.
    pub body: String,
}

impl std::fmt::Debug for PushBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its address has the key of the site, its body what people write to each other.
        f.debug_struct("PushBatch").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is done: taken, refused for good, or nobody knows.
    Done,
    /// Surely nobody has it: it is tried again.
    Again,
    /// Surely nobody has it, since nobody is there; nobody is for the tenant's other batches, either.
    Away,
}

static DEFER: Statement = Statement::new(
    "INSERT INTO b_pull_push_queue (TENANT_ID, USER_ID, TAG, SUB_TAG, MESSAGE, PARAMS, ADVANCED_PARAMS, DATE_CREATE, APP_ID) VALUES (?, ?, ?, ?, ?, ?, ?, {at}, ?)",
);
static REMOVE_BY_TAG: Statement =
    Statement::new("DELETE FROM b_pull_push_queue WHERE TENANT_ID = ? AND USER_ID = ? AND TAG = ?");
static REMOVE_BY_SUB_TAG: Statement = Statement::new(
    "DELETE FROM b_pull_push_queue WHERE TENANT_ID = ? AND USER_ID = ? AND SUB_TAG = ?",
);
static DEFERRED: Statement = Statement::new(
    "SELECT ID, USER_ID, COALESCE(MESSAGE, ''), PARAMS, COALESCE(ADVANCED_PARAMS, ''), COALESCE(APP_ID, '') FROM b_pull_push_queue WHERE TENANT_ID = ? AND DATE_CREATE < {at} ORDER BY ID LIMIT ?",
);
static REMOVE_DEFERRED: Statement =
    Statement::new("DELETE FROM b_pull_push_queue WHERE ID IN {list}");
static TENANTS_WITH_DEFERRED: Statement = Statement::new(
    "SELECT DISTINCT t.HOST_ID FROM b_pull_push_queue q JOIN vestnik_tenant t ON t.ID = q.TENANT_ID WHERE q.DATE_CREATE < {at} AND t.ACTIVE = 'Y'",
);
static ADD: Statement = Statement::new(
    "INSERT INTO vestnik_push_batch (TENANT_ID, BODY, SIZE, TRIES, CLAIMED, DATE_NEXT, DATE_EXPIRE) VALUES (?, ?, ?, 0, 0, {at}, {at})",
);
static COUNT: Statement = Statement::new(
    "SELECT COUNT(*), CAST(COALESCE(SUM(SIZE), 0) AS {bigint}) FROM vestnik_push_batch WHERE TENANT_ID = ?",
);
static DUE: Statement = Statement::new(
    "SELECT ID, {time DATE_NEXT}, {time DATE_EXPIRE} FROM vestnik_push_batch b WHERE (DATE_NEXT <= {at} OR DATE_NEXT > {at}) AND (SELECT COUNT(*) FROM vestnik_push_batch o WHERE o.TENANT_ID = b.TENANT_ID AND o.CLAIMED = 1 AND o.DATE_NEXT > {at} AND o.DATE_NEXT <= {at}) < ? ORDER BY DATE_NEXT, ID LIMIT 8",
);
static CLAIM: Statement = Statement::new(
    "UPDATE vestnik_push_batch SET CLAIMED = 1, DATE_NEXT = {at} WHERE ID = ? AND DATE_NEXT = {at}",
);
static READ: Statement = Statement::new(
    "SELECT t.HOST_ID, b.BODY, b.TRIES FROM vestnik_push_batch b JOIN vestnik_tenant t ON t.ID = b.TENANT_ID WHERE b.ID = ?",
);
static REMOVE: Statement = Statement::new("DELETE FROM vestnik_push_batch WHERE ID = ?");
static AGAIN: Statement = Statement::new(
    "UPDATE vestnik_push_batch SET TRIES = TRIES + 1, CLAIMED = 0, DATE_NEXT = {at} WHERE ID = ?",
);
/// The gateway of a tenant is away for all of its batches.
static REST: Statement = Statement::new(
    "UPDATE vestnik_push_batch SET DATE_NEXT = {at} WHERE TENANT_ID = ? AND CLAIMED = 0 AND DATE_NEXT < {at}",
);
static REMOVE_EXPIRED: Statement =
    Statement::new("DELETE FROM vestnik_push_batch WHERE DATE_EXPIRE < {at}");

fn moment(seconds: u64) -> Value<'static> {
    Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn number(row: &Row, column: usize) -> Result<u64, DatabaseError> {
    Ok(u64::try_from(row.int(column)?).unwrap_or(0))
}

impl Tenant {
    /// Stores what was decided, all of it or nothing; batches come with how long they are worth sending.
    pub(super) async fn keep_push(
        &self,
        deferred: &[Deferred],
        batches: &[(String, u64)],
    ) -> Result<(), PushError> {
        if deferred.is_empty() && batches.is_empty() {
            return Ok(());
        }
        let now_s = self.now_s();
        let waiting = self.waiting_push().await?;
        let added: usize = batches.iter().map(|(body, _)| body.len()).sum();
        if waiting.0 + batches.len() as u64 > WAITING_MAX
            || waiting.1 + added as u64 > WAITING_BYTES_MAX
        {
            return Err(PushError::Overloaded);
        }
        let mut transaction = self.database().begin().await?;
        for row in deferred {
            let values = [
                Value::Int(self.id()),
                Value::Int(row.user),
                Value::Text(&row.tag),
                Value::Text(&row.sub_tag),
                Value::Text(&row.message),
                Value::OptionalText(row.params.as_deref()),
                Value::Text(&row.advanced),
                moment(now_s),
                Value::Text(&row.application_id),
            ];
            transaction.execute(&DEFER, &values).await?;
        }
        self.add_batches(&mut transaction, batches).await?;
        Ok(transaction.commit().await?)
    }

    async fn add_batches(
        &self,
        transaction: &mut crate::db::Transaction,
        batches: &[(String, u64)],
    ) -> Result<(), DatabaseError> {
        let now_s = self.now_s();
        for (body, life_s) in batches {
            let size = i64::try_from(body.len()).unwrap_or(i64::MAX);
            let values = [
                Value::Int(self.id()),
                Value::Text(body),
                Value::Int(size),
                moment(now_s),
                moment(now_s + life_s.max(&NOW_S)),
            ];
            transaction.execute(&ADD, &values).await?;
        }
        Ok(())
    }

    /// Batches that wait for the gateway, and their bytes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting_push(&self) -> Result<(u64, u64), DatabaseError> {
        let rows = self.database().fetch(&COUNT, &[Value::Int(self.id())]).await?;
        rows.first().map_or(Ok((0, 0)), |row| Ok((number(row, 0)?, number(row, 1)?)))
    }

    /// Removes notifications of a user that wait, by tag or sub-tag.
    pub(super) async fn remove_deferred(
        &self,
        user: i64,
        tag: &str,
        is_sub_tag: bool,
    ) -> Result<(), DatabaseError> {
        let statement = if is_sub_tag { &REMOVE_BY_SUB_TAG } else { &REMOVE_BY_TAG };
        let values = [Value::Int(self.id()), Value::Int(user), Value::Text(tag)];
        self.database().execute(statement, &values).await.map(drop)
    }

    /// Makes batches of notifications that have waited long enough; how many it were. Each is removed in
    /// the step that makes its batch, so that it is neither lost nor sent twice.
    ///
    /// # Errors
    /// When the options or the database fail; what was not taken waits on.
    pub async fn send_deferred(&self) -> Result<u64, PushError> {
        let options = self.options("").await?;
        if !options.is_push_on() {
            // What waited when push was switched off stays where it is.
            return Ok(0);
        }
        let (count, bytes) = self.waiting_push().await?;
        if count >= WAITING_MAX || bytes >= WAITING_BYTES_MAX {
            // The gateway is away; they wait where they are.
            return Ok(0);
        }
        let before = moment(self.now_s().saturating_sub(DEFERRED_S));
        let most = Value::Int(DEFERRED_PER_RUN as i64);
        let values = [Value::Int(self.id()), before, most];
        let rows = self.database().fetch(&DEFERRED, &values).await?;
        let mut users = rows.iter().map(|row| row.int(1)).collect::<Result<Vec<_>, _>>()?;
        users.sort_unstable();
        users.dedup();
        let told = self.told_by_hook(&users).await;
        let known = users.iter().map(|user| (*user, told.get(user).and_then(|it| it.badge)));
        let badges = self.badges(known).await;
        for rows in rows.chunks(DEFERRED_PER_BATCH) {
            let mut sent: Vec<(Message, Vec<Device>)> = Vec::new();
            let mut ids = Vec::new();
            for row in rows {
                ids.push(row.int(0)?);
                let user = row.int(1)?;
                let devices = self.devices(&[user], &row.text(5)?).await?;
                let badge = badges.get(&user).copied();
                sent.push((message(row, badge, target(user, self.host_id()))?, devices));
            }
            let batches = self.batches(&sent, &options);
            let mut transaction = self.database().begin().await?;
            let removed = transaction.execute(&REMOVE_DEFERRED, &[Value::Ints(&ids)]).await?;
            if removed < ids.len() as u64 {
                // Somebody read one of them meanwhile. The rest is looked at again at the next turn.
                continue;
            }
            self.add_batches(&mut transaction, &batches).await?;
            transaction.commit().await?;
            self.service().wake_pushing();
        }
        Ok(rows.len() as u64)
    }
}

/// A message as the table keeps it: without sound, and worth sending for the usual time.
fn message(row: &Row, badge: Option<i64>, target: String) -> Result<Message, DatabaseError> {
    let advanced = match php::from_json(&row.text(4)?) {
        Ok(php::Value::Array(entries)) => {
            entries.into_iter().filter_map(|(name, value)| Some((name.to_text()?, value))).collect()
        }
        _ => Vec::new(),
    };
    let stored = row.optional_text(3)?;
    let (params, category) = match stored.as_deref().map(php::from_json) {
        Some(Ok(value @ php::Value::Array(_))) => {
            let (params, category) = params(&value);
            (Some(params), category)
        }
        _ => (stored, None),
    };
    Ok(Message {
        text: plain_text(&row.text(2)?),
        params,
        category,
        advanced,
        badge,
        target,
        ..Message::default()
    })
}

impl Service {
    /// `hostId`s of tenants whose notifications have waited long enough.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenants_with_deferred_push(&self) -> Result<Vec<String>, DatabaseError> {
        let before = moment(self.clock().unix_s().saturating_sub(DEFERRED_S));
        let rows = self.database().fetch(&TENANTS_WITH_DEFERRED, &[before]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// A batch that is due, for the caller to send and for nobody else; `None` if there is none.
    ///
    /// # Errors
    /// When the database or the options fail.
    pub async fn claim_push(&self) -> Result<Option<PushBatch>, PushError> {
        let now_s = self.clock().unix_s();
        // Further off than it ever is: the clock was set back.
        let astray = moment(now_s + PAUSE_MAX_S + SENDING_S);
        let (now, claimed) = (moment(now_s), moment(now_s + SENDING_S));
        let due = [now, astray, now, claimed, Value::Int(SENT_AT_A_TIME)];
        for row in self.database().fetch(&DUE, &due).await? {
            let id = row.int(0)?;
            let (next_s, expire_s) = (number(&row, 1)?, number(&row, 2)?);
            // What is now or never is not sent twice.
            let is_now_or_never = expire_s <= now_s + NOW_S;
            let until_s = if is_now_or_never { expire_s + 1 } else { now_s + SENDING_S };
            let claim = [moment(until_s.max(now_s + SENDING_S)), Value::Int(id), moment(next_s)];
            if self.database().execute(&CLAIM, &claim).await? == 0 {
                continue;
            }
            let rows = self.database().fetch(&READ, &[Value::Int(id)]).await?;
            let Some(row) = rows.first() else { continue };
            let is_expired = expire_s < now_s;
            let tenant = self.tenant(&row.text(0)?).await?;
            let Some(tenant) = tenant.filter(|_| !is_expired) else {
                tracing::warn!("notifications expired before the gateway took them");
                self.database().execute(&REMOVE, &[Value::Int(id)]).await?;
                continue;
            };
            let address = address(&*tenant.options("").await?);
            let (body, tries) = (row.text(1)?, number(row, 2)?);
            return Ok(Some(PushBatch { id, tries, tenant, address, body }));
        }
        Ok(None)
    }

    /// Notes what became of a batch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle_push(&self, batch: &PushBatch, sent: Sent) -> Result<(), DatabaseError> {
        let id = Value::Int(batch.id);
        if sent == Sent::Done {
            return self.database().execute(&REMOVE, &[id]).await.map(drop);
        }
        let now_s = self.clock().unix_s();
        let pause_s = (1 << batch.tries.min(6)).min(PAUSE_MAX_S);
        self.database().execute(&AGAIN, &[moment(now_s + pause_s), id]).await?;
        if sent == Sent::Away {
            let next = moment(now_s + pause_s.min(REST_S));
            let rest = [next, Value::Int(batch.tenant.id()), next];
            self.database().execute(&REST, &rest).await?;
        }
        Ok(())
    }

    /// Forgets batches that are no longer worth sending; how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clean_up_push(&self) -> Result<u64, DatabaseError> {
        let now = [moment(self.clock().unix_s())];
        self.database().execute(&REMOVE_EXPIRED, &now).await
    }
}

/// Where batches of a site go: the gateway, with the site's key.
fn address(options: &crate::option::Options) -> String {
    let licence = options.text(Key::LicenceKey);
    let is_demo = licence.is_empty() || licence.eq_ignore_ascii_case("demo");
    let key = php::md5_hex(if is_demo { "DEMO" } else { licence });
    let gateway = options.text(Key::PushServiceUrl);
    let joint = if gateway.contains('?') { '&' } else { '?' };
    format!("{gateway}{joint}key={key}")
}
