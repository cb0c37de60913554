"""What Cloud Map holds: namespaces, services, their instances, and the operations that change them.

Every change of Cloud Map but creating and deleting a service is asynchronous: the call answers with an operation
that is PENDING, and the change is seen when it has SUCCEEDED. Here an operation carries its effect and the moment it
takes effect, and `State.settle` applies what is due; there is no background thread.
"""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds an operation stays PENDING. AWS takes about a minute for a namespace, and for an instance seconds, or a minute
#: and more where DNS records are made.
PENDING = {"CREATE_NAMESPACE": 1.5, "DELETE_NAMESPACE": 1.0}
PENDING_DEFAULT = 0.3
_OF_INSTANCES = ("REGISTER_INSTANCE", "DEREGISTER_INSTANCE")

_ALPHABET = string.ascii_lowercase + string.digits


def random_id(length: int) -> str:
    """Lower-case letters and digits, as Cloud Map's ids are."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class Refused(Exception):
    """An error of the service model; `members` are the further members of its shape."""

    def __init__(self, code: str, message: str, **members: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.members = members


@dataclass
class Namespace:
    """`vpc` only for DNS_PRIVATE."""

    id: str
    arn: str
    name: str
    type: str
    description: str | None
    creator_request_id: str | None
    vpc: str | None
    properties: dict[str, Any]
    created: float = field(default_factory=time.time)

    @property
    def http_name(self) -> str:
        """Its name, but for a suffix if another had the name before."""
        return str(self.properties["HttpProperties"]["HttpName"])


@dataclass
class Instance:
    """Its attributes are all that Cloud Map knows of an instance."""

    id: str
    attributes: dict[str, str]
    creator_request_id: str | None
    health: str = "HEALTHY"


@dataclass
class Service:
    """`revision` counts the instances that came and went."""

    id: str
    arn: str
    name: str
    namespace_id: str
    type: str
    #: what CreateService was given, without tags; also what a retry is compared with
    request: dict[str, Any]
    created: float = field(default_factory=time.time)
    instances: dict[str, Instance] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    revision: int = 0


@dataclass
class Operation:
    """`effect` runs once, when the operation is due; what it raises makes the operation FAIL."""

    id: str
    type: str
    targets: dict[str, str]
    effect: Callable[[], None]
    due: float
    key: object
    status: str = "PENDING"
    error: Refused | None = None
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)


class InstanceDelay:
    """Seconds that an instance takes to come or go, which a test may set: STATE/instance-delay holds them."""

    def __init__(self, state: Path) -> None:
        self._file = state / "instance-delay"

    def __call__(self) -> float:
        try:
            return float(self._file.read_text())
        except (OSError, ValueError):
            return PENDING_DEFAULT


class State:
    """One account and region."""

    def __init__(
        self,
        account: str,
        region: str,
        clock: Callable[[], float] = time.monotonic,
        instance_delay: Callable[[], float] = lambda: PENDING_DEFAULT,
    ) -> None:
        self.account = account
        self.region = region
        self.clock = clock
        self.instance_delay = instance_delay
        self.namespaces: dict[str, Namespace] = {}
        self.services: dict[str, Service] = {}
        self.operations: dict[str, Operation] = {}
        self.tags: dict[str, dict[str, str]] = {}

    def arn(self, kind: str, id_: str) -> str:
        """Of a namespace or a service."""
        return f"arn:aws:servicediscovery:{self.region}:{self.account}:{kind}/{id_}"

    def settle(self) -> None:
        """Applies the operations that are due, in the order they were asked for."""
        now = self.clock()
        for operation in self.operations.values():
            if operation.status != "PENDING" or operation.due > now:
                continue
            try:
                operation.effect()
                operation.status = "SUCCESS"
            except Refused as refused:
                operation.status, operation.error = "FAIL", refused
            operation.updated = time.time()

    def start(self, type_: str, targets: dict[str, str], key: object, effect: Callable[[], None]) -> str:
        """Queues an operation and gives its id; `key` tells a repeated request from a new one."""
        for other in self.pending(targets):
            if other.type == type_ and other.key == key:
                raise Refused(
                    "DuplicateRequest",
                    f"The operation {other.id} is already in progress",
                    DuplicateOperationId=other.id,
                )
            # A namespace is a target of the operations on its services as well; those may run side by side.
            if other.targets == targets:
                raise Refused(
                    "ResourceInUse", f"The resource is changed by operation {other.id}, which is still in progress"
                )
        pending = self.instance_delay() if type_ in _OF_INSTANCES else PENDING.get(type_, PENDING_DEFAULT)
        due = self.clock() + pending
        operation = Operation(f"{random_id(32)}-{random_id(8)}", type_, targets, effect, due, key)
        self.operations[operation.id] = operation
        return operation.id

    def pending(self, targets: dict[str, str]) -> list[Operation]:
        """Unfinished operations on the same targets."""
        return [o for o in self.operations.values() if o.status == "PENDING" and targets.items() <= o.targets.items()]

    def namespace(self, id_: str) -> Namespace:
        """By id or ARN."""
        found = self.namespaces.get(id_.rsplit("/", 1)[-1])
        if found is None:
            raise Refused("NamespaceNotFound", f"The specified namespace: {id_} does not exist")
        return found

    def service(self, id_: str) -> Service:
        """By id or ARN."""
        found = self.services.get(id_.rsplit("/", 1)[-1])
        if found is None:
            raise Refused("ServiceNotFound", f"Could not find service: {id_}")
        return found

    def instance(self, service: Service, id_: str) -> Instance:
        """By id."""
        found = service.instances.get(id_)
        if found is None:
            raise Refused("InstanceNotFound", f"Could not find instance: {id_} in service: {service.id}")
        return found

    def services_of(self, namespace_id: str) -> list[Service]:
        """In the order they were made."""
        return [s for s in self.services.values() if s.namespace_id == namespace_id]
