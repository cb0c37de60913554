//! Names a repository, and says how it is made.

use common::plan::UNKNOWN;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a repository and, if given in full, the registry that it is in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RepositoryName {
    /// Whose registry it is; the caller's own, if not said.
    pub account: Option<String>,
    pub region: Option<String>,
    /// Without the registry.
    pub name: String,
}

impl RepositoryName {
    /// Reads `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`, and the other addresses that ECR gives its registries; any other
    /// is the name alone.
    pub fn parse(repository: &str) -> Self {
        let alone = |name: &str| Self { name: name.to_owned(), ..Self::default() };
        let Some((host, name)) = repository.split_once('/') else { return alone(repository) };
        match host.split('.').collect::<Vec<_>>()[..] {
            [account, "dkr", "ecr" | "ecr-fips", region, _, ..]
            | [account, "dkr-ecr" | "dkr-ecr-fips", region, _, ..] => {
                Self { account: Some(account.to_owned()), region: Some(region.to_owned()), name: name.to_owned() }
            }
            _ if host == UNKNOWN => alone(name),
            _ => alone(repository),
        }
    }
}

/// What is decided about a repository when it is made.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// KMS key that a new repository is encrypted with; needs kms:DescribeKey and kms:CreateGrant for it
    #[arg(long, value_name = "KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key: Option<String>,
    /// Have a new repository scan its images when they are pushed
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scan_on_push: bool,
}

impl Settings {
    /// These, and of the others what these do not say.
    pub fn or(self, others: Self) -> Self {
        Self { kms_key: self.kms_key.or(others.kms_key), scan_on_push: self.scan_on_push || others.scan_on_push }
    }

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How a repository that has others differs, and what to do about it.
    pub fn unmet(&self, found: &Self) -> Option<(String, &'static str)> {
        if let Some(key) = &self.kms_key
            && !found.kms_key.as_ref().is_some_and(|found| is_same_key(key, found))
        {
            let other = found.kms_key.as_deref().unwrap_or("none");
            let hint = "ECR cannot change that: give another --repository, or leave --kms-key out";
            return Some((format!("its KMS key is {other}, not {key}"), hint));
        }
        let hint = "aws ecr put-image-scanning-configuration changes that; or leave --scan-on-push out";
        (self.scan_on_push && !found.scan_on_push).then(|| ("it does not scan on push".to_owned(), hint))
    }
}

/// Whether a key given by its ARN, its id or an alias may be the one of that ARN. Only KMS knows what an alias is of.
fn is_same_key(given: &str, found: &str) -> bool {
    let is_alias = given.starts_with("alias/") || given.contains(":alias/");
    is_alias || given == found || found.rsplit_once('/').is_some_and(|(_, id)| id == given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_that_was_made_otherwise_is_told() {
        let settings = |key: Option<&str>, scan_on_push| Settings { kms_key: key.map(Into::into), scan_on_push };
        let arn = "arn:aws:kms:us-west-2:1:key/ab-1";
        let (plain, sealed) = (settings(None, false), settings(Some(arn), true));
        for (wanted, found, expected) in [
            (settings(None, false), &plain, None),
            (settings(None, false), &sealed, None),
            (settings(None, true), &sealed, None),
            (settings(None, true), &plain, Some("it does not scan on push")),
            (settings(Some(arn), true), &sealed, None),
            (settings(Some("ab-1"), false), &sealed, None),
            (settings(Some("alias/any"), false), &sealed, None),
            (settings(Some("arn:aws:kms:us-west-2:1:alias/any"), false), &sealed, None),
            (settings(Some("b-1"), false), &sealed, Some("its KMS key is arn:aws:kms:us-west-2:1:key/ab-1, not b-1")),
            (settings(Some("alias/any"), false), &plain, Some("its KMS key is none, not alias/any")),
        ] {
            let unmet = wanted.unmet(found).map(|(difference, _)| difference);
            assert_eq!(unmet.as_deref(), expected, "{wanted:?} {found:?}");
        }
        let flags = settings(Some("a"), false).or(settings(Some("b"), true));
        assert_eq!(flags, settings(Some("a"), true));
    }

    #[test]
    fn a_repository_is_named_in_full_or_in_short() {
        for (repository, account, region, name) in [
            ("web", None, None, "web"),
            ("shop/web", None, None, "shop/web"),
            ("1.dkr.ecr.us-west-2.amazonaws.com/shop/web", Some("1"), Some("us-west-2"), "shop/web"),
            ("1.dkr.ecr.cn-north-1.amazonaws.com.cn/web", Some("1"), Some("cn-north-1"), "web"),
            ("1.dkr-ecr.eu-west-1.on.aws/web", Some("1"), Some("eu-west-1"), "web"),
            ("1.dkr.ecr-fips.us-gov-west-1.amazonaws.com/web", Some("1"), Some("us-gov-west-1"), "web"),
            ("1.dkr-ecr-fips.us-east-1.on.aws/shop/web", Some("1"), Some("us-east-1"), "shop/web"),
        ] {
            let found = RepositoryName::parse(repository);
            let found = (found.account.as_deref(), found.region.as_deref(), &*found.name);
            assert_eq!(found, (account, region, name), "{repository}");
        }
    }
}
