//! Somebody who first asks for all codes that the limits let out, and then guesses at all of them
//! while they are good, again and again: the order in which most guesses meet short codes.

use std::{cmp::Reverse, collections::BinaryHeap, mem, time::Duration};

use rand::rngs::ChaCha8Rng;

use super::{
    Attacker, fresh_address, guess,
    persistent::{COOL_DOWN, GUESSES},
};
use crate::{
    outcome::{Outcome, count},
    people::DAY,
    service::{Ask, Asked, Challenge, Route, Service},
    world::{World, random},
};

/// Of a round, the time for asking; the codes live for the whole of it.
const ASKING: Duration = Duration::from_secs(270);
const ROUND: Duration = Duration::from_secs(299);

pub struct Collector {
    phones: Vec<String>,
    /// The time at which the limits may admit another code, by phone.
    open_at: Vec<Duration>,
    collected: Vec<(usize, Challenge)>,
    round_ends: Duration,
    actions: BinaryHeap<Reverse<(Duration, Action)>>,
    random: ChaCha8Rng,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Ask { phone: usize },
    GuessAtAll,
}

impl Collector {
    pub fn new(world: &World) -> Self {
        let phones = world.targets().iter().map(|person| person.phone.clone());
        let phones: Vec<_> = phones.collect();
        let mut this = Self {
            open_at: vec![DAY; phones.len()],
            phones,
            collected: Vec::new(),
            round_ends: DAY,
            actions: BinaryHeap::new(),
            random: random("collector"),
        };
        this.begin_round();
        this
    }

    fn begin_round(&mut self) {
        let begins = self.round_ends;
        self.round_ends = begins + ROUND;
        let guess = (begins + ASKING, Action::GuessAtAll);
        self.actions.push(Reverse(guess));
        for phone in 0..self.phones.len() {
            self.ask_after(begins, phone);
        }
    }

    /// Asks when the limits may let a code out, if that is still in this round.
    fn ask_after(&mut self, time: Duration, phone: usize) {
        let at = self.open_at[phone].max(time);
        if at < self.round_ends.saturating_sub(ROUND) + ASKING {
            self.actions.push(Reverse((at, Action::Ask { phone })));
        }
    }

    async fn ask(
        &mut self,
        at: Duration,
        phone: usize,
        service: &mut Service,
        outcome: &mut Outcome,
    ) {
        let ask = Ask {
            route: Route::LogIn,
            phone: &self.phones[phone],
            address: &fresh_address(&mut self.random),
            device_token: None,
        };
        outcome.attempts += 1;
        let pause = match service.ask(at, ask).await {
            Asked::Sent(challenge) => {
                outcome.count_attacker_message(&challenge);
                self.collected.push((phone, challenge));
                COOL_DOWN
            }
            Asked::Refused(refusal) => {
                count(&mut outcome.attacker_refusals, &refusal.by);
                refusal.retry_after
            }
            // Its owner did not get in on the warm-up day.
            Asked::Registration | Asked::Rejected => return self.open_at[phone] = Duration::MAX,
        };
        self.open_at[phone] = at + pause;
        self.ask_after(at, phone);
    }

    async fn guess_at_all(&mut self, at: Duration, service: &mut Service, outcome: &mut Outcome) {
        for (phone, challenge) in mem::take(&mut self.collected) {
            let (phone, random) = (&self.phones[phone], &mut self.random);
            for with_id in [true, false] {
                for _ in 0..GUESSES {
                    if !guess(at, phone, &challenge, with_id, random, service, outcome).await {
                        break;
                    }
                }
            }
        }
    }
}

impl Attacker for Collector {
    fn next_at(&self) -> Option<Duration> {
        self.actions.peek().map(|Reverse((at, _))| *at)
    }

    async fn act(&mut self, service: &mut Service, outcome: &mut Outcome) {
        match self.actions.pop() {
            Some(Reverse((at, Action::Ask { phone }))) => {
                self.ask(at, phone, service, outcome).await;
            }
            Some(Reverse((at, Action::GuessAtAll))) => {
                self.guess_at_all(at, service, outcome).await;
                self.begin_round();
            }
            None => {}
        }
    }
}
