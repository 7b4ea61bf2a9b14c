"""What objectives about pictures share: rows to samples, with a fate for each."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from finemesh.core.errors import InvalidError
from finemesh.core.spec.ledger import LedgerEntry
from finemesh.finetune.objectives.objective import B, Objective, S, Split
from finemesh.finetune.pictures import PictureRow, kept, sound_pictures

if TYPE_CHECKING:
    from PIL import Image


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
