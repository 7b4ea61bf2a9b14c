"""Memory that this process has used."""

from __future__ import annotations

import resource

import torch


def peak_memory_bytes() -> int:
    """Highest so far: on its GPU if it has used one, otherwise its resident memory."""
    return peak_device_memory_bytes() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_device_memory_bytes() -> int:
    """Highest so far on its GPU, as its allocator has it; 0 if it has used none."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    return 0
