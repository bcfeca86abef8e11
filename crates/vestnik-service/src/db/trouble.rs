//! What is behind an error of a database, where somebody can do something about it.

use super::{DatabaseError, Dialect};

/// A cause that has a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers at the address.
    Unreachable,
    /// The name or the password is wrong.
    Password,
    /// The server has no such database.
    NoDatabase,
    /// The database has no such table or column.
    NoTable,
    /// The user may not do this.
    Forbidden,
    /// Texts are in an encoding that cannot be read as Unicode.
    Encoding,
    /// An encrypted connection failed.
    Encryption,
}

impl DatabaseError {
    /// What is behind the error; `None`: nothing that is known here.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        let Self::Failed(error) = self else { return None };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => Some(Trouble::Unreachable),
            sqlx::Error::Tls(_) => Some(Trouble::Encryption),
            sqlx::Error::Database(error) => of_database(error.as_ref()),
            _ => None,
        }
    }
}

fn of_database(error: &dyn sqlx::error::DatabaseError) -> Option<Trouble> {
    match Dialect::of(error)? {
        Dialect::Postgres => match error.code()?.as_ref() {
            "28P01" | "28000" => Some(Trouble::Password),
            "3D000" => Some(Trouble::NoDatabase),
            "42P01" | "42703" | "3F000" => Some(Trouble::NoTable),
            "42501" => Some(Trouble::Forbidden),
            "22021" | "22P05" => Some(Trouble::Encoding),
            _ => None,
        },
        Dialect::MySql => {
            let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?;
            match error.number() {
                1045 | 1698 | 1251 => Some(Trouble::Password),
                1049 => Some(Trouble::NoDatabase),
                1146 | 1054 => Some(Trouble::NoTable),
                1044 | 1130 | 1142 | 1143 => Some(Trouble::Forbidden),
                1115 | 1366 => Some(Trouble::Encoding),
                _ => None,
            }
        }
        Dialect::Sqlite => None,
    }
}
