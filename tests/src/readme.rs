//! The blocks of commands that README and the pages of `docs` show, and which of them a test runs as they stand: those below
//! a line `<!-- run -->`.

/// The line above a block that is run.
const MARK: &str = "<!-- run -->";

/// The pages whose marked blocks the contract test in the local cloud runs, in this order.
pub const IN_CLOUD: [&str; 9] = [
    "docs/gitops.md",
    "docs/map.md",
    "docs/migrating.md",
    "docs/observability.md",
    "docs/terraform.md",
    "docs/troubleshooting.md",
    "docs/upgrading.md",
    "docs/your-app.md",
    "README.md",
];

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

/// A block of commands.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Whether it stands below the mark.
    pub marked: bool,
    /// At least one.
    pub commands: Vec<Example>,
}

/// The commands of the marked blocks, in order.
pub fn examples(markdown: &str) -> Vec<Example> {
    blocks(markdown).into_iter().filter(|block| block.marked).flat_map(|block| block.commands).collect()
}

/// Every block of commands, fenced or indented, in a list too: one of whose lines begins with `$ `.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let (mut found, mut marked) = (Vec::new(), false);
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        let (body, indent) = (line.trim_start(), line.len() - line.trim_start().len());
        let outdented = |line: &'_ str| line.get(indent..).unwrap_or_default().to_owned();
        let text: Vec<String> = if body.starts_with("```") {
            lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).map(outdented).collect()
        } else if indent >= 4 {
            // It may have empty lines in it, and ends where a line is neither empty nor indented.
            let more = std::iter::from_fn(|| lines.next_if(|line| line.is_empty() || line.starts_with("    ")));
            [body.to_owned()].into_iter().chain(more.map(outdented)).collect()
        } else {
            marked = line == MARK;
            continue;
        };
        let commands = commands(&text);
        if !commands.is_empty() {
            found.push(Block { marked, commands });
        }
        marked = false;
    }
    found
}

/// A command begins after `$ ` and goes on, as in a shell, where a line ends in `|`, `\` or `do`, the latter until `done`; the
/// lines below it are what it prints.
fn commands(lines: &[String]) -> Vec<Example> {
    let (mut examples, mut goes_on, mut loops): (Vec<Example>, _, _) = (Vec::new(), false, false);
    for line in lines {
        if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { command: command.to_owned(), shown: String::new() });
            loops = false;
        } else if let Some(example) = examples.last_mut() {
            let part = if goes_on || loops { &mut example.command } else { &mut example.shown };
            part.push_str(&format!("\n{line}"));
        }
        let code = line.split(" # ").next().unwrap_or_default().trim();
        goes_on = (goes_on || loops || line.starts_with("$ ")) && (code.ends_with('|') || code.ends_with('\\'));
        loops = (loops || line.starts_with("$ ") && code.ends_with("; do")) && code != "done";
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
    fn blocks_are_fenced_or_indented_and_have_commands() {
        let indented = "a\n\n    $ b\n\n    $ for c in d; do\n        e\n      done\n    f\ng\n\n    i\n\n- j\n\n      $ k\n      l\n";
        let fenced = "```yaml\nh: 1\n```\n- m\n  ```console\n  $ n\n  ```\n<!-- run -->\n    $ o\n";
        let example = |command: &str, shown: &str| Example { command: command.to_owned(), shown: shown.to_owned() };
        let commands = vec![example("b", "\n"), example("for c in d; do\n    e\n  done", "\nf")];
        let block = |marked, commands| Block { marked, commands };
        assert_eq!(blocks(indented), [block(false, commands), block(false, vec![example("k", "\nl")])]);
        assert_eq!(blocks(fenced), [block(false, vec![example("n", "")]), block(true, vec![example("o", "")])]);
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
