//! The Lambda function `verify`: reads its configuration, connects, serves.

use std::{convert::Infallible, process::ExitCode};

use lambda_http::service_fn;
use shared::{aws, config::Env, telemetry};
use verify::Verify;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let env = Env::of_process();
    if let Err(error) = telemetry::init(&env) {
        return telemetry::exit(&error);
    }
    let env = match aws::with_secret(env).await {
        Ok(env) => env,
        Err(error) => return telemetry::exit(&error),
    };
    let verify = match Verify::from_env(&env) {
        Ok(verify) => verify,
        Err(error) => return telemetry::exit(&error),
    };
    verify.connect().await;
    let handler = service_fn(async |request| Ok::<_, Infallible>(verify.handle(request).await));
    match lambda_http::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => telemetry::exit(error.as_ref()),
    }
}
