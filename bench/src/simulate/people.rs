//! The honest people of a day: who they are, where they sit, when they come, how patient they are.

use std::{collections::HashSet, f64::consts::TAU, time::Duration};

use rand::{RngExt, rngs::ChaCha8Rng};
use shared::{challenge::ClientAddress, phone::PhoneNumber};

use crate::countries::{self, Numbers, Range};

pub const PEOPLE: usize = 10_000;
pub const DAY: Duration = Duration::from_hours(24);

/// Addresses of mobile carriers and the like, each for as many people as its place in a Zipf
/// distribution gives it.
pub const CARRIERS: usize = 30;
const BEHIND_CARRIERS: usize = 4_000;
/// Addresses of offices, where everybody signs up within the hour in which they are told to.
const OFFICES: usize = 20;
const BEHIND_OFFICES: usize = 1_000;
/// Of a thousand people, how many have a number in a range that the attacker walks.
const IN_WALKED_RANGES: u32 = 20;

#[derive(Clone)]
pub struct Person {
    pub phone: PhoneNumber,
    pub address: ClientAddress,
    pub shares_address: bool,
    /// When they first ask for a code, counted from the day's midnight.
    pub comes_at: Duration,
    /// How long a `Retry-After` they put up with.
    pub patience: Duration,
    /// The seed of what else chance decides for them; of their own, so that one person's luck does not change
    /// with what happened to others.
    pub chance: u64,
}

/// The people of one day. No two of them, nor of the numbers in `taken`, have the same number.
pub fn people(
    numbers: &Numbers,
    walked: &[Range],
    taken: &mut HashSet<String>,
    random: &mut ChaCha8Rng,
) -> Vec<Person> {
    let offices: Vec<Duration> = (0..OFFICES)
        .map(|_| Duration::from_secs(random.random_range(9 * 3600..15 * 3600)))
        .collect();
    (0..PEOPLE)
        .map(|place| {
            let phone = loop {
                let phone = draw_number(numbers, walked, random);
                if taken.insert(phone.as_e164().to_owned()) {
                    break phone;
                }
            };
            let (address, comes_at) = if place < BEHIND_CARRIERS {
                (carrier_address(zipf(CARRIERS, random)), time_of_day(random))
            } else if place < BEHIND_CARRIERS + BEHIND_OFFICES {
                let office = place % OFFICES;
                let delay = Duration::from_secs_f64(random.random::<f64>().powi(2) * 3600.0);
                (
                    address(&format!("192.0.2.{office}")),
                    offices[office] + delay,
                )
            } else {
                let place = random.random_range(0..u32::MAX);
                let network = format!("2001:db8:{:x}:{:x}::1", place >> 16, place & 0xffff);
                (address(&network), time_of_day(random))
            };
            Person {
                phone,
                address,
                shares_address: place < BEHIND_CARRIERS + BEHIND_OFFICES,
                comes_at,
                patience: patience(random),
                chance: random.random(),
            }
        })
        .collect()
}

pub fn carrier_address(place: usize) -> ClientAddress {
    address(&format!("100.64.0.{place}"))
}

pub fn address(text: &str) -> ClientAddress {
    ClientAddress::parse(Some(text))
}

/// Most numbers lie where chance puts them; some in the attacker's ranges, because an operator who
/// shares its revenue also has customers.
fn draw_number(numbers: &Numbers, walked: &[Range], random: &mut ChaCha8Rng) -> PhoneNumber {
    let (phone, country) = numbers.draw(random);
    if random.random_ratio(IN_WALKED_RANGES, 1000) {
        let per_country = walked.len() / countries::COUNT;
        let range = &walked[country * per_country + random.random_range(0..per_country)];
        return range[random.random_range(0..range.len())].clone();
    }
    phone
}

/// Few come at four in the morning, most in the afternoon: seven times as many.
fn time_of_day(random: &mut ChaCha8Rng) -> Duration {
    loop {
        let day: f64 = random.random();
        let density = 1.0 - 0.75 * (TAU * (day - 4.0 / 24.0)).cos();
        if random.random::<f64>() * 1.75 < density {
            return DAY.mul_f64(day);
        }
    }
}

/// Half of the people wait a minute, most of the others ten, some an hour.
fn patience(random: &mut ChaCha8Rng) -> Duration {
    Duration::from_secs(match random.random_range(0..10) {
        0..5 => 60,
        5..8 => 600,
        _ => 3600,
    })
}

/// A place from 0, each drawn as often as one divided by it, counted from 1, says.
fn zipf(places: usize, random: &mut ChaCha8Rng) -> usize {
    let weight = |place: usize| 1.0 / f64::from(u32::try_from(place + 1).unwrap());
    let total: f64 = (0..places).map(weight).sum();
    let mut rest = random.random::<f64>() * total;
    (0..places)
        .find(|&place| {
            rest -= weight(place);
            rest < 0.0
        })
        .unwrap_or(places - 1)
}
