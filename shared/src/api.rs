//! The HTTP edge: reads requests strictly, and writes responses and their log lines.
//!
//! Each function decides which [`Failure`] its errors become; this module decides how a failure
//! looks. No route has its rules here.

mod bearer;
mod edge;

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use lambda_http::{
    Body, Context, Request, RequestExt, Response,
    http::{
        HeaderValue, StatusCode,
        header::{
            ACCEPT_LANGUAGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER,
            WWW_AUTHENTICATE,
        },
    },
    request::RequestContext,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use bearer::Challenge;
pub use bearer::{Authenticated, Bearer, BearerLayer, Unauthenticated, authenticate};
pub use edge::Edge;

use crate::{
    challenge::Limited,
    sms::Language,
    store::StoreError,
    telemetry::{self, Outcome, RequestLog},
};

/// The size limit of a request body, in bytes.
pub const BODY_LIMIT: usize = 104_856;

/// The time for which caches may keep a [cacheable](Success::cacheable) response: the lifetime of
/// an access token.
pub const CACHE_LIFE: Duration = Duration::from_mins(15);

/// A body that is not the JSON object that the route expects.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("the body is not sent as application/json")]
    UnsupportedMediaType,
    #[error("the body is larger than {BODY_LIMIT} bytes")]
    TooLarge,
    /// The mistake and its place, without the client's text.
    #[error("{0}")]
    Malformed(String),
}

/// A response of success. It may hold tokens, so it has no `Debug`.
pub struct Success {
    outcome: &'static str,
    response: Response<Body>,
}

impl Success {
    /// `outcome` is a stable word for the log and the metrics, such as `registered`.
    pub fn new(outcome: &'static str, body: &impl Serialize) -> Self {
        Self {
            outcome,
            response: json(StatusCode::OK, body),
        }
    }

    /// Lets every cache keep the response for [`CACHE_LIFE`].
    #[must_use]
    pub fn cacheable(mut self) -> Self {
        let value = HeaderValue::from_static("public, max-age=900");
        self.response.headers_mut().insert(CACHE_CONTROL, value);
        self
    }
}

/// A response of failure: `{"error", "code", …}`.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    body: FailureBody,
    allow: Option<&'static str>,
    challenge: Option<Challenge>,
    limit: Option<&'static str>,
    cause: Option<Box<str>>,
}

#[derive(Debug, Serialize)]
struct FailureBody {
    error: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts_remaining: Option<u32>,
}

impl Failure {
    /// `error` is the text for people, `code` the stable word for programs.
    pub fn new(status: StatusCode, error: &'static str, code: &'static str) -> Self {
        Self {
            status,
            body: FailureBody {
                error,
                code,
                detail: None,
                retry_after: None,
                attempts_remaining: None,
            },
            allow: None,
            challenge: None,
            limit: None,
            cause: None,
        }
    }

    /// A failed store: 503 with the route's own text, or 500 if the fault is ours.
    pub fn store(error: &StoreError, text: &'static str) -> Self {
        const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(5);
        match error {
            StoreError::Unavailable(..) | StoreError::Refused(..) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, text, "unavailable")
                    .retry_after(RETRY_AFTER_OUTAGE)
            }
            StoreError::Fault(..) | StoreError::Conflict(..) => Self::internal(),
        }
        .caused_by(error)
    }

    /// 429 for an exhausted rate limit.
    pub fn limited(limited: &Limited) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests",
            "rate_limited",
        )
        .limited_by(limited.kind.as_str())
        .retry_after(limited.retry_after)
    }

    /// 500: our fault.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal error",
            "internal",
        )
    }

    /// 404 for an unknown path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", "not_found")
    }

    /// 405; `allow` lists the path's methods.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "method_not_allowed",
            )
        }
    }

    /// Sets the wait before a retry, in the header and the body, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.body.retry_after = Some(whole_seconds(wait).try_into().unwrap_or(u32::MAX));
        self
    }

    /// Sets the number of attempts that the challenge has left.
    #[must_use]
    pub fn attempts_remaining(mut self, attempts: u32) -> Self {
        self.body.attempts_remaining = Some(attempts);
        self
    }

    /// Names the limit that refused the request, for the log and the metrics.
    #[must_use]
    pub fn limited_by(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets the cause, for the log only.
    #[must_use]
    pub fn caused_by(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        self.cause = Some(telemetry::chain(cause).into());
        self
    }
}

impl From<BadRequest> for Failure {
    fn from(bad: BadRequest) -> Self {
        let (status, code) = match bad {
            BadRequest::UnsupportedMediaType => {
                return Self::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "Content-Type must be application/json",
                    "unsupported_media_type",
                );
            }
            BadRequest::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            BadRequest::Malformed(_) => (StatusCode::BAD_REQUEST, "invalid_payload"),
        };
        let mut failure = Self::new(status, "Invalid request payload", code);
        failure.body.detail = Some(bad.to_string().into());
        failure
    }
}

/// A wait in whole seconds, rounded up: nobody retries too early.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The path without the stage that API Gateway may put in front of it.
pub fn path(request: &Request) -> &str {
    let path = request.raw_http_path();
    let stage = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV1(context)) => context.stage.as_deref(),
        Some(RequestContext::ApiGatewayV2(context)) => context.stage.as_deref(),
        _ => None,
    };
    stage
        .and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage))
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path)
}

/// The language for the client: that of `locale`, a field of the body that may be empty, or of the
/// header `Accept-Language`. Neither can fail a request.
pub fn language(request: &Request, locale: &str) -> Language {
    let header = request.headers().get(ACCEPT_LANGUAGE);
    let header = header.and_then(|value| value.to_str().ok());
    Language::choose(locale, header.unwrap_or_default())
}

/// The deadline of a request that starts now: `timeout` from now, or earlier if Lambda stops it
/// earlier.
pub fn deadline(request: &Request, timeout: Duration) -> Instant {
    let stop = request.lambda_context_ref().map(Context::deadline);
    deadline_before(stop, timeout)
}

/// The same for an event that is no HTTP request. `stop` is when Lambda stops its invocation.
#[expect(clippy::disallowed_methods, reason = "the edge of a request")]
pub fn deadline_before(stop: Option<SystemTime>, timeout: Duration) -> Instant {
    Instant::now() + time_left(timeout, stop, SystemTime::now())
}

/// The time for a response. `stop` is when Lambda stops the invocation, by its own clock. If that
/// is past, or later than any function may run, the clocks disagree and `stop` is ignored.
fn time_left(timeout: Duration, stop: Option<SystemTime>, now: SystemTime) -> Duration {
    const LONGEST: Duration = Duration::from_mins(15);
    const RESPONSE_TIME: Duration = Duration::from_millis(500);
    stop.and_then(|stop| stop.duration_since(now).ok())
        .filter(|&left| left <= LONGEST)
        .map_or(timeout, |left| {
            timeout.min(left.saturating_sub(RESPONSE_TIME))
        })
}

/// Reads a body that must be one JSON object, sent as `application/json`. `T` must deny unknown
/// fields.
pub fn read_json<T: DeserializeOwned>(request: &Request) -> Result<T, BadRequest> {
    if !is_sent_as_json(request) {
        return Err(BadRequest::UnsupportedMediaType);
    }
    let body: &[u8] = request.body().as_ref();
    if body.len() > BODY_LIMIT {
        return Err(BadRequest::TooLarge);
    }
    // serde would also read a struct from an array.
    let first = body.iter().find(|byte| !b" \t\r\n".contains(byte));
    if first != Some(&b'{') {
        return Err(BadRequest::Malformed(
            "the body is not a JSON object".into(),
        ));
    }
    serde_json::from_slice(body).map_err(|error| BadRequest::Malformed(describe(&error)))
}

/// Tells if the media type is `application/json`, in any case and with any parameters (RFC 9110
/// §8.3.1). A web page can send a few other types, or none, to any origin without its consent.
fn is_sent_as_json(request: &Request) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok()?.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// Describes serde's error by its kind and place. Its own message quotes the input.
fn describe(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let mistake = match error.classify() {
        serde_json::error::Category::Data if message.starts_with("unknown field") => {
            "unknown field"
        }
        serde_json::error::Category::Data if message.starts_with("duplicate field") => {
            "duplicate field"
        }
        serde_json::error::Category::Data if message.starts_with("missing field") => {
            "missing field"
        }
        serde_json::error::Category::Data => "value of the wrong type",
        serde_json::error::Category::Eof => "unexpected end",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "malformed JSON",
    };
    format!(
        "{mistake} at line {} column {}",
        error.line(),
        error.column()
    )
}

/// A JSON response that no cache may keep.
fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Bodies are plain structs of texts and numbers, which always serialize.
    let text = serde_json::to_string(body).unwrap_or_default();
    let mut response = Response::new(Body::Text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Runs a handler, writes the request's log line and returns the response. A panic in the handler
/// becomes a 500.
pub async fn respond(
    request: &Request,
    handler: impl AsyncFnOnce(&mut RequestLog) -> Result<Success, Failure>,
) -> Response<Body> {
    let mut log = RequestLog::begin(request.lambda_context_ref());
    let outcome = AssertUnwindSafe(handler(&mut log)).catch_unwind().await;
    // The panic hook has logged the place.
    finish(
        &log,
        outcome.unwrap_or_else(|_panic| Err(Failure::panicked())),
    )
}

/// Logs and refuses an event that API Gateway accepts as a request and `lambda_http` does not.
/// `substitute` is a request of the same invocation.
pub fn refuse_unreadable(substitute: &Request) -> Response<Body> {
    let log = RequestLog::begin(substitute.lambda_context_ref());
    let bad = BadRequest::Malformed("the request cannot be read".into());
    finish(&log, Err(bad.into()))
}

/// Logs and refuses a request that reaches no handler.
fn refuse(request: &Request, route: &'static str, failure: Failure) -> Response<Body> {
    let mut log = RequestLog::begin(request.lambda_context_ref());
    finish(log.route(route), Err(failure))
}

fn finish(log: &RequestLog, result: Result<Success, Failure>) -> Response<Body> {
    log.write(&match &result {
        Ok(success) => success.outcome(),
        Err(failure) => failure.outcome(),
    });
    match result {
        Ok(success) => success.response,
        Err(failure) => failure.into_response(),
    }
}

impl Success {
    fn outcome(&self) -> Outcome<'_> {
        Outcome {
            status: self.response.status().as_u16(),
            word: self.outcome,
            limit: None,
            cause: None,
        }
    }
}

impl Failure {
    fn panicked() -> Self {
        Self {
            cause: Some("panic".into()),
            ..Self::internal()
        }
    }

    fn outcome(&self) -> Outcome<'_> {
        Outcome {
            status: self.status.as_u16(),
            word: self.body.code,
            limit: self.limit,
            cause: self.cause.as_deref(),
        }
    }

    fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, &self.body);
        let mut set = |name: HeaderName, value| response.headers_mut().insert(name, value);
        if let Some(seconds) = self.body.retry_after {
            set(RETRY_AFTER, seconds.into());
        }
        if let Some(methods) = self.allow {
            set(ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(challenge) = self.challenge {
            set(
                WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge.as_str()),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[derive(Default)]
    struct Fields {
        name: String,
        otp: String,
    }

    fn read(body: impl Into<Body>) -> Result<Fields, BadRequest> {
        read_as(Some("application/json"), body)
    }

    fn read_as(content_type: Option<&str>, body: impl Into<Body>) -> Result<Fields, BadRequest> {
        let mut request = Request::new(body.into());
        if let Some(text) = content_type {
            let value = HeaderValue::from_str(text).unwrap();
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        read_json(&request)
    }

    fn detail(body: impl Into<Body>) -> String {
        read(body).unwrap_err().to_string()
    }

    #[test]
    fn one_object_of_the_right_types_is_read() {
        let fields = read(" {\"name\": \"A\\u0064a\"}\r\n").unwrap();
        assert_eq!(fields.name, "Ada");
        assert_eq!(fields.otp, "");
    }

    #[test]
    fn a_body_has_to_be_sent_as_json() {
        for content_type in [
            "application/json; charset=utf-8",
            "Application/JSON;charset=\"utf-8\"",
            " application/json ; a=b",
        ] {
            assert!(read_as(Some(content_type), "{}").is_ok(), "{content_type}");
        }
        for content_type in [
            None,
            Some(""),
            Some("text/plain"),
            Some("text/plain; application/json"),
            Some("text/plain, application/json"),
            Some("application/json, text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("multipart/form-data; boundary=application/json"),
            Some("application/jsonp"),
            Some("application/problem+json"),
            Some("json"),
        ] {
            for body in ["{}", "", "{", &" ".repeat(BODY_LIMIT + 1)] {
                let refused = read_as(content_type, body);
                assert_eq!(
                    refused,
                    Err(BadRequest::UnsupportedMediaType),
                    "{content_type:?}"
                );
            }
        }
    }

    #[test]
    fn whatever_is_not_one_object_is_refused() {
        for body in [
            "",
            " ",
            "null",
            "[]",
            "[\"Ada\", \"1\"]",
            "\"name\"",
            "1",
            "\u{feff}{}",
            "name=Ada",
        ] {
            assert_eq!(detail(body), "the body is not a JSON object", "{body:?}");
        }
    }

    #[test]
    fn the_detail_says_what_and_where_and_quotes_nothing() {
        for (body, expected) in [
            (
                "{\"otp\": 123456}",
                "value of the wrong type at line 1 column 14",
            ),
            (
                "{\"otp\": null}",
                "value of the wrong type at line 1 column 12",
            ),
            (
                "{\"otp\": [\"1\"]}",
                "value of the wrong type at line 1 column 8",
            ),
            ("{\"verified\": true}", "unknown field at line 1 column 11"),
            ("{\"Name\": \"Ada\"}", "unknown field at line 1 column 7"),
            (
                "{\"name\": \"a\", \"name\": \"b\"}",
                "duplicate field at line 1 column 20",
            ),
            ("{} {}", "malformed JSON at line 1 column 4"),
            ("{\"name\": \"a\"", "unexpected end at line 1 column 12"),
            (
                "{\"name\": \"\\ud800\"}",
                "malformed JSON at line 1 column 17",
            ),
        ] {
            assert_eq!(detail(body), expected, "{body}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        let body = b"{\"name\": \"\xff\"}".to_vec();
        assert!(detail(body).starts_with("malformed JSON"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let body = format!("{{\"name\": {}", "[".repeat(100_000));
        assert!(read(body).is_err());
    }

    #[test]
    fn the_size_limit_is_exact() {
        let padded = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
        assert!(read(padded(BODY_LIMIT)).is_ok());
        assert_eq!(read(padded(BODY_LIMIT + 1)), Err(BadRequest::TooLarge));
    }

    #[test]
    fn a_response_comes_before_lambda_cuts_off_whatever_the_clocks_say() {
        const TIMEOUT: Duration = Duration::from_secs(8);
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let left = |stop| time_left(TIMEOUT, stop, now);
        let hour = Duration::from_hours(1);
        assert_eq!(left(None), TIMEOUT);
        assert_eq!(left(Some(now + Duration::from_secs(10))), TIMEOUT);
        assert_eq!(
            left(Some(now + Duration::from_secs(3))),
            Duration::from_millis(2500)
        );
        assert_eq!(left(Some(now + Duration::from_millis(100))), Duration::ZERO);
        for skewed in [now - hour, now + hour, SystemTime::UNIX_EPOCH] {
            assert_eq!(left(Some(skewed)), TIMEOUT, "{skewed:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_costs_one_response() {
        let request = Request::default();
        let response = respond(&request, async |_| panic!("as a bug would")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let Body::Text(body) = response.into_body() else {
            panic!("not text")
        };
        assert_eq!(body, r#"{"error":"Internal error","code":"internal"}"#);
    }
}
