//! Mobile devices: which user has which, and what messages reach it with (module.md §18, mobile-push.md §2).

use crate::db::{DatabaseError, Row, Statement, Value};
use crate::php;
use crate::tenant::{Service, Tenant};

/// The application that messages are for unless they say otherwise.
pub const APPLICATION: &str = "Bitrix24";
/// Names under which that application is in the stores.
const ALIASES: [&str; 5] = [
    "com.alaio.app",
    APPLICATION,
    "com.bitrixsoft.cpmobile",
    "com.bitrix24.android",
    "ru.bitrix.bitrix24",
];
/// What the name of an application in development ends with.
const SANDBOX: &str = "_bxdev";
/// Devices that are not used for so long are forgotten, seconds: 14 days.
const DEVICE_TTL_S: u64 = 14 * 86_400;
const TOKEN_BYTES_MAX: usize = 255;
const NAME_BYTES_MAX: usize = 50;

/// A service that messages reach devices through, in the order of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// APNs.
    Apple,
    /// APNs, for calls.
    AppleVoip,
    /// FCM.
    Firebase,
    /// FCM in its older form.
    Google,
    /// HMS.
    Huawei,
}

impl Platform {
    /// All of them, in the order of a batch.
    pub const ALL: [Self; 5] =
        [Self::Apple, Self::AppleVoip, Self::Firebase, Self::Google, Self::Huawei];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apple => "APPLE",
            Self::AppleVoip => "APPLE/VOIP",
            Self::Firebase => "GOOGLE/REV2",
            Self::Google => "GOOGLE",
            Self::Huawei => "HUAWEI",
        }
    }

    /// The platform of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.name() == name)
    }

    /// Its number in a batch.
    #[must_use]
    pub const fn modifier(self, is_sandbox: bool) -> u8 {
        match (self, is_sandbox) {
            (Self::Apple, true) => 1,
            (Self::Apple, false) => 2,
            (Self::Google, _) => 3,
            (Self::AppleVoip, true) => 4,
            (Self::AppleVoip, false) => 5,
            (Self::Huawei, _) => 6,
            (Self::Firebase, _) => 7,
        }
    }
}

/// A device as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Whose it is.
    pub user: i64,
    /// The name of its platform.
    pub kind: String,
    /// The application on it.
    pub application_id: String,
    /// Where messages go.
    pub token: String,
    /// The name of the platform for calls; may be empty.
    pub voip_kind: String,
    /// Where calls go; may be empty.
    pub voip_token: String,
}

impl Device {
    /// Platform and token for a message, or for a call; none if it has none.
    pub(super) fn address(&self, is_call: bool) -> Option<(Platform, &str)> {
        if self.application_id.contains([';', '\r', '\n']) {
            // It would end its section of the batch and begin another.
            return None;
        }
        let has_own = !self.voip_kind.is_empty() && !self.voip_token.is_empty();
        let (kind, token) = if is_call && has_own {
            (&self.voip_kind, &self.voip_token)
        } else {
            (&self.kind, &self.token)
        };
        Some((Platform::named(kind)?, token.as_str())).filter(|(_, token)| !token.is_empty())
    }

    pub(super) fn is_sandbox(&self) -> bool {
        self.application_id.find(SANDBOX).is_some_and(|at| at > 0)
    }

    /// The application as gateways know it.
    pub(super) fn application(&self) -> String {
        self.application_id.replace(SANDBOX, "")
    }
}

/// What the devices of a user with an application are found by.
#[must_use]
pub fn unique_hash(user: i64, application_id: &str) -> String {
    let plain = application_id.replace(SANDBOX, "");
    let name = if ALIASES.contains(&plain.as_str()) { APPLICATION } else { application_id };
    php::md5_hex(&format!("{user}{name}"))
}

/// A device that registers itself.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// Whose it is now.
    pub user: i64,
    /// What stays the same while the application is on the device.
    pub device_id: String,
    /// Its name; that id unless given.
    pub name: String,
    /// The name of its platform.
    pub kind: String,
    /// The application.
    pub application_id: String,
    /// Where messages go; may be empty where `voip_token` is not.
    pub token: String,
    /// Where calls go.
    pub voip_token: String,
}

/// Why a device cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such platform.
    #[error("a device is of `APPLE`, `APPLE/VOIP`, `GOOGLE`, `GOOGLE/REV2` or `HUAWEI`")]
    Platform,
    /// It has no token, or one that is none.
    #[error("a token has at most {TOKEN_BYTES_MAX} letters; one of Apple is 64 hexadecimal digits")]
    Token,
    /// The names of applications have few letters.
    #[error("an application has 1 to {NAME_BYTES_MAX} letters, digits, `.`, `-` and `_`")]
    Application,
    /// The device has no id, or too long a one.
    #[error("a device has an id of at most {TOKEN_BYTES_MAX} bytes")]
    Id,
    /// The database failed.
    #[error("devices could not be read or written")]
    Database(#[from] DatabaseError),
}

static OF_USERS: Statement = Statement::new(
    "SELECT USER_ID, COALESCE(DEVICE_TYPE, ''), COALESCE(APP_ID, ''), DEVICE_TOKEN, COALESCE(VOIP_TYPE, ''), COALESCE(VOIP_TOKEN, '') FROM b_pull_push WHERE TENANT_ID = ? AND UNIQUE_HASH IN {list} ORDER BY ID",
);
static FIND: Statement = Statement::new(
    "SELECT ID FROM b_pull_push WHERE TENANT_ID = ? AND DEVICE_ID = ? ORDER BY ID LIMIT 1",
);
static ADD: Statement = Statement::new(
    "INSERT INTO b_pull_push (TENANT_ID, USER_ID, DEVICE_TYPE, APP_ID, UNIQUE_HASH, DEVICE_ID, DEVICE_NAME, DEVICE_TOKEN, VOIP_TYPE, VOIP_TOKEN, DATE_CREATE, DATE_AUTH) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {at}, {at})",
);
static UPDATE_TOKEN: Statement = Statement::new(
    "UPDATE b_pull_push SET USER_ID = ?, APP_ID = ?, UNIQUE_HASH = ?, DEVICE_NAME = ?, DATE_AUTH = {at}, DEVICE_TYPE = ?, DEVICE_TOKEN = ? WHERE ID = ?",
);
static UPDATE_VOIP: Statement = Statement::new(
    "UPDATE b_pull_push SET USER_ID = ?, APP_ID = ?, UNIQUE_HASH = ?, DEVICE_NAME = ?, DATE_AUTH = {at}, VOIP_TYPE = ?, VOIP_TOKEN = ? WHERE ID = ?",
);
static REMOVE: Statement = Statement::new(
    "DELETE FROM b_pull_push WHERE TENANT_ID = ? AND (DEVICE_TOKEN = ? OR VOIP_TOKEN = ?)",
);
static CLEAN_UP: Statement =
    Statement::new("DELETE FROM b_pull_push WHERE COALESCE(DATE_AUTH, DATE_CREATE) < {at}");

fn device(row: &Row) -> Result<Device, DatabaseError> {
    Ok(Device {
        user: row.int(0)?,
        kind: row.text(1)?,
        application_id: row.text(2)?,
        token: row.text(3)?,
        voip_kind: row.text(4)?,
        voip_token: row.text(5)?,
    })
}

fn check(registration: &Registration) -> Result<(), DeviceError> {
    let platform = Platform::named(&registration.kind).ok_or(DeviceError::Platform)?;
    let is_application = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let application = &registration.application_id;
    if !(1..=NAME_BYTES_MAX).contains(&application.len())
        || !application.bytes().all(is_application)
    {
        return Err(DeviceError::Application);
    }
    if !(1..=TOKEN_BYTES_MAX).contains(&registration.device_id.len()) {
        return Err(DeviceError::Id);
    }
    let is_apple = matches!(platform, Platform::Apple | Platform::AppleVoip);
    let is_token = |token: &str| {
        token.len() <= TOKEN_BYTES_MAX
            && token.bytes().all(|byte| byte.is_ascii_graphic())
            && (!is_apple
                || token.is_empty()
                || (token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit())))
    };
    let (token, voip_token) = (&registration.token, &registration.voip_token);
    if (token.is_empty() && voip_token.is_empty()) || !is_token(token) || !is_token(voip_token) {
        return Err(DeviceError::Token);
    }
    Ok(())
}

impl Tenant {
    /// Notes a device, whoever had it before; whether it is new.
    ///
    /// # Errors
    /// When it is none, or the database fails.
    pub async fn register_device(&self, device: &Registration) -> Result<bool, DeviceError> {
        check(device)?;
        let hash = unique_hash(device.user, &device.application_id);
        let name = if device.name.is_empty() { &device.device_id } else { &device.name };
        let name: String = name.chars().take(NAME_BYTES_MAX).collect();
        let now = Value::Int(i64::try_from(self.now_s()).unwrap_or(i64::MAX));
        let user = Value::Int(device.user);
        let (kind, application) = (Value::Text(&device.kind), Value::Text(&device.application_id));
        let voip_kind = (!device.voip_token.is_empty()).then_some(Platform::AppleVoip.name());
        let voip_token = (!device.voip_token.is_empty()).then_some(&*device.voip_token);
        let mut transaction = self.database().begin().await?;
        let find = [Value::Int(self.id()), Value::Text(&device.device_id)];
        let known = transaction.fetch(&FIND, &find).await?;
        let Some(row) = known.first() else {
            let values = [
                Value::Int(self.id()),
                user,
                kind,
                application,
                Value::Text(&hash),
                Value::Text(&device.device_id),
                Value::Text(&name),
                Value::Text(&device.token),
                Value::OptionalText(voip_kind),
                Value::OptionalText(voip_token),
                now,
                now,
            ];
            transaction.execute(&ADD, &values).await?;
            transaction.commit().await?;
            return Ok(true);
        };
        let id = Value::Int(row.int(0)?);
        let whose = [user, application, Value::Text(&hash), Value::Text(&name), now];
        // One of the two tokens is told at a time; the other stays.
        if !device.token.is_empty() {
            let values = [&whose[..], &[kind, Value::Text(&device.token), id]].concat();
            transaction.execute(&UPDATE_TOKEN, &values).await?;
        }
        if let (Some(voip_kind), Some(voip_token)) = (voip_kind, voip_token) {
            let values =
                [&whose[..], &[Value::Text(voip_kind), Value::Text(voip_token), id]].concat();
            transaction.execute(&UPDATE_VOIP, &values).await?;
        }
        transaction.commit().await?;
        Ok(false)
    }

    /// The devices of users with an application.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn devices(
        &self,
        users: &[i64],
        application_id: &str,
    ) -> Result<Vec<Device>, DatabaseError> {
        let mut devices = Vec::new();
        for users in users.chunks(512) {
            let hashes: Vec<String> =
                users.iter().map(|user| unique_hash(*user, application_id)).collect();
            let hashes: Vec<&str> = hashes.iter().map(String::as_str).collect();
            let values = [Value::Int(self.id()), Value::Texts(&hashes)];
            for row in self.database().fetch(&OF_USERS, &values).await? {
                devices.push(device(&row)?);
            }
        }
        Ok(devices)
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
        Ok(self.database().execute(&REMOVE, &values).await? > 0)
    }
}

impl Service {
    /// Removes devices that were not used for 14 days; how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clean_up_devices(&self) -> Result<u64, DatabaseError> {
        let before_s = self.clock().unix_s().saturating_sub(DEVICE_TTL_S);
        let before = Value::Int(i64::try_from(before_s).unwrap_or(i64::MAX));
        self.database().execute(&CLEAN_UP, &[before]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_one_application_are_found_under_all_its_names() {
        assert_eq!(unique_hash(7, "Bitrix24"), "2f5b5c74b672f7c7242aea395406ffe0");
        for alias in ["com.bitrix24.android", "Bitrix24_bxdev", "com.bitrixsoft.cpmobile_bxdev"] {
            assert_eq!(unique_hash(7, alias), unique_hash(7, "Bitrix24"), "{alias}");
        }
        assert_ne!(unique_hash(7, "my.app"), unique_hash(7, "Bitrix24"));
    }

    #[test]
    fn a_device_that_cannot_be_reached_is_refused() {
        let good = Registration {
            user: 7,
            device_id: "uuid".into(),
            kind: "APPLE".into(),
            application_id: "Bitrix24".into(),
            token: "ab".repeat(32),
            ..Registration::default()
        };
        assert!(check(&good).is_ok());
        let with = |change: fn(&mut Registration)| {
            let mut registration = good.clone();
            change(&mut registration);
            check(&registration).unwrap_err().to_string()
        };
        assert!(with(|it| it.kind = "WINDOWS".into()).contains("HUAWEI"));
        assert!(with(|it| it.token = "short".into()).contains("64 hexadecimal"));
        assert!(with(|it| it.token = String::new()).contains("token"));
        assert!(with(|it| it.application_id = "x;7;tkey=y".into()).contains("letters"));
        assert!(with(|it| it.device_id = String::new()).contains("id"));
    }
}
