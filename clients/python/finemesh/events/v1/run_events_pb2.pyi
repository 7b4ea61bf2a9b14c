from finemesh.v1 import run_pb2 as _run_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunBestLogged(_message.Message):
    __slots__ = ("run", "metric")
    RUN_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    run: str
    metric: _run_pb2.MetricSummary
    def __init__(self, run: _Optional[str] = ..., metric: _Optional[_Union[_run_pb2.MetricSummary, _Mapping]] = ...) -> None: ...

class RunCompared(_message.Message):
    __slots__ = ("runs", "metric", "better_run", "verdict")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    BETTER_RUN_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedScalarFieldContainer[str]
    metric: str
    better_run: str
    verdict: str
    def __init__(self, runs: _Optional[_Iterable[str]] = ..., metric: _Optional[str] = ..., better_run: _Optional[str] = ..., verdict: _Optional[str] = ...) -> None: ...
