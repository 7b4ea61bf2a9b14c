import datetime

from finemesh.v1 import fine_tune_spec_pb2 as _fine_tune_spec_pb2
from finemesh.v1 import progress_pb2 as _progress_pb2
from finemesh.v1 import run_pb2 as _run_pb2
from finemesh.v1 import training_job_pb2 as _training_job_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SweepParameter(_message.Message):
    __slots__ = ("field", "choices", "uniform", "log_uniform", "integers")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    UNIFORM_FIELD_NUMBER: _ClassVar[int]
    LOG_UNIFORM_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    field: str
    choices: _struct_pb2.ListValue
    uniform: NumberRange
    log_uniform: NumberRange
    integers: IntegerRange
    def __init__(self, field: _Optional[str] = ..., choices: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., uniform: _Optional[_Union[NumberRange, _Mapping]] = ..., log_uniform: _Optional[_Union[NumberRange, _Mapping]] = ..., integers: _Optional[_Union[IntegerRange, _Mapping]] = ...) -> None: ...

class NumberRange(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class IntegerRange(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: int
    high: int
    def __init__(self, low: _Optional[int] = ..., high: _Optional[int] = ...) -> None: ...

class SweepObjective(_message.Message):
    __slots__ = ("metric", "goal")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    GOAL_FIELD_NUMBER: _ClassVar[int]
    metric: str
    goal: _run_pb2.Goal
    def __init__(self, metric: _Optional[str] = ..., goal: _Optional[_Union[_run_pb2.Goal, str]] = ...) -> None: ...

class GridSearch(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RandomSearch(_message.Message):
    __slots__ = ("trials", "seed")
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    trials: int
    seed: int
    def __init__(self, trials: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class SuccessiveHalving(_message.Message):
    __slots__ = ("trials", "seed", "reduction", "min_steps")
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    MIN_STEPS_FIELD_NUMBER: _ClassVar[int]
    trials: int
    seed: int
    reduction: int
    min_steps: int
    def __init__(self, trials: _Optional[int] = ..., seed: _Optional[int] = ..., reduction: _Optional[int] = ..., min_steps: _Optional[int] = ...) -> None: ...

class SweepRung(_message.Message):
    __slots__ = ("steps", "trials", "arrived")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_FIELD_NUMBER: _ClassVar[int]
    steps: int
    trials: int
    arrived: int
    def __init__(self, steps: _Optional[int] = ..., trials: _Optional[int] = ..., arrived: _Optional[int] = ...) -> None: ...

class SweepTrial(_message.Message):
    __slots__ = ("number", "training_job", "values", "state", "rung", "measured", "objective", "job_state", "step", "total_steps", "held_seconds", "message", "best")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[SweepTrial.State]
        STATE_WAITING: _ClassVar[SweepTrial.State]
        STATE_RUNNING: _ClassVar[SweepTrial.State]
        STATE_MEASURED: _ClassVar[SweepTrial.State]
        STATE_SUCCEEDED: _ClassVar[SweepTrial.State]
        STATE_ELIMINATED: _ClassVar[SweepTrial.State]
        STATE_FAILED: _ClassVar[SweepTrial.State]
        STATE_CANCELLED: _ClassVar[SweepTrial.State]
    STATE_UNSPECIFIED: SweepTrial.State
    STATE_WAITING: SweepTrial.State
    STATE_RUNNING: SweepTrial.State
    STATE_MEASURED: SweepTrial.State
    STATE_SUCCEEDED: SweepTrial.State
    STATE_ELIMINATED: SweepTrial.State
    STATE_FAILED: SweepTrial.State
    STATE_CANCELLED: SweepTrial.State
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TRAINING_JOB_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    JOB_STATE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    HELD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BEST_FIELD_NUMBER: _ClassVar[int]
    number: int
    training_job: str
    values: _struct_pb2.Struct
    state: SweepTrial.State
    rung: int
    measured: _containers.RepeatedScalarFieldContainer[float]
    objective: float
    job_state: _training_job_pb2.TrainingJob.State
    step: int
    total_steps: int
    held_seconds: float
    message: str
    best: bool
    def __init__(self, number: _Optional[int] = ..., training_job: _Optional[str] = ..., values: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., state: _Optional[_Union[SweepTrial.State, str]] = ..., rung: _Optional[int] = ..., measured: _Optional[_Iterable[float]] = ..., objective: _Optional[float] = ..., job_state: _Optional[_Union[_training_job_pb2.TrainingJob.State, str]] = ..., step: _Optional[int] = ..., total_steps: _Optional[int] = ..., held_seconds: _Optional[float] = ..., message: _Optional[str] = ..., best: _Optional[bool] = ...) -> None: ...

class Sweep(_message.Message):
    __slots__ = ("name", "display_name", "labels", "spec", "parameters", "objective", "grid", "random", "successive_halving", "max_parallel", "priority", "max_restarts", "state", "progress", "rungs", "trials", "best_training_job", "error", "create_time", "end_time", "update_time")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Sweep.State]
        STATE_RUNNING: _ClassVar[Sweep.State]
        STATE_SUCCEEDED: _ClassVar[Sweep.State]
        STATE_FAILED: _ClassVar[Sweep.State]
        STATE_CANCELLING: _ClassVar[Sweep.State]
        STATE_CANCELLED: _ClassVar[Sweep.State]
    STATE_UNSPECIFIED: Sweep.State
    STATE_RUNNING: Sweep.State
    STATE_SUCCEEDED: Sweep.State
    STATE_FAILED: Sweep.State
    STATE_CANCELLING: Sweep.State
    STATE_CANCELLED: Sweep.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    RANDOM_FIELD_NUMBER: _ClassVar[int]
    SUCCESSIVE_HALVING_FIELD_NUMBER: _ClassVar[int]
    MAX_PARALLEL_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MAX_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RUNGS_FIELD_NUMBER: _ClassVar[int]
    TRIALS_FIELD_NUMBER: _ClassVar[int]
    BEST_TRAINING_JOB_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    spec: _fine_tune_spec_pb2.FineTuneSpec
    parameters: _containers.RepeatedCompositeFieldContainer[SweepParameter]
    objective: SweepObjective
    grid: GridSearch
    random: RandomSearch
    successive_halving: SuccessiveHalving
    max_parallel: int
    priority: int
    max_restarts: int
    state: Sweep.State
    progress: _progress_pb2.Progress
    rungs: _containers.RepeatedCompositeFieldContainer[SweepRung]
    trials: _containers.RepeatedCompositeFieldContainer[SweepTrial]
    best_training_job: str
    error: _status_pb2.Status
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., spec: _Optional[_Union[_fine_tune_spec_pb2.FineTuneSpec, _Mapping]] = ..., parameters: _Optional[_Iterable[_Union[SweepParameter, _Mapping]]] = ..., objective: _Optional[_Union[SweepObjective, _Mapping]] = ..., grid: _Optional[_Union[GridSearch, _Mapping]] = ..., random: _Optional[_Union[RandomSearch, _Mapping]] = ..., successive_halving: _Optional[_Union[SuccessiveHalving, _Mapping]] = ..., max_parallel: _Optional[int] = ..., priority: _Optional[int] = ..., max_restarts: _Optional[int] = ..., state: _Optional[_Union[Sweep.State, str]] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., rungs: _Optional[_Iterable[_Union[SweepRung, _Mapping]]] = ..., trials: _Optional[_Iterable[_Union[SweepTrial, _Mapping]]] = ..., best_training_job: _Optional[str] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
