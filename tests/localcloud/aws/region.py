"""What the caller of this program lays down about the region: its clusters, and where their files are.

Read from STATE/region.json when it is there: `{"clusters": [{"name", "endpoint"?, "node_ip"?, "version"?}, …]}`.
Everything has a default, so that the clusters c1 and c2 exist without it.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from webidentity import PublicKey

ACCOUNT = "123456789012"
REGION = "us-west-2"
VPC_CIDR = "10.0.0.0/16"


@dataclass(frozen=True)
class Cluster:
    """One EKS cluster; its keys lie in STATE/<name>/pki, made by whoever starts it."""

    name: str
    number: int
    endpoint: str
    node_ip: str
    version: str
    folder: Path

    @property
    def subnet_cidr(self) -> str:
        """The nodes' subnet, and with it the clusters' network: 10.0.<number>.0/24."""
        return f"10.0.{self.number}.0/24"

    @property
    def zone(self) -> str:
        """us-west-2a for the first, and so on."""
        return REGION + "abcdef"[self.number - 1]

    @property
    def issuer(self) -> str:
        """32 upper-case hex digits, as EKS makes them; the same for the same name."""
        digits = uuid.uuid5(uuid.NAMESPACE_URL, f"eks/{ACCOUNT}/{REGION}/{self.name}").hex.upper()
        return f"https://oidc.eks.{REGION}.amazonaws.com/id/{digits}"

    def ca(self) -> bytes | None:
        """The cluster's CA certificate (PEM), when it is there already."""
        path = self.folder / "pki" / "ca.crt"
        return path.read_bytes() if path.exists() else None

    def signing_key(self) -> PublicKey | None:
        """The public key of the cluster's service account tokens."""
        path = self.folder / "pki" / "sa.pub"
        return load_pem_public_key(path.read_bytes()) if path.exists() else None  # type: ignore[return-value]


def clusters(state: Path) -> list[Cluster]:
    """In the order they are laid down."""
    wish = state / "region.json"
    given = json.loads(wish.read_text())["clusters"] if wish.exists() else [{"name": "c1"}, {"name": "c2"}]
    return [
        Cluster(
            name=c["name"],
            number=n,
            endpoint=c.get("endpoint", f"https://10.0.{n}.1:6443"),
            node_ip=c.get("node_ip", f"10.0.{n}.4"),
            version=c.get("version", "1.35"),
            folder=state / c["name"],
        )
        for n, c in enumerate(given, 1)
    ]
