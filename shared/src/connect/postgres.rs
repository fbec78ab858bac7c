//! The one connection to Postgres.

use std::{net::IpAddr, pin::pin, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    Client, NoTls, Row,
    config::{Host, SslMode},
    error::SqlState,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{LastUse, SMALL_SHARE, StoreError, is_loopback};
use crate::{
    aws::IamLogin,
    config::{self, Env},
    telemetry,
};

const POSTGRES: &str = "Postgres";

/// How long saying goodbye may take: Lambda waits half a second at the end.
const CLOSING: Duration = Duration::from_millis(300);

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
    /// Carries what the client says and hears; ends with the connection.
    carrier: JoinHandle<()>,
    last_use: LastUse,
}

/// A statement's parameters with their types.
pub type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl Postgres {
    /// Reads `DATABASE_URL`, see [`DatabaseUrl`], and `DATABASE_IAM`, see
    /// [`DatabaseUrl::iam_login`].
    pub fn from_env(env: &Env, timeout: Duration) -> Result<Self, config::Error> {
        let url = DatabaseUrl::from_env(env)?;
        let iam = url.iam_login(env)?;
        let tls = url.verified_tls.then(tls_config).transpose()?;
        let mut config = url.config;
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

    /// Connects ahead of the first operation; a failure is logged and tried again by that one.
    pub async fn connect(&self) {
        let opened = timeout(self.timeout, self.session()).await;
        if let Err(error) = opened.unwrap_or_else(|_| Err(StoreError::timed_out(POSTGRES))) {
            tracing::warn!(error = telemetry::chain(&error), "not connected at start");
        }
    }

    /// Ends the session, so that the server need not find out that nobody is there any more.
    pub async fn close(&self) {
        if let Some(session) = self.forget().and_then(Arc::into_inner) {
            drop(session.client);
            // If the server does not hear it, it finds out.
            let _unheard = timeout(CLOSING, session.carrier).await;
        }
    }

    /// Runs a statement that changes nothing and returns its one row. If the server or the connection
    /// fails, it is run again on a new connection.
    pub async fn read_one(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        deadline: Instant,
    ) -> Result<Row, StoreError> {
        let until = self.until(deadline);
        match self.run_until(until, statement, parameters).await {
            Err(StoreError::Unavailable(..)) if Instant::now() < self.cancelling_from(until) => {
                self.run_until(until, statement, parameters).await
            }
            ran => ran,
        }
    }

    /// Runs a statement that changes something and returns its one row. It is sent once: when the
    /// connection breaks after that, nobody here knows whether it was carried out.
    pub async fn write_one(
        &self,
        statement: &str,
        parameters: Parameters<'_>,
        deadline: Instant,
    ) -> Result<Row, StoreError> {
        self.run_until(self.until(deadline), statement, parameters)
            .await
    }

    fn until(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.timeout)
    }

    fn cancelling_from(&self, until: Instant) -> Instant {
        until - self.timeout / SMALL_SHARE
    }

    /// Runs a statement once. If it takes too long, the server is asked to cancel it, and what it then
    /// says counts: a statement that waits for a lock would otherwise go on and commit after its
    /// failure was answered.
    async fn run_until(
        &self,
        until: Instant,
        statement: &str,
        parameters: Parameters<'_>,
    ) -> Result<Row, StoreError> {
        let cancelling_from = self.cancelling_from(until);
        if cancelling_from <= Instant::now() {
            return Err(StoreError::timed_out(POSTGRES));
        }
        let mut running = pin!(self.run(statement, parameters));
        if let Ok(ran) = timeout_at(cancelling_from, &mut running).await {
            return ran;
        }
        // Without a session it is still connecting, and has told the server nothing.
        let Some(session) = self.forget() else {
            return Err(StoreError::timed_out(POSTGRES));
        };
        let ended = timeout_at(until, async {
            self.cancel(&session).await;
            running.await
        });
        let ended = ended.await;
        // Nobody waits any longer for what may still come.
        session.carrier.abort();
        ended.unwrap_or_else(|_| Err(StoreError::timed_out(POSTGRES)))
    }

    async fn cancel(&self, session: &Session) {
        let token = session.client.cancel_token();
        // If the server cannot be asked, nothing better can be done.
        drop(match &self.tls {
            Some(tls) => Box::pin(token.cancel_query(tls.clone())).await,
            None => Box::pin(token.cancel_query(NoTls)).await,
        });
    }

    /// One round trip: an unnamed statement whose parameter types are known. A server that has become
    /// a standby refuses to write; then it is tried once more on a new connection.
    async fn run(&self, statement: &str, parameters: Parameters<'_>) -> Result<Row, StoreError> {
        let mut session = self.session().await?;
        let mut ran = session.client.query_typed_one(statement, parameters).await;
        if ran.as_ref().is_err_and(is_from_a_standby) {
            self.forget();
            session = self.session().await?;
            ran = session.client.query_typed_one(statement, parameters).await;
        }
        match ran.map_err(StoreError::from) {
            Ok(row) => {
                session.last_use.is_now();
                Ok(row)
            }
            Err(error) => {
                // The server may be about to hang up, or be the wrong one.
                if matches!(error, StoreError::Unavailable(..)) {
                    self.forget();
                }
                Err(error)
            }
        }
    }

    fn forget(&self) -> Option<Arc<Session>> {
        // Whoever holds the lock is opening another connection already.
        self.session
            .try_lock()
            .ok()
            .and_then(|mut slot| slot.take())
    }

    /// The open connection, or a new one if that is dead.
    async fn session(&self) -> Result<Arc<Session>, StoreError> {
        // A connection that was closed while the function was frozen is noticed by its own task: the
        // first of these lets the runtime see that something happened, the second lets the task run.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref() {
            if self.is_alive(session).await {
                return Ok(Arc::clone(session));
            }
            session.carrier.abort();
        }
        *slot = None;
        let mut config = self.config.clone();
        if let Some(iam) = &self.iam {
            let password = Box::pin(iam.password()).await;
            config.password(
                password.map_err(|error| StoreError::Unavailable(POSTGRES, error.into()))?,
            );
        }
        let session = match &self.tls {
            Some(tls) => Box::pin(open(&config, tls.clone())).await,
            None => Box::pin(open(&config, NoTls)).await,
        }
        .map_err(|error| match StoreError::from(error) {
            StoreError::Fault(store, cause)
            | StoreError::Refused(store, cause)
            | StoreError::Unavailable(store, cause) => StoreError::Unavailable(store, cause),
        })?;
        Ok(Arc::clone(slot.insert(Arc::new(session))))
    }

    /// A connection that was idle for long may have been dropped on the way without either end being
    /// told. It is asked before a statement is trusted to it, of which nobody would know whether it
    /// arrived.
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

async fn open<T>(config: &tokio_postgres::Config, tls: T) -> Result<Session, tokio_postgres::Error>
where
    T: tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    Ok(Session {
        client,
        // How the connection ended shows in the operations that needed it.
        carrier: tokio::spawn(async { drop(connection.await) }),
        last_use: LastUse::now(),
    })
}

fn is_from_a_standby(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            let is_broken = error.is_closed()
                || std::error::Error::source(&error)
                    .is_some_and(<dyn std::error::Error + 'static>::is::<std::io::Error>);
            return if is_broken {
                Self::Unavailable(POSTGRES, error.into())
            } else {
                Self::Fault(POSTGRES, error.into())
            };
        };
        // An answer's detail can quote a row, hence code and message only.
        let cause = format!("{} ({})", answer.message(), answer.code().code()).into();
        match &answer.code().code()[..2] {
            // Classes: connection, authorization, transaction state (read-only standby), rollback,
            // resources, operator intervention, system error.
            "08" | "25" | "28" | "40" | "53" | "57" | "58" => Self::Unavailable(POSTGRES, cause),
            _ => Self::Fault(POSTGRES, cause),
        }
    }
}

/// `DATABASE_URL`, `postgres://user:password@host/name`.
///
/// Its `sslmode` may be `disable`, `require`, `verify-ca` or `verify-full`; the last three mean the
/// same: chain and name of the server are verified. Without it a loopback host or a Unix socket is
/// spoken to in plain text and every other host verified. Modes that fall back to plain text are
/// refused.
pub struct DatabaseUrl {
    /// The URL without `sslmode`.
    pub text: String,
    pub verified_tls: bool,
    config: tokio_postgres::Config,
}

impl DatabaseUrl {
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "DATABASE_URL";
        let malformed =
            || config::Error::invalid(NAME, "must be postgres://user:password@host/name");
        let url = env.required(NAME)?;
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(malformed());
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (modes, others): (Vec<_>, Vec<_>) = query
            .split('&')
            .filter(|setting| !setting.is_empty())
            .partition(|setting| setting.starts_with("sslmode="));
        let text = if others.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", others.join("&"))
        };
        let config: tokio_postgres::Config = text.parse().map_err(|_| malformed())?;
        let verified_tls = match modes.last().map(|mode| &mode["sslmode=".len()..]) {
            None => {
                !(config.get_hosts().iter().all(is_local)
                    && config.get_hostaddrs().iter().all(IpAddr::is_loopback))
            }
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(_) => {
                return Err(config::Error::invalid(
                    NAME,
                    "must have disable, require, verify-ca or verify-full as its sslmode",
                ));
            }
        };
        Ok(Self {
            text,
            verified_tls,
            config,
        })
    }

    /// Reads `DATABASE_IAM`: with `true`, the user of the URL signs in by IAM instead of a password.
    /// What stands in for the password is worth one too, so it goes to no other host in plain text.
    pub fn iam_login(&self, env: &Env) -> Result<Option<IamLogin>, config::Error> {
        const NAME: &str = "DATABASE_IAM";
        if !env.flag(NAME, false)? {
            return Ok(None);
        }
        let [Host::Tcp(host)] = self.config.get_hosts() else {
            return Err(config::Error::invalid(
                NAME,
                "needs a DATABASE_URL with one host",
            ));
        };
        if !self.verified_tls && !self.config.get_hosts().iter().all(is_local) {
            return Err(config::Error::invalid(NAME, "needs TLS"));
        }
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let user = self
            .config
            .get_user()
            .ok_or_else(|| config::Error::invalid(NAME, "needs a DATABASE_URL with a user"))?;
        IamLogin::to_postgres(env, host, port, user).map(Some)
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => is_loopback(name),
    }
}

/// Verifies servers against the system's certificates, or those of `SSL_CERT_FILE`.
fn tls_config() -> Result<ClientConfig, config::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(config::Error::invalid(
            "SSL_CERT_FILE",
            "holds no certificate, and neither does the system",
        ));
    }
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| config::Error::invalid("DATABASE_URL", error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<DatabaseUrl, config::Error> {
        DatabaseUrl::from_env(&Env::from([("DATABASE_URL", url)]))
    }

    #[test]
    fn loopback_is_plain_and_every_other_host_verified() {
        for (url, verified) in [
            ("postgres://otp@localhost/otp", false),
            ("postgres://otp@127.0.0.1:5433/otp", false),
            ("postgres://otp@[::1]/otp", false),
            ("postgres://otp@%2Fvar%2Frun%2Fpostgresql/otp", false),
            ("postgresql://otp:secret@db.example.com/otp", true),
            ("postgres://otp@10.0.0.1/otp", true),
            ("postgres://otp@localhost,db.example.com/otp", true),
            ("postgres://otp@localhost/otp?hostaddr=10.0.0.1", true),
            ("postgres://otp@localhost/otp?sslmode=verify-full", true),
            ("postgres://otp@localhost/otp?sslmode=require", true),
            ("postgres://otp@db.example.com/otp?sslmode=disable", false),
        ] {
            assert_eq!(parse(url).unwrap().verified_tls, verified, "{url}");
        }
    }

    #[test]
    fn other_settings_of_the_url_survive() {
        let url = parse("postgres://otp@h/otp?application_name=a&sslmode=disable&keepalives=0");
        assert_eq!(
            url.unwrap().text,
            "postgres://otp@h/otp?application_name=a&keepalives=0"
        );
    }

    #[test]
    fn a_mode_that_falls_back_to_plain_text_is_refused() {
        for mode in ["prefer", "allow", "", "on"] {
            assert!(parse(&format!("postgres://otp@h/otp?sslmode={mode}")).is_err());
        }
    }

    #[test]
    fn a_bad_url_is_named_and_not_echoed() {
        for url in [
            "mysql://otp:hunter2@h/otp",
            "host=h password=hunter2",
            "postgres://otp:hunter2@h:x",
        ] {
            let error = parse(url).err().unwrap().to_string();
            assert!(
                error.starts_with("DATABASE_URL ") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
