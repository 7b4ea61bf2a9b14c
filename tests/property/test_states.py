"""Properties that every state table has, whatever is added to it."""

from __future__ import annotations

from enum import StrEnum

import pytest
from finemesh.core.errors import PreconditionError
from finemesh.core.states import (
    DATASET,
    EXPORT,
    PREFLIGHT_REPORT,
    SWEEP,
    TRAINING_JOB,
    VALIDATION_REPORT,
    StateTable,
    check_transition,
    facts_of,
)
from hypothesis import given
from hypothesis import strategies as st

TABLES = (DATASET, VALIDATION_REPORT, PREFLIGHT_REPORT, TRAINING_JOB, SWEEP, EXPORT)
# DESIGN §4, and the payloads in protos/finemesh/events/v1.
FACTS = {
    "dataset": {"imported", "converted", "validated", "preflighted", "split", "failed", "cancelled"},
    "training_job": {
        *("queued", "started", "resumed", "paused", "preempted", "succeeded", "failed", "cancelled"),
    },
    "sweep": {"succeeded", "failed", "cancelled"},
    "export": {"started", "verified", "succeeded", "rejected", "failed", "cancelled"},
}

tables = st.sampled_from(TABLES)
walks = st.lists(st.integers(min_value=0, max_value=1000), max_size=40)


@given(tables, walks)
def test_a_walk_along_the_table_is_legal_and_ends_only_in_a_final_state(
    table: StateTable[StrEnum], choices: list[int]
) -> None:
    state = table.initial
    for choice in choices:
        targets = table.targets(state)
        assert bool(targets) == (state in table.live)
        if not targets:
            return
        following = targets[choice % len(targets)]
        check_transition(table, state, following)
        state = following


@given(tables, st.data())
def test_what_is_not_in_the_table_is_refused(table: StateTable[StrEnum], data: st.DataObject) -> None:
    every = list(table.states)
    source, target = data.draw(st.sampled_from(every)), data.draw(st.sampled_from(every))
    if target not in table.targets(source):
        with pytest.raises(PreconditionError):
            check_transition(table, source, target)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.noun)
def test_every_table_is_sound(table: StateTable[StrEnum]) -> None:
    steps = [(step.source, step.target) for step in table.transitions]
    assert len(steps) == len(set(steps)), "a step is there twice"
    assert not {source for source, _ in steps} & table.terminal, "a final state is left"
    failed, cancelling = table.states("FAILED"), table.states("CANCELLING")
    for state in table.live:
        assert failed in table.targets(state)
        assert state == cancelling or cancelling in table.targets(state)
    assert set(table.targets(cancelling)) == {failed, table.states("CANCELLED")}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.noun)
def test_every_state_can_be_reached_and_every_live_one_can_end(table: StateTable[StrEnum]) -> None:
    reached, frontier = {table.initial}, [table.initial]
    while frontier:
        for target in table.targets(frontier.pop()):
            if target not in reached:
                reached.add(target)
                frontier.append(target)
    assert reached == set(table.states)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.noun)
def test_a_step_into_a_final_state_publishes_exactly_the_facts_of_the_contract(
    table: StateTable[StrEnum],
) -> None:
    for step in table.transitions:
        for case in table.cases or {""}:
            facts = facts_of(table, step.source, step.target, case)
            assert set(facts) <= FACTS[table.event_noun]
            if step.target in table.terminal:
                assert facts, f"{step.source} → {step.target} ends in silence"
