//! The Lambda function `signup`.

use std::process::ExitCode;

use shared::lambda;
use signup::Signup;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    lambda::run::<Signup>().await
}
