"""IAM, where moto 5.2.5 is laxer than AWS or lacks a call.

* AddClientIDToOpenIDConnectProvider and RemoveClientIDFromOpenIDConnectProvider are not there.
* A trust policy that is no policy is taken (AWS: MalformedPolicyDocument).
* ListRolePolicies has no pages.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from moto.core.request import Request
from moto.iam.models import iam_backends
from werkzeug.wrappers import Response

from call import Call
from fault import query_error
from policy import as_list


class Iam:
    """Answers what moto can't; None leaves a call to it."""

    def __init__(self, account: str) -> None:
        self.account = account

    def __call__(self, call: Call, _: Request) -> Response | None:
        operation = {
            "AddClientIDToOpenIDConnectProvider": self.change_client_id,
            "RemoveClientIDFromOpenIDConnectProvider": self.change_client_id,
            "CreateRole": check_trust,
            "UpdateAssumeRolePolicy": check_trust,
            "ListRolePolicies": self.list_role_policies,
        }.get(call.operation or "")
        return operation(call) if operation else None

    def change_client_id(self, call: Call) -> Response:
        """Both are idempotent."""
        arn, client_id = call.params["OpenIDConnectProviderArn"], call.params["ClientID"]
        provider = iam_backends[self.account]["aws"].open_id_providers.get(arn)
        if provider is None:
            return query_error("iam", "NoSuchEntity", f"OpenIDConnect Provider not found for arn {arn}", 404)
        others = [c for c in provider.client_id_list if c != client_id]
        provider.client_id_list = [*others, client_id] if str(call.operation).startswith("Add") else others
        return _answer(str(call.operation))

    def list_role_policies(self, call: Call) -> Response | None:
        """Names in order, `MaxItems` a page; the marker is the name to go on after."""
        name, marker = call.params["RoleName"], str(call.params.get("Marker", ""))
        role = next((r for r in iam_backends[self.account]["aws"].roles.values() if r.name == name), None)
        if role is None:
            return None
        left = sorted(n for n in role.policies if n > marker)
        page = left[: int(call.params.get("MaxItems", 100))]
        members = "".join(f"<member>{n}</member>" for n in page)
        more = (
            f"<IsTruncated>true</IsTruncated><Marker>{page[-1]}</Marker>"
            if len(left) > len(page)
            else "<IsTruncated>false</IsTruncated>"
        )
        return _answer("ListRolePolicies", f"<PolicyNames>{members}</PolicyNames>{more}")


def check_trust(call: Call) -> Response | None:
    """Refuses a trust policy that has no statements, effect, principal or action."""
    document = call.params.get("AssumeRolePolicyDocument") or call.params.get("PolicyDocument") or ""
    fault = trust_fault(document)
    return query_error("iam", "MalformedPolicyDocument", fault) if fault else None


def trust_fault(document: str) -> str | None:
    """What is wrong with a trust policy, in IAM's words."""
    try:
        parsed: Any = json.loads(document)
    except ValueError:
        return "This policy contains invalid Json"
    if not isinstance(parsed, dict) or not parsed.get("Statement"):
        return "Syntax errors in policy."
    for statement in as_list(parsed["Statement"]):
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            return "Syntax errors in policy."
        if not ({"Principal", "NotPrincipal"} & statement.keys()):
            return "Missing required field Principal"
        if {"Resource", "NotResource"} & statement.keys():
            return "Has prohibited field Resource"
        if not all(str(a).startswith("sts:") or a == "*" for a in as_list(statement.get("Action", "none"))):
            return "AssumeRole policy may only specify STS AssumeRole actions."
    return None


def _answer(operation: str, result: str = "") -> Response:
    request_id = uuid.uuid4()
    body = (
        f'<{operation}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        + (f"<{operation}Result>{result}</{operation}Result>" if result else "")
        + f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
    )
    return Response(body, 200, {"x-amzn-requestid": str(request_id)}, content_type="text/xml")
