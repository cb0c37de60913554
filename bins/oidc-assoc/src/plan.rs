//! What to change about an identity provider. Pure.

use std::fmt;

/// The provider the cluster needs.
#[derive(Debug, Clone)]
pub struct Want {
    /// `arn:PARTITION:iam::ACCOUNT:oidc-provider/ISSUER`, the issuer without its scheme.
    pub arn: String,
    /// Audiences that must be allowed.
    pub audiences: Vec<String>,
    /// `https://…`
    pub url: String,
}

/// The provider IAM has.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Audiences that are allowed.
    pub audiences: Vec<String>,
    /// Carries our tag.
    pub ours: bool,
}

/// One step.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Register the issuer.
    Create { url: String, audiences: Vec<String> },
    /// Allow one more audience.
    AddAudience { arn: String, audience: String },
    /// Remove the provider.
    Delete { arn: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { url, audiences } => write!(f, "create provider {url} for {}", audiences.join(", ")),
            Change::AddAudience { arn, audience } => write!(f, "add audience {audience} to {arn}"),
            Change::Delete { arn } => write!(f, "delete provider {arn}"),
        }
    }
}

/// A provider somebody else made is used as it is: only a missing audience is added, which takes nothing from them.
pub fn plan(want: &Want, have: Option<&Provider>) -> Vec<Change> {
    let Some(have) = have else {
        return vec![Change::Create { url: want.url.clone(), audiences: want.audiences.clone() }];
    };
    let missing = want.audiences.iter().filter(|audience| !have.audiences.contains(audience));
    missing.map(|audience| Change::AddAudience { arn: want.arn.clone(), audience: audience.clone() }).collect()
}

/// Only what carries our tag is deleted.
pub fn plan_delete(want: &Want, have: Option<&Provider>) -> Vec<Change> {
    have.filter(|have| have.ours).map(|_| Change::Delete { arn: want.arn.clone() }).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:iam::1:oidc-provider/i";

    fn words(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let provider =
            |ours, audiences: &[&str]| Provider { ours, audiences: audiences.iter().map(|a| (*a).into()).collect() };
        let cases: [(Option<Provider>, &[&str], &[&str]); 5] = [
            (None, &["create provider https://i for sts, x"], &[]),
            (Some(provider(true, &["sts", "x"])), &[], &["delete provider arn:aws:iam::1:oidc-provider/i"]),
            (Some(provider(false, &["x", "sts", "other"])), &[], &[]),
            (Some(provider(false, &["sts"])), &["add audience x to arn:aws:iam::1:oidc-provider/i"], &[]),
            (
                Some(provider(true, &[])),
                &[
                    "add audience sts to arn:aws:iam::1:oidc-provider/i",
                    "add audience x to arn:aws:iam::1:oidc-provider/i",
                ],
                &["delete provider arn:aws:iam::1:oidc-provider/i"],
            ),
        ];
        let want = Want { arn: ARN.into(), audiences: vec!["sts".into(), "x".into()], url: "https://i".into() };
        for (have, make, delete) in cases {
            assert_eq!(words(plan(&want, have.as_ref())), make, "{have:?}");
            assert_eq!(words(plan_delete(&want, have.as_ref())), delete, "{have:?}");
        }
    }
}
