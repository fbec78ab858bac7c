//! Measures the release builds of the functions through a Runtime API, each figure beside its floor
//! in the same run, and prints one table. Times are never asserted: machines are shared and noisy.
#![allow(
    clippy::expect_used,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement stops at the first surprise, and prints what it found"
)]

mod capacity;
mod instructions;
mod plot;
mod process;
mod runtime_api;
mod sizes;
mod stage;
mod starts;
mod table;
mod tutorial;
mod warm;
mod wire;

use std::fs;

use stage::{Stage, Stores};
use table::Table;
use tutorial::Tutorial;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let stage = Stage::start().await;
    let mut table = Table::default();
    let (database_url, redis_url) = (stage.database.url(), stage.redis.url());
    let stores = Stores {
        database_url: &database_url,
        redis_url: &redis_url,
    };
    let tutorial = Tutorial::start(stores).await;
    let starts = starts::measure(&stage, &mut table).await;
    warm::measure(&stage, tutorial.as_ref(), &mut table).await;
    wire::measure_far(&stage, &mut table).await;
    wire::count(&stage, &mut table).await;
    capacity::of_redis(&stage, &mut table).await;
    capacity::of_few_connections(&stage, &mut table).await;
    instructions::measure(&stage, &mut table).await;
    sizes::measure(&mut table);
    if let Some(file) = harness::variable("PLOT") {
        fs::write(file, plot::draw(&starts)).unwrap();
    }
    println!("{table}");
}
