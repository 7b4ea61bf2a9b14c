"""What the actors of an attempt hold, and which of several endings is the cause."""

from __future__ import annotations

import asyncio

import pytest
from finemesh.chassis.errors import to_status
from finemesh.chassis.fine_tune_spec import resources_to_proto
from finemesh.cluster.crew import Crew, bundles_of
from finemesh.cluster.worker import Ending
from finemesh.core.errors import FinemeshError, PreconditionError, UnavailableError
from finemesh.core.spec.finetune import Resources
from finemesh.v1 import attempt_pb2
from ray.exceptions import RayActorError


def command(resources: Resources) -> attempt_pb2.Command:
    return attempt_pb2.Command(resources=resources_to_proto(resources), train_work=attempt_pb2.TrainWork())


def test_every_rank_holds_an_equal_share() -> None:
    assert bundles_of(command(Resources())) == [{"CPU": 1.0}]
    assert (
        bundles_of(command(Resources(cpus=4, workers=2, memory_bytes=10)))
        == [{"CPU": 2.0, "memory": 5.0}] * 2
    )
    assert bundles_of(command(Resources(cpus=10, gpus=3))) == [{"CPU": 3.3333, "GPU": 1.0}] * 3
    export = attempt_pb2.Command(
        resources=resources_to_proto(Resources(cpus=2, gpus=2)), export_work=attempt_pb2.ExportWork()
    )
    assert bundles_of(export) == [{"CPU": 2.0, "GPU": 2.0}]


FOR_EVER = 600.0


class Actor:
    """Ends as it is told to, after so many seconds; stands for a handle of Ray's."""

    def __init__(self, seconds: float, ending: Ending | Exception) -> None:
        self.meet = self.run = self
        self._seconds, self._ending = seconds, ending

    async def remote(self, *meeting: object) -> Ending:
        await asyncio.sleep(self._seconds if meeting else 0)
        if isinstance(self._ending, Exception):
            raise self._ending
        return self._ending


def failed(error: FinemeshError) -> Ending:
    return Ending(error=to_status(error).SerializeToString())


DONE, STOPPED = Ending(result=b"x"), Ending(stopped_at_step=3)
LOST = failed(UnavailableError("rank 0 waits", reason="RANK_LOST"))
BROKEN = failed(PreconditionError("mend it", reason="NON_FINITE_LOSS"))


@pytest.mark.parametrize(
    ("leader", "other", "expected"),
    [
        ((0.1, DONE), (0.0, DONE), DONE),
        ((0.0, STOPPED), (FOR_EVER, DONE), STOPPED),
        ((0.0, LOST), (0.1, BROKEN), BROKEN),
        ((0.0, LOST), (FOR_EVER, DONE), LOST),
        ((FOR_EVER, DONE), (0.0, BROKEN), BROKEN),
        ((0.0, LOST), (0.1, RayActorError()), RayActorError),
    ],
)
async def test_the_cause_is_told_rather_than_what_followed_from_it(
    leader: tuple[float, Ending],
    other: tuple[float, Ending | Exception],
    expected: Ending | type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Long where another ending comes, short where none does: nobody races with a busy machine.
    seconds = 0.1 if FOR_EVER in (leader[0], other[0]) else 60
    monkeypatch.setattr("finemesh.cluster.crew._CAUSE_SECONDS", seconds)
    crew = Crew.__new__(Crew)
    crew.actors = [Actor(*leader), Actor(*other)]
    crew.leader = crew.actors[0]
    if isinstance(expected, Ending):
        assert await crew.run() == expected
    else:
        with pytest.raises(expected):
            await crew.run()
