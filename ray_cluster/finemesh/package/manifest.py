"""What a package says of itself, and what a parity check found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import InvalidError, NotFoundError
from finemesh.core.spec.export import ExportFormat
from finemesh.finetune.manifests import MANIFEST, read_manifest

PARITY: Final = "parity.json"


@dataclass(frozen=True, slots=True)
class PackageFile:
    """One file of a package. `path` is relative to it, with `/`."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The base a package came from.

    Attributes:
        name: as the spec says it.
        revision: as the spec says it.
        files: SHA-256 of its config.json and weights, by file name.
        licence: what its model card states, or "unknown".
    """

    name: str
    revision: str
    files: dict[str, str]
    licence: str


@dataclass(frozen=True, slots=True)
class PackageManifest:
    """`manifest.json` of a package.

    Attributes:
        auto_class: the transformers class that loads the model.
        step: of the checkpoint.
        spec: the FineTuneSpec.
        lineage: what the caller knows: training job, run, dataset version, ...
        metrics: of the checkpoint.
        golden_items: in `golden/`; golden_split: where they came from.
        versions: of the libraries that wrote it.
        parity: what `record_parity` put in; None before.
    """

    format: ExportFormat
    auto_class: str
    step: int
    base_model: BaseModel
    spec: dict[str, Any]
    lineage: dict[str, Any]
    metrics: dict[str, float]
    golden_items: int
    golden_split: str
    versions: dict[str, str]
    parity: dict[str, Any] | None = None
    files: tuple[PackageFile, ...] = ()

    def facts(self) -> dict[str, Any]:
        """All but the files, as JSON values."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key != "files"}

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def load_package_manifest(package: Path) -> PackageManifest:
    """Raises NotFoundError (PACKAGE_NOT_FOUND) or InvalidError (MALFORMED_PACKAGE)."""
    try:
        content = read_manifest(package)
        return PackageManifest(
            format=ExportFormat(content["format"]),
            auto_class=str(content["auto_class"]),
            step=int(content["step"]),
            base_model=BaseModel(**content["base_model"]),
            spec=dict(content["spec"]),
            lineage=dict(content["lineage"]),
            metrics=dict(content["metrics"]),
            golden_items=int(content["golden_items"]),
            golden_split=str(content["golden_split"]),
            versions=dict(content["versions"]),
            parity=content["parity"],
            files=tuple(PackageFile(**each) for each in content["files"]),
        )
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{package} has no {MANIFEST}: it is not a finished package", reason="PACKAGE_NOT_FOUND"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(
            f"{package / MANIFEST} is not a package manifest: {error}", reason="MALFORMED_PACKAGE"
        ) from error


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What a package does with the golden items, against what the trained model did.

    Attributes:
        passed: within tolerance, checksums right, loaded in a fresh process.
        reasons: why it did not pass; empty if it did.
        items: golden items replayed.
        inputs_equal: fraction of items whose token ids, made by the package's own processor and template,
            equal those of training.
        max_logit_difference: largest absolute difference of any logit.
        token_agreement: fraction of greedy tokens that agree.
        runtime: name and versions of what ran it.
        seconds: of the fresh process.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    items: int = 0
    inputs_equal: float = 0.0
    max_logit_difference: float | None = None
    token_agreement: float = 0.0
    tolerance: dict[str, float] = field(default_factory=dict[str, float])
    runtime: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ParityReport:
        return cls(
            passed=bool(value["passed"]),
            reasons=tuple(value["reasons"]),
            items=int(value.get("items", 0)),
            inputs_equal=float(value.get("inputs_equal", 0)),
            max_logit_difference=value.get("max_logit_difference"),
            token_agreement=float(value.get("token_agreement", 0)),
            tolerance=dict(value.get("tolerance", {})),
            runtime=dict(value.get("runtime", {})),
            seconds=float(value.get("seconds", 0)),
        )

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
