"""Examining a dataset: its files, every row, the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.core.errors import PreconditionError
from finemesh.core.spec.data import DatasetManifest, ValidateOptions, ValidationLevel
from finemesh.data.arrow import places
from finemesh.data.rows import Progress
from finemesh.data.storage import load_manifest, verify_dataset
from finemesh.data.validation.classes import check_classes, check_manifest, class_table
from finemesh.data.validation.columns import Batch, read_columns
from finemesh.data.validation.conversations import check_conversation, check_encoding
from finemesh.data.validation.copies import (
    Alike,
    check_alike,
    check_copies,
    check_leakage,
    check_row_ids,
    compare,
    twins,
)
from finemesh.data.validation.exhibits import show
from finemesh.data.validation.findings import WHOLE, Findings, Found, summarise
from finemesh.data.validation.keys import Keys, KeyTable
from finemesh.data.validation.measures import Measures, Meter
from finemesh.data.validation.objects import check_objects
from finemesh.data.validation.pictures import check_pictures, check_stated_sizes
from finemesh.data.validation.report import ValidationReport
from finemesh.data.validation.tokens import TokenCounter, load_tokenizer

_PICTURES_SHARE: Final = 0.9  # of the time of a strict look
_WORDS: Final = ("messages", "rejected", "text", "captions")


def validate_dataset(dataset: Path, options: ValidateOptions, progress: Progress) -> ValidationReport:
    """Examine the canonical dataset in a folder.

    Raises:
        InvalidError: TOKENIZER_UNAVAILABLE.
        NotFoundError, PreconditionError: as `iter_batches`; whatever else is wrong is a finding.
    """
    manifest = load_manifest(dataset)
    counter = TokenCounter(options, load_tokenizer(options.tokenizer)) if options.tokenizer else None
    findings = Findings(options.max_examples)
    measures, alike = Measures(), dict[tuple[int, str], tuple[int, int]]()
    progress(0.0, "checking files")
    if _files_are_whole(dataset, findings):
        examination = _Examination(dataset, manifest, options, findings, progress)
        measures = examination.run(counter)
        findings.add(WHOLE, _ledger_findings(dataset, manifest))
        alike = examination.twins
    findings.add(WHOLE, check_manifest(manifest, options))
    classes = class_table(manifest)
    findings.add(WHOLE, check_classes(classes, options))
    for item in classes:
        findings.add(WHOLE, check_encoding(item.class_name, "classes"))
    progress(1.0, f"{sum(findings.counts.values())} findings")
    return ValidationReport(
        dataset_digest=manifest.digest,
        level=options.level,
        status=summarise(findings.counts),
        rows=manifest.rows,
        splits=manifest.splits,
        classes=classes,
        ledger=manifest.ledger,
        counts=findings.kinds,
        findings=findings.gravest_first,
        measures=measures,
        exhibits=show(dataset, findings, alike),
    )


class _Examination:
    """The look at all rows of one dataset."""

    def __init__(
        self,
        dataset: Path,
        manifest: DatasetManifest,
        options: ValidateOptions,
        findings: Findings,
        progress: Progress,
    ) -> None:
        self._dataset, self._manifest, self._options = dataset, manifest, options
        self._findings, self._progress = findings, progress
        self._strict = options.level is ValidationLevel.STRICT
        self._alike: Alike | None = None
        self.twins: dict[tuple[int, str], tuple[int, int]] = {}

    def run(self, counter: TokenCounter | None) -> Measures:
        meter, keys = self._look_at_rows(counter)
        check_row_ids(keys, self._findings)
        check_copies(keys, self._findings)
        if self._strict:
            hashed = check_pictures(self._dataset, self._options, self._findings, self._report_pictures)
            self._alike = compare(keys, hashed, self._options.max_similar_bits)
            check_alike(keys, self._alike, self._findings)
            self.twins = twins(keys, self._alike)
        return meter.finish(
            near_pairs=self._alike.pairs if self._alike else None,
            leakage=check_leakage(keys, self._alike, self._options, self._findings),
            tokens=counter.finish() if counter else None,
        )

    def _look_at_rows(self, counter: TokenCounter | None) -> tuple[Meter, Keys]:
        meter, table = Meter(), KeyTable()
        share = 1 - _PICTURES_SHARE if self._strict else 1.0
        rows = 0
        for batch in read_columns(self._dataset):
            rows += len(batch)
            meter.observe(batch)
            table.add(batch)
            self._check(batch)
            if counter:
                counter.observe(batch, self._findings)
            self._tell(share * rows / max(self._manifest.rows, rows), rows, "rows")
        if rows != self._manifest.rows:
            evidence = f"{rows} instead of {self._manifest.rows}"
            self._findings.add(WHOLE, [("ROW_COUNT_MISMATCH", "rows", evidence)])
        return meter, table.finish()

    def _check(self, batch: Batch) -> None:
        check_stated_sizes(batch, self._options, self._findings)
        check_objects(batch, self._options, self._findings)
        speaking = np.flatnonzero(batch.speaks)
        if len(speaking):
            said = batch.table.select(list(_WORDS)).take(places(speaking)).to_pylist()
            for row, words in zip(speaking.tolist(), said, strict=True):
                pictures = int(batch.images.lengths[row])
                self._findings.add(batch.place(row), check_conversation(words, pictures))

    def _report_pictures(self, rows: int) -> None:
        share = rows / max(self._manifest.rows, rows)
        self._tell(1 - _PICTURES_SHARE + _PICTURES_SHARE * share, rows, "rows with their pictures")

    def _tell(self, fraction: float, rows: int, what: str) -> None:
        self._progress(min(fraction, 1.0), f"{rows} of {self._manifest.rows} {what}")


def _files_are_whole(dataset: Path, findings: Findings) -> bool:
    """Whether rows can be read at all."""
    try:
        verify_dataset(dataset)
    except PreconditionError as error:
        findings.add(WHOLE, [("CHECKSUM_MISMATCH", error.metadata.get("file", ""), error.message)])
        return False
    return True


def _ledger_findings(dataset: Path, manifest: DatasetManifest) -> Iterable[Found]:
    """Compare the ledger's entries with its sums, and its sums with each other."""
    told: Counter[str] = Counter()
    ids: list[Any] = []
    for shard in manifest.ledger_shards:
        with pq.ParquetFile(dataset / shard.path) as file:
            for batch in file.iter_batches(columns=["row_id", "disposition"]):
                ids.append(batch.column("row_id"))
                for count in batch.column("disposition").value_counts():
                    told[count["values"].as_py()] += count["counts"].as_py()
    inputs = len(pa.chunked_array(ids, pa.string()).unique())
    ledger = manifest.ledger
    summed = {"kept": ledger.kept, "quarantined": ledger.quarantined, "dropped": ledger.dropped}
    if inputs != ledger.inputs or any(told[name] != count for name, count in summed.items()):
        evidence = f"{inputs} distinct inputs told {dict(told)}, but {ledger.inputs} and {summed} stated"
        yield "LEDGER_UNBALANCED", "ledger", evidence
