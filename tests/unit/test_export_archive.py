"""A package as a ZIP file that is made while it is read."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from finemesh.core.errors import FinemeshError
from finemesh.export.archive import zip_stream
from finemesh.export.ports import PackageFile

CONTENT = {"a.txt": b"hello", "b/empty": b"", "b/large.bin": bytes(range(256)) * 9000}
FILES = [PackageFile(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in CONTENT.items()]


async def read(path: str) -> AsyncIterator[bytes]:
    data = CONTENT[path]
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


async def zip_into(parts: list[bytes], files: list[PackageFile]) -> None:
    async for part in zip_stream(files, read, "package"):
        parts.append(part)  # noqa: PERF401  what came before an error counts


async def zipped(files: list[PackageFile]) -> list[bytes]:
    parts: list[bytes] = []
    await zip_into(parts, files)
    return parts


async def test_the_archive_is_whole_stored_and_the_same_every_time() -> None:
    parts = await zipped(FILES)
    assert parts == await zipped(FILES)
    assert max(len(part) for part in parts) < 70_000  # one chunk at a time, never a whole file
    with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"package/{path}": data for path, data in CONTENT.items()
        }
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.skipif(shutil.which("unzip") is None, reason="the unzip program is not installed")
async def test_another_implementation_reads_it(tmp_path: Path) -> None:
    (tmp_path / "package.zip").write_bytes(b"".join(await zipped(FILES)))
    subprocess.run(["unzip", "-q", "package.zip"], cwd=tmp_path, check=True)
    for path, data in CONTENT.items():
        assert (tmp_path / "package" / path).read_bytes() == data


async def test_a_file_that_changed_breaks_the_archive_off() -> None:
    wrong = [FILES[0], PackageFile("b/large.bin", 1, "0" * 64)]
    parts: list[bytes] = []
    with pytest.raises(FinemeshError) as refused:
        await zip_into(parts, wrong)
    assert refused.value.reason == "OBJECT_CORRUPT"
    assert not zipfile.is_zipfile(io.BytesIO(b"".join(parts)))
