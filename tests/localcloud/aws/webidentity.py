"""Checks a service account token the way STS checks a web identity: provider, signature, audience, time."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

PublicKey = RSAPublicKey | EllipticCurvePublicKey
#: The public key of an issuer, or None when there is no such issuer (what STS reads from its jwks_uri)
Keys = Callable[[str], PublicKey | None]


class Rejected(Exception):
    """Why a token is no good, in STS's words."""

    def __init__(self, message: str, code: str = "InvalidIdentityToken") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class WebIdentity:
    """`provider` is the ARN of the IAM OIDC provider."""

    issuer: str
    provider: str
    subject: str
    audience: str


def verify(token: str, providers: Iterable[Any], keys: Keys) -> WebIdentity:
    """The identity that `token` proves; raises `Rejected`."""
    try:
        header, payload, signature = token.split(".")
        claims = json.loads(_decode(payload))
        issuer, subject = str(claims["iss"]), str(claims["sub"])
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        not_before, expires = float(claims.get("nbf", 0)), float(claims["exp"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Rejected(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
        ) from None
    provider = next((p for p in providers if p.url == issuer.removeprefix("https://")), None)
    if provider is None:
        raise Rejected(f"No OpenIDConnect provider found in your account for {issuer}")
    key = keys(issuer)
    if key is None:
        raise Rejected(
            "Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements"
        )
    if not _signed_by(key, f"{header}.{payload}".encode(), signature):
        raise Rejected("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
    now = time.time()
    if not not_before <= now + 60 or now >= expires:
        raise Rejected(
            f"Token expired: current date/time {int(now)} must be before the expiration date/time {int(expires)}",
            "ExpiredTokenException",
        )
    audience = next((a for a in audiences if a in provider.client_id_list), None)
    if audience is None:
        raise Rejected("Incorrect token audience")
    return WebIdentity(issuer, provider.arn, subject, audience)


def jwk(key: PublicKey) -> dict[str, str]:
    """The key as an issuer publishes it."""
    if isinstance(key, RSAPublicKey):
        n = key.public_numbers()
        return {"kty": "RSA", "alg": "RS256", "use": "sig", "n": _number(n.n), "e": _number(n.e)}
    c = key.public_numbers()
    return {"kty": "EC", "alg": "ES256", "use": "sig", "crv": "P-256", "x": _number(c.x, 32), "y": _number(c.y, 32)}


def _signed_by(key: PublicKey, message: bytes, signature: str) -> bool:
    try:
        raw = _decode(signature)
        if isinstance(key, RSAPublicKey):
            key.verify(raw, message, padding.PKCS1v15(), SHA256())
        else:
            half = len(raw) // 2
            pair = utils.encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
            key.verify(pair, message, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(value: int, length: int | None = None) -> str:
    raw = value.to_bytes(length or (value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
