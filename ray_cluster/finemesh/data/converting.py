"""Converting a dataset: into conversations, into another form, or both at once."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from finemesh.core.spec.data import ConvertOptions, DatasetManifest, DatasetOrigin
from finemesh.data.images import decode_rgb
from finemesh.data.instructions import PLAN_COLUMNS, Item, item_id, make_items, plan
from finemesh.data.rows import Progress
from finemesh.data.schema import Row
from finemesh.data.storage import iter_rows, load_manifest, options_json
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
    with DatasetWriter(out, options.target) as writer:
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
    for number, row in enumerate(iter_rows(dataset), start=1):
        writer.take()
        writer.keep(row["row_id"], [row])
        _report(number, parent, progress)


def _instruct(
    dataset: Path, parent: DatasetManifest, writer: DatasetWriter, options: ConvertOptions, progress: Progress
) -> None:
    fates = plan(iter_rows(dataset, columns=PLAN_COLUMNS), options).fates
    items = {identity: fate for identity, fate in fates.items() if isinstance(fate, Item)}
    for number, row in enumerate(iter_rows(dataset), start=1):
        inputs = [item_id(row["row_id"], item["object_id"]) for item in row["objects"]] or [row["row_id"]]
        writer.take(len(inputs))
        made: defaultdict[str, list[Row]] = defaultdict(list)
        if any(identity in items for identity in inputs):
            for child in make_items(row, decode_rgb(row["images"][0]["data"]), items, options):
                made[child["row_id"]].append(child)
        for identity in inputs:
            fate = fates[identity]
            if isinstance(fate, Item):
                writer.keep(identity, made[identity])
            else:
                writer.drop(identity, fate.reason, fate.message)
        _report(number, parent, progress)


def _report(number: int, parent: DatasetManifest, progress: Progress) -> None:
    if number % 16 == 0:
        progress(number / max(parent.rows, number), f"{number} of {parent.rows} rows")
