//! The Kubernetes calls, one function each.

use crate::helm::Helm;
use crate::plan::{Definition, MANAGER, Target};
use crate::release::{self, Release};
use anyhow::{Context, Result};
use backon::{ExponentialBuilder, Retryable};
use common::app_mesh::{GROUP, MESH, VERSION};
use common::kube::apply::{Manifest, Observed};
use common::kube::content;
use common::kube::object::{ObjectRef, Objects, refused};
use common::kube::readiness::unready;
use common::kube::rollout::{deleted, stuck};
use common::{Error, Found, Session};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, interval_at};

/// How long a pending revision may be the work of a Helm that is alive. It waits for nothing, so it writes the end
/// within seconds.
const ALIVE: Duration = Duration::from_secs(10);

/// How often it is looked whether what the controller needs has been deleted; its start takes a few seconds.
const LOOKS: Duration = Duration::from_secs(5);

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
    let writers: BTreeSet<&str> = newest.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    let writer = writers.into_iter().collect::<Vec<_>>().join(", ");
    Release::read(newest.labels().clone(), writer, &packed.0).map(Some)
}

/// What the release installed, and what has become of it: as Helm would find it.
pub async fn installed(
    session: &Session,
    client: &Client,
    target: &Target,
    release: &Release,
) -> Result<(Vec<Manifest>, Vec<Observed>)> {
    let objects = Objects::new(client.clone(), release::MANAGER);
    let mut manifests = release.manifests(target)?;
    for Manifest { object, .. } in &mut manifests {
        if objects.namespaced(object).await? == Some(false) {
            object.namespace = None;
        }
    }
    let observed = objects.observe_all(session, &manifests, false).await?;
    Ok((manifests, observed))
}

/// Keeps a service account that the release has made itself, as Amazon's does: the upgrade to a release that makes none
/// would remove it.
pub async fn keep_service_account(client: &Client, target: &Target) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &target.namespace);
    let name = &target.service_account;
    let looked_up = accounts.get_opt(name).await.map_err(refused);
    let account = looked_up.with_context(|| format!("look up service account {name}"))?;
    let of_release = |account: &ServiceAccount| {
        account.annotations().get("meta.helm.sh/release-name").is_some_and(|release| *release == target.release)
    };
    if account.as_ref().is_some_and(of_release) {
        let keep = json!({"metadata": {"annotations": {"helm.sh/resource-policy": "keep"}}});
        let params = PatchParams { field_manager: Some(release::MANAGER.to_owned()), ..PatchParams::default() };
        let kept = accounts.patch(name, &params, &Patch::Merge(keep)).await.map_err(refused);
        kept.with_context(|| format!("keep service account {name}"))?;
    }
    Ok(())
}

/// Uninstalls the release and waits until all it installed is gone.
pub async fn uninstall(session: &Session, objects: &Objects, helm: &Helm, target: &Target) -> Result<()> {
    let Some(release) = release(&objects.client(), target).await? else { return Ok(()) };
    helm.uninstall(&target.release, &target.namespace).await?;
    for Manifest { object, body } in release.manifests(target)? {
        if body.pointer("/metadata/annotations/helm.sh~1resource-policy").is_none_or(|policy| policy != "keep") {
            objects.wait_gone(session, &object).await?;
        }
    }
    Ok(())
}

/// Puts a pending revision aside, unless the Helm that wrote it turns out to be alive.
pub async fn recover(session: &Session, client: &Client, target: &Target, revision: u32) -> Result<()> {
    let waits = ExponentialBuilder::new().without_max_times().with_total_delay(Some(ALIVE));
    // `None` is that it is still pending: only that is waited for, and only then the revision goes.
    let look = || async {
        match release(client, target).await.map_err(Some)? {
            Some(found) if found.revision == revision && found.pending() => Err(None),
            _ => Ok(()),
        }
    };
    match look.retry(waits).when(Option::is_none).await {
        Ok(()) => {
            session.stderr.line(format_args!("another run of helm ended revision {revision}"));
            return Ok(());
        }
        Err(Some(error)) => return Err(error),
        Err(None) => {}
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
    for object in &workloads(target, release)? {
        let Some(live) = objects.get(object).await? else { return Ok(Some(format!("{object} does not exist"))) };
        if let Some(reason) = unready(&live) {
            let stuck = stuck(&objects.client(), &live).await;
            let reasons: Vec<String> = [Some(reason), stuck].into_iter().flatten().collect();
            return Ok(Some(format!("{object}: {}", reasons.join(": "))));
        }
    }
    probe(&objects.client()).await
}

fn workloads(target: &Target, release: &Release) -> Result<Vec<ObjectRef>> {
    let objects = release.manifests(target)?.into_iter().map(|manifest| manifest.object);
    Ok(objects.filter(|object| object.group() == "apps").collect())
}

/// Waits until the controller answers: first for its rollout, which can be watched.
pub async fn await_answer(session: &Session, objects: &Objects, target: &Target) -> Result<()> {
    if let Some(release) = release(&objects.client(), target).await? {
        for object in workloads(target, &release)? {
            objects.wait_ready(session, &object).await?;
        }
    }
    session
        .wait("the controller", async || {
            let Some(release) = release(&objects.client(), target).await? else {
                return Ok(Found::NotYet(format!("there is no release {}", target.release)));
            };
            Ok(silent(objects, target, &release).await?.map_or(Found::Ready(()), Found::NotYet))
        })
        .await
}

/// Ends when one of these objects, without which the controller will never answer, is gone.
pub async fn deletion(objects: &Objects, manifests: &[Manifest]) -> Result<()> {
    let mut looks = interval_at(Instant::now() + LOOKS, LOOKS);
    loop {
        looks.tick().await;
        for Manifest { object, .. } in manifests {
            if objects.get(object).await?.is_none() {
                return Err(deleted(object));
            }
        }
    }
}

/// A dry run that creates a Mesh. The webhook has answered when the Mesh got its `awsName`, or when it was denied. The
/// rollout of the controller alone proves nothing: Amazon's chart has no readiness probe.
async fn probe(client: &Client) -> Result<Option<String>> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, MESH));
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

/// The definitions of App Mesh's kinds, and some of the objects of each, but for those whose removal is planned before.
pub async fn definitions(client: &Client, removals: &BTreeSet<String>) -> Result<Vec<Definition>> {
    let all = Api::<CustomResourceDefinition>::all(client.clone()).list(&ListParams::default()).await;
    let all = all.map_err(refused).context("list custom resource definitions")?;
    let mut found = Vec::new();
    for definition in all.items.iter().filter(|definition| definition.spec.group == GROUP) {
        let live = serde_json::to_value(definition).context("read a custom resource definition")?;
        found.push(Definition {
            object: ObjectRef::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", &definition.name_any()),
            objects: content::of_definition(client, &live, |it| removals.contains(&format!("delete {it}"))).await?,
            observed: Observed { live: Some(live), ..Observed::default() },
        });
    }
    Ok(found)
}

/// Refuses to delete a definition of which objects have been made since it was looked at: they would go with it.
pub async fn still_unused(objects: &Objects, object: &ObjectRef) -> Result<()> {
    if object.kind != "CustomResourceDefinition" {
        return Ok(());
    }
    let Some(live) = objects.get(object).await? else { return Ok(()) };
    let made = content::of_definition(&objects.client(), &live, |_| false).await?;
    if made.is_empty() {
        return Ok(());
    }
    let message = format!("{object} is needed again: somebody has made {}", made.join(", "));
    Err(Error::conflict(message).hint("run it again, once nobody else is at work").into())
}

/// What lives in the controller's namespace besides the release and what is ours.
pub async fn others(client: &Client, target: &Target, release: Option<&Release>) -> Result<Vec<String>> {
    let mut known = vec![target.service_account()];
    if let Some(release) = release {
        known.extend(release.manifests(target)?.into_iter().map(|manifest| manifest.object));
        let revisions = 1..=release.revision;
        known.extend(revisions.map(|revision| {
            let name = format!("sh.helm.release.v1.{}.v{revision}", target.release);
            ObjectRef::new("v1", "Secret", &name).within(&target.namespace)
        }));
    }
    content::of_namespace(client, &target.namespace, |object| known.iter().any(|it| it.is(object))).await
}
