//! The rate limits: their settings, and the limits that apply to one request.

use std::{fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::CodeRequest;
use crate::{
    config::{self, Env},
    phone::PhoneNumber,
};

/// A kind of rate limit. Its name is in keys, logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Codes for one phone, answered or not. Also codes for the new numbers of one user.
    Phone,
    /// Codes for one known device.
    Device,
    /// Unanswered codes per client address; also probes and shared codes.
    Address,
    /// Unanswered codes per range of numbers: E.164 without its last three digits.
    Range,
    /// Unanswered codes per country.
    Country,
    /// Unanswered codes of the whole service. Logins in the open mode have a separate bucket.
    Total,
    /// All codes of a range. Known devices have a separate bucket of a quarter.
    RangeMax,
    /// All codes of the whole service.
    TotalMax,
    /// Checks without a challenge id that matched nothing, per client address.
    Guesses,
    /// Wrong codes per phone.
    MissesPhone,
    /// Wrong codes of the whole service.
    MissesTotal,
}

/// The rates of one kind; with none the limit is off.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    kind: LimitKind,
    rates: Vec<Rate>,
}

/// `count` at once, refilled evenly over `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    count: u32,
    seconds: u32,
}

/// The address of a client: an IPv4 address, or the /64 of an IPv6 address, since one customer
/// usually has a whole /64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress(String);

/// A limit that applies to one request: an argument of the scripts.
#[derive(Debug, Serialize)]
pub(super) struct AppliedLimit {
    #[serde(skip)]
    pub key: String,
    kind: LimitKind,
    /// The time in which one is refilled, in microseconds.
    step_us: f64,
    /// The time in which all are refilled.
    period_us: u64,
}

/// `LIMIT_RANGE`, by which ranges earn trust: an argument of the scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RangeRule {
    /// The codes of a new range.
    count: u32,
    /// The first wait of a range that has no code left, in microseconds.
    wait_us: u64,
}

/// The limits on sending.
pub(super) struct SendLimits {
    phone: Limit,
    device: Limit,
    address: Limit,
    country: Limit,
    total: Limit,
    range_max: Limit,
    total_max: Limit,
    trust: Option<RangeRule>,
}

/// The limits on checks without a challenge id.
pub(super) struct GuessLimits(Limit);

/// The buckets of misses. A wrong code adds its weight: 1 at the shortest length, 1/100 for every
/// two digits more. A full bucket makes new codes longer.
pub(super) struct Misses {
    phone: Limit,
    total: Limit,
}

/// The buckets of misses that apply to one phone: an argument of the scripts.
#[derive(Serialize)]
pub(super) struct AppliedMisses {
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<AppliedLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<AppliedLimit>,
}

impl LimitKind {
    /// The variable and its default.
    fn setting(self) -> (&'static str, &'static str) {
        match self {
            Self::Phone => ("LIMIT_PHONE", "1/30s,5/1h,10/1d"),
            Self::Device => ("LIMIT_DEVICE", "5/1h,10/1d"),
            Self::Address => ("LIMIT_ADDRESS", "20/10m"),
            Self::Range => ("LIMIT_RANGE", "3/6h"),
            Self::Country => ("LIMIT_COUNTRY", "off"),
            Self::Total => ("LIMIT_TOTAL", "5000/1d"),
            Self::RangeMax => ("LIMIT_RANGE_MAX", "200/1d"),
            Self::TotalMax => ("LIMIT_TOTAL_MAX", "20000/1d"),
            Self::Guesses => ("LIMIT_GUESSES", "50/10m"),
            Self::MissesPhone => ("MISSES_PHONE", "10/30d"),
            Self::MissesTotal => ("MISSES_TOTAL", "300/1d"),
        }
    }

    /// The word for keys, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Device => "device",
            Self::Address => "address",
            Self::Range => "range",
            Self::Country => "country",
            Self::Total => "total",
            Self::RangeMax => "range_max",
            Self::TotalMax => "total_max",
            Self::Guesses => "guesses",
            Self::MissesPhone => "misses_phone",
            Self::MissesTotal => "misses_total",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SendLimits {
    /// Reads `LIMIT_PHONE`, `LIMIT_DEVICE`, `LIMIT_ADDRESS`, `LIMIT_COUNTRY`, `LIMIT_TOTAL`,
    /// `LIMIT_RANGE_MAX`, `LIMIT_TOTAL_MAX`, and `LIMIT_RANGE`, see [`RangeRule`].
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        Ok(Self {
            phone: Limit::from_env(env, LimitKind::Phone)?,
            device: Limit::from_env(env, LimitKind::Device)?,
            address: Limit::from_env(env, LimitKind::Address)?,
            country: Limit::from_env(env, LimitKind::Country)?,
            total: Limit::from_env(env, LimitKind::Total)?,
            range_max: Limit::from_env(env, LimitKind::RangeMax)?,
            total_max: Limit::from_env(env, LimitKind::TotalMax)?,
            trust: RangeRule::from_env(env)?,
        })
    }

    /// The least time between two codes for a phone: the first rate of its limit.
    pub fn cool_down(&self) -> Duration {
        let first = self.phone.rates.first();
        first.map_or(Duration::ZERO, |rate| {
            Duration::from_secs(rate.seconds.into()) / rate.count
        })
    }

    /// The limits that apply to a request for a code. A test number gets no message, so only the
    /// warning to an old number is limited there.
    pub fn on(&self, request: &CodeRequest<'_>) -> Vec<AppliedLimit> {
        let CodeRequest { phone, address, .. } = request;
        let mut applied = Vec::with_capacity(12);
        // Each code for a new number also warns the old one. Nobody can use up another user's.
        if let Some(user_id) = request.purpose.user_id() {
            self.phone.apply(&format!("user:{user_id}"), &mut applied);
        }
        if request.test_code.is_some() {
            return applied;
        }
        if let Some(device) = &request.device {
            self.device.apply(device.as_str(), &mut applied);
            // A separate bucket: whoever fills a range's ceiling keeps no known device out.
            let subject = format!("known:{}", phone.range());
            self.range_max.quarter().apply(&subject, &mut applied);
        } else {
            self.phone.apply(phone.as_e164(), &mut applied);
            self.address.apply(address.as_str(), &mut applied);
            self.range_max.apply(phone.range(), &mut applied);
            // Apart, so that logins cannot exhaust what sign-ups need, nor the other way round.
            if request.is_open_login {
                self.total.apply("registered", &mut applied);
            } else {
                self.country.apply(phone.country(), &mut applied);
                self.total.apply("all", &mut applied);
            }
        }
        self.total_max.apply("all", &mut applied);
        applied
    }

    /// The trust that the request needs; `None` for known devices, registered numbers and test
    /// numbers.
    pub fn trust_for(&self, request: &CodeRequest<'_>) -> Option<RangeRule> {
        let is_exempt =
            request.device.is_some() || request.is_open_login || request.test_code.is_some();
        self.trust.filter(|_| !is_exempt)
    }

    /// The limit that applies to a probe: a response that reveals something and sends nothing.
    pub fn on_probe(&self, request: &CodeRequest<'_>) -> Vec<AppliedLimit> {
        let mut applied = Vec::new();
        match &request.device {
            Some(device) => self.device.apply(device.as_str(), &mut applied),
            None => self.address.apply(request.address.as_str(), &mut applied),
        }
        applied
    }
}

impl GuessLimits {
    /// Reads `LIMIT_GUESSES`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        Limit::from_env(env, LimitKind::Guesses).map(Self)
    }

    /// The limits that apply to a check without a challenge id.
    pub fn on(&self, address: &ClientAddress) -> Vec<AppliedLimit> {
        let mut applied = Vec::new();
        self.0.apply(address.as_str(), &mut applied);
        applied
    }
}

impl Misses {
    /// Reads `MISSES_PHONE` and `MISSES_TOTAL`, one rate each.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        let one_rate = |kind: LimitKind| {
            let limit = Limit::from_env(env, kind)?;
            if limit.rates.len() > 1 {
                return Err(config::Error::invalid(
                    kind.setting().0,
                    "must be off or one rate such as 10/30d",
                ));
            }
            Ok(limit)
        };
        Ok(Self {
            phone: one_rate(LimitKind::MissesPhone)?,
            total: one_rate(LimitKind::MissesTotal)?,
        })
    }

    /// The buckets that apply to a phone.
    pub fn on(&self, phone: &PhoneNumber) -> AppliedMisses {
        AppliedMisses {
            phone: self.phone.only(phone.as_e164()),
            total: self.total.only("all"),
        }
    }
}

impl AppliedMisses {
    /// The keys of both buckets, in the scripts' order. One that is off is a key that is not used.
    pub fn keys(&self) -> [&str; 2] {
        [&self.phone, &self.total].map(|bucket| match bucket {
            Some(bucket) => bucket.key.as_str(),
            None => super::ANY_KEY,
        })
    }
}

impl RangeRule {
    /// Reads `LIMIT_RANGE`: the codes of a new range, and the first wait, `3/6h`.
    pub fn from_env(env: &Env) -> Result<Option<Self>, config::Error> {
        let limit = Limit::from_env(env, LimitKind::Range)?;
        match limit.rates[..] {
            [] => Ok(None),
            [rate] => Ok(Some(Self {
                count: rate.count,
                wait_us: rate.period_us(),
            })),
            _ => Err(config::Error::invalid(
                LimitKind::Range.setting().0,
                "must be off, or codes and a first wait such as 3/6h",
            )),
        }
    }
}

impl Limit {
    fn from_env(env: &Env, kind: LimitKind) -> Result<Self, config::Error> {
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

    /// Adds this limit's rates for the subject.
    fn apply(&self, subject: &str, applied: &mut Vec<AppliedLimit>) {
        applied.extend(self.rates.iter().map(|rate| rate.of(self.kind, subject)));
    }

    /// The same limit with a quarter of the codes, at least one.
    fn quarter(&self) -> Self {
        let quarter = |rate: &Rate| Rate {
            count: rate.count.div_ceil(4),
            ..*rate
        };
        Self {
            kind: self.kind,
            rates: self.rates.iter().map(quarter).collect(),
        }
    }

    /// The limit's only rate for the subject, `None` if it is off.
    fn only(&self, subject: &str) -> Option<AppliedLimit> {
        let rate = self.rates.first()?;
        Some(rate.of(self.kind, subject))
    }
}

impl Rate {
    /// Parses `N/period`: both at least 1, the period at most 366 days.
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

    fn period_us(self) -> u64 {
        u64::from(self.seconds) * 1_000_000
    }

    fn of(self, kind: LimitKind, subject: &str) -> AppliedLimit {
        let Self { count, seconds } = self;
        AppliedLimit {
            key: format!("{{otp}}:limit:{kind}:{count}/{seconds}s:{subject}"),
            kind,
            step_us: f64::from(seconds) * 1_000_000.0 / f64::from(count),
            period_us: self.period_us(),
        }
    }
}

/// Parses digits only: `parse` alone would accept a sign.
fn whole_number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&number| number > 0)
}

impl ClientAddress {
    /// Parses an address, see [`crate::api::Edge`]. All unreadable addresses share one value.
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

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone_limit(text: &str) -> Result<Limit, config::Error> {
        Limit::from_env(&Env::from([("LIMIT_PHONE", text)]), LimitKind::Phone)
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
    fn a_range_and_misses_have_one_rate() {
        for name in ["LIMIT_RANGE", "MISSES_PHONE", "MISSES_TOTAL"] {
            let read = |text| {
                let env = Env::from([(name, text)]);
                Misses::from_env(&env).and_then(|_| SendLimits::from_env(&env).map(drop))
            };
            assert!(read("off").is_ok() && read("4/1h").is_ok(), "{name}");
            let error = read("4/1h,9/1d").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} must be")), "{error}");
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
