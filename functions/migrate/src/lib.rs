//! The database: applies and reverts the files of `migrations/`, which are compiled in, and deletes
//! old rows. Beside it, the check of the account's SMS set-up, which needs no database.
//!
//! Concurrent runs wait for each other through an advisory lock.

mod files;
mod purge;
pub mod sms;

use std::{collections::HashSet, str::FromStr, time::Duration};

use files::MIGRATIONS;
pub use purge::Purged;
use serde::{Deserialize, Serialize};
use shared::{
    config::{self, Env},
    iam::{IamError, IamLogin},
    store::DatabaseUrl,
};
use sqlx::{
    Connection, PgConnection,
    migrate::{Migrate as _, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::timeout;

/// The longest that connecting takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A command about the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Apply all pending migrations.
    Up,
    /// Revert the newest applied migration.
    Down,
    /// Change nothing.
    Status,
    /// Delete used challenges and ended sessions that are more than a day past their time.
    Purge,
}

/// The event of the Lambda function. If it cannot be read, the error quotes nothing of it, because
/// it may hold a phone number.
#[derive(Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "the command must be up, down, status, purge or sms, which alone takes a phone_number"
)]
pub enum Event {
    /// `{"command": "up"}`
    Database { command: Command },
    /// `{"command": "sms", "phone_number": "+14155552671"}`, with or without the number.
    Sms {
        command: sms::Word,
        phone_number: Option<String>,
    },
}

/// The result of a command.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Report {
    Schema(Schema),
    Purged(Purged),
    Sms(Box<sms::Report>),
}

/// All migrations in order, after the command.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Schema {
    pub migrations: Vec<Migration>,
}

/// The state of one migration.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Migration {
    pub version: i64,
    pub description: String,
    pub applied: bool,
}

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database does not respond")]
    TimedOut,
    #[error("cannot connect to the database")]
    Connect(#[source] sqlx::Error),
    #[error("cannot log in to the database")]
    LogIn(#[from] IamError),
    #[error("migration failed")]
    Migrate(#[from] MigrateError),
    #[error("purge failed")]
    Purge(#[source] sqlx::Error),
    #[error("the SMS set-up cannot be checked")]
    Sms(#[from] sms::Error),
}

/// Not a command.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the command must be up, down, status, purge or sms")]
pub struct UnknownCommand;

impl FromStr for Command {
    type Err = UnknownCommand;

    fn from_str(word: &str) -> Result<Self, UnknownCommand> {
        match word {
            "up" => Ok(Self::Up),
            "down" => Ok(Self::Down),
            "status" => Ok(Self::Status),
            "purge" => Ok(Self::Purge),
            _ => Err(UnknownCommand),
        }
    }
}

/// The database whose schema is migrated.
pub struct Database {
    options: PgConnectOptions,
    iam: Option<IamLogin>,
}

impl Database {
    /// Reads `DATABASE_URL`, see [`DatabaseUrl`], `DATABASE_IAM`, and `SSL_CERT_FILE`: the
    /// authorities to verify against beside the public ones.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let url = DatabaseUrl::from_env(env)?;
        let options = PgConnectOptions::from_str(&url.text).map_err(|_| {
            config::Error::invalid("DATABASE_URL", "has a setting that is not known")
        })?;
        let options = if url.verified_tls {
            let options = options.ssl_mode(PgSslMode::VerifyFull);
            match url.own_authorities(env)? {
                Some(pem) => options.ssl_root_cert_from_pem(pem),
                None => options,
            }
        } else {
            options.ssl_mode(PgSslMode::Disable)
        };
        Ok(Self {
            options,
            iam: url.iam_login(env)?,
        })
    }

    /// Runs one command.
    pub async fn run(&self, command: Command) -> Result<Report, Error> {
        let mut options = self.options.clone();
        if let Some(iam) = &self.iam {
            options = options.password(&iam.password().await?);
        }
        let connecting = timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await;
        let mut connection = connecting
            .map_err(|_| Error::TimedOut)?
            .map_err(Error::Connect)?;
        let report = match command {
            Command::Up => {
                MIGRATIONS.run(&mut connection).await?;
                status(&mut connection).await
            }
            Command::Down => {
                revert_newest(&mut connection).await?;
                status(&mut connection).await
            }
            Command::Status => status(&mut connection).await,
            Command::Purge => {
                let purged = purge::purge(&mut connection).await;
                purged.map(Report::Purged).map_err(Error::Purge)
            }
        }?;
        // The work is done and committed; a connection that breaks now harms nothing.
        let _ended = connection.close().await;
        Ok(report)
    }
}

/// Takes the lock before it looks for the newest migration, so that two concurrent calls revert
/// two.
async fn revert_newest(connection: &mut PgConnection) -> Result<(), MigrateError> {
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
    Ok(Report::Schema(Schema { migrations }))
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
