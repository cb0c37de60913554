//! One run of a tool, from argv to exit code.

use crate::flat::flat;
use crate::plan::{self, Change as _, Effect, Entry, UNKNOWN, Want as _};
use crate::stderr::Style;
use crate::{Change, Document, Error, Flags, Found, Have, Session, Stderr, Tool, args, classify};
use anyhow::{Context as _, Result};
use clap::{ArgMatches, Args as _, FromArgMatches as _};
use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long it may take until what was written is seen. IAM's takes longest, seconds; what is still otherwise then, somebody
/// else has changed meanwhile.
const SEEN: Duration = Duration::from_secs(60);

/// The streams of a run.
pub struct Io<'a> {
    /// Where the document comes from.
    pub stdin: &'a mut dyn Read,
    /// Where the document goes to, and nothing else.
    pub stdout: Box<dyn Write + Send>,
    /// Where progress and errors go to.
    pub stderr: Box<dyn Write + Send>,
    /// Whether a person types stdin.
    pub stdin_is_terminal: bool,
    /// Whether a person reads stderr.
    pub stderr_is_terminal: bool,
}

impl Io<'_> {
    /// Runs with the streams of this process.
    pub(crate) fn of_process<R>(run: impl FnOnce(Io<'_>) -> R) -> R {
        let (mut stdin, stderr) = (std::io::stdin().lock(), std::io::stderr());
        run(Io {
            stdin_is_terminal: stdin.is_terminal(),
            stderr_is_terminal: stderr.is_terminal(),
            stdin: &mut stdin,
            stdout: Box::new(std::io::stdout()),
            stderr: Box::new(stderr),
        })
    }
}

/// All of a tool's `main`.
pub fn main<T: Tool>() -> ExitCode {
    ExitCode::from(Io::of_process(|io| run::<T>(std::env::args_os(), io)))
}

/// All of the `main` of a program that is no [`Tool`]: it prints a text, or fails as a tool does.
pub fn report<T: clap::Parser>(text: impl FnOnce(&T) -> Result<String>) -> ExitCode {
    ExitCode::from(Io::of_process(|io| {
        let (argv, command): (Vec<OsString>, _) = (std::env::args_os().collect(), T::command());
        let (name, terminal) = (command.get_name().to_owned().leak(), io.stderr_is_terminal);
        let (program, io) = match args::parse(command, &argv, io, T::from_arg_matches) {
            Ok(parsed) => parsed,
            Err(code) => return code,
        };
        let stderr = Stderr::new(name, io.stderr, Style { terminal, ..Style::default() });
        let done = text(&program).and_then(|text| print(io.stdout, &text));
        done.err().map_or(0, |error| fail(&stderr, &error, &[]))
    }))
}

/// Runs a tool on given streams and returns its exit code.
pub fn run<T: Tool>(argv: impl IntoIterator<Item = OsString>, io: Io<'_>) -> u8 {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let command = command::<T>();
    let name = command.get_name().to_owned().leak();
    let parsed = |matches: &ArgMatches| Ok((T::from_arg_matches(matches)?, Flags::from_arg_matches(matches)?));
    let ((tool, flags), io) = match args::parse(command, &argv, io, parsed) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let Flags { json, plain, quiet, .. } = flags;
    let stderr = Stderr::new(name, io.stderr, Style { terminal: io.stderr_is_terminal, json, plain, quiet });
    if flags.schema {
        let schema = schemars::schema_for!(T::Section);
        return match print(io.stdout, &format!("{:#}\n", schema.as_value())) {
            Ok(()) => 0,
            Err(error) => fail(&stderr, &error, &[]),
        };
    }
    let doc = if flags.null_input { Ok(Document::default()) } else { read(io.stdin, io.stdin_is_terminal) };
    let doc = match doc {
        Ok(doc) => doc,
        Err(error) => return fail(&stderr, &error, &[]),
    };
    let (mut session, stdout) = (Session::new(doc, stderr, flags), io.stdout);
    let end = until_stopped(async {
        steps(&tool, &mut session).await?;
        let text = if flags.flat { flat(&session.doc)?.to_string() } else { session.doc.to_string() };
        // On a thread of its own: a reader that does not read must not keep the tool from being stopped.
        tokio::task::spawn_blocking(move || print(stdout, &text)).await.context("write stdout")?
    });
    exit_code(&session, end)
}

/// Reports how a run ended, unless it ended well.
pub(crate) fn exit_code(session: &Session, end: Result<Option<&'static str>>) -> u8 {
    let error = match end {
        Ok(None) => return 0,
        Ok(Some(how)) => stopped(how, session.doing()),
        #[cfg(feature = "aws")]
        Err(error) => session.located(error),
        #[cfg(not(feature = "aws"))]
        Err(error) => error,
    };
    fail(&session.stderr, &error, &session.left())
}

/// The command line of the tool, with the flags of every tool.
fn command<T: Tool>() -> clap::Command {
    let own = T::command();
    let about = own.get_about().cloned().unwrap_or_default();
    let manual = own.get_long_about().cloned().unwrap_or_default();
    // What is added brings its own words of what it is about.
    let command = Flags::augment_args(own).about(about).long_about(manual).next_help_heading(None::<&str>);
    command.mut_arg("timeout", |arg| arg.required(false).default_value(T::TIMEOUT))
}

/// Observe, plan, apply, observe: leaves the outcome in the session's document.
async fn steps<T: Tool>(tool: &T, session: &mut Session) -> Result<()> {
    let (flags, key) = (session.flags, tool.key());
    if let Ok(Some(cluster)) = session.doc.read::<String>(&["cluster", "name"]) {
        session.stderr.name_cluster(&cluster);
    }
    session.doc.object(&key)?;
    let section = session.doc.read(&key)?;
    if !flags.plan {
        session.doc.refuse_plan()?;
    }

    let want = tool.want(session, section).await?;
    let mut have = tool.observe(session, &want).await?;
    let change = |have: &Have<T>| if flags.delete { want.plan_delete(have) } else { want.plan(have) };
    let changes = change(&have)?;
    if changes.is_empty() && !T::Want::LOOKS {
        session.stderr.line(format_args!("nothing to do for {}", key.join(".")));
    }
    if flags.delete {
        for thing in want.left_alone(&have) {
            session.stderr.line(format_args!("left alone: {thing}"));
        }
    } else {
        for remark in want.remarks(&have) {
            session.stderr.line(remark);
        }
    }
    if flags.plan {
        // That it would then be waited for goes without saying, unless that is all.
        let waits = |change: &Change<T>| change.effect() == Effect::Wait;
        let only_waits = changes.iter().all(waits);
        for change in changes.iter().filter(|change| only_waits || !waits(change)) {
            session.stderr.line(format_args!("would {change}"));
        }
        return planned::<T>(session, &key, want, have, &changes);
    }
    if !changes.is_empty() {
        for change in changes {
            session.stderr.line(&change);
            session.now(Some(change.to_string()));
            tool.apply(session, &want, change).await?;
            session.now(None);
        }
        // What was written may be seen a little later: AWS and Kubernetes are eventually consistent.
        let written = Instant::now();
        have = session
            .wait("the changes to show", async || {
                let have = tool.observe(session, &want).await?;
                match change(&have)?.first() {
                    None => Ok(Found::Ready(have)),
                    Some(change) if change.effect() != Effect::Wait && written.elapsed() > SEEN => {
                        Err(Error::retry(format!("a minute after all was done there is again to do: {change}"))
                            .hint("run it again, once nobody else is at work")
                            .into())
                    }
                    Some(change) => Ok(Found::NotYet(format!("still to do: {change}"))),
                }
            })
            .await?;
    }
    if flags.delete {
        session.doc.remove(&key);
    } else {
        let section = serde_json::to_value(T::outcome(want, have)).context("write the outcome")?;
        session.doc.put(&key, section)?;
    }
    Ok(())
}

/// Leaves what a run would leave in the session's document, and the plan itself.
fn planned<T: Tool>(
    session: &mut Session,
    key: &[&str],
    want: T::Want,
    have: Have<T>,
    changes: &[Change<T>],
) -> Result<()> {
    let place = session.doc.place(T::Want::PLACE)?;
    let (place, tool) = (&place, session.stderr.tool);
    let entry = |effect, change| Entry { change, effect, place: place.clone(), tool: tool.to_owned() };
    let of = |change: &Change<T>| {
        let effect = change.effect();
        change.entries().into_iter().map(move |text| entry(effect, text))
    };
    let mut entries: Vec<Entry> = changes.iter().flat_map(of).filter(|entry| entry.effect != Effect::Wait).collect();
    if session.flags.delete {
        entries.extend(want.left_alone(&have).into_iter().map(|thing| entry(Effect::Keep, thing)));
        session.doc.remove(key);
    } else {
        let section = serde_json::to_value(T::planned(want, have)).context("write the plan")?;
        let paths: Vec<String> =
            plan::unknown(&section).iter().map(|below| format!("{}.{below}", key.join("."))).collect();
        if !paths.is_empty() {
            session.stderr.line(format_args!("{} {UNKNOWN}", paths.join(", ")));
        }
        session.doc.put(key, section)?;
    }
    session.doc.put_plan(key, entries)
}

/// Runs the future to its end, or until Ctrl-C or SIGTERM; says which. One thread: a tool waits, it does not compute, and
/// must start within milliseconds.
pub(crate) fn until_stopped(future: impl Future<Output = Result<()>>) -> Result<Option<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let end = runtime.block_on(async {
        // Both before the future begins: a signal that comes earlier would end the process without a word.
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        tokio::select! {
            result = future => result.map(|()| None),
            _ = interrupt.recv() => Ok(Some("interrupted")),
            _ = terminate.recv() => Ok(Some("terminated")),
        }
    });
    // Does not wait for threads: the resolver may take long to give a name up, a reader of stdout longer.
    runtime.shutdown_background();
    end
}

/// The change under way may have been made or not: it is named, for `left` names only what is known to be there.
fn stopped(how: &str, doing: Option<String>) -> anyhow::Error {
    let message = doing.map_or_else(|| how.to_owned(), |change| format!("{how} at: {change}"));
    Error::retry(message).hint("run it again: it goes on where it stopped").into()
}

fn read(stdin: &mut dyn Read, is_terminal: bool) -> Result<Document> {
    let hint = "pipe a document in, or start from {} with -n";
    Document::parse("stdin", &read_all(stdin, is_terminal, hint)?)
}

/// Reads stdin to its end, unless a person would have to type it.
pub(crate) fn read_all(stdin: &mut dyn Read, is_terminal: bool, hint: &str) -> Result<Vec<u8>> {
    if is_terminal {
        return Err(Error::input("stdin is a terminal").hint(hint).into());
    }
    let mut input = Vec::new();
    stdin.read_to_end(&mut input).map_err(|error| Error::input(format!("read stdin: {error}")))?;
    Ok(input)
}

/// Whoever reads stdout may leave early; that ends the run well, as with any filter.
pub(crate) fn print(mut stdout: Box<dyn Write + Send>, text: &str) -> Result<()> {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let unwritten =
                Error::failed("write stdout").hint("run it again where there is room: what is done stays done");
            Err(anyhow::Error::new(error).context(unwritten))
        }
        _ => Ok(()),
    }
}

pub(crate) fn fail(stderr: &Stderr, error: &anyhow::Error, left: &[String]) -> u8 {
    stderr.error(error, left);
    classify(error).0 as u8
}
