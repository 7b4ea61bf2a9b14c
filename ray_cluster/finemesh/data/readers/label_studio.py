"""Label Studio's JSON export: a list of tasks. Source: https://labelstud.io/guide/export.

A task has one row for each of its annotations. What was cancelled is left out with a warning; predictions are
read where a task has no annotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from finemesh.core.errors import InvalidError
from finemesh.data.faults import RowFault
from finemesh.data.images import Picture, check_size
from finemesh.data.jsonio import malformed_annotations
from finemesh.data.jsonstream import iter_pieces
from finemesh.data.polygons import is_number
from finemesh.data.readers.context import ReadContext
from finemesh.data.readers.label_studio_places import find_picture, picture_key
from finemesh.data.readers.label_studio_regions import Region, add_to, make_region_object, shape_of, value_of
from finemesh.data.readers.pictures import Pictures
from finemesh.data.readers.short_names import short_names, warn_unread
from finemesh.data.readers.storable import check_storable
from finemesh.data.readers.survey import Survey
from finemesh.data.rows import Candidate, make_row
from finemesh.data.schema import ObjectRow, Row

# A task is often longer than the start of a file that tells its form.
_TASK: Final = re.compile(rb'"(?:annotations|completions|predictions)"\s*:\s*\[')
_MARKS: Final = re.compile(
    rb'"(?:completed_by|was_cancelled|from_name|original_width|model_version|file_upload)"\s*:'
)
_PREDICTED: Final = "tasks without annotations: their predictions were read, with their scores"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One annotation, or one prediction, of a task.

    Attributes:
        where: of the task in its file, e.g. `[3]`.
        field: of the annotation in the task, e.g. `annotations[0]`.
    """

    file: str
    where: str
    task: Mapping[str, Any]
    field: str
    value: Any

    @property
    def predicted(self) -> bool:
        return self.field.startswith("predictions")


def detect(survey: Survey) -> str | None:
    return next((name for name in survey.json_files if _is_export(survey, name)), None)


def _is_export(survey: Survey, name: str) -> bool:
    if survey.json_head(name).kind != "list":
        return False
    record = survey.json_head(name).record
    if record is not None:
        listed = any(
            isinstance(record.get(key), list) for key in ("annotations", "completions", "predictions")
        )
        return listed and isinstance(record.get("data"), dict)
    head = survey.head(name)
    return bool(_TASK.search(head) and _MARKS.search(head))


def read(context: ReadContext) -> Iterator[Candidate]:
    """Candidates of all tasks. Raises InvalidError (MALFORMED_JSON, MALFORMED_ANNOTATIONS)."""
    survey = context.survey
    pictures = Pictures(context)
    names = [each for each in survey.json_files if _is_export(survey, each)] or survey.json_files
    warn_unread(context, survey.json_files, names)
    cancelled = 0
    for name, short in short_names(names).items():
        for index, task in _tasks(context, name):
            cancelled += _cancelled(task)
            yield from _candidates(context, pictures, name, short, index, task)
    if cancelled:
        context.warn(f"{cancelled} cancelled annotations were left out")


def _tasks(context: ReadContext, name: str) -> Iterator[tuple[int, Any]]:
    try:
        with context.source.open(name) as stream:
            for piece in iter_pieces(stream, name):
                if piece.key or piece.first < 0:
                    raise malformed_annotations(name, "the top", "is not a list of tasks")
                context.total += len(piece.values)
                yield from enumerate(piece.values, start=piece.first)
    except RowFault as fault:
        raise InvalidError(fault.message, reason=fault.reason, metadata={"file": name}) from fault


def _candidates(
    context: ReadContext, pictures: Pictures, name: str, short: str, index: int, task: Any
) -> Iterator[Candidate]:
    where = f"[{index}]"
    said = task.get("id") if isinstance(task, dict) else None
    row_id = f"{short}/{said if isinstance(said, int | str) else where}"
    try:
        entries = _entries(context, name, where, task)
    except RowFault as fault:
        yield Candidate(row_id, partial(_refuse, fault))
        return
    for entry in entries:
        number = entry.value.get("id", entry.field) if isinstance(entry.value, dict) else entry.field
        own = row_id if len(entries) == 1 else f"{row_id}/{number}"
        yield Candidate(own, partial(_row, own, entry, pictures))


def _refuse(fault: RowFault) -> Row:
    raise fault


def _entries(context: ReadContext, name: str, where: str, task: Any) -> list[_Entry]:
    """The annotations that count, else the predictions. Raises RowFault (MALFORMED_TASK, NOT_ANNOTATED)."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise RowFault("MALFORMED_TASK", "the task is not an object with data", where)
    check_storable(task, where)
    key = "annotations" if "annotations" in task else "completions"
    listed = {each: _list(task, each, where) for each in (key, "predictions")}
    counting = [(i, each) for i, each in enumerate(listed[key]) if not _is_cancelled(each)]
    if counting:
        return [_Entry(name, where, task, f"{key}[{i}]", each) for i, each in counting]
    if not listed["predictions"]:
        message = "nobody has annotated the task: export annotated tasks alone, or leave it aside"
        raise RowFault("NOT_ANNOTATED", message, where)
    context.warn(_PREDICTED)
    predicted = enumerate(listed["predictions"])
    return [_Entry(name, where, task, f"predictions[{i}]", each) for i, each in predicted]


def _list(task: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = task.get(key) or []
    if not isinstance(value, list):
        raise RowFault("MALFORMED_TASK", f"{key} is not a list", f"{where}.{key}")
    return value


def _cancelled(task: Any) -> int:
    """How many annotations of a task are cancelled."""
    listed = task.get("annotations", task.get("completions")) if isinstance(task, dict) else None
    return sum(map(_is_cancelled, listed)) if isinstance(listed, list) else 0


def _is_cancelled(annotation: Any) -> bool:
    return isinstance(annotation, dict) and bool(annotation.get("was_cancelled"))


def _row(row_id: str, entry: _Entry, pictures: Pictures) -> Row:
    place = f"{entry.where}.{entry.field}"
    result = entry.value.get("result") if isinstance(entry.value, dict) else None
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise RowFault(
            "MALFORMED_ANNOTATION", "result is missing or not a list of objects", f"{place}.result"
        )
    key = picture_key(entry.task["data"])
    said = _Said(f"{place}.result")
    for index, item in enumerate(result):
        said.add(index, item)
    said.check()
    picture, objects = _picture_and_objects(entry, pictures, key, result, said)
    parents = [f"{entry.file}#{region.where}" for region in said.regions]
    return make_row(
        row_id,
        source={"file": entry.file, "key": entry.where},
        pictures=[picture],
        objects=objects,
        class_name=said.class_name,
        captions=said.captions,
        attributes=_attributes(entry, key, said),
        parents=parents,
    )


@dataclass(slots=True)
class _Said:
    """What the items of a result say, sorted into regions and what is said of the whole picture."""

    where: str
    regions: list[Region] = field(default_factory=list[Region])
    rest: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list[tuple[int, Mapping[str, Any]]])
    class_name: str | None = None
    captions: list[str] = field(default_factory=list[str])
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    other: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])

    def add(self, index: int, item: Mapping[str, Any]) -> None:
        shape = shape_of(item)
        if shape is None:
            self.rest.append((index, item))
        else:
            self.regions.append(Region(f"{self.where}[{index}]", shape, item))

    def check(self) -> None:
        """Once all items are there: give those without a shape to their regions, or to the picture."""
        by_id = {str(region.item.get("id")): region for region in self.regions if region.item.get("id")}
        choices: dict[str, list[Any]] = {}
        for index, item in self.rest:
            region = by_id.get(str(item.get("id")))
            if region is not None:
                region.more.append(item)
                continue
            self._add_to_picture(f"{self.where}[{index}]", item, choices)
        chosen = [choice for each in choices.values() for choice in each]
        if len(chosen) == 1 and isinstance(chosen[0], str) and chosen[0].strip():
            self.class_name = chosen[0].strip()
        elif chosen:
            self.attributes["choices"] = choices

    def _add_to_picture(self, where: str, item: Mapping[str, Any], choices: dict[str, list[Any]]) -> None:
        kind, name = str(item.get("type", "")), str(item.get("from_name", item.get("type", "")))
        if kind == "relation":
            self.attributes.setdefault("relations", []).append(dict(item))
            return
        value = value_of(item, where)
        said = value.get(kind, value)
        if kind == "choices" and isinstance(said, list):
            choices.setdefault(name, []).extend(said)
        elif kind == "textarea" and (texts := _texts(value.get("text"))):
            self.captions += texts
        else:
            add_to(self.other, name, said)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text.strip()]


def _picture_and_objects(
    entry: _Entry, pictures: Pictures, key: str, result: list[Any], said: _Said
) -> tuple[Picture, list[ObjectRow]]:
    """The picture, and its objects; without any picture in the source, one that is rendered from them."""
    stated = _size(result, said.where)
    place, where = entry.task["data"][key], f"{entry.where}.data.{key}"
    rendered = stated is not None and not pictures.names
    picture = None if rendered else pictures.read(find_picture(pictures, place, where))
    size = stated if picture is None else (picture.width, picture.height)
    assert size is not None
    if stated not in {None, size}:
        message = f"the picture is {size[0]} x {size[1]}, but {stated} is declared"
        raise RowFault("IMAGE_SIZE_MISMATCH", message, f"{said.where}.original_width")
    check_size(*size, pictures.max_pixels)
    objects = [
        make_region_object(region, index, size, _score(entry, region))
        for index, region in enumerate(said.regions)
    ]
    if picture is None:
        picture = pictures.get(place, size, objects, key=f"{entry.file}{entry.where}", field=where)
    return picture, objects


def _size(result: list[Any], where: str) -> tuple[int, int] | None:
    """Width and height of the picture in pixels, as the items state them; None if none does."""
    sizes = {
        (item["original_width"], item["original_height"])
        for item in result
        if is_number(item.get("original_width")) and is_number(item.get("original_height"))
    }
    if not sizes:
        return None
    width, height = min(sizes)
    if len(sizes) > 1 or min(width, height) < 1 or width % 1 or height % 1:
        raise RowFault("MALFORMED_IMAGE", f"the items state the sizes {sorted(sizes)[:4]}", where)
    return int(width), int(height)


def _score(entry: _Entry, region: Region) -> float | None:
    if not entry.predicted:
        return None
    stated = (region.item.get("score"), entry.value.get("score"))
    return next((float(score) for score in stated if is_number(score) and 0 <= score <= 1), None)


def _attributes(entry: _Entry, key: str, said: _Said) -> dict[str, Any]:
    """What the task and its annotation say besides."""
    data = {name: value for name, value in entry.task["data"].items() if name != key}
    own = {
        name: value for name, value in entry.value.items() if name != "result" and value not in (None, [], {})
    }
    meta = {name: entry.task[name] for name in ("meta",) if entry.task.get(name)}
    stated: dict[str, Any] = {"prediction" if entry.predicted else "annotation": own, **meta}
    other: dict[str, Any] = {"result": said.other} if said.other else {}
    return {**said.attributes, **other, **({"data": data} if data else {}), **stated}
