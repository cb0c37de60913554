//! The tools that ask only AWS, against the local cloud: what drifts is repaired, what others made stays theirs, what
//! was made goes away again, and output fed back in changes nothing.
//!
//! One cloud serves the whole file, so this is one test; each tool has a module. It needs Linux and root.

mod cloudmap_ns;
mod irsa_role;
mod oidc_assoc;
mod pod_identity;
pub mod region;
mod sg_open;

use region::Region;

#[test]
fn drift_conflicts_and_deletion() {
    let region = Region::up("test-aws-tools");
    let one = region.done("oidc-assoc -n --cluster c1", "").document;
    let two = region.done("oidc-assoc -n --cluster c2", "").document;
    let apart = region.cluster_apart("c3");
    oidc_assoc::drift(&region, &one);
    oidc_assoc::of_others(&region, &one);
    oidc_assoc::any_issuer(&region, &one, &apart);
    irsa_role::drift(&region, &one);
    irsa_role::of_others(&region, &one, &two);
    irsa_role::deletion(&region, &one);
    irsa_role::who_may_assume_it(&region, &one);
    pod_identity::drift(&region, &one);
    pod_identity::there_and_back(&region, &one);
    pod_identity::of_others(&region, &one);
    cloudmap_ns::drift(&region, &two);
    cloudmap_ns::begun(&region, &one, &two);
    cloudmap_ns::of_others(&region, &two);
    cloudmap_ns::elsewhere(&region, &one, &two, &apart);
    cloudmap_ns::deletion(&region, &two);
    cloudmap_ns::forgetting(&region, &two);
    sg_open::drift(&region, &one, &two);
    sg_open::of_others(&region, &one, &two);
    sg_open::node_groups(&region, &one, &two);
    sg_open::own_groups(&region, &one, &two);
    sg_open::addresses(&region, &one, &two);
    sg_open::two_vpcs(&region, &two, &apart);
    sg_open::deletion(&region, &one, &two, &apart);
}
