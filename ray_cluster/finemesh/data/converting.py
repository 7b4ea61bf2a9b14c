"""Converting a dataset: into conversations, into another form, or both at once."""

from __future__ import annotations

import shutil
from pathlib import Path

from finemesh.core.spec.data import ConvertOptions, DatasetManifest
from finemesh.data.parts import assemble, convert_part, plan_conversion
from finemesh.data.rows import Progress
from finemesh.data.writing import prepare_output


def convert_dataset(dataset: Path, out: Path, options: ConvertOptions, progress: Progress) -> DatasetManifest:
    """Convert the canonical dataset in `dataset` into `out`, an empty or absent folder. Splits are inherited.

    With an instruction every object of the parent (and every row without objects) is an input of the ledger;
    without one, every row is.

    Raises:
        NotFoundError, PreconditionError: as `iter_batches`. AlreadyExistsError: OUTPUT_NOT_EMPTY.
        PreconditionError: EMPTY_DATASET, the options leave no row, e.g. classify_region without class names.
        InvalidError: as `plan_conversion`.
    """
    progress(0.0, "planning")
    conversion = plan_conversion(dataset, options)
    created = prepare_output(out)
    try:
        done, rows = 0, max(conversion.parent.rows, 1)
        for part in conversion.parts:
            convert_part(dataset, out, conversion, part, _of_all(progress, done, part.rows, rows))
            done += part.rows
        manifest = assemble(out, conversion)
    except BaseException:
        _empty(out, created=created)
        raise
    progress(1.0, f"{manifest.rows} rows written")
    return manifest


def _of_all(progress: Progress, done: int, part_rows: int, rows: int) -> Progress:
    """The progress of a part as that of all rows, of which `done` lie before it."""

    def report(share: float, words: str) -> None:
        del words
        now = done + round(share * part_rows)
        progress(now / rows, f"{now} of {rows} rows")

    return report


def _empty(out: Path, *, created: bool) -> None:
    """Leave nothing half made: `out` is as it was."""
    shutil.rmtree(out, ignore_errors=True)
    if not created:
        out.mkdir(parents=True, exist_ok=True)
