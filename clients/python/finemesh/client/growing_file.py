"""A file that grows at its end, where the next bytes are in memory.

Storing into a shared mapping is as durable as a write (both end in the page cache, which outlives the
process) and needs no system call. What a store needs is there before: the disk's blocks are allocated, since
a store that finds no room kills the process by SIGBUS, and the pages are made writable, a stretch at a time.
That holds on file systems that write in place; on others, and where the disk is full, there is no mapping.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

# How much is allocated, and how much of it made writable, at a time.
WINDOW_BYTES: Final = 1 << 20
STRETCH_BYTES: Final = 1 << 16
_MADV_POPULATE_WRITE: Final = 23  # linux/mman.h, of Linux 5.14; Python has no name for it
# Copy-on-write file systems allocate anew when a page is written again, an overlay may lie on one, and
# networks have their own ideas.
_IN_PLACE: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs"})


class GrowingFile:
    """Used from one thread at a time.

    Attributes:
        end: where the next record goes, in bytes; what was there beyond it is cut off.
        ready: up to where `put` may store.
        put: stores bytes at the end without a system call; whoever calls it moves `end`. A plain attribute:
            each call between would cost a step a microsecond.
    """

    put: Callable[[bytes], object]

    def __init__(self, path: Path, end: int, limit_bytes: int) -> None:
        """`limit_bytes`: what may be allocated. Raises OSError."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._limit_bytes = limit_bytes
        self._map: mmap.mmap | None = None
        self._base = 0
        self.end, self.ready = end, 0
        self._is_mappable = _writes_in_place(self._file)
        with contextlib.suppress(OSError):  # what is no regular file
            os.ftruncate(self._file, end)

    def write(self, record: bytes) -> bool:
        """Write at the end; a short write will be written over. Raises OSError."""
        written = os.pwrite(self._file, record, self.end)
        if written < len(record):
            return False
        self.end += written
        self.ready = 0  # the mapping is at another place
        return True

    def make_ready(self, size: int) -> bool:
        """Whether so many bytes can now be `put`."""
        if self.end + size <= self.ready:
            return True
        try:
            window = self._map
            if not window or self.end + size > self._base + len(window):
                window = self._moved_window(size)
            self._make_writable(window, size)
            window.seek(self.end - self._base)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give back what was allocated in vain."""
        self.ready = 0
        if self._map:
            self._map.close()
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self.end)
        os.close(self._file)

    def _moved_window(self, size: int) -> mmap.mmap:
        base = self.end - self.end % mmap.PAGESIZE
        length = min(WINDOW_BYTES, self._limit_bytes - base)
        if not self._is_mappable or self.end + size > base + length:
            raise OSError
        os.posix_fallocate(self._file, base, length)
        if self._map:
            self._map.close()
        self._map = mmap.mmap(self._file, length, offset=base)
        self._base, self.ready, self.put = base, self.end, self._map.write
        return self._map

    def _make_writable(self, window: mmap.mmap, size: int) -> None:
        """Unlike a store, this says by an error what a store would be killed for."""
        start = (max(self.ready, self.end) - self._base) // mmap.PAGESIZE * mmap.PAGESIZE
        stop = min(len(window), max(start + STRETCH_BYTES, self.end - self._base + size))
        window.madvise(_MADV_POPULATE_WRITE, start, stop - start)
        self.ready = self._base + stop


def _writes_in_place(file: int) -> bool:
    """By the kind of the file system that a file is on, as proc_pid_mountinfo(5) tells."""
    device = os.fstat(file).st_dev
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    fields = next((each.split() for each in mounts if each.split()[2] == _number(device)), [])
    return "-" in fields and fields[fields.index("-") + 1] in _IN_PLACE


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"
