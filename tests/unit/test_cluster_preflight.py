"""Preflights between the values of the loop and the messages of the contract."""

from __future__ import annotations

import dataclasses
import json
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from finemesh.chassis.preflight_options import options_to_proto, preflight_options
from finemesh.cluster.convert import preflight_result
from finemesh.core.errors import InvalidError
from finemesh.core.spec import codec
from finemesh.core.spec.finetune import Task
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.finetune.preflight import preflight_dataset
from finemesh.finetune.preflight_report import PreflightReport
from finemesh.v1 import preflight_pb2
from finemesh.v1.fine_tune_spec_pb2 import FineTuneSpec
from google.protobuf import json_format

from tests.support.conversations import DATASET, colour_rows, spec, tiny_model, write_dataset


def enum_names(kind: Any) -> set[str]:
    return {value.name for value in kind}


def check_mirrored(cls: type[Any], descriptor: Any) -> None:
    """Fields of a dataclass and of a message have the same names, and so have the values of their enums."""
    hints = typing.get_type_hints(cls)
    assert set(hints) == set(descriptor.fields_by_name), cls
    for name, hint in hints.items():
        field = descriptor.fields_by_name[name]
        for kind in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(kind):
                check_mirrored(typing.cast("type[Any]", kind), field.message_type)
            elif isinstance(kind, type) and issubclass(kind, Enum):
                values = [value.name for value in field.enum_type.values]
                prefix = values[0].removesuffix("UNSPECIFIED")
                assert {value.removeprefix(prefix) for value in values[1:]} == enum_names(kind)


def test_the_message_mirrors_the_report() -> None:
    check_mirrored(PreflightReport, preflight_pb2.PreflightResult.DESCRIPTOR)


def test_a_report_arrives_whole(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "llava")
    dataset = write_dataset(tmp_path / "dataset", list(colour_rows({"train": 9, "val": 2})))
    report = preflight_dataset(PreflightOptions(spec(validation_split="val")), base, dataset)
    message = preflight_result(report).preflight
    told: Any = json.loads(
        json_format.MessageToJson(
            message, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
        )
    )
    wanted = json.loads(json.dumps(report.to_json()))

    def compare(left: Any, right: Any) -> None:
        """JSON of protobuf writes 64-bit integers as strings and enums with their prefix."""
        if isinstance(right, dict):
            assert left.keys() == right.keys()
            for key, value in typing.cast("dict[str, Any]", right).items():
                compare(left[key], value)
        elif isinstance(right, list):
            items = typing.cast("list[Any]", right)
            assert len(left) == len(items)
            for pair in zip(left, items, strict=True):
                compare(*pair)
        else:
            assert str(left).removeprefix("VERDICT_").removeprefix("OUTCOME_") == str(right)

    compare(told, wanted)


def test_options_survive_the_way_there_and_back() -> None:
    sent = FineTuneSpec(base_model="m", dataset=DATASET)
    sent.sequence.max_tokens = 77
    options = preflight_options(sent, preflight_pb2.PreflightOptions(shown_rows=0), DATASET)
    assert (options.detect_task, options.shown_rows, options.max_masked_fraction) == (True, 0, 0.05)
    assert preflight_options(*options_to_proto(options), DATASET) == options
    assert codec.decode(PreflightOptions, codec.encode(options), "options") == options
    sent.task = FineTuneSpec.TASK_LANGUAGE
    told = preflight_options(sent, preflight_pb2.PreflightOptions(max_masked_fraction=1), DATASET)
    assert (told.detect_task, told.spec.task, told.max_masked_fraction) == (False, Task.LANGUAGE, 1.0)


@pytest.mark.parametrize("field", ["base_model", "sequence.max_tokens"])
def test_a_wrong_spec_is_refused_with_its_field(field: str) -> None:
    sent = FineTuneSpec(base_model="" if field == "base_model" else "m")
    sent.sequence.max_tokens = 1 if field == "sequence.max_tokens" else 9
    with pytest.raises(InvalidError) as caught:
        preflight_options(sent, preflight_pb2.PreflightOptions(), DATASET)
    assert caught.value.violations[0].field == f"spec.{field}"
