"""What a model sees of rows: pictures decoded, made into tensors by its own processor, and joined.

Shape legend: X axes of positions, B rows, T tokens of one sequence.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from finemesh.core.errors import FinemeshError, InvalidError, UnavailableError
from finemesh.finetune.array_file import ArrayFile
from finemesh.finetune.families.family import Family, Picture
from finemesh.finetune.rows import Location, read_images, row_id_at

if TYPE_CHECKING:
    from PIL import Image

MAX_IMAGE_PIXELS: Final = 64_000_000
PIXEL_CACHE_BYTES: Final = 1 << 30
# The mean colour, but for a shade: Idefics3 takes zeros for padding.
_BLANK: Final = 1e-4


@dataclass(frozen=True, slots=True)
class ImageAt:
    """Where a picture lies: the row, and which of its pictures."""

    location: Location
    number: int


class Illustrated(Protocol):
    """A sample that shows pictures: where they lie, and what its family's `extras` made of its words."""

    @property
    def images(self) -> Sequence[ImageAt]: ...
    @property
    def extras(self) -> Mapping[str, npt.NDArray[Any]]: ...
    @property
    def input_ids_T(self) -> npt.NDArray[np.int64]: ...  # noqa: N802  # a tensor


@dataclass(slots=True)
class Pictures:
    """Processed pictures: kept in a file while there is room, otherwise made again from the dataset."""

    dataset: Path
    family: Family
    processor: Any
    config: Any
    kept: ArrayFile[ImageAt] = field(default_factory=lambda: ArrayFile[ImageAt](PIXEL_CACHE_BYTES))
    blank: bool = False

    def keep(self, place: ImageAt, picture: Picture) -> None:
        self.kept.put(place, picture)

    def load(self, place: ImageAt) -> Picture:
        """The tensors that the model's own processor makes of a picture."""
        picture = self.kept.get(place)
        if picture is None:
            image = load_image(self.dataset, place.location, place.number)
            picture = self.kept.put(place, self.family.see(self.processor, image).tensors)
        if self.blank:
            return {**picture, "pixel_values": np.full_like(picture["pixel_values"], _BLANK)}
        return picture

    def blanked(self) -> Pictures:
        """The same pictures, each in the processor's mean colour."""
        return replace(self, blank=True)

    def inputs(self, samples: Sequence[Illustrated]) -> dict[str, torch.Tensor]:
        """What the model takes beside tokens: the pictures of `samples` in their order; empty without any."""
        pictures = [self.load(place) for sample in samples for place in sample.images]
        extras = [sample.extras for sample in samples if sample.images]
        joined = self.family.join(self.config, pictures, extras)
        return {name: torch.from_numpy(tensor) for name, tensor in joined.items()}

    def positions(self, sample: Illustrated) -> npt.NDArray[np.int64] | None:
        """Positions (X, T) of the tokens of a sample; None where they count from 0."""
        if self.family.positions is None:
            return None
        pictures = [self.load(place) for place in sample.images]
        return self.family.positions(self.config, sample.input_ids_T, pictures)


def positions_after(positions_XBT: torch.Tensor, tokens: int) -> torch.Tensor:
    """Positions (X, B, `tokens`) of what follows sequences: on every axis beyond the furthest of all axes."""
    first_B1 = positions_XBT.amax(dim=(0, 2)).unsqueeze(1) + 1
    following_BT = first_B1 + torch.arange(tokens, device=first_B1.device)
    return following_BT.expand(len(positions_XBT), -1, -1)


def load_image(dataset: Path, location: Location, number: int = 0) -> Image.Image:
    """A picture of a row that was sound when the run began, decoded again.

    Raises:
        UnavailableError: ROW_UNREADABLE, with the row named: encoding has left out what does not read, so the
            files have changed since.
    """
    try:
        return decode_image(read_images(dataset, location)[number])
    except (FinemeshError, OSError, ValueError) as error:
        raise row_unreadable(row_id_at(dataset, location), error) from error


def row_unreadable(row_id: str, error: Exception) -> UnavailableError:
    """Unavailable, not invalid: with the dataset fetched again the run goes on."""
    return UnavailableError(
        f"row {row_id} was read when the run began and cannot be made into a batch now: {error}. Fetch the "
        "dataset again, and resume from the last checkpoint",
        reason="ROW_UNREADABLE",
        metadata={"row_id": row_id},
    )


def decode_image(encoded: bytes) -> Image.Image:
    """Decode a picture to RGB, its size checked before its pixels are read.

    Raises:
        InvalidError: IMAGE_UNREADABLE, IMAGE_TOO_LARGE.
    """
    from PIL import Image  # not above: text is trained on without it too

    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            width, height = picture.size
            if width * height > MAX_IMAGE_PIXELS:
                raise InvalidError.of(
                    "image",
                    f"{width} x {height} pixels, at most {MAX_IMAGE_PIXELS} are read",
                    reason="IMAGE_TOO_LARGE",
                )
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidError.of("image", f"cannot be decoded: {error}", reason="IMAGE_UNREADABLE") from error
