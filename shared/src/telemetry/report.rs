//! What is told about one request: the one line that is its log entry and its metrics.
//!
//! The line is in CloudWatch's embedded metric format, so counting costs no call and no work after
//! the answer. It is written whatever `RUST_LOG` says, because a quiet log must not stop the
//! metrics. Nothing that a client sent is part of it as it was sent.

use std::{
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

use crate::phone::PhoneNumber;

/// Collects what is known of a request until it is answered. Handlers tell it; `api::answer` makes
/// it and writes it.
#[derive(Debug)]
pub struct Report {
    begun: Instant,
    request_id: Option<String>,
    function: String,
    route: Option<&'static str>,
    phone: Option<String>,
    country: Option<String>,
    postgres: Option<Duration>,
    redis: Option<Duration>,
    provider: Option<Duration>,
    counts: Vec<Count>,
}

/// What is counted beside the request itself, each by country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A code was sent, or perhaps sent.
    CodeSent,
    /// The provider did not say whether it sent the code.
    UnknownSend,
    /// A challenge was matched for the first time: its code has come back.
    CodeVerified,
    /// A code was issued while its phone had too many wrong codes: it is longer if it can be.
    PhoneMissesFull,
    /// The same for the whole service.
    TotalMissesFull,
    /// A refresh token came back after its successor was used: it, or its successor, was stolen.
    ReusedToken,
}

/// How a request ended.
#[derive(Debug)]
pub struct Ending<'a> {
    pub status: u16,
    /// A stable word: what was done, or the `code` of the failure.
    pub outcome: &'static str,
    /// The limit that was in the way.
    pub limit: Option<&'static str>,
    /// Why it failed, if the fault is not the client's: the error with all its sources.
    pub cause: Option<&'a str>,
}

impl Report {
    /// Begins with what Lambda says of the invocation; outside of Lambda there is nobody to say it.
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
            postgres: None,
            redis: None,
            provider: None,
            counts: Vec::new(),
        }
    }

    /// The route that the request is for. Never the path itself, which is the client's to choose.
    pub fn on(&mut self, route: &'static str) -> &mut Self {
        self.route = Some(route);
        self
    }

    /// The phone that the request is about.
    pub fn about(&mut self, phone: &PhoneNumber) {
        self.phone = Some(phone.masked());
        self.country = Some(phone.country().to_owned());
    }

    pub fn count(&mut self, count: Count) {
        self.counts.push(count);
    }

    /// Takes the time of an operation of Postgres.
    pub async fn postgres<T>(&mut self, operation: impl Future<Output = T>) -> T {
        timed(&mut self.postgres, operation).await
    }

    /// Takes the time of an operation of Redis.
    pub async fn redis<T>(&mut self, operation: impl Future<Output = T>) -> T {
        timed(&mut self.redis, operation).await
    }

    /// Takes the time of the SMS provider.
    pub async fn provider<T>(&mut self, operation: impl Future<Output = T>) -> T {
        timed(&mut self.provider, operation).await
    }

    /// Writes the line.
    pub fn write(&self, ending: &Ending<'_>) {
        let mut line = self.line(ending);
        line.push('\n');
        // In one piece. If nobody reads it, there is nobody to tell that.
        let _unread = io::stdout().lock().write_all(line.as_bytes());
    }

    fn line(&self, ending: &Ending<'_>) -> String {
        let metrics = self.metrics(ending);
        let line = Line {
            timestamp: now_as_text(),
            level: if ending.status >= 500 {
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
            outcome: ending.outcome,
            status: ending.status,
            kind: ending.limit,
            country: self.country.as_deref(),
            phone: self.phone.as_deref(),
            cause: ending.cause,
            aws: Metadata {
                timestamp: now_as_number(),
                directives: Directive::all(&metrics, self.country.is_some()),
            },
            values: metrics.into_iter().map(|m| (m.name, m.value)).collect(),
        };
        // Texts and numbers always have a JSON form.
        serde_json::to_string(&line).unwrap_or_default()
    }

    fn metrics(&self, ending: &Ending<'_>) -> Vec<Metric> {
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
        if ending.limit.is_some() {
            metrics.push(Metric::count("limit_hits", Some("kind")));
        }
        metrics
    }
}

impl Count {
    fn name(self) -> &'static str {
        match self {
            Self::CodeSent => "codes_sent",
            Self::UnknownSend => "unknown_sends",
            Self::CodeVerified => "codes_verified",
            Self::PhoneMissesFull => "phone_misses_full",
            Self::TotalMissesFull => "total_misses_full",
            Self::ReusedToken => "reused_tokens",
        }
    }
}

async fn timed<T>(spent: &mut Option<Duration>, operation: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = operation.await;
    *spent = Some(spent.unwrap_or_default() + begun.elapsed());
    done
}

/// A number of the line that CloudWatch keeps, and the member by which it also keeps it apart.
struct Metric {
    name: &'static str,
    value: Value,
    unit: &'static str,
    by: Option<&'static str>,
}

impl Metric {
    fn count(name: &'static str, by: Option<&'static str>) -> Self {
        Self {
            name,
            value: 1.into(),
            unit: "Count",
            by,
        }
    }

    /// In milliseconds, to the microsecond.
    fn time(name: &'static str, time: Duration) -> Self {
        Self {
            name,
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
    cause: Option<&'a str>,
    #[serde(flatten)]
    values: BTreeMap<&'static str, Value>,
    #[serde(rename = "_aws")]
    aws: Metadata,
}

/// The request id stands where the runtime's span puts it in every other line of the request.
#[derive(Serialize)]
struct Span<'a> {
    #[serde(rename = "requestId")]
    request_id: &'a str,
}

/// What makes the line a metric: CloudWatch's "Embedded metric format specification".
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
    name: &'static str,
    unit: &'static str,
}

impl Directive {
    /// Every metric is kept by function; those that have a finer cut, by that too.
    fn all(metrics: &[Metric], country_is_known: bool) -> Vec<Self> {
        let cuts = [None, Some("outcome"), Some("country"), Some("kind")];
        let directive = |by: Option<&'static str>| {
            let mut dimensions = vec![vec!["function"]];
            dimensions.extend(
                by.filter(|&member| member != "country" || country_is_known)
                    .map(|member| vec!["function", member]),
            );
            let of_this_cut = metrics.iter().filter(|metric| metric.by == by);
            Self {
                namespace: "OtpAuth",
                dimensions,
                metrics: of_this_cut
                    .map(|&Metric { name, unit, .. }| Definition { name, unit })
                    .collect(),
            }
        };
        cuts.into_iter()
            .map(directive)
            .filter(|directive| !directive.metrics.is_empty())
            .collect()
    }
}

/// As the other lines write it.
fn now_as_text() -> String {
    let mut text = String::new();
    // Writing to a text does not fail.
    let _written = Rfc3339.format_time(&mut Writer::new(&mut text));
    text
}

fn now_as_number() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let milliseconds = since_1970.unwrap_or_default().as_millis();
    u64::try_from(milliseconds).unwrap_or_default()
}
