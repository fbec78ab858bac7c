//! Checking a submitted code, within the limits on guesses.

use std::time::Duration;

use redis::Script;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    ChallengeId, Limited, LimitedReply, Purpose, Scripts, latest_key,
    limits::{AppliedLimit, AppliedMisses, ClientAddress, GuessLimits, Misses, RangeRule},
    range_key, unanswered_key,
};
use crate::{
    config::{self, Env},
    device::DeviceId,
    otp::OtpCode,
    phone::PhoneNumber,
    store::{Redis, StoreError},
};

/// Checks submitted codes.
pub struct Checker {
    scripts: Scripts,
    max_attempts: u32,
    guesses: GuessLimits,
    misses: Misses,
    trust: Option<RangeRule>,
    check: Script,
}

/// The outcome of a check.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The code is right. It may have been used before.
    Matched(Matched),
    /// The code is wrong. `remaining` attempts are left for this challenge; `None` for a code of
    /// another length than the challenge's, which costs no attempt.
    Mismatch { remaining: Option<u32> },
    /// No attempts are left for this challenge, or for this phone.
    Exhausted { retry_after: Duration },
    /// The requester's address has made too many wrong checks without a challenge id.
    Limited(Limited),
    /// Nothing is pending: never issued, expired, revoked, void, or of another id or phone.
    Absent,
}

/// A challenge whose code was right.
#[derive(Debug, PartialEq, Eq)]
pub struct Matched {
    /// The challenge that the code was sent for. Postgres marks this one as used.
    pub code_id: ChallengeId,
    pub purpose: Purpose,
    /// The known device that requested the code.
    pub device: Option<DeviceId>,
    /// The code was a test number's.
    pub is_test: bool,
    /// The code was not matched before.
    pub is_first: bool,
}

#[derive(Serialize)]
struct Arguments<'a> {
    offset_ms: i64,
    phone: &'a str,
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a ChallengeId>,
    length: usize,
    digests: Vec<String>,
    max_attempts: u32,
    guesses: &'a [AppliedLimit],
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<RangeRule>,
    misses: &'a AppliedMisses,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Absent,
    OtherLength,
    Limited(LimitedReply),
    Exhausted {
        wait_us: u64,
    },
    Mismatch {
        remaining: u32,
    },
    Matched {
        id: ChallengeId,
        purpose: String,
        name: String,
        user_id: String,
        device: String,
        is_test: bool,
        is_first: bool,
    },
}

impl Checker {
    /// Reads `OTP_PEPPER`, `OTP_MAX_ATTEMPTS` (default 5, 1 to 100), `LIMIT_GUESSES`, `LIMIT_RANGE`
    /// and what [`Misses`] reads.
    pub fn from_env(env: &Env, redis: Redis) -> Result<Self, config::Error> {
        Ok(Self {
            scripts: Scripts::from_env(env, redis)?,
            max_attempts: env.number("OTP_MAX_ATTEMPTS", 5, 1..=100)?,
            guesses: GuessLimits::from_env(env)?,
            misses: Misses::from_env(env)?,
            trust: RangeRule::from_env(env)?,
            check: Script::new(concat!(
                "#!lua\n",
                include_str!("limits.lua"),
                include_str!("check.lua")
            )),
        })
    }

    /// Shifts Redis's clock, so that tests choose the time.
    pub fn set_clock_offset(&mut self, milliseconds: i64) {
        self.scripts.clock_offset_ms = milliseconds;
    }

    /// Opens the connection to Redis ahead of the first request.
    pub async fn connect(&self) {
        self.scripts.redis.connect().await;
    }

    /// Compares `code` with that of the phone's challenge `id`, or of its newest one, and counts a
    /// wrong code.
    pub async fn check(
        &self,
        phone: &PhoneNumber,
        address: &ClientAddress,
        code: &OtpCode,
        id: Option<&ChallengeId>,
        deadline: Instant,
    ) -> Result<CheckOutcome, StoreError> {
        let guesses = match id {
            Some(_) => Vec::new(),
            None => self.guesses.on(address),
        };
        let misses = self.misses.on(phone);
        let keys = [latest_key(phone), unanswered_key(phone), range_key(phone)];
        let keys = (keys.iter().map(String::as_str))
            .chain(misses.keys())
            .chain(guesses.iter().map(|limit| limit.key.as_str()));
        let arguments = Arguments {
            offset_ms: self.scripts.clock_offset_ms,
            phone: phone.as_e164(),
            address: address.as_str(),
            id,
            length: code.expose().len(),
            digests: self.scripts.peppers.digests(phone, code).collect(),
            max_attempts: self.max_attempts,
            guesses: &guesses,
            trust: self.trust,
            misses: &misses,
        };
        let reply = self.scripts.run(&self.check, keys, &arguments, deadline);
        Ok(match reply.await? {
            Reply::Absent => CheckOutcome::Absent,
            Reply::OtherLength => CheckOutcome::Mismatch { remaining: None },
            Reply::Limited(limited) => CheckOutcome::Limited(limited.into()),
            Reply::Exhausted { wait_us } => CheckOutcome::Exhausted {
                retry_after: Duration::from_micros(wait_us),
            },
            Reply::Mismatch { remaining } => CheckOutcome::Mismatch {
                remaining: Some(remaining),
            },
            Reply::Matched {
                id,
                purpose,
                name,
                user_id,
                device,
                is_test,
                is_first,
            } => CheckOutcome::Matched(Matched {
                code_id: id,
                purpose: Purpose::parse(&purpose, &name, &user_id)
                    .ok_or_else(StoreError::unexpected_reply)?,
                device: DeviceId::parse(&device),
                is_test,
                is_first,
            }),
        })
    }
}
