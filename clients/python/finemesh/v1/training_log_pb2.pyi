from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamTrainingJobLogsRequest(_message.Message):
    __slots__ = ("name", "attempt", "tail", "follow", "cursor")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    tail: int
    follow: bool
    cursor: str
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., tail: _Optional[int] = ..., follow: _Optional[bool] = ..., cursor: _Optional[str] = ...) -> None: ...

class TrainingJobLog(_message.Message):
    __slots__ = ("lines", "cursor")
    LINES_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    cursor: str
    def __init__(self, lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ..., cursor: _Optional[str] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("attempt", "offset", "text", "dropped_bytes")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    offset: int
    text: str
    dropped_bytes: int
    def __init__(self, attempt: _Optional[int] = ..., offset: _Optional[int] = ..., text: _Optional[str] = ..., dropped_bytes: _Optional[int] = ...) -> None: ...

class AppendTrainingJobLogRequest(_message.Message):
    __slots__ = ("name", "attempt", "offset", "content")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    offset: int
    content: bytes
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., offset: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class AppendTrainingJobLogResponse(_message.Message):
    __slots__ = ("durable_bytes",)
    DURABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    durable_bytes: int
    def __init__(self, durable_bytes: _Optional[int] = ...) -> None: ...
