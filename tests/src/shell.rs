//! Reads the commands of a script of a shell, as far as tests need them: in words, without what a shell does itself.

/// Words that begin a command and are none.
const KEYWORDS: [&str; 12] = ["!", "do", "done", "elif", "else", "fi", "for", "if", "then", "while", "{", "}"];

/// The commands of a script, each as its words: without redirections, assignments, keywords and comments. What is expanded
/// stands as it is written: `$image`, `*.json`.
pub fn commands(script: &str) -> Vec<Vec<String>> {
    let mut found = Found::default();
    let mut chars = script.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => found.word().extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => {
                found.word();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    let escaped = c == '\\' && chars.peek().is_some_and(|next| "\"\\$`".contains(*next));
                    found.word().extend(if escaped { chars.next() } else { Some(c) });
                }
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => found.word().push(escaped),
            },
            '#' if found.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '<' | '>' => {
                // The number of what is redirected, such as `2`.
                let number = found.word.take_if(|word| word.chars().all(|c| c.is_ascii_digit()));
                found.end_word(number.is_some());
                while chars.next_if(|c| "<>&".contains(*c)).is_some() {}
                found.redirected = true;
            }
            '|' | ';' | '&' | '\n' | '(' | ')' => found.end_command(),
            c if c.is_whitespace() => found.end_word(false),
            c => found.word().push(c),
        }
    }
    found.end_command();
    found.commands
}

#[derive(Default)]
struct Found {
    commands: Vec<Vec<String>>,
    command: Vec<String>,
    word: Option<String>,
    /// The next word is where something is redirected to.
    redirected: bool,
}

impl Found {
    fn word(&mut self) -> &mut String {
        self.word.get_or_insert_default()
    }

    fn end_word(&mut self, drop: bool) {
        let Some(word) = self.word.take().filter(|_| !drop) else { return };
        let first = self.command.is_empty();
        let assigned =
            word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c == '_' || c.is_alphanumeric()));
        if !std::mem::take(&mut self.redirected) && !(first && (assigned || KEYWORDS.contains(&word.as_str()))) {
            self.command.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word(false);
        self.redirected = false;
        self.commands.extend(Some(std::mem::take(&mut self.command)).filter(|command| !command.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_a_shell_reads_them() {
        for (script, expected) in [
            ("", &[][..]),
            ("a -n 'b c' \"d \\\"e\\\" \\n\" # f", &[&["a", "-n", "b c", "d \"e\" \\n"][..]]),
            ("a <in >out | b 2>&1 > c && d; e\nf", &[&["a"], &["b"], &["d"], &["e"], &["f"]]),
            ("A=1 B='x y' a b=c ''", &[&["a", "b=c", ""]]),
            ("for x in y; do a $x --b \\\n  c; done", &[&["x", "in", "y"], &["a", "$x", "--b", "c"]]),
            ("a '' x\"y\"z#w", &[&["a", "", "xyz#w"]]),
            ("a &\nb $(c d)", &[&["a"], &["b", "$"], &["c", "d"]]),
        ] {
            assert_eq!(commands(script), expected, "{script}");
        }
    }
}
