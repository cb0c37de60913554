"""Route 53's GetHostedZone for the zones behind Cloud Map's namespaces, which moto 5.2.5 knows nothing of.

It is the only API that tells which VPC a private namespace belongs to.
<https://docs.aws.amazon.com/Route53/latest/APIReference/API_GetHostedZone.html>
"""

from __future__ import annotations

from html import escape

from moto.core.request import Request
from werkzeug.wrappers import Response

from call import Call
from cloudmap_state import Namespace, State
from fault import query_error

_XMLNS = "https://route53.amazonaws.com/doc/2013-04-01/"


class Route53:
    """Answers for Cloud Map's zones; None leaves any other call to moto."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __call__(self, call: Call, _: Request) -> Response | None:
        if call.operation != "GetHostedZone":
            return None
        self.state.settle()
        zone = str(call.params["Id"]).removeprefix("/hostedzone/")
        for namespace in list(self.state.namespaces.values()):
            if namespace.properties.get("DnsProperties", {}).get("HostedZoneId") == zone:
                return Response(_document(zone, namespace, self.state.region), 200, content_type="text/xml")
        return query_error("route53", "NoSuchHostedZone", f"No hosted zone found with ID: {zone}", 404)


def _document(zone: str, namespace: Namespace, region: str) -> str:
    private = "true" if namespace.vpc else "false"
    vpcs = (
        f"<VPCs><VPC><VPCRegion>{region}</VPCRegion><VPCId>{escape(namespace.vpc)}</VPCId></VPC></VPCs>"
        if namespace.vpc
        else ""
    )
    return (
        f'<?xml version="1.0"?>\n<GetHostedZoneResponse xmlns="{_XMLNS}"><HostedZone><Id>/hostedzone/{zone}</Id>'
        f"<Name>{escape(namespace.name)}.</Name><CallerReference>{namespace.id}</CallerReference>"
        f"<Config><PrivateZone>{private}</PrivateZone></Config><ResourceRecordSetCount>2</ResourceRecordSetCount>"
        "<LinkedService><ServicePrincipal>servicediscovery.amazonaws.com</ServicePrincipal></LinkedService>"
        f"</HostedZone>{vpcs}</GetHostedZoneResponse>"
    )
