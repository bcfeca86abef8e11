//! Events that were accepted and could not be published yet: kept in the database, in their order, until
//! their queue server takes them or they expire.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use vestnik_core::publisher::{ModuleEvent, Recipients};
use vestnik_core::{ChannelId, Expiry, MessageKind, UserId};

use crate::db::{DatabaseError, Statement, Value};
use crate::tenant::{Service, Tenant};

/// Events of one tenant that wait at most; who publishes more is told so.
pub const WAITING_MAX: u64 = 20_000;
/// Bytes of their bodies at most.
pub const WAITING_BYTES_MAX: u64 = 64 << 20;
/// How long an event waits that nobody was to keep, seconds.
const VOLATILE_S: u64 = 60;

/// An event that waits.
#[derive(Clone, Debug)]
pub struct WaitingEvent {
    /// Its number; they are sent in the order of these.
    pub id: i64,
    /// The event; its life is what is left of it.
    pub event: ModuleEvent,
    /// Whether its life is over.
    pub is_expired: bool,
}

/// What waits for one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many events.
    pub count: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// An event as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    kind: &'a str,
    expiry_s: u32,
    channels: Vec<String>,
    public_channels: Vec<String>,
    users: Vec<i64>,
    #[serde(borrow)]
    user_params: Vec<(i64, &'a RawValue)>,
    #[serde(borrow)]
    dictionary: Option<&'a RawValue>,
}

static APPEND: Statement = Statement::new(
    "INSERT INTO vestnik_outbox (TENANT_ID, EVENT, SIZE, DATE_CREATE, DATE_EXPIRE) VALUES (?, ?, ?, {at}, {at})",
);
static FIRST: Statement = Statement::new(
    "SELECT ID, EVENT, {time DATE_CREATE}, {time DATE_EXPIRE} FROM vestnik_outbox WHERE TENANT_ID = ? ORDER BY ID LIMIT ?",
);
static REMOVE: Statement = Statement::new("DELETE FROM vestnik_outbox WHERE ID IN {list}");
static COUNT: Statement = Statement::new(
    "SELECT COUNT(*), CAST(COALESCE(SUM(SIZE), 0) AS {bigint}) FROM vestnik_outbox WHERE TENANT_ID = ?",
);
static TENANTS: Statement = Statement::new(
    "SELECT DISTINCT t.HOST_ID FROM vestnik_outbox o JOIN vestnik_tenant t ON t.ID = o.TENANT_ID WHERE t.ACTIVE = 'Y'",
);

/// Of what was prepared here, body and additions are JSON.
fn raw(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

fn to_text(event: &ModuleEvent) -> Option<String> {
    let ids = |channels: &[ChannelId]| channels.iter().map(ToString::to_string).collect();
    let own = event.user_params.iter().map(|(user, own)| Some((user.number(), raw(own)?)));
    let stored = Stored {
        body: raw(&event.body)?,
        kind: event.kind.as_str(),
        expiry_s: event.expiry.seconds(),
        channels: ids(&event.recipients.channels),
        public_channels: ids(&event.recipients.public_channels),
        users: event.recipients.users.iter().map(|user| user.number()).collect(),
        user_params: own.collect::<Option<_>>()?,
        dictionary: match &event.dictionary {
            Some(dictionary) => Some(raw(dictionary)?),
            None => None,
        },
    };
    serde_json::to_string(&stored).ok()
}

fn from_text(text: &str, age_s: u64) -> Option<ModuleEvent> {
    let stored: Stored<'_> = serde_json::from_str(text).ok()?;
    let ids = |texts: &[String]| -> Option<Vec<ChannelId>> {
        texts.iter().map(|text| text.parse().ok()).collect()
    };
    let bytes = |raw: &RawValue| Bytes::copy_from_slice(raw.get().as_bytes());
    let left_s = u64::from(stored.expiry_s).saturating_sub(age_s);
    let own = stored.user_params.iter().map(|(user, own)| Some((UserId::new(*user)?, bytes(own))));
    Some(ModuleEvent {
        body: bytes(stored.body),
        kind: MessageKind::parse(stored.kind),
        expiry: Expiry::new(left_s, Expiry::MAX),
        recipients: Recipients {
            channels: ids(&stored.channels)?,
            public_channels: ids(&stored.public_channels)?,
            users: stored.users.iter().map(|user| UserId::new(*user)).collect::<Option<_>>()?,
        },
        user_params: own.collect::<Option<_>>()?,
        dictionary: stored.dictionary.map(bytes),
    })
}

impl Tenant {
    /// Keeps events that could not be published, in their order; all of them or none.
    ///
    /// # Errors
    /// When the database fails: nothing was kept then.
    pub async fn keep_events(&self, events: &[ModuleEvent]) -> Result<(), DatabaseError> {
        let now_s = self.now_s();
        let moment = |seconds: u64| Value::Int(i64::try_from(seconds).unwrap_or(i64::MAX));
        let mut transaction = self.database().begin().await?;
        for event in events {
            let text = to_text(event).ok_or(DatabaseError::Value { column: 0 })?;
            let life_s = u64::from(event.expiry.seconds()).max(VOLATILE_S);
            let size = i64::try_from(event.body.len()).unwrap_or(i64::MAX);
            let values = [
                Value::Int(self.id()),
                Value::Text(&text),
                Value::Int(size),
                moment(now_s),
                moment(now_s + life_s),
            ];
            transaction.execute(&APPEND, &values).await?;
        }
        transaction.commit().await
    }

    /// The first events that wait, oldest first. Ones that cannot be read are counted as expired.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting_events(&self, max: usize) -> Result<Vec<WaitingEvent>, DatabaseError> {
        let max = Value::Int(i64::try_from(max).unwrap_or(i64::MAX));
        let rows = self.database().fetch(&FIRST, &[Value::Int(self.id()), max]).await?;
        let now_s = self.now_s();
        let mut waiting = Vec::with_capacity(rows.len());
        for row in rows {
            let second =
                |column| Ok::<_, DatabaseError>(u64::try_from(row.int(column)?).unwrap_or(0));
            let age_s = now_s.saturating_sub(second(2)?);
            let event = from_text(&row.text(1)?, age_s);
            let is_expired = event.is_none() || second(3)? <= now_s;
            let nothing = ModuleEvent {
                body: Bytes::new(),
                kind: MessageKind::UNKNOWN,
                expiry: Expiry::VOLATILE,
                recipients: Recipients::default(),
                user_params: Vec::new(),
                dictionary: None,
            };
            waiting.push(WaitingEvent {
                id: row.int(0)?,
                event: event.unwrap_or(nothing),
                is_expired,
            });
        }
        Ok(waiting)
    }

    /// Forgets events that were published or cannot be.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_events(&self, ids: &[i64]) -> Result<(), DatabaseError> {
        if !ids.is_empty() {
            self.database().execute(&REMOVE, &[Value::Ints(ids)]).await?;
        }
        Ok(())
    }

    /// How much waits.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(&self) -> Result<Waiting, DatabaseError> {
        let rows = self.database().fetch(&COUNT, &[Value::Int(self.id())]).await?;
        let Some(row) = rows.first() else { return Ok(Waiting::default()) };
        let number = |column| Ok::<_, DatabaseError>(u64::try_from(row.int(column)?).unwrap_or(0));
        Ok(Waiting { count: number(0)?, bytes: number(1)? })
    }

    /// The name of the lock of whoever sends what waits.
    #[must_use]
    pub fn outbox_lock(&self) -> String {
        format!("vestnik_outbox_{}", self.id())
    }
}

impl Service {
    /// `hostId`s of tenants for which events wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenants_with_waiting_events(&self) -> Result<Vec<String>, DatabaseError> {
        let rows = self.database().fetch(&TENANTS, &[]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_stored_with_what_is_left_of_its_life() {
        let user = UserId::new(7).unwrap();
        let event = ModuleEvent {
            body: Bytes::from_static(br#"{"module_id":"im","params":{"b":1,"a":2.50}}"#),
            kind: MessageKind::parse("im_x"),
            expiry: Expiry::new(100, Expiry::MAX),
            recipients: Recipients {
                channels: vec![ChannelId::from_bytes([1; 16])],
                public_channels: vec![ChannelId::from_bytes([2; 16])],
                users: vec![user],
            },
            user_params: vec![(user, Bytes::from_static(b"{\"x\":1}"))],
            dictionary: Some(Bytes::from_static(b"{}")),
        };
        let text = to_text(&event).unwrap();
        assert_eq!(from_text(&text, 0), Some(event.clone()));
        let later = from_text(&text, 40).unwrap();
        assert_eq!(later.expiry.seconds(), 60);
        assert_eq!(from_text("{}", 0), None);
    }
}
