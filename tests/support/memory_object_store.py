"""An object store in memory, for tests of what stands on one. It passes the contract of the real one."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from finemesh.chassis.objects import CHUNK_BYTES, ObjectStat, check_key
from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError, ResourceExhaustedError


class MemoryObjectStore:
    """`ObjectStore` in a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, ObjectStat]] = {}

    async def ensure_bucket(self) -> None:
        return

    async def put_bytes(
        self, key: str, data: bytes, *, content_type: str = "application/octet-stream"
    ) -> ObjectStat:
        return self._put(key, data, _sha256(data))

    async def put_file(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        content_type: str = "application/octet-stream",
    ) -> ObjectStat:
        data = path.read_bytes()
        return self._put(key, data, sha256 or _sha256(data))

    async def put_stream(
        self, key: str, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> ObjectStat:
        data = b""
        async for chunk in chunks:
            data += chunk
            if len(data) > max_bytes:
                raise ResourceExhaustedError(f"more than {max_bytes} bytes", reason="OBJECT_TOO_LARGE")
        if sha256 is not None and sha256 != _sha256(data):
            raise InvalidError("the content is something else", reason="DIGEST_MISMATCH")
        self._put(key, data, sha256)
        return ObjectStat(key, len(data), _sha256(data), datetime.now(UTC), _sha256(data))

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self._put(key, data, _sha256(data))
        return True

    async def get_bytes(self, key: str, *, max_bytes: int) -> bytes:
        data, _ = self._get(key)
        if len(data) > max_bytes:
            raise ResourceExhaustedError(f"more than {max_bytes} bytes", reason="OBJECT_TOO_LARGE")
        return data

    async def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        data, _ = self._get(key)
        if sha256 is not None and sha256 != _sha256(data):
            raise FinemeshError(f"{key} is damaged", reason="OBJECT_CORRUPT")
        path.write_bytes(data)

    async def stream(
        self, key: str, *, offset: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> AsyncIterator[bytes]:
        data, _ = self._get(key)
        end = len(data) if length is None else min(len(data), offset + length)
        for start in range(offset, end, chunk_bytes):
            yield data[start : min(end, start + chunk_bytes)]

    async def stat(self, key: str) -> ObjectStat:
        return self._get(key)[1]

    async def list(self, prefix: str, *, limit: int | None = None) -> list[ObjectStat]:
        found = [stat for key, (_, stat) in sorted(self.objects.items()) if key.startswith(prefix)]
        return found[:limit]

    async def delete(self, key: str) -> None:
        self.objects.pop(check_key(key), None)

    async def delete_prefix(self, prefix: str) -> int:
        if not check_key(prefix).endswith("/"):
            raise InvalidError(f"{prefix!r} must end with '/'", reason="MALFORMED_KEY")
        doomed = [key for key in self.objects if key.startswith(prefix)]
        for key in doomed:
            del self.objects[key]
        return len(doomed)

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        return f"memory://{check_key(key)}"

    def presign_put(self, key: str, *, expires_seconds: int, content_length: int | None = None) -> str:
        return f"memory://{check_key(key)}"

    def _put(self, key: str, data: bytes, sha256: str | None) -> ObjectStat:
        stat = ObjectStat(check_key(key), len(data), _sha256(data), datetime.now(UTC), sha256)
        self.objects[key] = (data, stat)
        return stat

    def _get(self, key: str) -> tuple[bytes, ObjectStat]:
        if check_key(key) not in self.objects:
            raise NotFoundError(f"there is no object {key}", reason="OBJECT_NOT_FOUND")
        return self.objects[key]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
