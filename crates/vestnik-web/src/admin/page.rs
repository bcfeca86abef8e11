//! The frame of every page: head, menu, title.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION,
    REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use vestnik_service::administrator::{Access, Session};
use vestnik_service::audit::Actor;

use super::assets::Assets;
use super::look::{Look, Theme};
use super::text::{self, Language, Text};
use crate::answer::Answer;

/// Nothing but our own files; no scripts or styles inside pages.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

/// A page of the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Dashboard,
    Settings,
    Connections,
    Sites,
    Tenants,
    Secrets,
    Administrators,
    Audit,
}

impl Place {
    const ALL: [Self; 8] = [
        Self::Dashboard,
        Self::Settings,
        Self::Connections,
        Self::Sites,
        Self::Tenants,
        Self::Secrets,
        Self::Administrators,
        Self::Audit,
    ];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Dashboard => "/admin/",
            Self::Settings => "/admin/settings",
            Self::Connections => "/admin/connections",
            Self::Sites => "/admin/sites",
            Self::Tenants => "/admin/tenants",
            Self::Secrets => "/admin/secrets",
            Self::Administrators => "/admin/administrators",
            Self::Audit => "/admin/audit",
        }
    }

    const fn name(self) -> Text {
        match self {
            Self::Dashboard => text::NAV_DASHBOARD,
            Self::Settings => text::NAV_SETTINGS,
            Self::Connections => text::NAV_CONNECTIONS,
            Self::Sites => text::NAV_SITES,
            Self::Tenants => text::NAV_TENANTS,
            Self::Secrets => text::NAV_SECRETS,
            Self::Administrators => text::NAV_ADMINISTRATORS,
            Self::Audit => text::NAV_AUDIT,
        }
    }

    /// The lines of its picture, in a square of 24.
    const fn picture(self) -> &'static str {
        match self {
            Self::Dashboard => "M4 20V10M10 20V4M16 20v-7M22 20H2",
            Self::Connections => "M4 12h5M15 12h5M9 8v8M15 8v8M9 10h6M9 14h6",
            Self::Settings => "M4 7h9M17 7h3M15 4.5v5M4 17h3M11 17h9M9 14.5v5",
            Self::Sites => "M4 5h16v14H4zM4 9h16M8 5v4",
            Self::Tenants => "M4 20V8l8-4 8 4v12M4 20h16M9 20v-6h6v6",
            Self::Secrets => "M8 15a4 4 0 1 1 3.500-6H21v4h-3v3h-4v-3h-2.500A4 4 0 0 1 8 15z",
            Self::Administrators => {
                "M12 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM5 20a7 7 0 0 1 14 0"
            }
            Self::Audit => "M6 4h12v16H6zM9 9h6M9 13h6M9 17h3",
        }
    }
}

/// Who looks at a page, and how.
pub(crate) struct Viewer<'a> {
    pub(crate) look: &'a Look,
    pub(crate) session: &'a Session,
    pub(crate) assets: &'a Assets,
    /// Where they come from.
    pub(crate) address: String,
}

impl Viewer<'_> {
    /// Who does what they do, for the log of changes.
    pub(crate) fn actor(&self) -> Actor<'_> {
        Actor { login: &self.session.login, address: &self.address }
    }

    pub(crate) fn say(&self, text: Text) -> &'static str {
        self.look.say(text)
    }

    pub(crate) fn may_write(&self) -> bool {
        self.session.access == Access::Write
    }

    /// The hidden field that every form carries.
    pub(crate) fn form_key(&self) -> Markup {
        html! { input type="hidden" name="form_key" value=(self.session.form_key); }
    }
}

/// What a page has besides its content.
pub(crate) struct Frame<'a> {
    pub(crate) place: Place,
    pub(crate) title: Text,
    pub(crate) lead: Option<Text>,
    pub(crate) scripts: &'a [&'a str],
    pub(crate) styles: &'a [&'a str],
}

/// The answer with a page that has no scripts and styles of its own.
pub(crate) fn plain(
    viewer: &Viewer<'_>,
    place: Place,
    title: Text,
    lead: Text,
    content: &Markup,
) -> Answer {
    let frame = Frame { place, title, lead: Some(lead), scripts: &[], styles: &[] };
    answer(StatusCode::OK, viewer.look, page(viewer, &frame, content))
}

fn head(look: &Look, assets: &Assets, title: &str, styles: &[&str], scripts: &[&str]) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content=(match look.theme {
                Theme::Auto => "light dark",
                Theme::Light => "light",
                Theme::Dark => "dark",
            });
            meta name="robots" content="noindex";
            title { (title) " · vestnik" }
            link rel="icon" type="image/svg+xml" href=(assets.address("icon.svg"));
            link rel="stylesheet" href=(assets.address("style.css"));
            @for style in styles { link rel="stylesheet" href=(assets.address(style)); }
            script type="module" src=(assets.address("page.js")) {}
            @for script in scripts { script type="module" src=(assets.address(script)) {} }
        }
    }
}

fn picture(lines: &str) -> Markup {
    html! {
        svg viewBox="0 0 24 24" aria-hidden="true" { path d=(lines) {} }
    }
}

/// Language and colours, to be chosen.
fn choices(look: &Look) -> Markup {
    html! {
        div.choices {
            div.segmented role="group" aria-label=(look.say(text::LANGUAGE)) {
                @for language in Language::ALL {
                    a href={ "?lang=" (language.tag()) } hreflang=(language.tag()) lang=(language.tag())
                        aria-current=[(language == look.language).then_some("true")]
                        aria-label=(match language { Language::English => "English", Language::Russian => "Русский" })
                        { (language.tag().to_uppercase()) }
                }
            }
            div.segmented role="group" aria-label=(look.say(text::THEME)) {
                @for (theme, name, sign) in [
                    (Theme::Auto, text::THEME_AUTO, "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16"),
                    (Theme::Light, text::THEME_LIGHT, "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M5 19l2-2M17 7l2-2"),
                    (Theme::Dark, text::THEME_DARK, "M20 14A8 8 0 1 1 10 4a6.500 6.500 0 0 0 10 10z"),
                ] {
                    button type="button" data-theme-choice=(theme.name()) aria-pressed=(theme == look.theme)
                        aria-label=(look.say(name)) title=(look.say(name)) { (picture(sign)) }
                }
            }
        }
    }
}

/// A whole page for somebody who has signed in.
pub(crate) fn page(viewer: &Viewer<'_>, frame: &Frame<'_>, content: &Markup) -> Markup {
    let look = viewer.look;
    let title = look.say(frame.title);
    html! {
        (DOCTYPE)
        html lang=(look.language.tag()) data-theme=(look.theme.name()) {
            (head(look, viewer.assets, title, frame.styles, frame.scripts))
            body data-form-key=(viewer.session.form_key) {
                a.skip href="#content" { (look.say(text::SKIP)) }
                div.shell {
                    header.side {
                        a.brand href="/admin/" {
                            img src=(viewer.assets.address("icon.svg")) alt="" width="28" height="28";
                            span { b { "vestnik" } small { (look.say(text::PRODUCT)) } }
                        }
                        nav aria-label=(look.say(text::NAV)) {
                            @for place in Place::ALL {
                                a href=(place.path()) aria-current=[(place == frame.place).then_some("page")] {
                                    (picture(place.picture())) span { (look.say(place.name())) }
                                }
                            }
                        }
                        div.foot {
                            (choices(look))
                            form.who method="post" action="/admin/logout" {
                                (viewer.form_key())
                                span.login title=(viewer.session.login) { (viewer.session.login) }
                                button.quiet type="submit" { (look.say(text::SIGN_OUT)) }
                            }
                        }
                    }
                    main #content tabindex="-1" {
                        div.title {
                            h1 { (title) }
                            @if let Some(lead) = frame.lead { p { (look.say(lead)) } }
                        }
                        (content)
                    }
                }
            }
        }
    }
}

/// A page with one card in the middle, for whoever has not signed in.
pub(crate) fn bare(look: &Look, assets: &Assets, title: Text, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(look.language.tag()) data-theme=(look.theme.name()) {
            (head(look, assets, look.say(title), &[], &[]))
            body.bare {
                main #content {
                    div.card.alone {
                        div.brand {
                            img src=(assets.address("icon.svg")) alt="" width="36" height="36";
                            span { b { "vestnik" } small { (look.say(text::PRODUCT)) } }
                        }
                        h1 { (look.say(title)) }
                        (content)
                    }
                    (choices(look))
                }
            }
        }
    }
}

/// How a notice is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Warning,
    Bad,
    Plain,
}

impl Tone {
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Plain => "plain",
        }
    }
}

/// A notice above the content; `announces`: read aloud at once.
pub(crate) fn notice(tone: Tone, content: &Markup) -> Markup {
    let role = if tone == Tone::Bad { "alert" } else { "status" };
    html! { div.notice.(tone.class()) role=(role) { (content) } }
}

/// A word in a coloured pill.
pub(crate) fn pill(tone: Tone, text: &str) -> Markup {
    html! { span.pill.(tone.class()) { (text) } }
}

/// Text that is data for a script, not code.
pub(crate) fn data(id: &str, value: &serde_json::Value) -> Markup {
    // `<` would end the element early.
    let json = value.to_string().replace('<', "\\u003c");
    html! { script type="application/json" id=(id) { (PreEscaped(json)) } }
}

/// An answer with a page in it.
pub(crate) fn answer(status: StatusCode, look: &Look, page: Markup) -> Answer {
    let mut answer = Response::new(bytes::Bytes::from(page.into_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(headers);
    if let Some(cookie) = look.cookie.as_ref().and_then(|it| HeaderValue::from_str(it).ok()) {
        headers.append(SET_COOKIE, cookie);
    }
    answer
}

fn protect(headers: &mut http::HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
}

/// An answer that leads to another page.
pub(crate) fn see(path: &str) -> Answer {
    let mut answer = Response::new(bytes::Bytes::new());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    protect(answer.headers_mut());
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/admin/"));
    answer.headers_mut().insert(LOCATION, path);
    answer
}
