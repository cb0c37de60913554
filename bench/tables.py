"""Writes the tables of `bench/README.md` and `docs/cost.md` from the files in `bench/results`, so that they cannot disagree.

    python3 bench/tables.py [--check]

With --check it changes nothing, and fails if the tables are others than the files say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from flow import spread

BENCH = Path(__file__).resolve().parent
README = BENCH / "README.md"
COST = BENCH.parent / "docs" / "cost.md"
# What AWS asks in us-west-2 for a million look-ups in Cloud Map (https://aws.amazon.com/cloud-map/pricing).
DOLLARS_A_MILLION = 1.0
MONTH = 30 * 24 * 3600


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def amount(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def machine_words(machine: dict[str, Any]) -> str:
    return f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']:.0f} GB, Linux {machine['kernel']}"


def spread_words(found: dict[str, float], digits: int) -> str:
    """A median, with the least and the most."""
    return f"{amount(found['median'], digits)} ({amount(found['min'], digits)} to {amount(found['max'], digits)})"


def flows(result: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """What the rounds of each side have come to."""
    return {who: {what: spread([one[what] for one in rounds]) for what in rounds[0]} for who, rounds in result["rounds"].items()}


def flow(result: dict[str, Any]) -> str:
    """A row for each side, then what takes but a moment."""
    found = flows(result)
    base = found["tutorial"]
    rows = [
        [who, *(cell for what in ("wall", "cpu") for cell in (spread_words(side[what], 2), f"{side[what]['median'] / base[what]['median']:.2f}"))]
        for who, side in found.items()
    ]
    moments = [
        [f"{what}: {who}" if who == "crossmesh" else who, f"{value:.3f}", f"{value / sides['crossmesh']:.1f}"]
        for what, sides in result["moments"].items()
        for who, value in sides.items()
    ]
    return "\n\n".join(
        [
            f"Medians of {len(result['rounds']['crossmesh'])} rounds, with the least and the most; {result['cores']} cores, {result['date']}:",
            table(["", "wall s", "ratio", "CPU s", "ratio"], rows),
            table(["", "s", "ratio"], moments),
        ]
    )


def push(result: dict[str, Any]) -> str:
    """A row for each size and program."""
    rows = []
    for size, sides in result["sizes"].items():
        base = median(one["wall"] for one in sides["skopeo"])
        for who, found in sides.items():
            wall, cpu, memory = (spread([one[what] for one in found]) for what in ("wall", "cpu", "memory_mb"))
            rows.append([size, who, spread_words(wall, 2), f"{wall['median'] / base:.2f}", spread_words(cpu, 2), amount(memory["max"], 0)])
    head = ["MB", "", "s", "ratio", "CPU s", "memory at most, MB"]
    return f"Medians of {result['rounds']} rounds, with the least and the most; {result['cores']} cores, {result['date']}:\n\n" + table(head, rows)


def calls(result: dict[str, Any]) -> str:
    """Calls of AWS, by who makes them."""
    sides = list(result["calls"].values())
    rows = []
    for who in sorted({who for side in sides for who in side}):
        called = [f"`{name}` {count}" for name, count in sides[0].get(who, {}).items()]
        rows.append([who, *(str(sum(side.get(who, {}).values())) for side in sides), ", ".join(called)])
    rows.append(["all", *(str(sum(sum(found.values()) for found in side.values())) for side in sides), ""])
    return table(["", "calls of `make all`", "again, with nothing to do", "of the first, each"], rows)


def scale(result: dict[str, Any]) -> str:
    """A column for each mesh and number of sidecars, each figure the median of the rounds."""
    columns: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = []
    for rounds in result["meshes"].values():
        for index, at in enumerate(rounds[0]["sidecars"]):
            name = f"{rounds[0]['nodes']:,} nodes, {at['count']} sidecars"
            columns.append((name, [found["sidecars"][index] for found in rounds], rounds))

    def of(what: str, target: str, digits: int, *paths: str) -> list[str]:
        def value(found: dict[str, Any], path: str) -> Any:
            for key in path.split("."):
                found = found[int(key)] if isinstance(found, list) else found[key]
            return found

        cells = [" / ".join(amount(median(value(found, path) for found in at), digits) for path in paths) for _, at, _ in columns]
        return [what, target, *cells]

    def per_second(window: dict[str, Any], operation: str | None = None) -> float:
        calls = window["calls"].items()
        return sum(count for name, count in calls if operation in (None, name)) / window["seconds"]

    def every(what: str, target: str, cell: Any) -> list[str]:
        return [what, target, *(cell(at, rounds) for _, at, rounds in columns)]

    def weights(at: list[dict[str, Any]], _: Any) -> str:
        found = [weight for one in at for weight in one["weights"]]
        users, sent, others = (median(weight[key] for weight in found) for key in ("users", "sent", "sent_others"))
        return f"{users:.0f} / {sent:.0f} / {others:.0f}"

    def loads(at: list[dict[str, Any]], _: Any) -> str:
        found = [one[part]["load"] for one in at for part in ("rest", "churn", "restart", "restart_with_new_envoys")]
        return f"{min(found):.1f} to {max(found):.1f}"

    rows = [
        of("memory at rest / at most since the start, MB", "≤ 150", 0, "rest.memory_mb.0", "rest.memory_mb.1"),
        of("CPU at rest, % of a core", "≤ 1", 2, "rest.cpu_percent"),
        of("CPU with one pod a second that comes and one that goes, %", "≤ 25", 2, "churn.cpu_percent"),
        of("a pod is made ready → the last Envoy has acknowledged, s: p50 / p99 / max", "p99 ≤ 0.5", 3, "churn.came.p50", "churn.came.p99", "churn.came.max"),
        of("a pod is deleted → the same, s: p50 / p99 / max", "", 3, "churn.went.p50", "churn.went.p99", "churn.went.max"),
        every("one weight changes, sidecars: that use it / that are sent something / others of them", "others: 0", weights),
        every("… until the last of them has acknowledged, s", "", lambda at, _: amount(median(w["seconds"] for one in at for w in one["weights"]), 3)),
        of("restart → it accepts Envoys / all that kept their state are current, s", "≤ 10", 2, "restart.ready_seconds", "restart.configured_seconds"),
        of("restart → it accepts Envoys / all, new, have all, s", "≤ 10", 2, "restart_with_new_envoys.ready_seconds", "restart_with_new_envoys.configured_seconds"),
        of("… CPU s until then, with kept state / with new Envoys", "linear", 2, "restart.cpu_seconds.1", "restart_with_new_envoys.cpu_seconds.1"),
        every("calls of Cloud Map a second at rest", "one a service and minute", lambda at, _: amount(median(per_second(one["rest"]) for one in at), 2)),
        every("load average of the machine meanwhile", "", loads),
    ]
    def machine(_: list[dict[str, Any]], rounds: list[dict[str, Any]]) -> str:
        return f"{machine_words(rounds[-1]['machine'])}, {rounds[-1]['date']}"

    rows.append(every("rounds, of which these are the medians", "", lambda _, rounds: str(len(rounds))))
    rows.append(every("machine", "", machine))
    return table(["", "to reach", *(name for name, *_ in columns)], rows)


def nothing_lost(result: dict[str, Any]) -> str:
    """A row for each event."""
    rows = []
    for found in result["rows"]:
        loads = [found["within"], found["across"]]
        rates = [amount(load["requests"] / found["seconds"], 0) for load in loads]
        cells = [cell for load, rate in zip(loads, rates) for cell in (amount(load["requests"], 0), rate, str(load["failed"]), str(load["slowest_ms"]))]
        rows.append([found["event"], *cells])
    columns = ["requests", "a second", "failed", "slowest, ms"]
    head = ["event", *(f"{load}: {column}" if column == "requests" else column for load in ("in the cluster", "to the other") for column in columns)]
    return f"{result['rate']} requests a second of each load, {result['cores']} cores, {result['date']}:\n\n" + table(head, rows)


def probe(result: dict[str, Any]) -> str:
    """A row for each server and client, each figure with the least and the most of the rounds."""

    def cell(found: list[dict[str, Any]], what: str, digits: int) -> str:
        return spread_words(spread([one[what] for one in found]), digits)

    rows = []
    for server, at in result["servers"].items():
        for who, found in at["rounds"].items():
            ratio = f"{at['ratio']:.2f}" if who == "color-probe" else "1.00"
            figures = [cell(found, *figure) for figure in (("cpu_micros", 1), ("user_micros", 1), ("server_percent", 0))]
            rows.append([server, who, cell(found, "per_second", 0), ratio, *figures])
    head = ["server", "client", "requests a second", "ratio", "CPU µs a request", "of it outside the kernel", "CPU of the server, %"]
    facts = f"{result['connections']} connections, {result['seconds']} s each, {machine_words(result['machine'])}, {result['date']}"
    return f"Medians of {len(found)} rounds, with the least and the most; {facts}:\n\n" + table(head, rows)


def sidecar(result: dict[str, Any]) -> str:
    """Latencies at each number of requests at a time, then what an Envoy takes."""
    rows = []
    for concurrency, found in result["requests"].items():
        for what in ("p50", "p99"):
            mesh, static = (median(one[what] for one in found[who]) for who in ("mesh", "static"))
            rows.append([concurrency, what, amount(mesh, 3), amount(static, 3), amount(mesh / static, 3)])
    taken = [[amount(at["services"], 0), amount(at["memory_mb"], 1), amount(at["cpu_percent"], 2)] for at in result["sidecar"]]
    rounds = len(next(iter(result["requests"].values()))["mesh"])
    return "\n\n".join(
        [
            f"Medians of {rounds} rounds of {result['count']:,} requests, {result['cores']} cores, {result['date']}:",
            table(["at a time", "ms", "mesh", "static", "ratio"], rows),
            table(["services of the mesh that the pod does not call", "resident memory of its Envoy, MB", "CPU, % of a core"], taken),
        ]
    )


def cost(result: dict[str, Any]) -> str:
    """Look-ups of services of another cluster, and what they cost."""
    few, many = (next(iter(result["meshes"].values()))[-1]["remote"][at] for at in (0, -1))

    def looked(remote: dict[str, Any]) -> float:
        """Look-ups a second."""
        return remote["calls"].get("DiscoverInstances", 0) / remote["seconds"]

    each = (looked(many) - looked(few)) / (many["services"] - few["services"])
    journals = looked(few) - each * few["services"]
    rows = []
    for services in (10, 100, 1000):
        second = journals + each * services
        rows.append([amount(services, 0), amount(second * 3600, 0), amount(second * MONTH / 1e6, 1), amount(second * MONTH / 1e6 * DOLLARS_A_MILLION, 0)])
    head = ["backends in the other cluster and Cloud Map services they lead to", "look-ups an hour", "a month, millions", "dollars a month"]
    return table(head, rows)


def summary(flow: dict[str, Any], push: dict[str, Any], probe: dict[str, Any], sidecar: dict[str, Any]) -> str:
    """Each thing that is measured beside what a user would run in its place."""

    def ratio(ours: dict[str, Any], theirs: dict[str, Any], what: str) -> str:
        return f"{ours[what]['median'] / theirs[what]['median']:.2f}"

    whole = flows(flow)
    again, change = whole["crossmesh, nothing to do"], flow["moments"]["weights change in the other cluster"]
    rested = flow["moments"]["weights change there after a rest"]
    pushed = [
        f"{median(one['wall'] for one in sides['crossmesh']) / median(one['wall'] for one in sides['skopeo']):.2f}" for sides in push["sizes"].values()
    ]
    asked = [
        f"{median(one[what] for one in found['mesh']) / median(one[what] for one in found['static']):.2f}"
        for found in sidecar["requests"].values()
        for what in ("p50", "p99")
    ]
    memory = [amount(at["memory_mb"], 0) for at in sidecar["sidecar"]]
    rows = [
        ["the whole flow from nothing / the tutorial's own commands, wall", "≤ 0.4", ratio(whole["crossmesh"], whole["tutorial"], "wall")],
        ["the same, CPU of the client side", "≤ 0.1", ratio(whole["crossmesh"], whole["tutorial"], "cpu")],
        ["the whole flow / the floor, wall", "≤ 1.25", ratio(whole["crossmesh"], whole["floor"], "wall")],
        ["nothing to do: `make -B all`", "≤ 0.6 s", f"{again['wall']['median']:.2f} s"],
        [f"an image pushed, {', '.join(push['sizes'])} MB / skopeo", "≤ 0.6", ", ".join(pushed)],
        ["color-probe, keep-alive, requests a second / wrk, one thread", "≥ 0.9", ", ".join(f"{at['ratio']:.2f} ({name})" for name, at in probe["servers"].items())],
        ["a weight changes in cluster 2 → Envoys in cluster 1, p50 and the slowest", "≤ 0.4 s, ≤ 1.0 s", f"{change['crossmesh']:.2f} s, {change['crossmesh, slowest']:.2f} s"],
        ["the same, where nothing has changed for 12 s", "", f"{rested['crossmesh']:.2f} s, {rested['crossmesh, slowest']:.2f} s"],
        [f"a request through the mesh / a static Envoy pair, p50 and p99, {' and '.join(sidecar['requests'])} at a time", "≤ 1.02", ", ".join(asked)],
        [f"memory of a sidecar at {', '.join(str(at['services']) for at in sidecar['sidecar'])} services known, MB", "flat", ", ".join(memory)],
    ]
    return table(["", "to reach", "seen"], rows)


# The tables of each file, by name, and the results that they are made from.
TABLES: dict[Path, dict[str, tuple[list[str], Callable[..., str]]]] = {
    README: {
        "summary": (["flow", "push", "probe", "sidecar"], summary),
        "flow": (["flow"], flow),
        "push": (["push"], push),
        "nothing-lost": (["nothing-lost"], nothing_lost),
        "probe": (["probe"], probe),
        "scale": (["scale"], scale),
        "sidecar": (["sidecar"], sidecar),
    },
    COST: {"calls": (["flow"], calls), "cost": (["scale"], cost)},
}


def written(file: Path) -> str:
    """A file with its tables as the results say: between `<!-- NAME -->` and `<!-- end -->`."""
    text = file.read_text()
    for name, (results, make) in TABLES[file].items():
        made = make(*(json.loads((BENCH / "results" / f"{result}.json").read_text()) for result in results))
        part = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = part.subn(lambda match: match[1] + made + "\n" + match[2], text)  # noqa: B023
        if count != 1:
            raise SystemExit(f"bench: {file.name} has {count} places for the tables of {name}, not one")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for file in TABLES:
        text = written(file)
        if args.check and file.read_text() != text:
            sys.exit(f"bench: {file.name} and results/ disagree: run python3 bench/tables.py")
        if not args.check:
            file.write_text(text)


if __name__ == "__main__":
    main()
