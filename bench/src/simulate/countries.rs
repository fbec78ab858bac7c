//! Where the simulated people live, and the numbers that exist there.

use rand::{RngExt, rngs::ChaCha8Rng};
use shared::{
    config::Env,
    phone::{Parser, PhoneNumber, Served},
};

/// A country that the service sends to.
struct Country {
    region: &'static str,
    /// Of 100 honest people, how many live here.
    share: u32,
    /// Calling code and first digits of mobile numbers.
    prefixes: &'static [&'static str],
    /// How many digits follow the prefix.
    digits: u32,
}

pub const COUNT: usize = 8;

/// Countries of all price levels, among them those that pumping is often reported from.
const COUNTRIES: [Country; COUNT] = [
    Country {
        region: "GB",
        share: 30,
        prefixes: &["+4474", "+4475", "+4477", "+4478", "+4479"],
        digits: 8,
    },
    Country {
        region: "DE",
        share: 25,
        prefixes: &["+49151", "+49160", "+49170", "+49175"],
        digits: 8,
    },
    Country {
        region: "ID",
        share: 10,
        prefixes: &["+62812", "+62813", "+62821", "+62857"],
        digits: 8,
    },
    Country {
        region: "PK",
        share: 8,
        prefixes: &["+92300", "+92321", "+92333", "+92345"],
        digits: 7,
    },
    Country {
        region: "NG",
        share: 8,
        prefixes: &["+234803", "+234806", "+234813"],
        digits: 7,
    },
    Country {
        region: "BD",
        share: 7,
        prefixes: &["+88017", "+88018", "+88019"],
        digits: 8,
    },
    Country {
        region: "PH",
        share: 7,
        prefixes: &["+63917", "+63918", "+63927"],
        digits: 7,
    },
    Country {
        region: "UZ",
        share: 5,
        prefixes: &["+99890", "+99893", "+99897"],
        digits: 7,
    },
];

/// The thousand numbers of a range, from …000 to …999.
pub type Range = Vec<PhoneNumber>;

/// Draws numbers that libphonenumber holds for valid ones of the country, and that are served.
pub struct Numbers {
    parser: Parser,
    served: Served,
}

impl Numbers {
    pub fn new() -> Self {
        let regions = COUNTRIES.map(|country| country.region).join(",");
        let env = Env::from([("ALLOWED_COUNTRIES", regions.as_str())]);
        Self {
            parser: Parser::from_env(&env).unwrap(),
            served: Served::from_env(&env).unwrap(),
        }
    }

    /// A person's number, and the place of its country in the list.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> (PhoneNumber, usize) {
        let mut ticket: u32 = random.random_range(0..100);
        let place = COUNTRIES
            .iter()
            .position(|country| match ticket.checked_sub(country.share) {
                Some(rest) => {
                    ticket = rest;
                    false
                }
                None => true,
            });
        let place = place.unwrap();
        (self.draw_in(&COUNTRIES[place], random), place)
    }

    /// `per_country` ranges in each country, in the order of the list.
    pub fn ranges(&self, per_country: usize, random: &mut ChaCha8Rng) -> Vec<Range> {
        let mut ranges = Vec::new();
        for country in &COUNTRIES {
            for _ in 0..per_country {
                ranges.push(self.range(country, random));
            }
        }
        ranges
    }

    fn range(&self, country: &Country, random: &mut ChaCha8Rng) -> Range {
        loop {
            let some = self.draw_in(country, random);
            let range: Option<Range> = (0..1000)
                .map(|last| self.valid(country, &format!("{}{last:03}", some.range())))
                .collect();
            if let Some(range) = range {
                return range;
            }
        }
    }

    fn draw_in(&self, country: &Country, random: &mut ChaCha8Rng) -> PhoneNumber {
        loop {
            let prefix = country.prefixes[random.random_range(0..country.prefixes.len())];
            let rest = random.random_range(0..10u32.pow(country.digits));
            let width = country.digits as usize;
            if let Some(phone) = self.valid(country, &format!("{prefix}{rest:0width$}")) {
                return phone;
            }
        }
    }

    fn valid(&self, country: &Country, text: &str) -> Option<PhoneNumber> {
        let phone = self.parser.parse(text).ok()?;
        let is_valid = self.served.check(&phone).is_ok() && phone.country() == country.region;
        is_valid.then_some(phone)
    }
}
