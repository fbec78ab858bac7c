//! The chains of providers, by region.

use std::collections::HashMap;

use crate::{
    config::{self, Env},
    phone::{self, PhoneNumber},
};

/// The name of a provider, in settings, logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Sns,
    Twilio,
    Log,
}

/// Providers in the order in which they are asked. There is at least one, and none twice.
type Chain = Vec<Name>;

/// The chain of each region, and the one of all others.
#[derive(Debug)]
pub(super) struct Routes {
    default: Chain,
    by_region: HashMap<String, Chain>,
}

impl Name {
    const ALL: [Self; 3] = [Self::Sns, Self::Twilio, Self::Log];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sns => "sns",
            Self::Twilio => "twilio",
            Self::Log => "log",
        }
    }
}

impl Routes {
    /// Reads `SMS_PROVIDER`, a chain such as `sns,twilio`, and `SMS_ROUTES`, other chains by region
    /// such as `IN:twilio;US,CA:sns,twilio`. `log` stands alone in `SMS_PROVIDER`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const DEFAULT: &str = "SMS_PROVIDER";
        const ROUTES: &str = "SMS_ROUTES";
        let default = read_chain(env.required(DEFAULT)?)
            .filter(|chain| chain.len() == 1 || !chain.contains(&Name::Log))
            .ok_or_else(|| {
                config::Error::invalid(
                    DEFAULT,
                    "must be sns, twilio, a chain such as sns,twilio, or log",
                )
            })?;
        let mut by_region = HashMap::new();
        if let Some(routes) = env.text(ROUTES) {
            if default.contains(&Name::Log) {
                return Err(config::Error::invalid(
                    ROUTES,
                    "must not be set with SMS_PROVIDER=log",
                ));
            }
            by_region = read_routes(routes).ok_or_else(|| {
                config::Error::invalid(
                    ROUTES,
                    "must be chains by region, each region once, such as \
                     IN:twilio;US,CA:sns,twilio",
                )
            })?;
        }
        Ok(Self { default, by_region })
    }

    /// The chain for a number.
    pub fn chain(&self, phone: &PhoneNumber) -> &[Name] {
        self.by_region.get(phone.country()).unwrap_or(&self.default)
    }

    /// The names in any chain.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        Name::ALL
            .into_iter()
            .filter(|name| self.chains().any(|chain| chain.contains(name)))
    }

    /// The length of the longest chain.
    pub fn longest(&self) -> usize {
        self.chains().map(Vec::len).max().unwrap_or_default()
    }

    fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.by_region.values().chain([&self.default])
    }
}

fn read_routes(text: &str) -> Option<HashMap<String, Chain>> {
    let mut by_region = HashMap::new();
    for route in text.split(';') {
        let (regions, chain) = route.split_once(':')?;
        let chain = read_chain(chain).filter(|chain| !chain.contains(&Name::Log))?;
        for region in regions.split(',') {
            let region = phone::region(region)?.id.to_owned();
            if by_region.insert(region, chain.clone()).is_some() {
                return None;
            }
        }
    }
    Some(by_region)
}

fn read_chain(text: &str) -> Option<Chain> {
    let mut chain = Chain::new();
    for text in text.split(',') {
        let name = Name::ALL.into_iter().find(|name| name.as_str() == text)?;
        if chain.contains(&name) {
            return None;
        }
        chain.push(name);
    }
    Some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(provider: &str, routes: &str) -> Result<Routes, config::Error> {
        Routes::from_env(&Env::from([
            ("SMS_PROVIDER", provider),
            ("SMS_ROUTES", routes),
        ]))
    }

    #[test]
    fn the_region_of_a_number_chooses_its_chain() {
        let routes = routes("sns", "IN:twilio;US,CA:twilio,sns").unwrap();
        let phones = phone::Parser::from_env(&Env::from([])).unwrap();
        for (number, chain) in [
            ("+919876543210", &[Name::Twilio][..]),
            ("+14155552671", &[Name::Twilio, Name::Sns]),
            ("+16135550123", &[Name::Twilio, Name::Sns]),
            // Jamaica: +1 too.
            ("+18765550123", &[Name::Sns]),
            ("+4915112345678", &[Name::Sns]),
        ] {
            assert_eq!(routes.chain(&phones.parse(number).unwrap()), chain);
        }
        assert_eq!(routes.longest(), 2);
    }

    #[test]
    fn only_the_providers_of_a_chain_are_named() {
        let names = |provider, text| {
            let routes = routes(provider, text).unwrap();
            routes.names().map(Name::as_str).collect::<Vec<_>>()
        };
        assert_eq!(names("sns", ""), ["sns"]);
        assert_eq!(names("twilio", ""), ["twilio"]);
        assert_eq!(names("log", ""), ["log"]);
        assert_eq!(names("sns", "IN:twilio"), ["sns", "twilio"]);
    }

    #[test]
    fn unknown_regions_and_providers_are_refused_by_the_variables_name() {
        for (provider, text, name) in [
            ("", "", "SMS_PROVIDER"),
            ("pigeon", "", "SMS_PROVIDER"),
            ("sns,", "", "SMS_PROVIDER"),
            ("sns, twilio", "", "SMS_PROVIDER"),
            ("sns,sns", "", "SMS_PROVIDER"),
            ("sns,log", "", "SMS_PROVIDER"),
            ("sns", "IN", "SMS_ROUTES"),
            ("sns", "IN:", "SMS_ROUTES"),
            ("sns", ":sns", "SMS_ROUTES"),
            ("sns", "IN:pigeon", "SMS_ROUTES"),
            ("sns", "IN:log", "SMS_ROUTES"),
            ("sns", "Utopia:sns", "SMS_ROUTES"),
            ("sns", "IN:sns;", "SMS_ROUTES"),
            ("sns", "IN,US:sns;US:twilio", "SMS_ROUTES"),
            ("log", "IN:sns", "SMS_ROUTES"),
        ] {
            let error = routes(provider, text).unwrap_err();
            assert!(error.to_string().starts_with(name), "{provider} {text}");
        }
    }
}
