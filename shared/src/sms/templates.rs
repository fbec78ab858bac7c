//! The ids of the texts that are registered in India.

use super::language::Language;
use crate::{
    config::{self, Env},
    phone::PhoneNumber,
};

/// The template ids of India's DLT registration, by language. Carriers there block a text that is
/// not registered, and an id with another text than its own.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Templates(Vec<(Language, String)>);

impl Templates {
    /// Reads `SNS_TEMPLATE_ID`: the id of the English text, or ids by language such as
    /// `en:1107…,hi:1108…`.
    pub fn from_env(env: &Env) -> Result<Self, config::Error> {
        const NAME: &str = "SNS_TEMPLATE_ID";
        let templates = env.text(NAME).map(|text| {
            read(text).ok_or_else(|| {
                config::Error::invalid(
                    NAME,
                    "must be an id, or ids by language, each language once and one of ours, such \
                     as en:1107,hi:1108",
                )
            })
        });
        templates.transpose().map(Option::unwrap_or_default)
    }

    /// The language of a message to `phone`: `language`, but in India one that has an id, if any
    /// has: English, or else the first.
    pub fn registered(&self, phone: &PhoneNumber, language: Language) -> Language {
        let has_id = |language: &Language| self.id(*language).is_some();
        if phone.country() != "IN" || has_id(&language) {
            return language;
        }
        let english = Some(Language::ENGLISH).filter(has_id);
        let first = self.0.first().map(|(first, _)| *first);
        english.or(first).unwrap_or(language)
    }

    /// The id of the language's text.
    pub fn id(&self, language: Language) -> Option<&str> {
        let mut ids = self.0.iter();
        let (_, id) = ids.find(|(of, _)| *of == language)?;
        Some(id)
    }
}

fn read(text: &str) -> Option<Templates> {
    if is_id(text) {
        return Some(Templates(vec![(Language::ENGLISH, text.to_owned())]));
    }
    let mut templates = Templates::default();
    for entry in text.split(',') {
        let (tag, id) = entry.split_once(':')?;
        let language = Language::of_tag(tag)?;
        if !is_id(id) || templates.id(language).is_some() {
            return None;
        }
        templates.0.push((language, id.to_owned()));
    }
    Some(templates)
}

fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phone::Parser;

    fn templates(text: &str) -> Result<Templates, config::Error> {
        Templates::from_env(&Env::from([("SNS_TEMPLATE_ID", text)]))
    }

    /// The language and the id of a message to this number for somebody with this locale.
    fn sent(text: &str, number: &str, locale: &str) -> (&'static str, Option<String>) {
        let templates = templates(text).unwrap();
        let phone = Parser::from_env(&Env::from([])).unwrap().parse(number);
        let language = Language::choose(locale, "");
        let language = templates.registered(&phone.unwrap(), language);
        (language.tag(), templates.id(language).map(str::to_owned))
    }

    #[test]
    fn in_india_a_text_without_an_id_is_sent_only_where_there_are_no_ids() {
        let (india, germany) = ("+919876543210", "+4915112345678");
        for (text, number, locale, language, id) in [
            ("en:1107,hi:1108", india, "hi", "hi", Some("1108")),
            ("en:1107,hi:1108", india, "en", "en", Some("1107")),
            ("en:1107,hi:1108", india, "fr", "en", Some("1107")),
            ("hi:1108,en:1107", india, "fr", "en", Some("1107")),
            ("hi:1108,ar:1109", india, "fr", "hi", Some("1108")),
            ("en:1107,hi:1108", germany, "fr", "fr", None),
            ("en:1107,hi:1108", germany, "hi", "hi", Some("1108")),
            ("1107", india, "hi", "en", Some("1107")),
            ("1107", india, "en", "en", Some("1107")),
            ("1107", germany, "hi", "hi", None),
            ("", india, "hi", "hi", None),
        ] {
            let expected = (language, id.map(str::to_owned));
            assert_eq!(sent(text, number, locale), expected, "{text} {locale}");
        }
    }

    #[test]
    fn ids_that_cannot_be_read_are_refused_and_not_echoed() {
        for text in [
            "en:",
            ":1107",
            "ja:1107",
            "EN:1107",
            "en:1107,",
            "en:1107,en:1108",
            "en:1107,1108",
            "en:1107, hi:1108",
            "1107,1108",
            "en=1107",
            "11 07",
        ] {
            let error = templates(text).unwrap_err();
            assert!(
                matches!(error, config::Error::Invalid { name, .. } if name == "SNS_TEMPLATE_ID"),
                "{text}"
            );
        }
    }
}
