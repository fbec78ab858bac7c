//! Phone numbers: parsed once at the edge, so that all spellings of a number are one key.
//!
//! libphonenumber's rules decide what a number is. It was made to find numbers in prose and accepts
//! almost any text, so this module is stricter about the text.

mod plan;

use std::fmt;

use plan::{Kind, Number, Region};

pub(crate) use plan::region;

use crate::config::{self, Env};

/// The longest spelling that is parsed, in bytes. A number has at most 15 digits.
const LONGEST_TEXT: usize = 64;

/// A possible phone number in E.164 form (ITU-T E.164): `+`, country code, national number, at most
/// 15 digits. `Debug` and `Display` show it masked.
#[derive(Clone, PartialEq)]
pub struct PhoneNumber {
    e164: String,
    calling_code: u16,
    region: Option<&'static str>,
    kind: Kind,
}

/// The send policy: the countries and kinds of numbers that get codes.
pub struct SendPolicy {
    /// `None`: all.
    regions: Option<Vec<&'static Region>>,
}

/// A possible number that the send policy refuses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The country or the kind is not served.
    #[error("the country or kind of the number is not served")]
    Unsupported,
    /// No carrier assigns this number.
    #[error("not a valid phone number")]
    Invalid,
}

/// The text is not one possible phone number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a possible phone number")]
pub struct Invalid;

/// Parses phone numbers as people write them.
#[derive(Clone, Copy)]
pub struct Parser {
    default_region: Option<&'static Region>,
}

impl PhoneNumber {
    /// The whole number, `+14155552671`. For stores and providers, never for a log.
    pub fn as_e164(&self) -> &str {
        &self.e164
    }

    /// The number's range: E.164 without its last three digits.
    pub fn range(&self) -> &str {
        &self.e164[..self.e164.len().saturating_sub(3)]
    }

    /// The number's region (ISO 3166-1 alpha-2); `001` for a number of no country, `ZZ` if unknown.
    /// It is finer than the calling code: `+1` has 25 regions.
    pub fn country(&self) -> &str {
        self.region.unwrap_or("ZZ")
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
    /// Reads `DEFAULT_COUNTRY`: the region (ISO 3166-1 alpha-2, `US`) whose national spellings are
    /// accepted. Without it a number must begin with `+`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "DEFAULT_COUNTRY";
        let default_region = env
            .text(NAME)
            .map(|code| {
                region(code)
                    .ok_or_else(|| config::Error::invalid(NAME, "must be a region such as US"))
            })
            .transpose()?;
        Ok(Self { default_region })
    }

    /// Parses the one number that `text` spells.
    ///
    /// Beyond libphonenumber's rules this refuses texts of more than 64 bytes; all characters but
    /// ASCII digits, spaces, `-`, `.`, brackets and one leading `+`; numbers that can only be
    /// dialled locally; and numbers that do not survive a round trip through E.164.
    pub fn parse(&self, text: &str) -> Result<PhoneNumber, Invalid> {
        if text.len() > LONGEST_TEXT || !is_plainly_written(text) {
            return Err(Invalid);
        }
        let number = Number::parse(text, self.default_region).ok_or(Invalid)?;
        let (region, kind) = number.classify();
        Ok(PhoneNumber {
            e164: number.e164(),
            calling_code: number.calling_code(),
            region: region.map(|region| region.id),
            kind,
        })
    }
}

impl SendPolicy {
    /// Reads `ALLOWED_COUNTRIES`, which is required: `*`, or regions (ISO 3166-1 alpha-2) separated
    /// by commas.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "ALLOWED_COUNTRIES";
        let regions = match env.required(NAME)? {
            "*" => None,
            list => Some(
                list.split(',')
                    .map(region)
                    .collect::<Option<_>>()
                    .ok_or_else(|| {
                        config::Error::invalid(NAME, "must be * or a list of regions such as US,CA")
                    })?,
            ),
        };
        Ok(Self { regions })
    }

    /// Checks that a code may be sent to the number. Numbers that cost their caller, share that
    /// cost, reach no personal phone or belong to no country are always refused.
    pub fn check(&self, phone: &PhoneNumber) -> Result<(), Refused> {
        let is_served_kind = match phone.kind {
            Kind::PremiumRate
            | Kind::SharedCost
            | Kind::Pager
            | Kind::VoiceMail
            | Kind::PersonalNumber => false,
            Kind::FixedLine
            | Kind::Mobile
            | Kind::FixedLineOrMobile
            | Kind::TollFree
            | Kind::Voip
            | Kind::Uan
            | Kind::Unknown => true,
        };
        if !is_served_kind || !self.includes(phone) {
            return Err(Refused::Unsupported);
        }
        if phone.kind == Kind::Unknown {
            return Err(Refused::Invalid);
        }
        Ok(())
    }

    fn includes(&self, phone: &PhoneNumber) -> bool {
        match (phone.region, &self.regions) {
            (Some(plan::WORLD), _) => false,
            (_, None) => true,
            (Some(region), Some(served)) => served.iter().any(|served| served.id == region),
            // No region of its calling code has this number, so it is invalid everywhere. Where one
            // of these regions is served, the caller reports that instead.
            (None, Some(served)) => served
                .iter()
                .any(|served| served.calling_code == phone.calling_code),
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

    fn parser(default_country: &str) -> Parser {
        Parser::from_env(&Env::from([("DEFAULT_COUNTRY", default_country)])).unwrap()
    }

    fn parse(text: &str, default_country: &str) -> Option<String> {
        parser(default_country)
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
    fn a_text_of_more_than_64_bytes_is_refused() {
        let spelled = |spaces: usize| format!("+1{}4155552671", " ".repeat(spaces));
        assert_eq!(parse(&spelled(52), "").as_deref(), Some("+14155552671"));
        assert_eq!(parse(&spelled(53), ""), None);
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
            let number = parser("").parse(whole).unwrap();
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

    #[test]
    fn a_country_may_be_written_in_small_letters() {
        assert_eq!(
            parse("(415) 555-2671", "us").as_deref(),
            Some("+14155552671")
        );
        assert_eq!(check("us", "+14155552671"), Ok(()));
    }

    fn check(allowed: &str, number: &str) -> Result<(), Refused> {
        let served = SendPolicy::from_env(&Env::from([("ALLOWED_COUNTRIES", allowed)])).unwrap();
        served.check(&parser("").parse(number).unwrap())
    }

    #[test]
    fn countries_are_told_apart_inside_one_calling_code() {
        for (allowed, number, served) in [
            ("*", "+14155552671", Ok(())),
            ("US", "+14155552671", Ok(())),
            ("US,CA", "+16135550123", Ok(())),
            ("US", "+16135550123", Err(Refused::Unsupported)),
            // Jamaica, Bahamas, Dominican Republic: +1 too.
            ("US", "+18765550123", Err(Refused::Unsupported)),
            ("US", "+12423570123", Err(Refused::Unsupported)),
            ("US", "+18095550123", Err(Refused::Unsupported)),
            ("US", "+919876543210", Err(Refused::Unsupported)),
            ("RU", "+77012345678", Err(Refused::Unsupported)),
            ("KZ", "+77012345678", Ok(())),
        ] {
            assert_eq!(check(allowed, number), served, "{allowed} {number}");
        }
    }

    #[test]
    fn premium_shared_cost_personal_pager_and_countryless_numbers_are_never_served() {
        for number in [
            "+19002345678",   // premium, United States
            "+4990091234567", // premium, Germany
            "+448431234567",  // shared cost, United Kingdom
            "+447012345678",  // personal, United Kingdom
            "+447640123456",  // pager, United Kingdom
            "+870301234567",  // Inmarsat
            "+881612345678",  // Iridium
            "+979123456789",  // international premium
        ] {
            assert_eq!(check("*", number), Err(Refused::Unsupported), "{number}");
        }
    }

    #[test]
    fn a_possible_number_that_nobody_can_have_is_invalid_where_its_country_is_served() {
        assert_eq!(check("US", "+14151552671"), Err(Refused::Invalid));
        assert_eq!(check("*", "+14151552671"), Err(Refused::Invalid));
        assert_eq!(check("DE", "+14151552671"), Err(Refused::Unsupported));
    }

    #[test]
    fn a_list_of_countries_that_cannot_be_read_is_refused() {
        for list in ["", "US,", "US, CA", "XX", "USA", "US;CA", "**"] {
            let env = Env::from([("ALLOWED_COUNTRIES", list)]);
            assert!(SendPolicy::from_env(&env).is_err(), "{list:?}");
        }
    }
}
