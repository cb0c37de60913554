//! The EC2 calls, one function each.

use crate::groups::{self, Tie};
use crate::plan::{Opening, Rule, Side, Want};
use anyhow::Result;
use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::types::{
    Filter, GroupIdentifier, Instance, IpPermission, ResourceType, SecurityGroupRule, Tag, TagSpecification,
    UserIdGroupPair,
};
use common::Error;
use common::aws::ec2::{MOST_VALUES, instances};
use common::aws::{Call, OrAbsent};
use common::tags::{FROM_TAG, MANAGED_BY, TO_TAG, foreign};
use futures::try_join;
use std::collections::BTreeSet;

pub struct Ec2(Client);

impl Ec2 {
    pub fn new(config: &SdkConfig) -> Self {
        Self(Client::new(config))
    }

    /// The groups that stand for the nodes and pods of a cluster.
    pub async fn groups(&self, cluster: &Side) -> Result<Vec<String>> {
        let (nodes, pods) = try_join!(self.node_groups(cluster), self.pod_groups(cluster))?;
        let interfaces = [nodes, pods].concat();
        let mut chosen = groups::covering(&interfaces, &cluster.security_group, &BTreeSet::new());
        if chosen.is_err() {
            let all = interfaces.iter().flatten().cloned().collect();
            let tagged = self.tagged(&all, &cluster.name).await?;
            chosen = groups::covering(&interfaces, &cluster.security_group, &tagged);
        }
        let chosen = chosen.map_err(|Tie(alike)| {
            let (name, tag) = (&cluster.name, cluster_tag(&cluster.name));
            let message = format!("cluster {name} has nodes or pods in {} alike", alike.join(" and "));
            Error::failed(message).hint(format!("tag the one that is for this cluster alone: {tag}=owned"))
        })?;
        Ok(chosen.into_iter().collect())
    }

    /// The security groups of every network interface of a cluster's nodes; none if it is another account's, whose name and
    /// shared VPC one of ours may have.
    async fn node_groups(&self, cluster: &Side) -> Result<Vec<Vec<String>>> {
        let Side { name, vpc, account, .. } = cluster;
        let signs = signs(name);
        let keys = signs.iter().map(|(key, _)| key.clone()).collect();
        let filters = vec![
            Filter::builder().name("tag-key").set_values(Some(keys)).build(),
            filter("vpc-id", vpc),
            Filter::builder().name("instance-state-name").values("pending").values("running").build(),
        ];
        let found = instances(&self.0, filters, name).await?;
        let own = |instance: &&Instance| instance.network_interfaces().iter().all(|it| is_of(account, it.owner_id()));
        Ok(found.iter().filter(|instance| is_node(instance, &signs)).filter(own).flat_map(interfaces).collect())
    }

    /// The security groups of every network interface that EKS made for a pod with security groups of its own. It is
    /// attached to no instance, but associated with a node's trunk interface.
    async fn pod_groups(&self, cluster: &Side) -> Result<Vec<Vec<String>>> {
        let filters = vec![
            filter("tag-key", "vpcresources.k8s.aws/trunk-eni-id"),
            filter(format!("tag:{}", cluster_tag(&cluster.name)), "owned"),
            filter("vpc-id", &cluster.vpc),
        ];
        let call = self.0.describe_network_interfaces().include_managed_resources(true).set_filters(Some(filters));
        let found = call.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let found = found.call("ec2:DescribeNetworkInterfaces", format!("pods of {}", cluster.name))?;
        let own = found.iter().filter(|interface| is_of(&cluster.account, interface.owner_id()));
        Ok(own.map(|interface| ids(interface.groups())).collect())
    }

    /// Those of these groups that are tagged as a cluster's, by EKS or by who made its nodes.
    async fn tagged(&self, groups: &BTreeSet<String>, cluster: &str) -> Result<BTreeSet<String>> {
        let mut tagged = BTreeSet::new();
        let groups: Vec<String> = groups.iter().cloned().collect();
        for some in groups.chunks(MOST_VALUES) {
            let filters = vec![
                Filter::builder().name("group-id").set_values(Some(some.to_vec())).build(),
                filter("tag-key", &cluster_tag(cluster)),
            ];
            let pages = self.0.describe_security_groups().set_filters(Some(filters)).into_paginator().items();
            let found = pages.send().collect::<Result<Vec<_>, _>>().await;
            let found = found.call("ec2:DescribeSecurityGroups", format!("of {cluster}"))?;
            tagged.extend(found.into_iter().filter_map(|group| group.group_id));
        }
        Ok(tagged)
    }

    /// The ingress rules of these groups.
    pub async fn rules(&self, groups: &[String], want: &Want) -> Result<Vec<Rule>> {
        let filters = vec![Filter::builder().name("group-id").set_values(Some(groups.to_vec())).build()];
        self.describe(filters, want).await
    }

    /// Our rules into one cluster, from the other or from any.
    pub async fn our_rules(&self, want: &Want) -> Result<Vec<Rule>> {
        let mut filters =
            vec![filter(format!("tag:{}", MANAGED_BY.0), MANAGED_BY.1), filter(format!("tag:{TO_TAG}"), &want.to.arn)];
        filters.extend(want.from.iter().map(|from| filter(format!("tag:{FROM_TAG}"), &from.arn)));
        self.describe(filters, want).await
    }

    /// Those of these rules that are there.
    pub async fn known_rules(&self, ids: &[String], want: &Want) -> Result<Vec<Rule>> {
        let filters = vec![Filter::builder().name("security-group-rule-id").set_values(Some(ids.to_vec())).build()];
        self.describe(filters, want).await
    }

    async fn describe(&self, filters: Vec<Filter>, want: &Want) -> Result<Vec<Rule>> {
        let pages = self.0.describe_security_group_rules().set_filters(Some(filters)).into_paginator().items();
        let rules = pages.send().collect::<Result<Vec<_>, _>>().await;
        let rules = rules.call("ec2:DescribeSecurityGroupRules", format!("into {}", want.to.name))?;
        let ingress = rules.into_iter().filter(|rule| rule.is_egress() == Some(false));
        Ok(ingress.map(|described| rule(described, want)).collect())
    }

    /// One rule for one port from one group, tagged with both clusters.
    pub async fn open(&self, opening: &Opening, to: &Side, from: &Side) -> Result<()> {
        let port = i32::from(opening.port);
        let pair = UserIdGroupPair::builder()
            .group_id(&opening.source)
            .set_user_id(Some(from.account.clone()).filter(|account| *account != to.account))
            .description(format!("crossmesh: {} to {}", from.name, to.name))
            .build();
        let permission =
            IpPermission::builder().ip_protocol("tcp").from_port(port).to_port(port).user_id_group_pairs(pair).build();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::SecurityGroupRule)
            .set_tags(Some(tags(to, from)))
            .build();
        let call = self.0.authorize_security_group_ingress().group_id(&opening.group);
        let answer = call.ip_permissions(permission).tag_specifications(tags).send().await;
        let answer = answer.or_absent(|error| error.code() == Some("InvalidPermission.Duplicate"));
        answer.call("ec2:AuthorizeSecurityGroupIngress", &opening.group).map(drop)
    }

    pub async fn adopt(&self, rule: &str, to: &Side, from: &Side) -> Result<()> {
        let call = self.0.create_tags().resources(rule).set_tags(Some(tags(to, from)));
        call.send().await.call("ec2:CreateTags", rule).map(drop)
    }

    pub async fn revoke(&self, group: &str, rule: &str) -> Result<()> {
        let call = self.0.revoke_security_group_ingress().group_id(group).security_group_rule_ids(rule);
        let gone = ["InvalidSecurityGroupRuleId.NotFound", "InvalidPermission.NotFound", "InvalidGroup.NotFound"];
        let answer = call.send().await.or_absent(|error| error.code().is_some_and(|code| gone.contains(&code)));
        answer.call("ec2:RevokeSecurityGroupIngress", rule).map(drop)
    }
}

/// Tags of a cluster's nodes. Managed node groups, Auto Mode, self-managed nodes and Karpenter each tag in their own way.
fn signs(cluster: &str) -> [(String, &str); 4] {
    [
        ("eks:cluster-name".to_owned(), cluster),
        ("aws:eks:cluster-name".to_owned(), cluster),
        ("eks:eks-cluster-name".to_owned(), cluster),
        (cluster_tag(cluster), "owned"),
    ]
}

fn is_node(instance: &Instance, signs: &[(String, &str)]) -> bool {
    let mut tags = instance.tags().iter().filter_map(|tag| tag.key().zip(tag.value()));
    tags.any(|(key, value)| signs.iter().any(|(sign, of)| (sign.as_str(), *of) == (key, value)))
}

/// Key of the tag of what belongs to a cluster.
fn cluster_tag(name: &str) -> String {
    format!("kubernetes.io/cluster/{name}")
}

fn filter(name: impl Into<String>, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// What makes a rule ours.
fn tags(to: &Side, from: &Side) -> Vec<Tag> {
    let tags = [MANAGED_BY, (TO_TAG, to.arn.as_str()), (FROM_TAG, from.arn.as_str())];
    tags.map(|(key, value)| Tag::builder().key(key).value(value).build()).into()
}

/// The groups of each of a node's network interfaces.
fn interfaces(instance: &Instance) -> Vec<Vec<String>> {
    if instance.network_interfaces().is_empty() {
        return vec![ids(instance.security_groups())];
    }
    instance.network_interfaces().iter().map(|interface| ids(interface.groups())).collect()
}

fn is_of(account: &str, owner: Option<&str>) -> bool {
    owner.is_none_or(|owner| owner == account)
}

fn ids(groups: &[GroupIdentifier]) -> Vec<String> {
    groups.iter().filter_map(|group| group.group_id().map(str::to_owned)).collect()
}

fn rule(described: SecurityGroupRule, want: &Want) -> Rule {
    let tag = |key: &str| described.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
    let (to, from) = (tag(TO_TAG).unwrap_or("anyone"), tag(FROM_TAG).unwrap_or("anyone"));
    let ours = to == want.to.arn && want.from.as_ref().is_none_or(|side| side.arn == from);
    let source = described.referenced_group_info();
    // A group of the same VPC has no peering, and so no status.
    let broken = source.and_then(|group| group.peering_status()).filter(|status| *status != "active");
    Rule {
        foreign: foreign(tag(MANAGED_BY.0)).or_else(|| (!ours).then(|| format!("made to let {from} into {to}"))),
        broken: broken.map(str::to_owned),
        source: source.and_then(|group| group.group_id()).map(str::to_owned),
        protocol: described.ip_protocol().unwrap_or_default().to_owned(),
        ports: (described.from_port().unwrap_or(-1), described.to_port().unwrap_or(-1)),
        id: described.security_group_rule_id.unwrap_or_default(),
        group: described.group_id.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::types::{InstanceNetworkInterface, ReferencedSecurityGroup};

    fn side(name: &str) -> Side {
        let text = String::new;
        Side { name: name.into(), arn: format!("arn:{name}"), account: text(), vpc: text(), security_group: text() }
    }

    fn want(from: Option<&str>) -> Want {
        let (ports, known_rules) = (Vec::new(), Vec::new());
        Want { to: side("c2"), from: from.map(side), ports, known_rules, adopt: false, apart: None }
    }

    #[test]
    fn a_rule_is_ours_when_it_is_tagged_for_these_clusters() {
        let ours = [("managed-by", "crossmesh"), ("crossmesh:to", "arn:c2"), ("crossmesh:from", "arn:c1")];
        let pair = Some("made to let arn:c1 into arn:c2");
        for (expected, tags, from) in [
            (None, &ours[..], Some("c1")),
            (None, &ours, None),
            (pair, &ours, Some("c3")),
            (Some("made to let anyone into anyone"), &ours[..1], Some("c1")),
            (Some("managed by terraform"), &[("managed-by", "terraform"), ours[1], ours[2]], Some("c1")),
            (Some("not made by crossmesh"), &[], None),
        ] {
            let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
            let read = rule(SecurityGroupRule::builder().set_tags(Some(tags)).build(), &want(from));
            assert_eq!(read.foreign.as_deref(), expected, "{from:?}");
        }
        let made = SecurityGroupRule::builder().set_tags(Some(tags(&side("c2"), &side("c1")))).build();
        assert_eq!(rule(made, &want(Some("c1"))).foreign, None);
    }

    #[test]
    fn a_rule_lets_in_a_group_or_addresses() {
        let group = || ReferencedSecurityGroup::builder().group_id("sg-1");
        let peer = |status: &str| {
            group().user_id("210987654321").vpc_id("vpc-2").vpc_peering_connection_id("pcx-1").peering_status(status)
        };
        let tcp = || SecurityGroupRule::builder().ip_protocol("tcp").from_port(8080).to_port(8081);
        for (case, described, source, broken) in [
            ("a group", tcp().referenced_group_info(group().build()), Some("sg-1"), None),
            ("of another account's VPC", tcp().referenced_group_info(peer("active").build()), Some("sg-1"), None),
            ("peering gone", tcp().referenced_group_info(peer("deleted").build()), Some("sg-1"), Some("deleted")),
            ("IPv4", tcp().cidr_ipv4("0.0.0.0/0"), None, None),
            ("IPv6", tcp().cidr_ipv6("::/0"), None, None),
            ("prefix list", tcp().prefix_list_id("pl-1"), None, None),
        ] {
            let read = rule(described.build(), &want(None));
            assert_eq!((read.source.as_deref(), read.broken.as_deref()), (source, broken), "{case}");
            assert_eq!((read.protocol.as_str(), read.ports), ("tcp", (8080, 8081)), "{case}");
        }
        assert_eq!(rule(SecurityGroupRule::builder().ip_protocol("-1").build(), &want(None)).ports, (-1, -1));
    }

    #[test]
    fn a_node_is_tagged_with_its_clusters_name() {
        for (key, value, expected) in [
            ("eks:cluster-name", "c1", true),
            ("aws:eks:cluster-name", "c1", true),
            ("eks:eks-cluster-name", "c1", true),
            ("kubernetes.io/cluster/c1", "owned", true),
            ("eks:cluster-name", "c2", false),
            ("kubernetes.io/cluster/c2", "owned", false),
            ("kubernetes.io/cluster/c1", "shared", false),
            ("Name", "c1", false),
        ] {
            let instance = Instance::builder().tags(Tag::builder().key(key).value(value).build()).build();
            assert_eq!(is_node(&instance, &signs("c1")), expected, "{key}={value}");
        }
        assert!(!is_node(&Instance::builder().build(), &signs("c1")));
    }

    #[test]
    fn groups_are_those_of_each_interface() {
        let group = |id: &str| GroupIdentifier::builder().group_id(id).build();
        let interface = |id: &str| InstanceNetworkInterface::builder().groups(group(id)).build();
        let node = Instance::builder().security_groups(group("sg-a"));
        assert_eq!(interfaces(&node.clone().build()), [["sg-a"]]);
        let node = node.network_interfaces(interface("sg-a")).network_interfaces(interface("sg-pods"));
        assert_eq!(interfaces(&node.build()), [["sg-a"], ["sg-pods"]]);
    }
}
