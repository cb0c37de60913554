//! How a repository is named.

/// Region and name of a repository given as `ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME`; the name alone of any other.
pub fn split(repository: &str) -> (Option<&str>, &str) {
    let Some((host, name)) = repository.split_once('/') else { return (None, repository) };
    match host.split('.').collect::<Vec<_>>()[..] {
        [_, "dkr", "ecr", region, _, ..] | [_, "dkr-ecr", region, _, ..] => (Some(region), name),
        _ => (None, repository),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_repository_is_named_in_full_or_in_short() {
        for (repository, expected) in [
            ("web", (None, "web")),
            ("shop/web", (None, "shop/web")),
            ("1.dkr.ecr.us-west-2.amazonaws.com/shop/web", (Some("us-west-2"), "shop/web")),
            ("1.dkr.ecr.cn-north-1.amazonaws.com.cn/web", (Some("cn-north-1"), "web")),
            ("1.dkr-ecr.eu-west-1.on.aws/web", (Some("eu-west-1"), "web")),
        ] {
            assert_eq!(split(repository), expected, "{repository}");
        }
    }
}
