"""Packages of exports as archives: downloads that go on where they broke off, checked file by file."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import grpc

from finemesh.client.connection import Connection
from finemesh.client.errors import RpcError
from finemesh.client.transfer import OnBytes, TransferError, breaking_off, partial_of
from finemesh.v1 import export_service_pb2 as pb

ARCHIVE_FORMATS: Final = {".zip": pb.ARCHIVE_FORMAT_ZIP, ".tar": pb.ARCHIVE_FORMAT_TAR}
# How often a download goes on by itself without having got any further in between.
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 1 << 20


def download_archive(
    connection: Connection, name: str, target: Path, *, resume: bool = True, on_bytes: OnBytes | None = None
) -> int:
    """Fetch the package of an export as `target`, whose ending, .zip or .tar, says which kind. Returns bytes.

    What breaks off goes on by itself for a while; what is left then is kept beside the target, and continued
    by the next call with `resume`. The archive has its name once every file in it has its SHA-256.

    Raises TransferError, RpcError.
    """
    export = connection.export.GetExport(pb.GetExportRequest(name=name))
    expected = _digests(connection, name)
    partial = partial_of(target, hashlib.sha256(f"{name} {export.manifest_sha256}".encode()).hexdigest())
    with breaking_off(target.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            partial.unlink(missing_ok=True)
        with partial.open("ab") as stream:
            if on_bytes:
                on_bytes(stream.tell())
            request = pb.DownloadExportRequest(name=name, format=ARCHIVE_FORMATS[target.suffix])
            _receive(connection, request, stream, on_bytes)
            size_bytes = stream.tell()
        wrong = _wrong_files(partial, target.suffix, expected)
        if wrong:
            partial.unlink()
            raise TransferError(f"{target.name}: {', '.join(wrong)}: not what the export holds; try again")
        partial.replace(target)
        return size_bytes


def _digests(connection: Connection, name: str) -> Mapping[str, str]:
    """SHA-256 of every file by its path."""
    found: dict[str, str] = {}
    request = pb.ListExportFilesRequest(parent=name, page_size=500)
    while True:
        page = connection.export.ListExportFiles(request)
        found |= {file.path: file.sha256 for file in page.files}
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _receive(
    connection: Connection, request: pb.DownloadExportRequest, stream: IO[bytes], on_bytes: OnBytes | None
) -> None:
    """Append to `stream` what it lacks of an archive."""
    failures = 0
    while True:
        request.offset = stream.tell()
        try:
            for body in connection.export.DownloadExport(request):
                stream.write(body.data)
                failures = 0
                if on_bytes:
                    on_bytes(len(body.data))
        except RpcError as error:
            failures += 1
            # What broke off on the way comes with no reason of a service's.
            away = error.code is grpc.StatusCode.UNAVAILABLE or not error.reason
            if not away or failures >= _TRIES:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _wrong_files(path: Path, suffix: str, expected: Mapping[str, str]) -> list[str]:
    """Files that an archive lacks, has too much, or has with another content."""
    try:
        found = {name.partition("/")[2]: digest for name, digest in _MEMBERS[suffix](path)}
    except (zipfile.BadZipFile, tarfile.TarError, OSError):
        return ["the archive does not open"]
    paths = sorted(expected.keys() | found.keys())
    return [each for each in paths if found.get(each) != expected.get(each)]


def _zip_members(path: Path) -> Iterator[tuple[str, str]]:
    """Each file of a ZIP and its SHA-256."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                yield name, _sha256(member)


def _tar_members(path: Path) -> Iterator[tuple[str, str]]:
    """Each file of a tar and its SHA-256."""
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            with archive.extractfile(info) or io.BytesIO() as member:
                yield info.name, _sha256(member)


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


_MEMBERS: Final[Mapping[str, Callable[[Path], Iterator[tuple[str, str]]]]] = {
    ".zip": _zip_members,
    ".tar": _tar_members,
}
