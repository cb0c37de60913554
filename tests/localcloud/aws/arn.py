"""The ARNs a call acts on, for the services of this region; `*` where AWS has none or it is not known here.

Source: the service authorization reference, "Actions, resources, and condition keys".
"""

from __future__ import annotations

from typing import Any

from moto.iam.models import iam_backends

from call import Call


def of(call: Call, account: str) -> list[str]:
    """All of them must be allowed."""
    find = {
        "iam": _iam,
        "eks": _eks,
        "ecr": _ecr,
        "sts": _sts,
        "servicediscovery": _cloudmap,
        "ec2": _ec2,
        "route53": _route53,
    }.get(call.service or "")
    return (find(call, f":{call.region}:{account}:", account) if find else []) or ["*"]


def tagged(call: Call, account: str) -> list[str]:
    """What the call is to make with tags, where that is not what it names: a new resource has no id yet."""
    if call.action == "eks:CreatePodIdentityAssociation":
        return [f"arn:aws:eks:{call.region}:{account}:podidentityassociation/{call.params['clusterName']}/*"]
    kinds = [s.get("ResourceType") for s in call.params.get("TagSpecifications") or []]
    return [f"arn:aws:ec2:{call.region}:{account}:{kind}/*" for kind in kinds]


def repository(region: str, account: str, name: str) -> str:
    """An ECR repository."""
    return f"arn:aws:ecr:{region}:{account}:repository/{name}"


def _iam(call: Call, _: str, account: str) -> list[str]:
    p = call.params
    path = str(p.get("Path", "/")) if (call.operation or "").startswith("Create") else "/"
    named = {"RoleName": "role", "UserName": "user", "GroupName": "group", "InstanceProfileName": "instance-profile"}
    for member, kind in named.items():
        if member in p:
            return [_existing(kind, str(p[member]), account) or f"arn:aws:iam::{account}:{kind}{path}{p[member]}"]
    for member in ("OpenIDConnectProviderArn", "PolicyArn"):
        if member in p:
            return [str(p[member])]
    if "Url" in p:
        return [f"arn:aws:iam::{account}:oidc-provider/{str(p['Url']).removeprefix('https://')}"]
    return []


def _existing(kind: str, name: str, account: str) -> str | None:
    """A role or user keeps the path it was made with, which a later call does not repeat."""
    iam = iam_backends[account]["aws"]
    holders: Any = {"role": iam.roles.values(), "user": iam.users.values()}.get(kind, ())
    return next((h.arn for h in holders if h.name == name), None)


def _eks(call: Call, scope: str, _: str) -> list[str]:
    p = call.params
    if "resourceArn" in p:
        return [str(p["resourceArn"])]
    cluster = p.get("clusterName") or p.get("name")
    if not cluster:
        return []
    if "nodegroupName" in p:
        return [f"arn:aws:eks{scope}nodegroup/{cluster}/{p['nodegroupName']}/*"]
    if "associationId" in p:
        return [f"arn:aws:eks{scope}podidentityassociation/{cluster}/{p['associationId']}"]
    if "addonName" in p and call.operation != "CreateAddon":
        return [f"arn:aws:eks{scope}addon/{cluster}/{p['addonName']}/*"]
    return [f"arn:aws:eks{scope}cluster/{cluster}"]


def _ecr(call: Call, _: str, account: str) -> list[str]:
    p = call.params
    if "resourceArn" in p:
        return [str(p["resourceArn"])]
    names = p.get("repositoryNames") or ([p["repositoryName"]] if "repositoryName" in p else [])
    return [repository(call.region or "", account, n) for n in names]


def _sts(call: Call, _: str, __: str) -> list[str]:
    return [str(call.params["RoleArn"])] if "RoleArn" in call.params else []


def _cloudmap(call: Call, scope: str, _: str) -> list[str]:
    p = call.params
    if (call.operation or "").startswith("DiscoverInstances"):
        # Only Cloud Map knows the ids: names stand for them.
        names = {"namespace": p.get("NamespaceName"), "service": p.get("ServiceName")}
        return [f"arn:aws:servicediscovery{scope}{kind}/{name}" for kind, name in names.items()]
    ids = [str(p[m]) for m in ("ServiceId", "NamespaceId", "Id") if p.get(m)]
    kinds = {"srv-": "service", "ns-": "namespace"}
    return [
        f"arn:aws:servicediscovery{scope}{kind}/{i}"
        for i in ids
        for prefix, kind in kinds.items()
        if i.startswith(prefix)
    ]


def _ec2(call: Call, scope: str, _: str) -> list[str]:
    operation, p = call.operation or "", call.params
    if "SecurityGroup" in operation and not operation.startswith("Describe") and "GroupId" in p:
        return [f"arn:aws:ec2{scope}security-group/{p['GroupId']}"]
    return []


def _route53(call: Call, _: str, __: str) -> list[str]:
    zone = str(call.params.get("Id", "")).removeprefix("/hostedzone/")
    return [f"arn:aws:route53:::hostedzone/{zone}"] if zone and "HostedZone" in (call.operation or "") else []
