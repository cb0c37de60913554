//! Finds what a cluster that is gone has left in a namespace, and whether it is gone.
//!
//! Its controller can remove nothing any more: its pods' instances are still called, and what it published is still read.

use anyhow::Result;
use common::aws::AwsFlags;
use common::cluster::Cluster;
use common::{Error, Session};
use std::collections::HashMap;

/// The attributes by which an instance names the cluster that registered it.
const CLUSTER_UID: &str = "appmesh.k8s.aws/cluster";
const CLUSTER_ARN: &str = "appmesh.k8s.aws/clusterARN";

/// A cluster that is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Gone {
    /// As it was given: a name, an ARN, or the uid of its namespace kube-system.
    pub given: String,
    /// Its name, to look whether it is gone.
    pub name: String,
    arn: String,
}

impl Gone {
    /// The cluster of that name, ARN or uid, in the account and region of another.
    ///
    /// # Errors
    /// The ARN is of another account or region.
    pub fn new(given: &str, cluster: &Cluster) -> Result<Self> {
        let place = cluster.arn.strip_suffix(&cluster.name).unwrap_or_default();
        if !given.contains(':') {
            let (given, name) = (given.to_owned(), given.to_owned());
            return Ok(Self { arn: format!("{place}{name}"), given, name });
        }
        let Some(name) = given.strip_prefix(place) else {
            return Err(Error::conflict(format!("--forget-cluster: {given} is not one of {place}NAME"))
                .hint("name it in the account and region of the document's cluster")
                .into());
        };
        Ok(Self { given: given.to_owned(), name: name.to_owned(), arn: given.to_owned() })
    }

    /// [`Gone::new`], if it is gone.
    ///
    /// # Errors
    /// It is there.
    pub async fn look_for(session: &Session, flags: &AwsFlags, given: &str, cluster: &Cluster) -> Result<Self> {
        let gone = Self::new(given, cluster)?;
        if session.has_cluster(flags, &gone.name).await? {
            let message = format!("cluster {} is there, and its controller registers what it needs", gone.name);
            let hint = "delete its App Mesh objects (kubectl delete): then its controller removes what it registered";
            return Err(Error::conflict(message).hint(hint).into());
        }
        Ok(gone)
    }

    /// Whether it has registered an instance with these attributes.
    pub fn registered(&self, attributes: &HashMap<String, String>) -> bool {
        attributes.get(CLUSTER_ARN) == Some(&self.arn) || attributes.get(CLUSTER_UID) == Some(&self.given)
    }
}

/// What it has left in one service.
#[derive(Debug, Clone)]
pub struct Left {
    /// Name of the service.
    pub service: String,
    /// `srv-…`
    pub id: String,
    /// Ids of its instances.
    pub instances: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Kind;

    fn here() -> Cluster {
        let arn = "arn:aws-cn:eks:cn-north-1:123456789012:cluster/c2".into();
        Cluster { name: "c2".into(), arn, ..Cluster::default() }
    }

    #[test]
    fn a_cluster_is_known_by_name_arn_or_uid() {
        let arn = "arn:aws-cn:eks:cn-north-1:123456789012:cluster/c1";
        let attributes = |of: &[(&str, &str)]| of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let instances: [(&str, HashMap<_, _>); 4] = [
            ("of-c1", attributes(&[(CLUSTER_UID, "uid-1"), (CLUSTER_ARN, arn)])),
            ("of-c1-before-arns", attributes(&[(CLUSTER_UID, "uid-1")])),
            ("of-c2", attributes(&[(CLUSTER_UID, "uid-2"), (CLUSTER_ARN, "arn:c2")])),
            ("of-nobody", attributes(&[("c1", "c1")])),
        ];
        for (given, name, expected) in [
            ("c1", "c1", &["of-c1"][..]),
            (arn, "c1", &["of-c1"]),
            ("uid-1", "uid-1", &["of-c1", "of-c1-before-arns"]),
            ("c3", "c3", &[]),
        ] {
            let gone = Gone::new(given, &here()).unwrap();
            let left = instances.iter().filter(|(_, attributes)| gone.registered(attributes));
            let left: Vec<_> = left.map(|(id, _)| *id).collect();
            assert_eq!((gone.name.as_str(), &left[..]), (name, expected), "{given}");
        }
        for elsewhere in ["arn:aws:eks:us-west-2:123456789012:cluster/c1", "arn:"] {
            assert_eq!(common::classify(&Gone::new(elsewhere, &here()).unwrap_err()).0, Kind::Conflict);
        }
    }
}
