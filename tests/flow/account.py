"""Prints what the account holds that crossmesh could make, as one JSON object: run before and after, compare.

With arguments only those parts, which others then cannot disturb: `account.py roles`, or `account.py roles/mesh/` for the
roles below that path.

Runs inside the local cloud, with its operator's credentials and the boto3 that the local cloud brings along.
"""

import json
import sys

import boto3

iam, ecr, ec2, eks, cloudmap = (boto3.client(name) for name in ("iam", "ecr", "ec2", "eks", "servicediscovery"))


def pages(client, operation, key, **arguments):
    return [item for page in client.get_paginator(operation).paginate(**arguments) for item in page[key]]


def tags(listed):
    return {tag["Key"]: tag["Value"] for tag in listed}


def role(name):
    found = iam.get_role(RoleName=name)["Role"]
    inline = pages(iam, "list_role_policies", "PolicyNames", RoleName=name)
    return {
        "arn": found["Arn"],
        "trust": found["AssumeRolePolicyDocument"],
        "boundary": found.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"),
        "tags": tags(found.get("Tags", [])),
        "attached": sorted(p["PolicyArn"] for p in pages(iam, "list_attached_role_policies", "AttachedPolicies", RoleName=name)),
        "inline": {p: iam.get_role_policy(RoleName=name, PolicyName=p)["PolicyDocument"] for p in inline},
    }


def roles(path="/"):
    return {r["RoleName"]: role(r["RoleName"]) for r in pages(iam, "list_roles", "Roles", PathPrefix=path)}


def provider(arn):
    found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    return {"audiences": found["ClientIDList"], "tags": tags(found["Tags"])}


def association(cluster, identifier):
    found = eks.describe_pod_identity_association(clusterName=cluster, associationId=identifier)["association"]
    return [cluster, found["namespace"], found["serviceAccount"], found["roleArn"], found["tags"]]


def images(name):
    found = pages(ecr, "describe_images", "imageDetails", repositoryName=name)
    return sorted([image["imageDigest"], sorted(image.get("imageTags", []))] for image in found)


parts = {
    "oidcProviders": lambda: {p["Arn"]: provider(p["Arn"]) for p in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]},
    "roles": roles,
    "associations": lambda: [
        association(cluster, a["associationId"])
        for cluster in eks.list_clusters()["clusters"]
        for a in pages(eks, "list_pod_identity_associations", "associations", clusterName=cluster)
    ],
    "policies": lambda: sorted(p["Arn"] for p in pages(iam, "list_policies", "Policies", Scope="Local")),
    "repositories": lambda: {r["repositoryName"]: images(r["repositoryName"]) for r in pages(ecr, "describe_repositories", "repositories")},
    "namespaces": lambda: sorted(
        (
            [n["Name"], n["Type"], sorted(tags(cloudmap.list_tags_for_resource(ResourceARN=n["Arn"])["Tags"]).items())]
            for n in pages(cloudmap, "list_namespaces", "Namespaces")
        )
    ),
    "services": lambda: sorted(s["Name"] for s in pages(cloudmap, "list_services", "Services")),
    "securityGroupRules": lambda: sorted(
        (
            rule["GroupId"],
            rule["IsEgress"],
            rule["IpProtocol"],
            rule.get("FromPort", -1),
            json.dumps(rule.get("ReferencedGroupInfo", rule.get("CidrIpv4"))),
            sorted(tags(rule.get("Tags", [])).items()),
        )
        for rule in pages(ec2, "describe_security_group_rules", "SecurityGroupRules")
    ),
}


def look(wanted):
    part, slash, path = wanted.partition("/")
    return parts[part](slash + path) if slash else parts[part]()


print(json.dumps({wanted: look(wanted) for wanted in sys.argv[1:] or parts}, indent=2, sort_keys=True))
