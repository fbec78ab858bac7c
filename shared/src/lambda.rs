//! Running a function under Lambda: one start, then events until Lambda ends the sandbox.

use std::{
    convert::Infallible,
    error::Error,
    future::{pending, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use lambda_http::{
    Adapter, Body, Context, LambdaEvent, Request, Response, Service, TransformResponse,
    aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayV2httpRequest},
    http, lambda_runtime,
    request::{LambdaRequest, RequestOrigin},
    service_fn,
};
use lambda_runtime_api_client::PooledClient;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    api,
    config::{self, Env},
    current::{Current, REREAD},
    telemetry,
};

/// The longest that the first event waits for the stores. API Gateway's authorizer gives up on
/// `/.well-known/*`, which needs no store, after 1.5 s.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_millis(250);

/// The longest that a start waits for the sandbox's API, which usually takes less than 1 ms.
const REGISTER_WAIT: Duration = Duration::from_secs(1);

/// A Lambda function behind API Gateway.
pub trait Function: Sized {
    /// The variables that it takes from `SECRET_ARN`.
    const SECRETS: &[&str];

    /// Reads its configuration. Connects to nothing.
    fn from_env(env: &Env) -> Result<Self, config::Error>;

    /// Opens its connections ahead of the first request. A store that is down is no failure.
    fn connect(&self) -> impl Future<Output = ()>;

    /// Responds to one request. A failure is a response too.
    fn handle(&self, request: Request) -> impl Future<Output = Response<Body>> + Send;

    /// Closes the connections whose servers would otherwise keep them open.
    fn close(&self) -> impl Future<Output = ()>;
}

/// Runs a function until Lambda ends its sandbox: the whole of its `main`.
///
/// A configuration that cannot be read ends the process with a failure.
pub async fn run<F: Function>() -> ExitCode {
    run_rereading::<F>(REREAD).await
}

/// The same with another time after which the secret is read again, for a test.
pub async fn run_rereading<F: Function>(interval: Duration) -> ExitCode {
    let env = Env::of_process();
    let logging = telemetry::init(&env);
    let start = async {
        logging?;
        Current::<F>::start(env, interval, now()).await
    };
    match start.await {
        Ok(current) => serve(&current).await,
        Err(error) => telemetry::exit("cannot start", &error),
    }
}

/// Serves events until Lambda ends the sandbox, then closes the function's connections. Lambda
/// allows half a second for that.
///
/// Lambda kills a function without a signal unless an extension is registered. One that takes no
/// events costs one request to the sandbox's own API. It is registered while the function connects.
/// If connecting takes longer than [`CONNECT_WAIT`], it continues beside the first events.
async fn serve<F: Function>(current: &Current<F>) -> ExitCode {
    let mut terminated = match signal(SignalKind::terminate()) {
        Ok(terminated) => terminated,
        Err(error) => return telemetry::exit("cannot start", &error),
    };
    let first = current.function();
    let mut connecting = pin!(async move { first.connect().await }.fuse());
    let (_, registered) = tokio::join!(
        timeout(CONNECT_WAIT, &mut connecting),
        timeout(REGISTER_WAIT, register_extension())
    );
    if let Err(error) = registered.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        let cause = telemetry::chain(error.as_ref());
        tracing::warn!(cause, "connections will not be closed at the end");
    }
    let connecting_beside_events = async {
        connecting.await;
        pending().await
    };
    tokio::select! {
        ended = serve_events(current) => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => telemetry::exit("the runtime failed", error.as_ref()),
        },
        never = connecting_beside_events => match never {},
        _ = terminated.recv() => {
            current.function().close().await;
            ExitCode::SUCCESS
        }
    }
}

/// Serves events as `lambda_http::run` does, and also those that `lambda_http` cannot turn into a
/// request: its adapter panics when it is called with one, for example at a `Host` that fits into
/// no URL.
async fn serve_events<F: Function>(current: &Current<F>) -> Result<(), lambda_http::Error> {
    let guarded = service_fn(async |event: LambdaEvent<LambdaRequest>| {
        let function = current.function_at(now()).await;
        let handler = service_fn(|request| function.handle(request).map(Ok::<_, Infallible>));
        let mut adapter = Adapter::from(handler);
        let (origin, context) = (event.payload.request_origin(), event.context.clone());
        catch_unwind(AssertUnwindSafe(|| adapter.call(event)))
            .unwrap_or_else(|_panic| refuse_unreadable(&origin, context))
            .await
    });
    lambda_runtime::run(guarded).await
}

#[expect(clippy::disallowed_methods, reason = "the edge of a request")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The response to an event that is no request. Its form depends on the event's origin, so an
/// adapter makes it from an empty event of the same origin.
fn refuse_unreadable(
    origin: &RequestOrigin,
    context: Context,
) -> TransformResponse<'static, Response<Body>, Infallible> {
    let substitute = match origin {
        RequestOrigin::ApiGatewayV1 => {
            LambdaRequest::ApiGatewayV1(ApiGatewayProxyRequest::default())
        }
        _ => LambdaRequest::ApiGatewayV2(ApiGatewayV2httpRequest::default()),
    };
    let refuse = |request: Request| ready(Ok(api::refuse_unreadable(&request)));
    Adapter::from(service_fn(refuse)).call(LambdaEvent::new(substitute, context))
}

/// Registers an internal extension without events (AWS Lambda, "Extensions API").
async fn register_extension() -> Result<JoinHandle<()>, Box<dyn Error + Send + Sync>> {
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
    // Lambda counts an extension as started once it asks for its next event. There is none, so this
    // request stays open.
    let next = http::Request::get("/2020-01-01/extension/event/next")
        .header(ID, id)
        .body(String::new().into())?;
    Ok(tokio::spawn(async move {
        drop(api.call(next).await);
    }))
}
