//! What to change about a namespace. Pure.
//!
//! Names repeat: there may be one `svc2.svc.local` per VPC, so the VPC decides which one is meant.

use anyhow::Result;
use common::Error;
use common::aws::permit;
use std::fmt;

/// The namespace the cluster's VPC needs.
#[derive(Debug, Clone)]
pub struct Want {
    /// Its domain name.
    pub name: String,
    /// `vpc-…`
    pub vpc: String,
    /// Take over a namespace that others made.
    pub adopt: bool,
}

/// A private DNS namespace of that name, in whatever VPC.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// `ns-…`
    pub id: String,
    /// `arn:PARTITION:servicediscovery:REGION:ACCOUNT:namespace/ID`
    pub arn: String,
    /// Route 53's id of its zone.
    pub hosted_zone: Option<String>,
    /// The VPCs that see its zone.
    pub vpcs: Vec<String>,
    /// Whose it is, if not ours.
    pub foreign: Option<String>,
    /// Names of its services; looked up for `--delete` only.
    pub services: Vec<String>,
}

/// One step.
#[derive(Debug, PartialEq)]
#[allow(missing_docs, reason = "its text says it")]
pub enum Change {
    Create { name: String, vpc: String },
    Adopt { id: String, arn: String },
    Delete { name: String, id: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { name, vpc } => write!(f, "create namespace {name} in {vpc}"),
            Change::Adopt { id, .. } => write!(f, "take over namespace {id}"),
            Change::Delete { name, id } => write!(f, "delete namespace {name} ({id})"),
        }
    }
}

/// The namespace of the cluster's VPC, if there is one.
pub fn of_vpc<'a>(want: &Want, have: &'a [Namespace]) -> Option<&'a Namespace> {
    have.iter().find(|namespace| namespace.vpcs.contains(&want.vpc))
}

/// One that others made in this VPC is used as it is.
pub fn plan(want: &Want, have: &[Namespace]) -> Vec<Change> {
    match of_vpc(want, have) {
        None => vec![Change::Create { name: want.name.clone(), vpc: want.vpc.clone() }],
        Some(found) if want.adopt && found.foreign.is_some() => {
            vec![Change::Adopt { id: found.id.clone(), arn: found.arn.clone() }]
        }
        Some(_) => Vec::new(),
    }
}

/// Only what carries our tag is deleted, and only when nobody is registered in it.
pub fn plan_delete(want: &Want, have: &[Namespace]) -> Vec<Change> {
    let unused = of_vpc(want, have).filter(|namespace| namespace.foreign.is_none() && namespace.services.is_empty());
    let delete = |namespace: &Namespace| Change::Delete { name: want.name.clone(), id: namespace.id.clone() };
    unused.map(delete).into_iter().collect()
}

/// Why `--delete` leaves the namespace.
pub fn left_alone(want: &Want, have: &[Namespace]) -> Vec<String> {
    let Some(found) = of_vpc(want, have) else { return Vec::new() };
    let why = match (&found.foreign, &found.services[..]) {
        (Some(whose), _) => whose.clone(),
        (None, []) => return Vec::new(),
        (None, services) => format!("still has services, which their makers must delete: {}", services.join(", ")),
    };
    vec![format!("namespace {} ({}): {why}", want.name, found.id)]
}

/// Namespaces that may be taken for this one, and that this one is somebody else's.
pub fn remarks(want: &Want, have: &[Namespace]) -> Vec<String> {
    let found = of_vpc(want, have);
    let foreign = found.filter(|_| !want.adopt).and_then(|found| Some((&found.id, found.foreign.as_ref()?)));
    let foreign =
        foreign.map(|(id, whose)| format!("namespace {} ({id}) is used, {whose}: --adopt takes it over", want.name));
    let elsewhere = have.iter().filter(|other| !other.vpcs.contains(&want.vpc)).map(|other| {
        let place = if other.vpcs.is_empty() { "no VPC".to_owned() } else { other.vpcs.join(", ") };
        format!("another {} ({}) is in {place}: who looks by name alone may find it instead", want.name, other.id)
    });
    foreign.into_iter().chain(elsewhere).collect()
}

/// Refuses two clusters that no private namespace serves both. Each is given as (name, VPC).
pub fn one_vpc(cluster: (&str, &str), peer: (&str, &str)) -> Result<()> {
    if cluster.1 == peer.1 {
        return Ok(());
    }
    let apart = format!("cluster {} is in {}, cluster {} in {}", cluster.0, cluster.1, peer.0, peer.1);
    Err(Error::conflict(format!("{apart}: a private DNS namespace serves one VPC"))
        .hint("both clusters must be in one VPC")
        .into())
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
        "THROTTLED_REQUEST" | "INTERNAL_FAILURE" => Error::retry(text).hint("run it again"),
        _ => Error::failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Kind;

    type Words = &'static [&'static str];
    /// What is there → what is made, remarked, deleted, left.
    type Case = (&'static str, Vec<Namespace>, Words, Words, Words, Words);

    fn namespace(id: &str, vpc: &str, ours: bool, services: &[&str]) -> Namespace {
        Namespace {
            id: id.into(),
            arn: format!("arn:{id}"),
            hosted_zone: None,
            vpcs: [vpc].into_iter().filter(|vpc| !vpc.is_empty()).map(str::to_owned).collect(),
            foreign: Some("managed by bob".to_owned()).filter(|_| !ours),
            services: services.iter().map(|service| (*service).to_owned()).collect(),
        }
    }

    fn words(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
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
                vec![Namespace { vpcs: vec!["vpc-2".into(), "vpc-1".into()], ..namespace("ns-1", "", false, &[]) }],
                &[],
                &[USED],
                &[],
                LEFT,
            ),
        ];
        let want = Want { name: "n".into(), vpc: "vpc-1".into(), adopt: false };
        for (case, have, make, remark, delete, left) in cases {
            assert_eq!(words(plan(&want, &have)), make, "{case}");
            assert_eq!(remarks(&want, &have), remark, "{case}");
            assert_eq!(words(plan_delete(&want, &have)), delete, "{case}");
            assert_eq!(left_alone(&want, &have), left, "{case}");
        }
    }

    #[test]
    fn only_what_others_made_is_taken_over() {
        let want = Want { name: "n".into(), vpc: "vpc-1".into(), adopt: true };
        assert_eq!(words(plan(&want, &[namespace("ns-1", "vpc-1", false, &[])])), ["take over namespace ns-1"]);
        assert_eq!(words(plan(&want, &[namespace("ns-1", "vpc-1", true, &[])])), [""; 0]);
        assert_eq!(words(plan(&want, &[namespace("ns-2", "vpc-2", false, &[])])), ["create namespace n in vpc-1"]);
    }

    #[test]
    fn clusters_in_two_vpcs_are_a_conflict() {
        assert!(one_vpc(("c2", "vpc-1"), ("c1", "vpc-1")).is_ok());
        let error = one_vpc(("c2", "vpc-1"), ("c1", "vpc-2")).unwrap_err();
        assert_eq!(common::classify(&error).0, Kind::Conflict);
        assert!(error.to_string().starts_with("cluster c2 is in vpc-1, cluster c1 in vpc-2"), "{error}");
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
