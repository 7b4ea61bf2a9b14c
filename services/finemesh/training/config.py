"""What the Training service can be told by its environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from finemesh.chassis.service import ServiceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataprep:
    """The DataPrep service.

    Attributes:
        address: host:port.
    """

    address: str = "127.0.0.1:50051"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(ServiceConfig):
    """The common settings, and Training's own.

    Attributes:
        start_timeout_seconds: how long a cluster may take to take an attempt up.
        cancel_grace_seconds: how long a cancelled job may take to save its state.
        pause_grace_seconds: how long a job that is paused or preempted may take to save its state.
        validate_timeout_seconds: how long a job may wait for its checks before it fails.
        launch_timeout_seconds: how long an attempt may take from its take-up to its first step before another
            one is started.
        restart_delay_seconds: back-off before the first restart; it doubles with each, up to a minute.
        cluster_live_seconds: how long after its last report a cluster gets work.
        gpu_hour_price: what a GPU costs for an hour; 0 shows GPU-hours alone.
        price_currency: of that price, as people write it.
    """

    dataprep: Dataprep = field(default_factory=Dataprep)
    start_timeout_seconds: float = 120.0
    cancel_grace_seconds: float = 60.0
    pause_grace_seconds: float = 120.0
    validate_timeout_seconds: float = 3600.0
    launch_timeout_seconds: float = 3600.0
    restart_delay_seconds: float = 1.0
    cluster_live_seconds: float = 15.0
    gpu_hour_price: float = 0.0
    price_currency: str = "USD"
