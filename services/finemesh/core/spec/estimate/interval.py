"""A figure that is not known exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """`low` <= `likely` <= `high`, in one unit."""

    low: float = 0.0
    likely: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        if not self.low <= self.likely <= self.high:
            raise ValueError(f"{self} is out of order")

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, other: Interval | float) -> Interval:
        by = other if isinstance(other, Interval) else exactly(other)
        return Interval(self.low * by.low, self.likely * by.likely, self.high * by.high)

    def over(self, other: Interval) -> Interval:
        """The quotient: slowest where `other` is low."""
        return Interval(self.low / other.high, self.likely / other.likely, self.high / other.low)

    def each(self, change: Callable[[float], float]) -> Interval:
        """`change`, which must not fall, of every end."""
        return Interval(change(self.low), change(self.likely), change(self.high))

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def exactly(value: float) -> Interval:
    return Interval(value, value, value)


def total(parts: Iterable[Interval]) -> Interval:
    return sum(parts, Interval())


def larger(one: Interval, other: Interval) -> Interval:
    """The larger of both, end by end."""
    return Interval(max(one.low, other.low), max(one.likely, other.likely), max(one.high, other.high))
