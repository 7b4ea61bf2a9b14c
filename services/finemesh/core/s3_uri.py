"""Addresses of objects: `s3://bucket/key`. Rules of names: docs.aws.amazon.com, "Bucket naming rules"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from finemesh.core.errors import InvalidError

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MAX_KEY_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class S3Uri:
    """An object, or everything below a prefix. `key` does not end with `/`; empty, it is the whole bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def is_within(self, place: str) -> bool:
        """Whether it is at or below `place`, which is `bucket` or `bucket/prefix`."""
        own = f"{self.bucket}/{self.key}".rstrip("/")
        place = place.strip("/")
        return own == place or own.startswith(place + "/")


def parse_s3_uri(text: str, field: str) -> S3Uri:
    """Raises InvalidError naming `field`."""
    scheme, separator, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InvalidError.of(field, f"{text!r:.200} is no address: write s3://bucket/prefix")
    key = key.removesuffix("/")
    parts = key.split("/") if key else []
    too_long = len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY_BYTES
    if too_long or not key.isprintable() or not {"", ".", ".."}.isdisjoint(parts) or "\\" in key:
        raise InvalidError.of(
            field, f"{text!r:.200} has empty parts, '.', '..', control characters, or is too long"
        )
    return S3Uri(bucket, key)
