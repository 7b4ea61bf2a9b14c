"""Checkpoints: folders that are whole or absent, checked by SHA-256, without pickles.

    step-00000050/
        adapter/adapter_model.safetensors    LoRA in peft's layout, with adapter_config.json; or
        weights/trainable.safetensors        the trained parameters of full tuning, by name, and
                                             the statistics of batch norms
        optimizer.safetensors                the optimiser's state, `<moment>/<parameter>`
        random.safetensors                   states of the random generators
        state.json                           `TrainState`
        manifest.json                        written last: size and SHA-256 of every file above

A folder is filled under another name and renamed when its files are on disk, so no half checkpoint has a
name. What is written is a `Snapshot`, a copy in the memory of the host, so that training can go on meanwhile.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from finemesh.core.errors import (
    FinemeshError,
    NotFoundError,
    PreconditionError,
    ResourceExhaustedError,
    UnavailableError,
)
from finemesh.core.spec.finetune import Lora
from finemesh.finetune.distributed import ALONE, Group, SharedTensors
from finemesh.finetune.hooks import Certificate, CheckpointInfo
from finemesh.finetune.manifests import (
    MANIFEST,
    file_digest,
    read_manifest,
    sync,
    write_manifest,
    wrong_files,
)
from finemesh.finetune.models import ADAPTER_NAME, Model
from finemesh.finetune.optimizer import optimizer_tensors, restore_optimizer
from finemesh.finetune.order import EMPTY_HASH
from finemesh.finetune.sharding import give_up, placed, whole

ADAPTER_WEIGHTS: Final = "adapter/adapter_model.safetensors"
FULL_WEIGHTS: Final = "weights/trainable.safetensors"
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(slots=True)
class TrainState:
    """Where a run stands after `step` optimiser steps; what the next step needs beside weights and moments.

    Attributes:
        position: samples consumed, over all epochs.
        sample_hash, loss_digest: see `Certificate`.
        best_step, best_value: the best checkpoint so far, and the validation metric that says so.
        rated_step: the last step whose checkpoint was compared with the best.
        metrics: the last value of every metric.
        judged_step: the last step after which the evaluation was compared with the best before.
        judged_best: that best value; evaluations_in_vain: how many came after it that were no better.
        scaler: state of the loss scaler of FP16; empty for other precisions.
        skipped_steps, skipped_in_a_row: steps whose numbers overflowed, so that no weight moved.
        recipe: digest of the parts of the spec that decide what is computed.
        data: digest of the ids of the training rows.
        base: digest of the base model's weights, see `base_digest`; empty if it is not known.
    """

    step: int = 0
    position: int = 0
    sample_hash: str = EMPTY_HASH
    loss_digest: str = EMPTY_HASH
    best_step: int | None = None
    best_value: float | None = None
    rated_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    judged_step: int = 0
    judged_best: float | None = None
    evaluations_in_vain: int = 0
    scaler: dict[str, float] = field(default_factory=dict[str, float])
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    recipe: str = ""
    data: str = ""
    base: str = ""

    @property
    def certificate(self) -> Certificate:
        return Certificate(self.step, self.sample_hash, self.loss_digest)


def checkpoint_folder(root: Path, step: int) -> Path:
    return root / f"step-{step:08d}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A training state as it was, whatever becomes of the model: tensors by the file they belong in."""

    files: dict[str, dict[str, torch.Tensor]]
    adapter_config: Any
    state: TrainState


class Camera:
    """Takes snapshots into the same memory every time: a new one overwrites the one before."""

    def __init__(self) -> None:
        self._memory: dict[tuple[str, str], torch.Tensor] = {}

    def snapshot(self, model: Model, optimizer: torch.optim.Optimizer, state: TrainState) -> Snapshot:
        """Copy what a checkpoint holds to the host."""
        weights = _weights(model)
        files = {
            _weights_file(model): weights,
            "optimizer.safetensors": optimizer_tensors(optimizer, model.trainable),
            "random.safetensors": _random_states(model.device),
        }
        copied = {
            file: {name: self._copy(file, name, tensor) for name, tensor in tensors.items()}
            for file, tensors in files.items()
        }
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        config = model.module.peft_config[ADAPTER_NAME] if isinstance(model.spec.method, Lora) else None
        return Snapshot(copied, config, replace(state, metrics=dict(state.metrics)))

    @staticmethod
    def assist(model: Model, optimizer: torch.optim.Optimizer) -> None:
        """What the other ranks do while rank 0 takes a snapshot: they bring their shards, in its order."""
        for tensors in (_weights(model), optimizer_tensors(optimizer, model.trainable)):
            for tensor in tensors.values():
                whole(tensor)

    def _copy(self, file: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = whole(tensor)
        kept = self._memory.get((file, name))
        if kept is None or (kept.shape, kept.dtype) != (tensor.shape, tensor.dtype):
            kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._memory[file, name] = kept
        return kept.copy_(tensor.detach(), non_blocking=True)


def write_checkpoint(root: Path, snapshot: Snapshot) -> CheckpointInfo:
    """Write a checkpoint under `root`, replacing one of the same step.

    Raises:
        ResourceExhaustedError: DISK_FULL.
        UnavailableError: CHECKPOINT_NOT_WRITTEN. Either way nothing of it is left, and the others are intact.
    """
    state = snapshot.state
    final = checkpoint_folder(root, state.step)
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _fill(partial, snapshot)
        digest = write_manifest(partial, {"step": state.step, "certificate": asdict(state.certificate)})
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _not_written(final, error) from error
    return _info(final, state, digest)


def _fill(folder: Path, snapshot: Snapshot) -> None:
    for name, tensors in snapshot.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / name, {"format": "pt"})
    if snapshot.adapter_config:
        snapshot.adapter_config.save_pretrained(folder / "adapter")
    state = json.dumps(asdict(snapshot.state), indent=1)
    (folder / "state.json").write_text(state, encoding="utf-8")


def checkpoint_info(checkpoint: Path, state: TrainState, group: Group = ALONE) -> CheckpointInfo:
    """What rank 0 said of a checkpoint when it was written; the others do not know the manifest's digest."""
    digest = file_digest(checkpoint / MANIFEST) if group.leads else ""
    return _info(checkpoint, state, digest)


def _info(folder: Path, state: TrainState, digest: str) -> CheckpointInfo:
    best = state.best_step == state.step
    return CheckpointInfo(folder, state.step, dict(state.metrics), digest, state.certificate, best)


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 in hex of the file with the trained weights, as the manifest of a checkpoint says it."""
    files = {each["path"]: each["sha256"] for each in read_manifest(checkpoint)["files"]}
    return files.get(ADAPTER_WEIGHTS) or files[FULL_WEIGHTS]


def read_state(checkpoint: Path, group: Group = ALONE) -> TrainState:
    """The state of a checkpoint whose files are all intact; rank 0 reads it for every rank.

    Raises:
        NotFoundError: CHECKPOINT_NOT_FOUND.
        PreconditionError: CHECKPOINT_CORRUPT.
    """
    if group.leads:
        verify_checkpoint(checkpoint)
    try:
        text = (checkpoint / "state.json").read_text("utf-8") if group.leads else ""
        return TrainState(**json.loads(group.tell(text)))
    except (OSError, ValueError, TypeError) as error:
        raise _corrupt(checkpoint, f"state.json does not read: {error}") from error


def verify_checkpoint(checkpoint: Path, manifest_digest: str = "") -> None:
    """Check every file of a checkpoint against its manifest, and that against its digest if it is known.

    Raises what `read_state` raises.
    """
    try:
        manifest = read_manifest(checkpoint)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{checkpoint} has no {MANIFEST}: it is not a finished checkpoint", reason="CHECKPOINT_NOT_FOUND"
        ) from error
    except ValueError as error:
        raise _corrupt(checkpoint, str(error), MANIFEST) from error
    if manifest_digest and file_digest(checkpoint / MANIFEST) != manifest_digest:
        raise _corrupt(checkpoint, f"{MANIFEST} is not the one that was committed", MANIFEST)
    for name, what in wrong_files(checkpoint, manifest):
        raise _corrupt(checkpoint, f"{name} {what}", name)


def load_weights(checkpoint: Path, model: Model, group: Group = ALONE) -> None:
    """Put the weights of a checkpoint that rank 0 has verified into `model`, on every rank of `group`.

    Raises PreconditionError: CHECKPOINT_CORRUPT.
    """
    weights = _weights(model)
    try:
        tensors = SharedTensors(checkpoint / _weights_file(model), group)
        unknown = sorted(weights.keys() ^ tensors.keys())
        give_up(model.module)
        with torch.no_grad():
            for name in () if unknown else tensors:
                weights[name].copy_(placed(tensors[name], weights[name]))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _corrupt(checkpoint, f"its weights do not load: {error}") from error
    if unknown:
        raise _corrupt(checkpoint, f"its weights are of another model: {', '.join(unknown[:3])}")


def load_progress(
    checkpoint: Path, model: Model, optimizer: torch.optim.Optimizer, group: Group = ALONE
) -> None:
    """Put moments and random states back, as `load_weights` does. Raises PreconditionError:
    CHECKPOINT_CORRUPT.
    """
    try:
        moments = SharedTensors(checkpoint / "optimizer.safetensors", group)
        restore_optimizer(optimizer, model.trainable, moments)
        random = SharedTensors(checkpoint / "random.safetensors", group)
        torch.set_rng_state(random["cpu"])
        if model.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], model.device)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise _corrupt(checkpoint, f"its training state does not load: {error}") from error


def list_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders under `root`, oldest first. Unfinished folders are not listed."""
    found = [(int(path.name[5:]), path) for path in root.glob("step-*") if (path / MANIFEST).is_file()]
    return sorted(found)


def newest_intact(root: Path, warn: Callable[[str], object]) -> Path | None:
    """The last checkpoint under `root` whose files are as its manifest says; None if there is none at all.

    Args:
        root: where they lie.
        warn: told of each that is passed over.

    Raises:
        PreconditionError: CHECKPOINT_CORRUPT, there are some and none is intact.
    """
    broken: FinemeshError | None = None
    for _, path in reversed(list_checkpoints(root)):
        try:
            verify_checkpoint(path)
        except PreconditionError as error:
            warn(f"passed over: {error}")
            broken = error
        else:
            return path
    if broken:
        raise broken
    return None


def discard(root: Path, keep: Iterable[int]) -> None:
    """Remove the checkpoints under `root` of any step not in `keep`, and unfinished ones."""
    kept = set(keep)
    for step, path in list_checkpoints(root):
        if step not in kept:
            shutil.rmtree(path)
    for partial in root.glob(".step-*.partial"):
        shutil.rmtree(partial)


def _weights_file(model: Model) -> str:
    return ADAPTER_WEIGHTS if isinstance(model.spec.method, Lora) else FULL_WEIGHTS


def _weights(model: Model) -> dict[str, torch.Tensor]:
    if isinstance(model.spec.method, Lora):
        from peft import get_peft_model_state_dict

        return get_peft_model_state_dict(model.module, adapter_name=ADAPTER_NAME, save_embedding_layers=False)
    return model.trainable | model.statistics


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _corrupt(folder: Path, what: str, file: str = "") -> PreconditionError:
    return PreconditionError(
        f"checkpoint {folder} is corrupt: {what}; resume from an earlier one",
        reason="CHECKPOINT_CORRUPT",
        metadata={"checkpoint": folder.name, "file": file},
    )


def _not_written(folder: Path, error: OSError | SafetensorError) -> FinemeshError:
    number = error.errno if isinstance(error, OSError) else _os_error(str(error))
    what = (
        f"checkpoint {folder.name} could not be written to {folder.parent}: {error}; any before it are intact"
    )
    if number in _NO_ROOM:
        message = f"{what}: free some room, or keep fewer with spec.checkpoint.keep_last, and resume"
        return ResourceExhaustedError(message, reason="DISK_FULL")
    return UnavailableError(f"{what}: mend the disk, and resume", reason="CHECKPOINT_NOT_WRITTEN")


def _os_error(text: str) -> int | None:
    """The number of the operating system's error in a message of safetensors, which is written in Rust."""
    found = re.search(r"\(os error (\d+)\)", text)
    return int(found[1]) if found else None
