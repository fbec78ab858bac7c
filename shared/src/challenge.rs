//! Challenges and limits in Redis: a pending code, and how often things may happen.
//!
//! Every change is one Lua script, so it happens whole or not at all. The scripts stand beside this
//! file; their arguments and replies are JSON whose members are named on both sides. Nothing here
//! decides whether a code was used before: that is Postgres's part, see [`crate::users`]. All keys
//! carry one hash tag, so the scripts also run on a cluster.

mod checker;
mod issuer;
mod limits;

use std::time::Duration;

use redis::Script;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

pub use checker::{Check, Checker, Matched};
pub use issuer::{CodeRequest, IssueOutcome, Issuer};
pub use limits::{ClientAddress, Kind};

use crate::{
    config::{self, Env},
    connect::{Redis, StoreError},
    otp::Peppers,
    phone::PhoneNumber,
    random,
    users::Name,
};

/// A key under the hash tag, where a script needs one that it does not use.
const ANY_KEY: &str = "{otp}:";

/// The name of one challenge: 128 random bits, as 32 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChallengeId(String);

/// An exhausted limit, and the time until it has something left.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {kind} is reached")]
pub struct Limited {
    pub kind: Kind,
    pub retry_after: Duration,
}

/// The use of a right code.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Registers a user of this name.
    SignUp(Name),
    /// Logs the user in who has the number.
    LogIn,
    /// Logs the user in who has the number, or registers one of this name if nobody has it.
    SignUpOrLogIn(Name),
}

/// Redis, and the keys of the digests that it stores.
struct Store {
    redis: Redis,
    peppers: Peppers,
    clock_offset_ms: i64,
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

    /// Runs a script and reads its reply.
    async fn run<'a, T: DeserializeOwned>(
        &self,
        script: &Script,
        keys: impl IntoIterator<Item = &'a str>,
        arguments: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, StoreError> {
        // Structs of texts and numbers always have a JSON form.
        let arguments = serde_json::to_string(arguments).unwrap_or_default();
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        call.arg(arguments);
        let reply: String = self.redis.run(&call, deadline).await?;
        // A reply holds the person's name, so it is not quoted.
        serde_json::from_str(&reply).map_err(|_| StoreError::unreadable_reply())
    }
}

/// The reply of a script that a limit stopped.
#[derive(Deserialize)]
struct LimitedReply {
    kind: Kind,
    wait_us: u64,
}

impl From<LimitedReply> for Limited {
    fn from(LimitedReply { kind, wait_us }: LimitedReply) -> Self {
        Self {
            kind,
            retry_after: Duration::from_micros(wait_us),
        }
    }
}

fn challenge_key(id: &ChallengeId) -> String {
    format!("{{otp}}:challenge:{}", id.as_str())
}

fn latest_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:latest:{}", phone.as_e164())
}

fn unanswered_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:unanswered:{}", phone.as_e164())
}

fn range_key(phone: &PhoneNumber) -> String {
    format!("{{otp}}:range:{}", phone.range())
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
