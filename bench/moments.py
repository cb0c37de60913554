"""Measures what takes but a moment, inside a local cloud in which the flow has run: `flow.py` starts it.

    python3 bench/moments.py BIN AWS JSON WORK

BIN holds crossmesh's programs, AWS the AWS CLI, JSON the flow's documents, WORK is an empty folder. Prints one JSON object:
for each moment the median seconds of crossmesh and of each of the others.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from flow import context

RUNS = 20
# How long a change of weights is waited for, and how often the front end is asked meanwhile.
PATIENCE, PAUSE = 15.0, 0.02
# After so long nothing is looked up more often than at rest.
REST = 12.0


def seconds(command: list[str], stdin: Path | None = None) -> float:
    """The median of some runs, after one that nobody counts."""
    found = []
    for _ in range(RUNS + 1):
        with open(stdin or "/dev/null", "rb") as given:
            start = time.monotonic()
            subprocess.run(command, stdin=given, check=True, capture_output=True)
            found.append(time.monotonic() - start)
    return statistics.median(found[1:])


def image(tools: Path, aws: Path, documents: Path, work: Path) -> dict[str, float]:
    """Pushing an image that is there already."""
    there = json.loads((documents / "c2" / "image-colorapp.json").read_text())["images"]["colorapp"]
    registry = there["repository"].split("/")[0]
    buildah = ["buildah", "--root", f"{work}/images", "--runroot", f"{work}/run", "--storage-driver", "vfs"]
    context(tools / "colorapp", work / "colorapp")
    name = f"{registry}/k8multi/moments"
    subprocess.run([aws / "aws", "ecr", "create-repository", "--repository-name", "k8multi/moments"], check=True, capture_output=True)
    password = subprocess.run([aws / "aws", "ecr", "get-login-password"], check=True, capture_output=True).stdout
    login = [*buildah, "login", "--authfile", f"{work}/auth.json", "--username", "AWS", "--password-stdin", registry]
    subprocess.run(login, input=password, check=True, capture_output=True)
    subprocess.run([*buildah, "build", "--quiet", "--tag", name, str(work / "colorapp")], check=True, capture_output=True)
    ours = [tools / "ecr-push", "colorapp", "--repository", "k8multi/colorapp", "--binary", tools / "colorapp"]
    return {
        "crossmesh": seconds([str(word) for word in ours], documents / "c2" / "oidc.json"),
        "buildah push, logged in": seconds([*buildah, "push", "--quiet", "--authfile", f"{work}/auth.json", name]),
    }


def weights(documents: Path, rest: float = 0.0) -> dict[str, float]:
    """From a change of weights in cluster 2 to the last answer of the colour that is out, as cluster 1's front end gives it.
    Each comes so long after the one before, the first after one that nobody counts, and none is as one before."""
    endpoint = json.loads((documents / "c1" / "feapp.json").read_text())["apps"]["feapp"]["endpoint"]
    found = []
    for turn in range(RUNS // 2 + 1):
        time.sleep(rest)
        out = ("red", "blue")[turn % 2]
        path = "/spec/routes/0/httpRoute/action/weightedTargets/{}/weight"
        change = [
            {"op": "replace", "path": path.format(number), "value": 0 if color == out else turn + 1}
            for number, color in enumerate(("red", "blue"))
        ]
        patch = ["kubectl", "--context", "c2", "-n", "k8multi", "patch", "virtualrouters.appmesh.k8s.aws", "colorapp-router"]
        subprocess.run([*patch, "--type", "json", "--patch", json.dumps(change)], check=True, capture_output=True)
        start = last = time.monotonic()
        # Ten in a row of the other colour by chance: one in a thousand.
        row = 0
        while row < 10:
            with urllib.request.urlopen(f"{endpoint}/color", timeout=5) as answer:
                row = 0 if out in answer.read().decode() else row + 1
            if row == 0:
                last = time.monotonic()
            if time.monotonic() - start > PATIENCE:
                raise SystemExit(f"bench: {out} still answers")
            time.sleep(PAUSE)
        found.append(last - start)
    found = found[1:]
    return {"crossmesh": statistics.median(found), "crossmesh, slowest": max(found)}


def main() -> None:
    tools, aws, documents, work = (Path(word) for word in sys.argv[1:])
    moments = {
        "a tool starts": {
            "crossmesh": seconds([f"{tools}/irsa-role", "--version"]),
            "kubectl": seconds(["kubectl", "version", "--client"]),
            "helm": seconds(["helm", "version"]),
            "aws": seconds([f"{aws}/aws", "--version"]),
        },
        "an image is there already": image(tools, aws, documents, work),
        "weights change in the other cluster": weights(documents),
        "weights change there after a rest": weights(documents, REST),
    }
    print(json.dumps(moments))


if __name__ == "__main__":
    main()
