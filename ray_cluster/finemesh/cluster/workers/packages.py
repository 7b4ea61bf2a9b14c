"""A proven package on its way to the object store."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Final

from finemesh.chassis.objects import sha256_of_file
from finemesh.cluster.workers.store import Store
from finemesh.v1 import attempt_pb2

_CHUNK_BYTES: Final = 1 << 20


def publish_package(package: Path, store: Store, uri: str, result: attempt_pb2.ExportResult) -> None:
    """Upload a package, its list of files last, and note in `result` what it consists of."""
    manifest = store.publish(package, uri)
    result.size_bytes = manifest.total_bytes
    result.manifest_sha256 = sha256_of_file(package / "manifest.json")
    for file in manifest.files:
        crc = crc32_of_file(package / file.path)
        result.files.add(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256, crc32=crc)


def crc32_of_file(path: Path) -> int:
    """CRC-32 of a file's content, as ZIP files have it."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc
