"""What the Export service can be told by its environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from finemesh.chassis.service import ServiceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The Training service.

    Attributes:
        address: host:port.
    """

    address: str = "127.0.0.1:50052"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataprep:
    """The DataPrep service.

    Attributes:
        address: host:port.
    """

    address: str = "127.0.0.1:50051"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig(ServiceConfig):
    """The common settings, and Export's own.

    Attributes:
        cluster_id: where work goes while no cluster is live.
        start_timeout_seconds: how long a cluster may take to take an attempt up.
        cancel_grace_seconds: how long a cancelled export may take to stop.
        restart_delay_seconds: back-off before the first restart; it doubles with each, up to a minute.
        sweep_seconds: how often exports that have had their time, and objects of nobody, are deleted.
        cluster_live_seconds: how long after its last report a cluster gets work.
    """

    training: Training = field(default_factory=Training)
    dataprep: Dataprep = field(default_factory=Dataprep)
    cluster_id: str = "local"
    start_timeout_seconds: float = 120.0
    cancel_grace_seconds: float = 30.0
    restart_delay_seconds: float = 1.0
    cluster_live_seconds: float = 60.0
    sweep_seconds: float = 30.0
