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

use std::time::SystemTime;

use lambda_http::{
    Request,
    http::{HeaderValue, header::AUTHORIZATION},
};
use rcgen::KeyPair;
use session::Session;
use shared::{
    config::Env,
    lambda::Function as _,
    token::{Signer, Subject},
};
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
    signer: Signer,
}

impl Functions {
    pub fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let (private, public) = (key.serialize_pem(), key.public_key_pem());
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
            ("TOKEN_PRIVATE_KEY", &private),
            ("TOKEN_PUBLIC_KEYS", &public),
        ]);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            signup: Signup::from_env(&env).unwrap(),
            verify: Verify::from_env(&env).unwrap(),
            session: Session::from_env(&env).unwrap(),
            signer: Signer::from_env(&env).unwrap(),
            runtime,
        }
    }

    /// Sends a request, with a valid token if the route needs one.
    pub fn send(&self, route: Route, mut request: Request) -> Response {
        if route.needs_token() {
            request.headers_mut().insert(AUTHORIZATION, self.bearer());
        }
        Response::of_handler(self.runtime.block_on(async {
            match route {
                Route::Signup | Route::Login | Route::ChangePhone => {
                    self.signup.handle(request).await
                }
                Route::Verify => self.verify.handle(request).await,
                Route::Refresh | Route::Logout | Route::Rename => {
                    self.session.handle(request).await
                }
            }
        }))
    }

    #[expect(clippy::disallowed_methods, reason = "a token is valid now")]
    fn bearer(&self) -> HeaderValue {
        let subject = Subject {
            user_id: 1,
            session_id: &"0".repeat(32),
            auth_time: 0,
        };
        let token = self.signer.access_token(&subject, SystemTime::now());
        HeaderValue::from_str(&format!("Bearer {token}")).unwrap()
    }
}
