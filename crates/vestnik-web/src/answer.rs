//! The shapes of answers.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

/// An answer with its whole body.
pub(crate) type Answer = Response<Bytes>;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A JSON document that nobody may keep.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// An error as clients of Bitrix REST know it (module.md §16).
pub(crate) fn error(status: StatusCode, code: &str, description: &str) -> Answer {
    let body = serde_json::json!({ "error": code, "error_description": description });
    json(status, body.to_string())
}

/// The database is not there.
pub(crate) fn unavailable() -> Answer {
    let text = "the database of the module is not available; try again in a moment";
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    answer
}
