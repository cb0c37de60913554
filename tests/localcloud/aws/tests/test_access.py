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

    def test_tags_need_a_permission_of_their_own(self):
        tags, ec2_tags = [{"Key": "k", "Value": "v"}], [{"ResourceType": "vpc", "Tags": [{"Key": "k", "Value": "v"}]}]
        trust = json.dumps({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}})
        role = {"RoleName": "tagged", "AssumeRolePolicyDocument": trust}
        cases = [
            ("iam", "create_role", role, "Tags", tags, "iam:TagRole", "arn:aws:iam::123456789012:role/tagged"),
            (
                "ec2",
                "create_vpc",
                {"CidrBlock": "10.7.0.0/16"},
                "TagSpecifications",
                ec2_tags,
                "ec2:CreateTags",
                f"arn:aws:ec2:{REGION}:123456789012:vpc/*",
            ),
            (
                "servicediscovery",
                "create_http_namespace",
                {"Name": "tagged"},
                "Tags",
                tags,
                "servicediscovery:TagResource",
                "*",
            ),
        ]
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        for service, operation, parameters, member, value, action, resource in cases:
            with self.subTest(service):
                keys = self.user(
                    f"untagged-{service}", everything, {"Effect": "Deny", "Action": action, "Resource": "*"}
                )
                call = getattr(self.region.client(service, keys), operation)
                message = self.refused(call, **parameters, **{member: value})[2]
                self.assertIn(f"is not authorized to perform: {action} on resource: {resource} with", message)
                call(**parameters)

    def test_tags_may_be_allowed_for_one_call_only(self):
        tagging = {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*"}
        tagging["Condition"] = {"StringEquals": {"ec2:CreateAction": "CreateVpc"}}
        keys = self.user(
            "tagger", {"Effect": "Allow", "Action": "ec2:Create*", "NotResource": "arn:aws:ec2:*:*:*/*"}, tagging
        )
        ec2 = self.region.client("ec2", keys)
        specification = {"ResourceType": "vpc", "Tags": [{"Key": "k", "Value": "v"}]}
        vpc = ec2.create_vpc(CidrBlock="10.6.0.0/16", TagSpecifications=[specification])["Vpc"]["VpcId"]
        specification["ResourceType"] = "security-group"
        group = {"GroupName": "g", "Description": "d", "VpcId": vpc, "TagSpecifications": [specification]}
        self.assertIn("perform: ec2:CreateTags on", self.refused(ec2.create_security_group, **group)[2])

    def test_a_clock_that_is_off_by_more_than_a_quarter_of_an_hour(self):
        clock = self.region.state / "clock"
        self.addCleanup(clock.unlink)
        for seconds, words in ((840, None), (1200, "Signature expired: "), (-1200, "Signature not yet current: ")):
            clock.write_text(str(seconds))
            call = self.region.client("iam").list_users
            if words is None:
                call()
            else:
                status, code, message = self.refused(call)
                self.assertEqual((status, code), (403, "SignatureDoesNotMatch"))
                self.assertIn(words, message)

    def test_a_session_of_yesterday(self):
        expired = self.region.account["expired"]
        for service, operation, code in (
            ("eks", "list_clusters", "ExpiredTokenException"),
            ("iam", "list_users", "ExpiredToken"),
            ("ec2", "describe_vpcs", "RequestExpired"),
        ):
            self.assertEqual(self.refused(getattr(self.region.client(service, expired), operation))[1], code)

    def test_a_cluster_without_a_machine_never_gets_ready(self):
        eks, ec2 = self.region.client("eks"), self.region.client("ec2")
        roles = {n: self.region.client("iam").get_role(RoleName=n)["Role"]["Arn"] for n in ("eks", "node")}
        subnets = {"subnetIds": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]]}
        status = lambda name: eks.describe_cluster(name=name)["cluster"]["status"]
        eks.create_cluster(name="slow", roleArn=roles["eks"], resourcesVpcConfig=subnets)
        self.assertEqual(status("slow"), "CREATING")
        self.assertNotIn("endpoint", eks.describe_cluster(name="slow")["cluster"])
        eks.create_cluster(name="broken", roleArn=roles["node"], resourcesVpcConfig=subnets)
        self.assertEqual(status("broken"), "FAILED")
        eks.delete_cluster(name="broken")
        self.assertEqual(status("broken"), "DELETING")
        self.assertEqual(status("c1"), "ACTIVE")

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
