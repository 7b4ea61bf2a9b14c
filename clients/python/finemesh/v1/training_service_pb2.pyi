from finemesh.v1 import estimate_pb2 as _estimate_pb2
from finemesh.v1 import fine_tune_spec_pb2 as _fine_tune_spec_pb2
from finemesh.v1 import model_family_pb2 as _model_family_pb2
from finemesh.v1 import preset_pb2 as _preset_pb2
from finemesh.v1 import spec_finding_pb2 as _spec_finding_pb2
from finemesh.v1 import training_job_pb2 as _training_job_pb2
from finemesh.v1 import training_job_history_pb2 as _training_job_history_pb2
from finemesh.v1 import training_log_pb2 as _training_log_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateTrainingJobRequest(_message.Message):
    __slots__ = ("parent", "training_job", "training_job_id", "request_id", "validate_only", "base_model")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    parent: str
    training_job: _training_job_pb2.TrainingJob
    training_job_id: str
    request_id: str
    validate_only: bool
    base_model: _estimate_pb2.BaseModelFiles
    def __init__(self, parent: _Optional[str] = ..., training_job: _Optional[_Union[_training_job_pb2.TrainingJob, _Mapping]] = ..., training_job_id: _Optional[str] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ..., base_model: _Optional[_Union[_estimate_pb2.BaseModelFiles, _Mapping]] = ...) -> None: ...

class GetTrainingJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListTrainingJobsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter", "order_by")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    order_by: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ...) -> None: ...

class ListTrainingJobsResponse(_message.Message):
    __slots__ = ("training_jobs", "next_page_token")
    TRAINING_JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    training_jobs: _containers.RepeatedCompositeFieldContainer[_training_job_pb2.TrainingJob]
    next_page_token: str
    def __init__(self, training_jobs: _Optional[_Iterable[_Union[_training_job_pb2.TrainingJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchTrainingJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelTrainingJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PauseTrainingJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResumeTrainingJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class SetTrainingJobPriorityRequest(_message.Message):
    __slots__ = ("name", "priority")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    priority: int
    def __init__(self, name: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class DeleteTrainingJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListCheckpointsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCheckpointsResponse(_message.Message):
    __slots__ = ("checkpoints", "next_page_token")
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    checkpoints: _containers.RepeatedCompositeFieldContainer[_training_job_pb2.Checkpoint]
    next_page_token: str
    def __init__(self, checkpoints: _Optional[_Iterable[_Union[_training_job_pb2.Checkpoint, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListTrainingJobHistoryRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTrainingJobHistoryResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_training_job_history_pb2.TrainingJobHistoryEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[_training_job_history_pb2.TrainingJobHistoryEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CommitCheckpointRequest(_message.Message):
    __slots__ = ("name", "attempt", "fence", "checkpoint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    fence: int
    checkpoint: _training_job_pb2.Checkpoint
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ..., checkpoint: _Optional[_Union[_training_job_pb2.Checkpoint, _Mapping]] = ...) -> None: ...

class CommitCheckpointResponse(_message.Message):
    __slots__ = ("expired_uris",)
    EXPIRED_URIS_FIELD_NUMBER: _ClassVar[int]
    expired_uris: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, expired_uris: _Optional[_Iterable[str]] = ...) -> None: ...

class EstimateTrainingJobRequest(_message.Message):
    __slots__ = ("parent", "spec", "base_model", "longest_batch_tokens", "mean_row_tokens", "probe")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    LONGEST_BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MEAN_ROW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    parent: str
    spec: _fine_tune_spec_pb2.FineTuneSpec
    base_model: _estimate_pb2.BaseModelFiles
    longest_batch_tokens: int
    mean_row_tokens: float
    probe: _estimate_pb2.MeasuredProbe
    def __init__(self, parent: _Optional[str] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., base_model: _Optional[_Union[_estimate_pb2.BaseModelFiles, _Mapping]] = ..., longest_batch_tokens: _Optional[int] = ..., mean_row_tokens: _Optional[float] = ..., probe: _Optional[_Union[_estimate_pb2.MeasuredProbe, _Mapping]] = ...) -> None: ...

class LintFineTuneSpecRequest(_message.Message):
    __slots__ = ("spec", "base_model")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    spec: _fine_tune_spec_pb2.FineTuneSpec
    base_model: _spec_finding_pb2.BaseModelFacts
    def __init__(self, spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., base_model: _Optional[_Union[_spec_finding_pb2.BaseModelFacts, _Mapping]] = ...) -> None: ...

class LintFineTuneSpecResponse(_message.Message):
    __slots__ = ("findings", "spec")
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[_spec_finding_pb2.SpecFinding]
    spec: _fine_tune_spec_pb2.FineTuneSpec
    def __init__(self, findings: _Optional[_Iterable[_Union[_spec_finding_pb2.SpecFinding, _Mapping]]] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ...) -> None: ...

class GetPresetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListPresetsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPresetsResponse(_message.Message):
    __slots__ = ("presets", "next_page_token")
    PRESETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    presets: _containers.RepeatedCompositeFieldContainer[_preset_pb2.Preset]
    next_page_token: str
    def __init__(self, presets: _Optional[_Iterable[_Union[_preset_pb2.Preset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetModelFamilyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListModelFamiliesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelFamiliesResponse(_message.Message):
    __slots__ = ("model_families", "next_page_token")
    MODEL_FAMILIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model_families: _containers.RepeatedCompositeFieldContainer[_model_family_pb2.ModelFamily]
    next_page_token: str
    def __init__(self, model_families: _Optional[_Iterable[_Union[_model_family_pb2.ModelFamily, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
