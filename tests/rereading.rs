//! The function `session`, which reads its secret again at each event.

use std::{process::ExitCode, time::Duration};

use session::Session;
use shared::lambda;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda::run_rereading::<Session>(Duration::ZERO).await
}
