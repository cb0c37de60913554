"""Measures the controller with many VirtualNodes, pods and sidecars, each mesh in a fresh local cloud.

    python3 bench/scale.py [--mesh 100:100 --mesh 1000:100,500] [--rounds 1] [--bin target/…/release]

A mesh is its number of VirtualNodes, of ten pods each, and the numbers of sidecars. `bench/scale/` makes the mesh and
measures. Leaves `bench/results/scale.json`; meshes that are not measured stay in it as they were. Needs what `make demo`
needs. Other work on the machine shows in the figures, so each comes with the load average.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from flow import ROOT, Cloud, options, release, tell

RESULTS = ROOT / "bench" / "results" / "scale.json"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    memory = int(next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal:")))
    return {"cores": os.cpu_count(), "cpu": cpu, "memory_gb": round(memory * 1.024e-6, 1), "kernel": platform.release()}


def measure(binaries: Path, mesh: str, seconds: int) -> dict[str, Any]:
    """The figures of one mesh."""
    nodes, sidecars = mesh.split(":")
    state = ROOT / "build" / "bench-scale"
    with tempfile.TemporaryDirectory() as work, Cloud(binaries, state) as cloud:
        command = [binaries / "scale", "--controller", binaries / "appmesh-controller", "--work", work]
        command += ["--calls", state / "log" / "aws-api.log", "--seconds", seconds, "--nodes", nodes, "--sidecars", sidecars]
        found = subprocess.run(cloud.inside(*command), cwd=ROOT, stdout=subprocess.PIPE)
        if found.returncode:
            log = Path(work) / "controller.log"
            tell(log.read_text()[-4000:] if log.exists() else "the controller was not started")
            raise SystemExit(f"bench: exit code {found.returncode}: {mesh}")
        return json.loads(found.stdout)


def main() -> None:
    parser = options(__doc__, rounds=1)
    parser.add_argument("--mesh", action="append", metavar="NODES:SIDECARS,…")
    parser.add_argument("--seconds", type=int, default=120, help="how long the controller is looked at at rest, and with pods that come and go")
    args = parser.parse_args()
    binaries = release(args.bin)
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"meshes": {}}
    here = {"date": datetime.date.today().isoformat(), "machine": machine()}
    for mesh in args.mesh or ["100:100", "1000:100,500"]:
        rounds = []
        for number in range(args.rounds):
            tell(f"{mesh}, round {number + 1} of {args.rounds}")
            rounds.append(here | measure(binaries, mesh, args.seconds))
        result["meshes"][mesh] = rounds
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
