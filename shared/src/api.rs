//! The HTTP edge: strict JSON in, the contract's envelope out.
//!
//! What an outcome means to a client is decided by the function it belongs to, as a [`Failure`];
//! this module only knows how a failure looks, and writes the one line that every answer gets.

mod bearer;

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use lambda_http::{
    Body, Context, Request, RequestExt, Response,
    http::{
        HeaderValue, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    request::RequestContext,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use bearer::Challenge;
pub use bearer::{Authenticated, Bearer, BearerLayer, Unauthenticated};

use crate::{
    challenge::{ClientAddress, Limited},
    connect::StoreError,
    telemetry::{self, Ending, Report},
};

/// The largest body that is read, in bytes.
pub const BODY_LIMIT: usize = 104_856;

/// A body that is not the one JSON object that the route expects.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("the body is not sent as application/json")]
    UnsupportedMediaType,
    #[error("the body is larger than {BODY_LIMIT} bytes")]
    TooLarge,
    /// What is wrong and where, without anything that the client sent.
    #[error("{0}")]
    Malformed(String),
}

/// An answer that is a success. It may hold tokens, so it has no `Debug`.
pub struct Success {
    outcome: &'static str,
    response: Response<Body>,
}

impl Success {
    /// `outcome` is the stable word for what was done, for the log and the metrics.
    pub fn new(outcome: &'static str, body: &impl Serialize) -> Self {
        Self {
            outcome,
            response: json(StatusCode::OK, body),
        }
    }

    /// Lets every cache keep the answer for a quarter of an hour, as long as an access token is good.
    #[must_use]
    pub fn cacheable(mut self) -> Self {
        let value = HeaderValue::from_static("public, max-age=900");
        self.response.headers_mut().insert(CACHE_CONTROL, value);
        self
    }
}

/// An answer that is not a success: `{"error", "code", …}`.
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

    /// A store failed: 503 with the route's own text, or 500 when the fault is ours.
    pub fn store(error: &StoreError, text: &'static str) -> Self {
        const OUTAGE: Duration = Duration::from_secs(5);
        match error {
            StoreError::Unavailable(..) | StoreError::Refused(..) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, text, "unavailable").retry_after(OUTAGE)
            }
            StoreError::Fault(..) => Self::internal(),
        }
        .caused_by(error)
    }

    /// A limit is reached.
    pub fn limited(limited: &Limited) -> Self {
        Self::rate_limited(limited.kind.as_str(), limited.retry_after)
    }

    /// Too much was asked for; it can be asked for again after `wait`. `limit` is the word of the
    /// limit for the log and the metrics.
    pub fn rate_limited(limit: &'static str, wait: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests",
            "rate_limited",
        )
        .limited_by(limit)
        .retry_after(wait)
    }

    /// A fault of ours.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal error",
            "internal",
        )
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", "not_found")
    }

    /// `allow` lists the methods that the path knows.
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

    /// When asking again may help, rounded up to whole seconds: header and body.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.body.retry_after = Some(
            wait.as_millis()
                .div_ceil(1000)
                .try_into()
                .unwrap_or(u32::MAX),
        );
        self
    }

    #[must_use]
    pub fn attempts_remaining(mut self, attempts: u32) -> Self {
        self.body.attempts_remaining = Some(attempts);
        self
    }

    /// The word of the limit that is reached, for the log and the metrics.
    #[must_use]
    pub fn limited_by(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }

    /// What is told to the log and never to the client.
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

/// The path without the stage that API Gateway may have put in front of it.
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

/// The client's address as API Gateway saw it. No header is asked: those are the client's to write.
pub fn client_address(request: &Request) -> ClientAddress {
    ClientAddress::parse(match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV1(context)) => context.identity.source_ip.as_deref(),
        Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.as_deref(),
        _ => None,
    })
}

/// When the request that begins now has to be answered: after `timeout`, or sooner if Lambda cuts it
/// off sooner.
pub fn deadline(request: &Request, timeout: Duration) -> Instant {
    let cut_off = request.lambda_context_ref().map(Context::deadline);
    Instant::now() + time_left(timeout, cut_off, SystemTime::now())
}

/// How long an answer may take. Lambda says when it cuts off by its own clock. If that is over, or
/// further away than any function may run, the clocks disagree and it is worth nothing.
fn time_left(timeout: Duration, cut_off: Option<SystemTime>, now: SystemTime) -> Duration {
    const LONGEST: Duration = Duration::from_mins(15);
    const ANSWERING: Duration = Duration::from_millis(500);
    cut_off
        .and_then(|cut_off| cut_off.duration_since(now).ok())
        .filter(|&left| left <= LONGEST)
        .map_or(timeout, |left| timeout.min(left.saturating_sub(ANSWERING)))
}

/// Reads a body that has to be one JSON object, sent as such. How strictly its fields are read is up
/// to `T`, which denies unknown fields and takes nothing but the types it names.
pub fn read_json<T: DeserializeOwned>(request: &Request) -> Result<T, BadRequest> {
    if !is_sent_as_json(request) {
        return Err(BadRequest::UnsupportedMediaType);
    }
    let body: &[u8] = request.body().as_ref();
    if body.len() > BODY_LIMIT {
        return Err(BadRequest::TooLarge);
    }
    // serde would fill a struct from an array too.
    let first = body.iter().find(|byte| !b" \t\r\n".contains(byte));
    if first != Some(&b'{') {
        return Err(BadRequest::Malformed(
            "the body is not a JSON object".into(),
        ));
    }
    serde_json::from_slice(body).map_err(|error| BadRequest::Malformed(describe(&error)))
}

/// Tells whether the media type is `application/json`, in any case and with any parameters (RFC 9110
/// §8.3.1). A web page can send a few other types, or none, to any origin without asking it first.
fn is_sent_as_json(request: &Request) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok()?.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// serde's messages quote the input, so only their kind and place are told.
fn describe(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = match error.classify() {
        serde_json::error::Category::Data if message.starts_with("unknown field") => {
            "unknown field"
        }
        serde_json::error::Category::Data if message.starts_with("duplicate field") => {
            "duplicate field"
        }
        serde_json::error::Category::Data => "value of the wrong type",
        serde_json::error::Category::Eof => "unexpected end",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "malformed JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}

/// A JSON answer that no cache may keep.
fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Answers are plain structs of texts and numbers, which always have a JSON form.
    let text = serde_json::to_string(body).unwrap_or_default();
    let mut response = Response::new(Body::Text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer of a handler and the line about it, whatever happened in it: a panic costs this one
/// answer, as a 500.
pub async fn answer(
    request: &Request,
    handler: impl AsyncFnOnce(&mut Report) -> Result<Success, Failure>,
) -> Response<Body> {
    let mut report = Report::begin(request.lambda_context_ref());
    let outcome = AssertUnwindSafe(handler(&mut report)).catch_unwind().await;
    // Where it was is told by the line of the panic itself.
    let answered = outcome.unwrap_or_else(|_panic| Err(Failure::panicked()));
    finish(&report, answered)
}

/// The response to an event that API Gateway takes for a request and `lambda_http` does not, and the
/// line about it. `substitute` is a request of the same invocation.
pub fn refuse_unreadable(substitute: &Request) -> Response<Body> {
    let report = Report::begin(substitute.lambda_context_ref());
    let bad = BadRequest::Malformed("the request cannot be read".into());
    finish(&report, Err(bad.into()))
}

/// The answer to a request that reaches no handler, and the line about it.
fn refuse(request: &Request, route: &'static str, failure: Failure) -> Response<Body> {
    let mut report = Report::begin(request.lambda_context_ref());
    finish(report.on(route), Err(failure))
}

fn finish(report: &Report, answered: Result<Success, Failure>) -> Response<Body> {
    report.write(&match &answered {
        Ok(success) => success.ending(),
        Err(failure) => failure.ending(),
    });
    match answered {
        Ok(success) => success.response,
        Err(failure) => failure.into_response(),
    }
}

impl Success {
    fn ending(&self) -> Ending<'_> {
        Ending {
            status: self.response.status().as_u16(),
            outcome: self.outcome,
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

    fn ending(&self) -> Ending<'_> {
        Ending {
            status: self.status.as_u16(),
            outcome: self.body.code,
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
    fn an_answer_comes_before_lambda_cuts_off_whatever_the_clocks_say() {
        const TIMEOUT: Duration = Duration::from_secs(8);
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let left = |cut_off| time_left(TIMEOUT, cut_off, now);
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
    async fn a_panic_costs_one_answer() {
        let request = Request::default();
        let response = answer(&request, async |_| panic!("as a bug would")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let Body::Text(body) = response.into_body() else {
            panic!("not text")
        };
        assert_eq!(body, r#"{"error":"Internal error","code":"internal"}"#);
    }
}
