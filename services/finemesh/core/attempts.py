"""Heavy work as attempts: the words that services and the chassis share about it.

A resource that needs a cluster (a dataset, a validation report, a training job, an export) is worked on by
one attempt after the other. An attempt holds a lease that it renews; its fence is larger than that of every
earlier attempt at the resource, so that whoever is asked can tell an old attempt from the current one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from operator import ge
from typing import Generic, TypeVar

from finemesh.core.error_classes import ErrorClass, classify
from finemesh.core.errors import ErrorRecord


class AttemptState(StrEnum):
    WAITING = "WAITING"  # recorded; its command is sent when its back-off is over
    DISPATCHED = "DISPATCHED"  # the command is on its way; nobody has renewed the lease yet
    RUNNING = "RUNNING"  # the lease has been renewed at least once
    ENDED = "ENDED"


class Outcome(StrEnum):
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"  # it stopped, as some directive told it to
    LOST = "LOST"  # the lease ran out


class Directive(StrEnum):
    """What a renewal tells the attempt to do next: all but the first mean to save its state and stop.

    In the order of their strength: a stop is never taken back, only replaced by a stronger one.
    """

    CONTINUE = "CONTINUE"
    PREEMPT = "PREEMPT"  # its room is needed; the job waits for its next turn
    PAUSE = "PAUSE"  # the job waits until its user resumes it
    CANCEL = "CANCEL"  # the job ends

    def outranks(self, other: Directive) -> bool:
        order = list(Directive)
        return order.index(self) > order.index(other)


class Phase(StrEnum):
    """What an attempt says it is doing."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    VERIFYING = "VERIFYING"


@dataclass(frozen=True, slots=True, order=True)
class AttemptRef:
    """One attempt: the resource's name, the attempt's number from 1, and its fencing token."""

    resource: str
    attempt: int
    fence: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as the service's database has it. Times are UTC."""

    ref: AttemptRef
    cluster: str
    state: AttemptState
    directive: Directive
    command: bytes
    create_time: datetime
    lease_expire_time: datetime
    outcome: Outcome | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    error: ErrorRecord | None = None
    # Where its workers were put; told to the cluster with the command, and kept by who has put them there.
    nodes: tuple[str, ...] = ()

    @property
    def resource(self) -> str:
        return self.ref.resource

    @property
    def number(self) -> int:
        return self.ref.attempt

    @property
    def never_started(self) -> bool:
        """Whether no renewal ever arrived: the cluster was away or full, not the work at fault."""
        return self.start_time is None


@dataclass(frozen=True, slots=True)
class Worker:
    """Who works on an attempt. GPUs have their UUIDs where NVIDIA's driver is installed."""

    cluster: str = ""
    node_id: str = ""
    pids: tuple[int, ...] = ()
    gpu_ids: tuple[str, ...] = ()
    gpu_uuids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResumeCertificate:
    """How a training attempt continued an earlier one; hashes are hexadecimal."""

    attempt: int
    step: int
    expected_sample_hash: str
    actual_sample_hash: str
    matches: bool


@dataclass(frozen=True, slots=True)
class WorkReport:
    """What an attempt says of itself with every renewal.

    Attributes:
        fraction: share of the work that is done, 0 to 1.
        message: what is being done, a few words for people.
        step: optimiser steps taken, of `total_steps` to take; training only.
        peak_memory_bytes: highest memory in use by the working process so far.
        following: the directive that it acts on by now: its acknowledgement.
    """

    phase: Phase
    fraction: float = 0.0
    message: str = ""
    worker: Worker = field(default_factory=Worker)
    step: int = 0
    total_steps: int = 0
    resume_certificate: ResumeCertificate | None = None
    peak_memory_bytes: int = 0
    following: Directive = Directive.CONTINUE


R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True)  # with slots, Python 3.11 cannot call Completion[X](…)
class Completion(Generic[R_co]):
    """How an attempt says it ended: with `result`, with `error`, or stopped as it was told to.

    `step` is the number of optimiser steps taken by a training attempt that stopped. With `if_not_started`
    it is the word of the cluster, and counts only if the attempt has never renewed its lease.
    """

    outcome: Outcome
    result: R_co | None = None
    error: ErrorRecord | None = None
    step: int = 0
    if_not_started: bool = False

    def __post_init__(self) -> None:
        if self.outcome is Outcome.LOST:
            raise ValueError("an attempt cannot say of itself that it is lost")

    @property
    def final(self) -> bool:
        """Whether another attempt is pointless."""
        return self.error is None or classify(self.error) is ErrorClass.USER


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer to a renewal. `stop_seconds` is what is left to stop in, once it is told to."""

    expire_time: datetime
    seconds: float
    directive: Directive
    stop_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """What a node of a cluster has, and what of it Ray has not given away.

    Attributes:
        node_id: Ray's id, drawn anew whenever Ray starts there.
        gpu_model: empty while it is not known; so is `gpu_memory_bytes`, of each GPU, then 0.
        draining: nothing new is put there.
        start_time: since when Ray has run there, in seconds since the epoch.
        pool_slot: which node of the local pool it is, counting from 1; 0 if it is none.
        supervised: resources of which an attempt has a process there, its supervisor included.
    """

    node_id: str
    hostname: str = ""
    cpus: float = 0.0
    cpus_free: float = 0.0
    gpus: float = 0.0
    gpus_free: float = 0.0
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    gpu_model: str = ""
    gpu_memory_bytes: int = 0
    draining: bool = False
    start_time: float = 0.0
    pool_slot: int = 0
    supervised: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of an attempt is there."""
        amounts = (self.cpus, self.gpus, self.memory_bytes)
        free = (self.cpus_free, self.gpus_free, self.memory_free_bytes)
        return not self.supervised and all(map(ge, free, amounts))


@dataclass(frozen=True, slots=True)
class LocalPool:
    """The nodes that an agent starts and stops on its machine, each with `cpus` and `memory_bytes`.

    `message` says what keeps it from having as many as are wanted.
    """

    wanted_nodes: int
    nodes: int = 0
    cpus: float = 1.0
    memory_bytes: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class ClusterCapacity:
    """What a cluster has, and what of it Ray has not given away. `nodes` is 0 while Ray's head is away.

    Attributes:
        warm_workers: those that wait for a training; they and those that get warm take `warm_memory_bytes`.
        gpus_held_back: GPUs that are not given out, since what held them is not proven to be gone.
        node_capacities: the same of each live node.
        local_pool: None where the cluster's nodes are not its agent's to start and stop.
    """

    cpus: float = 0.0
    cpus_free: float = 0.0
    gpus: float = 0.0
    gpus_free: float = 0.0
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    nodes: int = 0
    warm_workers: int = 0
    warm_memory_bytes: int = 0
    gpus_held_back: int = 0
    node_capacities: tuple[NodeCapacity, ...] = ()
    local_pool: LocalPool | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that has reported itself at least once."""

    id: str
    capacity: ClusterCapacity
    last_seen_time: datetime


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """What a cluster should have and does not (`commands`), and what it has and should kill (`stale`)."""

    commands: tuple[bytes, ...]
    stale: tuple[AttemptRef, ...]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How often, and how soon, work is started again after a loss: exponential back-off up to a limit."""

    max_restarts: int = 3
    first_delay_seconds: float = 1.0
    max_delay_seconds: float = 60.0

    def delay_seconds(self, restarts_so_far: int) -> float | None:
        """How long to wait before the next restart, or None when the budget is spent."""
        if restarts_so_far >= self.max_restarts:
            return None
        return min(self.max_delay_seconds, self.first_delay_seconds * 2.0**restarts_so_far)
