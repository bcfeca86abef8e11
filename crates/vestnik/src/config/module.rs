//! The section `module`: whether it is served, and where its tables are.

use std::path::Path;

use vestnik_core::Secret;
use vestnik_service::DatabaseOptions;

use super::Build;

/// The module as a service.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    /// Where its tables are.
    pub(crate) database: DatabaseOptions,
    /// Whether trusted addresses may call it without a proof.
    pub(crate) opens_to_trusted: bool,
}

impl Build<'_> {
    /// What the module is told; `None` when it is switched off.
    pub(super) fn module(&mut self, data_dir: &Path) -> Option<Module> {
        let address = self.layers.text("module.database").to_owned();
        let is_known = ["sqlite:", "postgres://", "postgresql://", "mysql://", "mariadb://"]
            .iter()
            .any(|scheme| address.starts_with(scheme));
        if !address.is_empty() && !is_known {
            let text = "must begin with `sqlite:`, `postgres://` or `mysql://`";
            self.problem("module.database", text);
        }
        if !self.layers.flag("module.enabled") {
            return None;
        }
        let mut database = DatabaseOptions::new(address);
        if database.address.expose().is_empty() {
            let file = data_dir.join("module.db");
            database.address = Secret::new(format!("sqlite:{}", file.display()));
        }
        Some(Module { database, opens_to_trusted: self.layers.flag("module.open_to_trusted") })
    }
}
