//! Reads a program's command line: into what the program works with, or to the end of the run where that is all there is
//! to do, such as help, a manual page or what is wrong with it.

use crate::Error;
use crate::run::{Io, fail, print};
use crate::stderr::{Stderr, Style};
use clap::{Arg, ArgMatches, Command, ValueEnum, value_parser};
use clap_complete::Shell;
use std::ffi::OsString;
use std::io::Write;

const GENERATE: &str = "generate";

/// What `--generate` prints, for packages and `make install`.
#[derive(Clone, Copy, ValueEnum)]
enum Page {
    Man,
    CompleteBash,
    CompleteFish,
    CompleteZsh,
}

impl Page {
    fn of(self, mut command: Command) -> std::io::Result<String> {
        let (name, mut page) = (command.get_name().to_owned(), Vec::new());
        match self {
            Self::Man => clap_mangen::Man::new(command).manual("crossmesh").render(&mut page)?,
            Self::CompleteBash => clap_complete::generate(Shell::Bash, &mut command, name, &mut page),
            Self::CompleteFish => clap_complete::generate(Shell::Fish, &mut command, name, &mut page),
            Self::CompleteZsh => clap_complete::generate(Shell::Zsh, &mut command, name, &mut page),
        }
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

/// What `parsed` makes of the command line, or the exit code of a run that ends here.
pub(crate) fn parse<'a, T>(
    command: Command,
    argv: &[OsString],
    io: Io<'a>,
    parsed: impl FnOnce(&ArgMatches) -> Result<T, clap::Error>,
) -> Result<(T, Io<'a>), u8> {
    let pages = Arg::new(GENERATE).long(GENERATE).value_parser(value_parser!(Page)).exclusive(true).hide(true);
    let (mut whole, terminal) = (command.clone().arg(pages), io.stderr_is_terminal);
    let matches = match whole.try_get_matches_from_mut(argv) {
        Ok(matches) => matches,
        Err(error) => return Err(refuse(&whole, argv, &error, io)),
    };
    if let Some(page) = matches.get_one::<Page>(GENERATE) {
        let printed = page.of(command).map_err(anyhow::Error::from).and_then(|page| print(io.stdout, &page));
        return Err(printed.err().map_or(0, |error| fail(&stderr(&whole, argv, io.stderr, terminal), &error, &[])));
    }
    match parsed(&matches) {
        Ok(program) => Ok((program, io)),
        Err(error) => {
            let error = error.format(&mut whole);
            Err(refuse(&whole, argv, &error, io))
        }
    }
}

/// Prints what clap says: help and version, or what is wrong with the command line, in the form of every error.
fn refuse(command: &Command, argv: &[OsString], error: &clap::Error, mut io: Io<'_>) -> u8 {
    let text = error.render().to_string();
    if error.use_stderr() && (asks_for_json(argv) || !io.stderr_is_terminal) {
        let message = text.strip_prefix("error: ").unwrap_or(&text);
        let message = message.split("\n\n").next().unwrap_or_default();
        let words: Vec<&str> = message.split_whitespace().collect();
        let usage = Error::usage(words.join(" ")).hint(format!("{} --help", command.get_name()));
        return fail(&stderr(command, argv, io.stderr, io.stderr_is_terminal), &usage.into(), &[]);
    }
    let to = if error.use_stderr() { &mut io.stderr } else { &mut io.stdout };
    // A closed stream is nobody's fault: there is nowhere left to say so.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// Where a failure goes before the flags are read.
fn stderr(command: &Command, argv: &[OsString], out: Box<dyn Write + Send>, terminal: bool) -> Stderr {
    let json = asks_for_json(argv);
    Stderr::new(command.get_name().to_owned().leak(), out, Style { terminal, json, ..Style::default() })
}

fn asks_for_json(argv: &[OsString]) -> bool {
    argv.iter().any(|arg| arg == "--json")
}
