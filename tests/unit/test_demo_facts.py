"""The demo's promise about learning: each way in which it can be broken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from finemesh.embedded.demo.facts import Interval, Scores, broken_promises

GOOD = Scores(
    items=306,
    trained=Interval(0.94, 0.90, 0.97),
    untrained=Interval(0.15, 0.10, 0.21),
    blanked=Interval(0.17, 0.11, 0.22),
    majority=0.12,
    constant=0.18,
)


def test_a_good_run_breaks_nothing() -> None:
    assert broken_promises(GOOD) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": 199}, "held out"),
        ({"untrained": Interval(0.88, 0.85, 0.91)}, "untrained"),
        ({"majority": 0.91}, "majority"),
        ({"blanked": Interval(0.5, 0.4, 0.6)}, "does not look at the images"),
    ],
)
def test_each_part_of_the_promise_is_checked(change: dict[str, object], words: str) -> None:
    (broken,) = broken_promises(replace(GOOD, **change))  # pyright: ignore[reportArgumentType]
    assert words in broken


def test_scores_come_from_the_metrics_of_a_run() -> None:
    metrics = {"test/items": 306.0, "test/majority_accuracy": 0.12, "test/constant_accuracy": 0.18}
    for prefix, interval in (("", GOOD.trained), ("untrained_", GOOD.untrained), ("blanked_", GOOD.blanked)):
        name = f"test/{prefix}accuracy"
        metrics |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    assert Scores.of(metrics) == GOOD
    del metrics["test/blanked_accuracy_low"]
    with pytest.raises(KeyError):
        Scores.of(metrics)
