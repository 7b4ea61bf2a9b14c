"""Who holds a data directory, and what runs for it: the lock and `mesh.json`."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from finemesh.core.errors import PreconditionError

DEFAULT_DATA_DIR: Final = Path(".finemesh")
LOCK_NAME: Final = "mesh.lock"
STATE_NAME: Final = "mesh.json"


class State(StrEnum):
    """Of a component, and of the mesh as a whole."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(slots=True)
class ComponentRecord:
    """One component in `mesh.json`. `pid` is 0 while no process runs; `start_time` is in Unix seconds."""

    state: State = State.WAITING
    pid: int = 0
    start_time: float = 0.0
    restarts: int = 0
    reason: str = ""
    ports: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class MeshRecord:
    """`mesh.json`: how others find the mesh, and how the next one finds what this one has left.

    Attributes:
        pid: of the process that runs the mesh, with its `start_time` in Unix seconds.
        since: when it started, ISO 8601.
        url: the gateway.
        client: what a client needs, by the names that finemesh.client reads: `server`, `token_file`, ...
        ports: every port by name; the next start takes the same ones where they are free.
    """

    pid: int
    start_time: float
    since: str
    url: str
    state: State = State.STARTING
    client: dict[str, str] = field(default_factory=dict[str, str])
    ports: dict[str, int] = field(default_factory=dict[str, int])
    components: dict[str, ComponentRecord] = field(default_factory=dict[str, ComponentRecord])

    def write(self, data_dir: Path) -> None:
        """Replace `mesh.json` in one step."""
        draft = data_dir / f".{STATE_NAME}.new"
        draft.write_text(json.dumps(asdict(self), indent=1))
        draft.replace(data_dir / STATE_NAME)


def read_record(data_dir: Path) -> MeshRecord | None:
    """What the last or present mesh of the folder wrote; None if there is nothing readable."""
    try:
        content: dict[str, Any] = json.loads((data_dir / STATE_NAME).read_text())
        components = {name: _component(entry) for name, entry in content.pop("components").items()}
        content["state"] = State(content["state"])
        return MeshRecord(**content, components=components)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _component(entry: dict[str, Any]) -> ComponentRecord:
    entry["state"] = State(entry["state"])
    return ComponentRecord(**entry)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a data directory."""

    pid: int
    since: str
    address: str

    def __str__(self) -> str:
        where = f", at {self.address}" if self.address else ", which is starting"
        return f"process {self.pid} since {self.since}{where}"


class DataDirLock:
    """An exclusive lock on a data directory, let go by the kernel when its holder ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor = -1

    def acquire(self) -> str:
        """Take the lock and return the time, ISO 8601.

        Raises:
            PreconditionError: reason MESH_RUNNING; the message and metadata say who holds it.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise self._refusal() from None
        self._descriptor = descriptor
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self.describe(Holder(os.getpid(), since, ""))
        return since

    def describe(self, holder: Holder) -> None:
        """Write down who holds the lock, for the next one who asks."""
        text = json.dumps({"pid": holder.pid, "since": holder.since, "address": holder.address})
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def _refusal(self) -> PreconditionError:
        holder = read_holder(self._data_dir)
        return PreconditionError(
            f"{self._data_dir.resolve()} is in use by {holder or 'another process'}: use that mesh, "
            f"stop it with Ctrl-C{f' or `kill {holder.pid}`' if holder else ''}, or choose another folder",
            reason="MESH_RUNNING",
            metadata=(
                {"pid": str(holder.pid), "since": holder.since, "address": holder.address} if holder else {}
            ),
        )


def read_holder(data_dir: Path) -> Holder | None:
    """Who wrote its name into the lock; None if nobody holds it now."""
    try:
        with (data_dir / LOCK_NAME).open() as file:
            content = json.loads(file.read())
            return Holder(int(content["pid"]), str(content["since"]), str(content["address"]))
    except (OSError, ValueError, KeyError):
        return None


def is_held(data_dir: Path) -> bool:
    """Whether some process holds the data directory now."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
