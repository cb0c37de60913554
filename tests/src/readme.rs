//! The console blocks of README that a test runs: those below a line `<!-- run -->`.

/// The line above a block that is run.
const MARK: &str = "<!-- run -->";

/// One command of a block, and what README shows of its stdout.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// As a shell reads it.
    pub command: String,
    /// Empty when README shows nothing; `…` stands for any text.
    pub shown: String,
}

impl Example {
    /// Whether this stdout is what README shows.
    pub fn shows(&self, stdout: &str) -> bool {
        self.shown.trim().is_empty() || matches(self.shown.trim(), stdout.trim())
    }
}

/// The commands of the marked blocks, in order. A command begins after `$ ` and goes on, as in a shell, where a line
/// ends in `|` or `\`; the lines below it are what it prints.
pub fn examples(markdown: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for block in markdown.split(&format!("{MARK}\n```console\n")).skip(1) {
        let mut goes_on = false;
        for line in block.lines().take_while(|line| !line.starts_with("```")) {
            if let Some(command) = line.strip_prefix("$ ") {
                examples.push(Example { command: command.to_owned(), shown: String::new() });
            } else if let Some(example) = examples.last_mut() {
                let part = if goes_on { &mut example.command } else { &mut example.shown };
                part.push_str(&format!("\n{line}"));
            }
            let code = line.split(" # ").next().unwrap_or_default().trim_end();
            goes_on = (goes_on || line.starts_with("$ ")) && (code.ends_with('|') || code.ends_with('\\'));
        }
    }
    examples
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('…') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]).any(|rest| matches(tail, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_examples() {
        let markdown = "```console\n$ no\n```\n<!-- run -->\n```console\n$ a | # z\n  b\nx\ny\n$ c\n```\n$ no\n";
        let example = |command: &str, shown: &str| Example { command: command.to_owned(), shown: shown.to_owned() };
        assert_eq!(examples(markdown), [example("a | # z\n  b", "\nx\ny"), example("c", "")]);
    }

    #[test]
    fn an_ellipsis_stands_for_any_text() {
        for (shown, stdout, expected) in [
            ("a…c\n", "abc\n", true),
            ("a…c\n", "ac\n", true),
            ("a…c", "abd\n", false),
            ("…: 1\n…: 2\n", "x: 1\ny: 2\n", true),
            ("a\n", "b\n", false),
            ("", "anything", true),
        ] {
            let example = Example { command: String::new(), shown: shown.to_owned() };
            assert_eq!(example.shows(stdout), expected, "{shown:?} {stdout:?}");
        }
    }
}
