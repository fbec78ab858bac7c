//! The text of a message.

use std::time::Duration;

use crate::{
    config::{self, Env},
    otp::OtpCode,
};

/// The text of a message around the code. It holds no client's text.
pub(super) struct Text {
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
    pub fn from_env(env: &Env, code_lifetime: Duration) -> Result<Self, config::Error> {
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

    pub fn with(&self, code: &OtpCode) -> String {
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
}
