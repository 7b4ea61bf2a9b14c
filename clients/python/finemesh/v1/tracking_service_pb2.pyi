import datetime

from finemesh.v1 import comparison_pb2 as _comparison_pb2
from finemesh.v1 import metric_pb2 as _metric_pb2
from finemesh.v1 import run_pb2 as _run_pb2
from finemesh.v1 import run_artifact_pb2 as _run_artifact_pb2
from finemesh.v1 import run_sql_pb2 as _run_sql_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.api import client_pb2 as _client_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateRunRequest(_message.Message):
    __slots__ = ("parent", "run", "run_id", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    run: _run_pb2.Run
    run_id: str
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ..., run_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
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

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[_run_pb2.Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[_run_pb2.Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class FinishRunRequest(_message.Message):
    __slots__ = ("name", "state", "end_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: _run_pb2.Run.State
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[_run_pb2.Run.State, str]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class UpdateRunRequest(_message.Message):
    __slots__ = ("run", "update_mask")
    RUN_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    run: _run_pb2.Run
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, run: _Optional[_Union[_run_pb2.Run, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UploadRunArtifactRequest(_message.Message):
    __slots__ = ("run", "artifact", "chunk")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    run: str
    artifact: _run_artifact_pb2.RunArtifact
    chunk: _httpbody_pb2.HttpBody
    def __init__(self, run: _Optional[str] = ..., artifact: _Optional[_Union[_run_artifact_pb2.RunArtifact, _Mapping]] = ..., chunk: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class ListRunArtifactsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunArtifactsResponse(_message.Message):
    __slots__ = ("artifacts", "next_page_token")
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[_run_artifact_pb2.RunArtifact]
    next_page_token: str
    def __init__(self, artifacts: _Optional[_Iterable[_Union[_run_artifact_pb2.RunArtifact, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DownloadRunMetricsRequest(_message.Message):
    __slots__ = ("name", "format", "keys", "all_attempts")
    class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FORMAT_UNSPECIFIED: _ClassVar[DownloadRunMetricsRequest.Format]
        FORMAT_CSV: _ClassVar[DownloadRunMetricsRequest.Format]
        FORMAT_ARROW: _ClassVar[DownloadRunMetricsRequest.Format]
        FORMAT_PARQUET: _ClassVar[DownloadRunMetricsRequest.Format]
        FORMAT_TENSORBOARD: _ClassVar[DownloadRunMetricsRequest.Format]
    FORMAT_UNSPECIFIED: DownloadRunMetricsRequest.Format
    FORMAT_CSV: DownloadRunMetricsRequest.Format
    FORMAT_ARROW: DownloadRunMetricsRequest.Format
    FORMAT_PARQUET: DownloadRunMetricsRequest.Format
    FORMAT_TENSORBOARD: DownloadRunMetricsRequest.Format
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ALL_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    format: DownloadRunMetricsRequest.Format
    keys: _containers.RepeatedScalarFieldContainer[str]
    all_attempts: bool
    def __init__(self, name: _Optional[str] = ..., format: _Optional[_Union[DownloadRunMetricsRequest.Format, str]] = ..., keys: _Optional[_Iterable[str]] = ..., all_attempts: _Optional[bool] = ...) -> None: ...

class DeleteRunRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class LogMetricsRequest(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: _metric_pb2.MetricBatch
    def __init__(self, batch: _Optional[_Union[_metric_pb2.MetricBatch, _Mapping]] = ...) -> None: ...

class LogMetricsResponse(_message.Message):
    __slots__ = ("run", "attempt", "durable_sequence")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    run: str
    attempt: int
    durable_sequence: int
    def __init__(self, run: _Optional[str] = ..., attempt: _Optional[int] = ..., durable_sequence: _Optional[int] = ...) -> None: ...

class LogMetricBatchRequest(_message.Message):
    __slots__ = ("batch",)
    BATCH_FIELD_NUMBER: _ClassVar[int]
    batch: _metric_pb2.MetricBatch
    def __init__(self, batch: _Optional[_Union[_metric_pb2.MetricBatch, _Mapping]] = ...) -> None: ...

class LogMetricBatchResponse(_message.Message):
    __slots__ = ("durable_sequence",)
    DURABLE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    durable_sequence: int
    def __init__(self, durable_sequence: _Optional[int] = ...) -> None: ...

class QueryMetricsRequest(_message.Message):
    __slots__ = ("parent", "runs", "keys", "max_points", "min_step", "max_step", "axis", "axis_metric", "half_life", "aligned_points")
    class Axis(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AXIS_UNSPECIFIED: _ClassVar[QueryMetricsRequest.Axis]
        AXIS_STEP: _ClassVar[QueryMetricsRequest.Axis]
        AXIS_TIME: _ClassVar[QueryMetricsRequest.Axis]
        AXIS_METRIC: _ClassVar[QueryMetricsRequest.Axis]
    AXIS_UNSPECIFIED: QueryMetricsRequest.Axis
    AXIS_STEP: QueryMetricsRequest.Axis
    AXIS_TIME: QueryMetricsRequest.Axis
    AXIS_METRIC: QueryMetricsRequest.Axis
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    MAX_POINTS_FIELD_NUMBER: _ClassVar[int]
    MIN_STEP_FIELD_NUMBER: _ClassVar[int]
    MAX_STEP_FIELD_NUMBER: _ClassVar[int]
    AXIS_FIELD_NUMBER: _ClassVar[int]
    AXIS_METRIC_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_FIELD_NUMBER: _ClassVar[int]
    ALIGNED_POINTS_FIELD_NUMBER: _ClassVar[int]
    parent: str
    runs: _containers.RepeatedScalarFieldContainer[str]
    keys: _containers.RepeatedScalarFieldContainer[str]
    max_points: int
    min_step: int
    max_step: int
    axis: QueryMetricsRequest.Axis
    axis_metric: str
    half_life: float
    aligned_points: int
    def __init__(self, parent: _Optional[str] = ..., runs: _Optional[_Iterable[str]] = ..., keys: _Optional[_Iterable[str]] = ..., max_points: _Optional[int] = ..., min_step: _Optional[int] = ..., max_step: _Optional[int] = ..., axis: _Optional[_Union[QueryMetricsRequest.Axis, str]] = ..., axis_metric: _Optional[str] = ..., half_life: _Optional[float] = ..., aligned_points: _Optional[int] = ...) -> None: ...

class QueryMetricsResponse(_message.Message):
    __slots__ = ("series",)
    SERIES_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[_metric_pb2.MetricSeries]
    def __init__(self, series: _Optional[_Iterable[_Union[_metric_pb2.MetricSeries, _Mapping]]] = ...) -> None: ...

class WatchMetricsRequest(_message.Message):
    __slots__ = ("run", "keys")
    RUN_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    run: str
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[str] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchMetricsResponse(_message.Message):
    __slots__ = ("series",)
    SERIES_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[_metric_pb2.MetricSeries]
    def __init__(self, series: _Optional[_Iterable[_Union[_metric_pb2.MetricSeries, _Mapping]]] = ...) -> None: ...

class CompareRunsRequest(_message.Message):
    __slots__ = ("parent", "runs", "metric", "goal", "baseline", "price_per_device_hour")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    GOAL_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    PRICE_PER_DEVICE_HOUR_FIELD_NUMBER: _ClassVar[int]
    parent: str
    runs: _containers.RepeatedScalarFieldContainer[str]
    metric: str
    goal: _run_pb2.Goal
    baseline: str
    price_per_device_hour: float
    def __init__(self, parent: _Optional[str] = ..., runs: _Optional[_Iterable[str]] = ..., metric: _Optional[str] = ..., goal: _Optional[_Union[_run_pb2.Goal, str]] = ..., baseline: _Optional[str] = ..., price_per_device_hour: _Optional[float] = ...) -> None: ...

class ConfigDifference(_message.Message):
    __slots__ = ("field", "values")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    field: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, field: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class MetricComparison(_message.Message):
    __slots__ = ("key", "goal", "summaries", "better_run", "last_differences", "best_differences")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GOAL_FIELD_NUMBER: _ClassVar[int]
    SUMMARIES_FIELD_NUMBER: _ClassVar[int]
    BETTER_RUN_FIELD_NUMBER: _ClassVar[int]
    LAST_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    BEST_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    key: str
    goal: _run_pb2.Goal
    summaries: _containers.RepeatedCompositeFieldContainer[_run_pb2.MetricSummary]
    better_run: str
    last_differences: _containers.RepeatedScalarFieldContainer[float]
    best_differences: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, key: _Optional[str] = ..., goal: _Optional[_Union[_run_pb2.Goal, str]] = ..., summaries: _Optional[_Iterable[_Union[_run_pb2.MetricSummary, _Mapping]]] = ..., better_run: _Optional[str] = ..., last_differences: _Optional[_Iterable[float]] = ..., best_differences: _Optional[_Iterable[float]] = ...) -> None: ...

class CompareRunsResponse(_message.Message):
    __slots__ = ("config_differences", "metrics", "metric", "better_run", "conclusive", "verdict", "data_differences", "code_differences", "environment_differences", "items", "items_problem", "costs", "recommendations")
    CONFIG_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    BETTER_RUN_FIELD_NUMBER: _ClassVar[int]
    CONCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DATA_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    CODE_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATIONS_FIELD_NUMBER: _ClassVar[int]
    config_differences: _containers.RepeatedCompositeFieldContainer[ConfigDifference]
    metrics: _containers.RepeatedCompositeFieldContainer[MetricComparison]
    metric: str
    better_run: str
    conclusive: bool
    verdict: str
    data_differences: _containers.RepeatedCompositeFieldContainer[ConfigDifference]
    code_differences: _containers.RepeatedCompositeFieldContainer[ConfigDifference]
    environment_differences: _containers.RepeatedCompositeFieldContainer[ConfigDifference]
    items: _comparison_pb2.ItemComparison
    items_problem: str
    costs: _containers.RepeatedCompositeFieldContainer[_comparison_pb2.RunCost]
    recommendations: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, config_differences: _Optional[_Iterable[_Union[ConfigDifference, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[MetricComparison, _Mapping]]] = ..., metric: _Optional[str] = ..., better_run: _Optional[str] = ..., conclusive: _Optional[bool] = ..., verdict: _Optional[str] = ..., data_differences: _Optional[_Iterable[_Union[ConfigDifference, _Mapping]]] = ..., code_differences: _Optional[_Iterable[_Union[ConfigDifference, _Mapping]]] = ..., environment_differences: _Optional[_Iterable[_Union[ConfigDifference, _Mapping]]] = ..., items: _Optional[_Union[_comparison_pb2.ItemComparison, _Mapping]] = ..., items_problem: _Optional[str] = ..., costs: _Optional[_Iterable[_Union[_comparison_pb2.RunCost, _Mapping]]] = ..., recommendations: _Optional[_Iterable[str]] = ...) -> None: ...
