"""What a run says when memory runs out: what was asked for, the peak, the longest row, and what to change.

A GPU's allocator raises `torch.OutOfMemoryError`, numpy and Python a MemoryError, and torch on a CPU a
RuntimeError of its allocator.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from finemesh.core.errors import ResourceExhaustedError
from finemesh.core.spec.finetune import TEXT_TOWERS, FineTuneSpec, OutOfMemory
from finemesh.finetune.usage import peak_memory_bytes

if TYPE_CHECKING:  # a run is made inside
    from finemesh.finetune.run import Run

REASON: Final = "OUT_OF_MEMORY"
_CPU_ALLOCATOR: Final = re.compile(r"DefaultCPUAllocator: (?:can't allocate|not enough) memory")
_ASKED: Final = re.compile(
    r"(?:tried to allocate|[Uu]nable to allocate|Tried to allocate) ([\d.]+) ?(bytes|[KMGT]i?B)"
)
_UNITS: Final = {"bytes": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(slots=True)
class Progress:
    """The run, once it is prepared."""

    run: Run | None = None


@contextmanager
def explained(spec: FineTuneSpec) -> Generator[Progress]:
    """Raises ResourceExhaustedError, reason OUT_OF_MEMORY, in place of what runs out of memory inside."""
    progress = Progress()
    try:
        yield progress
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _described(error, spec, progress.run) from error


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_CPU_ALLOCATOR.search(str(error)))


def asked_bytes(text: str) -> int:
    """How much an allocator says that it was asked for; 0 if it does not say."""
    found = _ASKED.search(text)
    if not found:
        return 0
    number, unit = found.groups()
    return int(float(number) * 2 ** _UNITS[unit if unit == "bytes" else unit[0]])


def remedy(spec: FineTuneSpec, micro_batch_size: int) -> str:
    """The mildest change that makes a forward pass smaller; `micro_batch_size` is that of this attempt."""
    if micro_batch_size > 1:
        size = micro_batch_size // 2
        rows = spec.optimization.micro_batch_size * spec.optimization.gradient_accumulation_steps
        same = f"set optimization.micro_batch_size to {size} and optimization.gradient_accumulation_steps to "
        same += f"{-(-rows // size)}, which takes the same steps"
        allowed = spec.on_out_of_memory is OutOfMemory.HALVE_MICRO_BATCH
        return same if allowed else f"{same}, or let on_out_of_memory: HALVE_MICRO_BATCH do so"
    if not spec.optimization.activation_checkpointing:
        return (
            "set optimization.activation_checkpointing to true, which computes the same in a third more time"
        )
    if spec.task in TEXT_TOWERS:
        return (
            "lower sequence.max_tokens, train adapters on a quantised model (lora.quantization: NF4), or use "
            "a machine with more memory"
        )
    return "let the processor make smaller pictures, or use a machine with more memory"


def _described(error: BaseException, spec: FineTuneSpec, run: Run | None) -> ResourceExhaustedError:
    size = run.feed.micro_batch_size if run else spec.optimization.micro_batch_size
    asked, peak = asked_bytes(str(error)), peak_memory_bytes()
    longest = _longest_row(run)
    words = [
        f"memory ran out in step {run.state.step + 1}" if run else "memory ran out before the first step"
    ]
    words += [f"{asked / 1e6:,.0f} MB were asked for"] if asked else []
    words += [f"the peak was {peak / 1e6:,.0f} MB", f"micro batches have {size} rows"]
    words += [f"the longest row of the step is {longest[0]} ({longest[1]:,})"] if longest else []
    metadata = {"requested_bytes": str(asked), "peak_bytes": str(peak), "micro_batch_size": str(size)}
    if longest:
        metadata |= {"longest_row": longest[0], "longest_row_size": str(longest[1])}
    return ResourceExhaustedError(
        f"{', '.join(words)}: {remedy(spec, size)}", reason=REASON, metadata=metadata
    )


def _longest_row(run: Run | None) -> tuple[str, int] | None:
    """Of the step that was being taken: its id and its size in tokens or pixels."""
    rows = set(run.feed.given) if run else set[str]()
    sizes = [(s.size, s.row_id) for s in run.splits["train"].samples if s.row_id in rows] if run else []
    return max(sizes)[::-1] if sizes else None
