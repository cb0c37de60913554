//! `--flat`, called as Terraform's data source `external` calls a program: with an empty object on stdin. Exit 0 and an object
//! of strings on stdout are its result, all else is an error with the text of stderr.

use super::red_and_blue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use tests::{error, feed, program, root, run};

/// The programs of the data sources that `docs/terraform.md` shows.
fn programs(page: &str) -> Vec<Vec<String>> {
    let arrays = page.split("program = ").skip(1).map(|rest| &rest[..=rest.find(']').unwrap()]);
    arrays.map(|array| serde_json::from_str(array).unwrap()).collect()
}

fn call(args: &[String], folder: &Path) -> Output {
    let bin = program("color-probe").parent().unwrap().display().to_string();
    let mut command = Command::new("env");
    let path = format!("PATH={bin}:{}", std::env::var("PATH").unwrap());
    command.arg(path).args(args).current_dir(folder).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    feed(&mut command, b"{}").unwrap()
}

#[test]
fn data_sources_work_as_the_page_shows_them() {
    let page = std::fs::read_to_string(root().join("docs/terraform.md")).unwrap();
    let server = red_and_blue();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("build/shop")).unwrap();
    let applied = json!({"apps": {"feapp": {"endpoint": server, "objects": []}}, "cluster": {"name": "shop"}});
    std::fs::write(folder.path().join("build/shop/feapp.json"), applied.to_string()).unwrap();

    let programs = programs(&page);
    assert_eq!(programs.len(), 3, "{programs:?}");
    let (mut results, mut failed) = (BTreeMap::new(), 0);
    for args in &programs {
        let here: Vec<String> = args.iter().map(|arg| arg.replace("http://shop.example.com/", &server)).collect();
        let output = call(&here, folder.path());
        if here[0] == "mesh-check" {
            // Without credentials: what Terraform then shows is the error, and no document is read.
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && output.stdout.is_empty(), "{text}");
            assert_eq!((text.lines().count(), &error(&text)["tool"]), (1, &json!("mesh-check")), "{text}");
            failed += 1;
            continue;
        }
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{here:?}");
        results.extend(serde_json::from_slice::<BTreeMap<String, String>>(&output.stdout).unwrap());
    }
    assert_eq!(failed, 1);
    let named = page.split("probe.result[\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let values: Vec<f64> = named.map(|key| results[key].parse().unwrap()).collect();
    assert!(values.len() == 2 && values.iter().all(|value| *value > 0.0), "{results:?}");
    assert_eq!(results["cluster.name"], "shop");
}

/// What is in the document and not the tool's own is flat, too.
#[test]
fn a_flat_document_has_every_value_as_a_string() {
    let given = json!({"ingress": {"rules": [{"port": 8080, "to": ["a", ["b"], {}]}, {"open": true}], "none": null}});
    let output = run("color-probe", ["--delete", "--flat"], given.to_string().as_bytes()).unwrap();
    let flat: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "ingress.none": "null",
        "ingress.rules[0].port": "8080",
        "ingress.rules[0].to[0]": "a",
        "ingress.rules[0].to[1][0]": "b",
        "ingress.rules[0].to[2]": "{}",
        "ingress.rules[1].open": "true",
        "v": "1",
    });
    assert_eq!(flat, expected);

    // It is no document that another tool would take for one.
    let refused = run("color-probe", ["--delete"], &output.stdout).unwrap();
    assert_eq!(refused.status.code(), Some(3));
    let twice = run("color-probe", ["--delete", "--flat"], br#"{"a.b": 1, "a": {"b": 2}}"#).unwrap();
    let said = String::from_utf8(twice.stderr).unwrap();
    assert_eq!((twice.status.code(), twice.stdout.as_slice()), (Some(3), b"".as_slice()), "{said}");
    assert_eq!(error(&said)["message"], "a.b: two values have this path");
}
