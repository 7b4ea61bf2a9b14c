"""The object store as the services see it, and directories of files in it.

A directory is uploaded file by file and its manifest last, so a prefix without a manifest is no directory
yet; a download checks every file against the manifest's SHA-256. `finemesh.chassis.s3` has the store itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError

DIRECTORY_MANIFEST: Final = "files.json"
MAX_MANIFEST_BYTES: Final = 64 << 20
CHUNK_BYTES: Final = 1 << 20
MAX_KEY_BYTES: Final = 1024  # S3's own limit
_TRANSFERS_AT_ONCE: Final = 4

OnBytes = Callable[[int, int], None]
"""Progress of a transfer: bytes done, bytes in total."""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What is known of an object. `sha256` (hex) is there if the writer stated it; listings leave it out."""

    key: str
    size_bytes: int
    etag: str
    update_time: datetime
    sha256: str | None = None


class ObjectStore(Protocol):
    """Objects under keys in one bucket.

    Every method raises UnavailableError (OBJECT_STORE_UNAVAILABLE) when the store is away and InvalidError
    (MALFORMED_KEY) for a key that is empty, absolute, too long or has `..` in it; those that read raise
    NotFoundError (OBJECT_NOT_FOUND).
    """

    async def ensure_bucket(self) -> None:
        """Create the bucket if it is missing. Also serves as the readiness check."""
        ...

    async def put_bytes(
        self, key: str, data: bytes, *, content_type: str = "application/octet-stream"
    ) -> ObjectStat:
        """Write an object whole, with its SHA-256."""
        ...

    async def put_file(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        content_type: str = "application/octet-stream",
    ) -> ObjectStat:
        """Write a file, in parts when large. `sha256` spares a second reading when it is known already."""
        ...

    async def put_stream(
        self, key: str, chunks: AsyncIterable[bytes], *, max_bytes: int, sha256: str | None = None
    ) -> ObjectStat:
        """Write what `chunks` yields. Nothing is stored unless the stream ends well.

        Raises:
            ResourceExhaustedError: OBJECT_TOO_LARGE, above `max_bytes`.
            InvalidError: DIGEST_MISMATCH, when the content is not what `sha256` says.
        """
        ...

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object unless the key is taken, atomically. Returns whether it was written."""
        ...

    async def get_bytes(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object whole. Raises ResourceExhaustedError (OBJECT_TOO_LARGE) above `max_bytes`."""
        ...

    async def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> None:
        """Read an object into a file, which appears only when whole.

        Raises:
            FinemeshError: OBJECT_CORRUPT, when the content is not what `sha256` says.
        """
        ...

    def stream(
        self, key: str, *, offset: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> AsyncIterator[bytes]:
        """Read a range in chunks; to the end of the object when `length` is None."""
        ...

    async def stat(self, key: str) -> ObjectStat: ...

    async def list(self, prefix: str, *, limit: int | None = None) -> list[ObjectStat]:
        """All objects whose key starts with `prefix`, sorted by key; or the first `limit` of them."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Delete everything below `prefix`, which must end with a slash. Returns how many objects went."""
        ...

    def presign_get(self, key: str, *, expires_seconds: int, filename: str | None = None) -> str:
        """A URL to download the object by; with `filename` browsers save it under that name."""
        ...

    def presign_put(self, key: str, *, expires_seconds: int, content_length: int | None = None) -> str:
        """A URL to upload the object by; with `content_length` the store refuses any other size."""
        ...


def check_key(key: str) -> str:
    """`key` if it is safe to use. Raises InvalidError, reason MALFORMED_KEY."""
    parts = key.split("/")
    bad = not key or "" in parts[:-1] or "." in parts or ".." in parts or "\\" in key or not key.isprintable()
    if bad or len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidError(
            f"{key[:200]!r} is not an object key: use a/b/c without '.' and '..'", reason="MALFORMED_KEY"
        )
    return key


@dataclass(frozen=True, slots=True, order=True)
class FileEntry:
    """One file of a directory. `path` is relative, with slashes; `sha256` is hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DirectoryManifest:
    """All files of a directory, sorted by path."""

    files: tuple[FileEntry, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names and contents: equal for equal directories."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        document = {"schema": "finemesh.directory/1", "files": [asdict(file) for file in self.files]}
        return json.dumps(document, sort_keys=True, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> DirectoryManifest:
        """Raises FinemeshError, reason OBJECT_CORRUPT, for anything that is not a manifest of safe paths."""
        try:
            document: dict[str, Any] = json.loads(data)
            files = tuple(
                FileEntry(check_key(str(each["path"])), int(each["size_bytes"]), str(each["sha256"]))
                for each in document["files"]
            )
        except (ValueError, KeyError, TypeError, InvalidError) as error:
            raise FinemeshError(
                f"the directory manifest is damaged: {error}", reason="OBJECT_CORRUPT"
            ) from error
        return cls(files)


async def upload_directory(
    store: ObjectStore,
    local: Path,
    prefix: str,
    *,
    manifest_name: str = DIRECTORY_MANIFEST,
    on_bytes: OnBytes | None = None,
) -> DirectoryManifest:
    """Upload every file below `local` to `prefix`/, and last the manifest, which makes it a directory.

    Raises:
        InvalidError: `local` is no directory, holds a link, or a file of the manifest's name.
    """
    manifest = await asyncio.to_thread(scan_directory, local)
    if any(file.path == manifest_name for file in manifest.files):
        raise InvalidError(f"{local / manifest_name}: this name is the upload's own", reason="NAME_TAKEN")
    await upload_files(store, local, prefix, manifest.files, on_bytes=on_bytes)
    await write_manifest(store, prefix, manifest, manifest_name=manifest_name)
    return manifest


async def upload_files(
    store: ObjectStore,
    local: Path,
    prefix: str,
    files: Sequence[FileEntry],
    *,
    on_bytes: OnBytes | None = None,
) -> None:
    """Upload some files below `local` to `prefix`/. They are no directory until a manifest names them."""
    base = prefix.rstrip("/")

    async def upload(file: FileEntry) -> None:
        await store.put_file(f"{base}/{file.path}", local / file.path, sha256=file.sha256)

    await _transfer(files, upload, on_bytes)


async def write_manifest(
    store: ObjectStore,
    prefix: str,
    manifest: DirectoryManifest,
    *,
    manifest_name: str = DIRECTORY_MANIFEST,
) -> None:
    """Make the files that were uploaded to `prefix`/ a directory."""
    key = f"{prefix.rstrip('/')}/{manifest_name}"
    await store.put_bytes(key, manifest.to_json(), content_type="application/json")


async def read_manifest(
    store: ObjectStore, prefix: str, *, manifest_name: str = DIRECTORY_MANIFEST
) -> DirectoryManifest:
    """The manifest of an uploaded directory. Raises NotFoundError, reason DIRECTORY_NOT_FOUND."""
    key = f"{prefix.rstrip('/')}/{manifest_name}"
    try:
        return DirectoryManifest.from_json(await store.get_bytes(key, max_bytes=MAX_MANIFEST_BYTES))
    except NotFoundError as error:
        raise NotFoundError(
            f"{prefix}: there is no complete directory (no {manifest_name})", reason="DIRECTORY_NOT_FOUND"
        ) from error


async def download_directory(
    store: ObjectStore,
    prefix: str,
    local: Path,
    *,
    manifest_name: str = DIRECTORY_MANIFEST,
    select: Callable[[str], bool] | None = None,
    on_bytes: OnBytes | None = None,
) -> DirectoryManifest:
    """Download a directory, each file checked against the manifest; equal files already there are kept.

    Args:
        store: where it is.
        prefix: the directory, as it was uploaded.
        local: the folder to fill; made if missing.
        manifest_name: as it was uploaded.
        select: takes a path and says whether it is wanted; all are by default.
        on_bytes: is told the progress.

    Returns:
        the whole manifest, also of files that were not selected.

    Raises:
        NotFoundError: DIRECTORY_NOT_FOUND.
        FinemeshError: OBJECT_CORRUPT.
    """
    manifest = await read_manifest(store, prefix, manifest_name=manifest_name)
    wanted = [file for file in manifest.files if select is None or select(file.path)]

    async def download(file: FileEntry) -> None:
        target = local / PurePosixPath(file.path)
        if not await asyncio.to_thread(_prepared, target, file):
            await store.get_file(f"{prefix.rstrip('/')}/{file.path}", target, sha256=file.sha256)

    await asyncio.to_thread(local.mkdir, parents=True, exist_ok=True)
    await _transfer(wanted, download, on_bytes)
    return manifest


async def delete_directory(
    store: ObjectStore, prefix: str, *, manifest_name: str = DIRECTORY_MANIFEST
) -> int:
    """Delete a directory, its manifest first, so that no half of it counts. Returns how many objects went."""
    base = prefix.rstrip("/")
    await store.delete(f"{base}/{manifest_name}")
    return await store.delete_prefix(base + "/")


def sha256_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scan_directory(local: Path) -> DirectoryManifest:
    """Delete a directory, manifest first, so that no half of it counts. Returns how many objects went."""
    if not local.is_dir():
        raise InvalidError(f"{local}: not a directory", reason="NOT_A_DIRECTORY")
    entries: list[FileEntry] = []
    for path in local.rglob("*"):
        if path.is_symlink():
            raise InvalidError(
                f"{path}: links are not uploaded: put the file itself here", reason="LINK_REFUSED"
            )
        if path.is_file():
            name = path.relative_to(local).as_posix()
            entries.append(FileEntry(check_key(name), path.stat().st_size, sha256_of_file(path)))
    return DirectoryManifest(tuple(sorted(entries)))


def _prepared(path: Path, file: FileEntry) -> bool:
    """Whether `path` holds the file already; its folder does exist afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.is_file() and path.stat().st_size == file.size_bytes and sha256_of_file(path) == file.sha256


async def _transfer(
    files: Sequence[FileEntry], one: Callable[[FileEntry], Any], on_bytes: OnBytes | None
) -> None:
    """Run `one` on every file, a few at a time. The first failure ends the others and is raised as it is."""
    total = sum(file.size_bytes for file in files)
    slots = asyncio.Semaphore(_TRANSFERS_AT_ONCE)
    done = 0

    async def run(file: FileEntry) -> None:
        nonlocal done
        async with slots:
            await one(file)
        done += file.size_bytes
        if on_bytes:
            on_bytes(done, total)

    try:
        async with asyncio.TaskGroup() as group:
            for file in files:
                group.create_task(run(file))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
