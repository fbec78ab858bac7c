//! The scenarios, with the least that each must come to.

use crate::{
    attackers::Walk,
    outcome::{Day, Outcome, Role},
    people::Population,
};

pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub people: Population,
    pub attack: Attack,
    /// Settings that are not at their default.
    pub settings: &'static [(&'static str, &'static str)],
    /// Days after the warm-up day. An attack lasts for all of them.
    pub days: usize,
    pub bars: &'static [Bar],
}

#[derive(Clone, Copy)]
pub enum Attack {
    None,
    /// Of so many paid ranges the attacker has `ranges`.
    Pumping {
        paid: usize,
        ranges: usize,
        per_second: f64,
        walk: Walk,
    },
    /// Codes for registered numbers that nobody submits.
    LogIns {
        numbers: usize,
        per_second: f64,
    },
    /// Guesses at the codes of registered numbers, each at once or all together.
    Guessing {
        numbers: usize,
        collects: bool,
    },
    Lockout {
        victims: usize,
    },
    /// Codes for a number that the provider rejects.
    RejectedNumber,
}

/// The least that a scenario must come to. Shares are in percent.
#[derive(Clone, Copy)]
pub enum Bar {
    /// Of the people of every day.
    People(f64),
    /// The same, of those outside the attacked ranges.
    Outside(f64),
    /// Of those on known devices to whom one of three messages arrived, all.
    KnownDevices,
    MessagesOnFirstDay(u32),
    MessagesOnEachDay(u32),
    MessagesOnEachLaterDay(u32),
    /// On all days after the first together.
    LaterMessages(u32),
    /// That one guess of a day is right.
    ChanceBelow(f64),
    /// Requests with the rejected number that reach the provider: at least one.
    RejectedMessages(usize),
    /// Of the locked-out people's tries with messages that arrived, all.
    Victims(Role),
}

pub const PEOPLE: [Role; 2] = [Role::Attacked, Role::Outside];

const fn people(a_day: usize) -> Population {
    Population {
        a_day,
        is_town: false,
        abandons: false,
    }
}

const TOWN: Population = Population {
    is_town: true,
    ..people(5_000)
};

const fn abandoning(people: Population) -> Population {
    Population {
        abandons: true,
        ..people
    }
}

const LARGE: &[(&str, &str)] = &[("LIMIT_TOTAL_MAX", "200000/1d")];

const fn quiet(name: &'static str, title: &'static str, people: Population) -> Scenario {
    Scenario {
        name,
        title,
        people,
        attack: Attack::None,
        settings: &[],
        days: 1,
        bars: &[Bar::People(99.7)],
    }
}

const fn attacked(
    name: &'static str,
    title: &'static str,
    attack: Attack,
    days: usize,
    bars: &'static [Bar],
) -> Scenario {
    Scenario {
        name,
        title,
        people: people(10_000),
        attack,
        settings: &[],
        days,
        bars,
    }
}

const fn pumping(paid: usize, ranges: usize, per_second: f64, walk: Walk) -> Attack {
    Attack::Pumping {
        paid,
        ranges,
        per_second,
        walk,
    }
}

pub static SCENARIOS: [Scenario; 17] = [
    quiet("1a", "no attack, 10,000 people", people(10_000)),
    Scenario {
        settings: LARGE,
        ..quiet("1b", "no attack, 60,000 people", people(60_000))
    },
    quiet("1c", "no attack, 5,000 people of a town of 40 ranges", TOWN),
    quiet("1d", "1a, a fifth abandons", abandoning(people(10_000))),
    Scenario {
        settings: LARGE,
        ..quiet("1e", "1b, a fifth abandons", abandoning(people(60_000)))
    },
    quiet("1f", "1c, a fifth abandons", abandoning(TOWN)),
    attacked(
        "2",
        "5/s over 200 ranges, eight days",
        pumping(200, 200, 5.0, Walk::Scattered),
        8,
        &[
            Bar::People(97.5),
            Bar::Outside(99.8),
            Bar::KnownDevices,
            Bar::MessagesOnFirstDay(1_500),
            Bar::LaterMessages(700),
        ],
    ),
    attacked(
        "3a",
        "1/s over 20 ranges",
        pumping(200, 20, 1.0, Walk::Scattered),
        1,
        &[
            Bar::People(99.0),
            Bar::KnownDevices,
            Bar::MessagesOnFirstDay(400),
        ],
    ),
    attacked(
        "3b",
        "1/s over 200 ranges in order",
        pumping(200, 200, 1.0, Walk::InOrder),
        1,
        &[
            Bar::People(99.0),
            Bar::KnownDevices,
            Bar::MessagesOnFirstDay(400),
        ],
    ),
    attacked(
        "4",
        "5/s over 2,000 ranges, three days",
        pumping(2_000, 2_000, 5.0, Walk::Scattered),
        3,
        &[
            Bar::People(92.0),
            Bar::KnownDevices,
            Bar::MessagesOnFirstDay(10_000),
            Bar::MessagesOnEachLaterDay(2_500),
        ],
    ),
    attacked(
        "5",
        "5/s over 20 ranges whose owner submits every code, two days",
        pumping(200, 20, 5.0, Walk::AsOwner),
        2,
        &[
            Bar::People(99.0),
            Bar::KnownDevices,
            Bar::MessagesOnEachDay(8_000),
        ],
    ),
    attacked(
        "6a",
        "5/s log-ins of 500 registered numbers",
        Attack::LogIns {
            numbers: 500,
            per_second: 5.0,
        },
        1,
        &[Bar::People(97.5), Bar::KnownDevices],
    ),
    attacked(
        "6b",
        "5/s log-ins of 2,000 registered numbers",
        Attack::LogIns {
            numbers: 2_000,
            per_second: 5.0,
        },
        1,
        &[Bar::KnownDevices],
    ),
    attacked(
        "8a",
        "guesses at codes of 500 phones, each at once",
        Attack::Guessing {
            numbers: 500,
            collects: false,
        },
        1,
        &[
            Bar::People(99.7),
            Bar::KnownDevices,
            Bar::ChanceBelow(0.001),
        ],
    ),
    attacked(
        "8b",
        "guesses at codes of 500 phones, all together",
        Attack::Guessing {
            numbers: 500,
            collects: true,
        },
        1,
        &[
            Bar::People(99.7),
            Bar::KnownDevices,
            Bar::ChanceBelow(0.001),
        ],
    ),
    attacked(
        "9",
        "20 people are locked out",
        Attack::Lockout { victims: 20 },
        1,
        &[
            Bar::People(99.7),
            Bar::KnownDevices,
            Bar::Victims(Role::VictimOnKnownDevice),
            Bar::Victims(Role::VictimOnNewDevice),
        ],
    ),
    attacked(
        "10",
        "a number that the provider rejects",
        Attack::RejectedNumber,
        1,
        &[
            Bar::People(99.7),
            Bar::KnownDevices,
            Bar::RejectedMessages(19),
        ],
    ),
];

impl Scenario {
    pub fn is_attacked(&self) -> bool {
        !matches!(self.attack, Attack::None)
    }
}

impl Attack {
    /// The number of ranges with an operator that pays for messages.
    pub fn paid_ranges(self) -> usize {
        match self {
            Self::Pumping { paid, .. } => paid,
            Self::RejectedNumber => 8,
            _ => 200,
        }
    }

    /// Of these, how many are attacked.
    pub fn ranges(self) -> usize {
        match self {
            Self::Pumping { ranges, .. } => ranges,
            Self::RejectedNumber => 1,
            _ => 0,
        }
    }

    /// The number of registered numbers under attack.
    pub fn targets(self) -> usize {
        match self {
            Self::LogIns { numbers, .. } | Self::Guessing { numbers, .. } => numbers,
            Self::Lockout { victims } => victims,
            _ => 0,
        }
    }
}

impl Bar {
    /// The figure that misses the bar, in words; `None` if the bar is met.
    pub fn missed_by(self, outcome: &Outcome) -> Option<String> {
        let days = outcome.days.iter();
        let later = outcome.days.iter().skip(1);
        let messages = |day: &Day| day.attacker_messages;
        match self {
            Self::People(percent) => below(percent, lowest(outcome, &PEOPLE), "people"),
            Self::Outside(percent) => below(percent, lowest(outcome, &[Role::Outside]), "outside"),
            Self::KnownDevices => missing(outcome, Role::KnownDevice, "known devices"),
            Self::Victims(role) => missing(outcome, role, "victims"),
            Self::RejectedMessages(most) => {
                let messages = outcome.rejected_messages;
                let is_met = (1..=most).contains(&messages);
                (!is_met).then(|| format!("{messages} rejected messages, not 1 to {most}"))
            }
            Self::MessagesOnFirstDay(most) => above(most, days.take(1).map(messages).max()),
            Self::MessagesOnEachDay(most) => above(most, days.map(messages).max()),
            Self::MessagesOnEachLaterDay(most) => above(most, later.map(messages).max()),
            Self::LaterMessages(most) => above(most, Some(later.map(messages).sum())),
            Self::ChanceBelow(chance) => {
                let came_to = outcome.chance_of_a_hit();
                (came_to >= chance).then(|| format!("chance {came_to:.5}, not below {chance}"))
            }
        }
    }
}

/// The lowest share of a day, in percent.
fn lowest(outcome: &Outcome, roles: &[Role]) -> f64 {
    let shares = outcome.days.iter().map(|day| day.group(roles).percent());
    shares.fold(100.0, f64::min)
}

fn below(least: f64, percent: f64, what: &str) -> Option<String> {
    (percent < least).then(|| format!("{what} {percent:.2} %, not {least} %"))
}

fn above(most: u32, messages: Option<u32>) -> Option<String> {
    let messages = messages.unwrap_or_default();
    (messages > most).then(|| format!("{messages} messages, not {most}"))
}

fn missing(outcome: &Outcome, role: Role, what: &str) -> Option<String> {
    let refused: u32 = outcome
        .days
        .iter()
        .map(|day| day.group(&[role]).refused())
        .sum();
    (refused > 0).then(|| format!("{what}: {refused} refused"))
}
