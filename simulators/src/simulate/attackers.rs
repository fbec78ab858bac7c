//! The attackers. Each says when it acts next, and acts then.

mod collector;
mod log_ins;
mod persistent;
mod pumper;

use std::{collections::HashMap, time::Duration};

use rand::{RngExt, rngs::ChaCha8Rng};

use crate::{
    outcome::{Outcome, count},
    people::DAY,
    service::{Challenge, Checked, Refusal, Service, Submission},
};

pub use collector::Collector;
pub use log_ins::LogIns;
pub use persistent::{Persistent, Purpose};
pub use pumper::{Pumper, Walk};

pub trait Attacker {
    /// The time of the next action; `None` if there is none.
    fn next_at(&self) -> Option<Duration>;

    async fn act(&mut self, service: &mut Service, outcome: &mut Outcome);
}

/// Nobody attacks.
pub struct Nobody;

impl Attacker for Nobody {
    fn next_at(&self) -> Option<Duration> {
        None
    }

    async fn act(&mut self, _: &mut Service, _: &mut Outcome) {}
}

/// Random times from the first attacked midnight on, as the sum of many machines makes them.
struct Times {
    next: Duration,
    per_second: f64,
}

impl Times {
    fn new(per_second: f64) -> Self {
        Self {
            next: DAY,
            per_second,
        }
    }

    /// The time that has come. The next one is drawn.
    fn take(&mut self, random: &mut ChaCha8Rng) -> Duration {
        let at = self.next;
        let pause = -(1.0 - random.random::<f64>()).ln() / self.per_second;
        self.next += Duration::from_secs_f64(pause);
        at
    }
}

/// The refusals that an attacker remembers, by phone or range. While a `Retry-After` lasts it
/// retries every ten minutes only: its other attempts would be refused too.
#[derive(Default)]
struct Refusals(HashMap<String, Remembered>);

struct Remembered {
    by: String,
    ask_again_at: Duration,
}

impl Refusals {
    const PAUSE: Duration = Duration::from_mins(10);

    fn remember(&mut self, at: Duration, subject: &str, refusal: Refusal) {
        let remembered = Remembered {
            by: refusal.by,
            ask_again_at: at + refusal.retry_after.min(Self::PAUSE),
        };
        self.0.insert(subject.to_owned(), remembered);
    }

    /// The word of the limit that still refuses.
    fn by(&self, at: Duration, subject: &str) -> Option<&str> {
        let remembered = self.0.get(subject)?;
        (at < remembered.ask_again_at).then_some(&remembered.by)
    }
}

/// An address that nobody else has: somebody with a provider's IPv6 block has billions.
fn fresh_address(random: &mut ChaCha8Rng) -> String {
    let place: u32 = random.random();
    format!("3fff:0:{:x}:{:x}::1", place >> 16, place & 0xffff)
}

/// Submits a wrong code. Returns whether it was compared.
async fn guess(
    at: Duration,
    phone: &str,
    challenge: &Challenge,
    with_id: bool,
    random: &mut ChaCha8Rng,
    service: &mut Service,
    outcome: &mut Outcome,
) -> bool {
    let code = harness::wrong(&challenge.code);
    let submission = Submission {
        phone,
        address: &fresh_address(random),
        code: &code,
        challenge_id: with_id.then_some(&challenge.id),
    };
    match service.check(at, submission).await {
        Checked::Wrong { is_evaluated } => {
            if is_evaluated {
                *outcome.guesses.entry(code.len()).or_default() += 1;
            }
            is_evaluated
        }
        Checked::Refused(refusal) => {
            count(&mut outcome.attacker_refusals, &refusal.by);
            false
        }
        // Signed in: the newest challenge is somebody else's, whose code this was by chance.
        Checked::Expired | Checked::SignedIn { .. } => false,
    }
}
