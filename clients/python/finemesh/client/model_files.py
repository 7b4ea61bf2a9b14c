"""What a mesh needs to know of a base model in a folder here, to estimate what training it takes.

A safetensors file begins with the length of its header, eight bytes little-endian, and the header, a JSON
object of dtype, shape and place by tensor (https://huggingface.co/docs/safetensors/index#format).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Final

from finemesh.v1 import estimate_pb2

# Headers of larger files are left out: a call carries at most a few megabytes.
_LONGEST_HEADERS: Final = 3_000_000


def model_files(model: str) -> estimate_pb2.BaseModelFiles | None:
    """Of a folder; None for a model that is elsewhere, or none."""
    folder = Path(model).expanduser()
    try:
        config = (folder / "config.json").read_text(encoding="utf-8")
        weights = sorted(folder.glob("*.safetensors"))
        headers = [_header(path) for path in weights]
        size = sum(path.stat().st_size for path in weights)
    except (OSError, ValueError):
        return None
    return estimate_pb2.BaseModelFiles(
        config_json=config,
        processor_json=processor_in(folder),
        weight_headers=headers if sum(map(len, headers)) <= _LONGEST_HEADERS else [],
        weight_bytes=size,
    )


def _header(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        return file.read(length).decode() if length <= _LONGEST_HEADERS else ""


def processor_in(folder: Path) -> str:
    """What a folder says of how pictures are prepared; empty if nothing."""
    try:
        return (folder / "preprocessor_config.json").read_text(encoding="utf-8")
    except OSError:
        pass
    try:  # a processor of several parts writes one file
        whole = json.loads((folder / "processor_config.json").read_bytes())
        return json.dumps(whole.get("image_processor") or {})
    except (OSError, ValueError, AttributeError):
        return ""
