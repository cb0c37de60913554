"""Faults on demand: a call of an AWS API or of Kubernetes is refused, delayed, torn or held.

A rule is a file STATE/faults/NAME.json; removing it ends it. Beside it, NAME.struck gets a line for every call that it
struck, and NAME.held is there as long as a call is held.

    {"kind": "throttle", "action": ["iam:Create*"], "skip": 1, "times": 2}

| field | what |
| --- | --- |
| action | which calls, as patterns: `service:Operation`, or for Kubernetes `CLUSTER:VERB PATH`; default all |
| agent | only clients whose User-Agent contains this; default all |
| writes | only calls that write; default all |
| skip, times | not the first `skip` calls of these, then `times` of them; default 0 and 1 |
| kind | see below |

| kind | what happens |
| --- | --- |
| count | nothing |
| throttle | refused in the service's own words |
| error | refused with `code`, `status` and `message` |
| stall | carried out after `seconds` |
| reset | carried out, then the connection closes without an answer (the gateway makes a 503 of it) |
| truncate | carried out, the connection closes in the middle of the answer |
| hold-before | waits before it is carried out |
| hold-after | carried out, waits before it is answered |

A held call goes on when NAME.released appears. When the rule is removed instead, its connection closes: what was held
before is never carried out. The registry's own calls (`/v2/…`) are named after the action they need, `registry:PutImage`,
and know only count, throttle, error and hold-before.
"""

from __future__ import annotations

import fnmatch
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Response

from call import Call
from fault import in_protocol

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
#: An error of (code, message, status) as the service would send it.
Refuse = Callable[[str, str, int], Response]

#: What Kubernetes or an AWS API calls it when somebody asks too much: code and status.
TOO_MANY = ("TooManyRequests", 429)
_THROTTLE = {
    "query": ("Throttling", 400),
    "rest-xml": ("Throttling", 400),
    "ec2": ("RequestLimitExceeded", 503),
    "json": ("ThrottlingException", 400),
    "rest-json": ("ThrottlingException", 429),
}
_READS = ("Assume", "BatchCheck", "BatchGet", "Describe", "Discover", "Get", "List", "Ping")


@dataclass(frozen=True)
class Met:
    """A call, as rules see it."""

    action: str
    agent: str
    writes: bool


@dataclass(frozen=True)
class Rule:
    """One file of the folder."""

    path: Path
    kind: str
    action: Sequence[str] = ("*",)
    agent: str = ""
    writes: bool = False
    skip: int = 0
    times: int = 1
    seconds: float = 0
    code: str = ""
    status: int = 500
    message: str = "a fault of the local cloud"

    def fits(self, met: Met) -> bool:
        """Whether it is about such a call."""
        named = any(fnmatch.fnmatchcase(met.action, pattern) for pattern in self.action)
        return named and self.agent in met.agent and (met.writes or not self.writes)

    def hold(self) -> bool:
        """Waits for the test; False when the call shall not go on."""
        held, released = self.path.with_suffix(".held"), self.path.with_suffix(".released")
        held.touch()
        while not (go_on := released.exists()) and self.path.exists():
            time.sleep(0.01)
        held.unlink(missing_ok=True)
        return go_on

    def refusal(self, refuse: Refuse, throttle: tuple[str, int]) -> Response | None:
        """The answer to a call that is not carried out; None for every other kind."""
        if self.kind == "throttle":
            return refuse(throttle[0], "Rate exceeded", throttle[1])
        if self.kind == "error":
            return refuse(self.code, self.message, self.status)
        return None


class Faults:
    """The rules of one cloud."""

    def __init__(self, state: Path) -> None:
        self.folder = state / "faults"
        self._met: Counter[tuple[str, int, int]] = Counter()
        self._lock = threading.Lock()

    def strike(self, met: Met) -> Rule | None:
        """The rule that strikes this call, which is counted."""
        with self._lock:
            struck = [rule for rule in self._rules(met) if rule.kind != "count"]
        return struck[0] if struck else None

    def _rules(self, met: Met) -> Iterator[Rule]:
        for path in sorted(self.folder.glob("*.json")):
            with suppress(FileNotFoundError):
                file = path.stat()
                rule = Rule(path, **json.loads(path.read_text()))
                if not rule.fits(met):
                    continue
                key = (path.name, file.st_ino, file.st_mtime_ns)
                self._met[key] += 1
                if rule.skip < self._met[key] <= rule.skip + rule.times:
                    with path.with_suffix(".struck").open("a") as struck:
                        struck.write(f"{met.action}\n")
                    yield rule

    def around_api(self, call: Call, agent: str, carry_out: Application) -> Application:
        """A call of an AWS API with what befalls it."""

        def refuse(code: str, message: str, status: int) -> Response:
            return in_protocol(call.service or "", call.protocol, code, message, status)

        return self.around(met(call.action, agent), refuse, _THROTTLE.get(call.protocol, TOO_MANY), carry_out)

    def around(self, met: Met, refuse: Refuse, throttle: tuple[str, int], carry_out: Application) -> Application:
        """`carry_out`, with what befalls the call."""
        rule = self.strike(met)
        if rule is None:
            return carry_out
        refusal = rule.refusal(refuse, throttle)
        if refusal is not None:
            return refusal
        return lambda environ, start_response: _befall(rule, carry_out, environ, start_response)


def met(action: str, agent: str) -> Met:
    """A call `service:Operation`: its verb tells whether it writes."""
    return Met(action, agent, not action.split(":", 1)[-1].startswith(_READS))


def _befall(rule: Rule, carry_out: Application, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
    if rule.kind == "stall":
        time.sleep(rule.seconds)
    if rule.kind in ("stall", "hold-before"):
        go_on = rule.kind == "stall" or rule.hold()
        return carry_out(environ, start) if go_on else _hang_up(environ, start)
    answer = Response.from_app(carry_out, environ, buffered=True)
    if rule.kind == "truncate":
        return _half(answer, environ, start)
    go_on = rule.kind == "hold-after" and rule.hold()
    return answer(environ, start) if go_on else _hang_up(environ, start)


def _half(answer: Response, environ: dict[str, Any], start: StartResponse) -> Iterator[bytes]:
    body = answer.get_data()
    start(answer.status, [*answer.headers.items()])
    yield body[: len(body) // 2]
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _hang_up(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    start("500 Nobody Sees This", [])
    return []
