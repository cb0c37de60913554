//! The AWS calls, one function each.

use crate::identity::ANNOTATION;
use crate::scene::{CloudMap, Identity, Namespace, Role, Rule, Side};
use crate::state::CLUSTER_ARN;
use crate::world::Fault;
use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_ec2::types::{Filter, SecurityGroupRule};
use aws_sdk_servicediscovery::types::{
    NamespaceSummary, NamespaceType, ServiceFilter, ServiceFilterName, ServiceSummary,
};
use common::arn::Arn;
use common::aws::ec2::{self, MOST_VALUES};
use common::aws::{Call, OrAbsent};
use common::tags::VPC_TAG;
use futures::future::try_join_all;
use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};

/// How the controller's pods get their role.
pub async fn identity(config: &SdkConfig, side: &mut Side) {
    let (Some((namespace, name)), Some(facts)) = (side.account(), side.facts.clone()) else { return };
    let annotated = side.around.account.iter().flatten().find_map(|it| it.annotations().get(ANNOTATION).cloned());
    let association = pod_role::association(config, &side.name, &namespace, &name).await;
    let association = side.seen("EKS Pod Identity associations", association);
    let associated = association.clone().flatten();
    let mut found = Identity { association, ..Identity::default() };
    if associated.is_some() {
        let agent = pod_role::agent(config, &side.name).await;
        found.agent = side.seen("the agent of EKS Pod Identity", agent);
    }
    let role = associated.clone().or(annotated);
    let (audiences, role) = futures::join!(
        async {
            let provider = facts.oidc_provider()?;
            audiences(config, &provider).await
        },
        async {
            match &role {
                Some(arn) => pod_role::role(config, arn.rsplit('/').next().unwrap_or_default()).await,
                None => Ok(None),
            }
        },
    );
    found.audiences = side.seen("the identity provider", audiences);
    let role = side.seen("the controller's role", role);
    found.role =
        role.map(|role| role.map(|role| Role { trust: role.trust, attached: role.attached, inline: role.inline }));
    side.identity = Some(found);
}

/// The audiences of an identity provider; `None` if there is none.
async fn audiences(config: &SdkConfig, provider: &str) -> Result<Option<Vec<String>>> {
    let client = aws_sdk_iam::Client::new(config);
    let answer = client.get_open_id_connect_provider().open_id_connect_provider_arn(provider).send().await;
    let answer = answer.or_absent(|error| error.is_no_such_entity_exception());
    let answer = answer.call("iam:GetOpenIDConnectProvider", provider)?;
    Ok(answer.map(|provider| provider.client_id_list.unwrap_or_default()))
}

/// The security groups of a cluster's nodes, and what these let in.
pub async fn network(config: &SdkConfig, side: &mut Side) {
    let ids: Vec<String> = side
        .nodes
        .iter()
        .flatten()
        .filter_map(|node| node.spec.as_ref()?.provider_id.as_ref()?.rsplit('/').next().map(str::to_owned))
        // A pod of Fargate is a node of its own.
        .filter(|id| id.starts_with("i-"))
        .collect();
    if ids.is_empty() {
        return;
    }
    let client = aws_sdk_ec2::Client::new(config);
    let groups = groups(&client, &ids, &side.name).await;
    let Some(groups) = side.seen("the nodes' security groups", groups) else { return };
    let all: BTreeSet<String> = groups.values().flatten().cloned().collect();
    side.groups = Some(groups);
    let rules = rules(&client, &all.into_iter().collect::<Vec<_>>(), &side.name).await;
    side.rules = side.seen("the rules of security groups", rules);
}

async fn groups(
    client: &aws_sdk_ec2::Client,
    instances: &[String],
    cluster: &str,
) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for some in instances.chunks(MOST_VALUES) {
        let filter = Filter::builder().name("instance-id").set_values(Some(some.to_vec())).build();
        for instance in ec2::instances(client, vec![filter], cluster).await? {
            let of = groups.entry(instance.instance_id().unwrap_or_default().to_owned()).or_default();
            let interfaces = instance.network_interfaces().iter().flat_map(|interface| interface.groups());
            let ids = instance.security_groups().iter().chain(interfaces).filter_map(|group| group.group_id());
            of.extend(ids.map(str::to_owned));
        }
    }
    Ok(groups)
}

async fn rules(client: &aws_sdk_ec2::Client, groups: &[String], cluster: &str) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for some in groups.chunks(MOST_VALUES) {
        let filter = Filter::builder().name("group-id").set_values(Some(some.to_vec())).build();
        let pages = client.describe_security_group_rules().filters(filter).into_paginator().items();
        let found = pages.send().collect::<Result<Vec<_>, _>>().await;
        let found = found.call("ec2:DescribeSecurityGroupRules", format!("into {cluster}"))?;
        rules.extend(found.into_iter().filter(|rule| rule.is_egress() == Some(false)).map(rule));
    }
    Ok(rules)
}

fn rule(described: SecurityGroupRule) -> Rule {
    let source = described.referenced_group_info();
    let broken = source.and_then(|group| group.peering_status()).filter(|status| *status != "active");
    Rule {
        broken: broken.map(str::to_owned),
        source: source.and_then(|group| group.group_id()).map(str::to_owned),
        addresses: described.cidr_ipv4().or(described.cidr_ipv6()).map(str::to_owned),
        protocol: described.ip_protocol().unwrap_or_default().to_owned(),
        ports: (described.from_port().unwrap_or(-1), described.to_port().unwrap_or(-1)),
        id: described.security_group_rule_id.unwrap_or_default(),
        group: described.group_id.unwrap_or_default(),
    }
}

/// The Cloud Map namespaces of these names, with all instances in them.
pub async fn cloud_map(config: &SdkConfig, names: &BTreeSet<String>, account: &str) -> Result<CloudMap> {
    let client = aws_sdk_servicediscovery::Client::new(config);
    let pages = client.list_namespaces().into_paginator().send().collect::<Result<Vec<_>, _>>().await;
    let pages = pages.call("servicediscovery:ListNamespaces", account)?;
    let found = pages.into_iter().flat_map(|page| page.namespaces.unwrap_or_default());
    let ours = |summary: &NamespaceSummary| {
        let own = summary.arn.as_deref().and_then(Arn::parse).is_some_and(|arn| arn.account == account);
        own && summary.r#type != Some(NamespaceType::DnsPublic)
            && summary.name.as_ref().is_some_and(|name| names.contains(name))
    };
    let namespaces = found.filter(ours).map(|summary| namespace(config, &client, summary));
    Ok(CloudMap { namespaces: try_join_all(namespaces).await?, gone: BTreeSet::new() })
}

async fn namespace(
    config: &SdkConfig,
    client: &aws_sdk_servicediscovery::Client,
    summary: NamespaceSummary,
) -> Result<Namespace> {
    let (id, arn) = (summary.id.unwrap_or_default(), summary.arn.unwrap_or_default());
    let dns = summary.properties.and_then(|properties| properties.dns_properties);
    let zone = dns.and_then(|dns| dns.hosted_zone_id).filter(|_| summary.r#type == Some(NamespaceType::DnsPrivate));
    let filter = ServiceFilter::builder().name(ServiceFilterName::NamespaceId).values(&id).build()?;
    let services = async {
        let pages = client.list_services().filters(filter).into_paginator();
        let pages = pages.send().collect::<Result<Vec<_>, _>>().await.call("servicediscovery:ListServices", &id)?;
        let listed = pages.into_iter().flat_map(|page| page.services.unwrap_or_default());
        try_join_all(listed.map(|service| instances(client, service))).await
    };
    let vpcs = async {
        match &zone {
            Some(zone) => vpcs(config, client, &arn, zone).await.map(Some),
            None => Ok(None),
        }
    };
    let (services, vpcs) = futures::try_join!(services, vpcs)?;
    Ok(Namespace { id, name: summary.name.unwrap_or_default(), vpcs, services: services.into_iter().collect() })
}

/// The VPCs that see a namespace: as its tag says, else as its hosted zone does.
async fn vpcs(
    config: &SdkConfig,
    client: &aws_sdk_servicediscovery::Client,
    arn: &str,
    zone: &str,
) -> Result<Vec<String>> {
    let answer = client.list_tags_for_resource().resource_arn(arn).send().await;
    let tags = answer.call("servicediscovery:ListTagsForResource", arn)?.tags.unwrap_or_default();
    if let Some(tag) = tags.into_iter().find(|tag| tag.key == VPC_TAG) {
        return Ok(vec![tag.value]);
    }
    let answer = aws_sdk_route53::Client::new(config).get_hosted_zone().id(zone).send().await;
    let answer = answer.or_absent(|error| error.is_no_such_hosted_zone()).call("route53:GetHostedZone", zone)?;
    let vpcs = answer.and_then(|zone| zone.vpcs).unwrap_or_default();
    Ok(vpcs.into_iter().filter_map(|vpc| vpc.vpc_id).collect())
}

async fn instances(
    client: &aws_sdk_servicediscovery::Client,
    service: ServiceSummary,
) -> Result<(String, BTreeMap<String, BTreeMap<String, String>>)> {
    let (id, name) = (service.id.unwrap_or_default(), service.name.unwrap_or_default());
    let pages = client.list_instances().service_id(&id).into_paginator();
    let pages = pages.send().collect::<Result<Vec<_>, _>>().await.or_absent(|error| error.is_service_not_found());
    let pages = pages.call("servicediscovery:ListInstances", &name)?.unwrap_or_default();
    let found = pages.into_iter().flat_map(|page| page.instances.unwrap_or_default());
    let instance = |one: aws_sdk_servicediscovery::types::InstanceSummary| {
        Some((one.id?, one.attributes.unwrap_or_default().into_iter().collect()))
    };
    Ok((name, found.filter_map(instance).collect()))
}

/// The EKS clusters, by ARN, that instances name and that are none of these.
pub fn others(cloud_map: &CloudMap, known: &BTreeSet<String>) -> BTreeSet<String> {
    let services = cloud_map.namespaces.iter().flat_map(|namespace| namespace.services.values());
    let arns = services.flat_map(BTreeMap::values).filter_map(|instance| instance.get(CLUSTER_ARN));
    arns.filter(|arn| !known.contains(*arn)).cloned().collect()
}

/// The names of the Cloud Map namespaces that a mesh uses.
pub fn names(sides: &[Side]) -> BTreeSet<String> {
    let nodes = sides.iter().flat_map(|side| &side.objects.nodes);
    let found = nodes.filter_map(|node| node.spec.service_discovery.as_ref()?.aws_cloud_map.as_ref());
    found.map(|discovery| discovery.namespace_name.clone()).collect()
}

impl Fault {
    /// `pods: list pods: forbidden: the caller needs …`
    pub fn words(&self, what: &str) -> String {
        let Self { reason, hint } = self;
        hint.as_ref().map_or_else(|| format!("{what}: {reason}"), |hint| format!("{what}: {reason}: {hint}"))
    }
}
