"""`export_checkpoint`: a checkpoint becomes a package folder.

adapter_model.safetensors, adapter_config.json    ADAPTER: the LoRA in peft's layout; or
model.safetensors, config.json, ...               MERGED: the whole model
processor_config.json, tokenizer.json, ...        processor, tokenizer and chat template of the base
README.md                                         model card
golden/                                           inputs, and outputs of the trained model
predict.py, verify.py                             to use and to check it, without Finemesh
manifest.json                                     written last: facts, and SHA-256 of every file
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch

from finemesh.core.errors import AlreadyExistsError, InvalidError
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import (
    TEXT_TOWERS,
    FineTuneSpec,
    Full,
    Lora,
    OverLength,
    Precision,
    Quantization,
    Resources,
)
from finemesh.finetune.checkpoint import load_weights, read_state
from finemesh.finetune.encoding import Encoder
from finemesh.finetune.manifests import file_digest, write_manifest
from finemesh.finetune.models import Model, load_model
from finemesh.package.card import licence_of, model_card
from finemesh.package.golden import write_golden
from finemesh.package.manifest import BaseModel, PackageManifest, load_package_manifest

SHIPPED: Final = Path(__file__).parent / "shipped"
_LIBRARIES: Final = ("torch", "transformers", "peft", "safetensors", "tokenizers", "pillow")
_MAX_SHARD_SIZE: Final = "4GB"


def _no_progress(_fraction: float, _message: str) -> None: ...


def export_checkpoint(
    *,
    spec: FineTuneSpec,
    checkpoint: Path,
    base_model: Path,
    dataset: Path,
    out: Path,
    format: ExportFormat,  # noqa: A002
    lineage: dict[str, Any],
    metrics: Mapping[str, float] | None = None,
    golden_items: int = 16,
    progress: Callable[[float, str], None] = _no_progress,
) -> PackageManifest:
    """Write the package of a checkpoint into `out`, an empty or absent folder.

    Everything is computed on the CPU in fp32, the golden outputs included, so that a difference found later
    is one of the package and not of rounding. An adapter that was trained on a quantised base goes onto the
    unquantised one.

    Args:
        spec: of the training job.
        checkpoint: a checkpoint folder of it.
        base_model: local folder of its base model.
        dataset: local folder of its dataset; the golden items come from the test split, or, if the spec names
            none, from the validation or the training split.
        metrics: measured on this checkpoint beside those it carries, e.g. those of the final test.
        out: where the package goes.
        format: ADAPTER or MERGED.
        lineage: names to carry along, e.g. training job, run, dataset digest.
        golden_items: how many items the package must reproduce.
        progress: told the fraction done and what is being done.

    Raises:
        AlreadyExistsError: OUTPUT_NOT_EMPTY.
        InvalidError: FORMAT_UNSUITABLE, an adapter of a full fine-tune, or a model that speaks no language;
            what `load_model` raises.
        NotFoundError, PreconditionError: CHECKPOINT_NOT_FOUND, CHECKPOINT_CORRUPT, SPLIT_EMPTY.
    """
    if format is ExportFormat.ADAPTER and isinstance(spec.method, Full):
        raise InvalidError.of(
            "spec.formats", "a full fine-tune has no adapter: export it as MERGED", reason="FORMAT_UNSUITABLE"
        )
    if spec.task not in TEXT_TOWERS:
        raise InvalidError.of(
            "spec.training_job",
            f"packages hold models of language, not of {spec.task}: take the weights of a checkpoint",
            reason="FORMAT_UNSUITABLE",
        )
    if out.exists() and any(out.iterdir()):
        raise AlreadyExistsError(f"{out} is not empty: give a new folder", reason="OUTPUT_NOT_EMPTY")
    progress(0.0, "reading the checkpoint")
    state = read_state(checkpoint)
    on_cpu = replace(
        spec,
        precision=Precision.FP32,
        resources=Resources(),
        sequence=replace(spec.sequence, over_length=OverLength.DROP),
    )
    if isinstance(spec.method, Lora):
        on_cpu = replace(on_cpu, method=replace(spec.method, quantization=Quantization.NONE))
    model = load_model(on_cpu, base_model)
    load_weights(checkpoint, model)
    model.module.eval()
    out.mkdir(parents=True, exist_ok=True)
    progress(0.2, "running the golden items")
    split = spec.test_split or spec.validation_split or spec.train_split
    if not spec.test_split and spec.evaluation.holdout_fraction:  # then there may be no such split
        split = spec.train_split
    encoder = Encoder(model.family, model.processor, model.config, on_cpu.sequence)
    items = write_golden(model, encoder, dataset, split, golden_items, out / "golden")
    progress(0.6, f"writing {format.value.lower()} weights")
    _write_weights(model, checkpoint, out, format)
    model.processor.save_pretrained(out)
    for name in ("predict.py", "verify.py"):
        shutil.copyfile(SHIPPED / name, out / name)
    manifest = PackageManifest(
        format=format,
        auto_class=model.family.auto_class,
        step=state.step,
        base_model=_base_model(spec, base_model),
        spec=spec.to_dict(),
        lineage=lineage,
        metrics={**state.metrics, **(metrics or {})},
        golden_items=items,
        golden_split=split,
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )
    (out / "README.md").write_text(model_card(manifest, None), encoding="utf-8")
    progress(0.9, "writing the manifest")
    write_manifest(out, manifest.facts())
    progress(1.0, "exported")
    return load_package_manifest(out)


def _write_weights(model: Model, checkpoint: Path, out: Path, export_format: ExportFormat) -> None:
    if export_format is ExportFormat.ADAPTER:
        for path in (checkpoint / "adapter").iterdir():
            shutil.copyfile(path, out / path.name)
        return
    with torch.inference_mode():
        whole = model.module.merge_and_unload() if hasattr(model.module, "merge_and_unload") else model.module
    whole.save_pretrained(out, max_shard_size=_MAX_SHARD_SIZE)


def _base_model(spec: FineTuneSpec, base_model: Path) -> BaseModel:
    files = [base_model / "config.json", *sorted(base_model.glob("*.safetensors"))]
    return BaseModel(
        name=spec.base_model,
        revision=spec.base_model_revision,
        files={path.name: file_digest(path) for path in files},
        licence=licence_of(base_model),
    )
