//! Who is let in: passwords, sessions, a proxy's word, and whether a form comes from our own page.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue, SET_COOKIE};
use http::{Method, StatusCode};
use maud::html;
use vestnik_server::Visit;
use vestnik_service::administrator::{AdministratorError, Session};
use vestnik_service::audit::Actor;
use vestnik_service::settings::Form;

use super::look::{Look, cookie};
use super::page::{self, Tone, Viewer};
use super::{Admin, Trouble, text};
use crate::answer::Answer;

const COOKIE_NAME: &str = "vestnik_session";
/// What is posted to a page is small.
const FORM_BYTES_MAX: usize = 256 * 1024;
const FIELDS_MAX: usize = 2000;

/// Failed attempts to sign in, by address.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Attempts {
    const WINDOW: Duration = Duration::from_secs(300);
    const IN_WINDOW_MAX: u32 = 10;
    const ADDRESSES_MAX: usize = 10_000;

    /// Counts an attempt; `false` when this address has made too many.
    fn may_try(&self, client: IpAddr) -> bool {
        // Who has a network of version 6 has as many addresses as they like.
        let client = match client {
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << 64);
                IpAddr::V6(network.into())
            }
            IpAddr::V4(_) => client,
        };
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if attempts.len() >= Self::ADDRESSES_MAX {
            attempts.retain(|_, (since, _)| now - *since < Self::WINDOW);
            if attempts.len() >= Self::ADDRESSES_MAX {
                return false;
            }
        }
        let (since, count) = attempts.entry(client).or_insert((now, 0));
        if now - *since >= Self::WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= Self::IN_WINDOW_MAX
    }

    fn succeeded(&self, client: IpAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&client);
    }
}

/// The fields of a posted form.
pub(super) fn form(visit: &Visit) -> Result<Form, Trouble> {
    let body = visit.body();
    if body.len() > FORM_BYTES_MAX {
        return Err(Trouble::TooLarge);
    }
    Ok(parsed(body))
}

fn parsed(body: &[u8]) -> Form {
    let fields = form_urlencoded::parse(body).take(FIELDS_MAX);
    Form::new(fields.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
}

/// Whether a browser says that another site sends this.
fn is_foreign(visit: &Visit) -> bool {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let site = visit.headers().get(SEC_FETCH_SITE).and_then(|it| it.to_str().ok());
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

/// Compares in a time that does not tell where they differ.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// Whether a posted form comes from a page of this session.
pub(super) fn is_ours(visit: &Visit, form: &Form, session: &Session) -> bool {
    !is_foreign(visit) && form.get("form_key").is_some_and(|key| is_same(key, &session.form_key))
}

fn with_cookie(mut answer: Answer, value: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().append(SET_COOKIE, value);
    }
    answer
}

/// A page of ours to go on with; the overview for anything else.
fn next_page(next: &str) -> &str {
    let is_page = next.starts_with("/admin/")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"<>".contains(&byte));
    if is_page { next } else { "/admin/" }
}

impl Admin {
    fn lifetime_s(&self) -> u64 {
        self.options.session_lifetime.as_secs()
    }

    fn session_cookie(&self, visit: &Visit, token: &str) -> String {
        let secure = if visit.is_encrypted() { "; Secure" } else { "" };
        let age = if token.is_empty() { 0 } else { self.lifetime_s() };
        format!(
            "{COOKIE_NAME}={token}; Path=/admin/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"
        )
    }

    /// The login that a known proxy vouches for.
    fn proxied<'a>(&self, visit: &'a Visit) -> Option<&'a str> {
        let header = self.options.proxy_user_header.as_ref()?;
        let login = visit.headers().get(header)?.to_str().ok()?.trim();
        (visit.is_from_proxy() && !login.is_empty()).then_some(login)
    }

    /// Who asks; `None`: nobody who has signed in. The second is a cookie to be set.
    pub(super) async fn session(
        &self,
        visit: &Visit,
    ) -> Result<Option<(Session, Option<String>)>, Trouble> {
        let proxied = self.proxied(visit);
        let token = cookie(visit.headers(), COOKIE_NAME).unwrap_or_default();
        if !token.is_empty()
            && let Some(session) = self.service.session(token, self.lifetime_s()).await?
            && proxied.is_none_or(|login| login == session.login)
        {
            return Ok(Some((session, None)));
        }
        let Some(login) = proxied else { return Ok(None) };
        if self.service.administrator(login).await?.is_none() {
            return Err(Trouble::UnknownProxyUser(login.to_owned()));
        }
        let token = self.service.begin_session(login, self.lifetime_s()).await?;
        let session = self.service.session(&token, self.lifetime_s()).await?;
        let cookie = self.session_cookie(visit, &token);
        Ok(session.map(|session| (session, Some(cookie))))
    }

    /// The form to sign in. `resume`: a form that was sent when the session was over.
    fn sign_in_page(
        &self,
        status: StatusCode,
        look: &Look,
        trouble: Option<(Tone, text::Text)>,
        next: &str,
        resume: &str,
    ) -> Answer {
        let content = html! {
            @if let Some((tone, text)) = trouble {
                (page::notice(tone, &html! { (look.say(text)) }))
            }
            form.stack method="post" action="/admin/login" {
                input type="hidden" name="next" value=(next);
                @if !resume.is_empty() { input type="hidden" name="resume" value=(resume); }
                label { span { (look.say(text::LOGIN)) }
                    input name="login" autocomplete="username" required autofocus maxlength="100";
                }
                label { span { (look.say(text::PASSWORD)) }
                    input name="password" type="password" autocomplete="current-password" required maxlength="1024";
                }
                button.primary type="submit" { (look.say(text::SIGN_IN)) }
            }
            p.hint { (look.say(text::SIGN_IN_HELP)) " " code { "vestnik admin password" } }
        };
        page::answer(status, look, page::bare(look, &self.assets, text::SIGN_IN_TITLE, &content))
    }

    /// The answer to whoever has to sign in first.
    pub(super) fn sign_in_first(&self, visit: &Visit, look: &Look) -> Answer {
        if visit.method() == Method::GET {
            let path = visit.path();
            let next = form_urlencoded::byte_serialize(path.as_bytes()).collect::<String>();
            return page::see(&format!("/admin/login?next={next}"));
        }
        // What was entered comes back after signing in; it does not leave this browser.
        let body = String::from_utf8_lossy(visit.body());
        let resume = if body.len() <= FORM_BYTES_MAX { &*body } else { "" };
        let said = Some((Tone::Warning, text::SESSION_OVER));
        self.sign_in_page(StatusCode::UNAUTHORIZED, look, said, visit.path(), resume)
    }

    /// `GET login`.
    pub(super) async fn show_sign_in(&self, visit: &Visit, look: &Look) -> Result<Answer, Trouble> {
        let query = parsed(visit.query().as_bytes());
        let next = next_page(query.get("next").unwrap_or_default());
        if let Some((_, cookie)) = self.session(visit).await? {
            let answer = page::see(next);
            return Ok(cookie.map_or_else(|| answer.clone(), |it| with_cookie(answer.clone(), &it)));
        }
        Ok(self.sign_in_page(StatusCode::OK, look, None, next, ""))
    }

    /// `POST login`.
    pub(super) async fn sign_in(&self, visit: &Visit, look: &Look) -> Result<Answer, Trouble> {
        let form = form(visit)?;
        let next = next_page(form.get("next").unwrap_or_default());
        let resume = form.get("resume").unwrap_or_default();
        let refuse = |status, said| {
            Ok(self.sign_in_page(status, look, Some((Tone::Bad, said)), next, resume))
        };
        if is_foreign(visit) {
            return refuse(StatusCode::FORBIDDEN, text::FORM_EXPIRED);
        }
        if !self.attempts.may_try(visit.client()) {
            return refuse(StatusCode::TOO_MANY_REQUESTS, text::SIGN_IN_TOO_OFTEN);
        }
        let login = form.get("login").unwrap_or_default().trim();
        let password = form.get("password").unwrap_or_default();
        let is_right = {
            // Each takes 19 MiB and a tenth of a second.
            let _place = self.hashing.acquire().await;
            self.service.checks_password(login, password).await?
        };
        if !is_right {
            tracing::warn!(address = %visit.client(), "a password of an administrator was wrong");
            return refuse(StatusCode::UNAUTHORIZED, text::SIGN_IN_WRONG);
        }
        self.attempts.succeeded(visit.client());
        let token = self.service.begin_session(login, self.lifetime_s()).await?;
        let address = visit.client().to_string();
        let actor = Actor { login, address: &address };
        self.tenant().await?.record(actor, "sign-in", login, "", "").await?;
        let cookie = self.session_cookie(visit, &token);
        let session = self.service.session(&token, self.lifetime_s()).await?;
        let answer = match session {
            Some(session) if next == "/admin/settings" && !resume.is_empty() => {
                let form = parsed(resume.as_bytes());
                let viewer = Viewer { look, session: &session, assets: &self.assets, address };
                self.resume_settings(&viewer, &form).await?
            }
            _ => page::see(next),
        };
        Ok(with_cookie(answer, &cookie))
    }

    /// `POST logout`.
    pub(super) async fn sign_out(&self, visit: &Visit) -> Result<Answer, Trouble> {
        let token = cookie(visit.headers(), COOKIE_NAME).unwrap_or_default();
        self.service.end_session(token).await?;
        Ok(with_cookie(page::see("/admin/login"), &self.session_cookie(visit, "")))
    }

    /// Puts the cookie of a session that has just begun on an answer.
    pub(super) fn keep(answer: Answer, cookie: Option<String>) -> Answer {
        match cookie {
            Some(cookie) => with_cookie(answer, &cookie),
            None => answer,
        }
    }
}

impl From<AdministratorError> for Trouble {
    fn from(error: AdministratorError) -> Self {
        match error {
            AdministratorError::Database(error) => Self::Database(error.into()),
            other => Self::Administrator(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_try_ten_times_and_then_waits() {
        let attempts = Attempts::default();
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..Attempts::IN_WINDOW_MAX {
            assert!(attempts.may_try(a));
        }
        assert!(!attempts.may_try(a));
        assert!(attempts.may_try(b));
        attempts.succeeded(a);
        assert!(attempts.may_try(a));
        let network: Vec<IpAddr> =
            (0..12).map(|n| format!("2001:db8::{n}").parse().unwrap()).collect();
        let tried: Vec<bool> = network.iter().map(|it| attempts.may_try(*it)).collect();
        assert_eq!(tried.iter().filter(|it| **it).count(), 10, "one network is one address");
    }

    #[test]
    fn only_pages_of_ours_come_next() {
        assert_eq!(next_page("/admin/settings"), "/admin/settings");
        for bad in
            ["https://evil.test/", "//evil.test/admin/", "/other", "", "/admin/\"", "/admin/ x"]
        {
            assert_eq!(next_page(bad), "/admin/", "{bad}");
        }
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(is_same("abc", "abc"));
        assert!(!is_same("abc", "abd") && !is_same("abc", "ab") && !is_same("", "a"));
    }
}
