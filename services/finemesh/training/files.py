"""The files of jobs on the object store."""

from __future__ import annotations

from finemesh.chassis.objects import ObjectStore
from finemesh.core.errors import InvalidError


class ObjectFiles:
    """Implements `ports.Files` on one bucket."""

    def __init__(self, objects: ObjectStore, bucket: str) -> None:
        self._objects = objects
        self._prefix = f"s3://{bucket}/"

    async def delete(self, uri: str) -> None:
        if not uri.startswith(self._prefix):
            raise InvalidError(f"{uri} is not in {self._prefix}", reason="FOREIGN_URI")
        await self._objects.delete_prefix(uri.removeprefix(self._prefix) + "/")
