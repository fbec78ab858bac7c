//! The ground of the black-box suite: real stores of its own for every test, a proxy that can cut
//! and count, the functions in this process or as processes under the Lambda Runtime API.
//!
//! Expects `DATABASE_URL` of a superuser and moto's SNS at `AWS_ENDPOINT_URL_SNS`, as
//! `scripts/with-services.sh --sns --pgbouncer` provides them.
#![allow(
    clippy::expect_used,
    clippy::large_futures,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

mod aws;
mod contract;
mod credentials;
mod database;
mod deployment;
mod event;
mod function;
mod keys;
mod log;
mod pgbouncer;
mod phones;
mod postgres_server;
mod provider;
mod proxy;
mod redis_server;
mod response;
mod service;
mod sms_account;
mod tls;
mod transcript;
mod web;

use std::{
    net::TcpListener,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proptest::test_runner::{Config, TestRunner};
use rand::{RngExt, rand_core::UnwrapErr, rngs::SysRng};
use shared::config::Env;
use tokio::runtime::{self, Runtime};

pub use aws::{create_secret, moto, put_secret, secret_text, sms_attributes};
pub use contract::{Outcome, Route, outcome};
pub use credentials::{Challenge, Tokens, code_in, last_code_to, wrong};
pub use database::{Database, Lock, Observer};
pub use deployment::{Deployment, EDGE_SECRET, TO_THE_LOG, TWILIO_TOKEN, twilio_settings};
pub use event::{Gateway, event, event_from, from_address, in_base64, set_header};
pub use function::{Function, Invocation, Sandbox, binary, sign_up_event, verify_event};
pub use keys::{
    AUDIENCE, ISSUER, Key, changed, decoded, signing_key, strangers_token, token_settings, unsigned,
};
pub use log::Secrets;
pub use pgbouncer::PgBouncer;
pub use phones::{fresh_phone, messages_to, neighbour};
pub use postgres_server::PostgresServer;
pub use provider::{Behaviour, Provider, SNS_MESSAGE_ID, TWILIO_MESSAGE_ID};
pub use proxy::{Fault, Proxy};
pub use redis_server::{RedisServer, challenge_key};
pub use response::Response;
pub use service::{Functions, LIMITS, Service, local_settings, settings};
pub use sms_account::SmsAccount;
pub use tls::{Authority, Certificate, TlsProxy};
pub use transcript::Transcript;
pub use web::serve;

/// A pepper of the right length.
pub const PEPPER: &str = "tests-only-pepper-of-32-bytes-00";

/// The time after which a test gives up waiting for a condition.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
#[expect(
    clippy::disallowed_methods,
    reason = "between two looks at the condition"
)]
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "still not: {what}"
    );
}

/// Lets time pass, for a test that is about time: a delay on the way, a connection that was idle.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests that need it come here"
)]
pub async fn let_time_pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The time since 1970, by the system's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests that need it come here"
)]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// An environment variable, as the scripts pass them to the tests.
pub fn variable(name: &'static str) -> Option<String> {
    Env::of_process().text(name).map(ToOwned::to_owned)
}

/// A port of this machine that nobody listens on now. Whoever takes it must cope with somebody
/// having been faster. It is below those that systems hand out for outgoing connections.
pub fn free_port() -> u16 {
    loop {
        let port = 10_000 + u16::try_from(random_number() % 10_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs a property on so many random cases.
pub fn property(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}

/// For the properties of what is asynchronous.
pub fn runtime() -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// 64 random bits, for names that don't collide.
pub fn random_number() -> u64 {
    UnwrapErr(SysRng).random()
}
