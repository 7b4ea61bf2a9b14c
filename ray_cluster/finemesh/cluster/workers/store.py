"""S3 as the workers use it: blocking calls over the chassis' object store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from finemesh.chassis.objects import (
    DirectoryManifest,
    delete_directory,
    download_directory,
    upload_directory,
)
from finemesh.chassis.s3 import S3ObjectStore
from finemesh.cluster.config import Site
from finemesh.core.errors import InvalidError

T = TypeVar("T")
Progress = Callable[[float, str], None]


class Store:
    """The objects of one bucket, by `s3://` URI. Close it when done."""

    def __init__(self, site: Site) -> None:
        self._bucket = site.s3.bucket
        self._objects = S3ObjectStore(site.s3)

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

    def size(self, uri: str) -> int:
        return _run(self._objects.stat(self.key(uri))).size_bytes

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

    def put(self, path: Path, uri: str, content_type: str = "application/octet-stream") -> None:
        _run(self._objects.put_file(self.key(uri), path, content_type=content_type))

    def discard(self, uri: str) -> None:
        """Delete a directory, manifest first."""
        _run(delete_directory(self._objects, self.key(uri)))


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)
