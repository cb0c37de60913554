//! The `cluster` key: facts of one EKS cluster, looked up once and shared by all tools.

use crate::arn::Arn;
use crate::aws::{AwsFlags, Call, OrAbsent};
use crate::{Document, Error, Session};
use anyhow::{Context, Result};
use aws_sdk_eks::config::Region;
use aws_sdk_eks::operation::describe_cluster::DescribeClusterOutput;
use aws_sdk_eks::types::{Cluster as Described, ClusterStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What DescribeCluster says of a cluster, under the document's `cluster`. Fields that other people put beside these
/// are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Cluster {
    /// Name of the EKS cluster.
    pub name: String,
    /// AWS region, e.g. `us-west-2`.
    pub region: String,
    /// The twelve digits of the AWS account.
    pub account: String,
    /// `arn:aws:eks:REGION:ACCOUNT:cluster/NAME`.
    pub arn: String,
    /// `https://…` of the Kubernetes API server.
    pub endpoint: String,
    /// The API server's CA: base64 of PEM.
    pub certificate_authority: String,
    /// `https://…` of the cluster's OpenID Connect issuer.
    pub issuer: String,
    /// `vpc-…`
    pub vpc: String,
    /// The cluster security group, `sg-…`: EKS attaches it to the control plane and to managed nodes.
    pub security_group: String,
    /// Kubernetes minor version, e.g. `1.35`.
    pub version: String,
}

impl Cluster {
    /// Whether a document that was read held every fact: what it lacks is empty.
    fn complete(&self) -> bool {
        let place = [&self.name, &self.region, &self.account, &self.arn, &self.vpc, &self.security_group];
        let api = [&self.endpoint, &self.certificate_authority, &self.issuer, &self.version];
        place.into_iter().chain(api).all(|fact| !fact.is_empty())
    }

    /// `aws`, `aws-cn`, `aws-us-gov`, `aws-eusc`, …
    pub fn partition(&self) -> &str {
        Arn::parse(&self.arn).map_or("aws", |arn| arn.partition)
    }

    /// ARN of the IAM identity provider for the cluster's issuer, whether or not there is one:
    /// `arn:PARTITION:iam::ACCOUNT:oidc-provider/ISSUER`, the issuer without its scheme but to the letter otherwise.
    ///
    /// # Errors
    /// The issuer is no https URL.
    pub fn oidc_provider(&self) -> Result<String> {
        let issuer = &self.issuer;
        let bare = issuer
            .strip_prefix("https://")
            .ok_or_else(|| Error::input(format!("cluster.issuer: {issuer} is not an https URL")))?;
        let resource = format!("oidc-provider/{bare}");
        Ok(Arn::of_iam(self.partition(), &self.account, &resource).to_string())
    }
}

impl Session {
    /// The facts of the cluster that `--cluster` or the document names, in the region of `--region` or the document: one
    /// of the same name in another region is another cluster.
    ///
    /// # Errors
    /// As those of [`Session::cluster`]; or `--region` and the document name two regions, and `--cluster` no cluster.
    pub async fn own_cluster(&mut self, flags: &AwsFlags) -> Result<Cluster> {
        self.doc.object(&["cluster"])?;
        let known: Cluster = self.doc.read(&["cluster"])?.unwrap_or_default();
        let Cluster { name, region, .. } = &known;
        let is_placed = !name.is_empty() && !region.is_empty();
        if let Some(asked) = flags.region.as_ref().filter(|asked| is_placed && *asked != region) {
            if flags.cluster.is_none() {
                let apart = format!("--region is {asked}, but cluster {name} of the document is in {region}");
                let hint = "leave --region out, or name a cluster of that region with --cluster";
                return Err(Error::conflict(apart).hint(hint).into());
            }
            self.doc.remove(&["cluster"]);
        }
        self.cluster(flags).await
    }

    /// The facts of the cluster that `--cluster` or the document names, whatever `--region` says: for a tool whose region
    /// is also that of something else. What the document lacks is looked up with eks:DescribeCluster and left there for
    /// the next tool.
    ///
    /// # Errors
    /// No cluster is named, there is none of that name, or it is not active.
    pub async fn cluster(&mut self, flags: &AwsFlags) -> Result<Cluster> {
        self.doc.object(&["cluster"])?;
        let known: Cluster = self.doc.read(&["cluster"])?.unwrap_or_default();
        let other = flags.cluster.as_ref().is_some_and(|name| !known.name.is_empty() && known.name != *name);
        if !other && known.complete() {
            return Ok(known);
        }
        let name = flags.cluster.clone().unwrap_or(known.name);
        self.stderr.name_cluster(&name);
        if name.is_empty() {
            return Err(Error::input("no cluster").hint("give --cluster, or cluster.name in the document").into());
        }
        let cluster = self.look_up_cluster(flags, &name, None).await?;
        if other {
            // Not before: its region is where the other is looked for.
            self.doc.remove(&["cluster"]);
        }
        self.put_cluster(&cluster)?;
        Ok(cluster)
    }

    /// Leaves the facts of a cluster in the document.
    ///
    /// # Errors
    /// What stands under `cluster` is no object.
    pub fn put_cluster(&mut self, cluster: &Cluster) -> Result<()> {
        if let Value::Object(facts) = serde_json::to_value(cluster)? {
            for (fact, value) in facts {
                self.doc.put(&["cluster", &fact], value)?;
            }
        }
        Ok(())
    }

    /// The facts of the other side's cluster, from its document (`--from FILE`). What that document lacks is looked
    /// up and left nowhere.
    ///
    /// # Errors
    /// The document names no cluster, there is none of that name, or it is not active.
    pub async fn peer_cluster(&self, flags: &AwsFlags, peer: &Document) -> Result<Cluster> {
        let known: Option<Cluster> = peer.read(&["cluster"]).context("read the other side's document")?;
        let known = known.unwrap_or_default();
        if known.complete() {
            return Ok(known);
        }
        if known.name.is_empty() {
            return Err(Error::input("the other side's document has no cluster.name").into());
        }
        let region = Some(known.region.as_str()).filter(|region| !region.is_empty());
        self.look_up_cluster(flags, &known.name, region).await
    }

    /// The facts of any cluster of the caller's account; `region` defaults to the session's.
    ///
    /// # Errors
    /// There is no cluster of that name, or it is not active.
    pub async fn look_up_cluster(&self, flags: &AwsFlags, name: &str, region: Option<&str>) -> Result<Cluster> {
        let mut config = aws_sdk_eks::config::Builder::from(&self.aws(flags).await?);
        if let Some(region) = region {
            config = config.region(Region::new(region.to_owned()));
        }
        let eks = aws_sdk_eks::Client::from_conf(config.build());
        let Some(described) = describe(&eks, name).await? else {
            let region = eks.config().region().map(Region::to_string).unwrap_or_default();
            let none = Error::failed(format!("there is no cluster {name} in region {region} of this account"));
            return Err(none.hint(format!("aws eks list-clusters --region {region}")).into());
        };
        facts(described)
    }

    /// Whether there is a cluster of that name, in whatever state, in the session's region of the caller's account.
    ///
    /// # Errors
    /// AWS refuses or does not answer.
    pub async fn has_cluster(&self, flags: &AwsFlags, name: &str) -> Result<bool> {
        let eks = aws_sdk_eks::Client::new(&self.aws(flags).await?);
        Ok(describe(&eks, name).await?.is_some())
    }
}

/// `None` if there is no cluster of that name.
async fn describe(eks: &aws_sdk_eks::Client, name: &str) -> Result<Option<Described>> {
    let answer = eks.describe_cluster().name(name).send().await;
    let answer = answer.or_absent(|error| error.is_resource_not_found_exception());
    let answer = answer.call("eks:DescribeCluster", name).context(format!("look up cluster {name}"))?;
    let described =
        |answer: DescribeClusterOutput| answer.cluster.context("eks:DescribeCluster answered without a cluster");
    answer.map(described).transpose()
}

fn facts(cluster: Described) -> Result<Cluster> {
    let name = cluster.name().unwrap_or_default().to_owned();
    match cluster.status() {
        None | Some(ClusterStatus::Active | ClusterStatus::Updating) => {}
        Some(status @ (ClusterStatus::Creating | ClusterStatus::Pending)) => {
            let wait = format!("aws eks wait cluster-active --name {name}");
            return Err(Error::retry(format!("cluster {name} is {status}")).hint(wait).into());
        }
        Some(status) => {
            let why = format!("aws eks describe-cluster --name {name} --query 'cluster.[status, health]'");
            return Err(Error::failed(format!("cluster {name} is {status}")).hint(why).into());
        }
    }
    let lacks = |what: &str| format!("cluster {name} has no {what}");
    let vpc = cluster.resources_vpc_config().with_context(|| lacks("VPC"))?;
    let arn = cluster.arn().with_context(|| lacks("ARN"))?.to_owned();
    let Some(Arn { region, account, .. }) = Arn::parse(&arn) else {
        return Err(Error::failed(format!("cluster {name} has an ARN of an unknown shape: {arn}")).into());
    };
    let issuer = cluster.identity().and_then(|identity| identity.oidc()?.issuer());
    let authority = cluster.certificate_authority().and_then(|authority| authority.data());
    Ok(Cluster {
        region: region.to_owned(),
        account: account.to_owned(),
        endpoint: cluster.endpoint().with_context(|| lacks("endpoint"))?.to_owned(),
        certificate_authority: authority.with_context(|| lacks("certificate authority"))?.to_owned(),
        issuer: issuer.with_context(|| lacks("OpenID Connect issuer"))?.to_owned(),
        vpc: vpc.vpc_id().with_context(|| lacks("VPC"))?.to_owned(),
        security_group: vpc.cluster_security_group_id().with_context(|| lacks("cluster security group"))?.to_owned(),
        version: cluster.version().with_context(|| lacks("version"))?.to_owned(),
        arn,
        name,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn cluster(arn: &str, issuer: &str) -> Cluster {
        let facts = serde_json::json!({"name": "c", "region": "r", "account": "1", "arn": arn, "endpoint": "https://10.0.0.1",
            "certificateAuthority": "", "issuer": issuer, "vpc": "vpc-1", "securityGroup": "sg-1", "version": "1.35"});
        serde_json::from_value(facts).unwrap()
    }

    #[test]
    fn names_follow_the_partition_and_the_issuer() {
        for (region, issuer, provider) in [
            (
                "aws:eks:us-west-2",
                "https://oidc.eks.us-west-2.amazonaws.com/id/A",
                "arn:aws:iam::1:oidc-provider/oidc.eks.us-west-2.amazonaws.com/id/A",
            ),
            (
                "aws-cn:eks:cn-north-1",
                "https://oidc.eks.cn-north-1.amazonaws.com.cn/id/A",
                "arn:aws-cn:iam::1:oidc-provider/oidc.eks.cn-north-1.amazonaws.com.cn/id/A",
            ),
            (
                "aws-eusc:eks:eusc-de-east-1",
                "https://oidc-eks.eusc-de-east-1.amazonwebservices.eu/id/A",
                "arn:aws-eusc:iam::1:oidc-provider/oidc-eks.eusc-de-east-1.amazonwebservices.eu/id/A",
            ),
            (
                "aws:eks:us-west-2",
                "https://issuer.example:8443/clusters/c1/",
                "arn:aws:iam::1:oidc-provider/issuer.example:8443/clusters/c1/",
            ),
        ] {
            let cluster = cluster(&format!("arn:{region}:1:cluster/c"), issuer);
            assert_eq!(cluster.oidc_provider().unwrap(), provider);
        }
        assert!(cluster("arn:aws:eks:us-west-2:1:cluster/c", "http://issuer.example").oidc_provider().is_err());
    }
}
