//! Any bytes as a body, at every route that takes one.
#![no_main]
#![allow(clippy::panic, reason = "how a fuzzer is told")]

use fuzz::{Functions, Route};
use lambda_http::{
    Body, Request, RequestExt,
    http::{HeaderValue, Method, header::CONTENT_TYPE},
};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static FUNCTIONS: Functions = Functions::start();
}

fuzz_target!(|body: &[u8]| {
    for route in Route::ALL {
        let response = FUNCTIONS.with(|functions| functions.send(route, request(route, body)));
        if let Some(fault) = route.fault_of_body(Some("application/json"), body, &response) {
            panic!("{route:?}: {fault}");
        }
    }
});

fn request(route: Route, body: &[u8]) -> Request {
    let mut request = Request::new(Body::Binary(body.to_vec())).with_raw_http_path(route.path());
    *request.method_mut() = Method::from_bytes(route.method().as_bytes()).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}
