"""Measures the whole flow against the tutorial's own commands, each in a fresh local cloud, in one run.

    python3 bench/flow.py [--rounds 3] [--bin target/…/release]

Wall time is from the first command to the last answer, with the cloud up already; CPU time is what the commands
themselves and their children took, not the clouds. What takes but a moment is measured by `moments.py` in the last of the
clouds. Prints tables and leaves `bench/results/flow.json`. Needs what `make demo` needs, and gets buildah (Debian) and the
AWS CLI (PyPI) itself.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossmesh" / "bench"
AWS_CLI = "awscli==1.46.3"


def tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def tools() -> Path:
    """The folder of the AWS CLI; buildah comes onto the path."""
    if not shutil.which("buildah"):
        tell("installing buildah")
        subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", "buildah"], check=True, stdout=subprocess.DEVNULL)
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
        return {"wall": round(wall, 2), "cpu": round(usage.ru_utime + usage.ru_stime, 2)}


def tutorial(cloud: Cloud, binaries: Path, aws: Path, work: Path) -> dict[str, float]:
    for image in ("appmesh-controller", "capture"):
        push = [binaries / "ecr-push", image, "-n", "--tag", "bench", "--repository", f"k8multi/{image}", "--binary", binaries / image]
        cloud.run(*push)
    for app in ("colorapp", "feapp"):
        context(binaries / app, work / app)
    return cloud.run("bash", "-c", "PATH=$0:$PATH exec bench/tutorial.sh", aws, WORK=str(work))


def crossmesh(cloud: Cloud, binaries: Path, work: Path) -> tuple[dict[str, float], dict[str, float]]:
    make = ["make", "--no-print-directory", "-j8", "all", "CLUSTER1=c1", "CLUSTER2=c2", f"BIN={binaries}", f"BUILD={work}"]
    return cloud.run(*make), cloud.run(*make, "-B")


def moments(cloud: Cloud, binaries: Path, aws: Path, work: Path) -> dict[str, dict[str, float]]:
    """What `moments.py` finds."""
    (work / "moments").mkdir()
    command = cloud.inside(sys.executable, "bench/moments.py", binaries, aws, work / "json", work / "moments")
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bin", type=Path)
    args = parser.parse_args()
    binaries = release(args.bin)
    aws = tools()
    rounds: dict[str, list[dict[str, float]]] = {"tutorial": [], "crossmesh": [], "crossmesh, nothing to do": []}
    for number in range(args.rounds):
        tell(f"round {number + 1} of {args.rounds}")
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            with Cloud(binaries, ROOT / "build" / "bench") as cloud:
                rounds["tutorial"].append(tutorial(cloud, binaries, aws, work))
            with Cloud(binaries, ROOT / "build" / "bench") as cloud:
                first, again = crossmesh(cloud, binaries, work / "json")
                brief = moments(cloud, binaries, aws, work)
            rounds["crossmesh"].append(first)
            rounds["crossmesh, nothing to do"].append(again)
    medians = {who: {what: statistics.median(r[what] for r in found) for what in ("wall", "cpu")} for who, found in rounds.items()}
    base = medians["tutorial"]
    ratios = {who: {what: round(value / base[what], 3) for what, value in found.items()} for who, found in medians.items()}
    result = {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "rounds": rounds,
        "medians": medians,
        "ratios": ratios,
        "moments": brief,
    }
    out = ROOT / "bench" / "results" / "flow.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{'':26} {'wall s':>8} {'ratio':>6} {'CPU s':>8} {'ratio':>6}")
    for who, found in medians.items():
        print(f"{who:26} {found['wall']:8.2f} {ratios[who]['wall']:6.2f} {found['cpu']:8.2f} {ratios[who]['cpu']:6.2f}")
    for what, found in brief.items():
        print(f"\n{what:38} {'s':>8} {'ratio':>6}")
        for who, value in found.items():
            print(f"  {who:36} {value:8.3f} {value / found['crossmesh']:6.1f}")


if __name__ == "__main__":
    main()
