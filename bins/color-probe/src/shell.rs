//! Writes words for a shell.

use std::borrow::Cow;

/// A word as a shell takes it for itself: in quotes where it has a meaning of its own there.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''")).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_word_stays_one() {
        for (word, written) in [
            ("http://h:8080/color", "http://h:8080/color"),
            ("/home/me/.kube/config", "/home/me/.kube/config"),
            ("http://h/?a=b&c=d", "'http://h/?a=b&c=d'"),
            ("http://h/a|b`c`$(d);e", "'http://h/a|b`c`$(d);e'"),
            ("it's", r"'it'\''s'"),
            ("~/a b", "'~/a b'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), written);
            let read = Command::new("sh").args(["-c", &format!("printf %s {written}")]).output().unwrap();
            assert_eq!(String::from_utf8(read.stdout).unwrap(), word);
        }
    }
}
