"""What the server asks of `Runner` in `runtime.py`, which knows how a format is run.

A runner that can run several items at once says so by `together`, and by `answer` that its tokens may be
chosen otherwise than by likelihood, and shown one by one. Any other is served all the same: one item after
the other, each answer when it is whole.

Shape legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

Arrays = dict[str, npt.NDArray[Any]]
Logits = npt.NDArray[np.float32]
Message = Mapping[str, Any]
Choose = Callable[[int, Logits], int]
"""(index of the item, its logits (V,)) -> the next token."""
Take = Callable[[int, int], bool]
"""Told (index of the item, token) in turn: whether it wants another; once it does not, it is not told."""

SPEAKS: Final = frozenset({"LANGUAGE", "VISION_LANGUAGE"})


class Runner(Protocol):
    """A loaded package, as verify.py and predict.py use it too.

    `prepare` may be called from several threads at once, all else is called from one at a time.

    Attributes:
        task: of the model, as `spec.task` of the manifest.
        versions: what runs it, by name.
    """

    task: str
    versions: dict[str, str]

    def prepare(self, messages: Sequence[Message], image: Image.Image | None) -> Arrays:
        """What the model is fed, with an axis for the batch; `input_ids` (1, T) of models that speak."""
        ...

    def outputs(self, inputs: Arrays, tokens_G: Any = None) -> Arrays:
        """Raw outputs of one item, without the axis of the batch."""
        ...

    def write(self, inputs: Arrays, most_tokens: int) -> list[int]:
        """The likeliest tokens after a prompt, up to the end token or so many."""
        ...

    def text(self, tokens: list[int]) -> str:
        """Tokens as words, special ones left out."""
        ...


class Together(Runner, Protocol):
    """A runner that runs several pictures at once."""

    def together(self, items: Sequence[Arrays]) -> list[Arrays]:
        """`outputs` of items that have the same shapes."""
        ...


class Answering(Runner, Protocol):
    """A runner that writes several answers at once, token by token.

    Attributes:
        context_tokens: the most tokens of prompt and answer together; 0 where nothing says.
        end_ids: tokens that end an answer.
        most_at_once: prompts that `answer` takes.
    """

    context_tokens: int
    end_ids: frozenset[int]
    most_at_once: int

    def answer(self, items: Sequence[Arrays], most_tokens: int, choose: Choose, take: Take) -> None:
        """Continue prompts of one group until none wants more, or has so many tokens."""
        ...


class OneByOne:
    """Any runner as an `Answering` one: each answer is the likeliest, and comes whole."""

    context_tokens = 0
    end_ids: frozenset[int] = frozenset()
    most_at_once = 1

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def answer(self, items: Sequence[Arrays], most_tokens: int, choose: Choose, take: Take) -> None:
        del choose
        for index, item in enumerate(items):
            for token in self._runner.write(item, most_tokens):
                if not take(index, token):
                    break


def group_of(inputs: Arrays) -> Hashable:
    """Prompts of one group can be padded to one batch: all but their tokens is of one shape."""
    tokens = inputs["input_ids"].shape
    return tuple(
        (name, array.dtype.str, () if array.shape == tokens else array.shape[1:])
        for name, array in sorted(inputs.items())
    )


def shape_of(inputs: Arrays) -> Hashable:
    """Pictures of one shape go into one batch: no padding, which some models take for a part of them."""
    return tuple((name, array.shape) for name, array in sorted(inputs.items()))
