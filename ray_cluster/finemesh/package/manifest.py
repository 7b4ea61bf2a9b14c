"""What a package says of itself, and what a parity check found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
        licence_details: what the card says of it beside: `license_name`, `license_link`.
    """

    name: str
    revision: str
    files: dict[str, str]
    licence: str
    licence_details: dict[str, str] = field(default_factory=dict[str, str])


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
        runtime: what runs it, by `runtime.py`.
        decisions: of models that do not speak, how their outputs are read (`golden_pictures.decision_facts`).
        tolerance: what the format declares, a `ParityTolerance`.
        about: what the format is, in words that follow "This is".
        record: what is on record of the data and the run (see `contents.record_of`).
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
    runtime: str = "transformers"
    decisions: dict[str, Any] = field(default_factory=dict[str, Any])
    tolerance: dict[str, float | None] = field(default_factory=dict[str, float | None])
    about: str = ""
    record: dict[str, Any] = field(default_factory=dict[str, Any])
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
            runtime=str(content["runtime"]),
            decisions=dict(content["decisions"]),
            tolerance=dict(content["tolerance"]),
            about=str(content["about"]),
            record=dict(content["record"]),
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
class Check:
    """One thing that was compared, and how far it may be off.

    Attributes:
        kind: "preprocessing", "raw outputs", "decisions" or "metric".
        what: the figure, in words.
        limit: None where the format sets none.
        at_most: whether the limit is the most it may be, or the least.
    """

    kind: str
    what: str
    value: float
    limit: float | None
    at_most: bool
    passed: bool

    @property
    def reason(self) -> str:
        """What is wrong with it, if anything is."""
        return f"{self.kind}: {self.what} is {self.value:.4g}, the limit is {self.limit:g}"

    @property
    def bound(self) -> str:
        """The limit, as people read it."""
        return "" if self.limit is None else f"{'at most' if self.at_most else 'at least'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class GoldenMetric:
    """The task's metric over the golden items, of the trained model and of the package; 95% intervals."""

    name: str
    trained: float
    trained_low: float
    trained_high: float
    package: float
    package_low: float
    package_high: float

    @property
    def loss(self) -> float:
        """By how much the package's interval lies below the trained model's value; 0 if it holds it."""
        return max(0.0, self.trained - max(self.package_high, self.package))

    def check(self, limit: float) -> Check:
        """As one of the checks of a report."""
        what = (
            f"fall of {self.name} beyond its interval, from {self.trained:.3f} to {self.package:.3f} "
            f"[{self.package_low:.3f}, {self.package_high:.3f}]"
        )
        return Check("metric", what, self.loss, limit, at_most=True, passed=self.loss <= limit)


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What a package does with the golden items, against what the trained model did.

    Attributes:
        passed: within tolerance, checksums right, loaded in a fresh process.
        reasons: why it did not pass; empty if it did.
        items: golden items replayed.
        checks: what was compared.
        differences: the items that lie beyond a limit, the furthest first, as `verify.py` tells them.
        limits: the tolerance that was applied, a `ParityTolerance`.
        runtime: names and versions of what ran it.
        seconds: of the fresh process.
        drift_allowed: it did not pass, and is released since the request says so.
        metric: the task's, where the golden items have one.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    items: int = 0
    checks: tuple[Check, ...] = ()
    differences: tuple[dict[str, Any], ...] = ()
    limits: dict[str, float | None] = field(default_factory=dict[str, float | None])
    runtime: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    drift_allowed: bool = False
    metric: GoldenMetric | None = None

    def allowing_drift(self) -> ParityReport:
        """The same, if it ran at all, released in spite of what differs."""
        return replace(self, drift_allowed=bool(self.items) and not self.passed)

    @property
    def released(self) -> bool:
        return self.passed or self.drift_allowed

    def value(self, kind: str, at_most: bool) -> float | None:
        """The first figure of a kind; None if nothing of it was compared."""
        return next(
            (each.value for each in self.checks if (each.kind, each.at_most) == (kind, at_most)), None
        )

    def to_json(self) -> dict[str, Any]:
        value = dataclasses.asdict(self)
        return {key: list(each) if isinstance(each, tuple) else each for key, each in value.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ParityReport:
        return cls(
            passed=bool(value["passed"]),
            reasons=tuple(value["reasons"]),
            items=int(value.get("items", 0)),
            checks=tuple(Check(**each) for each in value.get("checks", ())),
            differences=tuple(value.get("differences", ())),
            limits=dict(value.get("limits", {})),
            runtime=dict(value.get("runtime", {})),
            seconds=float(value.get("seconds", 0)),
            drift_allowed=bool(value.get("drift_allowed", False)),
            metric=GoldenMetric(**value["metric"]) if value.get("metric") else None,
        )

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
