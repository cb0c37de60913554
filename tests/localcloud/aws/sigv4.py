"""Checks a Signature Version 4, in the header or in a presigned URL.

<https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from urllib.parse import quote

from moto.core.request import Request

from call import Credential
from fault import Fault, Kind

#: How far a client's clock may be off, in seconds. A presigned call of STS is good for as long, whatever its
#: X-Amz-Expires says: aws-iam-authenticator says 0 and `aws eks get-token` 60, and both are used for 14 minutes.
SKEW = 15 * 60
_BASIC = "%Y%m%dT%H%M%SZ"
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


def verify(request: Request, credential: Credential, secret: str, now: dt.datetime) -> None:
    """Raises `Fault` unless `secret` signed exactly this request, recently."""
    elapsed = age(credential.timestamp, now)
    if abs(elapsed) > SKEW:
        raise Fault(Kind.BAD_SIGNATURE, _stale(credential.timestamp, elapsed, now))
    if not hmac.compare_digest(signature(request, credential, secret), credential.signature):
        raise Fault(Kind.BAD_SIGNATURE, _MISMATCH)


def signature(request: Request, credential: Credential, secret: str) -> str:
    """The signature that `secret` gives, in lower-case hex."""
    scope = f"{credential.date}/{credential.region}/{credential.service}/aws4_request"
    canonical = hashlib.sha256(canonical_request(request, credential).encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{credential.timestamp}\n{scope}\n{canonical}"
    key = f"AWS4{secret}".encode()
    for part in (credential.date, credential.region, credential.service, "aws4_request", to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def canonical_request(request: Request, credential: Credential) -> str:
    """Method, path, query, signed headers and the hash of the body, each in its canonical form."""
    query = [p for p in request.query_string.decode().split("&") if p and not p.lower().startswith("x-amz-signature=")]
    pairs = sorted((name, value) for name, _, value in (p.partition("=") for p in query))
    headers = [f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in credential.signed_headers]
    body = hashlib.sha256(request.get_data(cache=True)).hexdigest()
    return "\n".join(
        (
            request.method,
            quote(request.raw_path, safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *headers,
            "",
            ";".join(credential.signed_headers),
            request.headers.get("X-Amz-Content-Sha256", body),
        )
    )


def _stale(timestamp: str, elapsed: float, now: dt.datetime) -> str:
    """AWS's words for a request of a client whose clock is off."""
    limit = now - dt.timedelta(seconds=SKEW if elapsed > 0 else -SKEW)
    what, than, sign = ("expired", "now earlier", "-") if elapsed > 0 else ("not yet current", "still later", "+")
    minutes = SKEW // 60
    return f"Signature {what}: {timestamp} is {than} than {limit:{_BASIC}} ({now:{_BASIC}} {sign} {minutes} min.)"


def age(timestamp: str, now: dt.datetime) -> float:
    """Seconds since a SigV4 timestamp (basic ISO 8601, UTC); infinite for one that cannot be read."""
    try:
        then = dt.datetime.strptime(timestamp, _BASIC).replace(tzinfo=dt.UTC)
    except ValueError:
        return float("inf")
    return (now - then).total_seconds()
