//! How Lambda runs a function: events until the sandbox ends, and then a goodbye to the stores.

use std::{convert::Infallible, error::Error, process::ExitCode, time::Duration};

use futures_util::FutureExt;
use lambda_http::{Body, Request, Response, http, service_fn};
use lambda_runtime_api_client::PooledClient;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};

use crate::telemetry;

/// How long a start may wait for the sandbox's API, which usually takes less than a millisecond.
const REGISTERING: Duration = Duration::from_secs(1);

/// Serves events until Lambda ends the sandbox, and then calls `close`, which has half a second.
///
/// `connect` is run first, while Lambda is asked to say when it ends the sandbox: it kills a function
/// without a word unless an extension is registered. One that wants no events costs a request to the
/// sandbox's own API, at start.
pub async fn serve<A>(
    connect: impl Future<Output = ()>,
    handle: impl Fn(Request) -> A,
    close: impl AsyncFnOnce(),
) -> ExitCode
where
    A: Future<Output = Response<Body>> + Send,
{
    let mut ended = match signal(SignalKind::terminate()) {
        Ok(ended) => ended,
        Err(error) => return telemetry::exit(&error),
    };
    let ((), registered) = tokio::join!(connect, timeout(REGISTERING, register()));
    if let Err(error) = registered.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        tracing::warn!(
            error = telemetry::chain(error.as_ref()),
            "will not be told of its end"
        );
    }
    let handler = service_fn(|request| handle(request).map(Ok::<_, Infallible>));
    tokio::select! {
        served = lambda_http::run(handler) => match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => telemetry::exit(error.as_ref()),
        },
        _ = ended.recv() => {
            close().await;
            ExitCode::SUCCESS
        }
    }
}

/// Registers an internal extension without events (AWS Lambda, "Extensions API").
async fn register() -> Result<JoinHandle<()>, Box<dyn Error + Send + Sync>> {
    const ID: &str = "Lambda-Extension-Identifier";
    let api = PooledClient::builder().build();
    let register = http::Request::post("/2020-01-01/extension/register")
        .header("Lambda-Extension-Name", "otp-auth")
        .header("Content-Type", "application/json")
        .body(r#"{"events":[]}"#.to_owned().into())?;
    let registered = api.call(register).await?;
    let id = registered
        .headers()
        .get(ID)
        .ok_or_else(|| format!("registering: HTTP {}", registered.status()))?;
    // Until an extension asks for its next event, Lambda does not count it as started. This one gets
    // none, so the question stays open.
    let next = http::Request::get("/2020-01-01/extension/event/next")
        .header(ID, id)
        .body(String::new().into())?;
    Ok(tokio::spawn(async move {
        drop(api.call(next).await);
    }))
}
