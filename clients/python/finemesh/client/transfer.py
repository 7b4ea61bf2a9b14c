"""Bytes in and out, by presigned URLs through the gateway."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import os
import tempfile
import urllib.parse
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from finemesh.client.connection import Connection
from finemesh.v1.dataprep_service_pb2 import CreateUploadRequest
from finemesh.v1.dataset_pb2 import File, Upload

_CHUNK_BYTES: Final = 1 << 20
_BUFFERS: Final = 4
_TIMEOUT_SECONDS: Final = 60.0
_AGAIN: Final = "try again: what has arrived is kept"

OnBytes = Callable[[int], None]


class TransferError(Exception):
    """A transfer that broke; the message says which file and why."""


def upload_source(connection: Connection, source: Path, on_bytes: OnBytes | None = None) -> str:
    """Uploads a file, or a folder as a ZIP, and returns the upload's name for CreateDataset.

    Raises:
        TransferError: the source cannot be read, or the object store refused it.
        RpcError: the service refused it.
    """
    if not source.exists():
        raise TransferError(f"{source}: no such file or folder")
    with _as_file(source) as path:
        size_bytes = path.stat().st_size
        if not size_bytes:
            raise TransferError(f"{source} is empty: there is nothing to upload")
        name = source.name if source.is_file() else f"{source.resolve().name}.zip"
        upload = connection.dataprep.CreateUpload(
            CreateUploadRequest(
                parent=connection.parent,
                upload=Upload(filename=name, size_bytes=size_bytes, sha256=_sha256(path)),
            )
        )
        with path.open("rb") as stream:
            _put(upload.url, stream, size_bytes, on_bytes)
    return upload.name


def download_files(files: Iterable[File], folder: Path, on_bytes: OnBytes | None = None) -> list[Path]:
    """Fetches every file into `folder` and checks its SHA-256. A file that is there and whole is left alone.

    What breaks off is kept beside its place, under another name, and continued by the next call. Raises
    TransferError.
    """
    return [_download(file, _inside(folder, file.path), on_bytes) for file in files]


@contextmanager
def _as_file(source: Path) -> Generator[Path]:
    if source.is_file():
        yield source
        return
    files = list(_files_of(source))
    if not files:
        raise TransferError(f"{source} holds no files: there is nothing to upload")
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "source.zip"
        # Not strict about times: files from before 1980, which a ZIP cannot date, are files all the same.
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, strict_timestamps=False) as target:
            for path in files:
                name = path.relative_to(source).as_posix()
                try:
                    target.write(path.resolve(), name)
                except (OSError, UnicodeEncodeError) as error:
                    raise TransferError(f"{name!r} in {source.name} cannot be packed: {error}") from error
        yield archive


def _files_of(folder: Path) -> Iterator[Path]:
    """Files of a folder. Nothing is left out in silence: what cannot be sent raises TransferError."""
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        target = Path(os.path.realpath(path))
        if path.is_symlink() and not (target.is_relative_to(root) and target.is_file()):
            raise TransferError(
                f"{path} is a link out of the folder, to a folder, or to nothing: replace it by what it means"
            )
        if target.is_file():
            yield path
        elif not target.is_dir():
            raise TransferError(f"{path} is a device, pipe or socket: remove it from the folder")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_url(url: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection to where a URL points, and what to ask it for. Close it when done."""
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.netloc, timeout=_TIMEOUT_SECONDS), f"{parts.path}?{parts.query}"


def _put(url: str, stream: BinaryIO, size_bytes: int, on_bytes: OnBytes | None) -> None:
    connection, target = open_url(url)

    def chunks() -> Iterator[bytes]:
        while chunk := stream.read(_CHUNK_BYTES):
            if on_bytes:
                on_bytes(len(chunk))
            yield chunk

    try:
        connection.request("PUT", target, body=chunks(), headers={"Content-Length": str(size_bytes)})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"the upload broke off: {error}; try again") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise TransferError(
            f"the upload was refused: HTTP {response.status} {body[:300].decode(errors='replace')}"
        )


def _inside(folder: Path, path: str) -> Path:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise TransferError(f"{path}: a file name that leaves the folder is not accepted")
    return folder / relative


def _download(file: File, target: Path, on_bytes: OnBytes | None) -> Path:
    with breaking_off(file.path):
        if target.is_file() and target.stat().st_size == file.size_bytes and _sha256(target) == file.sha256:
            if on_bytes:
                on_bytes(file.size_bytes)
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(target, file.sha256)
        with partial.open("a+b") as stream:
            digest = _fetch(file, stream, on_bytes)
            size_bytes = stream.tell()
        if size_bytes < file.size_bytes:
            raise TransferError(
                f"{file.path}: the download broke off after {size_bytes} of {file.size_bytes} bytes; {_AGAIN}"
            )
        if digest != file.sha256:
            partial.unlink()
            raise TransferError(
                f"{file.path}: what arrived is not what was sent (SHA-256 differs); try again"
            )
        partial.replace(target)
        return target


@contextmanager
def breaking_off(name: str) -> Generator[None]:
    """Whatever keeps a download from being received or kept, as a TransferError."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"{name}: the download broke off: {error}; {_AGAIN}") from error


def partial_of(target: Path, digest: str) -> Path:
    """Where what has arrived of a download is kept; of other content it is elsewhere."""
    return target.with_name(f".{target.name}.{digest[:16]}.partial")


def _fetch(file: File, stream: BufferedRandom, on_bytes: OnBytes | None) -> str:
    """Append to `stream` what it lacks of a file. Returns the SHA-256 of what is in it then."""
    connection, path = open_url(file.url)
    try:
        offset = stream.tell()
        connection.request("GET", path, headers={"Range": f"bytes={offset}-"} if offset else {})
        response = connection.getresponse()
        if response.status == http.HTTPStatus.OK:  # from its begin, whatever was asked for
            stream.truncate(0)
        elif response.status not in {
            http.HTTPStatus.PARTIAL_CONTENT,
            http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,  # it has everything
        }:
            body = response.read(300).decode(errors="replace")
            raise TransferError(f"{file.path}: HTTP {response.status} {body}")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256")
        if on_bytes:
            on_bytes(stream.tell())
        if response.status != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _copy(response, stream, digest, on_bytes)
        return digest.hexdigest()
    finally:
        connection.close()


def _copy(
    response: http.client.HTTPResponse, stream: BinaryIO, digest: Any, on_bytes: OnBytes | None
) -> None:
    """What is left of a response. While one buffer is hashed, the next one is filled and written."""
    buffers = [memoryview(bytearray(_CHUNK_BYTES)) for _ in range(_BUFFERS)]
    hashed: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as hashing:
        for buffer in itertools.cycle(buffers):
            if len(hashed) == len(buffers):
                hashed.popleft().result()
            count = response.readinto(buffer)
            if not count:
                return
            stream.write(buffer[:count])
            hashed.append(hashing.submit(digest.update, buffer[:count]))
            if on_bytes:
                on_bytes(count)


def fetch_page(url: str) -> bytes:
    """The page of a report. Raises TransferError."""
    connection, target = open_url(url)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"the page did not arrive: {error}; try again") from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise TransferError(f"the page was refused: HTTP {response.status}")
    return content
