"""What is no valid call by AWS's own models is refused, whatever is wrong with it and however the service speaks."""

import json
import unittest
from urllib.parse import urlencode

import regex
from botocore.config import Config
from moto.core.utils import get_service_model
from werkzeug.test import EnvironBuilder

from call import buffered, read
from gate import Case
from model import check
from region import REGION

#: The services of the flow.
SERVICES = ("ec2", "ecr", "eks", "iam", "route53", "servicediscovery", "sts")
#: Everything that `model.py` looks at, by type of shape.
CHECKED = {
    "string": {"min", "max", "pattern", "enum"},
    "list": {"min", "max"},
    "map": {"min", "max"},
    "blob": {"min", "max"},
    "integer": {"min", "max"},
    "long": {"min", "max"},
    "double": {"min", "max"},
}
VERSIONS = {"iam": "2010-05-08", "sts": "2011-06-15", "ec2": "2016-11-15"}
TARGETS = {"servicediscovery": "Route53AutoNaming_v20170314", "ecr": "AmazonEC2ContainerRegistry_V20150921"}
TRUST = {"RoleName": "r", "AssumeRolePolicyDocument": "{}"}
TAG = {"Tags.member.1.Key": "k", "Tags.member.1.Value": "v"}


def query(service, operation, **parameters):
    body = urlencode({"Action": operation, "Version": VERSIONS[service]} | parameters)
    return ask(service, body=body, content_type="application/x-www-form-urlencoded")


def target(service, operation, body):
    headers = {"X-Amz-Target": f"{TARGETS[service]}.{operation}"}
    text = body if isinstance(body, str) else json.dumps(body)
    return ask(service, body=text, content_type="application/x-amz-json-1.1", headers=headers)


def rest(path, body=None, method=None, service="eks"):
    text = None if body is None else json.dumps(body)
    return ask(service, path, text, method=method or ("GET" if body is None else "POST"))


def ask(service, path="/", body=None, content_type="application/json", headers=None, method="POST"):
    host = {"iam": "iam", "route53": "route53", "ecr": f"api.ecr.{REGION}"}.get(service, f"{service}.{REGION}")
    path, _, arguments = path.partition("?")
    builder = EnvironBuilder(
        path=path,
        query_string=arguments,
        base_url=f"https://{host}.amazonaws.com/",
        method=method,
        data=body,
        content_type=content_type if body is not None else None,
        headers=headers,
    )
    call = read(buffered(builder.get_environ()))
    assert call.operation, f"{service} {path} {body} is no call"
    return check(call)


def numbered(count, **members):
    """`count` tags in the query protocol."""
    return {f"Tags.member.{n}.{k}": v.format(n) for n in range(1, count + 1) for k, v in members.items()}


SIMULATION = {
    "PolicySourceArn": "arn:aws:iam::1:user/somebody",
    "ActionNames.member.1": "iam:GetRole",
    "PolicyExclusionList.member.1.PolicyArn": "arn:aws:iam::aws:policy/a",
    "PolicyExclusionList.member.1.PolicyType": "user",
}
CLUSTER = {"name": "c", "roleArn": "r", "resourcesVpcConfig": {}}

GOOD = [
    ("query", lambda: query("iam", "GetRole", RoleName="a+=,.@-b")),
    ("query, nested", lambda: query("iam", "CreateRole", **TRUST, **TAG)),
    ("query, an empty list", lambda: query("iam", "CreateOpenIDConnectProvider", Url="https://a", ThumbprintList="")),
    (
        "query, presigned",
        lambda: ask("sts", "/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", method="GET"),
    ),
    ("ec2", lambda: query("ec2", "DescribeInstances", **{"Filter.1.Name": "a", "Filter.1.Value.1": "b"})),
    ("json", lambda: target("servicediscovery", "ListNamespaces", {"Filters": [{"Name": "TYPE", "Values": ["HTTP"]}]})),
    (
        "json, a map",
        lambda: target(
            "servicediscovery", "RegisterInstance", {"ServiceId": "s", "InstanceId": "i", "Attributes": {"a": "b"}}
        ),
    ),
    ("json, a null", lambda: target("ecr", "CreateRepository", {"repositoryName": "a/b", "tags": None})),
    ("rest-json", lambda: rest("/clusters/c1")),
    ("rest-json, with a body", lambda: rest("/clusters", CLUSTER)),
    ("rest-json, with a query", lambda: rest("/clusters/c1/node-groups?maxResults=1")),
    ("rest-xml", lambda: rest("/2013-04-01/hostedzone/Z1", service="route53")),
]

#: protocol, what is wrong, the call, words of the refusal
BAD = [
    (
        "query",
        "a missing member",
        lambda: query("iam", "GetRole"),
        "'roleName' failed to satisfy constraint: Member must not be null",
    ),
    (
        "query",
        "a missing member inside",
        lambda: query("iam", "CreateRole", **TRUST, **{"Tags.member.1.Key": "k"}),
        "'tags.1.member.value'",
    ),
    ("query", "a pattern", lambda: query("iam", "GetRole", RoleName="a b"), "regular expression pattern"),
    ("query", "too long", lambda: query("iam", "GetRole", RoleName="a" * 65), "length less than or equal to 64"),
    (
        "query",
        "too short",
        lambda: query("iam", "CreateOpenIDConnectProvider", Url=""),
        "length greater than or equal to 1",
    ),
    ("query", "too small", lambda: query("iam", "ListRoles", MaxItems="0"), "value greater than or equal to 1"),
    ("query", "too large", lambda: query("iam", "ListRoles", MaxItems="1001"), "value less than or equal to 1000"),
    ("query", "no enum", lambda: query("iam", "ListPolicies", Scope="Mine"), "enum value set"),
    (
        "query",
        "a long list",
        lambda: query("iam", "CreateRole", **TRUST, **numbered(51, Key="k{}", Value="v")),
        "length less than or equal to 50",
    ),
    ("query", "unknown", lambda: query("iam", "GetRole", RoleName="a", Rolename="b"), "Unknown parameter 'Rolename'"),
    (
        "query",
        "unknown inside",
        lambda: query("iam", "CreateRole", **TRUST, **TAG, **{"Tags.member.1.Kind": "x"}),
        "Unknown parameter 'Tags.member.1.Kind'",
    ),
    (
        "query",
        "a list with a gap",
        lambda: query("iam", "CreateRole", **TRUST, **{"Tags.member.2.Key": "k", "Tags.member.2.Value": "v"}),
        "Unknown parameter 'Tags.member.2",
    ),
    ("query", "a wrong type", lambda: query("iam", "ListRoles", MaxItems="many"), "cannot be read"),
    (
        "query",
        "two members of a union",
        lambda: query("iam", "SimulatePrincipalPolicy", **SIMULATION),
        "Exactly one member of a union",
    ),
    ("ec2", "a missing member", lambda: query("ec2", "CreateSecurityGroup", GroupName="g"), "'description' failed"),
    (
        "ec2",
        "too small",
        lambda: query("ec2", "DescribeSecurityGroupRules", MaxResults="1"),
        "value greater than or equal to 5",
    ),
    (
        "ec2",
        "too large",
        lambda: query("ec2", "DescribeSecurityGroupRules", MaxResults="1001"),
        "value less than or equal to 1000",
    ),
    (
        "ec2",
        "no enum",
        lambda: query("ec2", "CreateVpc", **{"TagSpecification.1.ResourceType": "thing"}),
        "enum value set",
    ),
    ("ec2", "unknown", lambda: query("ec2", "DescribeInstances", MaxResult="9"), "Unknown parameter 'MaxResult'"),
    (
        "ec2",
        "unknown inside",
        lambda: query("ec2", "DescribeInstances", **{"Filter.1.Name": "a", "Filter.1.Values.1": "b"}),
        "Unknown parameter 'Filter.1.Values.1'",
    ),
    ("ec2", "a wrong type", lambda: query("ec2", "DescribeInstances", MaxResults="many"), "cannot be read"),
    (
        "json",
        "a missing member",
        lambda: target("servicediscovery", "CreatePrivateDnsNamespace", {"Name": "a.b"}),
        "'vpc' failed",
    ),
    (
        "json",
        "a missing member inside",
        lambda: target("servicediscovery", "ListServices", {"Filters": [{"Name": "NAMESPACE_ID"}]}),
        "'filters.1.member.values'",
    ),
    (
        "json",
        "a pattern",
        lambda: target("ecr", "CreateRepository", {"repositoryName": "A b"}),
        "regular expression pattern",
    ),
    (
        "json",
        "too short",
        lambda: target("ecr", "CreateRepository", {"repositoryName": "a"}),
        "length greater than or equal to 2",
    ),
    (
        "json",
        "too long",
        lambda: target("servicediscovery", "DeleteService", {"Id": "s" * 256}),
        "length less than or equal to 255",
    ),
    (
        "json",
        "too small",
        lambda: target("servicediscovery", "ListNamespaces", {"MaxResults": 0}),
        "value greater than or equal to 1",
    ),
    (
        "json",
        "no enum",
        lambda: target("servicediscovery", "ListNamespaces", {"Filters": [{"Name": "VPC", "Values": ["x"]}]}),
        "enum value set",
    ),
    (
        "json",
        "an empty list",
        lambda: target("ecr", "BatchGetImage", {"repositoryName": "ab", "imageIds": []}),
        "length greater than or equal to 1",
    ),
    (
        "json",
        "a long list",
        lambda: target("ecr", "BatchGetImage", {"repositoryName": "ab", "imageIds": [{"imageTag": "t"}] * 101}),
        "length less than or equal to 100",
    ),
    (
        "json",
        "a large blob",
        lambda: target(
            "ecr",
            "UploadLayerPart",
            {
                "repositoryName": "ab",
                "uploadId": "8d5af4f8-1f0e-4f6d-9f2b-0a0f0c0b0a09",
                "partFirstByte": 0,
                "partLastByte": 1,
                "layerPartBlob": "A" * 4 * 7_000_000,
            },
        ),
        "length less than or equal to",
    ),
    (
        "json",
        "unknown",
        lambda: target("ecr", "CreateRepository", {"repositoryName": "ab", "Tags": []}),
        "Unknown member 'Tags'",
    ),
    (
        "json",
        "unknown inside",
        lambda: target(
            "servicediscovery", "TagResource", {"ResourceARN": "a", "Tags": [{"Key": "k", "Value": "v", "Kind": "x"}]}
        ),
        "Unknown member 'Tags.1.Kind'",
    ),
    (
        "json",
        "a wrong type",
        lambda: target("servicediscovery", "ListNamespaces", {"MaxResults": "9"}),
        "Value '9' at 'MaxResults' is no integer",
    ),
    (
        "json",
        "a wrong type inside",
        lambda: target(
            "servicediscovery", "RegisterInstance", {"ServiceId": "s", "InstanceId": "i", "Attributes": {"a": 1}}
        ),
        "at 'Attributes.a' is no string",
    ),
    (
        "json",
        "an object for a list",
        lambda: target("servicediscovery", "TagResource", {"ResourceARN": "a", "Tags": {"k": "v"}}),
        "is no list",
    ),
    ("json", "no JSON", lambda: target("servicediscovery", "ListNamespaces", "{"), "The body is no JSON"),
    (
        "rest-json",
        "a missing member",
        lambda: rest("/clusters", {"name": "c", "resourcesVpcConfig": {}}),
        "'roleArn' failed",
    ),
    ("rest-json", "a pattern", lambda: rest("/clusters", CLUSTER | {"name": "-"}), "regular expression pattern"),
    (
        "rest-json",
        "too long",
        lambda: rest("/clusters", CLUSTER | {"name": "c" * 101}),
        "length less than or equal to 100",
    ),
    (
        "rest-json",
        "too large",
        lambda: rest("/clusters/c1/node-groups?maxResults=101"),
        "value less than or equal to 100",
    ),
    (
        "rest-json",
        "no enum",
        lambda: rest("/clusters", CLUSTER | {"logging": {"clusterLogging": [{"types": ["all"]}]}}),
        "enum value set",
    ),
    (
        "rest-json",
        "an empty map",
        lambda: rest("/clusters", CLUSTER | {"tags": {}}),
        "length greater than or equal to 1",
    ),
    (
        "rest-json",
        "a large map",
        lambda: rest("/clusters", CLUSTER | {"tags": {str(n): "v" for n in range(51)}}),
        "length less than or equal to 50",
    ),
    ("rest-json", "unknown", lambda: rest("/clusters", CLUSTER | {"Tags": {}}), "Unknown member 'Tags'"),
    (
        "rest-json",
        "unknown inside",
        lambda: rest("/clusters", CLUSTER | {"resourcesVpcConfig": {"vpc": "x"}}),
        "Unknown member 'resourcesVpcConfig.vpc'",
    ),
    ("rest-json", "unknown in the query", lambda: rest("/clusters/c1?full=yes"), "Unknown parameter 'full'"),
    ("rest-json", "a wrong type", lambda: rest("/clusters", CLUSTER | {"tags": []}), "Value '[]' at 'tags' is no map"),
    (
        "rest-xml",
        "too long",
        lambda: rest(f"/2013-04-01/hostedzone/{'Z' * 33}", service="route53"),
        "length less than or equal to 32",
    ),
]


class Models(unittest.TestCase):
    def test_valid_calls_pass(self):
        for name, call in GOOD:
            with self.subTest(name):
                self.assertIsNone(call())

    def test_invalid_calls_are_refused(self):
        for protocol, fault, call, words in BAD:
            with self.subTest(f"{protocol}: {fault}"):
                self.assertIn(words, call() or "no fault found")

    def test_the_models_ask_for_nothing_else(self):
        for service in SERVICES:
            model = get_service_model(service)
            for operation in model.operation_names:
                for shape in shapes(model.operation_model(operation).input_shape):
                    asked = {k for k in ("min", "max", "pattern", "enum") if k in shape.metadata}
                    self.assertLessEqual(asked, CHECKED.get(shape.type_name, set()), f"{service}: {shape}")
                    regex.compile(shape.metadata.get("pattern", ""))


def shapes(top):
    """A shape and every shape in it, each once."""
    seen, todo = set(), [top]
    while todo:
        shape = todo.pop()
        if shape is None or shape.name in seen:
            continue
        seen.add(shape.name)
        yield shape
        todo += list(getattr(shape, "members", {}).values())
        todo += [getattr(shape, part, None) for part in ("member", "key", "value")]


class Refusals(Case):
    """As the caller sees them, and as tests of the whole find them."""

    def test_each_protocol_has_its_own_refusal_and_all_are_noted(self):
        long = "x" * 3000
        log = self.region.state / "log" / "violations.log"
        for service, operation, parameters, status, code, action in [
            ("iam", "get_role", {"RoleName": long}, 400, "ValidationError", "iam:GetRole"),
            (
                "ec2",
                "create_vpc",
                {"TagSpecifications": [{"ResourceType": long}]},
                400,
                "InvalidParameterValue",
                "ec2:CreateVpc",
            ),
            ("servicediscovery", "delete_service", {"Id": long}, 400, "InvalidInput", "servicediscovery:DeleteService"),
            ("eks", "create_cluster", CLUSTER | {"name": long}, 400, "InvalidParameterException", "eks:CreateCluster"),
        ]:
            with self.subTest(service):
                before = log.read_text()
                client = self.region.client(service, config=Config(parameter_validation=False))
                self.assertEqual(self.refused(getattr(client, operation), **parameters)[:2], (status, code))
                line = json.loads(log.read_text().removeprefix(before))
                self.assertEqual(line["action"], action)
                self.assertIn("failed to satisfy constraint", line["message"])

    def test_what_is_no_call_is_noted(self):
        log = self.region.state / "log" / "violations.log"
        before = log.read_text()
        client = self.region.client("iam")
        client.meta.events.register("before-sign.iam.ListUsers", unheard_of)
        self.assertEqual(self.refused(client.list_users)[1], "InvalidAction")
        self.assertEqual(json.loads(log.read_text().removeprefix(before))["action"], "iam:Unknown")


def unheard_of(request, **_):
    request.data["Action"] = "ListUnicorns"
