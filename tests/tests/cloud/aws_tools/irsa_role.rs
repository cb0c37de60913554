//! irsa-role: the role and everything on it.

use super::region::{Region, with};
use serde_json::{Value, json};

const CLOUD_MAP: &str = "arn:aws:iam::aws:policy/AWSCloudMapFullAccess";
const READ_ONLY: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
const POWER_USER: &str = "arn:aws:iam::aws:policy/PowerUserAccess";

/// Lets EC2 assume a role.
const THEIR_TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

fn policy(action: &str) -> String {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}).to_string()
}

/// A role with one of everything: the command that makes it, and its document.
fn full(region: &Region, one: &str) -> String {
    let file = region.file("doc.json", &policy("s3:GetObject"));
    let wish = format!(
        "irsa-role --role full --policy AWSCloudMapFullAccess --policy-document {} --tag team=mesh \
         --permissions-boundary {POWER_USER}",
        file.display()
    );
    region.done(&wish, one).document
}

pub fn drift(region: &Region, one: &str) {
    let made = full(region, one);
    region.steady("irsa-role", &made);
    let role = json!({"RoleName": "full"});
    let others = |operation: &str, parameters: Value| region.aws("iam", operation, with(&role, parameters));
    let edit_trust = || others("update_assume_role_policy", json!({"PolicyDocument": THEIR_TRUST}));
    let detach = || others("detach_role_policy", json!({"PolicyArn": CLOUD_MAP}));
    let edit_inline = || others("put_role_policy", json!({"PolicyName": "doc", "PolicyDocument": policy("s3:*")}));
    let untag = |key: &str| others("untag_role", json!({"TagKeys": [key]}));

    let trust = "put the trust policy of role full right";
    let attach = format!("attach {CLOUD_MAP} to role full");
    let inline = "put inline policy doc on role full";
    let tag = "tag role full team=mesh";
    let bound = format!("bound role full by {POWER_USER}");
    let restores = |changes: &[&str], writes: &[&str]| region.restores("irsa-role", &made, changes, writes);

    edit_trust();
    restores(&[trust], &["iam:UpdateAssumeRolePolicy"]);
    // The right trust, and another one beside it.
    let have = region.aws("iam", "get_role", role.clone())["Role"]["AssumeRolePolicyDocument"].take();
    let mut wider = have.clone();
    wider["Statement"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::from_str::<Value>(THEIR_TRUST).unwrap()["Statement"][0].take());
    others("update_assume_role_policy", json!({"PolicyDocument": wider.to_string()}));
    restores(&[trust], &["iam:UpdateAssumeRolePolicy"]);
    // The right trust, written in another way.
    let mut named = have.clone();
    named["Statement"][0]["Sid"] = "Pods".into();
    named["Statement"][0]["Action"] = json!(["sts:AssumeRoleWithWebIdentity"]);
    others("update_assume_role_policy", json!({"PolicyDocument": named.to_string()}));
    region.steady("irsa-role", &made);

    detach();
    restores(&[&attach], &["iam:AttachRolePolicy", "iam:TagRole"]);
    edit_inline();
    restores(&[inline], &["iam:PutRolePolicy", "iam:TagRole"]);
    others("delete_role_policy", json!({"PolicyName": "doc"}));
    restores(&[inline], &["iam:PutRolePolicy", "iam:TagRole"]);
    untag("team");
    restores(&[tag], &["iam:TagRole"]);
    others("tag_role", json!({"Tags": [{"Key": "team", "Value": "ops"}]}));
    restores(&[tag], &["iam:TagRole"]);
    untag("crossmesh:cluster");
    restores(&["tag role full crossmesh:cluster=arn:aws:eks:us-west-2:123456789012:cluster/c1"], &["iam:TagRole"]);
    others("put_role_permissions_boundary", json!({"PermissionsBoundary": READ_ONLY}));
    restores(&[&bound], &["iam:PutRolePermissionsBoundary"]);
    others("delete_role_permissions_boundary", json!({}));
    restores(&[&bound], &["iam:PutRolePermissionsBoundary"]);

    edit_trust();
    detach();
    edit_inline();
    untag("team");
    restores(
        &[tag, trust, &attach, inline],
        &[
            "iam:TagRole",
            "iam:UpdateAssumeRolePolicy",
            "iam:AttachRolePolicy",
            "iam:TagRole",
            "iam:PutRolePolicy",
            "iam:TagRole",
        ],
    );

    // A wish that is dropped is taken off again.
    let file = region.file("other.json", &policy("sqs:SendMessage"));
    let other = format!("irsa-role --policy ReadOnlyAccess --policy-document {}", file.display());
    let changed = region.repairs(
        &other,
        &made,
        &[
            &format!("tag role full crossmesh:inline/other= crossmesh:policy/ReadOnlyAccess={READ_ONLY}"),
            &format!("attach {READ_ONLY} to role full"),
            "put inline policy other on role full",
            &format!("detach {CLOUD_MAP} from role full"),
            "delete inline policy doc of role full",
            "untag role full crossmesh:inline/doc crossmesh:policy/AWSCloudMapFullAccess",
        ],
        &[
            "iam:TagRole",
            "iam:AttachRolePolicy",
            "iam:TagRole",
            "iam:PutRolePolicy",
            "iam:TagRole",
            "iam:DetachRolePolicy",
            "iam:DeleteRolePolicy",
            "iam:UntagRole",
        ],
    );
    assert_eq!(changed.json()["role"]["policies"], json!([READ_ONLY]));
    region.deletes(
        "irsa-role",
        &changed.document,
        &[],
        &["iam:DetachRolePolicy", "iam:DeleteRolePolicy", "iam:DeleteRole"],
    );
    restores(
        &["create role full", &attach, inline],
        &["iam:CreateRole", "iam:AttachRolePolicy", "iam:TagRole", "iam:PutRolePolicy", "iam:TagRole"],
    );
    region.deletes("irsa-role", &made, &[], &["iam:DetachRolePolicy", "iam:DeleteRolePolicy", "iam:DeleteRole"]);
}

pub fn of_others(region: &Region, one: &str, two: &str) {
    let take_over = "take it over with --adopt";
    let theirs = json!({"RoleName": "theirs"});
    region.aws("iam", "create_role", with(&theirs, json!({"AssumeRolePolicyDocument": THEIR_TRUST})));
    let tagged = |value: &str| {
        let tags = json!({"Tags": [{"Key": "managed-by", "Value": value}]});
        region.aws("iam", "tag_role", with(&theirs, tags));
    };
    region.refuses("irsa-role --role theirs", one, "role theirs exists: not made by crossmesh", take_over);
    region.deletes("irsa-role --role theirs", one, &["role theirs: not made by crossmesh"], &[]);
    tagged("terraform");
    region.refuses("irsa-role --role theirs", one, "role theirs exists: managed by terraform", take_over);
    region.deletes("irsa-role --role theirs", one, &["role theirs: managed by terraform"], &[]);
    let adopted = region.repairs(
        "irsa-role --role theirs --adopt --policy AWSCloudMapFullAccess",
        one,
        &[
            &format!(
                "tag role theirs crossmesh:cluster=arn:aws:eks:us-west-2:123456789012:cluster/c1 \
                 crossmesh:policy/AWSCloudMapFullAccess={CLOUD_MAP} managed-by=crossmesh"
            ),
            "put the trust policy of role theirs right",
            &format!("attach {CLOUD_MAP} to role theirs"),
        ],
        &["iam:TagRole", "iam:UpdateAssumeRolePolicy", "iam:AttachRolePolicy", "iam:TagRole"],
    );
    region.steady("irsa-role", &adopted.document);

    // Another cluster's; and a path is for life.
    let cluster = "arn:aws:eks:us-west-2:123456789012:cluster/c1";
    region.refuses("irsa-role --role theirs", two, &format!("role theirs exists: made for {cluster}"), take_over);
    region.deletes("irsa-role --role theirs", two, &[&format!("role theirs: made for {cluster}")], &[]);
    let path = "role theirs has the path /, not /mesh/";
    region.refuses("irsa-role --path /mesh/", &adopted.document, path, "a role's path is for life");

    // What others put on a role of ours is named and stays.
    region.aws("iam", "attach_role_policy", with(&theirs, json!({"PolicyArn": READ_ONLY})));
    let inline = |policy: &str| {
        let document = json!({"PolicyName": "extra", "PolicyDocument": policy});
        region.aws("iam", "put_role_policy", with(&theirs, document));
    };
    inline(&policy("s3:*"));
    region.aws("iam", "put_role_permissions_boundary", with(&theirs, json!({"PermissionsBoundary": POWER_USER})));
    let named = region.steady("irsa-role", &adopted.document);
    named.tells(&format!("role theirs also has {READ_ONLY}, which others attached"));
    named.tells("role theirs also has the inline policy extra of others");
    named.tells(&format!("role theirs is bounded by {POWER_USER}, which is not asked for"));

    // One that is wished for too stays theirs, so it is not taken off with the wish.
    let both = format!("irsa-role --policy {READ_ONLY} --policy {CLOUD_MAP}");
    let both = region.repairs(&both, &adopted.document, &[], &[]);
    let back = region.repairs(&format!("irsa-role --policy {CLOUD_MAP}"), &both.document, &[], &[]);
    assert_ne!(both.document, adopted.document);
    assert_eq!(back.document, adopted.document);

    // An inline policy of the same name that says something else.
    let file = region.file("extra.json", &policy("s3:GetObject"));
    let wish = format!("irsa-role --policy-document {}", file.display());
    let message = "role theirs has another inline policy extra of others";
    region.refuses(&wish, &adopted.document, message, "replace it with --adopt");
    inline(&policy("s3:GetObject"));
    region.done(&wish, &adopted.document).idle();
    inline(&policy("s3:*"));
    region.repairs(
        &format!("{wish} --adopt"),
        &adopted.document,
        &["tag role theirs crossmesh:inline/extra=", "put inline policy extra on role theirs"],
        &["iam:TagRole", "iam:PutRolePolicy", "iam:TagRole"],
    );
    let kept = format!("role theirs: others attached {READ_ONLY}");
    let off = ["iam:DetachRolePolicy", "iam:DeleteRolePolicy", "iam:UntagRole"];
    region.deletes("irsa-role", &adopted.document, &[&kept], &off);
    region.aws("iam", "detach_role_policy", with(&theirs, json!({"PolicyArn": READ_ONLY})));
    region.deletes("irsa-role", &adopted.document, &[], &["iam:DeleteRole"]);
}

pub fn deletion(region: &Region, one: &str) {
    let made = full(region, one);
    let role = json!({"RoleName": "full"});
    region.aws(
        "iam",
        "put_role_policy",
        with(&role, json!({"PolicyName": "theirs", "PolicyDocument": policy("s3:*")})),
    );
    let profile = json!({"InstanceProfileName": "node"});
    region.aws("iam", "create_instance_profile", profile.clone());
    region.aws("iam", "add_role_to_instance_profile", with(&role, profile.clone()));

    // Ours comes off, the role stays while others use it.
    let (put, held) =
        ("role full: others put the inline policy theirs on it", "role full: the instance profile node holds it");
    let off = ["iam:DetachRolePolicy", "iam:DeleteRolePolicy", "iam:UntagRole"];
    region.deletes("irsa-role", &made, &[put, held], &off);
    region.aws("iam", "delete_role_policy", with(&role, json!({"PolicyName": "theirs"})));
    region.deletes("irsa-role", &made, &[held], &[]);
    region.aws("iam", "remove_role_from_instance_profile", with(&role, profile.clone()));
    region.aws("iam", "delete_instance_profile", profile);
    let gone = region.deletes("irsa-role", &made, &[], &["iam:DeleteRole"]);
    assert_eq!(gone.json()["role"], Value::Null);
    region.deletes("irsa-role -n --cluster c1", "{\n  \"v\": 1\n}\n", &[], &[]);

    // Two policies of one name, AWS's and one's own; and two files of one name, of which neither may hide the other.
    let own = json!({"PolicyName": "AWSCloudMapFullAccess", "PolicyDocument": policy("s3:GetObject")});
    let own = region.aws("iam", "create_policy", own)["Policy"]["Arn"].take();
    let own = own.as_str().unwrap();
    let both = region.done(&format!("irsa-role --role both --policy {CLOUD_MAP} --policy {own}"), one).document;
    region.steady("irsa-role", &both);
    region.deletes("irsa-role", &both, &[], &["iam:DetachRolePolicy", "iam:DetachRolePolicy", "iam:DeleteRole"]);
    region.aws("iam", "delete_policy", json!({"PolicyArn": own}));
    std::fs::create_dir_all(region.cloud.state.join("more")).unwrap();
    let files = ["same.json", "more/same.json"].map(|file| region.file(file, &policy("s3:*")).display().to_string());
    let twice = format!("irsa-role --role both --policy-document {} --policy-document {}", files[0], files[1]);
    let error = region.fails(3, &twice, one);
    assert_eq!(error["message"], format!("two policy documents are named same, the second is {}", files[1]));

    // By its name alone, in the right order. The controller's role allows what the controller calls, and no more.
    let controllers = region.done("irsa-role", one).json();
    let policy = std::fs::read_to_string(tests::root().join("policies/controller.json")).unwrap();
    let policy: Value = serde_json::from_str(&policy).unwrap();
    assert_eq!(controllers["role"]["policyDocuments"], json!({"controller": policy}));
    assert_eq!(controllers["role"]["policies"], json!([]));
    region.deletes("irsa-role -n --cluster c1", "{\n  \"v\": 1\n}\n", &[], &["iam:DeleteRolePolicy", "iam:DeleteRole"]);
}

pub fn who_may_assume_it(region: &Region, one: &str) {
    let document: Value = serde_json::from_str(one).unwrap();
    let issuer = document["cluster"]["issuer"].as_str().unwrap().trim_start_matches("https://");
    let subject = |account: &str| format!("system:serviceaccount:{account}");
    let condition = |operator: &str, subjects: Value| {
        let mut condition = json!({"StringEquals": {format!("{issuer}:aud"): "sts.amazonaws.com"}});
        condition[operator][format!("{issuer}:sub")] = subjects;
        condition
    };
    for (accounts, expected) in [
        (
            "--service-account a/b --service-account c/d",
            condition("StringEquals", json!([subject("a:b"), subject("c:d")])),
        ),
        ("--service-account jobs/*", condition("StringLike", json!(subject("jobs:*")))),
        (
            "--service-account jobs/* --service-account web/front",
            condition("StringLike", json!([subject("jobs:*"), subject("web:front")])),
        ),
    ] {
        let wish =
            format!("irsa-role --role many --path /mesh/ --tag team=a {accounts} --policy AmazonEBSCSIDriverPolicy");
        let made = region.done(&wish, one);
        assert_eq!(made.json()["role"]["arn"], "arn:aws:iam::123456789012:role/mesh/many");
        assert_eq!(
            made.json()["role"]["policies"],
            json!(["arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"])
        );
        let have = region.aws("iam", "get_role", json!({"RoleName": "many"}));
        let statements = &have["Role"]["AssumeRolePolicyDocument"]["Statement"];
        assert_eq!(statements[0]["Condition"], expected, "{accounts}");
        assert_eq!(statements.as_array().map(Vec::len), Some(1));
        region.steady("irsa-role", &made.document);
    }
    // The document of another cluster's oidc-assoc does not lead astray.
    let other = region.done("irsa-role --cluster c2 --role astray", one);
    assert_ne!(other.json()["cluster"]["issuer"], document["cluster"]["issuer"]);
    let have = region.aws("iam", "get_role", json!({"RoleName": "astray"}));
    let federated =
        have["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Federated"].as_str().unwrap();
    assert!(
        federated.ends_with(other.json()["cluster"]["issuer"].as_str().unwrap().trim_start_matches("https://")),
        "{federated}"
    );
    region.deletes("irsa-role --role astray", &other.document, &[], &["iam:DeleteRolePolicy", "iam:DeleteRole"]);
    let all = region.done("irsa-role --role many --service-account a/b", one).document;
    region.deletes("irsa-role", &all, &[], &["iam:DeleteRole"]);
}
