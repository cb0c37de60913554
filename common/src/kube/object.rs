//! Reads, applies server-side and deletes Kubernetes objects of any kind, as one field manager.

use super::applied::is_applied;
use super::apply::{Claim, Manifest, Observed, with_unknown, without_unknown, yielded};
pub use super::reference::ObjectRef;
use super::{UNKNOWN_CALLER, kind};
use crate::tags::MANAGED_BY;
use crate::{Error, Found, Kind, Session};
use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::{GroupVersion, Status};
use kube::discovery::{ApiResource, Scope, pinned_group};
use kube::runtime::{WatchStreamExt, watcher::watch_object};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::pin::pin;
use std::time::{Duration, Instant};

/// How long a webhook may not know of what was created a moment ago: it reads from a cache that follows the API server
/// by a watch, so seconds are plenty.
const SETTLING: Duration = Duration::from_secs(10);

/// Objects that are looked at side by side: each look waits for the API server's answer, from far away long.
const AT_ONCE: usize = 4;

/// How API servers say that a field can not be changed.
const FIXED: [&str; 5] = ["immutable", "updates to", "may not change", "cannot change roleRef", "may not be changed"];

/// The label that Kubernetes recommends for the tool an object comes from.
const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The objects of a cluster, as one field manager sees them.
pub struct Objects {
    client: Client,
    manager: &'static str,
    kinds: tokio::sync::Mutex<BTreeMap<(String, String), (ApiResource, Scope)>>,
}

impl Objects {
    /// `manager` is the name that server-side apply records: the tool's.
    pub fn new(client: Client, manager: &'static str) -> Self {
        Self { client, manager, kinds: tokio::sync::Mutex::default() }
    }

    /// The client, for calls about one known kind.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether objects of that kind live in a namespace. `None` when the cluster does not know the kind.
    ///
    /// # Errors
    /// The API server's.
    pub async fn namespaced(&self, object: &ObjectRef) -> Result<Option<bool>> {
        Ok(self.kind(object).await?.map(|(_, scope)| scope == Scope::Namespaced))
    }

    /// The object as it is. `None` when it, its namespace or its kind does not exist.
    ///
    /// # Errors
    /// The API server's.
    pub async fn get(&self, object: &ObjectRef) -> Result<Option<Value>> {
        let Some(api) = self.api(object).await? else { return Ok(None) };
        match api.get(&object.name).await {
            // Where the kind itself has gone meanwhile, the answer is no Status, and get_opt takes it for a failure.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            live => json_of(object, live.map_err(refused).with_context(|| format!("get {object}"))?).map(Some),
        }
    }

    /// The object as it is and as applying `want` would make it. Where its managed fields do not show that it is so
    /// already, that takes a dry run, which admission webhooks see too.
    ///
    /// # Errors
    /// The API server's, such as a change of what cannot be changed.
    pub async fn observe(&self, session: &Session, object: &ObjectRef, want: &Value) -> Result<Observed> {
        let Some(live) = self.get(object).await? else { return Ok(Observed::default()) };
        if live.pointer("/metadata/deletionTimestamp").is_some() {
            return Ok(Observed { live: Some(live), ..Observed::default() });
        }
        let (known, coming) = without_unknown(want.clone(), &live);
        let (want, left) = yielded(known, &live);
        let mut observed = Observed { live: Some(live), left, ..Observed::default() };
        // What others made is compared without our label, which is no reason to change it.
        let want = if observed.managed_by(self.manager) { marked(want) } else { want };
        if let Some(live) = observed.live.as_ref().filter(|live| is_applied(live, &want, self.manager)) {
            observed.applied = Some(with_unknown(live.clone(), &coming));
            return Ok(observed);
        }
        let dry = PatchParams::apply(self.manager).validation_strict().dry_run();
        let applied = match self.patch(session, object, &want, &dry, Duration::ZERO).await? {
            Ok(applied) => applied,
            Err(conflict) => {
                observed.claims = claims(&conflict);
                let forced = self.patch(session, object, &want, &dry.force(), Duration::ZERO).await?;
                forced.map_err(|status| refused(kube::Error::Api(status)))?
            }
        };
        observed.applied = Some(with_unknown(applied, &coming));
        Ok(observed)
    }

    /// All of these, in their order; before a deletion only as they are.
    ///
    /// # Errors
    /// As those of [`Objects::observe`].
    pub async fn observe_all(
        &self,
        session: &Session,
        manifests: &[Manifest],
        deletion: bool,
    ) -> Result<Vec<Observed>> {
        let looks = stream::iter(manifests).map(async |Manifest { object, body }| {
            if deletion {
                return Ok(Observed { live: self.get(object).await?, ..Observed::default() });
            }
            self.observe(session, object, body).await
        });
        looks.buffered(AT_ONCE).try_collect().await
    }

    /// Applies `want` server-side. Fields that other managers hold are taken over: whether that may be is the plan's
    /// decision. Those that a controller sets are left to it.
    ///
    /// # Errors
    /// The API server's, with an admission webhook's words.
    pub async fn apply(&self, session: &Session, object: &ObjectRef, want: &Value) -> Result<()> {
        let live = self.get(object).await?;
        let want = want.clone();
        let want = if let Some(live) = live { yielded(want, &live).0 } else { want };
        let params = PatchParams::apply(self.manager).validation_strict().force();
        let applied = self.patch(session, object, &marked(want), &params, SETTLING).await?;
        applied.map(drop).map_err(|status| refused(kube::Error::Api(status))).with_context(|| format!("apply {object}"))
    }

    /// Deletes the object, and what it owns first. Succeeds when it is gone.
    ///
    /// # Errors
    /// The API server's.
    pub async fn delete(&self, object: &ObjectRef) -> Result<()> {
        let Some(api) = self.api(object).await? else { return Ok(()) };
        let Some(live) = self.get(object).await? else { return Ok(()) };
        // By uid: not what somebody puts in its place meanwhile.
        let uid = live.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        let params = DeleteParams::foreground().preconditions(Preconditions { uid, ..Preconditions::default() });
        match api.delete(&object.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(refused(error)).with_context(|| format!("delete {object}")),
        }
    }

    /// Looks until it is ready: whenever the object changes, and now and then. Who may not watch it still looks.
    pub(super) async fn watch<T>(
        &self,
        session: &Session,
        object: &ObjectRef,
        what: impl fmt::Display,
        look: impl AsyncFnMut() -> Result<Found<T>>,
    ) -> Result<T> {
        let Some(api) = self.api(object).await? else { return session.wait(what, look).await };
        let mut changes =
            pin!(watch_object(api, &object.name).default_backoff().filter_map(|change| ready(change.ok())));
        session.watch(what, look, async || drop(changes.next().await)).await
    }

    /// `Err` holds the conflict of field managers. What may pass is waited for: an API server or webhook that does not
    /// answer, and, for as long as `settling`, a refusal.
    async fn patch(
        &self,
        session: &Session,
        object: &ObjectRef,
        want: &Value,
        params: &PatchParams,
        settling: Duration,
    ) -> Result<Result<Value, Box<Status>>> {
        let started = Instant::now();
        let look = async || {
            let Some(api) = self.api(object).await? else { return Ok(Found::NotYet(unknown(object))) };
            match api.patch(&object.name, params, &Patch::Apply(want)).await {
                Ok(applied) => Ok(Found::Ready(Ok(json_of(object, applied)?))),
                Err(kube::Error::Api(status)) if status.code == 409 && !params.force => Ok(Found::Ready(Err(status))),
                Err(kube::Error::Api(status)) if passes(&status, started.elapsed() < settling) => {
                    Ok(Found::NotYet(status.message))
                }
                Err(error) => Err(refused(error)).with_context(|| format!("apply {object}")),
            }
        };
        session.wait(object, look).await
    }

    async fn api(&self, object: &ObjectRef) -> Result<Option<Api<DynamicObject>>> {
        let Some((resource, scope)) = self.kind(object).await? else { return Ok(None) };
        let api = Api::<DynamicObject>::dynamic(self.client.clone(), &resource, &scope);
        Ok(Some(match &object.namespace {
            Some(namespace) => api.constrain(namespace),
            None => api,
        }))
    }

    async fn kind(&self, object: &ObjectRef) -> Result<Option<(ApiResource, Scope)>> {
        // Whoever looks meanwhile waits for the same answer.
        let mut kinds = self.kinds.lock().await;
        let key = (object.api_version.clone(), object.kind.clone());
        if let Some(known) = kinds.get(&key) {
            return Ok(Some(known.clone()));
        }
        let version = GroupVersion::gv(object.group(), object.version());
        let group = match pinned_group(&self.client, &version).await {
            Ok(group) => group,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(refused(error)).with_context(|| format!("look up the kind {}", object.kind)),
        };
        for (resource, capabilities) in group.versioned_resources(object.version()) {
            let key = (object.api_version.clone(), resource.kind.clone());
            kinds.entry(key).or_insert((resource, capabilities.scope));
        }
        Ok(kinds.get(&key).cloned())
    }
}

/// With a label of ours, unless it has another's: an object of nothing but a name leaves no trace of who applied it.
fn marked(mut want: Value) -> Value {
    let labels = &mut want["metadata"]["labels"];
    if labels.get(MANAGED_BY_LABEL).is_none() {
        labels[MANAGED_BY_LABEL] = MANAGED_BY.1.into();
    }
    want
}

/// What to say of a kind that the cluster does not have.
pub fn unknown(object: &ObjectRef) -> String {
    format!("the cluster has no kind {} in {}", object.kind, object.api_version)
}

/// The API server's answer as an error that says what it said.
pub fn refused(error: kube::Error) -> anyhow::Error {
    let mut kind = kind(&error);
    let kube::Error::Api(status) = error else { return error.into() };
    if status.code == 500 && !passes(&status, false) {
        kind = Kind::Failed;
    }
    let hint = match status.code {
        401 => Some(UNKNOWN_CALLER),
        _ if FIXED.iter().any(|words| status.message.contains(words)) => {
            Some("this can not be changed in place: delete the object, then run this again, which makes it anew")
        }
        _ => None,
    };
    Error { kind, message: status.message, hint: hint.map(str::to_owned) }.into()
}

/// Too busy, or a webhook that does not answer (an internal error); while things settle also what is not there or not
/// let in yet. A field that the schema lacks is a 500 as well, but of no reason.
fn passes(status: &Status, settling: bool) -> bool {
    match status.code {
        429 | 502..=504 => true,
        500 => status.reason == "InternalError",
        400 | 403 | 404 => settling,
        _ => false,
    }
}

/// Lists leave out `apiVersion` and `kind`, and so do some answers: every object here has them.
fn json_of(object: &ObjectRef, live: DynamicObject) -> Result<Value> {
    let mut json = serde_json::to_value(live).with_context(|| format!("read {object}"))?;
    json["apiVersion"] = object.api_version.as_str().into();
    json["kind"] = object.kind.as_str().into();
    Ok(json)
}

/// The fields that other managers hold, from a 409. A manager that set a field by an update comes with the API version
/// it used (`conflict with "kubectl" using apps/v1`), one that declared it by server-side apply without. Source:
/// k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go.
fn claims(conflict: &Status) -> Vec<Claim> {
    let causes = conflict.details.iter().flat_map(|details| &details.causes);
    let causes = causes.filter(|cause| cause.reason == "FieldManagerConflict");
    causes
        .map(|cause| Claim {
            manager: cause.message.split('"').nth(1).unwrap_or(&cause.message).to_owned(),
            declared: !cause.message.contains(" using "),
            field: cause.field.trim_start_matches('.').to_owned(),
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_conflict_names_manager_and_field() {
        let status: Status = serde_json::from_value(json!({"code": 409, "details": {"causes": [
            {"reason": "FieldManagerConflict", "field": ".spec.replicas",
             "message": "conflict with \"kubectl\" with subresource \"scale\" using apps/v1 at 2026-01-01T00:00:00Z"},
            {"reason": "FieldManagerConflict", "field": ".spec.paused", "message": "conflict with \"argocd\""},
        ]}}))
        .unwrap();
        let claim =
            |manager: &str, declared, field: &str| Claim { manager: manager.into(), declared, field: field.into() };
        assert_eq!(claims(&status), [claim("kubectl", false, "spec.replicas"), claim("argocd", true, "spec.paused")]);
    }

    #[test]
    fn the_label_of_another_is_kept() {
        let label = |manifest: &Value| marked(manifest.clone())["metadata"]["labels"][MANAGED_BY_LABEL].clone();
        assert_eq!(label(&json!({"metadata": {"name": "a"}})), "crossmesh");
        assert_eq!(label(&json!({"metadata": {"name": "a", "labels": null}})), "crossmesh");
        assert_eq!(label(&json!({"metadata": {"labels": {MANAGED_BY_LABEL: "Helm"}}})), "Helm");
    }

    #[test]
    fn only_what_passes_is_waited_for() {
        let status = |code, reason: &str| Status { code, reason: reason.into(), ..Status::success() };
        for (status, settling, expected) in [
            (status(503, ""), false, true),
            (status(500, "InternalError"), false, true),
            (status(500, ""), true, false),
            (status(403, "Forbidden"), false, false),
            (status(403, "Forbidden"), true, true),
            (status(422, "Invalid"), true, false),
        ] {
            assert_eq!(passes(&status, settling), expected, "{status:?} {settling}");
        }
    }
}
