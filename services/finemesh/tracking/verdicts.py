"""A comparison by items in words. Every sentence follows from a figure of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finemesh.core.metrics import Goal
from finemesh.tracking.compare import ConfigDifference
from finemesh.tracking.costs import LineageDifferences, RunCost
from finemesh.tracking.item_comparison import ItemComparison, RunGroup
from finemesh.tracking.statistics import LEVEL, Difference


@dataclass(frozen=True, slots=True)
class Standing:
    """The best group, and how it stands against each of the others, the next best first."""

    best: int
    others: tuple[tuple[int, Difference], ...]

    @property
    def conclusive(self) -> bool:
        return all(difference.is_real for _, difference in self.others)


def standing(found: ItemComparison, goal: Goal) -> Standing:
    """Rank the groups by their means."""
    sign = -1.0 if goal is Goal.MINIMIZE else 1.0
    order = sorted(range(len(found.groups)), key=lambda group: -sign * found.groups[group].mean)
    by_pair = {frozenset((each.first, each.second)): each for each in found.differences}
    return Standing(order[0], tuple((other, by_pair[frozenset((order[0], other))]) for other in order[1:]))


def verdict(key: str, names: Sequence[str], found: ItemComparison, stand: Standing) -> str:
    """The answer in a sentence: which is better, or that it cannot be told yet and what would tell it.

    Args:
        key: the metric of runs that decides.
        names: ids of the runs.
        found: their comparison.
        stand: of its groups.
    """
    next_best, difference = stand.others[0]
    best, other = found.groups[stand.best], found.groups[next_best]
    figures = (
        f"{label(best, names)} has {_figure(best.mean)}, {label(other, names)} has {_figure(other.mean)} on"
        f" the same {found.item_count} items ({_about(difference)})"
    )
    if not stand.conclusive:
        beaten = [label(found.groups[each], names) for each, seen in stand.others if seen.is_real]
        also = f"; it is better than {_listed(beaten)}, though" if beaten else ""
        open_ = next((each, seen) for each, seen in stand.others if not seen.is_real)
        against = "" if open_[0] == next_best else f" against {label(found.groups[open_[0]], names)}"
        return f"cannot tell yet on {key}: {figures}; {_missing(open_[1], against)}{also}"
    rank = "is better" if len(stand.others) == 1 else f"is best of {len(found.groups)}"
    return f"{label(best, names)} {rank} on {key}: {figures}; this is more than noise"


def recommendations(
    names: Sequence[str],
    found: ItemComparison,
    stand: Standing,
    costs: Sequence[RunCost],
    config: Sequence[ConfigDifference],
    lineage: LineageDifferences,
) -> tuple[str, ...]:
    """What to do, the most important first."""
    best = found.groups[stand.best]
    said: list[str] = []
    if stand.conclusive:
        said.append(f"Take {label(best, names)}.")
        if len(config) == 1:
            values = " against ".join(dict.fromkeys(value or "nothing" for value in config[0].values))
            said.append(f"Of their parameters they differ in {config[0].field} alone ({values}).")
    else:
        said += _while_open(names, found, stand, costs)
    if all(len(group.runs) == 1 for group in found.groups):
        said.append(
            "This speaks of these trained models. To speak of their configurations, train each with more"
            " seeds: runs that differ only in their seed are taken together."
        )
    if lineage.data:
        said.append("They were trained on different data: the difference may come from that.")
    if lineage.code:
        said.append("They were made by different programs: the difference may come from that.")
    dear = [cost for index in best.runs if (cost := costs[index]).gain > 0]
    if stand.conclusive and dear:
        said.append(_price(min(dear, key=lambda each: each.device_seconds_per_point)))
    return tuple(said)


def label(group: RunGroup, names: Sequence[str]) -> str:
    """The runs of a group by their ids."""
    return (
        names[group.runs[0]] if len(group.runs) == 1 else f"[{', '.join(names[run] for run in group.runs)}]"
    )


def _while_open(
    names: Sequence[str], found: ItemComparison, stand: Standing, costs: Sequence[RunCost]
) -> list[str]:
    unsettled = [(other, seen) for other, seen in stand.others if not seen.is_real]
    said: list[str] = []
    needed = [seen.items_needed for _, seen in unsettled]
    if max(needed) > 0:
        said.append(f"To tell more, evaluate on about {max(needed)} more items like these.")
    elif any(seen.seed_error for _, seen in unsettled):
        said.append("More items would not settle it, since seeds differ as much: train with more seeds.")
    else:
        said.append(
            "No difference is seen. These items would show one of"
            f" {_figure(max(seen.detectable for _, seen in unsettled))} or more, four times out of five."
        )
    candidates = [stand.best, *(other for other, _ in unsettled)]

    def price(group: int) -> float:
        runs = found.groups[group].runs
        return sum(costs[run].device_seconds for run in runs) / len(runs)

    cheapest = min(candidates, key=price)
    if price(cheapest) < 0.9 * max(map(price, candidates)):
        said.append(
            f"Until then {label(found.groups[cheapest], names)} is the cheaper choice among those that cannot"
            f" be told apart: {_hours(price(cheapest))} of a device."
        )
    return said


def _about(difference: Difference) -> str:
    sign = 1.0 if difference.estimate >= 0 else -1.0  # told as the lead of the better one
    low, high = sorted((sign * difference.low, sign * difference.high))
    return (
        f"difference {_figure(abs(difference.estimate))}, {LEVEL:.0%} interval {_figure(low)} to"
        f" {_figure(high)}, p = {difference.adjusted_p_value:.2g}"
    )


def _missing(difference: Difference, against: str) -> str:
    if difference.items_needed > 0:
        return f"about {difference.items_needed} more items would show a difference of this size{against}"
    if difference.estimate == 0:
        return f"there is no difference at all{against}"
    return f"no number of items would show it{against}, seeds differ as much: train more of them"


def _price(cost: RunCost) -> str:
    paid = f", {_figure(cost.cost_per_point)} at the given price" if cost.cost_per_point else ""
    return (
        f"A gain of {_figure(cost.gain)} took {_hours(cost.device_seconds)} of a device:"
        f" {_hours(cost.device_seconds_per_point)} for each hundredth{paid}."
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g} hours" if seconds >= 3600 else f"{seconds / 60:.3g} minutes"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _figure(value: float) -> str:
    return f"{value:.4g}"
