//! Certificates that are obtained and renewed automatically (ACME, RFC 8555).
//!
//! `order.rs` obtains one, `authority.rs` speaks HTTPS; here is when.

mod authority;
mod order;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vestnik_core::Clock;
use vestnik_core::date;
use vestnik_core::metric::{Metric, Metrics};
use vestnik_server::{Certificate, Challenges};

use crate::config::{Acme, show_time};

/// What is needed to keep a certificate.
pub(crate) struct Renewal {
    /// Which one, if any. A change, even to the same, has a failed attempt repeated at once.
    pub(crate) wishes: watch::Receiver<Option<Acme>>,
    /// Where proofs are shown.
    pub(crate) challenges: Arc<Challenges>,
    /// Where attempts are counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What renewal goes by.
    pub(crate) clock: Clock,
}

/// The longest sleep: the clock may be set, and the machine may have slept, too.
const NAP: Duration = Duration::from_secs(600);

/// Keeps the certificate that is wished for: obtains it when there is none that has all the names, and
/// renews it after two thirds of its life. Each time one was put into its file, `obtained` is told. A failure
/// leaves the old one in force and is followed by another attempt, later each time. Never ends; to be
/// dropped at the end, at any time.
pub(crate) async fn run(mut renewal: Renewal, obtained: mpsc::Sender<()>) {
    let share = random_share();
    let mut failures = 0;
    let mut retry_at_s = 0;
    loop {
        let wish = renewal.wishes.borrow_and_update().clone();
        let now_s = renewal.clock.unix_s();
        let wait = match &wish {
            None => {
                renewal.metrics.set(Metric::CertificateExpires, 0);
                NAP
            }
            Some(acme) => {
                let due_s = renewal.due_s(acme, share).max(retry_at_s);
                Duration::from_secs(due_s.saturating_sub(now_s)).min(NAP)
            }
        };
        if !wait.is_zero() {
            tokio::select! {
                changed = renewal.wishes.changed() => {
                    if changed.is_err() {
                        // Nobody is there to wish for anything else.
                        std::future::pending::<()>().await;
                    }
                    (failures, retry_at_s) = (0, 0);
                }
                () = tokio::time::sleep(wait) => {}
            }
            continue;
        }
        let Some(acme) = wish else { continue };
        let names = acme.names.join(", ");
        tracing::info!(names, directory = acme.directory, "asking for a certificate");
        let result = order::obtain(&acme, &renewal.challenges).await;
        renewal.challenges.clear();
        match result {
            Ok(()) => {
                (failures, retry_at_s) = (0, 0);
                renewal.metrics.increment(Metric::CertificatesObtained);
                tracing::info!(names, "certificate obtained");
                // Whoever is gone needs no telling.
                let _ = obtained.send(()).await;
            }
            Err(error) => {
                failures += 1;
                let pause = pause(failures, share);
                retry_at_s = renewal.clock.unix_s() + pause.as_secs();
                renewal.metrics.increment(Metric::CertificateFailures);
                let hint = error.hint(&acme);
                let again_in = show_time(Duration::from_secs(pause.as_secs()));
                tracing::error!(names, again_in, hint, "no certificate: {error}");
            }
        }
    }
}

impl Renewal {
    /// When another certificate is to be obtained, in seconds since 1970; 0: now. `share`: which part of
    /// the time over which renewals are spread.
    fn due_s(&self, acme: &Acme, share: f64) -> u64 {
        let file = acme.certificate();
        let now_s = self.clock.unix_s();
        let kept = Certificate::load(&file, &file, now_s).ok();
        let expires_s = kept.as_ref().map_or(0, |it| it.valid_s().1);
        self.metrics.set(Metric::CertificateExpires, expires_s);
        let Some(kept) = kept else { return 0 };
        let has = |name: &String| kept.names().any(|it| it == name);
        if !acme.names.iter().all(has) {
            return 0;
        }
        let due_s = renewal_s(kept.valid_s(), share);
        tracing::debug!(
            until = date::zulu(expires_s),
            renewed_at = date::zulu(due_s),
            "certificate looked at"
        );
        due_s
    }
}

/// When a certificate that is valid from and until these seconds is renewed: after two thirds of its
/// life, less up to a twentieth of it, so that not all servers come at once.
fn renewal_s((from_s, until_s): (u64, u64), share: f64) -> u64 {
    let life_s = until_s.saturating_sub(from_s);
    from_s + life_s * 2 / 3 - seconds(share, life_s / 20)
}

/// How long after so many failures in a row the next attempt begins: a minute, four, sixteen, and so on
/// up to six hours, and up to a quarter more. Authorities count failures and refuse who has too many.
fn pause(failures: u32, share: f64) -> Duration {
    const FIRST_S: u64 = 60;
    const MOST_S: u64 = 6 * 3600;
    let doubled_twice = 4_u64.saturating_pow(failures.saturating_sub(1));
    let pause_s = FIRST_S.saturating_mul(doubled_twice).min(MOST_S);
    Duration::from_secs(pause_s + seconds(share, pause_s / 4))
}

/// `share` of `whole_s`.
fn seconds(share: f64, whole_s: u64) -> u64 {
    let whole = u32::try_from(whole_s).unwrap_or(u32::MAX);
    Duration::from_secs(whole.into()).mul_f64(share).as_secs()
}

/// A number from 0 to 1, another one in each process.
fn random_share() -> f64 {
    let mut bytes = [0; 4];
    if let Err(error) = crate::keygen::fill_random(&mut bytes) {
        // Then renewals are not spread, which does no harm to this server.
        tracing::debug!(%error, "no random number");
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_or_a_little_earlier() {
        const DAY_S: u64 = 86_400;
        let life = (1000 * DAY_S, 1090 * DAY_S);
        assert_eq!(renewal_s(life, 0.0), 1060 * DAY_S);
        assert_eq!(renewal_s(life, 1.0), 1060 * DAY_S - DAY_S * 9 / 2);
        // One that was never valid is due, and nothing overflows.
        assert_eq!(renewal_s((7, 3), 1.0), 7);
    }

    #[test]
    fn attempts_come_later_after_each_failure_up_to_six_hours() {
        let pauses: Vec<_> = (1..=7).map(|failures| pause(failures, 0.0).as_secs()).collect();
        assert_eq!(pauses, [60, 240, 960, 3840, 15_360, 21_600, 21_600]);
        assert_eq!(pause(1, 1.0).as_secs(), 75);
        assert_eq!(pause(u32::MAX, 1.0).as_secs(), 27_000);
        assert!((0.0..=1.0).contains(&random_share()));
    }
}
