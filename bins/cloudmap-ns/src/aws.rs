//! The Cloud Map and Route 53 calls, one function each.

use crate::forget::{Gone, Left};
use crate::plan::{Namespace, Place, Service};
use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_sdk_servicediscovery::Client;
use aws_sdk_servicediscovery::operation::create_http_namespace::CreateHttpNamespaceError;
use aws_sdk_servicediscovery::operation::create_private_dns_namespace::CreatePrivateDnsNamespaceError;
use aws_sdk_servicediscovery::operation::delete_namespace::DeleteNamespaceError;
use aws_sdk_servicediscovery::operation::deregister_instance::DeregisterInstanceError;
use aws_sdk_servicediscovery::types::{
    FilterCondition, NamespaceFilter, NamespaceFilterName, NamespaceSummary, NamespaceType, Operation, OperationFilter,
    OperationFilterName, ServiceFilter, ServiceFilterName, ServiceSummary, Tag,
};
use common::app_mesh::CONTROLLER;
use common::arn::Arn;
use common::aws::{Call, OrAbsent};
use common::tags::{MANAGED_BY, VPC_TAG, foreign};
use std::collections::BTreeMap;

pub struct CloudMap {
    cloud_map: Client,
    route53: aws_sdk_route53::Client,
}

impl CloudMap {
    pub fn new(config: &SdkConfig) -> Self {
        Self { cloud_map: Client::new(config), route53: aws_sdk_route53::Client::new(config) }
    }

    /// All private DNS and HTTP namespaces of that name in `account`, without their services.
    pub async fn namespaces(&self, name: &str, account: &str) -> Result<Vec<Namespace>> {
        let filter = NamespaceFilter::builder().name(NamespaceFilterName::Name).values(name).build()?;
        let pages = self.cloud_map.list_namespaces().filters(filter).into_paginator();
        let pages = pages.send().collect::<Result<Vec<_>, _>>().await.call("servicediscovery:ListNamespaces", name)?;
        let mut namespaces = Vec::new();
        // One that another account shares cannot be asked for its tags and its VPC, nor changed.
        let ours = |found: &NamespaceSummary| {
            let own = found.arn.as_deref().and_then(Arn::parse).is_some_and(|arn| arn.account == account);
            own && found.r#type != Some(NamespaceType::DnsPublic)
        };
        let found = pages.into_iter().flat_map(|page| page.namespaces.unwrap_or_default());
        for summary in found.filter(ours) {
            namespaces.push(self.namespace(summary).await?);
        }
        Ok(namespaces)
    }

    async fn namespace(&self, summary: NamespaceSummary) -> Result<Namespace> {
        let arn = summary.arn.context("servicediscovery:ListNamespaces gave a namespace without an ARN")?;
        let tags = self.tags(&arn).await?;
        let foreign = foreign(tags.get(MANAGED_BY.0).map(String::as_str));
        let dns = summary.properties.and_then(|properties| properties.dns_properties);
        let hosted_zone = dns.and_then(|dns| dns.hosted_zone_id);
        let places = match (tags.get(VPC_TAG).filter(|_| foreign.is_none()), &hosted_zone) {
            _ if summary.r#type == Some(NamespaceType::Http) => vec![Place::Api],
            (Some(vpc), _) => vec![Place::Vpc(vpc.clone())],
            (None, Some(zone)) => self.vpcs(zone).await?.into_iter().map(Place::Vpc).collect(),
            (None, None) => Vec::new(),
        };
        Ok(Namespace {
            id: summary.id.unwrap_or_default(),
            arn,
            hosted_zone,
            places,
            foreign,
            services: Vec::new(),
            left: Vec::new(),
        })
    }

    async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>> {
        let answer = self.cloud_map.list_tags_for_resource().resource_arn(arn).send().await;
        let answer = answer.or_absent(|error| error.is_resource_not_found_exception());
        let tags = answer.call("servicediscovery:ListTagsForResource", arn)?.and_then(|answer| answer.tags);
        Ok(tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)).collect())
    }

    /// The VPCs that see a private hosted zone; none if there is no such zone any more.
    async fn vpcs(&self, zone: &str) -> Result<Vec<String>> {
        let answer = self.route53.get_hosted_zone().id(zone).send().await;
        let answer = answer.or_absent(|error| error.is_no_such_hosted_zone()).call("route53:GetHostedZone", zone)?;
        let vpcs = answer.and_then(|zone| zone.vpcs).unwrap_or_default();
        Ok(vpcs.into_iter().filter_map(|vpc| vpc.vpc_id).collect())
    }

    /// The services of a namespace. With `deserted`, no App Mesh controller has anything registered in them any more.
    pub async fn services(&self, namespace: &str, deserted: bool) -> Result<Vec<Service>> {
        let mut services = Vec::new();
        for summary in self.list_services(namespace).await? {
            let (Some(id), Some(arn), Some(name)) = (summary.id, summary.arn, summary.name) else { continue };
            let empty = deserted || summary.instance_count == Some(0);
            let left_behind = empty && self.tags(&arn).await?.get(MANAGED_BY.0).is_some_and(|it| it == CONTROLLER);
            services.push(Service { id, name, left_behind });
        }
        Ok(services)
    }

    /// What a cluster has left in a namespace.
    pub async fn left_by(&self, gone: &Gone, namespace: &str) -> Result<Vec<Left>> {
        let mut left = Vec::new();
        for summary in self.list_services(namespace).await? {
            let (Some(id), Some(service)) = (summary.id, summary.name) else { continue };
            let pages = self.cloud_map.list_instances().service_id(&id).into_paginator().send();
            let pages = pages.collect::<Result<Vec<_>, _>>().await.or_absent(|error| error.is_service_not_found());
            let pages = pages.call("servicediscovery:ListInstances", &service)?.unwrap_or_default();
            let instances = pages.into_iter().flat_map(|page| page.instances.unwrap_or_default());
            let left_behind = instances.filter(|one| one.attributes.as_ref().is_some_and(|it| gone.registered(it)));
            let instances: Vec<_> = left_behind.filter_map(|instance| instance.id).collect();
            if !instances.is_empty() {
                left.push(Left { service, id, instances });
            }
        }
        Ok(left)
    }

    /// Id of the operation; `None` when the instance is gone.
    pub async fn deregister(&self, service: &str, instance: &str) -> Result<Option<String>> {
        let answer = self.cloud_map.deregister_instance().service_id(service).instance_id(instance).send().await;
        match answer.as_ref().err().and_then(|error| error.as_service_error()) {
            Some(DeregisterInstanceError::DuplicateRequest(same)) => return Ok(same.duplicate_operation_id.clone()),
            Some(DeregisterInstanceError::InstanceNotFound(_) | DeregisterInstanceError::ServiceNotFound(_)) => {
                return Ok(None);
            }
            _ => {}
        }
        Ok(answer.call("servicediscovery:DeregisterInstance", instance)?.operation_id)
    }

    /// One that is gone is no error.
    pub async fn delete_service(&self, id: &str) -> Result<()> {
        let answer = self.cloud_map.delete_service().id(id).send().await;
        let answer = answer.or_absent(|error| error.is_service_not_found());
        answer.call("servicediscovery:DeleteService", id).map(drop)
    }

    async fn list_services(&self, namespace: &str) -> Result<Vec<ServiceSummary>> {
        let filter = ServiceFilter::builder().name(ServiceFilterName::NamespaceId).values(namespace).build()?;
        let pages = self.cloud_map.list_services().filters(filter).into_paginator();
        let pages =
            pages.send().collect::<Result<Vec<_>, _>>().await.call("servicediscovery:ListServices", namespace)?;
        Ok(pages.into_iter().flat_map(|page| page.services.unwrap_or_default()).collect())
    }

    /// Id of the operation, ours or the one that is doing the same already; `None` when there is such a namespace. That
    /// is also the answer to a call repeated after its answer was lost.
    pub async fn create(&self, name: &str, place: &Place) -> Result<Option<String>> {
        let tags = Some(tags(place)?);
        let Place::Vpc(vpc) = place else {
            let answer = self.cloud_map.create_http_namespace().name(name).set_tags(tags).send().await;
            match answer.as_ref().err().and_then(|error| error.as_service_error()) {
                Some(CreateHttpNamespaceError::DuplicateRequest(same)) => {
                    return operation(same.duplicate_operation_id.clone());
                }
                Some(CreateHttpNamespaceError::NamespaceAlreadyExists(_)) => return Ok(None),
                _ => return operation(answer.call("servicediscovery:CreateHttpNamespace", name)?.operation_id),
            }
        };
        let call = self.cloud_map.create_private_dns_namespace().name(name).vpc(vpc).set_tags(tags);
        let answer = call.send().await;
        match answer.as_ref().err().and_then(|error| error.as_service_error()) {
            Some(CreatePrivateDnsNamespaceError::DuplicateRequest(same)) => {
                operation(same.duplicate_operation_id.clone())
            }
            Some(CreatePrivateDnsNamespaceError::NamespaceAlreadyExists(_)) => Ok(None),
            _ => operation(answer.call("servicediscovery:CreatePrivateDnsNamespace", name)?.operation_id),
        }
    }

    /// Whether a namespace is being made, other than ours by `operation`.
    pub async fn is_another_made(&self, operation: Option<&str>) -> Result<bool> {
        let filter = |name, values: &[&str]| {
            let filter = OperationFilter::builder().name(name).condition(FilterCondition::In);
            filter.set_values(Some(values.iter().map(|&value| value.to_owned()).collect())).build()
        };
        let kind = filter(OperationFilterName::Type, &["CREATE_NAMESPACE"])?;
        let status = filter(OperationFilterName::Status, &["SUBMITTED", "PENDING"])?;
        let pages = self.cloud_map.list_operations().filters(kind).filters(status).into_paginator().send();
        let pages = pages.collect::<Result<Vec<_>, _>>().await.call("servicediscovery:ListOperations", "namespaces")?;
        let mut operations = pages.into_iter().flat_map(|page| page.operations.unwrap_or_default());
        Ok(operations.any(|other| other.id.as_deref() != operation))
    }

    pub async fn adopt(&self, arn: &str, place: &Place) -> Result<()> {
        let call = self.cloud_map.tag_resource().resource_arn(arn).set_tags(Some(tags(place)?));
        call.send().await.call("servicediscovery:TagResource", arn).map(drop)
    }

    /// Id of the operation; `None` when the namespace is gone.
    pub async fn delete(&self, id: &str) -> Result<Option<String>> {
        let answer = self.cloud_map.delete_namespace().id(id).send().await;
        match answer.as_ref().err().and_then(|error| error.as_service_error()) {
            Some(DeleteNamespaceError::DuplicateRequest(same)) => return Ok(same.duplicate_operation_id.clone()),
            Some(DeleteNamespaceError::NamespaceNotFound(_)) => return Ok(None),
            _ => {}
        }
        Ok(answer.call("servicediscovery:DeleteNamespace", id)?.operation_id)
    }

    /// An operation; `None` when it was so long ago that Cloud Map has forgotten it.
    pub async fn operation(&self, id: &str) -> Result<Option<Operation>> {
        let answer = self.cloud_map.get_operation().operation_id(id).send().await;
        let answer = answer.or_absent(|error| error.is_operation_not_found());
        Ok(answer.call("servicediscovery:GetOperation", id)?.and_then(|answer| answer.operation))
    }
}

/// What a request for a namespace was answered with.
fn operation(id: Option<String>) -> Result<Option<String>> {
    id.context("Cloud Map creates the namespace, and has told no operation to wait for").map(Some)
}

fn tags(place: &Place) -> Result<Vec<Tag>> {
    let vpc = match place {
        Place::Api => None,
        Place::Vpc(vpc) => Some((VPC_TAG, vpc.as_str())),
    };
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    [MANAGED_BY].into_iter().chain(vpc).map(tag).collect::<Result<_, _>>().context("make tags")
}
