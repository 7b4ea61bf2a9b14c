"""A full disk is told as one, and may be tried again."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from finemesh.cluster.disk import disk_full
from safetensors import SafetensorError


# The last is how safetensors tells it. Never let it write to a device: it renames a file over its target.
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        shutil.Error([("from", "to", "[Errno 28] No space left on device: 'to'")]),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_by_whoever_writes(error: Exception) -> None:
    told = disk_full(error, Path("/data/scratch"))
    assert told
    assert (told.reason, told.retryable) == ("DISK_FULL", True)
    assert "/data/scratch" in told.message


def test_other_errors_are_left_alone() -> None:
    assert disk_full(FileNotFoundError(2, "no such file"), Path("/data")) is None
