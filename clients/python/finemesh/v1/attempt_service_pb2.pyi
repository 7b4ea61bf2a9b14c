import datetime

from finemesh.v1 import attempt_pb2 as _attempt_pb2
from finemesh.v1 import progress_pb2 as _progress_pb2
from finemesh.v1 import training_job_pb2 as _training_job_pb2
from finemesh.v1 import worker_pb2 as _worker_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttemptRef(_message.Message):
    __slots__ = ("resource", "attempt", "fence")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    attempt: int
    fence: int
    def __init__(self, resource: _Optional[str] = ..., attempt: _Optional[int] = ..., fence: _Optional[int] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("attempt", "phase", "progress", "worker", "step", "total_steps", "resume_certificate", "peak_memory_bytes", "following")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PHASE_UNSPECIFIED: _ClassVar[RenewLeaseRequest.Phase]
        PHASE_STARTING: _ClassVar[RenewLeaseRequest.Phase]
        PHASE_RUNNING: _ClassVar[RenewLeaseRequest.Phase]
        PHASE_VERIFYING: _ClassVar[RenewLeaseRequest.Phase]
    PHASE_UNSPECIFIED: RenewLeaseRequest.Phase
    PHASE_STARTING: RenewLeaseRequest.Phase
    PHASE_RUNNING: RenewLeaseRequest.Phase
    PHASE_VERIFYING: RenewLeaseRequest.Phase
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    RESUME_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    phase: RenewLeaseRequest.Phase
    progress: _progress_pb2.Progress
    worker: _training_job_pb2.WorkerStatus
    step: int
    total_steps: int
    resume_certificate: _training_job_pb2.ResumeCertificate
    peak_memory_bytes: int
    following: RenewLeaseResponse.Directive
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., phase: _Optional[_Union[RenewLeaseRequest.Phase, str]] = ..., progress: _Optional[_Union[_progress_pb2.Progress, _Mapping]] = ..., worker: _Optional[_Union[_training_job_pb2.WorkerStatus, _Mapping]] = ..., step: _Optional[int] = ..., total_steps: _Optional[int] = ..., resume_certificate: _Optional[_Union[_training_job_pb2.ResumeCertificate, _Mapping]] = ..., peak_memory_bytes: _Optional[int] = ..., following: _Optional[_Union[RenewLeaseResponse.Directive, str]] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("token", "lease_expire_time", "lease_seconds", "directive", "stop_seconds")
    class Directive(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DIRECTIVE_UNSPECIFIED: _ClassVar[RenewLeaseResponse.Directive]
        DIRECTIVE_CONTINUE: _ClassVar[RenewLeaseResponse.Directive]
        DIRECTIVE_CANCEL: _ClassVar[RenewLeaseResponse.Directive]
        DIRECTIVE_PAUSE: _ClassVar[RenewLeaseResponse.Directive]
        DIRECTIVE_PREEMPT: _ClassVar[RenewLeaseResponse.Directive]
    DIRECTIVE_UNSPECIFIED: RenewLeaseResponse.Directive
    DIRECTIVE_CONTINUE: RenewLeaseResponse.Directive
    DIRECTIVE_CANCEL: RenewLeaseResponse.Directive
    DIRECTIVE_PAUSE: RenewLeaseResponse.Directive
    DIRECTIVE_PREEMPT: RenewLeaseResponse.Directive
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    STOP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    token: str
    lease_expire_time: _timestamp_pb2.Timestamp
    lease_seconds: float
    directive: RenewLeaseResponse.Directive
    stop_seconds: float
    def __init__(self, token: _Optional[str] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., lease_seconds: _Optional[float] = ..., directive: _Optional[_Union[RenewLeaseResponse.Directive, str]] = ..., stop_seconds: _Optional[float] = ...) -> None: ...

class CompleteAttemptRequest(_message.Message):
    __slots__ = ("attempt", "result", "error", "cancelled", "if_not_started")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    IF_NOT_STARTED_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    result: _attempt_pb2.AttemptResult
    error: _status_pb2.Status
    cancelled: CancelledOutcome
    if_not_started: bool
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., result: _Optional[_Union[_attempt_pb2.AttemptResult, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., cancelled: _Optional[_Union[CancelledOutcome, _Mapping]] = ..., if_not_started: _Optional[bool] = ...) -> None: ...

class CancelledOutcome(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class CompleteAttemptResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClusterCapacity(_message.Message):
    __slots__ = ("cpus", "cpus_free", "gpus", "gpus_free", "memory_bytes", "memory_free_bytes", "nodes", "node_capacities", "local_pool", "warm_workers", "warm_memory_bytes", "gpus_held_back")
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODE_CAPACITIES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_POOL_FIELD_NUMBER: _ClassVar[int]
    WARM_WORKERS_FIELD_NUMBER: _ClassVar[int]
    WARM_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPUS_HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    cpus: float
    cpus_free: float
    gpus: float
    gpus_free: float
    memory_bytes: int
    memory_free_bytes: int
    nodes: int
    node_capacities: _containers.RepeatedCompositeFieldContainer[NodeCapacity]
    local_pool: _worker_pb2.LocalPool
    warm_workers: int
    warm_memory_bytes: int
    gpus_held_back: int
    def __init__(self, cpus: _Optional[float] = ..., cpus_free: _Optional[float] = ..., gpus: _Optional[float] = ..., gpus_free: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., memory_free_bytes: _Optional[int] = ..., nodes: _Optional[int] = ..., node_capacities: _Optional[_Iterable[_Union[NodeCapacity, _Mapping]]] = ..., local_pool: _Optional[_Union[_worker_pb2.LocalPool, _Mapping]] = ..., warm_workers: _Optional[int] = ..., warm_memory_bytes: _Optional[int] = ..., gpus_held_back: _Optional[int] = ...) -> None: ...

class NodeCapacity(_message.Message):
    __slots__ = ("node_id", "hostname", "cpus", "cpus_free", "gpus", "gpus_free", "memory_bytes", "memory_free_bytes", "gpu_model", "gpu_memory_bytes", "draining", "start_time", "pool_slot", "supervised")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FREE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MODEL_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    POOL_SLOT_FIELD_NUMBER: _ClassVar[int]
    SUPERVISED_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    hostname: str
    cpus: float
    cpus_free: float
    gpus: float
    gpus_free: float
    memory_bytes: int
    memory_free_bytes: int
    gpu_model: str
    gpu_memory_bytes: int
    draining: bool
    start_time: _timestamp_pb2.Timestamp
    pool_slot: int
    supervised: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node_id: _Optional[str] = ..., hostname: _Optional[str] = ..., cpus: _Optional[float] = ..., cpus_free: _Optional[float] = ..., gpus: _Optional[float] = ..., gpus_free: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., memory_free_bytes: _Optional[int] = ..., gpu_model: _Optional[str] = ..., gpu_memory_bytes: _Optional[int] = ..., draining: _Optional[bool] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pool_slot: _Optional[int] = ..., supervised: _Optional[_Iterable[str]] = ...) -> None: ...

class NodeOrders(_message.Message):
    __slots__ = ("draining", "local_pool")
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LOCAL_POOL_FIELD_NUMBER: _ClassVar[int]
    draining: _containers.RepeatedScalarFieldContainer[str]
    local_pool: _worker_pb2.LocalPool
    def __init__(self, draining: _Optional[_Iterable[str]] = ..., local_pool: _Optional[_Union[_worker_pb2.LocalPool, _Mapping]] = ...) -> None: ...

class GpuRelease(_message.Message):
    __slots__ = ("attempt", "gpus", "release_time", "evidence")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_TIME_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    attempt: AttemptRef
    gpus: _containers.RepeatedScalarFieldContainer[str]
    release_time: _timestamp_pb2.Timestamp
    evidence: str
    def __init__(self, attempt: _Optional[_Union[AttemptRef, _Mapping]] = ..., gpus: _Optional[_Iterable[str]] = ..., release_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., evidence: _Optional[str] = ...) -> None: ...

class SyncClusterRequest(_message.Message):
    __slots__ = ("cluster", "capacity", "attempts", "gpu_releases")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    GPU_RELEASES_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    capacity: ClusterCapacity
    attempts: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    gpu_releases: _containers.RepeatedCompositeFieldContainer[GpuRelease]
    def __init__(self, cluster: _Optional[str] = ..., capacity: _Optional[_Union[ClusterCapacity, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., gpu_releases: _Optional[_Iterable[_Union[GpuRelease, _Mapping]]] = ...) -> None: ...

class SyncClusterResponse(_message.Message):
    __slots__ = ("commands", "stale", "node_orders")
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    NODE_ORDERS_FIELD_NUMBER: _ClassVar[int]
    commands: _containers.RepeatedCompositeFieldContainer[_attempt_pb2.Command]
    stale: _containers.RepeatedCompositeFieldContainer[AttemptRef]
    node_orders: NodeOrders
    def __init__(self, commands: _Optional[_Iterable[_Union[_attempt_pb2.Command, _Mapping]]] = ..., stale: _Optional[_Iterable[_Union[AttemptRef, _Mapping]]] = ..., node_orders: _Optional[_Union[NodeOrders, _Mapping]] = ...) -> None: ...
