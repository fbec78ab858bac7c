//! The world's numbering plans: what a text of plain characters dials, by libphonenumber's rules.
//!
//! `build/plans.rs` turns libphonenumber's metadata into the tables here. Whether a number exists,
//! where and of which kind is a walk over them, one state for each digit. Only the short patterns
//! for what people dial before a number are regular expressions, compiled at their first use.
//!
//! The tests hold all of this against the crate rlibphonenumber, number by number.

use std::{borrow::Cow, sync::OnceLock};

use regex_lite::Regex;

use tables::{CLASSES, REGIONS, STATES};

#[allow(clippy::unreadable_literal, reason = "they are generated")]
mod tables {
    use super::{Kind, Pattern, Region};

    include!(concat!(env!("OUT_DIR"), "/plans.rs"));
}

/// A region with a numbering plan.
pub struct Region {
    /// ISO 3166-1 alpha-2, or [`WORLD`].
    pub id: &'static str,
    pub calling_code: u16,
    /// The state in which a national number of the calling code begins.
    first_state: u16,
    /// Bit n: there are national numbers of n digits.
    lengths: u32,
    national_number: Pattern,
    international_prefix: Pattern,
    national_prefix: Pattern,
    /// The replacement of the national prefix, in terms of its pattern's groups.
    national_prefix_rule: &'static str,
}

/// The region of calling codes that belong to no country.
pub const WORLD: &str = "001";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    FixedLine,
    Mobile,
    FixedLineOrMobile,
    TollFree,
    PremiumRate,
    SharedCost,
    Voip,
    PersonalNumber,
    Pager,
    Uan,
    VoiceMail,
    /// No such number is assigned.
    Unknown,
}

/// A regular expression, or none: an empty text.
struct Pattern {
    text: &'static str,
    /// Boxed, since there are hundreds and few are used.
    compiled: OnceLock<Box<Regex>>,
}

/// A number that can be dialled from everywhere. It need not be assigned.
pub struct Number {
    /// The main region of its calling code.
    region: &'static Region,
    national: String,
}

/// The main region of a calling code, and the digits after that code.
type Split<'a> = (&'static Region, Cow<'a, str>);

/// A region, other than [`WORLD`], by its code in either case.
pub fn region(id: &str) -> Option<&'static Region> {
    REGIONS
        .iter()
        .find(|region| region.id.eq_ignore_ascii_case(id) && region.id != WORLD)
}

impl Number {
    /// Reads a text of ASCII digits, spaces, `-`, `.`, brackets and at most one `+`, before all
    /// digits. Without the `+` it is what people dial in the default region.
    pub fn parse(text: &str, default: Option<&'static Region>) -> Option<Self> {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let has_plus = text.contains('+');
        let international = has_plus.then(|| split_calling_code(&digits)).flatten();
        // As in libphonenumber, a `+` before no calling code is ignored: `+0049`.
        let (region, national) = international.or_else(|| {
            let default = default?;
            match default.after_international_prefix(&digits) {
                Some(rest) => split_calling_code(rest),
                None => default
                    .after_own_calling_code(&digits)
                    .or_else(|| (!has_plus).then_some((default, digits.as_str().into()))),
            }
        })?;
        let national = region.without_national_prefix(&national);
        let region = plan(region.calling_code).first()?;
        // Its E.164 form has to mean the same number.
        let is_same = region.without_national_prefix(&national) == national;
        (is_same && region.can_have(national.len())).then(|| Self {
            region,
            national: national.into_owned(),
        })
    }

    pub fn e164(&self) -> String {
        format!("+{}{}", self.region.calling_code, self.national)
    }

    pub fn calling_code(&self) -> u16 {
        self.region.calling_code
    }

    /// The region whose number it is, or would be, and its kind there.
    pub fn classify(&self) -> (Option<&'static Region>, Kind) {
        let step = |state: u16, digit| STATES[usize::from(state)][usize::from(digit)];
        let digits = self.national.bytes().map(|digit| digit - b'0');
        let last = digits.fold(self.region.first_state, step);
        let (place, kind) = CLASSES[usize::from(STATES[usize::from(last)][10])];
        let region = match plan(self.region.calling_code) {
            [only] => Some(only),
            regions => place.and_then(|place| regions.get(place)),
        };
        (region, kind)
    }
}

impl Region {
    /// The digits after the prefix that is dialled before a calling code, `00`.
    fn after_international_prefix<'a>(&self, digits: &'a str) -> Option<&'a str> {
        let prefix = self.international_prefix.get()?.find(digits)?;
        let rest = &digits[prefix.end()..];
        (!rest.starts_with('0')).then_some(rest)
    }

    /// The digits after the region's own calling code, if they are a number only without it.
    fn after_own_calling_code<'a>(&self, digits: &'a str) -> Option<Split<'a>> {
        let rest = digits.strip_prefix(&self.calling_code.to_string())?;
        let rest = self.strip_national_prefix(rest);
        let is_better = self.is_too_long(digits.len())
            || !self.national_number.is_match(digits) && self.national_number.is_match(&rest);
        let main = plan(self.calling_code).first()?;
        is_better.then_some((main, rest))
    }

    /// The national number without the prefix that is dialled inside the country, if what remains
    /// can still be a number.
    fn without_national_prefix<'a>(&self, digits: &'a str) -> Cow<'a, str> {
        let stripped = self.strip_national_prefix(digits);
        if self.can_have(stripped.len()) {
            stripped
        } else {
            digits.into()
        }
    }

    fn strip_national_prefix<'a>(&self, digits: &'a str) -> Cow<'a, str> {
        let Some(pattern) = self.national_prefix.get() else {
            return digits.into();
        };
        let Some(prefix) = pattern.captures(digits) else {
            return digits.into();
        };
        let stripped = if prefix.get(1).is_some() && !self.national_prefix_rule.is_empty() {
            pattern.replace(digits, self.national_prefix_rule)
        } else {
            digits[prefix[0].len()..].into()
        };
        if self.national_number.is_match(digits) && !self.national_number.is_match(&stripped) {
            digits.into()
        } else {
            stripped
        }
    }

    fn can_have(&self, length: usize) -> bool {
        length < 32 && self.lengths >> length & 1 == 1
    }

    fn is_too_long(&self, length: usize) -> bool {
        length >= 32 || self.lengths >> length == 0
    }
}

impl Pattern {
    const fn new(text: &'static str) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }

    #[expect(clippy::expect_used, reason = "a test compiles all of them")]
    fn get(&self) -> Option<&Regex> {
        if self.text.is_empty() {
            return None;
        }
        Some(self.compiled.get_or_init(|| {
            let regex = Regex::new(self.text).expect("libphonenumber's patterns are valid");
            Box::new(regex)
        }))
    }

    fn is_match(&self, digits: &str) -> bool {
        self.get().is_some_and(|pattern| pattern.is_match(digits))
    }
}

/// The regions of a calling code, the main one first.
fn plan(calling_code: u16) -> &'static [Region] {
    let start = REGIONS.partition_point(|region| region.calling_code < calling_code);
    let end = REGIONS.partition_point(|region| region.calling_code <= calling_code);
    &REGIONS[start..end]
}

/// The main region of the calling code that the digits begin with, and the rest.
fn split_calling_code(digits: &str) -> Option<Split<'_>> {
    (1..=3).find_map(|length| {
        let (code, rest) = digits.split_at_checked(length)?;
        let main = plan(code.parse().ok()?).first()?;
        (!digits.starts_with('0')).then_some((main, rest.into()))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng, seq::IndexedRandom};
    use rlibphonenumber::{
        NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType,
        Region as TheirRegion,
    };

    use super::*;

    /// E.164, region and kind.
    type Reading = (String, Option<String>, Kind);

    fn ours(text: &str, default: &str) -> Option<Reading> {
        let number = Number::parse(text, region(default))?;
        let (region, kind) = number.classify();
        Some((
            number.e164(),
            region.map(|region| region.id.to_owned()),
            kind,
        ))
    }

    fn theirs(text: &str, default: &str) -> Option<Reading> {
        let number = PhoneNumber::parse(text, TheirRegion::from_code(default).ok()).ok()?;
        let e164 = number.format_as(PhoneNumberFormat::E164).into_owned();
        let is_possible = number.is_possible_with_reason() == Ok(NumberLengthType::IsPossible);
        let is_same = || PhoneNumber::parse(&e164, None).as_ref() == Ok(&number);
        if !is_possible || !is_same() {
            return None;
        }
        let region = number.get_region_code().map(|region| region.to_string());
        let kind = match number.get_type() {
            PhoneNumberType::FixedLine => Kind::FixedLine,
            PhoneNumberType::Mobile => Kind::Mobile,
            PhoneNumberType::FixedLineOrMobile => Kind::FixedLineOrMobile,
            PhoneNumberType::TollFree => Kind::TollFree,
            PhoneNumberType::PremiumRate => Kind::PremiumRate,
            PhoneNumberType::SharedCost => Kind::SharedCost,
            PhoneNumberType::VoIP => Kind::Voip,
            PhoneNumberType::PersonalNumber => Kind::PersonalNumber,
            PhoneNumberType::Pager => Kind::Pager,
            PhoneNumberType::UAN => Kind::Uan,
            PhoneNumberType::VoiceMail => Kind::VoiceMail,
            PhoneNumberType::Unknown => Kind::Unknown,
        };
        assert_eq!(
            number.is_valid(),
            kind != Kind::Unknown,
            "{text} from {default:?}"
        );
        Some((e164, region, kind))
    }

    fn compare(text: &str, default: &str) {
        let (ours, theirs) = (ours(text, default), theirs(text, default));
        assert_eq!(ours, theirs, "{text} from {default:?}");
    }

    /// The regions and national numbers of libphonenumber's examples, one for each kind of a region.
    fn examples() -> Vec<(&'static Region, String)> {
        let kinds = [
            PhoneNumberType::FixedLine,
            PhoneNumberType::Mobile,
            PhoneNumberType::TollFree,
            PhoneNumberType::PremiumRate,
            PhoneNumberType::SharedCost,
            PhoneNumberType::VoIP,
            PhoneNumberType::PersonalNumber,
            PhoneNumberType::Pager,
            PhoneNumberType::UAN,
            PhoneNumberType::VoiceMail,
        ];
        let examples_of = |region: &'static Region| -> Vec<_> {
            let util = &PHONE_NUMBER_UTIL;
            if region.id == WORLD {
                let code = i32::from(region.calling_code);
                return vec![util.get_example_number_for_non_geo_entity(code)];
            }
            let id = TheirRegion::from_code(region.id).unwrap();
            let example = |kind| util.get_example_number_for_type_and_region(id, kind);
            kinds.into_iter().map(example).collect()
        };
        let examples = REGIONS.iter().flat_map(|region| {
            let examples = examples_of(region).into_iter().flatten();
            examples.map(move |number| (region, number.get_national_significant_number()))
        });
        examples.collect()
    }

    fn some_digits(random: &mut ChaCha8Rng, most: usize) -> String {
        let count = random.random_range(1..=most);
        (0..count).map(|_| random.random_range('0'..='9')).collect()
    }

    #[test]
    fn every_pattern_compiles() {
        for region in &REGIONS {
            region.national_number.get();
            region.international_prefix.get();
            region.national_prefix.get();
        }
    }

    #[test]
    fn the_regions_are_libphonenumbers() {
        let ours = REGIONS.iter().filter(|region| region.id != WORLD);
        let ours: BTreeSet<_> = ours
            .map(|region| (region.id.to_owned(), Some(region.calling_code.into())))
            .collect();
        let theirs: BTreeSet<_> = PHONE_NUMBER_UTIL
            .get_supported_regions()
            .map(|region| {
                let code = PHONE_NUMBER_UTIL.get_country_code_for_region(region);
                (region.to_string(), code)
            })
            .collect();
        assert_eq!(ours, theirs);

        let ours: BTreeSet<_> = REGIONS
            .iter()
            .map(|region| region.calling_code.into())
            .collect();
        let theirs = PHONE_NUMBER_UTIL.get_supported_calling_codes().collect();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn an_example_of_each_kind_is_read_as_by_libphonenumber() {
        let examples = examples();
        assert!(examples.len() > 1000);
        for (
            Region {
                id, calling_code, ..
            },
            national,
        ) in examples
        {
            compare(&format!("+{calling_code}{national}"), "");
            compare(
                &format!("(+{calling_code}) {}-{}", &national[..3], &national[3..]),
                "",
            );
            compare(&format!("+{calling_code}{national}0"), "");
            compare(&format!("+{calling_code}{}", &national[1..]), "");
            for prefix in ["", "0", "1", "8"] {
                compare(&format!("+{calling_code}{prefix}{national}"), "");
                compare(&format!("{prefix}{national}"), id);
            }
            compare(&format!("{calling_code}{national}"), id);
        }
    }

    #[test]
    fn a_number_dialled_from_elsewhere_is_read_as_by_libphonenumber() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let prefixes = [
            "00", "011", "810", "0011", "010", "009", "119", "+", "+00", "0015", "",
        ];
        for (region, national) in examples() {
            let from = REGIONS.choose(&mut random).unwrap().id;
            for prefix in prefixes {
                compare(&format!("{prefix}{}{national}", region.calling_code), from);
            }
        }
    }

    #[test]
    fn a_text_of_too_many_digits_is_no_number() {
        for Region {
            id, calling_code, ..
        } in &REGIONS
        {
            for count in [18, 30, 31, 32, 61] {
                let digits = format!("{calling_code}{}", "5".repeat(count));
                compare(&digits, id);
                compare(&format!("+{digits}"), "");
            }
        }
    }

    #[test]
    fn any_number_is_read_as_by_libphonenumber() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for region in REGIONS.iter().cycle().take(1_500) {
            let from = REGIONS.choose(&mut random).unwrap().id;
            let digits = some_digits(&mut random, 18);
            compare(&format!("+{}{digits}", region.calling_code), "");
            compare(&digits, from);
            compare(&format!("+{digits}"), from);
        }
        // Close to the examples most numbers are possible, and many are assigned.
        for (region, mut national) in examples().into_iter().cycle().take(6_000) {
            for _ in 0..random.random_range(1..=4) {
                let place = random.random_range(0..national.len());
                national.replace_range(place..=place, &some_digits(&mut random, 1));
            }
            compare(&format!("+{}{national}", region.calling_code), "");
        }
    }
}
