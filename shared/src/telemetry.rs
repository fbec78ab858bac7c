//! What a function writes about itself: JSON lines on standard output.
//!
//! No code, pepper, token or whole phone number goes through here, except the code that the `log`
//! sender exists to show.

use std::{error::Error, panic, process::ExitCode};

use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Our own crates, whose debug lines are known to hold no secret.
const OWN: [&str; 4] = ["shared", "signup", "verify", "migrate"];

/// Starts the log, at the levels of `RUST_LOG` (`warn`, `shared=debug,warn`, …). By default that is
/// `info`, less the notices of Postgres that `migrate` would pass on.
///
/// Other crates get no finer than `info` whatever `RUST_LOG` says: at `debug` and `trace` the
/// runtime and the SDK print requests and answers, so codes and numbers.
pub fn init() {
    let wanted = std::env::var("RUST_LOG")
        .ok()
        .and_then(|directives| directives.parse::<Targets>().ok())
        .unwrap_or_else(|| {
            Targets::new()
                .with_default(LevelFilter::INFO)
                .with_target("sqlx", LevelFilter::WARN)
        });
    let harmless = filter_fn(|line| {
        *line.level() <= tracing::Level::INFO
            || OWN.contains(&line.target().split("::").next().unwrap_or_default())
    });
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_filter(wanted);
    tracing_subscriber::registry()
        .with(lines.with_filter(harmless))
        .init();
    // Where, but not the message: that of a failed slice or parse quotes its input.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic");
    }));
}

/// An error with all its sources, as one line.
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

/// Logs why the process cannot go on, and the status it ends with.
pub fn exit(error: &(dyn Error + 'static)) -> ExitCode {
    tracing::error!(cause = chain(error), "cannot start");
    ExitCode::FAILURE
}
