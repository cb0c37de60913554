"""Faults: what a client sees of each, and whether the call was carried out."""

import json
import threading

from botocore.exceptions import ConnectionClosedError, ResponseStreamingError

from gate import Case, wait_for


class Faults(Case):
    def setUp(self):
        self.folder = self.region.state / "faults"
        self.folder.mkdir(exist_ok=True)
        self.iam, self.ec2 = self.region.client("iam"), self.region.client("ec2")

    def rule(self, **rule):
        path = self.folder / f"{self.id()}.json"
        path.write_text(json.dumps(rule))
        self.addCleanup(path.unlink, missing_ok=True)
        return path

    def struck(self):
        path = self.folder / f"{self.id()}.struck"
        return path.read_text().split() if path.exists() else []

    def groups(self):
        return [group["GroupName"] for group in self.iam.list_groups()["Groups"]]

    def test_only_the_calls_meant_are_struck(self):
        self.rule(kind="error", code="InternalFailure", status=500, action=["iam:Get*"], skip=1, times=2)
        self.iam.list_groups()
        self.iam.get_user(UserName="operator")
        for _ in range(2):
            self.assertEqual(self.refused(self.iam.get_user, UserName="operator")[:2], (500, "InternalFailure"))
        self.iam.get_user(UserName="operator")
        self.assertEqual(self.struck(), ["iam:GetUser"] * 2)

    def test_a_client_or_a_kind_of_call_can_be_meant(self):
        self.rule(kind="throttle", agent="nobody")
        self.iam.list_groups()
        self.rule(kind="throttle", writes=True, times=9)
        self.iam.list_groups()
        self.assertEqual(self.refused(self.iam.create_group, GroupName="never")[1], "Throttling")

    def test_every_protocol_has_its_throttling(self):
        cloudmap, eks = self.region.client("servicediscovery"), self.region.client("eks")
        self.rule(kind="throttle", times=9)
        self.assertEqual(self.refused(self.iam.list_groups)[:2], (400, "Throttling"))
        self.assertEqual(self.refused(self.ec2.describe_vpcs)[:2], (503, "RequestLimitExceeded"))
        self.assertEqual(self.refused(cloudmap.list_namespaces)[:2], (400, "ThrottlingException"))
        self.assertEqual(self.refused(eks.list_clusters)[:2], (429, "ThrottlingException"))

    def test_a_reset_call_was_carried_out(self):
        self.rule(kind="reset", action=["iam:CreateGroup"])
        with self.assertRaises(ConnectionClosedError):
            self.iam.create_group(GroupName="reset")
        self.assertIn("reset", self.groups())

    def test_half_an_answer(self):
        self.rule(kind="truncate", action=["iam:CreateGroup"])
        with self.assertRaises((ResponseStreamingError, ConnectionClosedError)):
            self.iam.create_group(GroupName="half")
        self.assertIn("half", self.groups())

    def test_a_held_call_goes_on_when_it_is_released(self):
        for kind, name in (("hold-before", "before"), ("hold-after", "after")):
            path = self.rule(kind=kind, action=["iam:CreateGroup"])
            call = threading.Thread(target=self.iam.create_group, kwargs={"GroupName": name})
            call.start()
            wait_for(path.with_suffix(".held").exists)
            self.assertEqual(name in self.groups(), kind == "hold-after")
            path.with_suffix(".released").touch()
            call.join(10)
            path.with_suffix(".released").unlink()
            self.assertIn(name, self.groups())

    def test_a_held_call_is_dropped_with_its_rule(self):
        path = self.rule(kind="hold-before", action=["iam:CreateGroup"])

        def create():
            with self.assertRaises(ConnectionClosedError):
                self.iam.create_group(GroupName="dropped")

        call = threading.Thread(target=create)
        call.start()
        wait_for(path.with_suffix(".held").exists)
        path.unlink()
        call.join(10)
        self.assertFalse(path.with_suffix(".held").exists())
        self.assertNotIn("dropped", self.groups())
