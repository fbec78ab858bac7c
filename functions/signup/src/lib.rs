//! `POST /signup`, `POST /login` and `POST /me/phone`: a phone number in, a code by SMS out.
//!
//! With `REVEAL_REGISTERED=true` they say who is registered. With `false` none does: every number
//! gets the same response, because every number gets a code.

mod change_phone;
mod delivery;
mod log_in;
mod sign_up;

use std::sync::Arc;

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
};
use shared::{
    api::{self, Edge, Failure},
    config::{self, Deadlines, Env},
    device::Devices,
    lambda::Function,
    phone::{self, PhoneNumber, SendPolicy},
    store::{Postgres, StoreError},
    telemetry::RequestLog,
    token::Verifier,
    users::Users,
};
use tokio::time::Instant;

pub use delivery::Delivery;

/// The function `signup`, which serves `/signup`, `/login` and `/me/phone`.
pub struct Signup {
    pub delivery: Delivery,
    postgres: Arc<Postgres>,
    users: Users,
    edge: Edge,
    phones: phone::Parser,
    send_policy: SendPolicy,
    devices: Devices,
    /// Access tokens are verified here, and signed elsewhere.
    verifier: Verifier,
    reveals_registered: bool,
    deadlines: Deadlines,
}

/// A phone number that gets no code.
#[derive(Debug, thiserror::Error)]
enum PhoneError {
    #[error(transparent)]
    Invalid(#[from] phone::Invalid),
    #[error(transparent)]
    Refused(#[from] phone::Refused),
}

impl Function for Signup {
    const SECRETS: &[&str] = &[
        "DATABASE_URL",
        "EDGE_SECRET",
        "OTP_PEPPER",
        "REDIS_URL",
        "TEST_NUMBERS",
        "TOKEN_PUBLIC_KEYS",
        "TWILIO_AUTH_TOKEN",
    ];

    /// Reads `REVEAL_REGISTERED` (default `true`), and what its parts read.
    fn from_env(env: &Env) -> Result<Self, config::Error> {
        let deadlines = Deadlines::from_env(env)?;
        let postgres = Arc::new(Postgres::from_env(env, deadlines.store)?);
        let phones = phone::Parser::from_env(env)?;
        Ok(Self {
            delivery: Delivery::from_env(env, phones, deadlines)?,
            users: Users::new(Arc::clone(&postgres)),
            postgres,
            edge: Edge::from_env(env)?,
            phones,
            send_policy: SendPolicy::from_env(env)?,
            devices: Devices::from_env(env)?,
            verifier: Verifier::from_env(env)?,
            reveals_registered: env.flag("REVEAL_REGISTERED", true)?,
            deadlines,
        })
    }

    async fn connect(&self) {
        let postgres = async {
            // In the private mode only /me/phone reads it.
            if self.reveals_registered {
                self.users.connect().await;
            }
        };
        tokio::join!(postgres, self.delivery.issuer.connect());
    }

    async fn handle(&self, request: Request) -> Response<Body> {
        api::respond(&request, async |log| {
            match (request.method(), api::path(&request)) {
                (&Method::POST, "/signup") => {
                    Ok(self.sign_up(&request, log.route("/signup")).await?)
                }
                (&Method::POST, "/login") => Ok(self.log_in(&request, log.route("/login")).await?),
                (&Method::POST, "/me/phone") => {
                    Ok(self.change_phone(&request, log.route("/me/phone")).await?)
                }
                (_, "/signup" | "/login" | "/me/phone") => Err(Failure::method_not_allowed("POST")),
                _ => Err(Failure::not_found()),
            }
        })
        .await
    }

    async fn close(&self) {
        self.postgres.close().await;
    }
}

impl Signup {
    /// Parses a number and checks that codes may be sent to it.
    fn read_phone(&self, text: &str, log: &mut RequestLog) -> Result<PhoneNumber, PhoneError> {
        let phone = self.phones.parse(text)?;
        log.phone(&phone);
        // Nothing is sent to a test number.
        if self.delivery.test_code(&phone).is_none() {
            self.send_policy.check(&phone)?;
        }
        Ok(phone)
    }

    async fn is_registered(
        &self,
        phone: &PhoneNumber,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<bool, StoreError> {
        let is_registered = self.users.is_registered(phone, deadline);
        log.postgres(is_registered).await
    }
}

impl From<PhoneError> for Failure {
    fn from(error: PhoneError) -> Self {
        match error {
            PhoneError::Invalid(phone::Invalid) | PhoneError::Refused(phone::Refused::Invalid) => {
                Self::new(
                    StatusCode::BAD_REQUEST,
                    "Invalid phone number",
                    "invalid_phone_number",
                )
            }
            PhoneError::Refused(phone::Refused::Unsupported) => Self::new(
                StatusCode::FORBIDDEN,
                "Phone numbers of this kind are not supported",
                "unsupported_phone_number",
            ),
        }
    }
}
