//! Translates a Mesh: it has a name and an egress filter, which its workloads carry.

use mesh_api::{Mesh, arn::MeshResource};

use super::{
    Context, Report, account,
    problems::{Check, Place, Problems, check, selector},
};
use crate::{cluster::Object, model::IpPreference};

impl Check for Mesh {
    fn check(&self, _: Place<'_>, problems: &mut Problems) {
        let is_account = |owner: &String| owner.len() == 12 && owner.bytes().all(|byte| byte.is_ascii_digit());
        if self.spec.mesh_owner.as_ref().is_some_and(|owner| !is_account(owner)) {
            problems.invalid("spec.meshOwner", "is no account of twelve digits");
        }
        selector("spec.namespaceSelector", self.spec.namespace_selector.as_ref(), problems);
    }
}

/// The addresses of its pods that are called, if it says so.
pub fn ip_preference(mesh: &Mesh) -> Option<IpPreference> {
    Some(match mesh.spec.mesh_service_discovery?.ip_preference? {
        mesh_api::IpPreference::V4Only => IpPreference::V4Only,
        mesh_api::IpPreference::V6Only => IpPreference::V6Only,
    })
}

/// What is reported of a Mesh.
pub fn report(mesh: &Object<Mesh>, context: Context<'_>) -> Report {
    let arn = account::arn(context.account, mesh, MeshResource::Mesh);
    let problems = check(mesh, Place { account: context.account, mesh: None });
    Report { arn: Some(arn), problems, ..Report::default() }
}
