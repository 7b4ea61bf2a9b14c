import datetime

from finemesh.v1 import dataset_pb2 as _dataset_pb2
from finemesh.v1 import export_pb2 as _export_pb2
from finemesh.v1 import fine_tune_spec_pb2 as _fine_tune_spec_pb2
from finemesh.v1 import preflight_pb2 as _preflight_pb2
from finemesh.v1 import training_job_pb2 as _training_job_pb2
from finemesh.v1 import validation_report_pb2 as _validation_report_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Command(_message.Message):
    __slots__ = ("resource", "attempt", "fence", "cluster", "token", "start_deadline", "traceparent", "resources", "avoided_nodes", "nodes", "import_work", "split_work", "convert_work", "validate_work", "train_work", "export_work", "preflight_work")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    START_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    AVOIDED_NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    IMPORT_WORK_FIELD_NUMBER: _ClassVar[int]
    SPLIT_WORK_FIELD_NUMBER: _ClassVar[int]
    CONVERT_WORK_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_WORK_FIELD_NUMBER: _ClassVar[int]
    TRAIN_WORK_FIELD_NUMBER: _ClassVar[int]
    EXPORT_WORK_FIELD_NUMBER: _ClassVar[int]
    PREFLIGHT_WORK_FIELD_NUMBER: _ClassVar[int]
    resource: str
    attempt: int
    fence: int
    cluster: str
    token: str
    start_deadline: _timestamp_pb2.Timestamp
    traceparent: str
    resources: _fine_tune_spec_pb2.ResourceSpec
    avoided_nodes: _containers.RepeatedScalarFieldContainer[str]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    import_work: ImportWork
    split_work: SplitWork
    convert_work: ConvertWork
    validate_work: ValidateWork
    train_work: TrainWork
    export_work: ExportWork
    preflight_work: PreflightWork
    def __init__(self, resource: _Optional[str] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ..., cluster: _Optional[str] = ..., token: _Optional[str] = ..., start_deadline: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., traceparent: _Optional[str] = ..., resources: _Optional[_Union[_fine_tune_spec_pb2.ResourceSpec, _Mapping]] = ..., avoided_nodes: _Optional[_Iterable[str]] = ..., nodes: _Optional[_Iterable[str]] = ..., import_work: _Optional[_Union[ImportWork, _Mapping]] = ..., split_work: _Optional[_Union[SplitWork, _Mapping]] = ..., convert_work: _Optional[_Union[ConvertWork, _Mapping]] = ..., validate_work: _Optional[_Union[ValidateWork, _Mapping]] = ..., train_work: _Optional[_Union[TrainWork, _Mapping]] = ..., export_work: _Optional[_Union[ExportWork, _Mapping]] = ..., preflight_work: _Optional[_Union[PreflightWork, _Mapping]] = ...) -> None: ...

class ImportWork(_message.Message):
    __slots__ = ("upload", "source_uri", "origin", "output_uri")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    upload: _dataset_pb2.Upload
    source_uri: str
    origin: _dataset_pb2.ImportOrigin
    output_uri: str
    def __init__(self, upload: _Optional[_Union[_dataset_pb2.Upload, _Mapping]] = ..., source_uri: _Optional[str] = ..., origin: _Optional[_Union[_dataset_pb2.ImportOrigin, _Mapping]] = ..., output_uri: _Optional[str] = ...) -> None: ...

class SplitWork(_message.Message):
    __slots__ = ("source_uri", "origin", "output_uri")
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    source_uri: str
    origin: _dataset_pb2.SplitOrigin
    output_uri: str
    def __init__(self, source_uri: _Optional[str] = ..., origin: _Optional[_Union[_dataset_pb2.SplitOrigin, _Mapping]] = ..., output_uri: _Optional[str] = ...) -> None: ...

class ConvertWork(_message.Message):
    __slots__ = ("source_uri", "origin", "output_uri")
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    source_uri: str
    origin: _dataset_pb2.ConvertOrigin
    output_uri: str
    def __init__(self, source_uri: _Optional[str] = ..., origin: _Optional[_Union[_dataset_pb2.ConvertOrigin, _Mapping]] = ..., output_uri: _Optional[str] = ...) -> None: ...

class ValidateWork(_message.Message):
    __slots__ = ("source_uri", "level", "output_uri", "thresholds")
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    source_uri: str
    level: _validation_report_pb2.ValidationLevel
    output_uri: str
    thresholds: _validation_report_pb2.ValidationThresholds
    def __init__(self, source_uri: _Optional[str] = ..., level: _Optional[_Union[_validation_report_pb2.ValidationLevel, str]] = ..., output_uri: _Optional[str] = ..., thresholds: _Optional[_Union[_validation_report_pb2.ValidationThresholds, _Mapping]] = ...) -> None: ...

class PreflightWork(_message.Message):
    __slots__ = ("source_uri", "spec", "options", "output_uri")
    SOURCE_URI_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    source_uri: str
    spec: _fine_tune_spec_pb2.FineTuneSpec
    options: _preflight_pb2.PreflightOptions
    output_uri: str
    def __init__(self, source_uri: _Optional[str] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., options: _Optional[_Union[_preflight_pb2.PreflightOptions, _Mapping]] = ..., output_uri: _Optional[str] = ...) -> None: ...

class TrainWork(_message.Message):
    __slots__ = ("spec", "dataset_uri", "run", "output_uri", "resume_from", "best", "earlier", "kill_after_step", "pause_at_step", "micro_batch_size")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DATASET_URI_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    RESUME_FROM_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    EARLIER_FIELD_NUMBER: _ClassVar[int]
    KILL_AFTER_STEP_FIELD_NUMBER: _ClassVar[int]
    PAUSE_AT_STEP_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    spec: _fine_tune_spec_pb2.FineTuneSpec
    dataset_uri: str
    run: str
    output_uri: str
    resume_from: _training_job_pb2.Checkpoint
    best: _training_job_pb2.Checkpoint
    earlier: _containers.RepeatedCompositeFieldContainer[_training_job_pb2.Checkpoint]
    kill_after_step: int
    pause_at_step: int
    micro_batch_size: int
    def __init__(self, spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., dataset_uri: _Optional[str] = ..., run: _Optional[str] = ..., output_uri: _Optional[str] = ..., resume_from: _Optional[_Union[_training_job_pb2.Checkpoint, _Mapping]] = ..., best: _Optional[_Union[_training_job_pb2.Checkpoint, _Mapping]] = ..., earlier: _Optional[_Iterable[_Union[_training_job_pb2.Checkpoint, _Mapping]]] = ..., kill_after_step: _Optional[int] = ..., pause_at_step: _Optional[int] = ..., micro_batch_size: _Optional[int] = ...) -> None: ...

class ExportWork(_message.Message):
    __slots__ = ("spec", "checkpoint", "dataset_uri", "format", "output_uri", "lineage", "allow_drift", "licence_override")
    class LineageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DATASET_URI_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URI_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    ALLOW_DRIFT_FIELD_NUMBER: _ClassVar[int]
    LICENCE_OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    spec: _fine_tune_spec_pb2.FineTuneSpec
    checkpoint: _training_job_pb2.Checkpoint
    dataset_uri: str
    format: _export_pb2.ExportFormat
    output_uri: str
    lineage: _containers.ScalarMap[str, str]
    allow_drift: bool
    licence_override: str
    def __init__(self, spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., checkpoint: _Optional[_Union[_training_job_pb2.Checkpoint, _Mapping]] = ..., dataset_uri: _Optional[str] = ..., format: _Optional[_Union[_export_pb2.ExportFormat, str]] = ..., output_uri: _Optional[str] = ..., lineage: _Optional[_Mapping[str, str]] = ..., allow_drift: _Optional[bool] = ..., licence_override: _Optional[str] = ...) -> None: ...

class AttemptResult(_message.Message):
    __slots__ = ("dataset", "validation", "training", "export", "preflight")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    PREFLIGHT_FIELD_NUMBER: _ClassVar[int]
    dataset: _dataset_pb2.DatasetSummary
    validation: ValidationResult
    training: TrainingResult
    export: ExportResult
    preflight: _preflight_pb2.PreflightResult
    def __init__(self, dataset: _Optional[_Union[_dataset_pb2.DatasetSummary, _Mapping]] = ..., validation: _Optional[_Union[ValidationResult, _Mapping]] = ..., training: _Optional[_Union[TrainingResult, _Mapping]] = ..., export: _Optional[_Union[ExportResult, _Mapping]] = ..., preflight: _Optional[_Union[_preflight_pb2.PreflightResult, _Mapping]] = ...) -> None: ...

class ValidationResult(_message.Message):
    __slots__ = ("verdict", "row_count", "finding_counts", "findings", "measures")
    class FindingCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNTS_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    verdict: _validation_report_pb2.ValidationReport.Verdict
    row_count: int
    finding_counts: _containers.ScalarMap[str, int]
    findings: _containers.RepeatedCompositeFieldContainer[_validation_report_pb2.Finding]
    measures: _validation_report_pb2.ValidationMeasures
    def __init__(self, verdict: _Optional[_Union[_validation_report_pb2.ValidationReport.Verdict, str]] = ..., row_count: _Optional[int] = ..., finding_counts: _Optional[_Mapping[str, int]] = ..., findings: _Optional[_Iterable[_Union[_validation_report_pb2.Finding, _Mapping]]] = ..., measures: _Optional[_Union[_validation_report_pb2.ValidationMeasures, _Mapping]] = ...) -> None: ...

class TrainingResult(_message.Message):
    __slots__ = ("step", "metrics", "row_usage", "peak_memory_bytes", "peak_device_memory_bytes", "step_seconds")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class RowUsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ROW_USAGE_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_DEVICE_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    step: int
    metrics: _containers.ScalarMap[str, float]
    row_usage: _containers.ScalarMap[str, int]
    peak_memory_bytes: int
    peak_device_memory_bytes: int
    step_seconds: float
    def __init__(self, step: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., row_usage: _Optional[_Mapping[str, int]] = ..., peak_memory_bytes: _Optional[int] = ..., peak_device_memory_bytes: _Optional[int] = ..., step_seconds: _Optional[float] = ...) -> None: ...

class PackagedFile(_message.Message):
    __slots__ = ("path", "size_bytes", "sha256", "crc32")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    sha256: str
    crc32: int
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., crc32: _Optional[int] = ...) -> None: ...

class ExportResult(_message.Message):
    __slots__ = ("parity", "size_bytes", "manifest_sha256", "files")
    PARITY_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    parity: _export_pb2.ParityReport
    size_bytes: int
    manifest_sha256: str
    files: _containers.RepeatedCompositeFieldContainer[PackagedFile]
    def __init__(self, parity: _Optional[_Union[_export_pb2.ParityReport, _Mapping]] = ..., size_bytes: _Optional[int] = ..., manifest_sha256: _Optional[str] = ..., files: _Optional[_Iterable[_Union[PackagedFile, _Mapping]]] = ...) -> None: ...
