"""Who may call what, as a client sees it."""

from gate import Case


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
