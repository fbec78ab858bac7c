//! Sending codes by SMS: one sender, several providers.
//!
//! A message is handed to a provider at most once. Its reply decides if the challenge stays, so
//! "refused" and "unknown" stay apart throughout.

use std::{error::Error, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_sns::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::publish::PublishError,
    types::MessageAttributeValue,
};
use aws_smithy_http_client::tls;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::{self, Deadlines, Env},
    otp::OtpCode,
    phone::PhoneNumber,
};

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

enum Provider {
    Sns(Sns),
    /// Writes the code to the log, for local work.
    Log,
}

impl Sms {
    /// Reads `SMS_PROVIDER` (`sns` or `log`), `SMS_TIMEOUT_MS`, and what the message and the
    /// provider need, see [`Text`] and [`Sns`].
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
            "log" if is_local => Provider::Log,
            "log" => {
                return Err(config::Error::invalid(
                    NAME,
                    "may be log only with OTP_LOCAL=1 or under sam local",
                ));
            }
            _ => return Err(config::Error::invalid(NAME, "must be sns or log")),
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
        match &self.provider {
            Provider::Sns(sns) => {
                let now = Instant::now();
                let until = deadline.min(now + self.timeout);
                if until < now + self.timeout / 2 {
                    return Err(SendError::Refused("no time left to send it".into()));
                }
                timeout_at(until, sns.publish(phone, self.text.with(code)))
                    .await
                    .unwrap_or_else(|_| Err(SendError::Unknown("no reply in time".into())))
            }
            Provider::Log => {
                tracing::info!(
                    phone_number = phone.as_e164(),
                    otp = code.expose(),
                    "Generated OTP"
                );
                Ok(())
            }
        }
    }
}

/// The text of a message around the code. It holds no client's text.
struct Text {
    /// `OTP_APP_NAME`: the sender's name.
    app_name: Option<String>,
    /// `OTP_DOMAIN`: the origin to which browsers bind the code (WICG, "Origin-bound one-time codes
    /// delivered via SMS").
    domain: Option<String>,
    minutes: u64,
}

impl Text {
    /// One segment of the GSM 7-bit alphabet (3GPP TS 23.038).
    const SEPTETS: usize = 160;

    /// Reads `OTP_APP_NAME` and `OTP_DOMAIN`.
    fn from_env(env: &Env, code_lifetime: Duration) -> Result<Self, config::Error> {
        let text = Self {
            app_name: env.text("OTP_APP_NAME").map(str::to_owned),
            domain: env.text("OTP_DOMAIN").map(str::to_owned),
            minutes: code_lifetime.as_secs() / 60,
        };
        if text.domain.as_deref().is_some_and(|name| !is_domain(name)) {
            return Err(config::Error::invalid(
                "OTP_DOMAIN",
                "must be a domain such as example.com",
            ));
        }
        let name = text.app_name.as_deref().unwrap_or_default();
        if !name.chars().all(is_one_septet) || name.contains(['\n', '\r']) {
            return Err(config::Error::invalid(
                "OTP_APP_NAME",
                "must be one line of the basic GSM 7-bit alphabet",
            ));
        }
        // Every character of the message is one septet, and a code has at most ten.
        if text.around("0123456789").chars().count() > Self::SEPTETS {
            return Err(config::Error::invalid(
                "OTP_APP_NAME",
                "is, with OTP_DOMAIN, too long for a message of 160 characters",
            ));
        }
        Ok(text)
    }

    fn with(&self, code: &OtpCode) -> String {
        self.around(code.expose())
    }

    fn around(&self, code: &str) -> String {
        let app_name = self
            .app_name
            .as_deref()
            .map(|name| format!(" {name}"))
            .unwrap_or_default();
        let binding = self
            .domain
            .as_deref()
            .map(|domain| format!("\n\n@{domain} #{code}"))
            .unwrap_or_default();
        format!(
            "{code} is your{app_name} code, valid for {} min. Don't share it.{binding}",
            self.minutes
        )
    }
}

fn is_domain(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Tells if a character is in the basic table of 3GPP TS 23.038 §6.2.1. Characters of the extension
/// table take two septets.
fn is_one_septet(character: char) -> bool {
    const BEYOND_ASCII: &str = "£¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà";
    match character {
        '[' | ']' | '{' | '}' | '\\' | '^' | '~' | '|' | '`' => false,
        ' '..='~' | '\n' | '\r' => true,
        _ => BEYOND_ASCII.contains(character),
    }
}

/// Amazon SNS. It passes on `SNS_SENDER_ID`, `SNS_ORIGINATION_NUMBER` and, for India's DLT rules,
/// `SNS_ENTITY_ID` and `SNS_TEMPLATE_ID` if they are set.
struct Sns {
    client: Client,
    attributes: Vec<(&'static str, String)>,
}

impl Sns {
    async fn from_env(env: &Env, timeout: Duration) -> Result<Self, config::Error> {
        let optional = [
            ("AWS.SNS.SMS.SenderID", "SNS_SENDER_ID"),
            ("AWS.MM.SMS.OriginationNumber", "SNS_ORIGINATION_NUMBER"),
            ("AWS.MM.SMS.EntityId", "SNS_ENTITY_ID"),
            ("AWS.MM.SMS.TemplateId", "SNS_TEMPLATE_ID"),
        ];
        let mut attributes = vec![("AWS.SNS.SMS.SMSType", "Transactional".to_owned())];
        for (attribute, variable) in optional {
            if let Some(value) = env.text(variable) {
                attributes.push((attribute, value.to_owned()));
            }
        }
        // A connection may die while the function is frozen. That shows only after a message was
        // written to it, and its outcome is unknown. So connections are not kept.
        let http = aws_smithy_http_client::Builder::new()
            .pool_max_idle_per_host(0)
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::AwsLc,
            ))
            .build_https();
        // The SDK would try three times, although a slow first try may have been sent. Connecting
        // gets half of the time, so that an unreachable provider counts as refused.
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(timeout / 2)
                    .build(),
            )
            .load()
            .await;
        if config.region().is_none() {
            return Err(config::Error::Missing("AWS_REGION"));
        }
        let mut config = aws_sdk_sns::config::Builder::from(&config);
        // The SDK would read this from the process's environment, which tests cannot choose.
        if let Some(url) = env.text("AWS_ENDPOINT_URL_SNS") {
            config = config.endpoint_url(url);
        }
        Ok(Self {
            client: Client::from_conf(config.build()),
            attributes,
        })
    }

    async fn publish(&self, phone: &PhoneNumber, message: String) -> Result<(), SendError> {
        let mut publish = self
            .client
            .publish()
            .phone_number(phone.as_e164())
            .message(message);
        for (name, value) in &self.attributes {
            let text = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                .map_err(|error| SendError::Refused(error.into()))?;
            publish = publish.message_attributes(*name, text);
        }
        publish.send().await.map(drop).map_err(SendError::from)
    }
}

impl From<SdkError<PublishError>> for SendError {
    fn from(error: SdkError<PublishError>) -> Self {
        match error {
            // SNS quotes the phone number in its messages, so only the code is kept.
            SdkError::ServiceError(reply) => Self::Refused(
                format!(
                    "{} (HTTP {})",
                    reply.err().code().unwrap_or("error without a code"),
                    reply.raw().status()
                )
                .into(),
            ),
            SdkError::ConstructionFailure(_) => Self::Refused(error.into()),
            SdkError::DispatchFailure(_) if !reached_the_provider(&error) => {
                Self::Refused(error.into())
            }
            _ => Self::Unknown(error.into()),
        }
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

    fn text(variables: [(&str, &str); 2]) -> Result<Text, config::Error> {
        Text::from_env(&Env::from(variables), Duration::from_mins(5))
    }

    #[test]
    fn the_last_line_binds_the_code_to_the_domain() {
        let text = text([("OTP_APP_NAME", "Acme"), ("OTP_DOMAIN", "example.com")]).unwrap();
        assert_eq!(
            text.around("012345"),
            "012345 is your Acme code, valid for 5 min. Don't share it.\n\n@example.com #012345"
        );
    }

    #[test]
    fn name_and_domain_are_optional() {
        let text = text([("", ""), ("", "")]).unwrap();
        assert_eq!(
            text.around("012345"),
            "012345 is your code, valid for 5 min. Don't share it."
        );
    }

    #[test]
    fn a_message_that_needs_a_second_segment_is_refused_at_start() {
        let fits =
            "a".repeat(160 - "0123456789 is your  code, valid for 5 min. Don't share it.".len());
        assert!(text([("OTP_APP_NAME", &fits), ("", "")]).is_ok());
        assert!(text([("OTP_APP_NAME", &format!("{fits}a")), ("", "")]).is_err());
        assert!(text([("OTP_APP_NAME", "Ünïcode"), ("", "")]).is_err());
        assert!(text([("OTP_APP_NAME", "a{b}"), ("", "")]).is_err());
        assert!(text([("OTP_APP_NAME", "a\nb"), ("", "")]).is_err());
        assert!(text([("OTP_APP_NAME", "Größe"), ("", "")]).is_ok());
    }

    #[test]
    fn a_domain_is_a_bare_host_name() {
        for domain in [
            "https://example.com",
            "example.com/",
            "a b",
            "example..com",
            "@x",
        ] {
            assert!(
                text([("OTP_DOMAIN", domain), ("", "")]).is_err(),
                "{domain}"
            );
        }
    }

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
