"""Memory that this process has used, and with it the one that trained in its stead (`apart`)."""

from __future__ import annotations

import resource
from typing import NamedTuple


class Peaks(NamedTuple):
    """Highest so far: resident memory, and memory of a GPU as its allocator has it; 0 if it has used none."""

    resident_bytes: int = 0
    device_bytes: int = 0


_apart = Peaks()


def own_peaks() -> Peaks:
    """Of this process alone."""
    return Peaks(_resident_bytes(), _device_bytes())


def _resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_bytes() -> int:
    import torch  # not above: whoever asks for resident memory alone need not wait for it

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    return 0


def note_apart(peaks: Peaks) -> None:
    """What a process of its own has told of itself counts as used by this one."""
    global _apart
    _apart = Peaks(*map(max, _apart, peaks))


def peak_resident_bytes() -> int:
    """Both processes are there at the same time: at most this much together."""
    return _resident_bytes() + _apart.resident_bytes


def peak_device_memory_bytes() -> int:
    return max(_device_bytes(), _apart.device_bytes)


def peak_memory_bytes() -> int:
    """On its GPU if it has used one, otherwise its resident memory."""
    return peak_device_memory_bytes() or peak_resident_bytes()
