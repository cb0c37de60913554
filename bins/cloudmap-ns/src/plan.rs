//! Says what to change about a namespace. Pure.
//!
//! Names repeat: there may be one `svc2.svc.local` per VPC and one without, so the place decides which one is meant.

use crate::forget::{Gone, Left};
use anyhow::Result;
use common::Error;
use common::aws::network::Apart;
use common::aws::permit;
use common::cluster::Cluster;
use common::namespace::NamespaceType;
use common::plan::Effect;
use std::fmt;
use std::sync::OnceLock;

/// Where the names in a namespace are looked up, by which it is told from its namesakes.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// Cloud Map's API: an HTTP namespace, of which there is one of a name in an account and region.
    Api,
    /// The DNS of a VPC, `vpc-…`, and the API: a private DNS namespace.
    Vpc(String),
}

impl Place {
    /// The place of a namespace of a type for a cluster in a VPC.
    pub fn of(kind: NamespaceType, vpc: &str) -> Self {
        match kind {
            NamespaceType::PrivateDns => Self::Vpc(vpc.to_owned()),
            NamespaceType::Http => Self::Api,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Api => f.write_str("no VPC"),
            Place::Vpc(vpc) => f.write_str(vpc),
        }
    }
}

/// The namespace the cluster needs.
#[derive(Debug, Clone)]
pub struct Want {
    /// Its domain name.
    pub name: String,
    /// Where it is needed.
    pub place: Place,
    /// Take over a namespace that others made.
    pub adopt: bool,
    /// Do not wait until it is made.
    pub no_wait: bool,
    /// What this run or one before it had Cloud Map begin.
    pub begun: OnceLock<Begun>,
    /// Change nothing but what this cluster has left in it.
    pub gone: Option<Gone>,
    /// The account that owns it.
    pub account: String,
    /// The clusters' VPCs, if they are two.
    pub apart: Option<Apart>,
}

/// A namespace that Cloud Map makes, and does not list before it has.
#[derive(Debug, Clone)]
pub struct Begun {
    /// `ns-…`
    pub id: String,
    /// Id of the operation.
    pub operation: String,
}

/// A namespace of that name, in whatever VPC or in none.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// `ns-…`
    pub id: String,
    /// `arn:PARTITION:servicediscovery:REGION:ACCOUNT:namespace/ID`
    pub arn: String,
    /// Route 53's id of its zone.
    pub hosted_zone: Option<String>,
    /// Where it is: the VPCs that see its zone, or nowhere else than in the API.
    pub places: Vec<Place>,
    /// Whose it is, if not ours.
    pub foreign: Option<String>,
    /// Its services; looked up for `--delete` only.
    pub services: Vec<Service>,
    /// What a cluster that is gone has left in it; looked up for `--forget-cluster` only.
    pub left: Vec<Left>,
}

/// A service of a namespace.
#[derive(Debug, Clone)]
pub struct Service {
    /// `srv-…`
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether an App Mesh controller made it and nothing is registered in it: it was left behind.
    pub left_behind: bool,
}

/// One step.
#[derive(Debug, PartialEq)]
#[allow(missing_docs, reason = "its text says it")]
pub enum Change {
    Create { name: String, place: Place },
    Await { name: String, operation: String },
    Adopt { id: String, arn: String },
    Delete { name: String, id: String },
    Deregister { cluster: String, service: String, id: String, instances: Vec<String> },
    DeleteService { service: String, id: String },
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self {
            Change::Create { .. } => Effect::Add,
            Change::Await { .. } => Effect::Wait,
            Change::Adopt { .. } => Effect::Change,
            Change::Delete { .. } | Change::Deregister { .. } | Change::DeleteService { .. } => Effect::Remove,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { name, place: Place::Api } => write!(f, "create HTTP namespace {name}"),
            Change::Create { name, place } => write!(f, "create namespace {name} in {place}"),
            Change::Await { name, .. } => write!(f, "wait for namespace {name}"),
            Change::Adopt { id, .. } => write!(f, "take over namespace {id}"),
            Change::Delete { name, id } => write!(f, "delete namespace {name} ({id})"),
            Change::Deregister { cluster, service, instances, .. } => {
                write!(f, "deregister what cluster {cluster} has left in {service}: {}", instances.join(", "))
            }
            Change::DeleteService { service, id } => write!(f, "delete service {service} ({id})"),
        }
    }
}

/// The namespace that is where it is needed, if there is one.
pub fn in_place<'a>(want: &Want, have: &'a [Namespace]) -> Option<&'a Namespace> {
    have.iter().find(|namespace| namespace.places.contains(&want.place))
}

impl common::plan::Want for Want {
    type Have = Vec<Namespace>;
    type Change = Change;

    /// One that others made in this place is used as it is. Who forgets a cluster changes nothing else.
    fn plan(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        if let Some(gone) = &self.gone {
            let left = in_place(self, have).into_iter().flat_map(|namespace| namespace.left.iter().cloned());
            let deregister = |Left { service, id, instances }| {
                let (cluster, service) = (gone.given.clone(), format!("{service}.{}", self.name));
                Change::Deregister { cluster, service, id, instances }
            };
            return Ok(left.map(deregister).collect());
        }
        Ok(match in_place(self, have) {
            None if let Some(Begun { operation, .. }) = self.begun.get() => {
                let (name, operation) = (self.name.clone(), operation.clone());
                if self.no_wait { Vec::new() } else { vec![Change::Await { name, operation }] }
            }
            None => vec![Change::Create { name: self.name.clone(), place: self.place.clone() }],
            Some(found) if self.adopt && found.foreign.is_some() => {
                vec![Change::Adopt { id: found.id.clone(), arn: found.arn.clone() }]
            }
            Some(_) => Vec::new(),
        })
    }

    /// Only what carries our tag is deleted, and only when nobody is registered in it. Services that App Mesh controllers
    /// left behind go with it.
    fn plan_delete(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        let unused =
            |found: &&Namespace| found.foreign.is_none() && found.services.iter().all(|service| service.left_behind);
        let Some(found) = in_place(self, have).filter(unused) else { return Ok(Vec::new()) };
        let service = |service: &Service| Change::DeleteService {
            service: format!("{}.{}", service.name, self.name),
            id: service.id.clone(),
        };
        let namespace = Change::Delete { name: self.name.clone(), id: found.id.clone() };
        Ok(found.services.iter().map(service).chain([namespace]).collect())
    }

    /// Namespaces that may be taken for this one, and that this one is somebody else's.
    fn remarks(&self, have: &Self::Have) -> Vec<String> {
        let found = in_place(self, have);
        let foreign = found.filter(|_| !self.adopt).and_then(|found| Some((&found.id, found.foreign.as_ref()?)));
        let foreign = foreign
            .map(|(id, whose)| format!("namespace {} ({id}) is used, {whose}: --adopt takes it over", self.name));
        let elsewhere = have.iter().filter(|other| !other.places.contains(&self.place)).map(|other| {
            let places: Vec<String> = other.places.iter().map(ToString::to_string).collect();
            let place = if places.is_empty() { Place::Api.to_string() } else { places.join(", ") };
            format!("another {} ({}) is in {place}: who looks by name alone may find it instead", self.name, other.id)
        });
        let joined = self.apart.iter().map(Apart::remark);
        joined.chain(foreign).chain(elsewhere).collect()
    }

    /// Why `--delete` leaves the namespace.
    fn left_alone(&self, have: &Self::Have) -> Vec<String> {
        let Some(found) = in_place(self, have) else { return Vec::new() };
        let used = found.services.iter().filter(|service| !service.left_behind).map(|service| service.name.as_str());
        let why = match (&found.foreign, &used.collect::<Vec<_>>()[..]) {
            (Some(whose), _) => whose.clone(),
            (None, []) => return Vec::new(),
            (None, services) => format!("still has services, which their makers must delete: {}", services.join(", ")),
        };
        vec![format!("namespace {} ({}): {why}", self.name, found.id)]
    }
}

/// Refuses two clusters that no private namespace serves both.
pub fn one_vpc(apart: Option<&Apart>) -> Result<()> {
    let Some(apart) = apart else { return Ok(()) };
    Err(Error::conflict(format!("{apart}: a private DNS namespace serves one VPC"))
        .hint("--type http makes a namespace that needs no VPC")
        .into())
}

/// Refuses clusters that no namespace serves both.
pub fn one_region(cluster: &Cluster, peer: &Cluster) -> Result<()> {
    if cluster.region == peer.region {
        return Ok(());
    }
    let apart = format!("cluster {} is in {}, cluster {} in {}", cluster.name, cluster.region, peer.name, peer.region);
    Err(Error::conflict(format!("{apart}: a namespace is of one region")).into())
}

/// What Cloud Map does as the caller, to make the hosted zone.
const ZONE: &str = "route53:CreateHostedZone, route53:GetHostedZone, route53:ListHostedZonesByName, ec2:DescribeVpcs and \
                    ec2:DescribeRegions";

/// What Cloud Map says of an operation that failed.
pub fn failure(what: &str, code: &str, message: &str) -> Error {
    let text = format!("{what}: {code}: {message}");
    match code {
        "CANNOT_CREATE_HOSTED_ZONE" if message.contains("ConflictingDomainExists") => Error::conflict(text)
            .hint("the VPC sees another private hosted zone of that name: see aws route53 list-hosted-zones-by-vpc"),
        "ACCESS_DENIED" => Error::failed(text).hint(permit(message, ZONE)),
        "THROTTLED_REQUEST" | "INTERNAL_FAILURE" => {
            Error::retry(text).hint("run it again; with the document of --no-wait, that first")
        }
        _ => Error::failed(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use common::Kind;
    use common::plan::Want as _;

    type Words = &'static [&'static str];
    /// What is there → what is made, remarked, deleted, left.
    type Case = (&'static str, Vec<Namespace>, Words, Words, Words, Words);

    fn namespace(id: &str, vpc: &str, ours: bool, services: &[&str]) -> Namespace {
        Namespace {
            id: id.into(),
            arn: format!("arn:{id}"),
            hosted_zone: None,
            places: match vpc {
                "" => Vec::new(),
                "api" => vec![Place::Api],
                vpc => vec![Place::Vpc(vpc.to_owned())],
            },
            foreign: Some("managed by bob".to_owned()).filter(|_| !ours),
            services: services.iter().map(|name| service(name, false)).collect(),
            left: Vec::new(),
        }
    }

    fn service(name: &str, left_behind: bool) -> Service {
        Service { id: format!("srv-{name}"), name: name.to_owned(), left_behind }
    }

    fn want(adopt: bool) -> Want {
        Want {
            name: "n".into(),
            place: Place::Vpc("vpc-1".into()),
            adopt,
            no_wait: false,
            begun: OnceLock::new(),
            gone: None,
            account: "1".into(),
            apart: None,
        }
    }

    fn words(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_begun_is_waited_for_and_not_begun_again() {
        let begun = Begun { id: "ns-1".into(), operation: "operation-1".into() };
        let waits = Want { begun: OnceLock::from(begun), ..want(false) };
        let not_now = Want { no_wait: true, ..waits.clone() };
        assert_eq!(words(waits.plan(&vec![]).unwrap()), ["wait for namespace n"]);
        assert_eq!(words(not_now.plan(&vec![]).unwrap()), [] as [&str; 0]);
        for want in [waits, not_now] {
            assert_eq!(words(want.plan(&vec![namespace("ns-1", "vpc-1", true, &[])]).unwrap()), [] as [&str; 0]);
        }
    }

    #[test]
    fn the_vpc_decides_which_namespace_is_meant() {
        let create: Words = &["create namespace n in vpc-1"];
        let delete: Words = &["delete namespace n (ns-1)"];
        const USED: &str = "namespace n (ns-1) is used, managed by bob: --adopt takes it over";
        const LEFT: Words = &["namespace n (ns-1): managed by bob"];
        let cases: [Case; 8] = [
            ("none", vec![], create, &[], &[], &[]),
            ("ours", vec![namespace("ns-1", "vpc-1", true, &[])], &[], &[], delete, &[]),
            ("of others", vec![namespace("ns-1", "vpc-1", false, &["a"])], &[], &[USED], &[], LEFT),
            (
                "in use",
                vec![namespace("ns-1", "vpc-1", true, &["a", "b"])],
                &[],
                &[],
                &[],
                &["namespace n (ns-1): still has services, which their makers must delete: a, b"],
            ),
            (
                "elsewhere",
                vec![namespace("ns-2", "vpc-2", true, &[])],
                create,
                &["another n (ns-2) is in vpc-2: who looks by name alone may find it instead"],
                &[],
                &[],
            ),
            (
                "zone lost",
                vec![namespace("ns-2", "", false, &[])],
                create,
                &["another n (ns-2) is in no VPC: who looks by name alone may find it instead"],
                &[],
                &[],
            ),
            (
                "here and elsewhere",
                vec![namespace("ns-2", "vpc-2", true, &["x"]), namespace("ns-1", "vpc-1", true, &[])],
                &[],
                &["another n (ns-2) is in vpc-2: who looks by name alone may find it instead"],
                delete,
                &[],
            ),
            (
                "seen by two VPCs",
                vec![Namespace {
                    places: ["vpc-2", "vpc-1"].map(|vpc| Place::Vpc(vpc.to_owned())).into(),
                    ..namespace("ns-1", "", false, &[])
                }],
                &[],
                &[USED],
                &[],
                LEFT,
            ),
        ];
        let want = want(false);
        for (case, have, make, remark, delete, left) in cases {
            assert_eq!(words(want.plan(&have).unwrap()), make, "{case}");
            assert_eq!(want.remarks(&have), remark, "{case}");
            assert_eq!(words(want.plan_delete(&have).unwrap()), delete, "{case}");
            assert_eq!(want.left_alone(&have), left, "{case}");
        }
    }

    #[test]
    fn an_http_namespace_is_in_no_vpc() {
        let in_vpc = want(false);
        let want = Want { place: Place::Api, ..in_vpc.clone() };
        let have = vec![namespace("ns-2", "vpc-1", true, &[])];
        assert_eq!(words(want.plan(&have).unwrap()), ["create HTTP namespace n"]);
        assert_eq!(words(want.plan_delete(&have).unwrap()), [""; 0]);
        let have = vec![have[0].clone(), namespace("ns-1", "api", true, &[])];
        assert_eq!(words(want.plan(&have).unwrap()), [""; 0]);
        assert_eq!(words(want.plan_delete(&have).unwrap()), ["delete namespace n (ns-1)"]);
        assert_eq!(
            in_vpc.remarks(&have),
            ["another n (ns-1) is in no VPC: who looks by name alone may find it instead"]
        );
    }

    #[test]
    fn services_that_controllers_left_behind_go_with_the_namespace() {
        let want = want(false);
        let mut have = vec![Namespace {
            services: vec![service("a", true), service("b", true)],
            ..namespace("ns-1", "vpc-1", true, &[])
        }];
        assert_eq!(
            words(want.plan_delete(&have).unwrap()),
            ["delete service a.n (srv-a)", "delete service b.n (srv-b)", "delete namespace n (ns-1)"]
        );
        assert_eq!(want.left_alone(&have), [""; 0]);
        have[0].services.push(service("c", false));
        assert_eq!(words(want.plan_delete(&have).unwrap()), [""; 0]);
        assert_eq!(
            want.left_alone(&have),
            ["namespace n (ns-1): still has services, which their makers must delete: c"]
        );
    }

    #[test]
    fn only_what_others_made_is_taken_over() {
        let want = want(true);
        assert_eq!(
            words(want.plan(&vec![namespace("ns-1", "vpc-1", false, &[])]).unwrap()),
            ["take over namespace ns-1"]
        );
        assert_eq!(words(want.plan(&vec![namespace("ns-1", "vpc-1", true, &[])]).unwrap()), [""; 0]);
        assert_eq!(
            words(want.plan(&vec![namespace("ns-2", "vpc-2", false, &[])]).unwrap()),
            ["create namespace n in vpc-1"]
        );
    }

    #[test]
    fn who_forgets_a_cluster_changes_nothing_else() {
        let gone = Gone::new("uid", &Cluster::default()).unwrap();
        let want = Want { gone: Some(gone), ..want(true) };
        let left = |service: &str, instances: &[&str]| Left {
            service: service.to_owned(),
            id: format!("srv-{service}"),
            instances: instances.iter().map(|id| (*id).to_owned()).collect(),
        };
        let left = vec![left("front", &["10.0.1.5", "10.0.1.6"]), left("back", &["10.0.1.7"])];
        let have = vec![Namespace { left, ..namespace("ns-1", "vpc-1", false, &[]) }];
        assert_eq!(
            words(want.plan(&have).unwrap()),
            [
                "deregister what cluster uid has left in front.n: 10.0.1.5, 10.0.1.6",
                "deregister what cluster uid has left in back.n: 10.0.1.7",
            ]
        );
        assert_eq!(words(want.plan(&vec![]).unwrap()), [""; 0], "no namespace is made");
    }

    #[test]
    fn clusters_of_two_regions_are_a_conflict() {
        let cluster =
            |name: &str, region: &str| Cluster { name: name.into(), region: region.into(), ..Cluster::default() };
        assert!(one_region(&cluster("c2", "r1"), &cluster("c1", "r1")).is_ok());
        let error = one_region(&cluster("c2", "r1"), &cluster("c1", "r2")).unwrap_err();
        assert_eq!(common::classify(&error).0, Kind::Conflict);
        assert_eq!(error.to_string(), "cluster c2 is in r1, cluster c1 in r2: a namespace is of one region");
    }

    #[test]
    fn a_failed_operation_knows_what_to_do_next() {
        for (code, message, kind) in [
            ("CANNOT_CREATE_HOSTED_ZONE", "… (Error Code: ConflictingDomainExists)", Kind::Conflict),
            ("CANNOT_CREATE_HOSTED_ZONE", "no such VPC", Kind::Failed),
            ("ACCESS_DENIED", "", Kind::Failed),
            ("THROTTLED_REQUEST", "", Kind::Retry),
            ("INTERNAL_FAILURE", "", Kind::Retry),
            ("EXPIRED_TOKEN", "", Kind::Failed),
        ] {
            let error = failure("create namespace n", code, message);
            assert_eq!(error.kind, kind, "{code}");
            assert_eq!(error.message, format!("create namespace n: {code}: {message}"));
        }
    }
}
