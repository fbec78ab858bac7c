//! The service as one who asks for codes meets it, at a chosen time: what the functions do with
//! Redis, without HTTP, and with a set in place of Postgres.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use shared::{
    challenge::{
        Asker, Attempt, ChallengeId, Checker, ClientAddress, Issue, Issuer, Limited, Purpose,
    },
    config::Env,
    connect::Redis,
    otp::{Length, OtpCode},
    phone::PhoneNumber,
    users::Name,
};
use tokio::time::Instant;

/// Far above what anything here takes, so that no time-out blurs the figures.
const PATIENCE: Duration = Duration::from_mins(1);
/// Midnight of the first simulated day, 2027-01-01 in UTC: always the same, because the watch counts
/// by intervals of the clock.
const MIDNIGHT: Duration = Duration::from_hours(499_656);

const RIGHT: &str = "271828";
const WRONG: &str = "271882";

pub struct Service {
    issuer: Issuer,
    checker: Checker,
    registered: HashSet<String>,
    purpose: Purpose,
    right: OtpCode,
    wrong: OtpCode,
}

/// What refused: the word of a limit, or `watch`.
pub type Refusal = &'static str;

/// What one who asks for a code gets.
pub enum Asked {
    Sent {
        challenge: ChallengeId,
        low_range: bool,
        low_country: bool,
    },
    Refused {
        by: Refusal,
        retry_after: Duration,
    },
    AlreadyRegistered,
}

/// What one who sends a code gets.
pub enum Answered {
    In,
    Wrong,
    Refused { by: Refusal, retry_after: Duration },
    NothingPending,
}

impl Service {
    pub async fn new(settings: &[(&str, &str)], redis_url: &str) -> Self {
        let always = [
            ("OTP_PEPPER", "simulation-only-pepper-of-32-byte"),
            ("REDIS_URL", redis_url),
        ];
        let env: Env = always.iter().chain(settings).copied().collect();
        let redis = || Redis::from_env(&env, PATIENCE).unwrap();
        let length = Length::from_env(&env).unwrap();
        let this = Self {
            issuer: Issuer::from_env(&env, redis()).unwrap(),
            checker: Checker::from_env(&env, redis()).unwrap(),
            registered: HashSet::new(),
            purpose: Purpose::SignUp(Name::parse("Ada Lovelace").unwrap()),
            right: OtpCode::parse(RIGHT, length).unwrap(),
            wrong: OtpCode::parse(WRONG, length).unwrap(),
        };
        this.issuer.connect().await;
        this.checker.connect().await;
        this
    }

    pub fn is_registered(&self, phone: &PhoneNumber) -> bool {
        self.registered.contains(phone.as_e164())
    }

    /// As `POST /signup` does it.
    pub async fn ask(
        &mut self,
        at: Duration,
        phone: &PhoneNumber,
        address: &ClientAddress,
    ) -> Asked {
        let deadline = Instant::now() + PATIENCE;
        self.issuer.set_clock_offset(offset(at));
        if self.is_registered(phone) {
            let limited = self.issuer.probe(address, deadline).await.unwrap();
            return limited.map_or(Asked::AlreadyRegistered, Asked::from);
        }
        let id = ChallengeId::generate();
        let asker = Asker { phone, address };
        let issue = self
            .issuer
            .issue(&id, &asker, &self.purpose, Some(&self.right), deadline);
        match issue.await.unwrap() {
            Issue::Issued {
                low_range,
                low_country,
            } => Asked::Sent {
                challenge: id,
                low_range,
                low_country,
            },
            Issue::Limited(limited) => limited.into(),
            Issue::Pumped { retry_after } => Asked::Refused {
                by: "watch",
                retry_after,
            },
        }
    }

    /// As `POST /verify` does it, with the right code or one with two digits swapped.
    pub async fn answer(
        &mut self,
        at: Duration,
        phone: &PhoneNumber,
        address: &ClientAddress,
        challenge: &ChallengeId,
        is_right: bool,
    ) -> Answered {
        let deadline = Instant::now() + PATIENCE;
        self.checker.set_clock_offset(offset(at));
        let asker = Asker { phone, address };
        let code = if is_right { &self.right } else { &self.wrong };
        let attempt = self
            .checker
            .attempt(&asker, code, Some(challenge), deadline);
        match attempt.await.unwrap() {
            Attempt::Matched(_) => {
                self.registered.insert(phone.as_e164().to_owned());
                Answered::In
            }
            Attempt::Mismatch { .. } => Answered::Wrong,
            Attempt::Exhausted { retry_after } => Answered::Refused {
                by: "attempts",
                retry_after,
            },
            Attempt::Limited(limited) => Answered::Refused {
                by: limited.kind.as_str(),
                retry_after: limited.retry_after,
            },
            Attempt::Absent => Answered::NothingPending,
        }
    }
}

impl From<Limited> for Asked {
    fn from(limited: Limited) -> Self {
        Self::Refused {
            by: limited.kind.as_str(),
            retry_after: limited.retry_after,
        }
    }
}

/// What Redis has to add to its clock to make it `at`. Its clock is ours, and runs on meanwhile.
fn offset(at: Duration) -> i64 {
    let simulated = i64::try_from((MIDNIGHT + at).as_millis()).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    simulated - i64::try_from(now.as_millis()).unwrap()
}
