"""Measures the whole flow against the tutorial's own commands and against the floor, each in a fresh local cloud, in one run.

    python3 bench/flow.py [--rounds 5] [--bin target/…/release]

Wall time is from the first command to the last answer, with the cloud up already; CPU time is what the commands
themselves and their children took, not the clouds. The floor is what `floor.py` says. What takes but a moment is measured by
`moments.py` in the last of the clouds, and calls of AWS are counted in the log of the same. Leaves
`bench/results/flow.json`. Needs what `make demo` needs, and gets buildah (Debian) and the AWS CLI (PyPI) itself.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import floor

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossmesh" / "bench"
AWS_CLI = "awscli==1.46.3"


def tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def options(documentation: str, rounds: int = 5) -> argparse.ArgumentParser:
    """The options of every measurement of several rounds."""
    parser = argparse.ArgumentParser(description=documentation.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--bin", type=Path)
    return parser


def debian(program: str, package: str = "") -> None:
    """Has a program on the path, from the package of its name unless another is given."""
    if not shutil.which(program):
        package = package or program
        tell(f"installing {package}")
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", package], check=True, stdout=subprocess.DEVNULL)


def aws_cli() -> Path:
    """The folder of the AWS CLI."""
    environment = CACHE / AWS_CLI
    if not (environment / "bin" / "aws").exists():
        tell(f"installing {AWS_CLI}")
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", AWS_CLI], check=True)
    return environment / "bin"


def release(given: Path | None) -> Path:
    """The folder of the programs: the given one, or where cargo leaves them."""
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout.split("host: ")[1].split()[0]
    return (given or ROOT / "target" / host / "release").resolve()


def cpu_seconds(proc: Path) -> float:
    """What a process has taken so far, in its own code and in the kernel, by its folder in /proc."""
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def context(program: Path, folder: Path) -> None:
    """Makes a folder that builds to an image of one finished program."""
    folder.mkdir()
    shutil.copy(program, folder)
    (folder / "Dockerfile").write_text(f'FROM scratch\nCOPY {program.name} /\nENTRYPOINT ["/{program.name}"]\n')


class Cloud:
    """A fresh local cloud, down again at the end."""

    def __init__(self, binaries: Path, state: Path) -> None:
        self.command = [str(binaries / "localcloud"), "--state", str(state)]

    def __enter__(self) -> Cloud:
        subprocess.run([*self.command, "up"], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*self.command, "down"], check=True)

    def inside(self, *command: object) -> list[str]:
        return [*self.command, "run", "--", *map(str, command)]

    def output(self, *command: object, given: bytes = b"") -> bytes:
        """What a command inside writes."""
        return subprocess.run(self.inside(*command), cwd=ROOT, check=True, input=given, stdout=subprocess.PIPE).stdout

    def run(self, *command: object, **environment: str) -> dict[str, float]:
        """Seconds of wall and CPU time of a command inside, with all that it starts and waits for."""
        start = time.monotonic()
        inside = self.inside(*command)
        child = subprocess.Popen(inside, cwd=ROOT, env=os.environ | environment, stdout=sys.stderr)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"bench: exit code {child.returncode}: {' '.join(map(str, command))}")
        return {"wall": round(wall, 3), "cpu": round(usage.ru_utime + usage.ru_stime, 2)}


def tutorial(cloud: Cloud, binaries: Path, aws: Path, work: Path) -> dict[str, float]:
    for image in ("appmesh-controller", "capture"):
        push = [binaries / "ecr-push", image, "-n", "--tag", "bench", "--repository", f"k8multi/{image}", "--binary", binaries / image]
        cloud.run(*push)
    for app in ("colorapp", "feapp"):
        context(binaries / app, work / app)
    return cloud.run("bash", "-c", "PATH=$0:$PATH exec bench/tutorial.sh", aws, WORK=str(work))


def command(binaries: Path, documents: Path) -> list[str]:
    """make, but for what to make."""
    return ["make", "--no-print-directory", "-j8", "CLUSTER1=c1", "CLUSTER2=c2", f"BIN={binaries}", f"BUILD={documents}"]


class Calls:
    """Calls of AWS in the log of a local cloud, by who made them and what they were."""

    def __init__(self, state: Path) -> None:
        self.log = state / "log" / "aws-api.log"
        self.read = 0

    def since_last(self) -> dict[str, dict[str, int]]:
        """Those since this was asked last. Pulls by nodes and what a client of a registry only looks for are left out."""
        calls: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        lines = self.log.read_text().splitlines()
        for call in map(json.loads, lines[self.read :]):
            tool = re.search(r"crossmesh-([a-z-]+)|Go-http-client|/(c\d-appmesh-controller)/", f"{call['agent']} {call['caller']}")
            if tool and call["action"] != "ecr:Ping":
                who = tool[1] or ("controllers" if tool[2] else "API servers, who calls")
                calls[who][call["action"]] += 1
        self.read = len(lines)
        return {who: dict(sorted(found.items())) for who, found in sorted(calls.items())}


def moments(cloud: Cloud, binaries: Path, aws: Path, work: Path) -> dict[str, dict[str, float]]:
    """What `moments.py` finds."""
    (work / "moments").mkdir()
    return json.loads(cloud.output(sys.executable, "bench/moments.py", binaries, aws, work / "json", work / "moments"))


def spread(found: list[float]) -> dict[str, float]:
    """The median of some figures, the least and the most."""
    return {"median": round(statistics.median(found), 3), "min": min(found), "max": max(found)}


def main() -> None:
    args = options(__doc__).parse_args()
    binaries = release(args.bin)
    debian("buildah")
    aws = aws_cli()
    state = ROOT / "build" / "bench"
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ("tutorial", "crossmesh", "crossmesh, nothing to do", "floor")}
    for number in range(args.rounds):
        tell(f"round {number + 1} of {args.rounds}")
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            with Cloud(binaries, state) as cloud:
                rounds["tutorial"].append(tutorial(cloud, binaries, aws, work))
            with Cloud(binaries, state) as cloud:
                calls, make = Calls(state), command(binaries, work / "json")
                rounds["crossmesh"].append(cloud.run(*make, "all"))
                counted = {"crossmesh": calls.since_last()}
                rounds["crossmesh, nothing to do"].append(cloud.run(*make, "-B", "all"))
                counted["crossmesh, nothing to do"] = calls.since_last()
                floor.keep(cloud, work / "json", work / "floor")
                if number == args.rounds - 1:
                    brief = moments(cloud, binaries, aws, work)
            with Cloud(binaries, state) as cloud:
                floor.prepare(cloud, binaries, command(binaries, work / "prepared"), work / "prepared", work / "floor")
                rounds["floor"].append(floor.apply(cloud, binaries, work / "floor"))
    result = {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "rounds": rounds,
        "moments": brief,
        "calls": counted,
    }
    out = ROOT / "bench" / "results" / "flow.json"
    out.write_text(json.dumps(result, indent=2) + "\n")
    tell(f"see {out}, and python3 bench/tables.py")


if __name__ == "__main__":
    main()
