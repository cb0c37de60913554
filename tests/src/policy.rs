//! Makes the IAM policies of `policies/` from the actions they must allow; its README.md says why each is as it is.
//!
//! Source of the resources: the service authorization reference, "Actions, resources, and condition keys".

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Associations, and the cluster that they are made in.
const ASSOCIATIONS: [&str; 2] = ["arn:*:eks:*:*:cluster/*", "arn:*:eks:*:*:podidentityassociation/*"];

/// The statement of an action, and what it may be done to. Who adds an action decides where it belongs. Patterns name no partition, so that they fit each.
#[expect(clippy::panic, reason = "a test stops at an action that nobody has placed")]
fn place(action: &str) -> (&'static str, &'static [&'static str]) {
    let (service, operation) = action.split_once(':').unwrap_or((action, ""));
    match (service, operation) {
        ("ec2", "CreateTags") => ("SecurityGroupRuleTags", &["arn:*:ec2:*:*:security-group-rule/*"]),
        ("ec2", "AuthorizeSecurityGroupIngress" | "RevokeSecurityGroupIngress") => {
            ("SecurityGroups", &["arn:*:ec2:*:*:security-group/*", "arn:*:ec2:*:*:security-group-rule/*"])
        }
        ("ecr", "GetAuthorizationToken") | ("ec2", _) | ("iam", "GetPolicy" | "ListPolicies" | "ListRoles") => {
            ("Everywhere", &["*"])
        }
        ("ecr", _) => ("Repositories", &["arn:*:ecr:*:*:repository/k8multi/*"]),
        ("eks", "TagResource") => ("PodIdentity", &ASSOCIATIONS),
        ("eks", _) if operation.contains("PodIdentityAssociation") => ("PodIdentity", &ASSOCIATIONS),
        ("eks", _) => ("Clusters", &["arn:*:eks:*:*:addon/*", "arn:*:eks:*:*:cluster/*", "arn:*:eks:*:*:nodegroup/*"]),
        ("iam", _) if operation.contains("OpenIDConnectProvider") => {
            ("IdentityProviders", &["arn:*:iam::*:oidc-provider/oidc?eks.*"])
        }
        ("iam", "PassRole") => ("RolesForPods", &["arn:*:iam::*:role/*-appmesh-controller"]),
        ("iam", _) => ("Roles", &["arn:*:iam::*:role/*-appmesh-controller"]),
        ("route53", "ChangeResourceRecordSets" | "DeleteHostedZone" | "GetHostedZone") => {
            ("HostedZones", &["arn:*:route53:::hostedzone/*"])
        }
        (
            "servicediscovery",
            "CreateService"
            | "DeleteNamespace"
            | "DeleteService"
            | "DeregisterInstance"
            | "DiscoverInstances"
            | "GetInstancesHealthStatus"
            | "ListInstances"
            | "RegisterInstance",
        ) => ("CloudMap", &["arn:*:servicediscovery:*:*:namespace/*", "arn:*:servicediscovery:*:*:service/*"]),
        ("route53" | "servicediscovery", _) => ("Everywhere", &["*"]),
        _ => panic!("{action}: in no statement"),
    }
}

/// An IAM policy that allows these actions.
pub fn allowing<'a>(actions: impl IntoIterator<Item = &'a String>) -> Value {
    let mut statements: BTreeMap<&str, (&[&str], Vec<&String>)> = BTreeMap::new();
    for action in actions {
        let (sid, resources) = place(action);
        statements.entry(sid).or_insert((resources, Vec::new())).1.push(action);
    }
    let statements = statements.into_iter().map(|(sid, (resources, actions))| {
        let mut statement = json!({"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources});
        let condition = match sid {
            "RolesForPods" => Some(("iam:PassedToService", "pods.eks.amazonaws.com")),
            "SecurityGroupRuleTags" => Some(("ec2:CreateAction", "AuthorizeSecurityGroupIngress")),
            _ => None,
        };
        if let Some((key, value)) = condition {
            statement["Condition"] = json!({"StringEquals": {key: value}});
        }
        statement
    });
    json!({"Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>()})
}

/// The actions that a policy allows.
pub fn actions(policy: &Value) -> Vec<String> {
    let lists = policy["Statement"].as_array().into_iter().flatten().filter_map(|one| one["Action"].as_array());
    lists.flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
