//! sg-open: rules from security group to security group.

use super::region::Region;
use serde_json::{Value, json};

const OPEN: &str = "ec2:AuthorizeSecurityGroupIngress";
const REVOKE: &str = "ec2:RevokeSecurityGroupIngress";
const NOTHING: &str = "{\n  \"v\": 1\n}\n";

fn parse(document: &str) -> Value {
    serde_json::from_str(document).unwrap()
}

fn fact(document: &str, name: &str) -> String {
    parse(document)["cluster"][name].as_str().unwrap().to_owned()
}

/// The cluster security group.
fn group(document: &str) -> String {
    fact(document, "securityGroup")
}

fn opening(port: u16, group: &str, source: &str) -> String {
    format!("open port {port} of {group} to {source}")
}

/// `sg-open --from` the cluster of a document.
fn from(region: &Region, document: &str) -> String {
    format!("sg-open --from {}", region.file("from.json", document).display())
}

/// Ids of the rules in a document's `ingress`.
fn ids(document: &str) -> Vec<String> {
    let rules = parse(document)["ingress"]["rules"].take();
    rules.as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap().to_owned()).collect()
}

/// Somebody else lets a group, or addresses, into a group; the rule's id.
fn let_in(region: &Region, group: &str, ports: (u16, u16), whom: Value) -> String {
    let mut permission = json!({"IpProtocol": "tcp", "FromPort": ports.0, "ToPort": ports.1});
    permission.as_object_mut().unwrap().extend(whom.as_object().unwrap().clone());
    let permissions = json!({"GroupId": group, "IpPermissions": [permission]});
    let made = region.aws("ec2", "authorize_security_group_ingress", permissions);
    made["SecurityGroupRules"][0]["SecurityGroupRuleId"].as_str().unwrap().to_owned()
}

fn shut(region: &Region, group: &str, rule: &str) {
    let rule = json!({"GroupId": group, "SecurityGroupRuleIds": [rule]});
    region.aws("ec2", "revoke_security_group_ingress", rule);
}

fn tag(region: &Region, rule: &str, key: &str, value: &str) {
    region.aws("ec2", "create_tags", json!({"Resources": [rule], "Tags": [{"Key": key, "Value": value}]}));
}

/// The ingress rules of a group as EC2 tells of them, in the order of their ids.
fn rules(region: &Region, group: &str) -> Vec<Value> {
    let filter = json!({"Filters": [{"Name": "group-id", "Values": [group]}]});
    let found = region.aws("ec2", "describe_security_group_rules", filter)["SecurityGroupRules"].take();
    let mut ingress: Vec<Value> =
        found.as_array().unwrap().iter().filter(|rule| rule["IsEgress"] == false).cloned().collect();
    ingress.sort_by_key(|rule| rule["SecurityGroupRuleId"].to_string());
    ingress
}

pub fn drift(region: &Region, one: &str, two: &str) {
    let (to, source) = (group(two), group(one));
    let command = from(region, one);
    let open = opening(8080, &to, &source);
    let error = region.fails(3, "sg-open", two);
    assert_eq!(error["message"], "no cluster to let in");
    let made = region.repairs(&command, two, &[&open], &[OPEN]);
    region.steady("sg-open", &made.document);

    shut(region, &to, &ids(&made.document)[0]);
    let made = region.repairs("sg-open", &made.document, &[&open], &[OPEN]);

    let rule = &ids(&made.document)[0];
    let edited = json!({"IpProtocol": "tcp", "FromPort": 8081, "ToPort": 8081, "ReferencedGroupId": source});
    let edited =
        json!({"GroupId": to, "SecurityGroupRules": [{"SecurityGroupRuleId": rule, "SecurityGroupRule": edited}]});
    region.aws("ec2", "modify_security_group_rules", edited);
    let revoke = format!("revoke rule {rule} of {to}");
    let made = region.repairs("sg-open", &made.document, &[&open, &revoke], &[OPEN, REVOKE]);

    // One of two is gone.
    let add = opening(9901, &to, &source);
    let both = region.repairs("sg-open --port 9901 --port 8080", &made.document, &[&add], &[OPEN]);
    assert_eq!(both.json()["ingress"]["ports"], json!([8080, 9901]));
    shut(region, &to, &ids(&both.document)[1]);
    let both = region.repairs("sg-open", &both.document, &[&add], &[OPEN]);
    // A wish that is dropped is closed again.
    let revoke = format!("revoke rule {} of {to}", ids(&both.document)[0]);
    let other = region.repairs("sg-open --port 9901", &both.document, &[&revoke], &[REVOKE]);
    region.deletes("sg-open", &other.document, &[], &[REVOKE]);
    // The rules are gone: another's hand, or a run that was killed before it printed.
    region.deletes("sg-open", &both.document, &[], &[]);
}

pub fn of_others(region: &Region, one: &str, two: &str) {
    let (to, source, command) = (group(two), group(one), from(region, one));
    let rule = let_in(region, &to, (8080, 8080), json!({"UserIdGroupPairs": [{"GroupId": source}]}));
    let used = region.repairs(&command, two, &[], &[]).document;
    let tells = |whose: &str| {
        let open = format!("port 8080 of {to} is open to {source} by rule {rule}, {whose}: --adopt takes it over");
        region.steady("sg-open", &used).tells(&open);
        region.deletes("sg-open", &used, &[&format!("rule {rule} of {to}: {whose}")], &[]);
    };
    tells("not made by crossmesh");
    tag(region, &rule, "managed-by", "terraform");
    tells("managed by terraform");
    let take = format!("take over rule {rule} of {to}");
    region.restores("sg-open --adopt", &used, &[&take], &["ec2:CreateTags"]);
    // Ours, but for another cluster.
    tag(region, &rule, "crossmesh:from", "arn:of:c9");
    tells(&format!("made to let arn:of:c9 into {}", fact(two, "arn")));
    region.restores("sg-open --adopt", &used, &[&take], &["ec2:CreateTags"]);
    region.deletes("sg-open", &used, &[], &[REVOKE]);

    // One that admits more is used and never taken over.
    let wide = let_in(region, &to, (8000, 9000), json!({"UserIdGroupPairs": [{"GroupId": source}]}));
    let used = region.repairs(&command, two, &[], &[]).document;
    let tells = format!(
        "port 8080 of {to} is open to {source} by rule {wide}, not made by crossmesh: it admits more, so it stays so"
    );
    region.steady("sg-open", &used).tells(&tells);
    region.steady("sg-open --adopt", &used).tells(&tells);
    region.deletes("sg-open", &used, &[&format!("rule {wide} of {to}: not made by crossmesh")], &[]);
    shut(region, &to, &wide);

    let abroad = from(region, &one.replace("us-west-2", "eu-west-1"));
    let message =
        "cluster c2 is in us-west-2, cluster c1 in eu-west-1: a rule cannot name a security group of another region";
    region.refuses(&abroad, two, message, "");
}

/// A node beside those of a cluster, with groups of its own, as a launch template gives them; the instance's id.
fn node(region: &Region, cluster: &str, groups: &[&str]) -> String {
    let tags = json!([{"Key": "eks:cluster-name", "Value": cluster}, {"Key": format!("kubernetes.io/cluster/{cluster}"), "Value": "owned"}]);
    instance(region, cluster, tags, groups)
}

/// An instance in the subnet of a cluster's nodes; its id.
fn instance(region: &Region, cluster: &str, tags: Value, groups: &[&str]) -> String {
    let filter = json!({"Filters": [{"Name": "tag:eks:cluster-name", "Values": [cluster]}]});
    let like = region.aws("ec2", "describe_instances", filter)["Reservations"][0]["Instances"][0].take();
    let run = json!({"ImageId": like["ImageId"], "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1,
        "SubnetId": like["SubnetId"], "SecurityGroupIds": groups,
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}]});
    region.aws("ec2", "run_instances", run)["Instances"][0]["InstanceId"].as_str().unwrap().to_owned()
}

pub fn node_groups(region: &Region, one: &str, two: &str) {
    let (to, source, command) = (group(two), group(one), from(region, one));
    let new = |name: &str| {
        let group = json!({"GroupName": name, "Description": name, "VpcId": fact(two, "vpc")});
        region.aws("ec2", "create_security_group", group)["GroupId"].as_str().unwrap().to_owned()
    };
    let end = |node: &str| region.aws("ec2", "terminate_instances", json!({"InstanceIds": [node]}));
    let made = region.done(&command, two);

    // With the cluster's group and one more: nothing to open.
    let (own, a, b) = (new("own"), new("a"), new("b"));
    let more = node(region, "c2", &[&to, &own]);
    region.steady("sg-open", &made.document);
    end(&more);

    // Without it, on the side that is entered.
    let there = node(region, "c2", &[&own]);
    let made = region.repairs("sg-open", &made.document, &[&opening(8080, &own, &source)], &[OPEN]);
    // And on the side that is let in: one of its groups is enough, but which one only a tag tells, not an id.
    let here = node(region, "c1", &[&a, &b]);
    let (chosen, other) = (std::cmp::max(&a, &b), std::cmp::min(&a, &b));
    let error = region.fails(1, "sg-open", &made.document);
    assert_eq!(error["message"], format!("cluster c1 has nodes or pods in {other} and {chosen} alike"));
    assert_eq!(error["hint"], "tag the one that is for this cluster alone: kubernetes.io/cluster/c1=owned");
    tag(region, chosen, "kubernetes.io/cluster/c1", "shared");
    let mut targets = [&to, &own];
    targets.sort();
    let opened = targets.map(|target| opening(8080, target, chosen));
    let made = region.repairs("sg-open", &made.document, &[&opened[0], &opened[1]], &[OPEN, OPEN]);
    assert_eq!(made.json()["ingress"]["rules"].as_array().map(Vec::len), Some(4));
    assert_eq!(rules(region, &own).len(), 2);

    // When the node groups are gone, so are their rules.
    let of = |document: &str, group: &str, source: &str| {
        let rules = parse(document)["ingress"]["rules"].take();
        let wanted = |rule: &&Value| rule["securityGroup"] == group && rule["source"] == source;
        let rule = rules.as_array().unwrap().iter().find(wanted).unwrap()["id"].clone();
        format!("revoke rule {} of {group}", rule.as_str().unwrap())
    };
    let revoked = [of(&made.document, &to, chosen), of(&made.document, &own, chosen)];
    end(&here);
    let fewer = region.repairs("sg-open", &made.document, &[&revoked[0], &revoked[1]], &[REVOKE, REVOKE]);
    let revoked = of(&fewer.document, &own, &source);
    end(&there);
    let last = region.repairs("sg-open", &fewer.document, &[&revoked], &[REVOKE]);
    assert_eq!(rules(region, &own), [Value::Null; 0]);
    region.deletes("sg-open", &last.document, &[], &[REVOKE]);
}

/// Nodes of Auto Mode, which have a tag of their own, and pods that EKS gave network interfaces of their own.
pub fn own_groups(region: &Region, one: &str, two: &str) {
    let (to, source, command) = (group(two), group(one), from(region, one));
    let new = |name: &str| {
        let group = json!({"GroupName": name, "Description": name, "VpcId": fact(two, "vpc")});
        region.aws("ec2", "create_security_group", group)["GroupId"].as_str().unwrap().to_owned()
    };
    let (auto, pods) = (new("auto"), new("pods"));
    let node = instance(region, "c2", json!([{"Key": "eks:eks-cluster-name", "Value": "c2"}]), &[&auto]);
    let subnets = json!({"Filters": [{"Name": "vpc-id", "Values": [fact(one, "vpc")]}]});
    let subnet = region.aws("ec2", "describe_subnets", subnets)["Subnets"][0]["SubnetId"].take();
    let tags = json!([{"Key": "vpcresources.k8s.aws/trunk-eni-id", "Value": "eni-1"}, {"Key": "kubernetes.io/cluster/c1", "Value": "owned"}]);
    let tags = json!([{"ResourceType": "network-interface", "Tags": tags}]);
    let branch = json!({"SubnetId": subnet, "Groups": [pods], "TagSpecifications": tags});
    let branch = region.aws("ec2", "create_network_interface", branch)["NetworkInterface"]["NetworkInterfaceId"].take();

    let (mut targets, mut sources) = ([&to, &auto], [&source, &pods]);
    targets.sort();
    sources.sort();
    let opened = targets.map(|target| sources.map(|source| opening(8080, target, source)));
    let opened: Vec<&str> = opened.iter().flatten().map(String::as_str).collect();
    let made = region.repairs(&command, two, &opened, &[OPEN; 4]);
    region.steady("sg-open", &made.document);
    region.deletes("sg-open", &made.document, &[], &[REVOKE; 4]);
    region.aws("ec2", "delete_network_interface", json!({"NetworkInterfaceId": branch}));
    region.aws("ec2", "terminate_instances", json!({"InstanceIds": [node]}));
}

/// Rules that let addresses in neither count nor change.
pub fn addresses(region: &Region, one: &str, two: &str) {
    let (to, source, command) = (group(two), group(one), from(region, one));
    let list = json!({"PrefixListName": "nodes", "MaxEntries": 1, "AddressFamily": "IPv4", "Entries": [{"Cidr": "10.0.1.0/24"}]});
    let list = region.aws("ec2", "create_managed_prefix_list", list)["PrefixList"]["PrefixListId"].take();
    let made = [
        json!({"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}),
        json!({"IpRanges": [{"CidrIp": "10.0.0.0/8"}]}),
        json!({"PrefixListIds": [{"PrefixListId": list}]}),
    ]
    .map(|whom| let_in(region, &to, (8080, 8080), whom));
    let before = rules(region, &to);
    let opened = region.repairs(&command, two, &[&opening(8080, &to, &source)], &[OPEN]);
    assert_eq!(rules(region, &to).len(), before.len() + 1);
    region.deletes("sg-open", &opened.document, &[], &[REVOKE]);
    assert_eq!(rules(region, &to), before);
    for rule in made {
        shut(region, &to, &rule);
    }
}

pub fn two_vpcs(region: &Region, two: &str, apart: &str) {
    let (to, source, command) = (group(two), group(apart), from(region, apart));
    let (here, there) = (fact(two, "vpc"), fact(apart, "vpc"));
    let message = format!(
        "cluster c2 is in {here}, cluster c3 in {there}, and neither a VPC peering nor a transit gateway joins them"
    );
    region.refuses(&command, two, &message, "");
    let peering = region.aws("ec2", "create_vpc_peering_connection", json!({"VpcId": there, "PeerVpcId": here}));
    let peering = &peering["VpcPeeringConnection"]["VpcPeeringConnectionId"];
    region.aws("ec2", "accept_vpc_peering_connection", json!({"VpcPeeringConnectionId": peering}));
    let apart_line = format!("cluster c2 is in {here}, cluster c3 in {there}: joined by {}", peering.as_str().unwrap());
    let open = opening(8080, &to, &source);
    let made = region.repairs(&command, two, &[&open], &[OPEN]);
    made.tells(&apart_line);
    region.deletes("sg-open", &made.document, &[], &[REVOKE]);

    // Another account's cluster, by chance of the name of one of ours: its group is named with the account.
    let theirs = apart.replace("123456789012", "210987654321").replace(r#""name":"c3""#, r#""name":"c1""#);
    let theirs = from(region, &theirs);
    let made = region.repairs(&theirs, two, &[&open], &[OPEN]);
    let named =
        rules(region, &to).into_iter().find(|rule| rule["SecurityGroupRuleId"] == ids(&made.document)[0].as_str());
    assert_eq!(named.unwrap()["ReferencedGroupInfo"]["UserId"], "210987654321");
    region.deletes(&theirs, &made.document, &[], &[REVOKE]);
    // The document alone tells whose it is.
    let made = region.repairs(&theirs, two, &[&open], &[OPEN]);
    let message = format!(
        "ingress.from is {}, of another account or region than cluster c2",
        made.json()["ingress"]["from"]["arn"].as_str().unwrap()
    );
    region.refuses("sg-open", &made.document, &message, "give its document with --from");
    region.deletes("sg-open", &made.document, &[], &[REVOKE]);

    // Others' rules name it with its peering too; without the peering they let nobody in.
    for (status, broken) in [("active", false), ("deleted", true)] {
        let pair = json!({"GroupId": source, "UserId": "210987654321", "VpcId": there, "VpcPeeringConnectionId": peering, "PeeringStatus": status});
        let rule = let_in(region, &to, (8080, 8080), json!({"UserIdGroupPairs": [pair]}));
        let used = region.repairs(&theirs, two, &[], &[]);
        assert_eq!(ids(&used.document), [rule.as_str()]);
        let line = format!("rule {rule} of {to} lets nobody in: its VPC peering is deleted");
        assert_eq!(used.lines("").contains(&line.as_str()), broken, "{status}");
        shut(region, &to, &rule);
    }
}

pub fn deletion(region: &Region, one: &str, two: &str, apart: &str) {
    let to = group(two);
    let command = from(region, one);
    let made = region.done(&format!("{command} --port 8080 --port 9901"), two);
    let own = let_in(region, &to, (9902, 9902), json!({"UserIdGroupPairs": [{"GroupId": group(one)}]}));
    region.deletes("sg-open --port 9901", &made.document, &[], &[REVOKE]);
    // By the names alone; the cluster let in may be gone.
    region.deletes("sg-open -n --cluster c2 --from-cluster gone", NOTHING, &[], &[]);
    region.deletes("sg-open -n --cluster c2 --from-cluster c1", NOTHING, &[], &[REVOKE]);
    // Whoever was let in.
    region.done(&command, two);
    region.done(&from(region, apart), two);
    region.deletes("sg-open -n --cluster c2", NOTHING, &[], &[REVOKE, REVOKE]);
    assert!(rules(region, &to).iter().any(|rule| rule["SecurityGroupRuleId"] == own.as_str()));
    shut(region, &to, &own);
}
