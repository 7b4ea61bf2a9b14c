"""One record, field by field. What nobody asked for becomes the row's attributes."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from finemesh.data.faults import RowFault

_SHOWN: Final = 60
"""Characters."""


class Fields:
    """A record, and which of its fields were understood."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record
        self._taken: set[str] = set()

    def has(self, *names: str) -> bool:
        """Whether all of them hold something."""
        return all(self._record.get(name) not in (None, "") for name in names)

    def holds_objects(self, name: str) -> bool:
        """Whether a field is lists side by side, or a list of objects."""
        value = self._record.get(name)
        return isinstance(value, dict) or (
            isinstance(value, list) and all(isinstance(x, dict) for x in value)
        )

    def take(self, name: str) -> Any:
        """The value; None if there is none."""
        self._taken.add(name)
        return self._record.get(name)

    def text(self, name: str) -> str:
        """Raises RowFault (RECORD_INVALID) if there is no text."""
        value = self.take(name)
        if not isinstance(value, str):
            refuse(name, value, "a text")
        return value

    def optional_text(self, name: str) -> str:
        """As `text`, but "" where there is none."""
        return self.text(name) if self.has(name) else self.take(name) or ""

    def sequence(self, name: str) -> list[Any]:
        """Raises RowFault (RECORD_INVALID) if there is no list, or nothing in it."""
        value = self.take(name)
        if not isinstance(value, list) or not value:
            refuse(name, value, "a list of turns")
        return value

    def rest(self) -> dict[str, Any]:
        """What was not taken and is not null, as JSON can hold it."""
        return {
            str(name): plain(value)
            for name, value in self._record.items()
            if name not in self._taken and value is not None
        }


def refuse(field: str, value: Any, wanted: str) -> NoReturn:
    """Raises RowFault (RECORD_INVALID)."""
    if value is None:
        raise RowFault("RECORD_INVALID", f"{field} is missing: it should be {wanted}", field)
    raise RowFault("RECORD_INVALID", f"{field} is {kind_of(value)}, not {wanted}", field)


def kind_of(value: Any) -> str:
    """The kind of a JSON value, in words."""
    kinds = {bool: "true or false", dict: "an object", list: "a list", str: "a text", type(None): "null"}
    return "empty" if value in ("", [], {}) else kinds.get(type(value), "a number")


def shown(value: Any) -> str:
    """A value of the source in a message: its beginning."""
    words = repr(value)
    return words if len(words) <= _SHOWN else words[:_SHOWN] + "…"


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are none, dates and the like become texts, bytes base64."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if isinstance(value, str | int | float | None) and finite else str(value)


def embedded_json(value: Any, field: str, reason: str) -> Any:
    """`value`, or what it says if it is JSON in a text. Raises RowFault with `reason` if that is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return plain(json.loads(value))
    except (ValueError, RecursionError) as error:
        raise RowFault(reason, f"{field} is a text that is no JSON: {error}", field) from error
