"""EKS Pod Identity, which moto 5.2.5 knows nothing of: associations, the add-on, and the agent that gives pods their credentials.

<https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html>

The agent answers pods itself. On EKS it asks `eks-auth:AssumeRoleForPodIdentity` with the node's role; that call is not here.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import string
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from moto.core.request import Request
from moto.eks.models import eks_backends
from moto.iam.models import iam_backends
from werkzeug.wrappers import Response

import webidentity
from call import Call
from fault import rest_json_error
from region import Cluster
from sts import open_session, trusts
from webidentity import Keys, Rejected

#: Whom roles trust, and the audience of the tokens that pods show.
PODS = "pods.eks.amazonaws.com"
AGENT = "eks-pod-identity-agent"
#: Where pods find the agent.
ADDRESS = "169.254.170.23"
_HOURS = 6


class PodIdentity:
    """The calls of EKS that are about it; the others are left to moto (None)."""

    def __init__(self, account: str, region: str) -> None:
        self.account = account
        self.region = region
        self.associations: dict[str, dict[str, Any]] = {}
        self.addons: set[tuple[str, str]] = set()

    def __call__(self, call: Call, _: Request) -> Response | None:
        operations: dict[str, Callable[[Mapping[str, Any]], Response]] = {
            "CreateAddon": self.create_addon,
            "DescribeAddon": self.describe_addon,
            "DeleteAddon": self.delete_addon,
            "CreatePodIdentityAssociation": self.create,
            "DescribePodIdentityAssociation": lambda p: self._with(p, lambda found: None),
            "ListPodIdentityAssociations": self.list,
            "UpdatePodIdentityAssociation": self.update,
            "DeletePodIdentityAssociation": lambda p: self._with(
                p, lambda it: self.associations.pop(it["associationId"])
            ),
        }
        operation = operations.get(call.operation or "")
        if operation is None:
            return self.tags(call)
        cluster = call.params.get("clusterName", "")
        if cluster not in eks_backends[self.account][self.region].clusters:
            return rest_json_error("ResourceNotFoundException", f"No cluster found for name: {cluster}.", 404)
        return operation(call.params)

    def create(self, p: Mapping[str, Any]) -> Response:
        """One for each service account."""
        same = self.of(p["clusterName"], p["namespace"], p["serviceAccount"])
        if same is not None:
            return rest_json_error(
                "ResourceInUseException", f"Association already exists: {same['associationId']}", 409
            )
        if refusal := self._no_role(p["roleArn"]):
            return refusal
        identifier = "a-" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(17))
        arn = f"arn:aws:eks:{self.region}:{self.account}:podidentityassociation/{p['clusterName']}/{identifier}"
        members = ("clusterName", "namespace", "serviceAccount", "roleArn")
        made = {m: p[m] for m in members} | {
            "associationArn": arn,
            "associationId": identifier,
            "createdAt": time.time(),
        }
        made |= {"tags": dict(p.get("tags") or {}), "disableSessionTags": bool(p.get("disableSessionTags"))}
        self.associations[identifier] = made
        return _answer({"association": made})

    def update(self, p: Mapping[str, Any]) -> Response:
        """Another role, or other session tags."""
        if "roleArn" in p and (refusal := self._no_role(p["roleArn"])):
            return refusal
        changes = {m: p[m] for m in ("roleArn", "disableSessionTags") if p.get(m) is not None}
        return self._with(p, lambda found: found.update(changes, modifiedAt=time.time()))

    def list(self, p: Mapping[str, Any]) -> Response:
        """Without their roles and tags, as EKS does it."""
        members = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
        wanted = {m: p[m] for m in members[:3] if p.get(m)}
        found = [a for a in self.associations.values() if all(a[m] == value for m, value in wanted.items())]
        return _answer({"associations": [{m: a[m] for m in members} for a in found]})

    def tags(self, call: Call) -> Response | None:
        """Of an association; of anything else they are moto's."""
        arn = str(call.params.get("resourceArn", ""))
        if ":podidentityassociation/" not in arn:
            return None
        found = next((a for a in self.associations.values() if a["associationArn"] == arn), None)
        if found is None:
            return rest_json_error("NotFoundException", f"Resource {arn} was not found", 404)
        if call.operation == "TagResource":
            found["tags"].update(call.params["tags"])
        if call.operation == "UntagResource":
            for key in call.params["tagKeys"]:
                found["tags"].pop(key, None)
        return _answer({"tags": found["tags"]} if call.operation == "ListTagsForResource" else {})

    def of(self, cluster: str, namespace: str, account: str) -> dict[str, Any] | None:
        """The association of a service account."""
        wanted = {"clusterName": cluster, "namespace": namespace, "serviceAccount": account}
        return next((a for a in self.associations.values() if wanted.items() <= a.items()), None)

    def create_addon(self, p: Mapping[str, Any]) -> Response:
        """Active at once."""
        self.addons.add((p["clusterName"], p["addonName"]))
        return self.describe_addon(p)

    def describe_addon(self, p: Mapping[str, Any]) -> Response:
        """Nothing but that it is there."""
        cluster, name = p["clusterName"], p["addonName"]
        if (cluster, name) not in self.addons:
            return rest_json_error("ResourceNotFoundException", f"No addon: {name} found in cluster: {cluster}", 404)
        arn = f"arn:aws:eks:{self.region}:{self.account}:addon/{cluster}/{name}/{uuid.uuid5(uuid.NAMESPACE_OID, cluster + name)}"
        addon = {
            "addonName": name,
            "clusterName": cluster,
            "status": "ACTIVE",
            "addonArn": arn,
            "health": {"issues": []},
        }
        return _answer({"addon": addon})

    def delete_addon(self, p: Mapping[str, Any]) -> Response:
        """Gone at once."""
        answer = self.describe_addon(p)
        self.addons.discard((p["clusterName"], p["addonName"]))
        return answer

    def _with(self, p: Mapping[str, Any], act: Callable[[dict[str, Any]], Any]) -> Response:
        found = self.associations.get(p["associationId"])
        if found is None or found["clusterName"] != p["clusterName"]:
            message = f"Association: {p['associationId']} not found in cluster: {p['clusterName']}"
            return rest_json_error("ResourceNotFoundException", message, 404)
        act(found)
        return _answer({"association": found})

    def _no_role(self, arn: str) -> Response | None:
        role = _role(self.account, arn)
        # Whatever a condition asks for: only the session's tags decide that.
        if role is None or PODS not in json.dumps(role.assume_role_policy_document):
            message = f"Role provided in the request does not exist or does not trust {PODS}: {arn}"
            return rest_json_error("InvalidParameterException", message)
        return None


class Agent:
    """Gives the credentials of its role to a pod that shows its service account's token, where the add-on is."""

    def __init__(self, identity: PodIdentity, clusters: Iterable[Cluster], keys: Keys) -> None:
        self.identity = identity
        self.clusters = {c.issuer: c.name for c in clusters}
        self.keys = keys

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        answer = self.credentials(request.headers.get("Authorization", ""))
        return answer(environ, start_response)

    def credentials(self, token: str) -> Response:
        """As the SDKs of AWS read them."""
        trusted = [
            SimpleNamespace(url=issuer.removeprefix("https://"), arn=issuer, client_id_list=[PODS])
            for issuer in self.clusters
        ]
        try:
            who = webidentity.verify(token, trusted, self.keys)
        except Rejected as rejected:
            return Response(f"{rejected.code}: {rejected.message}", 400)
        cluster, (namespace, account) = self.clusters[who.issuer], who.subject.split(":")[2:4]
        found = self.identity.of(cluster, namespace, account)
        if found is None or (cluster, AGENT) not in self.identity.addons:
            return Response(f"ResourceNotFoundException: no association of {namespace}/{account} in {cluster}", 404)
        role = _role(self.identity.account, found["roleArn"])
        context = {} if found["disableSessionTags"] else self._session_tags(cluster, namespace, account)
        needed = ("sts:AssumeRole", "sts:TagSession")
        if role is None or not all(trusts(role, action, "Service", {PODS}, context) for action in needed):
            return Response(f"AccessDeniedException: {PODS} may not assume {found['roleArn']}", 403)
        session = open_session(
            self.identity.account, role.arn, f"eks-{cluster}-{uuid.uuid4()}", seconds=_HOURS * 60 * 60
        )
        credentials = {
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": session.secret_access_key,
            "Token": session.session_token,
            "AccountId": self.identity.account,
            "Expiration": session.expiration.replace(tzinfo=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return Response(json.dumps(credentials), 200, content_type="application/json")

    def _session_tags(self, cluster: str, namespace: str, account: str) -> dict[str, list[str]]:
        arn = f"arn:aws:eks:{self.identity.region}:{self.identity.account}:cluster/{cluster}"
        tags = {
            "eks-cluster-arn": arn,
            "eks-cluster-name": cluster,
            "kubernetes-namespace": namespace,
            "kubernetes-service-account": account,
        }
        return {f"aws:requesttag/{key}": [value] for key, value in tags.items()}


def _role(account: str, arn: str) -> Any:
    return next((r for r in iam_backends[account]["aws"].roles.values() if r.arn == arn), None)


def _answer(body: Mapping[str, Any]) -> Response:
    return Response(json.dumps(body), 200, {"x-amzn-requestid": str(uuid.uuid4())}, content_type="application/json")
