//! The connections to Postgres and Redis: opened at start, kept between events, replaced when dead.
//!
//! A store that is down at start is no reason not to start: each operation connects if it has to.
//! An operation ends within the store's timeout and within its request's deadline, reconnect
//! included.

mod postgres;
mod redis;

use std::net::IpAddr;

pub use postgres::{DatabaseUrl, Postgres};
pub use redis::Redis;

/// An operation that a store did not carry out, or did not say that it had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is down, refuses or takes too long: asking again later helps.
    #[error("{0} is unavailable")]
    Unavailable(&'static str, #[source] Cause),
    /// The store understood us and says that we are wrong: a fault of ours.
    #[error("{0} reports a fault")]
    Fault(&'static str, #[source] Cause),
}

/// Whether a host is this machine, so that nobody listens on the way to it.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    fn timed_out(store: &'static str) -> Self {
        Self::Unavailable(store, "no answer in time".into())
    }
}
