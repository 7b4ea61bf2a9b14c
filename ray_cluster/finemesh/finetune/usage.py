"""Memory that this process has used."""

from __future__ import annotations

import resource

import torch


def peak_memory_bytes() -> int:
    """Highest so far: on its GPU if it has used one, otherwise its resident memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
