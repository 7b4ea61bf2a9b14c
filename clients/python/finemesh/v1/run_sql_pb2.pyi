from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QuerySqlRequest(_message.Message):
    __slots__ = ("parent", "query", "format", "max_rows", "runs", "keys")
    class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMAT_UNSPECIFIED: _ClassVar[QuerySqlRequest.Format]
        FORMAT_ARROW: _ClassVar[QuerySqlRequest.Format]
        FORMAT_ROWS: _ClassVar[QuerySqlRequest.Format]
    FORMAT_UNSPECIFIED: QuerySqlRequest.Format
    FORMAT_ARROW: QuerySqlRequest.Format
    FORMAT_ROWS: QuerySqlRequest.Format
    PARENT_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    parent: str
    query: str
    format: QuerySqlRequest.Format
    max_rows: int
    runs: _containers.RepeatedScalarFieldContainer[str]
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, parent: _Optional[str] = ..., query: _Optional[str] = ..., format: _Optional[_Union[QuerySqlRequest.Format, str]] = ..., max_rows: _Optional[int] = ..., runs: _Optional[_Iterable[str]] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class SqlColumn(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class QuerySqlResponse(_message.Message):
    __slots__ = ("arrow", "columns", "rows")
    ARROW_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    arrow: bytes
    columns: _containers.RepeatedCompositeFieldContainer[SqlColumn]
    rows: _containers.RepeatedCompositeFieldContainer[_struct_pb2.ListValue]
    def __init__(self, arrow: _Optional[bytes] = ..., columns: _Optional[_Iterable[_Union[SqlColumn, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[_struct_pb2.ListValue, _Mapping]]] = ...) -> None: ...
