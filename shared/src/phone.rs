//! Phone numbers: parsed once at the edge, one key for all spellings of one number.
//!
//! libphonenumber's rules decide what a number is; the strictness about the text is ours, because
//! that library was made to find numbers in prose and forgives almost anything.

use std::fmt;

use rlibphonenumber::{
    NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber as Parsed, PhoneNumberFormat, Region,
};

use crate::config::{self, Env};

/// A possible phone number in E.164 form (ITU-T E.164): `+`, country code, national number, at most
/// 15 digits. `Debug` and `Display` show it masked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber {
    e164: String,
}

/// The text is not one possible phone number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a possible phone number")]
pub struct Invalid;

/// Reads phone numbers as people write them.
#[derive(Clone, Copy)]
pub struct Parser {
    default_region: Option<Region>,
}

impl PhoneNumber {
    /// The whole number, `+14155552671`. For stores and providers, never for a log.
    pub fn as_e164(&self) -> &str {
        &self.e164
    }

    /// The number with at least five of its digits hidden, `+1415*****71`.
    pub fn masked(&self) -> String {
        const HIDDEN: usize = 5;
        const TAIL: usize = 2;
        let length = self.e164.len();
        let head = length.saturating_sub(HIDDEN + TAIL).clamp(1, 5);
        let tail = length - TAIL;
        format!(
            "{}{}{}",
            &self.e164[..head],
            "*".repeat(tail - head),
            &self.e164[tail..]
        )
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Parser {
    /// Reads `DEFAULT_COUNTRY`, the region (ISO 3166-1 alpha-2, `US`) whose national spellings are
    /// accepted; without it a number must begin with `+`.
    ///
    /// It also loads libphonenumber's metadata, about 3 ms that would otherwise fall on the first
    /// request.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "DEFAULT_COUNTRY";
        let default_region = env
            .text(NAME)
            .map(|code| {
                Region::from_code(code)
                    .ok()
                    .filter(|region| {
                        PHONE_NUMBER_UTIL
                            .get_supported_regions()
                            .any(|r| r == *region)
                    })
                    .ok_or_else(|| config::Error::invalid(NAME, "must be a region such as US"))
            })
            .transpose()?;
        Ok(Self { default_region })
    }

    /// The one number that `text` spells.
    ///
    /// Refused are, beyond what libphonenumber refuses: all but ASCII digits, spaces, `-`, `.`,
    /// brackets and one leading `+`; numbers that can only be dialled locally; and whatever does
    /// not come back from E.164 as the same number.
    pub fn parse(&self, text: &str) -> Result<PhoneNumber, Invalid> {
        if !is_plainly_written(text) {
            return Err(Invalid);
        }
        let number = Parsed::parse(text, self.default_region).map_err(|_| Invalid)?;
        if number.is_possible_with_reason() != Ok(NumberLengthType::IsPossible) {
            return Err(Invalid);
        }
        let e164 = number.format_as(PhoneNumberFormat::E164).into_owned();
        match Parsed::parse(&e164, None) {
            Ok(same) if same == number => Ok(PhoneNumber { e164 }),
            _ => Err(Invalid),
        }
    }
}

fn is_plainly_written(text: &str) -> bool {
    let mut seen = false;
    text.bytes().all(|byte| match byte {
        b'0'..=b'9' => {
            seen = true;
            true
        }
        b'+' => !std::mem::replace(&mut seen, true),
        b' ' | b'-' | b'.' | b'(' | b')' => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, default_country: &str) -> Option<String> {
        Parser::from_env(&Env::from([("DEFAULT_COUNTRY", default_country)]))
            .unwrap()
            .parse(text)
            .ok()
            .map(|number| number.as_e164().to_owned())
    }

    #[test]
    fn every_spelling_of_a_number_is_one_key() {
        for spelling in [
            "+14155552671",
            "+1 (415) 555-2671",
            "+1.415.555.2671",
            "  +1-415-555-2671 ",
            "(+1) 415 5552671",
        ] {
            assert_eq!(
                parse(spelling, "").as_deref(),
                Some("+14155552671"),
                "{spelling:?}"
            );
        }
    }

    #[test]
    fn a_national_spelling_needs_the_default_country() {
        assert_eq!(parse("(415) 555-2671", ""), None);
        assert_eq!(
            parse("(415) 555-2671", "US").as_deref(),
            Some("+14155552671")
        );
        assert_eq!(
            parse("00 1 415 555 2671", "DE").as_deref(),
            Some("+14155552671")
        );
        assert_eq!(parse("0014155552671", ""), None);
    }

    #[test]
    fn what_is_not_one_plain_number_is_refused() {
        for text in [
            "",
            " ",
            "+",
            "call me",
            "+1",
            "+1415555267",
            "+1 415 555 26711",
            "+999 123 456 789",
            "+1 800 FLOWERS",
            "+1 415 555 2671 ext. 5",
            "+1 415 555 2671 x5",
            "+1 415 555 2671;ext=5",
            "+14155552671+14155552672",
            "+14155552671/2",
            "+14155552671,+14155552672",
            "tel:+14155552671",
            "+1\u{a0}415\u{a0}555\u{a0}2671",
            "\u{ff0b}14155552671",
            "+\u{ff11}4155552671",
            "+1415555267\u{0661}",
            "+14155552671\n",
            "+14155552671\0",
            "++14155552671",
            "1+4155552671",
            "+1 415 555 2671 {otp}",
        ] {
            assert_eq!(parse(text, ""), None, "{text:?}");
        }
    }

    #[test]
    fn a_number_that_can_only_be_dialled_locally_is_refused() {
        assert_eq!(parse("555-2671", "US"), None);
    }

    #[test]
    fn an_italian_leading_zero_survives() {
        assert_eq!(
            parse("+39 06 6982 0000", "").as_deref(),
            Some("+390669820000")
        );
    }

    #[test]
    fn a_masked_number_hides_at_least_five_digits() {
        for (whole, masked) in [
            ("+14155552671", "+1415*****71"),
            ("+919876543210", "+9198******10"),
            ("+6834000", "+*****00"),
        ] {
            let number = PhoneNumber { e164: whole.into() };
            assert_eq!(number.masked(), masked);
            assert_eq!(format!("{number} {number:?}"), format!("{masked} {masked}"));
        }
    }

    #[test]
    fn an_unknown_default_country_is_refused() {
        for code in ["XX", "USA", "1", "World"] {
            let env = Env::from([("DEFAULT_COUNTRY", code)]);
            assert!(Parser::from_env(&env).is_err(), "{code}");
        }
    }
}
