//! Cloud Map, one function per call. `servicediscovery:*`, as AWSCloudMapFullAccess allows, is all it needs.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, bail};
use aws_config::SdkConfig;
use aws_sdk_servicediscovery::{
    Client,
    error::ErrorMetadata,
    types::{
        DnsConfig, DnsRecord, HealthStatus, HealthStatusFilter, NamespaceFilter, NamespaceFilterName, NamespaceType,
        OperationStatus, RecordType, RoutingPolicy, ServiceFilter, ServiceFilterName, ServiceTypeOption, Tag,
    },
};

/// Attributes of an instance: up to 30, keys up to 255 and values up to 1024 characters, 5000 in all.
pub type Attributes = BTreeMap<String, String>;
/// Instances of a service, by id.
pub type Instances = BTreeMap<String, Attributes>;

/// Seconds that a caller may keep what the DNS name of a service resolved to; upstream's value.
const TTL: i64 = 300;
/// Tag of the services this controller made: those it may delete.
const MANAGED_BY: (&str, &str) = ("managed-by", "appmesh-controller");
/// The most instances that one DiscoverInstances tells, its limit.
const DISCOVER_MAX: i32 = 1000;

/// A Cloud Map service by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Name of its namespace.
    pub namespace: String,
    /// Its own name.
    pub service: String,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.namespace)
    }
}

/// A Cloud Map namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `ns-…`
    pub id: String,
    /// What DiscoverInstances calls it: its name, but for a suffix when the name was taken before.
    pub http_name: String,
    /// Whether services in it have DNS records.
    pub dns: bool,
}

/// A Cloud Map service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `srv-…`
    pub id: String,
    /// Its ARN.
    pub arn: String,
}

/// Cloud Map of one account and region.
#[derive(Clone)]
pub struct CloudMap {
    client: Client,
    /// Namespaces found so far, by name. They outlive what is in them.
    namespaces: Arc<Mutex<HashMap<String, Namespace>>>,
}

impl CloudMap {
    /// Uses the account and region of this configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Self { client: Client::new(config), namespaces: Arc::default() }
    }

    /// The namespace of that name, from memory if it was found before; `None` if there is none.
    ///
    /// # Errors
    /// Several have that name (in different VPCs): nothing tells which one is meant.
    pub async fn namespace(&self, name: &str) -> anyhow::Result<Option<Namespace>> {
        if let Some(known) = self.lock().get(name) {
            return Ok(Some(known.clone()));
        }
        let mut found = self.list_namespaces(Some(name)).await?;
        if found.len() > 1 {
            let ids: Vec<_> = found.iter().map(|(_, namespace)| namespace.id.as_str()).collect();
            bail!("several Cloud Map namespaces are named {name}: {}", ids.join(", "));
        }
        let namespace = found.pop().map(|(_, namespace)| namespace);
        if let Some(namespace) = &namespace {
            self.lock().insert(name.to_owned(), namespace.clone());
        }
        Ok(namespace)
    }

    /// Looks the namespace up anew next time.
    pub fn forget_namespace(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Namespace>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Namespaces by name: all, or those of one name. Public DNS namespaces are not for meshes.
    pub async fn list_namespaces(&self, name: Option<&str>) -> anyhow::Result<Vec<(String, Namespace)>> {
        let filter = |name| NamespaceFilter::builder().name(NamespaceFilterName::Name).values(name).build();
        let filters = name.map(filter).transpose().context("servicediscovery:ListNamespaces")?.map(|one| vec![one]);
        let pages = self.client.list_namespaces().set_filters(filters).into_paginator().send();
        let pages = pages.collect::<Result<Vec<_>, _>>().await.context("servicediscovery:ListNamespaces")?;
        let listed = pages.into_iter().flat_map(|page| page.namespaces.unwrap_or_default());
        let private = listed.filter(|summary| summary.r#type != Some(NamespaceType::DnsPublic));
        let namespace = |summary: aws_sdk_servicediscovery::types::NamespaceSummary| {
            let http = summary.properties.and_then(|properties| properties.http_properties);
            let name = summary.name?;
            let namespace = Namespace {
                id: summary.id?,
                http_name: http.and_then(|http| http.http_name).unwrap_or_else(|| name.clone()),
                dns: summary.r#type == Some(NamespaceType::DnsPrivate),
            };
            Some((name, namespace))
        };
        Ok(private.filter_map(namespace).filter(|(found, _)| name.is_none_or(|name| name == found)).collect())
    }

    /// The service of that name.
    pub async fn service(&self, namespace: &Namespace, name: &str) -> anyhow::Result<Option<Service>> {
        let filter = ServiceFilter::builder().name(ServiceFilterName::NamespaceId).values(&namespace.id).build();
        let filter = filter.context("servicediscovery:ListServices")?;
        let mut pages = self.client.list_services().filters(filter).into_paginator().send();
        while let Some(page) = pages.next().await {
            let mut services = page.context("servicediscovery:ListServices")?.services.unwrap_or_default().into_iter();
            if let Some(service) = services.find(|service| service.name.as_deref() == Some(name)) {
                let (id, arn) = service.id.zip(service.arn).context("servicediscovery:ListServices tells no id")?;
                return Ok(Some(Service { id, arn }));
            }
        }
        Ok(None)
    }

    /// Makes a service: with A records in a DNS namespace, as upstream, or for DiscoverInstances only.
    pub async fn create_service(&self, namespace: &Namespace, name: &str, api_only: bool) -> anyhow::Result<Service> {
        let record = || DnsRecord::builder().r#type(RecordType::A).ttl(TTL).build();
        let records = || -> anyhow::Result<DnsConfig> {
            let records = DnsConfig::builder().routing_policy(RoutingPolicy::Multivalue).dns_records(record()?);
            Ok(records.build()?)
        };
        let tag =
            Tag::builder().key(MANAGED_BY.0).value(MANAGED_BY.1).build().context("servicediscovery:CreateService")?;
        let call = self.client.create_service().namespace_id(&namespace.id).name(name).tags(tag);
        let call = match (namespace.dns, api_only) {
            (true, true) => call.r#type(ServiceTypeOption::Http),
            (true, false) => call.dns_config(records().context("servicediscovery:CreateService")?),
            (false, _) => call,
        };
        let made = call.send().await.with_context(|| format!("servicediscovery:CreateService {name}"))?;
        let service = made.service.context("servicediscovery:CreateService tells no service")?;
        Ok(Service { id: service.id.unwrap_or_default(), arn: service.arn.unwrap_or_default() })
    }

    /// Whether [`Self::create_service`] made this service.
    pub async fn is_ours(&self, service: &Service) -> anyhow::Result<bool> {
        let tags = self.client.list_tags_for_resource().resource_arn(&service.arn).send().await;
        let tags = tags.context("servicediscovery:ListTagsForResource")?.tags.unwrap_or_default();
        Ok(tags.iter().any(|tag| (tag.key(), tag.value()) == MANAGED_BY))
    }

    /// Deletes an empty service; one that is gone is no error. Fails with ResourceInUse while instances are leaving.
    pub async fn delete_service(&self, service: &Service) -> anyhow::Result<()> {
        match self.client.delete_service().id(&service.id).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_service_not_found()) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("servicediscovery:DeleteService {}", service.id)),
        }
    }

    /// All instances of a service; `None` if the service is gone.
    pub async fn instances(&self, service: &Service) -> anyhow::Result<Option<Instances>> {
        let pages = self.client.list_instances().service_id(&service.id).into_paginator().send();
        match pages.collect::<Result<Vec<_>, _>>().await {
            Ok(pages) => {
                let listed = pages.into_iter().flat_map(|page| page.instances.unwrap_or_default());
                let instance = |one: aws_sdk_servicediscovery::types::InstanceSummary| {
                    Some((one.id?, one.attributes.unwrap_or_default().into_iter().collect()))
                };
                Ok(Some(listed.filter_map(instance).collect()))
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_service_not_found()) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("servicediscovery:ListInstances {}", service.id)),
        }
    }

    /// Adds or replaces an instance. Tells the operation that does it, or nothing if the same is under way already.
    pub async fn register(
        &self,
        service: &Service,
        id: &str,
        attributes: &Attributes,
    ) -> anyhow::Result<Option<String>> {
        let attributes = attributes.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let call = self.client.register_instance().service_id(&service.id).instance_id(id);
        let started = call.set_attributes(Some(attributes)).send().await;
        Ok(started.with_context(|| format!("servicediscovery:RegisterInstance {id}"))?.operation_id)
    }

    /// Begins to remove an instance; one that is gone or going is no error.
    pub async fn deregister(&self, service: &Service, id: &str) -> anyhow::Result<Option<String>> {
        match self.client.deregister_instance().service_id(&service.id).instance_id(id).send().await {
            Ok(started) => Ok(started.operation_id),
            Err(error)
                if error.as_service_error().is_some_and(|e| {
                    e.is_instance_not_found() || e.is_service_not_found() || e.is_duplicate_request()
                }) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("servicediscovery:DeregisterInstance {id}")),
        }
    }

    /// Whether an operation is over: `false` while it runs.
    ///
    /// # Errors
    /// It failed, with AWS's reason.
    pub async fn is_done(&self, operation: &str) -> anyhow::Result<bool> {
        let told = self.client.get_operation().operation_id(operation).send().await;
        let told = told.context("servicediscovery:GetOperation")?.operation.context("servicediscovery:GetOperation")?;
        match told.status {
            Some(OperationStatus::Fail) => bail!(
                "operation {operation} failed: {} {}",
                told.error_code.unwrap_or_default(),
                told.error_message.unwrap_or_default()
            ),
            Some(OperationStatus::Success) => Ok(true),
            _ => Ok(false),
        }
    }

    /// The same as [`Self::discover`], for services with more instances than that call answers: page by page.
    async fn list_usable(&self, namespace: &Namespace, service: &str) -> anyhow::Result<Option<Instances>> {
        let Some(service) = self.service(namespace, service).await? else { return Ok(None) };
        let Some(instances) = self.instances(&service).await? else { return Ok(None) };
        let health = self.health(&service).await?;
        Ok(Some(usable(instances, &health)))
    }

    /// The health of a service's instances, by id; of none where the service checks none.
    async fn health(&self, service: &Service) -> anyhow::Result<HashMap<String, HealthStatus>> {
        let mut health = HashMap::new();
        let mut next = None;
        loop {
            let call = self.client.get_instances_health_status().service_id(&service.id).set_next_token(next);
            let page = match call.send().await {
                Ok(page) => page,
                Err(error) if error.as_service_error().is_some_and(|e| e.is_service_not_found()) => return Ok(health),
                // Amazon answers so for a service that has no instances by now.
                Err(error) if error.as_service_error().is_some_and(|e| e.is_instance_not_found()) => return Ok(health),
                Err(error) => return Err(error).context("servicediscovery:GetInstancesHealthStatus"),
            };
            health.extend(page.status.unwrap_or_default());
            match page.next_token {
                Some(token) => next = Some(token),
                None => return Ok(health),
            }
        }
    }

    /// A number that changes whenever instances come or go; `None` if there is no such service. The one call that is
    /// made all the time.
    pub async fn revision(&self, namespace: &Namespace, service: &str) -> anyhow::Result<Option<i64>> {
        let call = self.client.discover_instances_revision().namespace_name(&namespace.http_name).service_name(service);
        match call.send().await {
            Ok(told) => Ok(Some(told.instances_revision.unwrap_or_default())),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_service_not_found()) => Ok(None),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_namespace_not_found()) => {
                // One that is made again under the name may be another, with another HTTP name.
                self.lock().retain(|_, known| known != namespace);
                Ok(None)
            }
            Err(error) => Err(error).context("servicediscovery:DiscoverInstancesRevision"),
        }
    }

    /// The instances that callers may use, and the revision they are of; `None` if there is no such service. Unhealthy
    /// ones are left out unless all are.
    pub async fn discover(&self, namespace: &Namespace, service: &str) -> anyhow::Result<Option<(i64, Instances)>> {
        let call = self.client.discover_instances().namespace_name(&namespace.http_name).service_name(service);
        let call = call.max_results(DISCOVER_MAX).health_status(HealthStatusFilter::HealthyOrElseAll);
        match call.send().await {
            Ok(told) => {
                let found = told.instances.unwrap_or_default();
                let revision = told.instances_revision.unwrap_or_default();
                if i32::try_from(found.len()).is_ok_and(|found| found < DISCOVER_MAX) {
                    let instance = |one: aws_sdk_servicediscovery::types::HttpInstanceSummary| {
                        Some((one.instance_id?, one.attributes.unwrap_or_default().into_iter().collect()))
                    };
                    return Ok(Some((revision, found.into_iter().filter_map(instance).collect())));
                }
                Ok(self.list_usable(namespace, service).await?.map(|instances| (revision, instances)))
            }
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_service_not_found() || e.is_namespace_not_found()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("servicediscovery:DiscoverInstances"),
        }
    }
}

/// Without the unhealthy ones, unless all are: as [`HealthStatusFilter::HealthyOrElseAll`] has it.
fn usable(instances: Instances, health: &HashMap<String, HealthStatus>) -> Instances {
    let unhealthy = |id: &String| health.get(id) == Some(&HealthStatus::Unhealthy);
    if instances.keys().all(unhealthy) {
        return instances;
    }
    instances.into_iter().filter(|(id, _)| !unhealthy(id)).collect()
}

/// An error and its causes in one line. It is the same each time, without the number of the request: a status that
/// changes is looked at again at once. The SDK says some things twice.
pub fn told(error: &anyhow::Error) -> String {
    let words = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<ErrorMetadata>() {
        Some(answer) => format!("{}: {}", answer.code().unwrap_or_default(), answer.message().unwrap_or_default()),
        None => cause.to_string(),
    };
    let mut causes: Vec<String> = error.chain().map(words).collect();
    causes.dedup();
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unhealthy_instances_are_left_out_unless_all_are() {
        let instances =
            |ids: &[&str]| -> Instances { ids.iter().map(|id| ((*id).to_owned(), Attributes::new())).collect() };
        let health = |of: &[(&str, HealthStatus)]| -> HashMap<String, HealthStatus> {
            of.iter().map(|(id, status)| ((*id).to_owned(), status.clone())).collect()
        };
        let (healthy, unhealthy) = (HealthStatus::Healthy, HealthStatus::Unhealthy);
        for (known, expected) in [
            (health(&[]), ["a", "b"].as_slice()),
            (health(&[("a", unhealthy.clone()), ("b", healthy)]), &["b"]),
            (health(&[("a", unhealthy.clone())]), &["b"]),
            (health(&[("a", unhealthy.clone()), ("b", unhealthy)]), &["a", "b"]),
        ] {
            assert_eq!(usable(instances(&["a", "b"]), &known), instances(expected), "{known:?}");
        }
    }

    #[test]
    fn an_error_is_told_once_and_the_same_each_time() {
        let answer = ErrorMetadata::builder().code("AccessDenied").message("not you").custom("aws_request_id", "8667");
        let error = anyhow::Error::new(answer.build()).context("twice").context("twice").context("sts:AssumeRole");
        assert_eq!(told(&error), "sts:AssumeRole: twice: AccessDenied: not you");
    }
}
