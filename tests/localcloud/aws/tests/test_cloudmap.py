"""Cloud Map: what is asynchronous, what is in use, what is already there."""

import tempfile
import unittest
from itertools import count
from pathlib import Path

from cloudmap_state import InstanceDelay, Refused, State
from gate import Case, wait_for

_number = count(1)


class CloudMap(Case):
    def setUp(self):
        self.api = self.region.client("servicediscovery")
        self.vpc = self.region.account["vpc"]
        self.name = f"n{next(_number)}.svc.local"

    def finish(self, answer):
        """The operation, once it is over."""

        def over():
            operation = self.api.get_operation(OperationId=answer["OperationId"])["Operation"]
            return operation if operation["Status"] in ("SUCCESS", "FAIL") else None

        return wait_for(over)

    def namespace(self, name=None, vpc=None):
        operation = self.finish(self.api.create_private_dns_namespace(Name=name or self.name, Vpc=vpc or self.vpc))
        self.assertEqual(operation["Status"], "SUCCESS")
        return operation["Targets"]["NAMESPACE"]

    def service(self, namespace, name="colorapp", **more):
        dns = {"DnsRecords": [{"Type": "A", "TTL": 300}], "RoutingPolicy": "MULTIVALUE"}
        more = {"DnsConfig": dns} | more if more.get("Type") != "HTTP" else more
        return self.api.create_service(Name=name, NamespaceId=namespace, **more)["Service"]

    def test_a_namespace_takes_a_moment(self):
        answer = self.api.create_private_dns_namespace(Name=self.name, Vpc=self.vpc, Tags=[{"Key": "a", "Value": "b"}])
        operation = self.api.get_operation(OperationId=answer["OperationId"])["Operation"]
        self.assertIn(operation["Status"], ("SUBMITTED", "PENDING"))
        id_ = operation["Targets"]["NAMESPACE"]
        self.assertEqual(self.refused(self.api.get_namespace, Id=id_)[1], "NamespaceNotFound")
        self.assertEqual(self.finish(answer)["Status"], "SUCCESS")
        namespace = self.api.get_namespace(Id=id_)["Namespace"]
        self.assertEqual(
            (namespace["Name"], namespace["Type"], namespace["ServiceCount"]), (self.name, "DNS_PRIVATE", 0)
        )
        self.assertEqual(
            self.api.list_tags_for_resource(ResourceARN=namespace["Arn"])["Tags"], [{"Key": "a", "Value": "b"}]
        )

    def test_the_hosted_zone_is_made_in_the_name_of_the_caller(self):
        allowed = {
            "Effect": "Allow",
            "Action": ["servicediscovery:*", "ec2:Describe*", "route53:List*"],
            "Resource": "*",
        }
        api = self.region.client("servicediscovery", self.user(f"zoneless-{self.name}", allowed))
        operation = self.finish(api.create_private_dns_namespace(Name=self.name, Vpc=self.vpc))
        self.assertEqual((operation["Status"], operation["ErrorCode"]), ("FAIL", "ACCESS_DENIED"))
        self.assertIn("is not authorized to perform: route53:CreateHostedZone on", operation["ErrorMessage"])
        self.assertNotIn(self.name, [n["Name"] for n in self.api.list_namespaces()["Namespaces"]])

    def test_records_are_changed_in_the_name_of_the_caller(self):
        namespace = self.namespace()
        with_records = self.service(namespace)["Id"]
        without = self.service(namespace, "published", Type="HTTP")["Id"]
        allowed = {"Effect": "Allow", "Action": ["servicediscovery:*"], "Resource": "*"}
        api = self.region.client("servicediscovery", self.user(f"recordless-{self.name}", allowed))
        instance = {"InstanceId": "i", "Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1"}}
        for service, status in ((with_records, "FAIL"), (without, "SUCCESS")):
            operation = self.finish(api.register_instance(ServiceId=service, **instance))
            self.assertEqual(operation["Status"], status)
        self.finish(self.api.register_instance(ServiceId=with_records, **instance))
        operation = self.finish(api.deregister_instance(ServiceId=with_records, InstanceId="i"))
        self.assertEqual((operation["Status"], operation["ErrorCode"]), ("FAIL", "ACCESS_DENIED"))
        self.assertIn("is not authorized to perform: route53:ChangeResourceRecordSets on", operation["ErrorMessage"])

    def test_the_vpc_decides_whether_a_name_is_taken(self):
        first, other = (
            self.namespace(),
            self.namespace(vpc=self.region.client("ec2").create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]),
        )
        self.assertNotEqual(first, other)
        operation = self.finish(self.api.create_private_dns_namespace(Name=self.name, Vpc=self.vpc))
        self.assertEqual((operation["Status"], operation["ErrorCode"]), ("FAIL", "CANNOT_CREATE_HOSTED_ZONE"))
        self.assertIn("ConflictingDomainExists", operation["ErrorMessage"])
        found = self.api.list_namespaces(
            Filters=[{"Name": "NAME", "Values": [self.name]}, {"Name": "TYPE", "Values": ["DNS_PRIVATE"]}]
        )
        self.assertEqual({n["Id"] for n in found["Namespaces"]}, {first, other})
        self.assertEqual(self.api.list_namespaces(Filters=[{"Name": "NAME", "Values": ["none"]}])["Namespaces"], [])

    def test_route_53_tells_the_vpc(self):
        id_ = self.namespace()
        dns = self.api.get_namespace(Id=id_)["Namespace"]["Properties"]["DnsProperties"]
        route53 = self.region.client("route53")
        zone = route53.get_hosted_zone(Id=dns["HostedZoneId"])
        self.assertEqual([vpc["VPCId"] for vpc in zone["VPCs"]], [self.vpc])
        self.assertEqual(zone["HostedZone"]["Name"], f"{self.name}.")
        status, code, _ = self.refused(route53.get_hosted_zone, Id="Z0")
        self.assertEqual((status, code), (404, "NoSuchHostedZone"))

    def test_a_private_namespace_is_a_hosted_zone_of_its_vpc(self):
        route53 = self.region.client("route53")
        namespace = self.api.get_namespace(Id=self.namespace())["Namespace"]
        zone = namespace["Properties"]["DnsProperties"]["HostedZoneId"]
        found = route53.get_hosted_zone(Id=zone)
        self.assertEqual(
            (found["HostedZone"]["Name"], found["HostedZone"]["Config"]["PrivateZone"]), (self.name + ".", True)
        )
        self.assertEqual([v["VPCId"] for v in found["VPCs"]], [self.vpc])
        self.finish(self.api.delete_namespace(Id=namespace["Id"]))
        self.assertEqual(self.refused(route53.get_hosted_zone, Id=zone)[:2], (404, "NoSuchHostedZone"))
        node = self.region.client("route53", self.region.account["node"])
        self.assertEqual(self.refused(node.get_hosted_zone, Id=zone)[:2], (403, "AccessDenied"))
        operation = self.finish(self.api.create_private_dns_namespace(Name=self.name, Vpc="vpc-0none"))
        self.assertIn("InvalidVPCId", operation["ErrorMessage"])

    def test_a_request_that_is_repeated_is_the_same_request(self):
        ask = {"Name": self.name, "Vpc": self.vpc, "CreatorRequestId": "once"}
        answer = self.api.create_private_dns_namespace(**ask)
        self.assertEqual(self.refused(self.api.create_private_dns_namespace, **ask)[1], "DuplicateRequest")
        self.finish(answer)
        self.assertEqual(self.refused(self.api.create_private_dns_namespace, **ask)[1], "NamespaceAlreadyExists")

    def test_what_is_in_use_stays(self):
        namespace = self.namespace()
        service = self.service(namespace)
        self.assertEqual(self.refused(self.api.delete_namespace, Id=namespace)[1], "ResourceInUse")
        registered = self.api.register_instance(
            ServiceId=service["Id"], InstanceId="10.0.2.9", Attributes={"AWS_INSTANCE_IPV4": "10.0.2.9"}
        )
        self.assertEqual(self.refused(self.api.delete_service, Id=service["Id"])[1], "ResourceInUse")
        self.finish(registered)
        self.assertEqual(self.refused(self.api.delete_service, Id=service["Id"])[1], "ResourceInUse")
        removed = self.api.deregister_instance(ServiceId=service["Id"], InstanceId="10.0.2.9")
        self.assertEqual(len(self.api.list_instances(ServiceId=service["Id"])["Instances"]), 1)
        self.finish(removed)
        self.api.delete_service(Id=service["Id"])
        gone = self.api.delete_namespace(Id=namespace)
        self.assertEqual(self.refused(self.api.delete_namespace, Id=namespace)[1], "DuplicateRequest")
        self.assertEqual(self.finish(gone)["Status"], "SUCCESS")
        self.assertEqual(self.refused(self.api.get_namespace, Id=namespace)[1], "NamespaceNotFound")

    def test_a_service_is_made_once(self):
        namespace = self.namespace()
        made = self.service(namespace, CreatorRequestId="uid-1", Description="x")
        again = self.service(namespace, CreatorRequestId="uid-1", Description="x")
        self.assertEqual(made["Id"], again["Id"])
        with self.assertRaises(self.api.exceptions.ServiceAlreadyExists) as caught:
            self.service(namespace, CreatorRequestId="uid-2", Description="x")
        self.assertEqual(caught.exception.response["CreatorRequestId"], "uid-1")
        self.assertEqual(caught.exception.response["ServiceId"], made["Id"])
        listed = self.api.list_services(Filters=[{"Name": "NAMESPACE_ID", "Values": [namespace]}])["Services"]
        self.assertEqual([s["Name"] for s in listed], ["colorapp"])

    def test_http_services_live_in_dns_namespaces_too(self):
        namespace = self.namespace()
        service = self.service(namespace, "routes", Type="HTTP")
        self.assertEqual(service["Type"], "HTTP")
        self.finish(self.api.register_instance(ServiceId=service["Id"], InstanceId="route", Attributes={"spec": "{}"}))
        found = self.api.discover_instances(NamespaceName=self.name, ServiceName="routes")["Instances"]
        self.assertEqual([i["Attributes"] for i in found], [{"spec": "{}"}])
        refused = self.refused(self.api.create_service, Name="x", NamespaceId=namespace)
        self.assertEqual(refused[1], "InvalidInput")
        dns = self.service(namespace, "dns")
        refused = self.refused(self.api.register_instance, ServiceId=dns["Id"], InstanceId="x", Attributes={"a": "b"})
        self.assertIn("AWS_INSTANCE_IPV4", refused[2])

    def test_instances_are_discovered_by_their_attributes(self):
        namespace = self.namespace()
        service = self.service(namespace)
        revision = self.api.discover_instances_revision(NamespaceName=self.name, ServiceName="colorapp")[
            "InstancesRevision"
        ]
        for ip, color in (("10.0.2.8", "red"), ("10.0.2.9", "blue")):
            attributes = {"AWS_INSTANCE_IPV4": ip, "color": color}
            self.finish(self.api.register_instance(ServiceId=service["Id"], InstanceId=ip, Attributes=attributes))
        found = self.api.discover_instances(
            NamespaceName=self.name, ServiceName="colorapp", QueryParameters={"color": "red"}
        )
        self.assertEqual([i["InstanceId"] for i in found["Instances"]], ["10.0.2.8"])
        self.assertGreater(found["InstancesRevision"], revision)
        again = {"AWS_INSTANCE_IPV4": "10.0.2.8", "color": "green"}
        self.finish(self.api.register_instance(ServiceId=service["Id"], InstanceId="10.0.2.8", Attributes=again))
        changed = self.api.discover_instances(NamespaceName=self.name, ServiceName="colorapp")
        self.assertEqual(changed["InstancesRevision"], found["InstancesRevision"], "attributes do not count")
        self.assertEqual(
            self.refused(self.api.discover_instances, NamespaceName=self.name, ServiceName="none")[1], "ServiceNotFound"
        )
        self.assertEqual(
            self.refused(self.api.discover_instances, NamespaceName="none", ServiceName="none")[1], "NamespaceNotFound"
        )

    def test_attributes_have_limits(self):
        service = self.service(self.namespace(), "routes", Type="HTTP")
        many = {f"k{n}": "v" for n in range(31)}
        long = {f"k{n}": "v" * 1024 for n in range(5)}
        for attributes in (many, long, {"k": "v" * 1025}, {"k": "ü"}):
            refused = self.refused(
                self.api.register_instance, ServiceId=service["Id"], InstanceId="x", Attributes=attributes
            )
            self.assertEqual(refused[1], "InvalidInput")

    def test_lists_have_pages(self):
        namespace = self.namespace()
        for n in range(5):
            self.service(namespace, f"s{n}")
        pages = list(
            self.api.get_paginator("list_services").paginate(
                Filters=[{"Name": "NAMESPACE_ID", "Values": [namespace]}], MaxResults=2
            )
        )
        self.assertEqual([len(p["Services"]) for p in pages], [2, 2, 1])


class Operations(unittest.TestCase):
    """The clockwork, without a network."""

    def setUp(self):
        self.now = 0.0
        self.state = State("1", "us-west-2", lambda: self.now)
        self.done = []

    def start(self, key, instance="i"):
        return self.state.start(
            "REGISTER_INSTANCE", {"SERVICE": "s", "INSTANCE": instance}, key, lambda: self.done.append(key)
        )

    def test_an_effect_comes_when_it_is_due_and_once(self):
        id_ = self.start("a")
        self.state.settle()
        self.assertEqual(self.done, [])
        self.now = 10
        self.state.settle()
        self.state.settle()
        self.assertEqual(self.done, ["a"])
        self.assertEqual(self.state.operations[id_].status, "SUCCESS")

    def test_instances_can_be_as_slow_as_those_of_a_dns_namespace(self):
        with tempfile.TemporaryDirectory() as folder:
            self.state.instance_delay = InstanceDelay(Path(folder))
            self.start("a", "quick")
            self.now = 1
            self.state.settle()
            Path(folder, "instance-delay").write_text("60\n")
            self.start("b", "slow")
            self.now = 60
            self.state.settle()
            self.assertEqual(self.done, ["a"])
            self.now = 61
            self.state.settle()
            self.assertEqual(self.done, ["a", "b"])

    def test_two_changes_of_one_thing_do_not_overlap(self):
        self.start("a")
        for key, code in (("a", "DuplicateRequest"), ("b", "ResourceInUse")):
            with self.assertRaises(Refused) as caught:
                self.start(key)
            self.assertEqual(caught.exception.code, code)
        self.start("a", "another instance")
        self.now = 10
        self.state.settle()
        self.start("b")
