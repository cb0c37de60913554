//! Tests the pages that packages have beside the programs, and what `make install` and `make dist` put where.

use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{TOOLS, VIEWS, program, root, run};

/// What `make install` installs beside the programs.
#[test]
fn pages_are_of_every_option() {
    for tool in TOOLS.iter().chain(VIEWS) {
        let help = run(tool, ["--help"], b"").expect(tool).stdout;
        let help = String::from_utf8(help).unwrap();
        // `  -n, --null-input` or `      --plan`.
        let described = help.lines().filter_map(|line| line.strip_prefix("      ").or(line.strip_prefix("  ")));
        let described = described.filter(|option| option.starts_with('-'));
        let options: Vec<&str> =
            described.filter_map(|option| option.split_whitespace().find(|word| word.starts_with("--"))).collect();
        assert!(options.contains(&"--help"), "{tool}: {options:?}");
        for kind in ["man", "complete-bash", "complete-fish", "complete-zsh"] {
            let output = run(tool, ["--generate", kind], b"").expect(tool);
            assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{tool} {kind}");
            // In a manual page a hyphen is escaped.
            let page = String::from_utf8(output.stdout).unwrap().replace('\\', "");
            assert!(page.contains(tool), "{tool} {kind}: {page}");
            for option in &options {
                let name = if kind == "complete-fish" { format!("-l {}", &option[2..]) } else { (*option).to_owned() };
                assert!(page.contains(&name), "{tool} {kind}: no {name}");
            }
        }
        let misused = run(tool, ["--generate", "man", "--version-of"], b"").expect(tool);
        assert_eq!(misused.status.code(), Some(2), "{tool}");
    }
}

/// bash completes an option that was begun.
#[test]
fn bash_completes() {
    let script = r#"source <("$0" --generate complete-bash)
        COMP_WORDS=(sg-open --from-c) COMP_CWORD=1
        "$(complete -p sg-open | grep -o '_sg[^ ]*')" sg-open --from-c sg-open
        echo "${COMPREPLY[@]}""#;
    let output = Command::new("bash").args(["-c", script]).arg(program("sg-open")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--from-cluster\n", "{output:?}");
}

/// Runs make, which takes these goals as done.
fn make(folder: &Path, goal: &str, done: &[&str], variables: &[String]) {
    let mut make = Command::new("make");
    make.current_dir(folder).args(["--no-print-directory", goal]).args(variables);
    make.args(done.iter().flat_map(|goal| ["-o", goal]));
    let output = make.output().unwrap();
    assert!(output.status.success(), "{goal}: {output:?}");
}

#[test]
fn make_installs_programs_and_pages() {
    let folder = tempfile::tempdir().unwrap();
    let bin = program("sg-open").parent().unwrap().display().to_string();
    let variables = [format!("DESTDIR={}", folder.path().display()), format!("BIN={bin}"), "PREFIX=/usr".to_owned()];
    make(&root(), "install", &[], &variables);
    for tool in TOOLS.iter().chain(VIEWS) {
        let version = Command::new(folder.path().join("usr/bin").join(tool)).arg("--version").output().unwrap();
        assert!(version.status.success(), "{tool}: {version:?}");
        for page in [
            format!("man/man1/{tool}.1"),
            format!("bash-completion/completions/{tool}"),
            format!("fish/vendor_completions.d/{tool}.fish"),
            format!("zsh/site-functions/_{tool}"),
        ] {
            let text = std::fs::read_to_string(folder.path().join("usr/share").join(&page));
            assert!(text.is_ok_and(|text| text.contains(tool)), "{page}");
        }
    }
}

/// Two releases of the same files are the same, and one that is unpacked has what the Makefile names.
#[test]
fn make_packs_a_release() {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("programs");
    std::fs::create_dir(&bin).unwrap();
    for name in TOOLS.iter().chain(VIEWS).chain(&["appmesh-controller", "capture", "colorapp", "feapp"]) {
        std::fs::write(bin.join(name), "#!/bin/sh\necho \"${0##*/} $*\"\n").unwrap();
    }
    let packed = ["one", "two"].map(|build| {
        let build = folder.path().join(build);
        make(&root(), "dist", &["build"], &[format!("BUILD={}", build.display()), format!("BIN={}", bin.display())]);
        build.join("dist")
    });
    let sums = packed.each_ref().map(|dist| std::fs::read_to_string(dist.join("SHA256SUMS")).unwrap());
    assert_eq!(sums[0].lines().count(), 2, "{sums:?}");
    assert_eq!(sums[0], sums[1]);
    let script =
        "sha256sum --check --quiet SHA256SUMS && tar --extract --file crossmesh-*.tar.gz && cd crossmesh-*/ && pwd";
    let output = Command::new("bash").args(["-c", script]).current_dir(&packed[0]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let release = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    for file in
        ["bin/sg-open", "bin/capture", "charts/appmesh-controller/Chart.yaml", "manifests/feapp.yaml", "LICENSE"]
    {
        assert!(release.join(file).is_file(), "{file}");
    }
    make(&release, "help", &[], &[]);
    // There is nothing to build in it.
    let installed = folder.path().join("installed");
    make(&release, "install", &[], &[format!("DESTDIR={}", installed.display())]);
    let page = std::fs::read_to_string(installed.join("usr/local/share/man/man1/sg-open.1")).unwrap();
    assert_eq!(page, "sg-open --generate man\n");
}
