//! Taking over the data of a Bitrix site: from its database and its configuration files into the tables of a
//! tenant (module.md §18). The site's database is only read, in portions, and what was taken over once is the
//! same the second time.
//!
//! Events that wait in `b_pull_stack` and pushes that wait in `b_pull_push_queue` are left alone: they live for
//! minutes, and the site itself delivers them; taken over they would arrive twice.

mod rows;
mod settings;

use std::collections::BTreeMap;

use vestnik_core::Secret;

use crate::db::{Database, DatabaseError, DatabaseOptions, Statement, Trouble};
use crate::option::{Files, OptionError};
use crate::php::{self, ReadError};
use crate::tenant::{Service, ServiceError, Tenant};

/// Examples kept of each reason for leaving something out.
const EXAMPLES_MAX: usize = 3;

/// Why nothing, or not everything, could be taken over. What was written before stays written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read.
    #[error("the site's database cannot be read")]
    Source(#[source] DatabaseError),
    /// The address is of no database that Bitrix runs on.
    #[error("the site's database is one of MySQL, MariaDB or PostgreSQL")]
    Address,
    /// A table without which it is no database of Bitrix.
    #[error("the database has no table {0}")]
    NoTable(&'static str),
    /// The target cannot be read or written.
    #[error("the module's database failed")]
    Target(#[source] DatabaseError),
    /// Options of the target cannot be written.
    #[error("options could not be written")]
    Options(#[source] OptionError),
    /// The tenant cannot be made.
    #[error("the tenant could not be made")]
    Tenant(#[source] ServiceError),
}

impl ImportError {
    /// What is behind the error, where somebody can do something about it, and whether it is the source
    /// that is in trouble.
    #[must_use]
    pub fn trouble(&self) -> Option<(Trouble, bool)> {
        match self {
            Self::Source(error) => Some((error.trouble()?, true)),
            Self::Target(error)
            | Self::Options(OptionError::Database(error))
            | Self::Tenant(ServiceError::Database(error)) => Some((error.trouble()?, false)),
            _ => None,
        }
    }
}

/// A kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Options of module `pull`, and the site's host name.
    Options,
    /// Sites with their host names.
    Sites,
    /// Users who are switched off: they get no channels.
    Users,
    /// Channels.
    Channels,
    /// Watches.
    Watches,
    /// Devices with the mobile application.
    Devices,
}

impl Part {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Options => "options",
            Self::Sites => "sites",
            Self::Users => "inactive users",
            Self::Channels => "channels",
            Self::Watches => "watches",
            Self::Devices => "devices",
        }
    }
}

/// What becomes of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new here.
    New,
    /// It replaces an older value.
    Changed,
    /// It was here already.
    Same,
    /// What is here is newer, or was changed here, and stays.
    Kept,
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The tenant that everything goes to; `None`: the one with the site's own `host_id`, and where the site
    /// has none the default tenant.
    pub host_id: Option<String>,
    /// Values of the site's configuration files.
    pub files: Files,
    /// Replace what was changed here.
    pub overwrite: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// What became of an option or a site.
#[derive(Clone, Debug)]
pub struct Detail {
    /// Options or sites.
    pub part: Part,
    /// Its name, with the site where it is not common.
    pub name: String,
    /// What is here; empty: nothing. Secrets are not shown.
    pub here: String,
    /// What the site has.
    pub there: String,
    /// What is done.
    pub action: Action,
}

/// Things that were left out for the same reason.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// What became of the data of one kind.
#[derive(Clone, Debug)]
pub struct PartReport {
    /// The kind.
    pub part: Part,
    /// How many the site has.
    pub found: u64,
    /// How many are new here.
    pub new: u64,
    /// How many replaced an older value.
    pub changed: u64,
    /// How many were here already.
    pub same: u64,
    /// How many stay as they are here.
    pub kept: u64,
    /// The others, by reason.
    pub left_out: BTreeMap<String, LeftOut>,
}

impl PartReport {
    const fn new(part: Part) -> Self {
        Self { part, found: 0, new: 0, changed: 0, same: 0, kept: 0, left_out: BTreeMap::new() }
    }

    const fn count(&mut self, action: Action) {
        match action {
            Action::New => self.new += 1,
            Action::Changed => self.changed += 1,
            Action::Same => self.same += 1,
            Action::Kept => self.kept += 1,
        }
    }

    fn leave_out(&mut self, reason: &str, example: impl FnOnce() -> String) {
        let left_out = self.left_out.entry(reason.to_owned()).or_default();
        left_out.count += 1;
        if left_out.examples.len() < EXAMPLES_MAX {
            left_out.examples.push(example());
        }
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Report {
    /// The tenant's `hostId`.
    pub host_id: String,
    /// Whether the tenant is new.
    pub is_new_tenant: bool,
    /// The zone that the site's times were read in.
    pub time_zone: String,
    /// Each kind, in the order they were done.
    pub parts: Vec<PartReport>,
    /// Each option and site.
    pub details: Vec<Detail>,
    /// Kinds of which the site has no table.
    pub absent: Vec<(Part, &'static str)>,
}

/// How far the reading of a table is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The kind.
    pub part: Part,
    /// Rows that were read.
    pub done: u64,
    /// Rows there were at the beginning.
    pub total: u64,
}

/// The database of a site.
#[derive(Debug)]
pub struct Source {
    database: Database,
}

impl Source {
    /// Connects. Sessions are read-only. `time_zone`: the zone that the site writes its times in, for example
    /// `+03:00`; `None`: that of the database server.
    ///
    /// # Errors
    /// When the address is wrong or the database cannot be reached.
    pub async fn open(
        options: &DatabaseOptions,
        time_zone: Option<&str>,
    ) -> Result<Self, ImportError> {
        match Database::open_foreign(options, time_zone).await {
            Ok(database) => Ok(Self { database }),
            Err(DatabaseError::Address) => Err(ImportError::Address),
            Err(error) => Err(ImportError::Source(error)),
        }
    }

    /// Ends the connections.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// The address of the database that a `.settings.php` names; `None` where it names none.
///
/// # Errors
/// When the text is no array of PHP.
pub fn address_in_settings(text: &str) -> Result<Option<Secret<String>>, ReadError> {
    let settings = php::source_array(text, "return")?;
    let connections = settings.get("connections").and_then(|it| it.get("value"));
    let Some(connection) = connections.and_then(|it| it.get("default")) else { return Ok(None) };
    let text = |name: &str| connection.get(name).and_then(php::Value::to_text).unwrap_or_default();
    let is_postgres = text("className").to_ascii_lowercase().contains("pgsql");
    let scheme = if is_postgres { "postgres" } else { "mysql" };
    let (host, login, password) =
        (text("host"), encoded(&text("login")), encoded(&text("password")));
    let host = if host.is_empty() { "localhost" } else { &host };
    // PHP writes a socket of MySQL as `localhost:/path`, the folder of one of PostgreSQL as a host.
    let folder = encoded(host);
    let host = if host.starts_with('/') { &folder } else { host };
    let (host, socket) = match host.split_once(":/") {
        Some((host, path)) => (host, format!("?socket={}", encoded(&format!("/{path}")))),
        None => (host, String::new()),
    };
    let name = encoded(&text("database"));
    let address = format!("{scheme}://{login}:{password}@{host}/{name}{socket}");
    Ok(Some(Secret::new(address)))
}

/// Everything but letters, digits and a few signs as `%` and two hex digits.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

static HOST_ID: Statement = Statement::new(
    "SELECT VALUE FROM b_option WHERE MODULE_ID = 'pull' AND NAME = 'host_id' AND VALUE IS NOT NULL",
);

/// The tenant that data goes to.
struct Target {
    /// `None`: it is to be made, and a dry run makes none.
    tenant: Option<Tenant>,
    database: Database,
    now_s: u64,
    overwrite: bool,
    dry_run: bool,
}

impl Service {
    /// Takes over the data of a site. `progress` is called after each portion.
    ///
    /// # Errors
    /// When a database fails; what was written before stays, and another run goes on from there.
    pub async fn import_bitrix(
        &self,
        source: &Source,
        options: &ImportOptions,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Report, ImportError> {
        if source.database.columns("b_option").await.map_err(ImportError::Source)?.is_empty() {
            return Err(ImportError::NoTable("b_option"));
        }
        let (host_id, known) = self.import_tenant(source, options).await?;
        let is_new_tenant = known.is_none();
        let tenant = match known {
            None if !options.dry_run => {
                Some(self.create_tenant(&host_id, "Bitrix").await.map_err(ImportError::Tenant)?)
            }
            known => known,
        };
        let target = Target {
            tenant,
            database: self.database().clone(),
            now_s: self.clock().unix_s(),
            overwrite: options.overwrite,
            dry_run: options.dry_run,
        };
        let mut report = Report {
            host_id,
            is_new_tenant,
            time_zone: source.database.time_zone().await.map_err(ImportError::Source)?,
            parts: Vec::new(),
            details: Vec::new(),
            absent: Vec::new(),
        };
        settings::import_options(source, &target, &options.files, &mut report).await?;
        settings::import_sites(source, &target, &mut report).await?;
        for table in &rows::TABLES {
            match rows::import(source, &target, table, progress).await? {
                Some(part) => report.parts.push(part),
                None => report.absent.push((table.part, table.source)),
            }
        }
        Ok(report)
    }

    /// Which tenant it is, and whether it is there.
    async fn import_tenant(
        &self,
        source: &Source,
        options: &ImportOptions,
    ) -> Result<(String, Option<Tenant>), ImportError> {
        let mut host_id = options.host_id.clone();
        if host_id.is_none() {
            let rows = source.database.fetch(&HOST_ID, &[]).await.map_err(ImportError::Source)?;
            let stored = rows.first().map(|row| row.text(0)).transpose();
            host_id = stored.map_err(ImportError::Source)?.filter(|it| !it.is_empty());
        }
        let Some(host_id) = host_id else {
            let tenant = self.default_tenant().await.map_err(ImportError::Tenant)?;
            return Ok((tenant.host_id().to_owned(), Some(tenant)));
        };
        let tenant = self.tenant(&host_id).await.map_err(ImportError::Tenant)?;
        Ok((host_id, tenant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_settings_file_is_found_whatever_is_in_its_password() {
        let settings = |connection: &str| {
            let text = format!(
                "<?php return ['connections' => ['value' => ['default' => [{connection}]], 'readonly' => true]];"
            );
            address_in_settings(&text).unwrap().map(|it| it.expose().clone())
        };
        let mysql = r"'className' => '\\Bitrix\\Main\\DB\\MysqliConnection', 'host' => 'localhost:3307',
            'database' => 'sitemanager', 'login' => 'bitrix0', 'password' => 'a@b:c/d%ё', 'options' => 2.0";
        let expected = "mysql://bitrix0:a%40b%3Ac%2Fd%25%D1%91@localhost:3307/sitemanager";
        assert_eq!(settings(mysql).as_deref(), Some(expected));
        let socket = "'host' => 'localhost:/var/run/mysqld/mysqld.sock', 'database' => 'd', 'login' => 'l', 'password' => ''";
        let expected = "mysql://l:@localhost/d?socket=%2Fvar%2Frun%2Fmysqld%2Fmysqld.sock";
        assert_eq!(settings(socket).as_deref(), Some(expected));
        let postgres = r"'className' => '\Bitrix\Main\DB\PgsqlConnection', 'host' => 'db', 'database' => 'd', 'login' => 'l', 'password' => 'p'";
        assert_eq!(settings(postgres).as_deref(), Some("postgres://l:p@db/d"));
        let folder = r"'className' => '\\Bitrix\\Main\\DB\\PgsqlConnection', 'host' => '/run/pg', 'database' => 'd', 'login' => 'l', 'password' => 'p'";
        assert_eq!(settings(folder).as_deref(), Some("postgres://l:p@%2Frun%2Fpg/d"));
        assert!(address_in_settings("<?php return ['pull' => []];").unwrap().is_none());
        assert!(address_in_settings("<?php return getenv('X');").is_err());
    }
}
