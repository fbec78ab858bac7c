//! Issuing a challenge and revoking it, within the limits on sending.

use std::time::Duration;

use redis::Script;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    ChallengeId, CodeRequest, Limited, LimitedReply, Scripts, challenge_key, latest_key,
    limits::{AppliedLimit, AppliedMisses, Misses, RangeRule, SendLimits},
    range_key, unanswered_key,
};
use crate::{
    config::{self, Env},
    device::DeviceId,
    name::Name,
    otp::{Lengths, OtpCode},
    phone::PhoneNumber,
    store::{Redis, StoreError},
};

/// The longest lifetime that a code can be given.
pub const LONGEST_LIFETIME: Duration = Duration::from_mins(10);

/// Issues and revokes challenges.
pub struct Issuer {
    scripts: Scripts,
    lifetime: Duration,
    lengths: Lengths,
    limits: SendLimits,
    misses: Misses,
    issue: Script,
    revoke: Script,
    probe: Script,
}

/// The outcome of a request for a code.
pub enum IssueOutcome {
    /// The code may be sent.
    Issued {
        code: OtpCode,
        /// The full buckets of misses, which made the code longer if there is a longer length.
        full_misses: Vec<FullMisses>,
    },
    /// No code may be sent. The challenge shares the phone's newest code, which a requester at
    /// another address caused.
    Shared {
        /// Digits of that code.
        code_length: usize,
        lifetime: Duration,
        /// The time until another code can be requested.
        retry_after: Duration,
    },
    Limited(Limited),
}

/// A full bucket of misses: too many wrong codes, so new codes are longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FullMisses {
    /// Of the phone.
    Phone,
    /// Of the whole service.
    Total,
}

#[derive(Serialize)]
struct IssueArguments<'a> {
    offset_ms: i64,
    id: &'a ChallengeId,
    phone: &'a str,
    address: &'a str,
    purpose: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    codes: Vec<CodeChoice>,
    is_test: bool,
    lifetime_ms: u128,
    cool_down_us: u128,
    limits: &'a [AppliedLimit],
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<RangeRule>,
    misses: &'a AppliedMisses,
}

/// A prefix of the code that may be sent.
#[derive(Serialize)]
struct CodeChoice {
    length: usize,
    digest: String,
    /// The weight of a wrong code of this length: the odds of a guess, relative to the shortest.
    weight: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum IssueReply {
    Issued {
        length: usize,
        #[serde(default)]
        full_misses: Vec<FullMisses>,
    },
    Shared {
        length: usize,
        lifetime_ms: u64,
        wait_us: u64,
    },
    Limited(LimitedReply),
    Revoked,
}

#[derive(Serialize)]
struct RevokeArguments<'a> {
    offset_ms: i64,
    id: &'a ChallengeId,
    limits: &'a [AppliedLimit],
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RevokeReply {
    Revoked,
    Absent,
}

#[derive(Serialize)]
struct ProbeArguments<'a> {
    offset_ms: i64,
    limits: &'a [AppliedLimit],
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProbeReply {
    Taken,
    Limited(LimitedReply),
}

impl Issuer {
    /// Reads `OTP_PEPPER`, `OTP_TTL_SECONDS` (default 300, 60 to 600), and what [`Lengths`],
    /// [`SendLimits`] and [`Misses`] read.
    pub fn from_env(env: &Env, redis: Redis) -> Result<Self, config::Error> {
        Ok(Self {
            scripts: Scripts::from_env(env, redis)?,
            lifetime: Duration::from_secs(env.number(
                "OTP_TTL_SECONDS",
                300,
                60..=LONGEST_LIFETIME.as_secs(),
            )?),
            lengths: Lengths::from_env(env)?,
            limits: SendLimits::from_env(env)?,
            misses: Misses::from_env(env)?,
            issue: Script::new(concat!(
                "#!lua\n",
                include_str!("limits.lua"),
                include_str!("issue.lua")
            )),
            // A revocation frees memory, so it must run when there is none.
            revoke: Script::new(concat!(
                "#!lua flags=allow-oom\n",
                include_str!("limits.lua"),
                include_str!("revoke.lua")
            )),
            probe: Script::new(concat!(
                "#!lua\n",
                include_str!("limits.lua"),
                include_str!("probe.lua")
            )),
        })
    }

    /// Shifts Redis's clock, so that tests choose the time.
    pub fn set_clock_offset(&mut self, milliseconds: i64) {
        self.scripts.clock_offset_ms = milliseconds;
    }

    /// The lengths of codes.
    pub fn lengths(&self) -> Lengths {
        self.lengths
    }

    /// The lifetime of a code.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The least time between two codes for a phone.
    pub fn cool_down(&self) -> Duration {
        self.limits.cool_down()
    }

    /// Opens the connection to Redis ahead of the first request.
    pub async fn connect(&self) {
        self.scripts.redis.connect().await;
    }

    /// Makes a code and stores its challenge, unless a limit refuses. Other challenges of the phone
    /// stay. If the phone's limit refuses, the challenge may share the code that was sent last.
    /// Repeating the script after a lost reply changes nothing.
    pub async fn issue(
        &self,
        request: &CodeRequest<'_>,
        deadline: Instant,
    ) -> Result<IssueOutcome, StoreError> {
        let CodeRequest { id, phone, .. } = request;
        let (code, codes) = match request.test_code {
            None => {
                let code = OtpCode::generate(self.lengths);
                let codes = self.choices(phone, &code);
                (code, codes)
            }
            Some(code) => (code.clone(), vec![self.choice(phone, code)]),
        };
        let limits = self.limits.on(request);
        let misses = self.misses.on(phone);
        let keys = [
            challenge_key(id),
            latest_key(phone),
            unanswered_key(phone),
            range_key(phone),
        ];
        let keys = (keys.iter().map(String::as_str))
            .chain(misses.keys())
            .chain(limits.iter().map(|limit| limit.key.as_str()));
        let arguments = IssueArguments {
            offset_ms: self.scripts.clock_offset_ms,
            id,
            phone: phone.as_e164(),
            address: request.address.as_str(),
            purpose: request.purpose.as_str(),
            name: request.purpose.name().map(Name::as_str),
            // As text: Lua's numbers are not exact from 2^53 on.
            user_id: request.purpose.user_id().map(|id| id.to_string()),
            device: request.device.as_ref().map(DeviceId::as_str),
            codes,
            is_test: request.test_code.is_some(),
            lifetime_ms: self.lifetime.as_millis(),
            cool_down_us: self.cool_down().as_micros(),
            limits: &limits,
            trust: self.limits.trust_for(request),
            misses: &misses,
        };
        let reply = self.scripts.run(&self.issue, keys, &arguments, deadline);
        match reply.await? {
            IssueReply::Issued {
                length,
                full_misses,
            } => Ok(IssueOutcome::Issued {
                code: code.prefix(length),
                full_misses,
            }),
            IssueReply::Shared {
                length,
                lifetime_ms,
                wait_us,
            } => Ok(IssueOutcome::Shared {
                code_length: length,
                lifetime: Duration::from_millis(lifetime_ms),
                retry_after: Duration::from_micros(wait_us),
            }),
            IssueReply::Limited(limited) => Ok(IssueOutcome::Limited(limited.into())),
            // We revoke it ourselves, and only after this call.
            IssueReply::Revoked => Err(StoreError::unexpected_reply()),
        }
    }

    /// The code's prefixes of all lengths, from which the script chooses.
    fn choices(&self, phone: &PhoneNumber, code: &OtpCode) -> Vec<CodeChoice> {
        let lengths = self.lengths.all();
        lengths
            .map(|length| self.choice(phone, &code.prefix(length)))
            .collect()
    }

    fn choice(&self, phone: &PhoneNumber, code: &OtpCode) -> CodeChoice {
        let length = code.expose().len();
        CodeChoice {
            length,
            digest: self.scripts.peppers.digest(phone, code),
            weight: self.lengths.odds(length),
        }
    }

    /// Revokes a challenge whose message was certainly not sent, and refunds the range, the
    /// country, the total and the ceilings. Redis ignores an issue request that arrives after its
    /// challenge was revoked. Repeating a revocation changes nothing.
    pub async fn revoke(
        &self,
        request: &CodeRequest<'_>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let CodeRequest { id, phone, .. } = request;
        let limits = self.limits.on(request);
        let keys = [
            challenge_key(id),
            latest_key(phone),
            unanswered_key(phone),
            range_key(phone),
        ];
        let keys =
            (keys.iter().map(String::as_str)).chain(limits.iter().map(|limit| limit.key.as_str()));
        let arguments = RevokeArguments {
            offset_ms: self.scripts.clock_offset_ms,
            id,
            limits: &limits,
        };
        let reply = self.scripts.run(&self.revoke, keys, &arguments, deadline);
        match reply.await? {
            RevokeReply::Revoked | RevokeReply::Absent => Ok(()),
        }
    }

    /// Takes one of the address's limit, or of the known device's, for a response that sends
    /// nothing but reveals something. Returns the exhausted limit, if there is one.
    pub async fn probe(
        &self,
        request: &CodeRequest<'_>,
        deadline: Instant,
    ) -> Result<Option<Limited>, StoreError> {
        let limits = self.limits.on_probe(request);
        if limits.is_empty() {
            return Ok(None);
        }
        let keys = limits.iter().map(|limit| limit.key.as_str());
        let arguments = ProbeArguments {
            offset_ms: self.scripts.clock_offset_ms,
            limits: &limits,
        };
        match self
            .scripts
            .run(&self.probe, keys, &arguments, deadline)
            .await?
        {
            ProbeReply::Taken => Ok(None),
            ProbeReply::Limited(limited) => Ok(Some(limited.into())),
        }
    }
}
