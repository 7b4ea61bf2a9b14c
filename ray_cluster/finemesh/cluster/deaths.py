"""What a dead worker or supervisor died of, as far as anybody can tell; and what is said of a silent one.

Ray kills workers when a node runs low on memory and says so. The kernel sends SIGKILL and says nothing to
anybody; it counts in /proc/vmstat how often (https://man7.org/linux/man-pages/man5/proc_vmstat.5.html).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from finemesh.cluster.reaper import Holding
from finemesh.core.errors import FinemeshError, ResourceExhaustedError, UnavailableError

_SAID_BY_RAY: Final = ("running low on memory", "OutOfMemory", "memory monitor")
_NEVER_RAN: Final = "The actor never ran"
_UNEXPLAINED: Final = (
    "its process ended without a word, as one that is killed does: see what it wrote last (`finemesh train "
    "logs` for a training)"
)
_EXIT_DETAIL: Final = "Worker exit detail: "


def kernel_kills(statistics: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel of this machine has killed for want of memory since it started."""
    try:
        lines = statistics.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def death(error: RayError, attempt: int, peak_memory_bytes: int, kills: int) -> FinemeshError:
    """The error of an attempt whose worker died.

    Args:
        error: what Ray says.
        attempt: its number.
        peak_memory_bytes: the highest that was reported of the worker.
        kills: processes that the kernel killed on the supervisor's machine since the worker began.
    """
    who = "Ray" if isinstance(error, OutOfMemoryError) or _says(error) else "the kernel" if kills > 0 else ""
    if isinstance(error, ActorUnavailableError):
        said = str(error).partition("RPC error: ")[2].partition(" rpc_code")[0] or type(error).__name__
        return UnavailableError(
            f"the worker of attempt {attempt} could not be reached any more, and was killed: its process had "
            f"been stopped, or the network to its node failed ({said})",
            reason="WORKER_SILENT",
        )
    if not who:
        cause = _raised(error) or _UNEXPLAINED
        return UnavailableError(f"the worker of attempt {attempt} died: {cause}", reason="WORKER_LOST")
    return ResourceExhaustedError(
        f"the worker of attempt {attempt} was killed by {who}, for its node ran out of memory; the last peak "
        f"that it reported was {peak_memory_bytes / 1e6:,.0f} MB: make micro batches smaller at equal global "
        "batch (on_out_of_memory: HALVE_MICRO_BATCH does so by itself), set "
        "optimization.activation_checkpointing, or run less beside it",
        reason="OUT_OF_MEMORY",
        metadata={"peak_bytes": str(peak_memory_bytes)},
    )


def silence(holding: Holding, attempt: int, seconds: float, last_said: str) -> FinemeshError:
    """The error of an attempt of which a process has not answered for so long, and was killed for that.

    Args:
        holding: the process.
        attempt: its number.
        seconds: how long it was waited for.
        last_said: what the work was at when it was last heard of.
    """
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    return UnavailableError(
        f"process {holding.pid} of attempt {attempt}, on node {holding.node[:12]}, has not answered since "
        f"{since:%H:%M:%S} UTC, for {seconds:g} s, and was killed: it had been stopped, or hung, at "
        f"{last_said}. See what it wrote last (`finemesh train logs` for a training); if it was only busy in "
        "one piece, set FINEMESH_WORKER_TIMEOUT_SECONDS of the agent higher",
        reason="WORKER_SILENT",
        metadata={"pid": str(holding.pid), "node": holding.node},
    )


def stillbirth(error: RayError) -> str:
    """What kept a supervisor from beginning, by what became of its `run`; empty if it had begun."""
    if cause := _raised(error):
        return cause
    if isinstance(error, ActorDiedError) and _NEVER_RAN in str(error):
        detail = str(error).partition(_EXIT_DETAIL)[2].partition("\n")[0][:300]
        return f"its process ended while it started{': ' if detail else ''}{detail}"
    return ""


def _raised(error: RayError) -> str:
    """The last line of what an actor has raised, in its creation or later; empty if it was ended."""
    in_creation = isinstance(error, ActorDiedError) and error.actor_init_failed
    if in_creation or isinstance(error, RayTaskError):
        return str(error).rstrip().splitlines()[-1][:300]
    return ""


def _says(error: RayError) -> bool:
    return any(words in str(error) for words in _SAID_BY_RAY)
