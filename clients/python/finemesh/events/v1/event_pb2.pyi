import datetime

from finemesh.events.v1 import alert_events_pb2 as _alert_events_pb2
from finemesh.events.v1 import dataset_events_pb2 as _dataset_events_pb2
from finemesh.events.v1 import export_events_pb2 as _export_events_pb2
from finemesh.events.v1 import gpu_events_pb2 as _gpu_events_pb2
from finemesh.events.v1 import run_events_pb2 as _run_events_pb2
from finemesh.events.v1 import sweep_events_pb2 as _sweep_events_pb2
from finemesh.events.v1 import training_job_events_pb2 as _training_job_events_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Event(_message.Message):
    __slots__ = ("id", "type", "source", "subject", "time", "traceparent", "dataset_imported", "dataset_converted", "dataset_split", "dataset_validated", "dataset_failed", "dataset_cancelled", "dataset_preflighted", "training_job_queued", "training_job_started", "training_job_checkpointed", "training_job_resumed", "training_job_succeeded", "training_job_failed", "training_job_cancelled", "training_job_paused", "training_job_preempted", "run_best_logged", "run_compared", "export_started", "export_verified", "export_succeeded", "export_rejected", "export_failed", "export_cancelled", "sweep_started", "sweep_rung_completed", "sweep_succeeded", "sweep_failed", "sweep_cancelled", "gpu_leased", "gpu_released", "alert_fired", "alert_cleared")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    DATASET_IMPORTED_FIELD_NUMBER: _ClassVar[int]
    DATASET_CONVERTED_FIELD_NUMBER: _ClassVar[int]
    DATASET_SPLIT_FIELD_NUMBER: _ClassVar[int]
    DATASET_VALIDATED_FIELD_NUMBER: _ClassVar[int]
    DATASET_FAILED_FIELD_NUMBER: _ClassVar[int]
    DATASET_CANCELLED_FIELD_NUMBER: _ClassVar[int]
    DATASET_PREFLIGHTED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_QUEUED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_STARTED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_CHECKPOINTED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_RESUMED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_FAILED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_CANCELLED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_PAUSED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_PREEMPTED_FIELD_NUMBER: _ClassVar[int]
    RUN_BEST_LOGGED_FIELD_NUMBER: _ClassVar[int]
    RUN_COMPARED_FIELD_NUMBER: _ClassVar[int]
    EXPORT_STARTED_FIELD_NUMBER: _ClassVar[int]
    EXPORT_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    EXPORT_SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    EXPORT_REJECTED_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FAILED_FIELD_NUMBER: _ClassVar[int]
    EXPORT_CANCELLED_FIELD_NUMBER: _ClassVar[int]
    SWEEP_STARTED_FIELD_NUMBER: _ClassVar[int]
    SWEEP_RUNG_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    SWEEP_SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    SWEEP_FAILED_FIELD_NUMBER: _ClassVar[int]
    SWEEP_CANCELLED_FIELD_NUMBER: _ClassVar[int]
    GPU_LEASED_FIELD_NUMBER: _ClassVar[int]
    GPU_RELEASED_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIRED_FIELD_NUMBER: _ClassVar[int]
    ALERT_CLEARED_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    source: str
    subject: str
    time: _timestamp_pb2.Timestamp
    traceparent: str
    dataset_imported: _dataset_events_pb2.DatasetImported
    dataset_converted: _dataset_events_pb2.DatasetConverted
    dataset_split: _dataset_events_pb2.DatasetSplit
    dataset_validated: _dataset_events_pb2.DatasetValidated
    dataset_failed: _dataset_events_pb2.DatasetFailed
    dataset_cancelled: _dataset_events_pb2.DatasetCancelled
    dataset_preflighted: _dataset_events_pb2.DatasetPreflighted
    training_job_queued: _training_job_events_pb2.TrainingJobQueued
    training_job_started: _training_job_events_pb2.TrainingJobStarted
    training_job_checkpointed: _training_job_events_pb2.TrainingJobCheckpointed
    training_job_resumed: _training_job_events_pb2.TrainingJobResumed
    training_job_succeeded: _training_job_events_pb2.TrainingJobSucceeded
    training_job_failed: _training_job_events_pb2.TrainingJobFailed
    training_job_cancelled: _training_job_events_pb2.TrainingJobCancelled
    training_job_paused: _training_job_events_pb2.TrainingJobPaused
    training_job_preempted: _training_job_events_pb2.TrainingJobPreempted
    run_best_logged: _run_events_pb2.RunBestLogged
    run_compared: _run_events_pb2.RunCompared
    export_started: _export_events_pb2.ExportStarted
    export_verified: _export_events_pb2.ExportVerified
    export_succeeded: _export_events_pb2.ExportSucceeded
    export_rejected: _export_events_pb2.ExportRejected
    export_failed: _export_events_pb2.ExportFailed
    export_cancelled: _export_events_pb2.ExportCancelled
    sweep_started: _sweep_events_pb2.SweepStarted
    sweep_rung_completed: _sweep_events_pb2.SweepRungCompleted
    sweep_succeeded: _sweep_events_pb2.SweepSucceeded
    sweep_failed: _sweep_events_pb2.SweepFailed
    sweep_cancelled: _sweep_events_pb2.SweepCancelled
    gpu_leased: _gpu_events_pb2.GpuLeased
    gpu_released: _gpu_events_pb2.GpuReleased
    alert_fired: _alert_events_pb2.AlertFired
    alert_cleared: _alert_events_pb2.AlertCleared
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., source: _Optional[str] = ..., subject: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., traceparent: _Optional[str] = ..., dataset_imported: _Optional[_Union[_dataset_events_pb2.DatasetImported, _Mapping]] = ..., dataset_converted: _Optional[_Union[_dataset_events_pb2.DatasetConverted, _Mapping]] = ..., dataset_split: _Optional[_Union[_dataset_events_pb2.DatasetSplit, _Mapping]] = ..., dataset_validated: _Optional[_Union[_dataset_events_pb2.DatasetValidated, _Mapping]] = ..., dataset_failed: _Optional[_Union[_dataset_events_pb2.DatasetFailed, _Mapping]] = ..., dataset_cancelled: _Optional[_Union[_dataset_events_pb2.DatasetCancelled, _Mapping]] = ..., dataset_preflighted: _Optional[_Union[_dataset_events_pb2.DatasetPreflighted, _Mapping]] = ..., training_job_queued: _Optional[_Union[_training_job_events_pb2.TrainingJobQueued, _Mapping]] = ..., training_job_started: _Optional[_Union[_training_job_events_pb2.TrainingJobStarted, _Mapping]] = ..., training_job_checkpointed: _Optional[_Union[_training_job_events_pb2.TrainingJobCheckpointed, _Mapping]] = ..., training_job_resumed: _Optional[_Union[_training_job_events_pb2.TrainingJobResumed, _Mapping]] = ..., training_job_succeeded: _Optional[_Union[_training_job_events_pb2.TrainingJobSucceeded, _Mapping]] = ..., training_job_failed: _Optional[_Union[_training_job_events_pb2.TrainingJobFailed, _Mapping]] = ..., training_job_cancelled: _Optional[_Union[_training_job_events_pb2.TrainingJobCancelled, _Mapping]] = ..., training_job_paused: _Optional[_Union[_training_job_events_pb2.TrainingJobPaused, _Mapping]] = ..., training_job_preempted: _Optional[_Union[_training_job_events_pb2.TrainingJobPreempted, _Mapping]] = ..., run_best_logged: _Optional[_Union[_run_events_pb2.RunBestLogged, _Mapping]] = ..., run_compared: _Optional[_Union[_run_events_pb2.RunCompared, _Mapping]] = ..., export_started: _Optional[_Union[_export_events_pb2.ExportStarted, _Mapping]] = ..., export_verified: _Optional[_Union[_export_events_pb2.ExportVerified, _Mapping]] = ..., export_succeeded: _Optional[_Union[_export_events_pb2.ExportSucceeded, _Mapping]] = ..., export_rejected: _Optional[_Union[_export_events_pb2.ExportRejected, _Mapping]] = ..., export_failed: _Optional[_Union[_export_events_pb2.ExportFailed, _Mapping]] = ..., export_cancelled: _Optional[_Union[_export_events_pb2.ExportCancelled, _Mapping]] = ..., sweep_started: _Optional[_Union[_sweep_events_pb2.SweepStarted, _Mapping]] = ..., sweep_rung_completed: _Optional[_Union[_sweep_events_pb2.SweepRungCompleted, _Mapping]] = ..., sweep_succeeded: _Optional[_Union[_sweep_events_pb2.SweepSucceeded, _Mapping]] = ..., sweep_failed: _Optional[_Union[_sweep_events_pb2.SweepFailed, _Mapping]] = ..., sweep_cancelled: _Optional[_Union[_sweep_events_pb2.SweepCancelled, _Mapping]] = ..., gpu_leased: _Optional[_Union[_gpu_events_pb2.GpuLeased, _Mapping]] = ..., gpu_released: _Optional[_Union[_gpu_events_pb2.GpuReleased, _Mapping]] = ..., alert_fired: _Optional[_Union[_alert_events_pb2.AlertFired, _Mapping]] = ..., alert_cleared: _Optional[_Union[_alert_events_pb2.AlertCleared, _Mapping]] = ...) -> None: ...
