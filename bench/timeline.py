"""Draws what the flow waits for: each of its steps and each container of its pods, over time.

    python3 bench/timeline.py [--bin target/…/release]

Runs the flow once in a fresh local cloud and leaves `bench/results/flow.svg`. A step lasts from the birth of the file that
make has it write to the last byte. When images are pulled and containers started is in containerd's log; when a pod is
registered and ready comes from a watch of the cluster's pods.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path

from floor import CLUSTERS, NAMESPACES
from flow import ROOT, Cloud, command, release, tell

COLORS = {"step": "#4269d0", "sandbox": "#9c9c9c", "pull": "#efb118", "start": "#6cc5b0", "register": "#a463f2", "gate": "#ff8ab7"}
KINDS = {
    "step": "a step of the flow",
    "sandbox": "scheduled, sandbox",
    "pull": "image pulled",
    "start": "container started, until the next or its answer",
    "register": "registered in Cloud Map",
    "gate": "until Kubernetes counts it as ready",
}


@dataclass
class Row:
    """A line of the picture: what it is of, and its parts, each with kind, begin and end in seconds."""

    name: str
    parts: list[tuple[str, float, float, str]] = field(default_factory=list)


def moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time with nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def steps(documents: Path) -> list[Row]:
    """The steps of make, by the files that it leaves."""
    rows = []
    for file in sorted(documents.glob("*/*.json")):
        birth = float(subprocess.run(["stat", "--format", "%.W", file], check=True, capture_output=True, text=True).stdout)
        row = Row(f"{file.parent.name} {file.stem}")
        row.parts.append(("step", birth, file.stat().st_mtime, ""))
        rows.append(row)
    return rows


class Watch(threading.Thread):
    """Follows the pods of a cluster, and notes when a condition of one first holds."""

    def __init__(self, cloud: Cloud, cluster: str) -> None:
        super().__init__(daemon=True)
        watch = cloud.inside("kubectl", "--context", cluster, "get", "--raw", "/api/v1/pods?watch=1")
        self.child = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
        self.since: dict[str, dict[str, float]] = {}

    def run(self) -> None:
        assert self.child.stdout
        for line in self.child.stdout:
            pod = json.loads(line)["object"]
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            since = self.since.setdefault(name, {"created": time.time()})
            for condition in pod["status"].get("conditions", []):
                if condition["status"] == "True":
                    since.setdefault(condition["type"].rsplit("/", 1)[-1], time.time())

    def end(self) -> None:
        self.child.terminate()
        self.child.wait()
        self.join()


def containers(log: Path) -> dict[str, list[tuple[str, str, float, float]]]:
    """By pod: containers, each with its name, the kind of what was done, and when."""
    lines = re.compile(r'^time="([^"]+)" level=info msg="(.*)"$')
    sandboxes: dict[str, str] = {}
    names: dict[str, tuple[str, str]] = {}
    pulls: dict[str, float] = {}
    pulled: list[tuple[float, float]] = []
    begun: dict[str, float] = {}
    found: dict[str, list[tuple[str, str, float, float]]] = {}
    for line in log.read_text(errors="replace").splitlines():
        if not (match := lines.match(line)):
            continue
        at, text = moment(match[1]), match[2].replace('\\"', '"')
        if sandbox := re.match(r'RunPodSandbox for name:"([^"]+)" +uid:"[^"]+" +namespace:"([^"]+)"(?: returns sandbox id "(\w+)")?$', text):
            pod = f"{sandbox[2]}/{sandbox[1]}"
            if sandbox[3]:
                sandboxes[sandbox[3]] = pod
                found.setdefault(pod, []).append(("", "sandbox", begun.pop(pod, at), at))
            else:
                begun[pod] = at
        elif pull := re.match(r'PullImage "([^"]+)"( returns)?', text):
            if not pull[2]:
                pulls.setdefault(pull[1], at)
            elif pull[1] in pulls:
                pulled.append((pulls.pop(pull[1]), at))
        elif made := re.match(r'CreateContainer within sandbox "(\w+)" for (?:container )?name:"([^"]+)"( returns container id "(\w+)")?$', text):
            pod = sandboxes.get(made[1], "")
            if made[4]:
                names[made[4]] = (pod, made[2])
            elif pulled and at - pulled[-1][1] < 0.1:
                # The kubelet makes a container as soon as its image is there.
                found.setdefault(pod, []).append((made[2], "pull", *pulled[-1]))
        elif started := re.match(r'StartContainer for "(\w+)" returns', text):
            pod, name = names.get(started[1], ("", ""))
            found.setdefault(pod, []).append((name, "start", at, at))
    return found


def pods(cluster: str, log: Path, since: dict[str, dict[str, float]]) -> list[Row]:
    """A row for each pod."""
    rows = []
    for pod, done in containers(log).items():
        namespace, _, name = pod.partition("/")
        if namespace not in NAMESPACES:
            continue
        row, held = Row(f"{cluster} {name.rsplit('-', 2)[0]}"), since.get(pod, {})
        row.parts.append(("sandbox", held.get("created", done[0][2]), done[0][3], ""))
        ready = held.get("ContainersReady", held.get("Ready", done[-1][3]))
        for (container, kind, begin, end), after in zip(done[1:], [*done[2:], ("", "", ready, ready)], strict=True):
            row.parts.append((kind, begin, max(begin, after[2]) if kind == "start" else end, container))
        registered, serving = held.get("aws-cloudmap-healthy"), held.get("Ready", ready)
        if registered:
            row.parts.append(("register", ready, registered, ""))
        row.parts.append(("gate", registered or ready, serving, ""))
        rows.append(row)
    return rows


def svg(rows: list[Row]) -> str:
    """The picture."""
    zero = min(begin for row in rows for _, begin, _, _ in row.parts)
    last = max(end for row in rows for _, _, end, _ in row.parts) - zero
    left, width, height, top = 190, 900, 20, 52
    scale = width / last
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {top + height * len(rows) + 24}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, (kind, meaning) in enumerate(KINDS.items()):
        x, y = left + 290 * (number % 3), 8 + 17 * (number // 3)
        out.append(f'<rect x="{x}" y="{y}" width="11" height="11" fill="{COLORS[kind]}"/><text x="{x + 16}" y="{y + 10}">{meaning}</text>')
    for second in range(int(last) + 1):
        x = left + second * scale
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + height * len(rows)}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{top + height * len(rows) + 14}" text-anchor="middle">{second} s</text>')
    for number, row in enumerate(rows):
        y = top + height * number
        out.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(row.name)}</text>')
        for kind, begin, end, name in row.parts:
            x, length = left + (begin - zero) * scale, max((end - begin) * scale, 1)
            title = f"{name or KINDS[kind]}: {begin - zero:.2f} s to {end - zero:.2f} s"
            out.append(f'<rect x="{x:.1f}" y="{y + 3}" width="{length:.1f}" height="14" fill="{COLORS[kind]}"><title>{escape(title)}</title></rect>')
            if name and length > 7 * len(name):
                out.append(f'<text x="{x + 3:.1f}" y="{y + 14}">{escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])


def told(rows: list[Row]) -> str:
    """The same in words."""
    zero = min(begin for row in rows for _, begin, _, _ in row.parts)
    lines = [f"{begin - zero:7.2f} {end - zero:7.2f}  {row.name}: {kind} {name}" for row in rows for kind, begin, end, name in row.parts]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bin", type=Path)
    args = parser.parse_args()
    binaries = release(args.bin)
    state = ROOT / "build" / "timeline"
    with tempfile.TemporaryDirectory() as work:
        documents = Path(work) / "json"
        with Cloud(binaries, state) as cloud:
            watches = {cluster: Watch(cloud, cluster) for cluster in CLUSTERS}
            for watch in watches.values():
                watch.start()
            wall = cloud.run(*command(binaries, documents), "all")["wall"]
            for watch in watches.values():
                watch.end()
            rows = steps(documents)
            for cluster, watch in watches.items():
                rows += pods(cluster, state / "log" / f"{cluster}-containerd.log", watch.since)
    rows.sort(key=lambda row: row.parts[0][1])
    print(told(rows))
    tell(f"{wall} s")
    (ROOT / "bench" / "results" / "flow.svg").write_text(svg(rows))


if __name__ == "__main__":
    main()
