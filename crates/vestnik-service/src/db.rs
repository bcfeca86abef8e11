//! The database: one pool for one of three dialects, statements written once for all of them,
//! transactions, named locks. Nothing else in the program speaks SQL.
//!
//! Moments are whole unix seconds here and `datetime` columns there; which clock the columns show
//! is the time zone of the session (UTC unless [`Database::open`] is told otherwise).

mod foreign;
mod migration;
mod statement;
mod trouble;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions, MySqlRow};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Column, MySql, Postgres, Row as _, Sqlite, TypeInfo, ValueRef};

pub use migration::Tables;
pub use statement::{Statement, Value};
pub use trouble::Trouble;

/// Which SQL is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A file of this process; the default.
    Sqlite,
    /// PostgreSQL 12 and later.
    Postgres,
    /// MySQL 8, MariaDB 10.4 and later.
    MySql,
}

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The address is of no database that is spoken here.
    #[error("a database address starts with sqlite:, postgres:// or mysql://")]
    Address,
    /// The database did not answer as it should; whether a write took effect is unknown.
    #[error("the database failed")]
    Failed(#[from] sqlx::Error),
    /// A column holds what no version of this program or of the PHP module writes.
    #[error("column {column} holds an unexpected value")]
    Value {
        /// Its position in the answer.
        column: usize,
    },
    /// The tables were made by a newer version of this program.
    #[error("the database has version {found}, this program knows versions up to {known}")]
    Newer {
        /// The version of the tables.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// Another process held the lock for too long.
    #[error("the lock {name} was not obtained within {seconds} s")]
    Locked {
        /// The name of the lock.
        name: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// `sqlite:<path>`, `postgres://user:password@host/name` or `mysql://…`.
    pub address: vestnik_core::Secret<String>,
    /// Connections held at most.
    pub connections_max: u32,
    /// How long a connection is waited for.
    pub acquire_timeout: Duration,
}

impl DatabaseOptions {
    /// The options with everything but the address at its default.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: vestnik_core::Secret::new(address.into()),
            connections_max: 8,
            acquire_timeout: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Debug)]
enum Pool {
    Sqlite(sqlx::Pool<Sqlite>),
    Postgres(sqlx::Pool<Postgres>),
    MySql(sqlx::Pool<MySql>),
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    /// Locks of this process; for SQLite, which has none of its own.
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    /// Half of the connections: who holds a lock needs another connection to work.
    lock_places: Arc<tokio::sync::Semaphore>,
}

/// One row of an answer.
pub struct Row(AnyRow);

enum AnyRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

impl Row {
    /// The whole number in `column`; `None` for null.
    ///
    /// # Errors
    /// When there is no number.
    pub fn optional_int(&self, column: usize) -> Result<Option<i64>, DatabaseError> {
        let value = match &self.0 {
            AnyRow::Sqlite(row) => row.try_get(column),
            AnyRow::MySql(row) => row.try_get(column),
            AnyRow::Postgres(row) => match row.try_column(column)?.type_info().name() {
                "INT2" => row.try_get(column).map(|value: Option<i16>| value.map(i64::from)),
                "INT4" => row.try_get(column).map(|value: Option<i32>| value.map(i64::from)),
                _ => row.try_get(column),
            },
        };
        value.map_err(|_| DatabaseError::Value { column })
    }

    /// The whole number in `column`.
    ///
    /// # Errors
    /// When there is none.
    pub fn int(&self, column: usize) -> Result<i64, DatabaseError> {
        self.optional_int(column)?.ok_or(DatabaseError::Value { column })
    }

    /// The text in `column`; `None` for null.
    ///
    /// # Errors
    /// When there is no text, or not in UTF-8.
    pub fn optional_text(&self, column: usize) -> Result<Option<String>, DatabaseError> {
        let value = match &self.0 {
            AnyRow::Sqlite(row) => row.try_get(column),
            AnyRow::Postgres(row) => row.try_get(column),
            // Texts of a binary collation are declared as bytes by some servers.
            AnyRow::MySql(row) => {
                let raw = row.try_get_raw(column)?;
                if raw.is_null() {
                    return Ok(None);
                }
                let bytes: Vec<u8> =
                    row.try_get_unchecked(column).map_err(|_| DatabaseError::Value { column })?;
                let text = String::from_utf8(bytes).map_err(|_| DatabaseError::Value { column })?;
                Ok(Some(text))
            }
        };
        value.map_err(|_| DatabaseError::Value { column })
    }

    /// The text in `column`.
    ///
    /// # Errors
    /// When there is none.
    pub fn text(&self, column: usize) -> Result<String, DatabaseError> {
        self.optional_text(column)?.ok_or(DatabaseError::Value { column })
    }
}

/// A query with one more value. Rows are bound value by value, so a row of rows is nothing.
macro_rules! bind_plain {
    ($query:expr, $value:expr) => {
        match $value {
            Value::Int(value) => $query.bind(*value),
            Value::OptionalInt(value) => $query.bind(*value),
            Value::Text(value) => $query.bind(*value),
            Value::OptionalText(value) => $query.bind(*value),
            Value::Ints(_) | Value::Texts(_) | Value::Pairs(_) | Value::Rows(_) => $query,
        }
    };
}

/// A query with its values.
macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $values {
            query = match value {
                Value::Ints(values) => {
                    statement::padded(values).fold(query, |query, value| query.bind(*value))
                }
                Value::Texts(values) => {
                    statement::padded(values).fold(query, |query, value| query.bind(*value))
                }
                Value::Pairs(pairs) => statement::padded(pairs)
                    .fold(query, |query, (number, text)| query.bind(*number).bind(*text)),
                Value::Rows(rows) => {
                    rows.iter().flatten().fold(query, |query, value| bind_plain!(query, value))
                }
                plain => bind_plain!(query, plain),
            };
        }
        query
    }};
}

/// Runs a query on whatever executor of the dialect is given.
macro_rules! fetch {
    ($sql:expr, $values:expr, $executor:expr, $row:path) => {{
        let rows = bound!($sql, $values).fetch_all($executor).await?;
        rows.into_iter().map(|row| Row($row(row))).collect::<Vec<_>>()
    }};
}

/// The same for a statement whose answer is a number of rows.
macro_rules! execute {
    ($sql:expr, $values:expr, $executor:expr) => {{ bound!($sql, $values).execute($executor).await?.rows_affected() }};
}

impl Database {
    /// Connects and brings the tables to this program's version.
    ///
    /// # Errors
    /// When the database cannot be reached or its tables are of a newer version.
    pub async fn open(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        let database = Self::connected(options).await?;
        migration::run(&database).await?;
        Ok(database)
    }

    /// Connects, whatever tables there are.
    async fn connected(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        let pool = connect(options).await?;
        let places = usize::try_from(options.connections_max / 2).unwrap_or(1).max(1);
        let lock_places = Arc::new(tokio::sync::Semaphore::new(places));
        Ok(Self { pool, locks: Arc::default(), lock_places })
    }

    /// The dialect spoken.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        match self.pool {
            Pool::Sqlite(_) => Dialect::Sqlite,
            Pool::Postgres(_) => Dialect::Postgres,
            Pool::MySql(_) => Dialect::MySql,
        }
    }

    /// Closes all connections, after what is running on them has ended.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
            Pool::MySql(pool) => pool.close().await,
        }
    }

    /// All rows of the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fetch(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let sql = &statement.text(self.dialect(), values);
        Ok(match &self.pool {
            Pool::Sqlite(pool) => fetch!(sql, values, pool, AnyRow::Sqlite),
            Pool::Postgres(pool) => fetch!(sql, values, pool, AnyRow::Postgres),
            Pool::MySql(pool) => fetch!(sql, values, pool, AnyRow::MySql),
        })
    }

    /// Runs a statement; the number of rows it changed. MySQL counts a row replaced by an upsert twice
    /// and one that stayed the same not at all.
    ///
    /// # Errors
    /// When the database fails; whether the statement took effect is unknown then.
    pub async fn execute(
        &self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<u64, DatabaseError> {
        let sql = &statement.text(self.dialect(), values);
        Ok(match &self.pool {
            Pool::Sqlite(pool) => execute!(sql, values, pool),
            Pool::Postgres(pool) => execute!(sql, values, pool),
            Pool::MySql(pool) => execute!(sql, values, pool),
        })
    }

    /// Fails when SQLite, without statistics as it is here, would look through a whole table.
    #[cfg(test)]
    pub(crate) async fn assert_indexed(&self, statement: &Statement, values: &[Value<'_>]) {
        let sql = format!("EXPLAIN QUERY PLAN {}", statement.text(self.dialect(), values));
        let Pool::Sqlite(pool) = &self.pool else { panic!("SQLite explains") };
        let rows = bound!(&sql, values).fetch_all(pool).await.expect("it explains");
        let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let is_slow = |step: &String| {
            let is_ours = step.contains("b_pull") || step.contains("vestnik");
            // By the tenant alone is everything of a tenant.
            is_ours && (step.starts_with("SCAN") || step.ends_with("(TENANT_ID=?)"))
        };
        assert!(!steps.iter().any(is_slow), "{sql}\n{steps:#?}");
        let sorts = steps.iter().any(|step| step.contains("TEMP B-TREE FOR ORDER BY"));
        assert!(!sorts || !sql.contains("LIMIT"), "all is sorted for some: {sql}\n{steps:#?}");
    }

    /// Begins a transaction; it is undone unless it is committed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(&self) -> Result<Transaction, DatabaseError> {
        Ok(Transaction(match &self.pool {
            // A transaction that turns from reading to writing could not wait for another writer.
            Pool::Sqlite(pool) => AnyTransaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Pool::Postgres(pool) => AnyTransaction::Postgres(pool.begin().await?),
            Pool::MySql(pool) => AnyTransaction::MySql(pool.begin().await?),
        }))
    }

    /// Takes the lock called `name`, which all processes on this database share; `None` when it is
    /// not obtained within `wait`. Dropping the guard gives it back.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock(&self, name: &str, wait: Duration) -> Result<Option<Guard>, DatabaseError> {
        if let Pool::Sqlite(_) = &self.pool {
            return Ok(self.lock_here(name, wait).await.map(|held| Guard(held, None)));
        }
        let place = Arc::clone(&self.lock_places).acquire_owned().await;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let held = match &self.pool {
            Pool::Sqlite(_) => None,
            Pool::Postgres(pool) => lock_postgres(pool.acquire().await?, name, wait).await?,
            Pool::MySql(pool) => lock_mysql(pool.acquire().await?, name, wait).await?,
        };
        Ok(held.map(|held| Guard(held, Some(place))))
    }

    async fn lock_here(&self, name: &str, wait: Duration) -> Option<Held> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(name.to_owned()).or_default())
        };
        let guard = tokio::time::timeout(wait, lock.lock_owned()).await.ok()?;
        Some(Held::Here { _guard: guard })
    }
}

async fn connect(options: &DatabaseOptions) -> Result<Pool, DatabaseError> {
    let address = options.address.expose();
    let scheme = address.split(':').next().unwrap_or_default();
    let (max, wait) = (options.connections_max.max(2), options.acquire_timeout);
    match scheme {
        "sqlite" => {
            let connect = SqliteConnectOptions::from_str(address)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // What was answered must survive a power loss.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(wait)
                .foreign_keys(true);
            keep_private(connect.get_filename())?;
            let pool = SqlitePoolOptions::new().max_connections(max).acquire_timeout(wait);
            // Each is a thread and some 200 KB, and made again in a millisecond. They are used in turn, so
            // what little there always is to do keeps one or two within this time and would keep all within
            // a longer one. One that is used is as good as a new one.
            let pool = pool.min_connections(1).idle_timeout(Duration::from_secs(5));
            let pool = pool.max_lifetime(None);
            Ok(Pool::Sqlite(pool.test_before_acquire(false).connect_with(connect).await?))
        }
        "postgres" | "postgresql" => {
            let connect = PgConnectOptions::from_str(address)?.options([("timezone", "UTC")]);
            let pool = PgPoolOptions::new().max_connections(max).acquire_timeout(wait);
            Ok(Pool::Postgres(pool.connect_with(connect).await?))
        }
        "mysql" | "mariadb" => {
            let address = address.replacen("mariadb:", "mysql:", 1);
            let connect = MySqlConnectOptions::from_str(&address)?;
            let pool = MySqlPoolOptions::new().max_connections(max).acquire_timeout(wait);
            Ok(Pool::MySql(pool.connect_with(connect).await?))
        }
        _ => Err(DatabaseError::Address),
    }
}

/// Makes the file, if it is not there, so that nobody else reads the keys in it. SQLite gives the files
/// it makes beside it the same rights.
fn keep_private(path: &std::path::Path) -> Result<(), DatabaseError> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|error| DatabaseError::Failed(sqlx::Error::Io(error)))
}

enum AnyTransaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
    MySql(sqlx::Transaction<'static, MySql>),
}

/// A transaction: undone when it is dropped without [`Transaction::commit`].
pub struct Transaction(AnyTransaction);

impl Transaction {
    const fn dialect(&self) -> Dialect {
        match self.0 {
            AnyTransaction::Sqlite(_) => Dialect::Sqlite,
            AnyTransaction::Postgres(_) => Dialect::Postgres,
            AnyTransaction::MySql(_) => Dialect::MySql,
        }
    }

    /// All rows of the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn fetch(
        &mut self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let sql = &statement.text(self.dialect(), values);
        Ok(match &mut self.0 {
            AnyTransaction::Sqlite(it) => fetch!(sql, values, &mut **it, AnyRow::Sqlite),
            AnyTransaction::Postgres(it) => fetch!(sql, values, &mut **it, AnyRow::Postgres),
            AnyTransaction::MySql(it) => fetch!(sql, values, &mut **it, AnyRow::MySql),
        })
    }

    /// Runs a statement; the number of rows it changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn execute(
        &mut self,
        statement: &Statement,
        values: &[Value<'_>],
    ) -> Result<u64, DatabaseError> {
        let sql = &statement.text(self.dialect(), values);
        Ok(match &mut self.0 {
            AnyTransaction::Sqlite(it) => execute!(sql, values, &mut **it),
            AnyTransaction::Postgres(it) => execute!(sql, values, &mut **it),
            AnyTransaction::MySql(it) => execute!(sql, values, &mut **it),
        })
    }

    /// Makes it all true.
    ///
    /// # Errors
    /// When the database fails; whether it took effect is unknown then.
    pub async fn commit(self) -> Result<(), DatabaseError> {
        match self.0 {
            AnyTransaction::Sqlite(it) => it.commit().await?,
            AnyTransaction::Postgres(it) => it.commit().await?,
            AnyTransaction::MySql(it) => it.commit().await?,
        }
        Ok(())
    }
}

/// A named lock that is held. [`Guard::release`] gives it back at once; dropping it closes the
/// connection that holds it, so that it never outlives a cancelled call.
pub struct Guard(
    Held,
    #[expect(dead_code, reason = "held until the guard is dropped")]
    Option<tokio::sync::OwnedSemaphorePermit>,
);

enum Held {
    Here { _guard: tokio::sync::OwnedMutexGuard<()> },
    Postgres { connection: Option<PoolConnection<Postgres>>, number: i64 },
    MySql { connection: Option<PoolConnection<MySql>>, name: String },
}

impl Guard {
    /// Gives the lock back.
    ///
    /// # Errors
    /// When the database fails; the lock ends with the connection then.
    pub async fn release(mut self) -> Result<(), DatabaseError> {
        match &mut self.0 {
            Held::Here { .. } => {}
            Held::Postgres { connection, number } => {
                if let Some(open) = connection.as_mut() {
                    sqlx::query("SELECT pg_advisory_unlock($1)")
                        .bind(*number)
                        .execute(&mut **open)
                        .await?;
                    drop(connection.take());
                }
            }
            Held::MySql { connection, name } => {
                if let Some(open) = connection.as_mut() {
                    sqlx::query("SELECT RELEASE_LOCK(?)").bind(&*name).execute(&mut **open).await?;
                    drop(connection.take());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match &mut self.0 {
            Held::Here { .. } => {}
            Held::Postgres { connection, .. } => {
                drop(connection.take().map(PoolConnection::detach))
            }
            Held::MySql { connection, .. } => drop(connection.take().map(PoolConnection::detach)),
        }
    }
}

/// How often a lock of PostgreSQL is tried.
const LOCK_RETRY: Duration = Duration::from_millis(20);

async fn lock_postgres(
    connection: PoolConnection<Postgres>,
    name: &str,
    wait: Duration,
) -> Result<Option<Held>, DatabaseError> {
    // Advisory locks have numbers for names.
    let number = lock_number(name);
    let mut held = Guard(Held::Postgres { connection: Some(connection), number }, None);
    let end = tokio::time::Instant::now() + wait;
    loop {
        let Held::Postgres { connection: Some(open), .. } = &mut held.0 else { return Ok(None) };
        let query = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(number);
        if query.fetch_one(&mut **open).await?.try_get(0)? {
            return Ok(Some(std::mem::replace(
                &mut held.0,
                Held::Postgres { connection: None, number },
            )));
        }
        if tokio::time::Instant::now() >= end {
            if let Held::Postgres { connection, .. } = &mut held.0 {
                drop(connection.take());
            }
            return Ok(None);
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}

async fn lock_mysql(
    connection: PoolConnection<MySql>,
    name: &str,
    wait: Duration,
) -> Result<Option<Held>, DatabaseError> {
    // Names of locks are limited to 64 characters.
    let name: String = if name.len() <= 64 { name.to_owned() } else { crate::php::md5_hex(name) };
    let mut held = Guard(Held::MySql { connection: Some(connection), name: name.clone() }, None);
    let Held::MySql { connection: Some(open), .. } = &mut held.0 else { return Ok(None) };
    let query = sqlx::query("SELECT GET_LOCK(?, ?)").bind(&name).bind(wait.as_secs_f64());
    let answer: Option<i64> = query.fetch_one(&mut **open).await?.try_get(0)?;
    if answer == Some(1) {
        return Ok(Some(std::mem::replace(&mut held.0, Held::MySql { connection: None, name })));
    }
    if let Held::MySql { connection, .. } = &mut held.0 {
        drop(connection.take());
    }
    Ok(None)
}

/// The number of the lock called `name`: the first half of its MD5.
fn lock_number(name: &str) -> i64 {
    let mut half = [0; 8];
    half.copy_from_slice(&crate::php::md5(name.as_bytes())[..8]);
    i64::from_be_bytes(half)
}
