"""What the demo found out, and whether that is what was promised: values and pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MIN_TEST_ITEMS: Final = 200


@dataclass(frozen=True, slots=True)
class Interval:
    """An accuracy with its 95% interval, 0 to 1."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """How the better run did on the test split.

    Attributes:
        items: items of the test split.
        trained, untrained, blanked: accuracy of the fine-tuned model, of the model it started from, and of
            the
            fine-tuned model when every image is blank.
        majority: accuracy of always giving the answer that is most frequent in training.
        constant: accuracy of the best constant answer, known only in hindsight.
    """

    items: int
    trained: Interval
    untrained: Interval
    blanked: Interval
    majority: float
    constant: float

    @classmethod
    def of(cls, metrics: Mapping[str, float]) -> Scores:
        """From the metrics of a run. Raises KeyError for one that is missing."""

        def interval(prefix: str) -> Interval:
            name = f"test/{prefix}accuracy"
            return Interval(metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"])

        return cls(
            items=int(metrics["test/items"]),
            trained=interval(""),
            untrained=interval("untrained_"),
            blanked=interval("blanked_"),
            majority=metrics["test/majority_accuracy"],
            constant=metrics["test/constant_accuracy"],
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the demo: how long it took, and the most memory that the mesh held meanwhile (PSS)."""

    name: str
    seconds: float
    peak_memory_bytes: int


@dataclass(slots=True)
class Findings:
    """Everything that the demo found out, filled in as it goes."""

    own_source: bool
    task: str = ""
    base_model: str = ""
    ledgers: dict[str, str] = field(default_factory=dict[str, str])
    splits: str = ""
    notes: list[str] = field(default_factory=list[str])
    validation: str = ""
    losses: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    killed: str = ""
    resumed: bool = False
    verdict: str = ""
    better_run: str = ""
    scores: Scores | None = None
    parity: dict[str, str] = field(default_factory=dict[str, str])
    package: str = ""
    stages: list[Stage] = field(default_factory=list[Stage])
    events: dict[str, int] = field(default_factory=dict[str, int])
    failures: list[str] = field(default_factory=list[str])


def broken_promises(scores: Scores) -> list[str]:
    """What of the promise about learning does not hold, a sentence each.

    The fine-tuned model has to be better than the untrained one and than the majority class, by its whole 95%
    interval, on enough items; and it has to owe that to the images: with blank ones it may not be better than
    a constant answer.
    """
    broken: list[str] = []
    if scores.items < MIN_TEST_ITEMS:
        broken.append(f"only {scores.items} items are held out; at least {MIN_TEST_ITEMS} were promised")
    if scores.trained.low <= scores.untrained.high:
        broken.append(f"fine-tuned {scores.trained} is not above untrained {scores.untrained}")
    if scores.trained.low <= scores.majority:
        broken.append(f"fine-tuned {scores.trained} is not above the majority class, {scores.majority:.3f}")
    if scores.blanked.low > max(scores.majority, scores.constant):
        broken.append(
            f"with blank images it still reaches {scores.blanked}, above a constant answer, "
            f"{max(scores.majority, scores.constant):.3f}: it does not look at the images"
        )
    return broken
