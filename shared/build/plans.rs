//! Compiles libphonenumber's metadata into static tables, so that no start and no request decodes
//! it or compiles its long patterns.
//!
//! All patterns of a calling code become one automaton over the digits of a national number. Its
//! states are shared with the automata of all other calling codes: equal states are stored once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    error::Error,
    fmt::Write,
};

use regex_automata::{
    Anchored, Input, MatchKind,
    dfa::{Automaton, StartKind, dense},
    util::{primitives::StateID, syntax},
};
use rlibphonenumber::{PHONE_NUMBER_UTIL, interfaces::AsOriginal};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// libphonenumber's `MAX_LENGTH_FOR_NSN`.
const LONGEST_NATIONAL_NUMBER: u8 = 17;

/// A pattern describes all numbers of a region, or those of a kind.
const GENERAL: &str = "General";
const FIXED_LINE: &str = "FixedLine";
const MOBILE: &str = "Mobile";
/// The kinds that a number can be of instead, in libphonenumber's order.
const OTHER_KINDS: [&str; 8] = [
    "PremiumRate",
    "TollFree",
    "SharedCost",
    "Voip",
    "PersonalNumber",
    "Pager",
    "Uan",
    "VoiceMail",
];
const UNKNOWN: &str = "Unknown";
/// Or the digits that all numbers of the region, and no others, begin with.
const LEADING_DIGITS: &str = "LeadingDigits";

struct Region {
    id: String,
    calling_code: i32,
    international_prefix: String,
    national_prefix: String,
    national_prefix_rule: String,
    numbers: BTreeMap<&'static str, Numbers>,
}

struct Numbers {
    /// Empty: there are none.
    pattern: String,
    lengths: Vec<i32>,
}

/// The next state for each digit, then the class of a number that ends here.
type State = [u16; 11];

#[derive(Default)]
struct States {
    list: Vec<State>,
    known: HashMap<State, u16>,
    classes: Vec<String>,
}

/// The automaton of one calling code.
struct Plan<'a> {
    regions: &'a [Region],
    automaton: dense::DFA<Vec<u32>>,
    /// For each pattern a region, and the name of its numbers that the pattern describes.
    patterns: Vec<(usize, &'static str)>,
    compiled: HashMap<(StateID, u8), u16>,
}

/// The code of `REGIONS`, sorted by calling code with the main region first, of `STATES` and of the
/// `CLASSES` that these name.
pub fn compile() -> Result<String> {
    let mut calling_codes: Vec<_> = PHONE_NUMBER_UTIL.get_supported_calling_codes().collect();
    calling_codes.sort_unstable();
    let mut states = States::default();
    let (mut count, mut regions) = (0, String::new());
    for calling_code in calling_codes {
        let plan = read(calling_code)?;
        let first_state = Plan::new(&plan)?.compile(&mut states)?;
        for region in plan {
            writeln!(regions, "{},", region.code(first_state)?)?;
            count += 1;
        }
    }
    Ok(format!(
        "pub static REGIONS: [Region; {count}] = [\n{regions}];\n\
         pub static STATES: [[u16; 11]; {}] = {:?};\n\
         pub static CLASSES: [(Option<usize>, Kind); {}] = [{}];\n",
        states.list.len(),
        states.list,
        states.classes.len(),
        states.classes.join(", "),
    ))
}

/// The regions of a calling code, the main one first. The crate's documented interface
/// has no metadata; `as_original` has.
fn read(calling_code: i32) -> Result<Vec<Region>> {
    let util = PHONE_NUMBER_UTIL.as_original();
    let regions = util.get_regions_for_country_calling_code(calling_code);
    let regions = regions.into_iter().flatten().map(|id| {
        let metadata = util
            .get_metadata_for_region_or_calling_code(calling_code, id)
            .ok_or("a region without metadata")?;
        let numbers = [
            (GENERAL, &metadata.general_desc),
            (FIXED_LINE, &metadata.fixed_line),
            (MOBILE, &metadata.mobile),
            ("PremiumRate", &metadata.premium_rate),
            ("TollFree", &metadata.toll_free),
            ("SharedCost", &metadata.shared_cost),
            ("Voip", &metadata.voip),
            ("PersonalNumber", &metadata.personal_number),
            ("Pager", &metadata.pager),
            ("Uan", &metadata.uan),
            ("VoiceMail", &metadata.voicemail),
        ];
        let mut numbers: BTreeMap<_, _> = numbers
            .into_iter()
            .map(|(name, numbers)| {
                let pattern = numbers.national_number_pattern().pattern_base.clone();
                let numbers = Numbers {
                    pattern: pattern.unwrap_or_default(),
                    lengths: numbers.original.possible_length.clone(),
                };
                (name, numbers)
            })
            .collect();
        let leading_digits = start(metadata.leading_digits().pattern_base.as_deref())?;
        if !leading_digits.is_empty() {
            let leading = Numbers {
                pattern: format!(r"{leading_digits}\d*$"),
                lengths: Vec::new(),
            };
            numbers.insert(LEADING_DIGITS, leading);
        }
        let international_prefix = metadata.international_prefix().pattern_base.as_deref();
        let national_prefix = metadata
            .national_prefix_for_parsing()
            .pattern_base
            .as_deref();
        Ok(Region {
            id: id.to_string(),
            calling_code,
            international_prefix: start(international_prefix)?,
            national_prefix: start(national_prefix)?,
            national_prefix_rule: metadata
                .original
                .national_prefix_transform_rule()
                .to_owned(),
            numbers,
        })
    });
    regions.collect()
}

/// The pattern for the start of a text, from one for all of it.
fn start(pattern: Option<&str>) -> Result<String> {
    let Some(pattern) = pattern else {
        return Ok(String::new());
    };
    let start = pattern.strip_suffix('$').ok_or("a pattern has no end")?;
    Ok(start.to_owned())
}

impl Region {
    /// The kind of a number of this length that matches these fields' patterns.
    fn kind(&self, is_match: impl Fn(&'static str) -> bool, length: u8) -> &'static str {
        let is = |field| {
            let has_length = |numbers: &Numbers| {
                numbers.lengths.is_empty() || numbers.lengths.contains(&i32::from(length))
            };
            is_match(field) && self.numbers.get(field).is_some_and(has_length)
        };
        if !is(GENERAL) {
            return UNKNOWN;
        }
        if let Some(kind) = OTHER_KINDS.into_iter().find(|kind| is(kind)) {
            return kind;
        }
        match (is(FIXED_LINE), is(MOBILE)) {
            (true, true) => "FixedLineOrMobile",
            (true, false) => FIXED_LINE,
            (false, true) => MOBILE,
            (false, false) => UNKNOWN,
        }
    }

    fn code(&self, first_state: u16) -> Result<String> {
        let numbers = self.numbers.get(GENERAL).ok_or("a region of no numbers")?;
        let lengths = numbers.lengths.iter();
        let lengths = lengths.fold(0_u32, |bits, length| bits | 1 << length);
        Ok(format!(
            "Region {{ id: {:?}, calling_code: {}, first_state: {first_state}, lengths: {}, \
             national_number: Pattern::new({:?}), \
             international_prefix: Pattern::new({:?}), national_prefix: Pattern::new({:?}), \
             national_prefix_rule: {:?} }}",
            self.id,
            self.calling_code,
            lengths,
            numbers.pattern,
            self.international_prefix,
            self.national_prefix,
            self.national_prefix_rule,
        ))
    }
}

impl States {
    fn add(&mut self, state: State) -> Result<u16> {
        if let Some(&known) = self.known.get(&state) {
            return Ok(known);
        }
        let added = u16::try_from(self.list.len())?;
        self.list.push(state);
        self.known.insert(state, added);
        Ok(added)
    }

    fn class(&mut self, class: String) -> Result<u16> {
        let known = self.classes.iter().position(|known| *known == class);
        let place = known.unwrap_or_else(|| {
            self.classes.push(class);
            self.classes.len() - 1
        });
        Ok(u16::try_from(place)?)
    }
}

impl<'a> Plan<'a> {
    fn new(regions: &'a [Region]) -> Result<Self> {
        let (mut patterns, mut texts) = (Vec::new(), Vec::new());
        for (index, region) in regions.iter().enumerate() {
            for (&name, numbers) in &region.numbers {
                if !numbers.pattern.is_empty() {
                    patterns.push((index, name));
                    texts.push(&numbers.pattern);
                }
            }
        }
        let automaton = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .start_kind(StartKind::Anchored)
                    .match_kind(MatchKind::All),
            )
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .build_many(&texts)?;
        Ok(Self {
            regions,
            automaton,
            patterns,
            compiled: HashMap::new(),
        })
    }

    /// The state in which a national number begins.
    fn compile(mut self, states: &mut States) -> Result<u16> {
        let input = Input::new("").anchored(Anchored::Yes);
        let first = self.automaton.start_state_forward(&input)?;
        self.state(first, 0, states)
    }

    fn state(&mut self, from: StateID, length: u8, states: &mut States) -> Result<u16> {
        if let Some(&compiled) = self.compiled.get(&(from, length)) {
            return Ok(compiled);
        }
        let mut state = [0; 11];
        if length < LONGEST_NATIONAL_NUMBER {
            for (next, digit) in state.iter_mut().zip(b'0'..=b'9') {
                let to = self.automaton.next_state(from, digit);
                *next = self.state(to, length + 1, states)?;
            }
        }
        state[10] = states.class(self.class(from, length))?;
        let compiled = states.add(state)?;
        self.compiled.insert((from, length), compiled);
        Ok(compiled)
    }

    /// The region and kind of a number that ends here, as libphonenumber's `get_region_for_number`
    /// and `get_number_type`. The region is its place in a calling code of several.
    fn class(&self, from: StateID, length: u8) -> String {
        let end = self.automaton.next_eoi_state(from);
        let mut matches = HashSet::new();
        if self.automaton.is_match_state(end) {
            for index in 0..self.automaton.match_len(end) {
                matches.insert(self.patterns[self.automaton.match_pattern(end, index)]);
            }
        }
        if let [region] = self.regions {
            let kind = region.kind(|field| matches.contains(&(0, field)), length);
            return format!("(None, Kind::{kind})");
        }
        for (index, region) in self.regions.iter().enumerate() {
            let is_match = |field| matches.contains(&(index, field));
            let kind = region.kind(is_match, length);
            if kind != UNKNOWN || is_match(LEADING_DIGITS) {
                return format!("(Some({index}), Kind::{kind})");
            }
        }
        format!("(None, Kind::{UNKNOWN})")
    }
}
