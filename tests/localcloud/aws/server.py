"""The AWS APIs of the local region: IAM, STS, EKS and EC2 by moto, Cloud Map and STS's trust by this folder, ECR by ministack.

    python server.py --state STATE [--port 5555] [--authz-port 5556] [--ecr-port 4566]

Two services on 127.0.0.1: the APIs, and the access control that the gateway asks about every call (`authz.py`).
Every cluster's API server is also to be had through faults (`faults.py`), on 127.0.0.1 port 5560 + its number.
STATE/account.json appears when both serve and the account is laid down; nobody needs to ask again.
The APIs themselves ask for no permission: only the gateway may be reachable for others.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from region import ACCOUNT, REGION

# moto reads these when it is imported.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "true"

from moto.core import responses
from moto.core.request import Request
from moto.core.utils import method_names_from_class
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response

import account
import ec2
import eks
import region
from apiserver import ApiServer
from authz import Authorizer, hosted_zone_refusal
from call import Call, buffered, read, rewind, warm
from clock import Clock
from cloudmap import CloudMap
from cloudmap_state import InstanceDelay, State
from ecr import Ecr
from faults import Faults
from hostedzone import HostedZones
from iam import Iam
from keepalive import KeepAlive
from model import Violations, check, refuse
from podidentity import ADDRESS, Agent, PodIdentity
from route53 import Route53
from sts import Sts
from tokens import Tokens

Handler = Callable[[Call, Request], Response | None]
#: The first cluster's API server is on the port after this one.
API_SERVERS = 5560


class Moto(DomainDispatcherApplication):
    """moto guesses the service from the signature; here the gateway keeps the host, which says it."""

    def __init__(self, create_app: Callable[..., Any]) -> None:
        super().__init__(create_app)
        # For each call, moto would list its modules on disk, try a hundred patterns and inspect what its classes have.
        self.get_backend_for_host = functools.cache(super().get_backend_for_host)
        responses.method_names_from_class = functools.cache(method_names_from_class)

    def infer_service_region_host(self, environ: dict[str, Any], path: str) -> str | None:
        host: str = environ.get("HTTP_HOST", "")
        return host if host.endswith(".amazonaws.com") else super().infer_service_region_host(environ, path)


class Apis:
    """Sends a call to whoever answers it."""

    def __init__(
        self, clusters: list[region.Cluster], handlers: dict[str, Handler], violations: Violations, faults: Faults
    ) -> None:
        self.clusters = clusters
        self.handlers = handlers
        self.violations = violations
        self.faults = faults
        self.moto = Moto(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = buffered(environ)
        if request.host.startswith("oidc.eks."):
            return eks.issuer_document(self.clusters, request.host, request.path)(environ, start_response)
        call = read(request)
        agent = request.headers.get("User-Agent", "")
        carry_out = self.faults.around_api(call, agent, lambda e, start: self.carry_out(call, request, e, start))
        return carry_out(environ, start_response)

    def carry_out(
        self, call: Call, request: Request, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """By our own hand where moto lacks something, else by moto's."""
        if fault := check(call):
            self.violations.add(call, fault)
            return refuse(call, fault)(environ, start_response)
        handler = self.handlers.get(call.service or "")
        answer = handler(call, request) if handler else None
        if answer is not None:
            return answer(environ, start_response)
        rewind(environ)
        return self.moto(environ, start_response)


def serve(app: Any, port: int, clock: Clock, host: str = "127.0.0.1") -> BaseWSGIServer:
    """Answers in a thread of its own, with the region's time as `Date`."""

    class RequestHandler(KeepAlive):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(clock.now().timestamp() if timestamp is None else timestamp)

    server = make_server(host, port, app, threaded=True, request_handler=RequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def applications(
    clusters: list[region.Cluster], ecr_port: int, state: Path, faults: Faults
) -> tuple[Apis, Authorizer, Agent]:
    """The APIs of a region that holds nothing yet, its access control, and what gives pods credentials."""
    tokens, violations = Tokens(), Violations(state)
    eks.install(clusters)
    ec2.install()
    zones = HostedZones(ACCOUNT, REGION)
    instances = State(ACCOUNT, REGION, instance_delay=InstanceDelay(state))
    cloudmap = CloudMap(instances, zones, lambda call, zone: hosted_zone_refusal(ACCOUNT, call, zone))
    keys, pods = eks.issuer_keys(clusters), PodIdentity(ACCOUNT, REGION)
    handlers: dict[str, Handler] = {
        "eks": pods,
        "servicediscovery": lambda call, _: cloudmap(call),
        "ecr": Ecr(ACCOUNT, REGION, tokens, ("127.0.0.1", ecr_port)),
        "route53": Route53(cloudmap.state),
        "sts": Sts(ACCOUNT, keys),
        "iam": Iam(ACCOUNT),
    }
    authorizer = Authorizer(ACCOUNT, tokens, Clock(state), violations, faults)
    return Apis(clusters, handlers, violations, faults), authorizer, Agent(pods, clusters, keys)


def main(argv: list[str]) -> int:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--authz-port", type=int, default=5556)
    parser.add_argument("--ecr-port", type=int, default=4566)
    parser.add_argument("--two-vpcs", action="store_true")
    args = parser.parse_args(argv)
    clusters = region.clusters(args.state)
    faults = Faults(args.state)
    apis, authorizer, agent = applications(clusters, args.ecr_port, args.state, faults)
    clock = Clock(args.state)
    serve(apis, args.port, clock)
    serve(authorizer, args.authz_port, clock)
    serve(agent, 80, clock, ADDRESS)
    for cluster in clusters:
        serve(ApiServer(cluster, faults), API_SERVERS + cluster.number, clock)
    made = account.seed(clusters, f"http://127.0.0.1:{args.port}", args.two_vpcs)
    account.write(args.state / "account.json", made)
    warm([*apis.handlers, "ec2"])
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    # Before any thread starts, so that all of them leave the signals to sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main(sys.argv[1:]))
