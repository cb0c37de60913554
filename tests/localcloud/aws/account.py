"""Lays down what an AWS account with two EKS clusters holds already, through the region's own APIs.

A VPC, or one for each cluster with a peering, a subnet and a cluster with one managed node group per cluster, the roles
behind them, and the IAM user `operator`. Everything a user of the account may need to know is written to STATE/account.json.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.sts.models import AssumedRole

from region import ACCOUNT, REGION, VPC_CIDR, Cluster
from sts import open_session

AWS_POLICIES = "arn:aws:iam::aws:policy"
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryReadOnly", "AmazonEKS_CNI_Policy")
#: One of the images moto knows from the start; finding one by its properties takes it most of a second.
IMAGE = "ami-04681a1dbd79675a5"
#: Seconds a node's credentials are good for; nobody renews them here, so longer than any run.
NODE_SESSION = 7 * 24 * 60 * 60


def seed(clusters: list[Cluster], endpoint: str, two_vpcs: bool = False) -> dict[str, Any]:
    """Makes it all and tells what it made; `endpoint` is the region's API, past the gateway."""
    session = boto3.Session("root", "root", region_name=REGION)
    config = Config(retries={"max_attempts": 1})
    iam, ec2, eks = (session.client(s, endpoint_url=endpoint, config=config) for s in ("iam", "ec2", "eks"))
    operator = _user(iam, "operator", "AdministratorAccess")
    eks_role = _role(iam, "eks", "eks.amazonaws.com", ("AmazonEKSClusterPolicy",))
    node_role = _role(iam, "node", "ec2.amazonaws.com", NODE_POLICIES)
    if two_vpcs:
        vpcs = [_vpc(ec2, c.subnet_cidr) for c in clusters]
        peering = ec2.create_vpc_peering_connection(VpcId=vpcs[0], PeerVpcId=vpcs[1])["VpcPeeringConnection"]
        ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering["VpcPeeringConnectionId"])
    else:
        vpcs = [_vpc(ec2, VPC_CIDR)] * len(clusters)
    subnets = [_subnet(ec2, vpc, c) for vpc, c in zip(vpcs, clusters, strict=True)]
    made = [
        _cluster(ec2, eks, c, eks_role, node_role, [s for s, of in zip(subnets, vpcs, strict=True) if of == vpc], subnet)
        for c, vpc, subnet in zip(clusters, vpcs, subnets, strict=True)
    ]
    node = open_session(ACCOUNT, node_role, made[0]["node"]["instanceId"], NODE_SESSION)
    expired = open_session(ACCOUNT, node_role, "yesterday", -24 * 60 * 60)
    return {
        "account": ACCOUNT,
        "region": REGION,
        "vpc": vpcs[0],
        "operator": operator,
        "node": _keys(node) | {"roleArn": node_role},
        "expired": _keys(expired),
        "clusters": made,
    }


def _keys(session: AssumedRole) -> dict[str, str]:
    return {
        "accessKeyId": session.access_key_id,
        "secretAccessKey": session.secret_access_key,
        "sessionToken": session.session_token,
    }


def write(path: Path, account: dict[str, Any]) -> None:
    """At once or not at all, and for the owner only: there are keys in it."""
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(account, file, indent=2)
    temporary.replace(path)


def _user(iam: Any, name: str, policy: str) -> dict[str, str]:
    arn = iam.create_user(UserName=name)["User"]["Arn"]
    iam.attach_user_policy(UserName=name, PolicyArn=f"{AWS_POLICIES}/{policy}")
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"arn": arn, "accessKeyId": key["AccessKeyId"], "secretAccessKey": key["SecretAccessKey"]}


def _role(iam: Any, name: str, service: str, policies: tuple[str, ...]) -> str:
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
    }
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    for policy in policies:
        iam.attach_role_policy(RoleName=name, PolicyArn=f"{AWS_POLICIES}/{policy}")
    return arn


def _vpc(ec2: Any, cidr: str) -> str:
    vpc: str = ec2.create_vpc(CidrBlock=cidr, TagSpecifications=[_named("vpc", "local-cloud")])["Vpc"]["VpcId"]
    for attribute in ("EnableDnsSupport", "EnableDnsHostnames"):
        ec2.modify_vpc_attribute(VpcId=vpc, **{attribute: {"Value": True}})
    return vpc


def _subnet(ec2: Any, vpc: str, cluster: Cluster) -> str:
    tags = _named(
        "subnet", cluster.name, {f"kubernetes.io/cluster/{cluster.name}": "shared", "kubernetes.io/role/elb": "1"}
    )
    made = ec2.create_subnet(
        VpcId=vpc, CidrBlock=cluster.subnet_cidr, AvailabilityZone=cluster.zone, TagSpecifications=[tags]
    )
    return str(made["Subnet"]["SubnetId"])


def _cluster(
    ec2: Any, eks: Any, cluster: Cluster, role: str, node_role: str, subnets: list[str], subnet: str
) -> dict[str, Any]:
    made = eks.create_cluster(
        name=cluster.name, version=cluster.version, roleArn=role, resourcesVpcConfig={"subnetIds": subnets}
    )["cluster"]
    group = made["resourcesVpcConfig"]["clusterSecurityGroupId"]
    eks.create_nodegroup(
        clusterName=cluster.name,
        nodegroupName="nodes",
        subnets=[subnet],
        nodeRole=node_role,
        amiType="AL2023_x86_64_STANDARD",
        instanceTypes=["m5.large"],
        scalingConfig={"minSize": 1, "maxSize": 1, "desiredSize": 1},
    )
    tags = {
        "eks:cluster-name": cluster.name,
        "eks:nodegroup-name": "nodes",
        "aws:eks:cluster-name": cluster.name,
        f"kubernetes.io/cluster/{cluster.name}": "owned",
    }
    run = ec2.run_instances(
        ImageId=IMAGE,
        InstanceType="m5.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        PrivateIpAddress=cluster.node_ip,
        SecurityGroupIds=[group],
        TagSpecifications=[_named("instance", f"{cluster.name}-nodes-Node", tags)],
    )
    instance = run["Instances"][0]
    return {
        "name": cluster.name,
        "arn": made["arn"],
        "endpoint": made["endpoint"],
        "issuer": made["identity"]["oidc"]["issuer"],
        "securityGroup": group,
        "subnet": subnet,
        "subnetCidr": cluster.subnet_cidr,
        "availabilityZone": cluster.zone,
        "node": {
            "instanceId": instance["InstanceId"],
            "privateIp": instance["PrivateIpAddress"],
            "privateDnsName": instance["PrivateDnsName"],
            "providerId": f"aws:///{cluster.zone}/{instance['InstanceId']}",
        },
    }


def _named(kind: str, name: str, tags: dict[str, str] | None = None) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in ({"Name": name} | (tags or {})).items()]}
