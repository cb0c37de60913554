//! Writes what a tool reports while it works: whole lines, a bar on a terminal, and on failure the error.

use crate::error::classify;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt::{Display, Write as _};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// How stderr is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// A person reads it: errors are words, and there may be bars.
    pub terminal: bool,
    /// Errors are JSON on a terminal, too.
    pub json: bool,
    /// Others write to the same terminal: whole lines and nothing else.
    pub plain: bool,
    /// Errors are the only lines.
    pub quiet: bool,
}

/// The tool's stderr.
pub struct Stderr {
    pub(crate) tool: &'static str,
    out: Mutex<Box<dyn Write + Send>>,
    style: Style,
    bars: MultiProgress,
    cluster: Mutex<Option<String>>,
}

/// What is printed of a failure, in the order in which it is read.
#[derive(Serialize)]
struct Failure<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    left: &'a [String],
    kind: &'static str,
    tool: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
}

impl Stderr {
    pub(crate) fn new(tool: &'static str, out: Box<dyn Write + Send>, style: Style) -> Self {
        Self { tool, out: Mutex::new(out), style, bars: MultiProgress::new(), cluster: Mutex::default() }
    }

    /// Names the cluster that the lines from now on are about.
    pub(crate) fn name_cluster(&self, name: &str) {
        if !name.is_empty() {
            *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
        }
    }

    /// One line of progress: `shop  irsa-role  create role mesh`.
    pub fn line(&self, text: impl Display) {
        if !self.style.quiet {
            self.write(format!("{}{text}\n", self.start()));
        }
    }

    /// Several lines for a person to read, such as a chart. Not prefixed, not printed when quiet.
    pub fn block(&self, text: impl Display) {
        if !self.style.quiet {
            self.write(format!("{text}\n"));
        }
    }

    /// A bar for work of a known length; invisible unless a person watches this tool alone.
    ///
    /// `template` is indicatif's, e.g. `{bytes}/{total_bytes} {wide_bar} {msg}`.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        if !self.style.terminal || self.style.quiet || self.style.plain {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bars.add(ProgressBar::new(length).with_style(style))
    }

    /// The error: words on a terminal, else one line of JSON.
    pub(crate) fn error(&self, error: &anyhow::Error, left: &[String]) {
        let (kind, hint) = classify(error);
        if self.style.terminal && !self.style.json {
            let mut text = format!("{}{} {error:#}\n", self.start(), self.red("error:"));
            for (what, line) in
                hint.iter().map(|hint| ("hint", *hint)).chain(left.iter().map(|it| ("left", it.as_str())))
            {
                // Writing into a string can't fail.
                let _ = writeln!(text, "  {what}: {line}");
            }
            self.write(text);
            return;
        }
        let body = Body {
            message: error.to_string(),
            causes: error.chain().skip(1).map(ToString::to_string).collect(),
            hint,
            left,
            kind: kind.as_str(),
            tool: self.tool,
            cluster: self.cluster(),
        };
        // A struct of texts always has a JSON form.
        let text = serde_json::to_string(&Failure { error: body }).unwrap_or_default();
        self.write(format!("{text}\n"));
    }

    /// Whether a person watches.
    pub fn is_terminal(&self) -> bool {
        self.style.terminal
    }

    fn cluster(&self) -> Option<String> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How a line begins: who says it, and about which cluster.
    fn start(&self) -> String {
        self.cluster().map_or_else(|| format!("{}  ", self.tool), |cluster| format!("{cluster}  {}  ", self.tool))
    }

    fn red(&self, word: &str) -> String {
        let colorless = self.style.plain || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if colorless { word.to_owned() } else { format!("\x1b[1;31m{word}\x1b[0m") }
    }

    /// In one piece: what several tools write at a time to one terminal is whole lines. A closed stderr is nobody's fault:
    /// there is nowhere left to say so.
    fn write(&self, text: String) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        self.bars.suspend(|| {
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::Error;
    use std::sync::Arc;

    /// Keeps every write apart.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<String>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(style: Style, act: impl FnOnce(&Stderr)) -> Vec<String> {
        let writes = Writes::default();
        act(&Stderr::new("t", Box::new(writes.clone()), style));
        writes.0.lock().unwrap().clone()
    }

    fn failure() -> anyhow::Error {
        anyhow::anyhow!("AWS said no").context(Error::conflict("role r is not ours").hint("--adopt takes it over"))
    }

    #[test]
    fn a_line_is_one_write_and_names_its_cluster() {
        let lines = written(Style::default(), |stderr| {
            stderr.line(format_args!("push {} to {}", "sha256:a", "r"));
            stderr.name_cluster("");
            stderr.name_cluster("shop");
            stderr.line("tag");
            stderr.block("a\nb");
        });
        assert_eq!(lines, ["t  push sha256:a to r\n", "shop  t  tag\n", "a\nb\n"]);
        assert_eq!(written(Style { quiet: true, ..Style::default() }, |stderr| stderr.line("x")), [""; 0]);
    }

    #[test]
    fn an_error_is_json_with_the_message_first() {
        let left = ["role r".to_owned()];
        let lines = written(Style::default(), |stderr| {
            stderr.name_cluster("shop");
            stderr.error(&failure(), &left);
        });
        let expected = r#"{"error":{"message":"role r is not ours","causes":["AWS said no"],"hint":"--adopt takes it over","left":["role r"],"kind":"conflict","tool":"t","cluster":"shop"}}"#;
        assert_eq!(lines, [format!("{expected}\n")]);
        let json = Style { terminal: true, json: true, ..Style::default() };
        let bare = r#"{"error":{"message":"no","kind":"failed","tool":"t"}}"#;
        assert_eq!(written(json, |stderr| stderr.error(&anyhow::anyhow!("no"), &[])), [format!("{bare}\n")]);
    }

    #[test]
    fn on_a_terminal_an_error_is_words_once() {
        let style = Style { terminal: true, plain: true, ..Style::default() };
        let left = ["role r".to_owned()];
        let text = "t  error: role r is not ours: AWS said no\n  hint: --adopt takes it over\n  left: role r\n";
        assert_eq!(written(style, |stderr| stderr.error(&failure(), &left)), [text]);
    }
}
