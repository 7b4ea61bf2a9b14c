"""What objectives about pictures share: rows to samples with a fate for each, scoring, results of items."""

from __future__ import annotations

import contextlib
import json
from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from finemesh.core.errors import InvalidError
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.models import Model
from finemesh.finetune.objectives.objective import B, Objective, S, Split
from finemesh.finetune.pictures import PictureRow, kept, sound_pictures
from finemesh.finetune.statistics import Interval


class PictureObjective(Objective[S, B]):
    """An objective whose samples are pictures with one row each."""

    _shape: tuple[int, ...] = ()

    def encode(self, split: str, limit: int = 0) -> Split[S]:
        """Every picture is decoded here, so that one that cannot be is found before the training.

        Raises what `Objective.encode` raises.
        """
        encoded: Split[S] = Split([], [], 0)
        for row, picture in sound_pictures(self.dataset, split, limit):
            made = picture if isinstance(picture, LedgerEntry) else self.sample(row, picture)
            if isinstance(made, LedgerEntry):
                encoded.entries.append(made)
            else:
                encoded.samples.append(made)
                encoded.entries.append(kept(row))
        return encoded

    def check_shape(self, row: PictureRow, shape: tuple[int, ...]) -> None:
        """Refuse a processor whose pictures do not go into one batch. Raises InvalidError."""
        self._shape = self._shape or shape
        if shape != self._shape:
            raise InvalidError.of(
                "spec.base_model",
                f"its processor makes {shape} of the picture of row {row.row_id}, {self._shape} of others: "
                "let its preprocessor_config.json resize or crop them to one size",
                reason="BASE_MODEL_UNSUITABLE",
            )

    @abstractmethod
    def sample(self, row: PictureRow, picture: Image.Image) -> S | LedgerEntry:
        """The sample of a row, or why there is none."""


@contextlib.contextmanager
def evaluating(model: Model) -> Generator[None]:
    """Without gradients, dropout and batch statistics; afterwards the model trains on if it did before."""
    was_training = model.module.training
    model.module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if was_training:
            model.train()


def with_interval(name: str, interval: Interval) -> dict[str, float]:
    """The metric `name` with the ends of its 95% interval."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, one object each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
