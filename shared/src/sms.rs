//! Sending codes by SMS: one sender, several providers.
//!
//! A message is handed to a provider at most once. Its reply decides if the challenge stays, so
//! "refused" and "unknown" stay apart throughout.

mod sns;
mod text;
mod twilio;

use std::{error::Error, time::Duration};

use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use tokio::time::{Instant, timeout_at};

use self::{sns::Sns, text::Text, twilio::Twilio};
use crate::{
    config::{self, Deadlines, Env},
    otp::OtpCode,
    phone::PhoneNumber,
};

/// A connection may die while the function is frozen. That shows only after a message was written
/// to it, and its outcome is unknown. So no connection to a provider is kept.
const KEPT_CONNECTIONS: usize = 0;

/// The TLS stack that the stores use too.
const TLS: tls::Provider = tls::Provider::Rustls(CryptoMode::AwsLc);

/// Sends codes to phones.
pub struct Sms {
    provider: Provider,
    text: Text,
    timeout: Duration,
}

/// A message that was not sent, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The provider was never reached, or replied with an error: nothing was sent.
    #[error("the provider did not send the message")]
    Refused(#[source] Cause),
    /// The request may have arrived, but no reply did: the message may have been sent.
    #[error("the provider's reply was lost")]
    Unknown(#[source] Cause),
}

type Cause = Box<dyn Error + Send + Sync>;

/// A provider's reply to one message: the message's id, if it is known.
type Reply = Result<Option<String>, SendError>;

enum Provider {
    Sns(Sns),
    Twilio(Twilio),
    /// Writes the code to the log, for local work.
    Log,
}

impl Sms {
    /// Reads `SMS_PROVIDER` (`sns`, `twilio` or `log`), `SMS_TIMEOUT_MS`, and what the message and
    /// the provider need, see [`Text`], [`Sns`] and [`Twilio`].
    ///
    /// `log` is refused unless `OTP_LOCAL=1`, or `AWS_SAM_LOCAL=true` as `sam local` sets it: a
    /// deployed function must not write codes to its log.
    pub async fn from_env(
        env: &Env,
        code_lifetime: Duration,
        deadlines: Deadlines,
    ) -> Result<Self, config::Error> {
        const NAME: &str = "SMS_PROVIDER";
        let is_local =
            env.text("OTP_LOCAL") == Some("1") || env.text("AWS_SAM_LOCAL") == Some("true");
        let timeout = deadlines.sms(env)?;
        let provider = match env.required(NAME)? {
            "sns" => Provider::Sns(Sns::from_env(env, timeout).await?),
            "twilio" => Provider::Twilio(Twilio::from_env(env, timeout)?),
            "log" if is_local => Provider::Log,
            "log" => {
                return Err(config::Error::invalid(
                    NAME,
                    "may be log only with OTP_LOCAL=1 or under sam local",
                ));
            }
            _ => return Err(config::Error::invalid(NAME, "must be sns, twilio or log")),
        };
        Ok(Self {
            provider,
            text: Text::from_env(env, code_lifetime)?,
            timeout,
        })
    }

    /// Sends `code` to `phone` once. It refuses to start without the time to connect, because the
    /// outcome would be unknown.
    pub async fn send(
        &self,
        phone: &PhoneNumber,
        code: &OtpCode,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let now = Instant::now();
        let until = deadline.min(now + self.timeout);
        if until < now + self.timeout / 2 {
            return Err(SendError::Refused("no time left to send it".into()));
        }
        self.provider
            .send(phone, code, &self.text, until)
            .await
            .map(drop)
    }
}

impl Provider {
    async fn send(
        &self,
        phone: &PhoneNumber,
        code: &OtpCode,
        text: &Text,
        until: Instant,
    ) -> Reply {
        match self {
            Self::Sns(sns) => timeout_at(until, sns.send(phone, text.with(code)))
                .await
                .unwrap_or_else(|_| Err(SendError::no_reply())),
            Self::Twilio(twilio) => twilio.send(phone, &text.with(code), until).await,
            Self::Log => {
                tracing::info!(
                    phone_number = phone.as_e164(),
                    otp = code.expose(),
                    "Generated OTP"
                );
                Ok(None)
            }
        }
    }
}

impl SendError {
    fn no_reply() -> Self {
        Self::Unknown("no reply in time".into())
    }
}

/// Tells if a request may have left: the HTTP client failed, and not while it connected. Without
/// any error of that client the SDK gave up before, for want of credentials for example.
fn reached_the_provider(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<hyper_util::client::legacy::Error>() {
        Some(http) => !http.is_connect(),
        None => error.source().is_some_and(reached_the_provider),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_sender_starts_only_on_a_developers_machine() {
        for (local, starts) in [
            (("", ""), false),
            (("OTP_LOCAL", "true"), false),
            (("AWS_SAM_LOCAL", "1"), false),
            (("OTP_LOCAL", "1"), true),
            (("AWS_SAM_LOCAL", "true"), true),
        ] {
            let env = Env::from([("SMS_PROVIDER", "log"), local]);
            let deadlines = Deadlines::from_env(&env).unwrap();
            let sms = Sms::from_env(&env, Duration::from_mins(5), deadlines).await;
            assert_eq!(sms.is_ok(), starts, "{local:?}");
        }
    }
}
