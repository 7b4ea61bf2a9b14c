"""The environment of the processes of the mesh: every variable that they read, in one place.

| variable | meaning |
|---|---|
| FINEMESH_MESH_ID, FINEMESH_COMPONENT | whose process this is; read by the supervisor alone |
| FINEMESH_SERVICE_HOST, _PORT | where the service, or the health server of the agent, listens |
| FINEMESH_DATABASE_URL | SQLAlchemy URL of the service's own database |
| FINEMESH_NATS_SERVERS | addresses of NATS, comma-separated |
| FINEMESH_NATS_NKEY_SEED_PATH | file with the nkey seed of this process |
| FINEMESH_S3_ENDPOINT, _BUCKET, _REGION | S3 as URL, bucket, region |
| FINEMESH_S3_ACCESS_KEY_FILE, _SECRET_KEY_FILE | files with the S3 credentials |
| FINEMESH_PUBLIC_ENDPOINT | URL of the gateway: presigned URLs are signed for its address |
| FINEMESH_JWT_KEY_FILE | file with the key that signs and verifies bearer tokens |
| FINEMESH_DATA_DIR | folder of this process alone: spool, DuckDB, the agent's inventory |
| FINEMESH_DATAPREP_ADDRESS, …_TRAINING_…, …_TRACKING_…, …_EXPORT_… | host:port of each service |
| FINEMESH_CLUSTER_ID | name of the Ray cluster that takes the work |
| FINEMESH_RAY_ADDRESS | host:port of Ray's head; the agent alone |
| FINEMESH_LOCAL_POOL | whether the agent starts and stops further nodes of Ray here; the agent alone |
| FINEMESH_LEASE_SECONDS | how long an attempt of a job may go without a renewal |
| FINEMESH_WARM_WORKERS | how many workers wait on each node of Ray with their imports done; the agent alone |
| FINEMESH_APART_PYTHON | for models that train in a process of their own: their interpreter, as `up` has it |
| FINEMESH_LOG_LEVEL | DEBUG, INFO, WARNING or ERROR |
| RAY_* | see `ray_environment` |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from finemesh.embedded.processes import COMPONENT_VARIABLE, MESH_VARIABLE

# Settings of other meshes, clusters and clouds must not leak into ours: `weed` takes AWS_* as credentials.
_FOREIGN: Final = ("FINEMESH_", "RAY_", "WEED_", "AWS_", "S3_", "NATS_", "ENVOY_")
# But this says what is installed on this machine.
_MACHINE: Final = {"FINEMESH_APART_PYTHON"}


def inherited(environ: Mapping[str, str], mesh_id: str, component: str) -> dict[str, str]:
    """What a component takes over from the environment of `up`: everything but foreign settings."""
    kept = {
        name: value for name, value in environ.items() if name in _MACHINE or not name.startswith(_FOREIGN)
    }
    # A thread pool in each of ten small processes would cost memory for nothing.
    kept |= {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}
    return kept | {MESH_VARIABLE: mesh_id, COMPONENT_VARIABLE: component}


def ray_environment(token: Path) -> dict[str, str]:
    """What Ray's own processes and its driver need to agree on.

    Token authentication is off by default in Ray 2.60. The cluster switch is named after other systems, but
    decides everywhere whether Ray takes the machine's address or loopback: off, no port leaves loopback.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Idle workers cost 60 MB each: none before they are needed, none kept for long after.
        "RAY_enable_worker_prestart": "false",
        "RAY_prestart_worker_first_driver": "false",
        "RAY_num_workers_soft_limit": "0",
        "RAY_idle_worker_killing_time_threshold_ms": "10000",
        "RAY_enable_metrics_collection": "false",
        # `up` ends jobs on purpose; waiting for them to drain would hold up Ctrl-C for half a minute.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Keep the environment of renamed processes readable: it says whose they are.
        "SPT_NOENV": "1",
    }
