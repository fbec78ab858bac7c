//! The delivery of a code, for every route that sends one: the challenge, then the message.

use std::time::{Duration, SystemTime};

use lambda_http::http::StatusCode;
use serde::Serialize;
use shared::{
    api::{self, Failure, Success},
    challenge::{CodeRequest, FullMisses, IssueOutcome, Issuer, Limited},
    config::{self, Deadlines, Env},
    otp::OtpCode,
    phone::{self, PhoneNumber},
    sms::{Language, SendError, Sms},
    store::{Redis, StoreError},
    telemetry::{self, Count, RequestLog},
    test_numbers::TestNumbers,
};
use tokio::time::Instant;

/// Delivers codes.
pub struct Delivery {
    pub issuer: Issuer,
    sms: Sms,
    test_numbers: TestNumbers,
    store_timeout: Duration,
}

/// The response to a delivered code.
#[derive(Serialize)]
struct Sent<'a> {
    success: bool,
    message: &'static str,
    challenge_id: &'a str,
    /// Digits.
    code_length: usize,
    /// Seconds until the code expires.
    expires_in: u64,
    /// The cool-down in seconds. A longer limit may apply. For a shared code, the exact wait.
    resend_in: u64,
}

/// A code that was not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("a store failed")]
    Store(#[from] StoreError),
    #[error("no code was sent")]
    NotSent(#[source] SendError),
}

impl Delivery {
    /// Reads what [`Redis`], [`Issuer`], [`Sms`] and [`TestNumbers`] read.
    pub(crate) fn from_env(
        env: &Env,
        phones: phone::Parser,
        deadlines: Deadlines,
    ) -> Result<Self, config::Error> {
        let issuer = Issuer::from_env(env, Redis::from_env(env, deadlines.store)?)?;
        Ok(Self {
            sms: Sms::from_env(env, issuer.lifetime(), deadlines)?,
            test_numbers: TestNumbers::from_env(env, phones, issuer.lengths())?,
            issuer,
            store_timeout: deadlines.store,
        })
    }

    /// The fixed code of a test number, `None` for every other number.
    #[expect(clippy::disallowed_methods, reason = "the edge of a request")]
    pub(crate) fn test_code(&self, phone: &PhoneNumber) -> Option<&OtpCode> {
        self.test_numbers.code_for(phone, SystemTime::now())
    }

    /// Issues a challenge and sends its code. A test number gets no message. If the phone's limit
    /// is exhausted, the challenge may share the newest code, and no message goes out.
    pub(crate) async fn deliver(
        &self,
        request: &CodeRequest<'_>,
        language: Language,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<Success, Error> {
        let issue = self.issuer.issue(request, deadline);
        let issued = log.redis(issue).await;
        if let Err(StoreError::Unavailable(..) | StoreError::Fault(..)) = issued {
            // Redis may have stored the challenge, and no message will be sent.
            self.revoke(request, deadline, log).await;
        }
        let (outcome, code_length, expires_in, resend_in) = match issued? {
            IssueOutcome::Issued { code, full_misses } => {
                for bucket in full_misses {
                    log.count(match bucket {
                        FullMisses::Phone => Count::PhoneMissesFull,
                        FullMisses::Total => Count::TotalMissesFull,
                    });
                }
                let outcome = if request.test_code.is_some() {
                    log.count(Count::TestCode);
                    "test_code"
                } else {
                    self.send(request, &code, language, deadline, log).await?;
                    "sent"
                };
                let length = code.expose().len();
                let (lifetime, cool_down) = (self.issuer.lifetime(), self.issuer.cool_down());
                (outcome, length, lifetime, cool_down)
            }
            IssueOutcome::Shared {
                code_length,
                lifetime,
                retry_after,
            } => ("shared", code_length, lifetime, retry_after),
            IssueOutcome::Limited(limited) => return Err(limited.into()),
        };
        let sent = Sent {
            success: true,
            message: "OTP sent successfully",
            challenge_id: request.id.as_str(),
            code_length,
            expires_in: expires_in.as_secs(),
            resend_in: api::whole_seconds(resend_in),
        };
        Ok(Success::new(outcome, &sent))
    }

    /// Charges one request to the requester's address, or to its known device: the price of
    /// learning that a number is registered, or that it is not.
    pub(crate) async fn charge_probe(
        &self,
        request: &CodeRequest<'_>,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<(), Error> {
        let probe = self.issuer.probe(request, deadline);
        match log.redis(probe).await? {
            None => Ok(()),
            Some(limited) => Err(limited.into()),
        }
    }

    /// Sends the code, or revokes its challenge if the message was certainly not sent.
    async fn send(
        &self,
        request: &CodeRequest<'_>,
        code: &OtpCode,
        language: Language,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<(), Error> {
        // The rest of the time is reserved for revoking the challenge.
        let send_deadline = deadline - self.store_timeout;
        let sms = &self.sms;
        let send = sms.send(request.phone, code, language, send_deadline, log);
        match send.await {
            Ok(()) => {}
            Err(refused @ SendError::Refused(_)) => {
                self.revoke(request, deadline, log).await;
                return Err(Error::NotSent(refused));
            }
            Err(unknown @ SendError::Unknown(_)) => {
                log.count(Count::UnknownSend);
                let cause = telemetry::chain(&unknown);
                tracing::error!(cause, phone = %request.phone, "counted as sent");
            }
        }
        log.count(Count::CodeSent);
        Ok(())
    }

    /// Warns the number that an account has now, once a code went to the new one. A failed warning
    /// does not stop the change: people often change numbers because they lost the old one.
    pub(crate) async fn warn(
        &self,
        old: &PhoneNumber,
        language: Language,
        deadline: Instant,
        log: &mut RequestLog,
    ) {
        if self.test_code(old).is_some() {
            return;
        }
        match self.sms.warn(old, language, deadline, log).await {
            Ok(()) => log.count(Count::WarningSent),
            Err(error) => {
                let cause = telemetry::chain(&error);
                tracing::warn!(cause, phone = %old, "not warned of a new number");
            }
        }
    }

    async fn revoke(&self, request: &CodeRequest<'_>, deadline: Instant, log: &mut RequestLog) {
        let revoke = self.issuer.revoke(request, deadline);
        if let Err(error) = log.redis(revoke).await {
            // Nobody has the code, so the challenge only waits for its expiry.
            let cause = telemetry::chain(&error);
            tracing::error!(cause, phone = %request.phone, "challenge not revoked");
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Limited(limited) => Self::limited(&limited),
            Error::Store(error) => Self::store(&error, "Failed to store user data"),
            Error::NotSent(error) => {
                Self::new(StatusCode::BAD_GATEWAY, "Failed to send OTP", "sms_failed")
                    .caused_by(&error)
            }
        }
    }
}
