"""The state tables: what the design says, and what the documentation is made of."""

from __future__ import annotations

from enum import StrEnum

import pytest
from finemesh.core import states
from finemesh.core.errors import PreconditionError
from finemesh.core.states import (
    DATASET,
    EXPORT,
    FIRST_ATTEMPT,
    LATER_ATTEMPT,
    PREFLIGHT_REPORT,
    TRAINING_JOB,
    VALIDATION_REPORT,
    DatasetState,
    ExportState,
    StateTable,
    TrainingJobState,
    check_transition,
    facts_of,
)
from finemesh.events.v1 import event_pb2
from finemesh.v1 import dataset_pb2, export_pb2, preflight_pb2, training_job_pb2, validation_report_pb2

D, T, E = DatasetState, TrainingJobState, ExportState


@pytest.mark.parametrize(
    ("table", "enum"),
    [
        (DATASET, dataset_pb2.Dataset.State),
        (VALIDATION_REPORT, validation_report_pb2.ValidationReport.State),
        (PREFLIGHT_REPORT, preflight_pb2.PreflightReport.State),
        (TRAINING_JOB, training_job_pb2.TrainingJob.State),
        (EXPORT, export_pb2.Export.State),
    ],
)
def test_the_states_are_those_of_the_contract(table: StateTable[StrEnum], enum: object) -> None:
    contract = {name.removeprefix("STATE_") for name in enum.keys()}  # type: ignore[attr-defined]  # noqa: SIM118
    assert {str(state) for state in table.states} == contract - {"UNSPECIFIED"}


@pytest.mark.parametrize("table", [DATASET, VALIDATION_REPORT, PREFLIGHT_REPORT, TRAINING_JOB, EXPORT])
def test_every_fact_has_its_place_among_the_events(table: StateTable[StrEnum]) -> None:
    """Clients read the payload of an event by its type from the `oneof` of Event."""
    known = {field.name for field in event_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    facts = {f"{table.event_noun}_{fact.name}" for step in table.transitions for fact in step.facts}
    assert facts <= known


def test_an_illegal_step_is_refused_with_what_would_be_legal() -> None:
    with pytest.raises(PreconditionError) as caught:
        check_transition(TRAINING_JOB, T.QUEUED, T.RUNNING)
    assert caught.value.reason == "ILLEGAL_TRANSITION"
    assert caught.value.metadata == {"noun": "training_job", "from": "QUEUED", "to": "RUNNING"}
    allowed = "from QUEUED it can go to STARTING, PAUSING, FAILED"
    assert f"cannot go from QUEUED to RUNNING; {allowed}" in str(caught.value)
    with pytest.raises(PreconditionError, match="it is a final state"):
        check_transition(TRAINING_JOB, T.SUCCEEDED, T.FAILED)


def test_a_step_publishes_its_facts() -> None:
    assert facts_of(TRAINING_JOB, T.VALIDATING, T.QUEUED) == ("queued",)
    assert facts_of(TRAINING_JOB, T.STARTING, T.RUNNING, FIRST_ATTEMPT) == ("started",)
    assert facts_of(TRAINING_JOB, T.STARTING, T.RUNNING, LATER_ATTEMPT) == ("resumed",)
    assert facts_of(TRAINING_JOB, T.RUNNING, T.STARTING) == ()
    assert facts_of(DATASET, D.RUNNING, D.SUCCEEDED, "split") == ("split",)
    assert facts_of(EXPORT, E.QUEUED, E.RUNNING, LATER_ATTEMPT) == ()
    assert facts_of(EXPORT, E.VERIFYING, E.REJECTED) == ("verified", "rejected")


def test_a_step_that_publishes_by_case_wants_to_know_the_case() -> None:
    with pytest.raises(ValueError, match="none of"):
        facts_of(DATASET, D.RUNNING, D.SUCCEEDED, "imprt")


def test_the_page_of_documentation_has_every_step() -> None:
    page = states.markdown()
    assert "| `STARTING` | `RUNNING` | `training_job.started` (first attempt)" in page
    for table in (DATASET, VALIDATION_REPORT, TRAINING_JOB, EXPORT):
        section = page.split(f"## {table.noun.capitalize()}\n")[1].split("\n## ")[0]
        assert section.count("\n| `") == len(table.transitions)
