"""What stands in which column of a table: the roles that a request names, or the columns' own names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.data.readers.conversations.draft import Draft
from finemesh.data.readers.conversations.fields import refuse, shown
from finemesh.data.readers.conversations.forms import FORMS, Form, form_of
from finemesh.data.readers.image_folder_objects import OBJECTS, make_objects

ROLES: Final = (
    *("prompt", "completion", "instruction", "input", "output", "system", "text", "chosen", "rejected"),
    *("image", "class"),
)
"""What `ImportOptions.columns` may name."""
CLASS: Final = "class"


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cells of a row become the fields of a record, and which form that record has.

    Attributes:
        names: of the fields, in the order of the columns.
    """

    names: tuple[str, ...]
    form: Form


def lay_out(
    file: str, columns: Sequence[str], chosen: Mapping[str, str], lists: frozenset[str] = frozenset()
) -> Layout:
    """The layout of a table with these columns; `lists` are those that hold lists.

    Raises:
        InvalidError: INVALID_COLUMNS, `chosen` names no role or no column, a column's name occurs twice, or
            the columns tell no form.
    """
    wrong = [role for role in chosen if role not in ROLES]
    if wrong:
        raise _refusal(file, wrong[0], f"is no role: use one of {', '.join(ROLES)}")
    missing = [role for role, column in chosen.items() if column not in columns]
    if missing:
        problem = f"names the column {shown(chosen[missing[0]])}; there are {_listed(columns)}"
        raise _refusal(file, missing[0], problem)
    shared = [role for role, column in chosen.items() if [*chosen.values()].count(column) > 1]
    if shared:
        problem = (
            f"names the column {shown(chosen[shared[0]])}, and so does {shared[1]}: a column plays one role"
        )
        raise _refusal(file, shared[0], problem)
    if len({*columns}) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise _refusal(file, "", f"the column {shown(twice)} occurs twice: rename one of the two")
    roles = {column: role for role, column in chosen.items()}
    names = tuple(roles.get(column) or _free_name(column, chosen) for column in columns)
    cells = {name: [] if column in lists else "" for column, name in zip(columns, names, strict=True)}
    return Layout(names, _form(file, columns, cells))


def _form(file: str, columns: Sequence[str], record: Mapping[str, Any]) -> Form:
    name = form_of(record)
    if name is not None:
        return Form(FORMS[name].keys, _classified(FORMS[name]))
    if "image" in record or "images" in record:
        return Form(("image",), _classified(None))
    roles = ", ".join(ROLES)
    hint = f"the columns {_listed(columns)} tell no form: say with role=column which is which of {roles}"
    raise _refusal(file, "", hint)


def _classified(form: Form | None) -> Callable[[Draft], None]:
    """Builds the form, if any, and takes the class of the row, and the objects of its picture."""

    def build(draft: Draft) -> None:
        if form is not None:
            form.build(draft)
        value = draft.fields.take(CLASS)
        if value is not None and not isinstance(value, str):
            refuse(CLASS, value, "a name")
        draft.class_name = (value or "").strip() or None
        if not draft.messages and draft.fields.holds_objects(OBJECTS):
            draft.objects = make_objects(draft.fields.take(OBJECTS), OBJECTS)
            if any((item["class_name"] or "").isdigit() for item in draft.objects):
                draft.notes.append("classes are numbers without names: the numbers are kept as names")

    return build


def _free_name(column: str, chosen: Mapping[str, str]) -> str:
    """The column's own name, unless another column plays that role."""
    return f"column {column}" if column in chosen else column


def _listed(columns: Sequence[str]) -> str:
    listed = ", ".join(shown(column) for column in columns[:12])
    return f"{listed} and {len(columns) - 12} more" if len(columns) > 12 else listed


def _refusal(file: str, role: str, problem: str) -> InvalidError:
    field = f"options.columns.{role}" if role else "options.columns"
    return InvalidError(
        f"{file}: {role} {problem}" if role else f"{file}: {problem}",
        reason="INVALID_COLUMNS",
        metadata={"file": file},
        violations=[FieldViolation(field, problem)],
    )
