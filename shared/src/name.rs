//! People's names, as a sign-up gives them.

/// A person's name: 1 to 100 characters, none of which is a control character, a line separator or
/// a bidirectional override. Surrounding white space is removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Name(String);

/// The text is not a [`Name`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("no name given")]
    Empty,
    #[error("not a name")]
    Malformed,
}

impl Name {
    /// Parses the text that a client sent.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let name = text.trim();
        if text.chars().any(is_not_allowed) || name.chars().count() > 100 {
            return Err(InvalidName::Malformed);
        }
        if name.is_empty() {
            return Err(InvalidName::Empty);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name, for stores and responses.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters (also NUL, which Postgres does not store), line and paragraph separators, and
/// the characters that reorder the text around them (Unicode UAX #9: embeddings, overrides,
/// isolates).
fn is_not_allowed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_any_plain_text_of_up_to_100_characters() {
        for text in [
            "Ada",
            "Łukasz Żółć",
            "李小龍",
            "O'Neil-Smith, Jr.",
            "👩‍🚀",
            &"ü".repeat(100),
        ] {
            assert_eq!(Name::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Name::parse("  Ada \u{3000}").unwrap().as_str(), "Ada");
    }

    #[test]
    fn an_empty_or_blank_name_is_no_name() {
        for text in ["", " ", " \u{a0} "] {
            assert_eq!(Name::parse(text), Err(InvalidName::Empty), "{text:?}");
        }
    }

    #[test]
    fn long_names_controls_and_bidi_overrides_are_refused() {
        for text in [
            &"a".repeat(101),
            "Ada\n",
            "Ada\0",
            "Ada\u{1b}[31m",
            "Ada\u{85}",
            "Ada\u{2028}x",
            "Ada\u{202e}x",
            "Ada\u{2066}x",
        ] {
            assert_eq!(Name::parse(text), Err(InvalidName::Malformed), "{text:?}");
        }
    }
}
