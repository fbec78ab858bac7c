//! The outcome of a scenario, as its process writes it for the report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::service::Challenge;

/// The kinds of visits that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// A person in an attacked range, or with an attacked number.
    Attacked,
    /// Any other person.
    Outside,
    /// Somebody on a device that signed in before.
    KnownDevice,
    VictimOnKnownDevice,
    VictimOnNewDevice,
}

/// The outcome for the people of one role on one day.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Group {
    /// Without those who abandon.
    pub people: u32,
    pub got_in: u32,
    /// Those none of whose three messages arrived.
    pub undelivered: u32,
    /// The times until those who got in were in, in seconds: their sum, and the longest.
    pub seconds: u64,
    pub longest: u64,
}

/// A day after the warm-up.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Day {
    pub groups: BTreeMap<Role, Group>,
    pub attacker_messages: u32,
}

/// By the word of a limit, how often it refused.
pub type Refusals = BTreeMap<String, u32>;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub days: Vec<Day>,
    pub people_messages: u32,
    pub people_refusals: Refusals,
    /// The reasons why people gave up: the limit that refused them last, or `messages` that were
    /// lost.
    pub gave_up: Refusals,
    pub attempts: u32,
    pub attacker_refusals: Refusals,
    /// The attacker's wrong codes that were compared, by length.
    pub guesses: BTreeMap<usize, u32>,
    pub rejected_messages: usize,
}

impl Outcome {
    /// Counts the message to the attacker, if one went out.
    pub fn count_attacker_message(&mut self, challenge: &Challenge) {
        if let Some(day) = self.days.last_mut().filter(|_| !challenge.is_shared) {
            day.attacker_messages += 1;
        }
    }

    /// The odds that one of the attacker's guesses is right.
    pub fn chance_of_a_hit(&self) -> f64 {
        let odds = |(&length, &count): (&usize, &u32)| {
            f64::from(count) * 0.1f64.powi(i32::try_from(length).unwrap())
        };
        self.guesses.iter().map(odds).sum()
    }
}

impl Day {
    /// The groups of these roles as one.
    pub fn group(&self, roles: &[Role]) -> Group {
        let groups = roles.iter().filter_map(|role| self.groups.get(role));
        groups.copied().fold(Group::default(), Group::plus)
    }
}

impl Group {
    pub fn plus(self, other: Self) -> Self {
        Self {
            people: self.people + other.people,
            got_in: self.got_in + other.got_in,
            undelivered: self.undelivered + other.undelivered,
            seconds: self.seconds + other.seconds,
            longest: self.longest.max(other.longest),
        }
    }

    /// The share of those who got in.
    pub fn percent(self) -> f64 {
        100.0 * f64::from(self.got_in) / f64::from(self.people.max(1))
    }

    /// Those who did not get in although a message would have arrived.
    pub fn refused(self) -> u32 {
        self.people - self.got_in - self.undelivered
    }
}

/// Counts a refusal by this limit.
pub fn count(refusals: &mut Refusals, by: &str) {
    *refusals.entry(by.to_owned()).or_default() += 1;
}
