//! `--context`: a folder with a Dockerfile, built by whichever of docker, podman and buildah is there.

use crate::archive;
use crate::image::Image;
use anyhow::{Context, Result};
use common::{Error, Stderr};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::spawn_blocking;

/// Lines of a failed build's output that are passed on.
const LAST_LINES: usize = 20;

/// A program that builds images.
struct Builder {
    name: &'static str,
    /// Tells that it works, not only that it is installed: docker needs its daemon.
    works: &'static [&'static str],
    /// Builds into its own store, with no time of day in the image where it can.
    build: &'static [&'static str],
    /// Saves the image ID as the archive FILE.
    save: &'static [&'static str],
}

const BUILDERS: [Builder; 3] = [
    Builder {
        name: "docker",
        works: &["version", "--format", "{{.Server.Version}}"],
        build: &["build"],
        save: &["save", "--output", "FILE", "ID"],
    },
    Builder {
        name: "podman",
        works: &["info", "--format", "{{.Version.Version}}"],
        build: &["build", "--timestamp", "0"],
        save: &["save", "--format", "oci-archive", "--output", "FILE", "ID"],
    },
    Builder {
        name: "buildah",
        works: &["--version"],
        build: &["build", "--timestamp", "0"],
        save: &["push", "ID", "oci-archive:FILE"],
    },
];

/// Builds the folder. `nodes` is what the image must run on: when that is one platform, it is built for it.
///
/// # Errors
/// None of the three works here, or the build fails: with the end of its own output.
pub async fn image(folder: &Path, nodes: Option<&BTreeSet<String>>, stderr: &Stderr) -> Result<Image> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    build(folder, nodes, stderr_lines(stderr), &path).await
}

fn stderr_lines(stderr: &Stderr) -> impl FnMut(&str) {
    move |line| {
        if stderr.is_terminal() {
            stderr.line(line);
        }
    }
}

async fn build(
    folder: &Path,
    nodes: Option<&BTreeSet<String>>,
    mut tell: impl FnMut(&str),
    path: &OsStr,
) -> Result<Image> {
    if !folder.is_dir() {
        return Err(Error::usage(format!("{} is not a folder", folder.display())).into());
    }
    let (builder, program) = find(path).await?;
    let scratch = tempfile::tempdir().context("make a temporary folder")?;
    let (id_file, file) = (scratch.path().join("id"), scratch.path().join("image.tar"));

    let mut command = quiet(&program);
    command.args(builder.build).arg("--iidfile").arg(&id_file);
    if let Some([platform]) = nodes.map(|nodes| nodes.iter().collect::<Vec<_>>()).as_deref() {
        command.args(["--platform", platform.as_str()]);
    }
    run(command.arg(folder), &mut tell).await.with_context(|| format!("{} build", builder.name))?;
    let id = std::fs::read_to_string(&id_file).with_context(|| format!("{} built no image", builder.name))?;

    let mut command = quiet(&program);
    for word in builder.save {
        let mut filled = OsString::from(word.replace("ID", id.trim()).replace("FILE", ""));
        if word.ends_with("FILE") {
            filled.push(&file);
        }
        command.arg(filled);
    }
    run(&mut command, &mut tell).await.with_context(|| format!("{} {}", builder.name, builder.save[0]))?;
    // It stays open when its folder goes.
    spawn_blocking(move || archive::image(&file, None)).await.context("read what was built")?
}

/// The first that works, and where it is.
async fn find(path: &OsStr) -> Result<(&'static Builder, PathBuf)> {
    let mut why = Vec::new();
    for builder in &BUILDERS {
        let Some(program) = std::env::split_paths(path).map(|dir| dir.join(builder.name)).find(|file| file.is_file())
        else {
            why.push(format!("{}: not on PATH", builder.name));
            continue;
        };
        match run(quiet(&program).args(builder.works), &mut |_| ()).await {
            Ok(()) => return Ok((builder, program)),
            Err(error) => why.push(format!("{}: {}", builder.name, error.root_cause())),
        }
    }
    let none = Error::failed("none of docker, podman and buildah works here")
        .hint("install one of them, or build elsewhere and give --archive or --binary");
    Err(anyhow::Error::msg(why.join("; ")).context(none))
}

fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    // BuildKit's and buildah's word for "no time of day", and BuildKit's for "no note of when and how it was built".
    command.env("SOURCE_DATE_EPOCH", "0").env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end; `tell` gets its output line by line.
async fn run(command: &mut Command, tell: &mut impl FnMut(&str)) -> Result<()> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("start it")?;
    let mut last = VecDeque::new();
    if let Some(output) = child.stderr.take() {
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await.context("read its output")? {
            tell(&line);
            last.push_back(line);
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
    }
    let status = child.wait().await.context("wait for it")?;
    if status.success() {
        return Ok(());
    }
    let words = last.into_iter().collect::<Vec<_>>().join("\n");
    Err(Error::failed(format!("it ended with {status}: {words}")).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::image::sha256;

    /// A folder of programs that stand in for the builders: each runs a shell script.
    fn programs(scripts: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let path = folder.path().join(name);
            let script = format!("#!/bin/sh\necho \"$0 $*\" >> {}/log\n{script}\n", folder.path().display());
            // Written by a child: a file this process had open for writing could be "busy" when it is run.
            let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
            let written = std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(script).status();
            assert!(written.unwrap().success());
        }
        folder
    }

    /// Answers `build` with an image ID, and `save` or `push` with an archive.
    fn works(folder: &Path) -> String {
        let archive = folder.join("archive.tar");
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let manifest = r#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#;
        let mut builder = ::tar::Builder::new(std::fs::File::create(&archive).unwrap());
        for (name, content) in [("c.json", config), ("manifest.json", manifest)] {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        builder.finish().unwrap();
        let take = "for last in \"$@\"; do :; done";
        format!(
            "case $1 in
             build) while [ \"$1\" != --iidfile ]; do shift; done; printf 'sha256:1\\n' > \"$2\";;
             save) while [ \"$1\" != --output ]; do shift; done; cp {0} \"$2\";;
             push) {take}; cp {0} \"${{last#oci-archive:}}\";;
             esac",
            archive.display()
        )
    }

    #[tokio::test]
    async fn the_first_that_works_builds() {
        let context = tempfile::tempdir().unwrap();
        let works = works(context.path());
        let arm = BTreeSet::from(["linux/arm64".to_owned()]);
        for (scripts, nodes, log) in [
            (
                vec![("docker", works.as_str())],
                None,
                ["docker build --iidfile FILE DIR", "docker save --output FILE sha256:1"],
            ),
            (
                vec![("docker", "exit 1"), ("podman", &works)],
                Some(&arm),
                [
                    "podman build --timestamp 0 --iidfile FILE --platform linux/arm64 DIR",
                    "podman save --format oci-archive --output FILE sha256:1",
                ],
            ),
            (
                vec![("buildah", works.as_str())],
                None,
                ["buildah build --timestamp 0 --iidfile FILE DIR", "buildah push sha256:1 oci-archive:FILE"],
            ),
        ] {
            let programs = programs(&scripts);
            let path = programs.path().as_os_str();
            let image = build(context.path(), nodes, |_| (), path).await.unwrap();
            assert_eq!(Vec::from_iter(&image.platforms), ["linux/amd64"]);
            assert_eq!(image.top().unwrap().digest, sha256(&image.top().unwrap().bytes));
            let told = std::fs::read_to_string(programs.path().join("log")).unwrap();
            let temporary = std::env::temp_dir().display().to_string();
            let own = |word: &str| match word.find(&temporary) {
                Some(at) if word.ends_with("/id") || word.ends_with("/image.tar") => format!("{}FILE", &word[..at]),
                _ => word.to_owned(),
            };
            let plain = |line: &str| {
                let line = line.replace(&format!("{}/", programs.path().display()), "");
                let line = line.replace(&context.path().display().to_string(), "DIR");
                line.split(' ').map(own).collect::<Vec<_>>().join(" ")
            };
            let told: Vec<String> = told.lines().map(plain).collect();
            assert_eq!(told[told.len() - 2..], log);
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_in_the_builders_own_words() {
        let context = tempfile::tempdir().unwrap();
        let (works, file) = (works(context.path()), context.path().join("file"));
        std::fs::write(&file, "").unwrap();
        let when = |word: &str, then: &str| format!("[ $1 != {word} ] || {{ {then}; }}\n{works}");
        let (no_base, full) =
            (when("build", "echo no such base >&2; exit 3"), when("save", "echo disk full >&2; exit 1"));
        let (no_push, nothing) = (when("push", "exit 1"), when("build", "exit 0"));
        let daemon = when("version", "echo no daemon >&2; exit 1");
        for (scripts, folder, message) in [
            (vec![("docker", &no_base)], context.path(), "docker build: it ended with exit status: 3: no such base"),
            (vec![("podman", &no_base)], context.path(), "podman build: it ended with exit status: 3: no such base"),
            (vec![("buildah", &no_base)], context.path(), "buildah build: it ended with exit status: 3: no such base"),
            (vec![("docker", &full)], context.path(), "docker save: it ended with exit status: 1: disk full"),
            (vec![("buildah", &no_push)], context.path(), "buildah push: it ended with exit status: 1: "),
            (
                vec![("podman", &nothing)],
                context.path(),
                "podman built no image: No such file or directory (os error 2)",
            ),
            (vec![("docker", &works)], &file, "DIR/file is not a folder"),
            (
                vec![("docker", &daemon)],
                context.path(),
                "none of docker, podman and buildah works here: \
                 docker: it ended with exit status: 1: no daemon; podman: not on PATH; buildah: not on PATH",
            ),
        ] {
            let programs = programs(&scripts.iter().map(|(name, script)| (*name, script.as_str())).collect::<Vec<_>>());
            let error = build(folder, None, |_| (), programs.path().as_os_str()).await.unwrap_err();
            assert_eq!(format!("{error:#}").replace(&context.path().display().to_string(), "DIR"), message);
        }
    }
}
