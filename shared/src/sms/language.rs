//! The languages of the messages, and the choice of one. A client's text chooses among them and
//! goes no further.
//!
//! A language is a file of `languages/`, named after its tag, and an entry of [`Language::ALL`].

/// A language of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Language {
    /// BCP 47, as short as it can be.
    tag: &'static str,
    /// Lines that begin with `#` are for translators. The others are two texts with the code and
    /// two with the warning, each with the name of the app and without.
    file: &'static str,
}

macro_rules! language {
    ($tag:literal) => {
        Language {
            tag: $tag,
            file: include_str!(concat!("languages/", $tag, ".txt")),
        }
    };
}

impl Language {
    pub(super) const ENGLISH: Self = language!("en");

    pub(super) const ALL: [Self; 8] = [
        Self::ENGLISH,
        language!("ar"),
        language!("de"),
        language!("es"),
        language!("fr"),
        language!("hi"),
        language!("id"),
        language!("pt"),
    ];

    /// Chooses the language of `locale`, a tag such as `es-MX`. Without one that we have, the best
    /// of `accept_language`, the header (RFC 9110 §12.5.4), and English otherwise.
    pub fn choose(locale: &str, accept_language: &str) -> Self {
        Self::of_locale(locale)
            .or_else(|| best_of(accept_language))
            .unwrap_or(Self::ENGLISH)
    }

    /// The language with exactly this tag.
    pub(super) fn of_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag == tag)
    }

    pub fn tag(self) -> &'static str {
        self.tag
    }

    /// The text with the places `{code}`, `{minutes}` and, if it names the app, `{app}`.
    pub(super) fn code(self, names_app: bool) -> &'static str {
        self.text(true, names_app)
    }

    /// The text that warns of a new number, with the place `{app}` if it names the app.
    pub(super) fn warning(self, names_app: bool) -> &'static str {
        self.text(false, names_app)
    }

    fn text(self, has_code: bool, names_app: bool) -> &'static str {
        let is_it = |line: &&str| {
            !line.starts_with('#')
                && line.contains("{code}") == has_code
                && line.contains("{app}") == names_app
        };
        self.file.lines().find(is_it).unwrap_or_default()
    }

    /// The language of the longest beginning of `locale` that is a tag of ours (RFC 4647 §3.4). `_`
    /// stands for `-`, as in the identifiers of Java and Apple's systems.
    fn of_locale(locale: &str) -> Option<Self> {
        /// In bytes. The longest in use have about half of them.
        const LONGEST: usize = 64;
        if locale.len() > LONGEST {
            return None;
        }
        let locale = locale.replace('_', "-").to_ascii_lowercase();
        let mut beginning = locale.as_str();
        loop {
            // Indonesian until 1989, and in Java and Android for much longer.
            let tag = if beginning == "in" { "id" } else { beginning };
            if let Some(language) = Self::of_tag(tag) {
                return Some(language);
            }
            beginning = beginning.rsplit_once('-')?.0;
        }
    }
}

/// The language with the highest weight, the first of several.
fn best_of(accept_language: &str) -> Option<Language> {
    /// In bytes, so that a hostile header costs little.
    const LONGEST: usize = 1024;
    if accept_language.len() > LONGEST {
        return None;
    }
    let mut best = None;
    let mut highest = 0.0;
    for (language, weight) in accept_language.split(',').filter_map(read_range) {
        if weight > highest {
            (best, highest) = (Some(language), weight);
        }
    }
    best
}

/// Reads `es-MX` or `es-MX;q=0.8`.
fn read_range(text: &str) -> Option<(Language, f32)> {
    let (locale, weight) = match text.split_once(';') {
        None => (text, 1.0),
        Some((locale, parameter)) => {
            let weight = parameter.trim().strip_prefix(['q', 'Q'])?;
            (locale, weight.strip_prefix('=')?.parse().ok()?)
        }
    };
    let language = Language::of_locale(locale.trim())?;
    (0.0..=1.0).contains(&weight).then_some((language, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(locale: &str, accept_language: &str) -> &'static str {
        Language::choose(locale, accept_language).tag()
    }

    #[test]
    fn the_locale_chooses_before_the_header_and_english_serves_the_rest() {
        assert_eq!(choose("es", "fr"), "es");
        assert_eq!(choose("", "fr"), "fr");
        assert_eq!(choose("ja", "fr"), "fr");
        assert_eq!(choose("", ""), "en");
        assert_eq!(choose("ja", "ko"), "en");
    }

    #[test]
    fn a_locale_is_a_tag_of_any_case_with_anything_after_its_language() {
        for (locale, tag) in [
            ("pt", "pt"),
            ("pt-BR", "pt"),
            ("pt_BR", "pt"),
            ("PT-br", "pt"),
            ("de-Latn-DE-1996", "de"),
            ("ar-SA-u-nu-arab", "ar"),
            ("en_US@rg=inzzzz", "en"),
            ("in_ID", "id"),
        ] {
            assert_eq!(choose(locale, "fr"), tag, "{locale}");
        }
    }

    #[test]
    fn an_unknown_or_malformed_locale_is_ignored() {
        let long = format!("es-{}", "x-".repeat(100));
        for locale in [
            "x", "e", "esp", "spanish", "-es", "_", " es", "*", "es\n", " es-MX", "日本", "../es",
            "{app}", &long,
        ] {
            assert_eq!(choose(locale, "fr"), "fr", "{locale:?}");
        }
    }

    #[test]
    fn the_header_chooses_by_weight_and_then_by_order() {
        for (header, tag) in [
            ("de, fr", "de"),
            ("fr;q=0.5, de", "de"),
            ("fr;q=0.5, de;q=0.8", "de"),
            ("ja, ko;q=0.9, hi;q=0.1", "hi"),
            ("es-419,es;q=0.9,en;q=0.8", "es"),
            ("de ; Q=0.1 ,\tid;q=0.10", "de"),
            ("de;q=1.000, fr;q=1", "de"),
            // Not wanted, not a weight.
            ("de;q=0, fr;q=0.001", "fr"),
            ("de;q=2, fr;q=0.1", "fr"),
            ("de;q=-1, fr;q=0.1", "fr"),
            ("de;q=nan, fr;q=0.1", "fr"),
            ("de;q=inf, fr;q=0.1", "fr"),
            ("de;q=, fr;q=0.1", "fr"),
            ("de;level=1, fr;q=0.1", "fr"),
            ("de;q=1;q=1, fr;q=0.1", "fr"),
            (",,;,de", "de"),
            ("*", "en"),
            ("*, fr;q=0.1", "fr"),
            ("es;q=0", "en"),
        ] {
            assert_eq!(choose("", header), tag, "{header}");
        }
    }

    #[test]
    fn a_header_of_more_than_1024_bytes_is_ignored() {
        let padded = |length: usize| format!("de{}", ",".repeat(length - 2));
        assert_eq!(choose("", &padded(1024)), "de");
        assert_eq!(choose("", &padded(1025)), "en");
    }

    #[test]
    fn every_language_has_two_texts_with_the_code_first_and_two_without() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/sms/languages"));
        assert_eq!(files.unwrap().count(), Language::ALL.len());
        for language in Language::ALL {
            let lines = language.file.lines();
            let texts = lines.filter(|line| !line.starts_with('#')).count();
            assert_eq!(texts, 4, "{}", language.tag);
            for names_app in [true, false] {
                let text = language.code(names_app);
                assert!(text.starts_with("{code} "), "{text}");
                let places = if names_app { 3 } else { 2 };
                assert_eq!(text.matches('{').count(), places, "{text}");
                assert_eq!(text.matches("{minutes}").count(), 1, "{text}");
                let warning = language.warning(names_app);
                assert_eq!(warning.matches('{').count(), places - 2, "{warning}");
            }
        }
    }
}
