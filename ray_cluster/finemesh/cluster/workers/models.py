"""Base models as local folders: a folder on the node, a prefix on S3, or a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Final

from finemesh.chassis.objects import check_key
from finemesh.cluster.workers.store import Store
from finemesh.core.errors import InvalidError, NotFoundError, UnavailableError
from finemesh.core.spec.finetune import FineTuneSpec

_WEIGHTS: Final = ("*.safetensors", "*.gguf", "*.onnx", "*.msgpack")
_PICKLES: Final = ("*.bin", "*.pt", "*.h5")
MOST_FILES: Final = 1000  # below a prefix; of no model are there so many


def local_base_model(spec: FineTuneSpec, store: Store, scratch: Path, *, weights: bool = True) -> Path:
    """The base model of `spec` on this node's disk.

    Args:
        spec: names it.
        store: for one on S3.
        scratch: where that is put.
        weights: whether they are fetched too, or config, tokenizer and processor alone.

    Raises:
        NotFoundError: BASE_MODEL_NOT_FOUND.
        InvalidError: FOREIGN_URI, it lies in a bucket that is not the mesh's; BASE_MODEL_UNSUITABLE, more
            than `MOST_FILES` files lie below its prefix.
        UnavailableError: HUB_UNAVAILABLE.
    """
    name = spec.base_model
    unwanted = _PICKLES if weights else (*_PICKLES, *_WEIGHTS)
    if name.startswith("s3://"):
        return _from_store(spec, store, scratch / "base", unwanted)
    if name.startswith(("/", "./", "../", "~")):
        folder = Path(name).expanduser()
        if folder.is_dir():
            return folder
        raise _not_found(f"there is no folder {name} on this node")
    return _from_hub(name, spec.base_model_revision, unwanted)


def _from_store(spec: FineTuneSpec, store: Store, folder: Path, unwanted: Sequence[str]) -> Path:
    """What the mesh wrote has a list of its files and is checked; of others, all that lies there is taken."""
    uri = spec.base_model.rstrip("/")
    project = "/".join([*spec.dataset.split("/")[:2], ""])
    try:
        key = store.key(uri)
    except InvalidError as error:
        raise InvalidError.of(
            "spec.base_model",
            f"{error.message}, the mesh's own, the only one that models are read from: copy it there",
            reason=error.reason,
        ) from error
    if key.startswith("projects/") and not key.startswith(project):
        raise _not_found(f"{uri} belongs to another project")

    def wanted(path: str) -> bool:
        return not any(PurePath(path).match(pattern) for pattern in unwanted)

    try:
        store.fetch(uri, folder, select=wanted)
    except NotFoundError as error:
        if error.reason != "DIRECTORY_NOT_FOUND":
            raise
        listed = store.list(f"{uri}/", limit=MOST_FILES + 1)
        if len(listed) > MOST_FILES:
            raise InvalidError.of(
                "spec.base_model",
                f"more than {MOST_FILES} files lie below {uri}/, which is more than a model has: give the "
                "prefix of one model alone, the one that its config.json lies right below",
                reason="BASE_MODEL_UNSUITABLE",
            ) from error
        names = [name for each in listed if wanted(name := each.key.removeprefix(f"{key}/"))]
        files = {f"{uri}/{name}": folder / check_key(name) for name in names if not name.endswith("/")}
        if not files:
            raise _not_found(
                f"nothing lies below {uri}/: copy the files of the model's folder there"
            ) from error
        store.fetch_files(files, lambda *_: None)
    return folder


def _not_found(message: str) -> NotFoundError:
    return NotFoundError(f"spec.base_model: {message}", reason="BASE_MODEL_NOT_FOUND")


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
        raise _not_found(f"the hub has no model {name}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"spec.base_model: {name} cannot be fetched from the hub and is not in this node's cache",
            reason="HUB_UNAVAILABLE",
        ) from error
