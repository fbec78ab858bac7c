//! The Lambda function `session`: reads its configuration, connects, serves.

use std::{convert::Infallible, process::ExitCode};

use lambda_http::service_fn;
use session::Session;
use shared::{aws, config::Env, telemetry};

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
    let session = match Session::from_env(&env) {
        Ok(session) => session,
        Err(error) => return telemetry::exit(&error),
    };
    session.connect().await;
    let handler = service_fn(async |request| Ok::<_, Infallible>(session.handle(request).await));
    match lambda_http::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => telemetry::exit(error.as_ref()),
    }
}
