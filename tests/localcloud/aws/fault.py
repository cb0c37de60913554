"""An AWS error in the shape of the service's protocol, as the SDKs expect it on the wire.

| protocol | where the code is | status of a refusal |
| --- | --- | --- |
| query (IAM, STS) | `<ErrorResponse><Error><Code>` | 403 |
| ec2 | `<Response><Errors><Error><Code>` | 403, 401 for a bad key |
| json (Cloud Map, ECR) | `__type` | 400 |
| rest-json (EKS) | header `x-amzn-errortype` | 403 |
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from enum import Enum
from xml.sax.saxutils import escape

from werkzeug.wrappers import Response

_NAMESPACE = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}


class Kind(Enum):
    """Why a call is refused before the service sees it: (query code, json code, EC2 code)."""

    DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
    MISSING_TOKEN = ("MissingAuthenticationToken", "MissingAuthenticationTokenException", "MissingAuthenticationToken")
    UNKNOWN_KEY = ("InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure")
    EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
    BAD_SIGNATURE = ("SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure")
    INVALID = ("ValidationError", "ValidationException", "InvalidParameterValue")
    NO_SUCH_ACTION = ("InvalidAction", "UnknownOperationException", "InvalidAction")


_BAD_REQUESTS = (Kind.INVALID, Kind.NO_SUCH_ACTION)


class Fault(Exception):
    """A refusal, still without a protocol."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def refusal(fault: Fault, service: str | None, protocol: str) -> Response:
    """`fault` as `service` would send it."""
    query, json_code, ec2 = fault.kind.value
    if protocol == "ec2":
        unknown = fault.kind in (Kind.UNKNOWN_KEY, Kind.BAD_SIGNATURE, Kind.MISSING_TOKEN)
        return ec2_error(ec2, fault.message, 400 if fault.kind in _BAD_REQUESTS else 401 if unknown else 403)
    if protocol in ("query", "rest-xml"):
        return query_error(service or "", query, fault.message, 400 if fault.kind in _BAD_REQUESTS else 403)
    if protocol == "rest-json":
        return rest_json_error(json_code, fault.message, 400 if fault.kind in _BAD_REQUESTS else 403)
    return json_error(json_code, fault.message)


def in_protocol(service: str, protocol: str, code: str, message: str, status: int) -> Response:
    """Any error as `service` would send it."""
    if protocol == "ec2":
        return ec2_error(code, message, status)
    if protocol in ("query", "rest-xml"):
        return query_error(service, code, message, status)
    if protocol == "rest-json":
        return rest_json_error(code, message, status)
    return json_error(code, message, status)


def ec2_error(code: str, message: str, status: int = 400) -> Response:
    """EC2's own XML."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error></Errors>"
        f"<RequestID>{uuid.uuid4()}</RequestID></Response>"
    )
    return Response(body, status, content_type="text/xml;charset=UTF-8")


def query_error(service: str, code: str, message: str, status: int = 400) -> Response:
    """The query protocol's XML."""
    request_id = str(uuid.uuid4())
    body = (
        f'<ErrorResponse xmlns="{_NAMESPACE.get(service, "")}"><Error><Type>Sender</Type><Code>{escape(code)}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return Response(body, status, {"x-amzn-requestid": request_id}, content_type="text/xml")


def json_error(code: str, message: str, status: int = 400, members: Mapping[str, str] | None = None) -> Response:
    """JSON 1.1: the code is in the body; `members` are further members of the error's shape."""
    body = json.dumps({"__type": code, "Message": message, "message": message, **(members or {})})
    return Response(body, status, {"x-amzn-requestid": str(uuid.uuid4())}, content_type="application/x-amz-json-1.1")


def rest_json_error(code: str, message: str, status: int = 400) -> Response:
    """REST JSON: the code is in a header."""
    headers = {"x-amzn-requestid": str(uuid.uuid4()), "x-amzn-errortype": code}
    return Response(json.dumps({"message": message}), status, headers, content_type="application/json")
