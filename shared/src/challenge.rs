//! The pending code of a phone number, in Redis.
//!
//! Every change is one Lua script, so it happens whole or not at all; the scripts stand beside this
//! file. Nothing here decides whether a code was used before: that is Postgres's part, see
//! [`crate::users`]. All keys carry one hash tag, so the scripts also run on a cluster.

use std::time::Duration;

use rand::{RngExt, rand_core::UnwrapErr, rngs::SysRng};
use redis::Script;
use tokio::time::Instant;

use crate::{
    config::{self, Env},
    connect::{Redis, StoreError},
    otp::{OtpCode, Peppers},
    phone::PhoneNumber,
    users::Name,
};

/// Stores and checks pending codes.
pub struct Challenges {
    redis: Redis,
    peppers: Peppers,
    lifetime: Duration,
    max_attempts: u32,
    clock_offset_ms: i64,
    scripts: Scripts,
}

struct Scripts {
    issue: Script,
    revoke: Script,
    attempt: Script,
}

/// The name of one challenge: 128 random bits, as 32 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChallengeId(String);

/// What became of a code that somebody sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The code is right. It may have been used before.
    Matched(Pending),
    /// The code is wrong, and counted; so many attempts are left for this challenge.
    Mismatch { remaining: u32 },
    /// No attempts are left for this challenge, which expires after this time.
    Exhausted { retry_after: Duration },
    /// Nothing is pending for this phone: never asked, expired, or it is another challenge.
    Absent,
}

/// The sign-up that waits for its code.
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    pub id: ChallengeId,
    pub name: String,
}

impl ChallengeId {
    /// A new id from the operating system's generator.
    pub fn generate() -> Self {
        // See `OtpCode::generate` on why this generator does not fail.
        let bits: u128 = UnwrapErr(SysRng).random();
        Self(format!("{bits:032x}"))
    }

    /// The id that a client sent, `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let has_the_shape =
            text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        has_the_shape.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Challenges {
    /// Reads `OTP_PEPPER`, `OTP_TTL_SECONDS` (default 300, 60 to 600) and `OTP_MAX_ATTEMPTS`
    /// (default 5, 1 to 100).
    pub fn from_env(env: &Env, redis: Redis) -> Result<Self, config::Error> {
        Ok(Self {
            redis,
            peppers: Peppers::from_env(env)?,
            lifetime: Duration::from_secs(env.number("OTP_TTL_SECONDS", 300, 60..=600)?),
            max_attempts: env.number("OTP_MAX_ATTEMPTS", 5, 1..=100)?,
            clock_offset_ms: 0,
            scripts: Scripts {
                issue: Script::new(include_str!("challenge/issue.lua")),
                revoke: Script::new(include_str!("challenge/revoke.lua")),
                attempt: Script::new(include_str!("challenge/attempt.lua")),
            },
        })
    }

    /// Shifts Redis's clock for these challenges, so that tests choose the time.
    pub fn set_clock_offset(&mut self, milliseconds: i64) {
        self.clock_offset_ms = milliseconds;
    }

    /// How long a code is good for.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Opens the connection to Redis ahead of the first request.
    pub async fn connect(&self) {
        self.redis.connect().await;
    }

    /// Makes `code` the pending one of `phone`, in place of an older one. Repeating it with the
    /// same `id` changes nothing.
    pub async fn issue(
        &self,
        id: &ChallengeId,
        phone: &PhoneNumber,
        name: &Name,
        code: &OtpCode,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let digest = self.peppers.digests(phone, code).next();
        let mut call = self.scripts.issue.prepare_invoke();
        call.key(challenge_key(phone))
            .key(replaced_key(phone))
            .arg(id.as_str())
            .arg(digest.as_ref().map(<[u8; 32]>::as_slice))
            .arg(name.as_str())
            .arg(milliseconds(self.lifetime))
            .arg(self.clock_offset_ms);
        self.redis.run::<String>(&call, deadline).await.map(drop)
    }

    /// Voids the challenge `id`, whose message was certainly not sent, and revives the one that it
    /// had replaced. Repeating it changes nothing.
    pub async fn revoke(
        &self,
        id: &ChallengeId,
        phone: &PhoneNumber,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let mut call = self.scripts.revoke.prepare_invoke();
        call.key(challenge_key(phone))
            .key(replaced_key(phone))
            .arg(id.as_str());
        self.redis.run::<String>(&call, deadline).await.map(drop)
    }

    /// Compares `code` with the pending one of `phone`, and counts it if it is wrong. With
    /// `expected`, only that challenge is meant.
    pub async fn attempt(
        &self,
        phone: &PhoneNumber,
        code: &OtpCode,
        expected: Option<&ChallengeId>,
        deadline: Instant,
    ) -> Result<Attempt, StoreError> {
        let mut call = self.scripts.attempt.prepare_invoke();
        call.key(challenge_key(phone))
            .arg(self.clock_offset_ms)
            .arg(self.max_attempts)
            .arg(expected.map_or("", ChallengeId::as_str));
        for digest in self.peppers.digests(phone, code) {
            call.arg(digest.as_slice());
        }
        let answer: Vec<String> = self.redis.run(&call, deadline).await?;
        let answer: Vec<&str> = answer.iter().map(String::as_str).collect();
        read_attempt(&answer).ok_or_else(|| StoreError::fault("unreadable answer of attempt.lua"))
    }
}

fn challenge_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:challenge:{}", phone.as_e164())
}

fn replaced_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:replaced:{}", phone.as_e164())
}

fn milliseconds(duration: Duration) -> u64 {
    // Lifetimes are at most ten minutes.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn read_attempt(answer: &[&str]) -> Option<Attempt> {
    Some(match answer {
        ["absent"] => Attempt::Absent,
        ["exhausted", wait] => Attempt::Exhausted {
            retry_after: Duration::from_millis(wait.parse().ok()?),
        },
        ["mismatch", remaining] => Attempt::Mismatch {
            remaining: remaining.parse().ok()?,
        },
        ["matched", id, name] => Attempt::Matched(Pending {
            id: ChallengeId::parse(id)?,
            name: (*name).to_owned(),
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_of_ours_parses() {
        let id = ChallengeId::generate();
        assert_eq!(ChallengeId::parse(id.as_str()), Some(id));
        for text in [
            "",
            "0123",
            &"g".repeat(32),
            &"A".repeat(32),
            &"0".repeat(33),
        ] {
            assert_eq!(ChallengeId::parse(text), None, "{text:?}");
        }
    }
}
