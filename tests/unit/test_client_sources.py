"""What the client sends of a folder: all of it, or a word why not; and how columns of tables are named."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import typer
from finemesh.client import transfer
from finemesh.client.cli.sources import parse_columns
from finemesh.client.transfer import TransferError


def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "deep").mkdir(parents=True)
    (root / "deep/a.json").write_bytes(b"{}")
    return root


def test_folder_is_packed_whole(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "old.txt").write_bytes(b"old")
    os.utime(root / "old.txt", (0, 0))  # 1970, which a ZIP cannot say
    (root / "same.txt").symlink_to("old.txt")
    with transfer._as_file(root) as path, zipfile.ZipFile(path) as archive:
        packed = {info.filename: (archive.read(info), info.is_dir()) for info in archive.infolist()}
    assert packed == {
        "deep/a.json": (b"{}", False),
        "old.txt": (b"old", False),
        "same.txt": (b"old", False),  # the file itself: a link would be refused
    }
    assert not path.exists()


@pytest.mark.parametrize("target", ["/etc/hostname", "../secret", "deep", "nowhere", "bad"])
def test_link_is_not_left_out_in_silence(target: str, tmp_path: Path) -> None:
    root = folder(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "bad").symlink_to(target)
    with pytest.raises(TransferError, match="bad is a link"), transfer._as_file(root):
        pass


def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    root = folder(tmp_path)
    os.mkfifo(root / "pipe")
    with pytest.raises(TransferError, match="pipe is a device"), transfer._as_file(root):
        pass


def test_nothing_is_not_uploaded(tmp_path: Path) -> None:
    (tmp_path / "empty/deep").mkdir(parents=True)
    with pytest.raises(TransferError, match="holds no files"), transfer._as_file(tmp_path / "empty"):
        pass
    (tmp_path / "none.zip").write_bytes(b"")
    with pytest.raises(TransferError, match="is empty"):
        transfer.upload_source(None, tmp_path / "none.zip")  # pyright: ignore[reportArgumentType]


def test_name_that_no_archive_holds_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path)
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt")).write_bytes(b"")
    with pytest.raises(TransferError, match="cannot be packed"), transfer._as_file(root):
        pass


def test_columns_are_read() -> None:
    assert parse_columns(["prompt=question", "completion=the = answer"]) == {
        "prompt": "question",
        "completion": "the = answer",
    }


@pytest.mark.parametrize("words", [["prompt"], ["=a"], ["prompt="], ["a=b", "a=c"]])
def test_wrong_columns_are_refused(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        parse_columns(words)
