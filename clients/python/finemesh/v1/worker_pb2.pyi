import datetime

from google.api import resource_pb2 as _resource_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Cluster(_message.Message):
    __slots__ = ("name", "live", "last_seen_time", "node_count", "total", "free", "local_pool", "warm_workers", "warm_memory_bytes", "gpus_held_back")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIVE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_TIME_FIELD_NUMBER: _ClassVar[int]
    NODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_POOL_FIELD_NUMBER: _ClassVar[int]
    WARM_WORKERS_FIELD_NUMBER: _ClassVar[int]
    WARM_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPUS_HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    name: str
    live: bool
    last_seen_time: _timestamp_pb2.Timestamp
    node_count: int
    total: NodeResources
    free: NodeResources
    local_pool: LocalPool
    warm_workers: int
    warm_memory_bytes: int
    gpus_held_back: int
    def __init__(self, name: _Optional[str] = ..., live: _Optional[bool] = ..., last_seen_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., node_count: _Optional[int] = ..., total: _Optional[_Union[NodeResources, _Mapping]] = ..., free: _Optional[_Union[NodeResources, _Mapping]] = ..., local_pool: _Optional[_Union[LocalPool, _Mapping]] = ..., warm_workers: _Optional[int] = ..., warm_memory_bytes: _Optional[int] = ..., gpus_held_back: _Optional[int] = ...) -> None: ...

class NodeResources(_message.Message):
    __slots__ = ("cpus", "gpus", "memory_bytes")
    CPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpus: float
    gpus: float
    memory_bytes: int
    def __init__(self, cpus: _Optional[float] = ..., gpus: _Optional[float] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class LocalPool(_message.Message):
    __slots__ = ("wanted_nodes", "nodes", "node", "message")
    WANTED_NODES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    wanted_nodes: int
    nodes: int
    node: NodeResources
    message: str
    def __init__(self, wanted_nodes: _Optional[int] = ..., nodes: _Optional[int] = ..., node: _Optional[_Union[NodeResources, _Mapping]] = ..., message: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "hostname", "state", "total", "free", "gpu_model", "gpu_memory_bytes", "start_time", "drain_time", "leaves_work", "pool_slot", "work")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Node.State]
        STATE_READY: _ClassVar[Node.State]
        STATE_DRAINING: _ClassVar[Node.State]
        STATE_DRAINED: _ClassVar[Node.State]
        STATE_AWAY: _ClassVar[Node.State]
    STATE_UNSPECIFIED: Node.State
    STATE_READY: Node.State
    STATE_DRAINING: Node.State
    STATE_DRAINED: Node.State
    STATE_AWAY: Node.State
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    GPU_MODEL_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    DRAIN_TIME_FIELD_NUMBER: _ClassVar[int]
    LEAVES_WORK_FIELD_NUMBER: _ClassVar[int]
    POOL_SLOT_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    name: str
    hostname: str
    state: Node.State
    total: NodeResources
    free: NodeResources
    gpu_model: str
    gpu_memory_bytes: int
    start_time: _timestamp_pb2.Timestamp
    drain_time: _timestamp_pb2.Timestamp
    leaves_work: bool
    pool_slot: int
    work: _containers.RepeatedCompositeFieldContainer[NodeWork]
    def __init__(self, name: _Optional[str] = ..., hostname: _Optional[str] = ..., state: _Optional[_Union[Node.State, str]] = ..., total: _Optional[_Union[NodeResources, _Mapping]] = ..., free: _Optional[_Union[NodeResources, _Mapping]] = ..., gpu_model: _Optional[str] = ..., gpu_memory_bytes: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., drain_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., leaves_work: _Optional[bool] = ..., pool_slot: _Optional[int] = ..., work: _Optional[_Iterable[_Union[NodeWork, _Mapping]]] = ...) -> None: ...

class NodeWork(_message.Message):
    __slots__ = ("resource", "attempt", "pids", "gpu_ids", "message", "start_time")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    resource: str
    attempt: int
    pids: _containers.RepeatedScalarFieldContainer[int]
    gpu_ids: _containers.RepeatedScalarFieldContainer[str]
    message: str
    start_time: _timestamp_pb2.Timestamp
    def __init__(self, resource: _Optional[str] = ..., attempt: _Optional[int] = ..., pids: _Optional[_Iterable[int]] = ..., gpu_ids: _Optional[_Iterable[str]] = ..., message: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
