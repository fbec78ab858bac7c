//! Somebody who asks for a code for each of some numbers as soon as the limits let, all day, from
//! an address of its own each time.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use rand::rngs::ChaCha8Rng;

use super::{Attacker, fresh_address, guess};
use crate::{
    outcome::{Outcome, count},
    people::DAY,
    service::{Ask, Asked, Challenge, Route, Service},
    world::random,
};

/// The cool-down that the response to a sent code tells.
pub const COOL_DOWN: Duration = Duration::from_secs(30);
/// Wrong codes per challenge with its id, and as many without.
pub const GUESSES: usize = 5;
/// The pause of whoever knows no better time.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Guesses at every code, with its id and without.
    Guess,
    /// The same, and at the codes that the victims ask for, whose ids it does not know.
    Lockout,
    /// Signs up with numbers that the provider rejects.
    Cost,
}

pub struct Persistent {
    purpose: Purpose,
    numbers: Vec<Number>,
    actions: BinaryHeap<Reverse<(Duration, usize, Action)>>,
    random: ChaCha8Rng,
}

struct Number {
    phone: String,
    /// The code that was sent last.
    last: Option<Challenge>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Ask,
    GuessAtNewest,
}

impl Persistent {
    pub fn new(purpose: Purpose, phones: impl IntoIterator<Item = String>) -> Self {
        let numbers: Vec<_> = phones
            .into_iter()
            .map(|phone| Number { phone, last: None })
            .collect();
        let mut actions = BinaryHeap::new();
        for number in 0..numbers.len() {
            actions.push(Reverse((DAY, number, Action::Ask)));
            if purpose == Purpose::Lockout {
                actions.push(Reverse((DAY + PAUSE, number, Action::GuessAtNewest)));
            }
        }
        Self {
            purpose,
            numbers,
            actions,
            random: random("persistent"),
        }
    }

    /// Returns the pause until the limits may let another code out; `None` if never.
    async fn ask(
        &mut self,
        at: Duration,
        number: usize,
        service: &mut Service,
        outcome: &mut Outcome,
    ) -> Option<Duration> {
        let address = fresh_address(&mut self.random);
        let mut ask = Ask {
            route: Route::LogIn,
            phone: &self.numbers[number].phone,
            address: &address,
            device_token: None,
        };
        outcome.attempts += 1;
        let asked = if self.purpose == Purpose::Cost {
            ask.route = Route::SignUp;
            service.ask_rejected(at, ask).await
        } else {
            service.ask(at, ask).await
        };
        match asked {
            Asked::Sent(challenge) => {
                outcome.count_attacker_message(&challenge);
                self.numbers[number].last = Some(challenge);
                self.guess(at, number, true, service, outcome).await;
                self.guess(at, number, false, service, outcome).await;
                Some(COOL_DOWN)
            }
            Asked::Refused(refusal) => {
                count(&mut outcome.attacker_refusals, &refusal.by);
                Some(refusal.retry_after)
            }
            Asked::Rejected => Some(PAUSE),
            // Its owner did not get in on the warm-up day.
            Asked::Registration => None,
        }
    }

    /// Guesses at the last challenge by its id, or at the newest, until no attempt is left.
    async fn guess(
        &mut self,
        at: Duration,
        number: usize,
        with_id: bool,
        service: &mut Service,
        outcome: &mut Outcome,
    ) {
        let Number { phone, last } = &self.numbers[number];
        let Some(challenge) = last else { return };
        for _ in 0..GUESSES {
            let random = &mut self.random;
            if !guess(at, phone, challenge, with_id, random, service, outcome).await {
                return;
            }
        }
    }
}

impl Attacker for Persistent {
    fn next_at(&self) -> Option<Duration> {
        self.actions.peek().map(|Reverse((at, ..))| *at)
    }

    async fn act(&mut self, service: &mut Service, outcome: &mut Outcome) {
        let Some(Reverse((at, number, action))) = self.actions.pop() else {
            return;
        };
        let pause = match action {
            Action::Ask => self.ask(at, number, service, outcome).await,
            Action::GuessAtNewest => {
                self.guess(at, number, false, service, outcome).await;
                Some(PAUSE)
            }
        };
        if let Some(pause) = pause {
            self.actions.push(Reverse((at + pause, number, action)));
        }
    }
}
