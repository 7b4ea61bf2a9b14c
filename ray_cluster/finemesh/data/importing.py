"""Importing a source: annotations of a known format become a canonical dataset; faulty rows are put aside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec.data import (
    AnnotationFormat,
    ConvertOptions,
    DatasetFormat,
    DatasetManifest,
    DatasetOrigin,
    ImportOptions,
    Leakage,
    SplitOptions,
)
from finemesh.data.boxes import BoxBatch
from finemesh.data.faults import RowFault, as_text
from finemesh.data.readers import READERS, Reader, detect_format
from finemesh.data.readers.context import Needs, ReadContext
from finemesh.data.rows import Candidate, Progress, texts_of
from finemesh.data.schema import Row
from finemesh.data.sources import open_source
from finemesh.data.storage import iter_rows, options_json
from finemesh.data.writers import WRITERS, FormContext
from finemesh.data.writers.form import BoxForm
from finemesh.data.writing import DatasetWriter

NO_CLASS_NAMES: Final = "no class names, so class accuracy cannot be computed"
_TABLES: Final = {AnnotationFormat.TABLE, AnnotationFormat.PARQUET}


def import_source(
    source: Path, out: Path, options: ImportOptions, progress: Progress, *, scratch: Path | None = None
) -> DatasetManifest:
    """Import `source`, an archive, a folder or a file (see `open_source`), into `out`, an empty or absent
    folder. What has to be unpacked on the way goes into `scratch`, or the system's folder for such.

    A faulty row is quarantined with its reason and the import goes on. A faulty container ends it, and `out`
    is left as it was.

    Raises:
        NotFoundError: SOURCE_NOT_FOUND.
        InvalidError: the source is refused (see open_source), its format unknown or malformed
            (UNKNOWN_FORMAT, AMBIGUOUS_FORMAT, MALFORMED_JSON, MALFORMED_ANNOTATIONS), or too many rows are
            faulty (TOO_MANY_QUARANTINED).
        AlreadyExistsError: OUTPUT_NOT_EMPTY.
        PreconditionError: EMPTY_DATASET.
    """
    return _compile(source, out, options, ConvertOptions(), Needs(), progress, scratch)


def compile_source(
    source: Path,
    out: Path,
    options: ImportOptions,
    form: ConvertOptions,
    progress: Progress,
    scratch: Path | None = None,
    split: SplitOptions | None = None,
) -> DatasetManifest:
    """Import `source` straight into another form, without a canonical dataset between: for forms of
    annotations alone, where nothing is to be asked. Pictures that the source lacks stay away (not so frames
    of videos, which are rendered), and masks are read if the form holds masks.

    To `split` rows anew the source is read twice, at first to see which rows belong together.

    Raises:
        As import_source, and as `split_dataset` to split. InvalidError: INVALID_OPTIONS for an instruction,
            which needs the whole dataset.
    """
    if form.instruction is not None:
        raise InvalidError.of(
            "options.instruction", "needs a dataset: import first", reason="INVALID_OPTIONS"
        )
    needs = Needs(masks=not issubclass(WRITERS[form.target], BoxForm), pictures=False)
    drawn = None if split is None else _draw(source, options, split, progress, scratch)
    return _compile(source, out, options, form, needs, progress, scratch, drawn)


class _Drawn(NamedTuple):
    """Splits, before rows are written in them.

    Attributes:
        splits: of each row, by its id.
        options: they were drawn by.
        notes: what is to be said of them.
        leakage: between them.
    """

    splits: Mapping[str, str]
    options: SplitOptions
    notes: Sequence[str]
    leakage: Leakage | None


def _draw(
    source: Path, options: ImportOptions, split: SplitOptions, progress: Progress, scratch: Path | None
) -> _Drawn:
    """Split the source's rows as `split_dataset` does, in a folder that does not stay."""
    from finemesh.data.splitting import split_dataset

    with tempfile.TemporaryDirectory(prefix="finemesh-split-", dir=scratch) as folder:
        items, divided = Path(folder) / "items", Path(folder) / "divided"
        needs = Needs(masks=False, pictures=False)
        before = _compile(source, items, options, ConvertOptions(), needs, progress, scratch)
        after = split_dataset(items, divided, split, progress)
        rows = iter_rows(divided, columns=("row_id", "split"))
        splits = {row["row_id"]: row["split"] for row in rows}
    notes = [note for note in after.warnings if note not in before.warnings]
    return _Drawn(splits, split, notes, after.leakage)


def _compile(
    source: Path,
    out: Path,
    options: ImportOptions,
    form: ConvertOptions,
    needs: Needs,
    progress: Progress,
    scratch: Path | None,
    drawn: _Drawn | None = None,
) -> DatasetManifest:
    progress(0.0, "looking at the source")
    with open_source(source, options, scratch) as opened:
        context = ReadContext(opened, options, needs)
        chosen = options.format or detect_format(context.survey)
        if options.columns and chosen not in _TABLES:
            raise _no_table(READERS[chosen].title)
        # The header is the reader's own: it is complete once the first row comes.
        with DatasetWriter(form.target, FormContext(out, form, context.header)) as writer:
            items = _read(READERS[chosen], context, form, drawn)
            _judge_all(items, context, writer, progress)
            if not writer.summary.inputs and options.format:
                raise _nothing(READERS[chosen].title)
            _warn_of_all(context, writer, options)
            stated = options_json(options) | {"format": chosen.value}
            if form.target is not DatasetFormat.CANONICAL:
                stated["form"] = options_json(form)
            if drawn:
                stated["split"] = options_json(drawn.options)
                context.warnings.extend(drawn.notes)
            manifest = writer.commit(
                DatasetOrigin.IMPORT,
                options=stated,
                warnings=context.warnings,
                leakage=drawn.leakage if drawn else None,
                header=context.header,
            )
    progress(1.0, f"{manifest.rows} rows imported")
    return manifest


def _read(
    reader: Reader, context: ReadContext, form: ConvertOptions, drawn: _Drawn | None
) -> Iterator[Candidate | BoxBatch]:
    """What a reader gives: boxes in columns where it can, for a form that takes them."""
    if drawn:
        splits = drawn.splits
        return (Candidate(each.row_id, partial(_in_split, each, splits)) for each in reader.read(context))
    if reader.read_boxes is not None and issubclass(WRITERS[form.target], BoxForm):
        return reader.read_boxes(context)
    return reader.read(context)


def _in_split(candidate: Candidate, splits: Mapping[str, str]) -> Row:
    row = candidate.build()
    row["split"] = splits.get(row["row_id"], "")
    return row


def _judge_all(
    items: Iterator[Candidate | BoxBatch], context: ReadContext, writer: DatasetWriter, progress: Progress
) -> None:
    """Every candidate becomes a row or a fault."""
    number = 0
    for item in items:
        if isinstance(item, BoxBatch):
            if writer.keep_boxes(item):
                number += len(item.row_ids)
                progress(number / max(context.total, number), f"{number} of {context.total} rows")
                continue
            candidates = item.candidates()
        else:
            candidates = [item]
        for candidate in candidates:
            number += 1
            _judge(candidate, number, writer)
            if number % 16 == 0:
                progress(number / max(context.total, number), f"{number} of {context.total} rows")


def _warn_of_all(context: ReadContext, writer: DatasetWriter, options: ImportOptions) -> None:
    """What there is to say of all rows together. Raises InvalidError: TOO_MANY_QUARANTINED."""
    summary, counted = writer.summary, writer.statistics
    if summary.quarantined > options.max_quarantined_fraction * summary.inputs:
        raise _too_many(writer, options)
    named = counted.has_class_names or counted.row_classes
    # Conversations and texts are not told apart by classes.
    if not named and counted.media and counted.conversations < counted.rows:
        context.warn(NO_CLASS_NAMES)
    if summary.quarantined:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in summary.by_reason.items())
        context.warn(f"{summary.quarantined} of {summary.inputs} rows quarantined: {reasons}")


def _judge(candidate: Candidate, number: int, writer: DatasetWriter) -> None:
    writer.take()
    input_id = as_text(candidate.row_id)
    try:
        if writer.knows(input_id):
            twice, input_id = input_id, f"{input_id}~{number}"
            raise RowFault("DUPLICATE_ROW_ID", f"{twice} occurs twice in the source", "row_id")
        writer.keep(input_id, [built_row(candidate)])
    except RowFault as fault:
        writer.quarantine(input_id, fault)


def built_row(candidate: Candidate) -> Row:
    """The candidate's row. Raises RowFault: the candidate's own, or TEXT_INVALID."""
    where = ""
    try:
        row = candidate.build()
        where = as_text(row["source"]["key"])
        "".join(texts_of(row)).encode()
    except UnicodeEncodeError as error:
        message = "a text holds half a surrogate pair, which is no character: mend it in the source"
        raise RowFault("TEXT_INVALID", message, where) from error
    return row


def _no_table(title: str) -> InvalidError:
    problem = f"say what stands in which column of a table, and the source is {title}: leave them out"
    return InvalidError.of("options.columns", problem, reason="INVALID_COLUMNS")


def _nothing(title: str) -> PreconditionError:
    message = f"nothing in the source is in the form that was named, {title}: name another, or none"
    return PreconditionError(message, reason="EMPTY_DATASET")


def _too_many(writer: DatasetWriter, options: ImportOptions) -> InvalidError:
    summary = writer.summary
    reasons = ", ".join(f"{count} x {reason}" for reason, count in summary.by_reason.items())
    return InvalidError(
        f"{summary.quarantined} of {summary.inputs} rows are faulty ({reasons}), more than the share of"
        f" {options.max_quarantined_fraction:g} allowed: mend the source, or raise max_quarantined_fraction."
        f" The first: {writer.first_fault}",
        reason="TOO_MANY_QUARANTINED",
        metadata={reason: str(count) for reason, count in summary.by_reason.items()},
    )
