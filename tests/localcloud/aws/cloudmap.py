"""AWS Cloud Map (`servicediscovery`), in place of moto's.

moto 5.2.5 knows one namespace per VPC, ignores filters, guards and quotas, lists without pages and is never PENDING.
<https://docs.aws.amazon.com/cloud-map/latest/api/API_Operations.html>
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from werkzeug.wrappers import Response

from call import Call
from cloudmap_state import Instance, Namespace, Operation, Refused, Service, State, random_id
from fault import json_error
from hostedzone import HostedZones

Params = dict[str, Any]
T = TypeVar("T")
#: Why the caller of a call may not do what it makes Cloud Map do with this hosted zone.
Refusal = Callable[[Call, str | None], str | None]

#: Quotas, <https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-limits.html>
MAX_INSTANCE_ATTRIBUTES = 30
MAX_ATTRIBUTES_TEXT = 5000
MAX_SERVICE_ATTRIBUTES = 30
MAX_TAGS = 50
_CHANGING_RECORDS = ("RegisterInstance", "DeregisterInstance")
_NEEDED_ATTRIBUTES = {"A": ["AWS_INSTANCE_IPV4"], "AAAA": ["AWS_INSTANCE_IPV6"], "CNAME": ["AWS_INSTANCE_CNAME"]}


class CloudMap:
    """The API; every public method in `_OPERATIONS` is one operation, from parameters to the result's members."""

    def __init__(self, state: State, zones: HostedZones, refusal: Refusal) -> None:
        self.state = state
        self.zones = zones
        #: why the caller may not have a hosted zone made, or its records changed, if so
        self.refusal = refusal
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Response:
        operation = _OPERATIONS.get(call.operation or "")
        if operation is None:
            return json_error("UnknownOperationException", f"{call.operation} is not served here")
        with self._lock:
            self.state.settle()
            try:
                result = operation(self, call.params)
                if reason := self.refusal(call, self._zone_to_change(call)):
                    self.state.operations[result["OperationId"]].effect = _denied(reason)
            except Refused as refused:
                return json_error(refused.code, refused.message, members=refused.members)
        headers = {"x-amzn-requestid": str(uuid.uuid4())}
        return Response(json.dumps(result), 200, headers, content_type="application/x-amz-json-1.1")

    def _zone_to_change(self, call: Call) -> str | None:
        """The hosted zone whose records the call changes: those of an instance of a service with DNS records."""
        service = self.state.services.get(call.params.get("ServiceId", ""))
        if service is None or not service.request.get("DnsConfig") or call.operation not in _CHANGING_RECORDS:
            return None
        dns = self.state.namespaces[service.namespace_id].properties["DnsProperties"]
        return str(dns["HostedZoneId"])

    # --- namespaces

    def create_http_namespace(self, p: Params) -> Params:
        return self._create_namespace("HTTP", p)

    def create_private_dns_namespace(self, p: Params) -> Params:
        return self._create_namespace("DNS_PRIVATE", p)

    def create_public_dns_namespace(self, p: Params) -> Params:
        return self._create_namespace("DNS_PUBLIC", p)

    def _create_namespace(self, type_: str, p: Params) -> Params:
        state, name, request_id = self.state, p["Name"], p.get("CreatorRequestId")
        for other in state.namespaces.values():
            same_request = request_id is not None and other.creator_request_id == request_id
            if other.name == name and other.type == type_ and (same_request or type_ == "HTTP"):
                raise Refused(
                    "NamespaceAlreadyExists",
                    f"Namespace with name {name} already exists",
                    NamespaceId=other.id,
                    CreatorRequestId=other.creator_request_id or "",
                )
        key = (type_, name, p.get("Vpc"), request_id)
        for operation in state.operations.values():
            if operation.status == "PENDING" and operation.key == key and request_id is not None:
                raise Refused(
                    "DuplicateRequest", "The operation is already in progress", DuplicateOperationId=operation.id
                )
        id_ = f"ns-{random_id(16)}"
        # No two have one name for DiscoverInstances.
        taken = any(other.http_name == name for other in state.namespaces.values())
        properties: Params = {"HttpProperties": {"HttpName": f"{name}_{random_id(8)}" if taken else name}}
        if type_ != "HTTP":
            soa = (p.get("Properties") or {}).get("DnsProperties", {}).get("SOA", {"TTL": 15})
            properties["DnsProperties"] = {"SOA": soa}
        namespace = Namespace(
            id_, state.arn("namespace", id_), name, type_, p.get("Description"), request_id, p.get("Vpc"), properties
        )
        tags = _tags(p)

        def effect() -> None:
            if type_ != "HTTP":
                properties["DnsProperties"]["HostedZoneId"] = self.zones.create(name, namespace.vpc)
            state.namespaces[id_] = namespace
            state.tags[namespace.arn] = tags

        return {"OperationId": state.start("CREATE_NAMESPACE", {"NAMESPACE": id_}, key, effect)}

    def delete_namespace(self, p: Params) -> Params:
        state = self.state
        namespace = state.namespace(p["Id"])

        def unused() -> None:
            if state.services_of(namespace.id):
                raise Refused("ResourceInUse", "Namespace has associated services")

        def effect() -> None:
            unused()
            del state.namespaces[namespace.id]
            if zone := namespace.properties.get("DnsProperties", {}).get("HostedZoneId"):
                self.zones.delete(zone)
            state.tags.pop(namespace.arn, None)

        unused()
        return {"OperationId": state.start("DELETE_NAMESPACE", {"NAMESPACE": namespace.id}, None, effect)}

    def update_namespace(self, p: Params) -> Params:
        namespace, change = self.state.namespace(p["Id"]), p["Namespace"]

        def effect() -> None:
            namespace.description = change.get("Description", namespace.description)
            soa = (change.get("Properties") or {}).get("DnsProperties", {}).get("SOA")
            if soa:
                namespace.properties["DnsProperties"]["SOA"] = soa

        return {"OperationId": self.state.start("UPDATE_NAMESPACE", {"NAMESPACE": namespace.id}, change, effect)}

    def get_namespace(self, p: Params) -> Params:
        return {"Namespace": self._namespace(self.state.namespace(p["Id"]), full=True)}

    def list_namespaces(self, p: Params) -> Params:
        shapes = [self._namespace(n) for n in self.state.namespaces.values()]
        read: dict[str, Callable[[Params], str]] = {
            "NAME": lambda n: n["Name"],
            "TYPE": lambda n: n["Type"],
            "HTTP_NAME": lambda n: n["Properties"]["HttpProperties"]["HttpName"],
            "RESOURCE_OWNER": _owner,
        }
        return _page("Namespaces", _filtered(shapes, read, p), p)

    # --- services

    def create_service(self, p: Params) -> Params:
        state = self.state
        wanted = p.get("NamespaceId") or (p.get("DnsConfig") or {}).get("NamespaceId")
        if not wanted:
            raise Refused("InvalidInput", "NamespaceId must be specified")
        namespace = state.namespace(wanted)
        request = {k: v for k, v in p.items() if k != "Tags"}
        for other in state.services_of(namespace.id):
            if other.name.lower() != p["Name"].lower():
                continue
            if request.get("CreatorRequestId") and request == other.request:
                return {"Service": self._service(other, full=True)}
            raise Refused(
                "ServiceAlreadyExists",
                "Service already exists.",
                ServiceId=other.id,
                ServiceArn=other.arn,
                CreatorRequestId=other.request.get("CreatorRequestId", ""),
            )
        type_ = _service_type(namespace, p)
        id_ = f"srv-{random_id(16)}"
        service = Service(id_, state.arn("service", id_), p["Name"], namespace.id, type_, request)
        state.tags[service.arn] = _tags(p)
        state.services[id_] = service
        return {"Service": self._service(service, full=True)}

    def update_service(self, p: Params) -> Params:
        service, change = self.state.service(p["Id"]), p["Service"]

        def effect() -> None:
            for member in ("Description", "DnsConfig", "HealthCheckConfig"):
                if member in change:
                    service.request[member] = (
                        {**(service.request.get(member) or {}), **change[member]}
                        if member == "DnsConfig"
                        else change[member]
                    )

        return {"OperationId": self.state.start("UPDATE_SERVICE", self._targets(service), change, effect)}

    def delete_service(self, p: Params) -> Params:
        state = self.state
        service = state.service(p["Id"])
        if service.instances or state.pending({"SERVICE": service.id}):
            raise Refused(
                "ResourceInUse",
                "Service contains registered instances; delete the instances before deleting the service",
            )
        del state.services[service.id]
        state.tags.pop(service.arn, None)
        return {}

    def get_service(self, p: Params) -> Params:
        return {"Service": self._service(self.state.service(p["Id"]), full=True)}

    def list_services(self, p: Params) -> Params:
        read = {"NAMESPACE_ID": lambda s: s.namespace_id, "RESOURCE_OWNER": _owner}
        # A filter may name the namespace by its ARN.
        filters = [{**f, "Values": [v.rsplit("/", 1)[-1] for v in f["Values"]]} for f in p.get("Filters") or []]
        services = _filtered(list(self.state.services.values()), read, {"Filters": filters})
        return _page("Services", [self._service(s) for s in services], p)

    def get_service_attributes(self, p: Params) -> Params:
        service = self.state.service(p["ServiceId"])
        shape = {"ServiceArn": service.arn, "ResourceOwner": self.state.account, "Attributes": service.attributes}
        return {"ServiceAttributes": shape}

    def update_service_attributes(self, p: Params) -> Params:
        service = self.state.service(p["ServiceId"])
        updated = {**service.attributes, **p["Attributes"]}
        if len(updated) > MAX_SERVICE_ATTRIBUTES:
            raise Refused(
                "ServiceAttributesLimitExceededException",
                f"A service can have at most {MAX_SERVICE_ATTRIBUTES} attributes",
            )
        service.attributes = updated
        return {}

    def delete_service_attributes(self, p: Params) -> Params:
        service = self.state.service(p["ServiceId"])
        for key in p["Attributes"]:
            service.attributes.pop(key, None)
        return {}

    # --- instances

    def register_instance(self, p: Params) -> Params:
        state = self.state
        service, id_, attributes = state.service(p["ServiceId"]), p["InstanceId"], p["Attributes"]
        _check_attributes(service, attributes)

        def effect() -> None:
            health = attributes.get("AWS_INIT_HEALTH_STATUS", "HEALTHY")
            service.revision += id_ not in service.instances
            service.instances[id_] = Instance(id_, attributes, p.get("CreatorRequestId"), health)

        targets = self._targets(service, id_)
        return {
            "OperationId": state.start("REGISTER_INSTANCE", targets, (p.get("CreatorRequestId"), attributes), effect)
        }

    def deregister_instance(self, p: Params) -> Params:
        state = self.state
        service = state.service(p["ServiceId"])
        instance = state.instance(service, p["InstanceId"])

        def effect() -> None:
            service.revision += service.instances.pop(instance.id, None) is not None

        return {"OperationId": state.start("DEREGISTER_INSTANCE", self._targets(service, instance.id), None, effect)}

    def get_instance(self, p: Params) -> Params:
        instance = self.state.instance(self.state.service(p["ServiceId"]), p["InstanceId"])
        shape = {"Id": instance.id, "Attributes": instance.attributes, "CreatorRequestId": instance.creator_request_id}
        return {"Instance": _present(shape)}

    def list_instances(self, p: Params) -> Params:
        instances = self.state.service(p["ServiceId"]).instances.values()
        return _page("Instances", [{"Id": i.id, "Attributes": i.attributes} for i in instances], p)

    def get_instances_health_status(self, p: Params) -> Params:
        service = self.state.service(p["ServiceId"])
        wanted = [self.state.instance(service, i) for i in p.get("Instances") or service.instances]
        page = _page("Status", wanted, p)
        page["Status"] = {i.id: i.health for i in page["Status"]}
        return page

    def update_instance_custom_health_status(self, p: Params) -> Params:
        service = self.state.service(p["ServiceId"])
        if "HealthCheckCustomConfig" not in service.request:
            raise Refused("CustomHealthNotFound", f"Service {service.id} has no custom health check")
        self.state.instance(service, p["InstanceId"]).health = p["Status"]
        service.revision += 1
        return {}

    def discover_instances(self, p: Params) -> Params:
        namespace, service = self._discovered(p)
        found = [
            i for i in service.instances.values() if (p.get("QueryParameters") or {}).items() <= i.attributes.items()
        ]
        optional = (p.get("OptionalParameters") or {}).items()
        found = [i for i in found if optional <= i.attributes.items()] or found
        found = _by_health(service, found, p.get("HealthStatus", "HEALTHY_OR_ELSE_ALL"))
        shapes = [
            {
                "InstanceId": i.id,
                "NamespaceName": namespace.name,
                "ServiceName": service.name,
                "HealthStatus": i.health if _has_health_check(service) else "UNKNOWN",
                "Attributes": i.attributes,
            }
            for i in found[: p.get("MaxResults", 100)]
        ]
        return {"Instances": shapes, "InstancesRevision": service.revision}

    def discover_instances_revision(self, p: Params) -> Params:
        return {"InstancesRevision": self._discovered(p)[1].revision}

    def _discovered(self, p: Params) -> tuple[Namespace, Service]:
        wanted = p["NamespaceName"]
        namespaces = [n for n in self.state.namespaces.values() if wanted in (n.http_name, n.arn)]
        if not namespaces:
            raise Refused("NamespaceNotFound", f"The specified namespace: {wanted} does not exist")
        for namespace in namespaces:
            for service in self.state.services_of(namespace.id):
                if service.name == p["ServiceName"]:
                    return namespace, service
        raise Refused("ServiceNotFound", f"Could not find service: {p['ServiceName']} in namespace: {wanted}")

    # --- operations and tags

    def get_operation(self, p: Params) -> Params:
        operation = self.state.operations.get(p["OperationId"])
        if operation is None:
            raise Refused("OperationNotFound", f"No operation found with operationId: {p['OperationId']}")
        shape = {
            "Id": operation.id,
            "OwnerAccount": self.state.account,
            "Type": operation.type,
            "Status": _status(operation, self.state),
            "ErrorCode": operation.error.code if operation.error else None,
            "ErrorMessage": operation.error.message if operation.error else None,
            "CreateDate": operation.created,
            "UpdateDate": operation.updated,
            "Targets": operation.targets,
        }
        return {"Operation": _present(shape)}

    def list_operations(self, p: Params) -> Params:
        read: dict[str, Callable[[Operation], str]] = {
            "NAMESPACE_ID": lambda o: o.targets.get("NAMESPACE", ""),
            "SERVICE_ID": lambda o: o.targets.get("SERVICE", ""),
            "STATUS": lambda o: o.status,
            "TYPE": lambda o: o.type,
            "UPDATE_DATE": lambda o: str(int(o.updated * 1000)),
        }
        operations = _filtered(list(self.state.operations.values()), read, p)
        return _page("Operations", [{"Id": o.id, "Status": _status(o, self.state)} for o in operations], p)

    def list_tags_for_resource(self, p: Params) -> Params:
        return {"Tags": [{"Key": k, "Value": v} for k, v in self._tagged(p).items()]}

    def tag_resource(self, p: Params) -> Params:
        tags = self._tagged(p)
        if len({**tags, **_tags(p)}) > MAX_TAGS:
            raise Refused(
                "TooManyTagsException", f"A resource can have at most {MAX_TAGS} tags", ResourceName=p["ResourceARN"]
            )
        tags.update(_tags(p))
        return {}

    def untag_resource(self, p: Params) -> Params:
        tags = self._tagged(p)
        for key in p["TagKeys"]:
            tags.pop(key, None)
        return {}

    def _tagged(self, p: Params) -> dict[str, str]:
        tags = self.state.tags.get(p["ResourceARN"])
        if tags is None:
            raise Refused("ResourceNotFoundException", f"Resource {p['ResourceARN']} not found")
        return tags

    # --- shapes

    def _targets(self, service: Service, instance: str | None = None) -> dict[str, str]:
        targets = {"NAMESPACE": service.namespace_id, "SERVICE": service.id}
        return targets | ({"INSTANCE": instance} if instance else {})

    def _namespace(self, n: Namespace, full: bool = False) -> Params:
        shape = {
            "Id": n.id,
            "Arn": n.arn,
            "ResourceOwner": self.state.account,
            "Name": n.name,
            "Type": n.type,
            "Description": n.description,
            "ServiceCount": len(self.state.services_of(n.id)),
            "Properties": n.properties,
            "CreateDate": n.created,
            "CreatorRequestId": n.creator_request_id if full else None,
        }
        return _present(shape)

    def _service(self, s: Service, full: bool = False) -> Params:
        dns = s.request.get("DnsConfig")
        shape = {
            "Id": s.id,
            "Arn": s.arn,
            "ResourceOwner": self.state.account,
            "Name": s.name,
            "NamespaceId": s.namespace_id if full else None,
            "Description": s.request.get("Description"),
            "InstanceCount": len(s.instances),
            "DnsConfig": {"NamespaceId": s.namespace_id, "RoutingPolicy": "MULTIVALUE", **dns} if dns else None,
            "Type": s.type,
            "HealthCheckConfig": s.request.get("HealthCheckConfig"),
            "HealthCheckCustomConfig": s.request.get("HealthCheckCustomConfig"),
            "CreateDate": s.created,
            "CreatorRequestId": s.request.get("CreatorRequestId") if full else None,
            "CreatedByAccount": self.state.account,
        }
        return _present(shape)


def _service_type(namespace: Namespace, p: Params) -> str:
    """DNS records need a DNS namespace; a service with `Type` HTTP has none in any namespace."""
    http = namespace.type == "HTTP" or p.get("Type") == "HTTP"
    if http and p.get("DnsConfig"):
        raise Refused("InvalidInput", "DnsConfig can't be specified for a service that is discoverable by HTTP only")
    if not http and not p.get("DnsConfig"):
        raise Refused(
            "InvalidInput",
            f"DnsConfig is required for a service in a {namespace.type} namespace unless its type is HTTP",
        )
    if p.get("HealthCheckConfig") and namespace.type == "DNS_PRIVATE":
        raise Refused("InvalidInput", "HealthCheckConfig can't be specified for a service in a private DNS namespace")
    return "HTTP" if http else "DNS_HTTP"


def _check_attributes(service: Service, attributes: dict[str, str]) -> None:
    """The instance must answer the records of its service, within the quotas."""
    text = sum(len(k) + len(v) for k, v in attributes.items())
    if len(attributes) > MAX_INSTANCE_ATTRIBUTES or text > MAX_ATTRIBUTES_TEXT:
        raise Refused(
            "InvalidInput",
            f"An instance can have {MAX_INSTANCE_ATTRIBUTES} attributes of {MAX_ATTRIBUTES_TEXT} characters in all",
        )
    for record in (service.request.get("DnsConfig") or {}).get("DnsRecords", []):
        needed = _NEEDED_ATTRIBUTES.get(record["Type"], ["AWS_INSTANCE_PORT"])
        missing = [n for n in needed if n not in attributes]
        if missing and "AWS_ALIAS_DNS_NAME" not in attributes:
            raise Refused(
                "InvalidInput", f"Missing attribute {missing[0]}, which the service's {record['Type']} record needs"
            )


def _has_health_check(service: Service) -> bool:
    return "HealthCheckConfig" in service.request or "HealthCheckCustomConfig" in service.request


def _by_health(service: Service, instances: list[Instance], wanted: str) -> list[Instance]:
    """Services without a health check give all, whatever is asked."""
    if wanted == "ALL" or not _has_health_check(service):
        return instances
    if wanted == "HEALTHY_OR_ELSE_ALL":
        return [i for i in instances if i.health == "HEALTHY"] or instances
    return [i for i in instances if i.health == wanted]


def _status(operation: Operation, state: State) -> str:
    """The first half of PENDING is SUBMITTED, so that clients meet both."""
    started = operation.due - state.clock()
    return "SUBMITTED" if operation.status == "PENDING" and started > 1 else operation.status


def _filtered(items: list[T], read: dict[str, Callable[[T], str]], p: Params) -> list[T]:
    for wanted in p.get("Filters") or []:
        get = read.get(wanted["Name"])
        if get is None:
            raise Refused("InvalidInput", f"Filter {wanted['Name']} is not supported here")
        items = [i for i in items if _meets(get(i), wanted.get("Condition", "EQ"), wanted["Values"])]
    return items


def _meets(value: str, condition: str, values: list[str]) -> bool:
    if condition == "BEGINS_WITH":
        return any(value.startswith(v) for v in values)
    if condition == "BETWEEN":
        return int(values[0]) <= int(value) <= int(values[-1])
    return value in values


def _page(member: str, items: list[Any], p: Params) -> Params:
    """At most 100 items; the token is opaque to clients and says where to go on."""
    token = p.get("NextToken")
    try:
        start = int(base64.b64decode(token)) if token else 0
    except ValueError:
        raise Refused("InvalidInput", "Invalid NextToken") from None
    end = start + (p.get("MaxResults") or 100)
    page: Params = {member: items[start:end]}
    if end < len(items):
        page["NextToken"] = base64.b64encode(str(end).encode()).decode()
    return page


def _denied(reason: str) -> Callable[[], None]:
    def effect() -> None:
        raise Refused("ACCESS_DENIED", f"{reason} (Service: AmazonRoute53; Status Code: 403; Error Code: AccessDenied)")

    return effect


def _owner(_: Any) -> str:
    return "SELF"


def _tags(p: Params) -> dict[str, str]:
    return {t["Key"]: t["Value"] for t in p.get("Tags") or []}


def _present(shape: Params) -> Params:
    return {k: v for k, v in shape.items() if v is not None}


_OPERATIONS: dict[str, Callable[[CloudMap, Params], Params]] = {
    "CreateHttpNamespace": CloudMap.create_http_namespace,
    "CreatePrivateDnsNamespace": CloudMap.create_private_dns_namespace,
    "CreatePublicDnsNamespace": CloudMap.create_public_dns_namespace,
    "CreateService": CloudMap.create_service,
    "DeleteNamespace": CloudMap.delete_namespace,
    "DeleteService": CloudMap.delete_service,
    "DeleteServiceAttributes": CloudMap.delete_service_attributes,
    "DeregisterInstance": CloudMap.deregister_instance,
    "DiscoverInstances": CloudMap.discover_instances,
    "DiscoverInstancesRevision": CloudMap.discover_instances_revision,
    "GetInstance": CloudMap.get_instance,
    "GetInstancesHealthStatus": CloudMap.get_instances_health_status,
    "GetNamespace": CloudMap.get_namespace,
    "GetOperation": CloudMap.get_operation,
    "GetService": CloudMap.get_service,
    "GetServiceAttributes": CloudMap.get_service_attributes,
    "ListInstances": CloudMap.list_instances,
    "ListNamespaces": CloudMap.list_namespaces,
    "ListOperations": CloudMap.list_operations,
    "ListServices": CloudMap.list_services,
    "ListTagsForResource": CloudMap.list_tags_for_resource,
    "RegisterInstance": CloudMap.register_instance,
    "TagResource": CloudMap.tag_resource,
    "UntagResource": CloudMap.untag_resource,
    "UpdateHttpNamespace": CloudMap.update_namespace,
    "UpdateInstanceCustomHealthStatus": CloudMap.update_instance_custom_health_status,
    "UpdatePrivateDnsNamespace": CloudMap.update_namespace,
    "UpdatePublicDnsNamespace": CloudMap.update_namespace,
    "UpdateService": CloudMap.update_service,
    "UpdateServiceAttributes": CloudMap.update_service_attributes,
}
