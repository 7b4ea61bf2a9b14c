"""The model card of a package: facts that are on record, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from finemesh.core.spec import codec
from finemesh.core.spec.export import ExportFormat
from finemesh.package.manifest import PackageManifest, ParityReport

_LICENCE_LINE = re.compile(r"^licen[sc]e:\s*(\S.*?)\s*$", re.MULTILINE)


def licence_of(base_model: Path) -> str:
    """The licence that the base's model card states in its metadata, or "unknown"."""
    try:
        card = (base_model / "README.md").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    if not card.startswith("---"):
        return "unknown"
    found = _LICENCE_LINE.search(card.split("---", 2)[1])
    return found[1] if found else "unknown"


def model_card(manifest: PackageManifest, report: ParityReport | None) -> str:
    """README.md in the form of the Hugging Face hub (https://huggingface.co/docs/hub/model-cards)."""
    base = manifest.base_model
    library = "peft" if manifest.format is ExportFormat.ADAPTER else "transformers"
    metadata = ["---", f"library_name: {library}", f"license: {base.licence}"]
    if not base.name.startswith(("s3://", "/", ".")):
        metadata.append(f"base_model: {base.name}")
    metadata += ["tags:", "- finemesh", "---"]
    sections = [
        "\n".join(metadata),
        "# Fine-tuned model",
        _about(manifest),
        _use(manifest),
        "## Metrics",
        _table(
            ("metric", "value"), [(name, f"{value:.4g}") for name, value in sorted(manifest.metrics.items())]
        ),
        _parity(manifest, report),
        "## Training",
        _table(
            ("setting", "value"), [(name, str(value)) for name, value in codec.flatten(manifest.spec).items()]
        ),
        "## Lineage",
        _table(
            ("what", "value"), [(name, str(value)) for name, value in codec.flatten(manifest.lineage).items()]
        ),
        _table(("library", "version"), sorted(manifest.versions.items())),
    ]
    return "\n\n".join(sections) + "\n"


def _about(manifest: PackageManifest) -> str:
    base = manifest.base_model
    what = (
        "a LoRA adapter, to be put on its base model"
        if manifest.format is ExportFormat.ADAPTER
        else "a whole model, the fine-tune merged into its base"
    )
    revision = f" at revision `{base.revision}`" if base.revision else ""
    return (
        f"This is {what}. Base: `{base.name}`{revision}. Licence of the base: {base.licence}. Dataset: "
        f"`{manifest.spec['dataset']}`. Checkpoint: step {manifest.step}."
    )


def _use(manifest: PackageManifest) -> str:
    base = " --base BASE_MODEL" if manifest.format is ExportFormat.ADAPTER else ""
    image = " --image picture.jpg" if manifest.spec["task"] == "VISION_LANGUAGE" else ""
    return (
        "## Use\n\n```\n"
        f'python predict.py "a question"{image}{base}    # ask it\n'
        f"python verify.py{base}    # check files and behaviour\n```"
    )


def _parity(manifest: PackageManifest, report: ParityReport | None) -> str:
    about = (
        f"{manifest.golden_items} items of the split `{manifest.golden_split}` are in `golden/` with what "
        "the trained model made of them, computed in fp32."
    )
    if report is None:
        return f"## Parity\n\n{about} This package has not been checked against them yet."
    rows = [
        (f"{each.kind}: {each.what}", f"{each.value:.4g}", each.bound, "yes" if each.passed else "**no**")
        for each in report.checks
    ]
    runtime = ", ".join(f"{name} {version}" for name, version in report.runtime.items())
    verdict = "It is within tolerance." if report.passed else "**It is not within tolerance.**"
    return (
        f"## Parity\n\n{about} A fresh process loaded this package and replayed them ({runtime}). "
        f"{verdict}\n\n" + _table(("check", "result", "limit", "passed"), rows)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(_cell(str(each)) for each in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
