//! The Lambda function `session`: reads its configuration, connects, serves.

use std::process::ExitCode;

use session::Session;
use shared::{aws, config::Env, serve::serve, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let env = Env::of_process();
    if let Err(error) = telemetry::init(&env) {
        return telemetry::exit(&error);
    }
    let secret = ["OTP_PEPPER", "TOKEN_PRIVATE_KEY", "TOKEN_PUBLIC_KEYS"];
    let env = match aws::with_secret(env, &secret).await {
        Ok(env) => env,
        Err(error) => return telemetry::exit(&error),
    };
    let session = match Session::from_env(&env) {
        Ok(session) => session,
        Err(error) => return telemetry::exit(&error),
    };
    let handle = |request| session.handle(request);
    serve(session.connect(), handle, async || session.close().await).await
}
