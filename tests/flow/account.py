"""Prints what the account holds that crossmesh could make, as one JSON object: run before and after, compare.

Runs inside the local cloud, with its operator's credentials and the boto3 that the local cloud brings along.
"""

import json

import boto3

iam, ecr, ec2, cloudmap = (boto3.client(name) for name in ("iam", "ecr", "ec2", "servicediscovery"))


def pages(client, operation, key, **arguments):
    return [item for page in client.get_paginator(operation).paginate(**arguments) for item in page[key]]


roles = {
    role["RoleName"]: {
        "trust": role["AssumeRolePolicyDocument"],
        "attached": sorted(p["PolicyArn"] for p in pages(iam, "list_attached_role_policies", "AttachedPolicies", RoleName=role["RoleName"])),
        "inline": pages(iam, "list_role_policies", "PolicyNames", RoleName=role["RoleName"]),
    }
    for role in pages(iam, "list_roles", "Roles")
}
namespaces = {n["Name"]: n["Type"] for n in pages(cloudmap, "list_namespaces", "Namespaces")}
services = sorted(s["Name"] for s in pages(cloudmap, "list_services", "Services"))
rules = sorted(
    (rule["GroupId"], rule["IsEgress"], rule["IpProtocol"], rule.get("FromPort", -1), json.dumps(rule.get("ReferencedGroupInfo", rule.get("CidrIpv4"))))
    for rule in pages(ec2, "describe_security_group_rules", "SecurityGroupRules")
)
print(
    json.dumps(
        {
            "oidcProviders": sorted(p["Arn"] for p in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]),
            "roles": roles,
            "policies": sorted(p["Arn"] for p in pages(iam, "list_policies", "Policies", Scope="Local")),
            "repositories": sorted(r["repositoryName"] for r in pages(ecr, "describe_repositories", "repositories")),
            "namespaces": namespaces,
            "services": services,
            "securityGroupRules": rules,
        },
        indent=2,
        sort_keys=True,
    )
)
