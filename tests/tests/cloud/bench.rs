//! The bench of the controller with many nodes, here with few: it still fits the controller, and what has no unit of time is
//! as it must be. It needs Linux and root.

use serde_json::Value;
use tests::cloud::Cloud;
use tests::program;

#[test]
fn the_bench_measures_and_a_weight_goes_to_its_users_alone() {
    let cloud = Cloud::up("test-bench").expect("localcloud");
    let work = cloud.state.join("scale");
    std::fs::create_dir(&work).unwrap();
    let calls = cloud.state.join("log/aws-api.log");
    let [scale, controller] = ["scale", "appmesh-controller"].map(|name| program(name).display().to_string());
    let (work, calls) = (work.display().to_string(), calls.display().to_string());
    let words = [&scale, "--controller", &controller, "--calls", &calls, "--work", &work];
    let mesh = ["--nodes", "20", "--pods", "2", "--sidecars", "4", "--seconds", "5", "--remote", "2", "--rest", "0"];
    let output = cloud.run(words.into_iter().chain(mesh), b"").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sidecars = &figures["sidecars"][0];
    assert_eq!((&figures["pods"], &sidecars["count"]), (&40.into(), &4.into()), "{figures}");
    assert_eq!(sidecars["churn"]["came"]["count"], 5, "{figures}");
    let weights = sidecars["weights"].as_array().unwrap();
    assert!(!weights.is_empty(), "{figures}");
    for weight in weights {
        assert_eq!(weight["sent"], weight["users"], "{weight}");
        assert_eq!(weight["sent_others"], 0, "{weight}");
    }
}
