//! Who may use the pages of administrators, and for how long a browser is remembered.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use crate::db::{DatabaseError, Row, Statement, Value};
use crate::tenant::Service;

/// The shortest password, in characters.
pub const PASSWORD_CHARACTERS_MIN: usize = 10;
const PASSWORD_BYTES_MAX: usize = 1024;
const LOGIN_BYTES_MAX: usize = 100;
/// The login of the first administrator.
pub const FIRST_LOGIN: &str = "admin";

/// What an administrator may do: the rights of the PHP module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// See everything but secrets: right `R`.
    Read,
    /// Change everything: right `W`.
    Write,
}

impl Access {
    /// Its letter.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Read => "R",
            Self::Write => "W",
        }
    }

    /// The right with this letter.
    #[must_use]
    pub fn of_letter(letter: &str) -> Option<Self> {
        [Self::Read, Self::Write].into_iter().find(|it| it.letter().eq_ignore_ascii_case(letter))
    }
}

/// One administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// The name to sign in with.
    pub login: String,
    /// What they may do.
    pub access: Access,
    /// When they were added, unix seconds.
    pub made_s: i64,
}

/// A browser that has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub login: String,
    /// What they may do, as of now.
    pub access: Access,
    /// The secret that forms carry, so that no other page can send them.
    pub form_key: String,
    /// When it ends, unix seconds.
    pub ends_s: i64,
}

/// Why administrators cannot be changed or let in.
#[derive(Debug, thiserror::Error)]
pub enum AdministratorError {
    /// The database failed.
    #[error("the database of the module failed")]
    Database(#[from] DatabaseError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// The password is too short or too long.
    #[error("a password has {PASSWORD_CHARACTERS_MIN} to {PASSWORD_BYTES_MAX} characters")]
    Password,
    /// The login cannot be one.
    #[error("a login has 1 to {LOGIN_BYTES_MAX} letters, digits, `.`, `_`, `-` and `@`")]
    Login,
    /// There is nobody of that name.
    #[error("there is no administrator `{0}`")]
    Unknown(String),
    /// Without them nobody could change anything.
    #[error("`{0}` is the last administrator who may write")]
    Last(String),
    /// The password could not be hashed.
    #[error("the password could not be hashed: {0}")]
    Hash(argon2::password_hash::Error),
}

static LIST: Statement = Statement::new(
    "SELECT LOGIN, ACCESS, {time DATE_CREATE} FROM vestnik_administrator ORDER BY LOGIN",
);
static HASH: Statement =
    Statement::new("SELECT PASSWORD_HASH FROM vestnik_administrator WHERE LOGIN = ?");
static SAVE: Statement = Statement::new(
    "INSERT INTO vestnik_administrator (LOGIN, PASSWORD_HASH, ACCESS, DATE_CREATE) VALUES (?, ?, ?, {at}) {update LOGIN: PASSWORD_HASH, ACCESS}",
);
static SAVE_FIRST: Statement = Statement::new(
    "INSERT INTO vestnik_administrator (LOGIN, PASSWORD_HASH, ACCESS, DATE_CREATE) VALUES (?, ?, ?, {at}) {ignore LOGIN}",
);
static REMOVE: Statement = Statement::new("DELETE FROM vestnik_administrator WHERE LOGIN = ?");
static BEGIN_SESSION: Statement = Statement::new(
    "INSERT INTO vestnik_session (TOKEN_HASH, LOGIN, FORM_KEY, DATE_EXPIRE) VALUES (?, ?, ?, {at})",
);
static SESSION: Statement = Statement::new(
    "SELECT s.LOGIN, a.ACCESS, s.FORM_KEY, {time s.DATE_EXPIRE} FROM vestnik_session s JOIN vestnik_administrator a ON a.LOGIN = s.LOGIN WHERE s.TOKEN_HASH = ?",
);
static PROLONG: Statement =
    Statement::new("UPDATE vestnik_session SET DATE_EXPIRE = {at} WHERE TOKEN_HASH = ?");
static END_SESSION: Statement = Statement::new("DELETE FROM vestnik_session WHERE TOKEN_HASH = ?");
static END_SESSIONS_OF: Statement = Statement::new("DELETE FROM vestnik_session WHERE LOGIN = ?");
static FORGET_SESSIONS: Statement =
    Statement::new("DELETE FROM vestnik_session WHERE DATE_EXPIRE < {at}");

fn administrator(row: &Row) -> Result<Administrator, DatabaseError> {
    let access = Access::of_letter(&row.text(1)?).unwrap_or(Access::Read);
    Ok(Administrator { login: row.text(0)?, access, made_s: row.int(2)? })
}

fn hash(password: &str) -> Result<String, AdministratorError> {
    let is_good = password.chars().count() >= PASSWORD_CHARACTERS_MIN;
    if !is_good || password.len() > PASSWORD_BYTES_MAX {
        return Err(AdministratorError::Password);
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| AdministratorError::Random)?;
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    Ok(hash.map_err(AdministratorError::Hash)?.to_string())
}

/// What is verified for a login that does not exist, so that it takes as long.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn verify(password: &str, hash: &str) -> bool {
    let hash = argon2::password_hash::phc::PasswordHash::new(hash);
    hash.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Hashing takes a tenth of a second and must not hold up others.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AdministratorError> {
    // It fails when the work has panicked, or the program is ending.
    tokio::task::spawn_blocking(work).await.map_err(|_| AdministratorError::Random)
}

/// A random secret: 32 hex digits for every 16 bytes.
fn secret() -> Result<String, AdministratorError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| AdministratorError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A password that can be read aloud: five groups of four, 100 bits.
///
/// # Errors
/// When the system gives no random bytes.
pub fn random_password() -> Result<String, AdministratorError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|_| AdministratorError::Random)?;
    let letters: Vec<u8> = bytes.iter().map(|byte| LETTERS[usize::from(byte & 31)]).collect();
    let groups: Vec<_> = letters.chunks(4).map(String::from_utf8_lossy).collect();
    Ok(groups.join("-"))
}

fn is_login(login: &str) -> bool {
    (1..=LOGIN_BYTES_MAX).contains(&login.len())
        && login.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte))
}

fn token_hash(token: &str) -> String {
    vestnik_core::sign::Key::new(
        vestnik_core::Secret::new("vestnik session".to_owned()),
        vestnik_core::sign::Algorithm::Sha256,
        None,
    )
    .sign(&[token.as_bytes()])
    .to_string()
}

impl Service {
    /// All administrators, by login.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn administrators(&self) -> Result<Vec<Administrator>, AdministratorError> {
        let rows = self.database().fetch(&LIST, &[]).await?;
        Ok(rows.iter().map(administrator).collect::<Result<_, _>>()?)
    }

    /// Where nobody is an administrator yet, makes the first one, who may do everything, with a random
    /// password: it is returned and kept nowhere.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn make_first_administrator(&self) -> Result<Option<String>, AdministratorError> {
        if !self.administrators().await?.is_empty() {
            return Ok(None);
        }
        let password = random_password()?;
        let hashed = password.clone();
        let hash = aside(move || hash(&hashed)).await??;
        let values = [
            Value::Text(FIRST_LOGIN),
            Value::Text(&hash),
            Value::Text(Access::Write.letter()),
            self.moment(0),
        ];
        let made = self.database().execute(&SAVE_FIRST, &values).await?;
        Ok((made > 0).then_some(password))
    }

    /// Adds an administrator or gives one another password and right. Their browsers have to sign in
    /// again.
    ///
    /// # Errors
    /// When login or password cannot be one, nobody who may write would be left, or the database fails.
    pub async fn save_administrator(
        &self,
        login: &str,
        password: &str,
        access: Access,
    ) -> Result<(), AdministratorError> {
        if !is_login(login) {
            return Err(AdministratorError::Login);
        }
        if access == Access::Read {
            self.must_not_be_last(login).await?;
        }
        let password = password.to_owned();
        let hash = aside(move || hash(&password)).await??;
        let letter = access.letter();
        let values = [Value::Text(login), Value::Text(&hash), Value::Text(letter), self.moment(0)];
        self.database().execute(&SAVE, &values).await?;
        self.database().execute(&END_SESSIONS_OF, &[Value::Text(login)]).await?;
        Ok(())
    }

    /// Removes an administrator and ends their sessions.
    ///
    /// # Errors
    /// When there is none of that name, nobody who may write would be left, or the database fails.
    pub async fn remove_administrator(&self, login: &str) -> Result<(), AdministratorError> {
        self.must_not_be_last(login).await?;
        let removed = self.database().execute(&REMOVE, &[Value::Text(login)]).await?;
        self.database().execute(&END_SESSIONS_OF, &[Value::Text(login)]).await?;
        if removed == 0 { Err(AdministratorError::Unknown(login.to_owned())) } else { Ok(()) }
    }

    async fn must_not_be_last(&self, login: &str) -> Result<(), AdministratorError> {
        let all = self.administrators().await?;
        let (of_them, others): (Vec<_>, Vec<_>) =
            all.iter().filter(|it| it.access == Access::Write).partition(|it| it.login == login);
        if !of_them.is_empty() && others.is_empty() {
            return Err(AdministratorError::Last(login.to_owned()));
        }
        Ok(())
    }

    /// The administrator of that name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn administrator(
        &self,
        login: &str,
    ) -> Result<Option<Administrator>, AdministratorError> {
        Ok(self.administrators().await?.into_iter().find(|it| it.login == login))
    }

    /// Whether the password is that of the login. Takes as long for a login that does not exist.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn checks_password(
        &self,
        login: &str,
        password: &str,
    ) -> Result<bool, AdministratorError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let rows = self.database().fetch(&HASH, &[Value::Text(login)]).await?;
        let known = rows.first().map(|row| row.text(0)).transpose()?;
        let is_known = known.is_some();
        let (password, hash) = (password.to_owned(), known.unwrap_or_else(|| NOBODY.to_owned()));
        Ok(aside(move || verify(&password, &hash)).await? && is_known)
    }

    /// Begins a session of `lifetime_s` seconds: the secret for the browser.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_session(
        &self,
        login: &str,
        lifetime_s: u64,
    ) -> Result<String, AdministratorError> {
        let (token, form_key) = (secret()?, secret()?);
        let hash = token_hash(&token);
        let ends = self.moment(lifetime_s);
        let values = [Value::Text(&hash), Value::Text(login), Value::Text(&form_key), ends];
        self.database().execute(&FORGET_SESSIONS, &[self.moment(0)]).await?;
        self.database().execute(&BEGIN_SESSION, &values).await?;
        Ok(token)
    }

    /// The session with this secret, if it is still one. Half through its lifetime it is prolonged.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(
        &self,
        token: &str,
        lifetime_s: u64,
    ) -> Result<Option<Session>, AdministratorError> {
        let hash = token_hash(token);
        let rows = self.database().fetch(&SESSION, &[Value::Text(&hash)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let access = Access::of_letter(&row.text(1)?).unwrap_or(Access::Read);
        let session =
            Session { login: row.text(0)?, access, form_key: row.text(2)?, ends_s: row.int(3)? };
        let now_s = i64::try_from(self.clock().unix_s()).unwrap_or(i64::MAX);
        if session.ends_s <= now_s {
            return Ok(None);
        }
        let half = i64::try_from(lifetime_s / 2).unwrap_or(i64::MAX);
        if session.ends_s < now_s.saturating_add(half) {
            let values = [self.moment(lifetime_s), Value::Text(&hash)];
            self.database().execute(&PROLONG, &values).await?;
        }
        Ok(Some(session))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_session(&self, token: &str) -> Result<(), AdministratorError> {
        let hash = token_hash(token);
        self.database().execute(&END_SESSION, &[Value::Text(&hash)]).await?;
        Ok(())
    }

    /// The moment in so many seconds.
    fn moment(&self, in_s: u64) -> Value<'static> {
        let at = self.clock().unix_s().saturating_add(in_s);
        Value::Int(i64::try_from(at).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other_is() {
        let hash = hash("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(verify("correct horse", &hash));
        assert!(!verify("correct horsf", &hash));
        assert!(!verify("", NOBODY));
        assert!(!verify("correct horse", "no hash"));
        assert!(matches!(super::hash("too short"), Err(AdministratorError::Password)));
    }

    #[test]
    fn random_passwords_differ_and_can_be_typed() {
        let password = random_password().unwrap();
        assert_eq!(password.len(), 24);
        assert!(password.split('-').all(|group| group.len() == 4));
        assert_ne!(password, random_password().unwrap());
    }

    #[test]
    fn logins_have_few_letters() {
        for good in ["admin", "a.b-c_d@example.test", "1"] {
            assert!(is_login(good), "{good}");
        }
        for bad in ["", "a b", "<b>", "имя", &"x".repeat(101)] {
            assert!(!is_login(bad), "{bad}");
        }
    }
}
