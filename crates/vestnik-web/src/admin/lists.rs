//! Sites, modules, tenants, administrators and the audit log: tables with a form below.

use maud::{Markup, html};
use vestnik_core::date;
use vestnik_server::Visit;
use vestnik_service::administrator::{Access, AdministratorError, random_password};
use vestnik_service::settings::Form;
use vestnik_service::site::{ModuleUse, Site};

use super::page::{self, Place, Tone, Viewer};
use super::text::Text;
use super::{Admin, Trouble, text};
use crate::answer::Answer;

/// The longest id of a site or module that tables hold, bytes.
const ID_BYTES_MAX: usize = 50;
const NAME_BYTES_MAX: usize = 255;

/// What came of a deed, shown above the table.
pub(super) enum Said {
    Nothing,
    Good(Text),
    Bad(Text),
    /// A new administrator and their password, shown once.
    Password(String, String),
}

fn said(viewer: &Viewer<'_>, said: &Said) -> Markup {
    match said {
        Said::Nothing => html! {},
        Said::Good(text) => page::notice(Tone::Good, &html! { (viewer.say(*text)) }),
        Said::Bad(text) => page::notice(Tone::Bad, &html! { (viewer.say(*text)) }),
        Said::Password(login, password) => page::notice(
            Tone::Good,
            &html! {
                (viewer.say(text::ADMINISTRATOR_PASSWORD)) " "
                b { (login) } ": " code #new-password { (password) }
            },
        ),
    }
}

pub(super) fn moment(seconds: i64) -> Markup {
    let iso = date::atom(u64::try_from(seconds).unwrap_or(0));
    let shown = iso.get(..16).unwrap_or(&iso).replace('T', " ");
    html! { time datetime=(iso) { (shown) " UTC" } }
}

/// A button that does something to one row.
pub(super) fn row_button(
    viewer: &Viewer<'_>,
    action: &str,
    field: &str,
    value: &str,
    name: Text,
) -> Markup {
    html! {
        form method="post" action=(action) {
            (viewer.form_key())
            input type="hidden" name=(field) value=(value);
            button.quiet.small type="submit" disabled[!viewer.may_write()] aria-label={ (viewer.say(name)) " " (value) } { (viewer.say(name)) }
        }
    }
}

fn is_id(id: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl Admin {
    /// `GET sites`.
    pub(super) async fn show_sites(
        &self,
        viewer: &Viewer<'_>,
        told: Said,
    ) -> Result<Answer, Trouble> {
        let tenant = self.tenant().await?;
        let (sites, modules) = (tenant.sites().await?, tenant.dependent_modules().await?);
        let content = html! {
            (said(viewer, &told))
            (self.site_card(viewer, &sites))
            (self.module_card(viewer, &modules))
        };
        Ok(page::plain(viewer, Place::Sites, text::NAV_SITES, text::SITES_LEAD, &content))
    }

    fn site_card(&self, viewer: &Viewer<'_>, sites: &[Site]) -> Markup {
        let may = viewer.may_write();
        html! {
            section.card aria-labelledby="sites-title" {
                h2 #sites-title { (viewer.say(text::SITES)) }
                @if sites.is_empty() { p.empty { (viewer.say(text::NOTHING_YET)) } }
                @else {
                    div.scroll.inside tabindex="0" role="region" aria-labelledby="sites-title" { table #sites {
                        thead { tr {
                            th { "ID" } th { (viewer.say(text::NAME)) } th { (viewer.say(text::SITE_HOST)) } th { (viewer.say(text::STATE)) } th { span.unseen { (viewer.say(text::DEEDS)) } }
                        } }
                        tbody { @for site in sites { tr {
                            td { code { (site.id) } } td { (site.name) } td { (site.server_name) }
                            td { @if site.is_active { (page::pill(Tone::Good, viewer.say(text::IN_USE))) } @else { (page::pill(Tone::Plain, viewer.say(text::NOT_IN_USE))) } }
                            td.deeds { (row_button(viewer, "/admin/sites/delete", "id", &site.id, text::DELETE)) }
                        } } }
                    } }
                }
                form.inline.below method="post" action="/admin/sites" {
                    (viewer.form_key())
                    label.narrow { span { "ID" } input name="id" required maxlength="50" pattern="[A-Za-z0-9._\\-]+" disabled[!may]; }
                    label { span { (viewer.say(text::NAME)) } input name="name" maxlength="255" disabled[!may]; }
                    label { span { (viewer.say(text::SITE_HOST)) } input name="server_name" maxlength="255" placeholder="portal.example" disabled[!may]; }
                    label.check { input type="checkbox" name="active" value="Y" checked disabled[!may]; span { (viewer.say(text::IN_USE)) } }
                    button type="submit" disabled[!may] { (viewer.say(text::SAVE)) }
                }
            }
        }
    }

    fn module_card(&self, viewer: &Viewer<'_>, modules: &[ModuleUse]) -> Markup {
        let may = viewer.may_write();
        html! {
            section.card aria-labelledby="modules-title" {
                h2 #modules-title { (viewer.say(text::MODULES)) }
                p.hint { (viewer.say(text::MODULES_LEAD)) }
                @if modules.is_empty() { p.empty { (viewer.say(text::NOTHING_YET)) } }
                @else {
                    div.scroll.inside tabindex="0" role="region" aria-labelledby="modules-title" { table #modules {
                        thead { tr { th { "ID" } th { (viewer.say(text::MODULE_WHERE)) } th { span.unseen { (viewer.say(text::DEEDS)) } } } }
                        tbody { @for module in modules { tr {
                            td { code { (module.module_id) } }
                            td {
                                @if module.is_for_public { (page::pill(Tone::Plain, viewer.say(text::MODULE_PUBLIC))) " " }
                                @if module.is_for_admin { (page::pill(Tone::Plain, viewer.say(text::MODULE_ADMIN))) }
                            }
                            td.deeds { (row_button(viewer, "/admin/modules/delete", "id", &module.module_id, text::DELETE)) }
                        } } }
                    } }
                }
                form.inline.below method="post" action="/admin/modules" {
                    (viewer.form_key())
                    label { span { "ID" } input name="id" required maxlength="50" pattern="[A-Za-z0-9._\\-]+" disabled[!may]; }
                    label.check { input type="checkbox" name="public" value="Y" checked disabled[!may]; span { (viewer.say(text::MODULE_PUBLIC)) } }
                    label.check { input type="checkbox" name="admin" value="Y" disabled[!may]; span { (viewer.say(text::MODULE_ADMIN)) } }
                    button type="submit" disabled[!may] { (viewer.say(text::SAVE)) }
                }
            }
        }
    }

    /// What is done on that page: to a site or a module, by the path.
    pub(super) async fn change_sites(
        &self,
        visit: &Visit,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let tenant = self.tenant().await?;
        let field = |name: &str| form.get(name).unwrap_or_default().trim();
        let (id, is_on) = (field("id"), |name: &str| field(name) == "Y");
        if !is_id(id) {
            return self.show_sites(viewer, Said::Bad(text::BAD_ID)).await;
        }
        let action = match visit.path() {
            "/admin/sites" => {
                let site = Site {
                    id: id.to_owned(),
                    name: field("name").to_owned(),
                    server_name: field("server_name").to_owned(),
                    is_active: is_on("active"),
                };
                if site.name.len() > NAME_BYTES_MAX || site.server_name.len() > NAME_BYTES_MAX {
                    return self.show_sites(viewer, Said::Bad(text::BAD_LENGTH)).await;
                }
                tenant.save_site(&site).await?;
                "site.save"
            }
            "/admin/sites/delete" => {
                tenant.delete_site(id).await?;
                "site.delete"
            }
            "/admin/modules" => {
                let module = ModuleUse {
                    module_id: id.to_owned(),
                    is_for_admin: is_on("admin"),
                    is_for_public: is_on("public"),
                };
                tenant.register_module(&module).await?;
                "module.save"
            }
            _ => {
                tenant.unregister_module(id).await?;
                "module.delete"
            }
        };
        tenant.record(viewer.actor(), action, id, "", field("server_name")).await?;
        self.show_sites(viewer, Said::Good(text::DONE)).await
    }

    /// `GET tenants`.
    pub(super) async fn show_tenants(&self, viewer: &Viewer<'_>) -> Result<Answer, Trouble> {
        let tenants = self.service.tenants().await?;
        let content = html! {
            section.card aria-labelledby="tenants-title" {
                h2 #tenants-title { (viewer.say(text::NAV_TENANTS)) }
                div.scroll.inside tabindex="0" role="region" aria-labelledby="tenants-title" { table #tenants {
                    thead { tr { th { "hostId" } th { (viewer.say(text::NAME)) } th { (viewer.say(text::STATE)) } th { (viewer.say(text::SINCE)) } } }
                    tbody { @for tenant in &tenants { tr {
                        td { code { (tenant.host_id) } } td { (tenant.name) }
                        td { @if tenant.is_active { (page::pill(Tone::Good, viewer.say(text::IN_USE))) } @else { (page::pill(Tone::Plain, viewer.say(text::NOT_IN_USE))) } }
                        td { (moment(tenant.made_s)) }
                    } } }
                } }
            }
        };
        Ok(page::plain(viewer, Place::Tenants, text::NAV_TENANTS, text::TENANTS_LEAD, &content))
    }

    /// `GET administrators`.
    pub(super) async fn show_administrators(
        &self,
        viewer: &Viewer<'_>,
        told: Said,
    ) -> Result<Answer, Trouble> {
        let all = self.service.administrators().await?;
        let may = viewer.may_write();
        let content = html! {
            (said(viewer, &told))
            section.card aria-labelledby="administrators-title" {
                h2 #administrators-title { (viewer.say(text::NAV_ADMINISTRATORS)) }
                div.scroll.inside tabindex="0" role="region" aria-labelledby="administrators-title" { table #administrators {
                    thead { tr { th { (viewer.say(text::LOGIN)) } th { (viewer.say(text::RIGHT)) } th { (viewer.say(text::SINCE)) } th { span.unseen { (viewer.say(text::DEEDS)) } } } }
                    tbody { @for it in &all { tr {
                        td { (it.login) }
                        td { (page::pill(Tone::Plain, viewer.say(right(it.access)))) }
                        td { (moment(it.made_s)) }
                        td.deeds { (row_button(viewer, "/admin/administrators/delete", "login", &it.login, text::DELETE)) }
                    } } }
                } }
                form.inline.below method="post" action="/admin/administrators" {
                    (viewer.form_key())
                    label { span { (viewer.say(text::LOGIN)) } input name="login" required maxlength="100" autocomplete="off" disabled[!may]; }
                    label { span { (viewer.say(text::RIGHT)) }
                        select name="access" disabled[!may] {
                            @for access in [Access::Read, Access::Write] { option value=(access.letter()) { (viewer.say(right(access))) } }
                        }
                    }
                    button type="submit" disabled[!may] { (viewer.say(text::ADMINISTRATOR_SAVE)) }
                }
            }
        };
        let lead = text::ADMINISTRATORS_LEAD;
        Ok(page::plain(viewer, Place::Administrators, text::NAV_ADMINISTRATORS, lead, &content))
    }

    /// What is done on that page.
    pub(super) async fn change_administrators(
        &self,
        visit: &Visit,
        viewer: &Viewer<'_>,
        form: &Form,
    ) -> Result<Answer, Trouble> {
        let login = form.get("login").unwrap_or_default().trim();
        let (done, action) = if visit.path() == "/admin/administrators/delete" {
            let done = self.service.remove_administrator(login).await;
            (done.map(|()| Said::Good(text::DONE)), "administrator.delete")
        } else {
            let access = Access::of_letter(form.get("access").unwrap_or_default());
            let access = access.unwrap_or(Access::Read);
            let password = random_password()?;
            let _place = self.hashing.acquire().await;
            let done = self.service.save_administrator(login, &password, access).await;
            (done.map(|()| Said::Password(login.to_owned(), password)), "administrator.save")
        };
        let told = match done {
            Ok(told) => {
                self.tenant().await?.record(viewer.actor(), action, login, "", "").await?;
                told
            }
            Err(AdministratorError::Last(_)) => Said::Bad(text::LAST_ADMINISTRATOR),
            Err(AdministratorError::Login | AdministratorError::Unknown(_)) => {
                Said::Bad(text::BAD_LOGIN)
            }
            Err(other) => return Err(other.into()),
        };
        self.show_administrators(viewer, told).await
    }

    /// `GET audit`.
    pub(super) async fn show_audit(&self, viewer: &Viewer<'_>) -> Result<Answer, Trouble> {
        let entries = self.tenant().await?.audit().await?;
        let content = html! {
            section.card aria-labelledby="audit-title" {
                h2 #audit-title { (viewer.say(text::AUDIT_LAST)) }
                @if entries.is_empty() { p.empty { (viewer.say(text::NOTHING_YET)) } }
                @else {
                    div.scroll.inside tabindex="0" role="region" aria-labelledby="audit-title" { table #audit {
                        thead { tr {
                            th { (viewer.say(text::WHEN)) } th { (viewer.say(text::WHO)) } th { (viewer.say(text::WHAT)) }
                            th { (viewer.say(text::BEFORE)) } th { (viewer.say(text::AFTER)) }
                        } }
                        tbody { @for entry in &entries { tr {
                            td.still { (moment(entry.at_s)) }
                            td { (entry.login) @if !entry.address.is_empty() { br; small { (entry.address) } } }
                            td { code { (entry.action) } @if !entry.name.is_empty() { br; code { (entry.name) } } }
                            td { code { (entry.old) } } td { code { (entry.new) } }
                        } } }
                    } }
                }
            }
        };
        Ok(page::plain(viewer, Place::Audit, text::NAV_AUDIT, text::AUDIT_LEAD, &content))
    }
}

const fn right(access: Access) -> Text {
    match access {
        Access::Read => text::RIGHT_READ,
        Access::Write => text::RIGHT_WRITE,
    }
}
