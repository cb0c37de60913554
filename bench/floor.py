"""The floor of the flow: what it made, applied at once where nothing is left to wait for but kubelets.

`flow.py` keeps what the flow has left in one local cloud, and applies it in the next: the objects of the controller, the mesh
and the applications, whose pods have their sidecars written in already, with all images named and pushed, and roles,
definitions, the Cloud Map namespace and the Mesh, which others name by their ids, there before the clock starts. No webhook
stands between.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flow import Cloud

CLUSTERS = ("c1", "c2")
# What the flow puts pods into.
NAMESPACES = ("appmesh-system", "k8multi")
# What the controller's chart and the applications consist of, but for webhooks and what Kubernetes makes of them.
NAMESPACED = ("serviceaccounts", "secrets", "configmaps", "roles", "rolebindings", "services", "deployments", "poddisruptionbudgets")
MESH = ("virtualnodes", "virtualrouters", "virtualservices")
Object = dict[str, Any]


def kubectl(cloud: Cloud, cluster: str, *words: str) -> list[Object]:
    """The objects that `kubectl get` finds."""
    return json.loads(cloud.output("kubectl", "--context", cluster, "get", *words, "--output", "json"))["items"]


def stored(found: Object) -> Object:
    """An object without what the API server and controllers added to it."""
    keep = ("name", "namespace", "labels", "annotations")
    found = {key: value for key, value in found.items() if key != "status"}
    if found["kind"] == "Service":
        found["spec"] = {key: value for key, value in found["spec"].items() if not key.startswith("clusterIP")}
        found["spec"]["ports"] = [{key: value for key, value in port.items() if key != "nodePort"} for port in found["spec"]["ports"]]
    return found | {"metadata": {key: found["metadata"][key] for key in keep if key in found["metadata"]}}


def with_its_pod(deployment: Object, pods: list[Object]) -> Object:
    """A Deployment whose template is one of its pods, as admission left it."""
    labels = deployment["spec"]["selector"]["matchLabels"]
    pod = next(pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items())
    spec = pod["spec"]
    tokens = {volume["name"] for volume in spec["volumes"] if volume["name"].startswith("kube-api-access-")}
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in tokens]
    for container in spec["containers"] + spec.get("initContainers", []):
        container["volumeMounts"] = [mount for mount in container.get("volumeMounts", []) if mount["name"] not in tokens]
    del spec["nodeName"]
    template = {"metadata": {key: pod["metadata"][key] for key in ("labels", "annotations") if key in pod["metadata"]}, "spec": spec}
    template["metadata"]["labels"].pop("pod-template-hash")
    return deployment | {"spec": deployment["spec"] | {"template": template}}


def ids(cloud: Cloud, documents: Path) -> dict[str, list[str]]:
    """By cluster, what differs from cloud to cloud and is named by what the flow makes: the Mesh and the namespace."""
    namespace = json.loads((documents / "c2" / "namespace.json").read_text())["namespace"]["id"]
    return {cluster: [kubectl(cloud, cluster, "meshes")[0]["metadata"]["uid"], namespace] for cluster in CLUSTERS}


def keep(cloud: Cloud, documents: Path, folder: Path) -> None:
    """Writes what the flow has made in each cluster into a file, the Mesh into another, and their ids."""
    folder.mkdir()
    for cluster in CLUSTERS:
        pods = kubectl(cloud, cluster, "pods", "--namespace", "k8multi")
        found = [one for one in kubectl(cloud, cluster, "namespaces") if one["metadata"]["name"] in NAMESPACES]
        of_release = "app.kubernetes.io/name=appmesh-controller"
        found += kubectl(cloud, cluster, "clusterroles,clusterrolebindings", "--selector", of_release)
        for namespace in NAMESPACES:
            found += kubectl(cloud, cluster, ",".join(NAMESPACED + MESH), "--namespace", namespace)
        objects = [stored(one) for one in found if not one["metadata"]["name"].startswith(("kube-root-ca", "sh.helm."))]
        objects = [one for one in objects if (one["kind"], one["metadata"]["name"]) != ("ServiceAccount", "default")]
        written = [with_its_pod(one, pods) if one["kind"] == "Deployment" and one["metadata"]["namespace"] == "k8multi" else one for one in objects]
        (folder / f"{cluster}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": written}))
        (folder / f"{cluster}-mesh.json").write_text(json.dumps(stored(kubectl(cloud, cluster, "meshes")[0])))
    (folder / "ids.json").write_text(json.dumps(ids(cloud, documents)))


def prepare(cloud: Cloud, binaries: Path, make: list[str], documents: Path, folder: Path) -> None:
    """All that is there before the clock starts."""
    steps = ("role", "image-appmesh-controller", "image-capture", "namespace-id")
    goals = [f"{documents}/{cluster}/{step}.json" for cluster in CLUSTERS for step in steps]
    goals += [f"{documents}/c1/image-feapp.json", f"{documents}/c2/image-colorapp.json", f"{documents}/c2/namespace.json"]
    cloud.run(*make, *goals)
    cloud.run("bash", "-c", f"$BIN/sg-open --from {documents}/c1/oidc.json < {documents}/c2/oidc.json > /dev/null", BIN=str(binaries))
    for cluster in CLUSTERS:
        for file in ("charts/appmesh-controller/crds/crds.yaml", folder / f"{cluster}-mesh.json"):
            cloud.run("kubectl", "--context", cluster, "apply", "--server-side", "--filename", file)
    before = json.loads((folder / "ids.json").read_text())
    for cluster, now in ids(cloud, documents).items():
        file = folder / f"{cluster}.json"
        text = file.read_text()
        for old, new in zip(before[cluster], now, strict=True):
            text = text.replace(old, new)
        file.write_text(text)


def apply(cloud: Cloud, binaries: Path, folder: Path) -> dict[str, float]:
    """Applies it to both clusters at once, and asks the front end as the flow does."""
    script = """
        set -euo pipefail
        for cluster in c1 c2; do
            (kubectl --context $cluster apply --server-side --filename $FOLDER/$cluster.json > /dev/null
             kubectl --context $cluster wait --for condition=Available --timeout 120s deployments --namespace k8multi --all > /dev/null) &
            waits+=($!)
        done
        for wait in "${waits[@]}"; do wait $wait; done
        host=$(kubectl --context c1 --namespace k8multi get service front --output 'jsonpath={.status.loadBalancer.ingress[0].hostname}')
        $BIN/color-probe -n http://$host:8080/color --count 200 --expect red=1,blue=1 > /dev/null
    """
    return cloud.run("bash", "-c", script, FOLDER=str(folder), BIN=str(binaries))
