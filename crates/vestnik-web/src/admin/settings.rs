//! The settings page "Push and Pull" (settings-page.md).

mod connection;
mod fields;

pub(super) use connection::Checks;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::StatusCode;
use maud::{Markup, html};
use vestnik_server::Visit;
use vestnik_service::option::{Key, Options};
use vestnik_service::settings::{self, Form, Plan, Problem, Situation, Warning};
use vestnik_service::site::{ModuleUse, Site};

use self::fields::Fields;
use super::page::{self, Frame, Place, Tone, Viewer};
use super::{Admin, Trouble, text};
use crate::answer::{self, Answer};
use vestnik_publisher::{Cloud, CloudError, CloudServer};

/// What the page shows besides the fields.
pub(super) struct Facts {
    options: Arc<Options>,
    sites: Vec<Site>,
    modules: Arc<Vec<ModuleUse>>,
    is_active: bool,
    is_reachable: bool,
}

/// Fields as they were sent, and what is wrong with them.
#[derive(Default)]
pub(super) struct Sent<'a> {
    form: Option<&'a Form>,
    problems: BTreeMap<Key, Problem>,
    cloud_error: Option<String>,
}

impl Admin {
    async fn facts(&self) -> Result<Facts, Trouble> {
        let tenant = self.tenant().await?;
        Ok(Facts {
            options: tenant.options("").await?,
            sites: tenant.sites().await?,
            modules: tenant.dependent_modules().await?,
            is_active: tenant.is_module_active("").await?,
            is_reachable: self.hub.engine().is_reachable(),
        })
    }

    /// `GET settings`.
    pub(super) async fn show_settings(
        &self,
        visit: &Visit,
        viewer: &Viewer<'_>,
    ) -> Result<Answer, Trouble> {
        let query = form_urlencoded::parse(visit.query().as_bytes());
        let mut notices = Vec::new();
        for (name, value) in query {
            match (&*name, &*value) {
                ("done", "saved") => notices.push((Tone::Good, text::SAVED)),
                ("done", "defaults") => notices.push((Tone::Good, text::DEFAULTS_RESTORED)),
                ("warning", "weak_key") => notices.push((Tone::Warning, text::WARN_WEAK_KEY)),
                ("warning", "empty_key") => notices.push((Tone::Warning, text::WARN_EMPTY_KEY)),
                ("warning", "outdated") => notices.push((Tone::Warning, text::WARN_OUTDATED)),
                _ => {}
            }
        }
        let facts = self.facts().await?;
        Ok(self.settings_answer(StatusCode::OK, viewer, &facts, &Sent::default(), &notices))
    }

    /// The form as it was sent before the session was over, not saved.
    pub(super) async fn resume_settings(
        &self,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let facts = self.facts().await?;
        let problems = settings::plan(&facts.options, form).err().unwrap_or_default();
        let sent = Sent { form: Some(form), problems, cloud_error: None };
        let notices = [(Tone::Warning, text::SESSION_RESUMED)];
        Ok(self.settings_answer(StatusCode::OK, viewer, &facts, &sent, &notices))
    }

    /// The form that no page of this session has sent, not saved.
    pub(super) async fn show_foreign_settings(
        &self,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let facts = self.facts().await?;
        let sent = Sent { form: Some(form), ..Sent::default() };
        let notices = [(Tone::Bad, text::FORM_EXPIRED)];
        Ok(self.settings_answer(StatusCode::FORBIDDEN, viewer, &facts, &sent, &notices))
    }

    /// `POST settings`.
    pub(super) async fn save_settings(
        &self,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let facts = self.facts().await?;
        let plan = match settings::plan(&facts.options, form) {
            Ok(plan) => plan,
            Err(problems) => {
                let sent = Sent { form: Some(form), problems, cloud_error: None };
                let notices = [(Tone::Bad, text::NOT_SAVED)];
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return Ok(self.settings_answer(status, viewer, &facts, &sent, &notices));
            }
        };
        let registration = match &plan.registers_at {
            None => None,
            Some(host) => match self.register(&facts.options, host).await {
                Ok(registration) => Some(registration),
                // The mode in force before stays (S-59).
                Err(error) => {
                    let cloud_error = Some(error.to_string());
                    let sent = Sent { form: Some(form), problems: BTreeMap::new(), cloud_error };
                    let notices = [(Tone::Bad, text::CLOUD_KEPT)];
                    let status = StatusCode::BAD_GATEWAY;
                    return Ok(self.settings_answer(status, viewer, &facts, &sent, &notices));
                }
            },
        };
        let tenant = self.tenant().await?;
        // Through it those are told who still listen at the old address (S-50). They are told after the
        // change: a client that asked before it would be given the old address once more.
        let old_way = self.publishers.as_now(&tenant).await;
        let farewell = if plan.changes_way() || registration.is_some() {
            tenant.settings_changed("").await?
        } else {
            None
        };
        tenant.save_settings(&plan, registration.as_ref(), viewer.actor()).await?;
        if let Some(event) = farewell {
            let failures = match old_way {
                Ok(way) => way
                    .publish(&[event])
                    .await
                    .into_iter()
                    .filter_map(Result::err)
                    .map(|it| it.to_string())
                    .collect(),
                // Options that made no server had no clients.
                Err(error) => vec![error.to_string()],
            };
            for error in failures {
                tracing::warn!(error, "clients of the old address were not told of new settings");
                self.remember_error(&error);
            }
        }
        self.apply_keys(&tenant).await;
        Ok(page::see(&saved_address(&plan)))
    }

    /// `POST settings/defaults` (S-35).
    pub(super) async fn restore_defaults(&self, viewer: &Viewer<'_>) -> Result<Answer, Trouble> {
        let tenant = self.tenant().await?;
        tenant.restore_default_settings(viewer.actor()).await?;
        self.apply_keys(&tenant).await;
        Ok(page::see("/admin/settings?done=defaults"))
    }

    async fn register(
        &self,
        options: &Options,
        host: &str,
    ) -> Result<settings::Registration, CloudError> {
        let cloud = self.cloud(options);
        let host = if host.is_empty() { cloud.hostname().await? } else { host.to_owned() };
        let licence = Some(options.text(Key::LicenceKey)).filter(|key| !key.is_empty());
        let key = vestnik_core::Secret::new(cloud.register(&host, licence).await?);
        Ok(settings::Registration { host, key })
    }

    fn cloud(&self, options: &Options) -> Cloud {
        let tls = Arc::clone(&self.tls);
        Cloud::of(options.text(Key::Region), self.options.cloud.as_deref(), tls)
    }

    /// `GET settings/servers`: asked for while the block of the cloud is open, and not before (S-57).
    pub(super) async fn cloud_servers(&self, viewer: &Viewer<'_>) -> Result<Answer, Trouble> {
        let options = self.tenant().await?.options("").await?;
        let cloud = self.cloud(&options);
        let said = match cloud.servers().await {
            Ok(servers) => {
                let server =
                    |it: &CloudServer| serde_json::json!({"url": it.url, "region": it.region});
                serde_json::json!({"servers": servers.iter().map(server).collect::<Vec<_>>()})
            }
            Err(error) => {
                tracing::warn!(%error, "the list of cloud servers was not loaded");
                let host = cloud.directory();
                let said = viewer.say(text::CLOUD_LIST_ERROR).replace("#HOST#", host);
                serde_json::json!({"error": said})
            }
        };
        Ok(answer::json(StatusCode::OK, said.to_string()))
    }

    fn settings_answer(
        &self,
        status: StatusCode,
        viewer: &Viewer<'_>,
        facts: &Facts,
        sent: &Sent<'_>,
        notices: &[(Tone, text::Text)],
    ) -> Answer {
        let situation = match sent.form {
            Some(form) => settings::situation_of(&facts.options, form),
            None => Situation::of(&facts.options),
        };
        let fields = Fields { viewer, facts, sent, situation, admin: self };
        let content = html! {
            @for (tone, said) in notices { (page::notice(*tone, &html! { (viewer.say(*said)) })) }
            @if !viewer.may_write() {
                (page::notice(Tone::Plain, &html! { (viewer.say(text::READ_ONLY)) }))
            }
            (fields.form())
            (self.defaults_dialog(viewer))
            (fields.data())
        };
        let frame = Frame {
            place: Place::Settings,
            title: text::SETTINGS_TITLE,
            lead: Some(text::SETTINGS_LEAD),
            scripts: &["settings.js"],
            styles: &[],
        };
        page::answer(status, viewer.look, page::page(viewer, &frame, &content))
    }

    fn defaults_dialog(&self, viewer: &Viewer<'_>) -> Markup {
        html! {
            dialog #defaults-dialog aria-labelledby="defaults-title" {
                form method="post" action="/admin/settings/defaults" {
                    (viewer.form_key())
                    h2 #defaults-title { (viewer.say(text::DEFAULTS_ASK)) }
                    p { (viewer.say(text::DEFAULTS_WHAT)) }
                    div.buttons {
                        button type="button" data-closes="defaults-dialog" { (viewer.say(text::CANCEL)) }
                        button.danger type="submit" name="RestoreDefaults" value="Y" disabled[!viewer.may_write()] { (viewer.say(text::DEFAULTS)) }
                    }
                }
            }
        }
    }
}

/// The page that says what was saved and what is odd about it.
fn saved_address(plan: &Plan) -> String {
    let mut address = "/admin/settings?done=saved".to_owned();
    for warning in &plan.warnings {
        address.push_str(match warning {
            Warning::WeakKey => "&warning=weak_key",
            Warning::EmptyKey => "&warning=empty_key",
            Warning::Outdated => "&warning=outdated",
        });
    }
    address
}
