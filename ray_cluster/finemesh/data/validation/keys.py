"""What of the rows is kept until all have gone by, to tell copies and leaks: a few dozen bytes for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finemesh.core.spec.data import Split
from finemesh.data.arrow import letters, numbers
from finemesh.data.validation.columns import Batch, Bools, Ints
from finemesh.data.validation.findings import Place

_SPLITS = tuple(Split)
_DIGITS = np.full(256, 255, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """The keys of all rows.

    Attributes:
        ids: of the rows.
        videos: int64[rows], a number for each video, -1 without one.
        splits: int64[rows], places in the enum Split.
        talks: bool[rows], whether the row is a conversation.
        image_rows, image_slots: int64[pictures], the row of each picture and its place there.
        contents: int64[pictures], a number for each distinct content, by the stated SHA-256.
    """

    ids: pa.ChunkedArray
    videos: Ints
    splits: Ints
    talks: Bools
    image_rows: Ints
    image_slots: Ints
    contents: Ints

    def place(self, row: int) -> Place:
        return Place(row, self.ids[row].as_py())

    def in_train(self) -> Bools:
        """bool[rows]."""
        return self.splits == _SPLITS.index(Split.TRAIN)

    def held_out(self) -> Bools:
        """bool[rows]: those of val and test."""
        return np.isin(self.splits, [_SPLITS.index(Split.VAL), _SPLITS.index(Split.TEST)])


class KeyTable:
    """Gathers the keys, batch by batch."""

    def __init__(self) -> None:
        self._ids: list[Any] = []
        self._videos: dict[str | None, int] = {None: -1}
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, batch: Batch) -> None:
        table, images = batch.table, batch.images
        self._ids.append(table.column("row_id"))
        self._append("videos", _codes(table.column("video_id"), self._videos))
        known: dict[str | None, int] = {split.value: place for place, split in enumerate(_SPLITS)}
        self._append("splits", _codes(table.column("split"), known))
        self._append("talks", batch.talks)
        self._append("image_rows", images.rows + batch.first)
        self._append("image_slots", images.slots)
        self._append("digests", _first_bits(images.arrow("sha256")))

    def _append(self, name: str, values: npt.NDArray[Any]) -> None:
        self._columns.setdefault(name, []).append(values)

    def finish(self) -> Keys:
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        if not columns:
            none = np.zeros(0, np.int64)
            return Keys(pa.chunked_array([], pa.string()), none, none, none > 0, none, none, none)
        digests = columns.pop("digests")
        _, contents = np.unique(digests, axis=0, return_inverse=True)
        return Keys(
            ids=pa.chunked_array(self._ids), contents=contents.reshape(-1).astype(np.int64), **columns
        )


def _codes(column: Any, known: dict[str | None, int]) -> Ints:
    """A number for each value, by `known`, to which new values are added."""
    encoded = column.dictionary_encode(null_encoding="encode")
    values = encoded.dictionary.to_pylist()
    table = np.array([known.setdefault(value, len(known)) for value in values], np.int64)
    return table[numbers(encoded.indices)] if len(values) else np.zeros(0, np.int64)


def _first_bits(digests: Any) -> npt.NDArray[np.uint64]:
    """uint64[N, 2], the first 128 bits of digests in hexadecimal; what is none counts as zeros."""
    digits = _DIGITS[letters(digests, 32)] & 15
    return (digits[:, ::2] << 4 | digits[:, 1::2]).astype(np.uint8).view(np.uint64)
