"""The search space: fields of the spec with what each may be, and the combinations that are tried."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from finemesh.core.errors import PreconditionError

_DIGITS: Final = 6  # of drawn numbers: people read them, and write them into spec files
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Choices:
    """Each of `items`, as a spec file would have it."""

    items: tuple[Any, ...]

    @property
    def size(self) -> float:
        return len(self.items)

    def draw(self, rng: random.Random) -> Any:
        return self.items[rng.randrange(len(self.items))]


@dataclass(frozen=True, slots=True)
class Uniform:
    """Any number from `low` to `high`; if `log`, each order of magnitude is as likely."""

    low: float
    high: float
    log: bool = False

    @property
    def size(self) -> float:
        return math.inf

    def draw(self, rng: random.Random) -> float:
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = rng.uniform(self.low, self.high)
        return min(self.high, max(self.low, float(f"{drawn:.{_DIGITS}g}")))


@dataclass(frozen=True, slots=True)
class Integers:
    """Any whole number from `low` to `high`, both included."""

    low: int
    high: int

    @property
    def size(self) -> float:
        return self.high - self.low + 1

    def draw(self, rng: random.Random) -> int:
        return rng.randint(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field that differs between trials, by its path in a spec file: `optimization.learning_rate`."""

    field: str
    domain: Choices | Uniform | Integers


def size(parameters: Sequence[Parameter]) -> float:
    """How many combinations there are; infinite where a parameter is any number of a range."""
    return math.prod(parameter.domain.size for parameter in parameters)


def grid(parameters: Sequence[Parameter]) -> Iterator[Values]:
    """Every combination of choices; the last parameter changes fastest."""
    fields = [parameter.field for parameter in parameters]
    items = [parameter.domain.items for parameter in parameters if isinstance(parameter.domain, Choices)]
    for combination in itertools.product(*items):
        yield dict(zip(fields, combination, strict=True))


def sample(parameters: Sequence[Parameter], count: int, seed: int) -> list[Values]:
    """`count` combinations, no two alike; the same seed and parameters give the same.

    Raises PreconditionError, reason SPACE_TOO_SMALL: there are not so many.
    """
    if count > size(parameters):
        raise PreconditionError(
            f"there are only {size(parameters):.0f} combinations: ask for no more, or try all by a grid",
            reason="SPACE_TOO_SMALL",
        )
    rng, drawn, seen = random.Random(seed), list[Values](), set[str]()  # noqa: S311  no secret
    while len(drawn) < count:
        values = {parameter.field: parameter.domain.draw(rng) for parameter in parameters}
        key = json.dumps(values, sort_keys=True)
        if key not in seen:
            seen.add(key)
            drawn.append(values)
    return drawn


def applied(document: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """`document`, a spec as `core.spec.document` reads it, with `values` in the place of what it says."""
    result: dict[str, Any] = dict(document)
    for field, value in values.items():
        *parents, leaf = field.split(".")
        target = result
        for parent in parents:
            inner = target.get(parent)
            copied: dict[str, Any] = dict(inner) if isinstance(inner, Mapping) else {}
            target[parent] = copied
            target = copied
        target[leaf] = value
    return result
