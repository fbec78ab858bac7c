//! The Runtime API of Lambda for one process, with a stopwatch.

use std::{convert::Infallible, sync::Arc};

use harness::since_1970;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    time::Instant,
};

const REQUEST_ID: &str = "8476a536-e9f4-11e8-9739-2dfe598c3fcd";

pub struct RuntimeApi {
    pub address: String,
    /// The times at which the process asked for an event.
    pub polls: mpsc::UnboundedReceiver<Instant>,
    pub events: mpsc::UnboundedSender<String>,
    /// The responses, and the times at which they had arrived whole.
    pub responses: mpsc::UnboundedReceiver<(Instant, Bytes)>,
}

/// The same from the other side.
struct Server {
    polls: mpsc::UnboundedSender<Instant>,
    events: Mutex<mpsc::UnboundedReceiver<String>>,
    responses: mpsc::UnboundedSender<(Instant, Bytes)>,
}

impl RuntimeApi {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (poll, polls) = mpsc::unbounded_channel();
        let (events, event) = mpsc::unbounded_channel();
        let (response, responses) = mpsc::unbounded_channel();
        let server = Arc::new(Server {
            polls: poll,
            events: Mutex::new(event),
            responses: response,
        });
        tokio::spawn(async move {
            while let Ok((process, _)) = listener.accept().await {
                process.set_nodelay(true).unwrap();
                let server = Arc::clone(&server);
                let service = service_fn(move |request| respond(Arc::clone(&server), request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(process), service);
                // It ends with the process.
                tokio::spawn(async { drop(connection.await) });
            }
        });
        Self {
            address,
            polls,
            events,
            responses,
        }
    }
}

async fn respond(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let response = Response::builder();
    let (response, body) = if path.ends_with("/invocation/next") {
        // Nobody listens when the measurement is over.
        let _heard = server.polls.send(Instant::now());
        let Some(event) = server.events.lock().await.recv().await else {
            return std::future::pending().await;
        };
        let deadline = since_1970().as_millis() + 10_000;
        let response = response
            .header("Content-Type", "application/json")
            .header("Lambda-Runtime-Aws-Request-Id", REQUEST_ID)
            .header("Lambda-Runtime-Deadline-Ms", deadline.to_string())
            .header(
                "Lambda-Runtime-Invoked-Function-Arn",
                "arn:aws:lambda:us-east-1:123456789012:function:bench",
            );
        (response, event)
    } else if path.ends_with("/response") {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let _heard = server.responses.send((Instant::now(), body));
        (response.status(StatusCode::ACCEPTED), String::new())
    } else if path.ends_with("/extension/register") {
        (
            response.header("Lambda-Extension-Identifier", REQUEST_ID),
            "{}".to_owned(),
        )
    } else if path.ends_with("/extension/event/next") {
        return std::future::pending().await;
    } else {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        panic!("{path}: {}", String::from_utf8_lossy(&body));
    };
    Ok(response.body(body.into()).unwrap())
}
