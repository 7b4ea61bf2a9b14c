"""Safetensors written as they are made, a portion of a tensor at a time.

The format (https://huggingface.co/docs/safetensors/index#format) says in its header where each tensor lies,
which is known before any of them is; the library wants all tensors of a file at once. Names of shards and the
index are those of transformers.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from huggingface_hub import split_state_dict_into_shards_factory

from finemesh.core.errors import ResourceExhaustedError

PORTION_BYTES: Final = 8 << 20  # of a tensor that is in memory at a time
_AT_ONCE: Final = 2  # shards: while a portion of one is computed, one of another is written
_DTYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_INDEX: Final = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that is to be written: what it is like, and its portions, in the order of its elements."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    portions: Callable[[], Iterator[torch.Tensor]]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def rows_at_once(shape: Sequence[int], itemsize: int) -> int:
    """How many rows of a tensor make a portion, at least one."""
    return max(1, PORTION_BYTES // max(1, math.prod(shape[1:]) * itemsize))


def write_shards(folder: Path, tensors: Mapping[str, Planned], shard_bytes: int) -> None:
    """Write tensors as `model.safetensors`, or as shards of at most `shard_bytes` (or one tensor) with their
    index.

    Raises:
        ResourceExhaustedError: DISK_FULL.
    """
    sizes = {name: each.bytes for name, each in tensors.items()}
    # Its types speak of tensors; all it does with them is to ask for their size.
    split = split_state_dict_into_shards_factory(
        sizes,
        get_storage_size=lambda size: size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )

    def write(name: str) -> None:
        with (folder / name).open("wb", buffering=0) as stream:
            _write(stream, {member: tensors[member] for member in split.filename_to_tensors[name]})

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(write, split.filename_to_tensors))  # a list, for what one of them raises
        if split.is_sharded:
            index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
            (folder / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceExhaustedError(
                f"{folder} has no room for {sum(sizes.values())} bytes of weights: free some, and export "
                "again",
                reason="DISK_FULL",
            ) from error
        raise


def _write(stream: BinaryIO, tensors: Mapping[str, Planned]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, each in tensors.items():
        header[name] = {
            "dtype": _DTYPES[each.dtype],
            "shape": each.shape,
            "data_offsets": (end, end + each.bytes),
        }
        end += each.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    _write_all(stream, memoryview(len(text).to_bytes(8, "little") + text))
    for name, each in tensors.items():
        written = 0
        for portion in each.portions():
            raw: Any = portion.contiguous().reshape(-1).view(torch.uint8).numpy()
            content = memoryview(raw)
            _write_all(stream, content)
            written += len(content)
        if written != each.bytes:
            raise ValueError(f"{name} was to have {each.bytes} bytes and has {written}")


def _write_all(stream: BinaryIO, content: memoryview) -> None:
    while content:  # a raw file may take less than it is given
        content = content[stream.write(content) :]
