from finemesh.v1 import fine_tune_spec_pb2 as _fine_tune_spec_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EstimateInterval(_message.Message):
    __slots__ = ("low", "likely", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    LIKELY_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    likely: float
    high: float
    def __init__(self, low: _Optional[float] = ..., likely: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class BaseModelFiles(_message.Message):
    __slots__ = ("config_json", "processor_json", "weight_headers", "weight_bytes")
    CONFIG_JSON_FIELD_NUMBER: _ClassVar[int]
    PROCESSOR_JSON_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_HEADERS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    config_json: str
    processor_json: str
    weight_headers: _containers.RepeatedScalarFieldContainer[str]
    weight_bytes: int
    def __init__(self, config_json: _Optional[str] = ..., processor_json: _Optional[str] = ..., weight_headers: _Optional[_Iterable[str]] = ..., weight_bytes: _Optional[int] = ...) -> None: ...

class MeasuredProbe(_message.Message):
    __slots__ = ("peak_memory_bytes", "step_seconds")
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    peak_memory_bytes: int
    step_seconds: float
    def __init__(self, peak_memory_bytes: _Optional[int] = ..., step_seconds: _Optional[float] = ...) -> None: ...

class TrainingEstimate(_message.Message):
    __slots__ = ("peak_memory_bytes", "memory_parts", "step_seconds", "steps", "seconds", "gpu_hours", "cost", "currency", "room_bytes", "fit", "nearest", "past_memory_error", "past_time_error", "corrected_by_jobs", "family")
    class Fit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FIT_UNSPECIFIED: _ClassVar[TrainingEstimate.Fit]
        FIT_UNKNOWN: _ClassVar[TrainingEstimate.Fit]
        FIT_FITS: _ClassVar[TrainingEstimate.Fit]
        FIT_UNSURE: _ClassVar[TrainingEstimate.Fit]
        FIT_TOO_LARGE: _ClassVar[TrainingEstimate.Fit]
    FIT_UNSPECIFIED: TrainingEstimate.Fit
    FIT_UNKNOWN: TrainingEstimate.Fit
    FIT_FITS: TrainingEstimate.Fit
    FIT_UNSURE: TrainingEstimate.Fit
    FIT_TOO_LARGE: TrainingEstimate.Fit
    class MemoryPartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: EstimateInterval
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[EstimateInterval, _Mapping]] = ...) -> None: ...
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PARTS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    GPU_HOURS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    ROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    FIT_FIELD_NUMBER: _ClassVar[int]
    NEAREST_FIELD_NUMBER: _ClassVar[int]
    PAST_MEMORY_ERROR_FIELD_NUMBER: _ClassVar[int]
    PAST_TIME_ERROR_FIELD_NUMBER: _ClassVar[int]
    CORRECTED_BY_JOBS_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    peak_memory_bytes: EstimateInterval
    memory_parts: _containers.MessageMap[str, EstimateInterval]
    step_seconds: EstimateInterval
    steps: int
    seconds: EstimateInterval
    gpu_hours: EstimateInterval
    cost: EstimateInterval
    currency: str
    room_bytes: int
    fit: TrainingEstimate.Fit
    nearest: NearestSettings
    past_memory_error: PastError
    past_time_error: PastError
    corrected_by_jobs: int
    family: str
    def __init__(self, peak_memory_bytes: _Optional[_Union[EstimateInterval, _Mapping]] = ..., memory_parts: _Optional[_Mapping[str, EstimateInterval]] = ..., step_seconds: _Optional[_Union[EstimateInterval, _Mapping]] = ..., steps: _Optional[int] = ..., seconds: _Optional[_Union[EstimateInterval, _Mapping]] = ..., gpu_hours: _Optional[_Union[EstimateInterval, _Mapping]] = ..., cost: _Optional[_Union[EstimateInterval, _Mapping]] = ..., currency: _Optional[str] = ..., room_bytes: _Optional[int] = ..., fit: _Optional[_Union[TrainingEstimate.Fit, str]] = ..., nearest: _Optional[_Union[NearestSettings, _Mapping]] = ..., past_memory_error: _Optional[_Union[PastError, _Mapping]] = ..., past_time_error: _Optional[_Union[PastError, _Mapping]] = ..., corrected_by_jobs: _Optional[int] = ..., family: _Optional[str] = ...) -> None: ...

class NearestSettings(_message.Message):
    __slots__ = ("changes", "spec", "peak_memory_bytes")
    class ChangesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.ScalarMap[str, str]
    spec: _fine_tune_spec_pb2.FineTuneSpec
    peak_memory_bytes: EstimateInterval
    def __init__(self, changes: _Optional[_Mapping[str, str]] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., peak_memory_bytes: _Optional[_Union[EstimateInterval, _Mapping]] = ...) -> None: ...

class PastError(_message.Message):
    __slots__ = ("jobs", "median_error", "inside")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_ERROR_FIELD_NUMBER: _ClassVar[int]
    INSIDE_FIELD_NUMBER: _ClassVar[int]
    jobs: int
    median_error: float
    inside: int
    def __init__(self, jobs: _Optional[int] = ..., median_error: _Optional[float] = ..., inside: _Optional[int] = ...) -> None: ...
