"""ECR's API in front of ministack, which keeps the repositories and serves the registry itself (`/v2/…`).

ministack 1.5.33 has one token for everybody and ever, lists without pages, leaves an image's size out, stays silent
about an image that is not there, deletes an image with any of its tags, and goes on serving what was deleted.
<https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_Operations.html>
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any

from moto.core.request import Request
from werkzeug.wrappers import Response

from call import Call
from fault import json_error
from identity import find
from tokens import Tokens

#: operation -> (member that holds the items, page size when none is asked for)
_PAGED = {
    "DescribeRepositories": ("repositories", "repositoryNames", 100),
    "DescribeImages": ("imageDetails", "imageIds", 100),
    "ListImages": ("imageIds", None, 100),
}


class Ecr:
    """One account's registry."""

    def __init__(self, account: str, region: str, tokens: Tokens, upstream: tuple[str, int]) -> None:
        self.account = account
        self.region = region
        self.tokens = tokens
        self.upstream = upstream

    def __call__(self, call: Call, request: Request) -> Response:
        if call.operation == "GetAuthorizationToken":
            return self.get_authorization_token(call)
        owner = call.params.get("registryId", self.account)
        name = call.params.get("repositoryName")
        if owner != self.account and name:
            return json_error("RepositoryNotFoundException", missing_repository(name, owner))
        if call.operation == "BatchDeleteImage":
            return self.batch_delete_image(request)
        if call.operation == "DeleteRepository" and call.params.get("force"):
            self._empty(request, str(name))
        status, body = self._ask(request)
        if status != 200:
            return _reworded(status, body, self.account)
        if call.operation in _PAGED:
            return self._paged(call, body)
        return _json(body)

    def get_authorization_token(self, call: Call) -> Response:
        """A token that is good for twelve hours, for what the caller may do."""
        assert call.credential is not None, "the gateway refuses unsigned calls"
        password, expires_at = self.tokens.issue(find(self.account, call.credential).arn, call.credential)
        grant = {
            "authorizationToken": base64.b64encode(f"AWS:{password}".encode()).decode(),
            "expiresAt": expires_at,
            "proxyEndpoint": f"https://{self.account}.dkr.ecr.{self.region}.amazonaws.com",
        }
        return _json({"authorizationData": [grant]})

    def batch_delete_image(self, request: Request) -> Response:
        """A tag goes alone while the image has another; an image goes with all its tags, and is served no more."""
        asked = json.loads(request.get_data(cache=True))
        images, kept, untagged = self._images(request, asked["repositoryName"]), [], []
        for wanted in asked["imageIds"]:
            tag, image = wanted.get("imageTag"), next((i for i in images if _is(wanted, i)), None)
            if image and tag and image["imageTags"] != [tag]:
                self._untag(request, asked["repositoryName"], tag)
                image["imageTags"].remove(tag)
                untagged.append({"imageDigest": image["imageDigest"], "imageTag": tag})
            else:
                kept.append(wanted)
        status, body = self._ask(request, "BatchDeleteImage", {**asked, "imageIds": kept})
        if status != 200:
            return _reworded(status, body, self.account)
        for image in body["imageIds"]:
            self._registry("DELETE", f"{asked['repositoryName']}/manifests/{image['imageDigest']}")
        return _json({**body, "imageIds": untagged + body["imageIds"]})

    def _untag(self, request: Request, name: str, tag: str) -> None:
        """ministack can move a tag, to an image that then goes with it."""
        _, answer = self._ask(request, "DescribeRepositories", {"repositoryNames": [name]})
        mutability = answer["repositories"][0]["imageTagMutability"]
        steps: list[tuple[str, dict[str, Any]]] = [
            ("PutImageTagMutability", {"imageTagMutability": "MUTABLE"}),
            ("PutImage", {"imageManifest": "{}", "imageTag": tag}),
            ("BatchDeleteImage", {"imageIds": [{"imageTag": tag}]}),
            ("PutImageTagMutability", {"imageTagMutability": mutability}),
        ]
        for operation, members in steps:
            self._ask(request, operation, {"repositoryName": name, **members})

    def _empty(self, request: Request, name: str) -> None:
        """Nothing of a deleted repository is there when one of the same name is made."""
        for image in self._images(request, name):
            manifest = self._manifest(image)
            for part in [manifest.get("config", {}), *manifest.get("layers", [])]:
                self._registry("DELETE", f"{name}/blobs/{part.get('digest')}")
            self._registry("DELETE", f"{name}/manifests/{image['imageDigest']}")

    def _images(self, request: Request, name: str) -> list[dict[str, Any]]:
        _, answer = self._ask(request, "DescribeImages", {"repositoryName": name})
        return list(answer.get("imageDetails", []))

    def _paged(self, call: Call, body: dict[str, Any]) -> Response:
        member, selector, default = _PAGED[str(call.operation)]
        items, wanted = body[member], call.params.get(selector or "") or []
        if call.operation == "DescribeImages":
            for image in wanted:
                if not any(_is(image, i) for i in items):
                    return json_error(
                        "ImageNotFoundException", _missing_image(image, call.params["repositoryName"], self.account)
                    )
            items = [self._sized(i) for i in items]
        start = int(base64.b64decode(call.params["nextToken"])) if "nextToken" in call.params else 0
        end = len(items) if wanted else start + int(call.params.get("maxResults", default))
        page: dict[str, Any] = {member: items[start:end]}
        if end < len(items):
            page["nextToken"] = base64.b64encode(str(end).encode()).decode()
        return _json(page)

    def _sized(self, image: dict[str, Any]) -> dict[str, Any]:
        """An image is as large as its configuration and layers together; the manifest tells."""
        manifest = self._manifest(image)
        parts = [manifest.get("config", {}), *manifest.get("layers", []), *manifest.get("manifests", [])]
        return {**image, "imageSizeInBytes": sum(int(p.get("size", 0)) for p in parts)}

    def _manifest(self, image: dict[str, Any]) -> dict[str, Any]:
        path, kind = f"{image['repositoryName']}/manifests/{image['imageDigest']}", image["imageManifestMediaType"]
        return self._registry("GET", path, {"Accept": kind})

    def _registry(self, method: str, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        host = f"{self.account}.dkr.ecr.{self.region}.amazonaws.com"
        return self._send(method, f"/v2/{path}", {"Host": host, **(headers or {})}, b"")[1]

    def _ask(
        self, request: Request, operation: str | None = None, members: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Passes a call on, or makes another in the same name."""
        kept = ("Authorization", "X-Amz-Target", "X-Amz-Date", "Content-Type", "Host")
        headers = {k: request.headers[k] for k in kept if k in request.headers}
        if operation is not None:
            headers["X-Amz-Target"] = f"{headers['X-Amz-Target'].split('.')[0]}.{operation}"
        # The whole list is wanted; the pages are made here.
        asked = members if members is not None else json.loads(request.get_data(cache=True) or b"{}")
        body = {k: v for k, v in asked.items() if k not in ("maxResults", "nextToken")}
        return self._send("POST", "/", headers, json.dumps(body).encode())

    def _send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(*self.upstream, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()


def missing_repository(name: str, registry: str) -> str:
    """ECR's words."""
    return f"The repository with name '{name}' does not exist in the registry with id '{registry}'"


def _missing_image(image: dict[str, Any], repository: str, registry: str) -> str:
    inside = f"imageDigest:'{image.get('imageDigest', 'null')}', imageTag:'{image.get('imageTag', 'null')}'"
    return f"The image with imageId {{{inside}}} does not exist within the repository with name '{repository}' in the registry with id '{registry}'"


def _is(wanted: dict[str, Any], image: dict[str, Any]) -> bool:
    tag, digest = wanted.get("imageTag"), wanted.get("imageDigest")
    return (tag is None or tag in image.get("imageTags", [])) and (digest is None or digest == image["imageDigest"])


def _reworded(status: int, body: dict[str, Any], registry: str) -> Response:
    """Says which registry, as ECR does."""
    code, message = str(body.get("__type", "ServerException")), str(body.get("message") or body.get("Message") or "")
    endings = {"does not exist": True, "already exists": True}
    if code.startswith("Repository") and any(message.endswith(e) for e in endings):
        message += f" in the registry with id '{registry}'"
    elif code == "RepositoryNotEmptyException":
        message = message.replace(
            "is not empty", f"in registry with id '{registry}' cannot be deleted because it still contains images"
        )
    return json_error(code, message, status)


def _json(body: dict[str, Any]) -> Response:
    return Response(json.dumps(body), 200, content_type="application/x-amz-json-1.1")
