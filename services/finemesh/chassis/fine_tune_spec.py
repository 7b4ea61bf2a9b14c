"""`FineTuneSpec` between its two forms: the message of the contract and the value of the core.

A field of one is a field of the other of the same name, and so are the values of their enums, so that nothing
is listed here. A field of the message that is left out means the value's default; where that is not zero,
the message's field is `optional`. A message that went through `spec_from_proto` and `spec_to_proto` says
explicitly what it meant.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf.message import Message

from finemesh.core.spec import codec, document
from finemesh.core.spec.finetune import FineTuneSpec, Resources
from finemesh.v1 import fine_tune_spec_pb2 as pb


def spec_from_proto(message: pb.FineTuneSpec, path: str = "spec") -> FineTuneSpec:
    """The checked value of `message`, defaults filled in.

    Args:
        message: what the caller sent.
        path: where the message lies in the request, e.g. `training_job.spec`; starts every field path.

    Raises:
        InvalidError: reason INVALID_SPEC, with every violation of the spec at once.
    """
    return document.read(document_of(message), path)


def document_of(message: Message) -> dict[str, Any]:
    """What `message` says, as `core.spec.document` reads it; an enum of a newer client by its number."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.is_repeated:
            values[field.name] = [_plain(field, item) for item in value]
        else:
            values[field.name] = _plain(field, value)
    return values


def spec_to_proto(spec: FineTuneSpec) -> pb.FineTuneSpec:
    """The message that says what `spec` says, nothing left to defaults."""
    return pb.FineTuneSpec.FromString(_written(spec))


@functools.lru_cache(4096)
def _written(spec: FineTuneSpec) -> bytes:
    """Written once: every look at a job shows its spec."""
    message = pb.FineTuneSpec()
    _fill(message, document.write(spec))
    return message.SerializeToString()


def resources_to_proto(resources: Resources) -> pb.ResourceSpec:
    """What one attempt holds while it works."""
    message = pb.ResourceSpec()
    _fill(message, codec.encode(resources))
    return message


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return document_of(value)
    if field.enum_type is not None:  # proto3 enums are open: a newer client may send what we do not know
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return value


def _fill(message: Message, values: dict[str, Any]) -> None:
    for name, value in values.items():
        field: Any = message.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None:
            inner = getattr(message, name)
            inner.SetInParent()  # also when all its fields are zero
            _fill(inner, value)
        elif field.is_repeated:
            getattr(message, name).extend(_scalar(field, item) for item in value)
        else:
            setattr(message, name, _scalar(field, value))


def _scalar(field: Any, value: Any) -> Any:
    if field.enum_type is None:
        return value
    numbers = field.enum_type.values_by_name
    prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
    return numbers[f"{prefix}{value}"].number
