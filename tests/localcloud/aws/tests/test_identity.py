"""OIDC providers, roles, and what STS asks of a web identity."""

import base64
import json
import time
import urllib.request
from itertools import count

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from gate import Case

KEY, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
_number = count(1)


def encoded(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(issuer, key=KEY, **claims):
    body = {
        "iss": issuer,
        "sub": "system:serviceaccount:a:b",
        "aud": ["sts.amazonaws.com"],
        "exp": time.time() + 600,
    } | claims
    signed = f"{encoded({'alg': 'RS256'})}.{encoded(body)}"
    return f"{signed}.{encoded(key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


def sign_tokens(cluster):
    """Makes KEY the key of the cluster's tokens."""
    pki = cluster.folder / "pki"
    pki.mkdir(parents=True, exist_ok=True)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (pki / "sa.pub").write_bytes(KEY.public_key().public_bytes(serialization.Encoding.PEM, form))


class WebIdentity(Case):
    def setUp(self):
        cluster = self.region.clusters[0]
        self.issuer = cluster.issuer
        sign_tokens(cluster)
        self.iam, self.sts = self.region.client("iam"), self.region.client("sts")
        made = self.iam.create_open_id_connect_provider(
            Url=self.issuer, ClientIDList=["sts.amazonaws.com"], Tags=[{"Key": "a", "Value": "b"}]
        )
        self.provider = made["OpenIDConnectProviderArn"]
        self.addCleanup(self.iam.delete_open_id_connect_provider, OpenIDConnectProviderArn=self.provider)

    def role(
        self, operator="StringEquals", subject="system:serviceaccount:a:b", audience="sts.amazonaws.com", provider=None
    ):
        base = self.issuer.removeprefix("https://")
        condition = {operator: {f"{base}:sub": subject, f"{base}:aud": audience}}
        statement = {
            "Effect": "Allow",
            "Principal": {"Federated": provider or self.provider},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": condition,
        }
        name = f"role-{next(_number)}"
        trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        return self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]

    def assume(self, role, web_identity):
        return dict(RoleArn=role, RoleSessionName="test", WebIdentityToken=web_identity)

    def test_a_service_account_becomes_its_role_and_may_do_what_is_attached(self):
        role = self.role()
        got = self.sts.assume_role_with_web_identity(**self.assume(role, token(self.issuer)))
        self.assertEqual(
            got["AssumedRoleUser"]["Arn"], role.replace("iam", "sts").replace("role/", "assumed-role/") + "/test"
        )
        self.assertEqual((got["Provider"], got["Audience"]), (self.provider, "sts.amazonaws.com"))
        credentials = got["Credentials"]
        keys = {
            "accessKeyId": credentials["AccessKeyId"],
            "secretAccessKey": credentials["SecretAccessKey"],
            "sessionToken": credentials["SessionToken"],
        }
        cloudmap = self.region.client("servicediscovery", keys)
        self.assertEqual(self.refused(cloudmap.list_namespaces)[1], "AccessDeniedException")
        name = role.rsplit("/", 1)[1]
        self.iam.attach_role_policy(RoleName=name, PolicyArn="arn:aws:iam::aws:policy/AWSCloudMapFullAccess")
        cloudmap.list_namespaces()
        deny = {
            "Statement": {"Effect": "Deny", "Action": "servicediscovery:List*", "Resource": "*"},
            "Version": "2012-10-17",
        }
        self.iam.put_role_policy(RoleName=name, PolicyName="no", PolicyDocument=json.dumps(deny))
        self.assertIn("with an explicit deny in an identity-based policy", self.refused(cloudmap.list_namespaces)[2])

    def test_whatever_is_wrong_with_the_token_or_the_trust_is_refused(self):
        good = token(self.issuer)
        cases = [
            ("another service account", self.role(subject="system:serviceaccount:a:c"), good, 403, "AccessDenied"),
            ("another audience in the trust", self.role(audience="other"), good, 403, "AccessDenied"),
            ("another provider in the trust", self.role(provider=self.provider + "X"), good, 403, "AccessDenied"),
            ("no such role", "arn:aws:iam::123456789012:role/missing", good, 403, "AccessDenied"),
            ("another key", self.role(), token(self.issuer, OTHER), 400, "InvalidIdentityToken"),
            ("another audience", self.role(), token(self.issuer, aud=["x"]), 400, "InvalidIdentityToken"),
            ("expired", self.role(), token(self.issuer, exp=time.time() - 1), 400, "ExpiredTokenException"),
            ("an unknown issuer", self.role(), token("https://example.com"), 400, "InvalidIdentityToken"),
            ("no token", self.role(), "not.a.token", 400, "InvalidIdentityToken"),
        ]
        for name, role, web_identity, status, code in cases:
            with self.subTest(name):
                refused = self.refused(self.sts.assume_role_with_web_identity, **self.assume(role, web_identity))
                self.assertEqual(refused[:2], (status, code))

    def test_a_wildcard_needs_StringLike(self):
        good = token(self.issuer)
        self.sts.assume_role_with_web_identity(
            **self.assume(self.role("StringLike", "system:serviceaccount:*:b"), good)
        )
        refused = self.refused(
            self.sts.assume_role_with_web_identity,
            **self.assume(self.role("StringEquals", "system:serviceaccount:*:b"), good),
        )
        self.assertEqual(refused[1], "AccessDenied")

    def test_audiences_come_and_go(self):
        change = {"OpenIDConnectProviderArn": self.provider, "ClientID": "x"}
        for call, expected in (
            (self.iam.add_client_id_to_open_id_connect_provider, ["sts.amazonaws.com", "x"]),
            (self.iam.add_client_id_to_open_id_connect_provider, ["sts.amazonaws.com", "x"]),
            (self.iam.remove_client_id_from_open_id_connect_provider, ["sts.amazonaws.com"]),
            (self.iam.remove_client_id_from_open_id_connect_provider, ["sts.amazonaws.com"]),
        ):
            call(**change)
            self.assertEqual(
                self.iam.get_open_id_connect_provider(OpenIDConnectProviderArn=self.provider)["ClientIDList"], expected
            )
        tags = self.iam.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=self.provider)["Tags"]
        self.assertEqual(tags, [{"Key": "a", "Value": "b"}])
        self.assertEqual(
            self.refused(
                self.iam.add_client_id_to_open_id_connect_provider,
                **change | {"OpenIDConnectProviderArn": self.provider + "X"},
            )[0],
            404,
        )

    def test_the_issuer_publishes_its_key(self):
        with urllib.request.urlopen(
            f"{self.issuer}/.well-known/openid-configuration".replace("https", "http")
        ) as answer:
            about = json.load(answer)
        self.assertEqual(about["issuer"], self.issuer)
        with urllib.request.urlopen(about["jwks_uri"].replace("https", "http")) as answer:
            self.assertEqual(json.load(answer)["keys"][0]["alg"], "RS256")


class Roles(Case):
    def test_a_trust_policy_must_be_one(self):
        iam = self.region.client("iam")
        statement = {"Effect": "Allow", "Principal": {"Service": "x"}, "Action": "sts:AssumeRole"}
        for document in (
            "nonsense",
            "{}",
            {"Statement": []},
            {"Statement": statement | {"Effect": "Maybe"}},
            {"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole"}},
            {"Statement": statement | {"Resource": "*"}},
            {"Statement": statement | {"Action": "s3:GetObject"}},
        ):
            text = document if isinstance(document, str) else json.dumps(document)
            with self.subTest(text):
                self.assertEqual(
                    self.refused(iam.create_role, RoleName="bad", AssumeRolePolicyDocument=text)[:2],
                    (400, "MalformedPolicyDocument"),
                )

    def test_lists_have_pages(self):
        iam = self.region.client("iam")
        trust = {
            "Version": "2012-10-17",
            "Statement": {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}})
        iam.create_role(
            RoleName="pages",
            AssumeRolePolicyDocument=json.dumps(trust),
            Tags=[{"Key": f"k{n}", "Value": "v"} for n in range(5)],
        )
        for n in range(5):
            iam.put_role_policy(RoleName="pages", PolicyName=f"p{n}", PolicyDocument=policy)
        for managed in ("AWSCloudMapFullAccess", "AWSAppMeshFullAccess", "AmazonEC2ContainerRegistryReadOnly"):
            iam.attach_role_policy(RoleName="pages", PolicyArn=f"arn:aws:iam::aws:policy/{managed}")
        for method, member, length in (
            ("list_role_policies", "PolicyNames", 5),
            ("list_attached_role_policies", "AttachedPolicies", 3),
            ("list_role_tags", "Tags", 5),
        ):
            with self.subTest(method):
                first = getattr(iam, method)(RoleName="pages", MaxItems=2)
                self.assertTrue(first["IsTruncated"])
                pages, marker = [first[member]], first["Marker"]
                while marker:
                    page = getattr(iam, method)(RoleName="pages", MaxItems=2, Marker=marker)
                    pages.append(page[member])
                    marker = page.get("Marker")
                self.assertEqual(sum(map(len, pages)), length)
        self.assertIn(
            "AmazonEBSCSIDriverPolicy",
            {
                p["PolicyName"]
                for page in iam.get_paginator("list_policies").paginate(Scope="AWS")
                for p in page["Policies"]
            },
        )
        self.assertEqual(self.refused(iam.delete_role, RoleName="pages")[1], "DeleteConflict")

    def test_another_role_is_assumed_only_by_whom_it_trusts(self):
        iam, sts = self.region.client("iam"), self.region.client("sts")
        for name, principal, right in (
            ("trusting", "arn:aws:iam::123456789012:root", True),
            ("closed", "arn:aws:iam::123456789012:user/other", False),
        ):
            trust = {
                "Version": "2012-10-17",
                "Statement": {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"},
            }
            arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
            if right:
                self.assertIn("SessionToken", sts.assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"])
            else:
                self.assertEqual(
                    self.refused(sts.assume_role, RoleArn=arn, RoleSessionName="session")[:2], (403, "AccessDenied")
                )


class PodIdentity(Case):
    CLUSTER = "c1"

    def setUp(self):
        cluster = self.region.clusters[0]
        self.issuer = cluster.issuer
        sign_tokens(cluster)
        self.iam, self.eks = self.region.client("iam"), self.region.client("eks")
        self.eks.create_addon(clusterName=self.CLUSTER, addonName="eks-pod-identity-agent")
        self.addCleanup(self.eks.delete_addon, clusterName=self.CLUSTER, addonName="eks-pod-identity-agent")

    def role(self, account="b", service="pods.eks.amazonaws.com"):
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            "Condition": {"StringEquals": {"aws:RequestTag/kubernetes-service-account": account}},
        }
        name, trust = f"pods-{next(_number)}", {"Version": "2012-10-17", "Statement": [statement]}
        return self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]

    def associate(self, role):
        wish = {"clusterName": self.CLUSTER, "namespace": "a", "serviceAccount": "b", "tags": {"x": "y"}}
        made = self.eks.create_pod_identity_association(roleArn=role, **wish)["association"]
        named = {"clusterName": self.CLUSTER, "associationId": made["associationId"]}
        self.addCleanup(self.eks.delete_pod_identity_association, **named)
        return named

    def ask(self, **claims):
        return self.region.agent.credentials(token(self.issuer, **({"aud": ["pods.eks.amazonaws.com"]} | claims)))

    def test_a_pod_gets_the_role_of_its_service_account(self):
        self.assertEqual(self.ask().status_code, 404)
        role = self.role()
        named = self.associate(role)
        got = json.loads(self.ask().data)
        keys = {"accessKeyId": "AccessKeyId", "secretAccessKey": "SecretAccessKey", "sessionToken": "Token"}
        sts = self.region.client("sts", {ours: got[theirs] for ours, theirs in keys.items()})
        self.assertIn(f"assumed-role/{role.split('/')[-1]}/eks-c1-", sts.get_caller_identity()["Arn"])
        self.assertEqual(self.ask(sub="system:serviceaccount:a:c").status_code, 404)
        self.assertEqual(self.ask(aud=["sts.amazonaws.com"]).status_code, 400)
        # The trust policy asks for tags of the session, and for this service account.
        self.eks.update_pod_identity_association(disableSessionTags=True, **named)
        self.assertEqual(self.ask().status_code, 403)
        self.eks.update_pod_identity_association(roleArn=self.role("other"), disableSessionTags=False, **named)
        self.assertEqual(self.ask().status_code, 403)
        self.eks.delete_addon(clusterName=self.CLUSTER, addonName="eks-pod-identity-agent")
        self.assertEqual(self.ask().status_code, 404)
        self.eks.create_addon(clusterName=self.CLUSTER, addonName="eks-pod-identity-agent")

    def test_a_service_account_has_one_association(self):
        role = self.role()
        named = self.associate(role)
        wish = {"clusterName": self.CLUSTER, "namespace": "a", "serviceAccount": "b"}
        again = self.refused(self.eks.create_pod_identity_association, roleArn=role, **wish)
        self.assertEqual(again[:2], (409, "ResourceInUseException"))
        listed = self.eks.list_pod_identity_associations(**wish)["associations"]
        self.assertEqual([a["associationId"] for a in listed], [named["associationId"]])
        found = self.eks.describe_pod_identity_association(**named)["association"]
        self.assertEqual((found["roleArn"], found["tags"]), (role, {"x": "y"}))
        self.eks.tag_resource(resourceArn=found["associationArn"], tags={"z": "1"})
        self.eks.untag_resource(resourceArn=found["associationArn"], tagKeys=["x"])
        self.assertEqual(self.eks.list_tags_for_resource(resourceArn=found["associationArn"])["tags"], {"z": "1"})

    def test_a_role_must_be_there_and_trust_pods(self):
        wish = {"clusterName": self.CLUSTER, "namespace": "a", "serviceAccount": "b"}
        for role in ("arn:aws:iam::123456789012:role/none", self.role(service="ec2.amazonaws.com")):
            refused = self.refused(self.eks.create_pod_identity_association, roleArn=role, **wish)
            self.assertEqual(refused[:2], (400, "InvalidParameterException"), role)
