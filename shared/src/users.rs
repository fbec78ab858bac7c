//! Registered users, and the challenges that were used, in Postgres.
//!
//! Every operation is one statement and one round trip, sent without a named prepared statement or
//! a transaction block, so that it works through RDS Proxy and PgBouncer in transaction mode.
//! "Not there" is a value; an error is a fault of the store.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::{Row, types::Type};

use crate::{
    challenge::{Matched, Purpose},
    connect::{Postgres, StoreError},
    phone::PhoneNumber,
    sessions::{Lifetime, RefreshToken},
};

/// Reads and writes users.
pub struct Users {
    postgres: Arc<Postgres>,
}

/// A person's name: 1 to 100 characters, none of which is a control, a line separator or a
/// bidirectional override. White space around it is dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("no name given")]
    Empty,
    #[error("not a name")]
    Malformed,
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
    pub version: i32,
}

/// What a right code led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// Somebody new.
    Registered(SignedIn),
    /// The user who has the number.
    LoggedIn(SignedIn),
    /// The challenge had been used before; nothing changed.
    ChallengeUsed,
    /// Somebody registered the number meanwhile. The challenge is used now.
    PhoneTaken,
    /// A login, and nobody has the number. The challenge is used now.
    UserGone,
}

/// A user whose session was just opened.
#[derive(Debug, PartialEq, Eq)]
pub struct SignedIn {
    pub user: User,
    /// By Postgres's clock, in seconds since 1970.
    pub auth_time: i64,
}

impl Name {
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let name = text.trim();
        if text.chars().any(is_unfit_for_names) || name.chars().count() > 100 {
            return Err(InvalidName::Malformed);
        }
        if name.is_empty() {
            return Err(InvalidName::Empty);
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Users {
    pub fn new(postgres: impl Into<Arc<Postgres>>) -> Self {
        Self {
            postgres: postgres.into(),
        }
    }

    /// Opens the connection to Postgres ahead of the first request.
    pub async fn connect(&self) {
        self.postgres.connect().await;
    }

    /// Ends the session with Postgres.
    pub async fn close(&self) {
        self.postgres.close().await;
    }

    /// Whether the number belongs to a user.
    pub async fn is_registered(
        &self,
        phone: &PhoneNumber,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let row = self
            .postgres
            .read_one(
                "SELECT EXISTS (SELECT FROM users WHERE phone_number = $1)",
                &[(&phone.as_e164(), Type::TEXT)],
                deadline,
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The user of a session, `None` if the session is over or is not the user's. A user who is gone
    /// has no session.
    pub async fn of_session(
        &self,
        user_id: i64,
        session_id: &str,
        deadline: Instant,
    ) -> Result<Option<User>, StoreError> {
        let row = self
            .postgres
            .read_one(
                r#"
                WITH alive AS (
                    SELECT user_id FROM sessions
                    WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > now()
                )
                SELECT id, name, phone_number, version,
                       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                           AS created_at
                FROM (VALUES (1)) AS always
                     LEFT JOIN (alive JOIN users ON users.id = alive.user_id) ON true
                "#,
                &[(&user_id, Type::INT8), (&session_id, Type::TEXT)],
                deadline,
            )
            .await?;
        if row.try_get::<_, Option<i64>>("id")?.is_none() {
            return Ok(None);
        }
        Ok(Some(read_user(&row)?))
    }

    /// Registers the person whose code was right, or lets them in: whichever the code is good for.
    /// However often and by however many it is called for one challenge, one call at most succeeds: the
    /// first to insert the challenge's id.
    ///
    /// A number that was registered after this statement began is seen by `DO UPDATE`, which changes
    /// nothing, and by nothing else. A row that was just inserted has no `xmax`; one that was there
    /// has been locked, and has. `KEY SHARE` waits for somebody who is deleting the user who logs in.
    ///
    /// The same statement opens the session of the refresh token, so that a token is good if and
    /// only if its user is there.
    pub async fn enter(
        &self,
        matched: &Matched,
        phone: &PhoneNumber,
        refresh_token: &RefreshToken,
        lifetime: Lifetime,
        deadline: Instant,
    ) -> Result<Entry, StoreError> {
        let row = self
            .postgres
            .write_one(
                r#"
                WITH used AS (
                    INSERT INTO used_challenges (challenge_id)
                    VALUES ($1)
                    ON CONFLICT (challenge_id) DO NOTHING
                    RETURNING challenge_id
                ), signed_up AS (
                    INSERT INTO users (name, phone_number)
                    SELECT $3, $4 FROM used WHERE $2 IN ('signup', 'signup_or_login')
                    ON CONFLICT (phone_number) DO UPDATE SET phone_number = EXCLUDED.phone_number
                        WHERE $2 = 'signup_or_login'
                    RETURNING id, created_at, name, phone_number, version, xmax = 0 AS is_new
                ), logged_in AS (
                    SELECT id, created_at, name, phone_number, version, false
                    FROM users
                    WHERE phone_number = $4 AND $2 = 'login' AND EXISTS (SELECT FROM used)
                    FOR KEY SHARE
                ), entered AS (
                    SELECT * FROM signed_up UNION ALL SELECT * FROM logged_in
                ), opened AS (
                    INSERT INTO sessions (id, user_id, token_digest, created_at, expires_at)
                    SELECT $5, id, $6, now(), now() + make_interval(days => $7) FROM entered
                )
                SELECT EXISTS (SELECT FROM used) AS first_use,
                       floor(extract(epoch FROM now()))::int8 AS auth_time,
                       is_new, id, name, phone_number, version,
                       to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                           AS created_at
                FROM (VALUES (1)) AS always LEFT JOIN entered ON true
                "#,
                &[
                    (&matched.id.as_str(), Type::TEXT),
                    (&matched.purpose.as_str(), Type::TEXT),
                    (&matched.purpose.name().map(Name::as_str), Type::TEXT),
                    (&phone.as_e164(), Type::TEXT),
                    (&refresh_token.session_id(), Type::TEXT),
                    (&refresh_token.digest().as_slice(), Type::BYTEA),
                    (&lifetime.idle_days(), Type::INT4),
                ],
                deadline,
            )
            .await?;
        if !row.try_get("first_use")? {
            return Ok(Entry::ChallengeUsed);
        }
        Ok(match row.try_get("is_new")? {
            Some(true) => Entry::Registered(read_signed_in(&row)?),
            Some(false) => Entry::LoggedIn(read_signed_in(&row)?),
            None => match matched.purpose {
                // With the second, whoever has the number is let in.
                Purpose::SignUp(_) | Purpose::SignUpOrLogIn(_) => Entry::PhoneTaken,
                Purpose::LogIn => Entry::UserGone,
            },
        })
    }
}

fn read_signed_in(row: &Row) -> Result<SignedIn, tokio_postgres::Error> {
    Ok(SignedIn {
        user: read_user(row)?,
        auth_time: row.try_get("auth_time")?,
    })
}

fn read_user(row: &Row) -> Result<User, tokio_postgres::Error> {
    Ok(User {
        id: row.try_get("id")?,
        created_at: row.try_get("created_at")?,
        name: row.try_get("name")?,
        phone_number: row.try_get("phone_number")?,
        version: row.try_get("version")?,
    })
}

/// Controls (NUL included, which Postgres does not store), line and paragraph separators, and the
/// characters that reorder the text around them (Unicode UAX #9: embeddings, overrides, isolates).
fn is_unfit_for_names(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_plain_text_of_up_to_100_characters() {
        for text in [
            "Ada",
            "Łukasz Żółć",
            "李小龍",
            "O'Neil-Smith, Jr.",
            "👩‍🚀",
            &"ü".repeat(100),
        ] {
            assert_eq!(Name::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Name::parse("  Ada \u{3000}").unwrap().as_str(), "Ada");
    }

    #[test]
    fn an_empty_or_blank_name_is_no_name() {
        for text in ["", " ", " \u{a0} "] {
            assert_eq!(Name::parse(text), Err(InvalidName::Empty), "{text:?}");
        }
    }

    #[test]
    fn long_names_controls_and_bidi_overrides_are_refused() {
        for text in [
            &"a".repeat(101),
            "Ada\n",
            "Ada\0",
            "Ada\u{1b}[31m",
            "Ada\u{85}",
            "Ada\u{2028}x",
            "Ada\u{202e}x",
            "Ada\u{2066}x",
        ] {
            assert_eq!(Name::parse(text), Err(InvalidName::Malformed), "{text:?}");
        }
    }
}
