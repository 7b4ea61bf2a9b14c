"""`finemesh train history`: all that happened to a job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape

from finemesh.client.cli.context import err, options
from finemesh.client.cli.output import duration, enum_name, moment, print_list, styled
from finemesh.client.cli.paging import Limit, collect
from finemesh.client.cli.training import ENDED, JobId, commands
from finemesh.v1 import training_job_history_pb2
from finemesh.v1 import training_service_pb2 as pb

Entry = training_job_history_pb2.TrainingJobHistoryEntry


@commands("history")
def history(job: JobId, limit: Limit = 10_000) -> None:
    """Show all that happened to a job, oldest first: states and how long they lasted, commands and who gave
    them, attempts, checkpoints, losses and restarts.
    """
    connection = options.connection()
    request = pb.ListTrainingJobHistoryRequest(parent=connection.name("trainingJobs", job))
    found = collect(
        connection.training.ListTrainingJobHistory, request, lambda page: iter(page.entries), limit
    )
    lasted = _durations(found)
    print_list(
        found,
        ("#", "when", "lasted", "what", "attempt", "step", "who", "words"),
        lambda entry: (
            entry.sequence,
            moment(entry.time),
            lasted.get(entry.sequence, ""),
            _what(entry),
            entry.attempt or "",
            entry.step or "",
            _who(entry),
            escape(_words(entry)),
        ),
        "nothing was recorded: the job is older than its history",
    )
    if found and not options.json:
        err.print(f"[dim]{_summary(found)}[/]", highlight=False, soft_wrap=True)


def _entered(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with which a state begins."""
    return [each for each in entries if each.kind in (Entry.KIND_SUBMITTED, Entry.KIND_STATE)]


def _durations(entries: Sequence[Entry]) -> dict[int, str]:
    """How long each state lasted, by the number of the entry with which it begins."""
    begun = _entered(entries)
    ends = [*(each.time for each in begun[1:]), Timestamp()]
    return {
        each.sequence: duration(each.time, end)
        for each, end in zip(begun, ends, strict=True)
        if each.state not in ENDED
    }


def _summary(entries: Sequence[Entry]) -> str:
    """How long the job was in each state, and how many attempts there were."""
    seconds: dict[str, float] = {}
    begun = _entered(entries)
    times = [each.time.ToDatetime(tzinfo=UTC) for each in begun]
    for each, start, end in zip(begun, times, [*times[1:], datetime.now(UTC)], strict=True):
        if each.state not in ENDED:
            state = enum_name(each, "state")
            seconds[state] = seconds.get(state, 0.0) + (end - start).total_seconds()
    shares = ", ".join(f"{state} {spent:.1f} s" for state, spent in seconds.items())
    attempts = max(each.attempt for each in entries)
    return f"{len(entries)} entries, {attempts} attempts; {shares}"


def _what(entry: Entry) -> str:
    if entry.kind != Entry.KIND_STATE:
        return enum_name(entry, "kind").lower().replace("_", " ")
    return f"{enum_name(entry, 'from_state')} → {styled(enum_name(entry, 'state'))}"


def _who(entry: Entry) -> str:
    """Attempts are told by their number; a user by name."""
    return "the attempt" if "/attempts/" in entry.actor else escape(entry.actor)


def _words(entry: Entry) -> str:
    return ": ".join(part for part in (entry.message, entry.error.message) if part)
