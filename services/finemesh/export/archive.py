"""A package as one ZIP file, made while it is read: nothing is compressed, and no copy is built anywhere.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. The same package gives the same bytes:
files come in the order of their paths and carry no time of their own. CRCs follow the data in data
descriptors.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import IO, Final, cast

from finemesh.core.errors import FinemeshError
from finemesh.export.ports import PackageFile

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first date that ZIP knows
_UNIX: Final = 3
_FILE_MODE: Final = 0o100644
_ZIP64_FROM_BYTES: Final = 1 << 31


class _Buffer:
    """Where `zipfile` writes: takes bytes until they are drained, and cannot seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def drain(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


async def zip_stream(
    files: Iterable[PackageFile], read: Callable[[str], AsyncIterator[bytes]], folder: str
) -> AsyncGenerator[bytes]:
    """The bytes of a ZIP file that holds `files` under `folder`/.

    Raises FinemeshError, reason OBJECT_CORRUPT, at the end of a file that is not what its digest says: a file
    that breaks off cannot be mistaken for a good one.
    """
    buffer = _Buffer()
    # A file that can neither seek nor tell is documented to do; the type stubs ask for more.
    with zipfile.ZipFile(cast("IO[bytes]", buffer), "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            info = zipfile.ZipInfo(f"{folder}/{file.path}", _EPOCH)
            info.create_system, info.external_attr = _UNIX, _FILE_MODE << 16
            digest = hashlib.sha256()
            with archive.open(info, "w", force_zip64=file.size_bytes >= _ZIP64_FROM_BYTES) as entry:
                async for chunk in read(file.path):
                    digest.update(chunk)
                    entry.write(chunk)
                    yield buffer.drain()
                if digest.hexdigest() != file.sha256:
                    raise FinemeshError(
                        f"{file.path} is not what the package's manifest says: export it again",
                        reason="OBJECT_CORRUPT",
                        metadata={"path": file.path},
                    )
    yield buffer.drain()
