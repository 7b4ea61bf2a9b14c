"""Memory that steps on a CPU free stays with the process: the next step takes it again.

glibc hands the top of its heap back to the system whenever some of it is free, and takes it again a moment
later: a page fault for every 4 KiB that a step computes (docs/experiments.md has what that costs).
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

# Of <malloc.h>. What is above the first limit is a mapping of its own, which is handed back as it is freed:
# what is larger than this would leave holes. The other says how much of the heap's top may lie idle.
_MMAP_THRESHOLD: Final = (-3, 32 << 20)
_TRIM_THRESHOLD: Final = (-1, 1 << 30)


@contextmanager
def kept_memory(device: str) -> Generator[None]:
    """Keep freed memory for a while, if `device` is `cpu`; afterwards what lies idle is handed back.

    The limits stay as they are then. Without glibc nothing changes.
    """
    libc: Any = ctypes.CDLL(None)
    if device != "cpu" or not hasattr(libc, "mallopt"):
        yield
        return
    for limit in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        libc.mallopt(*limit)
    try:
        yield
    finally:
        libc.malloc_trim(0)
