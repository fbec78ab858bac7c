//! Challenges and rate limits in Redis.
//!
//! Every change is one Lua script, so it happens whole or not at all. The scripts are in
//! `challenge/*.lua`; their arguments and replies are JSON with the same names on both sides.
//! Postgres decides whether a code was used before, see [`crate::sign_in`]. All keys carry one hash
//! tag, so the scripts also run on a cluster.

mod checker;
mod issuer;
mod limits;

use std::time::Duration;

use redis::Script;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::Instant;

pub use checker::{CheckOutcome, Checker, Matched};
pub use issuer::{FullMisses, IssueOutcome, Issuer, LONGEST_LIFETIME};
pub use limits::{ClientAddress, LimitKind};

use crate::{
    config::{self, Env},
    device::DeviceId,
    name::Name,
    otp::{OtpCode, Peppers},
    phone::PhoneNumber,
    random,
    store::{Redis, StoreError},
};

/// A key for a place in `KEYS` that a script does not use.
const ANY_KEY: &str = "{otp}:";

/// The id of a challenge: 32 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChallengeId(String);

/// A request for a code.
pub struct CodeRequest<'a> {
    /// The id of its challenge.
    pub id: ChallengeId,
    pub phone: &'a PhoneNumber,
    pub address: &'a ClientAddress,
    /// The requester's known device for this phone.
    pub device: Option<DeviceId>,
    /// A login in the open mode: no code is issued unless the number is registered.
    pub is_open_login: bool,
    /// The fixed code of a test number. It is not sent, so no limit on sending applies.
    pub test_code: Option<&'a OtpCode>,
    pub purpose: Purpose,
}

/// An exhausted rate limit, and the time until it admits the next request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {kind} is reached")]
pub struct Limited {
    pub kind: LimitKind,
    pub retry_after: Duration,
}

/// The purpose of a challenge: the use of its right code.
#[derive(Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Registers a user of this name.
    SignUp(Name),
    /// Logs in the user who has the number.
    LogIn,
    /// Logs in the user who has the number, or registers one of this name if there is none.
    SignUpOrLogIn(Name),
    /// Gives the number to a user who is signed in.
    ChangePhone {
        /// The `id` of the user.
        user_id: i64,
    },
}

/// The scripts' connection to Redis, and the keys of the code digests in it.
struct Scripts {
    redis: Redis,
    peppers: Peppers,
    clock_offset_ms: i64,
}

impl ChallengeId {
    /// A new id from the operating system's generator.
    pub fn generate() -> Self {
        Self(random::id())
    }

    /// Parses an id that a client sent, `None` if it is not of our form.
    pub fn parse(text: &str) -> Option<Self> {
        random::is_id(text).then(|| Self(text.to_owned()))
    }

    /// The id's text, for keys and responses.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Purpose {
    /// Parses a script's reply.
    fn parse(word: &str, name: &str, user_id: &str) -> Option<Self> {
        let name = || Name::parse(name).ok();
        match word {
            "signup" => name().map(Self::SignUp),
            "login" => Some(Self::LogIn),
            "signup_or_login" => name().map(Self::SignUpOrLogIn),
            "change_phone" => Some(Self::ChangePhone {
                user_id: user_id.parse().ok()?,
            }),
            _ => None,
        }
    }

    /// The word for scripts and statements.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::SignUp(_) => "signup",
            Self::LogIn => "login",
            Self::SignUpOrLogIn(_) => "signup_or_login",
            Self::ChangePhone { .. } => "change_phone",
        }
    }

    /// The name to register; `None` if nobody will be registered.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::SignUp(name) | Self::SignUpOrLogIn(name) => Some(name),
            Self::LogIn | Self::ChangePhone { .. } => None,
        }
    }

    /// The user who gets the number; `None` if that depends on who has it.
    fn user_id(&self) -> Option<i64> {
        match self {
            Self::SignUp(_) | Self::LogIn | Self::SignUpOrLogIn(_) => None,
            Self::ChangePhone { user_id } => Some(*user_id),
        }
    }
}

impl Scripts {
    /// Reads `OTP_PEPPER`.
    fn from_env(env: &Env, redis: Redis) -> Result<Self, config::Error> {
        Ok(Self {
            redis,
            peppers: Peppers::from_env(env)?,
            clock_offset_ms: 0,
        })
    }

    /// Runs a script and parses its reply.
    async fn run<'a, T: DeserializeOwned>(
        &self,
        script: &Script,
        keys: impl IntoIterator<Item = &'a str>,
        arguments: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, StoreError> {
        // Structs of texts and numbers always serialize.
        let arguments = serde_json::to_string(arguments).unwrap_or_default();
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        call.arg(arguments);
        let reply: String = self.redis.run(&call, deadline).await?;
        // A reply can hold a person's name, so the error does not quote it.
        serde_json::from_str(&reply).map_err(|_| StoreError::unexpected_reply())
    }
}

/// The reply of a script that a limit stopped.
#[derive(Deserialize)]
struct LimitedReply {
    kind: LimitKind,
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
