"""TensorBoard's event files, read and written without TensorBoard.

A file is records of `length` (uint64), `crc(length)`, payload, `crc(payload)`, all little-endian, where crc
is a masked CRC-32C; a payload is an `Event` message. Formats: tensorflow/core/lib/io/record_writer.h,
core/util/event.proto and core/framework/{summary,tensor}.proto of https://github.com/tensorflow/tensorflow.
Of the messages only the fields that are used here are declared; what is unknown is passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_LENGTH: Final = struct.Struct("<QI")
_CRC: Final = struct.Struct("<I")
_MASK_DELTA: Final = 0xA282EAD8
_MAX_PAYLOAD_BYTES: Final = 1 << 30

_KINDS: Final[dict[str, Any]] = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_MESSAGES: Final[dict[str, dict[int, tuple[str, str]]]] = {
    "Hyperparameter": {
        2: ("number_value", "double"),
        3: ("string_value", "string"),
        4: ("bool_value", "bool"),
    },
    "Entry": {1: ("key", "string"), 2: ("value", "Hyperparameter")},
    "SessionStart": {1: ("hparams", "*Entry")},
    "Hyperparameters": {3: ("session_start_info", "SessionStart")},
    "PluginData": {1: ("plugin_name", "string"), 2: ("content", "bytes")},
    "Metadata": {1: ("plugin_data", "PluginData")},
    "Image": {4: ("encoded_image_string", "bytes")},
    "Tensor": {
        1: ("dtype", "int32"),
        4: ("tensor_content", "bytes"),
        5: ("float_val", "*float"),
        6: ("double_val", "*double"),
        7: ("int_val", "*int32"),
        8: ("string_val", "*bytes"),
        10: ("int64_val", "*int64"),
        11: ("bool_val", "*bool"),
        16: ("uint32_val", "*uint32"),
        17: ("uint64_val", "*uint64"),
    },
    "Value": {
        1: ("tag", "string"),
        2: ("simple_value", "float"),
        4: ("image", "Image"),
        5: ("histo", "bytes"),
        6: ("audio", "bytes"),
        8: ("tensor", "Tensor"),
        9: ("metadata", "Metadata"),
    },
    "Summary": {1: ("value", "*Value")},
    "Event": {
        1: ("wall_time", "double"),
        2: ("step", "int64"),
        3: ("file_version", "string"),
        5: ("summary", "Summary"),
    },
}
# struct's letter per number of a DataType, for tensors that hold one value.
_TYPES: Final = {1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q", 10: "?", 19: "e", 22: "I", 23: "Q"}
_LISTS: Final = ("float_val", "double_val", "int_val", "int64_val", "bool_val", "uint32_val", "uint64_val")


class TornFileError(Exception):
    """The file ends within a record, or a record is damaged; what came before was read."""


def _declare() -> tuple[Any, Any]:
    """The classes of Event and Hyperparameters, made from the tables above.

    In proto2, whose fields know whether they are set.
    """
    package = "finemesh.client.event_file"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in fields.items():
            added = message.field.add(name=field, number=number, label=3 if kind.startswith("*") else 1)
            kind = kind.lstrip("*")  # noqa: PLW2901
            if kind in _KINDS:
                added.type = _KINDS[kind]
                added.options.packed = added.label == 3 and kind != "bytes"
            else:
                added.type = added.TYPE_MESSAGE
                added.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{package}.{name}") for name in ("Event", "Hyperparameters"))
    event, hyperparameters = (message_factory.GetMessageClass(each) for each in found)
    return event, hyperparameters


Event, _Hyperparameters = _declare()


def read_events(file: BinaryIO) -> Iterator[Any]:
    """The events of a file, in order. Raises TornFileError, naming the place, after the last whole one."""
    at = 0
    while header := file.read(_LENGTH.size):
        if len(header) < _LENGTH.size:
            raise TornFileError(f"it ends within a record, at byte {at}")
        length, crc = _LENGTH.unpack(header)
        if crc != masked_crc(header[:8]) or length > _MAX_PAYLOAD_BYTES:
            raise TornFileError(f"the record at byte {at} is damaged")
        payload = file.read(length)
        ending = file.read(_CRC.size)
        if len(payload) < length or len(ending) < _CRC.size:
            raise TornFileError(f"it ends within a record, at byte {at}")
        if _CRC.unpack(ending)[0] != masked_crc(payload):
            raise TornFileError(f"the record at byte {at} is damaged")
        try:
            yield Event.FromString(payload)
        except DecodeError as error:
            raise TornFileError(f"the record at byte {at} is not an event: {error}") from error
        at += _LENGTH.size + length + _CRC.size


def first_record(wall_time: float) -> bytes:
    """What a file begins with. `wall_time` in seconds since 1970."""
    return _record(Event(wall_time=wall_time, file_version="brain.Event:2"))


def scalar_records(key: str, points: Iterable[tuple[int, float, float]]) -> bytes:
    """One event for each (step, wall time in seconds, value); values as 32-bit floats, as is the custom."""
    return b"".join(
        _record(Event(wall_time=time, step=step, summary={"value": [{"tag": key, "simple_value": value}]}))
        for step, time, value in points
    )


def scalar_of(value: Any) -> float | None:
    """The number that a summary's value holds; None if it holds something else."""
    if value.HasField("simple_value"):
        return value.simple_value
    if not value.HasField("tensor"):
        return None
    tensor = value.tensor
    letter = _TYPES.get(tensor.dtype)
    if letter and len(tensor.tensor_content) == struct.calcsize(f"<{letter}"):
        return float(struct.unpack(f"<{letter}", tensor.tensor_content)[0])
    found = [item for name in _LISTS for item in getattr(tensor, name)]
    return float(found[0]) if len(found) == 1 and not tensor.tensor_content else None


def images_of(value: Any) -> list[bytes]:
    """The encoded pictures (PNG or JPEG) that a summary's value holds."""
    if value.HasField("image"):
        return [value.image.encoded_image_string]
    if value.metadata.plugin_data.plugin_name == "images":
        return list(value.tensor.string_val[2:])  # after width and height
    return []


def text_of(value: Any) -> bytes:
    """The text that a summary's value holds, in UTF-8; empty if it holds none."""
    if value.metadata.plugin_data.plugin_name != "text":
        return b""
    return b"\n\n".join(value.tensor.string_val)


def hyperparameters_of(value: Any) -> dict[str, str]:
    """The hyperparameters that a summary's value says its run has; empty if it says none.

    Format: tensorboard/plugins/hparams/plugin_data.proto, whose values are `google.protobuf.Value`.
    """
    plugin = value.metadata.plugin_data
    if plugin.plugin_name != "hparams":
        return {}
    try:
        told = _Hyperparameters.FromString(plugin.content).session_start_info.hparams
    except DecodeError:
        return {}
    return {each.key: _text(each.value) for each in told}


def _text(value: Any) -> str:
    if value.HasField("bool_value"):
        return str(value.bool_value).lower()
    if not value.HasField("number_value"):
        return value.string_value
    number: float = value.number_value
    return str(int(number)) if number.is_integer() else repr(number)


def kind_of(value: Any) -> str:
    """A word for what a summary's value holds."""
    plugin: str = value.metadata.plugin_data.plugin_name
    if plugin:
        return plugin
    return next((kind for kind in ("histo", "audio", "image", "tensor") if value.HasField(kind)), "nothing")


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C (Castagnoli) of a record's part."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _record(event: Any) -> bytes:
    payload = event.SerializeToString()
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _CRC.pack(masked_crc(length)), payload, _CRC.pack(masked_crc(payload))))
