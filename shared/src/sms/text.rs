//! The text of a message.

use std::time::Duration;

use super::language::Language;
use crate::{
    config::{self, Env},
    otp::OtpCode,
};

/// The text of a message around the code, in every language. It holds no client's text.
pub(super) struct Text {
    /// `OTP_APP_NAME`: the sender's name.
    app_name: Option<String>,
    /// `OTP_DOMAIN`: the origin to which browsers bind the code (WICG, "Origin-bound one-time codes
    /// delivered via SMS").
    domain: Option<String>,
    minutes: u64,
}

impl Text {
    /// Reads `OTP_APP_NAME` and `OTP_DOMAIN`.
    pub fn from_env(env: &Env, code_lifetime: Duration) -> Result<Self, config::Error> {
        const NAME: &str = "OTP_APP_NAME";
        let text = Self {
            app_name: env.text(NAME).map(str::to_owned),
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
        if !is_gsm(name) || name.contains(['\n', '\r']) {
            return Err(config::Error::invalid(
                NAME,
                "must be one line of the basic GSM 7-bit alphabet",
            ));
        }
        // A code has at most ten digits.
        let too_long = |language: &Language| !fits(&text.around("0123456789", *language));
        if let Some(language) = Language::ALL.iter().find(|language| too_long(language)) {
            return Err(config::Error::invalid(
                NAME,
                format!(
                    "is, with OTP_DOMAIN, too long for a message in the language {}",
                    language.tag()
                ),
            ));
        }
        Ok(text)
    }

    pub fn with(&self, code: &OtpCode, language: Language) -> String {
        self.around(code.expose(), language)
    }

    /// Warns that an account is about to get another number.
    pub fn warning(&self, language: Language) -> String {
        let app_name = self.app_name.as_deref();
        language
            .warning(app_name.is_some())
            .replace("{app}", app_name.unwrap_or_default())
    }

    fn around(&self, code: &str, language: Language) -> String {
        let app_name = self.app_name.as_deref();
        let binding = self
            .domain
            .as_deref()
            .map(|domain| format!("\n\n@{domain} #{code}"))
            .unwrap_or_default();
        // The basic alphabet has no braces, so a name cannot be taken for a place.
        language
            .code(app_name.is_some())
            .replace("{app}", app_name.unwrap_or_default())
            .replace("{minutes}", &self.minutes.to_string())
            .replace("{code}", code)
            + &binding
    }
}

/// Tells if a message is short enough: one segment of the GSM 7-bit alphabet, or two of UCS-2, which
/// takes over for the whole message at the first character beyond that alphabet (3GPP TS 23.038, TS
/// 23.040).
fn fits(message: &str) -> bool {
    /// Characters of a single segment; each of the basic table is one septet.
    const SEPTETS: usize = 160;
    /// UTF-16 units of a segment that has another beside it.
    const UNITS: usize = 67;
    if is_gsm(message) {
        message.chars().count() <= SEPTETS
    } else {
        message.encode_utf16().count() <= 2 * UNITS
    }
}

fn is_gsm(text: &str) -> bool {
    text.chars().all(is_one_septet)
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

    /// The languages whose letters are not in the GSM alphabet.
    const BEYOND_GSM: [&str; 2] = ["ar", "hi"];

    fn text(variables: [(&str, &str); 2]) -> Result<Text, config::Error> {
        Text::from_env(&Env::from(variables), Duration::from_mins(10))
    }

    fn named(app_name: &str, domain: &str) -> Result<Text, config::Error> {
        text([("OTP_APP_NAME", app_name), ("OTP_DOMAIN", domain)])
    }

    #[test]
    fn the_last_line_binds_the_code_to_the_domain() {
        let text = named("Acme", "example.com").unwrap();
        assert_eq!(
            text.around("012345", Language::ENGLISH),
            "012345 is your Acme code, valid for 10 min. Don't share it.\n\n@example.com #012345"
        );
        for language in Language::ALL {
            let message = text.around("012345", language);
            let last = message.rsplit('\n').next();
            assert_eq!(last, Some("@example.com #012345"), "{message}");
            assert_eq!(message.matches("Acme").count(), 1, "{message}");
        }
    }

    #[test]
    fn name_and_domain_are_optional() {
        let text = named("", "").unwrap();
        assert_eq!(
            text.around("012345", Language::ENGLISH),
            "012345 is your code, valid for 10 min. Don't share it."
        );
        for language in Language::ALL {
            let message = text.around("012345", language);
            assert!(!message.contains(['{', '}', '\n', '@']), "{message}");
            assert!(!message.contains("  "), "{message}");
        }
    }

    /// The number of segments of a message.
    fn segments(message: &str) -> usize {
        let (length, single, shared) = if is_gsm(message) {
            (message.chars().count(), 160, 153)
        } else {
            (message.encode_utf16().count(), 70, 67)
        };
        if length <= single {
            1
        } else {
            length.div_ceil(shared)
        }
    }

    #[test]
    fn the_longest_message_of_each_language_has_its_segments() {
        for (app_name, domain, gsm, beyond) in [
            ("", "", 1, 1),
            ("Example", "", 1, 1),
            ("Example Market", "", 1, 2),
            ("", "login.example.com", 1, 2),
            ("Example Market", "accounts.example-market.co.uk", 1, 2),
        ] {
            let text = named(app_name, domain).unwrap();
            for language in Language::ALL {
                let message = text.around("0123456789", language);
                let is_beyond = BEYOND_GSM.contains(&language.tag());
                assert_eq!(is_gsm(&message), !is_beyond, "{message}");
                let expected = if is_beyond { beyond } else { gsm };
                assert_eq!(segments(&message), expected, "{message}");
            }
        }
    }

    #[test]
    fn a_warning_has_one_segment_or_two_beyond_gsm() {
        for app_name in ["", "Example Market"] {
            let text = named(app_name, "login.example.com").unwrap();
            for language in Language::ALL {
                let warning = text.warning(language);
                let is_beyond = BEYOND_GSM.contains(&language.tag());
                assert_eq!(is_gsm(&warning), !is_beyond, "{warning}");
                assert!(
                    segments(&warning) <= 1 + usize::from(is_beyond),
                    "{warning}"
                );
                assert!(
                    warning.contains(app_name) && warning.len() > 40,
                    "{warning}"
                );
                assert!(!warning.contains(['{', '}', '\n']), "{warning}");
            }
        }
    }

    #[test]
    fn a_message_that_needs_one_segment_more_is_refused_at_start() {
        let septets = |length| "a".repeat(length);
        let units = |length| "\u{928}".repeat(length);
        assert!(fits(&septets(160)) && !fits(&septets(161)));
        assert!(fits(&units(134)) && !fits(&units(135)));
        // The longest text is Hindi's.
        assert!(named(&septets(71), "").is_ok());
        assert!(named(&septets(40), "login.example.com").is_err());
        let error = named(&septets(72), "").err().unwrap().to_string();
        assert!(error.starts_with("OTP_APP_NAME "), "{error}");
    }

    #[test]
    fn an_app_name_is_one_line_of_the_gsm_alphabet() {
        for name in ["Ünïcode", "a{b}", "a\nb", "日本", "{code}"] {
            assert!(named(name, "").is_err(), "{name:?}");
        }
        assert!(named("Größe", "").is_ok());
    }

    /// Browsers and people look for ASCII digits, and a change of direction within the code or the
    /// domain would break either.
    #[test]
    fn no_message_has_other_digits_or_changes_its_direction() {
        let text = named("Acme", "example.com").unwrap();
        for language in Language::ALL {
            let message = text.around("012345", language);
            let is_other_digit = |c: char| c.is_numeric() && !c.is_ascii_digit();
            assert!(!message.contains(is_other_digit), "{message}");
            let is_invisible = |c: char| {
                matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                    | '\u{2060}'..='\u{2069}' | '\u{feff}')
            };
            assert!(!message.contains(is_invisible), "{message:?}");
        }
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
