"""Finds who signed a call, and what that identity may do.

The truth about users, roles, keys and sessions is moto's; this only reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moto.core.utils import utcnow
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from call import Credential
from fault import Fault, Kind
from policy import Document


@dataclass(frozen=True)
class Identity:
    """`policies` are the identity-based ones; `boundary` caps them when there is one."""

    arn: str
    user_id: str
    account: str
    secret: str
    policies: tuple[Document, ...]
    boundary: Document | None = None


def find(account: str, credential: Credential) -> Identity:
    """The identity behind an access key; raises `Fault` for a key that is unknown, inactive or expired."""
    iam, sts = iam_backends[account]["aws"], sts_backends[account]["aws"]
    session = sts.get_assumed_role_from_access_key(credential.access_key)
    if session is not None:
        if session.session_token != credential.session_token:
            raise Fault(Kind.UNKNOWN_KEY, "The security token included in the request is invalid.")
        if session.expiration <= utcnow():
            raise Fault(Kind.EXPIRED, "The security token included in the request is expired")
        role = next((r for r in iam.roles.values() if r.arn == session.role_arn), None)
        if role is None:
            raise Fault(Kind.UNKNOWN_KEY, "The security token included in the request is invalid.")
        policies, boundary = _attached(role, iam)
        return Identity(session.arn, session.user_id, account, session.secret_access_key, policies, boundary)
    keys = ((u, k) for u in iam.users.values() for k in u.access_keys)
    user, key = next(
        ((u, k) for u, k in keys if k.access_key_id == credential.access_key and k.status == "Active"), (None, None)
    )
    if user is None or key is None:
        raise Fault(Kind.UNKNOWN_KEY, "The security token included in the request is invalid.")
    policies, boundary = _attached(user, iam)
    for group in iam.groups.values():
        if user in group.users:
            policies += _attached(group, iam)[0]
    return Identity(user.arn, user.id, account, key.secret_access_key, policies, boundary)


def _attached(holder: Any, iam: Any) -> tuple[tuple[Document, ...], Document | None]:
    arn = getattr(holder, "permissions_boundary_arn", None)
    boundary = iam.managed_policies.get(arn) if arn else None
    managed = [_default_version(p) for p in holder.managed_policies.values()]
    return (*managed, *holder.policies.values()), _default_version(boundary) if boundary else None


def _default_version(managed_policy: Any) -> Document:
    return next(v.document for v in managed_policy.versions if v.is_default)
