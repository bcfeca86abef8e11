//! The sections `module` and `admin`: whether it is served, where its tables are, who is let in.

use std::path::Path;
use std::time::Duration;

use http::HeaderName;
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
    /// Base address of the cloud's directory; `None`: that of the region.
    pub(crate) cloud: Option<String>,
    /// The pages of administrators.
    pub(crate) admin: Admin,
}

/// The pages of administrators.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// How long a browser is remembered without being used.
    pub(crate) session_lifetime: Duration,
    /// Where a proxy names who asks.
    pub(crate) proxy_user_header: Option<HeaderName>,
    /// Whether bodies of messages are shown.
    pub(crate) shows_bodies: bool,
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
        let cloud = self.layers.text("module.cloud").trim_end_matches('/').to_owned();
        if !cloud.is_empty() && !cloud.starts_with("https://") && !cloud.starts_with("http://") {
            self.problem("module.cloud", "must begin with `https://`");
        }
        let header = self.layers.text("admin.proxy_user_header").to_owned();
        let proxy_user_header = match header.as_str() {
            "" => None,
            name => {
                let parsed = name.parse::<HeaderName>();
                if parsed.is_err() {
                    self.problem("admin.proxy_user_header", "is no name of a header");
                }
                parsed.ok()
            }
        };
        let admin = Admin {
            session_lifetime: self.layers.time("admin.session_lifetime"),
            proxy_user_header,
            shows_bodies: self.layers.flag("admin.show_bodies"),
        };
        if !self.layers.flag("module.enabled") {
            return None;
        }
        let mut database = DatabaseOptions::new(address);
        if database.address.expose().is_empty() {
            let file = data_dir.join("module.db");
            database.address = Secret::new(format!("sqlite:{}", file.display()));
        }
        let opens_to_trusted = self.layers.flag("module.open_to_trusted");
        Some(Module {
            database,
            opens_to_trusted,
            cloud: (!cloud.is_empty()).then_some(cloud),
            admin,
        })
    }
}
