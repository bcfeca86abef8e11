//! How a page looks to whoever asked for it: language and colours.

use http::HeaderMap;
use http::header::{ACCEPT_LANGUAGE, COOKIE};

use super::text::{Language, Text};

/// Colours of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Those of the system.
    Auto,
    Light,
    Dark,
}

impl Theme {
    pub(crate) const ALL: [Self; 3] = [Self::Auto, Self::Light, Self::Dark];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.name() == name)
    }
}

/// Cookies of a choice last a year.
const CHOICE_S: u32 = 31_536_000;

/// Language and colours of one answer.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) language: Language,
    pub(crate) theme: Theme,
    /// A choice made by this request, to be remembered.
    pub(crate) cookie: Option<String>,
}

impl Look {
    /// The look that a request asks for: its query, else its cookies, else what the browser accepts.
    pub(crate) fn of(query: &str, headers: &HeaderMap) -> Self {
        let asked = form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "lang")
            .and_then(|(_, tag)| Language::of_tag(&tag));
        let accepted = headers.get(ACCEPT_LANGUAGE).and_then(|it| it.to_str().ok());
        let language = asked
            .or_else(|| Language::of_tag(cookie(headers, "vestnik_lang")?))
            .unwrap_or_else(|| Language::accepted(accepted.unwrap_or_default()));
        let theme = cookie(headers, "vestnik_theme").and_then(Theme::named).unwrap_or(Theme::Auto);
        let cookie = asked.map(|it| {
            let tag = it.tag();
            format!("vestnik_lang={tag}; Path=/admin/; Max-Age={CHOICE_S}; SameSite=Strict")
        });
        Self { language, theme, cookie }
    }

    /// A text in the language of the page.
    pub(crate) const fn say(&self, text: Text) -> &'static str {
        text.r#in(self.language)
    }
}

/// The value of a cookie; of several the first.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|it| it.to_str().ok());
    let mut pairs = all.flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
    pairs.find_map(|(found, value)| (found == name).then_some(value))
}
