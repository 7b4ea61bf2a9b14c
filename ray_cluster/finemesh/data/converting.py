"""Converting a dataset: into conversations, into another form, or both at once."""

from __future__ import annotations

from pathlib import Path

from finemesh.core.spec.data import ConvertOptions, DatasetManifest, DatasetOrigin
from finemesh.data.instructions import PLAN_COLUMNS, TASKS, Scene, make_rows, plan
from finemesh.data.rows import Progress
from finemesh.data.storage import iter_batches, iter_rows, load_manifest, options_json
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter


def convert_dataset(dataset: Path, out: Path, options: ConvertOptions, progress: Progress) -> DatasetManifest:
    """Convert the canonical dataset in `dataset` into `out`, an empty or absent folder. Splits are inherited.

    With an instruction every object of the parent (and every row without objects) is an input of the ledger;
    without one, every row is.

    Raises:
        NotFoundError, PreconditionError: as `iter_batches`. AlreadyExistsError: OUTPUT_NOT_EMPTY.
        PreconditionError: EMPTY_DATASET, the options leave no row, e.g. classify_region without class names.
    """
    parent = load_manifest(dataset)
    progress(0.0, "planning")
    context = FormContext(out, options, parent.header, [item.class_name for item in parent.classes])
    with DatasetWriter(options.target, context) as writer:
        if options.instruction is None:
            _copy(dataset, parent, writer, progress)
        else:
            _instruct(dataset, parent, writer, options, progress)
        manifest = writer.commit(
            DatasetOrigin.CONVERT,
            options=options_json(options),
            parents=[parent.digest],
            warnings=parent.warnings,
            leakage=parent.leakage,
            header=parent.header,
        )
    progress(1.0, f"{manifest.rows} rows written")
    return manifest


def _copy(dataset: Path, parent: DatasetManifest, writer: DatasetWriter, progress: Progress) -> None:
    done = 0
    for batch in iter_batches(dataset):
        writer.copy(batch)
        done += batch.num_rows
        progress(done / max(parent.rows, 1), f"{done} of {parent.rows} rows")


def _instruct(
    dataset: Path, parent: DatasetManifest, writer: DatasetWriter, options: ConvertOptions, progress: Progress
) -> None:
    assert options.instruction is not None
    inputs_of = TASKS[options.instruction].inputs
    made = plan(lambda: iter_rows(dataset, columns=PLAN_COLUMNS), options)
    for number, row in enumerate(iter_rows(dataset), start=1):
        inputs = inputs_of(row) if row["images"] else [row["row_id"]]
        writer.take(len(inputs))
        scene = Scene(row)
        for input_id in inputs:
            if asked := made.questions[input_id]:
                writer.keep(input_id, make_rows(row, asked, scene, options))
            else:
                refusal = made.refusals[input_id]
                writer.drop(input_id, refusal.reason, refusal.message)
        _report(number, parent, progress)


def _report(number: int, parent: DatasetManifest, progress: Progress) -> None:
    if number % 16 == 0:
        progress(number / max(parent.rows, number), f"{number} of {parent.rows} rows")
