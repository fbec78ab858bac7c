//! Twilio, over the HTTP client that the AWS SDK brings along.

use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_types::body::SdkBody;
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Limited};
use lambda_http::http::{
    HeaderValue, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use url::{Url, form_urlencoded::Serializer};

use super::{Content, Failure, Message, Reply, reached_the_provider};
use crate::{
    aws::{KEPT_CONNECTIONS, TLS},
    config::{self, Env},
    store,
};

/// Twilio's Messages resource, API version 2010-04-01. It has no `Debug`: it holds the token.
pub(super) struct Twilio {
    client: Connector,
    url: String,
    /// `Basic …`: the account and its token.
    credentials: HeaderValue,
    /// The form's `From` or `MessagingServiceSid`, with its value.
    sender: (&'static str, String),
    code_lifetime: Duration,
}

/// The members of a reply that are kept. Twilio's texts quote the phone number.
#[derive(Default, Deserialize)]
struct Members {
    /// The message's id.
    sid: Option<String>,
    /// The error's number.
    code: Option<u32>,
}

impl Twilio {
    /// Far above any reply, in bytes.
    const LONGEST_REPLY: usize = 64 * 1024;

    /// Reads `TWILIO_ACCOUNT_SID`, `TWILIO_AUTH_TOKEN`, either `TWILIO_FROM` or
    /// `TWILIO_MESSAGING_SERVICE_SID`, and `TWILIO_ENDPOINT` (default `https://api.twilio.com`).
    pub fn from_env(
        env: &Env,
        code_lifetime: Duration,
        timeout: Duration,
    ) -> Result<Self, config::Error> {
        const ACCOUNT: &str = "TWILIO_ACCOUNT_SID";
        const TOKEN: &str = "TWILIO_AUTH_TOKEN";
        let account = env.required(ACCOUNT)?;
        if !is_sid(account, "AC") {
            return Err(config::Error::invalid(
                ACCOUNT,
                "must be AC and 32 hexadecimal digits",
            ));
        }
        let login = format!("{account}:{}", env.required(TOKEN)?);
        let mut credentials =
            HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(login)))
                .map_err(|_| config::Error::invalid(TOKEN, "cannot be sent"))?;
        credentials.set_sensitive(true);
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(timeout / 2)
            .build();
        Ok(Self {
            sender: read_sender(env)?,
            url: format!(
                "{}/2010-04-01/Accounts/{account}/Messages.json",
                read_endpoint(env)?
            ),
            credentials,
            client: Connector::builder()
                .connector_settings(settings)
                .pool_max_idle_per_host(KEPT_CONNECTIONS)
                .tls_provider(TLS)
                .build(),
            code_lifetime,
        })
    }

    pub async fn send(&self, message: Message<'_>, text: &str, until: Instant) -> Reply {
        let form = self.form(message, text);
        let request = Request::post(&self.url)
            .header(AUTHORIZATION, &self.credentials)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(SdkBody::from(form))
            .map_err(|error| Failure::Refused(error.into()))?
            .try_into()
            .map_err(|_| Failure::Refused("the request cannot be sent".into()))?;
        let reply = timeout_at(until, self.client.call(request))
            .await
            .map_err(|_| Failure::no_reply())?
            .map_err(|error| {
                if reached_the_provider(&error) {
                    Failure::Unknown(error.into())
                } else {
                    Failure::Refused(error.into())
                }
            })?;
        let status = reply.status();
        // The status alone decides. A body that is late or unreadable says nothing.
        let members = timeout_at(until, read(reply.into_body()))
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        if status.is_success() {
            return Ok(members.sid);
        }
        let status = status.as_u16();
        let cause = match members.code {
            Some(code) => format!("error {code} (HTTP {status})"),
            None => format!("error without a code (HTTP {status})"),
        };
        Err(match status {
            429 => Failure::Throttled(cause.into()),
            _ => Failure::Refused(cause.into()),
        })
    }

    fn form(&self, message: Message<'_>, text: &str) -> String {
        let (sender, from) = &self.sender;
        let mut form = Serializer::new(String::new());
        form.append_pair("To", message.phone.as_e164())
            .append_pair(sender, from)
            .append_pair("Body", text);
        // Twilio drops a message that waited longer than these seconds. It queues for up to ten
        // hours, and an expired code helps nobody and costs as much as a good one.
        if let Content::Code(_) = message.content {
            form.append_pair("ValidityPeriod", &self.code_lifetime.as_secs().to_string());
        }
        form.finish()
    }
}

async fn read(body: SdkBody) -> Option<Members> {
    let body = Limited::new(body, Twilio::LONGEST_REPLY).collect().await;
    serde_json::from_slice(&body.ok()?.to_bytes()).ok()
}

fn read_sender(env: &Env) -> Result<(&'static str, String), config::Error> {
    const FROM: &str = "TWILIO_FROM";
    const SERVICE: &str = "TWILIO_MESSAGING_SERVICE_SID";
    match (env.text(FROM), env.text(SERVICE)) {
        (Some(from), None) => Ok(("From", from.to_owned())),
        (None, Some(service)) if is_sid(service, "MG") => {
            Ok(("MessagingServiceSid", service.to_owned()))
        }
        (None, Some(_)) => Err(config::Error::invalid(
            SERVICE,
            "must be MG and 32 hexadecimal digits",
        )),
        (None, None) => Err(config::Error::invalid(
            FROM,
            "or TWILIO_MESSAGING_SERVICE_SID must be set",
        )),
        (Some(_), Some(_)) => Err(config::Error::invalid(
            FROM,
            "and TWILIO_MESSAGING_SERVICE_SID must not both be set",
        )),
    }
}

/// The endpoint without a slash at its end. The token goes in plain text only to this machine.
fn read_endpoint(env: &Env) -> Result<&str, config::Error> {
    const NAME: &str = "TWILIO_ENDPOINT";
    let endpoint = env.text(NAME).unwrap_or("https://api.twilio.com");
    Url::parse(endpoint)
        .ok()
        .filter(|url| match url.scheme() {
            "https" => true,
            "http" => url.host_str().is_some_and(store::is_loopback),
            _ => false,
        })
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .map(|_| endpoint.trim_end_matches('/'))
        .ok_or_else(|| config::Error::invalid(NAME, "must be an https:// address"))
}

/// Tells if a text is one of Twilio's ids: a prefix for its kind and 32 hexadecimal digits.
fn is_sid(text: &str, kind: &str) -> bool {
    text.strip_prefix(kind)
        .is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        otp::{Lengths, OtpCode},
        phone,
        sms::Language,
    };

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
    const SERVICE: &str = "MG0123456789abcdef0123456789abcdef";

    fn from_env(own: &[(&str, &str)]) -> Result<Twilio, config::Error> {
        let complete = [
            ("TWILIO_ACCOUNT_SID", ACCOUNT),
            ("TWILIO_AUTH_TOKEN", "hunter2"),
            ("TWILIO_FROM", "+14155550100"),
        ];
        let env: Env = complete.into_iter().chain(own.iter().copied()).collect();
        Twilio::from_env(&env, Duration::from_mins(5), Duration::from_secs(4))
    }

    /// The name of the variable that is refused, if one is.
    fn refused(own: &[(&str, &str)]) -> Option<&'static str> {
        let error = from_env(own).err()?;
        assert!(!error.to_string().contains("hunter2"));
        match error {
            config::Error::Invalid { name, .. } | config::Error::Missing(name) => Some(name),
        }
    }

    #[test]
    fn the_account_its_token_and_exactly_one_sender_are_required() {
        let service = |sid| ("TWILIO_MESSAGING_SERVICE_SID", sid);
        assert_eq!(refused(&[]), None);
        assert_eq!(refused(&[("TWILIO_FROM", ""), service(SERVICE)]), None);
        for (own, name) in [
            (&[("TWILIO_ACCOUNT_SID", "")][..], "TWILIO_ACCOUNT_SID"),
            (&[("TWILIO_ACCOUNT_SID", SERVICE)], "TWILIO_ACCOUNT_SID"),
            (&[("TWILIO_ACCOUNT_SID", "AC/../x")], "TWILIO_ACCOUNT_SID"),
            (&[("TWILIO_AUTH_TOKEN", "")], "TWILIO_AUTH_TOKEN"),
            (&[("TWILIO_FROM", "")], "TWILIO_FROM"),
            (&[service(SERVICE)], "TWILIO_FROM"),
            (
                &[("TWILIO_FROM", ""), service(ACCOUNT)],
                "TWILIO_MESSAGING_SERVICE_SID",
            ),
        ] {
            assert_eq!(refused(own), Some(name), "{own:?}");
        }
    }

    #[test]
    fn a_code_may_wait_at_twilio_as_long_as_it_lives_and_a_warning_longer() {
        let twilio = from_env(&[]).ok().unwrap();
        let env = Env::from([("OTP_LENGTH", "6"), ("DEFAULT_COUNTRY", "")]);
        let phones = phone::Parser::from_env(&env).unwrap();
        let phone = phones.parse("+14155552671").unwrap();
        let code = OtpCode::parse("123456", Lengths::from_env(&env).unwrap()).unwrap();
        let form = |content| {
            let language = Language::ENGLISH;
            let message = Message {
                phone: &phone,
                content,
                language,
            };
            twilio.form(message, "Hi")
        };
        let warning = "To=%2B14155552671&From=%2B14155550100&Body=Hi";
        assert_eq!(form(Content::Warning), warning);
        let expected = format!("{warning}&ValidityPeriod=300");
        assert_eq!(form(Content::Code(&code)), expected);
    }

    #[test]
    fn the_token_goes_in_plain_text_only_to_this_machine() {
        for (endpoint, is_fine) in [
            ("", true),
            ("https://api.dublin.ie1.twilio.com/", true),
            ("http://127.0.0.1:4010", true),
            ("http://api.twilio.com", false),
            ("https://api.twilio.com?x", false),
            ("ftp://api.twilio.com", false),
            ("api.twilio.com", false),
        ] {
            let refused = refused(&[("TWILIO_ENDPOINT", endpoint)]);
            assert_eq!(refused.is_none(), is_fine, "{endpoint}");
        }
    }
}
