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

mod process;
mod runtime_api;
mod stage;
mod starts;
mod table;
mod tutorial;
mod warm;

use stage::{Stage, Stores};
use table::Table;
use tutorial::Tutorial;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let stage = Stage::start().await;
    let mut table = Table::default();
    let (database_url, redis_url) = (stage.database.url(), stage.redis.url());
    let tutorial = Tutorial::start(Stores {
        database_url: &database_url,
        redis_url: &redis_url,
    })
    .await;
    starts::measure(&stage, &mut table).await;
    warm::measure(&stage, tutorial.as_ref(), &mut table).await;
    println!("{table}");
}
