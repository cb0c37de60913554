"""Checks a call against the service's own model: members, types, required members, lengths, ranges, patterns, enums.

moto takes whatever it is given; AWS refuses a role name with a space before anything else happens.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex
from botocore.model import ListShape, MapShape, Shape, StructureShape
from werkzeug.wrappers import Response

from call import Call
from fault import ec2_error, json_error, query_error, rest_json_error

#: What the services call a parameter they do not take.
_JSON_CODE = {"servicediscovery": "InvalidInput", "ecr": "InvalidParameterException"}


class Violations:
    """STATE/log/violations.log: every call that its service's model refuses or does not know, one JSON object a line.

    A line is there before the caller hears of it, so whoever has seen a call end can rely on the file.
    """

    def __init__(self, state: Path) -> None:
        self.path = state / "log" / "violations.log"
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")

    def add(self, call: Call, message: str) -> None:
        """`message` says what is wrong with the call."""
        line = json.dumps({"action": call.action, "message": message})
        with self._lock, self.path.open("a") as file:
            file.write(line + "\n")


def check(call: Call) -> str | None:
    """What is wrong with the parameters, in AWS's words; None when they are fine."""
    shape = call.model.input_shape if call.model else None
    faults = [*call.strange, *(_faults(shape, call.params, "") if shape else ())]
    if not faults:
        return None
    return f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected: {'; '.join(faults)}"


def refuse(call: Call, message: str) -> Response:
    """The refusal, as the service would send it."""
    if call.protocol == "ec2":
        return ec2_error("InvalidParameterValue", message)
    if call.protocol in ("query", "rest-xml"):
        return query_error(call.service or "", "ValidationError", message)
    if call.protocol == "rest-json":
        return rest_json_error("InvalidParameterException", message)
    return json_error(_JSON_CODE.get(call.service or "", "ValidationException"), message)


def _faults(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name in shape.required_members:
            if value.get(name) is None:
                yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
        if shape.is_tagged_union and sum(inner is not None for inner in value.values()) != 1:
            yield f"Value '{value}' at '{path}' failed to satisfy constraint: Exactly one member of a union must be given"
        for name, inner in value.items():
            if name in shape.members and inner is not None:
                yield from _faults(shape.members[name], inner, _join(path, name))
    elif isinstance(shape, ListShape) and isinstance(value, list):
        yield from _bounds(shape, len(value), value, path, "length")
        for n, inner in enumerate(value, 1):
            yield from _faults(shape.member, inner, f"{path}.{n}.member")
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        yield from _bounds(shape, len(value), value, path, "length")
        for key, inner in value.items():
            yield from _faults(shape.key, key, path)
            yield from _faults(shape.value, inner, f"{path}.{key}.member")
    elif shape.type_name == "string" and isinstance(value, str):
        yield from _bounds(shape, len(value), value, path, "length")
        pattern = shape.metadata.get("pattern")
        if pattern and not _fits(pattern, value):
            yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy regular expression pattern: {pattern}"
        enum = shape.metadata.get("enum")
        if enum and value not in enum:
            yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy enum value set: [{', '.join(enum)}]"
    elif shape.type_name == "blob" and isinstance(value, bytes):
        yield from _bounds(shape, len(value), value, path, "length")
    elif shape.type_name in ("integer", "long", "float", "double") and isinstance(value, int | float):
        yield from _bounds(shape, value, value, path, "value")


def _bounds(shape: Shape, size: float, value: Any, path: str, what: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have {what} greater than or equal to {low}"
    if high is not None and size > high:
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have {what} less than or equal to {high}"


def _fits(pattern: str, value: str) -> bool:
    """The models' patterns are Java's; one that Python can't read is not checked."""
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> Any:
    try:
        return regex.compile(pattern)
    except regex.error:
        return None


def _join(path: str, name: str) -> str:
    member = name[:1].lower() + name[1:]
    return f"{path}.{member}" if path else member
