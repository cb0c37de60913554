"""Who may call what, as a client sees it."""

import datetime as dt
import json
import urllib.error
import urllib.request
from unittest import mock

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gate import Case
from region import REGION


def token(keys, cluster="c1", expires=60):
    """What `aws eks get-token` makes: a presigned GetCallerIdentity, bound to the cluster."""
    url = f"http://sts.{REGION}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15"
    request = AWSRequest("GET", url, headers={"x-k8s-aws-id": cluster})
    credentials = Credentials(keys["accessKeyId"], keys["secretAccessKey"], keys.get("sessionToken"))
    SigV4QueryAuth(credentials, "sts", REGION, expires=expires).add_auth(request)
    return request.url


class Access(Case):
    def node(self, service):
        return self.region.client(service, self.region.account["node"])

    def test_everybody_may_ask_who_they_are(self):
        self.assertEqual(
            self.region.client("sts").get_caller_identity()["Arn"], "arn:aws:iam::123456789012:user/operator"
        )
        self.assertRegex(
            self.node("sts").get_caller_identity()["Arn"],
            r"^arn:aws:sts::123456789012:assumed-role/node/i-[0-9a-f]{17}$",
        )

    def test_a_role_may_do_what_its_policies_say_and_nothing_else(self):
        self.assertEqual(len(self.node("ec2").describe_instances()["Reservations"]), 2)
        cases = [
            (
                "servicediscovery",
                "list_namespaces",
                {},
                400,
                "AccessDeniedException",
                "servicediscovery:ListNamespaces",
            ),
            ("iam", "list_roles", {}, 403, "AccessDenied", "iam:ListRoles"),
            ("eks", "list_clusters", {}, 403, "AccessDeniedException", "eks:ListClusters"),
            ("ec2", "create_vpc", {"CidrBlock": "10.9.0.0/16"}, 403, "UnauthorizedOperation", "ec2:CreateVpc"),
        ]
        for service, method, params, status, code, action in cases:
            with self.subTest(service):
                refused = self.refused(getattr(self.node(service), method), **params)
                self.assertEqual(refused[:2], (status, code))
                words = f"is not authorized to perform: {action} on resource: * because no identity-based policy allows the {action} action"
                self.assertIn(words, refused[2])
                self.assertIn("User: arn:aws:sts::123456789012:assumed-role/node/i-", refused[2])

    def test_a_wrong_secret_and_an_unknown_key_open_nothing(self):
        operator = self.region.account["operator"]
        wrong, unknown = operator | {"secretAccessKey": "x" * 40}, operator | {"accessKeyId": "AKIAAAAAAAAAAAAAAAAA"}
        cases = [
            ("iam", "list_users", wrong, 403, "SignatureDoesNotMatch"),
            ("iam", "list_users", unknown, 403, "InvalidClientTokenId"),
            ("servicediscovery", "list_namespaces", wrong, 400, "InvalidSignatureException"),
            ("servicediscovery", "list_namespaces", unknown, 400, "UnrecognizedClientException"),
            ("eks", "list_clusters", unknown, 403, "UnrecognizedClientException"),
            ("ec2", "describe_vpcs", unknown, 401, "AuthFailure"),
            ("sts", "get_caller_identity", unknown, 403, "InvalidClientTokenId"),
        ]
        for service, method, keys, status, code in cases:
            with self.subTest(f"{service} {code}"):
                self.assertEqual(self.refused(getattr(self.region.client(service, keys), method))[:2], (status, code))

    def test_a_session_needs_its_token(self):
        node = {k: v for k, v in self.region.account["node"].items() if k != "sessionToken"}
        self.assertEqual(self.refused(self.region.client("sts", node).get_caller_identity)[1], "InvalidClientTokenId")

    def test_parameters_are_checked_against_the_model(self):
        iam, cloudmap = self.region.client("iam"), self.region.client("servicediscovery")
        status, code, message = self.refused(iam.get_role, RoleName="a b")
        self.assertEqual((status, code), (400, "ValidationError"))
        self.assertIn("regular expression pattern", message)
        self.assertEqual(
            self.refused(cloudmap.list_namespaces, Filters=[{"Name": "VPC", "Values": ["x"]}])[1], "InvalidInput"
        )

    def test_a_presigned_call_tells_in_json_who_signed_it(self):
        def ask(url, cluster="c1"):
            request = urllib.request.Request(url, headers={"x-k8s-aws-id": cluster, "Accept": "application/json"})
            try:
                with urllib.request.urlopen(request) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        node = self.region.account["node"]
        status, body = ask(token(node))
        who = json.loads(body)["GetCallerIdentityResponse"]["GetCallerIdentityResult"]
        self.assertEqual((status, who["Account"]), (200, "123456789012"))
        self.assertIn(":assumed-role/node/", who["Arn"])
        self.assertEqual(ask(token(node), "c2")[0], 403)
        self.assertEqual(ask(token(node | {"secretAccessKey": "x" * 40}))[0], 403)
        self.assertEqual(ask(token(node, expires=0))[0], 200)
        for minutes, status in ((14, 200), (16, 403)):
            then = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes)
            with mock.patch("botocore.auth.get_current_datetime", return_value=then):
                self.assertEqual(ask(token(node))[0], status)

    def test_a_boundary_caps_what_policies_allow(self):
        iam = self.region.client("iam")
        rule = {"Effect": "Allow", "Action": "eks:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": rule})
        boundary = iam.create_policy(PolicyName="boundary", PolicyDocument=document)["Policy"]["Arn"]
        trust = {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}
        role = iam.create_role(
            RoleName="capped",
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": trust}),
            PermissionsBoundary=boundary,
        )["Role"]
        iam.attach_role_policy(RoleName="capped", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
        got = self.region.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="session")["Credentials"]
        keys = {"accessKeyId": got["AccessKeyId"], "secretAccessKey": got["SecretAccessKey"]}
        keys["sessionToken"] = got["SessionToken"]
        self.region.client("eks", keys).list_clusters()
        refused = self.refused(self.region.client("iam", keys).list_roles)
        self.assertIn("because no permissions boundary allows the iam:ListRoles action", refused[2])

    def test_a_path_with_an_escaped_arn_is_signed_and_found(self):
        eks = self.region.client("eks")
        arn = eks.describe_cluster(name="c1")["cluster"]["arn"]
        eks.tag_resource(resourceArn=arn, tags={"managed-by": "x y"})
        self.assertEqual(eks.list_tags_for_resource(resourceArn=arn)["tags"], {"managed-by": "x y"})
        eks.untag_resource(resourceArn=arn, tagKeys=["managed-by"])
        self.assertEqual(eks.list_tags_for_resource(resourceArn=arn)["tags"], {})
        self.assertEqual(
            self.refused(eks.list_tags_for_resource, resourceArn=arn + "x")[1], "ResourceNotFoundException"
        )
