//! Who may call: secrets of back ends, and short-lived tokens that a back end gives to its users.
//!
//! A secret is random and kept as a hash alone. A token is not kept at all: it names tenant, user and
//! end, signed with a key that the tenant has for this alone, so that issuing one writes nothing.

use std::sync::Arc;

use vestnik_core::Secret;
use vestnik_core::sign::{Algorithm, Key as SigningKey, KeyRing, Signature};

use crate::db::{DatabaseError, Statement, Value};
use crate::tenant::{Service, ServiceError, Tenant};

/// The longest life of a user's token, seconds: a day.
pub const TOKEN_TTL_MAX_S: u64 = 86_400;
/// Its life unless said otherwise, seconds.
pub const TOKEN_TTL_S: u64 = 3600;
/// Secrets of one tenant.
pub const SECRETS_MAX: usize = 100;
/// For so long a secret that another process may have removed is taken, seconds.
const SECRET_READ_TTL_S: u64 = 10;
/// The same for the key of tokens.
const KEY_READ_TTL_S: u64 = 60;
const SECRET_PREFIX: &str = "vs_";
const TOKEN_PREFIX: &str = "vt_";
const NAME_BYTES_MAX: usize = 255;
/// The row of the option table that holds the key of tokens; no option, so that nothing shows or resets it.
const TOKEN_KEY: &str = "user_token_key";

/// What a caller may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// What a page does for the user who looks at it.
    User,
    /// What a back end does.
    Backend,
    /// What changes settings and rights.
    Administrator,
}

impl Right {
    /// Its name in tables and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Backend => "backend",
            Self::Administrator => "admin",
        }
    }

    /// The right called `name` that a secret can have.
    #[must_use]
    pub fn of_secret(name: &str) -> Option<Self> {
        match name {
            "backend" => Some(Self::Backend),
            "admin" => Some(Self::Administrator),
            _ => None,
        }
    }
}

/// Whoever calls, once it was checked who that is.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose data it is about.
    pub tenant: Tenant,
    /// What it may do.
    pub right: Right,
    /// The user a token was issued for.
    pub user: Option<i64>,
    /// The name of the host that the call was sent to, without a port; may be empty.
    pub host: String,
}

/// What may be shown of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretEntry {
    /// Its number.
    pub id: i64,
    /// What it was called.
    pub name: String,
    /// What it allows.
    pub right: Right,
    /// When it was made, unix seconds.
    pub created_s: u64,
}

/// Why a secret or a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The name does not fit.
    #[error("the name of a secret has 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    /// The tenant has as many as it may.
    #[error("a tenant has at most {SECRETS_MAX} secrets")]
    TooMany,
    /// Users are not 0.
    #[error("a token is for a user other than 0")]
    User,
    /// The life of the token is out of bounds.
    #[error("a token lives 1 to {TOKEN_TTL_MAX_S} seconds")]
    Life,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The database failed.
    #[error("the secrets could not be read or written")]
    Database(#[from] DatabaseError),
}

static FIND_SECRET: Statement = Statement::new(
    "SELECT t.HOST_ID, s.KIND FROM vestnik_token s JOIN vestnik_tenant t ON t.ID = s.TENANT_ID WHERE s.TOKEN_HASH = ? AND t.ACTIVE = 'Y'",
);
static ADD_SECRET: Statement = Statement::new(
    "INSERT INTO vestnik_token (TENANT_ID, TOKEN_HASH, KIND, USER_ID, NAME, DATE_CREATE) VALUES (?, ?, ?, 0, ?, {at})",
);
static SECRETS: Statement = Statement::new(
    "SELECT ID, NAME, KIND, {time DATE_CREATE} FROM vestnik_token WHERE TENANT_ID = ? ORDER BY ID",
);
static REMOVE_SECRET: Statement =
    Statement::new("DELETE FROM vestnik_token WHERE TENANT_ID = ? AND ID = ?");
static READ_KEY: Statement = Statement::new(
    "SELECT VALUE FROM vestnik_option WHERE TENANT_ID = ? AND SITE_ID = '' AND NAME = ?",
);
static MAKE_KEY: Statement = Statement::new(
    "INSERT INTO vestnik_option (TENANT_ID, SITE_ID, NAME, VALUE) VALUES (?, '', ?, ?) {ignore TENANT_ID, SITE_ID, NAME}",
);
static REPLACE_KEY: Statement = Statement::new(
    "INSERT INTO vestnik_option (TENANT_ID, SITE_ID, NAME, VALUE) VALUES (?, '', ?, ?) {update TENANT_ID, SITE_ID, NAME: VALUE}",
);

/// What is kept of a secret: it is as random as its hash, so one round is enough.
fn hashed(secret: &str) -> String {
    let key = SigningKey::new(Secret::new("vestnik secret".into()), Algorithm::Sha256, None);
    key.sign(&[secret.as_bytes()]).to_string()
}

fn random_hex() -> Result<String, AccessError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| AccessError::Random)?;
    Ok(vestnik_core::receiver::hex(&bytes))
}

impl Service {
    /// Who brings this secret or token; `None` when it is none, is over, or its tenant is switched off.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bearer(&self, text: &str) -> Result<Option<Caller>, ServiceError> {
        if text.len() > 512 {
            return Ok(None);
        }
        if let Some(token) = text.strip_prefix(TOKEN_PREFIX) {
            return self.user_of_token(token).await;
        }
        if !text.starts_with(SECRET_PREFIX) {
            return Ok(None);
        }
        let (hash, now_s) = (hashed(text), self.clock().unix_s());
        let known = self.secrets().get(&hash);
        let found = match known {
            Some((found, read_s)) if now_s < read_s + SECRET_READ_TTL_S => Some(found),
            _ => {
                let rows = self.database().fetch(&FIND_SECRET, &[Value::Text(&hash)]).await?;
                let row =
                    rows.first().map(|row| Ok::<_, DatabaseError>((row.text(0)?, row.text(1)?)));
                let found = row.transpose()?;
                let found = found.and_then(|(host, kind)| Some((host, Right::of_secret(&kind)?)));
                // What is not known is asked for each time: guesses must not push out what is.
                if let Some(found) = &found {
                    self.secrets().insert(hash, (found.clone(), now_s));
                }
                found
            }
        };
        let Some((host_id, right)) = found else { return Ok(None) };
        let tenant = self.tenant(&host_id).await?;
        Ok(tenant.map(|tenant| Caller { tenant, right, user: None, host: String::new() }))
    }

    async fn user_of_token(&self, token: &str) -> Result<Option<Caller>, ServiceError> {
        let Some((claims, signature)) = token.rsplit_once('~') else { return Ok(None) };
        let Some(signature) = Signature::from_hex(signature) else { return Ok(None) };
        let parts: Vec<&str> = claims.split('~').collect();
        let [host_id, user, end_s] = parts[..] else { return Ok(None) };
        let (Ok(user), Ok(end_s)) = (user.parse(), end_s.parse::<u64>()) else { return Ok(None) };
        let Some(tenant) = self.tenant(host_id).await? else { return Ok(None) };
        let keys = tenant.token_keys().await.map_err(|error| match error {
            AccessError::Database(error) => ServiceError::Database(error),
            _ => ServiceError::Random,
        })?;
        let now_s = self.clock().unix_s();
        if !keys.verify(&[b"token:", claims.as_bytes()], &signature, now_s) || end_s <= now_s {
            return Ok(None);
        }
        // No token is issued for longer: one that says so was issued before the clock was set back.
        if end_s > now_s + TOKEN_TTL_MAX_S {
            return Ok(None);
        }
        Ok(Some(Caller { tenant, right: Right::User, user: Some(user), host: String::new() }))
    }
}

impl Tenant {
    /// Whether `signature` over `body` is this tenant's: the check of back ends of generation 5.
    /// `own_keys`: those of the queue server in this process, which the default tenant shares.
    ///
    /// # Errors
    /// When the options cannot be read.
    pub async fn is_signed(
        &self,
        body: &[u8],
        signature: &Signature,
        own_keys: &KeyRing,
    ) -> Result<bool, crate::option::OptionError> {
        let now_s = self.now_s();
        if let Some(key) = self.options("").await?.own_signing_key()
            && KeyRing::new(vec![key.clone()])
                .is_ok_and(|keys| keys.verify(&[body], signature, now_s))
        {
            return Ok(true);
        }
        Ok(self.is_default() && own_keys.verify(&[body], signature, now_s))
    }

    /// Makes a secret, which is shown once: here.
    ///
    /// # Errors
    /// When the name does not fit, there are too many, or the database fails.
    pub async fn add_secret(
        &self,
        name: &str,
        right: Right,
    ) -> Result<Secret<String>, AccessError> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(AccessError::Name);
        }
        if self.secrets().await?.len() >= SECRETS_MAX {
            return Err(AccessError::TooMany);
        }
        let secret = format!("{SECRET_PREFIX}{}", random_hex()?);
        let hash = hashed(&secret);
        let values = [
            Value::Int(self.id()),
            Value::Text(&hash),
            Value::Text(right.name()),
            Value::Text(name),
            Value::Int(i64::try_from(self.now_s()).unwrap_or(i64::MAX)),
        ];
        self.database().execute(&ADD_SECRET, &values).await?;
        Ok(Secret::new(secret))
    }

    /// The secrets there are, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn secrets(&self) -> Result<Vec<SecretEntry>, AccessError> {
        let rows = self.database().fetch(&SECRETS, &[Value::Int(self.id())]).await?;
        let entry = |row: &crate::db::Row| -> Result<Option<SecretEntry>, DatabaseError> {
            let Some(right) = Right::of_secret(&row.text(2)?) else { return Ok(None) };
            let created_s = u64::try_from(row.int(3)?).unwrap_or(0);
            Ok(Some(SecretEntry { id: row.int(0)?, name: row.text(1)?, right, created_s }))
        };
        let entries: Result<Vec<_>, _> = rows.iter().map(entry).collect();
        Ok(entries?.into_iter().flatten().collect())
    }

    /// Removes a secret; other processes take it for some seconds still. Whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_secret(&self, id: i64) -> Result<bool, AccessError> {
        let values = [Value::Int(self.id()), Value::Int(id)];
        let removed = self.database().execute(&REMOVE_SECRET, &values).await?;
        self.service().secrets().clear();
        Ok(removed > 0)
    }

    /// A token with which a page may call the operations of users, as `user` alone, for `life_s`
    /// seconds; and when it ends, unix seconds.
    ///
    /// # Errors
    /// When user or life are out of bounds, or the database fails.
    pub async fn issue_token(&self, user: i64, life_s: u64) -> Result<(String, u64), AccessError> {
        if user == 0 {
            return Err(AccessError::User);
        }
        if !(1..=TOKEN_TTL_MAX_S).contains(&life_s) {
            return Err(AccessError::Life);
        }
        let end_s = self.now_s() + life_s;
        let claims = format!("{}~{user}~{end_s}", self.host_id());
        let keys = self.token_keys().await?;
        let key = keys.signing_key().ok_or(AccessError::Random)?;
        let signature = key.sign(&[b"token:", claims.as_bytes()]);
        Ok((format!("{TOKEN_PREFIX}{claims}~{signature}"), end_s))
    }

    /// Makes all tokens of users worthless that were issued so far; other processes take them for a
    /// minute still.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_tokens(&self) -> Result<(), AccessError> {
        let key = random_hex()?;
        let values = [Value::Int(self.id()), Value::Text(TOKEN_KEY), Value::Text(&key)];
        self.database().execute(&REPLACE_KEY, &values).await?;
        *self.state().token_keys() = None;
        Ok(())
    }

    async fn token_keys(&self) -> Result<Arc<KeyRing>, AccessError> {
        let now_s = self.now_s();
        if let Some((keys, read_s)) = &*self.state().token_keys()
            && now_s < read_s + KEY_READ_TTL_S
        {
            return Ok(Arc::clone(keys));
        }
        let find = [Value::Int(self.id()), Value::Text(TOKEN_KEY)];
        let mut rows = self.database().fetch(&READ_KEY, &find).await?;
        if rows.is_empty() {
            let key = random_hex()?;
            let values = [Value::Int(self.id()), Value::Text(TOKEN_KEY), Value::Text(&key)];
            self.database().execute(&MAKE_KEY, &values).await?;
            rows = self.database().fetch(&READ_KEY, &find).await?;
        }
        let key = rows.first().map(|row| row.text(0)).transpose()?;
        let key = key.map(|key| SigningKey::new(Secret::new(key), Algorithm::Sha256, None));
        let keys = Arc::new(KeyRing::new(key.into_iter().collect()).unwrap_or_default());
        *self.state().token_keys() = Some((Arc::clone(&keys), now_s));
        Ok(keys)
    }
}
