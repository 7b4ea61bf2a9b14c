"""Words: templates of questions and answers, numbers and plurals.

A template holds fields in braces, `{class}`; what fields there are depends on the task (`Wording.fields`).
Nothing but the name of a field is looked at: a template cannot reach into Python.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_FIELD: Final = re.compile(r"\{([a-z_]+)\}")
_IRREGULAR: Final = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "mouse": "mice",
    "knife": "knives",
    "sheep": "sheep",
    "fish": "fish",
    "skis": "skis",
    "scissors": "scissors",
    "foot": "feet",
    "tooth": "teeth",
}
_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True)
class Wording:
    """How a task speaks, unless the user says otherwise.

    Attributes:
        questions, answers: templates; one of each is drawn for every question by its id and the seed.
        fields: what templates of this task may hold.
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    fields: frozenset[str]


def unknown_fields(template: str, known: Iterable[str]) -> list[str]:
    """The fields of a template that its task does not have."""
    return sorted(set(_FIELD.findall(template)) - set(known))


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields filled in; braces around anything else stay."""
    return _FIELD.sub(lambda found: values.get(found[1], found[0]), template)


def draw(choices: Sequence[str], question_id: str, seed: int) -> str:
    """One of `choices`, always the same for a question and a seed."""
    if len(choices) == 1:
        return choices[0]
    digest = hashlib.sha256(f"{seed}\0wording\0{question_id}".encode()).digest()
    return choices[int.from_bytes(digest[:8]) % len(choices)]


def plural(noun: str) -> str:
    """The plural of a class name, of its last word: `traffic light` -> `traffic lights`."""
    head, space, last = noun.rpartition(" ")
    lower = last.lower()
    if lower in _IRREGULAR:
        changed = _IRREGULAR[lower]
    elif lower.endswith(("s", "x", "z", "ch", "sh")):
        changed = last + "es"
    elif lower.endswith("y") and not lower.endswith(("ay", "ey", "oy", "uy")):
        changed = last[:-1] + "ies"
    else:
        changed = last + "s"
    return head + space + changed


def counted(noun: str, number: int) -> str:
    """`one dog`, `three dogs`, `14 dogs`."""
    words = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return f"{words} {noun if number == 1 else plural(noun)}"


def listed(counts: Counter[str]) -> str:
    """`two dogs, one cat and one sofa`: most frequent first, then by name."""
    parts = [counted(noun, number) for noun, number in sorted(counts.items(), key=lambda i: (-i[1], i[0]))]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
