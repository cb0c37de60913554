//! How a repository is named.

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
    /// Reads `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`; any other is the name alone.
    pub fn parse(repository: &str) -> Self {
        let alone = Self { name: repository.to_owned(), ..Self::default() };
        let Some((host, name)) = repository.split_once('/') else { return alone };
        match host.split('.').collect::<Vec<_>>()[..] {
            [account, "dkr", "ecr", region, _, ..] | [account, "dkr-ecr", region, _, ..] => {
                Self { account: Some(account.to_owned()), region: Some(region.to_owned()), name: name.to_owned() }
            }
            _ => alone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_in_full_or_in_short() {
        for (repository, account, region, name) in [
            ("web", None, None, "web"),
            ("shop/web", None, None, "shop/web"),
            ("1.dkr.ecr.us-west-2.amazonaws.com/shop/web", Some("1"), Some("us-west-2"), "shop/web"),
            ("1.dkr.ecr.cn-north-1.amazonaws.com.cn/web", Some("1"), Some("cn-north-1"), "web"),
            ("1.dkr-ecr.eu-west-1.on.aws/web", Some("1"), Some("eu-west-1"), "web"),
        ] {
            let found = RepositoryName::parse(repository);
            let found = (found.account.as_deref(), found.region.as_deref(), &*found.name);
            assert_eq!(found, (account, region, name), "{repository}");
        }
    }
}
