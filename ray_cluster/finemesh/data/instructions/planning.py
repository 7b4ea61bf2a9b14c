"""Deciding, from annotations alone, what is asked: every input gets its questions or a refusal."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final

from finemesh.core.errors import InvalidError
from finemesh.core.spec.data import ConvertOptions
from finemesh.data.instructions.negatives import CoOccurrence
from finemesh.data.instructions.questions import Plan, Question, Refusal
from finemesh.data.instructions.tasks import TASKS, Asker
from finemesh.data.instructions.wording import unknown_fields
from finemesh.data.schema import Row

PLAN_COLUMNS: Final = (
    "row_id",
    "images.list.element.width",
    "images.list.element.height",
    "objects",
    "captions",
    "split",
)


def plan(read_rows: Callable[[], Iterable[Row]], options: ConvertOptions) -> Plan:
    """Plan the questions about rows with PLAN_COLUMNS, which are read once or twice.

    Raises:
        InvalidError: UNKNOWN_TEMPLATE_FIELD, a template of the options holds a field that the task lacks.
    """
    assert options.instruction is not None
    task = TASKS[options.instruction]
    _check_templates(options)
    together = CoOccurrence(read_rows()) if task.needs_negatives else CoOccurrence()
    asker = Asker(options, task.wording, together)
    made = Plan()
    for row in read_rows():
        if not row["images"]:
            made.add(row["row_id"], Refusal("NO_IMAGE", "the row has no picture to ask about"))
            continue
        for input_id, outcome in task.ask(row, asker):
            made.add(input_id, outcome)
    _balance(made, options)
    return made


def _check_templates(options: ConvertOptions) -> None:
    assert options.instruction is not None
    fields = TASKS[options.instruction].wording.fields
    for name, templates in (("questions", options.questions), ("answers", options.answers)):
        for index, template in enumerate(templates):
            if unknown := unknown_fields(template, fields):
                known = ", ".join(f"{{{field}}}" for field in sorted(fields))
                message = f"{{{unknown[0]}}} is not known to {options.instruction}: it has {known}"
                place = f"options.{name}[{index}]"
                raise InvalidError.of(place, message, reason="UNKNOWN_TEMPLATE_FIELD")


def _balance(made: Plan, options: ConvertOptions) -> None:
    """Withdraw questions whose answer is too frequent in its split, then, evenly over answers, what exceeds
    max_items.
    """
    groups: defaultdict[tuple[str, str], list[tuple[Question, str]]] = defaultdict(list)
    for input_id, asked in made.questions.items():
        for question in asked:
            groups[question.split, question.label].append((question, input_id))
    for group in groups.values():
        group.sort(key=lambda each: _draw(options.seed, each[0].question_id))
    if options.max_answer_ratio:
        sizes: defaultdict[str, list[int]] = defaultdict(list)
        for (split, _), group in groups.items():
            sizes[split].append(len(group))
        for (split, label), group in groups.items():
            if label:
                limit = math.ceil(options.max_answer_ratio * median(sizes[split]))
                message = f"{label!r} is answered more than {limit} times in its split"
                _withdraw(made, group, limit, Refusal("BALANCE", message))
    if options.max_items:
        limits = _water_level([len(group) for group in groups.values()], options.max_items)
        refusal = Refusal("MAX_ITEMS", f"{options.max_items} items were chosen before it")
        for group, limit in zip(groups.values(), limits, strict=True):
            _withdraw(made, group, limit, refusal)


def _withdraw(made: Plan, group: list[tuple[Question, str]], limit: int, refusal: Refusal) -> None:
    for question, input_id in group[limit:]:
        made.withdraw(question, input_id, refusal)
    del group[limit:]


def _draw(seed: int, question_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{question_id}".encode()).digest()


def _water_level(sizes: Sequence[int], budget: int) -> list[int]:
    """How many to take of each group so that all take alike, the small ones whole, and the sum is at most
    `budget`.
    """
    taken = [0] * len(sizes)
    left = budget
    open_groups = [index for index, size in enumerate(sizes) if size]
    while open_groups and left:
        share = max(left // len(open_groups), 1)
        for index in open_groups:
            more = min(share, sizes[index] - taken[index], left)
            taken[index] += more
            left -= more
        open_groups = [index for index in open_groups if taken[index] < sizes[index]]
    return taken
