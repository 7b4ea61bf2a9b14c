"""Answers of a package's server: their words piece by piece, and their tokens as they are wished for."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from finemesh.package.shipped.server.answering import Answer, Wish, Words
from finemesh.package.shipped.server.seam import Logits
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.text(st.sampled_from("ab \nß世🙂"), max_size=20)


def text_of(tokens: list[int]) -> str:
    return bytes(tokens).decode(errors="replace").strip()


@given(text=TEXT, stops=st.lists(st.text(st.sampled_from("ab ß"), min_size=1, max_size=3), max_size=2))
def test_pieces_are_the_text_up_to_its_first_stop(text: str, stops: list[str]) -> None:
    """Every token is one byte of it: most characters come torn."""
    words = Words(text_of, tuple(stops))
    shown = ""
    for token in text.encode():
        if words.stopped:
            break
        piece = words.add(token)
        assert "\ufffd" not in piece
        shown += piece
    shown += words.rest()
    whole = text.strip()
    ends = [whole.find(stop) for stop in stops if stop in whole]
    assert shown == whole[: min(ends, default=len(whole))]


def drawn(logits_V: Logits, wish: Wish, tokens: int) -> list[int]:
    """Tokens that one answer takes of the same logits."""

    async def draw() -> list[int]:
        answer = Answer({"input_ids": np.zeros((1, 1), np.int64)}, wish, text_of, frozenset())
        return [answer.choose(logits_V) for _ in range(tokens)]

    return asyncio.run(draw())


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    shares_V = np.array([0.5, 0.3, 0.15, 0.05])
    logits_V = np.log(shares_V).astype(np.float32)
    counted = Counter(drawn(logits_V, Wish(9, temperature=1.0, seed=3), 10_000))
    assert [counted[token] / 10_000 for token in range(4)] == pytest.approx(shares_V, abs=0.02)
    cooled_V = shares_V**2 / (shares_V**2).sum()
    counted = Counter(drawn(logits_V, Wish(9, temperature=0.5, seed=3), 10_000))
    assert [counted[token] / 10_000 for token in range(4)] == pytest.approx(cooled_V, abs=0.02)
    assert set(drawn(logits_V, Wish(9, temperature=1.0, top_p=0.7, seed=3), 500)) == {0, 1}
    assert set(drawn(logits_V, Wish(9, temperature=1.0, top_p=1e-9, seed=3), 50)) == {0}
    assert set(drawn(logits_V, Wish(9), 5)) == {0}


def test_a_seed_says_which() -> None:
    logits_V = np.zeros(50, np.float32)
    one, same, other = (drawn(logits_V, Wish(9, temperature=1.0, seed=seed), 20) for seed in (1, 1, 2))
    assert one == same != other
