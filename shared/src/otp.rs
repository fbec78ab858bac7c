//! One-time passcodes and their keyed digests.
//!
//! A code leaves this module only towards the message that carries it; stores see its digest.

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
pub struct OtpCode(String);

/// How many digits a code has, 4 to 10.
#[derive(Clone, Copy)]
pub struct Length(u32);

/// The keys of the digests, newest first. New codes use the first, all of them are accepted, so
/// that a pepper can be replaced while codes are pending. No `Debug`.
#[derive(Clone)]
pub struct Peppers {
    newest: Hmac<Sha256>,
    older: Vec<Hmac<Sha256>>,
}

/// HMAC-SHA256(pepper, E.164 ‖ 0 ‖ code): what is stored in place of a code. The number is in it so
/// that a digest copied to another number's challenge is worth nothing.
pub type Digest = [u8; 32];

/// What is stored in place of a digest where no code shall be right: random, like a digest to
/// everyone without the pepper, and the digest of nothing.
pub fn digest_of_no_code() -> Digest {
    random::generator().random()
}

impl Length {
    /// Reads `OTP_LENGTH` (default 6, the least that NIST SP 800-63B §5.1.3.2 asks for).
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let digits = env.number("OTP_LENGTH", 6, 4..=10)?;
        if digits < 6 {
            tracing::warn!("OTP_LENGTH is below the 6 digits of NIST SP 800-63B");
        }
        Ok(Self(digits))
    }
}

impl OtpCode {
    /// A new code from the operating system's generator, every value equally likely.
    pub fn generate(length: Length) -> Self {
        let number: u64 = random::generator().random_range(0..10u64.pow(length.0));
        Self(format!("{number:0width$}", width = length.0 as usize))
    }

    /// The code that a person sent, `None` if it does not have the shape of one.
    pub fn parse(text: &str, length: Length) -> Option<Self> {
        let has_the_shape =
            text.len() == length.0 as usize && text.bytes().all(|byte| byte.is_ascii_digit());
        has_the_shape.then(|| Self(text.to_owned()))
    }

    /// The digits, for the message to the person.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Peppers {
    /// Reads `OTP_PEPPER`, see [`peppers`].
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
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::Parser;

    const SIX: Length = Length(6);

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
        let code = OtpCode::parse(code, SIX).unwrap();
        peppers(pepper)
            .unwrap()
            .digests(&phone(number), &code)
            .collect()
    }

    /// A million codes, by value in a thousand bins and by digit at each place. The bound is the
    /// statistic's mean plus ten standard deviations: chance exceeds one in two million runs.
    #[test]
    fn a_million_codes_are_uniform_in_value_and_in_every_digit() {
        const CODES: u32 = 1_000_000;
        let mut values = vec![0u32; 1000];
        let mut digits = vec![[0u32; 10]; 6];
        for _ in 0..CODES {
            let code = OtpCode::generate(SIX);
            let value: usize = code.expose().parse().unwrap();
            values[value / 1000] += 1;
            for (place, digit) in code.expose().bytes().enumerate() {
                digits[place][usize::from(digit - b'0')] += 1;
            }
        }
        assert_uniform("values", &values);
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

    #[test]
    fn a_code_has_the_length_asked_for() {
        // So many that some begin with zeros.
        for length in (4..=10).cycle().take(7000) {
            let code = OtpCode::generate(Length(length));
            assert_eq!(code.expose().len(), length as usize);
            assert!(OtpCode::parse(code.expose(), Length(length)).is_some());
        }
    }

    #[test]
    fn only_the_exact_number_of_ascii_digits_is_a_code() {
        assert!(OtpCode::parse("012345", SIX).is_some());
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
        ] {
            assert!(OtpCode::parse(text, SIX).is_none(), "{text:?}");
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

    /// The first half of what Python's `hmac` computes.
    #[test]
    fn a_digest_is_hmac_sha256_over_number_zero_code() {
        let digest = digests(&"k".repeat(32), "+14155552671", "012345");
        let expected = 0x4a32_26fc_64d5_2017_708e_aba0_2085_35a9_u128.to_be_bytes();
        assert_eq!(digest[0][..16], expected);
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
