"""The region's access control: an HTTP service that the gateway (Envoy `ext_authz`) asks about every call.

It gets each request with its path, headers and body, and answers 200 with `x-aws-action` and `x-aws-caller`, which
the gateway adds to its log, or the refusal AWS would send, which the gateway hands to the client.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from moto.core.request import Request
from werkzeug.wrappers import Response

import arn as arns
from call import Call, buffered, read, registry_of
from clock import Clock
from fault import Fault, Kind, refusal
from faults import TOO_MANY, Faults, met
from identity import Identity, find
from model import Violations
from policy import Context, Decision, Question, evaluate
from sigv4 import verify
from tokens import Tokens, registry_action, registry_refusal, registry_unauthorized

#: Calls that carry their own proof instead of a signature.
UNSIGNED = {"sts:AssumeRoleWithWebIdentity", "sts:AssumeRoleWithSAML"}
#: Every identity may ask who it is; no policy can take that away.
ALWAYS = {"sts:GetCallerIdentity"}
ANONYMOUS = "anonymous"
#: What Cloud Map does in its caller's name when it makes a private namespace.
#: <https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-api-permissions-ref.html>
#: And when it registers or deregisters an instance that has DNS records: `RECORDS`.
#: <https://docs.aws.amazon.com/cloud-map/latest/dg/access-control-managing-permissions.html>
HOSTED_ZONE = {
    "ec2:DescribeRegions": "*",
    "ec2:DescribeVpcs": "*",
    "route53:ListHostedZonesByName": "*",
    "route53:CreateHostedZone": "*",
    "route53:GetHostedZone": "arn:aws:route53:::hostedzone/*",
}
RECORDS = "route53:ChangeResourceRecordSets"
#: The calls that hand a role to a service, and the service.
PASSES = dict.fromkeys(
    ("eks:CreatePodIdentityAssociation", "eks:UpdatePodIdentityAssociation"), "pods.eks.amazonaws.com"
)

StartResponse = Callable[..., Any]


class Authorizer:
    """One account's access control, as a WSGI application."""

    def __init__(self, account: str, tokens: Tokens, clock: Clock, violations: Violations, faults: Faults) -> None:
        self.account = account
        self.tokens = tokens
        self.clock = clock
        self.violations = violations
        self.faults = faults

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        request = buffered(environ)
        answer = self.registry(request) if registry_of(request.host) else self.api(request)
        return answer(environ, start_response)

    def api(self, request: Request) -> Response:
        """A call of an AWS API."""
        if request.host.startswith("oidc.eks."):
            return allowed("oidc:Get", ANONYMOUS)
        call = read(request)
        caller = ANONYMOUS
        try:
            identity = self.identify(request, call)
            if identity is not None:
                caller = identity.arn
                self.permit(identity, call)
        except Fault as fault:
            return named(refusal(fault, call.service, call.protocol), call.action, caller)
        return allowed(call.action, caller)

    def identify(self, request: Request, call: Call) -> Identity | None:
        """Who signed; None for a call that needs no signature. Raises `Fault`."""
        if call.operation is None:
            message = f"Could not find operation in {call.service or request.host}"
            self.violations.add(call, message)
            raise Fault(Kind.NO_SUCH_ACTION, message)
        if call.action in UNSIGNED:
            return None
        if call.credential is None:
            raise Fault(Kind.MISSING_TOKEN, "Request is missing Authentication Token")
        identity = find(self.account, call.credential)
        verify(request, call.credential, identity.secret, self.clock.now())
        return identity

    def permit(self, identity: Identity, call: Call) -> None:
        """Raises `Fault` unless the identity may do it to everything the call names, and tag it if the call says so."""
        if call.action in ALWAYS:
            return
        named, context = arns.of(call, self.account), context_of(identity, call)
        for arn in named:
            require(identity, Question(call.action, arn, context))
        if call.action in PASSES and "roleArn" in call.params:
            passed = {**context, "iam:passedtoservice": [PASSES[call.action]]}
            require(identity, Question("iam:PassRole", str(call.params["roleArn"]), passed))
        if tagging := tags_with(call):
            for arn in arns.tagged(call, self.account) or named:
                require(identity, Question(tagging, arn, {**context, "ec2:createaction": [call.operation or ""]}))

    def registry(self, request: Request) -> Response:
        """A call of the registry's own protocol (`/v2/…`), which a token of GetAuthorizationToken opens."""
        match = registry_of(request.host)
        action, repository = registry_action(request.method, request.path)
        basic = request.authorization
        token = (
            self.tokens.find(basic.password or "")
            if basic and basic.type == "basic" and basic.username == "AWS"
            else None
        )
        if match is None or token is None:
            return named(registry_unauthorized(request.host), action or "ecr:Ping", ANONYMOUS)
        if token.expired:
            expired = registry_refusal("Your authorization token has expired. Reauthenticate and try again.")
            return named(expired, action or "ecr:Ping", token.caller)
        try:
            arn = arns.repository(match["region"], match["account"], repository)
            # A blob in one piece comes with the request that completes it.
            parts = ["ecr:UploadLayerPart"] if action == "ecr:CompleteLayerUpload" else []
            for needed in [*parts, action] if action else []:
                require(find(self.account, token.credential), Question(needed, arn))
        except Fault as fault:
            return named(registry_refusal(fault.message), action or "ecr:Ping", token.caller)
        name = (action or "ecr:Ping").replace("ecr:", "registry:")
        rule = self.faults.strike(met(name, request.headers.get("User-Agent", "")))
        if rule is not None:
            refused = rule.refusal(registry_fault, TOO_MANY)
            if rule.kind == "hold-before" and not rule.hold():
                refused = registry_fault("UNAVAILABLE", "the call was held and then dropped", 503)
            if refused is not None:
                return named(refused, action or "ecr:Ping", token.caller)
        return allowed(action or "ecr:Ping", token.caller)


def registry_fault(code: str, message: str, status: int) -> Response:
    """An error in the words of the OCI distribution specification."""
    body = json.dumps({"errors": [{"code": code.upper(), "message": message}]})
    return Response(body, status, content_type="application/json")


def allowed(action: str, caller: str) -> Response:
    """Go on."""
    return named(Response("", 200), action, caller)


def named(answer: Response, action: str, caller: str) -> Response:
    """With what the gateway logs."""
    answer.headers["x-aws-action"] = action
    answer.headers["x-aws-caller"] = caller
    return answer


def require(identity: Identity, question: Question) -> None:
    """Raises `Fault` with AWS's wording unless the identity may do it."""
    decision = evaluate(identity.policies, question)
    reason = f"because no identity-based policy allows the {question.action} action"
    if decision is Decision.ALLOW and identity.boundary is not None:
        decision = evaluate([identity.boundary], question)
        reason = f"because no permissions boundary allows the {question.action} action"
    if decision is Decision.EXPLICIT_DENY:
        reason = "with an explicit deny in an identity-based policy"
    if decision is not Decision.ALLOW:
        raise Fault(
            Kind.DENIED,
            f"User: {identity.arn} is not authorized to perform: {question.action} on resource: {question.resource} {reason}",
        )


def tags_with(call: Call) -> str | None:
    """The action that a call needs besides its own, for the tags that it brings along for what it makes."""
    if call.service == "ec2":
        return "ec2:CreateTags" if call.params.get("TagSpecifications") else None
    operation = call.operation or ""
    if not operation.startswith("Create") or not (call.params.get("Tags") or call.params.get("tags")):
        return None
    return f"iam:{operation.replace('Create', 'Tag', 1)}" if call.service == "iam" else f"{call.service}:TagResource"


def hosted_zone_refusal(account: str, call: Call, zone: str | None) -> str | None:
    """Why Cloud Map can't make a hosted zone, or change the records of `zone`, in the name of who called."""
    needed = HOSTED_ZONE if call.operation == "CreatePrivateDnsNamespace" else {}
    if zone is not None:
        needed = {RECORDS: f"arn:aws:route53:::hostedzone/{zone}"}
    if call.credential is None or not needed:
        return None
    try:
        identity = find(account, call.credential)
        for action, resource in needed.items():
            require(identity, Question(action, resource, context_of(identity, call)))
    except Fault as fault:
        return fault.message
    return None


def context_of(identity: Identity, call: Call) -> Context:
    """The global condition keys that are known here, and the tags a request brings."""
    context = {
        "aws:principalarn": [identity.arn],
        "aws:principalaccount": [identity.account],
        "aws:userid": [identity.user_id],
        "aws:requestedregion": [call.region or ""],
        "aws:securetransport": ["true"],
    }
    tags = call.params.get("Tags") or call.params.get("tags") or []
    pairs = (
        tags.items()
        if isinstance(tags, dict)
        else [(t.get("Key"), t.get("Value")) for t in tags if isinstance(t, dict)]
    )
    for key, value in pairs:
        context[f"aws:requesttag/{str(key).lower()}"] = [str(value)]
        context.setdefault("aws:tagkeys", []).append(str(key))
    return context
