"""Evaluates IAM policy documents the way AWS describes it: an explicit Deny wins, else one Allow is needed.

Pure: documents, an action, a resource and the request's condition keys in, a decision out. A condition operator or
variable that is not known here never matches an Allow and always matches a Deny, so that doubt refuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

Document = str | Mapping[str, Any]
#: lower-cased condition key -> its values
Context = Mapping[str, list[str]]


class Decision(Enum):
    """What the policies say."""

    ALLOW = "allow"
    IMPLICIT_DENY = "implicit deny"
    EXPLICIT_DENY = "explicit deny"


@dataclass(frozen=True)
class Question:
    """May this action be done on this resource, under these circumstances?"""

    action: str
    resource: str = "*"
    context: Context | None = None


def evaluate(documents: Iterable[Document], question: Question) -> Decision:
    """One decision over all documents of one kind (identity policies, or a permissions boundary)."""
    allowed = False
    for document in documents:
        for statement in statements(document):
            denies = statement.get("Effect") == "Deny"
            if not covers(statement, question, doubt=denies):
                continue
            if denies:
                return Decision.EXPLICIT_DENY
            allowed = allowed or statement.get("Effect") == "Allow"
    return Decision.ALLOW if allowed else Decision.IMPLICIT_DENY


def statements(document: Document) -> list[Mapping[str, Any]]:
    """The statements of a document, given as JSON text or parsed."""
    parsed = json.loads(document) if isinstance(document, str) else document
    return as_list(parsed.get("Statement", []))


def covers(statement: Mapping[str, Any], question: Question, doubt: bool = False) -> bool:
    """Whether a statement speaks about the question; `doubt` is the answer for conditions nobody can decide."""
    return (
        _matches(statement, "Action", question.action.lower(), fold=True)
        and _matches(statement, "Resource", question.resource)
        and conditions_hold(statement.get("Condition") or {}, question.context or {}, doubt)
    )


def conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Context, doubt: bool = False) -> bool:
    """All operators, and all keys of each, must hold."""
    return all(
        _holds(operator, key.lower(), [str(w) for w in as_list(wanted)], context, doubt)
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def as_list(value: Any) -> list[Any]:
    """Policy grammar lets a list of one be written bare."""
    return list(value) if isinstance(value, list) else [value]


def _matches(statement: Mapping[str, Any], element: str, value: str, fold: bool = False) -> bool:
    for name, expected in ((element, True), (f"Not{element}", False)):
        if name in statement:
            patterns = [p.lower() if fold else p for p in as_list(statement[name])]
            return any(like(p, value) for p in patterns) is expected
    # A statement without a resource (a trust policy) speaks about the thing it is attached to.
    return element == "Resource"


def like(pattern: str, value: str) -> bool:
    """IAM's wildcards: `*` is any text and `?` any one character; nothing else is special."""
    return _compiled(pattern).fullmatch(value) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern), re.DOTALL)


_OPERATORS = {
    "StringEquals": lambda want, have: want == have,
    "StringEqualsIgnoreCase": lambda want, have: want.lower() == have.lower(),
    "StringLike": like,
    "ArnEquals": like,
    "ArnLike": like,
    "Bool": lambda want, have: want.lower() == have.lower(),
    "NumericEquals": lambda want, have: float(want) == float(have),
    "NumericLessThanEquals": lambda want, have: float(have) <= float(want),
    "NumericGreaterThanEquals": lambda want, have: float(have) >= float(want),
}


def _holds(operator: str, key: str, wanted: list[str], context: Context, doubt: bool) -> bool:
    quantifier, _, name = operator.rpartition(":")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    values = context.get(key)
    if name == "Null":
        return (values is None) is (wanted[0].lower() == "true")
    negated = "Not" in name
    compare = _OPERATORS.get(name.replace("Not", ""))
    if compare is None or any("${" in w for w in wanted):
        return doubt
    if values is None:
        # A missing key satisfies "...IfExists", every negated operator and an empty "ForAllValues".
        return if_exists or negated or quantifier == "ForAllValues"
    hits = [any(compare(w, v) for w in wanted) is not negated for v in values]
    return any(hits) if quantifier == "ForAnyValue" else all(hits)
