//! Somebody who is paid for the messages that reach certain ranges of numbers.

use std::time::Duration;

use rand::{RngExt, rngs::ChaCha8Rng};

use super::{Attacker, Refusals, Times};
use crate::{
    countries,
    outcome::{Outcome, count},
    service::{Ask, Asked, Checked, Route, Service, Submission},
    world::{World, random},
};

/// The order in which the numbers are walked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Each attempt takes the next number of a range drawn anew.
    Scattered,
    /// A range from its first number to its last, then the next range.
    InOrder,
    /// Scattered, by the owner of the numbers: submits every code, and logs in with each number
    /// that is registered, every other time.
    AsOwner,
}

pub struct Pumper<'a> {
    world: &'a World,
    walk: Walk,
    times: Times,
    random: ChaCha8Rng,
    attempts: usize,
    next_in_range: Vec<usize>,
    /// The numbers that signed up, by range.
    registered: Vec<Vec<String>>,
    refusals: Refusals,
}

struct Attempt {
    range: usize,
    phone: String,
    route: Route,
}

impl<'a> Pumper<'a> {
    pub fn new(world: &'a World, walk: Walk, per_second: f64) -> Self {
        let ranges = world.attacked.len();
        Self {
            world,
            walk,
            times: Times::new(per_second),
            random: random("pumper"),
            attempts: 0,
            next_in_range: vec![0; ranges],
            registered: vec![Vec::new(); ranges],
            refusals: Refusals::default(),
        }
    }

    fn next_attempt(&mut self) -> Attempt {
        let ranges = self.world.attacked.len();
        let range = match self.walk {
            Walk::InOrder => self.attempts / 1000 % ranges,
            Walk::Scattered | Walk::AsOwner => self.random.random_range(0..ranges),
        };
        self.attempts += 1;
        let registered = &self.registered[range];
        if !registered.is_empty() && self.random.random_bool(0.5) {
            return Attempt {
                range,
                phone: registered[self.random.random_range(0..registered.len())].clone(),
                route: Route::LogIn,
            };
        }
        let next = &mut self.next_in_range[range];
        let phone = countries::number(&self.world.attacked[range], *next % 1000);
        *next += 1;
        Attempt {
            range,
            phone,
            route: Route::SignUp,
        }
    }

    /// Sends the code of the owner's own phone back.
    async fn submit(
        &mut self,
        at: Duration,
        attempt: Attempt,
        code: &str,
        address: &str,
        service: &mut Service,
    ) {
        let submission = Submission {
            phone: &attempt.phone,
            address,
            code,
            challenge_id: None,
        };
        let Checked::SignedIn { .. } = service.check(at, submission).await else {
            panic!("a right code is refused");
        };
        if attempt.route == Route::SignUp {
            self.registered[attempt.range].push(attempt.phone);
        }
    }
}

impl Attacker for Pumper<'_> {
    fn next_at(&self) -> Option<Duration> {
        Some(self.times.next)
    }

    async fn act(&mut self, service: &mut Service, outcome: &mut Outcome) {
        let at = self.times.take(&mut self.random);
        let attempt = self.next_attempt();
        outcome.attempts += 1;
        let range = &self.world.attacked[attempt.range];
        if let Some(by) = self.refusals.by(at, range) {
            count(&mut outcome.attacker_refusals, by);
            return;
        }
        let addresses = &self.world.attacker_addresses;
        let address = &addresses[self.random.random_range(0..addresses.len())];
        let ask = Ask {
            route: attempt.route,
            phone: &attempt.phone,
            address,
            device_token: None,
        };
        match service.ask(at, ask).await {
            Asked::Sent(challenge) => {
                outcome.count_attacker_message(&challenge);
                if self.walk == Walk::AsOwner {
                    self.submit(at, attempt, &challenge.code, address, service)
                        .await;
                }
            }
            Asked::Refused(refusal) => {
                count(&mut outcome.attacker_refusals, &refusal.by);
                if refusal.by.starts_with("range") {
                    self.refusals.remember(at, range, refusal);
                }
            }
            Asked::Registration => count(&mut outcome.attacker_refusals, "registration"),
            Asked::Rejected => panic!("the provider rejects nobody"),
        }
    }
}
