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
use vestnik_publisher::{HttpClient, HttpFailure, TlsConfig};
use vestnik_service::Service;
use vestnik_service::notification::PUSH_REFUSED;
use vestnik_service::push::{PushBatch, Sent};

/// How long a connection and an answer may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(12);
/// Between two looks at what is due, unless somebody wakes us.
const LOOK: Duration = Duration::from_secs(2);
const FORM: &str = "application/x-www-form-urlencoded";

/// Sends what is due, for ever; several may run beside each other.
pub(crate) async fn run(service: Service, gateways: Arc<Gateways>) {
    loop {
        match service.claim_push().await {
            Ok(Some(batch)) => {
                // There may be more than one of us can send at a time.
                service.wake_pushing();
                let sent = gateways.send(&batch).await;
                if let Err(error) = service.settle_push(&batch, sent).await {
                    tracing::warn!(%error, "what became of notifications is not written down");
                    tokio::time::sleep(LOOK).await;
                }
            }
            Ok(None) => {
                let _ = tokio::time::timeout(LOOK, service.pushing_due()).await;
            }
            Err(error) => {
                tracing::warn!(%error, "notifications that wait cannot be read");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// The gateways of all tenants.
pub(crate) struct Gateways {
    tls: TlsConfig,
    clients: Mutex<HashMap<String, Arc<HttpClient>>>,
}

impl Gateways {
    pub(crate) fn new(tls: TlsConfig) -> Self {
        Self { tls, clients: Mutex::default() }
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
    async fn send(&self, batch: &PushBatch) -> Sent {
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
                return Sent::Again;
            }
        };
        // Neither the address nor the batch is written down: one has the site's key, the other texts.
        let client = self.client(&batch.address);
        match client.send(request).await {
            Ok(answer) if answer.status.is_success() => {
                if let Err(error) = batch.tenant.withdraw_notification(PUSH_REFUSED).await {
                    tracing::warn!(%error, "a notification for administrators stays");
                }
                Sent::Done
            }
            Ok(answer) => self.refused(batch, answer.status).await,
            Err(HttpFailure::Unsent(reason)) => {
                tracing::warn!(reason, "the gateway for notifications is not reached; they wait");
                Sent::Again
            }
            Err(HttpFailure::Unanswered(reason)) => {
                tracing::warn!(
                    reason,
                    "the gateway gave no answer; whether notifications arrived is not known"
                );
                Sent::Done
            }
        }
    }

    async fn refused(&self, batch: &PushBatch, status: StatusCode) -> Sent {
        let may_change = status.is_server_error()
            || [
                StatusCode::UNAUTHORIZED,
                StatusCode::FORBIDDEN,
                StatusCode::REQUEST_TIMEOUT,
                StatusCode::TOO_MANY_REQUESTS,
            ]
            .contains(&status);
        tracing::warn!(%status, may_change, "the gateway refuses notifications");
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            let text = format!(
                "The gateway of option `push_service_url` refuses notifications with status {}. \
                 Check the address and option `licence_key`.",
                status.as_u16()
            );
            if let Err(error) = batch.tenant.notify(PUSH_REFUSED, &text).await {
                tracing::warn!(%error, "an administrator is not told of it");
            }
        }
        if may_change { Sent::Again } else { Sent::Done }
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
