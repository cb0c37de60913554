"""The way to a cluster's API server through faults: plain HTTP on a port of the loopback interface, every right.

A tool that is to meet faults takes it by a kubeconfig whose server is `http://127.0.0.1:PORT`. Watches pass as they come.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

from faults import TOO_MANY, Faults, Met
from region import Cluster

_HOP = {"connection", "host", "keep-alive", "transfer-encoding", "upgrade", "content-length"}
_READS = ("GET", "HEAD", "OPTIONS")


class ApiServer:
    """Passes on, as the cluster's administrator."""

    def __init__(self, cluster: Cluster, faults: Faults) -> None:
        self.cluster = cluster
        self.faults = faults
        self.host = urlsplit(cluster.endpoint).netloc
        self._tls: ssl.SSLContext | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        action = f"{self.cluster.name}:{request.method} {request.path}"
        writes = request.method not in _READS and "dryRun" not in request.args and not request.path.endswith("reviews")
        met = Met(action, request.headers.get("User-Agent", ""), writes)
        body = request.get_data()
        through = self.faults.around(met, refuse, TOO_MANY, lambda _, start: self.pass_on(request, body, start))
        return through(environ, start_response)

    def pass_on(self, request: Request, body: bytes, start_response: Callable[..., Any]) -> Iterable[bytes]:
        upstream = http.client.HTTPSConnection(self.host, context=self.tls())
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        # As it came: WSGI's own path is decoded.
        upstream.request(request.method, request.environ["REQUEST_URI"], body or None, headers)
        answer = upstream.getresponse()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP or k.lower() == "content-length"]
        start_response(f"{answer.status} {answer.reason}", kept)
        return _pieces(answer, upstream)

    def tls(self) -> ssl.SSLContext:
        """With the administrator's certificate, which lies there once the cluster is made."""
        if self._tls is None:
            pki = self.cluster.folder / "pki"
            context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
            self._tls = context
        return self._tls


def _pieces(answer: http.client.HTTPResponse, upstream: http.client.HTTPSConnection) -> Iterator[bytes]:
    try:
        while piece := answer.read1(1 << 16):
            yield piece
    finally:
        upstream.close()


def refuse(reason: str, message: str, status: int) -> Response:
    """An error in Kubernetes' words."""
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": status,
    }
    return Response(json.dumps(body), status, content_type="application/json")
