"""ECR authorization tokens: what opens the registry for twelve hours, in the name of whoever asked.

A token is checked again at each use, so taking a policy away closes the registry at once.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass

from werkzeug.wrappers import Response

from call import Credential

#: Seconds, <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>
LIFETIME = 12 * 60 * 60


@dataclass(frozen=True)
class Token:
    """One token; `credential` is the key it was asked for with."""

    caller: str
    credential: Credential
    expires_at: float

    @property
    def expired(self) -> bool:
        """Whether its twelve hours are over."""
        return time.time() >= self.expires_at


class Tokens:
    """All tokens of this run, by password."""

    def __init__(self, lifetime: float = LIFETIME) -> None:
        self.lifetime = lifetime
        self._tokens: dict[str, Token] = {}

    def issue(self, caller: str, credential: Credential) -> tuple[str, float]:
        """A new password for the user `AWS`, and when it expires (seconds since the epoch)."""
        expires_at = time.time() + self.lifetime
        inside = {
            "payload": secrets.token_urlsafe(96),
            "version": "2",
            "type": "DATA_KEY",
            "expiration": int(expires_at),
        }
        password = base64.b64encode(json.dumps(inside).encode()).decode()
        self._tokens[password] = Token(caller, credential, expires_at)
        return password, expires_at

    def find(self, password: str) -> Token | None:
        """The token, expired or not; None when it was never issued."""
        return self._tokens.get(password)


def registry_action(method: str, path: str) -> tuple[str | None, str]:
    """The IAM action and repository of a registry request; no action for the version check.

    <https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html>
    """
    pieces = path.removeprefix("/v2").strip("/").split("/")
    for word in ("manifests", "blobs", "tags"):
        if word in pieces[1:]:
            at = len(pieces) - 1 - pieces[::-1].index(word)
            name, upload = "/".join(pieces[:at]), pieces[at + 1 : at + 2] == ["uploads"]
            actions = {
                ("manifests", "PUT"): "PutImage",
                ("manifests", "DELETE"): "BatchDeleteImage",
                ("manifests", "GET"): "BatchGetImage",
                ("manifests", "HEAD"): "BatchGetImage",
                ("tags", "GET"): "ListImages",
                ("blobs", "HEAD"): "BatchCheckLayerAvailability",
                ("blobs", "GET"): "GetDownloadUrlForLayer",
            }
            uploads = {"POST": "InitiateLayerUpload", "PATCH": "UploadLayerPart", "PUT": "CompleteLayerUpload"}
            action = uploads.get(method, "UploadLayerPart") if upload else actions.get((word, method), "PutImage")
            return f"ecr:{action}", name
    return (None, "") if pieces == [""] else ("ecr:DescribeRepositories", "*")


def registry_unauthorized(host: str) -> Response:
    """The challenge that makes a client log in."""
    headers = {
        "Docker-Distribution-Api-Version": "registry/2.0",
        "WWW-Authenticate": f'Basic realm="https://{host}/",service="ecr.amazonaws.com"',
    }
    return Response("Not Authorized\n", 401, headers, content_type="text/plain; charset=utf-8")


def registry_refusal(message: str) -> Response:
    """The registry protocol's own error object."""
    body = json.dumps({"errors": [{"code": "DENIED", "message": message}]})
    return Response(body, 403, {"Docker-Distribution-Api-Version": "registry/2.0"}, content_type="application/json")
