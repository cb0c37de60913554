//! Marks in AWS what is ours: every tag that the tools write.

/// The tag that says a thing is ours, and its value.
pub const MANAGED_BY: (&str, &str) = ("managed-by", "crossmesh");

/// Whose a thing with this value of that tag is, in words; `None` if it is ours.
pub fn foreign(manager: Option<&str>) -> Option<String> {
    match manager {
        Some(ours) if ours == MANAGED_BY.1 => None,
        Some(manager) => Some(format!("managed by {manager}")),
        None => Some("not made by crossmesh".to_owned()),
    }
}

/// The beginning of the keys of all our other tags.
pub const OUR_TAGS: &str = "crossmesh:";

/// The ARN of the cluster that a role is for.
pub const CLUSTER_TAG: &str = "crossmesh:cluster";

/// `crossmesh:policy/NAME`: the ARN of a policy that we attached to a role.
pub const POLICY_TAG: &str = "crossmesh:policy/";

/// `crossmesh:inline/NAME`: an inline policy that we put on a role.
pub const INLINE_TAG: &str = "crossmesh:inline/";

/// `crossmesh:association/DIGEST`: a service account that we gave a role by EKS Pod Identity.
pub const ASSOCIATION_TAG: &str = "crossmesh:association/";

/// `crossmesh:used-by/CLUSTER`: the ARN of a cluster that uses a repository.
pub const USER_TAG: &str = "crossmesh:used-by/";

/// The VPC that a namespace is for: Cloud Map itself does not tell.
pub const VPC_TAG: &str = "crossmesh:vpc";

/// The ARN of the cluster that a rule lets into.
pub const TO_TAG: &str = "crossmesh:to";

/// The ARN of the cluster that a rule lets in.
pub const FROM_TAG: &str = "crossmesh:from";
