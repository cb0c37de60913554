//! Names things of the mesh by ARNs. No API stands behind them any more; they are what one cluster calls another's
//! VirtualService by.

use mesh_api::{Arn, Mesh, MeshObject as _, arn::MeshResource};

use crate::model::Account;

/// The account that a mesh's ARNs are of: its owner's.
pub fn owner(account: &Account, mesh: &Mesh) -> Account {
    let owner = mesh.spec.mesh_owner.as_ref().unwrap_or(&account.account);
    Account { account: owner.clone(), ..account.clone() }
}

/// The ARN of something in a mesh.
pub fn arn(account: &Account, mesh: &Mesh, resource: MeshResource) -> Arn {
    let Account { partition, region, account } = owner(account, mesh);
    Arn { partition, region, account, mesh: mesh.aws_name(), resource }
}
