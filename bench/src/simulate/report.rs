//! The outcomes as Markdown tables.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use crate::{
    day::{Group, Outcome},
    service::Refusal,
    settings::Run,
};

/// What one message costs, in cents: an example.
pub const CENTS_PER_MESSAGE: u32 = 10;

/// Who got in, and what it cost.
pub fn results(runs: &[(Run, Outcome)]) -> String {
    let mut table = String::from(
        "| Attempts per second | Settings | People who got in | of those at shared addresses | \
         of those in walked ranges | Attacker's messages | cost | first alarm: country | range |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (run, outcome) in runs {
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | ${} | {} | {} |",
            run.attack(),
            run.label(),
            share(&outcome.everybody),
            share(&outcome.behind_shared_addresses),
            share(&outcome.in_walked_ranges),
            thousands(outcome.attacker_messages),
            thousands(outcome.attacker_messages * CENTS_PER_MESSAGE / 100),
            clock(outcome.first_low_country),
            clock(outcome.first_low_range),
        )
        .unwrap();
    }
    table
}

/// Which limit did the work.
pub fn refusals(runs: &[(Run, Outcome)]) -> String {
    let mut table = String::from(
        "| Attempts per second | Settings | Attempts | Refused to the attacker by | Honest messages | \
         Refused to people by | People who gave up because of |\n|---|---|---:|---|---:|---|---|\n",
    );
    for (run, outcome) in runs {
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} |",
            run.attack(),
            run.label(),
            thousands(outcome.attempts),
            kinds(&outcome.attacker_refusals),
            thousands(outcome.honest_messages),
            kinds(&outcome.honest_refusals),
            kinds(&outcome.gave_up),
        )
        .unwrap();
    }
    table
}

fn share(group: &Group) -> String {
    if group.people == 0 {
        return "–".into();
    }
    let share = f64::from(group.got_in) / f64::from(group.people);
    format!("{:.1} %", share * 100.0)
}

fn kinds(counts: &BTreeMap<Refusal, u32>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let texts: Vec<_> = counts
        .into_iter()
        .map(|(kind, &count)| format!("{kind} {}", thousands(count)))
        .collect();
    if texts.is_empty() {
        "–".into()
    } else {
        texts.join(", ")
    }
}

fn clock(time: Option<Duration>) -> String {
    time.map_or("–".into(), |time| {
        let minutes = time.as_secs() / 60;
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    })
}

fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
