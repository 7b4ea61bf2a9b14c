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
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPORT_FORMAT_UNSPECIFIED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ADAPTER: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MERGED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MERGED_BF16: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MERGED_FP16: _ClassVar[ExportFormat]
    EXPORT_FORMAT_BNB_INT8: _ClassVar[ExportFormat]
    EXPORT_FORMAT_BNB_NF4: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ONNX: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ONNX_FP16: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ONNX_INT8: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ONNX_INT8_STATIC: _ClassVar[ExportFormat]
    EXPORT_FORMAT_ONNX_INT4: _ClassVar[ExportFormat]
    EXPORT_FORMAT_GGUF_F16: _ClassVar[ExportFormat]
    EXPORT_FORMAT_GGUF_Q8_0: _ClassVar[ExportFormat]
    EXPORT_FORMAT_GGUF_Q6_K: _ClassVar[ExportFormat]
    EXPORT_FORMAT_GGUF_Q5_K_M: _ClassVar[ExportFormat]
    EXPORT_FORMAT_GGUF_Q4_K_M: _ClassVar[ExportFormat]
    EXPORT_FORMAT_GGUF_Q4_0: _ClassVar[ExportFormat]
EXPORT_FORMAT_UNSPECIFIED: ExportFormat
EXPORT_FORMAT_ADAPTER: ExportFormat
EXPORT_FORMAT_MERGED: ExportFormat
EXPORT_FORMAT_MERGED_BF16: ExportFormat
EXPORT_FORMAT_MERGED_FP16: ExportFormat
EXPORT_FORMAT_BNB_INT8: ExportFormat
EXPORT_FORMAT_BNB_NF4: ExportFormat
EXPORT_FORMAT_ONNX: ExportFormat
EXPORT_FORMAT_ONNX_FP16: ExportFormat
EXPORT_FORMAT_ONNX_INT8: ExportFormat
EXPORT_FORMAT_ONNX_INT8_STATIC: ExportFormat
EXPORT_FORMAT_ONNX_INT4: ExportFormat
EXPORT_FORMAT_GGUF_F16: ExportFormat
EXPORT_FORMAT_GGUF_Q8_0: ExportFormat
EXPORT_FORMAT_GGUF_Q6_K: ExportFormat
EXPORT_FORMAT_GGUF_Q5_K_M: ExportFormat
EXPORT_FORMAT_GGUF_Q4_K_M: ExportFormat
EXPORT_FORMAT_GGUF_Q4_0: ExportFormat

class ParityReport(_message.Message):
    __slots__ = ("items", "max_logit_difference", "logit_tolerance", "token_agreement", "passed", "runtime", "checks", "differences", "reasons", "metric")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOGIT_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    LOGIT_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    items: int
    max_logit_difference: float
    logit_tolerance: float
    token_agreement: float
    passed: bool
    runtime: str
    checks: _containers.RepeatedCompositeFieldContainer[ParityCheck]
    differences: _containers.RepeatedCompositeFieldContainer[ParityDifference]
    reasons: _containers.RepeatedScalarFieldContainer[str]
    metric: ParityMetric
    def __init__(self, items: _Optional[int] = ..., max_logit_difference: _Optional[float] = ..., logit_tolerance: _Optional[float] = ..., token_agreement: _Optional[float] = ..., passed: _Optional[bool] = ..., runtime: _Optional[str] = ..., checks: _Optional[_Iterable[_Union[ParityCheck, _Mapping]]] = ..., differences: _Optional[_Iterable[_Union[ParityDifference, _Mapping]]] = ..., reasons: _Optional[_Iterable[str]] = ..., metric: _Optional[_Union[ParityMetric, _Mapping]] = ...) -> None: ...

class ParityCheck(_message.Message):
    __slots__ = ("kind", "what", "value", "limit", "at_most", "passed")
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    kind: str
    what: str
    value: float
    limit: float
    at_most: bool
    passed: bool
    def __init__(self, kind: _Optional[str] = ..., what: _Optional[str] = ..., value: _Optional[float] = ..., limit: _Optional[float] = ..., at_most: _Optional[bool] = ..., passed: _Optional[bool] = ...) -> None: ...

class ParityDifference(_message.Message):
    __slots__ = ("row_id", "tokens_equal", "input_difference", "difference", "relative_difference", "agreement")
    ROW_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_EQUAL_FIELD_NUMBER: _ClassVar[int]
    INPUT_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    row_id: str
    tokens_equal: bool
    input_difference: float
    difference: float
    relative_difference: float
    agreement: float
    def __init__(self, row_id: _Optional[str] = ..., tokens_equal: _Optional[bool] = ..., input_difference: _Optional[float] = ..., difference: _Optional[float] = ..., relative_difference: _Optional[float] = ..., agreement: _Optional[float] = ...) -> None: ...

class ParityMetric(_message.Message):
    __slots__ = ("name", "trained", "trained_low", "trained_high", "package", "package_low", "package_high")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    TRAINED_LOW_FIELD_NUMBER: _ClassVar[int]
    TRAINED_HIGH_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_LOW_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_HIGH_FIELD_NUMBER: _ClassVar[int]
    name: str
    trained: float
    trained_low: float
    trained_high: float
    package: float
    package_low: float
    package_high: float
    def __init__(self, name: _Optional[str] = ..., trained: _Optional[float] = ..., trained_low: _Optional[float] = ..., trained_high: _Optional[float] = ..., package: _Optional[float] = ..., package_low: _Optional[float] = ..., package_high: _Optional[float] = ...) -> None: ...

class Export(_message.Message):
    __slots__ = ("name", "display_name", "labels", "training_job", "checkpoint", "format", "state", "step", "parity", "size_bytes", "manifest_sha256", "progress", "error", "attempt", "create_time", "start_time", "end_time", "update_time", "group", "made_by", "expire_time", "pinned", "download_count", "link_count", "last_download_time", "allow_drift", "licence_override", "licence_override_subject")
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
    ALLOW_DRIFT_FIELD_NUMBER: _ClassVar[int]
    LICENCE_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    LICENCE_OVERRIDE_SUBJECT_FIELD_NUMBER: _ClassVar[int]
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
    allow_drift: bool
    licence_override: str
    licence_override_subject: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., training_job: _Optional[str] = ..., checkpoint: _Optional[_Union[Export.CheckpointChoice, str]] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., state: _Optional[_Union[Export.State, str]] = ..., step: _Optional[int] = ..., parity: _Optional[_Union[ParityReport, _Mapping]] = ..., size_bytes: _Optional[int] = ..., manifest_sha256: _Optional[str] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., attempt: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., group: _Optional[str] = ..., made_by: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pinned: _Optional[bool] = ..., download_count: _Optional[int] = ..., link_count: _Optional[int] = ..., last_download_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., allow_drift: _Optional[bool] = ..., licence_override: _Optional[str] = ..., licence_override_subject: _Optional[str] = ...) -> None: ...
