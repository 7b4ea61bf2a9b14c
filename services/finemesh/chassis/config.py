"""Configuration from the environment into frozen dataclasses.

A field `port: int = 50051` of a config reads `FINEMESH_PORT`; a nested dataclass adds its field's name:
`server.port` reads `FINEMESH_SERVER_PORT`. A `Secret` may come from a file: `FINEMESH_S3_SECRET_KEY_FILE`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union

from finemesh.chassis.auth import read_private_file
from finemesh.core.errors import FieldViolation, InvalidError

PREFIX: Final = "FINEMESH_"
_TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that no log or repr prints. `reveal()` is the one way to it."""

    _value: str = dataclasses.field(repr=False)

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


def from_environ(cls: type[ConfigT], environ: Mapping[str, str], *, prefix: str = PREFIX) -> ConfigT:
    """Fill the dataclass `cls` from `environ`.

    Types: str, int, float, bool, Path, Secret, enums, Literal, tuple[T, ...] (comma-separated), T | None, and
    nested dataclasses. An empty variable counts as unset.

    Raises:
        InvalidError: reason BAD_CONFIG, naming every bad or missing variable and what it should be.
    """
    violations: list[FieldViolation] = []
    value = _read_dataclass(cls, environ, prefix, violations)
    if violations:
        listed = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidError(
            f"configuration from the environment: {listed}", violations=violations, reason="BAD_CONFIG"
        )
    return value


def _read_dataclass(
    cls: Any, environ: Mapping[str, str], prefix: str, violations: list[FieldViolation]
) -> Any:
    values: dict[str, Any] = {}
    found_before = len(violations)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        variable = prefix + field.name.upper()
        kind, optional = _unwrap_optional(hints[field.name])
        if kind is not Secret and dataclasses.is_dataclass(kind):
            # An optional section is there once one of its variables is.
            if not optional or any(name.startswith(variable + "_") and environ[name] for name in environ):
                values[field.name] = _read_dataclass(kind, environ, variable + "_", violations)
            continue
        try:
            text = _text(variable, kind, environ)
            if text:
                values[field.name] = _parse(text, kind)
            elif _is_required(field):
                violations.append(FieldViolation(variable, f"is not set: set it to {_wanted(kind)}"))
        except InvalidError as error:
            violations.append(FieldViolation(variable, str(error)))
        except ValueError:
            shown = "***" if kind is Secret else repr(environ.get(variable))
            violations.append(FieldViolation(variable, f"is {shown}: set it to {_wanted(kind)}"))
    if len(violations) > found_before:
        return None
    try:
        return cls(**values)
    except InvalidError as error:  # a check of the dataclass itself
        violations.append(FieldViolation(prefix + "*", str(error)))
        return None


def _text(variable: str, kind: Any, environ: Mapping[str, str]) -> str:
    path = environ.get(variable + "_FILE", "") if kind is Secret else ""
    return read_private_file(Path(path)) if path else environ.get(variable, "").strip()


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _unwrap_optional(kind: Any) -> tuple[Any, bool]:
    if typing.get_origin(kind) in (Union, types.UnionType):
        arguments = [each for each in typing.get_args(kind) if each is not type(None)]
        return arguments[0], len(arguments) < len(typing.get_args(kind))
    return kind, False


def _parse(text: str, kind: Any) -> Any:
    """`text` as a value of type `kind`. Raises ValueError."""
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return tuple(_parse(part.strip(), element) for part in text.split(",") if part.strip())
    if typing.get_origin(kind) is Literal:
        choices = {str(choice): choice for choice in typing.get_args(kind)}
        if text not in choices:
            raise ValueError(text)
        return choices[text]
    if kind is bool:
        if text.lower() not in _TRUTHS:
            raise ValueError(text)
        return _TRUTHS[text.lower()]
    if kind is Path:
        return Path(text).expanduser()
    return kind(text)


def _wanted(kind: Any) -> str:
    """What a value should look like, in words."""
    if typing.get_origin(kind) is tuple:
        return f"a comma-separated list, each {_wanted(typing.get_args(kind)[0])}"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    words = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "a text"}
    return words.get(kind, "a value") if kind is not Secret else "a secret (or its _FILE)"
