"""`export_checkpoint`: a checkpoint becomes a package folder.

...                                               the weights, as the format writes them
processor_config.json, tokenizer.json, ...        processor, tokenizer and chat template of the base
README.md                                         model card
golden/                                           inputs, and outputs of the trained model
predict.py, verify.py, runtime.py, decide.py      to use and to check it, without Finemesh
serve.py, server/, Dockerfile, requirements.txt   to serve it
curves/, sbom.cdx.json                            pictures of the training, bill of materials
manifest.json                                     written last: facts, and SHA-256 of every file
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import AlreadyExistsError
from finemesh.core.spec.export import ExportFormat
from finemesh.core.spec.finetune import FineTuneSpec
from finemesh.finetune.base_weights import base_digest
from finemesh.finetune.manifests import file_digest, write_manifest
from finemesh.package.card import base_metadata, model_card
from finemesh.package.contents import furnish
from finemesh.package.curves import Curve
from finemesh.package.formats import suitable_format
from finemesh.package.golden import GOLDEN, golden_split, write_golden
from finemesh.package.golden_pictures import decision_facts, picture_items
from finemesh.package.golden_text import text_items
from finemesh.package.licences import check_derivatives
from finemesh.package.manifest import BaseModel, PackageManifest, load_package_manifest
from finemesh.package.merging import other_base
from finemesh.package.sbom import write_sbom
from finemesh.package.shared import SharedFolders
from finemesh.package.trained import Trained
from finemesh.package.unquantised import base_change

_LIBRARIES: Final = ("torch", "transformers", "peft", "safetensors", "tokenizers", "pillow")


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
    curves: Mapping[str, Curve] | None = None,
    shared: SharedFolders | None = None,
    licence_override: str = "",
    progress: Callable[[float, str], None] = _no_progress,
) -> PackageManifest:
    """Write the package of a checkpoint into `out`, an empty or absent folder.

    The golden outputs are computed as `Trained.on_cpu` says.

    Args:
        spec: of the training job.
        checkpoint: a checkpoint folder of it.
        base_model: local folder of its base model.
        dataset: local folder of its dataset; the golden items come from the test split, or, if the spec names
            none, from the validation or the training split.
        metrics: measured on this checkpoint beside those it carries, e.g. those of the final test.
        out: where the package goes.
        format: one of `FORMATS`.
        lineage: names to carry along, e.g. training job, run, dataset digest.
        golden_items: how many items the package must reproduce.
        curves: of the run's metrics, by name, for the model card; None if the run is not at hand.
        shared: where other exports of the checkpoint find what this one has made, and it what they have.
        licence_override: why the licence of the base model does not stand in the way, as an admin said.
        progress: told the fraction done and what is being done; what it raises ends the export.

    Raises:
        AlreadyExistsError: OUTPUT_NOT_EMPTY.
        InvalidError: ADAPTER_OF_OTHER_BASE; what `suitable_format` and `load_model` raise.
        NotFoundError, PreconditionError: CHECKPOINT_NOT_FOUND, CHECKPOINT_CORRUPT, SPLIT_EMPTY,
            LICENCE_FORBIDS_DERIVATIVES, BASE_MODEL_CORRUPT.
        ResourceExhaustedError: DISK_FULL. Whatever is raised, no half package is left.
    """
    if out.exists() and any(out.iterdir()):
        raise AlreadyExistsError(f"{out} is not empty: give a new folder", reason="OUTPUT_NOT_EMPTY")
    check_derivatives(base_metadata(base_model).get("license", ""), licence_override)
    with ExitStack() as made:
        scratch = made.enter_context(tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=_existing(out)))
        trained = Trained(spec, checkpoint, base_model, dataset, Path(scratch), shared)
        form = suitable_format(format, trained)
        progress(0.0, "reading the checkpoint")
        step = trained.state.step
        _check_base(trained)
        made.enter_context(_whole_or_nothing(out))
        facts = {} if trained.speaks else decision_facts(trained)
        progress(0.2, "running the golden items")
        split = golden_split(trained)
        items_of = text_items if trained.speaks else picture_items
        items = write_golden(trained, items_of, split, golden_items, out / GOLDEN)
        change = base_change(trained, split, out / GOLDEN)
        progress(0.6, f"writing {format.value} weights")
        form.write(trained, out)
        trained.model.processor.save_pretrained(out)
        record = furnish(trained, form, out, curves)
        manifest = PackageManifest(
            format=format,
            auto_class=trained.family.auto_class,
            step=step,
            base_model=_base_model(spec, base_model),
            spec=spec.to_dict(),
            lineage=lineage,
            metrics={**trained.state.metrics, **(metrics or {}), **change},
            golden_items=items,
            golden_split=split,
            versions={name: importlib.metadata.version(name) for name in _LIBRARIES}
            | form.runtime.versions(),
            runtime=form.runtime.name,
            decisions=facts,
            tolerance=asdict(form.tolerance),
            about=form.about,
            record=record,
        )
        write_sbom(out, manifest)
        (out / "README.md").write_text(model_card(manifest, None), encoding="utf-8")
        _let_others_read(out)
        progress(0.9, "writing the manifest")
        write_manifest(out, manifest.facts())
    progress(1.0, "exported")
    return load_package_manifest(out)


@contextmanager
def _whole_or_nothing(folder: Path) -> Generator[None]:
    """Leave nothing in a folder that could not be filled."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _let_others_read(folder: Path) -> None:
    """The image of a package runs as somebody else, and safetensors writes files for their owner alone."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(path.stat().st_mode | 0o044)


def _existing(folder: Path) -> Path:
    """The nearest folder above that is there."""
    return next(parent for parent in folder.resolve().parents if parent.is_dir())


def _check_base(trained: Trained) -> None:
    """Raises InvalidError, ADAPTER_OF_OTHER_BASE: the base has other weights than when training began. Old
    checkpoints do not say what it had.
    """
    before, now = trained.state.base, base_digest(trained.base_model)
    if before and now and before != now:
        raise other_base(trained.base_model, "its weights have changed since")


def _base_model(spec: FineTuneSpec, base_model: Path) -> BaseModel:
    files = [base_model / "config.json", *sorted(base_model.glob("*.safetensors"))]
    stated = base_metadata(base_model)
    return BaseModel(
        name=spec.base_model,
        revision=spec.base_model_revision,
        files={path.name: file_digest(path) for path in files},
        licence=stated.pop("license", "unknown"),
        licence_details=stated,
    )
