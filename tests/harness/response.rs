//! A response as its client sees it.

use std::collections::BTreeMap;

use lambda_http::Body;
use serde_json::Value;

use crate::contract::{Outcome, outcome::RATE_LIMITED};

/// A response with its body read as JSON.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u64,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    /// Of the body as it was sent, in bytes.
    pub length: usize,
}

impl Response {
    /// A response as the handler gives it.
    pub fn of_handler(response: lambda_http::Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16().into(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect(),
            body: serde_json::from_slice(&body).unwrap(),
            length: body.len(),
        }
    }

    /// A response as the function gives it to API Gateway, in either payload format.
    pub fn of_function(payload: &Value) -> Self {
        let mut headers = BTreeMap::new();
        for (name, value) in payload["headers"].as_object().into_iter().flatten() {
            headers.insert(name.to_lowercase(), value.as_str().unwrap().to_owned());
        }
        for (name, values) in payload["multiValueHeaders"]
            .as_object()
            .into_iter()
            .flatten()
        {
            headers.insert(name.to_lowercase(), values[0].as_str().unwrap().to_owned());
        }
        assert_eq!(payload["isBase64Encoded"], false);
        Self {
            status: payload["statusCode"].as_u64().unwrap(),
            headers,
            body: serde_json::from_str(payload["body"].as_str().unwrap()).unwrap(),
            length: payload["body"].as_str().unwrap().len(),
        }
    }

    /// Status, `error` and `code`; of a success status and `message`.
    pub fn outcome(&self) -> (u64, &str, &str) {
        let said = if self.status == 200 {
            "message"
        } else {
            "error"
        };
        (self.status, self.text(said), self.text("code"))
    }

    /// A member of the body that is text; empty when it is missing.
    pub fn text(&self, member: &str) -> &str {
        self.body[member].as_str().unwrap_or_default()
    }

    /// The `Retry-After` header, in seconds, which must agree with the body.
    pub fn retry_after(&self) -> u64 {
        let seconds = self.headers["retry-after"].parse().unwrap();
        assert_eq!(self.body["retry_after"], seconds);
        seconds
    }

    /// Its outcome must be this one. A failure to try again later says when.
    #[track_caller]
    pub fn assert_is(&self, outcome: Outcome) {
        assert_eq!(self.outcome(), outcome, "{self:?}");
        assert!(!matches!(self.status, 429 | 503) || self.retry_after() > 0);
    }

    /// It must be a success.
    #[track_caller]
    pub fn assert_ok(&self) {
        assert_eq!(self.status, 200, "{self:?}");
    }

    /// A limit must have refused. Returns the seconds to wait.
    #[track_caller]
    pub fn assert_limited(&self) -> u64 {
        self.assert_is(RATE_LIMITED);
        self.retry_after()
    }
}
