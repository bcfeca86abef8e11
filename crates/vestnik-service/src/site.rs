//! Sites of a tenant, modules that want push, and whether the client starts on a page (module.md §2).

use std::sync::Arc;

use crate::db::{DatabaseError, Statement, Value};
use crate::option::OptionError;
use crate::tenant::Tenant;

/// A site of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its id, at most 50 bytes.
    pub id: String,
    /// Its title.
    pub name: String,
    /// Its host name; may be empty.
    pub server_name: String,
    /// Whether it is in use.
    pub is_active: bool,
}

/// A module that wants push, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleUse {
    /// Its id.
    pub module_id: String,
    /// On pages of the administration.
    pub is_for_admin: bool,
    /// On public pages.
    pub is_for_public: bool,
}

/// Part of a site that a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The administration.
    Admin,
    /// Everything else.
    Public,
}

static SITES: Statement = Statement::new(
    "SELECT SITE_ID, NAME, SERVER_NAME, ACTIVE FROM vestnik_site WHERE TENANT_ID = ? ORDER BY ID",
);
static SAVE_SITE: Statement = Statement::new(
    "INSERT INTO vestnik_site (TENANT_ID, SITE_ID, NAME, SERVER_NAME, ACTIVE) VALUES (?, ?, ?, ?, ?) {update TENANT_ID, SITE_ID: NAME, SERVER_NAME, ACTIVE}",
);
static DELETE_SITE: Statement =
    Statement::new("DELETE FROM vestnik_site WHERE TENANT_ID = ? AND SITE_ID = ?");
static SERVER_NAME: Statement =
    Statement::new("SELECT SERVER_NAME FROM vestnik_site WHERE TENANT_ID = ? AND SITE_ID = ?");
static MODULES: Statement = Statement::new(
    "SELECT MODULE_ID, ADMIN_SECTION, PUBLIC_SECTION FROM vestnik_module WHERE TENANT_ID = ? ORDER BY ID",
);
static SAVE_MODULE: Statement = Statement::new(
    "INSERT INTO vestnik_module (TENANT_ID, MODULE_ID, ADMIN_SECTION, PUBLIC_SECTION) VALUES (?, ?, ?, ?) {update TENANT_ID, MODULE_ID: ADMIN_SECTION, PUBLIC_SECTION}",
);
static DELETE_MODULE: Statement =
    Statement::new("DELETE FROM vestnik_module WHERE TENANT_ID = ? AND MODULE_ID = ?");

/// For so long modules and sites that another process may have changed are not read again, seconds.
const READ_TTL_S: u64 = 60;

const fn letter(flag: bool) -> Value<'static> {
    Value::Text(if flag { "Y" } else { "N" })
}

impl Tenant {
    /// All sites, in the order they were made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sites(&self) -> Result<Vec<Site>, DatabaseError> {
        let rows = self.database().fetch(&SITES, &[Value::Int(self.id())]).await?;
        let site = |row: &crate::db::Row| {
            Ok(Site {
                id: row.text(0)?,
                name: row.text(1)?,
                server_name: row.text(2)?,
                is_active: row.text(3)? == "Y",
            })
        };
        rows.iter().map(site).collect()
    }

    /// Makes a site or changes it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn save_site(&self, site: &Site) -> Result<(), DatabaseError> {
        let values = [
            Value::Int(self.id()),
            Value::Text(&site.id),
            Value::Text(&site.name),
            Value::Text(&site.server_name),
            letter(site.is_active),
        ];
        self.database().execute(&SAVE_SITE, &values).await?;
        self.state().site_names().clear();
        Ok(())
    }

    /// Removes a site; its options stay.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_site(&self, id: &str) -> Result<(), DatabaseError> {
        let values = [Value::Int(self.id()), Value::Text(id)];
        self.database().execute(&DELETE_SITE, &values).await?;
        self.state().site_names().clear();
        Ok(())
    }

    /// The host name of a site; `None` when it has none.
    pub(crate) async fn site_server_name(&self, id: &str) -> Result<Option<String>, DatabaseError> {
        if id.is_empty() {
            return Ok(None);
        }
        let now_s = self.now_s();
        if let Some((name, read_s)) = self.state().site_names().get(&id.to_owned())
            && now_s < read_s + READ_TTL_S
        {
            return Ok(name);
        }
        let values = [Value::Int(self.id()), Value::Text(id)];
        let rows = self.database().fetch(&SERVER_NAME, &values).await?;
        let name = rows.first().map(|row| row.text(0)).transpose()?;
        let name = name.filter(|name| !name.is_empty());
        self.state().site_names().insert(id.to_owned(), (name.clone(), now_s));
        Ok(name)
    }

    /// Registers a module that wants push; a later registration replaces an earlier one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register_module(&self, module: &ModuleUse) -> Result<(), DatabaseError> {
        let values = [
            Value::Int(self.id()),
            Value::Text(&module.module_id),
            letter(module.is_for_admin),
            letter(module.is_for_public),
        ];
        self.database().execute(&SAVE_MODULE, &values).await?;
        *self.state().modules() = None;
        Ok(())
    }

    /// Forgets a module.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unregister_module(&self, module_id: &str) -> Result<(), DatabaseError> {
        let values = [Value::Int(self.id()), Value::Text(module_id)];
        self.database().execute(&DELETE_MODULE, &values).await?;
        *self.state().modules() = None;
        Ok(())
    }

    /// The modules that want push, in the order they registered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dependent_modules(&self) -> Result<Arc<Vec<ModuleUse>>, DatabaseError> {
        let now_s = self.now_s();
        if let Some((modules, read_s)) = &*self.state().modules()
            && now_s < read_s + READ_TTL_S
        {
            return Ok(Arc::clone(modules));
        }
        let rows = self.database().fetch(&MODULES, &[Value::Int(self.id())]).await?;
        let module = |row: &crate::db::Row| {
            Ok(ModuleUse {
                module_id: row.text(0)?,
                is_for_admin: row.text(1)? == "Y",
                is_for_public: row.text(2)? == "Y",
            })
        };
        let modules = Arc::new(rows.iter().map(module).collect::<Result<Vec<_>, DatabaseError>>()?);
        *self.state().modules() = Some((Arc::clone(&modules), now_s));
        Ok(modules)
    }

    /// Whether the client starts on a page: some module wants it there, and the site is not excluded.
    ///
    /// # Errors
    /// When options or modules cannot be read.
    pub async fn needs_client(&self, site: &str, section: Section) -> Result<bool, OptionError> {
        if self.options(site).await?.is_excluded(site) {
            return Ok(false);
        }
        let modules = self.dependent_modules().await?;
        Ok(modules.iter().any(|module| match section {
            Section::Admin => module.is_for_admin,
            Section::Public => module.is_for_public,
        }))
    }

    /// Whether the module is active on `site`: some module wants it anywhere (S-01).
    ///
    /// # Errors
    /// When options or modules cannot be read.
    pub async fn is_module_active(&self, site: &str) -> Result<bool, OptionError> {
        Ok(self.needs_client(site, Section::Admin).await?
            || self.needs_client(site, Section::Public).await?)
    }
}
