//! The service accounts that may assume the role, and the role's name made from them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest name IAM takes. Source: CreateRole, `RoleName`.
const LONGEST: usize = 64;

/// `NAMESPACE/NAME`; either may hold the wildcards `*` and `?` of an IAM condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceAccount(String);

impl ServiceAccount {
    /// The `sub` claim of its tokens.
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}", self.0.replace('/', ":"))
    }

    /// Whether it stands for several.
    pub fn is_pattern(&self) -> bool {
        self.0.contains(['*', '?'])
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The part before the slash.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

impl FromStr for ServiceAccount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |part: &str, also: &str| {
            let allowed =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-*?".contains(c) || also.contains(c);
            !part.is_empty() && part.chars().all(allowed)
        };
        match text.split_once('/') {
            Some((namespace, name)) if fits(namespace, "") && fits(name, ".") => Ok(Self(text.to_owned())),
            _ => Err(format!("{text} is not NAMESPACE/NAME of a service account")),
        }
    }
}

impl TryFrom<String> for ServiceAccount {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ServiceAccount> for String {
    fn from(account: ServiceAccount) -> Self {
        account.0
    }
}

impl JsonSchema for ServiceAccount {
    fn schema_name() -> Cow<'static, str> {
        "ServiceAccount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[-a-z0-9*?]+/[-.a-z0-9*?]+$"})
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `CLUSTER-NAME`. What IAM does not take becomes `-`; what is too long has a digest of the whole in the place of what was
/// cut, so that two long names stay two. The cluster's name is cut first: policies know a role by its end.
pub fn role_name(cluster: &str, account: &ServiceAccount) -> String {
    let full = format!("{cluster}-{}", account.name());
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "+=,.@-_".contains(c) { c } else { '-' };
    let name: String = full.chars().map(allowed).collect();
    if name.len() <= LONGEST && name == full {
        return name;
    }
    let digest = hex::encode(&Sha256::digest(&full)[..4]);
    let keeps_end = !account.is_pattern() && account.name().len() <= LONGEST / 2;
    let (start, end) = if keeps_end {
        (&name[..name.len() - account.name().len()], format!("-{digest}-{}", account.name()))
    } else {
        (&name[..], format!("-{digest}"))
    };
    let start = &start[..start.len().min(LONGEST - end.len())];
    format!("{}{end}", start.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_and_a_name_are_a_service_account() {
        for good in ["kube-system/ebs-csi", "a/b.c", "team-*/app", "x/*", "x/job-?"] {
            assert_eq!(good.parse::<ServiceAccount>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "a", "/b", "a/", "a/b/c", "A/b", "a.b/c", "a/b:c", "a/b\n"] {
            assert!(bad.parse::<ServiceAccount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_subject_is_the_claim_kubernetes_signs() {
        let subject = "kube-system/ebs-csi".parse::<ServiceAccount>().map(|account| account.subject());
        assert_eq!(subject.as_deref(), Ok("system:serviceaccount:kube-system:ebs-csi"));
    }

    #[test]
    fn a_role_name_fits_into_iam() {
        let (long, long_cluster) = (format!("a/{}", "x".repeat(70)), "c".repeat(100));
        for (cluster, account, name) in [
            ("prod", "kube-system/ebs-csi", "prod-ebs-csi".to_owned()),
            ("prod_1", "a/b.c", "prod_1-b.c".to_owned()),
            ("prod", "jobs/*", "prod-2ac99166".to_owned()),
            ("prod", &long, format!("prod-{}-13deb493", "x".repeat(50))),
            (
                &long_cluster,
                "appmesh-system/appmesh-controller",
                format!("{}-028a433f-appmesh-controller", "c".repeat(36)),
            ),
        ] {
            let account: ServiceAccount = account.parse().unwrap();
            assert_eq!(role_name(cluster, &account), name);
            assert!(name.len() <= LONGEST);
        }
    }

    #[test]
    fn two_long_names_stay_two() {
        let account: ServiceAccount = "a/b".parse().unwrap();
        let [one, two] = ["1", "2"].map(|end| role_name(&format!("{}{end}", "c".repeat(90)), &account));
        assert_ne!(one, two);
    }
}
