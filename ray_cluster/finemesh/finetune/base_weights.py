"""The files of a base model's weights, and what tells them from those of another base without reading all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import PreconditionError

_WHOLE: Final = "model.safetensors"
_BLOCK_BYTES: Final = 4096
_BLOCKS: Final = 4  # of a tensor: its first, its last, and those between at equal distances


def weight_files(base_model: Path) -> list[Path]:
    """The safetensors files that its index names, or the only one, there or not. Raises OSError, KeyError
    and ValueError for an index that does not read.
    """
    index = base_model / f"{_WHOLE}.index.json"
    if not index.is_file():
        return [base_model / _WHOLE]
    names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"its index names {outside[0]!r}, which is no file of the folder")
    return [base_model / name for name in names]


def corrupt_base(base_model: Path, error: Exception) -> PreconditionError:
    return PreconditionError(
        f"the weights of the base model in {base_model} do not read ({error}): fetch it anew, and try again",
        reason="BASE_MODEL_CORRUPT",
    )


def base_digest(base_model: Path) -> str:
    """SHA-256 in hex of every tensor's name, type, shape, and four of its blocks of 4 KiB; how they lie in
    files changes nothing. Empty for a base whose weights are in no safetensors files.

    Training on, merging and quantising change most blocks of the tensors they touch, so another base is told
    by it. A few numbers changed within a large tensor are not.

    Raises PreconditionError: BASE_MODEL_CORRUPT, a file is missing or does not read.
    """
    digest = hashlib.sha256()
    try:
        files = weight_files(base_model)
        if files == [base_model / _WHOLE] and not files[0].is_file():
            return ""
        told = {name: each for path in files for name, each in _tensors(path).items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise corrupt_base(base_model, error) from error
    for name in sorted(told):
        digest.update(told[name])
    return digest.hexdigest()


def _tensors(path: Path) -> dict[str, bytes]:
    """What is told of each tensor of a file: https://huggingface.co/docs/safetensors/index#format."""
    told: dict[str, bytes] = {}
    with path.open("rb") as file:
        size, start = path.stat().st_size, 8 + int.from_bytes(file.read(8), "little")
        table: dict[str, Any] = json.loads(file.read(min(size, start) - 8))
        table.pop("__metadata__", None)
        if start + max((each["data_offsets"][1] for each in table.values()), default=0) > size:
            raise ValueError(f"{path.name} is cut off")
        for name, each in table.items():
            begin, end = each["data_offsets"]
            last = max(begin, end - _BLOCK_BYTES)
            digest = hashlib.sha256(json.dumps([name, each["dtype"], each["shape"]]).encode())
            for place in sorted({begin + (last - begin) * part // (_BLOCKS - 1) for part in range(_BLOCKS)}):
                file.seek(start + place)
                digest.update(file.read(min(_BLOCK_BYTES, end - place)))
            told[name] = digest.digest()
    return told
