//! The pages of administrators at `/admin/`.

mod access;
mod assets;
mod connections;
mod dashboard;
mod lists;
mod look;
mod page;
mod secrets;
mod settings;
mod text;

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode};
use maud::html;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vestnik_core::sign::Key as SignatureKey;
use vestnik_hub::Hub;
use vestnik_publisher::TlsConfig;
use vestnik_server::{Handle, Visit};
use vestnik_service::access::AccessError;
use vestnik_service::administrator::{Access, AdministratorError, Session};
use vestnik_service::db::DatabaseError;
use vestnik_service::option::{Key, OptionError, OwnValues};
use vestnik_service::rest::RestError;
use vestnik_service::{Service, ServiceError, Tenant};

use self::access::Attempts;
use self::assets::Assets;
use self::lists::Said;
use self::look::Look;
use self::page::{Tone, Viewer};
use crate::answer::Answer;
use crate::publishing::Publishers;

/// What the pages of administrators are told.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// A browser has to sign in again when it was not used for so long.
    pub session_lifetime: Duration,
    /// The header in which a known proxy names who asks; `None`: no proxy is believed.
    pub proxy_user_header: Option<HeaderName>,
    /// What this process calls itself.
    pub node: String,
    /// Whether bodies of messages are shown.
    pub shows_bodies: bool,
    /// Base address of the cloud's directory; `None`: that of the region.
    pub cloud: Option<String>,
    /// Addresses of this server, for the button that fills them in.
    pub own_addresses: OwnAddresses,
}

/// Addresses at which sites and clients reach this very server.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses(pub Vec<(Key, String)>);

/// Shows a login and its password to whoever started the program.
pub type PrintPassword = Box<dyn Fn(&str, &str) + Send>;

/// What the pages need of the rest of the program.
pub struct AdminParts {
    /// What they are told.
    pub options: AdminOptions,
    /// The running server.
    pub server: Handle,
    /// Values of options that the configuration gives; they change with it.
    pub own_values: watch::Receiver<OwnValues>,
    /// Prints the password of the first administrator. It is kept nowhere.
    pub print_first_password: PrintPassword,
}

/// The pages.
pub(crate) struct Admin {
    service: Service,
    publishers: Arc<Publishers>,
    server: Handle,
    options: AdminOptions,
    own_values: watch::Receiver<OwnValues>,
    /// Whom the cloud's certificates are checked with.
    tls: TlsConfig,
    assets: Assets,
    attempts: Attempts,
    hashing: Semaphore,
    hub: Arc<Hub>,
    /// Why something could not be sent last.
    last_error: Mutex<Option<String>>,
    checks: settings::Checks,
    samples: dashboard::Samples,
    /// What goes on beside requests; all of it is short.
    tasks: TaskTracker,
}

/// Why a page cannot be shown.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Database(#[from] ServiceError),
    #[error(transparent)]
    Options(#[from] OptionError),
    #[error(transparent)]
    Administrator(AdministratorError),
    #[error(transparent)]
    Way(#[from] RestError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("there is no administrator {0}")]
    UnknownProxyUser(String),
    #[error("the form is too large")]
    TooLarge,
    #[error("the right does not allow it")]
    Forbidden,
    #[error("the form does not come from a page of the session")]
    Foreign,
    #[error("there is no such page")]
    NotFound,
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error.into())
    }
}

impl Admin {
    /// Passwords that are checked at a time.
    const HASHES: usize = 2;

    pub(crate) fn new(
        service: Service,
        hub: Arc<Hub>,
        publishers: Arc<Publishers>,
        parts: AdminParts,
        tls: TlsConfig,
    ) -> Self {
        let AdminParts { options, server, own_values, print_first_password: _ } = parts;
        Self {
            service,
            publishers,
            server,
            options,
            own_values,
            tls,
            assets: Assets::new(),
            attempts: Attempts::default(),
            hashing: Semaphore::new(Self::HASHES),
            hub,
            last_error: Mutex::default(),
            checks: settings::Checks::default(),
            samples: dashboard::Samples::default(),
            tasks: TaskTracker::new(),
        }
    }

    fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember_error(&self, text: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    async fn tenant(&self) -> Result<Tenant, Trouble> {
        Ok(self.service.default_tenant().await?)
    }

    /// Keeps the server to the keys of the settings, and the settings to the configuration, until
    /// `stopping`. What another process changes is noticed within seconds.
    pub(crate) async fn follow_settings(&self, stopping: &CancellationToken) {
        const LOOK: Duration = Duration::from_secs(5);
        let mut own_values = self.own_values.clone();
        loop {
            own_values.borrow_and_update();
            self.apply_settings().await;
            loop {
                tokio::select! {
                    changed = own_values.changed() => match changed {
                        Ok(()) => break,
                        // Nobody can change them any more.
                        Err(_) => stopping.cancelled().await,
                    },
                    () = tokio::time::sleep(LOOK) => {
                        if let Ok(tenant) = self.tenant().await {
                            self.apply_keys(&tenant).await;
                        }
                        continue;
                    }
                    () = stopping.cancelled() => {}
                }
                if stopping.is_cancelled() {
                    return;
                }
            }
        }
    }

    /// Keeps the settings to the configuration, and the server to the key of the settings, as they are
    /// now.
    pub(crate) async fn apply_settings(&self) {
        let values = self.own_values.borrow().clone();
        match self.tenant().await {
            Ok(tenant) => {
                tenant.set_own_values(values);
                self.apply_keys(&tenant).await;
            }
            Err(error) => tracing::warn!(%error, "settings of the module cannot be read"),
        }
    }

    /// Has the server verify with the key of the settings.
    async fn apply_keys(&self, tenant: &Tenant) {
        let options = match tenant.options("").await {
            Ok(options) => options,
            Err(error) => {
                tracing::warn!(%error, "settings of the module cannot be read");
                return;
            }
        };
        let secret = options.text(Key::SignatureKey);
        let keys = match options.text(Key::SignatureAlgo).parse() {
            Ok(algorithm) if !secret.is_empty() => {
                let secret = vestnik_core::Secret::new(secret.to_owned());
                vec![SignatureKey::new(secret, algorithm, None)]
            }
            _ => Vec::new(),
        };
        if self.server.set_module_keys(keys) {
            tracing::info!("the signature key of the settings is in force");
        }
    }

    /// The answer to a request below `/admin/`.
    pub(crate) async fn answer(&self, visit: &Visit) -> Answer {
        if let Some(name) = visit.path().strip_prefix("/admin/assets/") {
            let asset = self.assets.answer(name, visit.query(), visit.headers());
            if let Some(answer) = asset {
                return answer;
            }
        }
        let look = Look::of(visit.query(), visit.headers());
        match self.route(visit, &look).await {
            Ok(answer) => answer,
            Err(trouble) => self.explain(&trouble, &look),
        }
    }

    async fn route(&self, visit: &Visit, look: &Look) -> Result<Answer, Trouble> {
        let (method, path) = (visit.method(), visit.path());
        if path == "/admin/login" {
            return match *method {
                Method::GET => self.show_sign_in(visit, look).await,
                Method::POST => self.sign_in(visit, look).await,
                _ => Err(Trouble::NotFound),
            };
        }
        let Some((session, cookie)) = self.session(visit).await? else {
            return Ok(self.sign_in_first(visit, look));
        };
        let address = visit.client().to_string();
        let viewer = Viewer { look, session: &session, assets: &self.assets, address };
        let answer = match *method {
            Method::GET => self.show(visit, &viewer).await?,
            Method::POST => self.act(visit, &viewer).await?,
            _ => return Err(Trouble::NotFound),
        };
        Ok(Self::keep(answer, cookie))
    }

    /// Pages that are looked at.
    async fn show(&self, visit: &Visit, viewer: &Viewer<'_>) -> Result<Answer, Trouble> {
        match visit.path() {
            "/admin/" => self.show_dashboard(viewer).await,
            "/admin/live" => Ok(self.live(visit).await),
            "/admin/connections" => self.show_connections(visit, viewer).await,
            "/admin/settings" => self.show_settings(visit, viewer).await,
            "/admin/settings/servers" => self.cloud_servers(viewer).await,
            "/admin/settings/check" => self.show_check(visit, viewer),
            "/admin/sites" => self.show_sites(viewer, Said::Nothing).await,
            "/admin/tenants" => self.show_tenants(viewer).await,
            "/admin/secrets" => self.show_secrets(viewer, secrets::Said::Nothing).await,
            "/admin/administrators" => self.show_administrators(viewer, Said::Nothing).await,
            "/admin/audit" => self.show_audit(viewer).await,
            _ => Err(Trouble::NotFound),
        }
    }

    /// What is done. Everything but signing out needs the right to write.
    async fn act(&self, visit: &Visit, viewer: &Viewer<'_>) -> Result<Answer, Trouble> {
        let form = access::form(visit)?;
        if !access::is_ours(visit, &form, viewer.session) {
            if visit.path() == "/admin/settings" {
                return self.show_foreign_settings(viewer, &form).await;
            }
            return Err(Trouble::Foreign);
        }
        if visit.path() == "/admin/logout" {
            return self.sign_out(visit).await;
        }
        must_write(viewer.session)?;
        match visit.path() {
            "/admin/settings" => self.save_settings(viewer, &form).await,
            "/admin/connections/disconnect" => self.disconnect(viewer, &form).await,
            "/admin/connections/send" => self.send_event(viewer, &form).await,
            "/admin/settings/check" => self.begin_check(visit).await,
            "/admin/sites" | "/admin/sites/delete" | "/admin/modules" | "/admin/modules/delete" => {
                self.change_sites(visit, viewer, &form).await
            }
            "/admin/secrets" | "/admin/secrets/delete" => {
                self.change_secrets(visit, viewer, &form).await
            }
            "/admin/administrators" | "/admin/administrators/delete" => {
                self.change_administrators(visit, viewer, &form).await
            }
            "/admin/settings/defaults" => self.restore_defaults(viewer).await,
            _ => Err(Trouble::NotFound),
        }
    }

    /// The page that says why there is no other.
    fn explain(&self, trouble: &Trouble, look: &Look) -> Answer {
        let (status, said) = match trouble {
            Trouble::Database(_) | Trouble::Options(_) | Trouble::Way(_) | Trouble::Access(_) => {
                let cause = trouble.source().map(ToString::to_string);
                tracing::error!(error = %trouble, cause, "a page of administrators failed");
                (StatusCode::SERVICE_UNAVAILABLE, text::DATABASE_GONE)
            }
            Trouble::Administrator(error) => {
                tracing::error!(%error, "a page of administrators failed");
                (StatusCode::INTERNAL_SERVER_ERROR, text::DATABASE_GONE)
            }
            Trouble::UnknownProxyUser(_) => (StatusCode::FORBIDDEN, text::UNKNOWN_PROXY_USER),
            Trouble::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, text::BAD_LENGTH),
            Trouble::Forbidden => (StatusCode::FORBIDDEN, text::FORBIDDEN),
            Trouble::Foreign => (StatusCode::FORBIDDEN, text::FORM_EXPIRED),
            Trouble::NotFound => (StatusCode::NOT_FOUND, text::NOT_FOUND),
        };
        let content = html! {
            (page::notice(Tone::Bad, &html! {
                (look.say(said))
                @if let Trouble::UnknownProxyUser(login) = trouble { " " code { (login) } }
            }))
            p { a.button href="/admin/" { (look.say(text::BACK_TO_START)) } }
        };
        page::answer(status, look, page::bare(look, &self.assets, text::SIGN_IN_TITLE, &content))
    }
}

fn must_write(session: &Session) -> Result<(), Trouble> {
    if session.access == Access::Write { Ok(()) } else { Err(Trouble::Forbidden) }
}

/// Where nobody is an administrator yet, makes the first one and has the password printed.
pub(crate) async fn make_first_administrator(service: &Service, parts: &mut AdminParts) {
    match service.make_first_administrator().await {
        Ok(Some(password)) => {
            (parts.print_first_password)(vestnik_service::administrator::FIRST_LOGIN, &password);
        }
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the first administrator could not be made"),
    }
}
