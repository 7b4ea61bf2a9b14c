"""Metrics of one answer: what the model wrote against what was expected.

A metric gives a number, or None where it says nothing of the item: a count is missed only where one was
expected. All of these are between 0 and 1 and the higher the better, `count_error` excepted; packages
bring others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Final

from finemesh.core.errors import InvalidError, PreconditionError
from finemesh.core.spec import codec
from finemesh.core.spec.boxes import BoxConvention, Corners, read_boxes

Metric = Callable[[str, str], float | None]
"""(prediction, expected) -> value."""

_WORD: Final = re.compile(r"\w+")
_INTEGER: Final = re.compile(r"-?\d+")
_SHOWN: Final = 80  # characters of an answer in an error
_UNIT: Final = 1000
"""Boxes are compared in a picture of this side: how much two of them overlap does not depend on it."""


def exact_match(prediction: str, expected: str) -> float:
    """Whether both are the same but for white space."""
    return float(prediction.split() == expected.split())


def token_f1(prediction: str, expected: str) -> float:
    """F1 of the words, in any order and case (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250)."""
    said, wanted = _words(prediction), _words(expected)
    shared = (Counter(said) & Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted)) if said or wanted else 1.0


def rouge_l(prediction: str, expected: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, https://aclanthology.org/W04-1013)."""
    said, wanted = _words(prediction), _words(expected)
    return 2 * _common_subsequence(said, wanted) / (len(said) + len(wanted)) if said or wanted else 1.0


def box_iou(prediction: str, expected: str) -> float | None:
    """Mean overlap of the expected boxes with those written, each matched once, the closest first."""
    found = _boxes(expected)
    if found is None:
        return None
    convention, wanted = found
    written = [*read_boxes(prediction, _UNIT, _UNIT, convention)]
    overlaps = sorted(
        ((_iou(one, other), at, to) for at, one in enumerate(wanted) for to, other in enumerate(written)),
        reverse=True,
    )
    matched: dict[int, tuple[int, float]] = {}
    for overlap, at, to in overlaps:
        if at not in matched and to not in {taken for taken, _ in matched.values()}:
            matched[at] = (to, overlap)
    return sum(overlap for _, overlap in matched.values()) / len(wanted)


def box_accuracy_50(prediction: str, expected: str) -> float | None:
    """Whether the boxes overlap by at least one half (the usual measure of referring expressions)."""
    overlap = box_iou(prediction, expected)
    return None if overlap is None else float(overlap >= 0.5)


def count_error(prediction: str, expected: str) -> float | None:
    """How far the first number written is from the number expected; the whole of it if none is written."""
    if not _INTEGER.fullmatch(expected.strip()):
        return None
    written = _INTEGER.search(prediction)
    return abs(int(expected) - int(written.group() if written else 0))


METRICS_GROUP: Final = "finemesh.metrics"
OPEN_METRICS: Final[dict[str, Metric]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "box_iou": box_iou,
    "box_accuracy_50": box_accuracy_50,
    "count_error": count_error,
}
CLOSED_METRICS: Final[dict[str, Metric]] = {"count_error": count_error}


def installed_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Metrics of installed packages, by their entry points in the group `finemesh.metrics`.

    Raises:
        InvalidError: METRIC_UNKNOWN, no package has one of that name, or it does not load.
    """
    found = {point.name: point for point in entry_points(group=METRICS_GROUP)}
    metrics: dict[str, Metric] = {}
    for at, name in enumerate(names):
        path = f"spec.evaluation.metrics[{at}]"
        if name not in found:
            there = ", ".join(sorted(found)) or "none"
            raise InvalidError.of(
                path,
                f"no installed package has a metric {name!r}; there are: {there}"
                f"{codec.nearest(name, [*found, *OPEN_METRICS])}. Install its package where "
                f"training runs; its entry point belongs to the group {METRICS_GROUP}",
                reason="METRIC_UNKNOWN",
            )
        try:
            metrics[name] = found[name].load()
        except (ImportError, AttributeError) as error:
            raise InvalidError.of(
                path, f"{found[name].value} does not load: {error}", reason="METRIC_UNKNOWN"
            ) from error
    return metrics


def measure(metrics: Mapping[str, Metric], prediction: str, expected: str, row_id: str) -> dict[str, float]:
    """What each of `metrics` says of one item, those that say something.

    Raises:
        PreconditionError: METRIC_FAILED, one raises, or gives what is no number.
    """
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            value = metric(prediction, expected)
            if value is not None:
                values[name] = float(value)
        except Exception as error:  # of packages that are not ours
            raise PreconditionError(
                f"the metric {name!r} failed on row {row_id} ({type(error).__name__}: {error}), predicted "
                f"{_short(prediction)}, expected {_short(expected)}: mend its package, or leave it out of "
                "evaluation.metrics; what was trained is in the last checkpoint",
                reason="METRIC_FAILED",
            ) from error
    return values


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, each in enumerate(other, 1):
            before, lengths[at] = (
                lengths[at],
                before + 1 if word == each else max(lengths[at], lengths[at - 1]),
            )
    return lengths[-1]


def _boxes(text: str) -> tuple[BoxConvention, list[Corners]] | None:
    """The boxes of a text, and how it writes them. Shares and pixels look alike, and overlap alike."""
    for convention in BoxConvention:
        boxes = [*read_boxes(text, _UNIT, _UNIT, convention)]
        if boxes:
            return convention, boxes
    return None


def _iou(one: Corners, other: Corners) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Corners) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
