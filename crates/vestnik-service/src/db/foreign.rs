//! Databases of somebody else: they are read, never changed.

use std::collections::HashSet;
use std::str::FromStr as _;

use sqlx::Executor as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{Database, DatabaseError, DatabaseOptions, Pool, Statement, Value};

static COLUMNS_MYSQL: Statement = Statement::new(
    "SELECT COLUMN_NAME FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?",
);
static COLUMNS_POSTGRES: Statement = Statement::new(
    "SELECT CAST(column_name AS text) FROM information_schema.columns WHERE table_schema = ANY(current_schemas(false)) AND table_name = ?",
);

/// What a session would have without this program: sqlx sets the zone of each to UTC, and what stands in the
/// server's file then is seen in the zone of its log alone, which is the same wherever nobody changed one of them.
const ZONE_POSTGRES: &str = "SELECT COALESCE((SELECT split_part(one, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) one \
     WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
     AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user)) AND lower(one) LIKE 'timezone=%' \
     ORDER BY s.setrole = 0, s.setdatabase = 0 LIMIT 1), current_setting('log_timezone'))";

static IN_FORCE_MYSQL: Statement = Statement::new(
    "SELECT CASE WHEN @@session.time_zone = 'SYSTEM' THEN @@system_time_zone ELSE @@session.time_zone END",
);
static IN_FORCE_POSTGRES: Statement = Statement::new("SELECT current_setting('TimeZone')");

impl Database {
    /// Connects to a database of another program. Sessions are read-only, nothing is created, and moments are
    /// those of `time_zone`, or of the server's own zone where none is given.
    ///
    /// # Errors
    /// When the address is neither of MySQL nor of PostgreSQL, or the database cannot be reached.
    pub async fn open_foreign(
        options: &DatabaseOptions,
        time_zone: Option<&str>,
    ) -> Result<Self, DatabaseError> {
        let address = options.address.expose();
        let wait = options.acquire_timeout;
        let max = options.connections_max.max(1);
        let pool = match address.split(':').next().unwrap_or_default() {
            "postgres" | "postgresql" => {
                let connect = PgConnectOptions::from_str(address)?
                    .options([("default_transaction_read_only", "on")]);
                let pool = PgPoolOptions::new().max_connections(max).acquire_timeout(wait);
                let zone = time_zone.map(str::to_owned);
                let pool = pool.after_connect(move |connection, _| {
                    let zone = zone.clone();
                    Box::pin(async move {
                        let zone = match zone {
                            Some(zone) => zone,
                            None => {
                                sqlx::query_scalar(ZONE_POSTGRES)
                                    .fetch_one(&mut *connection)
                                    .await?
                            }
                        };
                        let set =
                            sqlx::query("SELECT set_config('TimeZone', $1, false)").bind(zone);
                        set.execute(&mut *connection).await.map(drop)
                    })
                });
                Pool::Postgres(pool.connect_with(connect).await?)
            }
            "mysql" | "mariadb" => {
                let address = address.replacen("mariadb:", "mysql:", 1);
                let connect =
                    MySqlConnectOptions::from_str(&address)?.timezone(time_zone.map(str::to_owned));
                let pool = MySqlPoolOptions::new().max_connections(max).acquire_timeout(wait);
                let pool = pool.after_connect(|connection, _| {
                    Box::pin(async move {
                        connection.execute("SET SESSION TRANSACTION READ ONLY").await.map(drop)
                    })
                });
                Pool::MySql(pool.connect_with(connect).await?)
            }
            _ => return Err(DatabaseError::Address),
        };
        let lock_places = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        Ok(Self { pool, locks: std::sync::Arc::default(), lock_places })
    }

    /// The zone that moments of a foreign database are read in.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn time_zone(&self) -> Result<String, DatabaseError> {
        let statement = match &self.pool {
            Pool::Postgres(_) => &IN_FORCE_POSTGRES,
            Pool::MySql(_) => &IN_FORCE_MYSQL,
            Pool::Sqlite(_) => return Err(DatabaseError::Address),
        };
        let rows = self.fetch(statement, &[]).await?;
        rows.first().map_or(Ok(String::new()), |row| row.text(0))
    }

    /// The names of a table's columns in upper case; empty where there is no such table.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn columns(&self, table: &str) -> Result<HashSet<String>, DatabaseError> {
        let statement = match &self.pool {
            Pool::Postgres(_) => &COLUMNS_POSTGRES,
            Pool::MySql(_) => &COLUMNS_MYSQL,
            Pool::Sqlite(_) => return Err(DatabaseError::Address),
        };
        let rows = self.fetch(statement, &[Value::Text(table)]).await?;
        rows.iter().map(|row| Ok(row.text(0)?.to_ascii_uppercase())).collect()
    }
}
