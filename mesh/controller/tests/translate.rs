//! Translates `tests/translate/FEATURE.in.yaml`, with `FEATURE.peer.yaml` as another cluster's where there is one, and
//! compares what comes of it with the golden files beside it. `SNAPSHOTS=overwrite` writes them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn inputs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/translate");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    inputs.sort();
    inputs
}

fn translate(input: &Path, options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_appmesh-controller"));
    command.args(["translate", "-f"]).arg(input).args(options);
    let peer = sibling(input, "peer.yaml");
    if peer.exists() {
        command.arg("--peer").arg(peer);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn sibling(input: &Path, extension: &str) -> PathBuf {
    let name = input.file_name().unwrap().to_string_lossy().replace("in.yaml", extension);
    input.with_file_name(name)
}

fn compare(extension: &str, options: &[&str]) {
    let assert = snapbox::Assert::new().action_env("SNAPSHOTS");
    let inputs = inputs();
    assert!(!inputs.is_empty());
    for input in inputs {
        let golden = snapbox::Data::read_from(&sibling(&input, extension), None);
        assert.eq(translate(&input, options), golden.raw());
    }
}

#[test]
fn manifests_become_a_model() {
    compare("model.json", &[]);
}

#[test]
fn manifests_become_envoy_configuration() {
    compare("envoy.json", &["--envoy"]);
}
