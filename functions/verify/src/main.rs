//! The Lambda function `verify`.

use std::process::ExitCode;

use shared::lambda;
use verify::Verify;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda::run::<Verify>().await
}
