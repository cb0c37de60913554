//! Calls Cloud Map, one function per call. `policies/controller.json` is made from these calls.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use aws_config::SdkConfig;
use aws_sdk_servicediscovery::{
    Client,
    config::timeout::TimeoutConfig,
    error::{ErrorMetadata, ProvideErrorMetadata, SdkError},
    operation::{create_service::CreateServiceError, register_instance::RegisterInstanceError},
    types::{
        DnsConfig, DnsRecord, HealthCheckCustomConfig, HealthStatus, HealthStatusFilter, NamespaceFilter,
        NamespaceFilterName, NamespaceSummary, NamespaceType, OperationStatus, RecordType, RoutingPolicy,
        ServiceFilter, ServiceFilterName, ServiceTypeOption, Tag,
    },
};
use clap::{ArgAction, Args};
use tokio::time::Instant;

use crate::{
    metrics::{Call, Metrics},
    model::{Attributes, Instances},
};

/// Tag of the services that this controller made: those it may delete.
const MANAGED_BY: (&str, &str) = ("managed-by", "appmesh-controller");
/// The most instances that one DiscoverInstances answers, its limit.
const DISCOVER_MAX: i32 = 1000;
/// A call that hangs is a failed call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Codes of DiscoverInstances for what is not there.
const MISSING: &[&str] = &["ServiceNotFound", "NamespaceNotFound"];
/// How long a service that was not listed counts as missing: one list answers for many services.
const LISTED: Duration = Duration::from_secs(5);
/// How old the list may be by which instances are counted, again for many services: so long, and so long for each of its
/// pages. However many services there are, that is no more than a call in four seconds.
const COUNTED: Duration = Duration::from_secs(15);
const COUNTED_PAGE: Duration = Duration::from_secs(4);

/// How services are made. One that is there stays as it was made.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// Seconds that a caller may keep what the DNS name of a service resolved to
    #[arg(long = "cloudmap-dns-ttl", value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(i64).range(0..=2_147_483_647))]
    pub ttl: i64,
    /// Whether services have a custom health check. Only ready pods are registered, and they are healthy
    #[arg(long = "enable-custom-health-check", value_name = "true|false", default_value_t = false,
          action = ArgAction::Set)]
    pub custom_health_check: bool,
    /// Whether pods have addresses of IPv4, and whether they have such of IPv6: a service has records for those. Cloud
    /// Map refuses an instance without an address for a record of its service.
    #[arg(skip = [true, false])]
    pub families: [bool; 2],
}

impl Default for Creation {
    fn default() -> Self {
        Self { ttl: 300, custom_health_check: false, families: [true, false] }
    }
}

impl Creation {
    fn dns(&self) -> anyhow::Result<DnsConfig> {
        let types = [RecordType::A, RecordType::Aaaa].into_iter().zip(self.families);
        let records =
            types.filter(|(_, has)| *has).map(|(of, _)| DnsRecord::builder().r#type(of).ttl(self.ttl).build());
        let records = records.collect::<Result<_, _>>()?;
        Ok(DnsConfig::builder().routing_policy(RoutingPolicy::Multivalue).set_dns_records(Some(records)).build()?)
    }

    fn health_check(&self) -> Option<HealthCheckCustomConfig> {
        self.custom_health_check.then(|| HealthCheckCustomConfig::builder().build())
    }
}

/// Which namespaces are meant. Names repeat: another VPC may have one of the same name, and so may those who need no VPC.
#[derive(Args, Clone, Debug, Default)]
pub struct NamespaceIds {
    /// The namespace of that name, if there are others of it; repeatable
    #[arg(long = "cloudmap-namespace", value_name = "NAME=ID", value_parser = namespace_id)]
    ids: Vec<(String, String)>,
}

impl NamespaceIds {
    fn means(&self, name: &str, id: &str) -> bool {
        self.ids.iter().all(|(of, meant)| of != name || meant == id)
    }
}

/// Parses `NAME=ID`.
fn namespace_id(text: &str) -> anyhow::Result<(String, String)> {
    let pair = text.split_once('=').filter(|(name, id)| !name.is_empty() && !id.is_empty());
    let (name, id) = pair.context("expected NAME=ID, e.g. shop.internal=ns-0123456789abcdef")?;
    Ok((name.to_owned(), id.to_owned()))
}

/// A Cloud Map namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `ns-…`
    pub id: String,
    /// The name that DiscoverInstances knows it by: its name, but for a suffix if another had the name before.
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

/// State of an operation that Cloud Map does in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It has begun or will.
    Pending,
    /// It has succeeded.
    Done,
    /// It has failed: Cloud Map's reason.
    Failed(String),
}

/// Cloud Map of one account and region. Cloning is cheap.
#[derive(Clone)]
pub struct CloudMap {
    client: Client,
    /// The caller's account. What other accounts share with it is not for meshes: nothing can be registered there by an id.
    account: String,
    creation: Creation,
    ids: NamespaceIds,
    metrics: Metrics,
    /// Namespaces found so far, by name. They outlive what is in them.
    namespaces: Arc<Mutex<HashMap<String, Namespace>>>,
    /// Services found so far, by the namespace's id.
    services: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<Services>>>>>,
}

/// The services of a namespace.
#[derive(Default)]
struct Services {
    by_name: BTreeMap<String, Service>,
    /// How many instances each had when it was listed.
    counts: BTreeMap<String, usize>,
    listed: Option<Instant>,
    /// How many calls that took.
    pages: u32,
}

impl CloudMap {
    /// Uses the region of this configuration, whose credentials are of `account`.
    pub fn new(config: &SdkConfig, account: String, creation: Creation, ids: NamespaceIds, metrics: Metrics) -> Self {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(TIMEOUT).build();
        let config = aws_sdk_servicediscovery::config::Builder::from(config).timeout_config(timeouts).build();
        let client = Client::from_conf(config);
        Self { client, account, creation, ids, metrics, namespaces: Arc::default(), services: Arc::default() }
    }

    /// The namespace of that name, from memory if it was found before; `None` if there is none.
    ///
    /// # Errors
    /// Several have that name, and [`NamespaceIds`] does not say which one is meant. Or Cloud Map does not answer.
    pub async fn namespace(&self, name: &str) -> anyhow::Result<Option<Namespace>> {
        if let Some(known) = self.lock().get(name) {
            return Ok(Some(known.clone()));
        }
        let mut found = self.list_namespaces(Some(name)).await?;
        if found.len() > 1 {
            let ids: Vec<_> = found.iter().map(|(_, namespace)| namespace.id.as_str()).collect();
            bail!(
                "several Cloud Map namespaces are named {name}: {}; --cloudmap-namespace tells which",
                ids.join(", ")
            );
        }
        let namespace = found.pop().map(|(_, namespace)| namespace);
        if let Some(namespace) = &namespace {
            self.lock().insert(name.to_owned(), namespace.clone());
        }
        Ok(namespace)
    }

    /// Namespaces by name: all that may be meant, or those of one name. Public DNS namespaces are not for meshes.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn list_namespaces(&self, name: Option<&str>) -> anyhow::Result<Vec<(String, Namespace)>> {
        let filter = |name| NamespaceFilter::builder().name(NamespaceFilterName::Name).values(name).build();
        let filters = name.map(filter).transpose()?.map(|one| vec![one]);
        let mut pages = self.client.list_namespaces().set_filters(filters).into_paginator().send();
        let mut namespaces = Vec::new();
        while let Some(page) = pages.next().await {
            let page = self.answered("ListNamespaces", name.unwrap_or_default(), page)?;
            let listed = page.namespaces.unwrap_or_default().into_iter();
            namespaces.extend(listed.filter(|one| self.is_own(one)).filter_map(namespace));
        }
        namespaces
            .retain(|(found, namespace)| name.is_none_or(|name| name == found) && self.ids.means(found, &namespace.id));
        Ok(namespaces)
    }

    fn is_own(&self, namespace: &NamespaceSummary) -> bool {
        let owner = namespace.arn.as_deref().and_then(|arn| arn.split(':').nth(4));
        owner.is_none_or(|owner| owner == self.account)
    }

    /// The service of that name, from memory if it was found before; `None` if there is none.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn service(&self, namespace: &Namespace, name: &str) -> anyhow::Result<Option<Service>> {
        let services = self.services_of(namespace);
        let mut services = services.lock().await;
        if !services.by_name.contains_key(name) && services.listed.is_none_or(|listed| listed.elapsed() > LISTED) {
            *services = self.list_services(namespace).await?;
        }
        Ok(services.by_name.get(name).cloned())
    }

    /// How many instances a service has, by a list of all services that may be some seconds old; `None` if it is not among
    /// them.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn instance_count(&self, namespace: &Namespace, name: &str) -> anyhow::Result<Option<usize>> {
        let services = self.services_of(namespace);
        let mut services = services.lock().await;
        let age = COUNTED.max(COUNTED_PAGE * services.pages);
        if services.listed.is_none_or(|listed| listed.elapsed() > age) {
            *services = self.list_services(namespace).await?;
        }
        Ok(services.counts.get(name).copied())
    }

    fn services_of(&self, namespace: &Namespace) -> Arc<tokio::sync::Mutex<Services>> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.entry(namespace.id.clone()).or_default().clone()
    }

    async fn list_services(&self, namespace: &Namespace) -> anyhow::Result<Services> {
        let filter = ServiceFilter::builder().name(ServiceFilterName::NamespaceId).values(&namespace.id).build();
        let mut pages = self.client.list_services().filters(filter?).into_paginator().send();
        let mut services = Services { listed: Some(Instant::now()), ..Services::default() };
        while let Some(page) = pages.next().await {
            services.pages += 1;
            for one in self.answered("ListServices", &namespace.id, page)?.services.unwrap_or_default() {
                let (Some(name), Some(id), Some(arn)) = (one.name, one.id, one.arn) else { continue };
                services
                    .counts
                    .extend(one.instance_count.and_then(|count| Some((name.clone(), count.try_into().ok()?))));
                services.by_name.insert(name, Service { id, arn });
            }
        }
        Ok(services)
    }

    /// Looks the namespace and the service up anew next time: one that is made again under its name has another id.
    pub async fn forget(&self, namespace: &str, service: &str) {
        let Some(namespace) = self.lock().remove(namespace) else { return };
        let services = self.services_of(&namespace);
        let mut services = services.lock().await;
        services.by_name.remove(service);
        services.listed = None;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Namespace>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a service: with records of pods' addresses in a DNS namespace, as upstream, or for DiscoverInstances only. One
    /// that somebody else has just made is as good.
    ///
    /// # Errors
    /// Cloud Map refuses or does not answer.
    pub async fn create_service(&self, namespace: &Namespace, name: &str, api_only: bool) -> anyhow::Result<Service> {
        const OPERATION: &str = "CreateService";
        let tag = Tag::builder().key(MANAGED_BY.0).value(MANAGED_BY.1).build()?;
        let request = self.client.create_service().namespace_id(&namespace.id).name(name).tags(tag);
        let request = match (namespace.dns, api_only) {
            (true, true) => request.r#type(ServiceTypeOption::Http),
            (true, false) => request.dns_config(self.creation.dns()?),
            (false, _) => request,
        };
        let health_check = self.creation.health_check().filter(|_| !api_only);
        let request = request.set_health_check_custom_config(health_check);
        let answer = request.send().await;
        let (id, arn) = match answer.as_ref().err().and_then(SdkError::as_service_error) {
            Some(CreateServiceError::ServiceAlreadyExists(there)) => {
                self.count(OPERATION, &answer);
                (there.service_id().map(str::to_owned), there.service_arn().map(str::to_owned))
            }
            _ => self.answered(OPERATION, name, answer)?.service.map(|made| (made.id, made.arn)).unwrap_or_default(),
        };
        let (id, arn) =
            id.zip(arn).with_context(|| format!("servicediscovery:CreateService {name}: no id in the answer"))?;
        let service = Service { id, arn };
        self.services_of(namespace).lock().await.by_name.insert(name.to_owned(), service.clone());
        Ok(service)
    }

    /// Whether [`Self::create_service`] made this service.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn is_managed(&self, service: &Service) -> anyhow::Result<bool> {
        let answer = self.client.list_tags_for_resource().resource_arn(&service.arn).send().await;
        let answer = self.answered("ListTagsForResource", &service.id, answer)?;
        Ok(answer.tags.unwrap_or_default().iter().any(|tag| (tag.key(), tag.value()) == MANAGED_BY))
    }

    /// Deletes an empty service; one that is gone is no error. Fails with ResourceInUse while instances are leaving.
    ///
    /// # Errors
    /// Cloud Map refuses or does not answer.
    pub async fn delete_service(&self, service: &Service) -> anyhow::Result<()> {
        let answer = self.client.delete_service().id(&service.id).send().await;
        self.found("DeleteService", &service.id, answer, &["ServiceNotFound"])?;
        Ok(())
    }

    /// All instances of a service; `None` if the service is gone.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn instances(&self, service: &Service) -> anyhow::Result<Option<Instances>> {
        let mut pages = self.client.list_instances().service_id(&service.id).into_paginator().send();
        let mut instances = Instances::new();
        while let Some(page) = pages.next().await {
            let page = self.found("ListInstances", &service.id, page, &["ServiceNotFound"])?;
            let Some(page) = page else { return Ok(None) };
            let listed = page.instances.unwrap_or_default().into_iter();
            instances.extend(listed.filter_map(|one| Some((one.id?, attributes(one.attributes)))));
        }
        Ok(Some(instances))
    }

    /// Adds or replaces an instance. Returns the operation that does it; of a request that is under way already, that one.
    ///
    /// # Errors
    /// Cloud Map refuses or does not answer.
    pub async fn register(
        &self,
        service: &Service,
        id: &str,
        attributes: &Attributes,
    ) -> anyhow::Result<Option<String>> {
        let attributes = attributes.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let call = self.client.register_instance().service_id(&service.id).instance_id(id);
        let answer = call.set_attributes(Some(attributes)).send().await;
        let error = answer.as_ref().err().and_then(SdkError::as_service_error);
        if let Some(RegisterInstanceError::DuplicateRequest(same)) = error {
            self.count("RegisterInstance", &answer);
            return Ok(same.duplicate_operation_id().map(str::to_owned));
        }
        Ok(self.answered("RegisterInstance", id, answer)?.operation_id)
    }

    /// Begins to remove an instance; one that is gone or going is no error.
    ///
    /// # Errors
    /// Cloud Map refuses or does not answer.
    pub async fn deregister(&self, service: &Service, id: &str) -> anyhow::Result<Option<String>> {
        let call = self.client.deregister_instance().service_id(&service.id).instance_id(id);
        let gone = &["InstanceNotFound", "ServiceNotFound", "DuplicateRequest"];
        let started = self.found("DeregisterInstance", id, call.send().await, gone)?;
        Ok(started.and_then(|started| started.operation_id))
    }

    /// State of an operation.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn operation(&self, id: &str) -> anyhow::Result<Operation> {
        let answer = self.client.get_operation().operation_id(id).send().await;
        let answer = self.found("GetOperation", "", answer, &["OperationNotFound"])?;
        let Some(answer) = answer else { return Ok(Operation::Failed("the operation is not known".to_owned())) };
        let operation = answer.operation.context("servicediscovery:GetOperation answers without an operation")?;
        Ok(match operation.status {
            Some(OperationStatus::Fail) => {
                let (code, message) = (operation.error_code.unwrap_or_default(), operation.error_message);
                Operation::Failed(format!("{code}: {}", message.unwrap_or_default()))
            }
            Some(OperationStatus::Success) => Operation::Done,
            _ => Operation::Pending,
        })
    }

    /// The instances that callers may use; `None` if there is no such service. Unhealthy ones are left out unless all are.
    /// The one call that is made all the time.
    ///
    /// # Errors
    /// Cloud Map does not answer.
    pub async fn discover(&self, namespace: &Namespace, service: &str) -> anyhow::Result<Option<Instances>> {
        let call = self.client.discover_instances().namespace_name(&namespace.http_name).service_name(service);
        let call = call.max_results(DISCOVER_MAX).health_status(HealthStatusFilter::HealthyOrElseAll);
        let answer = call.send().await;
        if answer.as_ref().err().and_then(ProvideErrorMetadata::code) == Some("NamespaceNotFound") {
            // One that is made again under the name may be another, with another HTTP name.
            self.lock().retain(|_, known| known != namespace);
        }
        let answer = self.found("DiscoverInstances", service, answer, MISSING)?;
        let Some(answer) = answer else { return Ok(None) };
        let found = answer.instances.unwrap_or_default();
        if i32::try_from(found.len()).is_ok_and(|found| found < DISCOVER_MAX) {
            let instances = found.into_iter().filter_map(|one| Some((one.instance_id?, attributes(one.attributes))));
            return Ok(Some(instances.collect()));
        }
        self.list_usable(namespace, service).await
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
            // Amazon answers InstanceNotFound for a service that has no instances by now.
            let gone = &["ServiceNotFound", "InstanceNotFound"];
            let answer = self.found("GetInstancesHealthStatus", &service.id, call.send().await, gone)?;
            let Some(page) = answer else { return Ok(health) };
            health.extend(page.status.unwrap_or_default());
            match page.next_token {
                Some(token) => next = Some(token),
                None => return Ok(health),
            }
        }
    }

    /// The answer of an operation on something, counted.
    fn answered<T, E>(&self, operation: &str, of: &str, answer: Result<T, SdkError<E>>) -> anyhow::Result<T>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.count(operation, &answer);
        answer.with_context(|| format!("servicediscovery:{operation} {of}").trim_end().to_owned())
    }

    /// The same, but `None` for errors of these codes, which only say that the thing is not there.
    fn found<T, E>(
        &self,
        operation: &str,
        of: &str,
        answer: Result<T, SdkError<E>>,
        absent: &[&str],
    ) -> anyhow::Result<Option<T>>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if answer.as_ref().is_err_and(|error| error.code().is_some_and(|code| absent.contains(&code))) {
            self.count(operation, &answer);
            return Ok(None);
        }
        self.answered(operation, of, answer).map(Some)
    }

    fn count<T, E: ProvideErrorMetadata>(&self, operation: &str, answer: &Result<T, SdkError<E>>) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(SdkError::TimeoutError(_)) => "Timeout",
            Err(error) => error.code().unwrap_or("NoAnswer"),
        };
        let call = Call { operation: operation.to_owned(), outcome: outcome.to_owned() };
        self.metrics.cloudmap_calls.get_or_create(&call).inc();
    }
}

fn namespace(summary: NamespaceSummary) -> Option<(String, Namespace)> {
    if summary.r#type == Some(NamespaceType::DnsPublic) {
        return None;
    }
    let name = summary.name?;
    let http = summary.properties.and_then(|properties| properties.http_properties);
    let http_name = http.and_then(|http| http.http_name).unwrap_or_else(|| name.clone());
    let dns = summary.r#type == Some(NamespaceType::DnsPrivate);
    Some((name, Namespace { id: summary.id?, http_name, dns }))
}

fn attributes(answered: Option<HashMap<String, String>>) -> Arc<Attributes> {
    Arc::new(answered.unwrap_or_default().into_iter().collect())
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
pub fn describe(error: &anyhow::Error) -> String {
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
    use crate::{cloudmap::fake::Fake, model::ServiceKey};
    use serde_json::json;

    #[test]
    fn unhealthy_instances_are_left_out_unless_all_are() {
        let instances =
            |ids: &[&str]| -> Instances { ids.iter().map(|id| ((*id).to_owned(), Arc::default())).collect() };
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

    #[tokio::test]
    async fn an_id_tells_which_of_two_namesakes_is_meant() {
        let fake = Fake::new(&["n"]);
        fake.share("n", "ns-9");
        assert_eq!(fake.client().namespace("n").await.unwrap().unwrap().id, "n", "another account's is not meant");
        fake.namesake("n", "ns-2");
        let error = fake.client().namespace("n").await.unwrap_err().to_string();
        let expected = "several Cloud Map namespaces are named n: n, ns-2; --cloudmap-namespace tells which";
        assert_eq!(error, expected);
        for (given, found) in [("n=ns-2", Some("ns-2")), ("n=n", Some("n")), ("n=ns-3", None)] {
            let ids = NamespaceIds { ids: vec![namespace_id(given).unwrap()] };
            let namespace = fake.client_of(Creation::default(), ids).namespace("n").await.unwrap();
            assert_eq!(namespace.as_ref().map(|namespace| namespace.id.as_str()), found, "{given}");
        }
        let others = NamespaceIds { ids: vec![namespace_id("o=ns-3").unwrap()] };
        assert!(fake.client_of(Creation::default(), others).namespace("n").await.is_err());
        for wrong in ["n", "n=", "=ns-1"] {
            assert!(namespace_id(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn services_are_made_as_asked_for() {
        let record = |of: &str, ttl: u32| json!({ "Type": of, "TTL": ttl });
        let checked = Creation { ttl: 60, custom_health_check: true, ..Creation::default() };
        let with = |families| Creation { families, ..Creation::default() };
        for (creation, api_only, expected) in [
            (Creation::default(), false, (json!([record("A", 300)]), json!(null))),
            (checked.clone(), false, (json!([record("A", 60)]), json!({}))),
            (checked, true, (json!(null), json!(null))),
            (with([false, true]), false, (json!([record("AAAA", 300)]), json!(null))),
            (with([true, true]), false, (json!([record("A", 300), record("AAAA", 300)]), json!(null))),
        ] {
            let fake = Fake::new(&["n"]);
            let client = fake.client_of(creation, NamespaceIds::default());
            let namespace = client.namespace("n").await.unwrap().unwrap();
            client.create_service(&namespace, "s", api_only).await.unwrap();
            let asked = fake.asked(&ServiceKey { namespace: "n".to_owned(), service: "s".to_owned() });
            assert_eq!((asked["DnsConfig"]["DnsRecords"].clone(), asked["HealthCheckCustomConfig"].clone()), expected);
        }
    }

    #[test]
    fn an_error_is_described_once_and_the_same_each_time() {
        let answer = ErrorMetadata::builder().code("AccessDenied").message("not you").custom("aws_request_id", "8667");
        let error = anyhow::Error::new(answer.build()).context("twice").context("twice").context("sts:AssumeRole");
        assert_eq!(describe(&error), "sts:AssumeRole: twice: AccessDenied: not you");
    }
}
