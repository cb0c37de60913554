//! The Kubernetes calls, one function each.

use crate::world::{Fault, Kubernetes};
use anyhow::{Context, Result};
use common::kube::apply::Observed;
use common::kube::object::refused;
use futures::future::try_join_all;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use std::collections::BTreeSet;

/// What the flow does in a cluster: group and resource.
const PATCHED: [(&str, &str); 10] = [
    ("", "namespaces"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apps", "deployments"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("appmesh.k8s.aws", "virtualnodes"),
    ("rbac.authorization.k8s.io", "clusterroles"),
];

/// Everything about one cluster.
pub async fn look(client: &Client, namespaces: &[(&str, &[&str])]) -> Result<Kubernetes> {
    let version = client.apiserver_version().await.map_err(refused).context("ask its API server")?;
    let denied = try_join_all(PATCHED.map(|(group, resource)| denied(client, group, resource)));
    let (denied, nodes, taken) = futures::future::join3(denied, nodes(client), taken(client, namespaces)).await;
    Ok(Kubernetes {
        version: format!("{}.{}", version.major, version.minor),
        denied: denied?.into_iter().flatten().collect(),
        nodes: nodes.map_err(|error| Fault::of(&error)),
        taken: taken.unwrap_or_default(),
        mesh: Ok(None),
    })
}

/// What the caller may not do.
async fn denied(client: &Client, group: &str, resource: &str) -> Result<Option<String>> {
    let resource_attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some("patch".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(resource_attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.map_err(refused);
    let answer = answer.with_context(|| format!("ask whether the caller may patch {resource}"))?;
    let allowed = answer.status.is_some_and(|status| status.allowed);
    Ok((!allowed).then(|| format!("patch {resource}")))
}

/// The architectures of the ready nodes.
async fn nodes(client: &Client) -> Result<BTreeSet<String>> {
    let list =
        Api::<Node>::all(client.clone()).list(&ListParams::default()).await.map_err(refused).context("list nodes")?;
    let status = list.items.into_iter().filter_map(|node| node.status);
    let ready = status.filter(|status| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    Ok(ready.filter_map(|status| Some(status.node_info?.architecture)).collect())
}

/// The namespaces, of these, that others made than the field managers beside them.
async fn taken(client: &Client, namespaces: &[(&str, &[&str])]) -> Result<Vec<(String, String)>> {
    let all: Api<Namespace> = Api::all(client.clone());
    let mut taken = Vec::new();
    for (name, ours) in namespaces {
        let Some(found) = all.get_opt(name).await.map_err(refused)? else { continue };
        let live = serde_json::to_value(found).context("read a namespace")?;
        let found = Observed { live: Some(live), ..Observed::default() };
        if !ours.iter().any(|manager| found.managed_by(manager)) {
            taken.push(((*name).to_owned(), found.makers()));
        }
    }
    Ok(taken)
}
