//! The sign-in after a right code: one statement uses the challenge, registers or finds the user
//! and opens the session.
//!
//! Postgres decides here whether a code was used before, by a unique key. Redis only says that it
//! is right, see [`crate::challenge`].

use std::sync::Arc;

use tokio::time::Instant;
use tokio_postgres::types::Type;

use crate::{
    challenge::{Matched, Purpose},
    config::{self, Env},
    name::Name,
    phone::PhoneNumber,
    sessions::{Lifetime, RefreshToken},
    store::{Postgres, StoreError},
    users::User,
};

const SIGN_IN: &str = include_str!("sign_in.sql");

/// Signs people in.
pub struct SignIns {
    postgres: Arc<Postgres>,
    session_lifetime: Lifetime,
}

/// The outcome of a sign-in.
#[derive(Debug, PartialEq, Eq)]
pub enum SignInOutcome {
    /// A new user.
    Registered(SignedIn),
    /// The user who has the number.
    LoggedIn(SignedIn),
    /// The challenge was used before; nothing changed.
    ChallengeUsed,
    /// A sign-up, and the number is registered by now. The challenge is used.
    PhoneTaken,
    /// A login, and no user has the number. The challenge is used.
    UserNotFound,
}

/// A user with a new session.
#[derive(Debug, PartialEq, Eq)]
pub struct SignedIn {
    pub user: User,
    /// The time of the sign-in by Postgres's clock, in seconds since 1970.
    pub auth_time: i64,
}

impl SignIns {
    /// Reads the sessions' lifetime, see [`Lifetime::from_env`].
    pub fn from_env(env: &Env, postgres: Arc<Postgres>) -> Result<Self, config::Error> {
        Ok(Self {
            postgres,
            session_lifetime: Lifetime::from_env(env)?,
        })
    }

    /// Connects ahead of the first sign-in.
    pub async fn connect(&self) {
        let (nobody, digest): (&str, &[u8]) = ("", &[]);
        self.postgres
            .connect(
                SIGN_IN,
                &[
                    (&nobody, Type::TEXT),
                    (&"signup", Type::TEXT),
                    (&nobody, Type::TEXT),
                    (&nobody, Type::TEXT),
                    (&nobody, Type::TEXT),
                    (&digest, Type::BYTEA),
                    (&self.session_lifetime.idle_days(), Type::INT4),
                ],
            )
            .await;
    }

    /// Signs in whoever has the phone, for the challenge's purpose. `refresh_token` becomes
    /// the first of the new session, which commits with its user: no token exists without one.
    ///
    /// Of all calls for one challenge, however many run at once, at most one succeeds.
    pub async fn sign_in(
        &self,
        matched: &Matched,
        phone: &PhoneNumber,
        refresh_token: &RefreshToken,
        deadline: Instant,
    ) -> Result<SignInOutcome, StoreError> {
        let row = self
            .postgres
            .write_one(
                SIGN_IN,
                &[
                    (&matched.code_id.as_str(), Type::TEXT),
                    (&matched.purpose.as_str(), Type::TEXT),
                    (&matched.purpose.name().map(Name::as_str), Type::TEXT),
                    (&phone.as_e164(), Type::TEXT),
                    (&refresh_token.session_id(), Type::TEXT),
                    (&refresh_token.digest().as_slice(), Type::BYTEA),
                    (&self.session_lifetime.idle_days(), Type::INT4),
                ],
                deadline,
            )
            .await?;
        if !row.try_get("first_use")? {
            return Ok(SignInOutcome::ChallengeUsed);
        }
        let signed_in = || -> Result<SignedIn, StoreError> {
            Ok(SignedIn {
                user: User::from_row(&row)?,
                auth_time: row.try_get("auth_time")?,
            })
        };
        Ok(match row.try_get("is_new")? {
            Some(true) => SignInOutcome::Registered(signed_in()?),
            Some(false) => SignInOutcome::LoggedIn(signed_in()?),
            None => match matched.purpose {
                // `SignUpOrLogIn` always finds or makes a user.
                Purpose::SignUp(_) | Purpose::SignUpOrLogIn(_) => SignInOutcome::PhoneTaken,
                // Nobody signs in with a change of number.
                Purpose::LogIn | Purpose::ChangePhone { .. } => SignInOutcome::UserNotFound,
            },
        })
    }
}
