//! The black-box suite: one module per theme, each test a claim about behaviour.
#![allow(
    clippy::expect_used,
    clippy::large_futures,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

mod account;
mod aws;
mod chain;
mod challenges;
mod change_phone;
mod cloudfront;
mod codes;
mod contract;
mod devices;
mod edge;
mod events;
mod faults;
mod guessing;
mod languages;
mod limits;
mod login;
mod logs;
mod migrations;
mod outages;
mod provider;
mod rotation;
mod sessions;
mod setup;
mod sms_check;
mod start;
mod test_numbers;
mod tls;
mod tokens;
mod twilio;
mod wire;
