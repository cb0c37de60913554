//! Reads the objects of live clusters.

use crate::ClusterObjects;
use anyhow::{Context as _, Result};
use common::Error;
use common::kube::object::refused;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Lists a cluster's objects.
///
/// # Errors
/// The API server's, or the cluster does not have App Mesh's kinds.
pub async fn read(name: &str, client: &Client) -> Result<ClusterObjects> {
    let (meshes, gateways, gateway_routes, nodes, services, routers, groups) = futures::try_join!(
        items(client),
        items(client),
        items(client),
        items(client),
        items(client),
        items(client),
        items(client),
    )
    .with_context(|| format!("look at cluster {name}"))?;
    // Needed only where a GatewayRoute was made before the controller was there. Who may not list them does without.
    let namespaces = items::<Namespace>(client).await.unwrap_or_default();
    let namespaces =
        namespaces.into_iter().map(|namespace| (namespace.name_any(), namespace.labels().clone())).collect();
    let found =
        ClusterObjects { meshes, gateways, gateway_routes, nodes, services, routers, groups, ..Default::default() };
    Ok(ClusterObjects { name: name.to_owned(), namespaces, ..found })
}

/// All objects of a kind.
///
/// # Errors
/// The API server's, or the cluster does not have the kind.
pub async fn items<K>(client: &Client) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let plural = K::plural(&());
    match Api::<K>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let none = Error::failed(format!("it has no {plural}.{}", K::group(&())));
            Err(none.hint("appmesh-install installs App Mesh's kinds and their controller").into())
        }
        Err(error) => Err(refused(error)).with_context(|| format!("list {plural}")),
    }
}
