import datetime

from finemesh.v1 import progress_pb2 as _progress_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPORT_FORMAT_UNSPECIFIED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ADAPTER: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MERGED: _ClassVar[ExportFormat]
EXPORT_FORMAT_UNSPECIFIED: ExportFormat
EXPORT_FORMAT_ADAPTER: ExportFormat
EXPORT_FORMAT_MERGED: ExportFormat

class ParityReport(_message.Message):
    __slots__ = ("items", "max_logit_difference", "logit_tolerance", "token_agreement", "passed", "runtime")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOGIT_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    LOGIT_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    items: int
    max_logit_difference: float
    logit_tolerance: float
    token_agreement: float
    passed: bool
    runtime: str
    def __init__(self, items: _Optional[int] = ..., max_logit_difference: _Optional[float] = ..., logit_tolerance: _Optional[float] = ..., token_agreement: _Optional[float] = ..., passed: _Optional[bool] = ..., runtime: _Optional[str] = ...) -> None: ...

class Export(_message.Message):
    __slots__ = ("name", "display_name", "labels", "training_job", "checkpoint", "format", "state", "step", "parity", "size_bytes", "manifest_sha256", "progress", "error", "attempt", "create_time", "start_time", "end_time", "update_time", "group", "made_by", "expire_time", "pinned", "download_count", "link_count", "last_download_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Export.State]
        STATE_QUEUED: _ClassVar[Export.State]
        STATE_RUNNING: _ClassVar[Export.State]
        STATE_VERIFYING: _ClassVar[Export.State]
        STATE_SUCCEEDED: _ClassVar[Export.State]
        STATE_REJECTED: _ClassVar[Export.State]
        STATE_FAILED: _ClassVar[Export.State]
        STATE_CANCELLING: _ClassVar[Export.State]
        STATE_CANCELLED: _ClassVar[Export.State]
    STATE_UNSPECIFIED: Export.State
    STATE_QUEUED: Export.State
    STATE_RUNNING: Export.State
    STATE_VERIFYING: Export.State
    STATE_SUCCEEDED: Export.State
    STATE_REJECTED: Export.State
    STATE_FAILED: Export.State
    STATE_CANCELLING: Export.State
    STATE_CANCELLED: Export.State
    class CheckpointChoice(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHECKPOINT_CHOICE_UNSPECIFIED: _ClassVar[Export.CheckpointChoice]
        CHECKPOINT_CHOICE_BEST: _ClassVar[Export.CheckpointChoice]
        CHECKPOINT_CHOICE_LAST: _ClassVar[Export.CheckpointChoice]
        CHECKPOINT_CHOICE_STEP: _ClassVar[Export.CheckpointChoice]
    CHECKPOINT_CHOICE_UNSPECIFIED: Export.CheckpointChoice
    CHECKPOINT_CHOICE_BEST: Export.CheckpointChoice
    CHECKPOINT_CHOICE_LAST: Export.CheckpointChoice
    CHECKPOINT_CHOICE_STEP: Export.CheckpointChoice
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MADE_BY_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    LINK_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_DOWNLOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    training_job: str
    checkpoint: Export.CheckpointChoice
    format: ExportFormat
    state: Export.State
    step: int
    parity: ParityReport
    size_bytes: int
    manifest_sha256: str
    progress: _progress_pb2.Progress
    error: _status_pb2.Status
    attempt: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    group: str
    made_by: str
    expire_time: _timestamp_pb2.Timestamp
    pinned: bool
    download_count: int
    link_count: int
    last_download_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., training_job: _Optional[str] = ..., checkpoint: _Optional[_Union[Export.CheckpointChoice, str]] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., state: _Optional[_Union[Export.State, str]] = ..., step: _Optional[int] = ..., parity: _Optional[_Union[ParityReport, _Mapping]] = ..., size_bytes: _Optional[int] = ..., manifest_sha256: _Optional[str] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., attempt: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., group: _Optional[str] = ..., made_by: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pinned: _Optional[bool] = ..., download_count: _Optional[int] = ..., link_count: _Optional[int] = ..., last_download_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
