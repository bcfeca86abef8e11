//! The sections `module` and `admin`: whether it is served, where its tables are, who is let in.

use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use vestnik_core::Secret;
use vestnik_publisher::{TlsConfig, trusting};
use vestnik_service::DatabaseOptions;

use super::Build;

/// The module as a service.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    /// Where its tables are.
    pub(crate) database: DatabaseOptions,
    /// Whether trusted addresses may call it without a proof.
    pub(crate) opens_to_trusted: bool,
    /// Whom the certificates of other servers are checked with.
    pub(crate) tls: TlsConfig,
    /// Where the directory of the cloud is; `None`: by the region of the site.
    pub(crate) cloud_directory: Option<String>,
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
        let directory = self.layers.text("module.cloud_directory").trim_end_matches('/').to_owned();
        let is_http = ["http://", "https://"].iter().any(|scheme| directory.starts_with(scheme));
        if !directory.is_empty() && !is_http {
            self.problem("module.cloud_directory", "must begin with `http://` or `https://`");
        }
        let cloud_directory = Some(directory).filter(|directory| !directory.is_empty());
        let tls = self.module_tls()?;
        Some(Module {
            tls,
            cloud_directory,
            database,
            opens_to_trusted: self.layers.flag("module.open_to_trusted"),
            admin,
        })
    }

    /// Whom to trust; `None` when that cannot be told, which was said.
    fn module_tls(&mut self) -> Option<TlsConfig> {
        let path = "module.tls_authorities";
        let file = self.layers.text(path).to_owned();
        let pem = if file.is_empty() { Ok(Vec::new()) } else { std::fs::read(&file) };
        let trusted = match pem {
            Ok(pem) => trusting(&pem).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        trusted.map_err(|text| self.problem(path, format!("cannot be used: {text}"))).ok()
    }
}
