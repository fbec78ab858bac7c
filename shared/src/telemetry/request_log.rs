//! The one line of each request: its log entry and its metrics.
//!
//! The line is in CloudWatch's embedded metric format, so metrics need no call and no work after
//! the response. It is written whatever `RUST_LOG` says: a quiet log must not stop the metrics. It
//! never holds a client's text as it was sent.

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lambda_http::{Context, lambda_runtime::Config};
use serde::{Serialize, Serializer, ser::SerializeMap};
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
    /// The function's own; missing outside Lambda.
    config: Option<Arc<Config>>,
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
            config: invocation.map(|context| Arc::clone(&context.env_config)),
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
        let mut line = Vec::with_capacity(1024);
        // Texts and numbers always serialize.
        let _written = self.serialize(outcome, &mut serde_json::Serializer::new(&mut line));
        line.push(b'\n');
        // One write, so that lines do not mix. A failed write has nowhere to be reported.
        let _unread = io::stdout().lock().write_all(&line);
    }

    /// Writes the members of the line, without those that have no value.
    fn serialize<S: Serializer>(&self, outcome: &Outcome<'_>, to: S) -> Result<S::Ok, S::Error> {
        let now = now_as_text();
        let is_error = outcome.status >= 500;
        let config = self.config.as_deref();
        let function = config.map_or("local", |config| &config.function_name);
        let texts = [
            ("timestamp", Some(now.as_str())),
            ("level", Some(if is_error { "ERROR" } else { "INFO" })),
            ("message", Some("answered")),
            ("function", Some(function)),
            ("route", self.route),
            ("outcome", Some(outcome.word)),
            ("kind", outcome.limit),
            ("country", self.country.as_deref()),
            ("phone", self.phone.as_deref()),
            ("language", self.language),
            ("provider", self.provider_name),
            ("message_id", self.message_id.as_deref()),
            ("cause", outcome.cause),
        ];
        let mut line = to.serialize_map(None)?;
        for (name, text) in texts {
            if let Some(text) = text {
                line.serialize_entry(name, text)?;
            }
        }
        if let Some(request_id) = &self.request_id {
            line.serialize_entry("span", &Span { request_id })?;
        }
        line.serialize_entry("status", &outcome.status)?;
        let metrics = self.metrics(outcome);
        for metric in &metrics {
            line.serialize_entry(&metric.name, &metric.value)?;
        }
        line.serialize_entry("_aws", &Metadata::of(&metrics))?;
        line.end()
    }

    /// The metrics, those of the same dimensions side by side.
    fn metrics(&self, outcome: &Outcome<'_>) -> Vec<Metric> {
        let mut metrics = Vec::with_capacity(8);
        for (name, time) in [
            ("latency_ms", Some(self.begun.elapsed())),
            ("postgres_ms", self.postgres),
            ("redis_ms", self.redis),
            ("provider_ms", self.provider),
        ] {
            metrics.extend(time.map(|time| Metric::time(name, time)));
        }
        metrics.push(Metric::count("requests", BY_OUTCOME));
        let country = self.country.as_ref();
        let by = country.map_or(BY_FUNCTION, |_known| BY_COUNTRY);
        for count in &self.counts {
            metrics.push(Metric::count(count.name(), by));
        }
        metrics.extend(outcome.limit.map(|_| Metric::count("limit_hits", BY_LIMIT)));
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

/// The members by which CloudWatch keeps a metric: one set for each way to look at it.
type Dimensions = &'static [&'static [&'static str]];

const BY_FUNCTION: Dimensions = &[&["function"]];
const BY_OUTCOME: Dimensions = &[&["function"], &["function", "outcome"]];
const BY_COUNTRY: Dimensions = &[&["function"], &["function", "country"]];
const BY_LIMIT: Dimensions = &[&["function"], &["function", "kind"]];

/// A metric. It serializes as its definition.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    name: Cow<'static, str>,
    unit: &'static str,
    #[serde(skip)]
    value: Value,
    #[serde(skip)]
    dimensions: Dimensions,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Count(u8),
    Milliseconds(f64),
}

impl Metric {
    fn count(name: impl Into<Cow<'static, str>>, dimensions: Dimensions) -> Self {
        Self {
            name: name.into(),
            unit: "Count",
            value: Value::Count(1),
            dimensions,
        }
    }

    /// In milliseconds, rounded to the microsecond.
    fn time(name: &'static str, time: Duration) -> Self {
        Self {
            name: name.into(),
            unit: "Milliseconds",
            value: Value::Milliseconds((time.as_secs_f64() * 1e6).round() / 1e3),
            dimensions: BY_FUNCTION,
        }
    }
}

/// The request id, at the place where the runtime's span has it in every other line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    request_id: &'a str,
}

/// The metrics' definitions: CloudWatch, "Embedded metric format specification".
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata<'a> {
    /// Milliseconds since 1970.
    timestamp: u128,
    cloud_watch_metrics: Vec<Directive<'a>>,
}

/// The metrics of the same dimensions.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'static str,
    dimensions: Dimensions,
    metrics: &'a [Metric],
}

impl<'a> Metadata<'a> {
    fn of(metrics: &'a [Metric]) -> Self {
        let groups = metrics.chunk_by(|one, next| one.dimensions == next.dimensions);
        let directives = groups.map(|metrics| Directive {
            namespace: "OtpAuth",
            // A group has at least one.
            dimensions: metrics[0].dimensions,
            metrics,
        });
        Self {
            timestamp: now_as_number(),
            cloud_watch_metrics: directives.collect(),
        }
    }
}

/// RFC 3339, as in the other lines.
fn now_as_text() -> String {
    let mut text = String::with_capacity(32);
    // Writing to a string does not fail.
    let _written = Rfc3339.format_time(&mut Writer::new(&mut text));
    text
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a metric has its own time")]
fn now_as_number() -> u128 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or_default().as_millis()
}
