//! The Kubernetes calls, one function each.

use crate::plan::{GROUP, MANAGER, Target};
use crate::release::Release;
use anyhow::{Context, Result};
use backon::{ExponentialBuilder, Retryable};
use common::kube::object::{ObjectRef, Objects, refused};
use common::kube::{content, rollout};
use common::{Error, Found, Session};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// How long a pending revision may be the work of a Helm that is alive. It waits for nothing, so it writes the end
/// within seconds.
const ALIVE: Duration = Duration::from_secs(10);

/// The newest revision of the release.
pub async fn release(client: &Client, target: &Target) -> Result<Option<Release>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &target.namespace);
    let params = ListParams::default().labels(&format!("owner=helm,name={}", target.release));
    let list = secrets.list(&params).await.map_err(refused);
    let list = list.with_context(|| format!("look for release {}", target.release))?;
    let revision = |secret: &Secret| secret.labels().get("version").and_then(|version| version.parse::<u32>().ok());
    let Some(newest) = list.items.into_iter().max_by_key(revision) else { return Ok(None) };
    let packed = newest.data.as_ref().and_then(|data| data.get("release"));
    let packed = packed.with_context(|| format!("{} holds no release", newest.name_any()))?;
    Release::read(newest.labels().clone(), &packed.0).map(Some)
}

/// Puts a pending revision aside, unless the Helm that wrote it turns out to be alive.
pub async fn recover(session: &Session, client: &Client, target: &Target, revision: u32) -> Result<()> {
    let waits = ExponentialBuilder::new().without_max_times().with_total_delay(Some(ALIVE));
    let look = || async {
        match release(client, target).await? {
            Some(found) if found.revision == revision && found.pending() => Err(Error::retry("still pending").into()),
            _ => Ok::<(), anyhow::Error>(()),
        }
    };
    if look.retry(waits).await.is_ok() {
        session.stderr.line(format_args!("another run of helm ended revision {revision}"));
        return Ok(());
    }
    let name = format!("sh.helm.release.v1.{}.v{revision}", target.release);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &target.namespace);
    match secrets.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => answer.map(drop).map_err(refused).with_context(|| format!("delete Secret {name}")),
    }
}

/// Why the controller does not answer: a workload of its release that is not rolled out, or a webhook that does not.
/// Nothing when it does.
pub async fn silent(objects: &Objects, target: &Target, release: &Release) -> Result<Option<String>> {
    for object in release.objects(&target.namespace)?.iter().filter(|object| object.group() == "apps") {
        let Some(live) = objects.get(object).await? else { return Ok(Some(format!("{object} does not exist"))) };
        if let Some(reason) = rollout::unready(&live) {
            let stuck = rollout::stuck(&objects.client(), &live).await;
            let reasons: Vec<String> = [Some(reason), stuck].into_iter().flatten().collect();
            return Ok(Some(format!("{object}: {}", reasons.join(": "))));
        }
    }
    probe(&objects.client()).await
}

/// Waits until the controller answers.
pub async fn await_answer(session: &Session, objects: &Objects, target: &Target) -> Result<()> {
    session
        .wait("the controller", async || {
            let Some(release) = release(&objects.client(), target).await? else {
                return Ok(Found::NotYet(format!("there is no release {}", target.release)));
            };
            Ok(silent(objects, target, &release).await?.map_or(Found::Ready(()), Found::NotYet))
        })
        .await
}

/// A dry run that creates a Mesh. The webhook has answered when the Mesh got its `awsName`, or when it was denied. The
/// rollout of the controller alone proves nothing: Amazon's chart has no readiness probe.
async fn probe(client: &Client) -> Result<Option<String>> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta2", "Mesh"));
    let labels = json!({"matchLabels": {"appmesh-install": "probe"}});
    let mesh = DynamicObject::new("appmesh-install-probe", &kind).data(json!({"spec": {"namespaceSelector": labels}}));
    let params = PostParams { dry_run: true, field_manager: Some(MANAGER.to_owned()) };
    match Api::<DynamicObject>::all_with(client.clone(), &kind).create(&params, &mesh).await {
        Ok(answer) if answer.data.pointer("/spec/awsName").is_some() => Ok(None),
        Ok(_) => Ok(Some("no webhook fills in the awsName of a Mesh".to_owned())),
        Err(kube::Error::Api(status)) if status.message.contains("denied the request") => Ok(None),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429 | 500..=504) => Ok(Some(status.message)),
        Err(error) => Err(refused(error)).context("create a Mesh, as a dry run"),
    }
}

/// The definitions of App Mesh's kinds that we applied, and some of the objects of each.
pub async fn definitions(client: &Client) -> Result<Vec<(ObjectRef, Vec<String>)>> {
    let all = Api::<CustomResourceDefinition>::all(client.clone()).list(&ListParams::default()).await;
    let all = all.map_err(refused).context("list custom resource definitions")?;
    let mut found = Vec::new();
    for definition in all.items.iter().filter(|definition| definition.spec.group == GROUP) {
        if !definition.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(MANAGER)) {
            continue;
        }
        let object = ObjectRef::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", &definition.name_any());
        let version = definition.spec.versions.iter().find(|version| version.served);
        let objects = match version {
            Some(version) => {
                let gvk = GroupVersionKind::gvk(GROUP, &version.name, &definition.spec.names.kind);
                let kind = ApiResource::from_gvk_with_plural(&gvk, &definition.spec.names.plural);
                content::of_kind(client, &kind).await?
            }
            None => Vec::new(),
        };
        found.push((object, objects));
    }
    Ok(found)
}

/// What lives in the controller's namespace besides the release and what is ours.
pub async fn others(client: &Client, target: &Target, release: Option<&Release>) -> Result<Vec<String>> {
    let mut known = vec![target.service_account()];
    if let Some(release) = release {
        known.extend(release.objects(&target.namespace)?);
        let revisions = 1..=release.revision;
        known.extend(revisions.map(|revision| {
            ObjectRef::new("v1", "Secret", &format!("sh.helm.release.v1.{}.v{revision}", target.release))
        }));
    }
    content::of_namespace(client, &target.namespace, &known.iter().collect::<Vec<_>>()).await
}
