"""S3 as the workers use it: blocking calls over the chassis' object store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from finemesh.chassis.objects import (
    DirectoryManifest,
    FileEntry,
    ObjectStat,
    delete_directory,
    download_directory,
    upload_directory,
    upload_files,
    write_manifest,
)
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.cluster.config import Site
from finemesh.core.errors import InvalidError, NotFoundError

T = TypeVar("T")
_FETCHES_AT_ONCE: Final = 4
Progress = Callable[[float, str], None]


class Store:
    """The objects of one bucket, by default the mesh's own, by `s3://` URI. Close it when done."""

    def __init__(self, site: Site, bucket: str = "") -> None:
        self._bucket = bucket or site.s3.bucket
        self._objects = S3ObjectStore(replace(site.s3, bucket=self._bucket))

    def close(self) -> None:
        self._objects.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def key(self, uri: str) -> str:
        """The key in our bucket. Raises InvalidError, reason FOREIGN_URI."""
        prefix = f"s3://{self._bucket}/"
        if not uri.startswith(prefix):
            raise InvalidError(f"{uri} is not in the bucket {self._bucket}", reason="FOREIGN_URI")
        return uri.removeprefix(prefix)

    def fetch_file(self, uri: str, target: Path, *, sha256: str | None = None) -> None:
        """Download one object. Raises NotFoundError, UnavailableError, or OBJECT_CORRUPT."""
        _run(self._objects.get_file(self.key(uri), target, sha256=sha256))

    def fetch_files(self, targets: Mapping[str, Path], progress: Progress) -> None:
        """Download many objects, some at a time. Raises as fetch_file does, of the first that fails."""

        async def fetch() -> None:
            waiting = iter(targets.items())

            async def some() -> None:
                for uri, target in waiting:
                    progress(0.0, f"fetching {target.name}")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    await self._objects.get_file(self.key(uri), target)

            async with asyncio.TaskGroup() as group:
                for _ in range(_FETCHES_AT_ONCE):
                    group.create_task(some())

        _run(_first_error(fetch()))

    def size(self, uri: str) -> int:
        return _run(self._objects.stat(self.key(uri))).size_bytes

    def find(self, uri: str) -> ObjectStat | None:
        """What is known of an object; None if there is none."""
        try:
            return _run(self._objects.stat(self.key(uri)))
        except NotFoundError:
            return None

    def list(self, uri: str, *, limit: int) -> Sequence[ObjectStat]:
        """The first objects whose URI starts so."""
        return _run(self._objects.list(self.key(uri), limit=limit))

    def fetch(
        self,
        uri: str,
        target: Path,
        progress: Progress | None = None,
        select: Callable[[str], bool] | None = None,
    ) -> DirectoryManifest:
        """Download a directory, or those of its files that `select` wants, each checked.

        Raises NotFoundError: it is not there, or not complete.
        """

        def on_bytes(done: int, total: int) -> None:
            if progress:
                progress(0.0, f"downloading {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        key = self.key(uri)
        return _run(download_directory(self._objects, key, target, select=select, on_bytes=on_bytes))

    def publish(self, folder: Path, uri: str) -> DirectoryManifest:
        """Upload a directory, its manifest last: it is there as a whole or not at all."""
        return _run(upload_directory(self._objects, folder, self.key(uri)))

    def put_files(self, folder: Path, uri: str, files: Sequence[FileEntry]) -> None:
        """Upload some files of a folder below `uri`: they count once `seal` names them."""
        _run(upload_files(self._objects, folder, self.key(uri), files))

    def seal(self, uri: str, manifest: DirectoryManifest) -> None:
        """Make what lies below `uri` a directory, with the files of the manifest."""
        _run(write_manifest(self._objects, self.key(uri), manifest))

    def delete(self, uri: str) -> None:
        """Delete one object, if it is there."""
        _run(self._objects.delete(self.key(uri)))

    def put(self, path: Path, uri: str, content_type: str = "application/octet-stream") -> None:
        _run(self._objects.put_file(self.key(uri), path, content_type=content_type))

    def discard(self, uri: str) -> None:
        """Delete a directory, manifest first."""
        _run(delete_directory(self._objects, self.key(uri)))


async def _first_error(coroutine: Coroutine[Any, Any, None]) -> None:
    """Of a group of tasks the error that ended it, not the group of them."""
    try:
        await coroutine
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)
