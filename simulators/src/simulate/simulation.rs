//! The course of a scenario: everything that people and the attacker do, in the order of its time.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::{
    attackers::Attacker,
    outcome::{Day, Group, Outcome, Role, count},
    people::DAY,
    service::{Ask, Asked, Challenge, Checked, Refusal, Service, Submission},
    world::{Visit, World},
};

/// The probability that a message arrives while its reader still waits for it.
const ARRIVES: f64 = 0.9;
/// The probability that a code is mistyped.
const MISTYPED: f64 = 0.08;
/// After so many codes a person gives up.
const ASKS: u32 = 3;
/// The number of retries of a refused person.
const RETRIES: u32 = 2;
/// The time for which a locked-out victim retries.
const VICTIMS_PATIENCE: Duration = Duration::from_mins(150);

pub struct Simulation<'a, A> {
    world: &'a World,
    service: Service,
    attacker: A,
    visitors: Vec<Visitor>,
    events: BinaryHeap<Reverse<Event>>,
    scheduled: usize,
    /// The device tokens of everybody who got in, by phone.
    device_tokens: HashMap<String, String>,
    outcome: Outcome,
}

struct Visitor {
    visit: Visit,
    /// Counted from the warm-up day.
    day: usize,
    came_at: Duration,
    random: ChaCha8Rng,
    device_token: Option<String>,
    asks: u32,
    retries: u32,
}

struct Event {
    at: Duration,
    /// Of two events at one time the older one comes first.
    number: usize,
    visitor: usize,
    step: Step,
}

/// A visitor's next step.
#[derive(Clone)]
enum Step {
    Ask,
    Submit(Challenge),
}

impl<'a, A: Attacker> Simulation<'a, A> {
    pub fn new(world: &'a World, service: Service, attacker: A) -> Self {
        Self {
            world,
            service,
            attacker,
            visitors: Vec::new(),
            events: BinaryHeap::new(),
            scheduled: 0,
            device_tokens: HashMap::new(),
            outcome: Outcome::default(),
        }
    }

    /// Simulates the warm-up day, whose people are not counted, and so many days after it.
    pub async fn run(mut self, days: usize) -> Outcome {
        for day in 0..=days {
            let midnight = DAY * u32::try_from(day).unwrap();
            if day > 0 {
                self.outcome.days.push(Day::default());
            }
            for visit in self.world.visits(day) {
                self.admit(visit, day, midnight);
            }
            self.run_until(midnight + DAY).await;
        }
        // Those who came late on the last day.
        while let Some(Reverse(event)) = self.events.pop() {
            self.step(event).await;
        }
        self.outcome.rejected_messages = self.service.rejected_messages();
        self.outcome
    }

    fn admit(&mut self, visit: Visit, day: usize, midnight: Duration) {
        let device_token = match visit.role {
            Role::KnownDevice | Role::VictimOnKnownDevice => {
                let token = self.device_tokens.get(&visit.person.phone);
                if token.is_none() {
                    // Never got in on the warm-up day.
                    return;
                }
                token.cloned()
            }
            Role::Attacked | Role::Outside | Role::VictimOnNewDevice => None,
        };
        let came_at = midnight + visit.person.comes_at;
        let visitor = self.visitors.len();
        self.visitors.push(Visitor {
            random: ChaCha8Rng::seed_from_u64(visit.person.chance),
            visit,
            day,
            came_at,
            device_token,
            asks: 0,
            retries: 0,
        });
        if !self.visitors[visitor].visit.person.abandons {
            self.count(visitor, |group| group.people += 1);
        }
        self.schedule(visitor, came_at, Step::Ask);
    }

    async fn run_until(&mut self, end: Duration) {
        loop {
            let event_at = self.events.peek().map(|Reverse(event)| event.at);
            let attack_at = self.attacker.next_at();
            let next = event_at.into_iter().chain(attack_at).min();
            let Some(at) = next.filter(|&at| at < end) else {
                return;
            };
            if event_at != Some(at) {
                let Self {
                    service, outcome, ..
                } = self;
                self.attacker.act(service, outcome).await;
            } else if let Some(Reverse(event)) = self.events.pop() {
                self.step(event).await;
            }
        }
    }

    async fn step(&mut self, event: Event) {
        let Event {
            at, visitor, step, ..
        } = event;
        match step {
            Step::Ask => self.ask(at, visitor).await,
            Step::Submit(challenge) => self.submit(at, visitor, challenge).await,
        }
    }

    async fn ask(&mut self, at: Duration, visitor: usize) {
        let who = &mut self.visitors[visitor];
        let ask = Ask {
            route: who.visit.route,
            phone: &who.visit.person.phone,
            address: &who.visit.person.address,
            device_token: who.device_token.as_deref(),
        };
        match self.service.ask(at, ask).await {
            Asked::Sent(challenge) => {
                who.asks += 1;
                if who.day > 0 && !challenge.is_shared {
                    self.outcome.people_messages += 1;
                }
                if who.visit.person.abandons {
                    return;
                }
                if who.random.random_bool(ARRIVES) {
                    let next = at + who.seconds(8, 40);
                    self.schedule(visitor, next, Step::Submit(challenge));
                } else if who.asks < ASKS {
                    // The cool-down, and a while to notice that it is over.
                    let next = at + who.seconds(31, 90);
                    self.schedule(visitor, next, Step::Ask);
                } else {
                    self.count(visitor, |group| group.undelivered += 1);
                    self.give_up(visitor, "messages");
                }
            }
            Asked::Refused(refusal) => self.refuse(at, visitor, &refusal, Step::Ask),
            // Somebody who logs in never got in on the warm-up day.
            Asked::Registration => self.give_up(visitor, "registration"),
            Asked::Rejected => panic!("people's provider rejects nobody"),
        }
    }

    async fn submit(&mut self, at: Duration, visitor: usize, challenge: Challenge) {
        let who = &mut self.visitors[visitor];
        let is_mistyped = who.random.random_bool(MISTYPED);
        let mistyped = is_mistyped.then(|| harness::wrong(&challenge.code));
        let submission = Submission {
            phone: &who.visit.person.phone,
            address: &who.visit.person.address,
            code: mistyped.as_ref().unwrap_or(&challenge.code),
            challenge_id: Some(&challenge.id),
        };
        match self.service.check(at, submission).await {
            Checked::SignedIn { device_token } => {
                let phone = who.visit.person.phone.clone();
                self.device_tokens.insert(phone, device_token);
                let seconds = at.saturating_sub(who.came_at).as_secs();
                self.count(visitor, |group| {
                    group.got_in += 1;
                    group.seconds += seconds;
                    group.longest = group.longest.max(seconds);
                });
            }
            Checked::Wrong { .. } => {
                let next = at + who.seconds(4, 20);
                self.schedule(visitor, next, Step::Submit(challenge));
            }
            Checked::Expired if who.asks < ASKS => {
                let next = at + who.seconds(4, 20);
                self.schedule(visitor, next, Step::Ask);
            }
            Checked::Expired => self.give_up(visitor, "expired"),
            Checked::Refused(refusal) => {
                self.refuse(at, visitor, &refusal, Step::Submit(challenge));
            }
        }
    }

    /// Whoever is patient enough comes back when told to, or a little later.
    fn refuse(&mut self, at: Duration, visitor: usize, refusal: &Refusal, step: Step) {
        let who = &mut self.visitors[visitor];
        if who.day > 0 {
            count(&mut self.outcome.people_refusals, &refusal.by);
        }
        if who.waits(at, refusal.retry_after) {
            who.retries += 1;
            let next = at + refusal.retry_after + who.seconds(0, 10);
            self.schedule(visitor, next, step);
        } else {
            self.give_up(visitor, &refusal.by);
        }
    }

    fn give_up(&mut self, visitor: usize, because_of: &str) {
        if self.visitors[visitor].day > 0 {
            count(&mut self.outcome.gave_up, because_of);
        }
    }

    /// Counts a visitor in its group, unless it is one of the warm-up day's.
    fn count(&mut self, visitor: usize, change: impl FnOnce(&mut Group)) {
        let Visitor { day, visit, .. } = &self.visitors[visitor];
        if let Some(day) = day.checked_sub(1) {
            let groups = &mut self.outcome.days[day].groups;
            change(groups.entry(visit.role).or_default());
        }
    }

    fn schedule(&mut self, visitor: usize, at: Duration, step: Step) {
        self.scheduled += 1;
        self.events.push(Reverse(Event {
            at,
            number: self.scheduled,
            visitor,
            step,
        }));
    }
}

impl Visitor {
    fn waits(&self, at: Duration, retry_after: Duration) -> bool {
        match self.visit.role {
            Role::VictimOnKnownDevice | Role::VictimOnNewDevice => {
                at + retry_after <= self.came_at + VICTIMS_PATIENCE
            }
            Role::Attacked | Role::Outside | Role::KnownDevice => {
                self.retries < RETRIES && retry_after <= self.visit.person.patience
            }
        }
    }

    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.random.random_range(from * 1000..=to * 1000))
    }
}

impl Event {
    fn order(&self) -> (Duration, usize) {
        (self.at, self.number)
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Event {}
