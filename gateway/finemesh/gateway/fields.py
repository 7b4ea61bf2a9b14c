"""The fields of the messages that come as JSON, for the filter that refuses others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, cast

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

_Message = descriptor_pb2.DescriptorProto
_MESSAGE: Final = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_OURS: Final = "finemesh."
"""Messages of others have JSON forms of their own (Timestamp, Struct), or any fields."""


def reader_script(max_bytes: int) -> str:
    """Lua that notes which fields a JSON body of at most `max_bytes` has."""
    return f"local MAX_BYTES = {max_bytes}\n{_script('json_fields.lua')}"


def judge_script(descriptor_set_path: Path, services: Sequence[str]) -> str:
    """Lua that refuses fields which the bodies of the methods of `services` do not have."""
    described = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set_path.read_bytes())
    messages = {name: message for file in described.file for name, message in _messages(file)}
    methods = {
        f"/{file.package}.{service.name}/{method.name}": _body(method, messages)
        for file in described.file
        for service in file.service
        if f"{file.package}.{service.name}" in services
        for method in service.method
    }
    known = {name: _fields(message, messages) for name, message in messages.items() if _is_ours(name)}
    tables = {"METHODS": methods, "MESSAGES": known}
    return "".join(f"local {name} = {_lua(table)}\n" for name, table in tables.items()) + _script(
        "unknown_fields.lua"
    )


def _messages(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, _Message]]:
    """All messages of a file by their full names, those within others too."""
    waiting = [(f"{file.package}.{message.name}", message) for message in file.message_type]
    while waiting:
        name, message = waiting.pop()
        yield name, message
        waiting += [(f"{name}.{inner.name}", inner) for inner in message.nested_type]


def _body(method: descriptor_pb2.MethodDescriptorProto, messages: Mapping[str, _Message]) -> str:
    """The message that a body is; empty if the method has none. Further bindings have the same."""
    # The stub types extensions by their message, which the runtime's FieldDescriptor does not know.
    rule: http_pb2.HttpRule = method.options.Extensions[cast("Any", annotations_pb2.http)]
    request = method.input_type.lstrip(".")
    if rule.body in ("", "*"):
        return request if rule.body else ""
    return _fields(messages[request], messages)[rule.body]


def _fields(message: _Message, messages: Mapping[str, _Message]) -> dict[str, str]:
    """What each field of a message holds, by both of its names: the name of a message, after `*` that of the
    values of a map; empty for what nobody looks into.
    """
    kinds = [(each, _kind(each, messages)) for each in message.field]
    return {name: kind for each, kind in kinds for name in (each.name, each.json_name)}


def _kind(field: descriptor_pb2.FieldDescriptorProto, messages: Mapping[str, _Message]) -> str:
    name = field.type_name.lstrip(".")
    if field.type != _MESSAGE or not _is_ours(name):
        return ""
    if messages[name].options.map_entry:
        return "*" + _kind(messages[name].field[1], messages)
    return name


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS)


def _lua(value: Mapping[str, Any] | str) -> str:
    """A literal of Lua. Names in protos have no character that JSON and Lua would write differently."""
    if isinstance(value, str):
        return json.dumps(value)
    return "{" + ",".join(f"[{json.dumps(key)}]={_lua(inner)}" for key, inner in value.items()) + "}"


def _script(name: str) -> str:
    return resources.files("finemesh.gateway").joinpath(name).read_text()
