"""The cluster agent: takes commands on, starts supervisors, and keeps the books straight with the services.

Commands come over JetStream, and again from SyncCluster should one be missed; either way they are recorded
before they count as received. The agent decides nothing: it starts what it is told, and kills what no longer
counts. All it knows is in its ledger, so it may die at any moment, and so may Ray's head, the services and
the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Final

import grpc.aio

from finemesh.chassis.auth import Role, SigningKey
from finemesh.chassis.client_channel import channel
from finemesh.chassis.errors import from_rpc_error, to_status
from finemesh.chassis.events import Delivery, EventBus, command_subject, heartbeat_subject
from finemesh.chassis.logs import get_logger
from finemesh.cluster.attempts import (
    actor_name,
    check_command,
    resource_key,
    resource_of,
    scratch_name,
    service_of,
    to_proto,
)
from finemesh.cluster.config import SERVICE_OF, AgentConfig
from finemesh.cluster.driver import RayDriver
from finemesh.cluster.evaluations import ship_evaluations
from finemesh.cluster.head import RayHead
from finemesh.cluster.holdings import HoldingBook
from finemesh.cluster.joblog import LogShipper, Redactor, logs_of, remove_log
from finemesh.cluster.ledger import CommandState, Entry, Ledger
from finemesh.cluster.local_pool import LocalPool
from finemesh.cluster.node_orders import OrderBook
from finemesh.cluster.releases import Releases, release_of
from finemesh.cluster.shipper import Shipper
from finemesh.cluster.spool import spools_of
from finemesh.cluster.warm_pool import WarmPool
from finemesh.core.attempts import AttemptRef
from finemesh.core.errors import FinemeshError, InvalidError, NotFoundError, UnavailableError
from finemesh.package.shared import forget_unused
from finemesh.v1 import attempt_pb2
from finemesh.v1.attempt_service_pb2 import ClusterCapacity, CompleteAttemptRequest, SyncClusterRequest
from finemesh.v1.attempt_service_pb2_grpc import AttemptServiceStub

_TICK_SECONDS: Final = 0.5
_CALL_TIMEOUT_SECONDS: Final = 5.0

_log = get_logger("finemesh.agent")


class Agent:
    """One per Ray cluster."""

    def __init__(self, config: AgentConfig, key: SigningKey, bus: EventBus, head: RayHead) -> None:
        self._config = config
        self._site = config.site()
        self._bus = bus
        self._head = head
        self._driver = RayDriver(config.ray_address)
        self._ledger = Ledger(config.data_dir / "agent.db")
        self._pool = WarmPool(self._site, config.ray_address, config.warm_workers, config.warm_refill_seconds)
        self._orders = OrderBook(config.data_dir / "node_orders.binpb")
        self._local_pool = LocalPool(config.ray_address, config.data_dir) if config.local_pool else None
        self._supervisors: dict[AttemptRef, str] = {}
        self._releases = Releases(HoldingBook(config.data_dir / "agent.db"), self._driver)
        self._wake = asyncio.Event()
        self._head_id = b""
        self._capacity = ClusterCapacity()
        self._drains: dict[str, asyncio.Task[None]] = {}
        source = key.token_source(f"cluster-{config.cluster_id}", Role.SERVICE)
        self._channels = {
            service: channel(address, source, config.client_tls)
            for service, address in self._site.addresses.items()
        }

    async def close(self) -> None:
        """Let go of everything. What runs on Ray goes on."""
        for drain in self._drains.values():
            drain.cancel()
        await asyncio.gather(*self._drains.values(), return_exceptions=True)
        await self._pool.close()
        await self._releases.close()
        for each in self._channels.values():
            await each.close()
        await self._head.close()
        await asyncio.to_thread(self._driver.disconnect)
        self._ledger.close()

    async def check_ray(self) -> None:
        """Readiness: the head answers and this process is its driver. Raises UnavailableError."""
        await self._head.cluster_id()
        if not self._head_id:
            raise UnavailableError("not connected to Ray yet", reason="RAY_UNAVAILABLE")

    # ---- loops

    async def consume(self) -> None:
        """Take commands from JetStream until cancelled."""
        subject = command_subject(self._config.cluster_id)
        await self._bus.consume(f"agent-{self._config.cluster_id}", subject, self._on_command)

    async def work(self) -> None:
        """Start what is recorded and notice what has ended, until cancelled."""
        while True:
            try:
                await self._ensure_connected()
                for entry in self._ledger.live():
                    await self._advance(entry)
                self._releases.look(self._ledger.live())
                await self._pool.tend(self._ledger.actors())
                self._capacity = await self._look_around()
                self._drain_orphans()
                await asyncio.to_thread(
                    self._remove_scratch, {scratch_name(e.ref) for e in self._ledger.live()}
                )
            except UnavailableError as error:
                self._capacity = ClusterCapacity()
                _log.warning("ray_away", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()

    async def _look_around(self) -> ClusterCapacity:
        """What there is, and what the orders mean for it."""
        capacity = await asyncio.to_thread(self._driver.capacity)
        capacity.warm_workers = self._pool.ready
        capacity.warm_memory_bytes = self._pool.memory_bytes
        self._releases.withhold(capacity)
        live = {entry.ref: entry.actor or actor_name(entry.ref) for entry in self._ledger.live()}
        self._supervisors = await asyncio.to_thread(self._find_supervisors, live)
        places = self._releases.places() | set(self._supervisors.items())
        for node in capacity.node_capacities:
            node.draining = self._orders.avoided(node)
            node.supervised.extend(sorted({ref.resource for ref, where in places if where == node.node_id}))
        self._pool.avoided = frozenset(n.node_id for n in capacity.node_capacities if n.draining)
        if self._local_pool is not None:
            wanted = self._orders.orders.local_pool if self._orders.orders.HasField("local_pool") else None
            told = await asyncio.to_thread(self._local_pool.tend, wanted, list(capacity.node_capacities))
            capacity.local_pool.CopyFrom(told)
        return capacity

    def _find_supervisors(self, live: dict[AttemptRef, str]) -> dict[AttemptRef, str]:
        """Where the supervisor of each attempt is, as far as that is known."""
        known = self._supervisors
        found = {ref: known.get(ref) or self._driver.node_of(actor) for ref, actor in live.items()}
        return {ref: node for ref, node in found.items() if node}

    async def synchronise(self) -> None:
        """Compare books with every service until cancelled."""
        while True:
            await asyncio.gather(*(self._sync(service) for service in SERVICE_OF.values()))
            with contextlib.suppress(UnavailableError):
                beat = self._capacity.SerializeToString()
                await self._bus.send(heartbeat_subject(f"cluster-{self._config.cluster_id}"), beat)
            await asyncio.sleep(self._config.sync_seconds)

    # ---- commands

    async def _on_command(self, delivery: Delivery) -> None:
        """Record a command; the return acknowledges it. Raises InvalidError for one that cannot be carried
        out.
        """
        try:
            command = attempt_pb2.Command.FromString(delivery.payload)
        except ValueError as error:
            raise InvalidError("not a command", reason="MALFORMED_COMMAND") from error
        self._take_on(command)

    def _take_on(self, command: attempt_pb2.Command) -> None:
        ref = check_command(command)
        if self._ledger.record(command):
            _log.info("command_taken", resource=ref.resource, attempt=ref.attempt)
            self._wake.set()

    async def _advance(self, entry: Entry) -> None:
        actor = entry.actor or actor_name(entry.ref)
        if entry.state is CommandState.RECORDED:
            await self._launch(entry)
        elif cause := await asyncio.to_thread(self._driver.stillbirth, actor):
            await self._give_up(entry, actor, cause)
        elif not await asyncio.to_thread(self._driver.is_alive, actor):
            if self._releases.knows(entry.ref):
                # Its end was told by itself; or it was not, and then its lease runs out.
                self._ledger.end(entry.ref, "supervisor gone")
            else:
                await self._give_up(entry, actor, "it ended, or its node did")

    async def _launch(self, entry: Entry) -> None:
        """Give the attempt a warm worker, or start a cold one. It waits while GPUs are being proven free."""
        if entry.command.resources.gpus and self._releases.settling(self._ledger.live()):
            return
        entry.command.avoided_nodes[:] = sorted(self._pool.avoided)
        if self._pool.avoided.intersection(entry.command.nodes):  # drained since they were chosen
            del entry.command.nodes[:]
        if unit := self._pool.choose(entry.command):
            self._ledger.launching(entry.ref, unit)
            if await self._pool.give(unit, entry.command):
                return
        self._ledger.launching(entry.ref, actor_name(entry.ref))
        await asyncio.to_thread(self._driver.launch, self._site, entry.ref, entry.command)

    async def _give_up(self, entry: Entry, actor: str, cause: str) -> None:
        """Tell, in place of a supervisor that could not begin, that the attempt has failed; again at the next
        look if the service is away.

        Only the service knows whether it has begun after all. If not, another attempt may begin at once: this
        one holds nothing before its first renewal, which is refused from then on.
        """
        ref, service = entry.ref, service_of(entry.ref.resource)
        _log.info("supervisor_gone", resource=ref.resource, attempt=ref.attempt, cause=cause)
        failure = UnavailableError(
            f"attempt {ref.attempt} could not begin on cluster {self._config.cluster_id}, for its supervisor "
            f"failed: {cause}; look at the installation and at Ray's logs on the nodes there",
            reason="SUPERVISOR_FAILED",
        )
        request = CompleteAttemptRequest(attempt=to_proto(ref), error=to_status(failure), if_not_started=True)
        # As the attempt: nobody else may speak for it.
        address, token = self._site.addresses[service], entry.command.token
        async with channel(address, lambda: token, self._config.client_tls) as told:
            try:
                await AttemptServiceStub(told).CompleteAttempt(request, timeout=_CALL_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                if from_rpc_error(error).retryable:
                    return
        await asyncio.to_thread(self._driver.kill, actor)
        self._ledger.end(ref, f"supervisor gone: {cause}")

    async def _sync(self, service: str) -> None:
        released = self._releases.told(service)
        mine = [entry.ref for entry in self._ledger.live() if service_of(entry.ref.resource) == service]
        request = SyncClusterRequest(
            cluster=self._config.cluster_id,
            capacity=self._capacity,
            attempts=[to_proto(ref) for ref in mine],
            gpu_releases=release_of(released),
        )
        try:
            stub = AttemptServiceStub(self._channels[service])
            answer = await stub.SyncCluster(request, timeout=_CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            _log.warning("sync_failed", service=service, reason=from_rpc_error(error).reason)
            return
        self._releases.forget(released)
        for command in answer.commands:
            with contextlib.suppress(InvalidError):
                self._take_on(command)
        if answer.HasField("node_orders") and self._orders.take(answer.node_orders):
            _log.info("node_orders_taken", draining=list(answer.node_orders.draining))
            self._wake.set()
        for stale in answer.stale:
            await self._end_stale(AttemptRef(stale.resource, stale.attempt, stale.fence))

    async def _end_stale(self, ref: AttemptRef) -> None:
        """Kill what no longer counts. An attempt that has just completed is stale too, and about to exit."""
        try:
            if self._ledger.find(ref) is CommandState.RECORDED:
                self._ledger.end(ref, "stale before it started")
            elif self._head_id:
                actor = next((e.actor for e in self._ledger.live() if e.ref == ref), "") or actor_name(ref)
                await asyncio.to_thread(self._driver.kill, actor)
        except UnavailableError as error:
            _log.warning("ray_away", error=str(error))

    # ---- Ray

    async def _ensure_connected(self) -> None:
        """Be the driver of the head that is there now.

        A head that has restarted knows nothing of the old one's actors, and this process cannot change heads:
        it ends, and is started again by whoever watches it. Raises UnavailableError while there is no head,
        PreconditionError for one that takes anybody.
        """
        found = await self._head.cluster_id()
        if self._head_id and found != self._head_id:
            raise FinemeshError(
                "Ray's head is another one than before: starting anew", reason="RAY_RESTARTED"
            )
        if not self._head_id:
            if not self._config.allow_open_ray:
                await self._head.require_token()
            await asyncio.to_thread(self._driver.connect)
            self._head_id = found

    # ---- what an ended attempt has left

    def _remove_scratch(self, kept: set[str]) -> None:
        """Delete the scratch folders of attempts that are over: a killed worker cannot do it itself."""
        folder = self._site.scratch_dir
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        forget_unused(self._site.shared_dir)

    def _drain_orphans(self) -> None:
        live = {resource_key(entry.ref.resource) for entry in self._ledger.live()}
        folders = (self._site.spool_dir, self._site.log_dir)
        jobs = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
        for job in jobs - live - self._drains.keys():
            task = asyncio.create_task(self._drain(job))
            task.add_done_callback(lambda _, job=job: self._drains.pop(job, None))
            self._drains[job] = task

    async def _drain(self, job: str) -> None:
        for path in spools_of(self._site.spool_dir, job):
            try:
                await Shipper(self._channels["tracking"], path).ship(lambda: True)
            except FinemeshError as error:
                _keep_refused(path, error)
        with contextlib.suppress(FinemeshError):  # a later attempt has taken over, and brings them
            await ship_evaluations(self._channels["tracking"], self._site.spool_dir / job, lambda: True)
        for path in logs_of(self._site.log_dir, job):
            try:
                redact = Redactor(self._site.s3.access_key, self._site.s3.secret_key.reveal())
                shipper = LogShipper(self._channels["training"], resource_of(job), path, redact)
                await shipper.ship(lambda: True)
            except NotFoundError:  # the job is gone, and its log with it
                remove_log(path)
            except FinemeshError as error:
                _keep_refused(path, error)


def _keep_refused(path: Path, error: FinemeshError) -> None:
    """Leave what no service takes for people to look at, under a name that is not drained again."""
    path.rename(path.with_suffix(".refused"))
    _log.warning("refused", file=str(path), reason=error.reason)
