//! Simulates days of honest people and attackers against the functions' own handlers, over a real
//! Redis and a real Postgres, and prints what came of it as the tables of `docs/abuse.md`. Ends
//! with a failure when a scenario comes to less than it must.
//!
//! Time is chosen through the scripts' clock offset: a day takes seconds. All chance comes from one
//! seed, but for the codes. Redis's clock runs on meanwhile, so two events less than a few
//! milliseconds apart may change places, and a figure its last digits from run to run.
#![allow(
    clippy::expect_used,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a simulation stops at the first surprise, and prints what it found"
)]

mod attackers;
mod countries;
mod outcome;
mod people;
mod report;
mod scenarios;
mod service;
mod simulation;
mod world;

use std::{
    env, fs, io,
    path::Path,
    process::{Command, ExitCode},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use attackers::{Attacker, Collector, LogIns, Nobody, Persistent, Pumper, Purpose};
use outcome::Outcome;
use scenarios::{Attack, SCENARIOS, Scenario};
use service::Service;
use simulation::Simulation;
use tokio::time::Instant;
use world::World;

/// The first argument of a process that simulates one scenario, before its name and the outcome's
/// file.
const CHILD: &str = "--child";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, name, file] = arguments.as_slice()
        && first == CHILD
    {
        simulate(scenario(name), Path::new(file));
        return ExitCode::SUCCESS;
    }
    let scenarios: Vec<_> = if arguments.is_empty() {
        SCENARIOS.iter().collect()
    } else {
        arguments.iter().map(|name| scenario(name)).collect()
    };
    let results = run_all(&scenarios);
    println!("{}", report::results(&results));
    println!("{}", report::refusals(&results));
    println!("{}", report::details(&results));
    let meets_bars = |(scenario, outcome): &report::Result| {
        scenario
            .bars
            .iter()
            .all(|bar| bar.missed_by(outcome).is_none())
    };
    if results.len() == scenarios.len() && results.iter().all(meets_bars) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn scenario(name: &str) -> &'static Scenario {
    let named = SCENARIOS.iter().find(|scenario| scenario.name == name);
    named.unwrap_or_else(|| panic!("no scenario {name}"))
}

/// As many at a time as there are processors, each in a process of its own. One that breaks off has
/// no result, and costs the others nothing.
fn run_all(scenarios: &[&'static Scenario]) -> Vec<report::Result> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            let outcome = run(scenario);
            let seconds = started.elapsed().as_secs();
            let broke_off = if outcome.is_none() { " BROKE OFF" } else { "" };
            eprintln!(
                "{seconds:4} s  {} {}{broke_off}",
                scenario.name, scenario.title
            );
            done.extend(outcome.map(|outcome| (*scenario, outcome)));
        }
        done
    };
    let mut results: Vec<report::Result> = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap());
        done.flatten().collect()
    });
    let place = |scenario: &Scenario| SCENARIOS.iter().position(|s| s.name == scenario.name);
    results.sort_by_key(|(scenario, _)| place(scenario));
    results
}

/// Starts the process of a scenario, its stdout piped into its stdin as [`Service::start`] expects.
fn run(scenario: &Scenario) -> Option<Outcome> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args([CHILD, scenario.name])
        .arg(file.path())
        .stdin(reader)
        .stdout(writer)
        // For the SDK, which asks for them and sends to this machine only.
        .env("AWS_ACCESS_KEY_ID", "simulation")
        .env("AWS_SECRET_ACCESS_KEY", "simulation")
        .status()
        .unwrap();
    let outcome = fs::read(file.path()).unwrap();
    status
        .success()
        .then(|| serde_json::from_slice(&outcome).unwrap())
}

fn simulate(scenario: &'static Scenario, file: &Path) {
    let world = World::new(scenario);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        match scenario.attack {
            Attack::None => under(&world, scenario, Nobody).await,
            Attack::Pumping {
                per_second, walk, ..
            } => under(&world, scenario, Pumper::new(&world, walk, per_second)).await,
            Attack::LogIns { per_second, .. } => {
                under(&world, scenario, LogIns::new(&world, per_second)).await
            }
            Attack::Guessing { collects: true, .. } => {
                under(&world, scenario, Collector::new(&world)).await
            }
            Attack::Guessing { .. } => persistent(&world, scenario, Purpose::Guess).await,
            Attack::Lockout { .. } => persistent(&world, scenario, Purpose::Lockout).await,
            Attack::RejectedNumber => {
                let phone = countries::number(&world.attacked[0], 0);
                let attacker = Persistent::new(Purpose::Cost, [phone]);
                under(&world, scenario, attacker).await
            }
        }
    });
    fs::write(file, serde_json::to_vec(&outcome).unwrap()).unwrap();
}

async fn persistent(world: &World, scenario: &Scenario, purpose: Purpose) -> Outcome {
    let phones = world.targets().iter().map(|person| person.phone.clone());
    under(world, scenario, Persistent::new(purpose, phones)).await
}

async fn under(world: &World, scenario: &Scenario, attacker: impl Attacker) -> Outcome {
    let service = Service::start(scenario.settings).await;
    let simulation = Simulation::new(world, service, attacker);
    simulation.run(scenario.days).await
}
