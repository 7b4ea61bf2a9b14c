import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.api import resource_pb2 as _resource_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Quota(_message.Message):
    __slots__ = ("name", "weight", "max_gpus", "max_jobs", "max_gpu_hours", "window_hours", "gpus_held", "jobs_at_work", "gpu_hours_used", "update_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_GPUS_FIELD_NUMBER: _ClassVar[int]
    MAX_JOBS_FIELD_NUMBER: _ClassVar[int]
    MAX_GPU_HOURS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_HOURS_FIELD_NUMBER: _ClassVar[int]
    GPUS_HELD_FIELD_NUMBER: _ClassVar[int]
    JOBS_AT_WORK_FIELD_NUMBER: _ClassVar[int]
    GPU_HOURS_USED_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    weight: float
    max_gpus: float
    max_jobs: int
    max_gpu_hours: float
    window_hours: float
    gpus_held: float
    jobs_at_work: int
    gpu_hours_used: float
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., weight: _Optional[float] = ..., max_gpus: _Optional[float] = ..., max_jobs: _Optional[int] = ..., max_gpu_hours: _Optional[float] = ..., window_hours: _Optional[float] = ..., gpus_held: _Optional[float] = ..., jobs_at_work: _Optional[int] = ..., gpu_hours_used: _Optional[float] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
