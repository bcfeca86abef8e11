//! Addresses of the PHP module that clients know by heart: the polling handler and the controllers
//! (module.md §10, §17).

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use vestnik_server::Visit;
use vestnik_service::rest::{self, Caller, Input, RestError};

use crate::answer::{self, Answer};
use crate::rest::{host_name, is_form};
use crate::web::Web;

/// Where clients of sites without a queue server ask.
pub(crate) const POLLING_PATH: &str = "/bitrix/components/bitrix/pull.request/ajax.php";
/// Where pages call controllers.
pub(crate) const CONTROLLER_PATH: &str = "/bitrix/services/main/ajax.php";
/// Controllers that are reached there.
const CONTROLLERS: &str = "pull.api.";

impl Web {
    /// Serves a poll: a form, answered with a JavaScript literal. A page has the token of its user in
    /// `sessid`, where the site's session id was.
    pub(crate) async fn poll(&self, visit: &Visit) -> Answer {
        if visit.method() != Method::POST {
            return literal(&rest::polling_failure("UNKNOWN_ERROR"));
        }
        match self.polled(visit).await {
            Ok(text) => literal(&text),
            Err(error) if error.status == 401 => {
                // The client repeats with the session id of the answer; there is no other one to give.
                literal("{'ERROR':'AUTHORIZE_ERROR','BITRIX_SESSID':''}")
            }
            Err(error) if error.status == 503 => {
                literal(&rest::polling_failure("PULL_MODULE_IS_NOT_INSTALLED"))
            }
            Err(error) => literal(&rest::polling_failure(&error.code)),
        }
    }

    async fn polled(&self, visit: &Visit) -> Result<String, RestError> {
        let input = Input::of_form(visit.body())?;
        let mut caller = match self.caller(visit).await {
            Err(error) if error.status == 401 => {
                let token = input.plain_text("sessid").ok_or_else(RestError::unauthorised)?;
                let caller = self.service.bearer(&token).await?;
                // A secret of a back end has no place in a page.
                caller.filter(|it| it.user.is_some()).ok_or_else(RestError::unauthorised)?
            }
            other => other?,
        };
        caller.host = host_name(visit);
        // It says who the page takes its user for; when that is somebody else its session is over.
        let named = input.plain_text("USER_ID").and_then(|user| user.parse::<i64>().ok());
        if let (Some(own), Some(named)) = (caller.user, named)
            && own != named
        {
            return Ok("{'BITRIX_SESSID':'','ERROR':'SESSION_ERROR'}".to_owned());
        }
        let input = input.with("HTTPS", if visit.is_encrypted() { "Y" } else { "N" });
        let result = rest::call(&caller, self, "pull.request", input).await?;
        // It is the text of a JSON string.
        serde_json::from_str(&result).map_err(|error| RestError::server(error.to_string()))
    }

    /// Serves a controller: `?action=…`, answered in the envelope of AJAX.
    pub(crate) async fn control(&self, visit: &Visit) -> Answer {
        let query = Input::of_form(visit.query().as_bytes());
        let action = query.ok().and_then(|query| query.plain_text("action")).unwrap_or_default();
        let is_known = action.starts_with(CONTROLLERS) && rest::exists(&action);
        if visit.method() != Method::POST || !is_known {
            let error = RestError::unknown_operation(&action);
            return envelope(StatusCode::NOT_FOUND, "error", None, Some(&error));
        }
        match self.controlled(visit, &action).await {
            Ok(data) => envelope(StatusCode::OK, "success", Some(&data), None),
            Err(error) if matches!(error.status, 401 | 403) => {
                envelope(StatusCode::UNAUTHORIZED, "denied", None, Some(&error))
            }
            Err(error) if error.status == 503 => {
                envelope(StatusCode::SERVICE_UNAVAILABLE, "error", None, Some(&error))
            }
            // Errors of a controller are its answer.
            Err(error) => envelope(StatusCode::OK, "error", None, Some(&error)),
        }
    }

    async fn controlled(&self, visit: &Visit, action: &str) -> Result<String, RestError> {
        let caller: Caller = match self.caller(visit).await {
            Err(error) if error.status == 401 && action == rest::OPEN_TO_ALL => {
                self.nobody(visit).await?
            }
            other => other?,
        };
        let body = visit.body();
        let input = if is_form(visit) { Input::of_form(body) } else { Input::of_json(body) }?;
        rest::call(&caller, self, action, input).await
    }
}

fn literal(text: &str) -> Answer {
    let mut answer = Answer::new(Bytes::copy_from_slice(text.as_bytes()));
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("application/x-javascript; charset=utf-8");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn envelope(
    status: StatusCode,
    word: &str,
    data: Option<&str>,
    error: Option<&RestError>,
) -> Answer {
    let errors: Vec<_> = error
        .iter()
        .map(|error| {
            serde_json::json!({ "message": error.text, "code": error.code, "customData": null })
        })
        .collect();
    let errors = serde_json::Value::from(errors);
    let data = data.unwrap_or("null");
    answer::json(status, format!(r#"{{"status":"{word}","data":{data},"errors":{errors}}}"#))
}
