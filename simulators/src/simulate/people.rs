//! The honest people of a day: who they are, where they sit, when they come, how patient they are.

use std::{collections::HashSet, f64::consts::TAU, time::Duration};

use rand::{RngExt, rngs::ChaCha8Rng};

use crate::countries::{self, Numbers, Range};

pub const DAY: Duration = Duration::from_hours(24);

/// Addresses of mobile carriers, each for as many people as its place in a Zipf distribution gives
/// it.
pub const CARRIERS: usize = 30;
/// Of ten people, how many come from these addresses.
const BEHIND_CARRIERS: usize = 4;
/// The same for offices, where everybody signs up within the hour in which they are told to.
const BEHIND_OFFICES: usize = 1;
const PEOPLE_OF_AN_OFFICE: usize = 50;
/// Of a thousand people, how many have a number in a range whose operator pays for messages.
const IN_PAID_RANGES: u32 = 20;

/// The people who come every day.
#[derive(Clone, Copy)]
pub struct Population {
    pub a_day: usize,
    /// They all have numbers of a few ranges.
    pub is_town: bool,
    /// A fifth never submits the code that was sent.
    pub abandons: bool,
}

#[derive(Clone)]
pub struct Person {
    pub phone: String,
    pub address: String,
    /// The time of the first request, counted from the day's midnight.
    pub comes_at: Duration,
    /// The longest `Retry-After` that is waited for.
    pub patience: Duration,
    pub abandons: bool,
    /// The seed of the person's own luck, so that it does not change with what happens to others.
    pub chance: u64,
}

impl Population {
    /// The people of one day. No two of them, nor of the numbers in `taken`, have the same number.
    pub fn draw(
        self,
        numbers: &Numbers,
        ranges: &[Range],
        taken: &mut HashSet<String>,
        random: &mut ChaCha8Rng,
    ) -> Vec<Person> {
        let offices = (self.a_day * BEHIND_OFFICES / 10).div_ceil(PEOPLE_OF_AN_OFFICE);
        let opening: Vec<Duration> = (0..offices)
            .map(|_| Duration::from_secs(random.random_range(9 * 3600..15 * 3600)))
            .collect();
        (0..self.a_day)
            .map(|place| {
                let (address, comes_at) = match place % 10 {
                    0..BEHIND_CARRIERS => {
                        (carrier_address(zipf(CARRIERS, random)), time_of_day(random))
                    }
                    BEHIND_CARRIERS => {
                        let office = place / 10 % offices;
                        let delay =
                            Duration::from_secs_f64(random.random::<f64>().powi(2) * 3600.0);
                        (format!("192.0.2.{office}"), opening[office] + delay)
                    }
                    _ => (home_address(random), time_of_day(random)),
                };
                Person {
                    phone: self.draw_number(numbers, ranges, taken, random),
                    address,
                    comes_at,
                    patience: patience(random),
                    abandons: random.random_ratio(1, 5) && self.abandons,
                    chance: random.random(),
                }
            })
            .collect()
    }

    /// Most numbers lie where chance puts them; some in paid ranges, because an operator who shares
    /// its revenue also has customers.
    fn draw_number(
        self,
        numbers: &Numbers,
        ranges: &[Range],
        taken: &mut HashSet<String>,
        random: &mut ChaCha8Rng,
    ) -> String {
        loop {
            let (mut phone, country) = numbers.draw(random);
            let of_this_country = if self.is_town {
                ranges
            } else {
                let per_country = ranges.len() / countries::COUNT;
                &ranges[country * per_country..][..per_country]
            };
            if self.is_town || random.random_ratio(IN_PAID_RANGES, 1000) {
                let range = &of_this_country[random.random_range(0..of_this_country.len())];
                phone = countries::number(range, random.random_range(0..1000));
            }
            if taken.insert(phone.clone()) {
                return phone;
            }
        }
    }
}

pub fn carrier_address(place: usize) -> String {
    format!("100.64.0.{place}")
}

pub fn home_address(random: &mut ChaCha8Rng) -> String {
    let place = random.random_range(0..u32::MAX);
    format!("2001:db8:{:x}:{:x}::1", place >> 16, place & 0xffff)
}

/// Few come at four in the morning, most in the afternoon: seven times as many.
pub fn time_of_day(random: &mut ChaCha8Rng) -> Duration {
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
