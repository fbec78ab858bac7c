//! The functions as the fuzzer calls them: whole, but over stores that refuse to be connected to.
//! A readable request therefore gets a 503, any other its usual response.
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "the fuzzer stops at the first surprise"
)]

#[path = "../../tests/harness/contract.rs"]
pub mod contract;
#[path = "../../tests/harness/response.rs"]
mod response;

use lambda_http::Request;
use rcgen::KeyPair;
use session::Session;
use shared::{config::Env, lambda::Function as _};
use signup::Signup;
use tokio::runtime::{self, Runtime};
use verify::Verify;

pub use contract::Route;
pub use response::Response;

pub struct Functions {
    runtime: Runtime,
    signup: Signup,
    verify: Verify,
    session: Session,
}

impl Functions {
    pub fn start() -> Self {
        let key = KeyPair::generate().unwrap().serialize_pem();
        let env = Env::from([
            // Nobody listens on port 1.
            ("DATABASE_URL", "postgres://otp@127.0.0.1:1/otp"),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("OTP_PEPPER", "fuzzing-only-pepper-of-32-bytes-0"),
            ("ALLOWED_COUNTRIES", "*"),
            ("SMS_PROVIDER", "log"),
            ("OTP_LOCAL", "1"),
            ("TOKEN_ISSUER", "https://auth.example.com"),
            ("TOKEN_AUDIENCE", "fuzzing"),
            ("TOKEN_PRIVATE_KEY", &key),
        ]);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            signup: runtime.block_on(Signup::from_env(&env)).unwrap(),
            verify: runtime.block_on(Verify::from_env(&env)).unwrap(),
            session: runtime.block_on(Session::from_env(&env)).unwrap(),
            runtime,
        }
    }

    pub fn send(&self, route: Route, request: Request) -> Response {
        Response::of_handler(self.runtime.block_on(async {
            match route {
                Route::Signup | Route::Login => self.signup.handle(request).await,
                Route::Verify => self.verify.handle(request).await,
                Route::Refresh | Route::Logout => self.session.handle(request).await,
            }
        }))
    }
}
