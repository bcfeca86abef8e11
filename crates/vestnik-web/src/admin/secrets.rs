//! Secrets with which back ends call the module: made here, shown once, removed.

use maud::html;
use vestnik_server::Visit;
use vestnik_service::access::{AccessError, Right};
use vestnik_service::settings::Form;

use super::lists::{moment, row_button};
use super::page::{self, Place, Tone, Viewer};
use super::text::{self, Text};
use super::{Admin, Trouble};
use crate::answer::Answer;

/// What came of a deed.
pub(super) enum Said {
    Nothing,
    Done,
    Bad(Text),
    /// A new secret, shown once, with its name.
    Secret(String, String),
}

const fn right(right: Right) -> Text {
    match right {
        Right::User | Right::Backend => text::SECRET_BACK_END,
        Right::Administrator => text::SECRET_ADMINISTRATOR,
    }
}

impl Admin {
    /// `GET secrets`.
    pub(super) async fn show_secrets(
        &self,
        viewer: &Viewer<'_>,
        told: Said,
    ) -> Result<Answer, Trouble> {
        let secrets = self.tenant().await?.secrets().await?;
        let may = viewer.may_write();
        let content = html! {
            @match &told {
                Said::Nothing => {},
                Said::Done => (page::notice(Tone::Good, &html! { (viewer.say(text::DONE)) })),
                Said::Bad(text) => (page::notice(Tone::Bad, &html! { (viewer.say(*text)) })),
                Said::Secret(name, secret) => (page::notice(Tone::Good, &html! {
                    (viewer.say(text::SECRET_MADE)) " " b { (name) } ": " code #new-secret { (secret) }
                })),
            }
            section.card aria-labelledby="secrets-title" {
                h2 #secrets-title { (viewer.say(text::NAV_SECRETS)) }
                @if secrets.is_empty() { p.empty { (viewer.say(text::NOTHING_YET)) } }
                @else {
                    div.scroll.inside tabindex="0" role="region" aria-labelledby="secrets-title" { table #secrets {
                        thead { tr {
                            th { (viewer.say(text::NAME)) } th { (viewer.say(text::RIGHT)) } th { (viewer.say(text::SINCE)) } th { span.unseen { (viewer.say(text::DEEDS)) } }
                        } }
                        tbody { @for it in &secrets { tr {
                            td { (it.name) }
                            td { (page::pill(Tone::Plain, viewer.say(right(it.right)))) }
                            td { (moment(i64::try_from(it.created_s).unwrap_or(0))) }
                            td.deeds { (row_button(viewer, "/admin/secrets/delete", "id", &it.id.to_string(), text::DELETE)) }
                        } } }
                    } }
                }
                form.inline.below method="post" action="/admin/secrets" {
                    (viewer.form_key())
                    label { span { (viewer.say(text::NAME)) } input name="name" required maxlength="100" autocomplete="off" disabled[!may]; }
                    label { span { (viewer.say(text::RIGHT)) }
                        select name="right" disabled[!may] {
                            @for it in [Right::Backend, Right::Administrator] { option value=(it.name()) { (viewer.say(right(it))) } }
                        }
                    }
                    button type="submit" disabled[!may] { (viewer.say(text::SECRET_MAKE)) }
                }
            }
        };
        Ok(page::plain(viewer, Place::Secrets, text::NAV_SECRETS, text::SECRETS_LEAD, &content))
    }

    /// What is done on that page.
    pub(super) async fn change_secrets(
        &self,
        visit: &Visit,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let tenant = self.tenant().await?;
        let field = |name: &str| form.get(name).unwrap_or_default().trim();
        if visit.path() == "/admin/secrets/delete" {
            let id = field("id");
            let Ok(number) = id.parse() else { return Err(Trouble::NotFound) };
            tenant.remove_secret(number).await?;
            tenant.record(viewer.actor(), "secret.delete", id, "", "").await?;
            return self.show_secrets(viewer, Said::Done).await;
        }
        let Some(right) = Right::of_secret(field("right")) else { return Err(Trouble::NotFound) };
        let name = field("name");
        let told = match tenant.add_secret(name, right).await {
            Ok(secret) => {
                tenant.record(viewer.actor(), "secret.add", name, "", right.name()).await?;
                Said::Secret(name.to_owned(), secret.expose().clone())
            }
            Err(AccessError::Name) => Said::Bad(text::SECRET_BAD_NAME),
            Err(AccessError::TooMany) => Said::Bad(text::SECRET_TOO_MANY),
            Err(other) => return Err(other.into()),
        };
        self.show_secrets(viewer, told).await
    }
}
