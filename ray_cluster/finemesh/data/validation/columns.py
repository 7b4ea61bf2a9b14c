"""A batch of canonical rows as columns: what can be checked without making a Python value of every row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finemesh.data.arrow import numbers
from finemesh.data.storage import iter_batches
from finemesh.data.validation.findings import Place

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_IMAGE: Final = "images.list.element"
_OBJECT: Final = "objects.list.element"
COLUMNS: Final = (
    "row_id",
    "video_id",
    "class_name",
    "captions",
    "text",
    "messages",
    "rejected",
    "split",
    *(f"{_IMAGE}.{name}" for name in ("width", "height", "sha256")),
    *(f"{_OBJECT}.{name}" for name in ("object_id", "class_name", "bbox", "rle_counts", "visible")),
)
"""All that is looked at without opening a picture."""


class Items:
    """The items of a list column, one after the other.

    Attributes:
        rows: int64[M], the row in the batch of each item.
        slots: int64[M], its place in the row.
        lengths, firsts: int64[rows], how many items each row has, and where they begin.
        values: the items.
    """

    def __init__(self, column: Any) -> None:
        lengths = numbers(column.value_lengths()).astype(np.int64)
        self.values: Any = column.flatten()
        self.lengths: Ints = lengths
        self.firsts: Ints = np.cumsum(lengths) - lengths
        self.rows: Ints = np.repeat(np.arange(len(lengths)), lengths)
        self.slots: Ints = np.arange(len(self.rows)) - self.firsts[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def arrow(self, name: str) -> Any:
        return self.values.field(name)

    def numbers(self, name: str) -> npt.NDArray[Any]:
        return numbers(self.arrow(name))


@dataclass(frozen=True)
class Batch:
    """Some rows with COLUMNS. `first` is the number of the first of them in the dataset."""

    first: int
    table: pa.RecordBatch

    def __len__(self) -> int:
        return self.table.num_rows

    def place(self, row: int) -> Place:
        return Place(self.first + row, self.table.column("row_id")[row].as_py())

    @cached_property
    def images(self) -> Items:
        return Items(self.table.column("images"))

    @cached_property
    def objects(self) -> Items:
        return Items(self.table.column("objects"))

    @cached_property
    def talks(self) -> Bools:
        """bool[rows], those that are conversations."""
        return numbers(self.table.column("messages").value_lengths()) > 0

    @cached_property
    def speaks(self) -> Bools:
        """bool[rows], those that say anything in words."""
        lists = [self.table.column(name) for name in ("messages", "rejected", "captions")]
        filled = [numbers(each.value_lengths()) > 0 for each in lists]
        texts = numbers(self.table.column("text").is_valid())
        return np.logical_or.reduce([*filled, texts])

    @cached_property
    def image_sizes(self) -> Ints:
        """int64[images, 2], stated width and height in pixels."""
        sides = [self.images.numbers(name).astype(np.int64) for name in ("width", "height")]
        return np.column_stack(sides)

    @cached_property
    def row_sizes(self) -> Ints:
        """int64[rows, 2], width and height of each row's first picture; zeros without one."""
        sizes = np.zeros((len(self), 2), np.int64)
        filled = self.images.lengths > 0
        sizes[filled] = self.image_sizes[self.images.firsts[filled]]
        return sizes

    @cached_property
    def boxes(self) -> Floats:
        """float64[objects, 4], x, y, width, height in pixels."""
        return numbers(self.objects.arrow("bbox").flatten()).reshape(-1, 4)

    @cached_property
    def visible(self) -> Bools:
        return self.objects.numbers("visible").astype(np.bool_)


def read_columns(dataset: Path) -> Iterator[Batch]:
    """The rows of a canonical dataset without its pictures. Raises as `iter_batches`."""
    first = 0
    for table in iter_batches(dataset, COLUMNS):
        yield Batch(first, table)
        first += table.num_rows
