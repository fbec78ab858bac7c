//! How Lambda runs a function: events until the sandbox ends, and then a goodbye to the stores.

use std::{
    convert::Infallible,
    error::Error,
    future::{pending, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    process::ExitCode,
    time::Duration,
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

use crate::{api, telemetry};

/// How long the first event may have to wait for the stores. API Gateway's authorizer gives up on
/// `/.well-known/*`, which needs none, after a second and a half.
const CONNECTING: Duration = Duration::from_millis(250);

/// How long a start may wait for the sandbox's API, which usually takes less than a millisecond.
const REGISTERING: Duration = Duration::from_secs(1);

/// Serves events until Lambda ends the sandbox, and then calls `close`, which has half a second.
///
/// `connect` is run first, while Lambda is asked to say when it ends the sandbox: it kills a function
/// without a word unless an extension is registered. One that wants no events costs a request to the
/// sandbox's own API, at start. If `connect` takes longer than [`CONNECTING`], it goes on beside the
/// events.
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
    let mut connecting = pin!(connect.fuse());
    let (_, registered) = tokio::join!(
        timeout(CONNECTING, &mut connecting),
        timeout(REGISTERING, register())
    );
    if let Err(error) = registered.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        tracing::warn!(
            error = telemetry::chain(error.as_ref()),
            "will not be told of its end"
        );
    }
    let connecting_beside = async {
        connecting.await;
        pending().await
    };
    tokio::select! {
        served = serve_events(handle) => match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => telemetry::exit(error.as_ref()),
        },
        never = connecting_beside => match never {},
        _ = ended.recv() => {
            close().await;
            ExitCode::SUCCESS
        }
    }
}

/// Serves events as `lambda_http::run` does. In addition, an event that `lambda_http` cannot turn into
/// a request gets a response: the adapter panics at such an event while it is called, for example at a
/// `Host` that fits into no URL.
async fn serve_events<A>(handle: impl Fn(Request) -> A) -> Result<(), lambda_http::Error>
where
    A: Future<Output = Response<Body>> + Send,
{
    let handler = service_fn(|request| handle(request).map(Ok::<_, Infallible>));
    let mut adapter = Adapter::from(handler);
    let guarded = service_fn(|event: LambdaEvent<LambdaRequest>| {
        let (origin, context) = (event.payload.request_origin(), event.context.clone());
        catch_unwind(AssertUnwindSafe(|| adapter.call(event)))
            .unwrap_or_else(|_panic| refuse_unreadable(&origin, context))
    });
    lambda_runtime::run(guarded).await
}

/// The response to an event that is no request, in the form that its origin expects: an adapter gives
/// it to an empty event of the same kind.
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
