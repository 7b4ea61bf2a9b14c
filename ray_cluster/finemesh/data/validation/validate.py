"""Running all checks over a dataset, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.data import DatasetManifest, Split, ValidateOptions
from finemesh.data.rows import Progress
from finemesh.data.schema import Row
from finemesh.data.splitting import RowKey, measure_leakage, row_key
from finemesh.data.storage import iter_ledger, iter_rows, load_manifest, verify_dataset
from finemesh.data.validation.checks import (
    Found,
    check_classes,
    check_images,
    check_leakage,
    check_manifest,
    check_messages,
    check_objects,
)
from finemesh.data.validation.report import Finding, ValidationReport, gravest_first, summarise
from finemesh.data.validation.rules import RULES


def validate_dataset(dataset: Path, options: ValidateOptions, progress: Progress) -> ValidationReport:
    """Examine the canonical dataset in a folder.

    Raises:
        NotFoundError, PreconditionError: as `iter_batches`; whatever else is wrong is a finding.
    """
    manifest = load_manifest(dataset)
    findings = _Findings(options.max_examples)
    progress(0.0, "checking files")
    if _files_are_whole(dataset, findings):
        _examine_rows(dataset, manifest, options, findings, progress)
        findings.add("", _ledger_findings(dataset, manifest))
    findings.add("", check_manifest(manifest, options))
    findings.add("", check_classes(manifest.classes, options))
    progress(1.0, f"{sum(findings.counts.values())} findings")
    return ValidationReport(
        dataset_digest=manifest.digest,
        level=options.level,
        status=summarise(findings.counts),
        rows=manifest.rows,
        splits=manifest.splits,
        classes=manifest.classes,
        ledger=manifest.ledger,
        counts=gravest_first(findings.counts),
        findings=findings.gravest_first(),
    )


class _Findings:
    """All findings counted, the first few of each kind kept."""

    def __init__(self, max_examples: int) -> None:
        self._max_examples = max_examples
        self._kept: dict[str, list[Finding]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, row_id: str, found: Iterable[Found]) -> None:
        for kind, field, evidence in found:
            self.counts[kind] += 1
            if self.counts[kind] <= self._max_examples:
                rule = RULES[kind]
                finding = Finding(kind, rule.severity, row_id, field, evidence, rule.remedy)
                self._kept.setdefault(kind, []).append(finding)

    def gravest_first(self) -> tuple[Finding, ...]:
        return tuple(finding for kind in gravest_first(self.counts) for finding in self._kept.get(kind, []))


def _files_are_whole(dataset: Path, findings: _Findings) -> bool:
    """Whether rows can be read at all."""
    try:
        verify_dataset(dataset)
    except PreconditionError as error:
        findings.add("", [("CHECKSUM_MISMATCH", error.metadata.get("file", ""), error.message)])
        return False
    return True


def _examine_rows(
    dataset: Path,
    manifest: DatasetManifest,
    options: ValidateOptions,
    findings: _Findings,
    progress: Progress,
) -> None:
    keys: list[RowKey] = []
    splits: dict[str, Split] = {}
    first_with: dict[str, str] = {}
    for number, row in enumerate(iter_rows(dataset), start=1):
        row_id = row["row_id"]
        if row_id in splits:
            findings.add(row_id, [("DUPLICATE_ROW_ID", "row_id", row_id)])
        keys.append(row_key(row))
        splits[row_id] = Split(row["split"])
        findings.add(row_id, _row_findings(row, options))
        if not row["messages"]:  # several conversations about one picture are in order
            for index, image in enumerate(row["images"]):
                first = first_with.setdefault(image["sha256"], row_id)
                if first != row_id:
                    findings.add(row_id, [("DUPLICATE_IMAGE", f"images[{index}]", f"the same as {first}")])
        if number % 16 == 0:
            progress(number / max(manifest.rows, number), f"{number} of {manifest.rows} rows")
    if len(keys) != manifest.rows:
        evidence = f"{len(keys)} instead of {manifest.rows}"
        findings.add("", [("ROW_COUNT_MISMATCH", "rows", evidence)])
    findings.add("", check_leakage(measure_leakage(keys, splits), options))


def _row_findings(row: Row, options: ValidateOptions) -> Iterable[Found]:
    yield from check_images(row, options)
    yield from check_objects(row, options)
    yield from check_messages(row["messages"], len(row["images"]))


def _ledger_findings(dataset: Path, manifest: DatasetManifest) -> Iterable[Found]:
    """Compare the ledger's entries with its sums, and its sums with each other."""
    told: Counter[str] = Counter()
    inputs: set[str] = set()
    for entry in iter_ledger(dataset):
        told[entry.disposition] += 1
        inputs.add(entry.row_id)
    ledger = manifest.ledger
    summed = {"kept": ledger.kept, "quarantined": ledger.quarantined, "dropped": ledger.dropped}
    if len(inputs) != ledger.inputs or any(told[name] != count for name, count in summed.items()):
        evidence = f"{len(inputs)} distinct inputs told {dict(told)}, but {ledger.inputs} and {summed} stated"
        yield "LEDGER_UNBALANCED", "ledger", evidence
