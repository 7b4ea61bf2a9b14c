"""What is asked of a preflight, between its two forms: the messages of the contract and the value of the
core.
"""

from __future__ import annotations

import dataclasses

from finemesh.chassis.fine_tune_spec import spec_from_proto, spec_to_proto
from finemesh.core.errors import InvalidError
from finemesh.core.spec.preflight import PreflightOptions
from finemesh.v1 import fine_tune_spec_pb2, preflight_pb2


def preflight_options(
    spec: fine_tune_spec_pb2.FineTuneSpec, options: preflight_pb2.PreflightOptions, dataset: str
) -> PreflightOptions:
    """The checked value. A spec without task or method is sound here, though not for a training.

    Args:
        spec: as the caller sent it.
        options: as the caller sent them.
        dataset: name of the dataset that is looked at; the spec names it too, or none.

    Raises:
        InvalidError: INVALID_SPEC or INVALID_OPTIONS, naming every wrong field.
    """
    if spec.dataset not in {"", dataset}:
        raise InvalidError.of(
            "spec.dataset",
            f"is {spec.dataset}, the preflight is of {dataset}: name one",
            reason="INVALID_SPEC",
        )
    whole = fine_tune_spec_pb2.FineTuneSpec()
    whole.CopyFrom(spec)
    whole.dataset = dataset
    detect_task = not whole.task
    if detect_task:  # the task that refuses the least stands in
        whole.task = fine_tune_spec_pb2.FineTuneSpec.TASK_VISION_LANGUAGE
    if whole.WhichOneof("method") is None:
        whole.lora.rank = 16
    given = {field.name: getattr(options, field.name) for field, _ in options.ListFields()}
    return PreflightOptions(spec_from_proto(whole), detect_task=detect_task, **given)


def options_to_proto(
    options: PreflightOptions,
) -> tuple[fine_tune_spec_pb2.FineTuneSpec, preflight_pb2.PreflightOptions]:
    """The messages that say what `options` say, nothing left to defaults but a task that is to be found."""
    spec = spec_to_proto(options.spec)
    if options.detect_task:
        spec.ClearField("task")
    names = [field.name for field in dataclasses.fields(options)]
    known = preflight_pb2.PreflightOptions.DESCRIPTOR.fields_by_name
    values = {name: getattr(options, name) for name in names if name in known}
    return spec, preflight_pb2.PreflightOptions(**values)
