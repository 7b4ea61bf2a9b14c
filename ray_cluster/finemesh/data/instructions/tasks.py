"""The tasks: what each asks about a picture's objects, from annotations alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from finemesh.core.spec.boxes import write_box
from finemesh.core.spec.data import ConvertOptions, InstructionTask
from finemesh.data.instructions.negatives import CoOccurrence
from finemesh.data.instructions.pictures import Show, crop, outline, shown_size, whole
from finemesh.data.instructions.questions import (
    Question,
    Refusal,
    input_id,
    object_inputs,
    row_inputs,
)
from finemesh.data.instructions.wording import Wording, draw, fill, listed, plural
from finemesh.data.rows import picture_size
from finemesh.data.schema import ObjectRow, Row

CELLS: Final = (
    ("top left", "top", "top right"),
    ("left", "center", "right"),
    ("bottom left", "bottom", "bottom right"),
)
# Shares of the picture. (COCO calls 32 x 32 of 640 x 480 small, which is 0.3 %, and 96 x 96 large, 3 %.)
_SMALL, _LARGE = 0.01, 0.12

Outcome = Question | Refusal


@dataclass(frozen=True, slots=True)
class Asker:
    """What a task needs to ask: the options, its wording, and which classes are seen together."""

    options: ConvertOptions
    wording: Wording
    together: CoOccurrence

    def question(
        self, row: Row, suffix: str, values: dict[str, str], label: str, objects: tuple[str, ...] = ()
    ) -> Question:
        """A question of the row; `values` are the fields of its wording."""
        question_id = f"{row['row_id']}#{suffix}"
        options = self.options
        asked = draw(options.questions or self.wording.questions, question_id, options.seed)
        answered = draw(options.answers or self.wording.answers, question_id, options.seed)
        return Question(
            question_id,
            row["row_id"],
            objects,
            fill(asked, values),
            fill(answered, values),
            label,
            row["split"],
        )


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of question.

    Attributes:
        ask: what becomes of each input of a row, as (input id, question or refusal).
        inputs: the inputs that a row brings.
        show: the picture that goes with a question.
        needs_negatives: whether `Asker.together` is used.
    """

    ask: Callable[[Row, Asker], Iterator[tuple[str, Outcome]]]
    inputs: Callable[[Row], list[str]]
    show: Show
    wording: Wording
    needs_negatives: bool = False


def refusal_of(row: Row, item: ObjectRow, options: ConvertOptions) -> Refusal | None:
    """Why nothing can be asked about an object, whatever the task."""
    if not item["visible"]:
        return Refusal("INVISIBLE", "the object is hidden in this frame")
    if item["iscrowd"]:
        return Refusal("CROWD", "the mask covers a group, not one object")
    if item["area"] < options.min_object_px:
        message = f"{item['area']:.0f} pixels are visible, fewer than {options.min_object_px}"
        return Refusal("TOO_SMALL", message)
    x, y, width, height = item["bbox"]
    row_width, row_height = picture_size(row)
    if min(x + width, row_width) - max(x, 0) < 1 or min(y + height, row_height) - max(y, 0) < 1:
        return Refusal("OUTSIDE", "the box lies outside the picture")
    return None


_NO_CLASS_NAME: Final = Refusal("NO_CLASS_NAME", "the object has no class name")
_NO_OBJECTS: Final = Refusal("NO_OBJECTS", "the row has no objects to ask about")


def _each_object(
    ask: Callable[[Row, ObjectRow, Asker], Outcome],
) -> Callable[[Row, Asker], Iterator[tuple[str, Outcome]]]:
    """A task that asks one question about each object."""

    def ask_all(row: Row, asker: Asker) -> Iterator[tuple[str, Outcome]]:
        if not row["objects"]:
            yield row["row_id"], _NO_OBJECTS
        for item in row["objects"]:
            refused = refusal_of(row, item, asker.options)
            yield input_id(row["row_id"], item["object_id"]), refused or ask(row, item, asker)

    return ask_all


def _classify(row: Row, item: ObjectRow, asker: Asker) -> Outcome:
    name = item["class_name"]
    if name is None:
        return _NO_CLASS_NAME
    return asker.question(row, item["object_id"], {"class": name}, name, (item["object_id"],))


def _locate(row: Row, item: ObjectRow, asker: Asker) -> Outcome:
    place = cell_of(row, item)
    values = {"class": item["class_name"] or "object", "place": place}
    return asker.question(row, item["object_id"], values, place, (item["object_id"],))


def _refer(row: Row, item: ObjectRow, asker: Asker) -> Outcome:
    """Only an object that is the one of its class: otherwise the question has several answers."""
    name = item["class_name"]
    if name is None:
        return _NO_CLASS_NAME
    if sum(other["class_name"] == name for other in row["objects"]) > 1:
        return Refusal("AMBIGUOUS", f"there are several {plural(name)}: the question has no single answer")
    values = {"class": name, "box": _box(row, item, asker.options)}
    return asker.question(row, item["object_id"], values, "", (item["object_id"],))


def _describe(row: Row, item: ObjectRow, asker: Asker) -> Outcome:
    name = item["class_name"]
    if name is None:
        return _NO_CLASS_NAME
    values = {
        "class": name,
        "box": _box(row, item, asker.options),
        "size": _size_of(row, item),
        "place": cell_of(row, item),
    }
    return asker.question(row, item["object_id"], values, name, (item["object_id"],))


def _caption(row: Row, asker: Asker) -> Iterator[tuple[str, Outcome]]:
    """What people wrote about the picture; without that, what its objects are."""
    for index, caption in enumerate(row["captions"]):
        yield row["row_id"], asker.question(row, f"caption-{index}", {"caption": caption}, "")
    if row["captions"]:
        return
    counts = _counts(row)
    if counts is None:
        yield row["row_id"], _uncountable(row)
        return
    values = {"caption": f"There {_verb(counts)} {listed(counts)} in the picture."}
    yield row["row_id"], asker.question(row, "caption", values, "", _ids(row))


def _count(row: Row, asker: Asker) -> Iterator[tuple[str, Outcome]]:
    """One question for each class that is there."""
    counts = _counts(row)
    if counts is None:
        yield row["row_id"], _uncountable(row)
        return
    for name, number in sorted(counts.items()):
        values = {"class": name, "classes": plural(name), "count": str(number)}
        asked = asker.question(row, f"count-{name}", values, str(number), _ids(row, name))
        yield row["row_id"], asked


def _presence(row: Row, asker: Asker) -> Iterator[tuple[str, Outcome]]:
    """As many classes that are not there as there are: those most often seen beside the ones that are."""
    counts = _counts(row)
    if counts is None:
        yield row["row_id"], _uncountable(row)
        return
    known = {item["class_name"] for item in row["objects"] if item["class_name"]}  # hidden ones too
    absent = asker.together.hard_negatives(known, len(counts), row["row_id"], asker.options.seed)
    for name in sorted(counts):
        values = {"class": name, "truth": "yes"}
        yield row["row_id"], asker.question(row, f"presence-{name}", values, "yes", _ids(row, name))
    for name in absent:
        yield row["row_id"], asker.question(row, f"presence-{name}", {"class": name, "truth": "no"}, "no")


def cell_of(row: Row, item: ObjectRow) -> str:
    """The cell of the 3 x 3 grid that holds the middle of the object's box."""
    x, y, width, height = item["bbox"]
    row_width, row_height = picture_size(row)
    column = min(max(int(3 * (x + width / 2) / row_width), 0), 2)
    line = min(max(int(3 * (y + height / 2) / row_height), 0), 2)
    return CELLS[line][column]


def _size_of(row: Row, item: ObjectRow) -> str:
    width, height = picture_size(row)
    share = item["area"] / (width * height)
    return "small" if share < _SMALL else "large" if share > _LARGE else "medium-sized"


def _box(row: Row, item: ObjectRow, options: ConvertOptions) -> str:
    """The object's box as text, in the picture as it is shown."""
    width, height = picture_size(row)
    shown_width, shown_height = shown_size(width, height, options)
    x, y, box_width, box_height = item["bbox"]
    across, down = shown_width / width, shown_height / height
    scaled = (x * across, y * down, box_width * across, box_height * down)
    return write_box(scaled, shown_width, shown_height, options.box_convention)


def _counts(row: Row) -> Counter[str] | None:
    """Visible objects by class; None if they cannot be counted: unnamed ones, groups, or none at all."""
    visible = [item for item in row["objects"] if item["visible"]]
    if not visible or any(item["class_name"] is None or item["iscrowd"] for item in visible):
        return None
    return Counter(item["class_name"] or "" for item in visible)


def _uncountable(row: Row) -> Refusal:
    visible = [item for item in row["objects"] if item["visible"]]
    if not visible:
        return _NO_OBJECTS
    if any(item["iscrowd"] for item in visible):
        return Refusal("CROWD", "a mask covers a group, so objects cannot be counted")
    return Refusal("NO_CLASS_NAME", "an object has no class name")


def _ids(row: Row, class_name: str | None = None) -> tuple[str, ...]:
    """The visible objects, of one class if it is given."""
    return tuple(
        item["object_id"]
        for item in row["objects"]
        if item["visible"] and (class_name is None or item["class_name"] == class_name)
    )


def _verb(counts: Counter[str]) -> str:
    first = min(counts.items(), key=lambda i: (-i[1], i[0]))
    return "is" if first[1] == 1 else "are"


TASKS: Final = {
    InstructionTask.CLASSIFY_REGION: Task(
        _each_object(_classify),
        object_inputs,
        crop,
        Wording(("What is the object in the center of the picture?",), ("{class}",), frozenset({"class"})),
    ),
    InstructionTask.LOCATE_OBJECT: Task(
        _each_object(_locate),
        object_inputs,
        outline,
        Wording(
            ("Where in the picture is the outlined object?",), ("{place}",), frozenset({"class", "place"})
        ),
    ),
    InstructionTask.REFER_OBJECT: Task(
        _each_object(_refer),
        object_inputs,
        whole,
        Wording(
            (
                "Where is the {class}? Give its box.",
                "Locate the {class} in the picture.",
                "Give the box of the {class}.",
            ),
            ("{box}",),
            frozenset({"class", "box"}),
        ),
    ),
    InstructionTask.DESCRIBE_REGION: Task(
        _each_object(_describe),
        object_inputs,
        whole,
        Wording(
            ("What is in the region {box}?", "Describe the object in {box}.", "What does {box} show?"),
            ("A {size} {class}, {place} in the picture.",),
            frozenset({"class", "box", "size", "place"}),
        ),
    ),
    InstructionTask.CAPTION: Task(
        _caption,
        row_inputs,
        whole,
        Wording(
            ("Describe the picture.", "What does the picture show?", "Write a caption for the picture."),
            ("{caption}",),
            frozenset({"caption"}),
        ),
    ),
    InstructionTask.COUNT: Task(
        _count,
        row_inputs,
        whole,
        Wording(
            ("How many {classes} are in the picture?", "Count the {classes}."),
            ("{count}",),
            frozenset({"class", "classes", "count"}),
        ),
    ),
    InstructionTask.PRESENCE: Task(
        _presence,
        row_inputs,
        whole,
        Wording(
            ("Is there a {class} in the picture?", "Does the picture show a {class}?"),
            ("{truth}",),
            frozenset({"class", "truth"}),
        ),
        needs_negatives=True,
    ),
}
