import datetime

from finemesh.v1 import dataset_pb2 as _dataset_pb2
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

class ValidationLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VALIDATION_LEVEL_UNSPECIFIED: _ClassVar[ValidationLevel]
    VALIDATION_LEVEL_BASIC: _ClassVar[ValidationLevel]
    VALIDATION_LEVEL_STRICT: _ClassVar[ValidationLevel]
VALIDATION_LEVEL_UNSPECIFIED: ValidationLevel
VALIDATION_LEVEL_BASIC: ValidationLevel
VALIDATION_LEVEL_STRICT: ValidationLevel

class ValidationThresholds(_message.Message):
    __slots__ = ("min_class_examples", "max_imbalance", "max_aspect_ratio", "min_box_iou", "max_leakage", "max_quarantined_fraction", "max_examples", "min_rows", "min_tail_share", "max_image_pixels", "max_box_overhang_pixels", "max_similar_bits", "tokenizer", "max_tokens")
    MIN_CLASS_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    MAX_ASPECT_RATIO_FIELD_NUMBER: _ClassVar[int]
    MIN_BOX_IOU_FIELD_NUMBER: _ClassVar[int]
    MAX_LEAKAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUARANTINED_FRACTION_FIELD_NUMBER: _ClassVar[int]
    MAX_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MIN_ROWS_FIELD_NUMBER: _ClassVar[int]
    MIN_TAIL_SHARE_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_BOX_OVERHANG_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_SIMILAR_BITS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    min_class_examples: int
    max_imbalance: float
    max_aspect_ratio: float
    min_box_iou: float
    max_leakage: float
    max_quarantined_fraction: float
    max_examples: int
    min_rows: int
    min_tail_share: float
    max_image_pixels: int
    max_box_overhang_pixels: float
    max_similar_bits: int
    tokenizer: str
    max_tokens: int
    def __init__(self, min_class_examples: _Optional[int] = ..., max_imbalance: _Optional[float] = ..., max_aspect_ratio: _Optional[float] = ..., min_box_iou: _Optional[float] = ..., max_leakage: _Optional[float] = ..., max_quarantined_fraction: _Optional[float] = ..., max_examples: _Optional[int] = ..., min_rows: _Optional[int] = ..., min_tail_share: _Optional[float] = ..., max_image_pixels: _Optional[int] = ..., max_box_overhang_pixels: _Optional[float] = ..., max_similar_bits: _Optional[int] = ..., tokenizer: _Optional[str] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("id", "severity", "row_id", "field", "evidence", "remedy")
    class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SEVERITY_UNSPECIFIED: _ClassVar[Finding.Severity]
        SEVERITY_INFO: _ClassVar[Finding.Severity]
        SEVERITY_WARNING: _ClassVar[Finding.Severity]
        SEVERITY_ERROR: _ClassVar[Finding.Severity]
    SEVERITY_UNSPECIFIED: Finding.Severity
    SEVERITY_INFO: Finding.Severity
    SEVERITY_WARNING: Finding.Severity
    SEVERITY_ERROR: Finding.Severity
    ID_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    ROW_ID_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    id: str
    severity: Finding.Severity
    row_id: str
    field: str
    evidence: str
    remedy: str
    def __init__(self, id: _Optional[str] = ..., severity: _Optional[_Union[Finding.Severity, str]] = ..., row_id: _Optional[str] = ..., field: _Optional[str] = ..., evidence: _Optional[str] = ..., remedy: _Optional[str] = ...) -> None: ...

class ValueHistogram(_message.Message):
    __slots__ = ("edges", "counts")
    EDGES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, edges: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class PictureSizeCount(_message.Message):
    __slots__ = ("width", "height", "count")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    count: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class TokenLengths(_message.Message):
    __slots__ = ("tokenizer", "max_tokens", "row_count", "median", "longest", "cut_row_count", "cut_token_count", "lengths")
    TOKENIZER_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FIELD_NUMBER: _ClassVar[int]
    CUT_ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CUT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    tokenizer: str
    max_tokens: int
    row_count: int
    median: int
    longest: int
    cut_row_count: int
    cut_token_count: int
    lengths: ValueHistogram
    def __init__(self, tokenizer: _Optional[str] = ..., max_tokens: _Optional[int] = ..., row_count: _Optional[int] = ..., median: _Optional[int] = ..., longest: _Optional[int] = ..., cut_row_count: _Optional[int] = ..., cut_token_count: _Optional[int] = ..., lengths: _Optional[_Union[ValueHistogram, _Mapping]] = ...) -> None: ...

class ValidationMeasures(_message.Message):
    __slots__ = ("picture_count", "object_count", "objects_per_picture", "picture_sizes", "box_sizes", "similar_pair_count", "leakage_shares", "tokens")
    PICTURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_COUNT_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_PER_PICTURE_FIELD_NUMBER: _ClassVar[int]
    PICTURE_SIZES_FIELD_NUMBER: _ClassVar[int]
    BOX_SIZES_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_PAIR_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEAKAGE_SHARES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    picture_count: int
    object_count: int
    objects_per_picture: ValueHistogram
    picture_sizes: _containers.RepeatedCompositeFieldContainer[PictureSizeCount]
    box_sizes: ValueHistogram
    similar_pair_count: int
    leakage_shares: _dataset_pb2.LeakageShares
    tokens: TokenLengths
    def __init__(self, picture_count: _Optional[int] = ..., object_count: _Optional[int] = ..., objects_per_picture: _Optional[_Union[ValueHistogram, _Mapping]] = ..., picture_sizes: _Optional[_Iterable[_Union[PictureSizeCount, _Mapping]]] = ..., box_sizes: _Optional[_Union[ValueHistogram, _Mapping]] = ..., similar_pair_count: _Optional[int] = ..., leakage_shares: _Optional[_Union[_dataset_pb2.LeakageShares, _Mapping]] = ..., tokens: _Optional[_Union[TokenLengths, _Mapping]] = ...) -> None: ...

class ValidationReport(_message.Message):
    __slots__ = ("name", "level", "state", "verdict", "row_count", "finding_counts", "findings", "html_url", "progress", "error", "attempt", "create_time", "start_time", "end_time", "update_time", "thresholds", "measures")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ValidationReport.State]
        STATE_QUEUED: _ClassVar[ValidationReport.State]
        STATE_RUNNING: _ClassVar[ValidationReport.State]
        STATE_SUCCEEDED: _ClassVar[ValidationReport.State]
        STATE_FAILED: _ClassVar[ValidationReport.State]
        STATE_CANCELLING: _ClassVar[ValidationReport.State]
        STATE_CANCELLED: _ClassVar[ValidationReport.State]
    STATE_UNSPECIFIED: ValidationReport.State
    STATE_QUEUED: ValidationReport.State
    STATE_RUNNING: ValidationReport.State
    STATE_SUCCEEDED: ValidationReport.State
    STATE_FAILED: ValidationReport.State
    STATE_CANCELLING: ValidationReport.State
    STATE_CANCELLED: ValidationReport.State
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[ValidationReport.Verdict]
        VERDICT_PASSED: _ClassVar[ValidationReport.Verdict]
        VERDICT_PASSED_WITH_WARNINGS: _ClassVar[ValidationReport.Verdict]
        VERDICT_FAILED: _ClassVar[ValidationReport.Verdict]
    VERDICT_UNSPECIFIED: ValidationReport.Verdict
    VERDICT_PASSED: ValidationReport.Verdict
    VERDICT_PASSED_WITH_WARNINGS: ValidationReport.Verdict
    VERDICT_FAILED: ValidationReport.Verdict
    class FindingCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNTS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    HTML_URL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    name: str
    level: ValidationLevel
    state: ValidationReport.State
    verdict: ValidationReport.Verdict
    row_count: int
    finding_counts: _containers.ScalarMap[str, int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    html_url: str
    progress: _progress_pb2.Progress
    error: _status_pb2.Status
    attempt: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    thresholds: ValidationThresholds
    measures: ValidationMeasures
    def __init__(self, name: _Optional[str] = ..., level: _Optional[_Union[ValidationLevel, str]] = ..., state: _Optional[_Union[ValidationReport.State, str]] = ..., verdict: _Optional[_Union[ValidationReport.Verdict, str]] = ..., row_count: _Optional[int] = ..., finding_counts: _Optional[_Mapping[str, int]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., html_url: _Optional[str] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., attempt: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., thresholds: _Optional[_Union[ValidationThresholds, _Mapping]] = ..., measures: _Optional[_Union[ValidationMeasures, _Mapping]] = ...) -> None: ...
