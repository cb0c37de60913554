//! Holds the sources to what no compiler on this machine sees: the tools build on macOS, the Containerfile builds what is
//! here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{TOOLS, VIEWS, root};

/// The crates that the tools are made of, beside their own.
const SHARED: [&str; 4] = ["common", "mesh/objects", "nss", "pod-role"];

/// What only Linux has: its part of the standard library, its system calls, its file systems, its crates.
const LINUX_ONLY: [&str; 11] = [
    "os::linux",
    "linux_ext",
    "libc::",
    "nix::",
    "nlink::",
    "rustix::",
    "\"/proc",
    "\"/sys/",
    "\"/dev/shm",
    "memfd",
    "inotify",
];

/// Crates that build on Linux alone, or are there for what Linux alone has.
const LINUX_CRATES: [&str; 6] = ["capture", "libc", "nix", "nlink", "procfs", "rustix"];

fn folders() -> Vec<PathBuf> {
    let tools = read_dir(root().join("bins")).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = tools.chain(SHARED.map(|name| root().join(name))).collect();
    assert!(folders.len() > TOOLS.len() + SHARED.len(), "{folders:?}");
    folders
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines that only Linux understands, without those of an item under `cfg(target_os = "linux")` and of tests.
fn linux_lines(source: &str) -> Vec<&str> {
    let product = source.split("#[cfg(test)]").next().unwrap_or_default();
    let (mut found, mut guarded) = (Vec::new(), false);
    for line in product.lines() {
        if line.contains("cfg(target_os = \"linux\")") {
            guarded = true;
        } else if guarded {
            // An item ends at the brace, or the semicolon, that stands where the item begins.
            guarded = !(line.starts_with('}') || line.ends_with(';') && !line.starts_with(' '));
        } else if !line.trim_start().starts_with("//") && LINUX_ONLY.iter().any(|word| has(line, word)) {
            found.push(line.trim());
        }
    }
    found
}

/// Whether a line has a word, not as the end of another: `unix::` is no `nix::`.
fn has(line: &str, word: &str) -> bool {
    let ends_another = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(ends_another))
}

#[test]
fn the_tools_use_nothing_that_only_linux_has() {
    let mut sources = Vec::new();
    folders().iter().for_each(|folder| rust_files(&folder.join("src"), &mut sources));
    sources.retain(|path| path.file_name().is_some_and(|name| name != "tests.rs"));
    assert!(sources.len() > 80, "{}", sources.len());
    let found: Vec<String> = sources
        .iter()
        .flat_map(|path| {
            let source = read_to_string(path).unwrap();
            linux_lines(&source).into_iter().map(|line| format!("{}: {line}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn lines_for_linux_alone_are_found_unless_they_are_guarded() {
    for (source, found) in [
        ("use std::os::linux::fs::MetadataExt;", 1),
        ("    let exe = read(\"/proc/self/exe\")?;", 1),
        ("use std::os::unix::fs::FileExt;\nlet hosts = \"/etc/hosts\";", 0),
        ("// as \"/proc/self\" says\n/// libc::getpid", 0),
        ("#[cfg(target_os = \"linux\")]\nuse std::os::linux::fs::MetadataExt;\nuse nix::unistd::getpid;", 1),
        ("#[cfg(target_os = \"linux\")]\nfn f() {\n    libc::getpid();\n}\nfn g() {\n    libc::getpid();\n}", 1),
        ("fn f() {}\n#[cfg(test)]\nmod tests {\n    use nix::unistd::getpid;\n}", 0),
    ] {
        assert_eq!(linux_lines(source).len(), found, "{source}");
    }
}

#[test]
fn the_tools_depend_on_no_crate_that_only_linux_has() {
    for folder in folders() {
        let manifest = read_to_string(folder.join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("\n[").filter(|section| section.starts_with("dependencies]"));
        let names = dependencies.flat_map(str::lines).filter_map(|line| line.split(['.', ' ', '=']).next());
        let found: Vec<&str> = names.filter(|name| LINUX_CRATES.contains(name)).collect();
        assert_eq!(found, Vec::<&str>::new(), "{}", folder.display());
    }
}

fn make(args: &str) -> (bool, String) {
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "BIN=bin"]).args(args.split(' ')).current_dir(root());
    let output = make.env_remove("MAKEFLAGS").output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A plain `cargo build` builds the tools alone; on a Mac, so does make.
#[test]
fn a_mac_builds_the_tools_alone() {
    assert!(read_to_string(root().join("Cargo.toml")).unwrap().contains("\ndefault-members = [\"bins/*\"]\n"));
    assert_eq!(make("-n build MAC="), (true, "cargo build --release --workspace\n".to_owned()));
    assert_eq!(make("-n build MAC=Darwin"), (true, "cargo build --release\n".to_owned()));
    let (done, said) = make("named MAC=Darwin CLUSTER1=a CLUSTER2=b");
    assert!(!done && said.contains("built for Linux: STATIC="), "{said}");
    assert_eq!(make("named MAC=Darwin STATIC=linux CLUSTER1=a CLUSTER2=b"), (true, String::new()));
}

/// What stands behind `key` in the lines of a file, such as the version in `go 1.26.0`.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().trim_matches('"')
}

#[test]
fn the_containerfile_builds_what_is_here() {
    let file = read_to_string(root().join("Containerfile")).unwrap();
    let toolchain = read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let rust = value(&toolchain, "channel = ");
    assert!(file.contains(&format!("\nFROM docker.io/library/rust:{rust}-")), "{rust}");
    assert_eq!(value(&file, "ENV RUSTUP_TOOLCHAIN="), rust);
    let module = read_to_string(root().join("tests/localcloud/parts-go/tools/go.mod")).unwrap();
    let go = value(&module, "go ").rsplit_once('.').unwrap().0;
    assert!(file.contains(&format!("\nFROM docker.io/library/golang:{go}-")), "{go}");
    let helm = module.lines().map(str::trim).find(|line| line.ends_with("/cmd/helm")).unwrap();
    assert!(file.contains(helm), "{helm}");

    let mut copied = 0;
    for line in file.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let (_, sources) = words.split_last().unwrap();
        match sources[0].strip_prefix("--from=") {
            Some(stage) => assert!(file.contains(&format!(" AS {stage}\n")), "{line}"),
            None => sources.iter().for_each(|source| assert!(root().join(source).exists(), "{line}")),
        }
        copied += 1;
    }
    assert!(copied > 5, "{copied}");

    // Whatever is left out of the build is a package, and none that the Makefile needs.
    let left_out: BTreeSet<&str> =
        file.split("--exclude ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    let lock = read_to_string(root().join("Cargo.lock")).unwrap();
    for package in &left_out {
        assert!(lock.contains(&format!("name = \"{package}\"\n")), "{package}");
    }
    let needed = TOOLS.iter().chain(VIEWS).copied().chain(["appmesh-controller", "capture", "colorapp", "feapp"]);
    assert_eq!(needed.filter(|name| left_out.contains(name)).count(), 0);
}
