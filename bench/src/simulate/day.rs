//! One day under one attacker and one set of settings, and what came of it.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, HashMap},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use shared::{challenge::ChallengeId, phone::PhoneNumber};

use crate::{
    attacker::{Attacker, Attempt},
    people::{DAY, Person},
    service::{Answered, Asked, Refusal, Service},
};

/// The probability that a message arrives while its reader still waits for it.
const ARRIVES: f64 = 0.9;
/// The probability that a code is mistyped.
const MISTYPED: f64 = 0.08;
/// Who got no message after asking so often gives up.
const ASKS: u32 = 3;
/// How often somebody who was refused tries again.
const RETRIES: u32 = 2;

/// What happened to a group of people.
#[derive(Default)]
pub struct Group {
    pub people: u32,
    pub got_in: u32,
}

#[derive(Default)]
pub struct Outcome {
    pub everybody: Group,
    pub behind_shared_addresses: Group,
    pub in_walked_ranges: Group,
    pub honest_messages: u32,
    pub honest_refusals: BTreeMap<Refusal, u32>,
    /// Why people gave up: what refused them last, or `messages` that did not arrive.
    pub gave_up: BTreeMap<Refusal, u32>,
    pub attempts: u32,
    pub attacker_messages: u32,
    pub attacker_refusals: BTreeMap<Refusal, u32>,
    /// When a send to a country whose conversion is low was first recorded, after midnight.
    pub first_low_country: Option<Duration>,
    /// The same for a range.
    pub first_low_range: Option<Duration>,
}

/// What somebody is about to do.
enum Step {
    Ask,
    Answer(ChallengeId),
}

struct Event {
    at: Duration,
    /// Of two events at one time the older one comes first.
    number: usize,
    person: usize,
    step: Step,
}

/// A person of either day.
struct Visitor<'a> {
    person: &'a Person,
    random: ChaCha8Rng,
    is_counted: bool,
    is_in_walked_range: bool,
    asks: u32,
    retries: u32,
}

pub struct Day<'a> {
    service: Service,
    attacker: Attacker<'a>,
    visitors: Vec<Visitor<'a>>,
    events: BinaryHeap<Reverse<Event>>,
    scheduled: usize,
    /// Until when a limit refuses, of those that its attempts share.
    used_up: HashMap<(Refusal, String), Duration>,
    outcome: Outcome,
}

impl<'a> Day<'a> {
    /// The attack lasts from midnight to midnight of the second day; only that day's people count.
    /// The day before it uses the daily limits up as much as they are on any day.
    pub fn new(
        service: Service,
        attacker: Attacker<'a>,
        yesterday: &'a [Person],
        today: &'a [Person],
    ) -> Self {
        let mut this = Self {
            service,
            attacker,
            visitors: Vec::new(),
            events: BinaryHeap::new(),
            scheduled: 0,
            used_up: HashMap::new(),
            outcome: Outcome::default(),
        };
        for (people, midnight) in [(yesterday, Duration::ZERO), (today, DAY)] {
            for person in people {
                let visitor = this.visitors.len();
                this.visitors.push(Visitor {
                    is_counted: midnight == DAY,
                    is_in_walked_range: this.attacker.walks(&person.phone),
                    person,
                    random: ChaCha8Rng::seed_from_u64(person.chance),
                    asks: 0,
                    retries: 0,
                });
                this.count(visitor, |group| group.people += 1);
                this.schedule(visitor, midnight + person.comes_at, Step::Ask);
            }
        }
        this
    }

    /// Lets everything happen, in the order of its time.
    pub async fn run(mut self) -> Outcome {
        let mut attempt = self.attacker.next();
        loop {
            let next_event = self.events.peek().map(|Reverse(event)| event.at);
            match attempt.as_ref().map(|attempt| DAY + attempt.at) {
                Some(at) if next_event.is_none_or(|event| at < event) => {
                    self.attack(at, attempt.as_ref().unwrap()).await;
                    attempt = self.attacker.next();
                }
                _ => match self.events.pop() {
                    Some(Reverse(event)) => self.step(event).await,
                    None => return self.outcome,
                },
            }
        }
    }

    async fn attack(&mut self, at: Duration, attempt: &Attempt<'_>) {
        self.outcome.attempts += 1;
        if let Some(by) = self.still_refused(at, attempt.phone) {
            count(&mut self.outcome.attacker_refusals, by);
            return;
        }
        let asked = self.service.ask(at, attempt.phone, &attempt.address).await;
        match asked {
            Asked::Sent {
                low_range,
                low_country,
                ..
            } => {
                self.outcome.attacker_messages += 1;
                self.outcome.note_low(at, low_range, low_country);
            }
            Asked::Refused { by, retry_after } => {
                count(&mut self.outcome.attacker_refusals, by);
                if let Some(key) = shared_by(by, attempt.phone) {
                    self.used_up.insert(key, at + retry_after);
                }
            }
            Asked::AlreadyRegistered => {
                count(&mut self.outcome.attacker_refusals, "registered");
            }
        }
    }

    /// The limit that is known to refuse whatever the attacker asks for now. A refusal takes nothing
    /// and its end is exact, so Redis need not be asked: at five attempts a second that is most of
    /// them.
    fn still_refused(&self, at: Duration, phone: &PhoneNumber) -> Option<Refusal> {
        if self.service.is_registered(phone) {
            return None;
        }
        ["total", "country", "range"]
            .into_iter()
            .filter_map(|by| Some((by, *self.used_up.get(&shared_by(by, phone)?)?)))
            .filter(|&(_, until)| at < until)
            .max_by_key(|&(_, until)| until)
            .map(|(by, _)| by)
    }

    async fn step(&mut self, event: Event) {
        let Event {
            at, person, step, ..
        } = event;
        match step {
            Step::Ask => self.ask(at, person).await,
            Step::Answer(challenge) => self.answer(at, person, challenge).await,
        }
    }

    async fn ask(&mut self, at: Duration, visitor: usize) {
        let who = &mut self.visitors[visitor];
        who.asks += 1;
        let asked = self.service.ask(at, &who.person.phone, &who.person.address);
        match asked.await {
            Asked::Sent {
                challenge,
                low_range,
                low_country,
            } => {
                let arrives = who.random.random_bool(ARRIVES);
                let (next, step) = if arrives {
                    (who.seconds(8, 40), Some(Step::Answer(challenge)))
                } else {
                    // The cool-down, and a while to notice that it is over.
                    (who.seconds(31, 90), (who.asks < ASKS).then_some(Step::Ask))
                };
                if who.is_counted {
                    self.outcome.honest_messages += 1;
                    self.outcome.note_low(at, low_range, low_country);
                }
                match step {
                    Some(step) => self.schedule(visitor, at + next, step),
                    None => self.give_up(visitor, "messages"),
                }
            }
            Asked::Refused { by, retry_after } => {
                who.asks -= 1;
                self.refuse(at, visitor, by, retry_after, Step::Ask);
            }
            // Only if two have one number, and no two have.
            Asked::AlreadyRegistered => self.give_up(visitor, "registered"),
        }
    }

    async fn answer(&mut self, at: Duration, visitor: usize, challenge: ChallengeId) {
        let who = &mut self.visitors[visitor];
        let Person { phone, address, .. } = who.person;
        let is_right = !who.random.random_bool(MISTYPED);
        let answered = self
            .service
            .answer(at, phone, address, &challenge, is_right)
            .await;
        match answered {
            Answered::In => self.count(visitor, |group| group.got_in += 1),
            Answered::Wrong => {
                let next = at + who.seconds(4, 20);
                self.schedule(visitor, next, Step::Answer(challenge));
            }
            Answered::Refused { by, retry_after } => {
                self.refuse(at, visitor, by, retry_after, Step::Answer(challenge));
            }
            // Somebody else asked for a code for this number meanwhile.
            Answered::NothingPending if who.asks < ASKS => {
                let next = at + who.seconds(4, 20);
                self.schedule(visitor, next, Step::Ask);
            }
            Answered::NothingPending => self.give_up(visitor, "replaced codes"),
        }
    }

    /// Whoever is patient enough comes back when told to, or a little later.
    fn refuse(&mut self, at: Duration, visitor: usize, by: Refusal, wait: Duration, step: Step) {
        let who = &mut self.visitors[visitor];
        if who.is_counted {
            count(&mut self.outcome.honest_refusals, by);
        }
        // The header has whole seconds, rounded up.
        let told = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        if who.retries < RETRIES && told <= who.person.patience {
            who.retries += 1;
            let next = at + told + who.seconds(0, 10);
            self.schedule(visitor, next, step);
        } else {
            self.give_up(visitor, by);
        }
    }

    fn give_up(&mut self, visitor: usize, because_of: Refusal) {
        if self.visitors[visitor].is_counted {
            count(&mut self.outcome.gave_up, because_of);
        }
    }

    /// Counts a person in each group that it belongs to.
    fn count(&mut self, visitor: usize, change: impl Fn(&mut Group)) {
        let who = &self.visitors[visitor];
        if !who.is_counted {
            return;
        }
        change(&mut self.outcome.everybody);
        if who.person.shares_address {
            change(&mut self.outcome.behind_shared_addresses);
        }
        if who.is_in_walked_range {
            change(&mut self.outcome.in_walked_ranges);
        }
    }

    fn schedule(&mut self, person: usize, at: Duration, step: Step) {
        self.scheduled += 1;
        self.events.push(Reverse(Event {
            at,
            number: self.scheduled,
            person,
            step,
        }));
    }
}

impl Visitor<'_> {
    fn seconds(&mut self, from: u32, to: u32) -> Duration {
        Duration::from_millis(
            self.random
                .random_range(u64::from(from) * 1000..=u64::from(to) * 1000),
        )
    }
}

impl Outcome {
    fn note_low(&mut self, at: Duration, low_range: bool, low_country: bool) {
        let since_midnight = at.saturating_sub(DAY);
        if low_range {
            self.first_low_range.get_or_insert(since_midnight);
        }
        if low_country {
            self.first_low_country.get_or_insert(since_midnight);
        }
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

/// The limit that all numbers of a range or a country have together, or all there are.
fn shared_by(limit: Refusal, phone: &PhoneNumber) -> Option<(Refusal, String)> {
    let subject = match limit {
        "total" => "",
        "country" => phone.country(),
        "range" => phone.range(),
        _ => return None,
    };
    Some((limit, subject.to_owned()))
}

fn count(refusals: &mut BTreeMap<Refusal, u32>, by: Refusal) {
    *refusals.entry(by).or_default() += 1;
}
