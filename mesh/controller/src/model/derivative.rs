//! Takes a literal text off the front of a regular expression. What remains is the expression's Brzozowski derivative with
//! respect to that text, kept as Antimirov's partial derivatives: a set of sequences of the expression's own parts, any of
//! which may follow. So the set grows with the expression and not with the text, and what is printed is what was written.

use std::{convert::Infallible, ops::Range};

use regex_syntax::{
    ast::{self, AssertionKind, Ast, Flag, FlagsItemKind, GroupKind, RepetitionKind, RepetitionRange, Visitor},
    hir::{Class, HirKind, translate::TranslatorBuilder},
};

use super::{Invalid, Regex, regex::refused};

/// Parts of an expression that are looked at or kept for one text: a fraction of a second.
const MAX_STEPS: usize = 2_000_000;
/// Sequences that may follow a text.
const MAX_SEQUENCES: usize = 100;

/// What remains of an expression once a text has been taken off its front, to be put behind another text.
pub struct Derivative<'a> {
    expression: &'a str,
    names: Names,
    /// The last character of the text.
    before: Option<char>,
    /// What may follow, each sequence without a double.
    sequences: Vec<Sequence<'a>>,
}

/// Parts that follow each other, the first at the end.
type Sequence<'a> = Vec<Part<'a>>;

/// A part of an expression.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    ast: &'a Ast,
    flags: Flags,
    /// How often a repetition is still to match, where it has matched before.
    left: Option<Times>,
}

/// The flags of a part follow from where it is written.
impl PartialEq for Part<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.ast, other.ast) && self.left == other.left
    }
}

/// At least so often, and at most.
type Times = (u32, Option<u32>);

/// The flags in force at a part. Which of several matches is found is of no interest: so `U` is none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
}

impl Flags {
    fn with(mut self, given: &ast::Flags) -> Self {
        let mut value = true;
        for item in &given.items {
            match item.kind {
                FlagsItemKind::Negation => value = false,
                FlagsItemKind::Flag(Flag::CaseInsensitive) => self.ignore_case = value,
                FlagsItemKind::Flag(Flag::MultiLine) => self.multi_line = value,
                FlagsItemKind::Flag(Flag::DotMatchesNewLine) => self.dot_all = value,
                FlagsItemKind::Flag(_) => {}
            }
        }
        self
    }

    /// The flags in force after a part: `(?i)` holds until the end of its group, for other alternatives too.
    fn after(self, ast: &Ast) -> Self {
        match ast {
            Ast::Flags(set) => self.with(&set.flags),
            Ast::Concat(concat) => concat.asts.iter().fold(self, Self::after),
            _ => self,
        }
    }

    fn letters(self) -> String {
        let letters = [(self.ignore_case, 'i'), (self.multi_line, 'm'), (self.dot_all, 's')];
        letters.into_iter().filter_map(|(is_set, letter)| is_set.then_some(letter)).collect()
    }
}

impl<'a> Part<'a> {
    fn new(ast: &'a Ast, flags: Flags) -> Self {
        Self { ast, flags, left: None }
    }

    /// Parts that are written one after another, with the flags that hold for each.
    fn each(asts: &'a [Ast], flags: Flags) -> impl DoubleEndedIterator<Item = Self> {
        let with_flags = asts.iter().scan(flags, |flags, ast| {
            let part = Self::new(ast, *flags);
            *flags = flags.after(ast);
            Some(part)
        });
        with_flags.collect::<Vec<_>>().into_iter()
    }

    fn of_group(group: &'a ast::Group, flags: Flags) -> Self {
        match &group.kind {
            GroupKind::NonCapturing(given) => Self::new(&group.ast, flags.with(given)),
            GroupKind::CaptureIndex(_) | GroupKind::CaptureName { .. } => Self::new(&group.ast, flags),
        }
    }

    /// Roughly how many parts it has itself.
    fn len(self) -> usize {
        let span = self.ast.span();
        span.end.offset - span.start.offset
    }

    fn times(self, repetition: &ast::Repetition) -> Times {
        self.left.unwrap_or_else(|| written_times(repetition))
    }

    /// Whether it can match nothing, where `holds` says which assertions are true.
    fn is_nullable(self, holds: &impl Fn(&AssertionKind, Flags) -> bool) -> bool {
        match self.ast {
            Ast::Empty(_) | Ast::Flags(_) => true,
            Ast::Literal(_) | Ast::Dot(_) | Ast::ClassUnicode(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => false,
            Ast::Assertion(assertion) => holds(&assertion.kind, self.flags),
            Ast::Group(group) => Self::of_group(group, self.flags).is_nullable(holds),
            Ast::Repetition(repetition) => {
                self.times(repetition).0 == 0 || Self::new(&repetition.ast, self.flags).is_nullable(holds)
            }
            Ast::Concat(concat) => Self::each(&concat.asts, self.flags).all(|part| part.is_nullable(holds)),
            Ast::Alternation(either) => Self::each(&either.asts, self.flags).any(|part| part.is_nullable(holds)),
        }
    }

    /// A word boundary before the first character that it matches, if there may be one.
    fn word_boundary(self) -> Option<&'a ast::Assertion> {
        match self.ast {
            Ast::Assertion(assertion) => {
                matches!(assertion.kind, AssertionKind::WordBoundary | AssertionKind::NotWordBoundary)
                    .then_some(assertion)
            }
            Ast::Group(group) => Self::of_group(group, self.flags).word_boundary(),
            Ast::Repetition(repetition) => Self::new(&repetition.ast, self.flags).word_boundary(),
            Ast::Concat(concat) => first_word_boundary(Self::each(&concat.asts, self.flags)),
            Ast::Alternation(either) => Self::each(&either.asts, self.flags).find_map(Self::word_boundary),
            _ => None,
        }
    }
}

fn first_word_boundary<'a>(parts: impl Iterator<Item = Part<'a>>) -> Option<&'a ast::Assertion> {
    for part in parts {
        let found = part.word_boundary();
        if found.is_some() || !part.is_nullable(&|_, _| true) {
            return found;
        }
    }
    None
}

fn written_times(repetition: &ast::Repetition) -> Times {
    match &repetition.op.kind {
        RepetitionKind::ZeroOrOne => (0, Some(1)),
        RepetitionKind::ZeroOrMore => (0, None),
        RepetitionKind::OneOrMore => (1, None),
        RepetitionKind::Range(RepetitionRange::Exactly(times)) => (*times, Some(*times)),
        RepetitionKind::Range(RepetitionRange::AtLeast(least)) => (*least, None),
        RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => (*least, Some(*most)),
    }
}

/// Whether `\b` takes a character for one of a word.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether an assertion is true between two characters, or at an end.
fn holds(assertion: &AssertionKind, flags: Flags, before: Option<char>, after: Option<char>) -> bool {
    let is_end = |side: Option<char>| side.is_none_or(|c| flags.multi_line && c == '\n');
    let is_boundary = before.is_some_and(is_word) != after.is_some_and(is_word);
    match assertion {
        AssertionKind::StartText => before.is_none(),
        AssertionKind::EndText => after.is_none(),
        AssertionKind::StartLine => is_end(before),
        AssertionKind::EndLine => is_end(after),
        AssertionKind::NotWordBoundary => !is_boundary,
        // The other kinds are none of RE2's.
        _ => is_boundary,
    }
}

/// Whether one character is what a part of the expression matches.
fn takes(part: Part<'_>, c: char) -> Result<bool, Invalid> {
    if matches!(part.ast, Ast::Dot(_)) {
        return Ok(c != '\n' || part.flags.dot_all);
    }
    let mut translator = TranslatorBuilder::new().case_insensitive(part.flags.ignore_case).build();
    let translated = translator.translate("", part.ast);
    let hir = translated.map_err(|error| refused(part.ast.span(), error.kind()))?;
    Ok(match hir.kind() {
        HirKind::Literal(literal) => *literal.0 == *c.encode_utf8(&mut [0; 4]).as_bytes(),
        HirKind::Class(Class::Unicode(class)) => class.iter().any(|range| (range.start()..=range.end()).contains(&c)),
        _ => false,
    })
}

/// Takes one character off.
struct Step<'a> {
    before: Option<char>,
    consumed: char,
    steps: usize,
    found: Vec<Sequence<'a>>,
}

impl<'a> Step<'a> {
    fn is_nullable(&self, part: Part<'_>) -> bool {
        part.is_nullable(&|assertion, flags| holds(assertion, flags, self.before, Some(self.consumed)))
    }

    /// Takes it off each of some parts that can come to match it first. The last `kept` of them are none of these.
    fn sequence(&mut self, mut parts: Sequence<'a>, kept: usize) -> Result<(), Invalid> {
        while parts.len() > kept
            && let Some(part) = parts.pop()
        {
            self.part(part, &parts)?;
            if !self.is_nullable(part) {
                break;
            }
        }
        Ok(())
    }

    fn part(&mut self, part: Part<'a>, rest: &Sequence<'a>) -> Result<(), Invalid> {
        self.steps += 1 + rest.len() + part.len();
        if self.steps > MAX_STEPS {
            return Err(too_large());
        }
        match part.ast {
            Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => {}
            Ast::Literal(_) | Ast::Dot(_) | Ast::ClassUnicode(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => {
                if takes(part, self.consumed)? && !self.found.contains(rest) {
                    self.found.push(rest.clone());
                }
            }
            Ast::Group(group) => self.part(Part::of_group(group, part.flags), rest)?,
            Ast::Repetition(repetition) => self.repetition(part, repetition, rest)?,
            Ast::Concat(concat) => {
                let mut parts = rest.clone();
                parts.extend(Part::each(&concat.asts, part.flags).rev());
                self.sequence(parts, rest.len())?;
            }
            Ast::Alternation(either) => {
                for one in Part::each(&either.asts, part.flags) {
                    self.part(one, rest)?;
                }
            }
        }
        Ok(())
    }

    fn repetition(
        &mut self,
        part: Part<'a>,
        repetition: &'a ast::Repetition,
        rest: &Sequence<'a>,
    ) -> Result<(), Invalid> {
        let (least, most) = part.times(repetition);
        if most == Some(0) {
            return Ok(());
        }
        let repeated = Part::new(&repetition.ast, part.flags);
        // Any of the times that it matches may be one at which it matches nothing here.
        let least = if self.is_nullable(repeated) { 0 } else { least.saturating_sub(1) };
        let left = (least, most.map(|most| most - 1));
        let mut rest = rest.clone();
        if left.1 != Some(0) {
            let left = (left != written_times(repetition)).then_some(left);
            rest.push(Part { left, ..part });
        }
        self.part(repeated, &rest)
    }
}

fn too_large() -> Invalid {
    Invalid::new("is too large a regular expression to be compared with a path")
}

impl<'a> Derivative<'a> {
    /// All of an expression, whose parsed form is given.
    pub fn of(expression: &'a Regex, parsed: &'a Ast) -> Self {
        let sequences = vec![vec![Part::new(parsed, Flags::default())]];
        Self { expression: expression.as_str(), names: Names::of(parsed), before: None, sequences }
    }

    /// What remains after a text.
    ///
    /// # Errors
    /// The expression is too large, or the text is not of ASCII, of which alone all engines know the same classes.
    pub fn after(&self, text: &str) -> Result<Self, Invalid> {
        if !text.is_ascii() {
            return Err(Invalid::new("is compared with a path of ASCII only"));
        }
        let (mut before, mut sequences, mut steps) = (self.before, self.sequences.clone(), 0);
        for consumed in text.chars() {
            let mut step = Step { before, consumed, steps, found: Vec::new() };
            for sequence in sequences {
                step.sequence(sequence, 0)?;
                if step.found.len() > MAX_SEQUENCES {
                    return Err(too_large());
                }
            }
            (before, steps, sequences) = (Some(consumed), step.steps, step.found);
        }
        Ok(Self { expression: self.expression, names: self.names.clone(), before, sequences })
    }

    /// Whether nothing matches.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Whether the text that was taken off is itself matched.
    pub fn matches_end(&self) -> bool {
        let holds = |assertion: &AssertionKind, flags| holds(assertion, flags, self.before, None);
        self.sequences.iter().any(|parts| parts.iter().all(|part| part.is_nullable(&holds)))
    }

    /// Whether all that it matches is surely matched by another of the same expression, too.
    pub fn is_within(&self, other: &Self) -> bool {
        self.sequences.iter().all(|sequence| other.sequences.contains(sequence))
    }

    /// The expression, which begins and ends like one part and may be the empty one. It means the same behind whichever text
    /// takes the place of the one that was taken off, as long as a boundary of a word is one behind both.
    ///
    /// # Errors
    /// `last`, which ends that text, leaves open what a boundary means; or the expression is too large.
    pub fn behind(&self, last: Option<char>) -> Result<String, Invalid> {
        if last.is_some_and(is_word) != self.before.is_some_and(is_word)
            && let Some(boundary) =
                self.sequences.iter().find_map(|parts| first_word_boundary(parts.iter().rev().copied()))
        {
            let span = &boundary.span;
            let (at, written) = (span.start.column, &self.expression[span.start.offset..span.end.offset]);
            return Err(Invalid(format!("at character {at}: {written} would stand where the rewritten prefix ends")));
        }
        let printed: Vec<_> = self.sequences.iter().map(|parts| self.print(parts)).collect();
        let printed = if let [one] = &printed[..] { one.clone() } else { format!("(?:{})", printed.join("|")) };
        if !printed.is_empty() {
            // Alternatives repeat what follows them: what was small enough may not be any more.
            Regex::new(printed.clone()).map_err(|_| too_large())?;
        }
        Ok(printed)
    }

    fn print(&self, parts: &[Part<'a>]) -> String {
        let parts: Vec<_> = parts.iter().rev().collect();
        let runs = parts.chunk_by(|one, other| one.flags == other.flags);
        let print_run = |run: &[&Part<'a>]| {
            let text: String = run.iter().map(|part| self.print_part(part)).collect();
            match run.first().map(|part| part.flags.letters()) {
                Some(letters) if !letters.is_empty() && !text.is_empty() => format!("(?{letters}:{text})"),
                _ => text,
            }
        };
        runs.map(print_run).collect()
    }

    fn print_part(&self, part: &Part<'_>) -> String {
        match (part.ast, part.left) {
            (Ast::Empty(_) | Ast::Flags(_), _) => String::new(),
            (Ast::Alternation(either), _) => format!("(?:{})", self.written(&either.span)),
            (Ast::Repetition(repetition), Some(left)) => {
                let times = match left {
                    (0, None) => "*".to_owned(),
                    (0, Some(1)) => "?".to_owned(),
                    (1, None) => "+".to_owned(),
                    (1, Some(1)) => String::new(),
                    (least, None) => format!("{{{least},}}"),
                    (least, Some(most)) if least == most => format!("{{{least}}}"),
                    (least, Some(most)) => format!("{{{least},{most}}}"),
                };
                format!("{}{times}", self.written(repetition.ast.span()))
            }
            (ast, _) => self.written(ast.span()),
        }
    }

    /// A part as it was written, but for the names of groups.
    fn written(&self, span: &ast::Span) -> String {
        let (mut from, end) = (span.start.offset, span.end.offset);
        let mut written = String::new();
        let (start, names) = (from, self.names.0.iter());
        for name in names.filter(|name| start <= name.start && name.end <= end) {
            written += &self.expression[from..name.start];
            from = name.end;
        }
        written + &self.expression[from..end]
    }
}

/// Where the groups have their names, from `?` to `>`. An expression whose parts are repeated cannot have them: RE2 refuses
/// a name that two groups have.
#[derive(Clone, Default)]
struct Names(Vec<Range<usize>>);

impl Names {
    fn of(parsed: &Ast) -> Self {
        let Ok(names) = ast::visit(parsed, Self::default());
        names
    }
}

impl Visitor for Names {
    type Output = Self;
    type Err = Infallible;

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        if let Ast::Group(group) = ast
            && let GroupKind::CaptureName { name, .. } = &group.kind
        {
            self.0.push(group.span.start.offset + 1..name.span.end.offset + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn after(expression: &str, text: &str) -> Result<Option<String>, Invalid> {
        let expression = Regex::new(expression.to_owned()).unwrap();
        let parsed = expression.parsed().unwrap();
        let rest = Derivative::of(&expression, &parsed).after(text)?;
        if rest.is_empty() { Ok(None) } else { rest.behind(text.chars().next_back()).map(Some) }
    }

    #[test]
    fn what_remains() {
        for (expression, text, expected) in [
            ("/ab", "/", Some("ab")),
            ("/ab", "/ab", Some("")),
            ("/ab", "/b", None),
            ("/ab", "/abc", None),
            (r"/a\.b", "/a.", Some("b")),
            (r"\x2f\x{61}b", "/a", Some("b")),
            ("/(foo|bar)/.*", "/", Some("(foo|bar)/.*")),
            ("/(foo|bar)/.*", "/foo/", Some(".*")),
            ("/a|/b", "/", Some("(?:a|b)")),
            ("/a|/b", "/a", Some("")),
            ("/|/b", "/", Some("(?:|b)")),
            ("(/a|/b)c", "/", Some("(?:ac|bc)")),
            ("/?x", "/", Some("x")),
            ("/?x", "x", Some("")),
            (r".*\.html", "/", Some(r".*\.html")),
            (".*/b", "/", Some("(?:.*/b|b)")),
            ("[/]a", "/", Some("a")),
            ("[^a]a", "/", Some("a")),
            (r"\Wa", "/", Some("a")),
            (r"\pPa", "/", Some("a")),
            (r"[[:punct:]]a", "/", Some("a")),
            (r"[a-c]x|\dy|[^b]z", "b", Some("x")),
            ("^/a$", "/", Some("a$")),
            (r"\A/a\z", "/a", Some(r"\z")),
            ("/^a", "/", Some("^a")),
            ("/^a", "/a", None),
            ("/$a", "/a", None),
            (r"/\ba", "/a", Some("")),
            (r"/a\bb", "/ab", None),
            (r"/a\Bb", "/ab", Some("")),
            ("/a{3}", "/a", Some("a{2}")),
            ("/a{2}", "/a", Some("a")),
            ("/a{1,3}", "/a", Some("a{0,2}")),
            ("/a{2,}b", "/a", Some("a+b")),
            ("/a{3,}b", "/a", Some("a{2,}b")),
            ("/a+?b", "/a", Some("a*b")),
            ("/a??b", "/a", Some("b")),
            ("(/a)*", "/", Some("a(/a)*")),
            ("(/|/a){2}", "/", Some("(?:(/|/a)|a(/|/a))")),
            // One of the two times matches the start, and the other the slash.
            ("(^|/){2}a", "/", Some("(^|/)?a")),
            ("(?i)/API/x", "/api/", Some("(?i:x)")),
            ("(?i:/A)b(?s).c", "/a", Some("b(?s:.c)")),
            ("(?i)/a|/b(?-i)c", "/", Some("(?:(?i:a)|(?i:b)c)")),
            ("/(?P<x>a(?<y>b))", "/", Some("(a(b))")),
            ("((?P<x>/)a){2}", "/", Some("a((/)a)")),
            ("//x", "/", Some("/x")),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(after(expression, text).unwrap(), expected, "{expression} after {text}");
        }
    }

    #[test]
    fn what_cannot_be_decided() {
        let many = (0..150).map(|n| format!("/{n}")).collect::<Vec<_>>().join("|");
        let long = format!("({})*", "a.{2}".repeat(2000));
        let too_large = "is too large a regular expression to be compared with a path";
        for (expression, text, expected) in [
            ("/a", "/é", "is compared with a path of ASCII only"),
            (&many, "/", too_large),
            ("((a?b?){30}){30}", "abababab", too_large),
            (&long, &"a".repeat(1000), too_large),
        ] {
            assert_eq!(after(expression, text).unwrap_err().to_string(), expected, "{expression} after {text}");
        }
        for (expression, boundary) in [(r"/\ba", r"at character 2: \b"), (r"/(c?|\B)x", r"at character 6: \B")] {
            let expression = Regex::new(expression.to_owned()).unwrap();
            let parsed = expression.parsed().unwrap();
            let rest = Derivative::of(&expression, &parsed).after("/").unwrap();
            assert!(rest.behind(Some('.')).is_ok());
            let error = rest.behind(Some('i')).unwrap_err().to_string();
            assert_eq!(error, format!("{boundary} would stand where the rewritten prefix ends"));
        }
    }

    /// Expressions of a few characters, which often match texts of these.
    pub fn expressions() -> impl Strategy<Value = Regex> {
        let leaf = select(vec![
            "/",
            "/",
            "a",
            "b",
            "A",
            r"\.",
            ".",
            "[ab]",
            "[^a]",
            "[/b]",
            "[^/]",
            r"\w",
            r"\W",
            r"\pL",
            "[[:upper:]]",
            "^",
            "$",
            r"\b",
            r"\B",
            "()",
            "(?i)",
            "(?-i)",
            r"\x61",
        ]);
        let nested = leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
            let times = select(vec!["*", "+", "?", "{2}", "{1,2}", "{0,1}", "{2,}", "*?", "{0}"]);
            let group = select(vec!["(", "(?:", "(?i:", "(?s-i:"]);
            prop_oneof![
                3 => vec(inner.clone(), 2..4).prop_map(|parts| parts.concat()),
                2 => (group.clone(), vec(inner.clone(), 1..4))
                    .prop_map(|(open, parts)| format!("{open}{})", parts.join("|"))),
                2 => (group, inner, times).prop_map(|(open, part, times)| format!("{open}{part}){times}")),
            ]
        });
        nested.prop_filter_map("refused", |text| Regex::new(text).ok())
    }

    /// Short paths.
    pub fn texts(least: usize) -> impl Strategy<Value = String> {
        vec(select(vec!['/', 'a', 'b', 'A', '.']), least..5).prop_map(|text| text.into_iter().collect())
    }

    /// What decides whether an expression matches the whole of a text.
    pub fn engine(expression: &str) -> regex::Regex {
        regex::Regex::new(&format!(r"\A(?:{expression})\z")).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn a_text_and_what_remains_are_what_the_expression_matches(
            expression in expressions(), text in texts(1), other in texts(1), rests in vec(texts(0), 8),
        ) {
            let parsed = expression.parsed().unwrap();
            let derivative = Derivative::of(&expression, &parsed).after(&text).unwrap();
            let whole = engine(expression.as_str());
            prop_assert_eq!(derivative.matches_end(), whole.is_match(&text));
            let Ok(behind) = derivative.behind(other.chars().next_back()) else { return Ok(()) };
            let behind = engine(&format!("{}{behind}", regex::escape(&other)));
            for rest in rests {
                let matches = !derivative.is_empty() && behind.is_match(&format!("{other}{rest}"));
                let expected = whole.is_match(&format!("{text}{rest}"));
                prop_assert_eq!(matches, expected, "{} after {}: {}, {}", expression.as_str(), text, behind, rest);
            }
        }
    }
}
