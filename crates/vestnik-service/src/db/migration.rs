//! Versions of the tables. A migration is never changed once it was released; a new one follows.

use std::time::Duration;

use super::statement::{Statement, Value, render};
use super::{Database, DatabaseError, Dialect};

/// Every migration in order; its place plus one is its version.
const MIGRATIONS: [(&str, &str); 4] = [
    ("tables", include_str!("../migrations/0001_tables.sql")),
    ("outbox", include_str!("../migrations/0002_outbox.sql")),
    ("administrators", include_str!("../migrations/0003_administrators.sql")),
    ("push", include_str!("../migrations/0004_push.sql")),
];

/// Tables of the PHP module; where they exist already, our column is added.
const ADOPTED: [&str; 5] =
    ["b_pull_channel", "b_pull_watch", "b_pull_stack", "b_pull_push", "b_pull_push_queue"];

const LOCK: &str = "vestnik_migration";
const LOCK_WAIT: Duration = Duration::from_secs(60);

static TABLE: Statement = Statement::new(
    "CREATE TABLE IF NOT EXISTS vestnik_migration (VERSION INT NOT NULL PRIMARY KEY, NAME VARCHAR(100) NOT NULL){options}",
);
static NEWEST: Statement = Statement::new("SELECT MAX(VERSION) FROM vestnik_migration");
static DONE: Statement =
    Statement::new("INSERT INTO vestnik_migration (VERSION, NAME) VALUES (?, ?)");

/// What is there of our tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// Nothing.
    None,
    /// The tables of this version of the program.
    Current,
    /// Those of an older one.
    Older,
}

impl Tables {
    /// Looks at a database without changing anything in it.
    ///
    /// # Errors
    /// When it cannot be reached, or its tables are of a newer version.
    pub async fn at(options: &super::DatabaseOptions) -> Result<Self, DatabaseError> {
        if options.address.expose().starts_with("sqlite:") {
            let connect = options.address.expose().parse::<sqlx::sqlite::SqliteConnectOptions>()?;
            if !connect.get_filename().exists() {
                return Ok(Self::None);
            }
        }
        let database = Database::connected(options).await?;
        let version = match database.fetch(&NEWEST, &[]).await {
            Ok(rows) => rows.first().map_or(Ok(None), |row| row.optional_int(0))?,
            // SQLite has no code of its own for it.
            Err(DatabaseError::Failed(sqlx::Error::Database(_))) => None,
            Err(error) => return Err(error),
        };
        database.close().await;
        let known = MIGRATIONS.len() as i64;
        match version {
            None | Some(0) => Ok(Self::None),
            Some(found) if found > known => Err(DatabaseError::Newer { found, known }),
            Some(found) if found < known => Ok(Self::Older),
            Some(_) => Ok(Self::Current),
        }
    }
}

/// Runs what was not run yet; processes that start together take turns.
pub(super) async fn run(database: &Database) -> Result<(), DatabaseError> {
    let Some(guard) = database.lock(LOCK, LOCK_WAIT).await? else {
        return Err(DatabaseError::Locked { name: LOCK.into(), seconds: LOCK_WAIT.as_secs() });
    };
    let result = run_locked(database).await;
    guard.release().await?;
    result
}

async fn run_locked(database: &Database) -> Result<(), DatabaseError> {
    database.execute(&TABLE, &[]).await?;
    let newest = database.fetch(&NEWEST, &[]).await?;
    let found = newest.first().map_or(Ok(None), |row| row.optional_int(0))?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(DatabaseError::Newer { found, known });
    }
    let due = || (1..).zip(MIGRATIONS).filter(|(version, _)| *version > found);
    if let super::Pool::Sqlite(pool) = &database.pool {
        return apply_at_once(database, pool, due()).await;
    }
    for (version, (name, script)) in due() {
        tracing::info!(version, name, "changing the tables");
        apply(database, script).await?;
        database.execute(&DONE, &[Value::Int(version), Value::Text(name)]).await?;
    }
    Ok(())
}

/// Runs scripts in one transaction: each of theirs would wait for the disk.
async fn apply_at_once(
    database: &Database,
    pool: &sqlx::Pool<sqlx::Sqlite>,
    due: impl Iterator<Item = (i64, (&str, &str))>,
) -> Result<(), DatabaseError> {
    for table in ADOPTED {
        adopt(database, table).await?;
    }
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    for (version, (name, script)) in due {
        tracing::info!(version, name, "changing the tables");
        for statement in statements(script) {
            let sql = render(&statement, Dialect::Sqlite, &[]);
            match sqlx::query(&sql).execute(&mut *transaction).await.map_err(DatabaseError::from) {
                Err(error) if is_existing_index(&error) => {}
                other => _ = other?,
            }
        }
        let done = sqlx::query("INSERT INTO vestnik_migration (VERSION, NAME) VALUES (?, ?)");
        done.bind(version).bind(name).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// The statements of a script.
fn statements(script: &str) -> Vec<String> {
    let script: String = script.lines().filter(|line| !line.starts_with("--")).collect();
    script.split(';').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// Runs a script. Interrupted, it may be run again: tables and indexes that exist are left alone.
async fn apply(database: &Database, script: &str) -> Result<(), DatabaseError> {
    for table in ADOPTED {
        adopt(database, table).await?;
    }
    for statement in statements(script) {
        let sql = render(&statement, database.dialect(), &[]);
        let result = run_raw(database, &sql).await;
        match result {
            Err(error) if is_existing_index(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Adds our column to a table that the PHP module made.
async fn adopt(database: &Database, table: &str) -> Result<(), DatabaseError> {
    let is_there = run_raw(database, &format!("SELECT 1 FROM {table} WHERE 1 = 0")).await.is_ok();
    let column = format!("SELECT TENANT_ID FROM {table} WHERE 1 = 0");
    if is_there && run_raw(database, &column).await.is_err() {
        tracing::info!(table, "taking over a table of the PHP module");
        let sql = format!("ALTER TABLE {table} ADD COLUMN TENANT_ID INT NOT NULL DEFAULT 1");
        run_raw(database, &sql).await?;
    }
    Ok(())
}

async fn run_raw(database: &Database, sql: &str) -> Result<(), DatabaseError> {
    match &database.pool {
        super::Pool::Sqlite(pool) => _ = sqlx::query(sql).execute(pool).await?,
        super::Pool::Postgres(pool) => _ = sqlx::query(sql).execute(pool).await?,
        super::Pool::MySql(pool) => _ = sqlx::query(sql).execute(pool).await?,
    }
    Ok(())
}

/// Whether an index was not made because it is there; not every dialect has a word for that.
fn is_existing_index(error: &DatabaseError) -> bool {
    let DatabaseError::Failed(sqlx::Error::Database(error)) = error else { return false };
    let code = error.code();
    match Dialect::of(error.as_ref()) {
        Some(Dialect::Postgres) => code.as_deref() == Some("42P07"),
        Some(Dialect::MySql) => {
            let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
            error.is_some_and(|error| error.number() == 1061)
        }
        Some(Dialect::Sqlite) => error.message().ends_with("already exists"),
        None => false,
    }
}

impl Dialect {
    pub(super) fn of(error: &dyn sqlx::error::DatabaseError) -> Option<Self> {
        if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            Some(Self::Sqlite)
        } else if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
            Some(Self::Postgres)
        } else {
            let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
            error.map(|_| Self::MySql)
        }
    }
}
