//! Holds what stands under the document's `ingress`, and which cluster that means.

use anyhow::Result;
use common::Error;
use common::arn::Arn;
use common::cluster::Cluster;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU16;

/// The `ingress` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Ingress")]
pub struct Section {
    /// The cluster let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Peer>,
    /// TCP ports.
    pub ports: Vec<NonZeroU16>,
    /// The rules that let it in; read-only.
    pub rules: Vec<Rule>,
}

/// The cluster let in.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Name of the EKS cluster.
    pub cluster: String,
    /// Its ARN, by which its rules are found; read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// The groups that stand for its nodes; read-only.
    #[serde(default)]
    pub security_groups: Vec<String>,
}

/// A rule that lets it in.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `sgr-…`
    pub id: String,
    /// The port it is used for.
    pub port: u16,
    /// The group to enter.
    pub security_group: String,
    /// The group let in.
    pub source: String,
}

impl Peer {
    /// What is known of it without asking: its ARN, for without another it is of the same account and region.
    pub fn known(self, cluster: &Cluster) -> Result<Cluster> {
        let arn = match self.arn {
            Some(arn) => arn,
            None => namesake(cluster, &self.cluster)?,
        };
        Ok(Cluster { arn, name: self.cluster, ..Cluster::default() })
    }

    /// Refuses one of another account or region: to look it up by its name would find another cluster, or none.
    pub fn beside(&self, cluster: &Cluster) -> Result<()> {
        let Some(arn) = &self.arn else { return Ok(()) };
        if *arn == namesake(cluster, &self.cluster)? {
            return Ok(());
        }
        let elsewhere = format!("ingress.from is {arn}, of another account or region than cluster {}", cluster.name);
        Err(Error::conflict(elsewhere).hint("give its document with --from").into())
    }
}

/// The ARN of a cluster of the same account and region.
fn namesake(cluster: &Cluster, name: &str) -> Result<String> {
    let arn = Arn::parse(&cluster.arn);
    let arn = arn.ok_or_else(|| Error::input(format!("cluster.arn: {:?} is no ARN", cluster.arn)))?;
    Ok(arn.with(&format!("cluster/{name}")).to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use common::{Kind, classify};

    const THEIRS: &str = "arn:aws:eks:us-west-2:210987654321:cluster/c1";
    const ABROAD: &str = "arn:aws:eks:eu-west-1:123456789012:cluster/c1";
    const OURS: &str = "arn:aws:eks:us-west-2:123456789012:cluster/c1";

    fn peer(arn: Option<&str>) -> Peer {
        Peer { cluster: "c1".to_owned(), arn: arn.map(str::to_owned), security_groups: Vec::new() }
    }

    #[test]
    fn the_cluster_let_in_is_the_one_of_the_document() {
        let arn = "arn:aws:eks:us-west-2:123456789012:cluster/c2".to_owned();
        let cluster = Cluster { name: "c2".to_owned(), arn, ..Cluster::default() };
        for (arn, known, beside) in
            [(None, OURS, true), (Some(OURS), OURS, true), (Some(THEIRS), THEIRS, false), (Some(ABROAD), ABROAD, false)]
        {
            assert_eq!(peer(arn).known(&cluster).unwrap().arn, known);
            let refused = peer(arn).beside(&cluster).err().map(|error| (classify(&error).0, error.to_string()));
            let message = || format!("ingress.from is {known}, of another account or region than cluster c2");
            assert_eq!(refused, (!beside).then(|| (Kind::Conflict, message())), "{arn:?}");
        }
        let nowhere = Cluster { arn: "c2".to_owned(), ..Cluster::default() };
        assert_eq!(peer(None).known(&nowhere).unwrap_err().to_string(), "cluster.arn: \"c2\" is no ARN");
        assert_eq!(peer(Some(THEIRS)).known(&nowhere).unwrap().arn, THEIRS);
    }
}
