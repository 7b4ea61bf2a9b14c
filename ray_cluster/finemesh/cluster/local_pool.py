"""Further nodes of Ray's on this machine, which the agent starts and stops as operators ask for.

A node is a `ray start --block` with all that runs under it. Its slot, a number from 1, is in the environment
of its processes, by which an agent that starts again finds them, and in a label of the node. A node of a slot
that is not wanted any more is stopped once it is drained and nothing runs there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from finemesh.chassis.logs import get_logger
from finemesh.cluster.nodes import SLOT_LABEL
from finemesh.v1.attempt_service_pb2 import NodeCapacity
from finemesh.v1.worker_pb2 import LocalPool as Told

_SLOT_VARIABLE: Final = "FINEMESH_POOL_SLOT"
_OWNER_VARIABLE: Final = "FINEMESH_POOL_OF"
# Not the agent's: who ends the agent to start it again must not end these.
_COMPONENT: Final = {"FINEMESH_COMPONENT": "ray-pool"}
_OBJECT_STORE_BYTES: Final = 100 * 1024 * 1024
_LOOK_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 15.0
_END_SECONDS: Final = 5.0
_SETTLE_SECONDS: Final = 3.0

_log = get_logger("finemesh.local_pool")


class LocalPool:
    """Used by one thread at a time, by the one agent that keeps its files in `data_dir`."""

    def __init__(self, ray_address: str, data_dir: Path) -> None:
        self._address = ray_address
        self._owner = str(data_dir.resolve())
        self._log = data_dir / "local_pool.log"
        self._children: list[subprocess.Popen[bytes]] = []
        self._running: dict[int, list[psutil.Process]] = {}
        self._started: dict[int, float] = {}
        self._empty: dict[int, float] = {}
        self._looked = 0.0
        self._wanted = 0
        self._message = ""

    def tend(self, wanted: Told | None, nodes: Sequence[NodeCapacity]) -> Told:
        """Bring the pool nearer to what is wanted. Returns what it is."""
        count = wanted.wanted_nodes if wanted is not None else 0
        now = time.monotonic()
        if count != self._wanted or now >= self._looked + _LOOK_SECONDS:
            self._looked, self._wanted = now, count
            self._running = self._find()
            for slot in range(1, count + 1):
                if slot not in self._running and wanted is not None:
                    self._start(slot, wanted, now)
            here = {node.pool_slot: node for node in nodes if node.pool_slot}
            for slot in sorted(self._running):
                if slot > count and (slot not in here or self._is_settled(here[slot], now)):
                    self._end(slot)
        there = [node.pool_slot for node in nodes if node.pool_slot]
        told = Told(wanted_nodes=count, nodes=len(there), message=self._message if count else "")
        if wanted is not None:
            told.node.CopyFrom(wanted.node)
        return told

    def _find(self) -> dict[int, list[psutil.Process]]:
        """The processes of each slot."""
        self._children = [child for child in self._children if child.poll() is None]
        found: dict[int, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environ = process.environ()
                if environ.get(_OWNER_VARIABLE) == self._owner and process.status() != psutil.STATUS_ZOMBIE:
                    found.setdefault(int(environ[_SLOT_VARIABLE]), []).append(process)
        return found

    def _start(self, slot: int, wanted: Told, now: float) -> None:
        if now < self._started.get(slot, -_RETRY_SECONDS) + _RETRY_SECONDS:
            self._message = f"node {slot} ended soon after its start: see {self._log} on the agent's machine"
            return
        self._started[slot] = now
        self._message = ""
        settings = {
            "address": self._address,
            "node-ip-address": self._address.rpartition(":")[0],
            "num-cpus": f"{wanted.node.cpus:g}",
            "num-gpus": "0",
            "memory": str(wanted.node.memory_bytes),
            "object-store-memory": str(_OBJECT_STORE_BYTES),
            "labels": f"{SLOT_LABEL}={slot}",
        }
        command = (sys.executable, "-m", "finemesh.cluster.pool_node", "start", "--block")
        environ = dict(os.environ) | {_SLOT_VARIABLE: str(slot), _OWNER_VARIABLE: self._owner} | _COMPONENT
        with self._log.open("ab") as output:
            child = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in settings.items())],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)
        _log.info("pool_node_started", slot=slot, pid=child.pid)

    def _is_settled(self, node: NodeCapacity, now: float) -> bool:
        """Whether nothing has been there for a while: what was on its way when the drain came has arrived."""
        held = (node.cpus - node.cpus_free, node.gpus - node.gpus_free)
        if not node.draining or node.supervised or max(held) > 0:
            self._empty.pop(node.pool_slot, None)
            return False
        return now >= self._empty.setdefault(node.pool_slot, now) + _SETTLE_SECONDS

    def _end(self, slot: int) -> None:
        _log.info("pool_node_ended", slot=slot, processes=len(self._running[slot]))
        processes = self._running.pop(slot)
        self._started.pop(slot, None)
        self._empty.pop(slot, None)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, left = psutil.wait_procs(processes, _END_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
