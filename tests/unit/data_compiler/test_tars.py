"""Tar archives and single files as sources: what they hold is found whole; bad ones are refused unopened."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from finemesh.core.errors import InvalidError, ResourceExhaustedError
from finemesh.core.spec.data import ImportOptions
from finemesh.data import Progress, import_source
from finemesh.data.faults import RowFault
from finemesh.data.sources import open_source
from finemesh.data.sources.packed import unpack
from finemesh.data.sources.tars import _pax_records

FILES = {
    "a.json": b"{}",
    "deep/" + "n" * 120 + ".txt": b"long name",
    "ä/b c.bin": bytes(range(256)) * 9,
    "e": b"",
}


def info(name: str, kind: bytes = tarfile.REGTYPE, pax: dict[str, str] | None = None) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.pax_headers = kind, pax or {}
    return made


def packed(*entries: tuple[tarfile.TarInfo, bytes], style: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".tar", bytes),
        (".tar.gz", gzip.compress),
        (".tgz", gzip.compress),
        (".tar.zst", zstd),
        (".tar.bz2", bz2.compress),
    ],
)
def test_tar_holds_what_was_put_in(
    suffix: str, pack: Callable[[bytes], bytes], style: int, tmp_path: Path
) -> None:
    path = tmp_path / f"source{suffix}"
    path.write_bytes(pack(packed(*((info(name), data) for name, data in FILES.items()), style=style)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_source(path, ImportOptions(), scratch) as source:
        assert source.names == sorted(FILES)
        for name, data in FILES.items():
            assert source.read(name) == data
            assert source.size(name) == len(data)
            assert source.local_path(name).read_bytes() == data
            with source.open(name) as first, source.open(name) as second:  # they do not share a position
                assert first.read(3) == data[:3]
                assert second.read() == data
                assert first.read() == data[3:]
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(("style", "longest"), [("gnu", 999), ("posix", 999), ("ustar", 90), ("v7", 90)])
def test_tar_of_the_tar_command_is_read(style: str, longest: int, tmp_path: Path) -> None:
    """`tar -C folder .` names everything `./…`; the old styles know no long names."""
    kept = {name: data for name, data in FILES.items() if len(name) < longest}
    for name, data in kept.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    path = tmp_path / "source.tar"
    command = ["tar", f"--format={style}", "-C", str(tmp_path / "folder"), "-cf", str(path), "."]
    subprocess.run(command, check=True)
    with open_source(path, ImportOptions()) as source:
        assert {name: source.read(name) for name in source.names} == kept


def test_scenes_in_a_tar_are_the_scenes_in_a_zip(archive: Path, tmp_path: Path, silent: Progress) -> None:
    path = tmp_path / "scenes.tar.gz"
    with zipfile.ZipFile(archive) as zipped:
        entries = [(info(name), zipped.read(name)) for name in zipped.namelist()]
    path.write_bytes(gzip.compress(packed(*entries)))
    same = [
        import_source(each, tmp_path / each.name[-3:], ImportOptions(), silent).digest
        for each in (path, archive)
    ]
    assert same[0] == same[1]


def cut(data: bytes) -> bytes:
    return data[: data.rindex(b"x" * 600) + 100]


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with a field of its first header changed, and the header's sum put right."""
    header = bytearray(data[:512])
    header[at : at + len(new)] = new
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


SOUND = packed((info("a.json"), b"x" * 600))
BAD: dict[str, tuple[bytes, str]] = {
    "parent folder": (packed((info("../evil"), b"")), "ARCHIVE_TRAVERSAL"),
    "parent folder inside": (packed((info("a/../../evil"), b"")), "ARCHIVE_TRAVERSAL"),
    "absolute": (packed((info("/etc/passwd"), b"")), "ARCHIVE_TRAVERSAL"),
    "drive": (packed((info("C:evil"), b"")), "ARCHIVE_TRAVERSAL"),
    "backslashes": (packed((info("..\\evil"), b"")), "ARCHIVE_TRAVERSAL"),
    "name in a pax header": (packed((info("a", pax={"path": "../evil"}), b"")), "ARCHIVE_TRAVERSAL"),
    "long gnu name": (packed((info("/" + "n" * 300), b""), style=tarfile.GNU_FORMAT), "ARCHIVE_TRAVERSAL"),
    "control character": (packed((info("a\nb"), b"")), "ARCHIVE_NAME"),
    "turned writing": (packed((info("a\u202egpj.exe"), b"")), "ARCHIVE_NAME"),
    "not UTF-8": (packed((info("a\udcff"), b""), style=tarfile.GNU_FORMAT), "ARCHIVE_NAME"),
    "empty part": (packed((info("a//b"), b"")), "ARCHIVE_NAME"),
    "too deep": (packed((info("a/" * 100 + "b"), b"")), "ARCHIVE_NAME"),
    "symbolic link": (packed((info("a", tarfile.SYMTYPE), b"")), "ARCHIVE_LINK"),
    "hard link": (packed((info("a", tarfile.LNKTYPE), b"")), "ARCHIVE_LINK"),
    "device": (packed((info("a", tarfile.CHRTYPE), b"")), "ARCHIVE_DEVICE"),
    "disk": (packed((info("a", tarfile.BLKTYPE), b"")), "ARCHIVE_DEVICE"),
    "pipe": (packed((info("a", tarfile.FIFOTYPE), b"")), "ARCHIVE_DEVICE"),
    "volume": (packed((info("a", b"V"), b"")), "ARCHIVE_UNSUPPORTED"),
    "one name twice": (packed((info("a"), b"1"), (info("./a"), b"2")), "ARCHIVE_DUPLICATE"),
    "file and folder": (packed((info("a"), b""), (info("a/b/c"), b"")), "ARCHIVE_DUPLICATE"),
    "folder and file": (packed((info("a", tarfile.DIRTYPE), b""), (info("a"), b"")), "ARCHIVE_DUPLICATE"),
    "sparse map": (packed((info("a", pax={"GNU.sparse.major": "1"}), b"")), "ARCHIVE_UNSUPPORTED"),
    "sparse header": (patched(SOUND, 156, b"S"), "ARCHIVE_UNSUPPORTED"),
    "cut in a file": (cut(SOUND), "ARCHIVE_UNREADABLE"),
    "cut behind a file": (SOUND[:1536], "ARCHIVE_UNREADABLE"),
    "cut header": (SOUND[:300], "ARCHIVE_UNREADABLE"),
    "two archives": (SOUND + SOUND, "ARCHIVE_UNREADABLE"),
    "size below zero": (patched(SOUND, 124, b"\xff" * 12), "ARCHIVE_UNREADABLE"),
    "size beyond the end": (patched(SOUND, 124, b"77777777777\0"), "ARCHIVE_UNREADABLE"),
    "size in a pax header": (packed((info("a", pax={"size": "9" * 30}), b"")), "ARCHIVE_UNREADABLE"),
    "wrong sum": (SOUND[:5] + b"z" + SOUND[6:], "ARCHIVE_UNREADABLE"),
    "many": (packed(*((info(f"{index}"), b"") for index in range(30))), "ARCHIVE_BOMB"),
    "total size": (packed(*((info(f"{index}"), b"x" * 90_000) for index in range(9))), "ARCHIVE_BOMB"),
    "long header": (packed((info("a", pax={"comment": "x" * (2 << 20)}), b"")), "ARCHIVE_BOMB"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_bad_tar_is_refused(case: str, suffix: str, tmp_path: Path, silent: Progress) -> None:
    data, reason = BAD[case]
    path, scratch = tmp_path / f"bad{suffix}", tmp_path / "scratch"
    scratch.mkdir()
    path.write_bytes(gzip.compress(data, 0) if suffix == ".tar.gz" else data)
    options = ImportOptions(max_total_bytes=(4 << 20) if case == "long header" else 500_000, max_files=20)
    with pytest.raises(InvalidError) as refusal:
        import_source(path, tmp_path / "out", options, silent, scratch=scratch)
    assert refusal.value.reason == reason
    assert "Nothing was unpacked; " in refusal.value.message  # what follows is the remedy
    assert sorted(item.name for item in tmp_path.rglob("*")) == sorted([path.name, "scratch"])


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstd), (".bz2", bz2.compress)])
def test_bomb_is_left_before_it_grows(
    suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path, silent: Progress
) -> None:
    path = tmp_path / f"bad.jsonl{suffix}"
    path.write_bytes(pack(bytes(64 << 20)))
    with pytest.raises(InvalidError, match="times its packed size") as refusal:
        import_source(path, tmp_path / "out", ImportOptions(), silent)
    assert refusal.value.reason == "ARCHIVE_BOMB"


@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2"])
def test_cut_compressed_file_is_refused(suffix: str, tmp_path: Path, silent: Progress) -> None:
    """A file that ends too early would otherwise pass for a shorter one."""
    pack = {"gz": gzip.compress, "zst": zstd, "bz2": bz2.compress}[suffix]
    whole = pack(os.urandom(50_000).hex().encode())
    path = tmp_path / f"rows.jsonl.{suffix}"
    for length in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidError) as refusal:
            import_source(path, tmp_path / "out", ImportOptions(), silent)
        assert refusal.value.reason == "ARCHIVE_UNREADABLE"


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".xml"])
def test_single_file_is_a_source(suffix: str, tmp_path: Path) -> None:
    plain, squeezed = tmp_path / f"rows{suffix}", tmp_path / f"rows{suffix}.gz"
    plain.write_bytes(b"a\nb\n")
    squeezed.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))  # as parallel writers leave it
    for path in (plain, squeezed):
        with open_source(path, ImportOptions(), tmp_path) as source:
            assert source.names == [plain.name]
            assert source.read(plain.name) == b"a\nb\n"
            with source.open(plain.name) as lines:
                assert list(lines) == [b"a\n", b"b\n"]
    assert sorted(tmp_path.iterdir()) == sorted([plain, squeezed])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.exe", b"MZ"),
        ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0)),
        ("a.tar.xz", lzma.compress(SOUND)),
        ("a", b""),
    ],
)
def test_other_files_are_no_sources(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidError) as refusal:
        open_source(path, ImportOptions())
    assert refusal.value.reason == "UNSUPPORTED_SOURCE"


def test_content_decides_before_the_name(tmp_path: Path) -> None:
    """An upload may be called anything."""
    path = tmp_path / "source"
    path.write_bytes(gzip.compress(SOUND))
    with open_source(path, ImportOptions()) as source:
        assert source.names == ["a.json"]


def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(InvalidError) as refusal:
            open_source(path, ImportOptions())
        assert refusal.value.reason == "SOURCE_DEVICE"


def test_folder_with_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/a\xff.json")).write_bytes(b"{}")
    with pytest.raises(InvalidError) as refusal:
        open_source(tmp_path, ImportOptions())
    assert refusal.value.reason == "SOURCE_NAME"


def test_what_systems_leave_behind_is_no_source_file(tmp_path: Path) -> None:
    litter = ["__MACOSX/._a.json", "._a.json", "b/.DS_Store", "Thumbs.db"]
    names = ["a.json", *litter]
    folder = tmp_path / "folder"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")
    (tmp_path / "a.tar").write_bytes(packed(*((info(name), b"{}") for name in names)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    for path in (folder, tmp_path / "a.tar", tmp_path / "a.zip"):
        with open_source(path, ImportOptions()) as source:
            assert source.names == ["a.json"]


def test_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files would be missing in silence."""
    (tmp_path / "closed").mkdir()
    whole = os.scandir

    def closed(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr("os.scandir", closed)
    with pytest.raises(InvalidError) as refusal:
        open_source(tmp_path, ImportOptions())
    assert refusal.value.reason == "SOURCE_UNREADABLE"


def test_file_that_is_too_large_for_the_memory_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finemesh.data.sources.source.MAX_READ_BYTES", 599)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.json").write_bytes(b"x" * 600)
    (tmp_path / "a.tar").write_bytes(SOUND)
    for path in (folder, tmp_path / "a.tar"):
        with open_source(path, ImportOptions()) as source:
            with pytest.raises(RowFault) as fault:
                source.read("a.json")
            assert fault.value.reason == "FILE_TOO_LARGE"
            with source.open("a.json") as stream:
                assert stream.read() == b"x" * 600


def test_full_disk_is_told_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(os.urandom(100_000)))
    with pytest.raises(ResourceExhaustedError) as refusal:
        unpack(path, "gzip", Path("/dev/full"), ImportOptions())
    assert refusal.value.reason == "DISK_FULL"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("payload", [b"\n", b"nospaceatall\n", b" \n", b"0 a=b\n", b"3 a=b\n", b"99 a=b\n"])
def test_damaged_record_of_an_extended_header_ends_the_reading(payload: bytes) -> None:
    with pytest.raises(InvalidError, match="damaged"):
        _pax_records(payload)


def test_records_of_an_extended_header_are_read() -> None:
    assert _pax_records(b"12 path=a/b\n11 size=12\n\0\0") == {"path": "a/b", "size": "12"}
