"""What a dataset is like, in figures: the plots of a report are drawn from these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from finemesh.core.spec.data import Leakage
from finemesh.data.validation.columns import Batch

MAX_SIZES: Final = 100
"""Different picture sizes that are told apart; the rarer ones are left out."""
_MAX_OBJECTS: Final = 1 << 16
_BOX_EDGES: Final = np.geomspace(0.001, 1, 31)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values between edges, of which there is one more; a value on an edge counts above it, and
    the last edge belongs to the last bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.counts)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Histogram:
        return cls(tuple(value["edges"]), tuple(value["counts"]))


def histogram(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> Histogram:
    """Values beyond the edges count in the bins at the ends."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Lengths of the rows' texts in tokens, and what a limit cuts off; `max_tokens` of 0 is no limit."""

    tokenizer: str
    max_tokens: int
    rows: int
    median: int
    longest: int
    rows_cut: int
    tokens_cut: int
    lengths: Histogram

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TokenLengths:
        values: dict[str, Any] = {**value, "lengths": Histogram.from_json(value["lengths"])}
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Measures:
    """What was counted on the way.

    Attributes:
        pictures, objects: how many there are.
        objects_per_picture: of the rows with a picture.
        picture_sizes: width, height in pixels and how often, the most frequent first, at most MAX_SIZES.
        box_sizes: square root of the share of its picture that a box covers, 0 to 1.
        near_pairs: pairs of pictures that look alike; None if they were not compared.
        leakage: None if nothing is held out.
        tokens: None without a tokenizer.
    """

    pictures: int = 0
    objects: int = 0
    objects_per_picture: Histogram = Histogram((0.0, 1.0), (0,))
    picture_sizes: tuple[tuple[int, int, int], ...] = ()
    box_sizes: Histogram = Histogram((0.0, 1.0), (0,))
    near_pairs: int | None = None
    leakage: Leakage | None = None
    tokens: TokenLengths | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Measures:
        return cls(
            pictures=value["pictures"],
            objects=value["objects"],
            objects_per_picture=Histogram.from_json(value["objects_per_picture"]),
            picture_sizes=tuple((width, height, count) for width, height, count in value["picture_sizes"]),
            box_sizes=Histogram.from_json(value["box_sizes"]),
            near_pairs=value["near_pairs"],
            leakage=Leakage(**value["leakage"]) if value["leakage"] else None,
            tokens=TokenLengths.from_json(value["tokens"]) if value["tokens"] else None,
        )


@dataclass(slots=True)
class Meter:
    """Counts, batch by batch."""

    pictures: int = 0
    objects: int = 0
    _crowds: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    _sizes: Counter[tuple[int, int]] = field(default_factory=Counter[tuple[int, int]])
    _boxes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_BOX_EDGES) - 1, np.int64))

    def observe(self, batch: Batch) -> None:
        self.pictures += len(batch.images)
        self.objects += len(batch.objects)
        if len(batch.images):
            crowds = np.bincount(np.minimum(batch.objects.lengths[batch.images.lengths > 0], _MAX_OBJECTS))
            longest = max(len(crowds), len(self._crowds))
            self._crowds = np.pad(self._crowds, (0, longest - len(self._crowds)))
            self._crowds[: len(crowds)] += crowds
            sizes, counts = np.unique(batch.image_sizes, axis=0, return_counts=True)
            self._sizes.update(dict(zip(map(tuple, sizes.tolist()), counts.tolist(), strict=True)))
        if len(batch.objects):
            area = batch.row_sizes[batch.objects.rows].prod(axis=1).astype(np.float64)
            with np.errstate(all="ignore"):
                share = np.sqrt(batch.boxes[:, 2] * batch.boxes[:, 3] / area)
            self._boxes += histogram(share[np.isfinite(share) & (share > 0)], _BOX_EDGES).counts

    def finish(
        self, *, near_pairs: int | None, leakage: Leakage | None, tokens: TokenLengths | None
    ) -> Measures:
        return Measures(
            pictures=self.pictures,
            objects=self.objects,
            objects_per_picture=whole_numbers(self._crowds),
            picture_sizes=tuple((w, h, count) for (w, h), count in self._sizes.most_common(MAX_SIZES)),
            box_sizes=Histogram(tuple(_BOX_EDGES.tolist()), tuple(self._boxes.tolist())),
            near_pairs=near_pairs,
            leakage=leakage,
            tokens=tokens,
        )


def whole_numbers(counts: npt.NDArray[np.int64], most: int = 40) -> Histogram:
    """The histogram of whole numbers, given how often each occurs from 0 on, in at most `most` equal bins."""
    width = -(-len(counts) // most)
    padded = np.pad(counts, (0, -len(counts) % width)).reshape(-1, width).sum(axis=1)
    return Histogram(
        tuple(float(edge) for edge in range(0, width * len(padded) + 1, width)), tuple(padded.tolist())
    )
