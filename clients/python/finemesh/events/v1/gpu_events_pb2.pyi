from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GpuLeased(_message.Message):
    __slots__ = ("training_job", "attempt", "cluster", "node_id", "gpus")
    TRAINING_JOB_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    training_job: str
    attempt: int
    cluster: str
    node_id: str
    gpus: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, training_job: _Optional[str] = ..., attempt: _Optional[int] = ..., cluster: _Optional[str] = ..., node_id: _Optional[str] = ..., gpus: _Optional[_Iterable[str]] = ...) -> None: ...

class GpuReleased(_message.Message):
    __slots__ = ("training_job", "attempt", "cluster", "node_id", "gpus", "evidence")
    TRAINING_JOB_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    training_job: str
    attempt: int
    cluster: str
    node_id: str
    gpus: _containers.RepeatedScalarFieldContainer[str]
    evidence: str
    def __init__(self, training_job: _Optional[str] = ..., attempt: _Optional[int] = ..., cluster: _Optional[str] = ..., node_id: _Optional[str] = ..., gpus: _Optional[_Iterable[str]] = ..., evidence: _Optional[str] = ...) -> None: ...
