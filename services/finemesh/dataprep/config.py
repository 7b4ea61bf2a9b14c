"""What the DataPrep service can be told by its environment."""

from __future__ import annotations

from dataclasses import dataclass

from finemesh.chassis.service import ServiceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPrepConfig(ServiceConfig):
    """The common settings, and DataPrep's own.

    Attributes:
        cluster_id: where work goes while no cluster has reported itself yet.
        max_upload_bytes: largest source file.
        import_sources: what may be imported without an upload, of the same object store: `bucket` or
            `bucket/prefix`, comma-separated; `{project}` stands for the project that asks. The bucket of the
            mesh is never among them.
        start_timeout_seconds: how long a cluster may take to take an attempt up.
        cancel_grace_seconds: how long cancelled work may take to stop.
    """

    cluster_id: str = "local"
    max_upload_bytes: int = 512 << 30
    import_sources: tuple[str, ...] = ()
    start_timeout_seconds: float = 120.0
    cancel_grace_seconds: float = 30.0
