//! The one connection to Postgres.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    Client, NoTls, Row,
    config::SslMode,
    error::SqlState,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DatabaseUrl, LastUse, SMALL_SHARE, StoreError, tls};
use crate::{
    config::{self, Env},
    iam::IamLogin,
    telemetry,
};

const POSTGRES: &str = "Postgres";

/// The longest that closing takes. Lambda allows half a second at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// The one connection to Postgres.
pub struct Postgres {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    iam: Option<IamLogin>,
    session: Mutex<Option<Arc<Session>>>,
    timeout: Duration,
}

/// An open connection.
struct Session {
    client: Client,
    /// The task that reads and writes; ends with the connection.
    driver: JoinHandle<()>,
    last_use: LastUse,
}

/// A statement's parameters with their types.
pub type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl Postgres {
    /// Reads `DATABASE_URL`, see [`DatabaseUrl`]; `DATABASE_IAM`, see [`DatabaseUrl::iam_login`];
    /// and for TLS `SSL_CERT_FILE`: the authorities to verify against instead of ours.
    pub fn from_env(env: &Env, timeout: Duration) -> Result<Self, config::Error> {
        let url = DatabaseUrl::from_env(env)?;
        let iam = url.iam_login(env)?;
        let mut config = url.config;
        let tls = if url.verified_tls {
            Some(tls::to_postgres(env, config.get_hosts())?)
        } else {
            None
        };
        config.ssl_mode(if tls.is_some() {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        Ok(Self {
            config,
            tls: tls.map(MakeRustlsConnect::new),
            iam,
            session: Mutex::new(None),
            timeout,
        })
    }

    /// Connects ahead of the first operation, and has Postgres plan a statement without running it.
    /// For the first one on a connection Postgres reads its catalogs, which takes longer than the
    /// statement itself. A failure is logged; the first operation does what is missing.
    pub async fn connect(&self, statement: &str, parameters: Parameters<'_>) {
        let explain = format!("EXPLAIN {statement}");
        // The first request waits for this instead of opening a second connection.
        let mut slot = self.session.lock().await;
        let opened = timeout(self.timeout, async {
            let session = self.open().await?;
            let planned = session.client.query_typed(&explain, parameters).await;
            if let Err(error) = planned.map_err(StoreError::from) {
                tracing::warn!(
                    cause = telemetry::chain(&error),
                    "no statement planned at start"
                );
            }
            Ok(session)
        });
        match opened
            .await
            .unwrap_or_else(|_| Err(StoreError::timed_out(POSTGRES)))
        {
            Ok(session) => *slot = Some(Arc::new(session)),
            Err(error) => {
                tracing::warn!(cause = telemetry::chain(&error), "not connected at start");
            }
        }
    }

    /// Closes the connection, so that the server frees it immediately.
    pub async fn close(&self) {
        if let Some(session) = self.forget().and_then(Arc::into_inner) {
            drop(session.client);
            // A server that is not told notices later.
            let _closed = timeout(CLOSE_TIMEOUT, session.driver).await;
        }
    }

    /// Runs a statement that changes nothing and returns its one row. If the server or the
    /// connection fails, it retries once on a new connection.
    pub async fn read_one(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        deadline: Instant,
    ) -> Result<Row, StoreError> {
        self.read(statement, parameters, deadline)
            .await
            .and_then(only)
    }

    /// The same for any number of rows.
    pub async fn read(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        deadline: Instant,
    ) -> Result<Vec<Row>, StoreError> {
        let until = self.until(deadline);
        match self.run_until(until, statement, parameters).await {
            Err(StoreError::Unavailable(..)) if Instant::now() < self.cancelling_from(until) => {
                self.run_until(until, statement, parameters).await
            }
            ran => ran,
        }
    }

    /// Runs a statement that changes something and returns its one row. It is sent once: if the
    /// connection breaks after that, we cannot know if it was committed.
    pub async fn write_one(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        deadline: Instant,
    ) -> Result<Row, StoreError> {
        self.run_until(self.until(deadline), statement, parameters)
            .await
            .and_then(only)
    }

    fn until(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.timeout)
    }

    fn cancelling_from(&self, until: Instant) -> Instant {
        until - self.timeout / SMALL_SHARE
    }

    /// Runs a statement once. If it takes too long, the server is asked to cancel it, and its reply
    /// to that decides: otherwise a statement that waits for a lock could commit after we reported
    /// a failure.
    async fn run_until(
        &self,
        until: Instant,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let cancelling_from = self.cancelling_from(until);
        if cancelling_from <= Instant::now() {
            return Err(StoreError::timed_out(POSTGRES));
        }
        let mut running = pin!(self.run(statement, parameters));
        if let Ok(ran) = timeout_at(cancelling_from, &mut running).await {
            return ran;
        }
        // Without a session it is still connecting, and nothing was sent.
        let Some(session) = self.forget() else {
            return Err(StoreError::timed_out(POSTGRES));
        };
        let ended = timeout_at(until, async {
            self.cancel(&session).await;
            running.await
        });
        let ended = ended.await;
        // Nobody waits for a later reply.
        session.driver.abort();
        ended.unwrap_or_else(|_| Err(StoreError::timed_out(POSTGRES)))
    }

    async fn cancel(&self, session: &Session) {
        let token = session.client.cancel_token();
        // If the request to cancel fails, nothing better can be done.
        drop(match &self.tls {
            Some(tls) => Box::pin(token.cancel_query(tls.clone())).await,
            None => Box::pin(token.cancel_query(NoTls)).await,
        });
    }

    /// One round trip: an unnamed statement with declared parameter types. A server that has become
    /// a standby refuses to write; then it retries once on a new connection.
    async fn run(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        let mut session = self.session().await?;
        let mut ran = session.client.query_typed(statement, parameters).await;
        if ran.as_ref().is_err_and(is_from_a_standby) {
            self.forget();
            session = self.session().await?;
            ran = session.client.query_typed(statement, parameters).await;
        }
        match ran.map_err(StoreError::from) {
            Ok(rows) => {
                session.last_use.is_now();
                Ok(rows)
            }
            Err(error) => {
                // The server may be shutting down, or be the wrong one.
                if matches!(error, StoreError::Unavailable(..)) {
                    self.forget();
                }
                Err(error)
            }
        }
    }

    fn forget(&self) -> Option<Arc<Session>> {
        // Whoever holds the lock is already opening another connection.
        self.session
            .try_lock()
            .ok()
            .and_then(|mut slot| slot.take())
    }

    /// The open connection, or a new one if that is dead.
    async fn session(&self) -> Result<Arc<Session>, StoreError> {
        // The driver task notices that a connection was closed while the function was frozen. The
        // first yield lets the runtime see the event, the second lets the task run.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref() {
            if self.is_alive(session).await {
                return Ok(Arc::clone(session));
            }
            session.driver.abort();
        }
        *slot = None;
        let session = self.open().await?;
        Ok(Arc::clone(slot.insert(Arc::new(session))))
    }

    async fn open(&self) -> Result<Session, StoreError> {
        let mut config = self.config.clone();
        if let Some(iam) = &self.iam {
            let password = Box::pin(iam.password()).await;
            config.password(
                password.map_err(|error| StoreError::Unavailable(POSTGRES, error.into()))?,
            );
        }
        let opened = match &self.tls {
            Some(tls) => Box::pin(open(&config, tls.clone())).await,
            None => Box::pin(open(&config, NoTls)).await,
        };
        opened.map_err(|error| match StoreError::from(error) {
            StoreError::Fault(store, cause)
            | StoreError::Refused(store, cause)
            | StoreError::Conflict(store, cause)
            | StoreError::Unavailable(store, cause) => StoreError::Unavailable(store, cause),
        })
    }

    /// Checks a connection that was idle for long: a network device may have dropped it silently. A
    /// write must not be sent into such a connection, because we could not know if it arrived.
    async fn is_alive(&self, session: &Session) -> bool {
        if session.client.is_closed() {
            return false;
        }
        if !session.last_use.is_long_ago(self.timeout) {
            return true;
        }
        let checked = timeout(
            self.timeout / SMALL_SHARE,
            session.client.check_connection(),
        )
        .await;
        checked.is_ok_and(|checked| checked.is_ok())
    }
}

/// The row of a statement that returns one.
fn only(mut rows: Vec<Row>) -> Result<Row, StoreError> {
    match (rows.pop(), rows.as_slice()) {
        (Some(row), []) => Ok(row),
        _ => Err(StoreError::Fault(POSTGRES, "not one row".into())),
    }
}

async fn open<T>(config: &tokio_postgres::Config, tls: T) -> Result<Session, tokio_postgres::Error>
where
    T: tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    Ok(Session {
        client,
        // Its error also reaches the operations that need the connection.
        driver: tokio::spawn(async { drop(connection.await) }),
        last_use: LastUse::now(),
    })
}

fn is_from_a_standby(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(reply) = error.as_db_error() else {
            let is_broken = error.is_closed()
                || std::error::Error::source(&error)
                    .is_some_and(<dyn std::error::Error + 'static>::is::<std::io::Error>);
            return if is_broken {
                Self::Unavailable(POSTGRES, error.into())
            } else {
                Self::Fault(POSTGRES, error.into())
            };
        };
        // The detail can quote a row, hence code and message only.
        let cause = format!("{} ({})", reply.message(), reply.code().code()).into();
        if reply.code() == &SqlState::UNIQUE_VIOLATION {
            return Self::Conflict(POSTGRES, cause);
        }
        match &reply.code().code()[..2] {
            // Classes: connection, authorization, transaction state (read-only standby), rollback,
            // resources, operator intervention, system error.
            "08" | "25" | "28" | "40" | "53" | "57" | "58" => Self::Unavailable(POSTGRES, cause),
            _ => Self::Fault(POSTGRES, cause),
        }
    }
}
