"""The model card of a package: facts that are on record, nothing else.

In the form of the Hugging Face hub (https://huggingface.co/docs/hub/model-cards): metadata that its library
writes, then words and tables for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from huggingface_hub import EvalResult, ModelCardData

from finemesh.core.spec import codec
from finemesh.core.spec.export import ExportFormat
from finemesh.package.manifest import PackageManifest, ParityReport
from finemesh.package.unquantised import UNQUANTISED, said_of

_PIPELINES: Final = {
    "LANGUAGE": "text-generation",
    "VISION_LANGUAGE": "image-text-to-text",
    "DETECTION": "object-detection",
    "IMAGE_CLASSIFICATION": "image-classification",
    "SEMANTIC_SEGMENTATION": "image-segmentation",
    "INSTANCE_SEGMENTATION": "image-segmentation",
}
_HUB_NAME: Final = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_MOST_CLASSES: Final = 50
# Carbon of electricity, g/kWh: the world's average of 2024 (Ember, Global Electricity Review 2025).
_CARBON_G_PER_KWH: Final = 473


def base_metadata(base_model: Path) -> dict[str, str]:
    """What the metadata of a base's model card says of its licence: `license`, `license_name`,
    `license_link`, as far as they are there.
    """
    try:
        card = (base_model / "README.md").read_text(encoding="utf-8")
        head = yaml.safe_load(card.split("---", 2)[1]) if card.startswith("---") else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    stated: dict[Any, Any] = head if isinstance(head, dict) else {}
    found = {name: stated.get(name) for name in ("license", "license_name", "license_link")}
    return {name: value for name, value in found.items() if isinstance(value, str) and value.strip()}


def model_card(manifest: PackageManifest, report: ParityReport | None) -> str:
    """README.md of a package.

    Args:
        manifest: of the package.
        report: of its gate; None before it was checked.
    """
    sections = [
        f"---\n{_metadata(manifest).to_yaml()}\n---",
        f"# {_title(manifest)}",
        _drift(report),
        _about(manifest),
        _use(manifest),
        _metrics(manifest),
        _parity(manifest, report),
        _data(manifest),
        _training(manifest),
        _limits(manifest),
        _environment(manifest),
        "## Lineage",
        _table(("what", "value"), codec.flatten(manifest.lineage).items()),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _title(manifest: PackageManifest) -> str:
    job = str(manifest.lineage.get("training_job", "")).rpartition("/")[2]
    return job or "Fine-tuned model"


def _metadata(manifest: PackageManifest) -> ModelCardData:
    base, task = manifest.base_model, str(manifest.spec["task"])
    pipeline = _PIPELINES[task]
    dataset = str(manifest.spec["dataset"])
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type=dataset.rpartition("/")[2],
            dataset_name=dataset,
            dataset_split="test",
            metric_type=name.removeprefix("test/"),
            metric_value=round(value, 6),
        )
        for name, value in _tested(manifest)
    ]
    relation = "quantized"
    if manifest.format is ExportFormat.ADAPTER:
        relation = "adapter"
    elif manifest.format.value.startswith("MERGED"):
        relation = "finetune"
    of_hub = _HUB_NAME.fullmatch(base.name)
    named: dict[str, Any] = {"base_model": base.name, "base_model_relation": relation} if of_hub else {}
    details: dict[str, Any] = dict(base.licence_details)
    return ModelCardData(
        model_name=_title(manifest) if results else None,
        library_name="peft" if manifest.format is ExportFormat.ADAPTER else manifest.runtime,
        pipeline_tag=pipeline,
        license=base.licence,
        tags=["finemesh"],
        eval_results=results or None,
        **named,
        **details,
    )


def _tested(manifest: PackageManifest) -> list[tuple[str, float]]:
    """The figures of the trained model in the final test: no bounds, baselines or counts."""
    aside = ("_low", "_high", "/items")
    others = ("untrained_", "majority_", "constant_", "blanked_")
    return [
        (name, value)
        for name, value in sorted(manifest.metrics.items())
        if name.startswith("test/")
        and not name.endswith(aside)
        and not name.removeprefix("test/").startswith(others)
    ]


def _drift(report: ParityReport | None) -> str:
    """What stands first where a package is released though it differs."""
    if report is None or report.passed:
        return ""
    reasons = "; ".join(report.reasons)
    return (
        f"> **This package does not behave like the trained model:** {reasons}. It was released on request."
    )


def _about(manifest: PackageManifest) -> str:
    base = manifest.base_model
    revision = f" at revision `{base.revision}`" if base.revision else ""
    licence = base.licence_details.get("license_name", base.licence)
    link = base.licence_details.get("license_link", "")
    return (
        f"This is {manifest.about}, of the task {manifest.spec['task']}. Base: `{base.name}`{revision}. "
        f"Licence of the base: {licence}{f' ({link})' if link else ''}. "
        f"Dataset: `{manifest.spec['dataset']}`. Checkpoint: step {manifest.step}."
    )


def _use(manifest: PackageManifest) -> str:
    task = manifest.spec["task"]
    base = " --base BASE_MODEL" if manifest.format is ExportFormat.ADAPTER else ""
    asked = {"LANGUAGE": ' "a question"', "VISION_LANGUAGE": ' "a question" --image picture.jpg'}
    what = asked.get(task, " --image picture.jpg")
    said = '{"messages": [{"role": "user", "content": "a question"}]}'
    call = f"/v1/chat/completions --json '{said}'"
    if task not in asked:
        path = "/detect" if task == "DETECTION" else "/segment"
        path = "/classify" if task == "IMAGE_CLASSIFICATION" else path
        call = f"{path} --form file=@picture.jpg"
    return (
        "## Use\n\n```sh\n"
        "pip install -r requirements.txt\n"
        f"python serve.py{base}\n"
        f"curl http://127.0.0.1:8000{call}\n"
        f"python predict.py{what}{base}\n"
        f"python verify.py{base}  # files and behaviour\n```\n\n"
        "`Dockerfile` makes the same server an image. `sbom.cdx.json` lists what it is made of."
    )


def _metrics(manifest: PackageManifest) -> str:
    metrics = manifest.metrics
    if not metrics:
        return "## Metrics\n\nNone were measured on this checkpoint."
    rows: list[tuple[str, str, str]] = []
    for name, value in sorted(metrics.items(), key=lambda each: (not each[0].startswith("test/"), each[0])):
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in metrics:
            continue
        if name.startswith(UNQUANTISED):
            continue  # said in words under the limits
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
        rows.append((name, f"{value:.4g}", interval))
    return "## Metrics\n\n" + _table(("metric", "value", "95% interval"), rows)


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


def _data(manifest: PackageManifest) -> str:
    data = manifest.record.get("data")
    if not data:
        return ""
    splits = ", ".join(f"{count} in `{name or 'no split'}`" for name, count in data["splits"].items())
    said = [f"## Data\n\n{data['rows']} rows: {splits}."]
    if data["leakage"]:
        said.append(f"Rows of validation and test that are in training too: {data['leakage']['score']:.2%}.")
    said += [_sentence(each) for each in data["warnings"]]
    ledger = data["ledger"]
    sums = [(name, ledger[name]) for name in ("inputs", "kept", "quarantined", "dropped")]
    reasons = [(f"lost for {reason}", count) for reason, count in sorted(ledger["by_reason"].items())]
    parts = [" ".join(said), _table(("ledger", "inputs"), [*sums, *reasons])]
    for head, counts in (("class of objects", data["classes"]), ("class of rows", data["row_classes"])):
        if counts:
            shown = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
            more = [("others", sum(count for _, count in shown[_MOST_CLASSES:]))]
            rows = [*shown[:_MOST_CLASSES], *(more if len(shown) > _MOST_CLASSES else [])]
            parts.append(_table((head, "count"), rows))
    return "\n\n".join(parts)


def _training(manifest: PackageManifest) -> str:
    pictures = "\n".join(f"![{_alt(path)}]({path})" for path in manifest.record.get("curves") or ())
    settings = _table(("setting", "value"), codec.flatten(manifest.spec).items())
    return "\n\n".join(each for each in ("## Training", pictures, settings) if each)


def _alt(path: str) -> str:
    return f"{path.rpartition('/')[2].removesuffix('.png')} over optimiser steps"


def _limits(manifest: PackageManifest) -> str:
    compared = f"compared with the trained model on {manifest.golden_items} items of it"
    said = [
        f"It was fine-tuned on one dataset and {compared}: nothing is known of other inputs.",
        "What the base model does wrong, it may do wrong too.",
    ]
    if manifest.record.get("curves") is None:
        said.append("Its run was not at hand when this was made: its curves and its test are missing here.")
    elif not _tested(manifest):
        said.append("It was not tested on a split that was kept apart.")
    if manifest.spec["task"] == "VISION_LANGUAGE":
        said.append("It was checked with at most one picture in a conversation.")
    if manifest.format is ExportFormat.ADAPTER:
        said.append("It runs on exactly the base model whose SHA-256 `manifest.json` has.")
    said += said_of(manifest.metrics)
    said += [_sentence(each) for each in manifest.record.get("quirks", ())]
    return "## Limits\n\n" + "\n".join(f"- {each}" for each in said)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."


def _environment(manifest: PackageManifest) -> str:
    parts = ["## Environment", _table(("library", "version"), sorted(manifest.versions.items()))]
    joules = manifest.record.get("energy_joules")
    if joules is not None:
        kwh = joules / 3.6e6
        parts.append(
            f"The GPUs of the training used {kwh:.3g} kWh, as measured: about "
            f"{kwh * _CARBON_G_PER_KWH / 1000:.2g} kg of CO2 at the {_CARBON_G_PER_KWH} g/kWh that "
            "electricity caused on average worldwide in 2024."
        )
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(_cell(str(each)) for each in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
