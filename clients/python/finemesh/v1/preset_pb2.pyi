from finemesh.v1 import fine_tune_spec_pb2 as _fine_tune_spec_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Preset(_message.Message):
    __slots__ = ("name", "level", "description", "spec")
    class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LEVEL_UNSPECIFIED: _ClassVar[Preset.Level]
        LEVEL_QUICK: _ClassVar[Preset.Level]
        LEVEL_BALANCED: _ClassVar[Preset.Level]
        LEVEL_QUALITY: _ClassVar[Preset.Level]
    LEVEL_UNSPECIFIED: Preset.Level
    LEVEL_QUICK: Preset.Level
    LEVEL_BALANCED: Preset.Level
    LEVEL_QUALITY: Preset.Level
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    name: str
    level: Preset.Level
    description: str
    spec: _fine_tune_spec_pb2.FineTuneSpec
    def __init__(self, name: _Optional[str] = ..., level: _Optional[_Union[Preset.Level, str]] = ..., description: _Optional[str] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ...) -> None: ...
