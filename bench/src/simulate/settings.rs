//! What is simulated: the tables and their rows.

use crate::{attacker::Walk, countries};

pub const RANGES_PER_COUNTRY: usize = 25;
const ALL_RANGES: usize = RANGES_PER_COUNTRY * countries::COUNT;

/// Only so many ranges, for an attacker who is poor in them.
const FEW_RANGES: usize = 20;

/// A variable and its value.
pub type Setting = (&'static str, &'static str);

/// A row: one attacker and one set of settings.
pub struct Run {
    /// The attacker's attempts per second, 0 for none.
    pub per_second: f64,
    pub walk: Walk,
    /// How many ranges the attacker is paid for.
    pub ranges: usize,
    /// What is set, all else being at its default.
    pub settings: Vec<Setting>,
}

impl Run {
    pub fn attack(&self) -> String {
        let mut text = match self.per_second {
            rate if rate > 0.0 => rate.to_string(),
            _ => "none".to_owned(),
        };
        if self.ranges != ALL_RANGES {
            text = format!("{text}, {} ranges", self.ranges);
        }
        if let Walk::Sequential = self.walk {
            text.push_str(", in order");
        }
        text
    }

    /// The settings that are not the whole table's.
    pub fn label(&self) -> String {
        let own = self.settings.iter().filter(|setting| **setting != ROOMY);
        let texts: Vec<_> = own
            .map(|(name, value)| format!("`{name}={value}`"))
            .collect();
        texts.join(" ")
    }
}

const RATES: [f64; 3] = [0.1, 1.0, 5.0];

/// A total that carries the simulated service: well above its busiest hour, and twice its day.
const ROOMY: Setting = ("LIMIT_TOTAL", "2000/1h,24000/1d");
const RECORD: Setting = ("PUMPING", "record");
const ENFORCE: Setting = ("PUMPING", "enforce");
/// Honest people's numbers lie so far apart that a range sees few of them a day.
const NARROW: Setting = ("LIMIT_RANGE", "5/1h,10/1d");

/// The titles of the tables, and their rows.
pub fn tables() -> Vec<(&'static str, Vec<Run>)> {
    vec![
        ("The default limits", defaults()),
        ("A total that fits the service", roomy()),
        ("Other settings, with that total", others()),
    ]
}

fn defaults() -> Vec<Run> {
    let mut runs = vec![run(0.0, &[RECORD])];
    for rate in RATES {
        runs.extend([("PUMPING", "off"), RECORD, ENFORCE].map(|watch| run(rate, &[watch])));
    }
    runs
}

fn roomy() -> Vec<Run> {
    let mut runs = vec![run(0.0, &[ROOMY, ENFORCE])];
    for rate in RATES {
        // Without enforcement the same people get in, whether it is recorded or not.
        runs.extend([RECORD, ENFORCE].map(|watch| run(rate, &[ROOMY, watch])));
    }
    runs
}

fn others() -> Vec<Run> {
    let few_ranges = |watch| Run {
        ranges: FEW_RANGES,
        ..run(1.0, &[ROOMY, watch])
    };
    let in_order = |watch| Run {
        walk: Walk::Sequential,
        ..run(1.0, &[ROOMY, watch])
    };
    vec![
        few_ranges(RECORD),
        few_ranges(ENFORCE),
        in_order(RECORD),
        in_order(ENFORCE),
        run(1.0, &[ROOMY, ENFORCE, ("PUMPING_MIN_SENDS", "10")]),
        run(1.0, &[ROOMY, ENFORCE, ("PUMPING_MIN_SENDS", "3")]),
        run(1.0, &[ROOMY, RECORD, ("LIMIT_COUNTRY", "150/1h")]),
        run(0.0, &[ROOMY, RECORD, NARROW]),
        run(1.0, &[ROOMY, RECORD, NARROW]),
        run(5.0, &[ROOMY, RECORD, NARROW]),
        run(5.0, &[ROOMY, ENFORCE, NARROW, ("PUMPING_MIN_SENDS", "3")]),
    ]
}

fn run(per_second: f64, settings: &[Setting]) -> Run {
    Run {
        per_second,
        walk: Walk::Scattered,
        ranges: ALL_RANGES,
        settings: settings.to_vec(),
    }
}
