//! The world of one scenario: numbers, addresses, and who comes on which day. All of it from one
//! seed.

use std::{collections::HashSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};

use crate::{
    countries::{self, Numbers, Range, range_of},
    outcome::Role,
    people::{self, CARRIERS, Person},
    scenarios::{Attack, Scenario},
    service::Route,
};

const SEED: u64 = 20_270_101;

/// The attacker's addresses.
pub const ADDRESSES: usize = 1_000;
/// Of these, how many are carriers' that honest people come from too: hired phones.
const HIRED_PHONES: usize = 10;
/// Ranges of the dense town.
const TOWN: usize = 40;

/// The registered numbers, by their place in `World::registered`: those of people who come back on
/// known devices, those that an attacker goes for, and those of people who log in on a new device.
/// Each group shares some with the next.
const ON_KNOWN_DEVICES: usize = 500;
const FIRST_TARGET: usize = 400;
const LOG_INS: usize = 500;
const LOG_INS_OF_TARGETS: usize = 100;
/// The number of known devices in attacked ranges, and of those behind attacked addresses.
const EXPOSED_DEVICES: usize = 50;
/// The hours at which a locked-out victim comes on a known device and on a new one.
const VICTIM_COMES: [(u64, Role); 6] = [
    (8, Role::VictimOnKnownDevice),
    (10, Role::VictimOnNewDevice),
    (13, Role::VictimOnKnownDevice),
    (15, Role::VictimOnNewDevice),
    (18, Role::VictimOnKnownDevice),
    (20, Role::VictimOnNewDevice),
];

pub struct World {
    /// The ranges whose owner pays the attacker.
    pub attacked: Vec<Range>,
    pub attacker_addresses: Vec<String>,
    /// The people of the warm-up day in an order of chance, who are registered from then on.
    registered: Vec<Person>,
    days: Vec<Vec<Person>>,
    scenario: &'static Scenario,
}

/// One person's wish to get in on one day.
pub struct Visit {
    pub person: Person,
    pub role: Role,
    pub route: Route,
}

/// A generator of its own for each use, so that one use does not change what another draws.
pub fn random(purpose: &str) -> ChaCha8Rng {
    let sum: u64 = purpose.bytes().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    ChaCha8Rng::seed_from_u64(SEED ^ sum)
}

impl World {
    pub fn new(scenario: &'static Scenario) -> Self {
        let numbers = Numbers::new();
        let mut chance = random("ranges");
        let paid = numbers.ranges(
            scenario.attack.paid_ranges() / countries::COUNT,
            &mut chance,
        );
        let walked = scenario.attack.ranges();
        let attacked: Vec<Range> = match walked {
            0 => Vec::new(),
            count => paid.iter().step_by(paid.len() / count).cloned().collect(),
        };
        let town = numbers.ranges_in(countries::OF_THE_TOWN, TOWN, &mut chance);
        let homes = if scenario.people.is_town {
            &town
        } else {
            &paid
        };
        let mut taken = HashSet::new();
        let mut chance = random("people");
        let days: Vec<_> = (0..=scenario.days)
            .map(|_| {
                scenario
                    .people
                    .draw(&numbers, homes, &mut taken, &mut chance)
            })
            .collect();
        let hired = hired_phones();
        let registered = registered(&days[0], &attacked, &hired);
        Self {
            attacked,
            attacker_addresses: attacker_addresses(hired),
            registered,
            days,
            scenario,
        }
    }

    /// The registered numbers that the attacker goes for.
    pub fn targets(&self) -> &[Person] {
        &self.registered[FIRST_TARGET..][..self.scenario.attack.targets()]
    }

    /// The visitors of a day, counted from the warm-up day.
    pub fn visits(&self, day: usize) -> Vec<Visit> {
        let attacked: HashSet<&str> = self.attacked.iter().map(String::as_str).collect();
        let sign_up = |person: &Person| Visit {
            role: if attacked.contains(range_of(&person.phone)) {
                Role::Attacked
            } else {
                Role::Outside
            },
            person: person.clone(),
            route: Route::SignUp,
        };
        let mut visits: Vec<_> = self.days[day].iter().map(sign_up).collect();
        if day > 0 && self.scenario.is_attacked() {
            visits.extend(self.returning(day));
        }
        visits
    }

    /// Those of the warm-up day who come back.
    fn returning(&self, day: usize) -> Vec<Visit> {
        let mut chance = random(&format!("returning on day {day}"));
        let mut again = |person: &Person, role: Role| Visit {
            person: Person {
                comes_at: people::time_of_day(&mut chance),
                abandons: false,
                chance: chance.random(),
                ..person.clone()
            },
            role,
            route: Route::LogIn,
        };
        let on_known_devices = self.registered[..ON_KNOWN_DEVICES].iter();
        let mut visits: Vec<_> = on_known_devices
            .map(|person| again(person, Role::KnownDevice))
            .collect();
        let targets = self.targets();
        match self.scenario.attack {
            Attack::LogIns { .. } => {
                let first = FIRST_TARGET + targets.len() - LOG_INS_OF_TARGETS;
                for (place, person) in self.registered[first..][..LOG_INS].iter().enumerate() {
                    let is_target = place < LOG_INS_OF_TARGETS;
                    let role = if is_target {
                        Role::Attacked
                    } else {
                        Role::Outside
                    };
                    visits.push(again(person, role));
                }
            }
            Attack::Lockout { .. } => {
                for person in targets {
                    for (hour, role) in VICTIM_COMES {
                        let mut visit = again(person, role);
                        let minutes = visit.person.comes_at.as_secs() % 60;
                        visit.person.comes_at = Duration::from_secs(hour * 3600 + minutes * 60);
                        visits.push(visit);
                    }
                }
            }
            _ => {}
        }
        visits
    }
}

fn hired_phones() -> Vec<String> {
    let mut carriers: Vec<usize> = (0..CARRIERS).collect();
    carriers.shuffle(&mut random("hired phones"));
    let hired = carriers.into_iter().take(HIRED_PHONES);
    hired.map(people::carrier_address).collect()
}

fn attacker_addresses(hired: Vec<String>) -> Vec<String> {
    let rented = HIRED_PHONES..ADDRESSES;
    let rented = rented.map(|place| format!("198.18.{}.{}", place / 256, place % 256));
    hired.into_iter().chain(rented).collect()
}

/// Those who submit their codes, first some who live in attacked ranges and some behind attacked
/// addresses.
fn registered(people: &[Person], attacked: &[Range], hired: &[String]) -> Vec<Person> {
    let mut shuffled: Vec<Person> = people.iter().filter(|p| !p.abandons).cloned().collect();
    shuffled.shuffle(&mut random("registered"));
    let mut exposed = Vec::new();
    let is_in_attacked_range = |person: &mut Person| {
        attacked
            .iter()
            .any(|range| range == range_of(&person.phone))
    };
    exposed.extend(
        shuffled
            .extract_if(.., is_in_attacked_range)
            .take(EXPOSED_DEVICES),
    );
    let is_behind_hired_phone = |person: &mut Person| hired.contains(&person.address);
    exposed.extend(
        shuffled
            .extract_if(.., is_behind_hired_phone)
            .take(EXPOSED_DEVICES),
    );
    exposed.extend(shuffled);
    exposed
}
