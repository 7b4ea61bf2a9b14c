"""Base models as local folders: a folder on the node, a prefix on S3, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Final

from finemesh.cluster.workers.store import Store
from finemesh.core.errors import NotFoundError, UnavailableError
from finemesh.core.spec.finetune import FineTuneSpec

_WEIGHTS: Final = ("*.safetensors", "*.gguf", "*.onnx", "*.msgpack")
_PICKLES: Final = ("*.bin", "*.pt", "*.h5")


def local_base_model(spec: FineTuneSpec, store: Store, scratch: Path, *, weights: bool = True) -> Path:
    """The base model of `spec` on this node's disk.

    Args:
        spec: names it.
        store: for one on S3.
        scratch: where that is put.
        weights: whether they are fetched too, or config, tokenizer and processor alone.

    Raises:
        NotFoundError: BASE_MODEL_NOT_FOUND.
        UnavailableError: HUB_UNAVAILABLE.
    """
    name = spec.base_model
    if name.startswith("s3://"):
        folder = scratch / "base"
        store.fetch(name, folder, select=lambda path: weights or not _is_weights(path))
        return folder
    if name.startswith(("/", "./", "../", "~")):
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder
        raise NotFoundError(
            f"spec.base_model: there is no folder {name} on this node", reason="BASE_MODEL_NOT_FOUND"
        )
    return _from_hub(name, spec.base_model_revision, _PICKLES if weights else (*_PICKLES, *_WEIGHTS))


def _is_weights(path: str) -> bool:
    return any(PurePath(path).match(pattern) for pattern in (*_PICKLES, *_WEIGHTS))


def _from_hub(name: str, revision: str, unwanted: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, revision=revision or None, ignore_patterns=list(unwanted)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NotFoundError(
            f"spec.base_model: the hub has no model {name}", reason="BASE_MODEL_NOT_FOUND"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"spec.base_model: {name} cannot be fetched from the hub and is not in this node's cache",
            reason="HUB_UNAVAILABLE",
        ) from error
