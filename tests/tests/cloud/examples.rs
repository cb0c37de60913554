//! The examples, each an application in place of the sample: with make, in one local cloud, from nothing to the answers that
//! examples/README.md shows and back. It needs Linux and root.

use crate::aws_tools::region::until;
use std::process::Command;
use tests::cloud::Cloud;
use tests::steps::make_of;
use tests::{program, readme, root};

/// The folder with the built programs.
fn bin() -> String {
    let bin = program("oidc-assoc").parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    bin.display().to_string()
}

/// A script that runs make for some variables.
fn make(cloud: &Cloud, goal: &str, variables: &str) -> String {
    make_of(cloud, &format!("-j8 {goal} {variables}"))
}

/// The variables of README's commands, each with the folder of its example.
fn variables() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("examples/README.md")).unwrap();
    let commands = text.lines().filter_map(|line| line.strip_prefix("    $ make all -j8 "));
    let folder = |command: &str| command.split_once("examples/")?.1.split('/').next().map(ToOwned::to_owned);
    // Names of README's world, and what they are called here.
    let here = |command: &str| command.replace("=shop ", "=c1 ").replace("=stock ", "=c2 ");
    commands.map(|command| (folder(command).unwrap_or_default(), here(command))).collect()
}

/// The requests that README shows, with their answers.
fn requests() -> Vec<readme::Example> {
    let examples = readme::examples(&std::fs::read_to_string(root().join("examples/README.md")).unwrap());
    let here = |text: &str| text.replace("--context shop", "--context c1").replace("--context stock", "--context c2");
    examples.into_iter().map(|example| readme::Example { command: here(&example.command), ..example }).collect()
}

#[test]
fn every_example_works_and_goes_without_a_trace() {
    let entries = std::fs::read_dir(root().join("examples")).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap());
    let (mut folders, examples): (Vec<String>, _) = (folders.collect(), variables());
    let mut shown: Vec<&str> = examples.iter().map(|(folder, _)| folder.as_str()).collect();
    folders.sort_unstable();
    shown.sort_unstable();
    assert_eq!(folders, shown, "a command for each folder");
    let (_, pair) = examples.iter().find(|(folder, _)| folder == "pair").unwrap();

    let cloud = Cloud::up("test-examples").unwrap();
    let python = cloud.python().unwrap().display().to_string();
    let account = || cloud.stdout(&format!("{python} tests/flow/account.py")).unwrap();
    let before = account();

    // The mesh alone, then with one application after another. None is probed: what it answers is its own matter.
    let alone = cloud.stdout(&make(&cloud, "all", "CLUSTER1=c1 CLUSTER2=c2 MESH_ONLY=yes")).unwrap();
    assert!(alone.contains("\nc1 and c2 are one mesh, ") && !alone.contains("manifest-apply"), "{alone}");
    for (_, variables) in &examples {
        let said = cloud.stdout(&make(&cloud, "all", variables)).unwrap();
        assert!(said.contains(&format!("make destroy {variables}\n")) && !said.contains("color-probe"), "{said}");
    }
    let requests = requests();
    assert!(requests.len() > examples.len(), "{requests:?}");
    for request in &requests {
        assert!(!request.shown.trim().is_empty(), "{request:?}");
        // An Envoy is ready before it has heard of the pods of the other cluster.
        until(&request.command, || cloud.stdout(&request.command).ok().filter(|stdout| request.shows(stdout)));
    }
    let plan = cloud.stdout(&make(&cloud, "plan", pair)).unwrap();
    assert!(plan.ends_with("\n0 to add, 0 to change, 0 to remove\n"), "{plan}");

    // The controllers stay as long as others need them, and nothing is removed by halves.
    let destroy = make(&cloud, "destroy", pair);
    let needed = cloud.sh(&destroy).unwrap();
    let said = String::from_utf8_lossy(&needed.stdout).into_owned();
    assert!(!needed.status.success() && said.contains("Mesh orders"), "{said}");
    let plan = cloud.stdout(&make(&cloud, "plan", pair)).unwrap();
    assert!(plan.ends_with("\n0 to add, 0 to change, 0 to remove\n"), "{plan}");

    // The other applications, each by its document alone, and at last everything.
    let apps = ["c1/web", "c2/backend", "c1/gateway", "c2/api", "c1/app"].map(|document| {
        let file = cloud.state.join("json").join(document).with_extension("json");
        let name = document.split('/').next_back().unwrap();
        format!("{}/manifest-apply {name} --delete < {} > /dev/null & ", bin(), file.display())
    });
    cloud.stdout(&format!("{} for job in $(jobs -p); do wait $job; done", apps.concat())).unwrap();
    let gone = cloud.stdout(&destroy).unwrap();
    assert!(gone.ends_with("\nnothing is left\n"), "{gone}");
    assert_eq!(account(), before);
}

/// Before anybody is asked.
#[test]
fn variables_that_make_no_sense_are_named() {
    for (variables, expected) in [
        ("", "name the clusters"),
        ("CLUSTER1=c1", "name both clusters"),
        ("CLUSTER1=c1 APP2=manifests", "name both clusters"),
        ("CLUSTER1=c1 APP1=manifests MESH_ONLY=yes", "MESH_ONLY applies no application"),
        ("CLUSTER1=c1 CLUSTER2=c2 NAMESPACE=shop.internal", "the sample is in svc2.svc.local"),
        ("CLUSTER1=c1 APP1=nowhere.yaml", "there is no nowhere.yaml"),
        ("CLUSTER1=c1 APP1=mesh", "a step is called mesh"),
    ] {
        for goal in ["all", "plan", "check", "map", "destroy", "plan-destroy"] {
            let bin = format!("BIN={}", bin());
            let mut make = Command::new("make");
            make.args(["--no-print-directory", goal, &bin]).args(variables.split_whitespace()).current_dir(root());
            let output = make.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(2) && said.contains(expected), "make {goal} {variables}: {said}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "make {goal} {variables}");
        }
    }
}
