//! Tests the pages that packages have beside the programs, and what `make install` and `make dist` put where. Whether a
//! release is the same wherever it is built, and says truly what is in it, takes two builds: `make dist-check`.

use serde_json::Value;
use std::io::Write as _;
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
    // Whoever has exported it means a Makefile of another folder.
    make.env_remove("BIN").current_dir(folder).args(["--no-print-directory", goal]).args(variables);
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
    for target in ["here", "there"] {
        let [bin, sbom] = ["release", "sbom"].map(|part| folder.path().join("made").join(target).join(part));
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir(&sbom).unwrap();
        for name in TOOLS.iter().chain(VIEWS).chain(&["appmesh-controller", "capture", "colorapp", "feapp"]) {
            std::fs::write(bin.join(name), format!("#!/bin/sh\necho \"{target}: ${{0##*/}} $*\"\n")).unwrap();
            std::fs::write(sbom.join(format!("{name}.cdx.json")), "{}").unwrap();
        }
    }
    std::fs::write(folder.path().join("made/THIRD-PARTY-LICENSES"), "MIT").unwrap();
    let packed = ["one", "two"].map(|build| {
        let build = folder.path().join(build);
        let of = |variable, path: &Path| format!("{variable}={}", path.display());
        let variables = [of("BUILD", &build), of("MADE", &folder.path().join("made")), "TARGETS=here there".to_owned()];
        make(&root(), "dist", &["dist-programs", "dist-sbom", "dist-licenses"], &variables);
        build.join("dist")
    });
    let sums = packed.each_ref().map(|dist| std::fs::read_to_string(dist.join("SHA256SUMS")).unwrap());
    assert_eq!(sums[0].lines().count(), 3, "{sums:?}");
    assert_eq!(sums[0], sums[1]);
    let script = "sha256sum --check --quiet SHA256SUMS && tar --extract --file crossmesh-*-there.tar.gz && cd crossmesh-*/ && pwd";
    let output = Command::new("bash").args(["-c", script]).current_dir(&packed[0]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let release = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    for file in [
        "bin/sg-open",
        "bin/capture",
        "charts/appmesh-controller/Chart.yaml",
        "manifests/feapp.yaml",
        "sbom/capture.cdx.json",
        "LICENSE",
        "THIRD-PARTY-LICENSES",
    ] {
        assert!(release.join(file).is_file(), "{file}");
    }
    make(&release, "help", &[], &[]);
    // There is nothing to build in it.
    let installed = folder.path().join("installed");
    make(&release, "install", &[], &[format!("DESTDIR={}", installed.display())]);
    let page = std::fs::read_to_string(installed.join("usr/local/share/man/man1/sg-open.1")).unwrap();
    assert_eq!(page, "there: sg-open --generate man\n");
}

/// What may be linked into a program, and what is said of it, is one list.
#[test]
fn licences_of_a_release_are_the_allowed_ones() {
    let list = |file: &str, key: &str| {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let begin = format!("\n{key} = [\n");
        let (_, list) = text.split_once(&begin).unwrap_or_else(|| panic!("{file} has no {key}"));
        list.split_once("\n]").unwrap().0.to_owned()
    };
    assert_eq!(list("release/about.toml", "accepted"), list("deny.toml", "allow"));
}

/// A release has the text of each licence, or is none.
#[test]
fn a_crate_without_its_licence_text_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let package = |name: &str, licence: &str| {
        let manifest = folder.path().join(name).join("Cargo.toml");
        std::fs::create_dir(folder.path().join(name)).unwrap();
        serde_json::json!({
            "name": name, "version": "1.0.0", "license": licence, "repository": null, "manifest_path": manifest,
        })
    };
    let texts = |packages: &[(&str, &Value)]| {
        let licenses = packages.iter().map(|(licence, package)| {
            serde_json::json!({
                "id": licence, "text": format!("{licence}, Copyright <holder>"), "source_path": null,
                "used_by": [{"crate": package}],
            })
        });
        let crates =
            packages.iter().map(|(licence, package)| serde_json::json!({"package": package, "license": licence}));
        let about = serde_json::json!({
            "licenses": licenses.collect::<Vec<_>>(), "crates": crates.collect::<Vec<_>>(),
        });
        let file = folder.path().join("about.json");
        std::fs::write(&file, about.to_string()).unwrap();
        let script = root().join("release/third_party.py");
        let output = Command::new("python3").arg(script).arg(file).current_dir(root()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let (alike, own, bare) = (package("alike", "Apache-2.0"), package("own", "MIT"), package("bare", "MIT"));
    std::fs::write(folder.path().join("own/LICENSE-MIT"), "MIT, Copyright Somebody").unwrap();
    std::fs::create_dir(folder.path().join("own/vendor")).unwrap();
    std::fs::write(folder.path().join("own/vendor/COPYING"), "BSD, Copyright Somebody Else").unwrap();
    std::fs::write(folder.path().join("own/NOTICE"), "Somebody's notice").unwrap();
    let (complete, written, said) = texts(&[("MIT", &own), ("MIT", &bare)]);
    assert!(!complete && written.is_empty() && said.contains("bare 1.0.0 has no text of MIT"), "{said}");
    // What goes with the C library, Debian and Ubuntu say.
    if !Path::new("/usr/share/doc/libc6-dev/copyright").is_file() {
        writeln!(std::io::stderr(), "not tested: this machine has no copyright file of the C library").unwrap();
        return;
    }
    let (complete, written, said) = texts(&[("Apache-2.0", &alike), ("MIT", &own)]);
    assert!(complete, "{said}");
    for text in ["Apache-2.0, Copyright", "Copyright Somebody\n", "Somebody Else", "Somebody's notice"] {
        assert!(written.contains(text), "no {text}");
    }
    for of in ["standard library", "GNU C Library"] {
        assert!(written.contains(of), "nothing of the {of}");
    }
}
