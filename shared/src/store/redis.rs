//! The one connection to Redis.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    RedisError, ScriptInvocation, ServerErrorKind, TlsCertificates, aio::MultiplexedConnection,
    cluster::ClusterClient, cluster_async::ClusterConnection,
};
use rustls::crypto::aws_lc_rs;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

use super::{LastUse, SMALL_SHARE, StoreError, is_loopback, tls::CertFile};
use crate::{
    config::{self, Env},
    iam::IamLogin,
    telemetry,
};

const REDIS: &str = "Redis";

/// Longer than any of our deadlines, for a client that needs some timeout.
const UNBOUNDED: Duration = Duration::from_mins(10);

/// The one connection to Redis, or to a cluster.
pub struct Redis {
    server: ConnectionInfo,
    /// The authorities to verify against instead of the public ones.
    authorities: Option<TlsCertificates>,
    is_cluster: bool,
    iam: Option<IamLogin>,
    connection: Mutex<Option<RedisConnection>>,
    last_use: LastUse,
    timeout: Duration,
}

#[derive(Clone)]
enum RedisConnection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Redis {
    /// Reads `REDIS_URL`: `redis://…`, or `rediss://…` for TLS, which verifies chain and name;
    /// for that `SSL_CERT_FILE`: the authorities to verify against instead of the public ones;
    /// `REDIS_CLUSTER`: `true` if the URL is a node or the endpoint of a cluster; and `REDIS_IAM`:
    /// `true` if the URL's user logs in by IAM instead of a password.
    pub fn from_env(env: &Env, timeout: Duration) -> Result<Self, config::Error> {
        const NAME: &str = "REDIS_URL";
        let url = env.required(NAME)?;
        let mut authorities = None;
        if url.starts_with("rediss://") {
            // The redis crate uses rustls's process-wide provider.
            let _already_installed = aws_lc_rs::default_provider().install_default();
            authorities = CertFile::from_env(env)?.map(|file| TlsCertificates {
                client_tls: None,
                root_cert: Some(file.pem),
            });
        }
        let server = url
            .into_connection_info()
            .map_err(|_| config::Error::invalid(NAME, "must be redis://… or rediss://…"))?;
        let tcp = server.tcp_settings().clone().set_nodelay(true);
        Ok(Self {
            is_cluster: env.flag("REDIS_CLUSTER", false)?,
            iam: iam_login(env, &server)?,
            server: server.set_tcp_settings(tcp),
            authorities,
            connection: Mutex::new(None),
            last_use: LastUse::now(),
            timeout,
        })
    }

    /// Connects ahead of the first operation. A failure is logged; the first operation retries.
    pub async fn connect(&self) {
        let opened = timeout(self.timeout, self.connection()).await;
        if let Err(error) = opened
            .map_err(|_| StoreError::timed_out(REDIS))
            .and_then(|connection| Ok(connection?))
        {
            tracing::warn!(cause = telemetry::chain(&error), "not connected at start");
        }
    }

    /// Runs a script, and retries once if the connection turns out to be dead: all our scripts are
    /// safe to repeat, see `challenge`.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        deadline: Instant,
    ) -> Result<T, StoreError> {
        let until = deadline.min(Instant::now() + self.timeout);
        match self.run_until(self.first_try(until), script).await {
            Err(Failed::Dead(_)) if Instant::now() < until => {
                let ran = self.run_until(until, script).await;
                ran.map_err(|failed| match failed.into() {
                    // This reply is of the second try; the first may have run.
                    StoreError::Refused(store, cause) => StoreError::Unavailable(store, cause),
                    error => error,
                })
            }
            ran => ran.map_err(StoreError::from),
        }
    }

    /// The deadline of the first try. A network device may have dropped a connection that was idle
    /// for long; then the first try must leave time for a second one.
    fn first_try(&self, until: Instant) -> Instant {
        if self.last_use.is_long_ago(self.timeout) {
            until.min(Instant::now() + self.timeout / SMALL_SHARE)
        } else {
            until
        }
    }

    async fn run_until<T: FromRedisValue>(
        &self,
        until: Instant,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Failed> {
        if until <= Instant::now() {
            return Err(Failed::Dead(StoreError::timed_out(REDIS)));
        }
        let ran = timeout_at(until, self.run_once(script))
            .await
            .unwrap_or_else(|_| Err(Failed::Dead(StoreError::timed_out(REDIS))));
        match ran {
            Ok(_) => self.last_use.is_now(),
            // Dropping the connection ends the task that waits for the late reply.
            Err(Failed::Dead(_)) => self.forget(),
            Err(Failed::Refused(_)) => {}
        }
        ran
    }

    async fn run_once<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Failed> {
        let ran = match self.connection().await.map_err(not_connected)? {
            RedisConnection::Server(mut server) => script.invoke_async(&mut server).await,
            RedisConnection::Cluster(mut cluster) => script.invoke_async(&mut cluster).await,
        };
        ran.map_err(|error| {
            if needs_another_connection(&error) {
                Failed::Dead(StoreError::Unavailable(REDIS, error.into()))
            } else {
                Failed::Refused(match error.into() {
                    // A cluster's client itself repeats a call that got no reply.
                    StoreError::Refused(store, cause) if self.is_cluster => {
                        StoreError::Unavailable(store, cause)
                    }
                    error => error,
                })
            }
        })
    }

    async fn connection(&self) -> Result<RedisConnection, RedisError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok(connection.clone());
        }
        let connection = Box::pin(self.open()).await?;
        self.last_use.is_now();
        Ok(slot.insert(connection).clone())
    }

    async fn open(&self) -> Result<RedisConnection, RedisError> {
        let mut server = self.server.clone();
        if let Some(iam) = &self.iam {
            let password = iam.password().await.map_err(|error| {
                let kind = redis::ErrorKind::AuthenticationFailed;
                RedisError::from((kind, "no password", telemetry::chain(&error)))
            })?;
            let with_password = server.redis_settings().clone().set_password(password);
            server = server.set_redis_settings(with_password);
        }
        // Our own deadlines bound connecting and replies.
        if self.is_cluster {
            let mut cluster = ClusterClient::builder([server.clone()])
                .tcp_settings(server.tcp_settings().clone())
                .connection_timeout(UNBOUNDED)
                .response_timeout(UNBOUNDED);
            if let Some(authorities) = &self.authorities {
                cluster = cluster.certs(authorities.clone());
            }
            Ok(RedisConnection::Cluster(
                cluster.build()?.get_async_connection().await?,
            ))
        } else {
            let unbounded = AsyncConnectionConfig::new()
                .set_connection_timeout(None)
                .set_response_timeout(None);
            let opening = match &self.authorities {
                Some(authorities) => redis::Client::build_with_tls(server, authorities.clone())?,
                None => redis::Client::open(server)?,
            };
            Ok(RedisConnection::Server(
                opening
                    .get_multiplexed_async_connection_with_config(&unbounded)
                    .await?,
            ))
        }
    }

    fn forget(&self) {
        // Whoever holds the lock is already opening another connection.
        if let Ok(mut slot) = self.connection.try_lock() {
            *slot = None;
        }
    }
}

/// A script that failed, or whose reply was lost.
enum Failed {
    /// The connection is dead, or its server has become a replica: another connection may work.
    Dead(StoreError),
    /// The server, or a proxy in front of it, refused.
    Refused(StoreError),
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Dead(error) | Failed::Refused(error) => error,
        }
    }
}

/// Any refusal of a new connection is an outage, for example too many clients.
fn not_connected(error: RedisError) -> Failed {
    Failed::Refused(StoreError::Refused(REDIS, error.into()))
}

/// An IAM token is as sensitive as a password: unencrypted only to this machine.
fn iam_login(env: &Env, server: &ConnectionInfo) -> Result<Option<IamLogin>, config::Error> {
    const NAME: &str = "REDIS_IAM";
    if !env.flag(NAME, false)? {
        return Ok(None);
    }
    let host = match server.addr() {
        ConnectionAddr::TcpTls { host, .. } => host,
        ConnectionAddr::Tcp(host, _) if is_loopback(host) => host,
        _ => {
            return Err(config::Error::invalid(
                NAME,
                "needs a REDIS_URL of rediss://…",
            ));
        }
    };
    let user = server
        .redis_settings()
        .username()
        .ok_or_else(|| config::Error::invalid(NAME, "needs a REDIS_URL with a user"))?;
    IamLogin::to_redis(env, host, user).map(Some)
}

/// Tells if the connection is dead, or its server has become a replica.
fn needs_another_connection(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            redis::ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            redis::ErrorKind::Server(
                ServerErrorKind::ResponseError
                | ServerErrorKind::CrossSlot
                | ServerErrorKind::NoPerm,
            )
            | redis::ErrorKind::UnexpectedReturnType => Self::Fault(REDIS, error.into()),
            _ => Self::Refused(REDIS, error.into()),
        }
    }
}

impl StoreError {
    /// A script's reply that its caller does not expect.
    pub(crate) fn unexpected_reply() -> Self {
        Self::Fault(REDIS, "unexpected reply of a script".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_named_and_not_echoed() {
        let env = Env::from([("REDIS_URL", "http://:hunter2@h")]);
        let error = Redis::from_env(&env, Duration::ZERO)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with("REDIS_URL ") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
