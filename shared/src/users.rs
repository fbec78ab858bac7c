//! Registered users in Postgres.
//!
//! Every operation is one statement and one round trip; only [`Users::change_phone`] needs a second.
//! None uses a named prepared statement or a transaction block, so all work through RDS Proxy and
//! `PgBouncer` in transaction mode. "Not found" is a value; an error is a fault of the store.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Row, types::Type};

use crate::{
    challenge::ChallengeId,
    name::Name,
    phone::PhoneNumber,
    store::{Postgres, StoreError},
};

const IS_REGISTERED: &str = "SELECT EXISTS (SELECT FROM users WHERE phone_number = $1)";

/// Reads and changes users.
pub struct Users {
    postgres: Arc<Postgres>,
}

/// A row of `users`, as clients see it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct User {
    pub id: i64,
    /// RFC 3339 in UTC, to the second.
    pub created_at: String,
    pub name: String,
    /// E.164.
    pub phone_number: String,
    /// Starts at 1.
    pub version: i32,
}

/// The outcome of a change of name.
pub enum Rename {
    /// The user as it is now.
    Renamed(User),
    /// The user has another version by now. Nothing changed.
    Conflict,
    /// The session is over or belongs to another user. Nothing changed.
    SessionOver,
}

/// The user of a session who asks for a new number.
pub struct Mover {
    /// The number that they have now, E.164.
    pub phone_number: String,
    /// A user has the new number.
    pub is_taken: bool,
}

/// The outcome of a change of number.
#[derive(Debug, PartialEq, Eq)]
pub enum ChangePhone {
    /// The user as it is now. Their other sessions are over.
    Changed(User),
    /// The challenge was used before. Nothing changed.
    ChallengeUsed,
    /// A user has the number. No user changed; the challenge may be used.
    PhoneTaken,
    /// The session is over or belongs to another user. Nothing changed.
    SessionOver,
}

impl Users {
    /// Users of this database.
    pub fn new(postgres: Arc<Postgres>) -> Self {
        Self { postgres }
    }

    /// Connects ahead of the first [`Users::is_registered`].
    pub async fn connect(&self) {
        let nobody = "";
        self.postgres
            .connect(IS_REGISTERED, &[(&nobody, Type::TEXT)])
            .await;
    }

    /// Returns `true` if a user has the number.
    pub async fn is_registered(
        &self,
        phone: &PhoneNumber,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let row = self
            .postgres
            .read_one(IS_REGISTERED, &[(&phone.as_e164(), Type::TEXT)], deadline)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The user of a session; `None` if the session is over or belongs to another user. A deleted
    /// user has no session.
    pub async fn of_session(
        &self,
        user_id: i64,
        session_id: &str,
        deadline: Instant,
    ) -> Result<Option<User>, StoreError> {
        let row = self
            .postgres
            .read_one(
                include_str!("users/of_session.sql"),
                &[(&user_id, Type::INT8), (&session_id, Type::TEXT)],
                deadline,
            )
            .await?;
        if row.try_get::<_, Option<i64>>("id")?.is_none() {
            return Ok(None);
        }
        Ok(Some(User::from_row(&row)?))
    }

    /// Changes the name of a session's user and increments the version, if that is still `version`.
    pub async fn rename(
        &self,
        user_id: i64,
        session_id: &str,
        name: &Name,
        version: i32,
        deadline: Instant,
    ) -> Result<Rename, StoreError> {
        let row = self
            .postgres
            .write_one(
                include_str!("users/rename.sql"),
                &[
                    (&user_id, Type::INT8),
                    (&session_id, Type::TEXT),
                    (&name.as_str(), Type::TEXT),
                    (&version, Type::INT4),
                ],
                deadline,
            )
            .await?;
        if !row.try_get("is_alive")? {
            return Ok(Rename::SessionOver);
        }
        if row.try_get::<_, Option<i64>>("id")?.is_none() {
            return Ok(Rename::Conflict);
        }
        Ok(Rename::Renamed(User::from_row(&row)?))
    }

    /// The current number of a session's user, and if the new one is taken; `None` if the session is
    /// over or belongs to another user.
    pub async fn mover(
        &self,
        user_id: i64,
        session_id: &str,
        phone: &PhoneNumber,
        deadline: Instant,
    ) -> Result<Option<Mover>, StoreError> {
        let row = self
            .postgres
            .read_one(
                "
                SELECT EXISTS (SELECT FROM users WHERE phone_number = $3) AS is_taken,
                       (SELECT phone_number FROM sessions JOIN users ON users.id = user_id
                        WHERE sessions.id = $2 AND user_id = $1
                              AND revoked_at IS NULL AND expires_at > now()) AS phone_number
                ",
                &[
                    (&user_id, Type::INT8),
                    (&session_id, Type::TEXT),
                    (&phone.as_e164(), Type::TEXT),
                ],
                deadline,
            )
            .await?;
        let Some(phone_number) = row.try_get("phone_number")? else {
            return Ok(None);
        };
        Ok(Some(Mover {
            phone_number,
            is_taken: row.try_get("is_taken")?,
        }))
    }

    /// Uses a challenge and gives its number to the user of a session, whose other sessions end.
    ///
    /// Of all calls for one challenge, however many run at once, at most one succeeds.
    pub async fn change_phone(
        &self,
        user_id: i64,
        session_id: &str,
        challenge: &ChallengeId,
        phone: &PhoneNumber,
        deadline: Instant,
    ) -> Result<ChangePhone, StoreError> {
        let changed = self
            .postgres
            .write_one(
                include_str!("users/change_phone.sql"),
                &[
                    (&user_id, Type::INT8),
                    (&session_id, Type::TEXT),
                    (&challenge.as_str(), Type::TEXT),
                    (&phone.as_e164(), Type::TEXT),
                ],
                deadline,
            )
            .await;
        let row = match changed {
            Err(StoreError::Conflict(..)) => return Ok(ChangePhone::PhoneTaken),
            changed => changed?,
        };
        if !row.try_get("is_alive")? {
            return Ok(ChangePhone::SessionOver);
        }
        if !row.try_get("first_use")? {
            return Ok(ChangePhone::ChallengeUsed);
        }
        if row.try_get::<_, Option<i64>>("id")?.is_none() {
            return Ok(ChangePhone::PhoneTaken);
        }
        // A login with the old number may have committed while the statement above waited for its
        // lock on the user: it is not in that statement's snapshot. From now on there is none.
        self.postgres
            .write_one(
                "
                WITH ended AS (
                    UPDATE sessions SET revoked_at = now()
                    WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL
                    RETURNING id
                )
                SELECT count(*) FROM ended
                ",
                &[(&user_id, Type::INT8), (&session_id, Type::TEXT)],
                deadline,
            )
            .await?;
        Ok(ChangePhone::Changed(User::from_row(&row)?))
    }

    /// Deletes a session's user, and all their sessions with them. Returns `false`, and deletes
    /// nothing, if the session is over or belongs to another user.
    pub async fn delete(
        &self,
        user_id: i64,
        session_id: &str,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let row = self
            .postgres
            .write_one(
                "
                WITH alive AS (
                    SELECT user_id FROM sessions
                    WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > now()
                ), deleted AS (
                    DELETE FROM users WHERE id = (SELECT user_id FROM alive) RETURNING id
                )
                SELECT EXISTS (SELECT FROM deleted)
                ",
                &[(&user_id, Type::INT8), (&session_id, Type::TEXT)],
                deadline,
            )
            .await?;
        Ok(row.try_get(0)?)
    }
}

impl User {
    /// Reads the columns that are named like the fields.
    pub(crate) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            name: row.try_get("name")?,
            phone_number: row.try_get("phone_number")?,
            version: row.try_get("version")?,
        })
    }
}
