//! The outcomes as Markdown tables.

use std::{cmp, fmt::Write};

use crate::{
    outcome::{Group, Outcome, Refusals, Role},
    scenarios::{Attack, PEOPLE, Scenario},
};

/// The price of one message, in cents: an example.
const CENTS_PER_MESSAGE: u32 = 10;

pub type Result = (&'static Scenario, Outcome);

/// The people who got in, and the cost.
pub fn results(results: &[Result]) -> String {
    let mut table = String::from(
        "| | Scenario | People who get in | of those outside the attack | known devices | \
         attacker's messages by day | cost | bars |\n|---|---|---:|---:|---:|---:|---:|---|\n",
    );
    for (scenario, outcome) in results {
        let messages: Vec<u32> = outcome
            .days
            .iter()
            .map(|day| day.attacker_messages)
            .collect();
        let by_day: Vec<_> = messages.iter().copied().map(thousands).collect();
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | ${} | {} |",
            scenario.name,
            scenario.title,
            shares(outcome, &PEOPLE),
            shares(outcome, &[Role::Outside]),
            known_devices(outcome),
            by_day.join(", "),
            thousands(messages.iter().sum::<u32>() * CENTS_PER_MESSAGE / 100),
            bars(scenario, outcome),
        )
        .unwrap();
    }
    table
}

/// Which limit did the work.
pub fn refusals(results: &[Result]) -> String {
    let mut table = String::from(
        "| | Attempts | Refused to the attacker by | People's messages | Refused to people by | \
         Gave up because of |\n|---|---:|---|---:|---|---|\n",
    );
    for (scenario, outcome) in results {
        writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} |",
            scenario.name,
            thousands(outcome.attempts),
            kinds(&outcome.attacker_refusals),
            thousands(outcome.people_messages),
            kinds(&outcome.people_refusals),
            kinds(&outcome.gave_up),
        )
        .unwrap();
    }
    table
}

/// Figures that only some scenarios have.
pub fn details(results: &[Result]) -> String {
    let mut list = String::new();
    for (scenario, outcome) in results {
        let name = scenario.name;
        match scenario.attack {
            Attack::Guessing { .. } => {
                let guesses = outcome.guesses.iter();
                let guesses: Vec<_> = guesses
                    .map(|(length, &count)| format!("{} of {length} digits", thousands(count)))
                    .collect();
                let chance = outcome.chance_of_a_hit();
                let guesses = guesses.join(", ");
                writeln!(
                    list,
                    "- {name}: compared guesses: {guesses}; chance of a hit: {chance:.5}"
                )
            }
            Attack::Lockout { .. } => writeln!(
                list,
                "- {name}: tries on known devices: {}; on new devices: {}",
                tries(outcome, Role::VictimOnKnownDevice),
                tries(outcome, Role::VictimOnNewDevice),
            ),
            Attack::RejectedNumber => writeln!(
                list,
                "- {name}: requests that reached the provider: {}",
                outcome.rejected_messages
            ),
            Attack::None | Attack::Pumping { .. } | Attack::LogIns { .. } => Ok(()),
        }
        .unwrap();
    }
    list
}

fn bars(scenario: &Scenario, outcome: &Outcome) -> String {
    let missed = scenario
        .bars
        .iter()
        .filter_map(|bar| bar.missed_by(outcome));
    let missed: Vec<_> = missed.collect();
    if missed.is_empty() {
        "met".into()
    } else {
        format!("**missed**: {}", missed.join("; "))
    }
}

/// Of each day.
fn shares(outcome: &Outcome, roles: &[Role]) -> String {
    let shares = outcome.days.iter().map(|day| share(day.group(roles)));
    shares.collect::<Vec<_>>().join(", ")
}

fn share(group: Group) -> String {
    if group.people == 0 {
        return "–".into();
    }
    format!("{:.1} %", group.percent())
}

/// Of those whose messages arrived, on all days together.
fn known_devices(outcome: &Outcome) -> String {
    let all = on_all_days(outcome, Role::KnownDevice);
    if all.people == 0 {
        return "–".into();
    }
    let reached = all.people - all.undelivered;
    format!("{} of {}", thousands(all.got_in), thousands(reached))
}

fn tries(outcome: &Outcome, role: Role) -> String {
    let all = on_all_days(outcome, role);
    format!(
        "{} of {} got in ({} without a message), after {} s on average, {} s at most",
        all.got_in,
        all.people,
        all.undelivered,
        all.seconds / u64::from(all.got_in.max(1)),
        all.longest
    )
}

fn on_all_days(outcome: &Outcome, role: Role) -> Group {
    let groups = outcome.days.iter().map(|day| day.group(&[role]));
    groups.fold(Group::default(), Group::plus)
}

fn kinds(counts: &Refusals) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|&(_, count)| cmp::Reverse(count));
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
