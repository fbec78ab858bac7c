//! How often something may happen: the limits' settings, and the keys that count for a request.

use std::{fmt, net::IpAddr, time::Duration};

use crate::{
    config::{self, Env},
    phone::PhoneNumber,
};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Codes asked for by one phone.
    Phone,
    /// Codes asked for from one client address.
    Address,
    /// Codes asked for in one range of numbers: E.164 without its last three digits.
    Range,
    /// Codes asked for in one country.
    Country,
    /// Codes asked for from the whole service.
    Total,
    /// Wrong codes from one client address.
    Guesses,
    /// Wrong codes for one phone, across codes.
    Failures,
}

/// The limits of one kind; with none it is off.
#[derive(Debug, PartialEq, Eq)]
pub struct Limit {
    kind: Kind,
    rates: Vec<Rate>,
}

/// `count` at once, refilled evenly over `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    count: u32,
    seconds: u32,
}

/// Who asks: an IPv4 address, or the /64 of an IPv6 address, because that is what one customer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress(String);

/// One limit's key and rate for one request, in the order in which a script gets them.
#[derive(Debug)]
pub(super) struct Applied {
    pub kind: Kind,
    pub key: String,
    pub count: u32,
    pub period_us: u64,
}

/// The limits on asking for codes.
pub struct SendLimits {
    phone: Limit,
    address: Limit,
    range: Limit,
    country: Limit,
    total: Limit,
}

/// The limits on wrong codes.
pub struct GuessLimits {
    failures: Limit,
    guesses: Limit,
}

impl Kind {
    /// Its variable and the default that the README gives.
    fn setting(self) -> (&'static str, &'static str) {
        match self {
            Self::Phone => ("LIMIT_PHONE", "1/30s,5/1h,10/1d"),
            Self::Address => ("LIMIT_ADDRESS", "20/10m"),
            Self::Range => ("LIMIT_RANGE", "30/1h"),
            Self::Country => ("LIMIT_COUNTRY", "off"),
            Self::Total => ("LIMIT_TOTAL", "1000/1h,5000/1d"),
            Self::Guesses => ("LIMIT_GUESSES", "50/10m"),
            Self::Failures => ("LIMIT_FAILURES", "50/30d"),
        }
    }

    /// The word for keys, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Address => "address",
            Self::Range => "range",
            Self::Country => "country",
            Self::Total => "total",
            Self::Guesses => "guesses",
            Self::Failures => "failures",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SendLimits {
    /// Reads `LIMIT_PHONE`, `LIMIT_ADDRESS`, `LIMIT_RANGE`, `LIMIT_COUNTRY` and `LIMIT_TOTAL`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        Ok(Self {
            phone: Limit::from_env(env, Kind::Phone)?,
            address: Limit::from_env(env, Kind::Address)?,
            range: Limit::from_env(env, Kind::Range)?,
            country: Limit::from_env(env, Kind::Country)?,
            total: Limit::from_env(env, Kind::Total)?,
        })
    }

    /// The time after which a phone may ask again: the first period of its limit.
    pub fn cool_down(&self) -> Duration {
        let first = self.phone.rates.first();
        Duration::from_secs(first.map_or(0, |rate| rate.seconds.into()))
    }

    pub(super) fn on(&self, phone: &PhoneNumber, address: &ClientAddress) -> Vec<Applied> {
        let mut applied = self.phone.on(phone.as_e164());
        applied.extend(self.on_address(address));
        applied.extend(self.range.on(phone.range()));
        applied.extend(self.country.on(phone.country()));
        applied.extend(self.total.on("all"));
        applied
    }

    pub(super) fn on_address(&self, address: &ClientAddress) -> Vec<Applied> {
        self.address.on(&address.0)
    }
}

impl GuessLimits {
    /// Reads `LIMIT_FAILURES` and `LIMIT_GUESSES`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        Ok(Self {
            failures: Limit::from_env(env, Kind::Failures)?,
            guesses: Limit::from_env(env, Kind::Guesses)?,
        })
    }

    pub(super) fn failures_on(&self, phone: &PhoneNumber) -> Vec<Applied> {
        self.failures.on(phone.as_e164())
    }

    pub(super) fn guesses_on(&self, address: &ClientAddress) -> Vec<Applied> {
        self.guesses.on(&address.0)
    }
}

impl Limit {
    fn from_env(env: &Env, kind: Kind) -> Result<Self, config::Error> {
        let (name, default) = kind.setting();
        let text = env.text(name).unwrap_or(default);
        let rates = match text {
            "off" => Some(Vec::new()),
            list => list.split(',').map(Rate::parse).collect(),
        };
        let rates = rates.ok_or_else(|| {
            config::Error::invalid(
                name,
                "must be off or a list such as 5/1h,10/1d (s, m, h, d)",
            )
        })?;
        Ok(Self { kind, rates })
    }

    fn on(&self, subject: &str) -> Vec<Applied> {
        let kind = self.kind;
        self.rates
            .iter()
            .map(|rate| Applied {
                kind,
                key: format!(
                    "{{otp}}:limit:{kind}:{}/{}s:{subject}",
                    rate.count, rate.seconds
                ),
                count: rate.count,
                period_us: u64::from(rate.seconds) * 1_000_000,
            })
            .collect()
    }
}

impl Rate {
    /// `N/period`, both at least 1, the period at most a year.
    fn parse(text: &str) -> Option<Self> {
        let (count, period) = text.split_once('/')?;
        let (length, unit) = period.split_at_checked(period.len().checked_sub(1)?)?;
        let unit: u32 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        let seconds = whole_number(length)?.checked_mul(unit)?;
        let count = whole_number(count)?;
        (seconds <= 366 * 86_400).then_some(Self { count, seconds })
    }
}

/// Digits only: `parse` alone would take a sign.
fn whole_number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&number| number > 0)
}

impl ClientAddress {
    /// The address in an event's request context. One that cannot be read shares its limits with all
    /// that cannot.
    pub fn parse(text: Option<&str>) -> Self {
        let Some(address) = text.and_then(|text| text.parse::<IpAddr>().ok()) else {
            return Self("unknown".into());
        };
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_string()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(format!("{a:x}:{b:x}:{c:x}:{d:x}::/64"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone_limit(text: &str) -> Result<Limit, config::Error> {
        Limit::from_env(&Env::from([("LIMIT_PHONE", text)]), Kind::Phone)
    }

    #[test]
    fn a_limit_is_a_list_of_counts_and_periods() {
        let rate = |count, seconds| Rate { count, seconds };
        assert_eq!(
            phone_limit("").unwrap().rates,
            [rate(1, 30), rate(5, 3600), rate(10, 86_400)]
        );
        assert_eq!(phone_limit("7/2m").unwrap().rates, [rate(7, 120)]);
        assert_eq!(phone_limit("off").unwrap().rates, []);
    }

    #[test]
    fn whatever_else_is_refused_by_name() {
        for text in [
            "5",
            "5/",
            "/1h",
            "5/h",
            "5/1",
            "5/1w",
            "0/1h",
            "5/0s",
            "-5/1h",
            "+5/1h",
            "5/1h,",
            "5/1h, 6/1d",
            "5.5/1h",
            "off,5/1h",
            "OFF",
            "5/367d",
            "5/1ü",
            "99999999999/1s",
        ] {
            let error = phone_limit(text).unwrap_err().to_string();
            assert!(error.starts_with("LIMIT_PHONE must be"), "{text}: {error}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_64_and_an_ipv4_client_its_address() {
        for (text, subject) in [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::ffff", "2001:db8:1:3::/64"),
            ("", "unknown"),
            ("203.0.113.7, 10.0.0.1", "unknown"),
        ] {
            assert_eq!(ClientAddress::parse(Some(text)).0, subject, "{text}");
        }
        assert_eq!(ClientAddress::parse(None).0, "unknown");
    }
}
