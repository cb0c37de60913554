//! Holds the chart to the options that the controller has: an unknown one would keep every replica from starting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use std::{path::Path, process::Command};

#[test]
fn the_chart_passes_options_that_there_are() {
    let template =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/appmesh-controller/templates/deployment.yaml");
    let template = std::fs::read_to_string(template).unwrap();
    let passed: Vec<_> = template
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- '--"))
        .map(|option| option.split('=').next().unwrap())
        .collect();
    assert!(passed.contains(&"sidecar-image"), "{passed:?}");
    let help = Command::new(env!("CARGO_BIN_EXE_appmesh-controller")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let known = |option: &&&str| help.split_whitespace().any(|word| word.strip_prefix("--") == Some(**option));
    let unknown: Vec<_> = passed.iter().filter(|option| !known(option)).collect();
    assert!(unknown.is_empty(), "the controller has no options {unknown:?}:\n{help}");
}
