//! cloudmap-ns: the namespace of a VPC.

use super::region::{Region, until, with};
use serde_json::{Value, json};

const CREATE: &str = "servicediscovery:CreatePrivateDnsNamespace";
const TAG: &str = "servicediscovery:TagResource";
const DELETE: &str = "servicediscovery:DeleteNamespace";

fn text<'a>(document: &'a Value, place: &str) -> &'a str {
    document.pointer(place).and_then(Value::as_str).unwrap()
}

fn vpc(document: &str) -> String {
    text(&serde_json::from_str(document).unwrap(), "/cluster/vpc").to_owned()
}

/// Starts one of Cloud Map's operations and waits for its end.
fn operation(region: &Region, operation: &str, parameters: Value) {
    let started = region.aws("servicediscovery", operation, parameters);
    until(operation, || {
        let now = region.aws("servicediscovery", "get_operation", json!({"OperationId": started["OperationId"]}));
        assert_ne!(now["Operation"]["Status"], "FAIL", "{now}");
        (now["Operation"]["Status"] == "SUCCESS").then_some(())
    });
}

fn create(region: &Region, name: &str, vpc: &str) {
    operation(region, "create_private_dns_namespace", json!({"Name": name, "Vpc": vpc}));
}

/// Ids of the namespaces there are of that name.
fn ids(region: &Region, name: &str) -> Vec<Value> {
    let filter = json!({"Filters": [{"Name": "NAME", "Values": [name]}]});
    let found = region.aws("servicediscovery", "list_namespaces", filter)["Namespaces"].take();
    found.as_array().unwrap().iter().map(|namespace| namespace["Id"].clone()).collect()
}

pub fn drift(region: &Region, two: &str) {
    let made = region.done("cloudmap-ns", two);
    region.steady("cloudmap-ns", &made.document);
    let namespace = made.json();
    operation(region, "delete_namespace", json!({"Id": namespace["namespace"]["id"]}));
    let create = format!("create namespace svc2.svc.local in {}", vpc(two));
    let remade = region.repairs("cloudmap-ns", &made.document, &[&create], &[CREATE]).json();
    assert_ne!(remade["namespace"]["id"], namespace["namespace"]["id"]);
    assert_eq!(ids(region, "svc2.svc.local"), [remade["namespace"]["id"].clone()]);

    // Without the tag that tells its VPC, its hosted zone does.
    let arn = json!({"ResourceARN": remade["namespace"]["arn"]});
    region.aws("servicediscovery", "untag_resource", with(&arn, json!({"TagKeys": ["crossmesh:vpc"]})));
    let document = format!("{remade:#}\n");
    region.steady("cloudmap-ns", &document);
    // Without the tag that says it is ours, it is somebody else's.
    region.aws("servicediscovery", "untag_resource", with(&arn, json!({"TagKeys": ["managed-by"]})));
    let id = text(&remade, "/namespace/id");
    let used = format!("namespace svc2.svc.local ({id}) is used, not made by crossmesh: --adopt takes it over");
    region.steady("cloudmap-ns", &document).tells(&used);
    region.restores("cloudmap-ns --adopt", &document, &[&format!("take over namespace {id}")], &[TAG]);
    region.deletes("cloudmap-ns", &document, &[], &[DELETE]);
    // It waited until it was gone.
    assert_eq!(ids(region, "svc2.svc.local"), [Value::Null; 0]);
}

/// Its id is known before it is made, and who has that waits for the rest.
pub fn begun(region: &Region, one: &str, two: &str) {
    let create = format!("create namespace begun.local in {}", vpc(two));
    let tool = "cloudmap-ns --name begun.local";
    let run = |command: &str, document: &str| region.writes(|| region.done(command, document));
    let (begun, written) = run(&format!("{tool} --no-wait"), two);
    assert_eq!((begun.lines("create "), written), (vec![&create[7..]], vec![CREATE.to_owned()]));
    let id = begun.json()["namespace"]["id"].clone();
    assert!(begun.json()["namespace"]["operation"].is_string() && id.is_string(), "{}", begun.document);

    let file = region.file("begun.json", &begun.document);
    let from = format!("{tool} --no-wait --from {}", file.display());
    let (shared, written) = run(&from, one);
    assert_eq!((&shared.json()["namespace"]["id"], written), (&id, vec![]));
    let (made, written) = run("cloudmap-ns", &begun.document);
    region.steady("cloudmap-ns", &made.document);
    let made = made.json();
    let namespace = &made["namespace"];
    assert_eq!(written, Vec::<String>::new());
    assert_eq!((&namespace["id"], namespace.get("operation")), (&id, None));
    assert!(text(namespace, "/arn").ends_with(text(namespace, "/id")), "{made}");
    assert_eq!(ids(region, "begun.local"), std::slice::from_ref(&id));

    // What was begun has come and gone: it is made anew.
    operation(region, "delete_namespace", json!({"Id": id}));
    let remade = region.repairs("cloudmap-ns", &begun.document, &[&create], &[CREATE]);
    assert_ne!(remade.json()["namespace"]["id"], id);
    region.deletes("cloudmap-ns", &remade.document, &[], &[DELETE]);
}

pub fn of_others(region: &Region, two: &str) {
    create(region, "theirs.local", &vpc(two));
    let used = region.done("cloudmap-ns --name theirs.local", two);
    let document = used.json();
    let id = text(&document, "/namespace/id");
    let tells = |whose: &str| {
        let line = format!("namespace theirs.local ({id}) is used, {whose}: --adopt takes it over");
        region.steady("cloudmap-ns", &used.document).tells(&line);
        region.deletes("cloudmap-ns", &used.document, &[&format!("namespace theirs.local ({id}): {whose}")], &[]);
    };
    tells("not made by crossmesh");
    let arn = json!({"ResourceARN": document["namespace"]["arn"]});
    let tags = json!({"Tags": [{"Key": "managed-by", "Value": "terraform"}]});
    region.aws("servicediscovery", "tag_resource", with(&arn, tags));
    tells("managed by terraform");
    region.restores("cloudmap-ns --adopt", &used.document, &[&format!("take over namespace {id}")], &[TAG]);
    region.deletes("cloudmap-ns", &used.document, &[], &[DELETE]);

    // The VPC sees a zone of that name that is no namespace.
    let zone = json!({"Name": "taken.local", "CallerReference": "1", "HostedZoneConfig": {"PrivateZone": true},
        "VPC": {"VPCRegion": "us-west-2", "VPCId": vpc(two)}});
    region.aws("route53", "create_hosted_zone", zone);
    let plan = region.done("cloudmap-ns --name taken.local --plan", two);
    assert_eq!(plan.lines("would "), [format!("create namespace taken.local in {}", vpc(two))]);
    let error = region.fails(4, "cloudmap-ns --name taken.local", two);
    assert!(text(&error, "/message").contains("ConflictingDomainExists"), "{error}");
    assert!(text(&error, "/hint").contains("list-hosted-zones-by-vpc"), "{error}");
    assert_eq!(ids(region, "taken.local"), [Value::Null; 0]);
}

/// Names repeat, and clusters in two VPCs share no namespace.
pub fn elsewhere(region: &Region, one: &str, two: &str, apart: &str) {
    let (here, there) = (vpc(two), vpc(apart));
    create(region, "twice.local", &there);
    let other = ids(region, "twice.local")[0].as_str().unwrap().to_owned();
    let line = format!("another twice.local ({other}) is in {there}: who looks by name alone may find it instead");
    let create = format!("create namespace twice.local in {here}");
    let made = region.repairs("cloudmap-ns --name twice.local", two, &[&create], &[CREATE]);
    made.tells(&line);
    assert_ne!(made.json()["namespace"]["id"], json!(other));
    region.deletes("cloudmap-ns", &made.document, &[], &[DELETE]);
    assert_eq!(ids(region, "twice.local"), [json!(other)]);

    // One that is still being made goes, too.
    region.done("cloudmap-ns --name soon.local --no-wait", two);
    let gone = region.done("cloudmap-ns --name soon.local --delete", two);
    assert_eq!(gone.lines("delete namespace soon.local ").len(), 1);
    assert_eq!(ids(region, "soon.local"), [Value::Null; 0]);

    let file = region.file("one.json", one);
    let made = region.done(&format!("cloudmap-ns --from {}", file.display()), two);
    region.steady(&format!("cloudmap-ns --from {}", file.display()), &made.document);
    let file = region.file("apart.json", apart);
    let shared = format!("cloudmap-ns --name shared.local --type http --from {}", file.display());
    let places = format!("cluster c2 is in {here}, cluster c3 in {there}");
    let message = format!("{places}, and neither a VPC peering nor a transit gateway joins them");
    region.refuses(&shared, two, &message, "peer the VPCs, or attach both to a transit gateway");
    let gateway = region.aws("ec2", "create_transit_gateway", json!({}))["TransitGateway"]["TransitGatewayId"].take();
    let attachments = [&here, &there].map(|vpc| {
        let subnets = json!({"Filters": [{"Name": "vpc-id", "Values": [vpc]}]});
        let subnet = region.aws("ec2", "describe_subnets", subnets)["Subnets"][0]["SubnetId"].take();
        let attached = json!({"TransitGatewayId": gateway, "VpcId": vpc, "SubnetIds": [subnet]});
        let attached = region.aws("ec2", "create_transit_gateway_vpc_attachment", attached);
        attached["TransitGatewayVpcAttachment"]["TransitGatewayAttachmentId"].clone()
    });
    let message = format!("{places}: a private DNS namespace serves one VPC");
    let from = format!("cloudmap-ns --from {}", file.display());
    region.refuses(&from, two, &message, "--type http makes a namespace that needs no VPC");
    let create = "create HTTP namespace shared.local";
    let http = region.repairs(&shared, two, &[create], &["servicediscovery:CreateHttpNamespace"]);
    http.tells(&format!("{places}: joined by {}", gateway.as_str().unwrap()));
    let namespace = http.json()["namespace"].take();
    assert_eq!((&namespace["type"], &namespace["vpc"]), (&json!("http"), &Value::Null));
    region.steady("cloudmap-ns", &http.document);
    // The other cluster finds the same.
    let found = region.done("cloudmap-ns --name shared.local --type http", apart);
    found.tells("nothing to do for namespace");
    assert_eq!(found.json()["namespace"]["id"], namespace["id"]);
    // One of that name in a VPC is another.
    let other = region.done("cloudmap-ns --name shared.local", two);
    assert_ne!(other.json()["namespace"]["id"], namespace["id"]);
    let id = namespace["id"].as_str().unwrap();
    other.tells(&format!("another shared.local ({id}) is in no VPC: who looks by name alone may find it instead"));
    region.deletes("cloudmap-ns", &other.document, &[], &[DELETE]);
    region.deletes("cloudmap-ns", &http.document, &[], &[DELETE]);
    for attachment in attachments {
        let attachment = json!({"TransitGatewayAttachmentId": attachment});
        region.aws("ec2", "delete_transit_gateway_vpc_attachment", attachment);
    }
    let mut moved = made.json();
    moved["namespace"]["vpc"] = there.clone().into();
    let message = format!("namespace.vpc is {there}, but cluster c2 is in {here}");
    region.refuses("cloudmap-ns", &moved.to_string(), &message, "");
    region.deletes("cloudmap-ns", &made.document, &[], &[DELETE]);
}

pub fn deletion(region: &Region, two: &str) {
    let made = region.done("cloudmap-ns", two);
    let document = made.json();
    let id = text(&document, "/namespace/id");
    let service = json!({"Name": "theirs", "NamespaceId": id, "Type": "HTTP"});
    let service = region.aws("servicediscovery", "create_service", service);
    let left = format!("namespace svc2.svc.local ({id}): still has services, which their makers must delete: theirs");
    region.deletes("cloudmap-ns", &made.document, &[&left], &[]);
    region.aws("servicediscovery", "delete_service", json!({"Id": service["Service"]["Id"]}));

    // Somebody is deleting it already.
    region.aws("servicediscovery", "delete_namespace", json!({"Id": id}));
    region.done("cloudmap-ns --delete", &made.document);
    assert_eq!(ids(region, "svc2.svc.local"), [Value::Null; 0]);
    region.deletes("cloudmap-ns", &made.document, &[], &[]);

    // By its name alone.
    region.done("cloudmap-ns", two);
    region.deletes("cloudmap-ns -n --cluster c2", "{\n  \"v\": 1\n}\n", &[], &[DELETE]);
    assert_eq!(ids(region, "svc2.svc.local"), [Value::Null; 0]);
}

/// A cluster that was deleted as a whole has left pods and what it published.
pub fn forgetting(region: &Region, two: &str) {
    let made = region.done("cloudmap-ns", two);
    let document = made.json();
    let id = text(&document, "/namespace/id");
    let arn = text(&document, "/cluster/arn").replace("/c2", "/c0");
    let service = |name: &str, manager: &str| {
        let tags = json!([{"Key": "managed-by", "Value": manager}]);
        let made = json!({"Name": name, "NamespaceId": id, "Type": "HTTP", "Tags": tags});
        region.aws("servicediscovery", "create_service", made)["Service"]["Id"].clone()
    };
    let register = |service: &Value, instance: &str, attributes: Value| {
        let instance = json!({"ServiceId": service, "InstanceId": instance, "Attributes": attributes});
        operation(region, "register_instance", instance);
    };
    let instances = |service: &Value| {
        let listed = region.aws("servicediscovery", "list_instances", json!({"ServiceId": service}));
        let listed = listed["Instances"].as_array().unwrap().iter();
        listed.map(|instance| instance["Id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (published, shared) = (service("published", "appmesh-controller"), service("shared", "appmesh-controller"));
    let theirs = service("theirs", "terraform");
    let of_c0 = || json!({"appmesh.k8s.aws/cluster": "uid-0", "appmesh.k8s.aws/clusterARN": arn});
    register(&published, "uid-0.0.0", of_c0());
    register(&shared, "10.0.0.5", of_c0());
    register(&shared, "10.0.2.5", json!({"appmesh.k8s.aws/cluster": "uid-2"}));
    register(&theirs, "10.0.0.6", of_c0());

    const FORGET: &str = "cloudmap-ns --forget-cluster";
    const DEREGISTER: &str = "servicediscovery:DeregisterInstance";
    let deregister = |service: &str, instance: &str| {
        format!("deregister what cluster c0 has left in {service}.svc2.svc.local: {instance}")
    };
    let changes = [("published", "uid-0.0.0"), ("shared", "10.0.0.5"), ("theirs", "10.0.0.6")];
    let changes = changes.map(|(service, instance)| deregister(service, instance));
    let changes: Vec<_> = changes.iter().map(String::as_str).collect();
    region.restores(&format!("{FORGET} c0"), &made.document, &changes, &[DEREGISTER; 3]);
    assert_eq!((instances(&shared), instances(&theirs)), (vec!["10.0.2.5".to_owned()], vec![]));

    let there = "cluster c2 is there, and its controller registers what it needs";
    region.refuses(&format!("{FORGET} c2"), &made.document, there, "delete its App Mesh objects");
    register(&theirs, "10.0.0.6", of_c0());
    register(&theirs, "10.0.0.7", json!({"appmesh.k8s.aws/cluster": "uid-0"}));
    region.done(&format!("{FORGET} {arn}"), &made.document);
    assert_eq!(instances(&theirs), ["10.0.0.7"], "without an ARN it is known by its uid alone");
    region.done(&format!("{FORGET} uid-0"), &made.document);
    assert_eq!(instances(&theirs), [""; 0]);
    region.done(&format!("{FORGET} uid-2"), &made.document);
    let left = format!("namespace svc2.svc.local ({id}): still has services, which their makers must delete: theirs");
    region.deletes("cloudmap-ns", &made.document, &[&left], &[]);
    region.aws("servicediscovery", "delete_service", json!({"Id": theirs}));
    const DELETE_SERVICE: &str = "servicediscovery:DeleteService";
    region.deletes("cloudmap-ns", &made.document, &[], &[DELETE_SERVICE, DELETE_SERVICE, DELETE]);
    region.steady(&format!("{FORGET} c0"), &region.done(&format!("{FORGET} c0"), two).document);
    assert_eq!(ids(region, "svc2.svc.local"), [Value::Null; 0], "forgetting makes no namespace");
}
