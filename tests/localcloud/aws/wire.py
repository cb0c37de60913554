"""A request's parameters as its model reads them, and what of the request the model has no place for.

moto's parsers pick what they know and pass over the rest: a misspelt parameter would be a parameter not given, and a
number in quotes a number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape
from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS, RequestParserError
from moto.core.request import Request

#: What the query protocols send beside the input's members.
_ENVELOPE = {"Action", "Version"}
_PRESIGNED = "x-amz-"
#: How JSON writes a shape; what is not here may be anything.
_JSON: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "blob": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
}


class _Asked(dict[str, Any]):
    """Parameters that remember which of them somebody wanted."""

    def __init__(self, values: Any) -> None:
        super().__init__(values)
        self.wanted: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.wanted.add(key)
        return super().get(key, default)

    def unwanted(self) -> list[str]:
        rest = self.keys() - self.wanted - _ENVELOPE
        return sorted(key for key in rest if not key.lower().startswith(_PRESIGNED))


def parameters(
    request: Request, protocol: str, operation: OperationModel, uri_params: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the model reads, and in words what it has no place for. Of an XML body (Route 53) the latter is not told."""
    query = protocol in ("query", "ec2")
    values: Any = _Asked(request.values.items()) if query else request.values
    raw: Any = {
        "method": request.method,
        "values": values,
        "headers": request.headers,
        "body": request.get_data(cache=True),
        "url_path": request.path,
        "url_params": uri_params,
    }
    try:
        read = dict(PROTOCOL_PARSERS[protocol](operation).parse(raw) or {})
    except (RequestParserError, ValueError, TypeError, KeyError, AttributeError) as error:
        return {}, (*_strange_json(request, protocol, operation), f"The request cannot be read: {error}")
    if query:
        return read, tuple(f"Unknown parameter '{key}'" for key in values.unwanted())
    return read, tuple(_strange_json(request, protocol, operation))


def _strange_json(request: Request, protocol: str, operation: OperationModel) -> Iterator[str]:
    if protocol not in ("json", "rest-json"):
        return
    shape = operation.input_shape
    members = shape.members if shape else {}
    named = {m.serialization.get("name", n) for n, m in members.items() if m.serialization.get("location")}
    yield from (f"Unknown parameter '{key}'" for key in request.args if key not in named)
    body = request.get_data(cache=True)
    try:
        content = json.loads(body) if body else {}
    except ValueError as error:
        yield f"The body is no JSON: {error}"
        return
    if shape is None:
        yield from (f"Unknown member '{key}'" for key in content)
    else:
        yield from _strange(shape, content, "")


def _strange(shape: Shape, value: Any, path: str) -> Iterator[str]:
    kinds: Any = _JSON.get(shape.type_name, (object,))
    if value is None:
        return
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        yield f"Value '{value}' at '{path}' is no {shape.type_name}"
    elif isinstance(shape, StructureShape):
        members = {
            m.serialization.get("name", n): m for n, m in shape.members.items() if "location" not in m.serialization
        }
        for name, inner in value.items():
            where = f"{path}.{name}" if path else name
            if name in members:
                yield from _strange(members[name], inner, where)
            else:
                yield f"Unknown member '{where}'"
    elif isinstance(shape, ListShape):
        for n, inner in enumerate(value, 1):
            yield from _strange(shape.member, inner, f"{path}.{n}")
    elif isinstance(shape, MapShape):
        for key, inner in value.items():
            yield from _strange(shape.value, inner, f"{path}.{key}")
