//! Policy documents: the trust policy of the role, inline policies from files, and whether two documents are the same.

use crate::service_account::ServiceAccount;
use anyhow::Result;
use common::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The audience of the tokens that EKS projects into pods for AWS. A name and no address: the same in every partition.
const STS_AUDIENCE: &str = "sts.amazonaws.com";

/// Longest name of an inline policy.
const LONGEST_NAME: usize = 100;

/// Who may assume the role: these service accounts, with tokens made for STS, of the cluster behind `provider` (its
/// ARN, `arn:PARTITION:iam::ACCOUNT:oidc-provider/ISSUER`).
pub fn trust(provider: &str, accounts: &[ServiceAccount]) -> Value {
    let issuer = provider.split_once(":oidc-provider/").map_or(provider, |(_, issuer)| issuer);
    let (audience, subject) = (format!("{issuer}:aud"), format!("{issuer}:sub"));
    let mut subjects: Vec<String> = accounts.iter().map(ServiceAccount::subject).collect();
    let subjects = if subjects.len() == 1 { Value::from(subjects.remove(0)) } else { Value::from(subjects) };
    let condition = if accounts.iter().any(ServiceAccount::is_pattern) {
        json!({"StringEquals": {audience: STS_AUDIENCE}, "StringLike": {subject: subjects}})
    } else {
        json!({"StringEquals": {audience: STS_AUDIENCE, subject: subjects}})
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Federated": provider},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": condition,
        }],
    })
}

/// Who may assume the role by EKS Pod Identity: pods of these service accounts, of the cluster of this ARN. The conditions
/// are on the tags that EKS gives its sessions: a statement for each namespace, so that the names of two do not mix.
/// Source: EKS User Guide, "Create IAM role with trust policy required by EKS Pod Identity".
pub fn trust_in_pods(cluster: &str, accounts: &[ServiceAccount]) -> Value {
    let mut namespaces: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for account in accounts {
        namespaces.entry(account.namespace()).or_default().push(account.name());
    }
    let statements = namespaces.into_iter().map(|(namespace, names)| {
        json!({
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": {"StringEquals": {
                "aws:RequestTag/eks-cluster-arn": cluster,
                "aws:RequestTag/kubernetes-namespace": namespace,
                "aws:RequestTag/kubernetes-service-account": names,
            }},
        })
    });
    json!({"Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>()})
}

/// The inline policies in files, by name.
///
/// # Errors
/// Two have one name, or one cannot be read.
pub fn read_all(files: &[PathBuf]) -> Result<BTreeMap<String, Value>> {
    let mut documents = BTreeMap::new();
    for file in files {
        let (name, document) = read(file)?;
        if documents.insert(name.clone(), document).is_some() {
            let message = format!("two policy documents are named {name}, the second is {}", file.display());
            return Err(Error::input(message).hint("a policy is named as its file: rename one").into());
        }
    }
    Ok(documents)
}

/// Name and document of the inline policy in a file: it is named as the file without its extension.
///
/// # Errors
/// The file cannot be read, is not JSON, or has a name that IAM would not take.
fn read(file: &Path) -> Result<(String, Value)> {
    let text = std::fs::read(file).map_err(|error| Error::input(format!("read {}: {error}", file.display())))?;
    let document = serde_json::from_slice(&text)
        .map_err(|error| Error::input(format!("{} is not JSON: {error}", file.display())))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    // IAM takes 128 characters and commas, but a tag must remember it, with a prefix.
    let fits = |c: char| c.is_ascii_alphanumeric() || "+=.@-_".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(fits) {
        return Err(Error::input(format!("{} does not name a policy", file.display()))
            .hint(format!("the name of a policy has up to {LONGEST_NAME} letters, digits and +=.@-_"))
            .into());
    }
    Ok((name.into_owned(), document))
}

/// Whether two documents mean the same. IAM gives a document back as it was written, and people write the same thing
/// in many ways: one value or a list of one, any order, with or without names for statements.
pub fn same(one: &Value, other: &Value) -> bool {
    canonical(one) == canonical(other)
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let named = map.iter().filter(|(key, _)| *key != "Sid" && *key != "Id");
            Value::Object(named.map(|(key, value)| (key.clone(), canonical(value))).collect::<Map<_, _>>())
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(canonical).collect();
            list.sort_by_cached_key(Value::to_string);
            list.dedup();
            if list.len() == 1 { list.remove(0) } else { Value::Array(list) }
        }
        Value::Bool(_) | Value::Number(_) => Value::String(value.to_string()),
        Value::Null | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "oidc.eks.us-west-2.amazonaws.com/id/A";

    fn trusted(accounts: &[&str]) -> Value {
        let accounts: Vec<ServiceAccount> = accounts.iter().map(|account| account.parse().unwrap()).collect();
        trust(&format!("arn:aws:iam::1:oidc-provider/{ISSUER}"), &accounts)["Statement"][0].take()
    }

    #[test]
    fn trust_is_for_these_accounts_and_for_sts() {
        let aud = format!("{ISSUER}:aud");
        let sub = format!("{ISSUER}:sub");
        for (accounts, condition) in [
            (&["a/b"][..], json!({"StringEquals": {&aud: "sts.amazonaws.com", &sub: "system:serviceaccount:a:b"}})),
            (
                &["a/b", "c/d"],
                json!({"StringEquals": {&aud: "sts.amazonaws.com",
                    &sub: ["system:serviceaccount:a:b", "system:serviceaccount:c:d"]}}),
            ),
            (
                &["a/b", "c/*"],
                json!({"StringEquals": {&aud: "sts.amazonaws.com"},
                    "StringLike": {&sub: ["system:serviceaccount:a:b", "system:serviceaccount:c:*"]}}),
            ),
        ] {
            assert_eq!(trusted(accounts)["Condition"], condition, "{accounts:?}");
        }
    }

    #[test]
    fn trust_in_pods_is_for_these_accounts_of_this_cluster() {
        let accounts = ["a/b", "c/d", "a/e"].map(|account| account.parse().unwrap());
        let policy = trust_in_pods("arn:aws-cn:eks:cn-north-1:1:cluster/c1", &accounts);
        let condition = |namespace: &str, names: &[&str]| {
            json!({"StringEquals": {
                "aws:RequestTag/eks-cluster-arn": "arn:aws-cn:eks:cn-north-1:1:cluster/c1",
                "aws:RequestTag/kubernetes-namespace": namespace,
                "aws:RequestTag/kubernetes-service-account": names,
            }})
        };
        let statements = policy["Statement"].as_array().unwrap();
        let conditions: Vec<&Value> = statements.iter().map(|statement| &statement["Condition"]).collect();
        assert_eq!(conditions, [&condition("a", &["b", "e"]), &condition("c", &["d"])]);
        for statement in statements {
            assert_eq!(statement["Principal"], json!({"Service": "pods.eks.amazonaws.com"}));
            assert_eq!(statement["Action"], json!(["sts:AssumeRole", "sts:TagSession"]));
        }
    }

    #[test]
    fn trust_is_in_the_provider_of_any_partition_and_host() {
        for (partition, issuer) in [
            ("aws", ISSUER),
            ("aws", "issuer.example:8443/clusters/c1"),
            ("aws-cn", "oidc.eks.cn-north-1.amazonaws.com.cn/id/A"),
            ("aws-us-gov", "oidc.eks.us-gov-west-1.amazonaws.com/id/A"),
        ] {
            let provider = format!("arn:{partition}:iam::1:oidc-provider/{issuer}");
            let mut policy = trust(&provider, &["a/b".parse().unwrap()]);
            let statement = policy["Statement"][0].take();
            assert_eq!(statement["Principal"], json!({"Federated": provider}));
            let expected = json!({format!("{issuer}:aud"): "sts.amazonaws.com", format!("{issuer}:sub"): "system:serviceaccount:a:b"});
            assert_eq!(statement["Condition"], json!({"StringEquals": expected}));
        }
    }

    #[test]
    fn documents_are_compared_by_meaning() {
        let document = |statement: Value| json!({"Version": "2012-10-17", "Statement": statement});
        let base = document(json!([{"Effect": "Allow", "Action": ["a:B", "a:C"], "Resource": "*"}]));
        for (same_as_base, other) in [
            (
                true,
                document(json!({"Resource": ["*"], "Sid": "x", "Action": ["a:C", "a:B", "a:B"], "Effect": "Allow"})),
            ),
            (false, document(json!([{"Effect": "Deny", "Action": ["a:B", "a:C"], "Resource": "*"}]))),
            (false, document(json!([{"Effect": "Allow", "Action": ["a:B"], "Resource": "*"}]))),
            (false, document(json!([]))),
            (false, Value::Null),
        ] {
            assert_eq!(same(&base, &other), same_as_base, "{other}");
        }
    }
}
