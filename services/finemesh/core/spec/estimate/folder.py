"""A base model in a folder: its configuration and the shapes of its weights, without the weights.

A safetensors file begins with the length of its header, eight bytes little-endian, and the header, a JSON
object of dtype, shape and place by tensor (https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import NotFoundError
from finemesh.core.spec.estimate.base_model import BaseModel

_LONGEST_HEADER: Final = 100_000_000  # what safetensors itself accepts


def read_folder(folder: Path) -> BaseModel:
    """Raises NotFoundError, reason BASE_MODEL_NOT_FOUND: it has no readable config.json."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise NotFoundError(
            f"{folder} has no readable config.json ({error}): give the folder of a base model",
            reason="BASE_MODEL_NOT_FOUND",
        ) from error
    files = sorted(folder.glob("*.safetensors"))
    tensors = {name: shape for path in files for name, shape in shapes_in(header_of(path)).items()}
    return BaseModel(config, tensors, _processor(folder), sum(path.stat().st_size for path in files))


def header_of(path: Path) -> bytes:
    """The JSON header of a safetensors file; empty if it is none."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return file.read(length) if length <= _LONGEST_HEADER else b""


def shapes_in(header: bytes) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor; none where the header does not read."""
    try:
        entries: dict[str, Any] = json.loads(header)
        return {name: tuple(map(int, each["shape"])) for name, each in entries.items() if "shape" in each}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _processor(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "preprocessor_config.json").read_bytes())
    except (OSError, ValueError):
        found = {}
    if not found:
        try:  # a processor of several parts writes one file
            found = json.loads((folder / "processor_config.json").read_bytes()).get("image_processor", {})
        except (OSError, ValueError, AttributeError):
            found = {}
    return found if isinstance(found, dict) else {}
