//! Operations over HTTP: who calls, with what, and the answer (module.md §21).

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, ORIGIN,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Method, StatusCode};
use vestnik_core::Secret;
use vestnik_core::publisher::{BoxFuture, Publisher};
use vestnik_publisher::{Cloud, CloudError};
use vestnik_server::Visit;
use vestnik_service::Tenant;
use vestnik_service::rest::{
    self, Backstage, Batch, Caller, Input, RestError, Right, ServerState, TriedAddress,
};

use crate::answer::{self, Answer};
use crate::check::Check;
use crate::web::Web;

impl Backstage for Web {
    fn server<'a>(
        &'a self,
        tenant: &'a Tenant,
    ) -> BoxFuture<'a, Result<Arc<dyn Publisher>, RestError>> {
        Box::pin(async move {
            let server: Arc<dyn Publisher> = self.publishers.of(tenant).await?;
            Ok(server)
        })
    }

    fn server_state(&self, tenant: &Tenant) -> ServerState {
        self.publishers.state(tenant)
    }

    fn try_addresses<'a>(
        &'a self,
        tenant: &'a Tenant,
        domain: &'a str,
    ) -> BoxFuture<'a, Result<Vec<TriedAddress>, RestError>> {
        Box::pin(async move {
            let busy = || RestError::unavailable("a check is being made; try again in a moment");
            let _place = self.checking.try_acquire().map_err(|_| busy())?;
            let options = tenant.options("").await?;
            let channel = tenant.random_channel()?;
            let check = Check::new(options, tenant.host_id(), domain.to_owned(), channel);
            let (check, _) = check.map_err(RestError::server)?;
            let tried = tokio::time::timeout(CHECKED_WITHIN, check.tried()).await;
            tried.map_err(|_| RestError::server("the addresses do not answer; try them one by one"))
        })
    }

    fn cloud_servers<'a>(
        &'a self,
        region: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, RestError>> {
        Box::pin(async move {
            let servers = self.cloud(region).servers().await.map_err(|it| cloud_failed(&it))?;
            Ok(servers.into_iter().map(|server| (server.url, server.region)).collect())
        })
    }

    fn cloud_register<'a>(
        &'a self,
        region: &'a str,
        host: Option<&'a str>,
        licence: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(String, Secret<String>), RestError>> {
        Box::pin(async move {
            let cloud = self.cloud(region);
            let host = match host {
                Some(host) => host.to_owned(),
                None => cloud.hostname().await.map_err(|error| cloud_failed(&error))?,
            };
            let registered = cloud.register(&host, licence).await;
            let key = registered.map_err(|error| cloud_failed(&error))?;
            Ok((host, Secret::new(key)))
        })
    }
}

/// How long a check of all addresses may take: a caller waits no longer than a minute for an answer.
const CHECKED_WITHIN: std::time::Duration = std::time::Duration::from_secs(50);

/// What the cloud says, in its own words.
fn cloud_failed(error: &CloudError) -> RestError {
    RestError::server(error.to_string())
}

impl Web {
    /// The cloud whose directory serves a region.
    fn cloud(&self, region: &str) -> Cloud {
        let tls = Arc::clone(&self.options.tls);
        Cloud::of(region, self.options.cloud_directory.as_deref(), tls)
    }

    /// Serves a request for an operation.
    pub(crate) async fn operate(&self, visit: &Visit, operation: &str) -> Answer {
        let mut answer = match *visit.method() {
            Method::POST => self.post(visit, operation).await,
            Method::OPTIONS => preflight(),
            Method::GET if operation == "openapi.json" => {
                answer::json(StatusCode::OK, rest::document().to_string())
            }
            _ => {
                let text = "operations are called with POST";
                let mut answer =
                    answer::error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", text);
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
                answer
            }
        };
        // Whoever calls proves who that is in the call itself, never with what a browser adds by itself; so
        // pages of any origin may read the answer.
        let everybody = HeaderValue::from_static("*");
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, everybody);
        answer
    }

    async fn post(&self, visit: &Visit, operation: &str) -> Answer {
        match self.result(visit, operation).await {
            Ok(result) => answer::json(StatusCode::OK, format!(r#"{{"result":{result}}}"#)),
            Err(error) => refusal(&error),
        }
    }

    async fn result(&self, visit: &Visit, operation: &str) -> Result<String, RestError> {
        let body = visit.body();
        let is_open = operation.eq_ignore_ascii_case(rest::OPEN_TO_ALL);
        let caller = match self.caller(visit).await {
            Err(error) if is_open && error.status == 401 => self.nobody(visit).await?,
            other => other?,
        };
        let is_batch =
            operation.eq_ignore_ascii_case("batch") || operation.eq_ignore_ascii_case("batch.json");
        if is_batch && body.trim_ascii_start().starts_with(b"[") {
            return Ok(Batch::of_list(body)?.run(&caller, self).await);
        }
        let input = if is_form(visit) { Input::of_form(body) } else { Input::of_json(body) }?;
        if is_batch {
            return Ok(Batch::read(&input)?.run(&caller, self).await);
        }
        rest::call(&caller, self, operation, input).await
    }

    /// Somebody unknown, at the tenant that the request names.
    pub(crate) async fn nobody(&self, visit: &Visit) -> Result<Caller, RestError> {
        let (host_id, _) = visit.site_credentials();
        let tenant = if host_id.is_empty() {
            Some(self.service.default_tenant().await?)
        } else {
            self.service.tenant(&host_id).await?
        };
        let tenant = tenant.ok_or_else(RestError::unauthorised)?;
        Ok(Caller { tenant, right: Right::User, user: Some(0), host: host_name(visit) })
    }

    /// Who calls: a secret or a token in `Authorization`, a signature over the body, or, if that was
    /// opened, the address.
    pub(crate) async fn caller(&self, visit: &Visit) -> Result<Caller, RestError> {
        let (host_id, signature) = visit.site_credentials();
        let mut caller = if let Some(value) = visit.headers().get(AUTHORIZATION) {
            let bearer = value.to_str().ok().and_then(bearer);
            let bearer = bearer.ok_or_else(RestError::unauthorised)?;
            let caller = self.service.bearer(bearer).await?;
            let caller = caller.ok_or_else(RestError::unauthorised)?;
            if !host_id.is_empty() && host_id != caller.tenant.host_id() {
                return Err(RestError::unauthorised());
            }
            caller
        } else if !host_id.is_empty() || visit.has_signature() {
            let signature = signature.ok_or_else(RestError::unauthorised)?;
            let tenant = if host_id.is_empty() {
                Some(self.service.default_tenant().await?)
            } else {
                self.service.tenant(&host_id).await?
            };
            let tenant = tenant.ok_or_else(RestError::unauthorised)?;
            let keys = self.options.live.borrow().keys.clone();
            if !tenant.is_signed(visit.body(), &signature, &keys).await? {
                return Err(RestError::unauthorised());
            }
            // It does not say which operation it is for, so it opens nothing that changes settings.
            Caller { tenant, right: Right::Backend, user: None, host: String::new() }
        } else if self.options.opens_to_trusted && visit.is_trusted() && !is_of_browser(visit) {
            let tenant = self.service.default_tenant().await?;
            Caller { tenant, right: Right::Backend, user: None, host: String::new() }
        } else {
            return Err(RestError::unauthorised());
        };
        caller.host = host_name(visit);
        Ok(caller)
    }
}

/// Whether [`Web::caller`] may find somebody behind a call, whatever its body says.
pub(crate) fn may_be_somebody(visit: &Visit) -> bool {
    let (_, signature) = visit.site_credentials();
    signature.is_some() || visit.is_trusted() || visit.headers().contains_key(AUTHORIZATION)
}

/// Whether a call is little work: its input bounds it, and there is not much of that.
pub(crate) fn is_little_work(visit: &Visit, operation: &str) -> bool {
    const BYTES_MAX: usize = 4096;
    *visit.method() == Method::POST
        && visit.body().len() <= BYTES_MAX
        && !is_form(visit)
        && rest::is_bounded_by_input(operation, visit.body())
}

/// The text behind `Bearer`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, text) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}

/// Whether a page in a browser sends it: its user may sit at a trusted address and know nothing of it.
fn is_of_browser(visit: &Visit) -> bool {
    let headers = visit.headers();
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
}

pub(crate) fn is_form(visit: &Visit) -> bool {
    let kind = visit.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The host that the request names, without its port.
pub(crate) fn host_name(visit: &Visit) -> String {
    let host = visit.headers().get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let end = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |at| at + 1)
    } else {
        host.find(':').unwrap_or(host.len())
    };
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-._:[]".contains(it);
    let mut name = host[..end].to_owned();
    name.retain(is_plain);
    name
}

/// An error of an operation.
fn refusal(error: &RestError) -> Answer {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = answer::error(status, &error.code, &error.text);
    match status {
        StatusCode::SERVICE_UNAVAILABLE => {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        StatusCode::UNAUTHORIZED => {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    answer
}

/// What a browser asks before it sends a call of another origin.
fn preflight() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    let allowed = HeaderValue::from_static("authorization, content-type");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}
