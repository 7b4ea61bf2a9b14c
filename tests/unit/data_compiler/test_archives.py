"""A ZIP is judged before a byte is unpacked: one case per kind of bad archive."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ImportOptions
from finemesh.data import Progress, import_source

Write = Callable[[zipfile.ZipFile], None]


def entry(name: str, mode: int = stat.S_IFREG | 0o644, data: bytes = b"x") -> Write:
    def write(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data, zipfile.ZIP_DEFLATED)

    return write


def twice(archive: zipfile.ZipFile) -> None:
    entry("a.json")(archive)
    archive.filelist[-1].filename = archive.filelist[-1].orig_filename = "b.json"
    archive.NameToInfo.clear()
    entry("b.json")(archive)


def file_and_folder(archive: zipfile.ZipFile) -> None:
    entry("a")(archive)
    entry("a/b")(archive)


def encrypted(archive: zipfile.ZipFile) -> None:
    entry("a.json")(archive)
    archive.filelist[-1].flag_bits |= 1


def odd_method(archive: zipfile.ZipFile) -> None:
    entry("a.json")(archive)
    archive.filelist[-1].compress_type = 97


def overlapping(archive: zipfile.ZipFile) -> None:
    """Two names for the same packed bytes, as in a zip bomb without nesting."""
    data = bytes(range(256)) * 64
    entry("a.bin", data=data)(archive)
    for name in "bcdefgh":
        copy = zipfile.ZipInfo(f"{name}.bin")
        first = archive.filelist[0]
        copy.compress_type, copy.CRC, copy.header_offset = first.compress_type, first.CRC, first.header_offset
        copy.file_size, copy.compress_size = first.file_size, 100_000
        archive.filelist.append(copy)


def many(archive: zipfile.ZipFile) -> None:
    for index in range(30):
        entry(f"{index}.json")(archive)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        pytest.param(entry("../evil.json"), "ARCHIVE_TRAVERSAL", id="parent"),
        pytest.param(entry("a/../../evil.json"), "ARCHIVE_TRAVERSAL", id="parent in the middle"),
        pytest.param(entry("..\\evil.json"), "ARCHIVE_TRAVERSAL", id="parent with backslash"),
        pytest.param(entry("/etc/evil"), "ARCHIVE_TRAVERSAL", id="absolute"),
        pytest.param(entry("C:/evil"), "ARCHIVE_TRAVERSAL", id="drive"),
        pytest.param(entry("a//b"), "ARCHIVE_NAME", id="empty part"),
        pytest.param(entry("./a"), "ARCHIVE_NAME", id="dot part"),
        pytest.param(entry("a\nb"), "ARCHIVE_NAME", id="control character"),
        pytest.param(entry("n" * 2000), "ARCHIVE_NAME", id="long name"),
        pytest.param(entry("a", stat.S_IFLNK | 0o777, b"/etc/passwd"), "ARCHIVE_LINK", id="link"),
        pytest.param(entry("a", stat.S_IFIFO | 0o644), "ARCHIVE_DEVICE", id="pipe"),
        pytest.param(entry("a", stat.S_IFCHR | 0o644), "ARCHIVE_DEVICE", id="device"),
        pytest.param(twice, "ARCHIVE_DUPLICATE", id="one name twice"),
        pytest.param(file_and_folder, "ARCHIVE_DUPLICATE", id="file and folder of one name"),
        pytest.param(encrypted, "ARCHIVE_ENCRYPTED", id="encrypted"),
        pytest.param(odd_method, "ARCHIVE_UNSUPPORTED", id="unknown method"),
        pytest.param(entry("a.json", data=b"\0" * 600_000), "ARCHIVE_BOMB", id="total size"),
        pytest.param(many, "ARCHIVE_BOMB", id="count"),
        pytest.param(overlapping, "ARCHIVE_BOMB", id="overlapping entries"),
    ],
)
def test_bad_archive_is_refused(write: Write, reason: str, tmp_path: Path, silent: Progress) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        write(archive)
    options = ImportOptions(max_total_bytes=500_000, max_files=20)
    with pytest.raises(InvalidError) as refusal:
        import_source(path, tmp_path / "out", options, silent)
    assert refusal.value.reason == reason
    assert "Nothing was unpacked; " in refusal.value.message  # what follows is the remedy
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bad.zip"]


def test_ratio_alone_makes_a_bomb(tmp_path: Path, silent: Progress) -> None:
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry("a.json", data=bytes(4 << 20))(archive)
    with pytest.raises(InvalidError, match="times its packed size") as refusal:
        import_source(path, tmp_path / "out", ImportOptions(), silent)
    assert refusal.value.reason == "ARCHIVE_BOMB"
    assert refusal.value.metadata == {"entry": "a.json"}


def test_truncated_archive_is_unreadable(archive: Path, tmp_path: Path, silent: Progress) -> None:
    path = tmp_path / "cut.zip"
    path.write_bytes(archive.read_bytes()[:-5000])
    with pytest.raises(InvalidError) as refusal:
        import_source(path, tmp_path / "out", ImportOptions(), silent)
    assert refusal.value.reason == "ARCHIVE_UNREADABLE"
    assert not (tmp_path / "out").exists()


def test_entry_with_wrong_checksum_costs_its_row_only(
    archive: Path, tmp_path: Path, silent: Progress
) -> None:
    """A frame whose bytes were damaged is quarantined; the import goes on."""
    with zipfile.ZipFile(archive) as whole:
        info = whole.getinfo("frames/scene_0002/00001.jpg")
    data = bytearray(archive.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 0xFF
    path = tmp_path / "damaged.zip"
    path.write_bytes(data)
    manifest = import_source(path, tmp_path / "out", ImportOptions(), silent)
    assert manifest.ledger.by_reason == {"FILE_UNREADABLE": 1}


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside.json", "nowhere.json", "a.json"])
def test_folder_link_that_leads_out_is_refused(target: str, tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (tmp_path / "outside.json").write_text("{}")
    (folder / "a.json").symlink_to(target)
    with pytest.raises(InvalidError) as refusal:
        import_source(folder, tmp_path / "out", ImportOptions(), silent)
    assert refusal.value.reason == "SOURCE_LINK"


def test_linked_folder_is_refused(tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "all").symlink_to("/")
    with pytest.raises(InvalidError) as refusal:
        import_source(folder, tmp_path / "out", ImportOptions(), silent)
    assert refusal.value.reason == "SOURCE_LINK"


def test_folder_over_its_limits_is_refused(tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.json").write_bytes(b"0" * 100)
    for options in (ImportOptions(max_files=2), ImportOptions(max_total_bytes=250)):
        with pytest.raises(InvalidError) as refusal:
            import_source(folder, tmp_path / "out", options, silent)
        assert refusal.value.reason == "SOURCE_TOO_LARGE"
