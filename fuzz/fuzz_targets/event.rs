//! Any bytes as an event, at the functions that take nothing but a POST. What is no event of API
//! Gateway's never becomes a request: the runtime reports it as failed, and asks for the next one.
#![no_main]

use std::{panic, process};

use fuzz::{Functions, Route};
use lambda_http::request;
use libfuzzer_sys::fuzz_target;
use shared::api;

thread_local! {
    static FUNCTIONS: Functions = Functions::start();
}

fuzz_target!(
    init: {
        // libFuzzer's own hook ends the process at once. Some events cause a panic while
        // lambda_http reads them, for one with a body that says it is base64 and is not;
        // `shared::serve` refuses those.
        panic::set_hook(Box::new(|_| {}));
    },
    |event: &str| {
        for route in [Route::Signup, Route::Verify] {
            let Ok(Ok(request)) = panic::catch_unwind(|| request::from_str(event)) else {
                return;
            };
            let at_login = api::path(&request) == Route::Login.path();
            let route = if at_login { Route::Login } else { route };
            let response = FUNCTIONS.with(|functions| functions.send(route, request));
            if let Some(fault) = route.fault_of(&response) {
                eprintln!("{route:?}: {fault}");
                process::abort();
            }
        }
    }
);
