//! The EKS pod identity webhook: a pod whose service account names a role gets a token for STS, one whose service account
//! has an EKS Pod Identity association a token for EKS's agent, and the variables that let an AWS SDK use it. As on EKS the
//! association counts where there is both. It refuses nothing.

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
use crate::gateway::AWS_PORT;
use crate::network;
use crate::pki::{Authority, Subject};

const PORT: u16 = 23443;
/// Seconds, EKS's default; a service account may ask for another.
const EXPIRATION: u64 = 86_400;

/// How the pods of a service account get credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    /// From STS for a token, as the annotations of the service account say.
    Token { role: String, audience: String, expiration: u64 },
    /// From the agent, as an association says.
    Agent,
}

/// What a container gets.
struct Equipment {
    volume: &'static str,
    mount: &'static str,
    token: Value,
    variables: Vec<(&'static str, String)>,
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
    match identity_of(&cluster, clients.get(&cluster), request).await {
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

async fn identity_of(cluster: &str, client: Option<&Client>, request: &Value) -> Result<Option<Identity>> {
    let client = client.context("no such cluster")?;
    let namespace = request["namespace"].as_str().context("a pod without namespace")?;
    let name = request["object"]["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    if has_association(cluster, namespace, name).await? {
        return Ok(Some(Identity::Agent));
    }
    let account = Api::<ServiceAccount>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let annotations = account.and_then(|account| account.metadata.annotations).unwrap_or_default();
    let annotation = |key: &str| annotations.get(&format!("eks.amazonaws.com/{key}"));
    Ok(annotation("role-arn").map(|role| Identity::Token {
        role: role.clone(),
        audience: annotation("audience").cloned().unwrap_or_else(|| "sts.amazonaws.com".to_owned()),
        expiration: annotation("token-expiration").and_then(|text| text.parse().ok()).unwrap_or(EXPIRATION),
    }))
}

/// Asks EKS as AWS's own: past the gateway, without a signature.
async fn has_association(cluster: &str, namespace: &str, account: &str) -> Result<bool> {
    let url = format!("http://127.0.0.1:{AWS_PORT}/clusters/{cluster}/pod-identity-associations");
    let asked = reqwest::Client::new()
        .get(format!("{url}?namespace={namespace}&serviceAccount={account}"))
        .header("host", format!("eks.{REGION}.amazonaws.com"));
    let answer = asked.send().await.and_then(reqwest::Response::error_for_status);
    let answer = answer.context("eks:ListPodIdentityAssociations")?.bytes().await?;
    let listed: Value = serde_json::from_slice(&answer)?;
    Ok(listed["associations"].as_array().is_some_and(|associations| !associations.is_empty()))
}

impl Identity {
    fn equipment(&self) -> Equipment {
        match self {
            Self::Token { role, audience, expiration } => {
                let mount = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
                Equipment {
                    volume: "aws-iam-token",
                    mount,
                    token: json!({"audience": audience, "expirationSeconds": expiration, "path": "token"}),
                    variables: vec![
                        ("AWS_STS_REGIONAL_ENDPOINTS", "regional".to_owned()),
                        ("AWS_ROLE_ARN", role.clone()),
                        ("AWS_WEB_IDENTITY_TOKEN_FILE", format!("{mount}/token")),
                    ],
                }
            }
            Self::Agent => {
                let (mount, path) =
                    ("/var/run/secrets/pods.eks.amazonaws.com/serviceaccount", "eks-pod-identity-token");
                let agent = network::POD_IDENTITY_AGENT;
                Equipment {
                    volume: path,
                    mount,
                    token: json!({"audience": "pods.eks.amazonaws.com", "expirationSeconds": EXPIRATION, "path": path}),
                    variables: vec![
                        ("AWS_STS_REGIONAL_ENDPOINTS", "regional".to_owned()),
                        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{agent}/v1/credentials")),
                        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", format!("{mount}/{path}")),
                    ],
                }
            }
        }
    }
}

/// The pod with token and variables in every container that is not excepted. What is there already stays.
fn with_identity(pod: &Value, identity: &Identity) -> Value {
    let (mut pod, equipment) = (pod.clone(), identity.equipment());
    let excepted =
        pod["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"].as_str().unwrap_or_default().to_owned();
    let excepted: Vec<&str> = excepted.split(',').map(str::trim).collect();
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array_mut().into_iter().flatten() {
            if !container["name"].as_str().is_some_and(|name| excepted.contains(&name)) {
                equip(container, &equipment);
            }
        }
    }
    let projected = json!({"sources": [{"serviceAccountToken": equipment.token}]});
    add(&mut pod["spec"], "volumes", json!({"name": equipment.volume, "projected": projected}));
    pod
}

fn equip(container: &mut Value, equipment: &Equipment) {
    let Equipment { volume, mount, variables, .. } = equipment;
    let region = [("AWS_DEFAULT_REGION", REGION), ("AWS_REGION", REGION)];
    let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in region.into_iter().chain(variables) {
        add(container, "env", json!({"name": name, "value": value}));
    }
    add(container, "volumeMounts", json!({"name": volume, "mountPath": mount, "readOnly": true}));
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
        Identity::Token {
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
    fn an_association_leads_to_the_agent() {
        let pod = with_identity(&json!({"spec": {"containers": [{"name": "app"}]}}), &Identity::Agent);
        let container = &pod["spec"]["containers"][0];
        assert_eq!(variable(container, "AWS_CONTAINER_CREDENTIALS_FULL_URI"), "http://169.254.170.23/v1/credentials");
        let file = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
        assert_eq!(variable(container, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), file);
        let token = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(
            (&token["audience"], &token["path"]),
            (&json!("pods.eks.amazonaws.com"), &json!("eks-pod-identity-token"))
        );
        assert!(!pod.to_string().contains("AWS_ROLE_ARN"));
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
