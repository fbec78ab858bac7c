//! Runs 80 processes of the functions under honest and hostile people for a minute, and restarts a
//! store in the middle. Then it compares all responses, messages and rows. Ends with an error at
//! the first contradiction, and prints its figures.
//!
//!     load [SECONDS]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement stops at the first surprise, and prints what it found"
)]
#![allow(
    clippy::ref_option,
    reason = "an answer that did not come is passed on as it is"
)]

mod fleet;
mod ledger;
mod people;
mod verdict;
mod world;

use std::{pin::Pin, process::ExitCode, time::Duration};

use fleet::Fleet;
use futures_util::future::join_all;
use harness::{
    Behaviour, PEPPER, PostgresServer, Provider, RedisServer, Route, let_time_pass, token_settings,
};
use shared::config::Env;
use tokio::time::Instant;
use world::World;

/// Processes of each function.
const PROCESSES: usize = 32;
/// The time for which the restarted store is away.
const AWAY: Duration = Duration::from_secs(3);

/// Limits that are reached, so that they can be seen to hold; the others have their defaults. Per
/// second, and per ten minutes.
const TOTAL: u64 = 20;
const LIMIT_TOTAL_MAX: &str = "20/1s";
const GUESSES: u64 = 10;
const LIMIT_GUESSES: &str = "10/10m";

/// Which store is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Postgres,
    Redis,
}

/// The stores and what the provider was given.
struct Stores {
    postgres: PostgresServer,
    redis: RedisServer,
}

fn main() -> ExitCode {
    let seconds = std::env::args()
        .nth(1)
        .map_or(60, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut is_well = true;
    for (seed, store) in [(1, Store::Postgres), (2, Store::Redis)] {
        is_well &= runtime.block_on(run(seed, store, Duration::from_secs(seconds)));
    }
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run(seed: u64, store: Store, length: Duration) -> bool {
    let mut stores = Stores {
        postgres: PostgresServer::start().await,
        redis: RedisServer::start().await,
    };
    let (database_url, redis_url) = (stores.postgres.url(), stores.redis.url());
    let schema = Env::from([("DATABASE_URL", database_url.as_str())]);
    let schema = migrate::Migrate::from_env(&schema).unwrap();
    schema.run(migrate::Command::Up).await.unwrap();

    let provider = Provider::start(Behaviour::Accept).await;
    let endpoint = provider.url();
    let settings = [
        ("DATABASE_URL", database_url.as_str()),
        ("REDIS_URL", &redis_url),
        ("OTP_PEPPER", PEPPER),
        ("ALLOWED_COUNTRIES", "DE"),
        ("SMS_PROVIDER", "sns"),
        ("AWS_ENDPOINT_URL_SNS", &endpoint),
        ("LIMIT_TOTAL_MAX", LIMIT_TOTAL_MAX),
        ("LIMIT_GUESSES", LIMIT_GUESSES),
        // Longer codes, and void short ones, are the simulation's to show.
        ("MISSES_TOTAL", "off"),
    ];
    let settings = [&settings[..], &token_settings()].concat();
    let logs = tempfile::tempdir().unwrap();
    let start = |route, size| Fleet::start(route, size, &settings, logs.path());
    let fleets = [
        start(Route::Signup, PROCESSES).await,
        start(Route::Verify, PROCESSES).await,
        start(Route::Refresh, PROCESSES / 2).await,
    ];
    let begun = Instant::now();
    let world = World::new(fleets, provider, seed, begun + length);

    tokio::join!(
        join_all(crowd(&world)),
        interrupt(&world, store, &mut stores, length / 2)
    );
    verdict::print(&world, store, &stores, begun.elapsed(), logs.path()).await
}

/// Everybody who comes.
fn crowd(world: &World) -> Vec<Pin<Box<dyn Future<Output = ()> + '_>>> {
    let mut crowd: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for _ in 0..48 {
        crowd.push(Box::pin(people::honest(world)));
    }
    for _ in 0..8 {
        crowd.push(Box::pin(people::impatient(world)));
        crowd.push(Box::pin(people::guesser(world)));
        crowd.push(Box::pin(people::vandal(world)));
    }
    for _ in 0..4 {
        crowd.push(Box::pin(people::sprayer(world, verdict::SPRAYER)));
        crowd.push(Box::pin(people::flooder(world, verdict::FLOODER)));
        crowd.push(Box::pin(people::doubler(world)));
    }
    crowd
}

/// Restarts a store in the middle of it all.
async fn interrupt(world: &World, store: Store, stores: &mut Stores, after: Duration) {
    let_time_pass(after).await;
    world.ledger().outage = Some((Instant::now(), None));
    match store {
        Store::Postgres => {
            stores.postgres.stop().await;
            let_time_pass(AWAY).await;
            stores.postgres.launch().await;
        }
        Store::Redis => {
            world.redis_forgets();
            stores.redis.stop().await;
            let_time_pass(AWAY).await;
            stores.redis.restart().await;
        }
    }
    let back = Instant::now();
    if let Some((_, is_back)) = &mut world.ledger().outage {
        *is_back = Some(back);
    }
}
