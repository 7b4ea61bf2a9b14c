"""Writing a dataset with a split for every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from finemesh.core.spec.data import DatasetManifest, DatasetOrigin, Split, SplitOptions, SplitStrategy
from finemesh.data.rows import Progress
from finemesh.data.splitting.alike import AlikePictures, compare_pictures
from finemesh.data.splitting.assigning import assign_splits, strategy_of
from finemesh.data.splitting.keys import RowKey, read_keys
from finemesh.data.splitting.leakage import leakage_notes, measure_leakage
from finemesh.data.storage import iter_batches, load_manifest, options_json
from finemesh.data.writers import FormContext
from finemesh.data.writing import DatasetWriter

_COMPARING: Final = 0.5  # share of the work that is comparing pictures, where they are compared


def split_dataset(dataset: Path, out: Path, options: SplitOptions, progress: Progress) -> DatasetManifest:
    """Write the canonical dataset in `dataset` to `out`, an empty or absent folder, with a split for every
    row.

    Raises:
        InvalidError: as `assign_splits`, e.g. SPLIT_IMPOSSIBLE, there are too few videos or frames for the
            splits asked for.
        NotFoundError, PreconditionError: as `iter_batches`. AlreadyExistsError: OUTPUT_NOT_EMPTY.
    """
    parent = load_manifest(dataset)
    progress(0.0, "reading keys")
    keys = read_keys(dataset, options)
    alike = _compare(dataset, keys, options, progress)
    splits, notes = assign_splits(keys, options, alike)
    leakage = measure_leakage(keys, splits, alike)
    notes += _replaced(parent, options)
    notes += leakage_notes(leakage, within_videos=strategy_of(keys, options) is SplitStrategy.TEMPORAL)
    if alike and alike.unreadable:
        notes.append(f"{alike.unreadable} pictures cannot be decoded: compared byte for byte alone")
    done, begin = 0, _COMPARING if alike else 0.0
    with DatasetWriter(parent.format, FormContext(out)) as writer:
        for batch in iter_batches(dataset):
            writer.copy(_with_splits(batch, splits))
            done += batch.num_rows
            progress(begin + (1 - begin) * done / len(keys), f"{done} of {len(keys)} rows")
        manifest = writer.commit(
            DatasetOrigin.SPLIT,
            options=options_json(options),
            parents=[parent.digest],
            warnings=list(dict.fromkeys([*parent.warnings, *notes])),
            leakage=leakage,
            header=parent.header,
        )
    progress(1.0, ", ".join(f"{split} {count}" for split, count in manifest.splits.items()))
    return manifest


def _replaced(parent: DatasetManifest, options: SplitOptions) -> list[str]:
    """A sentence about the splits that the dataset had before, unless they are asked for."""
    before = ", ".join(f"{split} {rows}" for split, rows in parent.splits.items() if split)
    if not before or options.strategy is SplitStrategy.PREDEFINED:
        return []
    return [f"the splits it had before are replaced ({before}): predefined keeps them"]


def _compare(
    dataset: Path, keys: Sequence[RowKey], options: SplitOptions, progress: Progress
) -> AlikePictures | None:
    """How alike the pictures are; None if nobody wants to know, or there are none."""
    if options.max_similar_bits < 0 or not any(key.images for key in keys):
        return None
    done = 0

    def on_rows(count: int) -> None:
        nonlocal done
        done += count
        progress(_COMPARING * done / len(keys), f"{done} of {len(keys)} rows: comparing pictures")

    return compare_pictures(dataset, options.max_similar_bits, on_rows)


def _with_splits(batch: pa.RecordBatch, splits: Mapping[str, Split]) -> pa.RecordBatch:
    index = batch.schema.get_field_index("split")
    values = [splits[row_id].value for row_id in batch.column("row_id").to_pylist()]
    return batch.set_column(index, batch.schema.field(index), pa.array(values, pa.string()))
