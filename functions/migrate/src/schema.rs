//! The database and its schema: the files of `migrations/` are applied and reverted here.
//!
//! Concurrent runs wait for each other through an advisory lock.

use std::{collections::HashSet, str::FromStr, time::Duration};

use serde::Serialize;
use shared::{
    config::{self, Env},
    iam::IamLogin,
    store::DatabaseUrl,
};
use sqlx::{
    Connection, PgConnection,
    migrate::{Migrate as _, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::time::timeout;

use crate::{Error, files::MIGRATIONS, secrets};

/// The longest that connecting takes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The database whose schema is migrated.
pub struct Database {
    options: PgConnectOptions,
    iam: Option<IamLogin>,
    /// The secret that holds user and password.
    admin_secret: Option<String>,
}

/// All migrations in order.
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

impl Database {
    /// Reads `DATABASE_URL`, see [`DatabaseUrl`], `DATABASE_IAM` or `DATABASE_ADMIN_SECRET_ARN`,
    /// and `SSL_CERT_FILE`: the authorities to verify against beside the public ones.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const ADMIN: &str = "DATABASE_ADMIN_SECRET_ARN";
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
        let this = Self {
            options,
            iam: url.iam_login(env)?,
            admin_secret: env.text(ADMIN).map(str::to_owned),
        };
        if this.iam.is_some() && this.admin_secret.is_some() {
            return Err(config::Error::invalid(
                ADMIN,
                "and DATABASE_IAM=true exclude each other",
            ));
        }
        Ok(this)
    }

    /// Opens a connection. The admin secret is read each time, because it may rotate.
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        let mut options = self.options.clone();
        if let Some(iam) = &self.iam {
            options = options.password(&Box::pin(iam.password()).await?);
        }
        if let Some(secret) = &self.admin_secret {
            let login = Box::pin(secrets::login(secret)).await;
            let login = login.map_err(Error::AdminSecret)?;
            options = options.username(&login.username).password(&login.password);
        }
        timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options))
            .await
            .map_err(|_| Error::TimedOut)?
            .map_err(Error::Connect)
    }
}

/// Applies all pending migrations.
pub async fn apply(connection: &mut PgConnection) -> Result<(), MigrateError> {
    MIGRATIONS.run(connection).await
}

/// The same on a database that may have migrations that this version does not know: a deployment
/// that is rolled back runs older code on a newer schema.
pub async fn apply_known(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let mut migrator = copy();
    migrator.set_ignore_missing(true);
    migrator.run(connection).await
}

/// Reverts the newest migration. It takes the lock before it looks for that, so that two concurrent
/// calls revert two.
pub async fn revert_newest(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let mut unlocked = copy();
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

/// Tells which migrations are applied.
pub async fn status(connection: &mut PgConnection) -> Result<Schema, MigrateError> {
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
    Ok(Schema { migrations })
}

fn copy() -> Migrator {
    Migrator::with_migrations(MIGRATIONS.iter().cloned().collect())
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
