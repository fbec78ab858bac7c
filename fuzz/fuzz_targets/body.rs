//! Any bytes as the body of a POST, at every route that takes one.
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
        let response = FUNCTIONS.with(|functions| functions.send(route, post(route, body)));
        if let Some(fault) = route.fault_of_post(Some("application/json"), body, &response) {
            panic!("{route:?}: {fault}");
        }
    }
});

fn post(route: Route, body: &[u8]) -> Request {
    let mut request = Request::new(Body::Binary(body.to_vec())).with_raw_http_path(route.path());
    *request.method_mut() = Method::POST;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}
