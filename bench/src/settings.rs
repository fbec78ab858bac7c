//! What is simulated: the tables and their rows.

use crate::{attacker::Walk, countries};

pub const RANGES_PER_COUNTRY: usize = 25;
const ALL_RANGES: usize = RANGES_PER_COUNTRY * countries::COUNT;

/// A row: one attacker and one set of settings.
pub struct Run {
    pub label: String,
    /// The attacker's attempts per second, 0 for none.
    pub per_second: f64,
    pub walk: Walk,
    /// How many ranges the attacker is paid for.
    pub ranges: usize,
    /// What is set, all else being at its default.
    pub settings: Vec<(&'static str, &'static str)>,
}

const RATES: [f64; 3] = [0.1, 1.0, 5.0];

/// A total that carries the simulated service: about twice its busiest hour, and about twice its day.
const ROOMY: (&str, &str) = ("LIMIT_TOTAL", "2000/1h,24000/1d");

/// The titles of the tables, and their rows.
pub fn tables() -> Vec<(&'static str, Vec<Run>)> {
    let watch = |mode| [("PUMPING", mode)];
    let mut defaults = vec![run(0.0, &watch("record"))];
    let mut roomy = vec![
        run(0.0, &[ROOMY]),
        run(0.0, &[ROOMY, ("PUMPING", "enforce")]),
    ];
    for rate in RATES {
        for mode in ["off", "record", "enforce"] {
            defaults.push(run(rate, &watch(mode)));
            roomy.push(run(rate, &[ROOMY, ("PUMPING", mode)]));
        }
    }
    vec![
        ("The default limits", defaults),
        ("A total that fits the service", roomy),
    ]
}

fn run(per_second: f64, settings: &[(&'static str, &'static str)]) -> Run {
    let label: Vec<_> = settings
        .iter()
        .map(|(name, value)| format!("`{name}={value}`"))
        .collect();
    Run {
        label: label.join(" "),
        per_second,
        walk: Walk::Scattered,
        ranges: ALL_RANGES,
        settings: settings.to_vec(),
    }
}
