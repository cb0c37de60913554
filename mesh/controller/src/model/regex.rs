//! Checks regular expressions before Envoy gets them: it rejects all routes for one that RE2 does not take.
//!
//! They are parsed by another engine's parser, and what only that engine takes is refused. RE2 takes a little more than
//! passes here: octal escapes, `\C`, `\Q…\E`, and a `{` or a `[` that means itself without a backslash.

use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassSetItem, ClassUnicodeKind, Flag, FlagsItemKind, GroupKind, HexLiteralKind,
    LiteralKind, RepetitionKind, RepetitionRange, Visitor, parse::ParserBuilder,
};
use serde::Serialize;

use super::Invalid;

/// Repetitions of repetitions; RE2's.
const MAX_REPETITIONS: u64 = 1000;
/// Instructions, roughly counted; a third of what RE2 has memory for.
const MAX_INSTRUCTIONS: u64 = 100_000;
/// Levels of groups; RE2 takes 1000.
const MAX_DEPTH: u32 = 100;
const CATEGORIES: [&str; 37] = [
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No", "P",
    "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs", "Any",
];
const SCRIPTS: [&str; 24] = [
    "Arabic",
    "Armenian",
    "Bengali",
    "Common",
    "Cyrillic",
    "Devanagari",
    "Ethiopic",
    "Georgian",
    "Greek",
    "Gujarati",
    "Gurmukhi",
    "Han",
    "Hangul",
    "Hebrew",
    "Hiragana",
    "Inherited",
    "Kannada",
    "Katakana",
    "Khmer",
    "Latin",
    "Malayalam",
    "Tamil",
    "Telugu",
    "Thai",
];

/// A regular expression in RE2's syntax, which must match the whole of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Regex(String);

impl Regex {
    /// An expression that RE2 takes.
    ///
    /// # Errors
    /// It does not, or may not: where and why.
    pub fn new(text: String) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("is empty"));
        }
        ast::visit(&parse(&text)?, Re2 { text: &text, ..Re2::default() })?;
        Ok(Self(text))
    }

    /// Its parts.
    ///
    /// # Errors
    /// None: whatever does not parse is refused by [`Regex::new`].
    pub fn parsed(&self) -> Result<Ast, Invalid> {
        parse(&self.0)
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn parse(text: &str) -> Result<Ast, Invalid> {
    let parsed = ParserBuilder::new().nest_limit(MAX_DEPTH).build().parse(text);
    parsed.map_err(|error| refused(error.span(), error.kind()))
}

pub(super) fn refused(span: &ast::Span, why: impl std::fmt::Display) -> Invalid {
    Invalid(format!("is not a regular expression of RE2: at character {}: {why}", span.start.column))
}

/// Finds what RE2 does not take.
#[derive(Default)]
struct Re2<'a> {
    text: &'a str,
    /// How often what is being visited is repeated, by each repetition around it.
    repetitions: Vec<u64>,
    instructions: u64,
}

impl Re2<'_> {
    fn count(&mut self, span: &ast::Span, instructions: u64) -> Result<(), Invalid> {
        let repetitions = self.repetitions.iter().product::<u64>();
        self.instructions = self.instructions.saturating_add(repetitions.saturating_mul(instructions));
        if self.instructions > MAX_INSTRUCTIONS { Err(refused(span, "it is too large")) } else { Ok(()) }
    }

    fn repeat(&mut self, repetition: &ast::Repetition) -> Result<(), Invalid> {
        let span = &repetition.op.span;
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return Err(refused(span, "an operator repeats another: put what the other repeats in (?:)"));
        }
        let written = &self.text[span.start.offset..span.end.offset];
        let mut numbers = written.split(|c: char| !c.is_ascii_digit());
        if written.contains(char::is_whitespace) || numbers.any(|number| number.len() > 1 && number.starts_with('0')) {
            return Err(refused(
                span,
                "RE2 takes a {} with a space or a leading zero for itself, not for a repetition",
            ));
        }
        let times = match &repetition.op.kind {
            RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
            RepetitionKind::Range(RepetitionRange::Exactly(times) | RepetitionRange::AtLeast(times)) => *times,
            RepetitionKind::Range(RepetitionRange::Bounded(_, times)) => *times,
        };
        self.repetitions.push(u64::from(times).max(1));
        let all = self.repetitions.iter().fold(1, |all: u64, times| all.saturating_mul(*times));
        if all > MAX_REPETITIONS {
            return Err(refused(span, format!("there are more than {MAX_REPETITIONS} repetitions")));
        }
        Ok(())
    }
}

impl Visitor for Re2<'_> {
    type Output = ();
    type Err = Invalid;

    fn finish(self) -> Result<(), Invalid> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Invalid> {
        match ast {
            Ast::Repetition(repetition) => self.repeat(repetition),
            Ast::Flags(set) => flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(given) => flags(given),
                GroupKind::CaptureName { name, .. }
                    if name.name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') =>
                {
                    Err(refused(&name.span, "a group's name has letters, digits and _ only"))
                }
                GroupKind::CaptureName { .. } | GroupKind::CaptureIndex(_) => Ok(()),
            },
            Ast::Literal(literal) => {
                self.count(&literal.span, 8)?;
                self::literal(literal)
            }
            Ast::ClassUnicode(class) => {
                self.count(&class.span, 1000)?;
                unicode(class)
            }
            Ast::ClassPerl(class) => self.count(&class.span, 20),
            Ast::Assertion(assertion) => {
                self.count(&assertion.span, 20)?;
                self::assertion(assertion)
            }
            Ast::Empty(_) | Ast::Dot(_) => self.count(ast.span(), 20),
            Ast::ClassBracketed(_) | Ast::Alternation(_) | Ast::Concat(_) => self.count(ast.span(), 20),
        }
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), Invalid> {
        if let Ast::Repetition(_) = ast {
            self.repetitions.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Invalid> {
        match item {
            ClassSetItem::Bracketed(class) => Err(refused(&class.span, r"a [ in [] needs a \ before it")),
            ClassSetItem::Literal(one) => {
                self.count(&one.span, 8)?;
                literal(one)
            }
            ClassSetItem::Range(range) => {
                self.count(&range.span, 50)?;
                literal(&range.start)?;
                literal(&range.end)
            }
            ClassSetItem::Unicode(class) => {
                self.count(&class.span, 1000)?;
                unicode(class)
            }
            ClassSetItem::Empty(_) | ClassSetItem::Ascii(_) | ClassSetItem::Perl(_) | ClassSetItem::Union(_) => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, operation: &ast::ClassSetBinaryOp) -> Result<(), Invalid> {
        Err(refused(&operation.span, r"&&, -- and ~~ in [] need a \ before them"))
    }
}

fn flags(flags: &ast::Flags) -> Result<(), Invalid> {
    let unknown = |item: &&ast::FlagsItem| {
        matches!(item.kind, FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace))
    };
    flags.items.iter().find(unknown).map_or(Ok(()), |item| Err(refused(&item.span, "the flags are i, m, s and U")))
}

/// RE2 takes `\<` and `\b{start}` for something else.
fn assertion(assertion: &ast::Assertion) -> Result<(), Invalid> {
    match assertion.kind {
        AssertionKind::StartLine
        | AssertionKind::EndLine
        | AssertionKind::StartText
        | AssertionKind::EndText
        | AssertionKind::WordBoundary
        | AssertionKind::NotWordBoundary => Ok(()),
        _ => Err(refused(&assertion.span, r"the boundaries of words are \b and \B")),
    }
}

fn literal(literal: &ast::Literal) -> Result<(), Invalid> {
    match literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
        | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
            Err(refused(&literal.span, r"a character is written \x{10FFFF}"))
        }
        _ => Ok(()),
    }
}

fn unicode(class: &ast::ClassUnicode) -> Result<(), Invalid> {
    let known = match &class.kind {
        ClassUnicodeKind::OneLetter(letter) => CATEGORIES.contains(&letter.to_string().as_str()),
        ClassUnicodeKind::Named(name) => CATEGORIES.contains(&name.as_str()) || SCRIPTS.contains(&name.as_str()),
        ClassUnicodeKind::NamedValue { .. } => false,
    };
    if known { Ok(()) } else { Err(refused(&class.span, "no such class of characters")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_takes_passes() {
        for text in [
            "/a.*",
            "^/v[0-9]+/(users|items)/[^/]+$",
            r"(?i)mozilla/5\.0 .*",
            r"(?P<name>a)(?<other>b)(?:c)",
            r"[[:alpha:]\d\pL\p{Greek}\x{10FFFF}-]*?",
            r"\Aa|b\z|\bc\B",
            "(a{30}){30}",
            r"a{2,}\{}",
            r"[]a]|[^]a]",
        ] {
            assert_eq!(Regex::new(text.to_owned()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_re2_does_not_take_is_refused() {
        for (text, at, why) in [
            ("a(", 2, "unclosed group"),
            ("a(?=b)", 2, "look-around, including look-ahead and look-behind, is not supported"),
            (r"(a)\1", 4, "backreferences are not supported"),
            ("a**", 3, "an operator repeats another: put what the other repeats in (?:)"),
            ("a++", 3, "an operator repeats another: put what the other repeats in (?:)"),
            ("a{1001}", 2, "there are more than 1000 repetitions"),
            ("((a{11}){10}){10}", 4, "there are more than 1000 repetitions"),
            (r"\pL{200}", 1, "it is too large"),
            ("(?x)a b", 3, "the flags are i, m, s and U"),
            ("(?u:a)", 3, "the flags are i, m, s and U"),
            (r"\u0061", 1, r"a character is written \x{10FFFF}"),
            (r"[\u{61}-z]", 2, r"a character is written \x{10FFFF}"),
            ("[a[b]]", 3, r"a [ in [] needs a \ before it"),
            ("[a&&b]", 2, r"&&, -- and ~~ in [] need a \ before them"),
            ("a{1, 2}", 2, "RE2 takes a {} with a space or a leading zero for itself, not for a repetition"),
            ("a{01}", 2, "RE2 takes a {} with a space or a leading zero for itself, not for a repetition"),
            (r"a\b{end}", 2, r"the boundaries of words are \b and \B"),
            (r"\<a", 1, r"the boundaries of words are \b and \B"),
            (r"\p{Alphabetic}", 1, "no such class of characters"),
            (r"\p{greek}", 1, "no such class of characters"),
            (r"\pX", 1, "no such class of characters"),
            (r"\p{Script=Greek}", 1, "no such class of characters"),
            ("(?P<a.b>c)", 5, "a group's name has letters, digits and _ only"),
        ] {
            let error = Regex::new(text.to_owned()).unwrap_err().to_string();
            assert_eq!(error, format!("is not a regular expression of RE2: at character {at}: {why}"), "{text}");
        }
        assert_eq!(Regex::new(String::new()).unwrap_err().to_string(), "is empty");
    }
}
