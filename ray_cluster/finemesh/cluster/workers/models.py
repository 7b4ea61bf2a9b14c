"""Base models as local folders: a folder on the node, a prefix on S3, or a hub id."""

from __future__ import annotations

from pathlib import Path

from finemesh.cluster.workers.store import Store
from finemesh.core.errors import NotFoundError, UnavailableError
from finemesh.core.spec.finetune import FineTuneSpec


def local_base_model(spec: FineTuneSpec, store: Store, scratch: Path) -> Path:
    """The base model of `spec` on this node's disk.

    Raises:
        NotFoundError: BASE_MODEL_NOT_FOUND.
        UnavailableError: HUB_UNAVAILABLE.
    """
    name = spec.base_model
    if name.startswith("s3://"):
        folder = scratch / "base"
        store.fetch(name, folder)
        return folder
    if name.startswith(("/", "./", "../", "~")):
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder
        raise NotFoundError(
            f"spec.base_model: there is no folder {name} on this node", reason="BASE_MODEL_NOT_FOUND"
        )
    return _from_hub(name, spec.base_model_revision)


def _from_hub(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(
            snapshot_download(name, revision=revision or None, ignore_patterns=["*.bin", "*.pt", "*.h5"])
        )
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NotFoundError(
            f"spec.base_model: the hub has no model {name}", reason="BASE_MODEL_NOT_FOUND"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"spec.base_model: {name} cannot be fetched from the hub and is not in this node's cache",
            reason="HUB_UNAVAILABLE",
        ) from error
