from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunGroup(_message.Message):
    __slots__ = ("runs", "mean", "run_means")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    RUN_MEANS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedScalarFieldContainer[str]
    mean: float
    run_means: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, runs: _Optional[_Iterable[str]] = ..., mean: _Optional[float] = ..., run_means: _Optional[_Iterable[float]] = ...) -> None: ...

class GroupDifference(_message.Message):
    __slots__ = ("first", "second", "estimate", "low", "high", "p_value", "adjusted_p_value", "item_error", "seed_error", "conclusive", "items_needed", "detectable_difference")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    ITEM_ERROR_FIELD_NUMBER: _ClassVar[int]
    SEED_ERROR_FIELD_NUMBER: _ClassVar[int]
    CONCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    DETECTABLE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    first: int
    second: int
    estimate: float
    low: float
    high: float
    p_value: float
    adjusted_p_value: float
    item_error: float
    seed_error: float
    conclusive: bool
    items_needed: int
    detectable_difference: float
    def __init__(self, first: _Optional[int] = ..., second: _Optional[int] = ..., estimate: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., p_value: _Optional[float] = ..., adjusted_p_value: _Optional[float] = ..., item_error: _Optional[float] = ..., seed_error: _Optional[float] = ..., conclusive: _Optional[bool] = ..., items_needed: _Optional[int] = ..., detectable_difference: _Optional[float] = ...) -> None: ...

class ItemComparison(_message.Message):
    __slots__ = ("metric", "evaluations", "item_count", "left_out_count", "cluster_count", "resamples", "groups", "differences")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESAMPLES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    metric: str
    evaluations: _containers.RepeatedScalarFieldContainer[str]
    item_count: int
    left_out_count: int
    cluster_count: int
    resamples: int
    groups: _containers.RepeatedCompositeFieldContainer[RunGroup]
    differences: _containers.RepeatedCompositeFieldContainer[GroupDifference]
    def __init__(self, metric: _Optional[str] = ..., evaluations: _Optional[_Iterable[str]] = ..., item_count: _Optional[int] = ..., left_out_count: _Optional[int] = ..., cluster_count: _Optional[int] = ..., resamples: _Optional[int] = ..., groups: _Optional[_Iterable[_Union[RunGroup, _Mapping]]] = ..., differences: _Optional[_Iterable[_Union[GroupDifference, _Mapping]]] = ...) -> None: ...

class RunCost(_message.Message):
    __slots__ = ("run", "seconds", "device_seconds", "cost", "gain", "device_seconds_per_point", "cost_per_point")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_PER_POINT_FIELD_NUMBER: _ClassVar[int]
    COST_PER_POINT_FIELD_NUMBER: _ClassVar[int]
    run: str
    seconds: float
    device_seconds: float
    cost: float
    gain: float
    device_seconds_per_point: float
    cost_per_point: float
    def __init__(self, run: _Optional[str] = ..., seconds: _Optional[float] = ..., device_seconds: _Optional[float] = ..., cost: _Optional[float] = ..., gain: _Optional[float] = ..., device_seconds_per_point: _Optional[float] = ..., cost_per_point: _Optional[float] = ...) -> None: ...
