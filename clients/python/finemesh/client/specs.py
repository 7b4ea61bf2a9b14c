"""Spec files as messages and back. Names, types and words are those of the contract; none is listed here."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from finemesh import specfile
from finemesh.specfile import SpecFile
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec

_SCHEMA_FILE: Final = "fine-tune-spec.schema.json"
# What a value of each type of the contract is in Python, and to people.
_KINDS: Final[dict[int, tuple[type, str]]] = {
    FieldDescriptor.CPPTYPE_STRING: (str, "a text"),
    FieldDescriptor.CPPTYPE_INT32: (int, "a whole number"),
    FieldDescriptor.CPPTYPE_INT64: (int, "a whole number"),
    FieldDescriptor.CPPTYPE_DOUBLE: (float, "a number"),
    FieldDescriptor.CPPTYPE_BOOL: (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A field that is wrong: where it was said (empty if nowhere), its path, and what to write."""

    place: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.place + ': ' if self.place else ''}{self.field}: {self.message}"


class SpecError(ValueError):
    """A spec file that says what no spec can."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def to_message(file: SpecFile) -> FineTuneSpec:
    """The message that says what a file says. Raises SpecError with every field that is wrong in itself."""
    message = FineTuneSpec()
    problems = [Problem(file.place(path), path, text) for path, text in fill(message, file.values)]
    if problems:
        raise SpecError(problems)
    return message


def to_yaml(message: FineTuneSpec, heading: str = "") -> str:
    """The file that says what `message` says, fields that are zero included."""
    return specfile.dump(_values(message), heading)


def schema() -> str:
    """The JSON schema of spec files, for editors."""
    return resources.files("finemesh.client").joinpath(_SCHEMA_FILE).read_text()


Said = Iterator[tuple[str, str]]


def fill(message: Message, values: dict[str, Any], head: str = "") -> Said:
    """Sets what `values` say; yields path and fault of what cannot be set."""
    known = message.DESCRIPTOR.fields_by_name
    camel: Any = message.DESCRIPTOR.fields_by_camelcase_name
    for name, value in values.items():
        field: Any = known.get(name) or camel.get(name)  # the JSON of HTTP is in camel case
        if field is None:
            yield head + name, f"unknown{_meant(message, name, head)}"
            continue
        path, chosen = (
            head + field.name,
            field.containing_oneof and message.WhichOneof(field.containing_oneof.name),
        )
        if chosen not in (None, field.name):
            yield path, f"excludes {chosen}: keep one of the two; -o {chosen}=null takes it out"
        elif field.message_type is not None:
            yield from _fill_inner(getattr(message, field.name), value, path)
        elif value is not None:  # null is the default
            yield from _set(message, field, value, path)


def _fill_inner(message: Message, value: Any, path: str) -> Said:
    message.SetInParent()
    if isinstance(value, dict):
        yield from fill(message, cast("dict[str, Any]", value), f"{path}.")
    elif value is not None:
        names = ", ".join(message.DESCRIPTOR.fields_by_name)
        yield path, f"{value!r} is one value, and {path} has fields: {names}"


def _set(message: Message, field: Any, value: Any, path: str) -> Said:
    if not field.is_repeated:
        fault, plain = _plain(field, value)
        yield from _try(lambda: setattr(message, field.name, plain), fault, path)
    elif not isinstance(value, list):
        yield path, f"{value!r} is one value: write a list, [{value}]"
    else:
        for index, item in enumerate(cast("list[Any]", value)):
            fault, plain = _plain(field, item)
            yield from _try(
                lambda item=plain: getattr(message, field.name).append(item), fault, f"{path}[{index}]"
            )


def _try(change: Any, fault: str, path: str) -> Said:
    try:
        if not fault:
            change()
    except ValueError as error:  # of the range of its type
        fault = str(error)
    if fault:
        yield path, fault


def _plain(field: Any, value: Any) -> tuple[str, Any]:
    """What is wrong with a value (nothing if it is right), and what to set."""
    if field.enum_type is not None:
        return _word(field.enum_type, value)
    kind, words = _KINDS[field.cpp_type]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return "", float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return "", int(value)
    return ("", value) if type(value) is kind else (f"{value!r} is not {words}", None)


def _word(enum: Any, value: Any) -> tuple[str, Any]:
    """The number of a word: `TASK_LANGUAGE`, `LANGUAGE` and `language` are one."""
    words = _words(enum)
    joined = str(value).upper().replace("-", "_").removeprefix(_prefix(enum))
    if joined in words:
        return "", words[joined]
    near = difflib.get_close_matches(joined, words, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{value!r} is not one of {', '.join(words)}{hint}", None


def _words(enum: Any) -> dict[str, int]:
    return {value.name.removeprefix(_prefix(enum)): value.number for value in enum.values if value.number}


def _prefix(enum: Any) -> str:
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


def _meant(message: Message, name: str, head: str) -> str:
    """The field that was probably meant: of its very name elsewhere in a spec, or one like it here."""
    known = message.DESCRIPTOR.fields_by_name
    choice: Any = message.DESCRIPTOR.oneofs_by_name.get(name)
    if choice is not None:
        arms = " or ".join(head + field.name for field in choice.fields)
        return f": what it chooses between stands in its place, {arms}"
    elsewhere = [path for path in _paths(FineTuneSpec.DESCRIPTOR) if path.rpartition(".")[2] == name]
    meant = elsewhere or [head + near for near in difflib.get_close_matches(name, known, n=1)]
    return f"; did you mean {' or '.join(meant)}?" if meant else f"; there are {', '.join(known)}"


def _paths(descriptor: Any) -> Iterator[str]:
    for field in descriptor.fields:
        yield field.name
        if field.message_type is not None:
            yield from (f"{field.name}.{path}" for path in _paths(field.message_type))


def _values(message: Message) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        described: Any = field
        value = getattr(message, described.name)
        if described.has_presence and not message.HasField(described.name):
            continue
        if described.message_type is not None:
            values[described.name] = _values(value)
        elif described.is_repeated:
            values[described.name] = [_readable(described, item) for item in value]
        elif described.enum_type is None or value:  # an unspecified word says nothing
            values[described.name] = _readable(described, value)
    return values


def _readable(field: Any, value: Any) -> Any:
    """A value as a file has it; a word that this release does not know stays a number."""
    if field.enum_type is None:
        return value
    known = field.enum_type.values_by_number.get(value)
    return known.name.removeprefix(_prefix(field.enum_type)) if known else value
