"""Archives and folders made to do harm: what is accepted stays inside and is what was put in; the rest is
refused by an error of ours, and leaves nothing behind.
"""

from __future__ import annotations

import bz2
import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath

import pyarrow as pa
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions
from finemesh.data.faults import RowFault
from finemesh.data.sources import Source, open_source
from hypothesis import given, settings
from hypothesis import strategies as st

LIMITS = ImportOptions(max_total_bytes=300_000, max_files=12)
SLOW = timedelta(seconds=60)
SECRET = b"outside"

parts = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "b.json",
        "/",
        "\\",
        "C:",
        "\0",
        "\n",
        "é",
        "\u202e",
        "x" * 300,
        " ",
        "__MACOSX",
        "~",
        "*",
    ]
)
names = st.lists(parts, min_size=1, max_size=5).map("/".join) | st.just("../outside/secret")
plain_names = st.lists(st.sampled_from(["a", "b.json", "c d", "é"]), min_size=1, max_size=3).map("/".join)
contents = st.binary(max_size=1200) | st.integers(0, 200_000).map(bytes)
tar_kinds = st.sampled_from(
    [*(b"%d" % digit for digit in range(8)), b"S", b"V", b"D", b"L", b"K", b"x", b"g", b"\0"]
)
tar_styles = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
pax_keys = st.sampled_from(["path", "linkpath", "GNU.sparse.map", "GNU.sparse.realsize", "comment", "mtime"])
pax_headers = st.dictionaries(pax_keys, names | st.integers(-5, 10**9).map(str), max_size=2)
damages = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=3)
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """A tar of strange entries, some with links to what lies outside."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=draw(tar_styles)) as archive:
        for _ in range(draw(st.integers(0, 5))):
            info = tarfile.TarInfo(draw(names))
            info.type, info.pax_headers = draw(tar_kinds), draw(pax_headers)
            info.linkname = draw(st.sampled_from(["", "../outside/secret", "/etc/passwd"]))
            data = draw(contents)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


@contextmanager
def tried(data: bytes, name: str) -> Generator[Source | None]:
    """The source in a file of `data`, beside a folder that no source may look into; None if it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for each in ("outside", "inside", "scratch"):
            (root / each).mkdir()
        (root / "outside" / "secret").write_bytes(SECRET)
        path = root / "inside" / name
        path.write_bytes(data)
        try:
            source = open_source(path, LIMITS, root / "scratch")
        except InvalidError as error:
            assert error.reason.startswith(("ARCHIVE_", "UNSUPPORTED_SOURCE")), error.reason
            yield None
        else:
            with source:
                yield source
        assert not list((root / "scratch").iterdir())
        assert [item.name for item in (root / "inside").iterdir()] == [name]


def judge(source: Source) -> None:
    """Names stay inside, sizes are true, and nothing is read that is not in the source."""
    inside = Path("/root/inside")
    assert len(source.names) <= LIMITS.max_files
    for name in source.names:
        target = (inside / PurePosixPath(name)).resolve()
        assert target.is_relative_to(inside)
        assert target != inside
        try:
            data = source.read(name)
        except RowFault as fault:
            assert fault.reason == "FILE_UNREADABLE"
            continue
        assert len(data) == source.size(name) <= LIMITS.max_total_bytes
        assert data != SECRET
        assert source.local_path(name).read_bytes() == data


@settings(max_examples=250, deadline=SLOW)
@given(tars(), st.sampled_from(list(PACKINGS)))
def test_strange_tar(data: bytes, suffix: str) -> None:
    with tried(PACKINGS[suffix](data), f"source{suffix}") as source:
        if source:
            judge(source)


@settings(max_examples=250, deadline=SLOW)
@given(tars(), damages, st.integers(0, 1 << 20) | st.none(), st.sampled_from(list(PACKINGS)), st.booleans())
def test_damaged_tar(
    data: bytes, damage: list[tuple[int, int]], end: int | None, suffix: str, packed_first: bool
) -> None:
    """Damaged before it was compressed, or after."""
    raw = bytearray(PACKINGS[suffix](data) if packed_first else data)
    for position, value in damage:
        raw[position % len(raw)] = value
    cut = bytes(raw if end is None else raw[: end % len(raw)])
    with tried(cut if packed_first else PACKINGS[suffix](cut), f"source{suffix}") as source:
        if source:
            judge(source)


@settings(max_examples=100, deadline=SLOW)
@given(
    st.binary(max_size=512),
    st.sampled_from(["source.tar", "source.tgz", "source.zip", "source.json.zst", "s"]),
)
def test_any_bytes(data: bytes, name: str) -> None:
    for magic in (
        b"",
        b"\x1f\x8b\x08\0",
        b"\x28\xb5\x2f\xfd",
        b"BZh9",
        b"PK\x03\x04",
        bytes(257) + b"ustar\0",
    ):
        with tried(magic + data, name) as source:
            if source:
                judge(source)


@settings(max_examples=80, deadline=SLOW)
@given(
    st.dictionaries(plain_names, st.binary(max_size=900), max_size=5),
    tar_styles,
    st.sampled_from(list(PACKINGS)),
)
def test_sound_tar_is_what_tarfile_reads(files: dict[str, bytes], style: int, suffix: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    clash = any(other.startswith(f"{name}/") for name in files for other in files)
    with tried(PACKINGS[suffix](buffer.getvalue()), f"source{suffix}") as source:
        assert (source is None) == clash
        if source:
            assert {name: source.read(name) for name in source.names} == files


zip_entries = st.tuples(
    names, st.sampled_from([0, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO]), contents
)


@settings(max_examples=200, deadline=SLOW)
@given(
    st.lists(zip_entries, max_size=5), damages, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
)
def test_strange_zip(
    entries: list[tuple[str, int, bytes]], damage: list[tuple[int, int]], method: int
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for index, (name, mode, data) in enumerate(entries):
            info = zipfile.ZipInfo(f"{index}")
            info.external_attr, info.compress_type = mode << 16, method
            archive.writestr(info, data)
            archive.filelist[-1].filename = name
    raw = bytearray(buffer.getvalue())
    for position, value in damage:
        raw[-1 - position % len(raw)] = value  # the directory is at the end
    with tried(bytes(raw), "source.zip") as source:
        if source:
            judge(source)


links = st.sampled_from(
    ["../outside/secret", "../outside", "/etc/passwd", "a", ".", "..", "nowhere", "b.json"]
)
things = st.sampled_from(["file", "folder", "link", "pipe"])
file_names = st.sampled_from(["a", "b.json", "c\n", "d\u202e", "e" * 200, " ", "-f", "$(f)", "f\udcff"])


@settings(max_examples=150, deadline=SLOW)
@given(st.lists(st.tuples(file_names, st.integers(0, 2), things, links), max_size=6))
def test_strange_folder(items: list[tuple[str, int, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, outside = Path(folder) / "source", Path(folder) / "outside"
        root.mkdir()
        outside.mkdir()
        (outside / "secret").write_bytes(SECRET)
        places = [root]
        for name, place, thing, link in items:
            path = places[place % len(places)] / name
            if path.is_symlink() or path.exists():
                continue
            if thing == "file":
                path.write_bytes(name.encode("utf-8", "surrogateescape"))
            elif thing == "folder":
                path.mkdir()
                places.append(path)
            elif thing == "link":
                path.symlink_to(link)
            else:
                os.mkfifo(path)
        try:
            source = open_source(root, LIMITS)
        except InvalidError as error:
            assert error.reason.startswith("SOURCE_")
            return
        with source:
            judge(source)
