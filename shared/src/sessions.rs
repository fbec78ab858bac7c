//! Sessions in Postgres, and the refresh tokens that keep them alive.
//!
//! A session is a chain of refresh tokens. Each use replaces the token by its successor. An older
//! token shows that somebody stole one, and ends the session. One statement decides, so the row's
//! lock orders concurrent requests.

use std::{sync::Arc, time::SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use rand::RngExt;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_postgres::{Row, types::Type};

use crate::{
    config::{self, Env},
    otp, random,
    store::{Postgres, StoreError},
    token::{self, Signer, Subject},
};

const REFRESH: &str = include_str!("sessions/refresh.sql");

/// Reads and writes sessions.
pub struct Sessions {
    postgres: Arc<Postgres>,
    successors: Successors,
    lifetime: Lifetime,
}

/// `<handle>.<secret>`: 32 lower-case hexadecimal digits, the same in every token of a session, and
/// 32 bytes in base64url. No `Debug` and no `Display`.
pub struct RefreshToken {
    handle: String,
    secret: [u8; 32],
}

/// The lifetime of sessions, in days of Postgres's clock.
#[derive(Clone, Copy)]
pub struct Lifetime {
    /// From the last refresh, or from the beginning if there was none.
    idle: i32,
    /// From the beginning. At least `idle`.
    max: i32,
}

/// SHA-256 of a refresh token's secret, stored instead of it. The secret is 256 random bits, so its
/// digest needs no key.
pub type Digest = [u8; 32];

/// Computes each token's successor: HMAC-SHA256 of its secret. We can recompute the successor
/// without storing it, so a client that lost the response gets the same one. There is one key for
/// every live pepper, newest first; the older ones let a client retry across a rotation. No
/// `Debug`.
struct Successors(Vec<Hmac<Sha256>>);

/// The outcome of a refresh.
pub enum Refresh {
    /// The token was the newest, or its parent within the grace of 60 seconds.
    Refreshed {
        user_id: i64,
        /// The beginning of the session, in seconds since 1970.
        auth_time: i64,
        successor: RefreshToken,
    },
    /// The token was an older one. The session is over now.
    Reused,
    /// No such session, or it was over.
    Absent,
}

/// The outcome of ending one of a user's sessions.
pub enum End {
    Ended,
    /// No such session of this user, or it was over.
    Absent,
    /// The session that asks is over or belongs to another user. Nothing changed.
    SessionOver,
}

/// A session that is alive, as its user sees it.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// See [`RefreshToken::session_id`].
    id: String,
    /// RFC 3339 in UTC, to the second, as the other time.
    created_at: String,
    /// As `created_at` before the first refresh.
    refreshed_at: String,
    /// Tells if it is the session that asked.
    current: bool,
}

/// The tokens of a signed-in client. No `Debug`.
#[derive(Serialize)]
pub struct Tokens {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    refresh_token: String,
}

impl RefreshToken {
    /// The first token of a new session, from the operating system's generator.
    pub fn generate() -> Self {
        Self {
            handle: random::id(),
            secret: random::generator().random(),
        }
    }

    /// The token that a client sent, `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (handle, secret) = text.split_once('.')?;
        let secret = BASE64_URL_SAFE_NO_PAD.decode(secret).ok()?;
        random::is_id(handle).then_some(Self {
            handle: handle.to_owned(),
            secret: secret.try_into().ok()?,
        })
    }

    /// The token's text, for the client.
    pub fn expose(&self) -> String {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(self.secret);
        format!("{}.{secret}", self.handle)
    }

    /// The session's `id` in `sessions` and `sid` in access tokens: the first 32 hexadecimal digits
    /// of SHA-256("otp-auth session" ‖ handle).
    ///
    /// It may be shown and logged. The handle may not, since it can end the session; the id does
    /// not reveal the handle.
    pub fn session_id(&self) -> String {
        let digest = Sha256::new()
            .chain_update(b"otp-auth session")
            .chain_update(&self.handle)
            .finalize();
        let mut head = [0; 16];
        head.copy_from_slice(&digest[..16]);
        format!("{:032x}", u128::from_be_bytes(head))
    }

    /// The digest of the secret, which the session's row holds.
    pub fn digest(&self) -> Digest {
        Sha256::digest(self.secret).into()
    }
}

impl Listed {
    /// Reads the columns that are named like the fields.
    fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            refreshed_at: row.try_get("refreshed_at")?,
            current: row.try_get("current")?,
        })
    }
}

impl Tokens {
    /// A new access token, valid from `now`, and the session's refresh token. `auth_time` is the
    /// beginning of the session, in seconds since 1970.
    pub fn new(
        signer: &Signer,
        user_id: i64,
        auth_time: i64,
        refresh: &RefreshToken,
        now: SystemTime,
    ) -> Self {
        let subject = Subject {
            user_id,
            session_id: &refresh.session_id(),
            auth_time,
        };
        Self {
            access_token: signer.access_token(&subject, now),
            token_type: "Bearer",
            expires_in: token::LIFETIME.as_secs(),
            refresh_token: refresh.expose(),
        }
    }
}

impl Successors {
    /// Reads `OTP_PEPPER`.
    fn from_env(env: &Env) -> Result<Self, config::Error> {
        otp::derived_keys(env, b"otp-auth refresh token").map(Self)
    }

    /// The token's possible successors, newest pepper first.
    fn of(&self, token: &RefreshToken) -> Vec<RefreshToken> {
        let successor = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            mac.update(&token.secret);
            RefreshToken {
                handle: token.handle.clone(),
                secret: mac.finalize().into_bytes().into(),
            }
        };
        self.0.iter().map(successor).collect()
    }
}

impl Lifetime {
    /// Reads `SESSION_IDLE_DAYS` (default 30) and `SESSION_MAX_DAYS` (default 180, at least the
    /// former).
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const MAX: &str = "SESSION_MAX_DAYS";
        let idle = env.number("SESSION_IDLE_DAYS", 30, 1..=3650)?;
        let max = env.number(MAX, 180, 1..=3650)?;
        if max < idle {
            return Err(config::Error::invalid(
                MAX,
                "must be at least SESSION_IDLE_DAYS",
            ));
        }
        Ok(Self { idle, max })
    }

    /// Days until a session expires that is not refreshed.
    pub fn idle_days(self) -> i32 {
        self.idle
    }
}

impl Sessions {
    /// Reads `OTP_PEPPER`, and the lifetime, see [`Lifetime::from_env`].
    pub fn from_env(env: &Env, postgres: Arc<Postgres>) -> Result<Self, config::Error> {
        Ok(Self {
            postgres,
            successors: Successors::from_env(env)?,
            lifetime: Lifetime::from_env(env)?,
        })
    }

    /// Connects ahead of the first refresh.
    pub async fn connect(&self) {
        let (nobody, digest): (&str, &[u8]) = ("", &[]);
        self.postgres
            .connect(
                REFRESH,
                &[
                    (&nobody, Type::TEXT),
                    (&digest, Type::BYTEA),
                    (&vec![digest], Type::BYTEA_ARRAY),
                    (&self.lifetime.idle, Type::INT4),
                    (&self.lifetime.max, Type::INT4),
                ],
            )
            .await;
    }

    /// Replaces a token by its successor and extends the session: to `SESSION_IDLE_DAYS` from now,
    /// but at most to `SESSION_MAX_DAYS` from its beginning.
    ///
    /// The row holds the digest of the newest token only. A token is the previous one exactly when
    /// the row holds its successor's digest. For 60 seconds, longer than a failover takes, the
    /// previous token gets the same successor again. Any other secret ends the session: only its
    /// owner and a thief know the handle.
    pub async fn refresh(
        &self,
        token: &RefreshToken,
        deadline: Instant,
    ) -> Result<Refresh, StoreError> {
        let successors = self.successors.of(token);
        let digests: Vec<Digest> = successors.iter().map(RefreshToken::digest).collect();
        let digests: Vec<&[u8]> = digests.iter().map(<[u8; 32]>::as_slice).collect();
        let row = self
            .postgres
            .write_one(
                REFRESH,
                &[
                    (&token.session_id(), Type::TEXT),
                    (&token.digest().as_slice(), Type::BYTEA),
                    (&digests, Type::BYTEA_ARRAY),
                    (&self.lifetime.idle, Type::INT4),
                    (&self.lifetime.max, Type::INT4),
                ],
                deadline,
            )
            .await?;
        let Some(user_id) = row.try_get("user_id")? else {
            return Ok(Refresh::Absent);
        };
        if row.try_get("revoked")? {
            return Ok(Refresh::Reused);
        }
        let auth_time = row.try_get("auth_time")?;
        let newest: &[u8] = row.try_get("token_digest")?;
        let successor = successors
            .into_iter()
            .find(|successor| successor.digest() == newest);
        // There is one: otherwise the statement would have ended the session.
        Ok(
            successor.map_or(Refresh::Absent, |successor| Refresh::Refreshed {
                user_id,
                auth_time,
                successor,
            }),
        )
    }

    /// The live sessions of a session's user, the newest first; `None` if the session is over or
    /// belongs to another user.
    pub async fn list(
        &self,
        user_id: i64,
        session_id: &str,
        deadline: Instant,
    ) -> Result<Option<Vec<Listed>>, StoreError> {
        let rows = self
            .postgres
            .read(
                include_str!("sessions/list.sql"),
                &[(&user_id, Type::INT8), (&session_id, Type::TEXT)],
                deadline,
            )
            .await?;
        let sessions = rows
            .iter()
            .map(Listed::from_row)
            .collect::<Result<Vec<_>, _>>()?;
        // The session itself is one of them.
        Ok((!sessions.is_empty()).then_some(sessions))
    }

    /// Ends the session `id` for a session of the same user, which may be the same one.
    pub async fn end_own(
        &self,
        user_id: i64,
        session_id: &str,
        id: &str,
        deadline: Instant,
    ) -> Result<End, StoreError> {
        // A text that is no id, such as one with a NUL, names no session. Whether the session that
        // asks is alive is to be found out all the same.
        let id = random::is_id(id).then_some(id);
        let row = self
            .postgres
            .write_one(
                include_str!("sessions/end_own.sql"),
                &[
                    (&user_id, Type::INT8),
                    (&session_id, Type::TEXT),
                    (&id, Type::TEXT),
                ],
                deadline,
            )
            .await?;
        Ok(match (row.try_get("is_alive")?, row.try_get("ended")?) {
            (false, _) => End::SessionOver,
            (true, false) => End::Absent,
            (true, true) => End::Ended,
        })
    }

    /// Ends the token's session, if there is one. The secret is not checked: a wrong one would end
    /// the session at a refresh too.
    pub async fn end(&self, token: &RefreshToken, deadline: Instant) -> Result<(), StoreError> {
        self.postgres
            .write_one(
                "
                WITH ended AS (
                    UPDATE sessions SET revoked_at = now()
                    WHERE id = $1 AND revoked_at IS NULL
                    RETURNING id
                )
                SELECT count(*) FROM ended
                ",
                &[(&token.session_id(), Type::TEXT)],
                deadline,
            )
            .await?;
        Ok(())
    }

    /// Ends the token's session, if there is one, and all other sessions of its user if the token
    /// is one that [`refresh`](Self::refresh) would take. An older one may have been stolen: it
    /// ends its own session, as at a refresh, and no other.
    pub async fn end_all(&self, token: &RefreshToken, deadline: Instant) -> Result<(), StoreError> {
        let successors = self.successors.of(token);
        let digests: Vec<Digest> = successors.iter().map(RefreshToken::digest).collect();
        let digests: Vec<&[u8]> = digests.iter().map(<[u8; 32]>::as_slice).collect();
        self.postgres
            .write_one(
                include_str!("sessions/end_all.sql"),
                &[
                    (&token.session_id(), Type::TEXT),
                    (&token.digest().as_slice(), Type::BYTEA),
                    (&digests, Type::BYTEA_ARRAY),
                ],
                deadline,
            )
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn successors(peppers: &str) -> Successors {
        Successors::from_env(&Env::from([("OTP_PEPPER", peppers)])).unwrap()
    }

    #[test]
    fn a_token_survives_its_text() {
        let token = RefreshToken::generate();
        let text = token.expose();
        assert_eq!(text.len(), 32 + 1 + 43);
        let read = RefreshToken::parse(&text).unwrap();
        assert_eq!(read.expose(), text);
        assert_eq!(read.digest(), token.digest());
        assert_ne!(RefreshToken::generate().expose(), text);
    }

    #[test]
    fn whatever_has_another_shape_is_no_token() {
        let text = RefreshToken::generate().expose();
        let (id, secret) = text.split_once('.').unwrap();
        for other in [
            "",
            ".",
            id,
            &text[..text.len() - 1],
            &format!("{text}="),
            &format!("{text}A"),
            &format!("{text}.{secret}"),
            &format!(" {text}"),
            &format!("{text}\n"),
            &format!("{}.{secret}", "G".repeat(32)),
            &format!("{}.{secret}", "A".repeat(32)),
            &format!("{}.{secret}", &id[1..]),
            &format!("{id}.{}", "+".repeat(43)),
        ] {
            assert!(RefreshToken::parse(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_successor_depends_on_secret_and_pepper_and_on_nothing_else() {
        let (old, new) = ("a".repeat(32), "b".repeat(32));
        let token = RefreshToken::generate();
        let text = |tokens: Vec<RefreshToken>| -> Vec<String> {
            tokens.iter().map(RefreshToken::expose).collect()
        };
        let before = text(successors(&old).of(&token));
        assert_eq!(before, text(successors(&old).of(&token)));
        let after = text(successors(&format!("{new},{old}")).of(&token));
        assert_eq!((after.len(), &after[1]), (2, &before[0]));
        assert_ne!(after[0], after[1]);
        let other = RefreshToken {
            handle: token.handle.clone(),
            ..RefreshToken::generate()
        };
        assert_ne!(text(successors(&old).of(&other)), before);
    }

    /// Computed by Python's `hashlib`.
    #[test]
    fn a_session_id_is_a_digest_of_the_handle() {
        let token = RefreshToken {
            handle: "0".repeat(32),
            secret: [7; 32],
        };
        assert_eq!(token.session_id(), "7a2aeba704e5aa3d66fd07d716a390c0");
    }

    #[test]
    fn a_session_lasts_at_least_as_long_as_it_may_be_idle() {
        let read = |idle, max| {
            let env = Env::from([("SESSION_IDLE_DAYS", idle), ("SESSION_MAX_DAYS", max)]);
            let lifetime = Lifetime::from_env(&env);
            lifetime.map(|days| (days.idle, days.max)).ok()
        };
        assert_eq!(read("", ""), Some((30, 180)));
        assert_eq!(read("7", "7"), Some((7, 7)));
        assert_eq!(read("8", "7"), None);
        assert_eq!(read("181", ""), None);
        assert_eq!(read("", "29"), None);
        assert_eq!(read("0", ""), None);
    }

    /// Computed by Python's `hmac` and by `hkdf` of the package `cryptography`.
    #[test]
    fn a_successor_is_hmac_sha256_under_a_key_of_hkdf() {
        let token = RefreshToken {
            handle: "0".repeat(32),
            secret: [7; 32],
        };
        let successor = &successors(&"k".repeat(32)).of(&token)[0];
        let expected = 0x82df_02b2_2f38_8178_3df3_75f1_00e0_9c75_u128;
        assert_eq!(successor.secret[..16], expected.to_be_bytes());
    }
}
