//! Somebody who is paid for the messages that reach certain ranges of numbers, and asks for codes
//! that nobody will answer with.

use std::{collections::HashSet, time::Duration};

use rand::{RngExt, rngs::ChaCha8Rng};
use shared::{challenge::ClientAddress, phone::PhoneNumber};

use crate::{
    countries::Range,
    people::{self, DAY},
};

pub const ADDRESSES: usize = 1_000;
/// Of these addresses, how many are carriers' that honest people come from too: hired phones.
pub const HIRED_PHONES: usize = 10;

/// In which order the numbers are walked.
#[derive(Clone, Copy)]
pub enum Walk {
    /// Each attempt takes the next number of a range drawn anew.
    Scattered,
    /// A range from its first number to its last, then the next range.
    Sequential,
}

pub struct Attacker<'a> {
    ranges: Vec<&'a Range>,
    addresses: Vec<ClientAddress>,
    walk: Walk,
    per_second: f64,
    random: ChaCha8Rng,
    time: Duration,
    attempts: usize,
    next_in_range: Vec<usize>,
}

pub struct Attempt<'a> {
    /// Counted from the day's midnight.
    pub at: Duration,
    pub phone: &'a PhoneNumber,
    pub address: ClientAddress,
}

impl<'a> Attacker<'a> {
    /// One who owns every `ranges.len() / owned`th of the ranges.
    pub fn new(
        ranges: &'a [Range],
        owned: usize,
        walk: Walk,
        per_second: f64,
        mut random: ChaCha8Rng,
    ) -> Self {
        let ranges: Vec<&Range> = ranges.iter().step_by(ranges.len() / owned).collect();
        let mut hired = HashSet::new();
        while hired.len() < HIRED_PHONES {
            hired.insert(random.random_range(0..people::CARRIERS));
        }
        let mut hired: Vec<_> = hired.into_iter().collect();
        hired.sort_unstable();
        let rented = (HIRED_PHONES..ADDRESSES)
            .map(|place| people::address(&format!("198.18.{}.{}", place / 256, place % 256)));
        Self {
            addresses: hired
                .into_iter()
                .map(people::carrier_address)
                .chain(rented)
                .collect(),
            next_in_range: vec![0; ranges.len()],
            ranges,
            walk,
            per_second,
            random,
            time: Duration::ZERO,
            attempts: 0,
        }
    }

    /// Whether the number lies in a range that is walked.
    pub fn walks(&self, phone: &PhoneNumber) -> bool {
        self.ranges
            .iter()
            .any(|range| range[0].range() == phone.range())
    }

    fn next_number(&mut self) -> &'a PhoneNumber {
        let attempts = self.attempts;
        let range = match self.walk {
            Walk::Scattered => self.random.random_range(0..self.ranges.len()),
            Walk::Sequential => attempts / 1000 % self.ranges.len(),
        };
        let next = &mut self.next_in_range[range];
        let number = &self.ranges[range][*next % 1000];
        *next += 1;
        number
    }
}

/// The attempts of a day, at random times as the sum of many machines makes them.
impl<'a> Iterator for Attacker<'a> {
    type Item = Attempt<'a>;

    fn next(&mut self) -> Option<Attempt<'a>> {
        if self.per_second <= 0.0 {
            return None;
        }
        let pause = -(1.0 - self.random.random::<f64>()).ln() / self.per_second;
        self.time += Duration::from_secs_f64(pause);
        if self.time >= DAY {
            return None;
        }
        let phone = self.next_number();
        self.attempts += 1;
        Some(Attempt {
            at: self.time,
            phone,
            address: self.addresses[self.random.random_range(0..ADDRESSES)].clone(),
        })
    }
}
