//! Runs programs that are no [`Tool`](crate::Tool): they own no key, look at the world and print a text.

use crate::run::{exit_code, fail, print, read_all, until_stopped};
use crate::stderr::Style;
use crate::{Document, Error, Flags, Io, Session, Stderr, args};
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// The flags that such a program shares with every tool.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every tool")]
pub struct ViewFlags {
    /// Read no documents from stdin
    #[arg(short = 'n', long)]
    pub null_input: bool,
    /// How long all of it may take, e.g. 90s or 10m
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = crate::wait::patience)]
    pub timeout: Duration,
    /// No progress on stderr, only errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Report an error as JSON on a terminal, too
    #[arg(long)]
    pub json: bool,
}

/// A program that looks at the world and prints a text.
#[allow(async_fn_in_trait, reason = "the futures run on one thread, in `view`")]
pub trait View: clap::Parser {
    /// The common flags, flattened into this program's own.
    fn flags(&self) -> &ViewFlags;

    /// Whether it needs what is on stdin.
    fn reads_stdin(&self) -> bool;

    /// The text, from what was on stdin: nothing if it is not read.
    async fn text(&self, session: &mut Session, stdin: &[u8]) -> Result<String>;
}

/// All of the `main` of such a program.
pub fn view<T: View>() -> ExitCode {
    ExitCode::from(Io::of_process(|io| run::<T>(std::env::args_os(), io)))
}

fn run<T: View>(argv: impl IntoIterator<Item = OsString>, io: Io<'_>) -> u8 {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let command = T::command();
    let name = command.get_name().to_owned().leak();
    let (program, io) = match args::parse(command, &argv, io, T::from_arg_matches) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let ViewFlags { null_input, timeout, quiet, json } = *program.flags();
    let flags =
        Flags { null_input, timeout, quiet, json, plan: false, delete: false, schema: false, flat: false, plain: true };
    let stderr = Stderr::new(name, io.stderr, Style { terminal: io.stderr_is_terminal, json, plain: true, quiet });
    let input = if program.reads_stdin() {
        read_all(io.stdin, io.stdin_is_terminal, "pipe documents in, or read none with -n")
    } else {
        Ok(Vec::new())
    };
    let input = match input {
        Ok(input) => input,
        Err(error) => return fail(&stderr, &error, &[]),
    };
    let (mut session, stdout) = (Session::new(Document::default(), stderr, flags), io.stdout);
    let end = until_stopped(async {
        let late = || Error::retry(format!("not done within {}", humantime::format_duration(timeout)));
        let text = tokio::time::timeout(timeout, program.text(&mut session, &input)).await.map_err(|_| late())??;
        // On a thread of its own: a reader that does not read must not keep the program from being stopped.
        tokio::task::spawn_blocking(move || print(stdout, &text)).await.context("write stdout")?
    });
    exit_code(&session, end)
}
