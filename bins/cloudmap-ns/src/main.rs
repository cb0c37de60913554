//! `cloudmap-ns`: see [`CloudmapNs`].

mod aws;
mod forget;
mod operation;
mod plan;
mod section;

use anyhow::Result;
use aws::CloudMap;
use aws_sdk_servicediscovery::types::OperationStatus;
use common::aws::AwsFlags;
use common::aws::network::Apart;
use common::namespace::NamespaceType;
use common::plan::UNKNOWN;
use common::{Error, Found, Kind, Session, Tool, classify};
use forget::Gone;
use operation::{begin, finish};
use plan::{Begun, Change, Namespace, Place, Want};
use section::Section;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

/// The name the tutorial gives it.
const DEFAULT_NAME: &str = "svc2.svc.local";

/// Makes a Cloud Map namespace: private DNS in the cluster's VPC, or HTTP.
///
/// Names may repeat, the VPC decides: a namespace of the same name in another VPC
/// is not this one. One that is in this VPC already is used, whoever made it;
/// --delete removes only what this tool made or took over, with empty services
/// that an App Mesh controller left in it, and never while somebody else has a
/// service there. The VPC of a namespace that others made is asked of its
/// Route 53 hosted zone. An HTTP namespace (--type http) needs no VPC, so that
/// clusters in two VPCs can share it; its names are found through Cloud Map only.
/// What joins the two VPCs is looked for.
///
/// Cloud Map takes about a minute to make one, and knows its id at once:
/// --no-wait ends then, unless another run makes one too, and the same tool given
/// that document waits for the rest.
///
/// A cluster that was deleted as a whole leaves its pods and what it published in
/// the namespace. --forget-cluster removes them, and changes nothing else.
///
///   Reads   cluster; with --from the other cluster's document
///   Owns    namespace {arn, hostedZone, id, name, operation, type, vpc}
///   Calls   eks:DescribeCluster servicediscovery:ListNamespaces
///           servicediscovery:ListTagsForResource
///           servicediscovery:CreatePrivateDnsNamespace
///           servicediscovery:CreateHttpNamespace servicediscovery:TagResource
///           servicediscovery:GetOperation servicediscovery:ListOperations
///           servicediscovery:ListServices servicediscovery:DeleteService
///           servicediscovery:DeleteNamespace
///           route53:GetHostedZone, with --forget-cluster
///           servicediscovery:ListInstances servicediscovery:DeregisterInstance,
///           for clusters in two VPCs ec2:DescribeVpcPeeringConnections
///           ec2:DescribeTransitGatewayVpcAttachments, and for Cloud Map
///           route53:CreateHostedZone route53:ListHostedZonesByName
///           route53:DeleteHostedZone route53:ChangeResourceRecordSets
///           ec2:DescribeVpcs ec2:DescribeRegions
///   Exits   0 done, 1 failed, 2 usage, 3 input, 4 conflict, 5 retry
///
/// Examples:
///   cloudmap-ns -n --cluster prod --name prod.internal
///   cloudmap-ns -n --cluster prod --name prod.internal --type http
///   oidc-assoc -n --cluster c2 | cloudmap-ns --from c1.json |
///     jq -r .namespace.id
///   cloudmap-ns --no-wait < c2.json | tee begun.json | jq -r .namespace.id
///   cloudmap-ns < begun.json
///   cloudmap-ns -n --cluster c2 --forget-cluster c1 --plan
#[derive(Debug, clap::Parser)]
#[command(name = "cloudmap-ns", version, verbatim_doc_comment)]
struct CloudmapNs {
    /// Domain name of the namespace [default: svc2.svc.local]
    #[arg(long)]
    name: Option<String>,
    /// Where its names are found: in the VPC's DNS and Cloud Map, or in Cloud Map only [default: private-dns]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<NamespaceType>,
    /// Document of another cluster that shall share the namespace: a private DNS one if it is in the same VPC
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Do not wait until Cloud Map has made it, only until its id is known
    #[arg(long, conflicts_with = "delete")]
    no_wait: bool,
    /// Take over a namespace that others made, so that --delete removes it
    #[arg(long)]
    adopt: bool,
    /// Remove what a cluster that is gone has registered there: its name, its ARN, or the uid of its kube-system
    #[arg(long, value_name = "CLUSTER", conflicts_with = "delete")]
    forget_cluster: Option<String>,
    #[command(flatten)]
    aws: AwsFlags,
}

impl Tool for CloudmapNs {
    type Section = Section;
    type Want = Want;

    fn key(&self) -> Vec<&str> {
        vec!["namespace"]
    }

    async fn want(&self, session: &mut Session, section: Option<Section>) -> Result<Want> {
        let section = section.unwrap_or_default();
        let cluster = session.own_cluster(&self.aws).await?;
        let kind = self.kind.or(section.kind).unwrap_or(NamespaceType::PrivateDns);
        let place = Place::of(kind, &cluster.vpc);
        let name = self.name.clone().or(section.name.clone()).unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let mut begun = section.begun(&name, kind);
        if let Some(vpc) = section.vpc.filter(|vpc| kind == NamespaceType::PrivateDns && *vpc != cluster.vpc) {
            let (name, place) = (&cluster.name, &cluster.vpc);
            return Err(Error::conflict(format!("namespace.vpc is {vpc}, but cluster {name} is in {place}")).into());
        }
        let mut apart = None;
        if let Some(file) = self.from.as_ref().filter(|_| !session.flags.delete) {
            let document = session.peer(file)?;
            let peer = session.peer_cluster(&self.aws, &document).await?;
            plan::one_region(&cluster, &peer)?;
            let shared: Option<Section> = document.read(&["namespace"])?;
            begun = begun.or(shared.and_then(|shared| shared.begun(&name, kind)));
            let found = session.apart(&session.aws(&self.aws).await?, &cluster, &peer).await?;
            apart = found.map(Apart::joined).transpose()?;
            if kind == NamespaceType::PrivateDns {
                plan::one_vpc(apart.as_ref())?;
            }
        }
        if let Some(Begun { operation, .. }) = &begun {
            let operation = CloudMap::new(&session.aws(&self.aws).await?).operation(operation).await?;
            // What has been made is listed, unless it is gone again. What could not be made is begun anew, but not by whom
            // is to wait for it: others know its id already.
            begun = begun.filter(|_| match operation.and_then(|operation| operation.status) {
                Some(OperationStatus::Success) | None => false,
                Some(OperationStatus::Fail) => !self.no_wait,
                Some(_) => true,
            });
        }
        let gone = match &self.forget_cluster {
            Some(given) => Some(Gone::look_for(session, &self.aws, given, &cluster).await?),
            None => None,
        };
        let (adopt, no_wait, account) = (self.adopt, self.no_wait, cluster.account);
        let begun = begun.map(OnceLock::from).unwrap_or_default();
        Ok(Want { name, place, adopt, no_wait, begun, gone, account, apart })
    }

    async fn observe(&self, session: &Session, want: &Want) -> Result<Vec<Namespace>> {
        let cloud_map = CloudMap::new(&session.aws(&self.aws).await?);
        let mut namespaces = cloud_map.namespaces(&want.name, &want.account).await?;
        if session.flags.delete && !session.flags.plan && plan::in_place(want, &namespaces).is_none() {
            // One that is still being made is not listed. Whose it is only its end tells.
            let made = async || match cloud_map.is_another_made(None).await? {
                true => Ok(Found::NotYet("Cloud Map makes one".to_owned())),
                false => Ok(Found::Ready(())),
            };
            session.wait("namespaces that are being made", made).await?;
            namespaces = cloud_map.namespaces(&want.name, &want.account).await?;
        }
        for namespace in &mut namespaces {
            if session.flags.delete {
                // The controllers take out what the applications had there, if those are planned to go before.
                let deserted = !session.doc.planned_removals()?.is_empty();
                namespace.services = cloud_map.services(&namespace.id, deserted).await?;
            }
            if let Some(gone) = &want.gone {
                namespace.left = cloud_map.left_by(gone, &namespace.id).await?;
            }
        }
        Ok(namespaces)
    }

    async fn apply(&self, session: &Session, want: &Want, change: Change) -> Result<()> {
        let cloud_map = CloudMap::new(&session.aws(&self.aws).await?);
        let what = change.to_string();
        match change {
            Change::Create { name, place } => {
                let done = match cloud_map.create(&name, &place).await? {
                    Some(operation) => {
                        session.made(format!("namespace {name} in {place}"));
                        // Of two that another run is making at once, Cloud Map takes one: only the end tells which.
                        if want.no_wait && !cloud_map.is_another_made(Some(&operation)).await? {
                            begin(session, &cloud_map, &what, operation).await.map(|begun| drop(want.begun.set(begun)))
                        } else {
                            finish(session, &cloud_map, &what, &operation).await
                        }
                    }
                    None => Err(Error::conflict(format!("{what}: Cloud Map has one of that name")).into()),
                };
                // A run that was killed, or a call whose answer was lost, may have made it: then it is there now.
                match &done {
                    Err(error) if classify(error).0 == Kind::Conflict => {
                        let have = cloud_map.namespaces(&name, &want.account).await?;
                        if plan::in_place(want, &have).is_some() { Ok(()) } else { done }
                    }
                    _ => done,
                }
            }
            Change::Await { name, operation } => {
                finish(session, &cloud_map, &format!("namespace {name}"), &operation).await
            }
            Change::Adopt { arn, .. } => cloud_map.adopt(&arn, &want.place).await,
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

    fn outcome(want: Want, have: Vec<Namespace>) -> Section {
        let found = plan::in_place(&want, &have).cloned();
        let begun = if found.is_none() { want.begun.into_inner() } else { None };
        let (begun, operation) = begun.map(|begun| (begun.id, begun.operation)).unzip();
        let (arn, id, hosted_zone) =
            found.map_or((None, begun, None), |it| (Some(it.arn), Some(it.id), it.hosted_zone));
        let (kind, vpc) = match want.place {
            Place::Api => (Some(NamespaceType::Http), None),
            Place::Vpc(vpc) => (None, Some(vpc)),
        };
        Section { arn, hosted_zone, id, name: Some(want.name), operation, kind, vpc }
    }

    fn planned(want: Want, have: Vec<Namespace>) -> Section {
        let mut section = Self::outcome(want, have);
        if section.id.is_none() {
            let unknown = || Some(UNKNOWN.to_owned());
            (section.arn, section.id) = (unknown(), unknown());
            section.hosted_zone = section.vpc.is_some().then(|| UNKNOWN.to_owned());
        }
        section
    }
}

fn main() -> ExitCode {
    common::main::<CloudmapNs>()
}
