"""Released packages on their way out: the parts of an archive, and what HTTP says of them.

Over HTTP the gateway turns a stream into a response. Its status and its length, which gRPC cannot say, go
with the initial metadata under names of our own: `downloads.lua` of the gateway puts them where they belong.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.api.httpbody_pb2 import HttpBody

from finemesh.core.errors import FinemeshError, InvalidError
from finemesh.export.archive import Archive, ArchiveKind, Piece, lay_out
from finemesh.export.domain import Export
from finemesh.export.ports import Packages
from finemesh.export.ranges import Span, is_among, span_of

STATUS: Final = "x-finemesh-status"
LENGTH: Final = "x-finemesh-length"
HEAD: Final = "x-finemesh-head"
_CONTENT_TYPES: Final = {ArchiveKind.ZIP: "application/zip", ArchiveKind.TAR: "application/x-tar"}
_REFUSED: Final = b'{"code": 11, "message": "the range lies beyond the end of the archive", "details": []}'


@dataclass(frozen=True, slots=True)
class Download:
    """A part of the archive of a released package, or all of it.

    Attributes:
        head: only the headers are wanted.
        unchanged: whoever asks has it already.
    """

    export: Export
    kind: ArchiveKind
    archive: Archive
    span: Span
    etag: str
    head: bool = False
    unchanged: bool = False

    @property
    def to_the_end(self) -> bool:
        """Whether whoever takes it all has the archive, with what a download that broke off had before."""
        delivered = self.span.end == self.span.total and not self.span.refused
        return delivered and not (self.head or self.unchanged)

    def headers(self) -> Sequence[tuple[str, str]]:
        """The initial metadata."""
        filename = f"{self.export.name.id}.{self.kind}"
        headers = [
            ("etag", self.etag),
            ("accept-ranges", "bytes"),
            ("content-disposition", f'attachment; filename="{filename}"'),
            (LENGTH, str(len(_REFUSED) if self.span.refused else self.span.size_bytes)),
        ]
        if self.unchanged:
            headers.append((STATUS, "304"))
        elif self.span.partial:
            headers.append((STATUS, "416" if self.span.refused else "206"))
            headers.append(("content-range", self.span.content_range))
        return headers

    async def bodies(self, packages: Packages) -> AsyncGenerator[HttpBody]:
        """The content. Raises what `parts` raises."""
        content_type = "application/json" if self.span.refused else _CONTENT_TYPES[self.kind]
        if self.head or self.unchanged:
            yield HttpBody(content_type=content_type)
            return
        if self.span.refused:
            yield HttpBody(content_type=content_type, data=_REFUSED)
            return
        if not self.span.size_bytes:
            yield HttpBody(content_type=content_type)
        pieces = self.archive.between(self.span.begin, self.span.end)
        async for data in parts(packages, self.export.output_uri, pieces):
            yield HttpBody(content_type=content_type, data=data)


def open_download(export: Export, kind: ArchiveKind, offset: int, headers: Mapping[str, str]) -> Download:
    """What to send of a released export; `headers` are those of the request, names in lower case.

    Raises InvalidError for an offset beyond the end.
    """
    archive = lay_out(export.files or (), kind, export.name.id)
    total = archive.size_bytes
    if not 0 <= offset <= total:
        raise InvalidError.of("offset", f"{offset} is not within the archive: it has {total} bytes")
    etag = f'"{export.manifest_sha256}-{export.name.id}-{kind}"'
    unchanged = is_among(etag, headers.get("if-none-match", ""))
    span = span_of(
        total,
        offset=offset,
        asked="" if unchanged else headers.get("range", ""),
        only_if=headers.get("if-range", ""),
        etag=etag,
    )
    return Download(export, kind, archive, span, etag, head=HEAD in headers, unchanged=unchanged)


async def parts(packages: Packages, uri: str, pieces: Iterable[Piece]) -> AsyncIterator[bytes]:
    """The bytes of some pieces, in chunks. While one is sent, a thread takes it into the file's digest.

    Raises FinemeshError, reason OBJECT_CORRUPT, at the end of a file that is sent whole and is not what its
    digest says: a file that breaks off cannot be mistaken for a good one.
    """
    loop = asyncio.get_running_loop()
    for piece in pieces:
        if piece.file is None:
            yield piece.data
            continue
        digest = hashlib.sha256()
        async for chunk in packages.read(uri, piece.file.path, piece.start, piece.length):
            hashed = loop.run_in_executor(None, digest.update, chunk)
            yield chunk
            await hashed
        if piece.length == piece.file.size_bytes and digest.hexdigest() != piece.file.sha256:
            raise FinemeshError(
                f"{piece.file.path} is not what the package's manifest says: export it again",
                reason="OBJECT_CORRUPT",
                metadata={"path": piece.file.path},
            )
