//! Where the simulated people live, and the numbers that exist there.

use rand::{RngExt, rngs::ChaCha8Rng};
use shared::{
    config::Env,
    phone::{Parser, SendPolicy},
};

/// A country that the service sends to.
struct Country {
    region: &'static str,
    /// Of 100 honest people, how many live here.
    share: u32,
    /// Calling code and first digits of mobile numbers.
    prefixes: &'static [&'static str],
    /// The number of digits after the prefix.
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

/// The country of the dense town, by its place in the list.
pub const OF_THE_TOWN: usize = 1;

/// A thousand neighbouring numbers: E.164 without the last three digits.
pub type Range = String;

/// The number of a range that ends in these three digits.
pub fn number(range: &Range, last: usize) -> String {
    format!("{range}{last:03}")
}

/// The range that the number lies in.
pub fn range_of(phone: &str) -> &str {
    &phone[..phone.len() - 3]
}

/// Draws numbers that libphonenumber holds for valid ones of the country, and that the send policy
/// allows.
pub struct Numbers {
    parser: Parser,
    send_policy: SendPolicy,
}

impl Numbers {
    pub fn new() -> Self {
        let regions = COUNTRIES.map(|country| country.region).join(",");
        let env = Env::from([("ALLOWED_COUNTRIES", regions.as_str())]);
        Self {
            parser: Parser::from_env(&env).unwrap(),
            send_policy: SendPolicy::from_env(&env).unwrap(),
        }
    }

    /// A person's number, and the place of its country in the list.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> (String, usize) {
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

    /// So many ranges in each country, in the order of the list.
    pub fn ranges(&self, per_country: usize, random: &mut ChaCha8Rng) -> Vec<Range> {
        (0..COUNT)
            .flat_map(|place| self.ranges_in(place, per_country, random))
            .collect()
    }

    /// So many ranges of the country at this place of the list.
    pub fn ranges_in(&self, place: usize, count: usize, random: &mut ChaCha8Rng) -> Vec<Range> {
        let mut ranges = Vec::with_capacity(count);
        while ranges.len() < count {
            let range = self.range(&COUNTRIES[place], random);
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        ranges
    }

    fn range(&self, country: &Country, random: &mut ChaCha8Rng) -> Range {
        loop {
            let range = range_of(&self.draw_in(country, random)).to_owned();
            // No plan of these countries divides a thousand any finer.
            let samples = [0, 250, 500, 750, 999];
            if samples
                .into_iter()
                .all(|last| self.is_valid(country, &number(&range, last)))
            {
                return range;
            }
        }
    }

    fn draw_in(&self, country: &Country, random: &mut ChaCha8Rng) -> String {
        loop {
            let prefix = country.prefixes[random.random_range(0..country.prefixes.len())];
            let rest = random.random_range(0..10u32.pow(country.digits));
            let width = country.digits as usize;
            let text = format!("{prefix}{rest:0width$}");
            if self.is_valid(country, &text) {
                return text;
            }
        }
    }

    fn is_valid(&self, country: &Country, text: &str) -> bool {
        let phone = self.parser.parse(text);
        phone.is_ok_and(|phone| {
            self.send_policy.check(&phone).is_ok()
                && phone.country() == country.region
                && phone.as_e164() == text
        })
    }
}
