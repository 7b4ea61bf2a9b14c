"""A finished fine-tune, as the writers of formats find it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from finemesh.core.spec.finetune import (
    TEXT_TOWERS,
    FineTuneSpec,
    Lora,
    Objective,
    OverLength,
    Precision,
    Quantization,
    Resources,
)
from finemesh.finetune.checkpoint import TrainState, load_weights, read_state, verify_checkpoint
from finemesh.finetune.families import family_of
from finemesh.finetune.families.family import Family
from finemesh.finetune.heads import classes_of
from finemesh.finetune.models import Model, load_model
from finemesh.package.merging import SHARD_BYTES, NotStreamable, stream_merge
from finemesh.package.shared import SharedFolders


@dataclass(frozen=True)
class Trained:
    """What a package is made of. Nothing is loaded before it is asked for, and then once.

    Attributes:
        spec: of the training job.
        checkpoint: a checkpoint folder of it.
        base_model: local folder of its base model.
        dataset: local folder of its dataset.
        scratch: takes what formats share, on the file system of the packages; the caller removes it.
        shared: where other exports of the same checkpoint find what this one has made; None for nowhere.
        as_trained: whether the base is quantised as training had it; then nothing is merged.
    """

    spec: FineTuneSpec
    checkpoint: Path
    base_model: Path
    dataset: Path
    scratch: Path
    shared: SharedFolders | None = None
    as_trained: bool = False

    @cached_property
    def family(self) -> Family:
        return family_of(self.base_model, self.spec.task)

    @cached_property
    def state(self) -> TrainState:
        """Of the checkpoint, whose files are all intact. Raises what `read_state` raises."""
        return read_state(self.checkpoint)

    @cached_property
    def classes(self) -> Sequence[str]:
        """What the model tells apart; empty for those that speak."""
        return () if self.speaks else classes_of(self.spec, self.dataset)

    @property
    def speaks(self) -> bool:
        """Whether it answers in words: of language, or of vision and language."""
        return self.spec.task in TEXT_TOWERS

    @property
    def plain(self) -> bool:
        """Whether it goes on with texts, as it was trained, and knows no turns of a conversation."""
        return self.spec.objective is Objective.TEXT

    @cached_property
    def on_cpu(self) -> FineTuneSpec:
        """The spec, to be computed on the CPU in fp32, so that a difference found later is one of the package
        and not of rounding. An adapter that was trained on a quantised base goes onto the unquantised one,
        unless it is wanted `as_trained`.
        """
        spec = replace(
            self.spec,
            precision=Precision.FP32,
            resources=Resources(),
            sequence=replace(self.spec.sequence, over_length=OverLength.DROP),
        )
        if isinstance(spec.method, Lora) and not self.as_trained:
            spec = replace(spec, method=replace(spec.method, quantization=Quantization.NONE))
        return spec

    @cached_property
    def model(self) -> Model:
        """The trained model with its training-time processor, set to evaluation."""
        return self._load()

    def _load(self) -> Model:
        model = load_model(self.on_cpu, self.base_model, tuple(self.classes))
        load_weights(self.checkpoint, model)
        model.module.eval()
        return model

    @cached_property
    def merged(self) -> Path:
        """A folder with the whole model in fp32, as transformers loads it: safetensors and configs, without
        processor. Made at the first asking; every format that starts from it shares it.
        """
        folder = self.scratch / "merged"
        if self.shared is None:
            self.merge_into(folder, torch.float32)
        else:
            self.shared.fill(folder, "merged", lambda made: self.merge_into(made, torch.float32))
        return folder

    def merge_into(self, folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
        """Write the whole model into a folder, in another precision. Raises what `stream_merge` raises."""
        verify_checkpoint(self.checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        classes = tuple(self.classes)
        try:
            stream_merge(
                self.spec, self.family, self.base_model, self.checkpoint, classes, folder, dtype, shard_bytes
            )
        except NotStreamable:
            module: Any = self._load().module
            with torch.inference_mode():
                whole = module.merge_and_unload() if hasattr(module, "merge_and_unload") else module
            whole.to(dtype).save_pretrained(folder, max_shard_size=shard_bytes)
