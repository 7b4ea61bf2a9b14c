"""What a manifest counts, gathered while rows go by: splits, classes, answers, media, videos."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finemesh.core.spec.data import ClassCount
from finemesh.data.arrow import numbers
from finemesh.data.batches import RowBatch
from finemesh.data.boxes import BoxBatch
from finemesh.data.images import ABSENT

COLUMNS: Final = ("video_id", "class_name", "messages", "split")
MAX_ANSWERS: Final = 1000  # free text has no table of answers


class Statistics:
    """Counts over batches of canonical rows."""

    def __init__(self) -> None:
        self.rows = self.conversations = 0
        self.splits: Counter[str] = Counter()
        self.media: Counter[str] = Counter()
        self._videos: set[str] = set()
        self._objects: Counter[str] = Counter()
        self._visible: Counter[str] = Counter()
        self._class_splits: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._class_rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._row_classes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._unnamed = 0

    def add(self, other: Statistics) -> None:
        """Count what another part has counted."""
        self.rows += other.rows
        self.conversations += other.conversations
        self._unnamed += other._unnamed
        self._videos |= other._videos
        for mine, its in zip(self._counters, other._counters, strict=True):
            mine.update(its)
        for mine, its in zip(self._tables, other._tables, strict=True):
            for name, counts in its.items():
                mine[name].update(counts)

    @property
    def _counters(self) -> tuple[Counter[str], ...]:
        return self.splits, self.media, self._objects, self._visible

    @property
    def _tables(self) -> tuple[defaultdict[str, Counter[str]], ...]:
        return self._class_splits, self._class_rows, self._row_classes, self._answers

    def to_json(self) -> dict[str, Any]:
        return {
            "counts": [self.rows, self.conversations, self._unnamed],
            "videos": sorted(self._videos),
            "counters": self._counters,
            "tables": self._tables,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        made = cls()
        made.rows, made.conversations, made._unnamed = value["counts"]
        made._videos = set(value["videos"])
        for counter, counts in zip(made._counters, value["counters"], strict=True):
            counter.update(counts)
        for table, counted in zip(made._tables, value["tables"], strict=True):
            table.update({name: Counter(counts) for name, counts in counted.items()})
        return made

    def observe(self, batch: RowBatch) -> None:
        self.media.update(batch.media)
        rows = batch.columns(COLUMNS)
        for row in rows:
            self._observe_row(row)
        if batch.given_arrow is not None:
            self._observe_columns(batch.given_arrow)
            return
        for row in rows:
            self._observe_objects(row["objects"], row["split"])

    def observe_boxes(self, batch: BoxBatch) -> None:
        """As rows that have these objects alone."""
        count = len(batch.row_ids)
        self.rows += count
        self.splits[batch.split] += count
        self.media[ABSENT] += count
        splits = np.zeros(count, np.int64)
        self._count(batch.class_names, batch.classes, batch.visible, batch.pictures, [batch.split], splits)

    def _observe_columns(self, batch: pa.RecordBatch) -> None:
        """The objects of canonical rows, without making Python of them."""
        lists: Any = batch.column("objects")
        objects = lists.flatten()
        rows = np.repeat(np.arange(batch.num_rows), np.diff(numbers(lists.offsets)))
        names, splits = objects.field("class_name"), batch.column("split").dictionary_encode()
        named = numbers(names.is_valid())
        self._unnamed += names.null_count
        classes = names.dictionary_encode()
        self._count(
            classes.dictionary.to_pylist(),
            numbers(classes.indices.fill_null(0))[named].astype(np.int64),
            numbers(objects.field("visible"))[named],
            rows[named],
            splits.dictionary.to_pylist(),
            numbers(splits.indices).astype(np.int64),
        )

    def _count(
        self,
        names: Sequence[str],
        classes: npt.NDArray[np.int64],
        visible: npt.NDArray[np.bool_],
        rows: npt.NDArray[np.int64],
        split_names: Sequence[str],
        splits: npt.NDArray[np.int64],
    ) -> None:
        """Count objects: `classes` are places in `names`, `rows` in `splits`, which are places in
        `split_names`.
        """
        width, depth = max(len(names), 1), len(split_names)
        shape = (width, depth)

        def table(classes: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> list[list[int]]:
            counts = np.bincount(classes * depth + splits[rows], minlength=width * depth)
            return counts.reshape(shape).tolist()

        in_row = np.sort(rows[visible] * width + classes[visible])
        in_row = in_row[np.diff(in_row, prepend=-1) > 0]  # each once; np.unique would load numpy.ma
        objects = np.bincount(classes, minlength=width).tolist()
        shown, held = table(classes[visible], rows[visible]), table(in_row % width, in_row // width)
        for name, count, seen, holding in zip(names, objects, shown, held, strict=False):
            if not count:
                continue
            self._objects[name] += count
            self._visible[name] += sum(seen)
            for split, objects_seen, rows_seen in zip(split_names, seen, holding, strict=True):
                if objects_seen:
                    self._class_splits[name][split] += objects_seen
                    self._class_rows[name][split] += rows_seen

    def _observe_row(self, row: Mapping[str, Any]) -> None:
        split = row["split"]
        self.rows += 1
        self.splits[split] += 1
        if row["video_id"] is not None:
            self._videos.add(row["video_id"])
        if row["class_name"] is not None:
            self._row_classes[row["class_name"]][split] += 1
        messages = row["messages"]
        self.conversations += bool(messages)
        if len(messages) == 2 and messages[1]["role"] == "assistant":
            self._answers[split]["".join(part["text"] for part in messages[1]["content"])] += 1

    def _observe_objects(self, objects: Iterable[Mapping[str, Any]], split: str) -> None:
        shown: Counter[str] = Counter()
        for item in objects:
            name = item["class_name"]
            if name is None:
                self._unnamed += 1
                continue
            self._objects[name] += 1
            shown[name] += item["visible"]
        for name, visible in shown.items():
            self._visible[name] += visible
            if visible:
                self._class_splits[name][split] += visible
                self._class_rows[name][split] += 1

    @property
    def videos(self) -> int:
        return len(self._videos)

    @property
    def has_class_names(self) -> bool:
        return self._unnamed == 0 and bool(self._objects)

    @property
    def classes(self) -> tuple[ClassCount, ...]:
        return tuple(
            ClassCount(
                name,
                count,
                self._visible[name],
                dict(sorted(self._class_splits[name].items())),
                dict(sorted(self._class_rows[name].items())),
            )
            for name, count in sorted(self._objects.items())
        )

    @property
    def row_classes(self) -> dict[str, dict[str, int]]:
        return {name: dict(sorted(rows.items())) for name, rows in sorted(self._row_classes.items())}

    @property
    def answers(self) -> dict[str, dict[str, int]]:
        if sum(len(table) for table in self._answers.values()) > MAX_ANSWERS:
            return {}
        return {split: dict(sorted(table.items())) for split, table in sorted(self._answers.items())}
