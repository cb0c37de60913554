//! `cloudmap-ns`: see [`CloudmapNs`].

mod aws;
mod forget;
mod operation;
mod plan;

use anyhow::Result;
use aws::CloudMap;
use common::aws::AwsFlags;
use common::cluster::Cluster;
use common::plan::UNKNOWN;
use common::{Error, Flags, Kind, Session, Tool, classify};
use forget::Gone;
use operation::finish;
use plan::{Change, Namespace, Want};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::ExitCode;

/// The name the tutorial gives it.
const DEFAULT_NAME: &str = "svc2.svc.local";

/// Makes a Cloud Map private DNS namespace in the cluster's VPC.
///
/// Names may repeat, the VPC decides: a namespace of the same name in another VPC is not this one.
/// One that is in this VPC already is used, whoever made it; --delete removes only what this tool
/// made or took over, with empty services that an App Mesh controller left in it, and never while
/// somebody else has a service there. The VPC of a namespace that others made is asked of its
/// Route 53 hosted zone.
///
/// A cluster that was deleted as a whole leaves its pods and what it published in the namespace.
/// --forget-cluster removes them, and changes nothing else.
///
///   Reads   cluster; with --from the other cluster's document, whose VPC must be the same
///   Owns    namespace {arn, hostedZone, id, name, vpc}
///   Calls   eks:DescribeCluster servicediscovery:ListNamespaces
///           servicediscovery:ListTagsForResource servicediscovery:CreatePrivateDnsNamespace
///           servicediscovery:TagResource servicediscovery:GetOperation
///           servicediscovery:ListServices servicediscovery:DeleteService
///           servicediscovery:DeleteNamespace route53:GetHostedZone, with --forget-cluster
///           servicediscovery:ListInstances servicediscovery:DeregisterInstance,
///           and for Cloud Map route53:CreateHostedZone route53:ListHostedZonesByName
///           route53:DeleteHostedZone ec2:DescribeVpcs ec2:DescribeRegions
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   cloudmap-ns -n --cluster prod --name prod.internal
///   oidc-assoc -n --cluster c2 | cloudmap-ns --from c1.json | jq -r .namespace.id
///   cloudmap-ns -n --cluster c2 --forget-cluster c1 --plan
#[derive(Debug, clap::Parser)]
#[command(name = "cloudmap-ns", version, verbatim_doc_comment)]
struct CloudmapNs {
    /// Domain name of the namespace [default: svc2.svc.local]
    #[arg(long)]
    name: Option<String>,
    /// Document of another cluster that shall share the namespace: it must be in the same VPC
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Take over a namespace that others made, so that --delete removes it
    #[arg(long)]
    adopt: bool,
    /// Remove what a cluster that is gone has registered there: its name, its ARN, or the uid of its kube-system
    #[arg(long, value_name = "CLUSTER", conflicts_with = "delete")]
    forget_cluster: Option<String>,
    #[command(flatten)]
    aws: AwsFlags,
    #[command(flatten)]
    flags: Flags,
}

/// The `namespace` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Namespace")]
struct Section {
    /// ARN of the namespace; found, never wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    arn: Option<String>,
    /// Route 53's id of its hosted zone; found, never wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    hosted_zone: Option<String>,
    /// `ns-…`; found, never wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Its domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// `vpc-…`, the cluster's.
    #[serde(skip_serializing_if = "Option::is_none")]
    vpc: Option<String>,
}

/// A namespace wished for, and the account to look in.
struct Wish {
    namespace: Want,
    account: String,
}

impl Tool for CloudmapNs {
    type Section = Section;
    type Want = Wish;
    type Have = Vec<Namespace>;
    type Change = Change;

    fn flags(&self) -> &Flags {
        &self.flags
    }

    fn key(&self) -> Vec<&str> {
        vec!["namespace"]
    }

    async fn want(&self, session: &mut Session, section: Option<Section>) -> Result<Wish> {
        let section = section.unwrap_or_default();
        let cluster = session.cluster(&self.aws).await?;
        if let Some(vpc) = section.vpc.filter(|vpc| *vpc != cluster.vpc) {
            let (name, place) = (&cluster.name, &cluster.vpc);
            return Err(Error::conflict(format!("namespace.vpc is {vpc}, but cluster {name} is in {place}")).into());
        }
        if let Some(file) = self.from.as_ref().filter(|_| !self.flags.delete) {
            let peer = session.peer_cluster(&self.aws, &session.peer(file)?).await?;
            plan::one_vpc((&cluster.name, &cluster.vpc), (&peer.name, &peer.vpc))?;
        }
        let gone = match &self.forget_cluster {
            Some(given) => Some(self.gone(session, given, &cluster).await?),
            None => None,
        };
        let name = self.name.clone().or(section.name).unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let namespace = Want { name, vpc: cluster.vpc, adopt: self.adopt, gone };
        Ok(Wish { namespace, account: cluster.account })
    }

    async fn observe(&self, session: &Session, want: &Wish) -> Result<Vec<Namespace>> {
        let cloud_map = CloudMap::new(session.aws(&self.aws).await?);
        let mut namespaces = cloud_map.namespaces(&want.namespace.name, &want.account).await?;
        for namespace in &mut namespaces {
            if self.flags.delete {
                // The controllers take out what the applications had there, if those are planned to go before.
                let deserted = !session.doc.planned_removals()?.is_empty();
                namespace.services = cloud_map.services(&namespace.id, deserted).await?;
            }
            if let Some(gone) = &want.namespace.gone {
                namespace.left = cloud_map.left_by(gone, &namespace.id).await?;
            }
        }
        Ok(namespaces)
    }

    fn plan(want: &Wish, have: &Vec<Namespace>) -> Result<Vec<Change>> {
        Ok(plan::plan(&want.namespace, have))
    }

    fn plan_delete(want: &Wish, have: &Vec<Namespace>) -> Result<Vec<Change>> {
        Ok(plan::plan_delete(&want.namespace, have))
    }

    fn remarks(want: &Wish, have: &Vec<Namespace>) -> Vec<String> {
        plan::remarks(&want.namespace, have)
    }

    fn left_alone(want: &Wish, have: &Vec<Namespace>) -> Vec<String> {
        plan::left_alone(&want.namespace, have)
    }

    async fn apply(&self, session: &Session, want: &Wish, change: Change) -> Result<()> {
        let cloud_map = CloudMap::new(session.aws(&self.aws).await?);
        let what = change.to_string();
        match change {
            Change::Create { name, vpc } => {
                let operation = cloud_map.create(&name, &vpc).await?;
                session.made(format!("namespace {name} in {vpc}"));
                let done = finish(session, &cloud_map, &what, &operation).await;
                // A run that was killed may have started it before: then it is there now.
                match &done {
                    Err(error) if classify(error).0 == Kind::Conflict => {
                        let have = cloud_map.namespaces(&name, &want.account).await?;
                        if plan::of_vpc(&want.namespace, &have).is_some() { Ok(()) } else { done }
                    }
                    _ => done,
                }
            }
            Change::Adopt { arn, .. } => cloud_map.adopt(&arn, &want.namespace.vpc).await,
            Change::Delete { id, .. } => match cloud_map.delete(&id).await? {
                Some(operation) => finish(session, &cloud_map, &what, &operation).await,
                None => Ok(()),
            },
            Change::Deregister { id, instances, .. } => {
                let mut operations = Vec::new();
                for instance in &instances {
                    operations.extend(cloud_map.deregister(&id, instance).await?);
                }
                for operation in operations {
                    finish(session, &cloud_map, &what, &operation).await?;
                }
                Ok(())
            }
            Change::DeleteService { id, .. } => cloud_map.delete_service(&id).await,
        }
    }

    fn outcome(want: Wish, have: Vec<Namespace>) -> Section {
        let found = plan::of_vpc(&want.namespace, &have).cloned();
        let (arn, id, hosted_zone) = match found {
            Some(namespace) => (Some(namespace.arn), Some(namespace.id), namespace.hosted_zone),
            None => (None, None, None),
        };
        Section { arn, hosted_zone, id, name: Some(want.namespace.name), vpc: Some(want.namespace.vpc) }
    }

    fn planned(want: Wish, have: Vec<Namespace>) -> Section {
        let mut section = Self::outcome(want, have);
        if section.id.is_none() {
            let unknown = || Some(UNKNOWN.to_owned());
            (section.arn, section.id, section.hosted_zone) = (unknown(), unknown(), unknown());
        }
        section
    }
}

impl CloudmapNs {
    /// The cluster to forget.
    async fn gone(&self, session: &Session, given: &str, cluster: &Cluster) -> Result<Gone> {
        let gone = Gone::new(given, cluster)?;
        if session.has_cluster(&self.aws, &gone.name).await? {
            let message = format!("cluster {} is there, and its controller registers what it needs", gone.name);
            let hint = "delete its App Mesh objects (kubectl delete): then its controller removes what it registered";
            return Err(Error::conflict(message).hint(hint).into());
        }
        Ok(gone)
    }
}

fn main() -> ExitCode {
    common::main::<CloudmapNs>()
}
