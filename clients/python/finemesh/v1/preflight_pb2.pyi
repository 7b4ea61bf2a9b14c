import datetime

from finemesh.v1 import fine_tune_spec_pb2 as _fine_tune_spec_pb2
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

class PreflightOptions(_message.Message):
    __slots__ = ("shown_rows", "max_masked_fraction")
    SHOWN_ROWS_FIELD_NUMBER: _ClassVar[int]
    MAX_MASKED_FRACTION_FIELD_NUMBER: _ClassVar[int]
    shown_rows: int
    max_masked_fraction: float
    def __init__(self, shown_rows: _Optional[int] = ..., max_masked_fraction: _Optional[float] = ...) -> None: ...

class PreflightReport(_message.Message):
    __slots__ = ("name", "spec", "options", "state", "result", "html_url", "json_url", "progress", "error", "attempt", "create_time", "start_time", "end_time", "update_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[PreflightReport.State]
        STATE_QUEUED: _ClassVar[PreflightReport.State]
        STATE_RUNNING: _ClassVar[PreflightReport.State]
        STATE_SUCCEEDED: _ClassVar[PreflightReport.State]
        STATE_FAILED: _ClassVar[PreflightReport.State]
        STATE_CANCELLING: _ClassVar[PreflightReport.State]
        STATE_CANCELLED: _ClassVar[PreflightReport.State]
    STATE_UNSPECIFIED: PreflightReport.State
    STATE_QUEUED: PreflightReport.State
    STATE_RUNNING: PreflightReport.State
    STATE_SUCCEEDED: PreflightReport.State
    STATE_FAILED: PreflightReport.State
    STATE_CANCELLING: PreflightReport.State
    STATE_CANCELLED: PreflightReport.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    HTML_URL_FIELD_NUMBER: _ClassVar[int]
    JSON_URL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    spec: _fine_tune_spec_pb2.FineTuneSpec
    options: PreflightOptions
    state: PreflightReport.State
    result: PreflightResult
    html_url: str
    json_url: str
    progress: _progress_pb2.Progress
    error: _status_pb2.Status
    attempt: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., options: _Optional[_Union[PreflightOptions, _Mapping]] = ..., state: _Optional[_Union[PreflightReport.State, str]] = ..., result: _Optional[_Union[PreflightResult, _Mapping]] = ..., html_url: _Optional[str] = ..., json_url: _Optional[str] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., attempt: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PreflightResult(_message.Message):
    __slots__ = ("verdict", "dataset_digest", "model", "max_tokens", "over_length_policy", "packing", "problems", "splits", "histogram", "longest_batch", "longest", "over_length", "all_masked", "mismatched", "not_trained", "shown")
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[PreflightResult.Verdict]
        VERDICT_PASSED: _ClassVar[PreflightResult.Verdict]
        VERDICT_PASSED_WITH_WARNINGS: _ClassVar[PreflightResult.Verdict]
        VERDICT_FAILED: _ClassVar[PreflightResult.Verdict]
    VERDICT_UNSPECIFIED: PreflightResult.Verdict
    VERDICT_PASSED: PreflightResult.Verdict
    VERDICT_PASSED_WITH_WARNINGS: PreflightResult.Verdict
    VERDICT_FAILED: PreflightResult.Verdict
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DATASET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OVER_LENGTH_POLICY_FIELD_NUMBER: _ClassVar[int]
    PACKING_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    LONGEST_BATCH_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FIELD_NUMBER: _ClassVar[int]
    OVER_LENGTH_FIELD_NUMBER: _ClassVar[int]
    ALL_MASKED_FIELD_NUMBER: _ClassVar[int]
    MISMATCHED_FIELD_NUMBER: _ClassVar[int]
    NOT_TRAINED_FIELD_NUMBER: _ClassVar[int]
    SHOWN_FIELD_NUMBER: _ClassVar[int]
    verdict: PreflightResult.Verdict
    dataset_digest: str
    model: PreflightModel
    max_tokens: int
    over_length_policy: str
    packing: bool
    problems: _containers.RepeatedCompositeFieldContainer[PreflightProblem]
    splits: _containers.RepeatedCompositeFieldContainer[PreflightSplit]
    histogram: PreflightHistogram
    longest_batch: LongestBatch
    longest: _containers.RepeatedCompositeFieldContainer[PreflightRow]
    over_length: _containers.RepeatedCompositeFieldContainer[PreflightRow]
    all_masked: _containers.RepeatedCompositeFieldContainer[PreflightRow]
    mismatched: _containers.RepeatedCompositeFieldContainer[PreflightRow]
    not_trained: _containers.RepeatedCompositeFieldContainer[PreflightRow]
    shown: _containers.RepeatedCompositeFieldContainer[ShownRow]
    def __init__(self, verdict: _Optional[_Union[PreflightResult.Verdict, str]] = ..., dataset_digest: _Optional[str] = ..., model: _Optional[_Union[PreflightModel, _Mapping]] = ..., max_tokens: _Optional[int] = ..., over_length_policy: _Optional[str] = ..., packing: _Optional[bool] = ..., problems: _Optional[_Iterable[_Union[PreflightProblem, _Mapping]]] = ..., splits: _Optional[_Iterable[_Union[PreflightSplit, _Mapping]]] = ..., histogram: _Optional[_Union[PreflightHistogram, _Mapping]] = ..., longest_batch: _Optional[_Union[LongestBatch, _Mapping]] = ..., longest: _Optional[_Iterable[_Union[PreflightRow, _Mapping]]] = ..., over_length: _Optional[_Iterable[_Union[PreflightRow, _Mapping]]] = ..., all_masked: _Optional[_Iterable[_Union[PreflightRow, _Mapping]]] = ..., mismatched: _Optional[_Iterable[_Union[PreflightRow, _Mapping]]] = ..., not_trained: _Optional[_Iterable[_Union[PreflightRow, _Mapping]]] = ..., shown: _Optional[_Iterable[_Union[ShownRow, _Mapping]]] = ...) -> None: ...

class PreflightModel(_message.Message):
    __slots__ = ("base_model", "family", "model_type", "task", "template", "vocab_size", "max_positions", "image_token", "image_token_id")
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    family: str
    model_type: str
    task: str
    template: str
    vocab_size: int
    max_positions: int
    image_token: str
    image_token_id: int
    def __init__(self, base_model: _Optional[str] = ..., family: _Optional[str] = ..., model_type: _Optional[str] = ..., task: _Optional[str] = ..., template: _Optional[str] = ..., vocab_size: _Optional[int] = ..., max_positions: _Optional[int] = ..., image_token: _Optional[str] = ..., image_token_id: _Optional[int] = ...) -> None: ...

class PreflightProblem(_message.Message):
    __slots__ = ("severity", "reason", "message", "rows")
    class Severity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SEVERITY_UNSPECIFIED: _ClassVar[PreflightProblem.Severity]
        SEVERITY_WARNING: _ClassVar[PreflightProblem.Severity]
        SEVERITY_ERROR: _ClassVar[PreflightProblem.Severity]
    SEVERITY_UNSPECIFIED: PreflightProblem.Severity
    SEVERITY_WARNING: PreflightProblem.Severity
    SEVERITY_ERROR: PreflightProblem.Severity
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    severity: PreflightProblem.Severity
    reason: str
    message: str
    rows: int
    def __init__(self, severity: _Optional[_Union[PreflightProblem.Severity, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...

class PreflightSplit(_message.Message):
    __slots__ = ("split", "rows", "kept", "quarantined", "dropped", "refused", "truncated", "tokens", "loss_tokens", "images", "placeholders", "features", "mismatched", "over_length", "all_masked", "by_reason")
    class ByReasonEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOSS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDERS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MISMATCHED_FIELD_NUMBER: _ClassVar[int]
    OVER_LENGTH_FIELD_NUMBER: _ClassVar[int]
    ALL_MASKED_FIELD_NUMBER: _ClassVar[int]
    BY_REASON_FIELD_NUMBER: _ClassVar[int]
    split: str
    rows: int
    kept: int
    quarantined: int
    dropped: int
    refused: int
    truncated: int
    tokens: int
    loss_tokens: int
    images: int
    placeholders: int
    features: int
    mismatched: int
    over_length: int
    all_masked: int
    by_reason: _containers.ScalarMap[str, int]
    def __init__(self, split: _Optional[str] = ..., rows: _Optional[int] = ..., kept: _Optional[int] = ..., quarantined: _Optional[int] = ..., dropped: _Optional[int] = ..., refused: _Optional[int] = ..., truncated: _Optional[int] = ..., tokens: _Optional[int] = ..., loss_tokens: _Optional[int] = ..., images: _Optional[int] = ..., placeholders: _Optional[int] = ..., features: _Optional[int] = ..., mismatched: _Optional[int] = ..., over_length: _Optional[int] = ..., all_masked: _Optional[int] = ..., by_reason: _Optional[_Mapping[str, int]] = ...) -> None: ...

class PreflightHistogram(_message.Message):
    __slots__ = ("edges", "tokens", "loss_tokens")
    EDGES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOSS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    loss_tokens: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, edges: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[int]] = ..., loss_tokens: _Optional[_Iterable[int]] = ...) -> None: ...

class LongestBatch(_message.Message):
    __slots__ = ("step", "micro_batch", "row_ids", "input_shape", "tokens", "padding", "loss_tokens", "pixel_shape", "steps", "worst_tokens")
    STEP_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_FIELD_NUMBER: _ClassVar[int]
    ROW_IDS_FIELD_NUMBER: _ClassVar[int]
    INPUT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    LOSS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PIXEL_SHAPE_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    WORST_TOKENS_FIELD_NUMBER: _ClassVar[int]
    step: int
    micro_batch: int
    row_ids: _containers.RepeatedScalarFieldContainer[str]
    input_shape: _containers.RepeatedScalarFieldContainer[int]
    tokens: int
    padding: int
    loss_tokens: int
    pixel_shape: _containers.RepeatedScalarFieldContainer[int]
    steps: int
    worst_tokens: int
    def __init__(self, step: _Optional[int] = ..., micro_batch: _Optional[int] = ..., row_ids: _Optional[_Iterable[str]] = ..., input_shape: _Optional[_Iterable[int]] = ..., tokens: _Optional[int] = ..., padding: _Optional[int] = ..., loss_tokens: _Optional[int] = ..., pixel_shape: _Optional[_Iterable[int]] = ..., steps: _Optional[int] = ..., worst_tokens: _Optional[int] = ...) -> None: ...

class PreflightRow(_message.Message):
    __slots__ = ("row_id", "split", "outcome", "reason", "message", "tokens", "loss_tokens", "placeholders", "features", "cut_tokens", "cut_loss_tokens", "cut_text", "images")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[PreflightRow.Outcome]
        OUTCOME_TRAINED: _ClassVar[PreflightRow.Outcome]
        OUTCOME_TRUNCATED: _ClassVar[PreflightRow.Outcome]
        OUTCOME_DROPPED: _ClassVar[PreflightRow.Outcome]
        OUTCOME_QUARANTINED: _ClassVar[PreflightRow.Outcome]
        OUTCOME_REFUSED: _ClassVar[PreflightRow.Outcome]
    OUTCOME_UNSPECIFIED: PreflightRow.Outcome
    OUTCOME_TRAINED: PreflightRow.Outcome
    OUTCOME_TRUNCATED: PreflightRow.Outcome
    OUTCOME_DROPPED: PreflightRow.Outcome
    OUTCOME_QUARANTINED: PreflightRow.Outcome
    OUTCOME_REFUSED: PreflightRow.Outcome
    ROW_ID_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOSS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDERS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CUT_LOSS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CUT_TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    row_id: str
    split: str
    outcome: PreflightRow.Outcome
    reason: str
    message: str
    tokens: int
    loss_tokens: int
    placeholders: int
    features: int
    cut_tokens: int
    cut_loss_tokens: int
    cut_text: str
    images: int
    def __init__(self, row_id: _Optional[str] = ..., split: _Optional[str] = ..., outcome: _Optional[_Union[PreflightRow.Outcome, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., tokens: _Optional[int] = ..., loss_tokens: _Optional[int] = ..., placeholders: _Optional[int] = ..., features: _Optional[int] = ..., cut_tokens: _Optional[int] = ..., cut_loss_tokens: _Optional[int] = ..., cut_text: _Optional[str] = ..., images: _Optional[int] = ...) -> None: ...

class ShownRow(_message.Message):
    __slots__ = ("figures", "turns", "segments")
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    figures: PreflightRow
    turns: _containers.RepeatedCompositeFieldContainer[ShownTurn]
    segments: _containers.RepeatedCompositeFieldContainer[TokenSegment]
    def __init__(self, figures: _Optional[_Union[PreflightRow, _Mapping]] = ..., turns: _Optional[_Iterable[_Union[ShownTurn, _Mapping]]] = ..., segments: _Optional[_Iterable[_Union[TokenSegment, _Mapping]]] = ...) -> None: ...

class ShownTurn(_message.Message):
    __slots__ = ("role", "tokens", "loss_tokens")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOSS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    role: str
    tokens: int
    loss_tokens: int
    def __init__(self, role: _Optional[str] = ..., tokens: _Optional[int] = ..., loss_tokens: _Optional[int] = ...) -> None: ...

class TokenSegment(_message.Message):
    __slots__ = ("turn", "role", "loss", "cut", "image", "count", "ids", "texts")
    TURN_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    turn: int
    role: str
    loss: bool
    cut: bool
    image: bool
    count: int
    ids: _containers.RepeatedScalarFieldContainer[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, turn: _Optional[int] = ..., role: _Optional[str] = ..., loss: _Optional[bool] = ..., cut: _Optional[bool] = ..., image: _Optional[bool] = ..., count: _Optional[int] = ..., ids: _Optional[_Iterable[int]] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...
