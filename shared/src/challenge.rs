//! The pending codes of a phone number, and the limits, in Redis.
//!
//! What a sign-up asked for and what a login asked for are kept apart, whether or not the number is
//! registered. So a login that sends nothing voids no sign-up's code, and what is pending tells
//! nobody who is registered.
//!
//! Every change is one Lua script, so it happens whole or not at all; the scripts stand beside this
//! file. Nothing here decides whether a code was used before: that is Postgres's part, see
//! [`crate::users`]. All keys carry one hash tag, so the scripts also run on a cluster.

mod limits;
mod watch;

use std::time::Duration;

use redis::{Script, ScriptInvocation};
use tokio::time::Instant;

pub use limits::{ClientAddress, GuessLimits, Kind, SendLimits};
pub use watch::Watch;

use crate::{
    config::{self, Env},
    connect::{Redis, StoreError},
    otp::{self, OtpCode, Peppers},
    phone::PhoneNumber,
    random,
    users::Name,
};
use limits::Applied;

/// What asking for codes and answering with them have in common.
struct Store {
    redis: Redis,
    peppers: Peppers,
    clock_offset_ms: i64,
}

/// Issues codes, within the limits on asking for them.
pub struct Issuer {
    store: Store,
    lifetime: Duration,
    limits: SendLimits,
    watch: Watch,
    issue: Script,
    revoke: Script,
    probe: Script,
}

/// Compares codes, within the limits on wrong ones.
pub struct Checker {
    store: Store,
    max_attempts: u32,
    limits: GuessLimits,
    attempt: Script,
}

/// The name of one challenge: 128 random bits, as 32 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChallengeId(String);

/// Somebody who asks for a code.
pub struct Asker<'a> {
    pub phone: &'a PhoneNumber,
    pub address: &'a ClientAddress,
}

/// A limit that has nothing left, and when it has again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {kind} is reached")]
pub struct Limited {
    pub kind: Kind,
    pub retry_after: Duration,
}

/// What a right code is good for.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Registers a user of this name.
    SignUp(Name),
    /// Lets the user in who has the number.
    LogIn,
    /// Lets the user in who has the number, or registers one of this name if nobody has it.
    SignUpOrLogIn(Name),
}

/// What became of a request for a code.
#[derive(Debug, PartialEq, Eq)]
pub enum Issue {
    /// The code may be sent.
    Issued {
        /// Hardly any code that was sent to this range came back.
        low_range: bool,
        /// The same for the country.
        low_country: bool,
    },
    Limited(Limited),
    /// Hardly any code that was sent to this range came back, and that is enforced.
    Pumped {
        retry_after: Duration,
    },
}

/// What became of a code that somebody sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The code is right. It may have been used before.
    Matched(Pending),
    /// The code is wrong, and counted; so many attempts are left for this challenge.
    Mismatch { remaining: u32 },
    /// No attempts are left for this challenge, or for this phone.
    Exhausted { retry_after: Duration },
    /// The client's address has sent too many wrong codes.
    Limited(Limited),
    /// Nothing is pending for this phone: never asked, expired, or it is another challenge.
    Absent,
}

/// What waited for its code.
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    pub id: ChallengeId,
    pub purpose: Purpose,
    /// Whether this challenge was matched for the first time.
    pub first_match: bool,
}

impl ChallengeId {
    /// A new id from the operating system's generator.
    pub fn generate() -> Self {
        Self(random::id())
    }

    /// The id that a client sent, `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        random::is_id(text).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Purpose {
    fn parse(word: &str, name: &str) -> Option<Self> {
        let name = || Name::parse(name).ok();
        match word {
            "signup" => name().map(Self::SignUp),
            "login" => Some(Self::LogIn),
            "signup_or_login" => name().map(Self::SignUpOrLogIn),
            _ => None,
        }
    }

    /// The word for scripts and statements.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::SignUp(_) => "signup",
            Self::LogIn => "login",
            Self::SignUpOrLogIn(_) => "signup_or_login",
        }
    }

    /// The name to register; a login has none.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::SignUp(name) | Self::SignUpOrLogIn(name) => Some(name),
            Self::LogIn => None,
        }
    }
}

impl Store {
    /// Reads `OTP_PEPPER`.
    fn from_env(env: &Env, redis: Redis) -> Result<Self, config::Error> {
        Ok(Self {
            redis,
            peppers: Peppers::from_env(env)?,
            clock_offset_ms: 0,
        })
    }

    async fn run(
        &self,
        call: &ScriptInvocation<'_>,
        deadline: Instant,
    ) -> Result<Vec<String>, StoreError> {
        self.redis.run(call, deadline).await
    }
}

impl Issuer {
    /// Reads `OTP_PEPPER`, `OTP_TTL_SECONDS` (default 300, 60 to 600), and what [`SendLimits`] and
    /// [`Watch`] read.
    pub fn from_env(env: &Env, redis: Redis) -> Result<Self, config::Error> {
        Ok(Self {
            store: Store::from_env(env, redis)?,
            lifetime: Duration::from_secs(env.number("OTP_TTL_SECONDS", 300, 60..=600)?),
            limits: SendLimits::from_env(env)?,
            watch: Watch::from_env(env)?,
            issue: Script::new(concat!(
                "#!lua\n",
                include_str!("challenge/clock_and_limits.lua"),
                include_str!("challenge/conversion.lua"),
                include_str!("challenge/issue.lua")
            )),
            // What frees memory must work when there is none.
            revoke: Script::new(concat!(
                "#!lua flags=allow-oom\n",
                include_str!("challenge/clock_and_limits.lua"),
                include_str!("challenge/revoke.lua")
            )),
            probe: Script::new(concat!(
                "#!lua\n",
                include_str!("challenge/clock_and_limits.lua"),
                include_str!("challenge/probe.lua")
            )),
        })
    }

    /// Shifts Redis's clock, so that tests choose the time.
    pub fn set_clock_offset(&mut self, milliseconds: i64) {
        self.store.clock_offset_ms = milliseconds;
    }

    /// How long a code is good for.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The time after which a phone may ask again.
    pub fn cool_down(&self) -> Duration {
        self.limits.cool_down()
    }

    /// Opens the connection to Redis ahead of the first request.
    pub async fn connect(&self) {
        self.store.redis.connect().await;
    }

    /// Makes `code` the pending one of the asker's phone, in place of an older one that was asked for
    /// in the same way, unless a limit is reached. Repeating it with the same `id` changes nothing.
    ///
    /// Without a code it is a decoy: it takes from the limits and is pending as any other, but no code
    /// is right, and it does not count as a code that was sent.
    pub async fn issue(
        &self,
        id: &ChallengeId,
        asker: &Asker<'_>,
        purpose: &Purpose,
        code: Option<&OtpCode>,
        deadline: Instant,
    ) -> Result<Issue, StoreError> {
        let phone = asker.phone;
        let limits = self.limits.on(phone, asker.address);
        let digest = code.map_or_else(otp::digest_of_no_code, |code| {
            self.store.peppers.digest(phone, code)
        });
        let mut call = self.issue.prepare_invoke();
        call.key(challenge_key(purpose, phone))
            .key(replaced_key(purpose, phone))
            .key(range_key(phone))
            .key(country_key(phone))
            .key(revoked_key(id))
            .arg(self.store.clock_offset_ms)
            .arg(id.as_str())
            .arg(digest.as_slice())
            .arg(if code.is_some() { "code" } else { "decoy" })
            .arg(purpose.as_str())
            .arg(purpose.name().map_or("", Name::as_str))
            .arg(milliseconds(self.lifetime))
            .arg(self.watch.mode())
            .arg(self.watch.min_sends)
            .arg(self.watch.min_conversion);
        pass(&mut call, &limits);
        let answer = self.store.run(&call, deadline).await?;
        match texts(&answer)[..] {
            ["issued", range, country] => Some(Issue::Issued {
                low_range: range == "low",
                low_country: country == "low",
            }),
            ["limited", index, wait] => limited(&limits, index, wait).map(Issue::Limited),
            ["pumped", wait] => microseconds(wait).map(|retry_after| Issue::Pumped { retry_after }),
            _ => None,
        }
        .ok_or_else(|| StoreError::unreadable_answer("issue.lua"))
    }

    /// Voids the challenge `id`, whose message was certainly not sent, gives back what it took and
    /// revives the challenge that it had replaced. If the request to issue it has not arrived yet, it
    /// has no effect when it does. Repeating it changes nothing.
    pub async fn revoke(
        &self,
        id: &ChallengeId,
        asker: &Asker<'_>,
        purpose: &Purpose,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let phone = asker.phone;
        let mut call = self.revoke.prepare_invoke();
        call.key(challenge_key(purpose, phone))
            .key(replaced_key(purpose, phone))
            .key(range_key(phone))
            .key(country_key(phone))
            .key(revoked_key(id))
            .arg(self.store.clock_offset_ms)
            .arg(id.as_str());
        pass(&mut call, &self.limits.on(phone, asker.address));
        self.store.run(&call, deadline).await.map(drop)
    }

    /// Takes from the address's limit for an answer that sends nothing but tells something.
    pub async fn probe(
        &self,
        address: &ClientAddress,
        deadline: Instant,
    ) -> Result<Option<Limited>, StoreError> {
        let limits = self.limits.on_address(address);
        let mut call = self.probe.prepare_invoke();
        // A script has at least one key, also where the limit is off.
        call.key(ANY_KEY).arg(self.store.clock_offset_ms);
        pass(&mut call, &limits);
        let answer = self.store.run(&call, deadline).await?;
        match texts(&answer)[..] {
            ["taken"] => Some(None),
            ["limited", index, wait] => limited(&limits, index, wait).map(Some),
            _ => None,
        }
        .ok_or_else(|| StoreError::unreadable_answer("probe.lua"))
    }
}

impl Checker {
    /// Reads `OTP_PEPPER`, `OTP_MAX_ATTEMPTS` (default 5, 1 to 100), and what [`GuessLimits`] reads.
    pub fn from_env(env: &Env, redis: Redis) -> Result<Self, config::Error> {
        Ok(Self {
            store: Store::from_env(env, redis)?,
            max_attempts: env.number("OTP_MAX_ATTEMPTS", 5, 1..=100)?,
            limits: GuessLimits::from_env(env)?,
            attempt: Script::new(concat!(
                "#!lua\n",
                include_str!("challenge/clock_and_limits.lua"),
                include_str!("challenge/attempt.lua")
            )),
        })
    }

    /// Shifts Redis's clock, so that tests choose the time.
    pub fn set_clock_offset(&mut self, milliseconds: i64) {
        self.store.clock_offset_ms = milliseconds;
    }

    /// Opens the connection to Redis ahead of the first request.
    pub async fn connect(&self) {
        self.store.redis.connect().await;
    }

    /// Compares `code` with what is pending for the asker's phone, and counts it if it is wrong. With
    /// `expected`, only that challenge is meant.
    pub async fn attempt(
        &self,
        asker: &Asker<'_>,
        code: &OtpCode,
        expected: Option<&ChallengeId>,
        deadline: Instant,
    ) -> Result<Attempt, StoreError> {
        let phone = asker.phone;
        let failures = self.limits.failures_on(phone);
        let guesses = self.limits.guesses_on(asker.address);
        let mut call = self.attempt.prepare_invoke();
        call.key(signup_key(phone))
            .key(login_key(phone))
            .key(range_key(phone))
            .key(country_key(phone))
            .arg(self.store.clock_offset_ms)
            .arg(self.max_attempts)
            .arg(expected.map_or("", ChallengeId::as_str))
            .arg(failures.len());
        pass(&mut call, &failures);
        pass(&mut call, &guesses);
        for digest in self.store.peppers.digests(phone, code) {
            call.arg(digest.as_slice());
        }
        let answer = self.store.run(&call, deadline).await?;
        read_attempt(&texts(&answer), &guesses)
            .ok_or_else(|| StoreError::unreadable_answer("attempt.lua"))
    }
}

/// A key under the hash tag, for scripts that may have no other.
const ANY_KEY: &str = "{otp}:";

fn signup_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:challenge:{}", phone.as_e164())
}

fn login_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:login:{}", phone.as_e164())
}

/// By how the code was asked for: what it is good for may depend on who is registered, and the key
/// must not.
fn challenge_key(purpose: &Purpose, phone: &PhoneNumber) -> String {
    match purpose {
        Purpose::SignUp(_) | Purpose::SignUpOrLogIn(_) => signup_key(phone),
        Purpose::LogIn => login_key(phone),
    }
}

fn replaced_key(purpose: &Purpose, phone: &PhoneNumber) -> String {
    let kind = match purpose {
        Purpose::SignUp(_) | Purpose::SignUpOrLogIn(_) => "replaced",
        Purpose::LogIn => "replaced-login",
    };
    format!("{{otp}}:{kind}:{}", phone.as_e164())
}

fn revoked_key(id: &ChallengeId) -> String {
    format!("{{otp}}:revoked:{}", id.as_str())
}

fn range_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:conversion:range:{}", phone.range())
}

fn country_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:conversion:country:{}", phone.country())
}

fn pass(call: &mut ScriptInvocation<'_>, limits: &[Applied]) {
    for limit in limits {
        call.key(&limit.key).arg(limit.count).arg(limit.period_us);
    }
}

fn limited(limits: &[Applied], index: &str, wait: &str) -> Option<Limited> {
    let index: usize = index.parse().ok()?;
    Some(Limited {
        kind: limits.get(index.checked_sub(1)?)?.kind,
        retry_after: microseconds(wait)?,
    })
}

fn texts(answer: &[String]) -> Vec<&str> {
    answer.iter().map(String::as_str).collect()
}

fn milliseconds(duration: Duration) -> u64 {
    // Lifetimes are at most ten minutes.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn microseconds(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_micros)
}

fn read_attempt(answer: &[&str], guesses: &[Applied]) -> Option<Attempt> {
    Some(match answer {
        ["absent"] => Attempt::Absent,
        ["limited", index, wait] => Attempt::Limited(limited(guesses, index, wait)?),
        ["exhausted", wait] => Attempt::Exhausted {
            retry_after: microseconds(wait)?,
        },
        ["mismatch", remaining] => Attempt::Mismatch {
            remaining: remaining.parse().ok()?,
        },
        ["matched", id, purpose, name, which] => Attempt::Matched(Pending {
            id: ChallengeId::parse(id)?,
            purpose: Purpose::parse(purpose, name)?,
            first_match: *which == "first",
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
