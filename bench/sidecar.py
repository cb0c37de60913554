"""Measures what an Envoy of the mesh costs.

    python3 bench/sidecar.py [--rounds 5] [--requests 20000] [--services 100 1000] [--bin target/…/release]

In one local cloud in which the flow has run, a pod of cluster 1 asks two pods of cluster 2 through two Envoys: once as the
mesh configures them, once with a static configuration written by hand, without access to any control plane. Both are asked by
turns. Then the memory and the CPU time of the mesh's Envoy are read while more and more VirtualServices are made that its
pod does not call. Leaves `bench/results/sidecar.json`. Needs what `make demo` needs.
"""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from flow import ROOT, Cloud, command, cpu_seconds, options, release, tell

RESULTS = ROOT / "bench" / "results" / "sidecar.json"
ENVOY = "docker.io/envoyproxy/envoy:v1.40.0"
URL = "http://colorapp.k8multi.svc.cluster.local:8080/"
CONCURRENCY = (1, 64)
# How long the Envoy is looked at, at each number of services, and how long it may take to hear of them before.
WINDOW, SETTLING = 30, 15

TYPES = "type.googleapis.com/envoy.extensions.filters"


def http(name: str, cluster: str) -> dict[str, Any]:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]
    config = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"}}],
    }
    return {"name": "http", "typed_config": config}


def envoy(port: int, addresses: list[str]) -> dict[str, Any]:
    """The configuration of an Envoy that sends all that comes to one port to port 8080 of these addresses."""
    endpoints = [{"endpoint": {"address": {"socket_address": {"address": it, "port_value": 8080}}}} for it in addresses]
    listener = {"address": {"socket_address": {"address": "0.0.0.0", "port_value": port}}, "filter_chains": [{"filters": [http("all", "all")]}]}
    cluster = {"name": "all", "load_assignment": {"cluster_name": "all", "endpoints": [{"lb_endpoints": endpoints}]}}
    return {"static_resources": {"listeners": [{"name": "all", **listener}], "clusters": [cluster]}}


def pod(name: str, capture: str, config: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """A pod whose traffic goes through an Envoy with a configuration of its own."""
    variables = {"APPMESH_START_ENABLED": "1", "APPMESH_APP_PORTS": "8080", "APPMESH_EGRESS_IGNORED_IP": "169.254.169.254"}
    capturing = {
        "name": "proxyinit",
        "image": capture,
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "securityContext": {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}},
    }
    proxy = {
        "name": "envoy",
        "image": ENVOY,
        "command": ["envoy"],
        "args": ["--config-yaml", json.dumps(config)],
        "restartPolicy": "Always",
        "securityContext": {"runAsUser": 1337},
    }
    containers = [container | {"securityContext": {"runAsUser": 65532}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "static"},
        "spec": {"initContainers": [capturing, proxy], "containers": containers},
    }


class Clusters:
    """The two clusters of a cloud in which the flow has run."""

    def __init__(self, cloud: Cloud, binaries: Path, documents: Path) -> None:
        self.cloud, self.binaries, self.documents = cloud, binaries, documents

    def kubectl(self, cluster: str, *words: str, given: str = "") -> str:
        return self.cloud.output("kubectl", "--context", cluster, *words, given=given.encode()).decode()

    def apply(self, cluster: str, *objects: dict[str, Any]) -> None:
        self.kubectl(cluster, "apply", "--filename", "-", given="\n---\n".join(map(json.dumps, objects)))

    def image(self, cluster: str, name: str) -> str:
        return json.loads((self.documents / cluster / f"image-{name}.json").read_text())["images"][name]["uri"]

    def ready(self, cluster: str, namespace: str, *pods: str) -> None:
        self.kubectl(cluster, "-n", namespace, "wait", "--for=condition=Ready", "--timeout=120s", *(f"pod/{it}" for it in pods))

    def start(self) -> None:
        """Starts the two callers, and what the static one calls."""
        push = ["ecr-push", "probe", "-n", "--cluster", "c1", "--repository", "k8multi/probe", "--binary", self.binaries / "color-probe"]
        probe = json.loads(self.cloud.output(self.binaries / push[0], *push[1:]))["images"]["probe"]["uri"]
        # Asks once a second, so that it stays.
        idle = {"name": "probe", "image": probe, "args": ["-n", URL, "--duration", "10h", "--rate", "1", "--timeout", "11h"]}
        for cluster in ("c1", "c2"):
            self.apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "static"}})
        colors = ("red", "blue")
        for color in colors:
            env = [{"name": "SERVER_PORT", "value": "8080"}, {"name": "COLOR", "value": color}]
            app = {"name": "app", "image": self.image("c2", "colorapp"), "env": env}
            self.apply("c2", pod(color, self.image("c2", "capture"), envoy(15000, ["127.0.0.1"]), app))
        self.ready("c2", "static", *colors)
        addresses = [self.kubectl("c2", "-n", "static", "get", "pod", it, "--output=jsonpath={.status.podIP}") for it in colors]
        self.apply("c1", pod("client", self.image("c1", "capture"), envoy(15001, addresses), idle))
        front = json.loads(self.kubectl("c1", "-n", "k8multi", "get", "virtualnodes.appmesh.k8s.aws", "front", "--output=json"))
        labels = {"app": "client"}
        node = {"podSelector": {"matchLabels": labels}, "backends": front["spec"]["backends"]}
        metadata = {"name": "client", "namespace": "k8multi"}
        self.apply("c1", {"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": "VirtualNode", "metadata": metadata, "spec": node})
        spec = {"containers": [idle | {"securityContext": {"runAsUser": 65532}}]}
        self.apply("c1", {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "labels": labels}, "spec": spec})
        self.ready("c1", "static", "client")
        self.ready("c1", "k8multi", "client")

    def ask(self, namespace: str, count: int, concurrency: int) -> dict[str, float]:
        """The latencies as a pod sees them."""
        probe = ["/color-probe", "-n", URL, "--keep-alive", "--count", str(count), "--concurrency", str(concurrency), "--plain", "--quiet"]
        answer = self.kubectl("c1", "-n", namespace, "exec", "client", "--container=probe", "--", *probe)
        return json.loads(answer)["probe"]["latencyMillis"]

    def known(self, services: int) -> None:
        """Makes more services of the mesh, until there are so many that nobody calls."""
        objects: list[dict[str, Any]] = []
        for number in range(services):
            metadata = {"name": f"other-{number}", "namespace": "k8multi"}
            discovery = {"dns": {"hostname": f"other-{number}.example.com"}}
            listeners = [{"portMapping": {"port": 8080, "protocol": "http"}}]
            node = {"podSelector": {"matchLabels": {"app": metadata["name"]}}, "listeners": listeners, "serviceDiscovery": discovery}
            service = {"awsName": f"other-{number}.example.com", "provider": {"virtualNode": {"virtualNodeRef": {"name": metadata["name"]}}}}
            for kind, spec in (("VirtualNode", node), ("VirtualService", service)):
                objects.append({"apiVersion": "appmesh.k8s.aws/v1beta2", "kind": kind, "metadata": metadata, "spec": spec})
        if objects:
            self.apply("c1", *objects)


def process() -> Path:
    """The caller's Envoy, in this machine's /proc."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        words = line.read_bytes().split(b"\0")
        if words[0] == b"envoy" and b"virtualNode/client_k8multi" in b" ".join(words):
            return line.parent
    raise SystemExit("bench: the caller's Envoy does not run")


def taken(proc: Path) -> tuple[float, float]:
    """Resident megabytes, of a million bytes, and seconds of CPU time so far."""
    lines = (proc / "status").read_text().splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return kibibytes * 1.024e-3, cpu_seconds(proc)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--services", type=int, nargs="*", default=[100, 1000])
    args = parser.parse_args()
    binaries = release(args.bin)
    requests: dict[str, dict[str, list[dict[str, float]]]] = {str(it): {"mesh": [], "static": []} for it in CONCURRENCY}
    sidecar = []
    with tempfile.TemporaryDirectory() as work, Cloud(binaries, ROOT / "build" / "sidecar") as cloud:
        documents = Path(work) / "json"
        cloud.run(*command(binaries, documents), "all")
        clusters = Clusters(cloud, binaries, documents)
        clusters.start()
        for number in range(args.rounds):
            tell(f"round {number + 1} of {args.rounds}")
            for concurrency in CONCURRENCY:
                for who, namespace in (("mesh", "k8multi"), ("static", "static")):
                    requests[str(concurrency)][who].append(clusters.ask(namespace, args.requests, concurrency))
        for services in [0, *args.services]:
            clusters.known(services)
            time.sleep(SETTLING)
            proc = process()
            _, before = taken(proc)
            time.sleep(WINDOW)
            memory, after = taken(proc)
            sidecar.append({"services": services, "memory_mb": round(memory, 1), "cpu_percent": round(100 * (after - before) / WINDOW, 2)})
            tell(f"at rest: {sidecar[-1]}")
    result = {"date": datetime.date.today().isoformat(), "cores": os.cpu_count(), "count": args.requests, "requests": requests, "sidecar": sidecar}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
