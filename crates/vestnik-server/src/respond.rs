//! Answers of dialect 4: status, headers, body. Codecs and hub know no status codes.

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, CONNECTION, CONTENT_TYPE, EXPIRES, HeaderName, HeaderValue,
    LOCATION, RETRY_AFTER,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use vestnik_proto::quirks::POLL_TIMEOUT_EXPIRES;

/// An answer with its whole body, so that head and body leave in one write.
pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
pub(crate) const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html");
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
/// Why a publish that was answered 200 reaches nobody.
const DROPPED: HeaderName = HeaderName::from_static("vestnik-dropped");
pub(crate) const LAST_MESSAGE_ID: HeaderName = HeaderName::from_static("last-message-id");

/// An answer with the two headers that nearly all have (queue-server.md §4.2).
pub(crate) fn answer(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    answer
}

/// 200 without a body: a publish was taken.
pub(crate) fn taken() -> Answer {
    answer(StatusCode::OK, TEXT, Bytes::new())
}

/// 200 like [`taken`], since PHP expects it (README D6), with the reason for who looks: the publish
/// was addressed to nobody, or empty.
pub(crate) fn dropped(reason: &'static str) -> Answer {
    let mut answer = taken();
    answer.headers_mut().insert(DROPPED, HeaderValue::from_static(reason));
    answer
}

/// 404 as Q-021 has it.
pub(crate) fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, TEXT, Bytes::new())
}

/// 302 to a page of this server.
pub(crate) fn see(page: &'static str) -> Answer {
    let mut answer = private(StatusCode::FOUND, TEXT, Bytes::new());
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static(page));
    answer
}

/// An answer for callers on the same origin only.
pub(crate) fn private(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = answer(status, kind, body);
    answer.headers_mut().remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    answer
}

/// 403 for a trusted route: the address is not on the list (README D15).
pub(crate) fn untrusted() -> Answer {
    private(StatusCode::FORBIDDEN, TEXT, Bytes::new())
}

/// 413; the connection ends, since the rest of the body is not read.
pub(crate) fn too_large() -> Answer {
    closing(answer(StatusCode::PAYLOAD_TOO_LARGE, TEXT, Bytes::new()))
}

/// 400 for a request that is not whole; the connection ends (queue-server.md §4.11).
pub(crate) fn malformed() -> Answer {
    closing(answer(StatusCode::BAD_REQUEST, TEXT, Bytes::new()))
}

/// 414 or 431: the head of a request is over its limit; the connection ends (README D18).
pub(crate) fn head_too_large(status: StatusCode) -> Answer {
    closing(answer(status, TEXT, Bytes::new()))
}

/// An answer after which the connection ends.
pub(crate) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// 429: this address publishes too fast; nothing of the request was published.
pub(crate) fn too_fast() -> Answer {
    let mut answer = answer(StatusCode::TOO_MANY_REQUESTS, TEXT, Bytes::new());
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// 503: the messages are not stored (README D6).
pub(crate) fn unavailable() -> Answer {
    let mut answer = answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, Bytes::new());
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// 400 with `<code>: <text>`.
pub(crate) fn refused(sentence: impl Into<Bytes>) -> Answer {
    answer(StatusCode::BAD_REQUEST, TEXT, sentence)
}

/// An error answer of a long poll: it also exposes the position header (queue-server.md §4.7).
pub(crate) fn poll_refused(status: StatusCode, sentence: &'static str) -> Answer {
    let mut answer = answer(status, TEXT, sentence);
    expose_position(&mut answer);
    answer
}

/// 304 of a long poll without news, with the position to go on from. Empty: nothing is known.
pub(crate) fn poll_ended(position: Option<vestnik_core::MessageId>) -> Answer {
    let mut answer = answer(StatusCode::NOT_MODIFIED, TEXT, Bytes::new());
    expose_position(&mut answer);
    let position = position.map_or(HeaderValue::from_static(""), |id| {
        HeaderValue::from_bytes(&id.to_digits()).unwrap_or(HeaderValue::from_static(""))
    });
    answer.headers_mut().insert(LAST_MESSAGE_ID, position);
    answer.headers_mut().insert(EXPIRES, HeaderValue::from_static(POLL_TIMEOUT_EXPIRES));
    answer
}

fn expose_position(answer: &mut Answer) {
    answer
        .headers_mut()
        .insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Last-Message-Id"));
}

/// The answer to a preflight on the subscribe routes.
pub(crate) fn preflight() -> Answer {
    let mut answer = answer(StatusCode::OK, TEXT, Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, GET, DELETE, OPTIONS"),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("If-Modified-Since, If-None-Match"),
    );
    answer
}

/// 400 to a handshake that cannot be accepted (queue-server.md §4.8).
pub(crate) fn handshake_refused(sentence: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(sentence.as_bytes())));
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer.headers_mut().insert(CONTENT_TYPE, HTML);
    answer
}
