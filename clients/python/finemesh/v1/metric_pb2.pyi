from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MetricBatch(_message.Message):
    __slots__ = ("run", "attempt", "sequence", "keys", "key_indices", "steps", "values", "times_us", "lengths", "thinned_points", "thinned_counts")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    KEY_INDICES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TIMES_US_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    THINNED_POINTS_FIELD_NUMBER: _ClassVar[int]
    THINNED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    run: str
    attempt: int
    sequence: int
    keys: _containers.RepeatedScalarFieldContainer[str]
    key_indices: _containers.RepeatedScalarFieldContainer[int]
    steps: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    times_us: _containers.RepeatedScalarFieldContainer[int]
    lengths: _containers.RepeatedScalarFieldContainer[int]
    thinned_points: int
    thinned_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, run: _Optional[str] = ..., attempt: _Optional[int] = ..., sequence: _Optional[int] = ..., keys: _Optional[_Iterable[str]] = ..., key_indices: _Optional[_Iterable[int]] = ..., steps: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., times_us: _Optional[_Iterable[int]] = ..., lengths: _Optional[_Iterable[int]] = ..., thinned_points: _Optional[int] = ..., thinned_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class MetricSeries(_message.Message):
    __slots__ = ("run", "key", "steps", "values", "times_us", "attempts", "total_points", "thinned_points", "axis_values", "smoothed_values", "left_out_points")
    RUN_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TIMES_US_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_POINTS_FIELD_NUMBER: _ClassVar[int]
    THINNED_POINTS_FIELD_NUMBER: _ClassVar[int]
    AXIS_VALUES_FIELD_NUMBER: _ClassVar[int]
    SMOOTHED_VALUES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_POINTS_FIELD_NUMBER: _ClassVar[int]
    run: str
    key: str
    steps: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    times_us: _containers.RepeatedScalarFieldContainer[int]
    attempts: _containers.RepeatedScalarFieldContainer[int]
    total_points: int
    thinned_points: int
    axis_values: _containers.RepeatedScalarFieldContainer[float]
    smoothed_values: _containers.RepeatedScalarFieldContainer[float]
    left_out_points: int
    def __init__(self, run: _Optional[str] = ..., key: _Optional[str] = ..., steps: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ..., times_us: _Optional[_Iterable[int]] = ..., attempts: _Optional[_Iterable[int]] = ..., total_points: _Optional[int] = ..., thinned_points: _Optional[int] = ..., axis_values: _Optional[_Iterable[float]] = ..., smoothed_values: _Optional[_Iterable[float]] = ..., left_out_points: _Optional[int] = ...) -> None: ...
