//! The connections to Postgres and Redis: opened at start, kept between events, replaced when dead.
//!
//! A store that is down at start is no reason not to start: each operation connects if it has to.
//! An operation ends within the store's timeout and within its request's deadline, reconnect
//! included.

mod postgres;
mod redis;

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

pub use postgres::{DatabaseUrl, Postgres};
pub use redis::Redis;

/// The share of an operation's time, one part in so many, that is kept for cancelling its statement or
/// for finding out that an idle connection is dead.
const SMALL_SHARE: u32 = 4;

/// An operation that a store did not carry out, or did not say that it had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is down or takes too long: asking again later helps. It may have done what it was
    /// asked for.
    #[error("{0} is unavailable")]
    Unavailable(&'static str, #[source] Cause),
    /// The store is there and refuses for now: asking again later helps. It has done nothing.
    #[error("{0} refuses")]
    Refused(&'static str, #[source] Cause),
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

/// When a connection was known to work for the last time.
///
/// Two clocks remember it: the monotonic one may stand still while the function is frozen, the other
/// may be set.
struct LastUse(Mutex<(Instant, SystemTime)>);

impl LastUse {
    /// A connection is idle for long after so many times its store's timeout.
    const LONG: u32 = 5;

    fn now() -> Self {
        Self(Mutex::new((Instant::now(), SystemTime::now())))
    }

    fn is_now(&self) {
        let now = (Instant::now(), SystemTime::now());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Whether that is so long ago that the connection may have died unnoticed.
    fn is_long_ago(&self, timeout: Duration) -> bool {
        let (instant, time) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let long = timeout * Self::LONG;
        // A clock that went back says nothing, so the connection is asked.
        instant.elapsed() > long || time.elapsed().map_or(true, |passed| passed > long)
    }
}
