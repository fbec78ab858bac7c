//! Reading a function's settings, once at start.
//!
//! Each module reads and documents its own variables through [`Env`]. An [`Error`] never holds a
//! value, because several values are secrets.

use std::{collections::HashMap, fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

/// The environment variables at start. An empty variable counts as unset, so that a template can
/// pass on optional parameters unconditionally.
#[derive(Clone)]
pub struct Env(HashMap<String, String>);

/// A variable that stops the function from starting.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The variable is required and not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// The variable has an invalid value.
    #[error("{name} {reason}")]
    Invalid {
        name: &'static str,
        /// The mistake, as the rest of a sentence that begins with the name. Never the value.
        reason: String,
    },
}

impl Error {
    /// An [`Error::Invalid`]: `reason` continues the sentence that the variable's name begins.
    pub fn invalid(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            name,
            reason: reason.into(),
        }
    }
}

impl Env {
    /// The environment of this process.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// Sets these variables.
    #[must_use]
    pub fn with(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.0.extend(variables);
        self
    }

    /// The text of a variable, `None` if it is unset or empty.
    pub fn text(&self, name: &'static str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The text of a required variable.
    pub fn required(&self, name: &'static str) -> Result<&str, Error> {
        self.text(name).ok_or(Error::Missing(name))
    }

    /// `true` or `false`; `default` if unset.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, Error> {
        match self.text(name) {
            None => Ok(default),
            Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::invalid(name, "must be true or false")),
        }
    }

    /// A whole number within `range`; `default` if unset.
    pub fn number<T>(
        &self,
        name: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> Result<T, Error>
    where
        T: FromStr + PartialOrd + Display,
    {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (from, to) = range.into_inner();
                Error::invalid(name, format!("must be a whole number from {from} to {to}"))
            })
    }

    /// A number of milliseconds from 1 to 60,000; `default` if unset.
    pub fn milliseconds(&self, name: &'static str, default: u64) -> Result<Duration, Error> {
        self.number(name, default, 1..=60_000)
            .map(Duration::from_millis)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(variables: [(&str, &str); N]) -> Self {
        variables.into_iter().collect()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

/// The time-outs of a request and its parts. They nest: if every part takes its longest, the
/// failure is still reported in time, and a code that was not sent is still revoked.
#[derive(Clone, Copy)]
pub struct Deadlines {
    /// One call to Postgres or Redis, reconnecting and cancelling included.
    pub store: Duration,
    /// The whole request, up to its response.
    pub request: Duration,
}

impl Deadlines {
    /// Reads `STORE_TIMEOUT_MS` (default 2000) and `REQUEST_TIMEOUT_MS` (default 8000). A request
    /// about a code calls two stores, one after the other.
    pub fn from_env(env: &Env) -> Result<Self, Error> {
        const NAME: &str = "STORE_TIMEOUT_MS";
        let request = env.milliseconds("REQUEST_TIMEOUT_MS", 8000)?;
        let store = env.milliseconds(NAME, 2000)?;
        if 2 * store > request {
            return Err(Error::invalid(
                NAME,
                "must be at most half of REQUEST_TIMEOUT_MS",
            ));
        }
        Ok(Self { store, request })
    }

    /// Reads `SMS_TIMEOUT_MS` (default 4000, shared among the longest chain): one call to an SMS
    /// provider, which gets at least half of it. A request calls two stores before the `providers`
    /// of its chain, and one after they refused.
    pub fn sms(self, env: &Env, providers: u32) -> Result<Duration, Error> {
        const NAME: &str = "SMS_TIMEOUT_MS";
        let sms = env.milliseconds(NAME, 4000 / u64::from(providers.max(1)))?;
        if sms >= self.request {
            return Err(Error::invalid(NAME, "must be below REQUEST_TIMEOUT_MS"));
        }
        if 3 * self.store + providers * sms / 2 > self.request {
            return Err(Error::invalid(
                NAME,
                "must fit: half of it for each provider of the longest chain, and three times \
                 STORE_TIMEOUT_MS, into REQUEST_TIMEOUT_MS",
            ));
        }
        Ok(sms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let env = Env::from([("OTP_DOMAIN", "")]);
        assert_eq!(env.text("OTP_DOMAIN"), None);
        assert_eq!(
            env.required("OTP_DOMAIN"),
            Err(Error::Missing("OTP_DOMAIN"))
        );
    }

    #[test]
    fn a_bad_number_is_named_and_not_echoed() {
        let env = Env::from([("OTP_LENGTH", "hunter2")]);
        let error = env.number("OTP_LENGTH", 6, 4..=10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "OTP_LENGTH must be a whole number from 4 to 10"
        );
    }

    #[test]
    fn a_flag_is_true_or_false_and_nothing_else() {
        for (text, flag) in [
            ("true", Some(true)),
            ("false", Some(false)),
            ("", Some(false)),
            ("1", None),
        ] {
            let env = Env::from([("REQUIRE_CHALLENGE_ID", text)]);
            assert_eq!(
                env.flag("REQUIRE_CHALLENGE_ID", false).ok(),
                flag,
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_longest_way_through_a_request_has_to_fit_into_it() {
        let refused_chain = |providers, store, sms, request| {
            let env = Env::from([
                ("STORE_TIMEOUT_MS", store),
                ("SMS_TIMEOUT_MS", sms),
                ("REQUEST_TIMEOUT_MS", request),
            ]);
            let read =
                Deadlines::from_env(&env).and_then(|deadlines| deadlines.sms(&env, providers));
            match read.err()? {
                Error::Invalid { name, .. } | Error::Missing(name) => Some(name),
            }
        };
        let refused = |store, sms, request| refused_chain(1, store, sms, request);
        assert_eq!(refused("", "", ""), None);
        assert_eq!(refused("4001", "", ""), Some("STORE_TIMEOUT_MS"));
        assert_eq!(refused("2001", "", ""), Some("SMS_TIMEOUT_MS"));
        assert_eq!(refused("", "4002", ""), Some("SMS_TIMEOUT_MS"));
        assert_eq!(refused("10", "8000", ""), Some("SMS_TIMEOUT_MS"));
        assert_eq!(refused("", "", "7999"), Some("SMS_TIMEOUT_MS"));
        assert_eq!(refused("100", "200", "400"), None);
        assert_eq!(refused_chain(2, "", "", ""), None);
        assert_eq!(refused_chain(2, "", "2000", ""), None);
        assert_eq!(refused_chain(2, "", "2001", ""), Some("SMS_TIMEOUT_MS"));
    }
}
