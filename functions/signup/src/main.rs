//! The Lambda function `signup`: reads its configuration, connects, serves.

use std::process::ExitCode;

use shared::{aws, config::Env, serve::serve, telemetry};
use signup::Signup;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let env = Env::of_process();
    if let Err(error) = telemetry::init(&env) {
        return telemetry::exit(&error);
    }
    let env = match aws::with_secret(env, &["OTP_PEPPER"]).await {
        Ok(env) => env,
        Err(error) => return telemetry::exit(&error),
    };
    let signup = match Signup::from_env(&env).await {
        Ok(signup) => signup,
        Err(error) => return telemetry::exit(&error),
    };
    let handle = |request| signup.handle(request);
    serve(signup.connect(), handle, async || signup.close().await).await
}
