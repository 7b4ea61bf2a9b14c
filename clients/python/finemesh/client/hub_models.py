"""What a mesh needs to know of a base model on the hub: its config, and the headers of its weights alone.

A model of 100 GB is known from about a megabyte. Needs huggingface_hub, which comes with the extra `push`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finemesh.client.model_files import model_files, processor_in
from finemesh.v1 import estimate_pb2

_SMALL = ["config.json", "preprocessor_config.json", "processor_config.json"]


def cached_files(model: str, revision: str = "") -> estimate_pb2.BaseModelFiles | None:
    """Of a model that is in this machine's cache, whole; None for one that is not."""
    if model.startswith(("/", ".", "~", "s3://")):
        return None
    try:
        import huggingface_hub as hub

        folder = hub.snapshot_download(model, revision=revision or None, local_files_only=True)
    except (ImportError, OSError, ValueError):  # which all that the hub's library raises is
        return None
    files = model_files(str(folder))
    return files if files and files.weight_headers else None


def hub_files(model: str, revision: str = "") -> estimate_pb2.BaseModelFiles:
    """Read from the hub. Raises LookupError with a sentence when that cannot be done."""
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise LookupError("reading it from the hub needs a library: pip install huggingface_hub") from error
    chosen = revision or None
    try:
        folder = Path(hub.snapshot_download(model, revision=chosen, allow_patterns=_SMALL))
        config = (folder / "config.json").read_text(encoding="utf-8")
        found = hub.get_safetensors_metadata(model, revision=chosen)
    except (
        OSError,
        ValueError,
        hub.errors.NotASafetensorsRepoError,
        hub.errors.SafetensorsParsingError,
    ) as error:
        raise LookupError(f"it cannot be read from the hub ({' '.join(str(error).split())[:200]})") from error
    parts = [part.tensors for part in found.files_metadata.values()]
    return estimate_pb2.BaseModelFiles(
        config_json=config,
        processor_json=processor_in(folder),
        weight_headers=[_header(tensors) for tensors in parts],
        weight_bytes=sum(max((each.data_offsets[1] for each in t.values()), default=0) for t in parts),
    )


def _header(tensors: dict[str, Any]) -> str:
    facts = {
        name: {"dtype": each.dtype, "shape": each.shape, "data_offsets": each.data_offsets}
        for name, each in tensors.items()
    }
    return json.dumps(facts)
