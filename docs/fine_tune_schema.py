"""The JSON schema of a spec file, from the proto and its comments, for editors.

It says what a file looks like: names, types, words. What contradicts itself is the linter's to say. Draft 7,
which every editor's YAML plugin knows (https://json-schema.org/draft-07).
"""

from __future__ import annotations

import json
import re
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, Final

from finemesh.v1 import fine_tune_spec_pb2
from google.api import field_behavior_pb2, http_pb2
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTOS: Final = Path(__file__).resolve().parent.parent / "protos"
SOURCE: Final = "finemesh/v1/fine_tune_spec.proto"
_NUMBERS: Final = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {
    _NUMBERS.TYPE_STRING: "string",
    _NUMBERS.TYPE_BOOL: "boolean",
    _NUMBERS.TYPE_DOUBLE: "number",
    _NUMBERS.TYPE_INT32: "integer",
    _NUMBERS.TYPE_INT64: "integer",
}


def document() -> str:
    """The schema as JSON."""
    comments = _comments()
    messages: dict[str, Any] = {}
    root = _message(fine_tune_spec_pb2.FineTuneSpec.DESCRIPTOR, comments, messages)
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A fine-tune of Finemesh",
        **root,
        "definitions": messages,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _message(descriptor: Any, comments: dict[str, str], messages: dict[str, Any]) -> dict[str, Any]:
    """The schema of a message; those of the messages in it land in `messages`."""
    choices = [choice for choice in descriptor.oneofs if not choice.name.startswith("_")]
    schema: dict[str, Any] = {
        "description": comments[descriptor.full_name],
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: _field(field, comments, messages) for field in descriptor.fields},
    }
    if required := [field.name for field in descriptor.fields if _is_required(field)]:
        schema["required"] = required
    if choices:
        schema["allOf"] = [
            {"oneOf": [{"required": [field.name]} for field in choice.fields]} for choice in choices
        ]
    return schema


def _field(field: Any, comments: dict[str, str], messages: dict[str, Any]) -> dict[str, Any]:
    description = comments[field.full_name]
    if field.message_type is not None:
        name = field.message_type.name
        if name not in messages:
            messages[name] = {}  # taken, should it contain itself
            messages[name] = _message(field.message_type, comments, messages)
        kind: dict[str, Any] = {"allOf": [{"$ref": f"#/definitions/{name}"}]}
    elif field.enum_type is not None:
        kind = _words(field.enum_type, comments)
    else:
        kind = {"type": _TYPES[field.type]}
    if field.is_repeated:
        kind = {"type": "array", "items": kind}
    return {"description": description, **kind}


def _words(enum: Any, comments: dict[str, str]) -> dict[str, Any]:
    """The values of an enum as a file has them; `enumDescriptions` is an addition of editors."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    scope = enum.full_name.rpartition(".")[0]
    values = [value for value in enum.values if value.number]
    return {
        "enum": [value.name.removeprefix(prefix) for value in values],
        "enumDescriptions": [comments[f"{scope}.{value.name}"] for value in values],
    }


def _is_required(field: Any) -> bool:
    behavior: Any = field_behavior_pb2.field_behavior
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[behavior]


def _comments() -> dict[str, str]:
    """The comment before each message, field and enum value, by its full name."""
    found: dict[str, str] = {}
    file = _with_comments()
    located = {
        tuple(each.path): " ".join(each.leading_comments.split()) for each in file.source_code_info.location
    }

    def enum(described: Any, path: tuple[int, ...], scope: str) -> None:
        for index, value in enumerate(described.value):  # a value's name lies beside its enum
            found[f"{scope}.{value.name}"] = located[*path, 2, index]

    def message(described: Any, path: tuple[int, ...], scope: str) -> None:
        name = f"{scope}.{described.name}"
        found[name] = located[path]
        for index, field in enumerate(described.field):
            found[f"{name}.{field.name}"] = re.sub(r"^Required\. ", "", located[*path, 2, index])
        for index, inner in enumerate(described.nested_type):
            message(inner, (*path, 3, index), name)
        for index, inner in enumerate(described.enum_type):
            enum(inner, (*path, 4, index), name)

    for index, described in enumerate(file.message_type):
        message(described, (4, index), file.package)
    for index, described in enumerate(file.enum_type):
        enum(described, (5, index), file.package)
    return found


def _with_comments() -> descriptor_pb2.FileDescriptorProto:
    """The proto, described with its comments, which the generated stubs do not keep."""
    well_known = Path(str(resources.files("grpc_tools"))) / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "described.binpb"
        includes = [f"-I{PROTOS}", f"-I{Path(http_pb2.__file__).parents[2]}", f"-I{well_known}"]
        arguments = ["--include_source_info", f"--descriptor_set_out={target}", SOURCE]
        if protoc.main(["protoc", *includes, *arguments]):
            raise SystemExit(1)
        [file] = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    return file
