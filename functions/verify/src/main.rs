//! The Lambda function `verify`: reads its configuration, connects, serves.

use std::process::ExitCode;

use shared::{aws, config::Env, serve::serve, telemetry};
use verify::Verify;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let env = Env::of_process();
    if let Err(error) = telemetry::init(&env) {
        return telemetry::exit(&error);
    }
    let env = match aws::with_secret(env, &["OTP_PEPPER", "TOKEN_PRIVATE_KEY"]).await {
        Ok(env) => env,
        Err(error) => return telemetry::exit(&error),
    };
    let verify = match Verify::from_env(&env) {
        Ok(verify) => verify,
        Err(error) => return telemetry::exit(&error),
    };
    let handle = |request| verify.handle(request);
    serve(verify.connect(), handle, async || verify.close().await).await
}
