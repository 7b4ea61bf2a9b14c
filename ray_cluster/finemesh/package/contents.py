"""What a package holds beside weights and golden set: its server, its environment, what is on record."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from finemesh.core.spec.finetune import Task
from finemesh.finetune.rows import read_manifest
from finemesh.package.curves import ENERGY, Curve, draw_curves
from finemesh.package.environment import write_environment
from finemesh.package.formats.format import SHIPPED, Format, Runtime, scripts_of
from finemesh.package.trained import Trained

_MATCHERS: Final = {Task.DETECTION, Task.INSTANCE_SEGMENTATION}


def furnish(trained: Trained, form: Format, out: Path, curves: Mapping[str, Curve] | None) -> dict[str, Any]:
    """Write scripts, server, Dockerfile, requirements.txt and curves.

    Returns:
        What is on record, as JSON values: `data` (see `data_record`), `curves` (pictures, relative to `out`;
        None if they are not known), `quirks` of the family, `requirements` (versions by name), and
        `energy_joules` if it was measured.
    """
    copy_scripts(form.runtime, out)
    needs = [*form.runtime.needs, *_needs(trained, form)]
    record: dict[str, Any] = {
        "data": data_record(trained.dataset),
        "curves": None if curves is None else draw_curves(curves, out),
        "quirks": list(trained.family.quirks),
        "requirements": write_environment(out, form.runtime.name, needs),
    }
    if measured := (curves or {}).get(ENERGY):
        record["energy_joules"] = measured[-1][1]
    return record


def copy_scripts(runtime: Runtime, folder: Path) -> None:
    """Put the scripts that run, check and serve a package of a runtime into a folder."""
    for source, name in scripts_of(runtime):
        shutil.copyfile(source, folder / name)
    shutil.copyfile(SHIPPED / "serve.py", folder / "serve.py")
    shutil.copytree(SHIPPED / "server", folder / "server", ignore=shutil.ignore_patterns("__pycache__"))


def _needs(trained: Trained, form: Format) -> list[str]:
    """What a model needs beside transformers, where that runs it: asked for when it is made, not before."""
    if form.runtime.name != "transformers":
        return []
    needs = [trained.family.extra] if trained.family.extra else []
    if trained.spec.task in _MATCHERS:
        needs.append("scipy")
    if trained.family.name == "smolvlm":
        needs.append("num2words")
    return needs


def data_record(dataset: Path) -> dict[str, Any]:
    """What a dataset holds, and what became of every input it was made from."""
    manifest = read_manifest(dataset)
    return {
        "digest": manifest.digest,
        "rows": manifest.rows,
        "splits": manifest.splits,
        "classes": {each.class_name: each.objects for each in manifest.classes},
        "row_classes": {name: sum(counts.values()) for name, counts in manifest.row_classes.items()},
        "ledger": manifest.ledger.to_json(),
        "leakage": asdict(manifest.leakage) if manifest.leakage else None,
        "warnings": list(manifest.warnings),
    }
