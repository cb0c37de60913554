"""The Route 53 hosted zones behind Cloud Map's DNS namespaces, in moto's Route 53 like any other zone."""

from __future__ import annotations

from moto.ec2.models import ec2_backends
from moto.route53.models import route53_backends

from cloudmap_state import Refused


class HostedZones:
    """Of one account; VPCs are those of `region`."""

    def __init__(self, account: str, region: str) -> None:
        self.region = region
        self._route53 = route53_backends[account]["aws"]
        self._vpcs = ec2_backends[account][region].vpcs

    def create(self, name: str, vpc: str | None) -> str:
        """The id of a new zone, private when there is a VPC; raises `Refused`, which makes the operation FAIL."""
        if vpc is not None:
            self._refuse(name, vpc)
        zone = self._route53.create_hosted_zone(
            f"{name}.",
            private_zone=vpc is not None,
            vpcid=vpc,
            vpcregion=self.region if vpc else None,
            comment="Created by AWS Cloud Map",
        )
        return zone.resource_id

    def delete(self, zone: str) -> None:
        """One that is gone is no error."""
        self._route53.zones.pop(zone, None)

    def _refuse(self, name: str, vpc: str) -> None:
        code = "CANNOT_CREATE_HOSTED_ZONE"
        if vpc not in self._vpcs:
            raise Refused(code, f"The VPC {vpc} in region {self.region} does not exist. (Error Code: InvalidVPCId)")
        for zone in self._route53.zones.values():
            sees = any(v["vpc_id"] == vpc for v in zone.vpcs)
            if zone.private_zone and sees and zone.name.rstrip(".") == name:
                raise Refused(
                    code,
                    f"The VPC that you chose, {vpc} in region {self.region}, is already associated with another private "
                    f"hosted zone that has an overlapping name space, {name}.. (Service: AmazonRoute53; "
                    "Status Code: 400; Error Code: ConflictingDomainExists)",
                )
