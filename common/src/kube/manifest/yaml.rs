//! Composes one YAML document: events to nodes, nodes to a value.
//!
//! Aliases, merge keys and duplicate keys are taken as go-yaml v2 takes them: of the keys of a mapping, merged ones
//! included, the last counts, and a document that is mostly made of aliases is refused.

use super::scalar::Scalar;
use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StructureStyle, Tag};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// How deep a document may go. The API server's answers are not read deeper, and no kind of Kubernetes is half as deep.
const DEPTH: usize = 128;

/// What a merge must name.
const NO_MERGE: &str = "<< merges a mapping or a list of mappings";

/// What is wrong or odd in a text, and where: counted from 1.
#[derive(Debug, PartialEq)]
pub struct Note {
    pub line: usize,
    pub column: usize,
    pub text: String,
}

/// A document, and what its author should know about it.
#[derive(Debug)]
pub struct Document {
    pub value: Value,
    pub notes: Vec<Note>,
}

/// Reads the first document of a text. `edit` may give another text for a scalar that is not a key; a plain one is
/// resolved anew.
///
/// # Errors
/// It is not YAML, or holds what JSON cannot.
pub fn document(text: &str, edit: &mut dyn FnMut(&str) -> Option<String>) -> Result<Document, Note> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_anchor_events = true;
    options.bom_inside_document_as_content = true;
    options.block_nesting_limit = DEPTH;
    options.flow_nesting_limit = DEPTH;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { text, parser, edit, nodes: Vec::new(), anchors: BTreeMap::new() };
    let mut notes = Vec::new();
    let value = loop {
        match composer.next()? {
            (Event::StreamEnd, _) => break Value::Null,
            (Event::DocumentStart(..), _) => {
                let (event, span) = composer.next()?;
                let root = composer.node(event, &span, Place::default())?;
                composer.next()?;
                if let Ok((Event::DocumentStart(..), span)) = composer.next() {
                    notes.push(note(&span, "what follows \"...\" is not read, by kubectl neither: begin it with ---"));
                }
                let mut decoder = Decoder { nodes: &composer.nodes, notes, ..Decoder::default() };
                let value = decoder.value(root)?;
                notes = decoder.notes;
                break value;
            }
            _ => {}
        }
    };
    Ok(Document { value, notes })
}

fn note(span: &Span, text: impl Into<String>) -> Note {
    Note { line: span.start.line(), column: span.start.col() + 1, text: text.into() }
}

impl From<ScanError> for Note {
    fn from(error: ScanError) -> Self {
        Note { line: error.marker().line(), column: error.marker().col() + 1, text: error.info() }
    }
}

struct Node {
    span: Span,
    content: Content,
}

enum Content {
    Scalar { text: String, tag: Option<String>, plain: bool },
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
    Alias(usize),
}

/// Where a node stands.
#[derive(Clone, Copy, Default)]
struct Place {
    key: bool,
    flow: bool,
}

struct Composer<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    edit: &'a mut dyn FnMut(&str) -> Option<String>,
    nodes: Vec<Node>,
    anchors: BTreeMap<usize, usize>,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Note> {
        let end = || Note { line: 1, column: 1, text: "the document has no end".to_owned() };
        let (event, span) = self.parser.next_event().ok_or_else(end)??;
        let Event::Anchor(_, name) = &event else { return Ok((event, span)) };
        if name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-') {
            return Err(note(&span, "the name of an anchor is of letters, digits, _ and -"));
        }
        self.next()
    }

    /// Adds the node that begins with this event, and all below it.
    fn node(&mut self, event: Event<'_>, span: &Span, place: Place) -> Result<usize, Note> {
        let here = self.nodes.len();
        let (content, anchor) = match &event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(text, *style, tag.as_deref(), span, place)?, *anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Content::Sequence(Vec::new()), *anchor),
            Event::MappingStart(_, anchor, _) => (Content::Mapping(Vec::new()), *anchor),
            Event::Alias(anchor) => {
                let known = self.anchors.get(anchor).copied();
                (Content::Alias(known.ok_or_else(|| note(span, "unknown anchor"))?), 0)
            }
            _ => return Err(note(span, "a value is missing")),
        };
        self.nodes.push(Node { span: *span, content });
        // An alias within its own anchor is found when it is decoded.
        self.anchors.insert(anchor, here);
        match event {
            Event::SequenceStart(style, ..) => {
                let mut items = Vec::new();
                let inside = Place { key: false, flow: style == StructureStyle::Flow };
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, &span, inside)?),
                    }
                }
                self.nodes[here].content = Content::Sequence(items);
            }
            Event::MappingStart(style, ..) => {
                let mut pairs = Vec::new();
                let inside = Place { key: true, flow: style == StructureStyle::Flow };
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break,
                        (event, span) => {
                            let key = self.node(event, &span, inside)?;
                            let (event, span) = self.next()?;
                            pairs.push((key, self.node(event, &span, Place { key: false, ..inside })?));
                        }
                    }
                }
                self.nodes[here].content = Content::Mapping(pairs);
            }
            _ => {}
        }
        Ok(here)
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: &Span,
        place: Place,
    ) -> Result<Content, Note> {
        let plain = style == ScalarStyle::Plain;
        // What go-yaml reads otherwise than anybody would: `{a:}` has the key `a:`, `[?a]` a mapping, `[!a, b]` one item.
        let after = span.end.byte_offset().and_then(|end| self.text.get(end..)).unwrap_or_default();
        let odd = match text {
            _ if !plain || !place.flow => None,
            _ if [":,", ":}", ":]"].iter().any(|colon| after.starts_with(colon)) => {
                Some("a space is missing after the colon")
            }
            _ if text.starts_with(['?', ':']) => Some("a word that begins with ? or : needs quotes here"),
            "" if tag.is_some() => Some("a tag without a value"),
            _ => None,
        };
        if let Some(odd) = odd {
            return Err(note(span, odd));
        }
        let edited = if place.key { None } else { (self.edit)(text) };
        let tag = tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()));
        Ok(Content::Scalar { text: edited.unwrap_or_else(|| text.to_owned()), tag, plain })
    }
}

#[derive(Default)]
struct Decoder<'a> {
    nodes: &'a [Node],
    /// The aliases that are being decoded.
    active: Vec<usize>,
    depth: usize,
    /// Nodes decoded, and how many of them through an alias.
    decoded: (u32, u32),
    notes: Vec<Note>,
}

impl Decoder<'_> {
    fn value(&mut self, index: usize) -> Result<Value, Note> {
        self.count(index)?;
        let nodes = self.nodes;
        let Node { span, content } = &nodes[index];
        match content {
            Content::Scalar { text, tag, plain } => {
                let scalar = Scalar::resolve(tag.as_deref(), text, *plain).and_then(Scalar::into_value);
                scalar.map_err(|what| note(span, what))
            }
            Content::Alias(target) => self.through(index, |decoder| decoder.value(*target)),
            Content::Sequence(items) => self.nested(span, |decoder| {
                let items: Result<Vec<Value>, Note> = items.iter().map(|item| decoder.value(*item)).collect();
                Ok(Value::Array(items?))
            }),
            Content::Mapping(pairs) => self.nested(span, |decoder| {
                let mut object = Map::new();
                decoder.mapping(pairs, &mut object)?;
                Ok(Value::Object(object))
            }),
        }
    }

    fn mapping(&mut self, pairs: &[(usize, usize)], object: &mut Map<String, Value>) -> Result<(), Note> {
        let mut own = BTreeSet::new();
        for &(key, value) in pairs {
            if self.merges(key) {
                self.merge(value, object)?;
                continue;
            }
            let span = &self.nodes[key].span;
            let key = self.key(key)?;
            let value = self.value(value)?;
            if !own.insert(key.clone()) {
                let twice = note(span, format!("the key {key} is there twice, and the last counts"));
                // Once, however many aliases name the mapping.
                if !self.notes.contains(&twice) {
                    self.notes.push(twice);
                }
            }
            object.insert(key, value);
        }
        Ok(())
    }

    fn key(&mut self, index: usize) -> Result<String, Note> {
        self.count(index)?;
        let nodes = self.nodes;
        let Node { span, content } = &nodes[index];
        match content {
            Content::Scalar { text, tag, plain } => {
                let scalar = Scalar::resolve(tag.as_deref(), text, *plain).and_then(Scalar::into_key);
                scalar.map_err(|what| note(span, what))
            }
            Content::Alias(target) => self.through(index, |decoder| decoder.key(*target)),
            Content::Sequence(_) | Content::Mapping(_) => Err(note(span, "a key is a mapping or a list")),
        }
    }

    fn merges(&self, key: usize) -> bool {
        match &self.nodes[key].content {
            Content::Scalar { text, tag, plain } if text == "<<" => match tag.as_deref() {
                None => *plain,
                Some(tag) => tag == "tag:yaml.org,2002:merge",
            },
            _ => false,
        }
    }

    /// Writes over what is there, as go-yaml v2 does; of a list, the first mapping counts.
    fn merge(&mut self, index: usize, object: &mut Map<String, Value>) -> Result<(), Note> {
        let nodes = self.nodes;
        let Node { span, content } = &nodes[index];
        match content {
            Content::Mapping(pairs) => {
                self.count(index)?;
                self.nested(span, |decoder| decoder.mapping(pairs, object))
            }
            Content::Alias(target) if matches!(nodes[*target].content, Content::Mapping(_)) => {
                self.count(index)?;
                self.through(index, |decoder| decoder.merge(*target, object))
            }
            Content::Sequence(items) => {
                let lists = |item: &&usize| matches!(nodes[**item].content, Content::Sequence(_));
                if let Some(list) = items.iter().find(lists) {
                    return Err(note(&nodes[*list].span, NO_MERGE));
                }
                items.iter().rev().try_for_each(|item| self.merge(*item, object))
            }
            _ => Err(note(span, NO_MERGE)),
        }
    }

    fn nested<T>(&mut self, span: &Span, decode: impl FnOnce(&mut Self) -> Result<T, Note>) -> Result<T, Note> {
        if self.depth == DEPTH {
            return Err(note(span, format!("nested deeper than {DEPTH} levels")));
        }
        self.depth += 1;
        let decoded = decode(self);
        self.depth -= 1;
        decoded
    }

    fn through<T>(&mut self, alias: usize, decode: impl FnOnce(&mut Self) -> Result<T, Note>) -> Result<T, Note> {
        if self.active.contains(&alias) {
            return Err(note(&self.nodes[alias].span, "an anchor holds itself"));
        }
        self.active.push(alias);
        let decoded = decode(self);
        self.active.pop();
        decoded
    }

    /// Refuses documents that are mostly aliases, at go-yaml's measure: 99 % of what is decoded in a small document, less
    /// and less of it down to 10 % in one of 4 million nodes.
    fn count(&mut self, index: usize) -> Result<(), Note> {
        let (all, through_aliases) = &mut self.decoded;
        *all += 1;
        *through_aliases += u32::from(!self.active.is_empty());
        let (all, through_aliases) = (f64::from(*all), f64::from(*through_aliases));
        let allowed = 0.99 - 0.89 * ((all - 400_000.0) / 3_600_000.0).clamp(0.0, 1.0);
        if through_aliases > 100.0 && all > 1000.0 && through_aliases / all > allowed {
            return Err(note(&self.nodes[index].span, "excessive aliasing"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        document(text, &mut |_| None).map(|read| read.value).map_err(|note| note.text)
    }

    #[test]
    fn anchors_and_merges_are_those_of_kubectl() {
        for (text, expected) in [
            ("a: &x {k: 1}\nb: *x", json!({"a": {"k": 1}, "b": {"k": 1}})),
            ("a: &x 0400\n*x : &x on\nc: *x", json!({"a": 256, "256": true, "c": true})),
            ("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}", json!({"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}})),
            ("b: {k: 3, <<: {k: 1}}", json!({"b": {"k": 1}})),
            ("b: {<<: [{k: 1}, {k: 2, l: 2}]}", json!({"b": {"k": 1, "l": 2}})),
            ("b: {\"<<\": {k: 1}}", json!({"b": {"<<": {"k": 1}}})),
            ("a: 1\na: 2", json!({"a": 2})),
            ("? a\n: b", json!({"a": "b"})),
            ("a: !!set {b, c}", json!({"a": {"b": null, "c": null}})),
            ("a: {'b':c, \"d\":[1]}", json!({"a": {"b": "c", "d": [1]}})),
            ("", json!(null)),
            ("# nothing", json!(null)),
        ] {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("a: *x", "while parsing node, found unknown anchor"),
            ("a: &x [*x]", "an anchor holds itself"),
            ("a: &x {<<: *x}", "an anchor holds itself"),
            ("<<: 1", NO_MERGE),
            ("<<: [[{a: 1}]]", NO_MERGE),
            ("{a: 1}: b", "a key is a mapping or a list"),
            ("~: b", "a key is null"),
            ("a: !!int b", "\"b\" is no int"),
            ("a: .inf", "inf is no number in JSON"),
            ("a: {b:}", "a space is missing after the colon"),
            ("a: [b:, c]", "a space is missing after the colon"),
            ("a: [?b]", "a word that begins with ? or : needs quotes here"),
            ("a: [:b]", "a word that begins with ? or : needs quotes here"),
            ("a: [!!str, b]", "a tag without a value"),
            ("&a: 1", "the name of an anchor is of letters, digits, _ and -"),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn blocks_keep_the_newlines_that_their_indicator_says() {
        for (text, expected) in [
            ("a: |\n  x\n\n\n", "x\n"),
            ("a: |-\n  x\n\n", "x"),
            ("a: |+\n  x\n\n", "x\n\n"),
            ("a: >\n  x\n  y\n\n  z\n", "x y\nz\n"),
            ("a: |2\n    x\n", "  x\n"),
            ("a: |\n  # x\n  {{ y }}\n", "# x\n{{ y }}\n"),
            ("a: \"x\\\n  y\"\n", "xy"),
            ("a: x\n  y\n", "x y"),
        ] {
            assert_eq!(read(text), Ok(json!({"a": expected})), "{text:?}");
        }
    }

    #[test]
    fn oddities_are_noted_with_their_place() {
        let notes = |text: &str| {
            let notes = document(text, &mut |_| None).unwrap().notes.into_iter();
            notes.map(|note| format!("{}:{} {}", note.line, note.column, note.text)).collect::<Vec<_>>()
        };
        assert_eq!(
            notes("a: 1\nb: &x\n  c: 1\n  c: 2\nd: *x\n"),
            ["4:3 the key c is there twice, and the last counts"]
        );
        assert_eq!(notes("<<: {a: 1}\na: 2\n"), [""; 0]);
        assert_eq!(
            notes("a: 1\n...\nb: 2\n"),
            ["3:1 what follows \"...\" is not read, by kubectl neither: begin it with ---"]
        );
    }

    #[test]
    fn values_are_edited_and_keys_are_not() {
        let mut edit = |text: &str| text.contains("W").then(|| text.replace('W', "0400"));
        let read = document("W: W\na: 'W'\nb: [x W]\nc: &w W\n*w : *w\n", &mut edit).unwrap().value;
        assert_eq!(read, json!({"W": 256, "a": "0400", "b": ["x 0400"], "c": 256, "256": 256}));
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        let deep = format!("a: {}", "[".repeat(200_000));
        assert!(read(&deep).is_err());
        let chain: Vec<String> = (1..5000).map(|n| format!("a{n}: &a{n} [*a{}]", n - 1)).collect();
        assert_eq!(read(&format!("a0: &a0 []\n{}", chain.join("\n"))), Err("nested deeper than 128 levels".to_owned()));
        let nines = |of: &str| [of; 9].join(", ");
        let bomb: Vec<String> = (1..9).map(|n| format!("a{n}: &a{n} [{}]", nines(&format!("*a{}", n - 1)))).collect();
        assert_eq!(read(&format!("a0: &a0 x\n{}", bomb.join("\n"))), Err("excessive aliasing".to_owned()));
    }
}
