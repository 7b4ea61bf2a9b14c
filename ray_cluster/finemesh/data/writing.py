"""Making a dataset version: rows and the fate of every input go in, the manifest comes last, and a failure
leaves nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from finemesh.core.errors import AlreadyExistsError, PreconditionError
from finemesh.core.spec.data import DatasetFormat, DatasetManifest, DatasetOrigin, Leakage
from finemesh.core.spec.ledger import Disposition, LedgerEntry, LedgerSummary
from finemesh.data.arrow import text_array, text_list_array
from finemesh.data.batches import RowBatch
from finemesh.data.boxes import BoxBatch
from finemesh.data.faults import RowFault
from finemesh.data.schema import LEDGER_SCHEMA, Row
from finemesh.data.statistics import Statistics
from finemesh.data.storage import BATCH_BYTES, BATCH_ROWS, MANIFEST, ParquetShards
from finemesh.data.tally import Tally, write_manifest
from finemesh.data.writers import WRITERS, FormContext
from finemesh.data.writers.form import BoxForm

_LEDGER: Final = "ledger"
_LEDGER_BATCH: Final = 4096


class DatasetWriter:
    """Writes one dataset version into the context's folder, which is empty or absent.

    Use as a context manager: leaving it without `commit` removes everything again. Call `take` for every
    input as it comes in, and then one of `keep`, `quarantine` or `drop`: `commit` checks that none was
    forgotten or told twice.
    """

    def __init__(self, dataset_format: DatasetFormat, context: FormContext) -> None:
        out = context.root
        self._out, self._format, self._context = out, dataset_format, context
        self._committed = False
        self._created = context.part is None and prepare_output(out)
        try:
            self._form = WRITERS[dataset_format](context)
        except BaseException:
            if self._created:
                shutil.rmtree(out, ignore_errors=True)
            raise
        self._ledger = ParquetShards(out, f"{_LEDGER}/part-{context.part_prefix}", LEDGER_SCHEMA)
        self._rows: list[Row] = []
        self._row_bytes = 0
        self._entries: list[LedgerEntry] = []
        self._told: set[str] = set()
        self._inputs = self._children = 0
        self._counts = dict.fromkeys(Disposition, 0)
        self._by_reason: dict[str, int] = {}
        self._statistics = Statistics()
        self._first_fault = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self._remove()

    def take(self, count: int = 1) -> None:
        """Inputs have come in."""
        self._inputs += count

    def knows(self, input_id: str) -> bool:
        """Whether the fate of an input is told already."""
        return input_id in self._told

    def keep(self, input_id: str, rows: Sequence[Row]) -> None:
        """The input became `rows`; it is put aside instead if the form cannot hold one of them."""
        for row in rows:
            fault = self._form.refusal(row)
            if fault is not None:
                self.quarantine(input_id, fault)
                return
        for row in rows:
            self._rows.append(row)
            self._row_bytes += _size(row)
        self.keep_as(input_id, [row["row_id"] for row in rows])
        if len(self._rows) >= BATCH_ROWS or self._row_bytes >= BATCH_BYTES:
            self._flush_rows()

    def keep_boxes(self, batch: BoxBatch) -> bool:
        """Keep the pictures of a batch, whose form takes boxes; False, and nothing done, if the fate of one
        of them is told already.
        """
        assert isinstance(self._form, BoxForm)
        if not self._told.isdisjoint(batch.row_ids):
            return False
        self._flush_rows()
        self.take(len(batch.row_ids))
        for row_id in batch.row_ids:
            self.keep_as(row_id, (row_id,))
        self._statistics.observe_boxes(batch)
        self._form.write_boxes(batch)
        return True

    def keep_as(self, input_id: str, children: Sequence[str]) -> None:
        """The input became rows that are written by `write_batch`."""
        self._children += len(children)
        self._record(LedgerEntry(input_id, Disposition.KEPT, children=tuple(children)))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write canonical rows that are in a batch already."""
        self._flush_rows()
        self._write(RowBatch(arrow=batch))

    def copy(self, batch: pa.RecordBatch) -> None:
        """Take the rows of a batch and keep each as it is; those that the form cannot hold are put aside."""
        self.take(batch.num_rows)
        if self._form.judges:
            for row in RowBatch(arrow=batch).rows:
                self.keep(row["row_id"], [row])
            return
        for row_id in batch.column("row_id").to_pylist():
            self.keep_as(row_id, [row_id])
        self.write_batch(batch)

    @property
    def first_fault(self) -> str:
        """What is wrong with the first input that was put aside, and where; empty without any."""
        return self._first_fault

    def quarantine(self, input_id: str, fault: RowFault) -> None:
        where = f"{input_id} {fault.field}".strip()
        self._first_fault = self._first_fault or f"{where}: {fault.message}"
        self._record(LedgerEntry(input_id, Disposition.QUARANTINED, fault.reason, fault.message, fault.field))

    def drop(self, input_id: str, reason: str, message: str, field: str = "") -> None:
        self._record(LedgerEntry(input_id, Disposition.DROPPED, reason, message, field))

    @property
    def statistics(self) -> Statistics:
        """Counts over all rows that were kept so far."""
        self._flush_rows()
        return self._statistics

    @property
    def summary(self) -> LedgerSummary:
        return LedgerSummary(
            inputs=self._inputs,
            kept=self._counts[Disposition.KEPT],
            quarantined=self._counts[Disposition.QUARANTINED],
            dropped=self._counts[Disposition.DROPPED],
            by_reason=dict(sorted(self._by_reason.items())),
        )

    def finish(self) -> Tally:
        """Finish all files with rows and with the ledger; what they hold stays.

        Raises:
            PreconditionError: LEDGER_UNBALANCED if an input was lost or told twice.
        """
        self._flush_ledger()
        self._told.clear()  # no fate follows; many names take many bytes
        ledger, counted = self.summary.check(), self.statistics
        if counted.rows != self._children:
            message = (
                f"{counted.rows} rows written, but {self._children} in the ledger: the stage is at fault"
            )
            raise PreconditionError(message, reason="LEDGER_UNBALANCED")
        proof = self._form.proof()
        shards, ledger_shards = self._form.close(), self._ledger.close()
        self._committed = True
        notes, warnings = self._context.notes, self._context.warnings
        return Tally(ledger, counted, shards, ledger_shards, proof, notes, warnings, self._first_fault)

    def commit(
        self,
        origin: DatasetOrigin,
        *,
        options: Mapping[str, Any],
        parents: Sequence[str] = (),
        warnings: Sequence[str] = (),
        leakage: Leakage | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> DatasetManifest:
        """Finish all files and write the manifest. Raises as `finish` and `write_manifest`."""
        tally = self.finish()
        self._committed = False
        manifest = write_manifest(
            tally,
            self._context,
            self._format,
            origin,
            options=options,
            parents=parents,
            warnings=warnings,
            leakage=leakage,
            header=header,
        )
        self._committed = True
        return manifest

    def _record(self, entry: LedgerEntry) -> None:
        if entry.row_id in self._told:
            message = f"the input {entry.row_id} has two fates in the ledger: the stage is at fault"
            raise PreconditionError(message, reason="LEDGER_UNBALANCED", metadata={"row_id": entry.row_id})
        self._told.add(entry.row_id)
        self._counts[entry.disposition] += 1
        if entry.reason:
            self._by_reason[entry.reason] = self._by_reason.get(entry.reason, 0) + 1
        self._entries.append(entry)
        if len(self._entries) >= _LEDGER_BATCH:
            self._flush_ledger()

    def _flush_rows(self) -> None:
        if self._rows:
            self._write(RowBatch(self._rows))
            self._rows, self._row_bytes = [], 0

    def _write(self, batch: RowBatch) -> None:
        self._statistics.observe(batch)
        self._form.write(batch)

    def _flush_ledger(self) -> None:
        if self._entries:
            self._ledger.write(_ledger_batch(self._entries))
            self._entries = []

    def _remove(self) -> None:
        """Take back what was written; the folder too, if it was made here. Of a part everything stays: its
        files are not named anywhere, and are written over when it is made again.
        """
        if self._context.part is not None:
            return
        if self._created:
            shutil.rmtree(self._out, ignore_errors=True)
            return
        for pattern in (*self._form.folders, _LEDGER, MANIFEST + ".partial"):
            for path in self._out.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _size(row: Row) -> int:
    """About how many bytes of memory the large parts of a row take: pictures, masks, outlines."""
    masks = sum(len(item["rle_counts"] or "") for item in row["objects"])
    corners = sum(len(each) for item in row["objects"] for each in item["polygons"] or ())
    return sum(len(image["data"]) for image in row["images"]) + masks + 32 * corners


def _ledger_batch(entries: Sequence[LedgerEntry]) -> pa.RecordBatch:
    columns = [
        text_array([entry.row_id for entry in entries]),
        text_array([entry.disposition.value for entry in entries]),
        text_array([entry.reason for entry in entries]),
        text_array([entry.message for entry in entries]),
        text_array([entry.field for entry in entries]),
        text_list_array([entry.children for entry in entries]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LEDGER_SCHEMA)


def prepare_output(out: Path) -> bool:
    """Make `out`; whether it was absent. Raises AlreadyExistsError if it holds anything."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"{out} is not an empty folder: a dataset is never written over, name another folder"
        raise AlreadyExistsError(message, reason="OUTPUT_NOT_EMPTY")
    created = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    return created
