//! `POST /signup`: a name and a phone number in, a code by SMS out.

use std::time::Duration;

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, BadRequest, Failure, Success},
    challenge::{Asker, ChallengeId, Issue, Issuer, Limited},
    config::{self, Deadlines, Env},
    connect::{Postgres, Redis, StoreError},
    otp::{Length, OtpCode},
    phone::{self, PhoneNumber},
    sms::{SendError, Sms},
    telemetry::{self, Count, Report},
    users::{InvalidName, Name, Users},
};
use tokio::time::Instant;

/// What a sign-up needs, opened once at start.
pub struct Signup {
    pub users: Users,
    pub challenges: Issuer,
    sms: Sms,
    phones: phone::Parser,
    served: phone::Served,
    code_length: Length,
    deadlines: Deadlines,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SignupRequest {
    name: String,
    phone_number: String,
}

#[derive(Serialize)]
struct Sent<'a> {
    success: bool,
    message: &'static str,
    challenge_id: &'a str,
    /// Seconds for which the code is good.
    expires_in: u64,
    /// Seconds before another code can be asked for.
    resend_in: u64,
}

/// The ways in which no code is sent.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unreadable request")]
    BadRequest(#[from] BadRequest),
    #[error("a field is missing")]
    MissingField,
    #[error("not a name")]
    InvalidName,
    #[error(transparent)]
    InvalidPhoneNumber(#[from] phone::Invalid),
    #[error(transparent)]
    Unserved(#[from] phone::Unserved),
    #[error("the number is registered")]
    UserExists,
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("hardly any code sent to this range comes back")]
    Pumped { retry_after: Duration },
    #[error("a store failed")]
    Store(#[from] StoreError),
    #[error("no code was sent")]
    NotSent(#[source] SendError),
}

impl Signup {
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
            code_length: Length::from_env(env)?,
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
                (&Method::POST, "/signup") => {
                    Ok(self.sign_up(&request, report.on("/signup")).await?)
                }
                (_, "/signup") => Err(Failure::method_not_allowed("POST")),
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
        let phone = self.phones.parse(&fields.phone_number)?;
        report.about(&phone);
        self.served.check(&phone)?;
        let asker = Asker {
            phone: &phone,
            address: &api::client_address(request),
        };

        let is_registered = self.users.is_registered(&phone, deadline);
        if report.postgres(is_registered).await? {
            // Otherwise it would cost nothing to find out which numbers are registered.
            let probe = self.challenges.probe(asker.address, deadline);
            let limited = report.redis(probe).await?;
            return Err(limited.map_or(Error::UserExists, Error::Limited));
        }
        let id = ChallengeId::generate();
        let code = OtpCode::generate(self.code_length);
        self.issue(&id, &asker, &name, &code, deadline, report)
            .await?;
        self.send(&id, &asker, &code, deadline, report).await?;
        Ok(self.sent(&id))
    }

    /// Stores the challenge, unless a limit is reached.
    async fn issue(
        &self,
        id: &ChallengeId,
        asker: &Asker<'_>,
        name: &Name,
        code: &OtpCode,
        deadline: Instant,
        report: &mut Report,
    ) -> Result<(), Error> {
        let issue = self.challenges.issue(id, asker, name, code, deadline);
        let issue = report.redis(issue).await;
        if matches!(
            issue,
            Err(StoreError::Unavailable(..) | StoreError::Fault(..))
        ) {
            // It may have been stored all the same, and nothing will be sent.
            self.take_back(id, asker, deadline, report).await;
        }
        match issue? {
            Issue::Issued {
                low_range,
                low_country,
            } => {
                warn_of_pumping(asker.phone, low_range, low_country, report);
                Ok(())
            }
            Issue::Limited(limited) => Err(Error::Limited(limited)),
            Issue::Pumped { retry_after } => Err(Error::Pumped { retry_after }),
        }
    }

    /// Sends the code. If it certainly was not sent, the challenge is taken back.
    async fn send(
        &self,
        id: &ChallengeId,
        asker: &Asker<'_>,
        code: &OtpCode,
        deadline: Instant,
        report: &mut Report,
    ) -> Result<(), Error> {
        // What is left then is kept for taking the challenge back.
        let until = deadline - self.deadlines.store;
        let send = Box::pin(self.sms.send(asker.phone, code, until));
        match report.provider(send).await {
            Ok(()) => {
                report.count(Count::CodeSent);
                Ok(())
            }
            Err(unknown @ SendError::Unknown(_)) => {
                report.count(Count::CodeSent);
                report.count(Count::UnknownSend);
                let cause = telemetry::chain(&unknown);
                tracing::error!(cause, phone = %asker.phone, "counted as sent");
                Ok(())
            }
            Err(refused @ SendError::Refused(_)) => {
                self.take_back(id, asker, deadline, report).await;
                Err(Error::NotSent(refused))
            }
        }
    }

    async fn take_back(
        &self,
        id: &ChallengeId,
        asker: &Asker<'_>,
        deadline: Instant,
        report: &mut Report,
    ) {
        let revoke = self.challenges.revoke(id, asker, deadline);
        if let Err(error) = report.redis(revoke).await {
            // Nobody has the code, so what stays is a challenge that nobody can answer.
            let cause = telemetry::chain(&error);
            tracing::error!(cause, phone = %asker.phone, "challenge not taken back");
        }
    }

    fn sent(&self, id: &ChallengeId) -> Success {
        Success::new(
            "sent",
            &Sent {
                success: true,
                message: "OTP sent successfully",
                challenge_id: id.as_str(),
                expires_in: self.challenges.lifetime().as_secs(),
                resend_in: self.challenges.cool_down().as_secs(),
            },
        )
    }
}

fn warn_of_pumping(phone: &PhoneNumber, low_range: bool, low_country: bool, report: &mut Report) {
    if low_range {
        report.count(Count::LowRange);
    }
    if low_country {
        report.count(Count::LowCountry);
    }
    if low_range || low_country {
        tracing::error!(
            range = low_range.then(|| phone.masked()),
            country = phone.country(),
            "hardly any code sent there comes back: somebody may be paid for the messages"
        );
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
            Error::Pumped { retry_after } => Self::rate_limited("pumping", retry_after),
            Error::UserExists => Self::new(
                StatusCode::CONFLICT,
                "User already exists with the given phone number",
                "user_exists",
            ),
            Error::Store(error) => Self::store(&error, "Failed to store user data"),
            Error::NotSent(error) => {
                Self::new(StatusCode::BAD_GATEWAY, "Failed to send OTP", "sms_failed")
                    .caused_by(&error)
            }
        }
    }
}
