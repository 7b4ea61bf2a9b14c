"""The packages on the object store, one directory with a manifest per export."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from finemesh.chassis.objects import ObjectStore, delete_directory, read_manifest
from finemesh.core.names import Name
from finemesh.export.ports import PackageFile


class ObjectPackages:
    """Implements `ports.Packages`."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def files(self, name: Name) -> Sequence[PackageFile]:
        manifest = await read_manifest(self._objects, str(name))
        return sorted(PackageFile(file.path, file.size_bytes, file.sha256) for file in manifest.files)

    def read(self, name: Name, path: str) -> AsyncIterator[bytes]:
        return self._objects.stream(f"{name}/{path}")

    async def delete(self, name: Name) -> None:
        await delete_directory(self._objects, str(name))
