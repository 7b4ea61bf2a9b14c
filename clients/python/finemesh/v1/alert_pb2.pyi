import datetime

from finemesh.v1 import run_pb2 as _run_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AlertRule(_message.Message):
    __slots__ = ("name", "display_name", "run", "metric", "create_time", "threshold", "stall", "divergence", "non_finite", "no_heartbeat")
    class Threshold(_message.Message):
        __slots__ = ("above", "below")
        ABOVE_FIELD_NUMBER: _ClassVar[int]
        BELOW_FIELD_NUMBER: _ClassVar[int]
        above: float
        below: float
        def __init__(self, above: _Optional[float] = ..., below: _Optional[float] = ...) -> None: ...
    class Stall(_message.Message):
        __slots__ = ("steps", "min_improvement", "goal")
        STEPS_FIELD_NUMBER: _ClassVar[int]
        MIN_IMPROVEMENT_FIELD_NUMBER: _ClassVar[int]
        GOAL_FIELD_NUMBER: _ClassVar[int]
        steps: int
        min_improvement: float
        goal: _run_pb2.Goal
        def __init__(self, steps: _Optional[int] = ..., min_improvement: _Optional[float] = ..., goal: _Optional[_Union[_run_pb2.Goal, str]] = ...) -> None: ...
    class Divergence(_message.Message):
        __slots__ = ("margin", "points", "goal")
        MARGIN_FIELD_NUMBER: _ClassVar[int]
        POINTS_FIELD_NUMBER: _ClassVar[int]
        GOAL_FIELD_NUMBER: _ClassVar[int]
        margin: float
        points: int
        goal: _run_pb2.Goal
        def __init__(self, margin: _Optional[float] = ..., points: _Optional[int] = ..., goal: _Optional[_Union[_run_pb2.Goal, str]] = ...) -> None: ...
    class NonFinite(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class NoHeartbeat(_message.Message):
        __slots__ = ("seconds",)
        SECONDS_FIELD_NUMBER: _ClassVar[int]
        seconds: float
        def __init__(self, seconds: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    STALL_FIELD_NUMBER: _ClassVar[int]
    DIVERGENCE_FIELD_NUMBER: _ClassVar[int]
    NON_FINITE_FIELD_NUMBER: _ClassVar[int]
    NO_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    run: str
    metric: str
    create_time: _timestamp_pb2.Timestamp
    threshold: AlertRule.Threshold
    stall: AlertRule.Stall
    divergence: AlertRule.Divergence
    non_finite: AlertRule.NonFinite
    no_heartbeat: AlertRule.NoHeartbeat
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., run: _Optional[str] = ..., metric: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., threshold: _Optional[_Union[AlertRule.Threshold, _Mapping]] = ..., stall: _Optional[_Union[AlertRule.Stall, _Mapping]] = ..., divergence: _Optional[_Union[AlertRule.Divergence, _Mapping]] = ..., non_finite: _Optional[_Union[AlertRule.NonFinite, _Mapping]] = ..., no_heartbeat: _Optional[_Union[AlertRule.NoHeartbeat, _Mapping]] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("name", "rule", "run", "metric", "step", "value", "message", "fire_time", "clear_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CLEAR_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    rule: str
    run: str
    metric: str
    step: int
    value: float
    message: str
    fire_time: _timestamp_pb2.Timestamp
    clear_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., rule: _Optional[str] = ..., run: _Optional[str] = ..., metric: _Optional[str] = ..., step: _Optional[int] = ..., value: _Optional[float] = ..., message: _Optional[str] = ..., fire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., clear_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
