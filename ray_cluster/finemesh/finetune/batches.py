"""Samples to tensors. Packed: one row without padding, samples kept apart. Padded: one row each.

Shape legend: B rows (1 if packed), T tokens of a row, N tokens that carry loss, X axes of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from finemesh.finetune.encoding import Sample
from finemesh.finetune.objectives.objective import moved
from finemesh.finetune.sight import Pictures


class _Sized(Protocol):
    @property
    def size(self) -> int: ...


S = TypeVar("S", bound=_Sized)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass.

    Attributes:
        inputs: keyword arguments of the model's forward.
        predict_BT: True at the positions whose *next* token carries loss; never at the end of a sequence, so
        that
            no sample predicts the first token of its neighbour.
        targets_N: those next tokens, in row-major order of `predict_BT`.
        targets_per_sample: how many of them belong to each sample.
        units: tokens, without padding.
    """

    inputs: dict[str, Any]
    predict_BT: torch.Tensor
    targets_N: torch.Tensor
    targets_per_sample: list[int]
    units: int

    @property
    def weight(self) -> float:
        return len(self.targets_N)

    def to(self, device: torch.device) -> Batch:
        inputs, predict_BT, targets_N = (
            moved(each, device) for each in (self.inputs, self.predict_BT, self.targets_N)
        )
        return replace(self, inputs=inputs, predict_BT=predict_BT, targets_N=targets_N)


def shares(samples: Sequence[S], size: int, ranks: int) -> list[list[list[S]]]:
    """The samples of one optimiser step by rank, as micro batches of at most `size`.

    Micro batches are dealt as one process would make them, or, when they do not go round, the samples are.
    """
    batches = cut(samples, size)
    if len(batches) % ranks == 0:
        return _dealt(batches, [sum(sample.size for sample in batch) for batch in batches], ranks)
    return [cut(share, size) for share in _dealt(samples, [sample.size for sample in samples], ranks)]


def _dealt(things: Sequence[T], sizes: Sequence[int], ranks: int) -> list[list[T]]:
    """As many for each, give or take: the largest first, to whom has least. Each has its own in order."""
    most = -(-len(things) // ranks)
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(things)), key=lambda index: -sizes[index]):
        open_ranks = (share for share in dealt if len(share) < most)
        min(open_ranks, key=lambda share: sum(sizes[each] for each in share)).append(index)
    return [[things[index] for index in sorted(share)] for share in dealt]


def cut(samples: Sequence[S], size: int) -> list[list[S]]:
    """The samples of one optimiser step as micro batches of `size`.

    Equal lengths lie next to each other within a micro batch: they are attended as one (see `attention`).
    """
    return [
        sorted(samples[start : start + size], key=lambda sample: sample.size)
        for start in range(0, len(samples), size)
    ]


def collate(samples: Sequence[Sample], pictures: Pictures, *, packing: bool, pad_id: int) -> Batch:
    """Build a batch on the CPU. Packed, it has reset positions and no attention mask (see `attention`)."""
    lengths = [sample.size for sample in samples]
    predict = [_shifted(sample) for sample in samples]
    targets_N = np.concatenate([sample.input_ids_T[sample.loss_T] for sample in samples])
    ids = [sample.input_ids_T for sample in samples]
    positions = [each for each in map(pictures.positions, samples) if each is not None]
    if packing:
        inputs: dict[str, Any] = {
            "input_ids": _row(ids),
            "position_ids": _row(positions or [np.arange(length) for length in lengths]),
            "sequence_lengths": lengths,
        }
        predict_BT = _row(predict)
    else:
        width = max(lengths)
        inputs = {
            "input_ids": _padded(ids, width, pad_id),
            "attention_mask": _padded([np.ones(length, np.int64) for length in lengths], width, 0),
        }
        if positions:
            axes = zip(*positions, strict=True)
            inputs["position_ids"] = torch.stack([_padded(axis, width, 0) for axis in axes])
        predict_BT = _padded(predict, width, fill=False)
    return Batch(
        inputs=inputs | pictures.inputs(samples),
        predict_BT=predict_BT,
        targets_N=torch.from_numpy(targets_N),
        targets_per_sample=[int(sample.loss_T.sum()) for sample in samples],
        units=sum(lengths),
    )


def _shifted(sample: Sample) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Position t predicts token t + 1; the last position of a sequence predicts nothing."""
    return np.append(sample.loss_T[1:], False)


def _row(parts: Sequence[np.ndarray[Any, Any]]) -> torch.Tensor:
    """Parts (T) joined to (1, T), parts (X, T) to (X, 1, T)."""
    return torch.from_numpy(np.concatenate(parts, axis=-1)).unsqueeze(-2 if parts[0].ndim > 1 else 0)


def _padded(parts: Sequence[np.ndarray[Any, Any]], width: int, fill: int | bool) -> torch.Tensor:
    rows = np.full((len(parts), width), fill, dtype=parts[0].dtype)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return torch.from_numpy(rows)
