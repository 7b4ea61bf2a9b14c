"""What a manifest counts, gathered while rows go by: splits, classes, answers, media, videos."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

import numpy as np

from finemesh.core.spec.data import ClassCount
from finemesh.data.batches import RowBatch
from finemesh.data.boxes import BoxBatch
from finemesh.data.images import ABSENT

COLUMNS: Final = ("video_id", "objects", "class_name", "messages", "split")
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
        for row in batch.columns(COLUMNS):
            self._observe_row(row)

    def observe_boxes(self, batch: BoxBatch) -> None:
        """As rows without a split that have these objects alone."""
        self.rows += len(batch.row_ids)
        self.splits[""] += len(batch.row_ids)
        self.media[ABSENT] += len(batch.row_ids)
        visible, width = batch.visible, len(batch.class_names)
        objects = np.bincount(batch.classes, minlength=width).tolist()
        shown = np.bincount(batch.classes[visible], minlength=width).tolist()
        pairs = np.unique(batch.pictures[visible] * width + batch.classes[visible])
        rows = np.bincount(pairs % max(width, 1), minlength=width).tolist()
        for name, count, seen, held in zip(batch.class_names, objects, shown, rows, strict=True):
            if count:
                self._objects[name] += count
                self._visible[name] += seen
            if seen:
                self._class_splits[name][""] += seen
                self._class_rows[name][""] += held

    def _observe_row(self, row: Mapping[str, Any]) -> None:
        split = row["split"]
        self.rows += 1
        self.splits[split] += 1
        if row["video_id"] is not None:
            self._videos.add(row["video_id"])
        if row["class_name"] is not None:
            self._row_classes[row["class_name"]][split] += 1
        self._observe_objects(row["objects"], split)
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
