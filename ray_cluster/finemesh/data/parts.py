"""Conversions in parts: a dataset is cut into pieces of its shards, each is converted by itself, in any order
and by any process, and the manifest is made of what the parts say of themselves.

A part is complete once its `parts/<number>.json` is there, so a conversion that was killed goes on with the
parts that are missing. Until the manifest is written there is no dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from finemesh.core.spec.data import ConvertOptions, DatasetManifest, DatasetOrigin
from finemesh.data.instructions import PLAN_COLUMNS, TASKS, Scene, make_rows, plan
from finemesh.data.instructions.questions import Plan
from finemesh.data.jsonio import parse_json, write_json_atomically
from finemesh.data.rows import Progress
from finemesh.data.storage import BATCH_ROWS, iter_batches, iter_rows, load_manifest, options_json
from finemesh.data.tally import Tally, write_manifest
from finemesh.data.writers import WRITERS, FormContext
from finemesh.data.writers.classes import UNNAMED
from finemesh.data.writers.files import base_stem, picture_name, wanted_name
from finemesh.data.writing import DatasetWriter

PARTS: Final = "parts"
PART_BYTES: Final = 16 << 20
LAYOUT: Final = 1
"""Of records and of the files of parts: a new number where either changes."""


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive row groups of the parent's shards: for each shard its path and the groups."""

    number: int
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    rows: int

    @property
    def file(self) -> str:
        return f"{PARTS}/{self.number:05d}.json"

    @property
    def mark(self) -> dict[str, Any]:
        """What its record must say for its files to be of these rows, in the layout of this release."""
        return {
            "layout": LAYOUT,
            "rows": self.rows,
            "groups": {path: [*groups] for path, groups in self.groups},
        }


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is the same for all parts: made once, sent to whoever makes parts."""

    options: ConvertOptions
    parent: DatasetManifest
    parts: tuple[Part, ...]
    asked: Plan | None
    classes: tuple[str, ...]
    shared_names: frozenset[tuple[str, str]]

    def context(self, out: Path, part: int | None) -> FormContext:
        header, shared = self.parent.header, self.shared_names
        return FormContext(out, self.options, header, [*self.classes], part=part, shared_names=shared)


def plan_conversion(dataset: Path, options: ConvertOptions) -> Conversion:
    """Cut the canonical dataset in a folder into parts of about PART_BYTES of packed rows; a form whose files
    hold rows of all parts gets one part.

    Raises:
        NotFoundError, PreconditionError: as `iter_batches`. InvalidError: as `plan`, of instructions.
    """
    parent = load_manifest(dataset)
    asked = None
    if options.instruction is not None:
        asked = plan(lambda: iter_rows(dataset, columns=PLAN_COLUMNS), options)
    form = WRITERS[options.target]
    parts = _cut(dataset, parent, PART_BYTES if form.divisible else None)
    shared = _shared_names(dataset) if form.names_files else frozenset[tuple[str, str]]()
    return Conversion(options, parent, parts, asked, _classes(dataset, parent), shared)


def _classes(dataset: Path, parent: DatasetManifest) -> tuple[str, ...]:
    """All object classes, and the name for objects without one if there are such: a part cannot know that the
    others have them.
    """
    names = tuple(item.class_name for item in parent.classes)
    if parent.has_class_names or UNNAMED in names:
        return names
    for batch in iter_batches(dataset, ("objects.list.element.class_name",)):
        objects: Any = batch.column("objects").flatten()
        if objects.field("class_name").null_count:
            return (*names, UNNAMED)
    return names


def _cut(dataset: Path, parent: DatasetManifest, part_bytes: int | None) -> tuple[Part, ...]:
    made: list[Part] = []
    groups: dict[str, list[int]] = {}
    size = rows = 0

    def close() -> None:
        nonlocal size, rows
        if groups:
            packed = tuple((path, tuple(indices)) for path, indices in groups.items())
            made.append(Part(len(made), packed, rows))
        groups.clear()
        size = rows = 0

    for shard in parent.shards:
        metadata = pq.read_metadata(dataset / shard.path)
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            groups.setdefault(shard.path, []).append(index)
            size += group.total_byte_size
            rows += group.num_rows
            if part_bytes is not None and size >= part_bytes:
                close()
    close()
    return tuple(made)


def _shared_names(dataset: Path) -> frozenset[tuple[str, str]]:
    """Split and base name, without suffix, of pictures that share both with another one."""
    counts: Counter[tuple[str, str]] = Counter()
    for batch in iter_batches(dataset, ("row_id", "split", "video_id", "images.list.element.name")):
        for row in batch.to_pylist():
            for image in row["images"]:
                name = wanted_name(row["row_id"], row["video_id"], image["name"])
                stem = base_stem(picture_name(name, "", flat=True))
                counts[row["split"] or "all", stem] += 1
    return frozenset(key for key, count in counts.items() if count > 1)


def convert_part(dataset: Path, out: Path, conversion: Conversion, part: Part, progress: Progress) -> Tally:
    """Convert one part into `out`, beside the others, and say so in its file."""
    context = conversion.context(out, part.number)
    with DatasetWriter(conversion.options.target, context) as writer:
        done = 0
        for batch in _batches(dataset, part):
            if conversion.asked is None:
                writer.copy(batch)
            else:
                _ask(batch, conversion.asked, conversion.options, writer)
            done += batch.num_rows
            progress(done / max(part.rows, 1), f"{done} of {part.rows} rows")
        tally = writer.finish()
    path = out / part.file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomically(path, {"part": part.mark, "tally": tally.to_json()})
    return tally


def _batches(dataset: Path, part: Part) -> Iterator[pa.RecordBatch]:
    for path, groups in part.groups:
        with pq.ParquetFile(dataset / path) as file:
            yield from file.iter_batches(BATCH_ROWS, row_groups=list(groups))


def _ask(batch: pa.RecordBatch, asked: Plan, options: ConvertOptions, writer: DatasetWriter) -> None:
    assert options.instruction is not None
    inputs_of = TASKS[options.instruction].inputs
    rows: list[Any] = batch.to_pylist()
    for row in rows:
        inputs = inputs_of(row) if row["images"] else [row["row_id"]]
        writer.take(len(inputs))
        scene = Scene(row)
        for input_id in inputs:
            if questions := asked.questions[input_id]:
                writer.keep(input_id, make_rows(row, questions, scene, options))
            else:
                refusal = asked.refusals[input_id]
                writer.drop(input_id, refusal.reason, refusal.message)


def missing_parts(out: Path, conversion: Conversion) -> list[Part]:
    """Parts that are not complete in `out`. A record of other rows, as another release may have cut them,
    does not count.
    """
    return [part for part in conversion.parts if not _is_made(out, part)]


def _is_made(out: Path, part: Part) -> bool:
    path = out / part.file
    return path.is_file() and parse_json(path.read_bytes(), part.file).get("part") == part.mark


def recorded_files(out: Path, conversion: Conversion) -> frozenset[str]:
    """Paths of the files that the parts in `out`, which are all there, consist of."""
    tallies = (_recorded(out, part) for part in conversion.parts)
    return frozenset(shard.path for tally in tallies for shard in (*tally.shards, *tally.ledger_shards))


def _recorded(out: Path, part: Part) -> Tally:
    return Tally.from_json(parse_json((out / part.file).read_bytes(), part.file)["tally"])


def assemble(out: Path, conversion: Conversion) -> DatasetManifest:
    """The manifest of the parts in `out`, which are all there; what they said apart is removed.

    Raises:
        PreconditionError: EMPTY_DATASET, the options leave no row, e.g. classify_region without class names.
    """
    parent, options = conversion.parent, conversion.options
    whole = Tally()
    for part in conversion.parts:
        whole.add(_recorded(out, part))
    manifest = write_manifest(
        whole,
        conversion.context(out, None),
        options.target,
        DatasetOrigin.CONVERT,
        options=options_json(options),
        parents=[parent.digest],
        warnings=parent.warnings,
        leakage=parent.leakage,
        header=parent.header,
    )
    _forget(out, conversion.parts)
    return manifest


def _forget(out: Path, parts: Sequence[Part]) -> None:
    for part in parts:
        (out / part.file).unlink()
    (out / PARTS).rmdir()
