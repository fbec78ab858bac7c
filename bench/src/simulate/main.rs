//! Simulates a day of honest people and one attacker against the scripts in a real Redis, for several
//! settings, and prints what came of it as the tables of `docs/abuse.md`.
//!
//! Time is chosen through the scripts' clock offset: a day takes seconds. All chance comes from one
//! seed. The clock of Redis runs on meanwhile, so two events less than a few milliseconds apart may
//! change places, and a figure its last digits from run to run.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a simulation stops at the first surprise, and prints what it found"
)]

mod attacker;
mod countries;
mod day;
mod people;
mod report;
mod service;
mod settings;

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use attacker::Attacker;
use countries::{Numbers, Range};
use day::{Day, Outcome};
use people::Person;
use service::Service;
use settings::{RANGES_PER_COUNTRY, Run};
use tests::RedisServer;

const SEED: u64 = 20_270_101;

/// What is the same in all runs.
struct World {
    ranges: Vec<Range>,
    yesterday: Vec<Person>,
    today: Vec<Person>,
    attackers_chance: u64,
}

fn main() {
    let world = World::new(SEED);
    for (title, runs) in settings::tables() {
        let results = run_all(&world, runs);
        println!("### {title}\n\n{}", report::results(&results));
        println!("{}", report::refusals(&results));
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let numbers = Numbers::new();
        let ranges = numbers.ranges(RANGES_PER_COUNTRY, &mut random);
        let mut taken = HashSet::new();
        let mut a_days_people = || people::people(&numbers, &ranges, &mut taken, &mut random);
        Self {
            yesterday: a_days_people(),
            today: a_days_people(),
            ranges,
            attackers_chance: random.random(),
        }
    }
}

/// As many at a time as there are processors.
fn run_all(world: &World, runs: Vec<Run>) -> Vec<(Run, Outcome)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(run) = runs.get(place) else {
                return done;
            };
            let started = Instant::now();
            done.push((place, simulate(world, run)));
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("{seconds:5.1} s  {} {}", run.attack(), run.label());
        }
    };
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap());
        done.flatten().collect()
    });
    outcomes.sort_by_key(|(place, _)| *place);
    let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome);
    runs.into_iter().zip(outcomes).collect()
}

fn simulate(world: &World, run: &Run) -> Outcome {
    let attacker = Attacker::new(
        &world.ranges,
        run.ranges,
        run.walk,
        run.per_second,
        ChaCha8Rng::seed_from_u64(world.attackers_chance),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let redis = RedisServer::start().await;
        let service = Service::new(&run.settings, &redis.url()).await;
        let day = Day::new(service, attacker, &world.yesterday, &world.today);
        day.run().await
    })
}
