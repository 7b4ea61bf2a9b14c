"""The agent's ledger: a command is taken on once, and what was taken on survives."""

from __future__ import annotations

from pathlib import Path

import pytest
from finemesh.cluster.attempts import actor_name, check_command, ref_of, resource_key, service_of
from finemesh.cluster.ledger import CommandState, Ledger
from finemesh.core.attempts import AttemptRef
from finemesh.core.errors import InvalidError, UnavailableError
from finemesh.v1 import attempt_pb2


def command(resource: str = "projects/p/datasets/d", attempt: int = 1, fence: int = 1) -> attempt_pb2.Command:
    return attempt_pb2.Command(
        resource=resource,
        attempt=attempt,
        fence=fence,
        split_work=attempt_pb2.SplitWork(source_uri="s3://b/k"),
    )


def test_a_command_is_taken_on_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "agent.db")
    first = command()
    ref = ref_of(first)
    assert ledger.record(first)
    assert not ledger.record(first)
    ledger.launching(ref, "warm-a")
    assert not ledger.record(first)
    ledger.end(ref, "done")
    assert not ledger.record(first)
    assert ledger.record(command(attempt=2, fence=2))
    ledger.close()


def test_what_was_taken_on_survives_the_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "agent.db")
    for attempt in (1, 2, 3):
        ledger.record(command(attempt=attempt, fence=attempt))
    ledger.launching(AttemptRef("projects/p/datasets/d", 2, 2), "warm-b")
    ledger.end(AttemptRef("projects/p/datasets/d", 1, 1), "done")
    # No close: the file is as a SIGKILL leaves it.
    again = Ledger(tmp_path / "agent.db")
    found = {entry.ref.attempt: entry for entry in again.live()}
    assert {attempt: entry.state for attempt, entry in found.items()} == {
        2: CommandState.LAUNCHED,
        3: CommandState.RECORDED,
    }
    assert found[3].command == command(attempt=3, fence=3)
    assert (found[2].actor, found[3].actor, again.actors()) == ("warm-b", "", {"warm-b"})
    assert again.find(AttemptRef("projects/p/datasets/d", 1, 1)) is CommandState.ENDED
    assert again.find(AttemptRef("projects/p/datasets/x", 1, 1)) is None
    again.close()
    ledger.close()


@pytest.mark.parametrize(
    "wrong",
    [
        command("projects/p/runs/r"),
        command("projects/p"),
        command("projects/p/datasets/Not an id"),
        command("projects/p/datasets/d/otherReports/r"),
        command(attempt=0),
        attempt_pb2.Command(resource="projects/p/datasets/d", attempt=1, fence=1),
    ],
)
def test_a_command_that_nobody_can_carry_out_is_refused(wrong: attempt_pb2.Command) -> None:
    with pytest.raises(InvalidError):
        check_command(wrong)


def test_a_file_that_cannot_be_written_is_said_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UnavailableError, match=r"agent\.db: file is not a database\. Make room") as caught:
        Ledger(path)
    assert caught.value.reason == "LEDGER_UNUSABLE"


def test_names_are_unique_per_attempt() -> None:
    resources = [
        "projects/a/datasets/b",
        "projects/a/datasets/b/validationReports/c",
        "projects/a/datasets/b/preflightReports/c",
        "projects/a/trainingJobs/b",
        "projects/a-b/trainingJobs/c",
        "projects/a/trainingJobs/b-c",
    ]
    refs = [AttemptRef(resource, attempt, 1) for resource in resources for attempt in (1, 11)]
    assert len({actor_name(ref) for ref in refs}) == len(refs)
    assert "/" not in resource_key(resources[1])
    assert [service_of(resource) for resource in resources[1:4]] == ["dataprep", "dataprep", "training"]
