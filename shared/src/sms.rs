//! Sending codes by SMS: one sender, several providers.
//!
//! A message is sent at most once: the next provider of a chain is asked only after a certain
//! refusal. The last reply decides if the challenge stays, so "refused" and "unknown" stay apart
//! throughout.

mod language;
mod routes;
mod sns;
mod templates;
mod text;
mod twilio;

use std::{error::Error, time::Duration};

use tokio::time::{Instant, timeout_at};

pub use self::language::Language;
use self::{
    routes::{Name, Routes},
    sns::Sns,
    text::Text,
    twilio::Twilio,
};
use crate::{
    config::{self, Deadlines, Env},
    otp::OtpCode,
    phone::PhoneNumber,
    telemetry::{self, ProviderOutcome, RequestLog},
};

/// The pause before a provider that throttles is asked once more.
const PAUSE: Duration = Duration::from_millis(200);

/// Sends codes to phones.
pub struct Sms {
    routes: Routes,
    /// Every provider that a chain names.
    providers: Vec<Provider>,
    text: Text,
    timeout: Duration,
}

/// A message that was not sent, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No provider of the chain was reached, or each replied with an error: nothing was sent.
    #[error("the provider did not send the message")]
    Refused(#[source] Cause),
    /// The request may have arrived, but no reply did: the message may have been sent.
    #[error("the provider's reply was lost")]
    Unknown(#[source] Cause),
}

/// A message to one phone. It may hold a code, so it has no `Debug`.
#[derive(Clone, Copy)]
struct Message<'a> {
    phone: &'a PhoneNumber,
    content: Content<'a>,
    language: Language,
}

/// The content of a message.
#[derive(Clone, Copy)]
enum Content<'a> {
    Code(&'a OtpCode),
    /// The account is about to get another number.
    Warning,
}

type Cause = Box<dyn Error + Send + Sync>;

/// A provider's reply to one message: the message's id, if it is known.
type Reply = Result<Option<String>, Failure>;

/// A call to a provider that failed.
enum Failure {
    /// As [`SendError::Refused`].
    Refused(Cause),
    /// A refusal for now: too many messages.
    Throttled(Cause),
    /// As [`SendError::Unknown`].
    Unknown(Cause),
}

enum Provider {
    Sns(Sns),
    Twilio(Twilio),
    /// Writes the code to the log, for local work.
    Log,
}

impl Sms {
    /// Reads `SMS_PROVIDER` and `SMS_ROUTES`, see [`Routes`], `SMS_TIMEOUT_MS`, and what the message
    /// and the named providers need, see [`Text`], [`Sns`] and [`Twilio`].
    ///
    /// `log` is refused unless `OTP_LOCAL=1`, or `AWS_SAM_LOCAL=true` as `sam local` sets it: a
    /// deployed function must not write codes to its log.
    pub fn from_env(
        env: &Env,
        code_lifetime: Duration,
        deadlines: Deadlines,
    ) -> Result<Self, config::Error> {
        let routes = Routes::from_env(env)?;
        let longest = u32::try_from(routes.longest()).unwrap_or(u32::MAX);
        let timeout = deadlines.sms(env, longest)?;
        let mut providers = Vec::new();
        for name in routes.names() {
            providers.push(Provider::from_env(name, env, code_lifetime, timeout)?);
        }
        Ok(Self {
            routes,
            providers,
            text: Text::from_env(env, code_lifetime)?,
            timeout,
        })
    }

    /// Sends `code` to `phone` once: asks the providers of its chain until one does not refuse.
    /// None is asked without the time to connect, because the outcome would be unknown. The message
    /// is in `language`, see [`Templates`](templates::Templates) for the exception.
    pub async fn send(
        &self,
        phone: &PhoneNumber,
        code: &OtpCode,
        language: Language,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<(), SendError> {
        let message = Message {
            phone,
            content: Content::Code(code),
            language: self.registered(phone, language),
        };
        log.language(message.language);
        self.send_message(message, deadline, log).await
    }

    /// Warns the number that an account has now: it is about to get another one.
    pub async fn warn(
        &self,
        phone: &PhoneNumber,
        language: Language,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<(), SendError> {
        let content = Content::Warning;
        let message = Message {
            phone,
            content,
            language,
        };
        self.send_message(message, deadline, log).await
    }

    async fn send_message(
        &self,
        message: Message<'_>,
        deadline: Instant,
        log: &mut RequestLog,
    ) -> Result<(), SendError> {
        let phone = message.phone;
        // The request's line names the message with the code.
        let replied = |log: &mut RequestLog, provider, outcome, id| match message.content {
            Content::Code(_) => log.replied(provider, outcome, id),
            Content::Warning => {}
        };
        let mut refusal: Cause = "no time left to send it".into();
        let mut others = self.routes.chain(phone);
        while let Some((&name, rest)) = others.split_first() {
            others = rest;
            let asked = self.ask(name, message, deadline, rest.len(), log).await;
            let provider = name.as_str();
            match asked {
                None => break,
                Some(Ok(id)) => {
                    let id = id.filter(|id| is_message_id(id));
                    replied(log, provider, ProviderOutcome::Sent, id);
                    return Ok(());
                }
                Some(Err(Failure::Unknown(cause))) => {
                    replied(log, provider, ProviderOutcome::Unknown, None);
                    return Err(SendError::Unknown(cause));
                }
                Some(Err(Failure::Refused(cause) | Failure::Throttled(cause))) => {
                    replied(log, provider, ProviderOutcome::Refused, None);
                    if !rest.is_empty() {
                        let cause = telemetry::chain(cause.as_ref());
                        tracing::warn!(provider, cause, %phone, "the next provider is asked");
                    }
                    refusal = cause;
                }
            }
        }
        Err(SendError::Refused(refusal))
    }

    /// Asks one provider; the last of its chain once more if it throttles. `None`: there is no time.
    async fn ask(
        &self,
        name: Name,
        message: Message<'_>,
        deadline: Instant,
        others: usize,
        log: &mut RequestLog,
    ) -> Option<Reply> {
        let provider = self.providers.iter().find(|it| it.name() == name)?;
        let until = self.time_for_one(deadline, others)?;
        let send = Box::pin(provider.send(message, &self.text, until));
        let reply = log.provider(send).await;
        if !matches!(reply, Err(Failure::Throttled(_)))
            || others > 0
            || self.time_for_one(deadline - PAUSE, 0).is_none()
        {
            return Some(reply);
        }
        pause().await;
        match self.time_for_one(deadline, 0) {
            None => Some(reply),
            Some(until) => {
                let send = Box::pin(provider.send(message, &self.text, until));
                Some(log.provider(send).await)
            }
        }
    }

    /// The language of a message to `phone`, the same at every provider of its chain.
    fn registered(&self, phone: &PhoneNumber, language: Language) -> Language {
        let sns = self.providers.iter().find_map(|provider| match provider {
            Provider::Sns(sns) => Some(sns),
            Provider::Twilio(_) | Provider::Log => None,
        });
        sns.map_or(language, |sns| sns.templates.registered(phone, language))
    }

    fn time_for_one(&self, deadline: Instant, others: usize) -> Option<Instant> {
        end_of_call(Instant::now(), self.timeout, deadline, others)
    }
}

/// The end of a call to a provider that begins now, with `others` after it. It has half of the
/// time-out at least, the whole at most, and leaves half to each of the others. `None`: there is
/// too little time.
fn end_of_call(
    now: Instant,
    timeout: Duration,
    deadline: Instant,
    others: usize,
) -> Option<Instant> {
    let least = timeout / 2;
    let others = least * u32::try_from(others).ok()?;
    let end = (now + timeout).min((deadline - others).max(now + least));
    (end <= deadline).then_some(end)
}

/// Tells if a text can be a message's id: it is written to the log.
fn is_message_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.len() <= 64 && text.bytes().all(is_plain)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a provider that throttles has nothing else to wait for"
)]
async fn pause() {
    tokio::time::sleep(PAUSE).await;
}

impl Provider {
    fn from_env(
        name: Name,
        env: &Env,
        code_lifetime: Duration,
        timeout: Duration,
    ) -> Result<Self, config::Error> {
        let is_local =
            env.text("OTP_LOCAL") == Some("1") || env.text("AWS_SAM_LOCAL") == Some("true");
        match name {
            Name::Sns => Ok(Self::Sns(Sns::from_env(env, timeout)?)),
            Name::Twilio => {
                let twilio = Twilio::from_env(env, code_lifetime, timeout)?;
                Ok(Self::Twilio(twilio))
            }
            Name::Log if is_local => Ok(Self::Log),
            Name::Log => Err(config::Error::invalid(
                "SMS_PROVIDER",
                "may be log only with OTP_LOCAL=1 or under sam local",
            )),
        }
    }

    fn name(&self) -> Name {
        match self {
            Self::Sns(_) => Name::Sns,
            Self::Twilio(_) => Name::Twilio,
            Self::Log => Name::Log,
        }
    }

    async fn send(&self, message: Message<'_>, text: &Text, until: Instant) -> Reply {
        let Message {
            phone,
            content,
            language,
        } = message;
        let text = match content {
            Content::Code(code) => text.with(code, language),
            Content::Warning => text.warning(language),
        };
        match self {
            Self::Sns(sns) => {
                let template = match content {
                    Content::Code(_) => sns.templates.id(language),
                    Content::Warning => None,
                };
                timeout_at(until, sns.send(phone, text, template))
                    .await
                    .unwrap_or_else(|_| Err(Failure::no_reply()))
            }
            Self::Twilio(twilio) => twilio.send(message, &text, until).await,
            Self::Log => {
                match content {
                    Content::Code(code) => tracing::info!(
                        phone_number = phone.as_e164(),
                        otp = code.expose(),
                        "Generated OTP"
                    ),
                    Content::Warning => tracing::info!(%phone, "warned of a new number"),
                }
                Ok(None)
            }
        }
    }
}

impl Failure {
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

    #[test]
    fn each_provider_of_a_chain_has_half_of_the_time_out_at_least() {
        let now = Instant::now() + Duration::from_mins(1);
        let end = |deadline, others| {
            let deadline = now + Duration::from_millis(deadline);
            let end = end_of_call(now, Duration::from_secs(4), deadline, others)?;
            Some((end - now).as_millis())
        };
        assert_eq!(end(9000, 0), Some(4000));
        assert_eq!(end(3000, 0), Some(3000));
        assert_eq!(end(1999, 0), None);
        assert_eq!(end(9000, 1), Some(4000));
        assert_eq!(end(5000, 1), Some(3000));
        assert_eq!(end(4000, 1), Some(2000));
        // Not enough for both: the first has what it needs.
        assert_eq!(end(2500, 1), Some(2000));
        assert_eq!(end(1999, 1), None);
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
            let sms = Sms::from_env(&env, Duration::from_mins(5), deadlines);
            assert_eq!(sms.is_ok(), starts, "{local:?}");
        }
    }
}
