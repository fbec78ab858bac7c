//! `POST /verify`: checks a submitted code, and registers or logs in whoever has it, or gives them
//! the number.

mod change_phone;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, BadRequest, Edge, Failure, Success, Unauthenticated},
    challenge::{ChallengeId, CheckOutcome, Checker, Limited, Matched, Purpose},
    config::{self, Deadlines, Env},
    device::{DeviceId, Devices},
    lambda::Function,
    otp::{Lengths, OtpCode},
    phone::{self, PhoneNumber},
    sessions::{RefreshToken, Tokens},
    sign_in::{SignInOutcome, SignIns, SignedIn},
    store::{Postgres, Redis, StoreError},
    telemetry::{Count, RequestLog},
    token::{Signer, Verifier},
    users::{User, Users},
};

/// The function `verify`.
pub struct Verify {
    postgres: Arc<Postgres>,
    sign_ins: SignIns,
    users: Users,
    pub checker: Checker,
    signer: Signer,
    verifier: Verifier,
    edge: Edge,
    phones: phone::Parser,
    code_lengths: Lengths,
    devices: Devices,
    require_challenge_id: bool,
    deadlines: Deadlines,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RequestBody {
    otp: String,
    phone_number: String,
    challenge_id: String,
}

/// A well-formed request.
struct Submission {
    phone: PhoneNumber,
    code: OtpCode,
    /// `None`: the newest challenge of the phone.
    challenge: Option<ChallengeId>,
}

/// The response to a right code.
#[derive(Serialize)]
struct SignedInBody {
    success: bool,
    message: &'static str,
    data: User,
    tokens: Tokens,
    device_token: String,
}

/// A verification that fails.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("a field is missing")]
    MissingField,
    #[error("no challenge id")]
    MissingChallengeId,
    #[error(transparent)]
    InvalidPhoneNumber(#[from] phone::Invalid),
    /// `remaining` is `None` for a code that was not counted.
    #[error("wrong code")]
    Mismatch { remaining: Option<u32> },
    #[error("nothing to verify")]
    Expired,
    #[error("no attempts left")]
    TooManyAttempts { retry_after: Duration },
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("the number is registered")]
    UserExists,
    #[error("the number is not registered")]
    UserNotFound,
    /// A code for a change of number, and no access token of the user who wants it.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    #[error("a store failed")]
    Store(#[from] StoreError),
}

impl Function for Verify {
    const SECRETS: &[&str] = &[
        "DATABASE_URL",
        "EDGE_SECRET",
        "OTP_PEPPER",
        "REDIS_URL",
        "TOKEN_PRIVATE_KEY",
        "TOKEN_PUBLIC_KEYS",
    ];

    /// Reads `REQUIRE_CHALLENGE_ID` (default `false`), and what its parts read.
    fn from_env(env: &Env) -> Result<Self, config::Error> {
        let deadlines = Deadlines::from_env(env)?;
        let postgres = Arc::new(Postgres::from_env(env, deadlines.store)?);
        let redis = Redis::from_env(env, deadlines.store)?;
        let signer = Signer::from_env(env)?;
        Ok(Self {
            sign_ins: SignIns::from_env(env, Arc::clone(&postgres))?,
            users: Users::new(Arc::clone(&postgres)),
            postgres,
            checker: Checker::from_env(env, redis)?,
            verifier: Verifier::beside(&signer, env)?,
            signer,
            edge: Edge::from_env(env)?,
            phones: phone::Parser::from_env(env)?,
            code_lengths: Lengths::from_env(env)?,
            devices: Devices::from_env(env)?,
            require_challenge_id: env.flag("REQUIRE_CHALLENGE_ID", false)?,
            deadlines,
        })
    }

    async fn connect(&self) {
        tokio::join!(self.sign_ins.connect(), self.checker.connect());
    }

    async fn handle(&self, request: Request) -> Response<Body> {
        api::respond(&request, async |log| {
            match (request.method(), api::path(&request)) {
                (&Method::POST, "/verify") => {
                    Ok(self.verify(&request, log.route("/verify")).await?)
                }
                (_, "/verify") => Err(Failure::method_not_allowed("POST")),
                _ => Err(Failure::not_found()),
            }
        })
        .await
    }

    async fn close(&self) {
        self.postgres.close().await;
    }
}

impl Verify {
    async fn verify(&self, request: &Request, log: &mut RequestLog) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let Submission {
            phone,
            code,
            challenge,
        } = self.read(request, log)?;

        let address = self.edge.client_address(request);
        let check = self
            .checker
            .check(&phone, &address, &code, challenge.as_ref(), deadline);
        let matched = matched(log.redis(check).await?)?;
        if matched.is_first && !matched.is_test {
            log.count(Count::CodeVerified);
        }
        if let Purpose::ChangePhone { user_id } = matched.purpose {
            let change = self.change_phone(request, user_id, &matched, &phone, deadline, log);
            return change.await;
        }
        let refresh_token = RefreshToken::generate();
        let sign_in = self
            .sign_ins
            .sign_in(&matched, &phone, &refresh_token, deadline);
        let (outcome, message, SignedIn { user, auth_time }) = match log.postgres(sign_in).await? {
            SignInOutcome::Registered(signed_in) => {
                ("registered", "User registered successfully", signed_in)
            }
            SignInOutcome::LoggedIn(signed_in) => {
                ("logged_in", "User logged in successfully", signed_in)
            }
            SignInOutcome::ChallengeUsed => return Err(Error::Expired),
            SignInOutcome::UserNotFound => return Err(Error::UserNotFound),
            SignInOutcome::PhoneTaken => return Err(Error::UserExists),
        };
        // A known device keeps its id, and with it its limit.
        let device = matched.device.unwrap_or_else(DeviceId::generate);
        #[expect(clippy::disallowed_methods, reason = "the edge of a request")]
        let now = SystemTime::now();
        Ok(Success::new(
            outcome,
            &SignedInBody {
                success: true,
                message,
                tokens: Tokens::new(&self.signer, user.id, auth_time, &refresh_token, now),
                device_token: self.devices.token(&phone, &device),
                data: user,
            },
        ))
    }

    /// Reads a request. Malformed codes are wrong codes and do not reach Redis.
    fn read(&self, request: &Request, log: &mut RequestLog) -> Result<Submission, Error> {
        let body: RequestBody = api::read_json(request)?;
        if body.otp.is_empty() || body.phone_number.is_empty() {
            return Err(Error::MissingField);
        }
        if self.require_challenge_id && body.challenge_id.is_empty() {
            return Err(Error::MissingChallengeId);
        }
        let phone = self.phones.parse(&body.phone_number)?;
        log.phone(&phone);
        let code = OtpCode::parse(&body.otp, self.code_lengths)
            .ok_or(Error::Mismatch { remaining: None })?;
        let challenge = match body.challenge_id.as_str() {
            "" => None,
            text => Some(ChallengeId::parse(text).ok_or(Error::Expired)?),
        };
        Ok(Submission {
            phone,
            code,
            challenge,
        })
    }
}

/// The matched challenge, or the error for any other check.
fn matched(check: CheckOutcome) -> Result<Matched, Error> {
    match check {
        CheckOutcome::Matched(matched) => Ok(matched),
        CheckOutcome::Mismatch { remaining } => Err(Error::Mismatch { remaining }),
        CheckOutcome::Exhausted { retry_after } => Err(Error::TooManyAttempts { retry_after }),
        CheckOutcome::Limited(limited) => Err(Error::Limited(limited)),
        CheckOutcome::Absent => Err(Error::Expired),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match error {
            Error::BadRequest(bad) => bad.into(),
            Error::MissingField => {
                Self::new(BAD, "OTP and phone number are required", "missing_field")
            }
            Error::MissingChallengeId => {
                Self::new(BAD, "Challenge id is required", "missing_field")
            }
            Error::InvalidPhoneNumber(_) => {
                Self::new(BAD, "Invalid phone number", "invalid_phone_number")
            }
            Error::Mismatch { remaining } => {
                let failure = Self::new(StatusCode::UNAUTHORIZED, "Invalid OTP", "otp_mismatch");
                match remaining {
                    Some(attempts) => failure.attempts_remaining(attempts),
                    None => failure,
                }
            }
            Error::Expired => Self::new(
                StatusCode::UNAUTHORIZED,
                "Invalid or expired OTP",
                "otp_expired",
            ),
            Error::TooManyAttempts { retry_after } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many attempts",
                "too_many_attempts",
            )
            .limited_by("attempts")
            .retry_after(retry_after),
            Error::Limited(limited) => Self::limited(&limited),
            Error::UserExists => Self::new(
                StatusCode::CONFLICT,
                "User already exists with the given phone number",
                "user_exists",
            ),
            Error::UserNotFound => {
                Self::new(StatusCode::NOT_FOUND, "User not found", "user_not_found")
            }
            Error::Unauthenticated(refusal) => refusal.into(),
            Error::Store(error) => Self::store(&error, "Failed to register user"),
        }
    }
}
