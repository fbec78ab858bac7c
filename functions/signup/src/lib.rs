//! `POST /signup` and `POST /login`: a phone number in, a code by SMS out.
//!
//! With `REVEAL_REGISTERED=true` they say who is registered. With `false` they never do: every number
//! gets the same response, because every number gets a code.

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, BadRequest, Failure, Success},
    challenge::{ChallengeId, CodeRequest, IssueOutcome, Issuer, Kind, Limited, Purpose},
    config::{self, Deadlines, Env},
    connect::{Postgres, Redis, StoreError},
    device::Devices,
    otp::OtpCode,
    phone::{self, PhoneNumber},
    sms::{SendError, Sms},
    telemetry::{self, Count, Report},
    users::{InvalidName, Name, Users},
};
use tokio::time::Instant;

/// The parts of a request for a code, opened once at start.
pub struct Signup {
    pub users: Users,
    pub challenges: Issuer,
    sms: Sms,
    phones: phone::Parser,
    served: phone::Served,
    devices: Devices,
    reveals_registered: bool,
    deadlines: Deadlines,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SignupRequest {
    name: String,
    phone_number: String,
    device_token: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LoginRequest {
    phone_number: String,
    device_token: String,
}

#[derive(Serialize)]
struct Sent<'a> {
    success: bool,
    message: &'static str,
    challenge_id: &'a str,
    /// Digits.
    code_length: usize,
    /// Seconds for which the code is good.
    expires_in: u64,
    /// Seconds before another code can be asked for.
    resend_in: u64,
}

impl<'a> Sent<'a> {
    fn new(id: &'a ChallengeId) -> Self {
        Self {
            success: true,
            message: "OTP sent successfully",
            challenge_id: id.as_str(),
            code_length: 0,
            expires_in: 0,
            resend_in: 0,
        }
    }
}

/// The reasons why no code is sent.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("a field is missing")]
    MissingField,
    #[error("no phone number")]
    MissingPhoneNumber,
    #[error("not a name")]
    InvalidName,
    #[error(transparent)]
    InvalidPhoneNumber(#[from] phone::Invalid),
    #[error(transparent)]
    Unserved(#[from] phone::Unserved),
    #[error("the number is registered")]
    UserExists,
    #[error("the number is not registered")]
    UserNotFound,
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("a store failed")]
    Store(#[from] StoreError),
    #[error("no code was sent")]
    NotSent(#[source] SendError),
}

impl Signup {
    /// Reads `REVEAL_REGISTERED` (default `true`), and what the parts read.
    pub async fn from_env(env: &Env) -> Result<Self, config::Error> {
        let deadlines = Deadlines::from_env(env)?;
        let redis = Redis::from_env(env, deadlines.store)?;
        let challenges = Issuer::from_env(env, redis)?;
        Ok(Self {
            users: Users::new(Postgres::from_env(env, deadlines.store)?),
            sms: Sms::from_env(env, challenges.lifetime(), deadlines).await?,
            challenges,
            phones: phone::Parser::from_env(env)?,
            served: phone::Served::from_env(env)?,
            devices: Devices::from_env(env)?,
            reveals_registered: env.flag("REVEAL_REGISTERED", true)?,
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

    /// Responds to one request. It never fails: a failure is a response too.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        api::answer(&request, async |report| {
            match (request.method(), api::path(&request)) {
                (&Method::POST, "/signup") => {
                    Ok(self.sign_up(&request, report.on("/signup")).await?)
                }
                (&Method::POST, "/login") => Ok(self.log_in(&request, report.on("/login")).await?),
                (_, "/signup" | "/login") => Err(Failure::method_not_allowed("POST")),
                _ => Err(Failure::not_found()),
            }
        })
        .await
    }

    async fn sign_up(&self, request: &Request, report: &mut Report) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let fields: SignupRequest = api::read_json(request)?;
        if fields.name.is_empty() || fields.phone_number.is_empty() {
            return Err(Error::MissingField);
        }
        let name = Name::parse(&fields.name)?;
        let phone = self.read_phone(&fields.phone_number, report)?;
        let code_request = CodeRequest {
            id: ChallengeId::generate(),
            phone: &phone,
            address: &api::client_address(request),
            device: self.devices.recognize(&phone, &fields.device_token),
            is_registered: false,
            purpose: if self.reveals_registered {
                Purpose::SignUp(name)
            } else {
                Purpose::SignUpOrLogIn(name)
            },
        };
        if self.reveals_registered && self.is_registered(&phone, deadline, report).await? {
            return self
                .refuse_openly(&code_request, Error::UserExists, deadline, report)
                .await;
        }
        self.send_code(&code_request, deadline, report).await
    }

    async fn log_in(&self, request: &Request, report: &mut Report) -> Result<Success, Error> {
        let deadline = api::deadline(request, self.deadlines.request);
        let fields: LoginRequest = api::read_json(request)?;
        if fields.phone_number.is_empty() {
            return Err(Error::MissingPhoneNumber);
        }
        let phone = self.read_phone(&fields.phone_number, report)?;
        let code_request = CodeRequest {
            id: ChallengeId::generate(),
            phone: &phone,
            address: &api::client_address(request),
            device: self.devices.recognize(&phone, &fields.device_token),
            // In the open mode nobody else gets further than this.
            is_registered: self.reveals_registered,
            purpose: Purpose::LogIn,
        };
        if self.reveals_registered && !self.is_registered(&phone, deadline, report).await? {
            return self
                .refuse_openly(&code_request, Error::UserNotFound, deadline, report)
                .await;
        }
        self.send_code(&code_request, deadline, report).await
    }

    fn read_phone(&self, text: &str, report: &mut Report) -> Result<PhoneNumber, Error> {
        let phone = self.phones.parse(text)?;
        report.about(&phone);
        self.served.check(&phone)?;
        Ok(phone)
    }

    async fn is_registered(
        &self,
        phone: &PhoneNumber,
        deadline: Instant,
        report: &mut Report,
    ) -> Result<bool, StoreError> {
        let is_registered = self.users.is_registered(phone, deadline);
        report.postgres(is_registered).await
    }

    /// Says who is registered, at the price of one request for a code: probing is not free.
    async fn refuse_openly(
        &self,
        request: &CodeRequest<'_>,
        refusal: Error,
        deadline: Instant,
        report: &mut Report,
    ) -> Result<Success, Error> {
        let probe = self.challenges.probe(request, deadline);
        let limited = report.redis(probe).await?;
        Err(limited.map_or(refusal, Error::Limited))
    }

    async fn send_code(
        &self,
        request: &CodeRequest<'_>,
        deadline: Instant,
        report: &mut Report,
    ) -> Result<Success, Error> {
        let issue = self.challenges.issue(request, deadline);
        let outcome = report.redis(issue).await;
        if matches!(
            outcome,
            Err(StoreError::Unavailable(..) | StoreError::Fault(..))
        ) {
            // It may have been stored all the same, and nothing will be sent.
            self.revoke(request, deadline, report).await;
        }
        match outcome? {
            IssueOutcome::Issued { code, full_misses } => {
                for bucket in full_misses {
                    report.count(match bucket {
                        Kind::MissesPhone => Count::PhoneMissesFull,
                        _ => Count::TotalMissesFull,
                    });
                }
                self.send(request, &code, deadline, report).await?;
                let sent = Sent {
                    code_length: code.expose().len(),
                    expires_in: self.challenges.lifetime().as_secs(),
                    resend_in: self.challenges.cool_down().as_secs(),
                    ..Sent::new(&request.id)
                };
                Ok(Success::new("sent", &sent))
            }
            IssueOutcome::Shared {
                code_length,
                lifetime,
                retry_after,
            } => {
                let sent = Sent {
                    code_length,
                    expires_in: lifetime.as_secs(),
                    resend_in: retry_after
                        .as_millis()
                        .div_ceil(1000)
                        .try_into()
                        .unwrap_or(u64::MAX),
                    ..Sent::new(&request.id)
                };
                Ok(Success::new("shared", &sent))
            }
            IssueOutcome::Limited(limited) => Err(Error::Limited(limited)),
        }
    }

    /// Sends the code, or revokes its challenge if it certainly was not sent.
    async fn send(
        &self,
        request: &CodeRequest<'_>,
        code: &OtpCode,
        deadline: Instant,
        report: &mut Report,
    ) -> Result<(), Error> {
        // The rest of the time is kept for revoking the challenge.
        let until = deadline - self.deadlines.store;
        let send = Box::pin(self.sms.send(request.phone, code, until));
        match report.provider(send).await {
            Ok(()) => {}
            Err(refused @ SendError::Refused(_)) => {
                self.revoke(request, deadline, report).await;
                return Err(Error::NotSent(refused));
            }
            Err(unknown @ SendError::Unknown(_)) => {
                report.count(Count::UnknownSend);
                let cause = telemetry::chain(&unknown);
                tracing::error!(cause, phone = %request.phone, "counted as sent");
            }
        }
        report.count(Count::CodeSent);
        Ok(())
    }

    async fn revoke(&self, request: &CodeRequest<'_>, deadline: Instant, report: &mut Report) {
        let revoke = self.challenges.revoke(request, deadline);
        if let Err(error) = report.redis(revoke).await {
            // Nobody has the code, so the challenge only waits for its expiry.
            let cause = telemetry::chain(&error);
            tracing::error!(cause, phone = %request.phone, "challenge not revoked");
        }
    }
}

impl From<InvalidName> for Error {
    fn from(invalid: InvalidName) -> Self {
        match invalid {
            InvalidName::Empty => Self::MissingField,
            InvalidName::Malformed => Self::InvalidName,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::BadRequest(bad) => bad.into(),
            Error::MissingField => Self::new(
                StatusCode::BAD_REQUEST,
                "Name and phone number are required",
                "missing_field",
            ),
            Error::MissingPhoneNumber => Self::new(
                StatusCode::BAD_REQUEST,
                "Phone number is required",
                "missing_field",
            ),
            Error::InvalidName => {
                Self::new(StatusCode::BAD_REQUEST, "Invalid name", "invalid_name")
            }
            Error::InvalidPhoneNumber(_) | Error::Unserved(phone::Unserved::Invalid) => Self::new(
                StatusCode::BAD_REQUEST,
                "Invalid phone number",
                "invalid_phone_number",
            ),
            Error::Unserved(phone::Unserved::Unsupported) => Self::new(
                StatusCode::FORBIDDEN,
                "Phone numbers of this kind are not supported",
                "unsupported_phone_number",
            ),
            Error::Limited(limited) => Self::limited(&limited),
            Error::UserExists => Self::new(
                StatusCode::CONFLICT,
                "User already exists with the given phone number",
                "user_exists",
            ),
            Error::UserNotFound => {
                Self::new(StatusCode::NOT_FOUND, "User not found", "user_not_found")
            }
            Error::Store(error) => Self::store(&error, "Failed to store user data"),
            Error::NotSent(error) => {
                Self::new(StatusCode::BAD_GATEWAY, "Failed to send OTP", "sms_failed")
                    .caused_by(&error)
            }
        }
    }
}
