"""One answer while it is written: how each token is chosen, when it ends, and its words as they come.

Shape legend: V vocabulary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from .seam import Arrays, Logits, group_of

_TORN: Final = "\ufffd"  # a character of which some bytes are still to come

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Wish:
    """How an answer is to be written.

    Attributes:
        max_tokens: it is cut off after so many.
        temperature: 0 takes the likeliest token each time.
        top_p: only the likeliest tokens that together are so probable.
        seed: with the same one the same answer comes, whoever else is answered meanwhile.
        stops: it ends before any of these.
        piecewise: its words are wanted as they come.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    piecewise: bool = False


@dataclass(slots=True)
class Words:
    """Tokens to text, piece by piece: nothing is given out that a later token could still change.

    Attributes:
        text: of tokens.
        stops: text that ends the answer, and is held back while it may be one.
        piecewise: whether text is wanted before the end; without, and without stops, none is made.
        stopped: one of them came.
    """

    text: Callable[[list[int]], str]
    stops: tuple[str, ...] = ()
    piecewise: bool = True
    stopped: bool = False
    _ids: list[int] = field(default_factory=list[int])
    _from: int = 0
    _to: int = 0
    _held: str = ""

    def add(self, token: int) -> str:
        """What may be shown now.

        Text is read from the last piece on, since the first token of a text may lose its space, and reading
        all of it each time would cost the square of its length.
        """
        self._ids.append(token)
        if not (self.piecewise or self.stops):
            return ""
        shown, now = self.text(self._ids[self._from : self._to]), self.text(self._ids[self._from :])
        if len(now) <= len(shown) or now.endswith(_TORN):
            return ""
        self._from, self._to = self._to, len(self._ids)
        return self._show(now[len(shown) :])

    def rest(self) -> str:
        """What was held back, at the end."""
        torn = self.text(self._ids[self._from :])[len(self.text(self._ids[self._from : self._to])) :]
        return "" if self.stopped else self._held + torn

    def _show(self, text: str) -> str:
        self._held += text
        places = [at for stop in self.stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            return self._held[: min(places)]
        keep = max((_begun(self._held, stop) for stop in self.stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


def _begun(text: str, stop: str) -> int:
    """How much of the end of a text is the beginning of a stop."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer, with what was not shown before."""

    text: str
    finish: Finish
    tokens: int


Event = str | Ended | BaseException


class Answer:
    """A request for an answer: a job of the batcher, and what came of it so far.

    Made in the event loop that waits for its `events`; run in the model's thread.
    """

    def __init__(
        self, inputs: Arrays, wish: Wish, text: Callable[[list[int]], str], end_ids: frozenset[int]
    ) -> None:
        self.inputs = inputs
        self.wish = wish
        self.group: Hashable = group_of(inputs)
        self.cancelled = False
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._end_ids = end_ids
        self._words = Words(text, wish.stops, wish.piecewise)
        self._draws = np.random.default_rng(wish.seed)
        self._shown: list[str] = []
        self._tokens = 0
        self._ended = False

    @property
    def prompt_tokens(self) -> int:
        return int(self.inputs["input_ids"].shape[1])

    def choose(self, logits_V: Logits) -> int:
        """The next token, as wished."""
        wish = self.wish
        if wish.temperature == 0:
            return int(logits_V.argmax())
        scaled_V = logits_V.astype(np.float64) / wish.temperature
        sure_V = np.exp(scaled_V - scaled_V.max())
        order_V = np.argsort(-sure_V, kind="stable")
        sums_V = np.cumsum(sure_V[order_V])
        kept = int(np.searchsorted(sums_V, wish.top_p * sums_V[-1])) + 1
        drawn = self._draws.random() * sums_V[min(kept, len(sums_V)) - 1]
        return int(order_V[np.searchsorted(sums_V, drawn, side="right")])

    def take(self, token: int) -> bool:
        """The next token was chosen: whether another is wanted."""
        if self.cancelled:
            return False
        if token in self._end_ids:
            self.end("stop")
            return False
        self._tokens += 1
        piece = self._words.add(token)
        if piece and self.wish.piecewise:
            self._tell(piece)
        elif piece:
            self._shown.append(piece)
        if self._words.stopped or self._tokens >= self.wish.max_tokens:
            self.end("stop" if self._words.stopped else "length")
            return False
        return True

    def end(self, finish: Finish) -> None:
        """No more comes of it. Only the first end counts."""
        if not self._ended:
            self._ended = True
            self._tell(Ended("".join(self._shown) + self._words.rest(), finish, self._tokens))

    def fail(self, error: BaseException) -> None:
        self._ended = True
        self._tell(error)

    def _tell(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self.events.put_nowait, event)
