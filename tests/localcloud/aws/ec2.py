"""EC2 security groups, where moto 5.2.5 is laxer than AWS.

* A rule is the same rule whatever its description; moto takes it twice and can't revoke it without one.
* One AuthorizeSecurityGroup… with several permissions is all or nothing, and answers with every rule it made.
* The description of a rule between groups is not told.
* A group that an instance or another group's rule uses can be deleted (AWS: DependencyViolation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.security_groups import SecurityGroupBackend, SecurityGroupRule
from moto.ec2.responses.security_groups import SecurityGroups


def install() -> None:
    """Mends moto's EC2 in this process."""
    mended: dict[type, dict[str, Any]] = {
        SecurityGroupRule: {
            "__eq__": lambda self, other: key(self) == key(other),
            "__hash__": lambda self: hash(key(self)),
            "description": property(lambda r: r.ip_range.get("Description") or r.source_group.get("Description")),
        },
        SecurityGroups: {
            "authorize_security_group_ingress": _authorize("ingress"),
            "authorize_security_group_egress": _authorize("egress"),
        },
        SecurityGroupBackend: {"delete_security_group": _delete(SecurityGroupBackend.delete_security_group)},
    }
    for kind, members in mended.items():
        for name, member in members.items():
            setattr(kind, name, member)


def key(rule: SecurityGroupRule) -> tuple[Any, ...]:
    """What makes a rule this rule within its group and direction."""
    peer = (
        rule.ip_range.get("CidrIp")
        or rule.ip_range.get("CidrIpv6")
        or rule.source_group.get("GroupId")
        or rule.prefix_list_id
    )
    return (rule.ip_protocol, rule.from_port, rule.to_port, peer)


def _authorize(direction: str) -> Callable[[Any], ActionResult]:
    def authorize(self: Any) -> ActionResult:
        self.error_on_dryrun()
        asked = list(self._process_rules_from_querystring())
        group = self.ec2_backend.get_security_group_by_name_or_id(asked[0]["group_name_or_id"]) if asked else None
        rules = f"{direction}_rules"
        before = list(getattr(group, rules)) if group else []
        made: list[SecurityGroupRule] = []
        try:
            for one in asked:
                _refuse_duplicates(self.ec2_backend, one, before)
                made += getattr(self.ec2_backend, f"authorize_security_group_{direction}")(**one)[0]
        except EC2ClientError:
            if group:
                setattr(group, rules, before)
            raise
        return ActionResult({"Return": True, "SecurityGroupRules": made})

    return authorize


def _refuse_duplicates(backend: Any, asked: dict[str, Any], have: list[SecurityGroupRule]) -> None:
    """With the rule in the message, as AWS does."""
    protocol = str(asked["ip_protocol"])
    sources = [g for g in asked["source_groups"] or [] if "GroupId" in g]
    wanted = backend._iterate_security_rules(
        protocol, "", asked["from_port"], asked["to_port"], asked["ip_ranges"], sources, asked["prefix_list_ids"] or []
    )
    for rule in wanted:
        if rule in have:
            _, low, high, peer = key(rule)
            ports = f", from port: {low}, to port: {high}" if low is not None else ""
            name = "ALL" if protocol == "-1" else protocol.upper()
            raise EC2ClientError(
                "InvalidPermission.Duplicate", f'the specified rule "peer: {peer}, {name}{ports}, ALLOW" already exists'
            )


def _delete(delete: Callable[..., None]) -> Callable[..., None]:
    def delete_security_group(self: Any, name: str | None = None, group_id: str | None = None) -> None:
        if group_id and (_instances(self, group_id) or _referring(self, group_id)):
            raise EC2ClientError("DependencyViolation", f"resource {group_id} has a dependent object")
        delete(self, name, group_id)

    return delete_security_group


def _instances(backend: Any, group_id: str) -> bool:
    running = (i for i in backend.all_instances() if i.state != "terminated")
    return any(g.id == group_id for i in running for g in i.security_groups)


def _referring(backend: Any, group_id: str) -> bool:
    groups = (g for of_vpc in backend.groups.values() for g in of_vpc.values() if g.id != group_id)
    return any(r.source_group.get("GroupId") == group_id for g in groups for r in (*g.ingress_rules, *g.egress_rules))
