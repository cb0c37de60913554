//! Every step of the flow carries weight: without it the flow fails, and the last error names the true reason. Done after
//! all, the flow ends well.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tests::cloud::Cloud;
use tests::report::Row;
use tests::steps;
use tests::{TOOLS, error, program};

/// A flow without one of its steps.
struct Case {
    /// What is missing, as the report tells it.
    missing: &'static str,
    /// What is made as it should be.
    made: &'static str,
    /// Bash that undoes a step, or fakes its document. `$J` is the folder of the documents, `aws SERVICE OPERATION` a call
    /// with parameters on stdin, `unpushed IMAGE` a document that names an image that nobody has.
    undone: &'static str,
    /// What is made then, and fails.
    goal: &'static str,
    /// What the last error must say.
    reason: &'static [&'static str],
}

const CASES: [Case; 10] = [
    Case {
        missing: "OIDC provider",
        made: "$J/c2/oidc.json",
        undone: r#"jq '{OpenIDConnectProviderArn: .oidc.arn}' $J/c2/oidc.json | aws iam delete_open_id_connect_provider"#,
        goal: "$J/c2/colorapp.json",
        reason: &["manifest-apply", "No OpenIDConnect provider found"],
    },
    Case {
        missing: "role",
        made: "$J/c2/oidc.json",
        undone: r#"jq '.role = {name: "nobody", arn: "arn:aws:iam::123456789012:role/nobody"}' $J/c2/oidc.json > $J/c2/role.json"#,
        goal: "$J/c2/colorapp.json",
        reason: &["manifest-apply", "Not authorized to perform sts:AssumeRoleWithWebIdentity"],
    },
    Case {
        missing: "trust that matches",
        made: "$J/c2/role.json",
        undone: r#"$BIN/irsa-role --service-account other/account < $J/c2/role.json > /dev/null"#,
        goal: "$J/c2/colorapp.json",
        reason: &["manifest-apply", "Not authorized to perform sts:AssumeRoleWithWebIdentity"],
    },
    Case {
        missing: "policy",
        made: "$J/c2/role.json",
        undone: r#"jq '{RoleName: .role.name, PolicyName: "controller"}' $J/c2/role.json | aws iam delete_role_policy"#,
        goal: "$J/c2/colorapp.json",
        reason: &["manifest-apply", "not authorized to perform: servicediscovery:"],
    },
    Case {
        missing: "namespace",
        made: "$J/c2/oidc.json $J/c1/oidc.json $J/c2/settings",
        undone: r#"cp $J/c2/oidc.json $J/c2/namespace-id.json"#,
        goal: "$J/c2/colorapp.json",
        reason: &["manifest-apply", "cloudMap namespace not found: svc2.svc.local"],
    },
    Case {
        missing: "image of the application",
        made: "$J/c2/image-colorapp.json",
        undone: r#"unpushed colorapp"#,
        goal: "$J/c2/colorapp.json",
        reason: &["manifest-apply", "k8multi/colorapp", "not found"],
    },
    Case {
        missing: "image of the controller",
        made: "$J/c2/image-appmesh-controller.json",
        undone: r#"unpushed appmesh-controller"#,
        goal: "$J/c2/mesh.json",
        reason: &["appmesh-install", "k8multi/appmesh-controller", "not found"],
    },
    Case {
        missing: "controller",
        made: "$J/c2/role.json $J/c2/namespace.json $J/c2/image-appmesh-controller.json $J/c2/image-capture.json",
        undone: r#"jq -s 'reduce .[] as $x ({}; . * $x)' $J/c2/role.json $J/c2/image-*.json > $J/c2/mesh.json"#,
        goal: "$J/c2/colorapp.json",
        reason: &["manifest-apply", "the cluster has no kind Mesh"],
    },
    Case {
        missing: "ARN of the other cluster's service",
        made: "$J/c2/colorapp-arn.json",
        undone: r#"sed -i 's|mesh/k8multi/virtualService|mesh/another/virtualService|' $J/c2/colorapp-arn.json"#,
        goal: "probe",
        reason: &[
            "manifest-apply",
            "mesh/another/virtualService/colorapp.k8multi.svc.cluster.local is not of mesh k8multi",
        ],
    },
    Case {
        missing: "open port",
        made: "$J/c1/feapp.json",
        undone: r#"cp $J/c2/oidc.json $J/c2/ingress-nodes.json; cp $J/c2/oidc.json $J/c2/ingress.json"#,
        goal: "probe",
        reason: &["color-probe", "upstream connect error", "sg-open"],
    },
];

#[test]
#[ignore = "minutes: make test-faults"]
fn a_flow_without_any_of_its_steps() {
    let cloud = Cloud::up("test-faults-left-out").unwrap();
    let mut row = Row::new("flow without one of its steps");
    let bin = impatient(&cloud);
    for case in CASES {
        row.tells(without(&cloud, &bin, &case).map_err(|wrong| format!("{}: {wrong}", case.missing)));
        let output = cloud.sh(&steps::make(&cloud, "-j8 -B all")).unwrap();
        let said = || format!("{} at last: {}", case.missing, String::from_utf8_lossy(&output.stdout));
        row.converges(output.status.success().then_some(()).ok_or_else(said));
    }
    row.keep().unwrap();
}

/// Fails as it should, or says how not.
fn without(cloud: &Cloud, bin: &Path, Case { made, undone, goal, reason, .. }: &Case) -> Result<(), String> {
    let documents = cloud.state.join("json");
    let real = program("irsa-role").parent().unwrap().to_path_buf();
    let python = cloud.python().unwrap();
    let mut script = String::new();
    let flow = |goals: &str, bin: &Path| {
        let (bin, real) = (bin.display(), real.display());
        format!(
            "make --no-print-directory -j8 {goals} CLUSTER1=c1 CLUSTER2=c2 COUNT=20 BUILD=$J BIN={bin} STATIC={real}\n"
        )
    };
    let _infallible = write!(
        script,
        "J={} BIN={}\naws() {{ jq -c --arg s $1 --arg o $2 '[$s, $o, .]' | {} tests/aws/call.py; }}\n\
         unpushed() {{ sed -i \"s/sha256:[0-9a-f]*/sha256:$(printf %064d 0)/\" $J/c2/image-$1.json; }}\n",
        documents.display(),
        real.display(),
        python.display()
    );
    let prepare = format!("{script}{}{}{undone}\n", flow("destroy", &real), flow(made, &real));
    let prepared = cloud.sh(&prepare).unwrap();
    if !prepared.status.success() {
        return Err(format!("cannot be tried: {}", String::from_utf8_lossy(&prepared.stderr)));
    }
    let output = cloud.sh(&format!("{script}{}", flow(goal, bin))).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    // Make has the last word.
    let Some(told) = stderr.lines().rev().map(error).find(|error| !error.is_null()) else {
        return Err(format!("{}, no error: {stderr}", output.status));
    };
    let told = told.to_string();
    let right = !output.status.success() && reason.iter().all(|word| told.contains(word));
    right.then_some(()).ok_or_else(|| format!("{}: {told}", output.status))
}

/// Tools that wait for the world less than a minute.
fn impatient(cloud: &Cloud) -> std::path::PathBuf {
    let folder = cloud.state.join("impatient");
    std::fs::create_dir_all(&folder).unwrap();
    for tool in TOOLS {
        let path = folder.join(tool);
        std::fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\" --timeout 40s\n", program(tool).display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}
