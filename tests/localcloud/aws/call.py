"""One AWS API call as a client sent it: which service and operation, with what parameters, signed by which key.

The service is the endpoint's (host name), else the credential scope's; the operation is found from the service's
own model as botocore ships it, so a call that no AWS service has cannot be named by accident.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import UnknownServiceError
from moto.core.model import OperationModel
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from werkzeug.exceptions import NotFound

from wire import parameters

#: `service[.region].amazonaws.com`; a region is two letters, words and a digit.
_HOST = re.compile(r"(?P<prefix>.+?)(?:\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d))?\.amazonaws\.com(?:\.cn)?")
_REGISTRY = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com")
_ENDPOINT_SERVICE = {"api.ecr": "ecr", "data-servicediscovery": "servicediscovery"}


@dataclass(frozen=True)
class Credential:
    """Who signed, and how far the signature reaches (Signature Version 4)."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    #: `X-Amz-Date`, basic ISO 8601 in UTC
    timestamp: str
    session_token: str | None


@dataclass(frozen=True)
class Call:
    """`service` is the IAM prefix; `operation` is None when the model has no such call."""

    service: str | None
    region: str | None
    operation: str | None
    protocol: str
    credential: Credential | None
    params: dict[str, Any] = field(default_factory=dict)
    model: OperationModel | None = None
    #: what of the request the model has no place for, in words
    strange: tuple[str, ...] = ()

    @property
    def action(self) -> str:
        """`service:Operation`, as IAM policies spell it."""
        return f"{self.service or 'unknown'}:{self.operation or 'Unknown'}"


def buffered(environ: dict[str, Any]) -> Request:
    """The request with its body kept, and rewound so that the next application can read it again.

    Kept before anything parses a form, which would use the body up and spoil the hash of it.
    """
    request = Request(environ)
    body = request.get_data(cache=True, parse_form_data=False)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return request


def rewind(environ: dict[str, Any]) -> None:
    """Makes a body that `buffered` has read readable once more."""
    environ["wsgi.input"].seek(0)


def registry_of(host: str) -> re.Match[str] | None:
    """The account and region of a registry host, `ACCOUNT.dkr.ecr.REGION.amazonaws.com`."""
    return _REGISTRY.fullmatch(host.split(":", maxsplit=1)[0].lower())


def read(request: Request) -> Call:
    """Names the call in `request`, which must come from `buffered`."""
    credential = _credential(request)
    match = _HOST.fullmatch(request.host.split(":")[0].lower())
    service = _ENDPOINT_SERVICE.get(match["prefix"], match["prefix"]) if match else None
    service = service or (credential.service if credential else None)
    region = (match["region"] if match else None) or (credential.region if credential else None)
    model = _model(service) if service else None
    if service is None or model is None:
        return Call(service, region, None, "json", credential)
    protocol = determine_request_protocol(model, request.content_type)
    try:
        operation, uri_params = get_service_router(service).match(request)
    except NotFound:
        return Call(service, region, None, protocol, credential)
    params, strange = parameters(request, protocol, operation, uri_params)
    return Call(service, region, operation.name, protocol, credential, params, operation, strange)


def warm(services: Iterable[str]) -> None:
    """Reads the models, so that no call waits for it; the first ones at the same time would each read their own."""
    for service in services:
        get_service_router(service)


def _model(service: str) -> Any:
    try:
        return get_service_model(service)
    except UnknownServiceError:
        return None


def _credential(request: Request) -> Credential | None:
    header = request.headers.get("Authorization", "")
    if header.startswith("AWS4-HMAC-SHA256 "):
        parts = dict(p.strip().split("=", 1) for p in header.split(" ", 1)[1].split(",") if "=" in p)
        return _scoped(
            parts.get("Credential", ""),
            parts.get("SignedHeaders", ""),
            parts.get("Signature", ""),
            request.headers.get("X-Amz-Date", ""),
            request.headers.get("X-Amz-Security-Token"),
        )
    query = {k.lower(): v for k, v in request.args.items()}
    if "x-amz-credential" in query:
        return _scoped(
            query["x-amz-credential"],
            query.get("x-amz-signedheaders", ""),
            query.get("x-amz-signature", ""),
            query.get("x-amz-date", ""),
            query.get("x-amz-security-token"),
        )
    return None


def _scoped(scope: str, headers: str, signature: str, timestamp: str, token: str | None) -> Credential | None:
    pieces = scope.split("/")
    if len(pieces) != 5:
        return None
    access_key, date, region, service, _ = pieces
    return Credential(access_key, date, region, service, tuple(headers.split(";")), signature, timestamp, token)
