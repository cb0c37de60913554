"""Puts a static Linux program into image archives: `archives.py PROGRAM FOLDER`.

FOLDER gets an OCI layout `index` of two platforms, linux/amd64 and linux/arm64 (the same program: only one of them
runs), and a docker archive `docker` as `docker save` before version 25 writes it; each as a folder, a tar and a tar.gz.
Prints the digest of the index.
"""

import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile

program, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
OCI = "application/vnd.oci.image."


def tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def save(name: str, files: dict[str, bytes]) -> None:
    for file, content in files.items():
        path = out / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    packed = tar(files)
    (out / f"{name}.tar").write_bytes(packed)
    (out / f"{name}.tar.gz").write_bytes(gzip.compress(packed, 1))


def config(architecture: str) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest(layer)]}
    entry = {"Entrypoint": [f"/{program.name}"]}
    return json.dumps({"architecture": architecture, "os": "linux", "config": entry, "rootfs": rootfs}).encode()


layer = tar({program.name: program.read_bytes()})

blobs = {}


def put(kind: str, content: bytes, **more: object) -> dict[str, object]:
    blobs[f"blobs/sha256/{digest(content)[7:]}"] = content
    return {"mediaType": OCI + kind, "digest": digest(content), "size": len(content), **more}


def platform(architecture: str) -> dict[str, object]:
    parts = {
        "config": put("config.v1+json", config(architecture)),
        "layers": [put("layer.v1.tar+gzip", gzip.compress(layer, 1, mtime=0))],
    }
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", **parts}
    where = {"os": "linux", "architecture": architecture}
    return put("manifest.v1+json", json.dumps(manifest).encode(), platform=where)


top = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json"}
index = put("index.v1+json", json.dumps({**top, "manifests": [platform("amd64"), platform("arm64")]}).encode())
save(
    "index",
    {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [index]}).encode(),
        **blobs,
    },
)

saved = [{"Config": "c.json", "RepoTags": ["web:v1"], "Layers": ["l/layer.tar"]}]
save("docker", {"c.json": config("amd64"), "l/layer.tar": layer, "manifest.json": json.dumps(saved).encode()})
print(index["digest"])
