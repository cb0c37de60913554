//! The EKS pod identity webhook: a pod whose service account names a role gets a token for STS and the variables that
//! let an AWS SDK use it. It refuses nothing.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::cloud::REGION;
use crate::network;
use crate::pki::{Authority, Subject};

const PORT: u16 = 23443;
const VOLUME: &str = "aws-iam-token";
const MOUNT: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
/// Seconds, EKS's default; a service account may ask for another.
const EXPIRATION: u64 = 86_400;

/// What a service account asks for by its annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    role: String,
    audience: String,
    expiration: u64,
}

type Clients = Arc<HashMap<String, Client>>;

/// Serves the webhook for `clusters`, by name.
pub async fn serve(folder: &std::path::Path, authority: &Authority, clusters: HashMap<String, Client>) -> Result<()> {
    let address = network::REGION.to_string();
    authority.issue(
        "pod-identity",
        Subject { name: "pod-identity-webhook", organization: "eks" },
        std::slice::from_ref(&address),
    )?;
    let config = crate::tls::server(&folder.join("pod-identity.crt"), &folder.join("pod-identity.key"))?;
    let listener =
        TcpListener::bind((address.as_str(), PORT)).await.context("listening for the pod identity webhook")?;
    let router = Router::new().route("/{cluster}", post(mutate)).with_state(Arc::new(clusters));
    tokio::spawn(crate::tls::serve(listener, config, router));
    Ok(())
}

/// The object that makes `cluster` ask us about every new pod. EKS's, too, lets pods pass when it does not answer.
pub fn configuration(cluster: &str, authority: &Authority) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "pod-identity-webhook"},
        "webhooks": [{
            "name": "iam-for-pods.amazonaws.com",
            "failurePolicy": "Ignore",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "reinvocationPolicy": "IfNeeded",
            "clientConfig": {
                "url": format!("https://{}:{PORT}/{cluster}", network::REGION),
                "caBundle": BASE64_STANDARD.encode(authority.certificate()),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        }],
    })
}

async fn mutate(State(clients): State<Clients>, Path(cluster): Path<String>, Json(review): Json<Value>) -> Json<Value> {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    match identity_of(clients.get(&cluster), request).await {
        Ok(Some(identity)) => {
            let patch = json_patch::diff(&request["object"], &with_identity(&request["object"], &identity));
            response["patchType"] = "JSONPatch".into();
            response["patch"] = BASE64_STANDARD.encode(serde_json::to_vec(&patch).unwrap_or_default()).into();
        }
        Ok(None) => {}
        Err(error) => tracing::warn!("pod identity in {cluster}: {error:#}"),
    }
    Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

async fn identity_of(client: Option<&Client>, request: &Value) -> Result<Option<Identity>> {
    let client = client.context("no such cluster")?;
    let namespace = request["namespace"].as_str().context("a pod without namespace")?;
    let name = request["object"]["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    let account = Api::<ServiceAccount>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let annotations = account.and_then(|account| account.metadata.annotations).unwrap_or_default();
    let annotation = |key: &str| annotations.get(&format!("eks.amazonaws.com/{key}"));
    Ok(annotation("role-arn").map(|role| Identity {
        role: role.clone(),
        audience: annotation("audience").cloned().unwrap_or_else(|| "sts.amazonaws.com".to_owned()),
        expiration: annotation("token-expiration").and_then(|text| text.parse().ok()).unwrap_or(EXPIRATION),
    }))
}

/// The pod with token and variables in every container that is not excepted. What is there already stays.
fn with_identity(pod: &Value, identity: &Identity) -> Value {
    let mut pod = pod.clone();
    let excepted =
        pod["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"].as_str().unwrap_or_default().to_owned();
    let excepted: Vec<&str> = excepted.split(',').map(str::trim).collect();
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array_mut().into_iter().flatten() {
            if !container["name"].as_str().is_some_and(|name| excepted.contains(&name)) {
                equip(container, &identity.role);
            }
        }
    }
    let token = json!({"audience": identity.audience, "expirationSeconds": identity.expiration, "path": "token"});
    add(
        &mut pod["spec"],
        "volumes",
        json!({"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}),
    );
    pod
}

fn equip(container: &mut Value, role: &str) {
    let token = format!("{MOUNT}/token");
    for (name, value) in [
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_REGION", REGION),
        ("AWS_ROLE_ARN", role),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
    ] {
        add(container, "env", json!({"name": name, "value": value}));
    }
    add(container, "volumeMounts", json!({"name": VOLUME, "mountPath": MOUNT, "readOnly": true}));
}

/// Adds `item` to the list `key` unless one of that name is in it.
fn add(object: &mut Value, key: &str, item: Value) {
    let Some(object) = object.as_object_mut().map(|object: &mut Map<String, Value>| object.entry(key)) else { return };
    if let Some(list) = object.or_insert_with(|| json!([])).as_array_mut()
        && !list.iter().any(|other| other["name"] == item["name"])
    {
        list.push(item);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            role: "arn:aws:iam::123456789012:role/mesh".to_owned(),
            audience: "sts.amazonaws.com".to_owned(),
            expiration: EXPIRATION,
        }
    }

    fn variable(container: &Value, name: &str) -> Value {
        let variables = container["env"].as_array().unwrap();
        let found: Vec<_> = variables.iter().filter(|variable| variable["name"] == name).collect();
        assert_eq!(found.len(), 1, "{name} in {container}");
        found[0]["value"].clone()
    }

    #[test]
    fn every_container_gets_role_and_token() {
        let pod = json!({"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "init", "env": [{"name": "X", "value": "1"}]}]}});
        let pod = with_identity(&pod, &identity());
        for container in [&pod["spec"]["containers"][0], &pod["spec"]["initContainers"][0]] {
            assert_eq!(variable(container, "AWS_ROLE_ARN"), "arn:aws:iam::123456789012:role/mesh");
            assert_eq!(
                variable(container, "AWS_WEB_IDENTITY_TOKEN_FILE"),
                "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
            );
            assert_eq!(container["volumeMounts"][0]["name"], "aws-iam-token");
        }
        assert_eq!(variable(&pod["spec"]["initContainers"][0], "X"), "1");
        assert_eq!(
            pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"],
            "sts.amazonaws.com"
        );
    }

    #[test]
    fn what_is_there_stays() {
        let pod =
            json!({"spec": {"containers": [{"name": "app", "env": [{"name": "AWS_REGION", "value": "eu-west-1"}]}]}});
        assert_eq!(variable(&with_identity(&pod, &identity())["spec"]["containers"][0], "AWS_REGION"), "eu-west-1");
    }

    #[test]
    fn a_second_look_changes_nothing() {
        let once = with_identity(&json!({"spec": {"containers": [{"name": "app"}]}}), &identity());
        assert_eq!(with_identity(&once, &identity()), once);
    }

    #[test]
    fn an_excepted_container_gets_nothing() {
        let pod = json!({"metadata": {"annotations": {"eks.amazonaws.com/skip-containers": "envoy, other"}}, "spec": {"containers": [{"name": "envoy"}, {"name": "app"}]}});
        let pod = with_identity(&pod, &identity());
        assert_eq!(pod["spec"]["containers"][0], json!({"name": "envoy"}));
        assert!(pod["spec"]["containers"][1]["env"].is_array());
    }

    #[test]
    fn the_patch_only_adds() {
        let pod = json!({"spec": {"containers": [{"name": "app", "image": "x"}]}});
        let patch = json_patch::diff(&pod, &with_identity(&pod, &identity()));
        assert!(!patch.0.is_empty());
        for operation in patch.0 {
            assert!(matches!(operation, json_patch::PatchOperation::Add(_)), "{operation}");
        }
    }
}
