"""AWS STS: who a caller is, and which roles it may become.

moto 5.2.5 gives any role to anyone: it checks neither the role, its trust policy nor the web identity's token, and
answers GetCallerIdentity in XML only, while `aws-iam-authenticator` follows a presigned URL and asks for JSON.
<https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html>
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from moto.core.request import Request
from moto.iam.models import iam_backends
from moto.sts.models import AssumedRole, sts_backends
from werkzeug.wrappers import Response

import webidentity
from call import Call
from fault import Fault, Kind, query_error, refusal
from identity import Identity, find
from policy import Context, Question, as_list, covers, statements
from webidentity import Keys, Rejected, WebIdentity


class Sts:
    """The calls moto gets wrong; the others are left to it (None)."""

    def __init__(self, account: str, keys: Keys) -> None:
        self.account = account
        self.keys = keys

    def __call__(self, call: Call, request: Request) -> Response | None:
        operations = {
            "GetCallerIdentity": self.get_caller_identity,
            "AssumeRole": self.assume_role,
            "AssumeRoleWithWebIdentity": self.assume_role_with_web_identity,
        }
        operation = operations.get(call.operation or "")
        try:
            return operation(call, request) if operation else None
        except Fault as fault:
            return refusal(fault, "sts", "query")

    def get_caller_identity(self, call: Call, request: Request) -> Response:
        """In JSON for who asks for JSON."""
        caller = self._caller(call)
        result = {"Arn": caller.arn, "UserId": caller.user_id, "Account": caller.account}
        return _answer("GetCallerIdentity", result, "json" in request.headers.get("Accept", ""))

    def assume_role(self, call: Call, _: Request) -> Response:
        """By the trust policy; that the caller's own policies allow it, the gateway has asked already."""
        caller, p = self._caller(call), call.params
        role = self._role(p["RoleArn"])
        context = {"sts:externalid": [p["ExternalId"]]} if "ExternalId" in p else {}
        principals = {caller.arn, caller.account, f"arn:aws:iam::{caller.account}:root", "*"}
        if role is None or not trusts(role, "sts:AssumeRole", "AWS", principals, context):
            message = f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {p['RoleArn']}"
            return query_error("sts", "AccessDenied", message, 403)
        return _answer("AssumeRole", self._session(role, p))

    def assume_role_with_web_identity(self, call: Call, _: Request) -> Response:
        """By a token of a cluster's issuer that IAM knows as a provider and the role's trust policy accepts."""
        p = call.params
        iam = iam_backends[self.account]["aws"]
        try:
            who = webidentity.verify(p.get("WebIdentityToken", ""), iam.open_id_providers.values(), self.keys)
        except Rejected as rejected:
            return query_error("sts", rejected.code, rejected.message, 400)
        role = self._role(p["RoleArn"])
        if role is None or not trusts(role, "sts:AssumeRoleWithWebIdentity", "Federated", {who.provider}, claims(who)):
            return query_error("sts", "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity", 403)
        about = {"SubjectFromWebIdentityToken": who.subject, "Provider": who.provider, "Audience": who.audience}
        return _answer("AssumeRoleWithWebIdentity", self._session(role, p) | about)

    def _caller(self, call: Call) -> Identity:
        if call.credential is None:
            raise AssertionError("the gateway refuses unsigned calls")
        return find(self.account, call.credential)

    def _role(self, arn: str) -> Any:
        return next((r for r in iam_backends[self.account]["aws"].roles.values() if r.arn == arn), None)

    def _session(self, role: Any, p: Mapping[str, Any]) -> dict[str, Any]:
        seconds = int(p.get("DurationSeconds") or 3600)
        if not 900 <= seconds <= int(role.max_session_duration or 3600):
            raise Fault(Kind.INVALID, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
        session = open_session(self.account, role.arn, p["RoleSessionName"], seconds)
        return {
            "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn},
            "Credentials": {
                "AccessKeyId": session.access_key_id,
                "SecretAccessKey": session.secret_access_key,
                "SessionToken": session.session_token,
                "Expiration": session.expiration.replace(tzinfo=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }


def open_session(account: str, role_arn: str, name: str, seconds: int) -> AssumedRole:
    """Credentials of a role, with no question asked."""
    sts = sts_backends[account]["aws"]
    return sts.assume_role(
        region_name="us-east-1", role_session_name=name, role_arn=role_arn, policy="", duration=seconds, external_id=""
    )


def trusts(role: Any, action: str, kind: str, principals: set[str], context: Context) -> bool:
    """Whether a role's trust policy lets one of `principals` (of `kind` AWS or Federated) do `action`."""
    denied = allowed = False
    for statement in statements(role.assume_role_policy_document):
        wanted = statement.get("Principal", {})
        named = {"*"} if wanted == "*" else set(as_list(wanted.get(kind, [])))
        deny = statement.get("Effect") == "Deny"
        if named & principals and covers(statement, Question(action, role.arn, context), doubt=deny):
            denied, allowed = denied or deny, allowed or not deny
    return allowed and not denied


def claims(who: WebIdentity) -> Context:
    """A trust policy speaks of claims as `ISSUER:sub`, without the scheme."""
    issuer = who.issuer.removeprefix("https://").lower()
    return {f"{issuer}:sub": [who.subject], f"{issuer}:aud": [who.audience], "aws:federatedprovider": [who.provider]}


def _answer(operation: str, result: Mapping[str, Any], as_json: bool = False) -> Response:
    request_id = str(uuid.uuid4())
    if as_json:
        body = {f"{operation}Response": {f"{operation}Result": result, "ResponseMetadata": {"RequestId": request_id}}}
        return Response(json.dumps(body), 200, {"x-amzn-requestid": request_id}, content_type="application/json")
    text = (
        f'<{operation}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{operation}Result>{_xml(result)}</{operation}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
    )
    return Response(text, 200, {"x-amzn-requestid": request_id}, content_type="text/xml")


def _xml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"<{k}>{_xml(v)}</{k}>" for k, v in value.items())
    return escape(str(value))
