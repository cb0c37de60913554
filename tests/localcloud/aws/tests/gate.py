"""A region for tests: the APIs behind their access control, in this process, with ministack when ECR is wanted.

Clients speak to the real host names, which resolve to a gate that does what the gateway does.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import cloudmap_state
import server
from account import seed
from authz import Authorizer
from call import buffered, registry_of, rewind
from clock import Clock
from faults import Faults
from region import ACCOUNT, REGION, clusters

HOSTS = {
    "iam": "iam.amazonaws.com",
    "route53": "route53.amazonaws.com",
    "ecr": f"api.ecr.{REGION}.amazonaws.com",
}
_resolve = socket.getaddrinfo


class Gate:
    """Asks the access control, then passes on; the registry's part goes to ministack."""

    def __init__(self, apis: server.Apis, authorizer: Authorizer, ecr_port: int) -> None:
        self.apis = apis
        self.authorizer = authorizer
        self.ecr_port = ecr_port

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = buffered(environ)
        registry = registry_of(request.host)
        answer = self.authorizer.registry(request) if registry else self.authorizer.api(request)
        if answer.status_code != 200:
            return answer(environ, start_response)
        if not registry:
            rewind(environ)
            return self.apis(environ, start_response)
        upstream = http.client.HTTPConnection("127.0.0.1", self.ecr_port)
        upstream.request(request.method, request.full_path, request.get_data(), dict(request.headers))
        got = upstream.getresponse()
        start_response(
            f"{got.status} {got.reason}",
            [(k, v) for k, v in got.getheaders() if k.lower() not in ("connection", "transfer-encoding")],
        )
        return [got.read()]


class Region:
    """One per process: moto's state is global."""

    _only: Region | None = None

    def __init__(self) -> None:
        # Long enough to be seen, short enough for many tests.
        cloudmap_state.PENDING.update(dict.fromkeys(cloudmap_state.PENDING, 0.5))
        self.state = Path(tempfile.mkdtemp(prefix="localcloud-aws-"))
        self.ecr_port = _free_port()
        self.clusters = clusters(self.state)
        apis, authorizer, self.agent = server.applications(self.clusters, self.ecr_port, self.state, Faults(self.state))
        clock = Clock(self.state)
        self.port = server.serve(Gate(apis, authorizer, self.ecr_port), 0, clock).server_port
        self.account = seed(self.clusters, f"http://127.0.0.1:{server.serve(apis, 0, clock).server_port}")
        self.ministack: subprocess.Popen[bytes] | None = None
        socket.getaddrinfo = self._getaddrinfo  # type: ignore[assignment]

    @classmethod
    def get(cls) -> Region:
        """The one of this process."""
        cls._only = cls._only or cls()
        return cls._only

    def _getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        ours = str(host).endswith(".amazonaws.com")
        return _resolve("127.0.0.1" if ours else host, self.port if ours else port, *args, **kwargs)

    def client(self, service: str, keys: dict[str, str] | None = None, config: Config | None = None) -> Any:
        """A client of the operator, or of whose keys these are."""
        k = keys or self.account["operator"]
        host = HOSTS.get(service, f"{service}.{REGION}.amazonaws.com")
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=f"http://{host}",
            aws_access_key_id=k["accessKeyId"],
            aws_secret_access_key=k["secretAccessKey"],
            aws_session_token=k.get("sessionToken"),
            config=Config(retries={"total_max_attempts": 1}).merge(config or Config()),
        )

    def start_ministack(self) -> None:
        """For the tests of ECR."""
        if self.ministack is not None:
            return
        env = {
            "BIND_HOST": "127.0.0.1",
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            "SFTP_ENABLED": "0",
            "GATEWAY_PORT": str(self.ecr_port),
        }
        program = Path(sys.executable).with_name("ministack")
        self.ministack = subprocess.Popen(
            [program], env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        unittest.addModuleCleanup(self.stop_ministack)
        wait_for(lambda: _answers(self.ecr_port), 60)

    def stop_ministack(self) -> None:
        """After the last test of ECR."""
        if self.ministack is not None:
            self.ministack.kill()
            self.ministack.wait()
            self.ministack = None


class Case(unittest.TestCase):
    """A test against the region."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.region = Region.get()

    def user(self, name: str, *statements: dict[str, Any]) -> dict[str, str]:
        """Keys of a new IAM user who may do just this."""
        iam = self.region.client("iam")
        iam.create_user(UserName=name)
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"accessKeyId": key["AccessKeyId"], "secretAccessKey": key["SecretAccessKey"]}

    def refused(self, call: Callable[..., Any], **params: Any) -> tuple[int, str, str]:
        """Status, code and message of an error there must be."""
        with self.assertRaises(ClientError) as caught:
            call(**params)
        answer = caught.exception.response
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def wait_for(fact: Callable[[], Any], seconds: float = 10) -> Any:
    """What `fact` gives once it is true."""
    end = time.monotonic() + seconds
    while not (value := fact()):
        if time.monotonic() > end:
            raise AssertionError(f"not so after {seconds} s")
        time.sleep(0.05)
    return value


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        connection.request("GET", "/_ministack/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
