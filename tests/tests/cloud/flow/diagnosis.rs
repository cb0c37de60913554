//! mesh-check in a mesh that stands: it finds nothing, and then what is broken on purpose, by its codes.

use super::Flow;
use crate::aws_tools::region::until;
use serde_json::{Value, json};
use tests::steps::EVER;

/// Breaks what AWS has for the mesh: the rule into cluster 2, cluster 1's identity provider, and a pod's instance.
const BREAK: &str = "import boto3, json, sys\n\
    ec2, iam, cm = (boto3.client(name) for name in ('ec2', 'iam', 'servicediscovery'))\n\
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=json.load(sys.stdin)['oidc']['arn'])\n\
    for rule in ec2.describe_security_group_rules()['SecurityGroupRules']:\n    \
        if any(tag['Key'] == 'crossmesh:to' for tag in rule.get('Tags', [])):\n        \
            id = rule['SecurityGroupRuleId']\n        \
            ec2.revoke_security_group_ingress(GroupId=rule['GroupId'], SecurityGroupRuleIds=[id])\n\
    for service in cm.list_services()['Services']:\n    \
        for i in cm.list_instances(ServiceId=service['Id'])['Instances']:\n        \
            if i['Attributes'].get('k8s.io/pod', '').startswith('colorapp-blue'):\n            \
                cm.deregister_instance(ServiceId=service['Id'], InstanceId=i['Id'])\n";

/// A mesh as it was made has nothing wrong.
pub fn finds_nothing(flow: &Flow) {
    assert_eq!(codes(flow), [""; 0]);
}

/// While Cloud Map refuses what other clusters are to hear of a VirtualService, its condition says so.
pub fn tells_what_is_not_published(flow: &Flow) {
    let refused = json!({"kind": "error", "status": 403, "code": "AccessDeniedException", "message": "not you",
        "action": ["servicediscovery:RegisterInstance"], "times": EVER});
    let fault = flow.cloud.fault(&refused).unwrap();
    let path = "/spec/routes/0/httpRoute/action/weightedTargets/0/weight";
    let weigh = |weight: u32| {
        let patch = json!([{"op": "replace", "path": path, "value": weight}]);
        flow.sh(&format!(
            "kubectl --context c2 -n k8multi patch virtualrouter colorapp-router --type json -p '{patch}'"
        ))
    };
    let condition = |field: &str| {
        let of = format!("-o jsonpath='{{.status.conditions[0].{field}}}'");
        flow.sh(&format!("kubectl --context c2 -n k8multi get virtualservices.appmesh.k8s.aws colorapp {of}"))
    };
    weigh(2);
    until("it is not published", || Some(()).filter(|()| condition("reason") == "NotPublished"));
    assert_eq!(condition("status"), "True");
    assert!(condition("message").contains("not you"), "{}", condition("message"));
    drop(fault);
    weigh(1);
    until("it is published", || Some(()).filter(|()| condition("reason") == "Active"));
}

/// Broken in six places, it has what they are found by. What destroy needs is mended again.
pub fn names_what_is_broken(flow: &Flow) {
    // Envoys may have rejected what other tests tried.
    let before = codes(flow);
    let kubectl = |command: &str| flow.sh(&format!("kubectl --context c2 {command}"));
    kubectl("-n k8multi delete virtualnodes.appmesh.k8s.aws colorapp-red");
    let account = "-n appmesh-system annotate serviceaccount appmesh-controller";
    let role = flow.json("c2", "role")["role"]["arn"].as_str().unwrap().to_owned();
    kubectl(&format!("{account} eks.amazonaws.com/role-arn-"));
    // With a controller the pod would be registered again.
    let scale = "-n appmesh-system scale deployment appmesh-controller --replicas";
    kubectl(&format!("{scale} 0"));
    kubectl("-n appmesh-system wait --for=delete pod -l app.kubernetes.io/name=appmesh-controller --timeout 60s");
    let script = flow.cloud.state.join("break.py");
    std::fs::write(&script, BREAK).unwrap();
    let (python, oidc) = (flow.cloud.python().unwrap(), flow.build.join("c1/oidc.json"));
    flow.sh(&format!("{} {} < {}", python.display(), script.display(), oidc.display()));
    // The service account has no role; the issuer no provider; nobody is let in; a route leads nowhere, and the webhook would
    // refuse the pods that its VirtualNode had; a pod is not registered; no controller runs.
    let expected = ["XM0202", "XM0203", "XM0303", "XM0406", "XM0420", "XM0505", "XM0704"];
    let new = || codes(flow).into_iter().filter(|code| !before.contains(code)).collect::<Vec<_>>();
    until("the instance is gone", || Some(()).filter(|()| new().contains(&"XM0505".to_owned())));
    assert_eq!(new(), expected);
    kubectl(&format!("{account} eks.amazonaws.com/role-arn={role}"));
    kubectl(&format!("{scale} 2"));
    kubectl("-n appmesh-system rollout status deployment appmesh-controller --timeout 120s");
}

/// The codes that mesh-check finds, each once.
fn codes(flow: &Flow) -> Vec<String> {
    let run = flow.cloud.sh(&format!("{} -n --cluster c1 --and-cluster c2", Flow::tool("mesh-check"))).unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    let lines = stderr.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("XM")));
    let mut codes: Vec<String> = lines.map(str::to_owned).collect();
    codes.dedup();
    // A run that could not look at something would find nothing, too.
    assert!(!stderr.contains("not looked at"), "{stderr}");
    if run.status.success() {
        let document: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert!(document["check"]["passed"].as_array().is_some_and(|passed| passed.len() > 90), "{document}");
    }
    codes
}
