"""The packages on the object store, one directory with a manifest each."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence

from finemesh.chassis.objects import FileEntry, ObjectStore, delete_directory, read_manifest
from finemesh.export.domain import PackageFile


class ObjectPackages:
    """Implements `ports.Packages` in one bucket."""

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._prefix = f"s3://{bucket}/"

    async def files(self, uri: str) -> Sequence[PackageFile]:
        manifest = await read_manifest(self._objects, self._key(uri))
        return sorted([await self._with_crc(uri, file) for file in manifest.files])

    async def _with_crc(self, uri: str, file: FileEntry) -> PackageFile:
        crc = 0
        async for chunk in self.read(uri, file.path, 0, file.size_bytes):
            crc = await asyncio.to_thread(zlib.crc32, chunk, crc)
        return PackageFile(file.path, file.size_bytes, file.sha256, crc)

    def read(self, uri: str, path: str, start: int, length: int) -> AsyncIterator[bytes]:
        return self._objects.stream(f"{self._key(uri)}/{path}", offset=start, length=length)

    def url(self, uri: str, path: str, seconds: int) -> str:
        return self._objects.presign_get(f"{self._key(uri)}/{path}", expires_seconds=seconds)

    async def delete(self, uri: str) -> None:
        await delete_directory(self._objects, self._key(uri))

    def _key(self, uri: str) -> str:
        return uri.removeprefix(self._prefix)
