//! The Lambda function `session`.

use std::process::ExitCode;

use session::Session;
use shared::lambda;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda::run::<Session>().await
}
