//! The button that tries the configured addresses (S-63).

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use maud::{Markup, html};
use vestnik_server::Visit;

use super::super::page::Viewer;
use super::super::text::{self, Text};
use super::super::{Admin, Trouble};
use crate::answer::{self, Answer};
use crate::check::{Check, Outcome, Remedy, Try, Watched};

/// Checks that are being made or were made lately.
#[derive(Default)]
pub(crate) struct Checks(Mutex<VecDeque<(u64, Watched)>>);

impl Checks {
    /// More are not made at a time, and older ones are forgotten.
    const KEPT: usize = 8;

    /// Takes a new one in; its number, or `None` while too many are under way.
    fn begin(&self, watched: Watched) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::KEPT {
            let done = all.iter().position(|(_, it)| it.look().is_done)?;
            all.remove(done);
        }
        let number = all.back().map_or(1, |(number, _)| number + 1);
        all.push_back((number, watched));
        Some(number)
    }

    fn find(&self, number: u64) -> Option<Watched> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(it, _)| *it == number).map(|(_, watched)| watched.clone())
    }
}

const fn name(tries: Try) -> Text {
    match tries {
        Try::Key => text::CHECK_KEY,
        Try::Publish => text::CHECK_PUBLISH,
        Try::JsonRpc => text::CHECK_JSON_RPC,
        Try::Clock => text::CHECK_CLOCK,
        Try::Poll => text::CHECK_POLL,
        Try::PollSecure => text::CHECK_POLL_SECURE,
        Try::WebSocket => text::CHECK_WEBSOCKET,
        Try::WebSocketSecure => text::CHECK_WEBSOCKET_SECURE,
        Try::Replay => text::CHECK_REPLAY,
        Try::ClientPublish => text::CHECK_CLIENT_PUBLISH,
        Try::ClientPublishSecure => text::CHECK_CLIENT_PUBLISH_SECURE,
    }
}

const fn word(outcome: Outcome) -> (&'static str, Text) {
    match outcome {
        Outcome::Waiting => ("waiting", text::CHECK_WAITING),
        Outcome::Running => ("running", text::CHECK_RUNNING),
        Outcome::Good => ("good", text::CHECK_GOOD),
        Outcome::Warning => ("warning", text::CHECK_WARNING),
        Outcome::Bad => ("bad", text::CHECK_BAD),
        Outcome::Skipped => ("skipped", text::CHECK_SKIPPED),
    }
}

const fn remedy(remedy: Remedy) -> Text {
    match remedy {
        Remedy::MakeKey => text::MEND_MAKE_KEY,
        Remedy::SameKey => text::MEND_SAME_KEY,
        Remedy::Address => text::MEND_ADDRESS,
        Remedy::Name => text::MEND_NAME,
        Remedy::Listen => text::MEND_LISTEN,
        Remedy::Certificate => text::MEND_CERTIFICATE,
        Remedy::Trust => text::MEND_TRUST,
        Remedy::Forward => text::MEND_FORWARD,
        Remedy::Upgrade => text::MEND_UPGRADE,
        Remedy::Buffering => text::MEND_BUFFERING,
        Remedy::Clock => text::MEND_CLOCK,
        Remedy::History => text::MEND_HISTORY,
        Remedy::Before => text::MEND_BEFORE,
    }
}

/// The card with the button.
pub(super) fn card(viewer: &Viewer<'_>, is_checkable: bool) -> Markup {
    html! {
        section.card #check-card data-choices="personal" aria-labelledby="check-title" hidden[!is_checkable] {
            div.heading {
                h2 #check-title { (viewer.say(text::CHECK)) }
                button type="button" #check disabled[!viewer.may_write()] { (viewer.say(text::CHECK_START)) }
            }
            p.hint { (viewer.say(text::CHECK_LEAD)) }
            ol.steps #check-steps aria-live="polite" hidden {}
        }
    }
}

impl Admin {
    /// `POST settings/check`: begins one with what is saved.
    pub(in super::super) async fn begin_check(&self, visit: &Visit) -> Result<Answer, Trouble> {
        let tenant = self.tenant().await?;
        let options = tenant.options("").await?;
        let sites = tenant.sites().await?;
        let of_site = sites.into_iter().find(|it| it.is_active && !it.server_name.is_empty());
        let host = visit.headers().get(http::header::HOST).and_then(|it| it.to_str().ok());
        let host = host.unwrap_or("localhost");
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host).to_owned();
        let domain = of_site.map_or(host, |site| site.server_name);
        let channel = tenant.random_channel().map_err(|_| Trouble::NotFound)?;
        let begun = Check::new(options, tenant.host_id(), domain, channel).ok();
        let number = begun.and_then(|(check, watched)| {
            let number = self.checks.begin(watched)?;
            self.tasks.spawn(check.run());
            Some(number)
        });
        Ok(match number {
            Some(number) => {
                answer::json(StatusCode::OK, serde_json::json!({ "id": number }).to_string())
            }
            None => answer::error(StatusCode::SERVICE_UNAVAILABLE, "BUSY", "too many checks"),
        })
    }

    /// `GET settings/check`: how far it is.
    pub(in super::super) fn show_check(
        &self,
        visit: &Visit,
        viewer: &Viewer<'_>,
    ) -> Result<Answer, Trouble> {
        let number = visit.query().strip_prefix("id=").and_then(|id| id.parse().ok());
        let watched =
            number.and_then(|number| self.checks.find(number)).ok_or(Trouble::NotFound)?;
        let progress = watched.look();
        let steps = progress.steps.iter().map(|step| {
            let (class, state) = word(step.outcome);
            serde_json::json!({
                "name": viewer.say(name(step.tries)),
                "address": step.address,
                "class": class,
                "state": viewer.say(state),
                "detail": step.detail,
                "remedy": step.remedy.map(|it| viewer.say(remedy(it))),
                "line": step.remedy.map(Remedy::line),
                "milliseconds": step.milliseconds,
            })
        });
        let steps: Vec<_> = steps.collect();
        let said = serde_json::json!({ "steps": steps, "done": progress.is_done });
        Ok(answer::json(StatusCode::OK, said.to_string()))
    }
}
