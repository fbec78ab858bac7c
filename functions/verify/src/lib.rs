//! `POST /verify`: the code comes back, and whoever has it is registered or logged in, with tokens.

use std::time::{Duration, SystemTime};

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, BadRequest, Failure, Success},
    challenge::{ChallengeId, Check, Checker, Limited, Matched},
    config::{self, Deadlines, Env},
    connect::{Postgres, Redis, StoreError},
    device::{DeviceId, Devices},
    otp::{Lengths, OtpCode},
    phone::{self, PhoneNumber},
    sessions::{Lifetime, RefreshToken, Tokens},
    telemetry::{Count, Report},
    token::Signer,
    users::{Entry, SignedIn, User, Users},
};

/// What a verification needs, opened once at start.
pub struct Verify {
    pub users: Users,
    pub challenges: Checker,
    signer: Signer,
    phones: phone::Parser,
    code_lengths: Lengths,
    devices: Devices,
    session_lifetime: Lifetime,
    require_challenge_id: bool,
    deadlines: Deadlines,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct VerifyRequest {
    otp: String,
    phone_number: String,
    challenge_id: String,
}

/// A request that can be put to the stores.
struct Submission {
    phone: PhoneNumber,
    code: OtpCode,
    /// `None`: the newest challenge of the phone.
    challenge: Option<ChallengeId>,
}

#[derive(Serialize)]
struct Entered {
    success: bool,
    message: &'static str,
    data: User,
    tokens: Tokens,
    device_token: String,
}

/// The ways in which nobody is registered or logged in.
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
    /// The code is wrong; how many attempts are left is not known for a code that was not counted.
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
    #[error("a store failed")]
    Store(#[from] StoreError),
}

impl Verify {
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let deadlines = Deadlines::from_env(env)?;
        let redis = Redis::from_env(env, deadlines.store)?;
        Ok(Self {
            users: Users::new(Postgres::from_env(env, deadlines.store)?),
            challenges: Checker::from_env(env, redis)?,
            signer: Signer::from_env(env)?,
            phones: phone::Parser::from_env(env)?,
            code_lengths: Lengths::from_env(env)?,
            devices: Devices::from_env(env)?,
            session_lifetime: Lifetime::from_env(env)?,
            require_challenge_id: env.flag("REQUIRE_CHALLENGE_ID", false)?,
            deadlines,
        })
    }

    /// Opens the connections side by side, ahead of the first request.
    pub async fn connect(&self) {
        tokio::join!(self.users.connect(), self.challenges.connect());
    }

    /// Closes what a server would miss.
    pub async fn close(&self) {
        self.users.close().await;
    }

    /// Answers one request. It never fails: what goes wrong is an answer too.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        api::answer(&request, async |report| {
            match (request.method(), api::path(&request)) {
                (&Method::POST, "/verify") => {
                    Ok(self.verify(&request, report.on("/verify")).await?)
                }
                (_, "/verify") => Err(Failure::method_not_allowed("POST")),
                _ => Err(Failure::not_found()),
            }
        })
        .await
    }

    async fn verify(&self, request: &Request, report: &mut Report) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let Submission {
            phone,
            code,
            challenge,
        } = self.read(request, report)?;

        let address = api::client_address(request);
        let check = self
            .challenges
            .check(&phone, &address, &code, challenge.as_ref(), deadline);
        let matched = matched(report.redis(check).await?)?;
        if matched.is_first {
            report.count(Count::CodeVerified);
        }
        let refresh_token = RefreshToken::generate();
        let lifetime = self.session_lifetime;
        let enter = self
            .users
            .enter(&matched, &phone, &refresh_token, lifetime, deadline);
        let (outcome, message, SignedIn { user, auth_time }) = match report.postgres(enter).await? {
            Entry::Registered(signed_in) => {
                ("registered", "User registered successfully", signed_in)
            }
            Entry::LoggedIn(signed_in) => ("logged_in", "User logged in successfully", signed_in),
            Entry::ChallengeUsed => return Err(Error::Expired),
            Entry::UserGone => return Err(Error::UserNotFound),
            Entry::PhoneTaken => return Err(Error::UserExists),
        };
        // A device that is known already keeps its id, and with it its limit.
        let device = matched.device.unwrap_or_else(DeviceId::generate);
        let now = SystemTime::now();
        Ok(Success::new(
            outcome,
            &Entered {
                success: true,
                message,
                tokens: Tokens::new(&self.signer, user.id, auth_time, &refresh_token, now),
                device_token: self.devices.token(&phone, &device),
                data: user,
            },
        ))
    }

    fn read(&self, request: &Request, report: &mut Report) -> Result<Submission, Error> {
        let fields: VerifyRequest = api::read_json(request)?;
        if fields.otp.is_empty() || fields.phone_number.is_empty() {
            return Err(Error::MissingField);
        }
        if self.require_challenge_id && fields.challenge_id.is_empty() {
            return Err(Error::MissingChallengeId);
        }
        let phone = self.phones.parse(&fields.phone_number)?;
        report.about(&phone);
        let code = OtpCode::parse(&fields.otp, self.code_lengths)
            .ok_or(Error::Mismatch { remaining: None })?;
        let challenge = match fields.challenge_id.as_str() {
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

fn matched(check: Check) -> Result<Matched, Error> {
    match check {
        Check::Matched(matched) => Ok(matched),
        Check::Mismatch { remaining } => Err(Error::Mismatch { remaining }),
        Check::Exhausted { retry_after } => Err(Error::TooManyAttempts { retry_after }),
        Check::Limited(limited) => Err(Error::Limited(limited)),
        Check::Absent => Err(Error::Expired),
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
            Error::Store(error) => Self::store(&error, "Failed to register user"),
        }
    }
}
