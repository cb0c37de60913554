//! The tools that ask only AWS, against the local cloud: what drifts is repaired, what others made stays theirs, what
//! was made goes away again, and output fed back in changes nothing.
//!
//! One cloud serves the whole file, so this is one test; each tool has a function. It needs Linux and root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use serde_json::{Value, json};
use std::process::Output;
use tests::cloud::Cloud;
use tests::{program, root};

/// What a tool printed: the document, and its stderr.
struct Said {
    document: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.document).unwrap()
    }

    #[track_caller]
    fn tells(&self, text: &str) {
        assert!(self.stderr.contains(text), "{text:?} is not in: {}", self.stderr);
    }
}

struct Region(Cloud);

impl Region {
    /// Runs `TOOL ARGS` and expects that exit code.
    #[track_caller]
    fn exits(&self, code: i32, command: &str, document: &str) -> Said {
        let mut words = command.split(' ');
        let tool = program(words.next().unwrap()).into_os_string();
        let output: Output =
            self.0.run(std::iter::once(tool).chain(words.map(Into::into)), document.as_bytes()).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}: {stderr}");
        Said { document: String::from_utf8(output.stdout).unwrap(), stderr }
    }

    #[track_caller]
    fn done(&self, command: &str, document: &str) -> Said {
        self.exits(0, command, document)
    }

    /// The same document again: nothing to do, and not a byte changes.
    #[track_caller]
    fn steady(&self, command: &str, document: &str) {
        let again = self.done(command, document);
        again.tells("nothing to do");
        assert_eq!(again.document, document, "{command}");
    }

    /// A change behind the tools' back.
    #[track_caller]
    fn aws(&self, service: &str, operation: &str, parameters: &Value) -> Value {
        let (python, call) = (self.0.python().unwrap(), root().join("tests/aws/call.py"));
        let command = [python.as_os_str(), call.as_os_str(), service.as_ref(), operation.as_ref()];
        let output = self.0.run(command, parameters.to_string().as_bytes()).unwrap();
        assert!(output.status.success(), "{service} {operation}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn drift_conflicts_and_deletion() {
    let region = Region(Cloud::up("test-aws-tools").unwrap());
    let one = region.done("oidc-assoc -n --cluster c1", "").document;
    let two = region.done("oidc-assoc -n --cluster c2", "").document;
    oidc_assoc(&region, &one);
    irsa_role(&region, &one, &two);
    cloudmap_ns(&region, &two);
    let peer = region.0.state.join("one.json");
    std::fs::write(&peer, &one).unwrap();
    sg_open(&region, &two, &format!("sg-open --from {}", peer.display()));
}

fn oidc_assoc(region: &Region, one: &str) {
    region.steady("oidc-assoc", one);
    let arn = serde_json::from_str::<Value>(one).unwrap()["oidc"]["arn"].take();
    let audience = json!({"OpenIDConnectProviderArn": arn, "ClientID": "sts.amazonaws.com"});
    region.aws("iam", "remove_client_id_from_open_id_connect_provider", &audience);
    region.done("oidc-assoc --plan", one).tells("would add audience sts.amazonaws.com");
    assert_eq!(region.done("oidc-assoc", one).document, one);
}

fn irsa_role(region: &Region, one: &str, two: &str) {
    let name = json!({"RoleName": "c1-appmesh-controller"});
    let on_role = |more: Value| {
        let mut all = name.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    let (ours, theirs) = ("arn:aws:iam::aws:policy/AWSCloudMapFullAccess", "arn:aws:iam::aws:policy/ReadOnlyAccess");

    let made = region.done("irsa-role", one);
    assert_eq!(made.json()["role"]["policies"], json!([ours]));
    region.steady("irsa-role", &made.document);

    region.aws("iam", "detach_role_policy", &on_role(json!({"PolicyArn": ours})));
    region.aws("iam", "update_assume_role_policy", &on_role(json!({"PolicyDocument": trust})));
    region.aws("iam", "attach_role_policy", &on_role(json!({"PolicyArn": theirs})));
    let drift = region.done("irsa-role --plan", &made.document);
    drift.tells("would put the trust policy of role c1-appmesh-controller right");
    drift.tells(&format!("would attach {ours}"));
    let repaired = region.done("irsa-role", &made.document);
    repaired.tells("ReadOnlyAccess, which others attached");
    assert_eq!(repaired.document, made.document);
    region.steady("irsa-role", &made.document);

    region.exits(4, "irsa-role --role c1-appmesh-controller", two).tells("made for arn:aws:eks:");
    let kept = region.done("irsa-role --delete", &made.document);
    kept.tells("left alone: role c1-appmesh-controller: others attached");
    kept.tells(&format!("detach {ours}"));
    region.aws("iam", "detach_role_policy", &on_role(json!({"PolicyArn": theirs})));
    region.done("irsa-role -n --cluster c1 --delete", "").tells("delete role");
    region.done("irsa-role -n --cluster c1 --delete", "").tells("nothing to do");

    region.aws("iam", "create_role", &json!({"RoleName": "theirs", "AssumeRolePolicyDocument": trust}));
    region.exits(4, "irsa-role --role theirs", one).tells("not made by crossmesh");
    region.done("irsa-role --role theirs --delete", one).tells("left alone: role theirs");
    let adopted = region.done("irsa-role --role theirs --adopt", one);
    region.steady("irsa-role", &adopted.document);
    region.done("irsa-role --delete", &adopted.document).tells("delete role theirs");

    let many = "irsa-role --service-account jobs/* --service-account web/front --role jobs --path /mesh/ --tag team=a \
                --policy AmazonEBSCSIDriverPolicy --policy ViewOnlyAccess \
                --permissions-boundary arn:aws:iam::aws:policy/PowerUserAccess";
    let many = region.done(many, one);
    assert_eq!(many.json()["role"]["arn"], "arn:aws:iam::123456789012:role/mesh/jobs");
    region.steady("irsa-role", &many.document);
    let fewer = region.done("irsa-role --policy ViewOnlyAccess", &many.document);
    fewer.tells("detach arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy");
    region.done("irsa-role --delete", &fewer.document).tells("delete role jobs");
}

fn cloudmap_ns(region: &Region, two: &str) {
    let made = region.done("cloudmap-ns", two);
    region.steady("cloudmap-ns", &made.document);
    let namespace = &made.json()["namespace"];
    let (id, vpc) = (&namespace["id"], namespace["vpc"].as_str().unwrap());

    let service =
        region.aws("servicediscovery", "create_service", &json!({"Name": "theirs", "NamespaceId": id, "Type": "HTTP"}));
    let kept = region.done("cloudmap-ns --delete", &made.document);
    kept.tells("still has services, which their makers must delete: theirs");
    region.aws("servicediscovery", "delete_service", &json!({"Id": service["Service"]["Id"]}));
    region.done("cloudmap-ns --delete", &made.document).tells("delete namespace");
    region.done("cloudmap-ns -n --cluster c2 --delete", "").tells("nothing to do");

    // Of others, and the same name elsewhere.
    let elsewhere = region.aws("ec2", "create_vpc", &json!({"CidrBlock": "10.9.0.0/16"}));
    let elsewhere = elsewhere["Vpc"]["VpcId"].as_str().unwrap();
    for vpc in [vpc, elsewhere] {
        let create = json!({"Name": "theirs.local", "Vpc": vpc});
        region.aws("servicediscovery", "create_private_dns_namespace", &create);
    }
    // Their creation may still be going on; then ours fails on theirs and takes it, as it should.
    let used = region.done("cloudmap-ns --name theirs.local", two);
    region.done("cloudmap-ns", &used.document).tells(&format!("is in {elsewhere}"));
    region.done("cloudmap-ns", &used.document).tells("others made it");
    region.done("cloudmap-ns --delete", &used.document).tells("not made by crossmesh");
    assert_eq!(region.done("cloudmap-ns --adopt", &used.document).document, used.document);
    region.done("cloudmap-ns --delete", &used.document).tells("delete namespace theirs.local");

    let apart = region.0.state.join("apart.json");
    std::fs::write(&apart, two.replace(vpc, elsewhere).replace("cluster/c2", "cluster/c9")).unwrap();
    let apart = region.exits(4, &format!("cloudmap-ns --from {}", apart.display()), two);
    apart.tells(vpc);
    apart.tells(elsewhere);
}

fn sg_open(region: &Region, two: &str, from_one: &str) {
    region.exits(3, "sg-open", two).tells("no cluster to let in");
    let made = region.done(from_one, two);
    region.steady(from_one, &made.document);
    region.steady("sg-open", &made.document);
    let rule = made.json()["ingress"]["rules"][0].clone();
    let group = &rule["securityGroup"];

    region.aws(
        "ec2",
        "revoke_security_group_ingress",
        &json!({"GroupId": group, "SecurityGroupRuleIds": [rule["id"]]}),
    );
    region.done("sg-open --plan", &made.document).tells("would open port 8080");
    let repaired = region.done("sg-open", &made.document);
    let more = region.done("sg-open --port 9901 --port 8080", &repaired.document);
    assert_eq!(more.json()["ingress"]["ports"], json!([8080, 9901]));
    let gone = region.done("sg-open -n --cluster c2 --from-cluster c1 --delete", "");
    assert_eq!(gone.stderr.matches("revoke rule").count(), 2, "{}", gone.stderr);
    region.done("sg-open -n --cluster c2 --from-cluster c1 --delete", "").tells("nothing to do");

    let range = json!({"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 9000, "UserIdGroupPairs": [{"GroupId": rule["source"]}]});
    region.aws("ec2", "authorize_security_group_ingress", &json!({"GroupId": group, "IpPermissions": [range]}));
    let used = region.done(from_one, two);
    used.tells("which others made");
    region.done("sg-open --delete", &used.document).tells("left alone: rule");
    assert_eq!(region.done(from_one, two).document, used.document);
}
