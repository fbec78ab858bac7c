//! Somebody who asks for codes for registered numbers again and again, and submits none.

use std::time::Duration;

use rand::{RngExt, rngs::ChaCha8Rng};

use super::{Attacker, Refusals, Times};
use crate::{
    outcome::{Outcome, count},
    service::{Ask, Asked, Route, Service},
    world::{World, random},
};

pub struct LogIns<'a> {
    world: &'a World,
    times: Times,
    random: ChaCha8Rng,
    refusals: Refusals,
}

impl<'a> LogIns<'a> {
    pub fn new(world: &'a World, per_second: f64) -> Self {
        Self {
            world,
            times: Times::new(per_second),
            random: random("log-ins"),
            refusals: Refusals::default(),
        }
    }
}

impl Attacker for LogIns<'_> {
    fn next_at(&self) -> Option<Duration> {
        Some(self.times.next)
    }

    async fn act(&mut self, service: &mut Service, outcome: &mut Outcome) {
        let at = self.times.take(&mut self.random);
        let targets = self.world.targets();
        let phone = &targets[self.random.random_range(0..targets.len())].phone;
        outcome.attempts += 1;
        if let Some(by) = self.refusals.by(at, phone) {
            count(&mut outcome.attacker_refusals, by);
            return;
        }
        let addresses = &self.world.attacker_addresses;
        let ask = Ask {
            route: Route::LogIn,
            phone,
            address: &addresses[self.random.random_range(0..addresses.len())],
            device_token: None,
        };
        match service.ask(at, ask).await {
            Asked::Sent(challenge) => outcome.count_attacker_message(&challenge),
            Asked::Refused(refusal) => {
                count(&mut outcome.attacker_refusals, &refusal.by);
                if refusal.by == "phone" {
                    self.refusals.remember(at, phone, refusal);
                }
            }
            Asked::Registration => count(&mut outcome.attacker_refusals, "registration"),
            Asked::Rejected => panic!("the provider rejects nobody"),
        }
    }
}
