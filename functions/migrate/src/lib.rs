//! The database schema: applies the files of `migrations/`, takes them back, tells which are applied.
//!
//! The files are compiled in. Two runs at once wait for each other through an advisory lock.

use std::{collections::HashSet, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use shared::{
    aws::{IamError, IamLogin},
    config::{self, Env},
    connect::DatabaseUrl,
};
use sqlx::{
    Connection, PgConnection,
    migrate::{Migrate as _, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::timeout;

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(10);

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Apply whatever is not applied yet.
    Up,
    /// Take the newest applied migration back.
    Down,
    /// Change nothing.
    Status,
}

/// How the Lambda function is invoked: `{"command": "up"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub command: Command,
}

/// Every known migration, in order, as it stands after the command.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub migrations: Vec<Migration>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Migration {
    pub version: i64,
    pub description: String,
    pub applied: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database does not answer")]
    OutOfReach,
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    #[error("cannot sign in to the database")]
    SignIn(#[from] IamError),
    #[error("migration failed")]
    Migrate(#[from] MigrateError),
}

/// The word is not a command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the command must be up, down or status")]
pub struct UnknownCommand;

impl FromStr for Command {
    type Err = UnknownCommand;

    fn from_str(word: &str) -> Result<Self, UnknownCommand> {
        match word {
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            "status" => Ok(Self::Status),
            _ => Err(UnknownCommand),
        }
    }
}

/// Where the schema is.
pub struct Database {
    options: PgConnectOptions,
    iam: Option<IamLogin>,
}

impl Database {
    /// Reads `DATABASE_URL` and `DATABASE_IAM`; TLS as [`DatabaseUrl`] says, against the certificates
    /// of `SSL_CERT_FILE` if that is set.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let url = DatabaseUrl::from_env(env)?;
        let options = PgConnectOptions::from_str(&url.text).map_err(|_| {
            config::Error::invalid("DATABASE_URL", "has a setting that is not known")
        })?;
        let options = match (url.verified_tls, env.text("SSL_CERT_FILE")) {
            (false, _) => options.ssl_mode(PgSslMode::Disable),
            (true, None) => options.ssl_mode(PgSslMode::VerifyFull),
            (true, Some(file)) => options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(file),
        };
        Ok(Self {
            options,
            iam: url.iam_login(env)?,
        })
    }

    /// Carries out one command.
    pub async fn run(&self, command: Command) -> Result<Report, Error> {
        let mut options = self.options.clone();
        if let Some(iam) = &self.iam {
            options = options.password(&iam.password().await?);
        }
        let connecting = timeout(CONNECTING, PgConnection::connect_with(&options)).await;
        let mut connection = connecting
            .map_err(|_| Error::OutOfReach)?
            .map_err(Error::Connect)?;
        let report = match command {
            Command::Up => {
                MIGRATIONS.run(&mut connection).await?;
                status(&mut connection).await
            }
            Command::Down => {
                undo_newest(&mut connection).await?;
                status(&mut connection).await
            }
            Command::Status => status(&mut connection).await,
        }?;
        // The work is done and committed; a connection that breaks now harms nothing.
        let _ended = connection.close().await;
        Ok(report)
    }
}

/// The lock is taken before it is decided which migration is the newest, so that two at once take
/// back two.
async fn undo_newest(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let mut unlocked = Migrator::with_migrations(MIGRATIONS.iter().cloned().collect());
    unlocked.set_locking(false);
    connection.lock().await?;
    let applied = applied(connection).await?;
    let newest = applied.iter().max().copied().unwrap_or(0);
    let target = applied.iter().filter(|&&version| version < newest).max();
    unlocked
        .undo(&mut *connection, target.copied().unwrap_or(0))
        .await?;
    connection.unlock().await
}

async fn status(connection: &mut PgConnection) -> Result<Report, Error> {
    let applied = applied(connection).await?;
    let migrations = MIGRATIONS
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration())
        .map(|migration| Migration {
            version: migration.version,
            description: migration.description.to_string(),
            applied: applied.contains(&migration.version),
        })
        .collect();
    Ok(Report { migrations })
}

async fn applied(connection: &mut PgConnection) -> Result<HashSet<i64>, MigrateError> {
    let table = &MIGRATIONS.table_name;
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(table.as_ref())
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(HashSet::new());
    }
    let applied = connection.list_applied_migrations(table).await?;
    Ok(applied.iter().map(|migration| migration.version).collect())
}
