//! Keeps the certificate in a Secret, and the API server's trust in it.
//!
//! The Secret is issued here and renewed here, or by somebody else such as cert-manager and only read. All replicas serve
//! what the Secret holds; where two of them issue at once, the API server takes one.

use std::{pin::pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use futures::{Stream, StreamExt as _};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher::watch_object},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    certificate::{Certificate, Content},
    issue::{renewal, wanted},
};
use crate::{
    cluster::{pauses, report},
    metrics::Metrics,
};

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The longest wait until it is looked whether the certificate must be renewed.
const LOOK: Duration = Duration::from_secs(3600);
/// Who writes, to the API server.
const MANAGER: &str = "appmesh-controller";

/// Where the certificate is, and who issues it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Secret with tls.crt, tls.key and ca.crt, in the controller's namespace
    #[arg(long, value_name = "NAME", default_value = "appmesh-controller-certificate")]
    certificate_secret: String,
    /// DNS names to issue the certificate for; absent: somebody else issues it, such as cert-manager
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "webhook_configuration")]
    certificate_names: Vec<String>,
    /// Name of the webhook configurations, mutating and validating, that are to trust what is issued here
    #[arg(long, value_name = "NAME")]
    webhook_configuration: Option<String>,
}

/// What is served with, and its news. Nothing until the Secret has been read.
pub type Served = watch::Receiver<Option<Arc<Certificate>>>;

/// Keeps the Secret, serves what it holds, and sees that the webhooks are trusted.
pub struct Keeper {
    secrets: Api<Secret>,
    options: Options,
    mutating: Api<DynamicObject>,
    validating: Api<DynamicObject>,
    served: watch::Sender<Option<Arc<Certificate>>>,
    metrics: Metrics,
    /// What the Secret held last, or is to hold again if somebody deletes it.
    content: Option<Content>,
    found: Found,
}

/// What the API server has. `None` until it is known.
#[derive(Default)]
struct Found {
    secret: Option<Option<Secret>>,
    mutating: Option<DynamicObject>,
    validating: Option<DynamicObject>,
}

impl Keeper {
    /// The Secret is in that namespace.
    pub fn new(client: &Client, namespace: &str, options: Options, metrics: Metrics) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            mutating: webhooks::<MutatingWebhookConfiguration>(client),
            validating: webhooks::<ValidatingWebhookConfiguration>(client),
            options,
            served: watch::channel(None).0,
            metrics,
            content: None,
            found: Found::default(),
        }
    }

    /// What is served with.
    pub fn served(&self) -> Served {
        self.served.subscribe()
    }

    /// Keeps the Secret until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let Options { certificate_secret, webhook_configuration, .. } = self.options.clone();
        let mut secrets = pin!(changes(self.secrets.clone(), certificate_secret));
        let of_webhooks = |api: &Api<DynamicObject>| match &webhook_configuration {
            Some(name) => changes(api.clone(), name.clone()).left_stream(),
            None => futures::stream::pending().right_stream(),
        };
        let (mut mutating, mut validating) = (pin!(of_webhooks(&self.mutating)), pin!(of_webhooks(&self.validating)));
        loop {
            let again = match self.reconcile().await {
                Ok(again) => again,
                Err(error) => {
                    tracing::warn!(secret = self.options.certificate_secret, "cannot keep the certificate: {error:#}");
                    RETRY
                }
            };
            tokio::select! {
                Some(secret) = secrets.next() => self.found.secret = Some(secret),
                Some(configuration) = mutating.next() => self.found.mutating = configuration,
                Some(configuration) = validating.next() => self.found.validating = configuration,
                () = sleep(again) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Brings the Secret, what is served and the webhooks to what they are to be. Returns when to look again.
    async fn reconcile(&mut self) -> anyhow::Result<Duration> {
        let Some(secret) = self.found.secret.clone() else { return Ok(LOOK) };
        let found = secret.as_ref().map(Content::of).transpose();
        if self.options.certificate_names.is_empty() {
            let Some(content) = found? else {
                tracing::info!(secret = self.options.certificate_secret, "waiting for the certificate");
                return Ok(LOOK);
            };
            self.serve(&content)?;
            return Ok(LOOK);
        }
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(secret = self.options.certificate_secret, "issuing a certificate: {error:#}");
            None
        });
        let now = OffsetDateTime::now_utc();
        // What was served is better than what somebody has broken.
        let serves = found.as_ref().filter(|content| self.content.is_none() || Certificate::try_from(*content).is_ok());
        let content = wanted(serves.or(self.content.as_ref()), &self.options.certificate_names, now)?;
        if found.as_ref() != Some(&content) && !self.write(secret, &content).await? {
            return Ok(LOOK);
        }
        // Who is ready is trusted; who serves already goes on without.
        if self.served.borrow().is_some() {
            self.serve(&content)?;
        }
        self.be_trusted(&content).await?;
        let until = self.serve(&content)? - now;
        Ok(until.try_into().map_or(RETRY, |until: Duration| until.min(LOOK)))
    }

    /// Writes the Secret, which goes when the webhooks' configuration goes. Returns whether it is there.
    async fn write(&mut self, old: Option<Secret>, content: &Content) -> anyhow::Result<bool> {
        // Without it the release is not yet complete, or is being deleted.
        let Some(owner) = &self.found.mutating else { return Ok(false) };
        let owner = OwnerReference {
            api_version: MutatingWebhookConfiguration::api_version(&()).into_owned(),
            kind: MutatingWebhookConfiguration::kind(&()).into_owned(),
            name: owner.name_any(),
            uid: owner.uid().context("a webhook configuration without uid")?,
            ..OwnerReference::default()
        };
        let name = &self.options.certificate_secret;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let metadata = old.as_ref().map_or_else(ObjectMeta::default, |old| old.metadata.clone());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                owner_references: Some(vec![owner]),
                managed_fields: None,
                ..metadata
            },
            type_: old.as_ref().and_then(|old| old.type_.clone()).or_else(|| Some("kubernetes.io/tls".to_owned())),
            data: Some(content.data()),
            ..Secret::default()
        };
        let written = match old {
            Some(_) => self.secrets.replace(name, &params, &secret).await,
            None => self.secrets.create(&params, &secret).await,
        };
        match written {
            Ok(written) => {
                tracing::info!(secret = name, "issued a certificate");
                self.found.secret = Some(Some(written));
                Ok(true)
            }
            // Another replica was first: what it wrote comes by the watch.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error).with_context(|| format!("writing Secret {name}")),
        }
    }

    /// Serves with it from now on. Returns when it must be renewed.
    fn serve(&mut self, content: &Content) -> anyhow::Result<OffsetDateTime> {
        if let Some(served) = &*self.served.borrow()
            && self.content.as_ref() == Some(content)
        {
            return Ok(renewal(served));
        }
        let certificate = Certificate::try_from(content)?;
        let renewal = renewal(&certificate);
        self.metrics.certificate_expiration.set(certificate.validity.1);
        tracing::info!(secret = self.options.certificate_secret, "read certificate");
        self.content = Some(content.clone());
        self.served.send_replace(Some(Arc::new(certificate)));
        Ok(renewal)
    }

    /// Gives both webhook configurations the authority.
    async fn be_trusted(&mut self, content: &Content) -> anyhow::Result<()> {
        let authority = ByteString(content.authority.clone().into_bytes());
        for (api, found) in [(&self.mutating, &mut self.found.mutating), (&self.validating, &mut self.found.validating)]
        {
            let Some(configuration) = found else { continue };
            let Some(patch) = trusting(&configuration.data, &authority) else { continue };
            let (name, params) = (configuration.name_any(), PatchParams::apply(MANAGER));
            let patched = api.patch(&name, &params, &Patch::Strategic(patch)).await;
            *configuration = patched.with_context(|| format!("writing caBundle of the webhooks of {name}"))?;
        }
        Ok(())
    }
}

/// What makes every webhook of a configuration trusted; nothing where they are.
fn trusting(configuration: &Value, authority: &ByteString) -> Option<Value> {
    let authority = json!(authority);
    let webhooks = configuration["webhooks"].as_array()?;
    let distrusted = webhooks.iter().filter(|webhook| webhook["clientConfig"]["caBundle"] != authority);
    let patches: Vec<_> =
        distrusted.map(|webhook| json!({"name": webhook["name"], "clientConfig": {"caBundle": authority}})).collect();
    (!patches.is_empty()).then(|| json!({"webhooks": patches}))
}

fn webhooks<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

/// An object each time it changes; `None` when there is none.
fn changes<K>(api: Api<K>, name: String) -> impl Stream<Item = Option<K>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch_object(api, &name).backoff(pauses()).filter_map(move |change| {
        let change = change.map_err(|error| report(&name, &error)).ok();
        std::future::ready(change)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_that_trust_another_authority_or_none_are_patched() {
        let webhook = |name: &str, bundle: Value| json!({"name": name, "clientConfig": {"caBundle": bundle}});
        let (own, authority) = (json!("b3du"), ByteString(b"own".to_vec()));
        let configuration = json!({"webhooks": [
            webhook("trusts", own.clone()), webhook("stale", json!("b2xk")), {"name": "new", "clientConfig": {}}]});
        assert_eq!(
            trusting(&configuration, &authority),
            Some(json!({"webhooks": [webhook("stale", own.clone()), webhook("new", own.clone())]}))
        );
        assert_eq!(trusting(&json!({"webhooks": [webhook("trusts", own)]}), &authority), None);
        assert_eq!(trusting(&json!({}), &authority), None);
    }
}
