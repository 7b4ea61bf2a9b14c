"""What is asked of the data compiler, between its two forms: the messages of the contract and the values of
the core.

A field of a message and a field of a value are the same if they have the same name (or are in `_NAMES`), and
so are the values of their enums. A field of the message that is left out, zero or unspecified means the
value's default; where zero says something else, the message's field is `optional`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from enum import Enum
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from finemesh.core.errors import FieldViolation, InvalidError
from finemesh.core.spec.data import (
    ConvertOptions,
    ImportOptions,
    SplitOptions,
    ValidateOptions,
    ValidationLevel,
)
from finemesh.v1 import dataset_pb2, validation_report_pb2

_NAMES: Final = {
    "image_size_px": "image_size_pixels",
    "max_box_overhang_px": "max_box_overhang_pixels",
    "min_object_px": "min_object_pixels",
    "target": "format",
    "test": "test_ratio",
    "train": "train_ratio",
    "val": "validation_ratio",
}

_LEVELS: Final[dict[int, ValidationLevel]] = {
    validation_report_pb2.VALIDATION_LEVEL_UNSPECIFIED: ValidationLevel.BASIC,
    validation_report_pb2.VALIDATION_LEVEL_BASIC: ValidationLevel.BASIC,
    validation_report_pb2.VALIDATION_LEVEL_STRICT: ValidationLevel.STRICT,
}

M = TypeVar("M", bound=Message)
Options = TypeVar("Options", ImportOptions, SplitOptions, ConvertOptions, ValidateOptions)


def import_options(origin: dataset_pb2.ImportOrigin, path: str = "origin") -> ImportOptions:
    """Raises InvalidError, reason INVALID_OPTIONS, naming every wrong field below `path`."""
    return _options(ImportOptions, origin, path)


def split_options(origin: dataset_pb2.SplitOrigin, path: str = "origin") -> SplitOptions:
    """As `import_options`. The ratios of the message are relative to their sum."""
    ratios = {"train": origin.train_ratio, "val": origin.validation_ratio, "test": origin.test_ratio}
    if not any(ratios.values()):
        return _options(SplitOptions, origin, path)
    wrong = [
        FieldViolation(f"{path}.{_NAMES[name]}", f"{value} is no share: give 0 or more")
        for name, value in ratios.items()
        if not (math.isfinite(value) and value >= 0)
    ]
    if not wrong and not origin.train_ratio:
        wrong.append(FieldViolation(f"{path}.train_ratio", "nothing would be left to train on"))
    if wrong:
        raise _invalid(wrong)
    total = sum(ratios.values())
    return _options(SplitOptions, origin, path, {name: value / total for name, value in ratios.items()})


def convert_options(origin: dataset_pb2.ConvertOrigin, path: str = "origin") -> ConvertOptions:
    """As `import_options`."""
    if not origin.format:
        raise _invalid([FieldViolation(f"{path}.format", "is not set: say which form to write")])
    return _options(ConvertOptions, origin, path)


def validate_options(
    level: int, thresholds: validation_report_pb2.ValidationThresholds, path: str = "thresholds"
) -> ValidateOptions:
    """As `import_options`. `level` is of the enum ValidationLevel."""
    if level not in _LEVELS:
        raise _invalid([FieldViolation("level", "is no validation level: use BASIC or STRICT")])
    return _options(ValidateOptions, thresholds, path, {"level": _LEVELS[level]})


def level_of(options: ValidateOptions) -> validation_report_pb2.ValidationLevel:
    """The level in the contract's words."""
    strict = options.level is ValidationLevel.STRICT
    return (
        validation_report_pb2.VALIDATION_LEVEL_STRICT
        if strict
        else validation_report_pb2.VALIDATION_LEVEL_BASIC
    )


def fill(message: M, options: Any) -> M:
    """`message`, which now says what `options` say, with as little left to defaults as it can say."""
    for field in dataclasses.fields(options):
        name = _NAMES.get(field.name, field.name)
        if name not in message.DESCRIPTOR.fields_by_name:  # a level, which has a place of its own
            continue
        descriptor = message.DESCRIPTOR.fields_by_name[name]
        value = getattr(options, field.name)
        if value is None:
            continue
        if isinstance(value, Enum):
            number = _enum_numbers(descriptor).get(value.name)
            if number is not None:
                setattr(message, name, number)
        elif isinstance(value, tuple):
            getattr(message, name).extend(_plain(item, descriptor) for item in value)
        elif isinstance(value, dict):
            getattr(message, name).update(value)
        else:
            setattr(message, name, value)
    return message


def _options(cls: type[Options], message: Message, path: str, given: dict[str, Any] | None = None) -> Options:
    violations: list[FieldViolation] = []
    values = dict(given or {})
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name in values:
            continue
        name = _NAMES.get(field.name, field.name)
        descriptor = message.DESCRIPTOR.fields_by_name[name]
        if _is_said(message, descriptor):
            kind = _without_none(hints[field.name])
            value = _value(kind, getattr(message, name), descriptor, _join(path, name), violations)
            values[field.name] = value
    if violations:
        raise _invalid(violations)
    try:
        return cls(**values)
    except InvalidError as error:
        raise _invalid([_placed(violation, path) for violation in error.violations]) from None


def _is_said(message: Message, descriptor: Any) -> bool:
    if descriptor.has_presence:
        return message.HasField(descriptor.name)
    return bool(getattr(message, descriptor.name))


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return next(arm for arm in typing.get_args(kind) if arm is not types.NoneType)
    return kind


def _value(kind: Any, value: Any, descriptor: Any, path: str, violations: list[FieldViolation]) -> Any:
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(
            _value(item, each, descriptor, f"{path}[{index}]", violations) for index, each in enumerate(value)
        )
    if typing.get_origin(kind) is dict:
        return dict(value)
    if issubclass(kind, Enum):
        names = {number: name for name, number in _enum_numbers(descriptor).items()}
        if value not in names:  # proto3 enums are open: a newer client may send what we do not know
            known = ", ".join(descriptor.enum_type.values_by_name)
            violations.append(FieldViolation(path, f"{value} is not a choice: use one of {known}"))
            return None
        return kind[names[value]]
    return value


def _plain(value: Any, descriptor: Any) -> Any:
    return _enum_numbers(descriptor)[value.name] if isinstance(value, Enum) else value


def _enum_numbers(descriptor: Any) -> dict[str, int]:
    """The numbers of an enum by the names without their common prefix, UNSPECIFIED left out."""
    values = descriptor.enum_type.values
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return {value.name.removeprefix(prefix): value.number for value in values[1:]}


def _placed(violation: FieldViolation, path: str) -> FieldViolation:
    """`options.train` below `dataset.split_from` -> `dataset.split_from.train_ratio`."""
    field = violation.field.removeprefix("options.")
    own, bracket, rest = field.partition("[")
    return FieldViolation(_join(path, _NAMES.get(own, own) + bracket + rest), violation.description)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _invalid(violations: list[FieldViolation]) -> InvalidError:
    message = "; ".join(f"{each.field}: {each.description}" for each in violations)
    return InvalidError(message, violations=violations, reason="INVALID_OPTIONS")
