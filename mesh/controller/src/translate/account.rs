//! Names things of the mesh by ARNs. No API stands behind them any more; they are what one cluster calls another's
//! VirtualService by.

use mesh_api::{Arn, arn::MeshResource};

use crate::model::Account;

/// The ARN of something in a mesh of the account.
pub fn arn(account: &Account, mesh: &str, resource: MeshResource) -> Arn {
    Arn {
        partition: account.partition.clone(),
        region: account.region.clone(),
        account: account.account.clone(),
        mesh: mesh.to_owned(),
        resource,
    }
}
