//! Deleting old rows, in batches of their own transactions.
//!
//! A batch is a stretch of the primary key, so each table is read once and needs no further index.
//! Rows that sign-ins and refreshes still use are not locked.

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Rows that a batch reads.
const BATCH: i64 = 5000;

/// The number of rows that were deleted.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    pub used_challenges: i64,
    pub sessions: i64,
}

/// Deletes all rows that are more than a day past their time. A purge that is stopped keeps what it
/// has deleted so far; the next one goes on.
pub async fn purge(connection: &mut PgConnection) -> Result<Purged, sqlx::Error> {
    Ok(Purged {
        // A code lives for ten minutes at most.
        used_challenges: delete(
            connection,
            "used_challenges",
            "challenge_id",
            "used_at < now() - interval '1 day'",
        )
        .await?,
        sessions: delete(
            connection,
            "sessions",
            "id",
            "expires_at < now() - interval '1 day' OR revoked_at < now() - interval '1 day'",
        )
        .await?,
    })
}

async fn delete(
    connection: &mut PgConnection,
    table: &'static str,
    key: &'static str,
    is_old: &'static str,
) -> Result<i64, sqlx::Error> {
    let statement = format!(
        "WITH batch AS (
             SELECT {key} FROM {table} WHERE {key} > $1 ORDER BY {key} LIMIT $2
         ), deleted AS (
             DELETE FROM {table} USING batch WHERE {table}.{key} = batch.{key} AND ({is_old})
             RETURNING 1
         )
         SELECT (SELECT max({key}) FROM batch) AS last, (SELECT count(*) FROM deleted) AS deleted"
    );
    let mut total = 0;
    let mut last = String::new();
    loop {
        // The names and the condition are constants above.
        let batch = sqlx::query(AssertSqlSafe(statement.clone()))
            .bind(&last)
            .bind(BATCH)
            .fetch_one(&mut *connection)
            .await?;
        total += batch.try_get::<i64, _>("deleted")?;
        match batch.try_get("last")? {
            Some(newest) => last = newest,
            None => return Ok(total),
        }
    }
}
