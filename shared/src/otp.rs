//! One-time passcodes and their keyed digests.
//!
//! A code leaves this module only towards the message that carries it; stores see its digest.

use base64::{Engine, prelude::BASE64_STANDARD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use sha2::Sha256;

use crate::{
    config::{self, Env},
    phone::PhoneNumber,
    random,
};

const PEPPER: &str = "OTP_PEPPER";

/// A code of ASCII digits, leading zeros included. It has no `Debug` and no `Display`.
#[derive(Clone)]
pub struct OtpCode(String);

/// The lengths that codes may have: the shortest, and up to four digits more while somebody
/// guesses.
#[derive(Clone, Copy)]
pub struct Lengths {
    shortest: usize,
    longest: usize,
}

/// The keys of the digests. New codes use the newest; all are accepted, so that a pepper can be
/// rotated while codes are pending. No `Debug`.
#[derive(Clone)]
pub struct Peppers {
    newest: Hmac<Sha256>,
    older: Vec<Hmac<Sha256>>,
}

/// HMAC-SHA256(pepper, E.164 ‖ 0 ‖ code) in base64, stored instead of a code. It includes the
/// number, so a digest copied to another number's challenge is worthless.
pub type Digest = String;

impl Lengths {
    /// The difference between two lengths, in digits.
    const STEP: usize = 2;
    /// The largest number of lengths.
    const MAX_LENGTHS: usize = 3;

    /// Reads `OTP_LENGTH` (default 6, the minimum of NIST SP 800-63B §5.1.3.2; 4 to 10) and
    /// `OTP_MAX_LENGTH` (default 10; `OTP_LENGTH` to 10).
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let shortest = env.number("OTP_LENGTH", 6, 4..=10)?;
        if shortest < 6 {
            tracing::warn!("OTP_LENGTH is below the 6 digits of NIST SP 800-63B");
        }
        let longest: usize = env.number("OTP_MAX_LENGTH", 10, shortest..=10)?;
        Ok(Self {
            shortest,
            longest: longest.min(shortest + Self::STEP * (Self::MAX_LENGTHS - 1)),
        })
    }

    /// All lengths, shortest first.
    pub fn all(self) -> impl Iterator<Item = usize> {
        let steps = (self.longest - self.shortest).div_ceil(Self::STEP);
        (0..=steps).map(move |step| (self.shortest + step * Self::STEP).min(self.longest))
    }

    /// The odds of a guess at a code of this length, relative to the shortest: 1, 1/100, 1/10000.
    pub fn odds(self, length: usize) -> f64 {
        (0..length.saturating_sub(self.shortest)).fold(1.0, |odds, _| odds / 10.0)
    }
}

impl OtpCode {
    /// A new code of the longest length, uniform over all values. So are its prefixes. From the
    /// operating system's generator.
    pub fn generate(lengths: Lengths) -> Self {
        let width = lengths.longest;
        let number: u64 = random::generator().random_range(0..(0..width).fold(1, |n, _| n * 10));
        Self(format!("{number:0width$}"))
    }

    /// The code's first digits.
    #[must_use]
    pub fn prefix(&self, length: usize) -> Self {
        Self(self.0.chars().take(length).collect())
    }

    /// Parses a submitted code, `None` if it has no length that codes have, or not only digits.
    pub fn parse(text: &str, lengths: Lengths) -> Option<Self> {
        let is_well_formed = lengths.all().any(|length| length == text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit());
        is_well_formed.then(|| Self(text.to_owned()))
    }

    /// The digits, for the message to the person.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Peppers {
    /// Reads `OTP_PEPPER`: one or more secrets of at least 32 bytes, newest first, separated by
    /// commas.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let mut keys = peppers(env)?.into_iter().map(|pepper| {
            // HMAC takes keys of every length.
            Hmac::new_from_slice(pepper.as_bytes()).map_err(|_| malformed_pepper())
        });
        Ok(Self {
            newest: keys.next().ok_or_else(malformed_pepper)??,
            older: keys.collect::<Result<_, _>>()?,
        })
    }

    /// The digest of a new code, under the newest pepper.
    pub fn digest(&self, phone: &PhoneNumber, code: &OtpCode) -> Digest {
        digest(&self.newest, phone, code)
    }

    /// The digests of a code under every live pepper, newest first.
    pub fn digests(&self, phone: &PhoneNumber, code: &OtpCode) -> impl Iterator<Item = Digest> {
        std::iter::once(&self.newest)
            .chain(&self.older)
            .map(|pepper| digest(pepper, phone, code))
    }
}

/// Reads `OTP_PEPPER`: one or more secrets of at least 32 bytes, newest first, separated by commas.
pub(crate) fn peppers(env: &Env) -> Result<Vec<&str>, config::Error> {
    let peppers: Vec<_> = env.required(PEPPER)?.split(',').collect();
    if peppers.iter().all(|pepper| pepper.len() >= 32) {
        Ok(peppers)
    } else {
        Err(malformed_pepper())
    }
}

/// HMAC keys for another use than code digests, one for every pepper, newest first. HKDF (RFC 5869)
/// derives them, so that values of different uses reveal nothing about each other.
pub(crate) fn derived_keys(env: &Env, info: &[u8]) -> Result<Vec<Hmac<Sha256>>, config::Error> {
    let key = |pepper: &str| {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(None, pepper.as_bytes())
            .expand(info, &mut key)
            .ok()?;
        Hmac::new_from_slice(&key).ok()
    };
    // Neither can fail: HKDF yields 32 bytes, and HMAC takes them.
    Ok(peppers(env)?.into_iter().filter_map(key).collect())
}

fn malformed_pepper() -> config::Error {
    config::Error::invalid(
        PEPPER,
        "must be one or more secrets of at least 32 bytes, separated by commas",
    )
}

fn digest(pepper: &Hmac<Sha256>, phone: &PhoneNumber, code: &OtpCode) -> Digest {
    let mut mac = pepper.clone();
    mac.update(phone.as_e164().as_bytes());
    mac.update(&[0]);
    mac.update(code.expose().as_bytes());
    BASE64_STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::Parser;

    const LENGTHS: Lengths = Lengths {
        shortest: 6,
        longest: 10,
    };

    fn phone(text: &str) -> PhoneNumber {
        Parser::from_env(&Env::from([]))
            .unwrap()
            .parse(text)
            .unwrap()
    }

    fn peppers(text: &str) -> Result<Peppers, config::Error> {
        Peppers::from_env(&Env::from([("OTP_PEPPER", text)]))
    }

    fn digests(pepper: &str, number: &str, code: &str) -> Vec<Digest> {
        let code = OtpCode::parse(code, LENGTHS).unwrap();
        peppers(pepper)
            .unwrap()
            .digests(&phone(number), &code)
            .collect()
    }

    /// A million codes of each length, by value in a thousand bins and by digit at each place. The
    /// bound is the statistic's mean plus ten standard deviations: chance exceeds one in two
    /// million runs.
    #[test]
    fn a_million_codes_of_each_length_are_uniform_in_value_and_in_every_digit() {
        const CODES: u32 = 1_000_000;
        let lengths: Vec<usize> = LENGTHS.all().collect();
        let mut values = vec![vec![0u32; 1000]; lengths.len()];
        let mut digits = vec![[0u32; 10]; 10];
        for _ in 0..CODES {
            let code = OtpCode::generate(LENGTHS);
            for (values, &length) in values.iter_mut().zip(&lengths) {
                let value: usize = code.prefix(length).expose().parse().unwrap();
                values[value / 10usize.pow(u32::try_from(length).unwrap() - 3)] += 1;
            }
            for (place, digit) in code.expose().bytes().enumerate() {
                digits[place][usize::from(digit - b'0')] += 1;
            }
        }
        for (values, length) in values.iter().zip(lengths) {
            assert_uniform(&format!("values of {length} digits"), values);
        }
        for (place, counts) in digits.iter().enumerate() {
            assert_uniform(&format!("digits at place {place}"), counts);
        }
    }

    fn assert_uniform(what: &str, counts: &[u32]) {
        let total: f64 = counts.iter().copied().map(f64::from).sum();
        let bins = f64::from(u32::try_from(counts.len()).unwrap());
        let expected = total / bins;
        let chi_squared: f64 = counts
            .iter()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        let freedom = bins - 1.0;
        let bound = freedom + 10.0 * (2.0 * freedom).sqrt();
        assert!(
            chi_squared < bound,
            "{what}: chi-squared {chi_squared} is above {bound}"
        );
    }

    fn lengths(shortest: &str, longest: &str) -> Result<Vec<usize>, config::Error> {
        let env = Env::from([("OTP_LENGTH", shortest), ("OTP_MAX_LENGTH", longest)]);
        Ok(Lengths::from_env(&env)?.all().collect())
    }

    #[test]
    fn a_code_has_one_of_three_lengths_up_to_the_longest() {
        assert_eq!(lengths("", ""), Ok(vec![6, 8, 10]));
        assert_eq!(lengths("4", ""), Ok(vec![4, 6, 8]));
        assert_eq!(lengths("6", "9"), Ok(vec![6, 8, 9]));
        assert_eq!(lengths("6", "7"), Ok(vec![6, 7]));
        assert_eq!(lengths("6", "6"), Ok(vec![6]));
        assert!(lengths("6", "5").is_err() && lengths("6", "11").is_err());
        // So many that some begin with zeros.
        for _ in 0..1000 {
            let code = OtpCode::generate(LENGTHS);
            assert_eq!(code.expose().len(), 10);
            assert!(OtpCode::parse(code.prefix(8).expose(), LENGTHS).is_some());
        }
    }

    #[test]
    fn two_digits_more_are_a_hundredth_of_the_odds() {
        let odds = [6, 8, 10].map(|length| LENGTHS.odds(length));
        for (odds, expected) in odds.into_iter().zip([1.0, 0.01, 0.0001]) {
            assert!((odds / expected - 1.0).abs() < 1e-9, "{odds}");
        }
    }

    #[test]
    fn only_ascii_digits_of_a_length_that_codes_have_are_a_code() {
        assert!(OtpCode::parse("012345", LENGTHS).is_some());
        for text in [
            "",
            "12345",
            "1234567",
            "+12345",
            "-12345",
            " 12345",
            "12345 ",
            "12345\n",
            "1234 5",
            "12345a",
            "1e1234",
            "0x1234",
            "١٢٣٤٥٦",
            "１２３４５６",
            "12",
            "123456789",
            "12345678901",
        ] {
            assert!(OtpCode::parse(text, LENGTHS).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_digest_depends_on_pepper_number_and_code() {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        let digest = digests(&a, "+14155552671", "123456");
        assert_eq!(digest, digests(&a, "+14155552671", "123456"));
        assert_ne!(digest, digests(&b, "+14155552671", "123456"));
        assert_ne!(digest, digests(&a, "+14155552672", "123456"));
        assert_ne!(digest, digests(&a, "+14155552671", "123457"));
    }

    /// Python's `hmac` computes the same.
    #[test]
    fn a_digest_is_hmac_sha256_over_number_zero_code() {
        let digest = digests(&"k".repeat(32), "+14155552671", "012345");
        assert_eq!(digest, ["SjIm/GTVIBdwjqugIIU1qUqRBZBoX8bVD1xauxNa5/A="]);
    }

    #[test]
    fn an_older_pepper_is_still_tried() {
        let (old, new) = ("a".repeat(32), "b".repeat(32));
        let before = digests(&old, "+14155552671", "123456");
        let after = digests(&format!("{new},{old}"), "+14155552671", "123456");
        assert_eq!(after.len(), 2);
        assert_eq!(after[1], before[0]);
    }

    #[test]
    fn a_short_pepper_is_refused_wherever_it_stands() {
        let long = "a".repeat(32);
        for text in ["short", &format!("{long},"), &format!("{long},short")] {
            assert!(peppers(text).is_err(), "{text:?}");
        }
        assert_eq!(
            peppers("").err(),
            Some(config::Error::Missing("OTP_PEPPER"))
        );
    }
}
