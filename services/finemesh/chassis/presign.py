"""Presigned S3 requests: AWS Signature Version 4 in the query string.

Format: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html. The minio client signs
the host alone; signing further headers binds an upload to its length, or makes it conditional.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
MAX_EXPIRES_SECONDS: Final = 7 * 24 * 3600


def presign(
    method: str,
    endpoint: str,
    path: str,
    *,
    access_key: str,
    secret_key: str,
    region: str,
    expires_seconds: int,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> str:
    """The URL that lets its holder do one `method` on `endpoint` + `path` until it expires.

    Args:
        method: GET, PUT, HEAD or DELETE.
        endpoint: scheme and host as the holder will send them, e.g. `https://mesh.example`.
        path: `/bucket/key`, not yet percent-encoded.
        access_key: id of the credentials that sign.
        secret_key: their secret.
        region: the region that the server expects.
        expires_seconds: 1 to 604800.
        headers: further headers that the holder must send exactly so; names in lower case.
        query: further query parameters, e.g. `response-content-disposition`.
        now: time of signing, for tests.
    """
    host = urlsplit(endpoint).netloc
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    signed = dict(sorted({**(headers or {}), "host": host}.items()))
    signed_names = ";".join(signed)
    parameters = {
        **(query or {}),
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(max(1, min(expires_seconds, MAX_EXPIRES_SECONDS))),
        "X-Amz-SignedHeaders": signed_names,
    }
    encoded_path = quote(path, safe="/-_.~")
    encoded_query = "&".join(f"{_encode(key)}={_encode(parameters[key])}" for key in sorted(parameters))
    header_lines = "".join(f"{name}:{value.strip()}\n" for name, value in signed.items())
    request = f"{method}\n{encoded_path}\n{encoded_query}\n{header_lines}\n{signed_names}\nUNSIGNED-PAYLOAD"
    to_sign = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{endpoint.rstrip('/')}{encoded_path}?{encoded_query}&X-Amz-Signature={signature}"


def _encode(text: str) -> str:
    return quote(text, safe="-_.~")
