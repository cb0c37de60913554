"""Security group rules."""

from gate import Case


class SecurityGroups(Case):
    def setUp(self):
        self.ec2 = self.region.client("ec2")
        vpc = self.region.account["vpc"]
        self.group, self.peer = (
            self.ec2.create_security_group(GroupName=f"{self.id()}-{n}"[-200:], Description="x", VpcId=vpc)["GroupId"]
            for n in "ab"
        )

    def permission(self, port=8080, description=None):
        pair = {"GroupId": self.peer} | ({"Description": description} if description else {})
        return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "UserIdGroupPairs": [pair]}

    def rules(self):
        found = self.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [self.group]}])[
            "SecurityGroupRules"
        ]
        return [r for r in found if not r["IsEgress"]]

    def test_a_rule_names_the_group_it_lets_in(self):
        tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "managed-by", "Value": "x"}]}]
        made = self.ec2.authorize_security_group_ingress(
            GroupId=self.group, IpPermissions=[self.permission(description="from c1")], TagSpecifications=tags
        )
        rule = made["SecurityGroupRules"][0]
        self.assertEqual(rule["ReferencedGroupInfo"]["GroupId"], self.peer)
        self.assertEqual(
            (rule["FromPort"], rule["ToPort"], rule["IpProtocol"], rule["Description"]), (8080, 8080, "tcp", "from c1")
        )
        self.assertEqual(self.rules()[0]["Tags"], [{"Key": "managed-by", "Value": "x"}])
        group = self.ec2.describe_security_groups(Filters=[{"Name": "ip-permission.group-id", "Values": [self.peer]}])[
            "SecurityGroups"
        ][0]
        self.assertEqual(group["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"], self.peer)

    def test_the_same_rule_twice_is_an_error_whatever_its_description(self):
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[self.permission()])
        status, code, message = self.refused(
            self.ec2.authorize_security_group_ingress,
            GroupId=self.group,
            IpPermissions=[self.permission(description="again")],
        )
        self.assertEqual((status, code), (400, "InvalidPermission.Duplicate"))
        self.assertIn(
            f'the specified rule "peer: {self.peer}, TCP, from port: 8080, to port: 8080, ALLOW" already exists',
            message,
        )

    def test_several_permissions_are_all_or_nothing(self):
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[self.permission()])
        self.refused(
            self.ec2.authorize_security_group_ingress,
            GroupId=self.group,
            IpPermissions=[self.permission(9000), self.permission()],
        )
        self.assertEqual([r["FromPort"] for r in self.rules()], [8080])
        made = self.ec2.authorize_security_group_ingress(
            GroupId=self.group, IpPermissions=[self.permission(1), self.permission(2)]
        )
        self.assertEqual([r["FromPort"] for r in made["SecurityGroupRules"]], [1, 2])

    def test_a_rule_is_revoked_by_its_id_and_by_what_it_says(self):
        for port in (1, 2):
            self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[self.permission(port, "x")])
        self.ec2.revoke_security_group_ingress(GroupId=self.group, IpPermissions=[self.permission(1)])
        self.ec2.revoke_security_group_ingress(
            GroupId=self.group, SecurityGroupRuleIds=[self.rules()[0]["SecurityGroupRuleId"]]
        )
        self.assertEqual(self.rules(), [])
        refused = self.refused(
            self.ec2.revoke_security_group_ingress, GroupId=self.group, IpPermissions=[self.permission(1)]
        )
        self.assertEqual(refused[1], "InvalidPermission.NotFound")

    def test_a_group_that_is_used_stays(self):
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[self.permission()])
        cluster = self.region.account["clusters"][0]["securityGroup"]
        for group in (self.peer, cluster):
            self.assertEqual(self.refused(self.ec2.delete_security_group, GroupId=group)[1], "DependencyViolation")
        self.ec2.delete_security_group(GroupId=self.group)
        self.ec2.delete_security_group(GroupId=self.peer)

    def test_nodes_are_found_as_eks_tags_them(self):
        for cluster in self.region.account["clusters"]:
            filters = [
                {"Name": "tag:eks:cluster-name", "Values": [cluster["name"]]},
                {"Name": "tag:eks:nodegroup-name", "Values": ["nodes"]},
                {"Name": "instance-state-name", "Values": ["running"]},
            ]
            instance = self.ec2.describe_instances(Filters=filters)["Reservations"][0]["Instances"][0]
            self.assertEqual([g["GroupId"] for g in instance["SecurityGroups"]], [cluster["securityGroup"]])
            self.assertEqual(instance["PrivateIpAddress"], cluster["node"]["privateIp"])
            self.assertEqual(instance["VpcId"], self.region.account["vpc"])
