from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LedgerEntry(_message.Message):
    __slots__ = ("row_id", "disposition", "reason", "message", "field", "children")
    class Disposition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DISPOSITION_UNSPECIFIED: _ClassVar[LedgerEntry.Disposition]
        DISPOSITION_KEPT: _ClassVar[LedgerEntry.Disposition]
        DISPOSITION_QUARANTINED: _ClassVar[LedgerEntry.Disposition]
        DISPOSITION_DROPPED: _ClassVar[LedgerEntry.Disposition]
    DISPOSITION_UNSPECIFIED: LedgerEntry.Disposition
    DISPOSITION_KEPT: LedgerEntry.Disposition
    DISPOSITION_QUARANTINED: LedgerEntry.Disposition
    DISPOSITION_DROPPED: LedgerEntry.Disposition
    ROW_ID_FIELD_NUMBER: _ClassVar[int]
    DISPOSITION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    row_id: str
    disposition: LedgerEntry.Disposition
    reason: str
    message: str
    field: str
    children: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, row_id: _Optional[str] = ..., disposition: _Optional[_Union[LedgerEntry.Disposition, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., children: _Optional[_Iterable[str]] = ...) -> None: ...

class LedgerSummary(_message.Message):
    __slots__ = ("inputs", "kept", "quarantined", "dropped", "by_reason")
    class ByReasonEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    BY_REASON_FIELD_NUMBER: _ClassVar[int]
    inputs: int
    kept: int
    quarantined: int
    dropped: int
    by_reason: _containers.ScalarMap[str, int]
    def __init__(self, inputs: _Optional[int] = ..., kept: _Optional[int] = ..., quarantined: _Optional[int] = ..., dropped: _Optional[int] = ..., by_reason: _Optional[_Mapping[str, int]] = ...) -> None: ...
