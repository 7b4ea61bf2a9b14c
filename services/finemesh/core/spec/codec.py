"""Frozen dataclasses to plain JSON values and back, strictly: a wrong field is named by its path.

A union of dataclasses is written as an object with one key, the class name in lower case:
`{"lora": {"rank": 8}}`, as a protobuf `oneof` inside a message reads too. Tuples become lists, enums
their values, and a field that may be None is null. An enum is read in any case, with the prefix of the
contract (`TASK_LANGUAGE`) or without, and a whole number also as `2.0`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar, cast

from finemesh.core.errors import FieldViolation, InvalidError

# Asked for every field of every spec, and always the same.
type_hints = functools.cache(typing.get_type_hints)
is_message = functools.cache(dataclasses.is_dataclass)
_fields = functools.cache(dataclasses.fields)
_origin: Callable[[Any], Any] = functools.cache(typing.get_origin)
T = TypeVar("T")
Scalar = str | int | float | bool
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def encode(value: Any) -> Any:
    """The JSON value of a dataclass, following its annotations, so that 3 and 3.0 write the same."""
    return _encoder(type(value))(value)


@functools.cache
def _encoder(annotation: Any) -> Callable[[Any], Any]:
    """Writes what a field of this annotation holds. Made once: to look at the types takes longer."""
    if isinstance(annotation, types.UnionType):
        if types.NoneType not in typing.get_args(annotation):
            return lambda value: {type(value).__name__.lower(): encode(value)}
        inner = _encoder(_without_none(annotation))
        return lambda value: None if value is None else inner(value)
    if is_message(annotation):
        hints = type_hints(annotation)
        fields = [(f.name, _encoder(hints[f.name])) for f in _fields(annotation)]
        return lambda value: {name: written(getattr(value, name)) for name, written in fields}
    if (_origin(annotation) or annotation) is tuple:
        return lambda value: [encode(item) for item in value]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return lambda value: value.value
    # 3 becomes 3.0 and -0.0 becomes 0.0: values that compare equal write the same.
    return (lambda value: float(value) + 0.0) if annotation is float else _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def decode(cls: type[T], value: object, path: str) -> T:
    """Build `cls` from JSON values. Fields that are absent take their defaults.

    Raises:
        InvalidError: reason MALFORMED_SPEC, with one violation per wrong field.
    """
    violations: list[FieldViolation] = []
    result = _decode(cls, value, path, violations)
    if violations:
        listed = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise InvalidError(listed, violations=violations, reason="MALFORMED_SPEC")
    return cast("T", result)


def flatten(value: object, prefix: str = "") -> dict[str, Scalar]:
    """What `encode` wrote, as scalars by dotted path. A list is joined by commas."""
    flat: dict[str, Scalar] = {}
    for key, item in cast("dict[str, object]", value).items():
        path = f"{prefix}{key}"
        if isinstance(item, dict):
            flat |= flatten(cast("dict[str, object]", item), f"{path}.")
        elif isinstance(item, list):
            flat[path] = ",".join(str(part) for part in cast("list[object]", item))
        else:
            flat[path] = cast("Scalar", item)
    return flat


def digest(value: object) -> str:
    """SHA-256 in hex of the canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def arms(annotation: Any) -> dict[str, type[Any]]:
    """The classes of a union of dataclasses by the names they are written under; nothing if it is none."""
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    if not all(is_message(member) for member in members):
        return {}
    return {cast("type[Any]", member).__name__.lower(): member for member in members}


def same_word(given: object, value: str, enum: type[Enum]) -> bool:
    """Whether `given` is a way to write a member's value: `TASK_LANGUAGE`, `language` for Task.LANGUAGE."""
    return isinstance(given, str) and _word(given).removeprefix(_prefix(enum)) == _word(value)


def _word(text: str) -> str:
    return text.upper().replace("-", "_")


@functools.cache
def _prefix(enum: type[Enum]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", enum.__name__).upper() + "_"


@functools.cache
def _members(enum: type[Enum]) -> Mapping[str, Enum]:
    return {_word(member.value): member for member in reversed(enum)}


def _decode(annotation: Any, value: object, path: str, violations: list[FieldViolation]) -> object:
    if isinstance(annotation, types.UnionType):
        if types.NoneType in typing.get_args(annotation):
            return None if value is None else _decode(_without_none(annotation), value, path, violations)
        return _decode_union(annotation, value, path, violations)
    if is_message(annotation):
        return _decode_dataclass(cast("type[Any]", annotation), value, path, violations)
    if _origin(annotation) is dict:
        if not isinstance(value, dict):
            return _wrong(violations, path, "write an object")
        item_type = typing.get_args(annotation)[1]
        pairs = cast("dict[str, object]", value).items()
        return {key: _decode(item_type, item, f"{path}.{key}", violations) for key, item in pairs}
    if _origin(annotation) is tuple:
        if not isinstance(value, list | tuple):
            return _wrong(violations, path, "write a list")
        item_type = typing.get_args(annotation)[0]
        items = cast("list[object]", value)
        return tuple(_decode(item_type, item, f"{path}[{i}]", violations) for i, item in enumerate(items))
    if issubclass(annotation, Enum):
        word = _word(value).removeprefix(_prefix(annotation)) if isinstance(value, str) else None
        known = _members(annotation).get(word) if word is not None else None
        return _wrong(violations, path, _no_member(value, annotation)) if known is None else known
    # bool is an int in Python, and JSON has one number type: 3 is a float and 3.0 an int, True neither.
    allowed = (int, float) if annotation is float else (annotation,)
    whole = annotation is int and isinstance(value, float) and value.is_integer()
    if not (isinstance(value, allowed) or whole) or (isinstance(value, bool) and annotation is not bool):
        return _wrong(violations, path, f"{value!r} is not {_WORDS.get(annotation, annotation.__name__)}")
    return cast("Callable[[object], object]", annotation)(value)


def _decode_dataclass(cls: type[Any], value: object, path: str, violations: list[FieldViolation]) -> object:
    if not isinstance(value, Mapping):
        return _wrong(violations, path, "write an object")
    given = cast("Mapping[str, object]", value)
    hints, fields = type_hints(cls), _fields(cls)
    for name in sorted(given.keys() - hints.keys()):
        known = [word for f in fields for word in (f.name, *arms(hints[f.name]))]
        _wrong(
            violations, f"{path}.{name}", f"unknown{nearest(name, known) or '; there are ' + _listed(known)}"
        )
    arguments: dict[str, object] = {}
    for field in fields:
        if field.name in given:
            arguments[field.name] = _decode(
                hints[field.name], given[field.name], f"{path}.{field.name}", violations
            )
        elif field.default is field.default_factory is dataclasses.MISSING:
            _wrong(violations, f"{path}.{field.name}", f"is required{_choices(hints[field.name])}")
    return None if violations else cls(**arguments)


def _without_none(annotation: types.UnionType) -> Any:
    """`X | None` -> `X`."""
    return next(arm for arm in typing.get_args(annotation) if arm is not types.NoneType)


def _decode_union(
    annotation: types.UnionType, value: object, path: str, violations: list[FieldViolation]
) -> object:
    known = arms(annotation)
    given = cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
    if len(given) != 1 or not given.keys() <= known.keys():
        return _wrong(violations, path, f"set exactly one of {', '.join(known)}")
    [(name, inner)] = given.items()
    return _decode(known[name], inner, f"{path}.{name}", violations)


def _choices(annotation: Any) -> str:
    members = annotation if isinstance(annotation, type(Enum)) else ()
    return ": one of " + _listed(str(member.value) for member in members) if members else ""


def _no_member(value: object, enum: type[Enum]) -> str:
    known = [str(member.value) for member in enum]
    return f"{value!r} is not one of {_listed(known)}{nearest(str(value).upper(), known)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for a word that is almost one of those known; empty otherwise."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _wrong(violations: list[FieldViolation], path: str, description: str) -> None:
    violations.append(FieldViolation(path, description))
