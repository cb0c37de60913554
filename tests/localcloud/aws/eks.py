"""EKS: the clusters of this machine, as DescribeCluster tells of them.

Any other has no machine behind it: it is CREATING for ever, FAILED if its role lacks the policy that EKS needs, and
once it was told to go, DELETING for ever.

moto 5.2.5 makes up endpoint, CA and one issuer for all clusters, knows neither `vpcId` nor the cluster security
group, has a remote access group on every node group, tags clusters only, and fails on the node groups of a cluster
that is not there.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from moto.ec2.models import ec2_backends
from moto.eks import models
from moto.eks.exceptions import ResourceNotFoundException
from moto.iam.models import iam_backends
from werkzeug.wrappers import Response

from region import Cluster
from webidentity import PublicKey, jwk

_POLICY = "AmazonEKSClusterPolicy"


def install(clusters: Iterable[Cluster]) -> None:
    """Mends moto's EKS in this process."""
    known = {c.name: c for c in clusters}
    backend = models.EKSBackend
    mended: dict[str, Callable[..., Any]] = {
        "create_cluster": _create_cluster(backend.create_cluster, known),
        "delete_cluster": _delete_cluster(backend.delete_cluster, known),
        "describe_cluster": _describe_cluster(backend.describe_cluster, known),
        "create_nodegroup": _create_nodegroup(backend.create_nodegroup),
        "list_nodegroups": _list_nodegroups(backend.list_nodegroups),
        "list_tags_for_resource": _tags,
        "tag_resource": _tag_resource,
        "untag_resource": _untag_resource,
    }
    for name, method in mended.items():
        setattr(backend, name, method)


def _create_cluster(create: Callable[..., Any], known: dict[str, Cluster]) -> Callable[..., Any]:
    def create_cluster(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        cluster = create(self, name, *args, **kwargs)
        ec2, vpc = ec2_backends[self.account_id][self.region_name], cluster.resources_vpc_config
        vpc_id = ec2.get_subnet(vpc["subnetIds"][0]).vpc_id
        group = ec2.create_security_group(
            f"eks-cluster-sg-{name}-{uuid.uuid4().int % 10**10}",
            "EKS created security group applied to ENI that is attached to EKS Control Plane master nodes, as well as any managed workloads.",
            vpc_id=vpc_id,
            tags={
                "Name": f"eks-cluster-sg-{name}",
                f"kubernetes.io/cluster/{name}": "owned",
                "aws:eks:cluster-name": name,
            },
        )
        # The group admits itself: nodes and control plane reach each other.
        ec2.authorize_security_group_ingress(
            group.id, "-1", "", "", [], source_groups=[{"GroupId": group.id, "UserId": self.account_id}]
        )
        vpc |= {"vpcId": vpc_id, "clusterSecurityGroupId": group.id, "publicAccessCidrs": ["0.0.0.0/0"]}
        for member, default in (
            ("securityGroupIds", []),
            ("endpointPublicAccess", True),
            ("endpointPrivateAccess", False),
        ):
            vpc.setdefault(member, default)
        cluster.platformVersion = "eks.1"
        cluster.kubernetes_network_config = {"serviceIpv4Cidr": "172.20.0.0/16", "ipFamily": "ipv4"}
        if name in known:
            cluster.identity = {"oidc": {"issuer": known[name].issuer}}
            cluster.endpoint = known[name].endpoint
            cluster.version = kwargs.get("version") or known[name].version
        else:
            cluster.status = "CREATING" if _may_be_eks(self.account_id, cluster.role_arn) else "FAILED"
            cluster.endpoint = cluster.identity = cluster.certificate_authority = None
        return cluster

    return create_cluster


def _may_be_eks(account: str, role_arn: str) -> bool:
    roles = iam_backends[account]["aws"].roles.values()
    return any(p.name == _POLICY for role in roles if role.arn == role_arn for p in role.managed_policies.values())


def _delete_cluster(delete: Callable[..., Any], known: dict[str, Cluster]) -> Callable[..., Any]:
    def delete_cluster(self: Any, name: str) -> Any:
        cluster = self.clusters.get(name)
        if cluster is None or name in known:
            return delete(self, name)
        cluster.status = "DELETING"
        return cluster

    return delete_cluster


def _describe_cluster(describe: Callable[..., Any], known: dict[str, Cluster]) -> Callable[..., Any]:
    def describe_cluster(self: Any, name: str) -> Any:
        cluster = describe(self, name)
        ca = known[name].ca() if name in known else None
        if ca:
            cluster.certificate_authority = {"data": base64.b64encode(ca).decode()}
        return cluster

    return describe_cluster


def _create_nodegroup(create: Callable[..., Any]) -> Callable[..., Any]:
    def create_nodegroup(self: Any, *args: Any, **kwargs: Any) -> Any:
        group = create(self, *args, **kwargs)
        cluster = self.clusters[group.cluster_name]
        group.version = cluster.version
        group.release_version = f"{cluster.version}.0-20261101"
        group.resources = {"autoScalingGroups": [{"name": f"eks-{group.nodegroup_name}-{group.uuid}"}]}
        if kwargs.get("remote_access"):
            ec2 = ec2_backends[self.account_id][self.region_name]
            remote = ec2.create_security_group(
                f"eks-remoteAccess-{group.uuid}",
                "Security group for all nodes in the nodeGroup to allow SSH access",
                vpc_id=cluster.resources_vpc_config["vpcId"],
            )
            group.resources["remoteAccessSecurityGroup"] = remote.id
        else:
            group.remote_access = None
        return group

    return create_nodegroup


def _list_nodegroups(list_: Callable[..., Any]) -> Callable[..., Any]:
    def list_nodegroups(self: Any, cluster_name: str, *args: Any, **kwargs: Any) -> Any:
        self.describe_cluster(cluster_name)
        return list_(self, cluster_name, *args, **kwargs)

    return list_nodegroups


def _tag_resource(self: Any, resource_arn: str, tags: dict[str, str]) -> None:
    _tags(self, resource_arn).update(tags)


def _untag_resource(self: Any, resource_arn: str, tag_keys: list[str] | str) -> None:
    tags = _tags(self, resource_arn)
    for key in tag_keys if isinstance(tag_keys, list) else [tag_keys]:
        tags.pop(key, None)


def _tags(self: Any, resource_arn: str) -> dict[str, str]:
    """Of a cluster or a node group."""
    holders = [h for c in self.clusters.values() for h in (c, *c.nodegroups.values())]
    found = next((h for h in holders if h.arn == resource_arn), None)
    if found is None:
        raise ResourceNotFoundException(message=f"Resource {resource_arn} was not found")
    return found.tags


def issuer_document(clusters: Iterable[Cluster], host: str, path: str) -> Response:
    """What an issuer publishes for anyone: its discovery document and its keys."""
    for cluster in clusters:
        base = cluster.issuer.removeprefix(f"https://{host}")
        if path == f"{base}/.well-known/openid-configuration":
            about = {
                "issuer": cluster.issuer,
                "jwks_uri": f"{cluster.issuer}/keys",
                "authorization_endpoint": "urn:kubernetes:programmatic_authorization",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "claims_supported": ["sub", "iss"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
            return Response(json.dumps(about), content_type="application/json")
        key = cluster.signing_key()
        if path == f"{base}/keys" and key is not None:
            return Response(json.dumps({"keys": [jwk(key)]}), content_type="application/json")
    return Response("404 page not found\n", 404, content_type="text/plain")


def issuer_keys(clusters: Iterable[Cluster]) -> Callable[[str], PublicKey | None]:
    """What STS would read from an issuer's jwks_uri."""
    known = {c.issuer: c for c in clusters}
    return lambda issuer: known[issuer].signing_key() if issuer in known else None
