import datetime

from finemesh.v1 import estimate_pb2 as _estimate_pb2
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

class Checkpoint(_message.Message):
    __slots__ = ("step", "uri", "manifest_sha256", "size_bytes", "attempt", "metrics", "best", "create_time", "sample_hash", "loss_digest", "weights_sha256")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_HASH_FIELD_NUMBER: _ClassVar[int]
    LOSS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    step: int
    uri: str
    manifest_sha256: str
    size_bytes: int
    attempt: int
    metrics: _containers.ScalarMap[str, float]
    best: bool
    create_time: _timestamp_pb2.Timestamp
    sample_hash: str
    loss_digest: str
    weights_sha256: str
    def __init__(self, step: _Optional[int] = ..., uri: _Optional[str] = ..., manifest_sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., attempt: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., best: _Optional[bool] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sample_hash: _Optional[str] = ..., loss_digest: _Optional[str] = ..., weights_sha256: _Optional[str] = ...) -> None: ...

class ResumeCertificate(_message.Message):
    __slots__ = ("attempt", "step", "expected_sample_hash", "actual_sample_hash", "matches")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SAMPLE_HASH_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_SAMPLE_HASH_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    step: int
    expected_sample_hash: str
    actual_sample_hash: str
    matches: bool
    def __init__(self, attempt: _Optional[int] = ..., step: _Optional[int] = ..., expected_sample_hash: _Optional[str] = ..., actual_sample_hash: _Optional[str] = ..., matches: _Optional[bool] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("cluster", "node_id", "pids", "gpu_ids", "heartbeat_time", "lease_expire_time", "gpu_uuids")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_TIME_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    node_id: str
    pids: _containers.RepeatedScalarFieldContainer[int]
    gpu_ids: _containers.RepeatedScalarFieldContainer[str]
    heartbeat_time: _timestamp_pb2.Timestamp
    lease_expire_time: _timestamp_pb2.Timestamp
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cluster: _Optional[str] = ..., node_id: _Optional[str] = ..., pids: _Optional[_Iterable[int]] = ..., gpu_ids: _Optional[_Iterable[str]] = ..., heartbeat_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., gpu_uuids: _Optional[_Iterable[str]] = ...) -> None: ...

class TrainingJob(_message.Message):
    __slots__ = ("name", "display_name", "labels", "spec", "priority", "max_restarts", "state", "run", "progress", "step", "total_steps", "attempt", "worker", "latest_checkpoint", "resume_certificates", "row_usage", "peak_memory_bytes", "error", "create_time", "start_time", "end_time", "update_time", "kill_after_step", "pause_at_step", "estimated_end_time", "run_seconds", "state_time", "max_run_seconds", "estimate", "admit_oversized", "micro_batch_size")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[TrainingJob.State]
        STATE_VALIDATING: _ClassVar[TrainingJob.State]
        STATE_QUEUED: _ClassVar[TrainingJob.State]
        STATE_STARTING: _ClassVar[TrainingJob.State]
        STATE_RUNNING: _ClassVar[TrainingJob.State]
        STATE_SUCCEEDED: _ClassVar[TrainingJob.State]
        STATE_FAILED: _ClassVar[TrainingJob.State]
        STATE_CANCELLING: _ClassVar[TrainingJob.State]
        STATE_CANCELLED: _ClassVar[TrainingJob.State]
        STATE_PAUSING: _ClassVar[TrainingJob.State]
        STATE_PAUSED: _ClassVar[TrainingJob.State]
        STATE_PREEMPTING: _ClassVar[TrainingJob.State]
    STATE_UNSPECIFIED: TrainingJob.State
    STATE_VALIDATING: TrainingJob.State
    STATE_QUEUED: TrainingJob.State
    STATE_STARTING: TrainingJob.State
    STATE_RUNNING: TrainingJob.State
    STATE_SUCCEEDED: TrainingJob.State
    STATE_FAILED: TrainingJob.State
    STATE_CANCELLING: TrainingJob.State
    STATE_CANCELLED: TrainingJob.State
    STATE_PAUSING: TrainingJob.State
    STATE_PAUSED: TrainingJob.State
    STATE_PREEMPTING: TrainingJob.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class RowUsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MAX_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    LATEST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RESUME_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    ROW_USAGE_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    KILL_AFTER_STEP_FIELD_NUMBER: _ClassVar[int]
    PAUSE_AT_STEP_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_END_TIME_FIELD_NUMBER: _ClassVar[int]
    RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    MAX_RUN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    ADMIT_OVERSIZED_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    spec: _fine_tune_spec_pb2.FineTuneSpec
    priority: int
    max_restarts: int
    state: TrainingJob.State
    run: str
    progress: _progress_pb2.Progress
    step: int
    total_steps: int
    attempt: int
    worker: WorkerStatus
    latest_checkpoint: Checkpoint
    resume_certificates: _containers.RepeatedCompositeFieldContainer[ResumeCertificate]
    row_usage: _containers.ScalarMap[str, int]
    peak_memory_bytes: int
    error: _status_pb2.Status
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    kill_after_step: int
    pause_at_step: int
    estimated_end_time: _timestamp_pb2.Timestamp
    run_seconds: float
    state_time: _timestamp_pb2.Timestamp
    max_run_seconds: float
    estimate: _estimate_pb2.TrainingEstimate
    admit_oversized: bool
    micro_batch_size: int
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., priority: _Optional[int] = ..., max_restarts: _Optional[int] = ..., state: _Optional[_Union[TrainingJob.State, str]] = ..., run: _Optional[str] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., step: _Optional[int] = ..., total_steps: _Optional[int] = ..., attempt: _Optional[int] = ..., worker: _Optional[_Union[WorkerStatus, _Mapping]] = ..., latest_checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., resume_certificates: _Optional[_Iterable[_Union[ResumeCertificate, _Mapping]]] = ..., row_usage: _Optional[_Mapping[str, int]] = ..., peak_memory_bytes: _Optional[int] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kill_after_step: _Optional[int] = ..., pause_at_step: _Optional[int] = ..., estimated_end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., run_seconds: _Optional[float] = ..., state_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., max_run_seconds: _Optional[float] = ..., estimate: _Optional[_Union[_estimate_pb2.TrainingEstimate, _Mapping]] = ..., admit_oversized: _Optional[bool] = ..., micro_batch_size: _Optional[int] = ...) -> None: ...
