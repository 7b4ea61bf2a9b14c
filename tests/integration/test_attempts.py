"""The attempt queue: leases, fences and the one transaction of it all, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from finemesh.chassis.attempts import AttemptSettings
from finemesh.chassis.sql import Database
from finemesh.core.attempts import (
    AttemptRef,
    AttemptState,
    ClusterCapacity,
    Completion,
    Directive,
    Lease,
    Outcome,
    Phase,
    WorkReport,
)
from finemesh.core.clock import ManualClock
from finemesh.core.errors import ErrorRecord, FencedError, PreconditionError
from sqlalchemy import event, insert
from sqlalchemy.exc import IntegrityError

from tests.support.attempt_owner import CHASSIS, ScriptedOwner, create_tables
from tests.support.servers import PATIENCE_SECONDS

pytestmark = pytest.mark.integration

JOB = "projects/acme/trainingJobs/tj-1"
RUNNING = WorkReport(Phase.RUNNING, 0.5)
DONE = Completion[str](Outcome.SUCCEEDED, result="model")
STOPPED = Completion[str](Outcome.CANCELLED)
BROKEN = Completion[str](Outcome.FAILED, error=ErrorRecord("INTERNAL", "BOOM", "it broke"))
LEASE = AttemptSettings().lease_seconds
START_TIMEOUT = AttemptSettings().start_timeout_seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def owner(database: Database, clock: ManualClock) -> ScriptedOwner:
    await create_tables(database)
    return ScriptedOwner(database, clock)


async def started(owner: ScriptedOwner, resource: str = JOB) -> AttemptRef:
    """An attempt that has renewed its lease once."""
    attempt = await owner.dispatch(resource)
    await owner.queue.renew(attempt.ref, WorkReport(Phase.STARTING))
    return attempt.ref


async def test_a_whole_life(owner: ScriptedOwner, clock: ManualClock) -> None:
    attempt = await owner.dispatch(JOB)
    assert attempt.state is AttemptState.DISPATCHED
    (command,) = await owner.commands(JOB)
    assert (command.attempt, command.fence, command.cluster) == (1, 1, "local")
    lease = await owner.queue.renew(attempt.ref, RUNNING)
    assert lease.seconds == LEASE
    assert (lease.expire_time - clock.now()).total_seconds() == LEASE
    assert lease.directive is Directive.CONTINUE
    await owner.queue.complete(attempt.ref, DONE)
    assert await owner.effects(JOB) == ["1 command", "1 RUNNING 0.5", "1 SUCCEEDED model"]
    assert await owner.attempts(JOB) == [(1, 1, "ENDED", "SUCCEEDED")]


async def test_renewals_keep_an_attempt_alive_for_as_long_as_it_likes(
    owner: ScriptedOwner, clock: ManualClock
) -> None:
    ref = await started(owner)
    for _ in range(10):
        clock.advance(LEASE * 0.9)
        assert await owner.queue.expire_overdue() == 0
        await owner.queue.renew(ref, RUNNING)


async def test_renewals_that_arrive_together_share_a_transaction(owner: ScriptedOwner) -> None:
    refs = [await started(owner, f"{JOB}{number}") for number in range(9)]
    commits: list[object] = []
    event.listen(owner.db.engine.sync_engine, "commit", commits.append)
    leases = await asyncio.gather(*(owner.queue.renew(ref, RUNNING) for ref in refs))
    assert {lease.seconds for lease in leases} == {LEASE}
    assert len(commits) == 1
    for ref in refs:
        assert (await owner.effects(ref.resource))[-1] == "1 RUNNING 0.5"


async def test_renewals_that_arrive_together_have_each_their_own_answer(owner: ScriptedOwner) -> None:
    """One that is fenced, one of the same attempt and one that has to stop change nothing for the others."""
    first, second, stops = [await started(owner, f"{JOB}{number}") for number in range(3)]
    await owner.stop(stops.resource)
    fenced = AttemptRef(second.resource, 1, 7)
    asked = (first, fenced, stops, AttemptRef("projects/acme/trainingJobs/gone", 1, 1), first)
    answers = await asyncio.gather(
        *(owner.queue.renew(ref, RUNNING) for ref in asked), return_exceptions=True
    )
    told = [each.directive if isinstance(each, Lease) else type(each) for each in answers]
    stop, go_on = Directive.CANCEL, Directive.CONTINUE
    assert told == [go_on, FencedError, stop, FencedError, go_on]
    assert await owner.effects(first.resource) == [
        "1 command",
        "1 STARTING 0.0",
        "1 RUNNING 0.5",
        "1 RUNNING 0.5",
    ]
    assert await owner.effects(second.resource) == ["1 command", "1 STARTING 0.0"]


async def test_a_lost_attempt_is_fenced_and_the_next_waits_for_its_back_off(
    owner: ScriptedOwner, clock: ManualClock
) -> None:
    ref = await started(owner)
    clock.advance(LEASE)
    await owner.queue.expire_overdue()
    assert await owner.attempts(JOB) == [(1, 1, "ENDED", "LOST"), (2, 2, "WAITING", None)]
    assert len(await owner.commands(JOB)) == 1
    for refused in (owner.queue.renew(ref, RUNNING), owner.queue.complete(ref, DONE)):
        with pytest.raises(FencedError):
            await refused
    clock.advance(10)
    await owner.queue.expire_overdue()
    assert [command.fence for command in await owner.commands(JOB)] == [1, 2]
    await owner.queue.renew(AttemptRef(JOB, 2, 2), RUNNING)
    await owner.queue.complete(AttemptRef(JOB, 2, 2), DONE)
    assert (await owner.effects(JOB))[-1] == "2 SUCCEEDED model"


async def test_an_attempt_without_a_lease_is_refused_before_anybody_has_noticed(
    owner: ScriptedOwner, clock: ManualClock
) -> None:
    ref = await started(owner)
    clock.advance(LEASE)
    for refused in (owner.queue.renew(ref, RUNNING), owner.queue.complete(ref, DONE)):
        with pytest.raises(FencedError, match="has no lease: stop and write nothing more"):
            await refused
    async with owner.db.begin() as tx:
        with pytest.raises(FencedError):
            await owner.queue.held(tx, ref)


@pytest.mark.parametrize(
    "stranger", [AttemptRef(JOB, 1, 2), AttemptRef(JOB, 2, 2), AttemptRef(JOB + "x", 1, 1)]
)
async def test_a_wrong_fence_is_refused(owner: ScriptedOwner, stranger: AttemptRef) -> None:
    ref = await started(owner)
    for refused in (owner.queue.renew(stranger, RUNNING), owner.queue.complete(stranger, DONE)):
        with pytest.raises(FencedError, match="is not known here"):
            await refused
    await owner.queue.complete(ref, DONE)


async def test_the_budget_of_restarts_counts_attempts_that_ran(
    owner: ScriptedOwner, clock: ManualClock
) -> None:
    await owner.dispatch(JOB)
    for number in range(1, 30):
        async with owner.db.read() as tx:
            latest = await owner.queue.latest(tx, JOB)
        assert latest is not None
        if latest.state is AttemptState.ENDED:
            break
        if latest.state is AttemptState.DISPATCHED and number % 2:
            await owner.queue.renew(latest.ref, RUNNING)
        clock.advance(START_TIMEOUT)
        await owner.queue.expire_overdue()
    effects = await owner.effects(JOB)
    assert effects[-1].endswith("given up")
    assert sum(effect.endswith(" lost") for effect in effects) == 3  # the first and two restarts


async def test_an_attempt_that_failed_before_it_began_counts(owner: ScriptedOwner) -> None:
    """Its cluster tells so in its place, with the token of the command."""
    failed = await owner.dispatch(JOB)
    await owner.queue.complete(failed.ref, BROKEN)
    await owner.dispatch(JOB)
    async with owner.db.read() as tx:
        assert await owner.queue.started_count(tx, JOB) == 1


async def test_a_command_that_nobody_takes_up_is_lost_too(owner: ScriptedOwner, clock: ManualClock) -> None:
    attempt = await owner.dispatch(JOB)
    clock.advance(START_TIMEOUT - 1)
    assert await owner.queue.expire_overdue() == 0
    clock.advance(1)
    await owner.queue.expire_overdue()
    assert (await owner.effects(JOB))[-1] == "1 never started"
    with pytest.raises(FencedError):
        await owner.queue.renew(attempt.ref, RUNNING)


async def test_completing_twice_is_completing_once(owner: ScriptedOwner) -> None:
    ref = await started(owner)
    await owner.queue.complete(ref, BROKEN)
    await owner.queue.complete(ref, BROKEN)
    with pytest.raises(FencedError, match="has ended: FAILED"):
        await owner.queue.complete(ref, DONE)
    assert [effect for effect in await owner.effects(JOB) if "FAILED" in effect] == ["1 FAILED"]
    async with owner.db.read() as tx:
        latest = await owner.queue.latest(tx, JOB)
    assert latest is not None
    assert latest.error == BROKEN.error


async def test_success_without_a_sign_of_life_is_refused(owner: ScriptedOwner) -> None:
    attempt = await owner.dispatch(JOB)
    with pytest.raises(PreconditionError) as caught:
        await owner.queue.complete(attempt.ref, DONE)
    assert caught.value.reason == "ATTEMPT_NOT_STARTED"
    await owner.queue.complete(attempt.ref, BROKEN)  # to fail at the start is possible


async def test_one_live_attempt_at_a_time(owner: ScriptedOwner) -> None:
    attempt = await owner.dispatch(JOB)
    with pytest.raises(PreconditionError) as caught:
        await owner.dispatch(JOB)
    assert caught.value.reason == "ATTEMPT_LIVE"
    await owner.dispatch(JOB + "-other")
    await owner.queue.complete(attempt.ref, BROKEN)
    assert (await owner.dispatch(JOB)).ref == AttemptRef(JOB, 2, 2)


async def test_the_database_itself_refuses_a_second_live_attempt(
    owner: ScriptedOwner, clock: ManualClock
) -> None:
    await owner.dispatch(JOB)
    row = {
        "resource": JOB,
        "attempt": 2,
        "fence": 2,
        "cluster": "local",
        "state": "DISPATCHED",
        "directive": "CONTINUE",
        "directive_time": clock.now(),
        "command": b"",
        "lease_expire_time": clock.now(),
        "create_time": clock.now(),
    }
    with pytest.raises(IntegrityError):
        async with owner.db.begin() as tx:
            await tx.execute(insert(CHASSIS.attempts).values(row))


async def test_a_callback_that_fails_takes_everything_back(owner: ScriptedOwner, clock: ManualClock) -> None:
    ref = await started(owner)
    before = await owner.effects(JOB), await owner.attempts(JOB), len(await owner.commands(JOB))
    owner.fails_with = RuntimeError("in the middle")
    for refused in (
        owner.queue.renew(ref, RUNNING),
        owner.queue.complete(ref, DONE),
        owner.dispatch(JOB + "-other"),
    ):
        with pytest.raises(RuntimeError):
            await refused
    clock.advance(LEASE)
    assert await owner.queue.expire_overdue() == 1  # logs, and goes on with other resources
    assert (await owner.effects(JOB), await owner.attempts(JOB), len(await owner.commands(JOB))) == before
    assert await owner.attempts(JOB + "-other") == []
    owner.fails_with = None
    await owner.queue.expire_overdue()
    assert (await owner.attempts(JOB))[0] == (1, 1, "ENDED", "LOST")


async def test_a_running_attempt_is_told_to_cancel_and_says_so(owner: ScriptedOwner) -> None:
    ref = await started(owner)
    told = await owner.stop(JOB)
    assert told is not None
    assert told.ref == ref
    assert (await owner.queue.renew(ref, RUNNING)).directive is Directive.CANCEL
    assert await owner.stop(JOB) == told  # asking again changes nothing
    await owner.queue.complete(ref, STOPPED)
    assert await owner.attempts(JOB) == [(1, 1, "ENDED", "CANCELLED")]
    assert await owner.stop(JOB) is None


@pytest.mark.parametrize("delay_seconds", [0.0, 60.0])
async def test_an_attempt_that_never_started_is_cancelled_at_once(
    owner: ScriptedOwner, delay_seconds: float
) -> None:
    attempt = await owner.dispatch(JOB, delay_seconds=delay_seconds)
    assert await owner.stop(JOB) is None
    assert await owner.attempts(JOB) == [(1, 1, "ENDED", "CANCELLED")]
    with pytest.raises(FencedError):
        await owner.queue.renew(attempt.ref, RUNNING)


async def test_an_attempt_that_ignores_a_cancel_is_cut_off(owner: ScriptedOwner, clock: ManualClock) -> None:
    ref = await started(owner)
    await owner.stop(JOB)
    grace_seconds = owner.settings.cancel_grace_seconds
    for _ in range(int(grace_seconds // 10)):
        assert (await owner.queue.renew(ref, RUNNING)).directive is Directive.CANCEL
        clock.advance(10)
    with pytest.raises(FencedError, match="was told to CANCEL and did not stop in time"):
        await owner.queue.renew(ref, RUNNING)
    clock.advance(LEASE)
    await owner.queue.expire_overdue()
    assert (await owner.attempts(JOB))[0] == (1, 1, "ENDED", "LOST")


async def test_sync_sends_lost_commands_again_and_names_what_is_stale(
    owner: ScriptedOwner, clock: ManualClock
) -> None:
    capacity = ClusterCapacity(cpus=2, cpus_free=1, nodes=1)
    known, unknown, elsewhere = (f"{JOB}-{name}" for name in ("known", "unknown", "elsewhere"))
    running = await started(owner, known)
    await owner.dispatch(unknown)
    await owner.dispatch(elsewhere, cluster="other")
    stale = [AttemptRef(known, 1, 9), AttemptRef("projects/acme/trainingJobs/gone", 1, 1)]
    answer = await owner.queue.sync("local", capacity, [running, *stale])
    assert answer.commands == ()  # too young: still on its way over the bus
    assert set(answer.stale) == set(stale)
    clock.advance(owner.settings.resend_after_seconds)
    answer = await owner.queue.sync("local", capacity, [running])
    assert answer.commands == tuple(c.SerializeToString() for c in await owner.commands(unknown))
    assert answer.stale == ()
    async with owner.db.read() as tx:
        (cluster,) = await owner.queue.clusters(tx)
    assert (cluster.id, cluster.capacity, cluster.last_seen_time) == ("local", capacity, clock.now())


async def test_a_running_attempt_is_never_sent_again(owner: ScriptedOwner, clock: ManualClock) -> None:
    """Its command may be gone from the agent, but two supervisors under one fence would be worse."""
    await started(owner)
    clock.advance(LEASE / 2)
    assert (await owner.queue.sync("local", ClusterCapacity(), [])).commands == ()


async def test_two_replicas_do_everything_once(
    owner: ScriptedOwner, second_database: Callable[[], Database], clock: ManualClock
) -> None:
    replica = ScriptedOwner(second_database(), clock)
    jobs = [f"{JOB}-{number}" for number in range(8)]
    for job in jobs:
        await started(owner, job)
    clock.advance(LEASE)
    await asyncio.gather(*(each.queue.expire_overdue() for each in (owner, replica) * 2))
    for job in jobs:
        assert await owner.attempts(job) == [(1, 1, "ENDED", "LOST"), (2, 2, "WAITING", None)]
        assert (await owner.effects(job)).count("1 lost") == 1
    results = await asyncio.gather(
        *(each.dispatch(f"{JOB}-new") for each in (owner, replica) * 4), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1


async def test_the_loop_looks_after_what_is_due(owner: ScriptedOwner, clock: ManualClock) -> None:
    eager = ScriptedOwner(owner.db, clock, settings=AttemptSettings(tick_seconds=0.01))
    await eager.dispatch(JOB, delay_seconds=5)
    loop = asyncio.create_task(eager.queue.run())
    clock.advance(5)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await eager.commands(JOB):  # noqa: ASYNC110  SQL has no event to wait for
            await asyncio.sleep(0.01)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
