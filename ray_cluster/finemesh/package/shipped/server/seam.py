"""What the server, predict.py and verify.py ask of `runtime.py`, which knows how a format is run.

`runtime.py` has one function, `load(package, base)`, which returns a `ChatRuntime` for a model of language
and a `PictureRuntime` for one that sees alone. They are called from one thread at a time, but for `prompt`
and `prepare`, which may be called from several.

Shape legend: V vocabulary, H, W height and width of a picture as it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Logits = npt.NDArray[np.float32]
Message = Mapping[str, Any]
"""`{"role": ..., "content": [{"type": "text", "text": ...}, {"type": "image", "text": ""}, ...]}`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation, ready to be answered.

    Attributes:
        tokens: how many it has, pictures included.
        group: prompts of one group can be answered together.
        inputs: what the runtime made of it.
    """

    tokens: int
    group: Hashable
    inputs: Any


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture, as the model is shown it: the arrays that the processor made, and its size (H, W) before."""

    arrays: dict[str, npt.NDArray[Any]]
    size_px: tuple[int, int]

    @property
    def group(self) -> Hashable:
        """Pictures of one group can be shown together: no padding, which some models take for a picture."""
        return tuple((name, array.shape) for name, array in sorted(self.arrays.items()))


@dataclass(frozen=True, slots=True)
class Found:
    """One thing in a picture, or its class.

    Attributes:
        box_px: left, top, right, bottom; None of a class of the whole picture.
        mask_HW: where it is, if the model says so.
    """

    label: str
    score: float
    box_px: tuple[float, float, float, float] | None = None
    mask_HW: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model makes of a picture: the surest first; of semantic segmentation a map of `labels`."""

    found: list[Found] = field(default_factory=list[Found])
    map_HW: npt.NDArray[np.uint8] | None = None
    labels: tuple[str, ...] = ()


class ChatRuntime(Protocol):
    """Runs a model of language.

    Attributes:
        context_tokens: the most tokens of prompt and answer together; 0 where nothing says.
        end_ids: tokens that end an answer.
        max_batch: the most prompts of one group that `write` takes.
        takes_images: whether messages may show pictures.
        versions: of what runs it, by name.
    """

    context_tokens: int
    end_ids: frozenset[int]
    max_batch: int
    takes_images: bool
    versions: dict[str, str]

    def prompt(self, messages: Sequence[Message], images: Sequence[Image.Image]) -> Prompt:
        """A conversation that the assistant shall answer; its pictures in the order in which it shows them.

        Raises:
            ValueError: the template or the processor refuses it, with the reason.
        """
        ...

    def write(
        self,
        prompts: Sequence[Prompt],
        choose: Callable[[int, Logits], int],
        take: Callable[[int, int], bool],
    ) -> None:
        """Continue prompts of one group, token by token, until none wants more.

        Args:
            prompts: at most `max_batch`, of one group.
            choose: (index of the prompt, its logits (V,)) -> the next token.
            take: told (index, token) in turn; whether it wants another. Not asked again once it does not.
        """
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The words of tokens, special ones left out."""
        ...


class PictureRuntime(Protocol):
    """Runs a model that sees alone.

    Attributes:
        task: DETECTION, IMAGE_CLASSIFICATION, SEMANTIC_SEGMENTATION or INSTANCE_SEGMENTATION.
        max_batch: the most pictures of one group that `forward` takes.
        versions: of what runs it, by name.
    """

    task: str
    max_batch: int
    versions: dict[str, str]

    def prepare(self, image: Image.Image) -> Shown:
        """A picture as in training."""
        ...

    def forward(self, shown: Sequence[Shown]) -> list[dict[str, npt.NDArray[Any]]]:
        """The model's raw outputs for each of some pictures of one group."""
        ...

    def read(self, outputs: Mapping[str, npt.NDArray[Any]], shown: Shown) -> Seen:
        """What the outputs of a picture say, however unsure."""
        ...


Runtime = ChatRuntime | PictureRuntime
Load = Callable[[Path, str | None], Runtime]
