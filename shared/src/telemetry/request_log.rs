//! The one line of each request: its log entry and its metrics.
//!
//! The line is in CloudWatch's embedded metric format, so metrics need no call and no work after
//! the response. It is written whatever `RUST_LOG` says: a quiet log must not stop the metrics. It
//! never holds a client's text as it was sent.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lambda_http::Context;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime, SystemTime as Rfc3339},
};

use crate::{phone::PhoneNumber, sms::Language};

/// The log line of one request, collected until its response. Handlers fill it in; `api::respond`
/// creates it and writes it.
#[derive(Debug)]
pub struct RequestLog {
    begun: Instant,
    request_id: Option<String>,
    function: String,
    route: Option<&'static str>,
    phone: Option<String>,
    country: Option<String>,
    language: Option<&'static str>,
    postgres: Option<Duration>,
    redis: Option<Duration>,
    provider: Option<Duration>,
    provider_name: Option<&'static str>,
    message_id: Option<String>,
    counts: Vec<Count>,
}

/// An event that is counted by country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A code was sent, or the provider did not say.
    CodeSent,
    /// The provider did not say whether it sent the code.
    UnknownSend,
    /// A test number got its code, which was not sent.
    TestCode,
    /// A number was warned that its account is about to get another one.
    WarningSent,
    /// The first right code for a challenge that was sent.
    CodeVerified,
    /// A code was issued while its phone's bucket of misses was full, so a longer one if there is
    /// one.
    PhoneMissesFull,
    /// A code was issued while the service's bucket of misses was full.
    TotalMissesFull,
    /// A refresh token was used after its successor: one of the two was stolen.
    ReusedToken,
    /// The outcome of a provider, by its name.
    Provider(&'static str, ProviderOutcome),
}

/// The outcome of a message at one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderOutcome {
    Sent,
    /// Certainly not sent.
    Refused,
    /// The reply was lost.
    Unknown,
}

/// The outcome of a request.
#[derive(Debug)]
pub struct Outcome<'a> {
    pub status: u16,
    /// A stable word: `sent`, `registered`, …, or the `code` of the failure.
    pub word: &'static str,
    /// The limit that refused the request.
    pub limit: Option<&'static str>,
    /// The error with all its sources: a failed store or provider, a refused token, a panic.
    pub cause: Option<&'a str>,
}

impl RequestLog {
    /// Starts the clock. `invocation` is missing outside Lambda.
    pub fn begin(invocation: Option<&Context>) -> Self {
        Self {
            begun: Instant::now(),
            request_id: invocation.map(|context| context.request_id.clone()),
            function: invocation.map_or_else(
                || "local".to_owned(),
                |context| context.env_config.function_name.clone(),
            ),
            route: None,
            phone: None,
            country: None,
            language: None,
            postgres: None,
            redis: None,
            provider: None,
            provider_name: None,
            message_id: None,
            counts: Vec::new(),
        }
    }

    /// Sets the route. Never the path itself: the client chooses that.
    pub fn route(&mut self, route: &'static str) -> &mut Self {
        self.route = Some(route);
        self
    }

    /// Sets the phone, masked, and its country.
    pub fn phone(&mut self, phone: &PhoneNumber) {
        self.phone = Some(phone.masked());
        self.country = Some(phone.country().to_owned());
    }

    /// Sets the language of the message.
    pub fn language(&mut self, language: Language) {
        self.language = Some(language.tag());
    }

    /// Counts one event.
    pub fn count(&mut self, count: Count) {
        self.counts.push(count);
    }

    /// Measures an operation of Postgres.
    pub async fn postgres<T>(&mut self, operation: impl Future<Output = T>) -> T {
        timed(&mut self.postgres, operation).await
    }

    /// Measures an operation of Redis.
    pub async fn redis<T>(&mut self, operation: impl Future<Output = T>) -> T {
        timed(&mut self.redis, operation).await
    }

    /// Measures a call to the SMS provider.
    pub async fn provider<T>(&mut self, operation: impl Future<Output = T>) -> T {
        timed(&mut self.provider, operation).await
    }

    /// Counts the outcome of the provider that was asked last, and keeps its name and the id of its
    /// message, by which the provider's delivery log knows it.
    pub fn replied(
        &mut self,
        provider: &'static str,
        outcome: ProviderOutcome,
        message_id: Option<String>,
    ) {
        self.count(Count::Provider(provider, outcome));
        self.provider_name = Some(provider);
        self.message_id = message_id;
    }

    /// Writes the line.
    pub fn write(&self, outcome: &Outcome<'_>) {
        let mut line = self.line(outcome);
        line.push('\n');
        // One write, so that lines do not mix. A failed write has nowhere to be reported.
        let _unread = io::stdout().lock().write_all(line.as_bytes());
    }

    fn line(&self, outcome: &Outcome<'_>) -> String {
        let metrics = self.metrics(outcome);
        let line = Line {
            timestamp: now_as_text(),
            level: if outcome.status >= 500 {
                "ERROR"
            } else {
                "INFO"
            },
            message: "answered",
            span: self
                .request_id
                .as_deref()
                .map(|request_id| Span { request_id }),
            function: &self.function,
            route: self.route,
            outcome: outcome.word,
            status: outcome.status,
            kind: outcome.limit,
            country: self.country.as_deref(),
            phone: self.phone.as_deref(),
            language: self.language,
            provider: self.provider_name,
            message_id: self.message_id.as_deref(),
            cause: outcome.cause,
            aws: Metadata {
                timestamp: now_as_number(),
                directives: Directive::all(&metrics, self.country.is_some()),
            },
            values: metrics.into_iter().map(|m| (m.name, m.value)).collect(),
        };
        // Texts and numbers always serialize.
        serde_json::to_string(&line).unwrap_or_default()
    }

    fn metrics(&self, outcome: &Outcome<'_>) -> Vec<Metric> {
        let mut metrics = vec![
            Metric::count("requests", Some("outcome")),
            Metric::time("latency_ms", self.begun.elapsed()),
        ];
        let parts = [
            ("postgres_ms", self.postgres),
            ("redis_ms", self.redis),
            ("provider_ms", self.provider),
        ];
        for (name, spent) in parts {
            metrics.extend(spent.map(|spent| Metric::time(name, spent)));
        }
        for count in &self.counts {
            metrics.push(Metric::count(count.name(), Some("country")));
        }
        if outcome.limit.is_some() {
            metrics.push(Metric::count("limit_hits", Some("kind")));
        }
        metrics
    }
}

impl Count {
    fn name(self) -> Cow<'static, str> {
        let name = match self {
            Self::CodeSent => "codes_sent",
            Self::TestCode => "test_codes",
            Self::WarningSent => "warnings_sent",
            Self::UnknownSend => "unknown_sends",
            Self::CodeVerified => "codes_verified",
            Self::PhoneMissesFull => "phone_misses_full",
            Self::TotalMissesFull => "total_misses_full",
            Self::ReusedToken => "reused_tokens",
            Self::Provider(provider, outcome) => {
                return format!("{provider}_{}", outcome.name()).into();
            }
        };
        name.into()
    }
}

impl ProviderOutcome {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

async fn timed<T>(spent: &mut Option<Duration>, operation: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = operation.await;
    *spent = Some(spent.unwrap_or_default() + begun.elapsed());
    done
}

/// A metric in the line, and the member of the line that is its dimension besides the function.
struct Metric {
    name: Cow<'static, str>,
    value: Value,
    unit: &'static str,
    by: Option<&'static str>,
}

impl Metric {
    fn count(name: impl Into<Cow<'static, str>>, by: Option<&'static str>) -> Self {
        Self {
            name: name.into(),
            value: 1.into(),
            unit: "Count",
            by,
        }
    }

    /// In milliseconds, rounded to the microsecond.
    fn time(name: &'static str, time: Duration) -> Self {
        Self {
            name: name.into(),
            value: ((time.as_secs_f64() * 1e6).round() / 1e3).into(),
            unit: "Milliseconds",
            by: None,
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<Span<'a>>,
    function: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'static str>,
    outcome: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(flatten)]
    values: BTreeMap<Cow<'static, str>, Value>,
    #[serde(rename = "_aws")]
    aws: Metadata,
}

/// The request id, at the place where the runtime's span has it in every other line.
#[derive(Serialize)]
struct Span<'a> {
    #[serde(rename = "requestId")]
    request_id: &'a str,
}

/// The metrics' definitions: CloudWatch, "Embedded metric format specification".
#[derive(Serialize)]
struct Metadata {
    /// Milliseconds since 1970.
    #[serde(rename = "Timestamp")]
    timestamp: u64,
    #[serde(rename = "CloudWatchMetrics")]
    directives: Vec<Directive>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: &'static str,
    dimensions: Vec<Vec<&'static str>>,
    metrics: Vec<Definition>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: Cow<'static, str>,
    unit: &'static str,
}

impl Directive {
    /// Every metric has the dimension `function`; some have a second set of dimensions.
    fn all(metrics: &[Metric], country_is_known: bool) -> Vec<Self> {
        let second = [None, Some("outcome"), Some("country"), Some("kind")];
        let directive = |by: Option<&'static str>| {
            let mut dimensions = vec![vec!["function"]];
            dimensions.extend(
                by.filter(|&member| member != "country" || country_is_known)
                    .map(|member| vec!["function", member]),
            );
            let of_this_dimension = metrics.iter().filter(|metric| metric.by == by);
            Self {
                namespace: "OtpAuth",
                dimensions,
                metrics: of_this_dimension
                    .map(|metric| Definition {
                        name: metric.name.clone(),
                        unit: metric.unit,
                    })
                    .collect(),
            }
        };
        second
            .into_iter()
            .map(directive)
            .filter(|directive| !directive.metrics.is_empty())
            .collect()
    }
}

/// RFC 3339, as in the other lines.
fn now_as_text() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = Rfc3339.format_time(&mut Writer::new(&mut text));
    text
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a metric has its own time")]
fn now_as_number() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let milliseconds = since_1970.unwrap_or_default().as_millis();
    u64::try_from(milliseconds).unwrap_or_default()
}
