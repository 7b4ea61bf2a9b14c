"""The parity gate: a fresh process loads the package with its target runtime and replays the golden items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from finemesh.core.errors import NotFoundError
from finemesh.core.spec.export import ParityTolerance
from finemesh.finetune.manifests import MANIFEST, file_digest, write_manifest, wrong_files
from finemesh.package.card import model_card
from finemesh.package.contents import copy_scripts
from finemesh.package.formats import FORMATS
from finemesh.package.golden_metrics import golden_metric
from finemesh.package.manifest import PARITY, PackageManifest, ParityReport, load_package_manifest

_TIMEOUT_SECONDS: Final = 3600
_SHOWN_CHARACTERS: Final = 500
_DECISIONS: Final = "decisions.safetensors"


def verify_package(
    package: Path,
    base_model: Path | None = None,
    tolerance: ParityTolerance | None = None,
    *,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> ParityReport:
    """Check files and behaviour of a package. The package is not changed.

    The checksums come first. Then the `verify.py` that every package carries runs in a new Python process,
    without the network, with nothing of Finemesh imported.

    Args:
        package: folder of the package.
        base_model: local folder of the base, needed for an adapter.
        tolerance: defaults to what the package's format declares.
        timeout_seconds: for the whole check; a package that takes longer does not pass.

    Raises:
        NotFoundError: PACKAGE_NOT_FOUND, BASE_MODEL_NOT_FOUND.
        InvalidError: MALFORMED_PACKAGE.
    """
    manifest = load_package_manifest(package)
    form = FORMATS[manifest.format]
    limits: dict[str, float | None] = asdict(tolerance or form.tolerance)
    reasons = [
        f"{name} {what}"
        for name, what in wrong_files(package, {"files": [asdict(f) for f in manifest.files]})
    ]
    if form.needs_base:
        if base_model is None or not base_model.is_dir():
            raise NotFoundError(
                f"an adapter is checked on its base, and {base_model} is no folder of it: give the base "
                "model",
                reason="BASE_MODEL_NOT_FOUND",
            )
        reasons += _other_base(manifest, base_model)
    if reasons:
        return ParityReport(passed=False, reasons=tuple(reasons), limits=limits)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as elsewhere:
        report = _run(manifest, package, base_model, limits, Path(elsewhere), timeout_seconds)
        report = _measured(package, manifest, report, Path(elsewhere) / _DECISIONS)
    return replace(report, limits=limits, seconds=time.perf_counter() - started)


def record_parity(package: Path, report: ParityReport) -> PackageManifest:
    """Write a report into the package: parity.json, the model card, and the manifest anew."""
    manifest = replace(load_package_manifest(package), parity=report.to_json())
    (package / MANIFEST).unlink()  # a package is whole again when the new one is there
    report.write(package / PARITY)
    (package / "README.md").write_text(model_card(manifest, report), encoding="utf-8")
    write_manifest(package, manifest.facts())
    return load_package_manifest(package)


def _other_base(manifest: PackageManifest, base_model: Path) -> list[str]:
    expected = manifest.base_model.files
    return [
        f"the base model's {name} is not the one that was trained on"
        for name, sha256 in expected.items()
        if not (base_model / name).is_file() or file_digest(base_model / name) != sha256
    ]


def _measured(
    package: Path, manifest: PackageManifest, report: ParityReport, decisions: Path
) -> ParityReport:
    """With the task's metric, if the package ran."""
    metric = golden_metric(package, manifest, decisions) if decisions.is_file() else None
    if metric is None:
        return report
    check = metric.check(report.limits.get("max_metric_loss") or 0.0)
    return replace(
        report,
        metric=metric,
        checks=(*report.checks, check),
        passed=report.passed and check.passed,
        reasons=report.reasons if check.passed else (*report.reasons, check.reason),
    )


def _run(
    manifest: PackageManifest,
    package: Path,
    base_model: Path | None,
    limits: dict[str, float | None],
    elsewhere: Path,
    timeout_seconds: float,
) -> ParityReport:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # Ours, not the package's own: whoever made it does not say how it is judged.
    copy_scripts(FORMATS[manifest.format].runtime, elsewhere)
    command = [sys.executable, "-s", "verify.py", str(package.resolve()), f"--limits={json.dumps(limits)}"]
    command.append(f"--decisions={elsewhere / _DECISIONS}")
    if base_model is not None:
        command.append(f"--base={base_model.resolve()}")
    try:
        done = subprocess.run(
            command,
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ParityReport(passed=False, reasons=(f"the check did not end in {timeout_seconds:.0f} s",))
    try:
        return ParityReport.from_json(json.loads(done.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError, KeyError, TypeError):
        last = done.stderr.strip()[-_SHOWN_CHARACTERS:]
        return ParityReport(
            passed=False, reasons=(f"it does not load or run (exit code {done.returncode}): {last}",)
        )
