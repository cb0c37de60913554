//! pod-identity: the association of a service account with its role, and the way from irsa-role and back.

use super::region::{Region, with};
use serde_json::{Value, json};

const WISH: &str = "--service-account jobs/report --policy ReadOnlyAccess --tag team=mesh";
const ARN: &str = "arn:aws:iam::123456789012:role/c1-report";
const TRUST: &str = "put the trust policy of role c1-report right";
const DISSOCIATE: &str = "delete the association of jobs/report";
/// What the role remembers it by.
const RECORD: &str = "crossmesh:association/a9719b54";

/// The association that there is; null if there is none.
fn association(region: &Region) -> Value {
    let named = json!({"clusterName": "c1", "namespace": "jobs", "serviceAccount": "report"});
    let listed = region.aws("eks", "list_pod_identity_associations", named);
    let Some(id) = listed["associations"][0]["associationId"].as_str() else { return Value::Null };
    let named = json!({"clusterName": "c1", "associationId": id});
    region.aws("eks", "describe_pod_identity_association", named)["association"].take()
}

pub fn drift(region: &Region, one: &str) {
    let command = format!("pod-identity {WISH}");
    let associate = format!("associate jobs/report with {ARN}");
    let agent = json!({"clusterName": "c1", "addonName": "eks-pod-identity-agent"});
    region.aws("eks", "create_addon", agent.clone());
    let made = region.repairs(
        &command,
        one,
        &["create role c1-report", "attach arn:aws:iam::aws:policy/ReadOnlyAccess to role c1-report", &associate],
        &["iam:CreateRole", "iam:AttachRolePolicy", "iam:TagRole", "eks:CreatePodIdentityAssociation", "iam:TagRole"],
    );
    assert_eq!(made.lines("cluster c1 has no add-on"), [""; 0]);
    let found = association(region);
    assert_eq!(made.json()["role"]["associations"], json!({"jobs/report": found["associationId"]}));
    assert_eq!((&found["roleArn"], &found["tags"]), (&json!(ARN), &json!({"managed-by": "crossmesh", "team": "mesh"})));
    let made = made.document;
    let restores = |changes: &[&str], writes: &[&str]| region.restores("pod-identity", &made, changes, writes);

    // Without the agent nothing fails, but the way out is told.
    region.aws("eks", "delete_addon", agent);
    region.steady("pod-identity", &made).tells(
        "cluster c1 has no add-on eks-pod-identity-agent: pods get no credentials until it has one: \
         aws eks create-addon --cluster-name c1 --addon-name eks-pod-identity-agent",
    );

    let named = json!({"clusterName": "c1", "associationId": found["associationId"]});
    let update = |parameters: Value| region.aws("eks", "update_pod_identity_association", with(&named, parameters));
    update(json!({"disableSessionTags": true}));
    restores(&["put the association of jobs/report right"], &["eks:UpdatePodIdentityAssociation"]);
    region.aws("eks", "untag_resource", json!({"resourceArn": found["associationArn"], "tagKeys": ["team"]}));
    restores(&["tag the association of jobs/report team=mesh"], &["eks:TagResource"]);
    region.aws("eks", "delete_pod_identity_association", named);
    let again =
        region.repairs("pod-identity", &made, &[&associate], &["eks:CreatePodIdentityAssociation", "iam:TagRole"]);
    assert_ne!(again.document, made, "an association has another id each time");

    let several = region.fails(3, "pod-identity --service-account jobs/*", one);
    assert_eq!(several["message"], "role.serviceAccounts: jobs/* stands for several, an association for one");
    let off = ["eks:DeletePodIdentityAssociation", "iam:DetachRolePolicy", "iam:DeleteRole"];
    region.deletes("pod-identity", &again.document, &[], &off);
    assert_eq!(association(region), Value::Null);
}

/// The one tool goes on with what the other left, from its document or from nothing.
pub fn there_and_back(region: &Region, one: &str) {
    let tokens = region.done(&format!("irsa-role {WISH}"), one).document;
    let associate = format!("associate jobs/report with {ARN}");
    let remember = format!("tag role c1-report {RECORD}=jobs/report");
    let there: &[&str] = &[&remember, TRUST, &associate];
    let writes = ["iam:TagRole", "iam:UpdateAssumeRolePolicy", "eks:CreatePodIdentityAssociation", "iam:TagRole"];
    let pods = region.repairs("pod-identity", &tokens, there, &writes);
    let forget = format!("untag role c1-report {RECORD}");
    let back: &[&str] = &[TRUST, DISSOCIATE, &forget];
    let writes_back = ["iam:UpdateAssumeRolePolicy", "eks:DeletePodIdentityAssociation", "iam:UntagRole"];
    let again = region.repairs("irsa-role", &pods.document, back, &writes_back);
    assert_eq!(again.document, tokens);
    region.repairs(&format!("pod-identity -n --cluster c1 {WISH}"), "", there, &writes);
    let from_nothing = region.repairs(&format!("irsa-role -n --cluster c1 {WISH}"), "", back, &writes_back);
    assert_eq!(from_nothing.json()["role"], again.json()["role"]);

    // Whichever is asked to remove it, removes all.
    let pods = region.done("pod-identity", &tokens).document;
    let off = ["eks:DeletePodIdentityAssociation", "iam:DetachRolePolicy", "iam:DeleteRole"];
    region.deletes("irsa-role", &pods, &[], &off);
    assert_eq!(association(region), Value::Null);
}

pub fn of_others(region: &Region, one: &str) {
    let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Service": "pods.eks.amazonaws.com"}}]});
    let theirs = json!({"RoleName": "theirs-of-pods", "AssumeRolePolicyDocument": trust.to_string()});
    let arn = region.aws("iam", "create_role", theirs)["Role"]["Arn"].take();
    let account = json!({"clusterName": "c1", "namespace": "jobs", "serviceAccount": "report"});
    let made = region.aws("eks", "create_pod_identity_association", with(&account, json!({"roleArn": arn})));
    let id = made["association"]["associationId"].clone();
    let named = json!({"clusterName": "c1", "associationId": id});
    let command = format!("pod-identity {WISH}");
    let message = "service account jobs/report has an association with \
                   arn:aws:iam::123456789012:role/theirs-of-pods: not made by crossmesh";
    region.refuses(&command, one, message, "--adopt");

    let adopted = region.repairs(
        &format!("{command} --adopt"),
        one,
        &[
            "create role c1-report",
            "attach arn:aws:iam::aws:policy/ReadOnlyAccess to role c1-report",
            "tag the association of jobs/report managed-by=crossmesh team=mesh",
            "put the association of jobs/report right",
        ],
        &[
            "iam:CreateRole",
            "iam:AttachRolePolicy",
            "iam:TagRole",
            "eks:TagResource",
            "eks:UpdatePodIdentityAssociation",
        ],
    );
    assert_eq!(adopted.json()["role"]["associations"], json!({"jobs/report": id}));

    // One that others made with this very role is used and stays, and the role with it.
    let untag = json!({"resourceArn": made["association"]["associationArn"], "tagKeys": ["managed-by"]});
    region.aws("eks", "untag_resource", untag);
    let used = "the association of jobs/report is used, not made by crossmesh: --adopt takes it over";
    region.steady("pod-identity", &adopted.document).tells(used);
    let left = "role c1-report: others associated jobs/report with it";
    region.deletes("pod-identity", &adopted.document, &[left], &["iam:DetachRolePolicy", "iam:UntagRole"]);
    region.aws("eks", "delete_pod_identity_association", named);
    region.deletes("pod-identity", &adopted.document, &[], &["iam:DeleteRole"]);
    region.aws("iam", "delete_role", json!({"RoleName": "theirs-of-pods"}));
}
