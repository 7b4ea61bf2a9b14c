"""What several exports start from is made once on a node, whatever is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from finemesh.package.shared import SharedFolders, forget_unused

from tests.support.servers import PATIENCE_SECONDS


class Stop(Exception):  # noqa: N818
    """The work is to stop."""


def stop() -> None:
    raise Stop


def folders(root: Path) -> SharedFolders:
    return SharedFolders(root, "key", stop)


def patient(root: Path) -> SharedFolders:
    return SharedFolders(root, "key", lambda: None)


def make(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    with (folder.parent / "made").open("a") as log:
        log.write("x")


def fill(root: Path, out: Path) -> None:
    patient(root).fill(out, "merged", make)


def begin(root: Path, begun: Any) -> None:
    def half(folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        begun.set()
        signal.pause()

    patient(root).fill(root / "never", "merged", half)


def test_processes_that_want_it_at_once_make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    root = tmp_path / "shared"
    workers = [context.Process(target=fill, args=(root, tmp_path / f"out-{each}")) for each in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (root / "made").read_text() == "x"
    links = [tmp_path / f"out-{each}" / "model.safetensors" for each in range(3)]
    assert {path.read_bytes() for path in links} == {b"w" * 1000}
    assert {path.stat().st_ino for path in links} == {
        (root / "key-merged" / "model.safetensors").stat().st_ino
    }
    forget_unused(root, 0.0)
    assert not (root / "key-merged").exists()
    assert links[0].read_bytes() == b"w" * 1000  # who has it keeps it


def test_what_a_killed_process_had_begun_is_made_anew(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    root, begun = tmp_path / "shared", context.Event()
    worker = context.Process(target=begin, args=(root, begun))
    worker.start()
    assert begun.wait(PATIENCE_SECONDS)
    with pytest.raises(Stop):  # whoever waits for it can be stopped
        folders(root).fill(tmp_path / "out", "merged", make)
    forget_unused(root, 0.0)  # leaves alone what is being made
    assert (root / "key-merged.draft" / "model.safetensors").exists()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(PATIENCE_SECONDS)
    folders(root).fill(tmp_path / "out", "merged", make)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"w" * 1000


def test_what_fails_leaves_nothing_to_be_taken_for_whole(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folders(tmp_path).fill(tmp_path / "out", "merged", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["key-merged.lock"]  # a full disk does not stay full
    folders(tmp_path).fill(tmp_path / "out", "merged", make)
