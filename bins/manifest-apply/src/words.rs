//! Replaces bare words, such as `ECR_IMAGE_PREFIX`, in the values of manifests. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The words, and which of them were found.
pub struct Words<'a> {
    values: &'a BTreeMap<String, String>,
    found: BTreeSet<&'a str>,
}

impl<'a> Words<'a> {
    /// None has been found yet.
    pub fn new(values: &'a BTreeMap<String, String>) -> Self {
        Self { values, found: BTreeSet::new() }
    }

    /// A word that was in none of the texts.
    pub fn missing(&self) -> Option<&'a str> {
        self.values.keys().map(String::as_str).find(|word| !self.found.contains(word))
    }

    /// The text with its words replaced; nothing when it has none. Letters, digits, `_` and `-` make a word, so `app` is
    /// no word of `my-app`. What others fill in is
    /// theirs: `$WORD`, `${WORD}`, `${#WORD}`, `$(WORD)`, and all between double braces.
    pub fn replace(&mut self, text: &str) -> Option<String> {
        let (mut out, mut rest, mut replaced) = (String::with_capacity(text.len()), text, false);
        while let Some(start) = rest.find(|c| of_a_word(c) || c == '{') {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            if rest.starts_with('{') {
                let braces = rest.strip_prefix("{{").map_or(1, |inside| inside.find("}}").map_or(2, |end| end + 4));
                out.push_str(&rest[..braces]);
                rest = &rest[braces..];
                continue;
            }
            let (word, after) = rest.split_at(rest.find(|c| !of_a_word(c)).unwrap_or(rest.len()));
            let variable = ["$", "${", "${#", "${!", "$("].iter().any(|start| out.ends_with(start));
            match self.values.get_key_value(word).filter(|_| !variable) {
                Some((word, value)) => {
                    self.found.insert(word);
                    replaced = true;
                    out.push_str(value);
                }
                None => out.push_str(word),
            }
            rest = after;
        }
        out.push_str(rest);
        replaced.then_some(out)
    }
}

fn of_a_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// `WORD=VALUE`, as a flag has it.
///
/// # Errors
/// It is something else.
pub fn parse(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((word, value)) if !word.is_empty() && word.chars().all(of_a_word) => {
            Ok((word.to_owned(), value.to_owned()))
        }
        _ => Err("expected WORD=VALUE, a word of letters, digits, _ and -".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_replaced() {
        let values: BTreeMap<String, String> =
            [("ECR_IMAGE_PREFIX", "ecr/p"), ("colorapp-service-ARN", "arn:x"), ("app", "APP"), ("unused", "")]
                .map(|(word, value)| (word.into(), value.into()))
                .into();
        let mut words = Words::new(&values);
        for (text, expected) in [
            ("ECR_IMAGE_PREFIX/colorapp", Some("ecr/p/colorapp")),
            ("colorapp-service-ARN", Some("arn:x")),
            ("MY_ECR_IMAGE_PREFIX ECR_IMAGE_PREFIXES feapp app-1 my-app apps/v1", None),
            ("é app é.app:app", Some("é APP é.APP:APP")),
            ("$app ${app} ${app:-x} $(app) {{app}} {{ .app | app }}", None),
            ("{app} $ app {{ x }}app {{ app", Some("{APP} $ APP {{ x }}APP {{ APP")),
            ("${#app} ${!app} {", None),
            ("", None),
        ] {
            assert_eq!(words.replace(text).as_deref(), expected, "{text}");
        }
        assert_eq!(words.missing(), Some("unused"));
    }

    #[test]
    fn a_flag_names_word_and_value() {
        assert_eq!(parse("A-b_1=x=y"), Ok(("A-b_1".to_owned(), "x=y".to_owned())));
        assert_eq!(parse("A="), Ok(("A".to_owned(), String::new())));
        for text in ["A", "=x", "A B=x", "${A}=x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
