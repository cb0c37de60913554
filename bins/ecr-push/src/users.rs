//! Tells which clusters use a repository, by its tags `crossmesh:used-by/KEY`. Pure.

use common::arn::Arn;
use common::cluster::Cluster;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Characters of an ARN's digest in the key of a tag.
const DIGEST: usize = 8;

/// A cluster that uses a repository, as a tag says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// The name of the cluster; behind it a digest of its ARN if another cluster of that name came first. No name has a `/`.
    pub key: String,
    /// The ARN of the cluster.
    pub arn: String,
}

impl User {
    /// How a cluster is noted, beside those that are.
    pub fn noted(Cluster { name, arn, .. }: &Cluster, users: &BTreeSet<Self>) -> Self {
        let key = match users.iter().find(|user| user.is(name, arn)) {
            Some(known) => known.key.clone(),
            None if users.iter().any(|user| user.key == *name) => {
                format!("{name}/{}", &hex::encode(Sha256::digest(arn))[..DIGEST])
            }
            None => name.clone(),
        };
        Self { key, arn: arn.clone() }
    }

    /// Whether it is the cluster of this name and ARN. Where the tag has no ARN, its key is all that is known.
    pub fn is(&self, name: &str, arn: &str) -> bool {
        self.arn == arn || Arn::parse(&self.arn).is_none() && self.key == name
    }

    /// The name of the cluster.
    pub fn name(&self) -> &str {
        Arn::parse(&self.arn).and_then(|arn| arn.resource.strip_prefix("cluster/")).unwrap_or(&self.key)
    }
}

/// A cluster that no longer needs a repository.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaving {
    pub name: String,
    pub region: String,
    /// The repository's, if not said.
    pub account: Option<String>,
}

impl Leaving {
    /// Whether it is this user of the repository of an ARN.
    pub fn is(&self, user: &User, repository: &str) -> bool {
        let Some(Arn { region, account, .. }) = Arn::parse(&user.arn) else { return user.key == self.name };
        let own = self.account.as_deref().or_else(|| Some(Arn::parse(repository)?.account));
        (user.name(), region, Some(account)) == (&self.name, &self.region, own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(key: &str, place: &str) -> User {
        let name = key.split('/').next().unwrap_or_default();
        User { key: key.to_owned(), arn: format!("arn:aws:eks:{place}:cluster/{name}") }
    }

    #[test]
    fn a_second_cluster_of_a_name_has_a_key_of_its_own() {
        let (west, east) = (user("shop", "us-west-2:1"), user("shop", "us-east-1:1"));
        let east_too = User { key: "shop/68b46435".to_owned(), ..east.clone() };
        let by_hand = User { key: "shop".to_owned(), arn: "yes".to_owned() };
        for (users, cluster, key) in [
            (vec![], &east, "shop"),
            (vec![&east], &east, "shop"),
            (vec![&west], &east, "shop/68b46435"),
            (vec![&west, &east_too], &east, "shop/68b46435"),
            (vec![&east_too], &east, "shop/68b46435"),
            (vec![&east_too], &west, "shop"),
            (vec![&by_hand], &east, "shop"),
        ] {
            let users: BTreeSet<User> = users.into_iter().cloned().collect();
            let cluster = Cluster { name: "shop".to_owned(), arn: cluster.arn.clone(), ..Cluster::default() };
            let expected = User { key: key.to_owned(), arn: cluster.arn.clone() };
            assert_eq!(User::noted(&cluster, &users), expected, "{users:?}");
        }
        let longest = Cluster { name: "a".repeat(100), ..Cluster::default() };
        let noted =
            User::noted(&longest, &[User { arn: "arn:a:b:c:d:e".to_owned(), key: longest.name.clone() }].into());
        assert!(common::tags::USER_TAG.len() + noted.key.len() <= 128, "the longest key that AWS takes: {noted:?}");
    }

    #[test]
    fn a_cluster_that_leaves_is_told_by_its_arn() {
        let leaving = |region: &str, account: Option<&str>| Leaving {
            name: "shop".to_owned(),
            region: region.to_owned(),
            account: account.map(str::to_owned),
        };
        let by_hand = User { key: "shop".to_owned(), arn: String::new() };
        for (leaving, user, expected) in [
            (leaving("us-west-2", Some("1")), user("shop", "us-west-2:1"), true),
            (leaving("us-west-2", Some("1")), user("shop/68b46435", "us-west-2:1"), true),
            (leaving("us-west-2", Some("1")), user("shop", "us-east-1:1"), false),
            (leaving("us-west-2", Some("1")), user("shop", "us-west-2:2"), false),
            (leaving("us-west-2", Some("1")), user("stock", "us-west-2:1"), false),
            (leaving("us-west-2", None), user("shop", "us-west-2:9"), true),
            (leaving("us-west-2", None), user("shop", "us-west-2:1"), false),
            (leaving("us-east-1", None), user("shop", "us-west-2:9"), false),
            (leaving("us-west-2", None), by_hand, true),
        ] {
            assert_eq!(leaving.is(&user, "arn:aws:ecr:eu-west-1:9:repository/r"), expected, "{leaving:?} {user:?}");
        }
    }
}
