"""Samples to tensors. Packed: one row without padding, samples kept apart. Padded: one row each.

Shape legend: B rows (1 if packed), T tokens of a row, N tokens that carry loss, I images, C, H, W of a
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from finemesh.finetune.encoding import Picture, Sample
from finemesh.finetune.rows import Location

LoadPicture = Callable[[Location], Picture]


class _Sized(Protocol):
    @property
    def tokens(self) -> int: ...


S = TypeVar("S", bound=_Sized)


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
        tokens: real ones, without padding.
    """

    inputs: dict[str, Any]
    predict_BT: torch.Tensor
    targets_N: torch.Tensor
    targets_per_sample: list[int]
    tokens: int


def cut(samples: Sequence[S], size: int) -> list[list[S]]:
    """The samples of one optimiser step as micro batches of `size`.

    Equal lengths lie next to each other within a micro batch: they are attended as one (see `attention`).
    """
    return [
        sorted(samples[start : start + size], key=lambda sample: sample.tokens)
        for start in range(0, len(samples), size)
    ]


def collate(
    samples: Sequence[Sample], load_picture: LoadPicture, *, packing: bool, pad_id: int, device: torch.device
) -> Batch:
    """Build a batch. Packed, it has reset positions and no attention mask (see `attention`)."""
    lengths = [sample.tokens for sample in samples]
    predict = [_shifted(sample) for sample in samples]
    targets_N = np.concatenate([sample.input_ids_T[sample.loss_T] for sample in samples])
    ids = [sample.input_ids_T for sample in samples]
    if packing:
        inputs: dict[str, Any] = {
            "input_ids": _row(ids, device),
            "position_ids": _row([np.arange(length) for length in lengths], device),
            "sequence_lengths": lengths,
        }
        predict_BT = _row(predict, device)
    else:
        width = max(lengths)
        inputs = {
            "input_ids": _padded(ids, width, pad_id, device),
            "attention_mask": _padded([np.ones(length, np.int64) for length in lengths], width, 0, device),
        }
        predict_BT = _padded(predict, width, fill=False, device=device)
    pictures = [load_picture(sample.location) for sample in samples if sample.location]
    if pictures:
        inputs["pixel_values"] = torch.from_numpy(np.stack(pictures)).to(device)
    return Batch(
        inputs=inputs,
        predict_BT=predict_BT,
        targets_N=torch.from_numpy(targets_N).to(device),
        targets_per_sample=[int(sample.loss_T.sum()) for sample in samples],
        tokens=sum(lengths),
    )


def _shifted(sample: Sample) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Position t predicts token t + 1; the last position of a sequence predicts nothing."""
    return np.append(sample.loss_T[1:], False)


def _row(parts: Sequence[np.ndarray[Any, Any]], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts)).unsqueeze(0).to(device)


def _padded(
    parts: Sequence[np.ndarray[Any, Any]], width: int, fill: int | bool, device: torch.device
) -> torch.Tensor:
    rows = np.full((len(parts), width), fill, dtype=parts[0].dtype)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return torch.from_numpy(rows).to(device)
