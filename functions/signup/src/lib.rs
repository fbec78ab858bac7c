//! `POST /signup` and `POST /login`: a phone number in, a code by SMS out.
//!
//! A login's answers, and a sign-up's where registered numbers log in, do not tell who is registered:
//! not by what is in them, and not by when they come.

use std::time::Duration;

use lambda_http::{
    Body, Request, Response,
    http::{Method, StatusCode},
};
use serde::{Deserialize, Serialize};
use shared::{
    api::{self, BadRequest, Failure, Success},
    challenge::{Asker, ChallengeId, Issue, Issuer, Limited, Purpose},
    config::{self, Deadlines, Env},
    connect::{Postgres, Redis, StoreError},
    otp::{Length, OtpCode},
    phone::{self, PhoneNumber},
    sms::{SendError, Sms},
    telemetry::{self, Count, Report},
    users::{InvalidName, Name, Users},
};
use tokio::time::{Instant, sleep_until};

/// What asking for a code needs, opened once at start.
pub struct Signup {
    pub users: Users,
    pub challenges: Issuer,
    sms: Sms,
    phones: phone::Parser,
    served: phone::Served,
    code_length: Length,
    registered_phone: RegisteredPhone,
    /// No answer that must not tell who is registered says "sent" before this time.
    login_min: Duration,
    deadlines: Deadlines,
}

/// What becomes of the sign-up of a registered number.
#[derive(Clone, Copy)]
enum RegisteredPhone {
    /// It is told so.
    Conflict,
    /// The code logs its user in.
    LogIn,
}

/// A code that is asked for.
struct Order<'a> {
    id: ChallengeId,
    asker: Asker<'a>,
    purpose: Purpose,
    /// `None`: a decoy, and nothing is sent.
    code: Option<OtpCode>,
    deadline: Instant,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SignupRequest {
    name: String,
    phone_number: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LoginRequest {
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
            registered_phone: RegisteredPhone::from_env(env)?,
            login_min: deadlines.login_min(env)?,
            deadlines,
        })
    }

    /// Opens the connections side by side, ahead of the first request.
    pub async fn connect(&self) {
        tokio::join!(self.users.connect(), self.challenges.connect());
    }

    /// Answers one request. It never fails: what goes wrong is an answer too.
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
        let begun = Instant::now();
        let deadline = begun + self.deadlines.request;
        let fields: SignupRequest = api::read_json(request)?;
        if fields.name.is_empty() || fields.phone_number.is_empty() {
            return Err(Error::MissingField);
        }
        let name = Name::parse(&fields.name)?;
        let phone = self.phones.parse(&fields.phone_number)?;
        report.about(&phone);
        self.served.check(&phone)?;
        let address = api::client_address(request);

        // In either case, so that a Postgres that is down shows before anything is sent.
        let is_registered = self.users.is_registered(&phone, deadline);
        let is_registered = report.postgres(is_registered).await?;
        let purpose = match self.registered_phone {
            RegisteredPhone::Conflict if is_registered => {
                // Otherwise it would cost nothing to find out which numbers are registered.
                let probe = self.challenges.probe(&address, deadline);
                let limited = report.redis(probe).await?;
                return Err(limited.map_or(Error::UserExists, Error::Limited));
            }
            RegisteredPhone::Conflict => Purpose::SignUp(name),
            // Whoever asks: which of the two it is shows when the code comes back.
            RegisteredPhone::LogIn => Purpose::SignUpOrLogIn(name),
        };
        let order = Order {
            id: ChallengeId::generate(),
            asker: Asker {
                phone: &phone,
                address: &address,
            },
            purpose,
            code: Some(OtpCode::generate(self.code_length)),
            deadline,
        };
        self.issue(&order, report).await?;
        match self.registered_phone {
            RegisteredPhone::Conflict => self.answer_openly(&order, report).await,
            RegisteredPhone::LogIn => self.answer_alike(&order, begun, report).await,
        }
    }

    async fn log_in(&self, request: &Request, report: &mut Report) -> Result<Success, Error> {
        let begun = Instant::now();
        let deadline = begun + self.deadlines.request;
        let fields: LoginRequest = api::read_json(request)?;
        if fields.phone_number.is_empty() {
            return Err(Error::MissingPhoneNumber);
        }
        let phone = self.phones.parse(&fields.phone_number)?;
        report.about(&phone);

        let is_registered = self.users.is_registered(&phone, deadline);
        let is_registered = report.postgres(is_registered).await?;
        let is_sent = is_registered && self.served.check(&phone).is_ok();
        let order = Order {
            id: ChallengeId::generate(),
            asker: Asker {
                phone: &phone,
                address: &api::client_address(request),
            },
            purpose: Purpose::LogIn,
            code: is_sent.then(|| OtpCode::generate(self.code_length)),
            deadline,
        };
        self.issue(&order, report).await?;
        self.answer_alike(&order, begun, report).await
    }

    /// Sends the code and answers what came of it.
    async fn answer_openly(
        &self,
        order: &Order<'_>,
        report: &mut Report,
    ) -> Result<Success, Error> {
        match self.send(order, report).await {
            Ok(outcome) => Ok(self.sent(outcome, &order.id)),
            Err(refused) => {
                self.take_back(order, report).await;
                Err(Error::NotSent(refused))
            }
        }
    }

    /// Sends the code, and answers the same whatever came of it, and not before its time. What it was
    /// stands in the log. A challenge whose message was refused stays, because one that is taken back
    /// would be told from a decoy.
    async fn answer_alike(
        &self,
        order: &Order<'_>,
        begun: Instant,
        report: &mut Report,
    ) -> Result<Success, Error> {
        let outcome = self.send(order, report).await.unwrap_or_else(|refused| {
            let cause = telemetry::chain(&refused);
            tracing::error!(cause, phone = %order.asker.phone, "not sent");
            "sms_failed"
        });
        sleep_until(order.deadline.min(begun + self.login_min)).await;
        Ok(self.sent(outcome, &order.id))
    }

    /// Stores the challenge, unless a limit is reached.
    async fn issue(&self, order: &Order<'_>, report: &mut Report) -> Result<(), Error> {
        let issue = self.challenges.issue(
            &order.id,
            &order.asker,
            &order.purpose,
            order.code.as_ref(),
            order.deadline,
        );
        let issue = report.redis(issue).await;
        if issue.is_err() {
            // It may have been stored all the same, and nothing will be sent.
            self.take_back(order, report).await;
        }
        match issue? {
            Issue::Issued {
                low_range,
                low_country,
            } => {
                if order.code.is_some() {
                    warn_of_pumping(order.asker.phone, low_range, low_country, report);
                }
                Ok(())
            }
            Issue::Limited(limited) => Err(Error::Limited(limited)),
            Issue::Pumped { retry_after } => Err(Error::Pumped { retry_after }),
        }
    }

    /// Sends the code, if there is one, and returns the log's word for that. It fails if the code
    /// certainly was not sent.
    async fn send(
        &self,
        order: &Order<'_>,
        report: &mut Report,
    ) -> Result<&'static str, SendError> {
        let Some(code) = &order.code else {
            return Ok("decoy");
        };
        let phone = order.asker.phone;
        let send = Box::pin(self.sms.send(phone, code, order.deadline));
        match report.provider(send).await {
            Ok(()) => {}
            Err(refused @ SendError::Refused(_)) => return Err(refused),
            Err(unknown @ SendError::Unknown(_)) => {
                report.count(Count::UnknownSend);
                let cause = telemetry::chain(&unknown);
                tracing::error!(cause, %phone, "counted as sent");
            }
        }
        report.count(Count::CodeSent);
        Ok("sent")
    }

    async fn take_back(&self, order: &Order<'_>, report: &mut Report) {
        let Order {
            id,
            asker,
            purpose,
            deadline,
            ..
        } = order;
        let revoke = self.challenges.revoke(id, asker, purpose, *deadline);
        if let Err(error) = report.redis(revoke).await {
            // Nobody has the code, so what stays is a challenge that nobody can answer.
            let cause = telemetry::chain(&error);
            tracing::error!(cause, phone = %asker.phone, "challenge not taken back");
        }
    }

    fn sent(&self, outcome: &'static str, id: &ChallengeId) -> Success {
        Success::new(
            outcome,
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

impl RegisteredPhone {
    /// Reads `REGISTERED_PHONE` (`conflict` or `login`; default `conflict`).
    fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "REGISTERED_PHONE";
        match env.text(NAME) {
            None | Some("conflict") => Ok(Self::Conflict),
            Some("login") => Ok(Self::LogIn),
            Some(_) => Err(config::Error::invalid(NAME, "must be conflict or login")),
        }
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
