"""Options of the data compiler, as messages and as values: one says all that the other says."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

import pytest
from finemesh.chassis.dataset_options import (
    convert_options,
    fill,
    import_options,
    level_of,
    split_options,
    validate_options,
)
from finemesh.core.errors import InvalidError
from finemesh.core.spec import codec
from finemesh.core.spec.data import (
    ConvertOptions,
    DatasetFormat,
    ImportOptions,
    SplitOptions,
    ValidateOptions,
    ValidationLevel,
)
from finemesh.v1 import dataset_pb2, validation_report_pb2

PAIRS: list[tuple[Any, Any, set[str]]] = [
    (ImportOptions, dataset_pb2.ImportOrigin, {"upload", "source_uri"}),
    (SplitOptions, dataset_pb2.SplitOrigin, {"dataset"}),
    (ConvertOptions, dataset_pb2.ConvertOrigin, {"dataset"}),
    (ValidateOptions, validation_report_pb2.ValidationThresholds, set()),
]
READERS: dict[Any, Any] = {
    ImportOptions: import_options,
    SplitOptions: split_options,
    ConvertOptions: convert_options,
}


def _read(options: Any) -> Any:
    """The options, after a way through their message."""
    if isinstance(options, ValidateOptions):
        thresholds = fill(validation_report_pb2.ValidationThresholds(), options)
        return validate_options(level_of(options), thresholds)
    message = next(message for kind, message, _ in PAIRS if kind is type(options))()
    return READERS[type(options)](fill(message, options))


def _variants(cls: Any) -> list[Any]:
    """The defaults, and for every field each value of its enum, or zero, or one more."""
    default = cls()
    found = [default]
    for field in dataclasses.fields(cls):
        value = getattr(default, field.name)
        kind = next((arm for arm in _arms(field) if isinstance(arm, type) and issubclass(arm, Enum)), None)
        if kind is not None:
            tried: list[Any] = list(kind)
        elif isinstance(value, bool):
            tried = [not value]
        elif isinstance(value, int | float):
            tried = [type(value)(0), type(value)(1)]
        elif isinstance(value, tuple):
            continue
        else:
            tried = []
        for each in tried:
            try:
                found.append(dataclasses.replace(default, **{field.name: each}))
            except InvalidError:
                continue  # not a legal value of this field by itself
    return found


def _arms(field: Any) -> list[Any]:
    import typing

    import finemesh.core.spec.data as data
    from finemesh.core.spec import boxes

    hint = eval(field.type, {**vars(data), **vars(boxes)})
    return list(typing.get_args(hint)) or [hint]


@pytest.mark.parametrize(("options", "message", "own"), PAIRS)
def test_message_and_value_have_the_same_fields(options: Any, message: Any, own: set[str]) -> None:
    filled = {descriptor.name for descriptor in message.DESCRIPTOR.fields} - own
    assert len(filled) == len(dataclasses.fields(options)) - (options is ValidateOptions)


@pytest.mark.parametrize("options", [each for cls, *_ in PAIRS for each in _variants(cls)], ids=repr)
def test_options_survive_their_message_and_their_json(options: Any) -> None:
    assert _read(options) == options
    assert codec.decode(type(options), codec.encode(options), "options") == options


def test_what_is_left_out_has_its_default() -> None:
    assert import_options(dataset_pb2.ImportOrigin()) == ImportOptions()
    assert split_options(dataset_pb2.SplitOrigin()) == SplitOptions()
    assert convert_options(dataset_pb2.ConvertOrigin(format="DATASET_FORMAT_LLAVA")) == ConvertOptions(
        DatasetFormat.LLAVA
    )
    nothing = validation_report_pb2.ValidationThresholds()
    assert validate_options(0, nothing).level is ValidationLevel.BASIC


def test_ratios_are_relative_to_their_sum() -> None:
    options = split_options(dataset_pb2.SplitOrigin(train_ratio=8, test_ratio=2, gap_frames=3))
    assert (options.train, options.val, options.test, options.gap_frames) == (0.8, 0.0, 0.2, 3)


def test_templates_and_lists_come_through() -> None:
    options = ConvertOptions(questions=("Is {class} there?", "{class}?"), answers=("{truth}",))
    assert _read(options) == options


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (dataset_pb2.SplitOrigin(train_ratio=2, test_ratio=-1), "at.test_ratio"),
        (dataset_pb2.SplitOrigin(test_ratio=1), "at.train_ratio"),
        (dataset_pb2.SplitOrigin(gap_frames=-1), "at.gap_frames"),
        (dataset_pb2.SplitOrigin(strategy=99), "at.strategy"),  # pyright: ignore[reportArgumentType]
        (dataset_pb2.ConvertOrigin(), "at.format"),
        (
            dataset_pb2.ConvertOrigin(format="DATASET_FORMAT_LLAVA", image_size_pixels=1),
            "at.image_size_pixels",
        ),
        (dataset_pb2.ImportOrigin(max_quarantined_fraction=2), "at.max_quarantined_fraction"),
    ],
)
def test_what_is_wrong_is_named_as_the_caller_named_it(message: Any, field: str) -> None:
    readers = {
        dataset_pb2.SplitOrigin: split_options,
        dataset_pb2.ConvertOrigin: convert_options,
        dataset_pb2.ImportOrigin: import_options,
    }
    with pytest.raises(InvalidError) as error:
        readers[type(message)](message, "at")
    assert [violation.field for violation in error.value.violations] == [field]
