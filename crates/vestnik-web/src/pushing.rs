//! Hands batches of notifications to the gateway that a tenant's options name, as the PHP module does
//! (mobile-push.md §11), but for losing them: what surely did not arrive is tried again while it is worth
//! it. What was sent without an answer may have arrived and is not sent twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use vestnik_publisher::{HttpClient, HttpFailure, TlsConfig};
use vestnik_service::Service;
use vestnik_service::notification::PUSH_REFUSED;
use vestnik_service::push::{PushBatch, Sent};

/// How long a connection and an answer may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// The longest time one batch takes.
pub(crate) const WITHIN: Duration = Duration::from_secs(16);
/// Between two looks at what is due, unless somebody wakes us.
const LOOK: Duration = Duration::from_secs(2);
const FORM: &str = "application/x-www-form-urlencoded";

/// Sends what is due until `stopping`, and then finishes what it is sending; several may run beside each
/// other.
pub(crate) async fn run(service: Service, gateways: Arc<Gateways>, stopping: CancellationToken) {
    while let Some(batch) = next(&service, &gateways, &stopping).await {
        let outcome = gateways.send(&batch).await;
        settle(&service, &batch, outcome.sent()).await;
        // Its tenant may have had as many under way as it may.
        service.wake_pushing();
        tell(&batch, outcome).await;
    }
}

/// The next batch that is due; `None`: it is time to stop. One of those who send looks at a time, so that
/// they do not hold a connection to the database each while there is nothing to do.
async fn next(
    service: &Service,
    gateways: &Gateways,
    stopping: &CancellationToken,
) -> Option<PushBatch> {
    let _looking = gateways.looking.lock().await;
    while !stopping.is_cancelled() {
        let is_read = match service.claim_push().await {
            Ok(Some(batch)) => return Some(batch),
            Ok(None) => true,
            Err(error) => {
                tracing::warn!(%error, "notifications that wait cannot be read");
                false
            }
        };
        tokio::select! {
            () = service.pushing_due(), if is_read => {}
            () = tokio::time::sleep(LOOK) => {}
            () = stopping.cancelled() => {}
        }
    }
    None
}

/// What came of sending a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The gateway has it.
    Taken,
    /// Nobody knows whether it arrived.
    Unknown,
    /// The gateway has too much to do.
    Busy,
    /// It does not take anything of this site, or is none; somebody may set that right.
    Misdirected(StatusCode),
    /// It does not take this batch, or failed with it; the same would come of it again.
    Refused(StatusCode),
    /// Nobody was there.
    Away,
}

impl Outcome {
    /// What an answer says. Only those that say that a batch was not taken have it sent again: an error
    /// behind the gateway's door may come after it was.
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Self::Busy,
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED => Self::Misdirected(status),
            _ if status.is_success() => Self::Taken,
            _ if status.is_redirection() => Self::Misdirected(status),
            _ => Self::Refused(status),
        }
    }

    /// What becomes of the batch.
    const fn sent(self) -> Sent {
        match self {
            Self::Taken | Self::Unknown | Self::Refused(_) => Sent::Done,
            Self::Busy | Self::Misdirected(_) => Sent::Again,
            Self::Away => Sent::Away,
        }
    }
}

/// Writes down what became of a batch; what is not written down is sent once more.
async fn settle(service: &Service, batch: &PushBatch, sent: Sent) {
    const TRIES: u32 = 5;
    for pause in 1..=TRIES {
        match service.settle_push(batch, sent).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "what became of notifications is not written down");
                tokio::time::sleep(Duration::from_millis(200 * u64::from(pause))).await;
            }
        }
    }
}

/// Tells administrators of a gateway that refuses the site, or that it does so no longer.
async fn tell(batch: &PushBatch, outcome: Outcome) {
    let told = match outcome {
        Outcome::Misdirected(status) | Outcome::Refused(status) => {
            tracing::warn!(%status, "the gateway does not take notifications");
            let text = format!(
                "The gateway of option `push_service_url` refuses notifications with status {}. \
                 Check the address and option `licence_key`.",
                status.as_u16()
            );
            batch.tenant.notify(PUSH_REFUSED, &text).await
        }
        Outcome::Taken => batch.tenant.withdraw_notification(PUSH_REFUSED).await,
        Outcome::Unknown | Outcome::Busy | Outcome::Away => Ok(()),
    };
    if let Err(error) = told {
        tracing::warn!(%error, "administrators are not told of the gateway for notifications");
    }
}

/// The gateways of all tenants.
pub(crate) struct Gateways {
    tls: TlsConfig,
    clients: Mutex<HashMap<String, Arc<HttpClient>>>,
    /// Held by the one who looks for what is due.
    looking: tokio::sync::Mutex<()>,
}

impl Gateways {
    pub(crate) fn new(tls: TlsConfig) -> Self {
        Self { tls, clients: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    fn client(&self, address: &str) -> Arc<HttpClient> {
        const CLIENTS_MAX: usize = 100;
        let server = address.split('?').next().unwrap_or(address);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(server) {
            clients.clear();
        }
        let client = clients.entry(server.to_owned()).or_insert_with(|| {
            Arc::new(HttpClient::new(Arc::clone(&self.tls), CONNECT_WITHIN, ANSWER_WITHIN))
        });
        Arc::clone(client)
    }

    /// Sends a batch.
    async fn send(&self, batch: &PushBatch) -> Outcome {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&batch.address)
            .header(CONTENT_TYPE, FORM)
            .header(ACCEPT, "*/*")
            .body(Full::new(Bytes::from(form(&batch.body))));
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, "option `push_service_url` is no address");
                return Outcome::Away;
            }
        };
        // Neither the address nor the batch is written down: one has the site's key, the other texts.
        match self.client(&batch.address).send(request).await {
            Ok(answer) => Outcome::of(answer.status),
            Err(HttpFailure::Unsent(reason)) => {
                tracing::warn!(reason, "the gateway for notifications is not reached; they wait");
                Outcome::Away
            }
            Err(HttpFailure::Unanswered(reason)) => {
                tracing::warn!(
                    reason,
                    "the gateway gave no answer; whether notifications arrived is not known"
                );
                Outcome::Unknown
            }
        }
    }
}

/// The body of a request.
fn form(batch: &str) -> String {
    let mut body = String::with_capacity(batch.len() + batch.len() / 8 + 32);
    body.push_str("Action=SendMessage&MessageBody=");
    for byte in batch.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                body.push(char::from(byte));
            }
            b' ' => body.push('+'),
            _ => body.push_str(&format!("%{byte:02X}")),
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_was_not_taken_is_sent_again() {
        for (status, sent, is_told) in [
            (200, Sent::Done, false),
            (202, Sent::Done, false),
            (301, Sent::Again, true),
            (400, Sent::Done, true),
            (403, Sent::Again, true),
            (404, Sent::Again, true),
            (413, Sent::Done, true),
            (429, Sent::Again, false),
            (500, Sent::Done, true),
            (502, Sent::Done, true),
            (503, Sent::Again, false),
        ] {
            let outcome = Outcome::of(StatusCode::from_u16(status).unwrap());
            let told = matches!(outcome, Outcome::Misdirected(_) | Outcome::Refused(_));
            assert_eq!((outcome.sent(), told), (sent, is_told), "{status}");
        }
        assert_eq!((Outcome::Unknown.sent(), Outcome::Away.sent()), (Sent::Done, Sent::Away));
    }

    #[test]
    fn m_090_a_request_is_the_form_of_the_php_module() {
        // mobile-push.md §9.8, E6.
        let batch = ";7;tkey=A;h=portal.example.com;Q29udGVudC10eXBlOiBhcHBsaWNhdGlvbi9qc29uDQpDb250ZW50LWxlbmd0aDogMjI2DQoNCnsibWVzc2FnZSI6eyJkYXRhIjp7ImNvbnRlbnRUaXRsZSI6bnVsbCwiY29udGVudFRleHQiOm51bGwsImJhZGdlIjoiMyIsIm1lc3NhZ2VQYXJhbXMiOiJ7XCJ0YXJnZXRcIjpcImZkNTU1YTVjZDJjMjNiMmVmOTA4NzZmNmE4NzVlZDA2XCJ9IiwiY2F0ZWdvcnkiOm51bGwsInNvdW5kIjoiIn0sImFuZHJvaWQiOnsidHRsIjoiNDMyMDBzIiwicHJpb3JpdHkiOiJoaWdoIn0sInRva2VuIjoiVDEifX0=";
        let body = form(batch);
        assert!(body.starts_with(
            "Action=SendMessage&MessageBody=%3B7%3Btkey%3DA%3Bh%3Dportal.example.com%3BQ29u"
        ));
        assert!(body.ends_with("fX0%3D"), "{body}");
        assert_eq!(body.len(), 452);
    }
}
