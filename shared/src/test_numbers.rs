//! Test numbers: they get a fixed code and no message, so that app reviewers and end-to-end tests
//! can sign in.

use std::time::{Duration, SystemTime};

use aws_smithy_types::{DateTime, date_time::Format};

use crate::{
    config::{self, Env},
    otp::{Lengths, OtpCode},
    phone::{Parser, PhoneNumber},
};

/// The test numbers and their codes. No `Debug`.
pub struct TestNumbers(Vec<TestNumber>);

struct TestNumber {
    phone: PhoneNumber,
    code: OtpCode,
    /// The end of the last day.
    ends: SystemTime,
}

impl TestNumbers {
    /// Reads `TEST_NUMBERS`: a number, its code and the last day (in UTC) on which it is a test
    /// number, `+14155550100=123456@2027-01-31`; several separated by commas. A day that is past is
    /// no error: the number is one like any other again.
    pub fn from_env(env: &Env, phones: Parser, lengths: Lengths) -> Result<Self, config::Error> {
        const NAME: &str = "TEST_NUMBERS";
        let Some(list) = env.text(NAME) else {
            return Ok(Self(Vec::new()));
        };
        let numbers = list
            .split(',')
            .map(|text| TestNumber::parse(text, phones, lengths));
        let numbers: Option<_> = numbers.collect();
        numbers.map(Self).ok_or_else(|| {
            config::Error::invalid(
                NAME,
                "must be a list such as +14155550100=123456@2027-01-31: number, code of a length \
                 that codes have, last day",
            )
        })
    }

    /// The code of a number that is a test number at `now`.
    pub fn code_for(&self, phone: &PhoneNumber, now: SystemTime) -> Option<&OtpCode> {
        let mut numbers = self.0.iter();
        let number = numbers.find(|number| number.phone == *phone && now < number.ends)?;
        Some(&number.code)
    }
}

impl TestNumber {
    fn parse(text: &str, phones: Parser, lengths: Lengths) -> Option<Self> {
        let (phone, rest) = text.split_once('=')?;
        let (code, day) = rest.split_once('@')?;
        let last_second = DateTime::from_str(&format!("{day}T23:59:59Z"), Format::DateTime).ok()?;
        Some(Self {
            phone: phones.parse(phone).ok()?,
            code: OtpCode::parse(code, lengths)?,
            ends: SystemTime::try_from(last_second).ok()? + Duration::from_secs(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: &str) -> Result<TestNumbers, config::Error> {
        let env = Env::from([("TEST_NUMBERS", list)]);
        let phones = Parser::from_env(&env).unwrap();
        TestNumbers::from_env(&env, phones, Lengths::from_env(&env).unwrap())
    }

    #[test]
    fn a_number_is_one_until_its_day_ends() {
        let list = "+14155550100=123456@2027-01-31,+49 151 12345678=00112233@2027-02-01";
        let numbers = numbers(list).unwrap();
        let midnight = SystemTime::UNIX_EPOCH + Duration::from_hours(20_850 * 24);
        let phones = Parser::from_env(&Env::from([("", "")])).unwrap();
        let code = |phone, now| {
            let phone = phones.parse(phone).unwrap();
            numbers.code_for(&phone, now).map(OtpCode::expose)
        };
        let second = Duration::from_secs(1);
        assert_eq!(code("+1 (415) 555-0100", midnight - second), Some("123456"));
        assert_eq!(code("+14155550100", midnight), None);
        assert_eq!(code("+4915112345678", midnight), Some("00112233"));
        assert_eq!(code("+14155550101", midnight - second), None);
    }

    #[test]
    fn without_a_number_a_code_or_a_day_it_is_refused() {
        for list in [
            "+14155550100=123456",
            "+14155550100=123456@",
            "+14155550100=123456@2027-02-30",
            "+14155550100=123456@2027-1-1",
            "+14155550100=123456@31.01.2027",
            "+14155550100=123456@2027-01-31T00:00:00Z",
            "+14155550100=12345@2027-01-31",
            "+14155550100=1234567@2027-01-31",
            "+14155550100=12345a@2027-01-31",
            "+14155550100@2027-01-31",
            "+1=123456@2027-01-31",
            "=123456@2027-01-31",
            "+14155550100=123456@2027-01-31,",
            "+14155550100=123456@2027-01-31 ,+14155550101=123456@2027-01-31",
        ] {
            let error = numbers(list).err().unwrap().to_string();
            assert!(error.starts_with("TEST_NUMBERS must be"), "{list}: {error}");
        }
    }
}
