"""Measures how fast color-probe asks on connections that it keeps, beside wrk with one thread, in one run.

    python3 bench/probe.py [--rounds 5] [--seconds 5] [--connections 64] [--bin target/…/release]

Both ask the same server on the loopback interface in turn: nginx, of one process, and then colorapp. None is bound to a core.
CPU time is what the client itself took, in its own code and in the kernel, start and end included. Prints
nothing, and leaves `bench/results/probe.json`. Gets nginx and wrk (both Debian) itself.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from flow import ROOT, cpu_seconds, debian, options, release, tell
from scale import machine

RESULTS = ROOT / "bench" / "results" / "probe.json"
COLOR = "red"


def nginx(folder: Path, port: int) -> list[object]:
    """A server that does next to nothing, in one process."""
    config = folder / "nginx.conf"
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; keepalive_requests 1000000000; {temporary}\n"
        f'  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{COLOR}"; }} }}\n}}\n'
    )
    return ["nginx", "-c", config, "-e", folder / "error.log"]


class Server:
    """A server that answers with the colour."""

    def __init__(self, command: list[object], port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.process = subprocess.Popen(command, env=os.environ | {"COLOR": COLOR, "PORT": str(port)}, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.01)
        raise SystemExit(f"bench: {command[0]} does not listen")

    def cpu(self) -> float:
        """Seconds that it has taken so far."""
        return cpu_seconds(Path(f"/proc/{self.process.pid}"))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def measure(server: Server, command: list[str], requests: Any, seconds: int) -> dict[str, float]:
    """What a client that asks for so long comes to; `requests` finds in what it prints how many it made."""
    before, start = server.cpu(), time.monotonic()
    with tempfile.TemporaryFile() as out:
        client = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
        if client.returncode:
            raise SystemExit(f"bench: exit code {client.returncode}: {' '.join(command)}")
        wall, served = time.monotonic() - start, server.cpu() - before
        out.seek(0)
        count = requests(out.read().decode())
    return {
        "per_second": round(count / seconds),
        "cpu_micros": round((usage.ru_utime + usage.ru_stime) / count * 1e6, 2),
        "user_micros": round(usage.ru_utime / count * 1e6, 2),
        "server_percent": round(served / wall * 100),
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def by_wrk(printed: str) -> int:
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(f"bench: not all of wrk's requests were answered: {printed}")
    return int(re.search(r"(\d+) requests in ", printed)[1])


def by_probe(printed: str) -> int:
    return json.loads(printed)["probe"]["tallies"][COLOR]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    args = parser.parse_args()
    binaries = release(args.bin)
    debian("wrk")
    debian("nginx", "nginx-light")
    connections, seconds = str(args.connections), args.seconds
    servers: dict[str, Any] = {}
    for name in ("nginx", "colorapp"):
        rounds: dict[str, list[dict[str, float]]] = {"wrk": [], "color-probe": []}
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            command = nginx(Path(folder), port) if name == "nginx" else [binaries / "colorapp"]
            with Server(command, port) as server:
                wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", server.url]
                probe = [str(binaries / "color-probe"), "-n", "-q", server.url, f"--expect={COLOR}=1", "--keep-alive"]
                probe += [f"--duration={seconds}s", f"--concurrency={connections}"]
                for number in range(args.rounds):
                    tell(f"{name}, round {number + 1} of {args.rounds}")
                    rounds["wrk"].append(measure(server, wrk, by_wrk, seconds))
                    rounds["color-probe"].append(measure(server, probe, by_probe, seconds))
        medians = {who: {what: statistics.median(one[what] for one in found) for what in found[0]} for who, found in rounds.items()}
        ratio = round(medians["color-probe"]["per_second"] / medians["wrk"]["per_second"], 3)
        servers[name] = {"rounds": rounds, "medians": medians, "ratio": ratio}
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "connections": args.connections,
        "seconds": seconds,
        "servers": servers,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
