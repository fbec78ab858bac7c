//! The log: JSON lines on standard output.
//!
//! No code, pepper, token or whole phone number is written here, except the code that the `log`
//! provider exists to show.

mod request_log;

use std::{error::Error, panic, process::ExitCode};

use tracing_subscriber::{
    Layer,
    filter::{FilterExt, LevelFilter, Targets, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub use request_log::{Count, Outcome, ProviderOutcome, RequestLog};

use crate::config::{self, Env};

/// Starts the log at the levels of `RUST_LOG` (`warn`, or `shared=info,warn`, …). The default is
/// `info`, without the Postgres notices that `migrate` would pass on. If `RUST_LOG` is invalid, the
/// log starts with the default, so that the error can be logged.
///
/// Finer lines than `info` are dropped whatever `RUST_LOG` says: at `debug` and `trace` the runtime
/// and the SDK print requests and responses, and with them codes and numbers.
pub fn init(env: &Env) -> Result<(), config::Error> {
    let (wanted, read) = match levels(env) {
        Ok(wanted) => (wanted, Ok(())),
        Err(error) => (default_levels(), Err(error)),
    };
    // The runtime's span holds the request id, which lines of every level need.
    let wanted = wanted.or(filter_fn(|line| {
        line.is_span() && line.target().starts_with("lambda_runtime")
    }));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_filter(wanted);
    tracing_subscriber::registry()
        .with(lines.with_filter(LevelFilter::INFO))
        .init();
    // The place, but not the message: that of a failed slice or parse quotes its input.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic");
    }));
    read
}

fn default_levels() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("sqlx", LevelFilter::WARN)
}

fn levels(env: &Env) -> Result<Targets, config::Error> {
    const NAME: &str = "RUST_LOG";
    let Some(text) = env.text(NAME) else {
        return Ok(default_levels());
    };
    // A misspelt level would read as a target without a level, which turns all others off.
    let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    let has_levels = text
        .split(',')
        .all(|directive| directive.rsplit('=').next().is_some_and(is_level));
    text.parse().ok().filter(|_| has_levels).ok_or_else(|| {
        config::Error::invalid(
            NAME,
            "must be a level such as warn, or a list such as shared=info,warn",
        )
    })
}

/// An error and all its sources in one line, separated by colons.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// Logs the error that ends the process, under `message`, and returns the exit status.
pub fn exit(message: &'static str, error: &(dyn Error + 'static)) -> ExitCode {
    tracing::error!(cause = chain(error), "{message}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_levels_and_a_misspelt_one_is_refused_by_name() {
        for text in [
            "",
            "warn",
            "DEBUG",
            "off",
            "shared=info,warn",
            "shared::sms=trace",
        ] {
            assert!(levels(&Env::from([("RUST_LOG", text)])).is_ok(), "{text:?}");
        }
        for text in [
            "wran",
            "shared",
            "shared=loud",
            "info,",
            "=",
            "a=b=info",
            "info warn",
        ] {
            let error = levels(&Env::from([("RUST_LOG", text)])).unwrap_err();
            assert!(
                error.to_string().starts_with("RUST_LOG must be"),
                "{text:?}"
            );
        }
    }
}
