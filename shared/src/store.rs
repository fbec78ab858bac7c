//! The connections to Postgres and Redis: opened at start, kept between events, replaced when dead.
//!
//! A function starts even if a store is down; each operation connects if it has to. An operation
//! ends within the store's timeout and its request's deadline, reconnecting included.

mod database_url;
mod postgres;
mod redis;
mod tls;

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

pub use database_url::DatabaseUrl;
pub use postgres::Postgres;
pub use redis::Redis;
pub(crate) use tls::CertFile;

/// A quarter of an operation's time is reserved for cancelling its statement, or for finding out
/// that an idle connection is dead.
const SMALL_SHARE: u32 = 4;

/// A store operation that failed, or whose reply was lost.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is down or too slow: retry later. It may have carried out the operation.
    #[error("{0} is unavailable")]
    Unavailable(&'static str, #[source] Cause),
    /// The store refuses for now: retry later. It has done nothing.
    #[error("{0} refuses")]
    Refused(&'static str, #[source] Cause),
    /// A row with the same unique value exists. It has done nothing.
    #[error("{0} has such a row")]
    Conflict(&'static str, #[source] Cause),
    /// The store rejects the operation, or sends an unexpected reply: our fault. It may have
    /// carried out the operation.
    #[error("{0} reports a fault")]
    Fault(&'static str, #[source] Cause),
}

/// Tells if a host is this machine, so that no network is between.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    fn timed_out(store: &'static str) -> Self {
        Self::Unavailable(store, "no reply in time".into())
    }
}

/// The last time that a connection was known to work, by two clocks: the monotonic one may stand
/// still while the function is frozen, the other may be set.
struct LastUse(Mutex<(Instant, SystemTime)>);

impl LastUse {
    /// A connection is idle for long after this many times its store's timeout.
    const LONG: u32 = 5;

    fn now() -> Self {
        Self(Mutex::new(both_clocks()))
    }

    fn is_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = both_clocks();
    }

    /// Tells if that is so long ago that the connection may have died unnoticed.
    fn is_long_ago(&self, timeout: Duration) -> bool {
        let (instant, time) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let long = timeout * Self::LONG;
        // A clock that was set back says nothing, so the connection is checked.
        instant.elapsed() > long || time.elapsed().map_or(true, |passed| passed > long)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the other clock stands still in a frozen function"
)]
fn both_clocks() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}
