from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SpecFinding(_message.Message):
    __slots__ = ("severity", "field", "message")
    class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SEVERITY_UNSPECIFIED: _ClassVar[SpecFinding.Severity]
        SEVERITY_WARNING: _ClassVar[SpecFinding.Severity]
        SEVERITY_ERROR: _ClassVar[SpecFinding.Severity]
    SEVERITY_UNSPECIFIED: SpecFinding.Severity
    SEVERITY_WARNING: SpecFinding.Severity
    SEVERITY_ERROR: SpecFinding.Severity
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    severity: SpecFinding.Severity
    field: str
    message: str
    def __init__(self, severity: _Optional[_Union[SpecFinding.Severity, str]] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class BaseModelFacts(_message.Message):
    __slots__ = ("model_type", "max_positions")
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    model_type: str
    max_positions: int
    def __init__(self, model_type: _Optional[str] = ..., max_positions: _Optional[int] = ...) -> None: ...
