import datetime

from finemesh.v1 import training_job_pb2 as _training_job_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainingJobHistoryEntry(_message.Message):
    __slots__ = ("sequence", "time", "kind", "state", "from_state", "attempt", "step", "actor", "message", "error")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_SUBMITTED: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_COMMAND: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_STATE: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_DISPATCHED: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_TAKEN_UP: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_DIRECTIVE: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_ACKNOWLEDGED: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_CHECKPOINT: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_ENDED: _ClassVar[TrainingJobHistoryEntry.Kind]
        KIND_RESTART: _ClassVar[TrainingJobHistoryEntry.Kind]
    KIND_UNSPECIFIED: TrainingJobHistoryEntry.Kind
    KIND_SUBMITTED: TrainingJobHistoryEntry.Kind
    KIND_COMMAND: TrainingJobHistoryEntry.Kind
    KIND_STATE: TrainingJobHistoryEntry.Kind
    KIND_DISPATCHED: TrainingJobHistoryEntry.Kind
    KIND_TAKEN_UP: TrainingJobHistoryEntry.Kind
    KIND_DIRECTIVE: TrainingJobHistoryEntry.Kind
    KIND_ACKNOWLEDGED: TrainingJobHistoryEntry.Kind
    KIND_CHECKPOINT: TrainingJobHistoryEntry.Kind
    KIND_ENDED: TrainingJobHistoryEntry.Kind
    KIND_RESTART: TrainingJobHistoryEntry.Kind
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FROM_STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    kind: TrainingJobHistoryEntry.Kind
    state: _training_job_pb2.TrainingJob.State
    from_state: _training_job_pb2.TrainingJob.State
    attempt: int
    step: int
    actor: str
    message: str
    error: _status_pb2.Status
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[TrainingJobHistoryEntry.Kind, str]] = ..., state: _Optional[_Union[_training_job_pb2.TrainingJob.State, str]] = ..., from_state: _Optional[_Union[_training_job_pb2.TrainingJob.State, str]] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., actor: _Optional[str] = ..., message: _Optional[str] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...
