//! Questions to back ends: a signed POST to option `callback_url`, an answer within a second, or none
//! (module.md §21).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body_util::Full;
use tokio::sync::Semaphore;
use vestnik_core::publisher::BoxFuture;
use vestnik_publisher::{HttpClient, TlsConfig};
use vestnik_service::Tenant;
use vestnik_service::hook::Hooks;
use vestnik_service::option::Key;

/// How long an answer may take, with everything.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Questions at a time; who comes when there are so many gets no answer.
const AT_A_TIME: usize = 16;
/// A back end that failed is left alone for so long, seconds.
const REST_S: u64 = 10;
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Asks back ends over HTTP.
pub(crate) struct HttpHooks {
    tls: TlsConfig,
    clients: Mutex<HashMap<String, Arc<HttpClient>>>,
    /// Back ends that failed lately, by address: until when they are left alone, unix seconds.
    failed: Mutex<HashMap<String, u64>>,
    places: Semaphore,
}

impl fmt::Debug for HttpHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHooks").finish_non_exhaustive()
    }
}

impl HttpHooks {
    pub(crate) fn new(tls: TlsConfig) -> Self {
        Self {
            tls,
            clients: Mutex::default(),
            failed: Mutex::default(),
            places: Semaphore::new(AT_A_TIME),
        }
    }

    fn client(&self, url: &str) -> Arc<HttpClient> {
        const CLIENTS_MAX: usize = 1000;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        let client = clients.entry(url.to_owned()).or_insert_with(|| {
            Arc::new(HttpClient::new(Arc::clone(&self.tls), ANSWER_WITHIN, ANSWER_WITHIN))
        });
        Arc::clone(client)
    }

    async fn answer(&self, tenant: &Tenant, hook: &str, params: &str) -> Option<String> {
        let options = match tenant.options("").await {
            Ok(options) => options,
            Err(error) => {
                tracing::warn!(%error, "a back end is not asked: its options cannot be read");
                return None;
            }
        };
        let url = options.text(Key::CallbackUrl);
        if url.is_empty() {
            return None;
        }
        let now_s = tenant.service().clock().unix_s();
        {
            let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            // Further off than it ever is set: the clock was set back.
            if failed.get(url).is_some_and(|until| (now_s..=now_s + REST_S).contains(until)) {
                return None;
            }
        }
        let Ok(_place) = self.places.try_acquire() else {
            tracing::warn!(hook, "a back end is not asked: too many questions at a time");
            return None;
        };
        let name = serde_json::Value::from(hook).to_string();
        let body = format!(r#"{{"hook":{name},"params":{params}}}"#);
        let mut target = url.to_owned();
        target.push(if url.contains('?') { '&' } else { '?' });
        target.push_str(&format!("hostId={}", tenant.host_id()));
        if let Some(key) = options.signing_key() {
            target.push_str(&format!("&signature={}", key.sign(&[body.as_bytes()])));
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(target)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(Full::new(Bytes::from(body)));
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!(%error, "option `callback_url` is no address");
                return None;
            }
        };
        let client = self.client(url);
        let answer = tokio::time::timeout(ANSWER_WITHIN, client.send(request)).await;
        let reason = match answer {
            Ok(Ok(answer)) if answer.status.is_success() => {
                return result_of(&answer.body).or_else(|| {
                    tracing::warn!(hook, "the answer of a back end makes no sense");
                    None
                });
            }
            Ok(Ok(answer)) => format!("it answered {}", answer.status),
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
        };
        tracing::warn!(hook, reason, "a back end did not answer and is left alone for a while");
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, until| *until > now_s);
        failed.insert(url.to_owned(), now_s + REST_S);
        None
    }
}

/// The member `result` of an answer.
fn result_of(body: &[u8]) -> Option<String> {
    if body.len() > ANSWER_BYTES_MAX {
        return None;
    }
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    answer.get("result").map(serde_json::Value::to_string)
}

impl Hooks for HttpHooks {
    fn ask<'a>(
        &'a self,
        tenant: &'a Tenant,
        hook: &'a str,
        params: String,
    ) -> BoxFuture<'a, Option<String>> {
        Box::pin(async move { self.answer(tenant, hook, &params).await })
    }
}
